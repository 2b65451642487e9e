"""How much a browser loads at its first visit, in real Chromium: bytes as they come over the wire, with their heads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import pytest

from tests.support.browser_window import BROWSER, PATIENCE_MS, Visit, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = BROWSER
MOST_BYTES = 370_000
# Of an element: how high it is, and how much room is kept for it before there is anything in it.
ROOM = """(selector) => {
  const element = document.querySelector(selector), height = element.getBoundingClientRect().height;
  element.replaceChildren();
  return [height, element.getBoundingClientRect().height];
}"""


def loaded_bytes(browser: Browser, url: str) -> dict[str, int]:
    """Return how many bytes each address was, in a browser that was never here, until nothing is under way."""
    context = browser.new_context(locale="zh-CN", viewport={"width": 1280, "height": 800})
    page = context.new_page()
    session, addresses, sizes = context.new_cdp_session(page), {}, {}
    session.send("Network.enable")
    session.on("Network.responseReceived", lambda e: addresses.update({e["requestId"]: e["response"]["url"]}))
    session.on("Network.loadingFinished", lambda e: sizes.update({e["requestId"]: e["encodedDataLength"]}))
    page.goto(url)
    page.wait_for_selector("#stage .frame", timeout=PATIENCE_MS)
    page.wait_for_timeout(2000)
    context.close()
    return {f"{addresses.get(key, '')} {key}": size for key, size in sizes.items()}


def test_a_first_visit_is_small(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path) as url:
        loaded_bytes(browser, url)  # after which everything is compressed fully (gradio_patches/frontend.py)
        by_address = loaded_bytes(browser, url)
    largest = sorted(by_address.items(), key=lambda item: -item[1])[:10]
    assert sum(by_address.values()) < MOST_BYTES, f"{sum(by_address.values())} bytes; the largest: {largest}"
    pictures = [address for address in by_address if "/thumbnails/" in address]
    assert 3 <= len(pictures) <= 9  # those of the cards that are in sight, of 14


@pytest.mark.parametrize("locale", ["zh-CN", "zh-TW", "en-US"])
@pytest.mark.parametrize(("width", "height"), [(360, 640), (390, 844), (768, 1024), (1024, 600), (1280, 800)])
def test_what_comes_a_moment_later_has_its_room(
    browser: Browser, base: str, width: int, height: int, locale: str
) -> None:
    """The form must not move under a finger, as it did by a third of a phone's screen at a first visit."""
    phone = width < 768
    window = Visit(browser, base, locale, width, height, touch=phone)
    text = window.page.locator("#introduced").inner_text()
    for selector in ("#header", "#presets", *(("#stage",) if phone else ())):
        taken, free = window.page.evaluate(ROOM, selector)
        assert abs(taken - free) <= 2, selector
    window.close()
    with urlopen(Request(base, headers={"Accept-Language": locale})) as answer:
        assert text and text in answer.read().decode(), "the model's word is in the page from the beginning"
