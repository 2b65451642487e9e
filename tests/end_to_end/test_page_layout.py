"""Where things stand on the page, at every size of window; and what outlives a reload, a restart and a hasty finger."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser_window import BROWSER, Visit, begin, serve, until_ready
from tests.support.http import people

pytestmark = [*BROWSER, pytest.mark.xdist_group("served")]

SIZES = [(360, 640), (390, 844), (768, 1024), (1024, 600), (1280, 720), (1920, 1080), (2560, 1440)]
PROMPT = "portrait of a woman, red hair"


def seen(window: Visit, selector: str) -> float:
    """What share of an element that lies in the window is under nothing else; 0: it reaches beyond."""
    share = """(selector) => {
      const element = document.querySelector(selector), { x, y, width, height } = element.getBoundingClientRect();
      if (x < 0 || y < 0 || x + width > innerWidth || y + height > innerHeight) return 0;
      const at = [0.1, 0.3, 0.5, 0.7, 0.9]; // within its round corners
      const points = at.flatMap((i) => at.map((j) => document.elementFromPoint(x + i * width, y + j * height)));
      return points.filter((point) => point && element.contains(point)).length / points.length;
    }"""
    return float(window.page.evaluate(share, selector))


def test_a_restoration_that_is_over_at_once_is_in_sight(browser: Any, base: str, tmp_path: Path) -> None:
    """The second of the same photo is remembered: nothing runs that a phone could go to."""
    people(2).save(tmp_path / "people.png")
    for _ in range(4):
        window = Visit(browser, base, width=390, height=844, touch=True, start="/?tab=restore", first="#restore-start")
        window.page.set_input_files("#photo input[type=file]", tmp_path / "people.png")
        window.page.wait_for_selector("#restore-advice .advice")
        window.page.click("#restore-start")
        window.until("done", "#restore-stage")
        window.page.wait_for_timeout(1000)
        window.rest()
        assert seen(window, "#restore-stage [download]") == 1
        window.close()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_what_is_next_and_what_came_of_it_are_in_sight_without_scrolling(
    browser: Any, base: str, width: int, height: int
) -> None:
    window = Visit(browser, base, width=width, height=height)
    page = window.page
    for selector in ("#prompt textarea", "#generate", "[data-preset]"):
        assert seen(window, selector) == 1, f"{selector} before anything is pressed"
    window.generate(PROMPT)
    page.wait_for_selector("#stage .badge")
    assert seen(window, "#generate") == 1, "it cancels now"
    window.until("done")
    window.rest()
    for selector in ("#stage .frame", "#stage .status", "#stage a[download]", "#generate"):
        assert seen(window, selector) == 1, f"{selector} in the end"
    box = page.locator("#stage .frame img").bounding_box()
    assert box and min(box["width"], box["height"]) >= 0.44 * min(width, height), "and it is large"
    assert not window.scrolls_sideways()
    window.close()


def test_what_a_finger_is_to_touch_is_large_enough(browser: Any, base: str) -> None:
    window = Visit(browser, base, width=390, height=844, touch=True)
    window.generate(PROMPT)
    window.until("done")
    touched = "button, a, summary, [role=tab], input:not([type=radio], [type=checkbox])"
    small = f"""() => [...document.querySelectorAll('{touched}')]
      .filter((element) => element.checkVisibility() && element.offsetHeight > 1)
      .filter((element) => element.offsetHeight < 44)
      .map((element) => [element.tagName, element.id, element.className, element.offsetHeight].join(' '))"""
    for number in range(4):
        window.tab(number)
        window.page.wait_for_timeout(400)
        assert window.page.evaluate(small) == [], f"tab {number}"
    window.close()


def test_a_double_click_begins_one_picture_and_cancels_none(visit: Visit) -> None:
    visit.page.fill("#prompt textarea", PROMPT)
    visit.page.dblclick("#generate", delay=30)
    visit.page.wait_for_selector("#generate[data-step=cancel]")
    visit.page.locator("#generate").dispatch_event("click")  # as fast as only a machine is
    visit.until("done")
    assert visit.page.evaluate("document.activeElement.id") == "generate", "what has the focus keeps it"


def test_a_press_that_comes_as_the_job_ends_begins_no_other(visit: Visit) -> None:
    """It was meant to cancel."""
    visit.generate(PROMPT)
    hasty = (
        "document.querySelector('#generate[data-step=begin]') && (document.querySelector('#generate').click(), true)"
    )
    visit.page.wait_for_selector("#generate[data-step=cancel]")
    visit.page.wait_for_function(hasty)
    visit.until("done")
    visit.page.wait_for_timeout(1000)
    assert visit.page.get_attribute("#generate", "data-step") == "begin"
    assert visit.page.locator("#stage .stage.is-done").count() == 1


def test_a_press_that_is_answered_after_the_job_has_ended_leaves_the_button_alive(visit: Visit) -> None:
    """The answer to *cancel* and the job's end come by different ways; a button that went on cancelling was dead."""
    words = visit.page.inner_text("#generate")
    visit.page.evaluate("""async () => {
      const button = document.querySelector('#generate'), moment = () => new Promise((done) => setTimeout(done, 50));
      const begin = button.innerHTML;
      for (const step of ['cancel', 'begin', 'cancelling']) { // as the server sends them
        Object.assign(button, { innerHTML: step === 'begin' ? begin : step, ariaDisabled: step === 'cancelling' });
        button.dataset.step = step;
        await moment();
      }
    }""")
    visit.generate(PROMPT)
    visit.until("done")
    visit.page.wait_for_selector("#generate[data-step=begin][aria-disabled=false]")
    assert visit.page.inner_text("#generate") == words


def test_a_page_that_is_loaded_anew_is_as_it_was_left(visit: Visit) -> None:
    visit.enter("#prompt textarea", "a lady with a parasol")
    visit.enter("#count input[type=number]", "3")
    visit.page.locator("#quality input[value=fast]").check()
    visit.page.wait_for_function("document.querySelector('#steps input[type=number]')?.value !== '8'")
    visit.open()
    visit.page.wait_for_function("document.querySelector('#prompt textarea').value === 'a lady with a parasol'")
    visit.page.wait_for_function("document.querySelector('#count input[type=number]').value === '3'")
    visit.page.wait_for_selector("#quality input[value=fast]:checked")
    visit.more()
    assert visit.page.locator("#steps input[type=number]").input_value() == "4"


def test_steps_and_quality_say_the_same(visit: Visit) -> None:
    visit.more()
    visit.enter("#steps input[type=number]", "16")
    visit.page.wait_for_selector("#quality input[value=high]:checked")
    visit.enter("#steps input[type=number]", "11")
    visit.page.wait_for_selector("#quality input:checked", state="detached")
    visit.page.locator("#quality input[value=standard]").check()
    visit.page.wait_for_function("document.querySelector('#steps input[type=number]').value === '8'")
    visit.page.wait_for_timeout(300)  # until each has had its say
    assert visit.page.locator("#quality input:checked").input_value() == "standard"


def test_the_tab_is_in_the_address_and_back_leads_to_the_one_before(visit: Visit) -> None:
    page = visit.page
    chosen = "#tabs > .tab-wrapper [role=tab][aria-selected=true][data-tab-id={}]"
    visit.tab(1)
    page.wait_for_url("**/?tab=restore")
    visit.tab(2)
    page.wait_for_url("**/?tab=history")
    page.go_back()
    page.wait_for_selector(chosen.format("restore"))
    page.reload()
    page.wait_for_selector(chosen.format("restore"))
    page.go_back()
    page.wait_for_selector(chosen.format("portrait"))
    assert page.url.rstrip("/") == visit.base


def test_a_first_picture_takes_eight_keys(visit: Visit) -> None:
    page, keys = visit.page, 0
    page.locator("body").focus()
    while page.evaluate("document.activeElement.dataset.preset") is None:
        page.keyboard.press("Tab")
        keys += 1
        assert keys < 9, "no card was reached"
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#prompt textarea').value !== ''")
    page.keyboard.press("Control+Enter")
    assert keys + 2 <= 8
    visit.until("done")


def test_arrows_lead_from_card_to_card(visit: Visit) -> None:
    page = visit.page
    page.locator("#presets [data-import]").wait_for()  # after the built-in ones
    cards = page.locator("#presets .cards button:visible").all_inner_texts()
    page.locator("[data-preset]").first.focus()
    visited = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "ArrowRight", "Home", "ArrowLeft"):
        page.keyboard.press(key)
        visited.append(page.evaluate("document.activeElement.innerText"))
    assert visited == [cards[1], cards[2], cards[1], cards[-1], cards[-1], cards[0], cards[0]]
    assert page.locator("#presets .cards [tabindex='0']").count() == 1, "Tab leads to them once"


def test_a_page_comes_back_with_its_server(browser: Any, tmp_path: Path) -> None:
    """The words are said in its language, and by nobody else; the job goes on, and what was written is still there."""
    server, url = serve(tmp_path)
    try:
        until_ready(url, server)
        window = Visit(browser, url)
        window.enter("#count input[type=number]", "8")
        window.generate(PROMPT)
        window.page.wait_for_selector("#stage .badge")
        server.send_signal(signal.SIGKILL)
        server.wait(30)
        window.page.wait_for_selector(".lost")
        assert "连接已断开" in window.page.inner_text(".lost")
        window.page.wait_for_timeout(1500)
        assert not window.page.locator(".toast-wrap").is_visible()
        server = begin(tmp_path, int(url.rpartition(":")[2]))
        until_ready(url, server)
        window.until("done")
        assert window.page.locator(".lost").count() == 0
        assert "共 8 张" in window.page.inner_text("#stage .status")
        window.page.wait_for_function(f"document.querySelector('#prompt textarea').value === '{PROMPT}'")
        window.close()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def test_while_the_house_is_away_the_browser_says_so(browser: Any, tmp_path: Path) -> None:
    """And shows it again as soon as it is back, at the address that was asked for."""
    server, url = serve(tmp_path)
    try:
        until_ready(url, server)
        window = Visit(browser, url)
        window.page.wait_for_function("navigator.serviceWorker.controller")
        server.send_signal(signal.SIGKILL)
        server.wait(30)
        window.page.goto(f"{url}/?tab=history")
        shown = window.page.inner_text("main")
        assert "没有开机" in shown and "switched off" in shown and "科哥" in shown
        server = begin(tmp_path, int(url.rpartition(":")[2]))
        window.page.wait_for_selector("#tabs [data-tab-id=history][aria-selected=true]")
        window.close()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
