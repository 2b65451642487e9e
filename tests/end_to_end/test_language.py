"""The language of the page: the browser's, until one is chosen."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.browser_window import BROWSER, Visit
from webui.i18n import words

pytestmark = [*BROWSER, pytest.mark.xdist_group("served")]

TW, EN = words("zh-TW"), words("en")
PROMPT = "a girl with glasses"


def choose(window: Visit, tag: str) -> None:
    with window.page.expect_navigation():
        window.page.select_option("#language", tag)
    window.page.wait_for_selector(f":root[lang={tag}] {window.first}")
    window.page.wait_for_function(f"document.querySelector('#language').value === '{tag}'")


def remembers(window: Visit) -> None:
    """What was written comes back a moment after the page, with the answer to its first question."""
    window.page.wait_for_function(f"document.querySelector('#prompt textarea').value === '{PROMPT}'")


def speaks(window: Visit, say: Any) -> None:
    """In all its parts: Gradio's own words, labels, what the server has written, and what readers of screens say."""
    page = window.page
    page.wait_for_selector(f"#stage .frame:has-text('{say('stage_empty')}')")
    assert page.evaluate("document.documentElement.lang") == say.tag
    assert page.locator("#tabs > .tab-wrapper [role=tab]").first.inner_text() == say("tab_portrait")
    assert page.get_by_label(say("portrait_prompt"), exact=True).is_visible()
    assert page.locator(".banner .tagline").inner_text() == say("tagline")
    assert page.locator("#generate").inner_text() == say("portrait_go")
    assert page.get_by_role("toolbar", name=say("portrait_presets"), exact=True).is_visible()
    assert page.get_by_role("combobox", name=say("language_choose"), exact=True).is_visible()


def test_a_language_that_is_chosen_is_the_whole_pages_and_nothing_is_lost(browser: Any, base: str) -> None:
    window = Visit(browser, base, locale="en-US")
    page = window.page
    speaks(window, EN)
    window.enter("#prompt textarea", PROMPT)
    page.select_option("#language", "zh-TW")  # at once, with nothing in between
    page.wait_for_selector(f":root[lang=zh-TW] {window.first}")
    remembers(window)
    speaks(window, TW)
    (cookie,) = [cookie for cookie in window.context.cookies() if cookie["name"] == "language"]
    assert (cookie["value"], cookie["sameSite"]) == ("zh-TW", "Strict")
    window.tab(1)
    label = page.get_attribute("#photo button[aria-dropeffect]", "aria-label") or ""
    assert "拖放到這裡上傳" in label, "Gradio's own words"
    window.tab(0)
    page.click("#generate")
    window.until("done")
    assert "花了" in page.inner_text("#stage .status"), "what the server says while it draws"
    page.goto(f"{base}/invite")
    assert page.evaluate("document.documentElement.lang") == "zh-TW"
    assert TW("door_back") in page.inner_text("main")
    window.open()
    choose(window, "en")
    remembers(window)
    window.until("done")
    assert "Done in" in page.inner_text("#stage .status"), "the job is still shown"
    window.close()
