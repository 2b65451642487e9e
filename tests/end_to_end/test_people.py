"""People in real browsers: a password at the door, guests, one's own pictures, the album, and a screen for several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser_window import BROWSER, PATIENCE_MS, Visit, served

pytestmark = BROWSER
PASSWORD, ELSEWHERE = "open sesame", "http://elsewhere.example/"
STUDIO = "#generate"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A house with a password."""
    with served(tmp_path_factory.mktemp("closed"), STUDIO_PASSWORD=PASSWORD) as url:
        yield url


@pytest.fixture
def people(browser) -> Iterator[Any]:
    """people(): one more person, with a browser of her own; a page of it, and what that complained of."""
    contexts = []

    def arrive() -> Any:
        contexts.append(browser.new_context(locale="en-US", viewport={"width": 1280, "height": 900}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        return page

    yield arrive
    for context in contexts:
        context.close()


def enter(page: Any, password: str) -> None:
    page.fill("input[type=password]", password)
    page.click("button")


def role(page: Any) -> str:
    page.wait_for_function("document.documentElement.dataset.role")
    return str(page.evaluate("document.documentElement.dataset.role"))


def test_the_password_then_a_link_from_elsewhere_then_a_guest(closed: str, people: Any) -> None:
    owner = people()
    owner.goto(closed)
    enter(owner, "a guess")
    owner.wait_for_selector(".wrong")
    enter(owner, PASSWORD)
    owner.wait_for_selector(STUDIO)
    assert role(owner) == "owner"

    owner.route(ELSEWHERE, lambda route: route.fulfill(body=f'<a href="{closed}">x</a>', content_type="text/html"))
    owner.goto(ELSEWHERE)
    owner.click("a")  # comes without the cookie, which is for our own pages alone
    owner.wait_for_selector(STUDIO)
    assert role(owner) == "owner"

    owner.click("a.owners-only")
    link = owner.inner_text("code")
    guest = people()
    guest.goto(closed + "/join/" + link.rpartition("/")[2])
    guest.wait_for_selector(STUDIO)  # the welcome leads on by itself
    assert role(guest) == "guest"
    guest.locator("#tabs > .tab-wrapper [role=tab]").nth(3).click()
    guest.wait_for_selector(".guests-only")
    assert not guest.locator("#build-panel").is_visible() and not guest.locator("a.owners-only").is_visible()

    owner.click("button.quiet")
    owner.wait_for_selector("input[type=password]")


def test_pictures_are_ones_own_until_they_are_shared(browser, base: str) -> None:
    mine, other = Visit(browser, base), Visit(browser, base)
    try:
        mine.generate("a woman")
        mine.page.wait_for_selector("#stage .stage.is-done")
        picture = mine.page.get_attribute("#stage .frame img", "src")
        for window in (mine, other):
            window.tab(2)
        mine.page.wait_for_selector(f'#history a[href="{picture}"] img')
        other.page.wait_for_selector("#history .note")
        mine.page.locator("#history .menu summary").first.click()
        mine.page.click("#history [data-share]")
        mine.page.wait_for_selector("#history [data-unshare]", state="attached")
        other.page.locator("#collection label").nth(1).click()
        other.page.wait_for_selector(f'#history a[href="{picture}"] img')
        assert "a woman" not in other.page.inner_text("#history")
        assert mine.complaints == other.complaints == []
    finally:
        mine.close()
        other.close()


def test_what_a_closed_page_has_asked_for_is_under_pictures(browser, base: str) -> None:
    """The owner pauses the queue, asks for a picture, closes the page, comes back, and lets it go on."""
    window = Visit(browser, base)
    try:
        assert window.context.request.post(f"{base}/queue/pause").ok
        window.generate("a woman who waits")
        window.page.wait_for_selector("#stage .stage.is-running")
        window.page.goto("about:blank")
        window.page.goto(base)
        window.tab(2)
        window.page.wait_for_selector("#jobs li.is-queued")
        assert "a woman who waits" in window.page.inner_text("#jobs")
        window.page.click("#jobs [data-act=resume]")
        window.page.wait_for_selector("#history article")  # without another press
        window.page.wait_for_selector("#jobs section", state="detached")
        assert window.complaints == []
    finally:
        window.context.request.post(f"{base}/queue/resume")
        window.close()


def test_a_shared_screen_forgets_who_has_gone(browser, base: str) -> None:
    window = Visit(browser, base, start="/?idle=0.2")
    try:
        window.generate("a man")
        window.page.wait_for_selector("#stage .stage.is-done")
        (before,) = window.context.cookies()
        window.page.wait_for_selector(".leaving")
        window.page.mouse.click(5, 5)  # still here
        window.page.wait_for_selector(".leaving", state="detached")
        window.page.wait_for_selector(".leaving")
        window.page.wait_for_selector("#stage .stage.is-idle")
        (after,) = window.context.cookies()
        assert after["value"] != before["value"] and after["httpOnly"] and after["sameSite"] == "Strict"
    finally:
        window.close()
