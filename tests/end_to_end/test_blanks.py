"""The blanks of a preset: chips under the prompt, by finger and by keyboard; what they change, and what they leave."""

from __future__ import annotations

from typing import Any

import pytest

import presets
from tests.support.browser_window import BROWSER, Visit
from webui.i18n import LANGUAGES, words

pytestmark = [*BROWSER, pytest.mark.xdist_group("served")]

OWN = next(preset for preset in presets.load() if preset.name == "realistic").attributes.prompt
PROMPT = "document.querySelector('#prompt textarea').value"
CHIP = "#blanks [popovertarget=blank-{}]"
OPTION = "#blank-{} [data-option={}]"


def pick(window: Visit, name: str = "realistic") -> None:
    window.page.click(f"[data-preset={name}]")
    window.page.wait_for_selector("#blanks .blanks button")


def take(window: Visit, blank: str, option: str) -> None:
    window.page.click(CHIP.format(blank))
    window.page.click(OPTION.format(blank, option))


def until_words(window: Visit, text: str) -> None:
    window.page.wait_for_function(f"text => {PROMPT} === text", arg=text)


def shown(window: Visit, blank: str) -> str:
    return window.page.inner_text(CHIP.format(blank)).replace("▾", "").strip()


def test_a_tap_changes_the_words_and_the_same_tap_gives_them_back(visit: Visit) -> None:
    assert visit.page.locator("#blanks button").count() == 0, "nothing is picked"
    pick(visit)
    until_words(visit, OWN["zh"])
    assert shown(visit, "background") == "背景 灰色"
    take(visit, "background", "blue")
    until_words(visit, OWN["zh"].replace("灰色背景", "蓝色背景"))
    visit.page.wait_for_function(f"document.querySelector('{CHIP.format('background')} b').textContent === '蓝色'")
    take(visit, "glasses", "round")
    until_words(visit, OWN["zh"].replace("灰色背景", "蓝色背景") + "，戴圆框眼镜")
    take(visit, "background", "blue")
    until_words(visit, OWN["zh"] + "，戴圆框眼镜")
    take(visit, "glasses", "round")
    until_words(visit, OWN["zh"])


def test_a_prompt_by_hand_keeps_all_but_the_words_of_the_blank(visit: Visit) -> None:
    pick(visit)
    visit.page.fill("#prompt textarea", "棕色波浪长发的女孩，站在雨里，灰色背景！")
    visit.page.wait_for_selector(CHIP.format("age_woman"), state="detached")
    take(visit, "hair_colour", "pink")
    until_words(visit, "粉色波浪长发的女孩，站在雨里，灰色背景！")
    visit.page.fill("#prompt textarea", "一只猫")
    visit.page.wait_for_selector("#blanks button", state="detached")
    assert visit.page.locator("#blanks").is_hidden()


def test_another_preset_has_its_own_blanks_and_an_own_one_none(visit: Visit) -> None:
    pick(visit)
    visit.page.click("[data-preset=business]")
    visit.page.wait_for_selector(CHIP.format("hair_man"))
    assert visit.page.locator(CHIP.format("hair_woman")).count() == 0
    visit.page.click("#presets [data-save]")
    visit.page.locator("dialog[open] [type=submit]").click()
    visit.page.wait_for_function("document.activeElement.dataset.own !== undefined")
    visit.page.keyboard.press("Enter")  # what was saved are words, and not the card that they came from
    visit.page.wait_for_selector("#blanks button", state="detached")
    assert visit.page.evaluate(PROMPT) != ""
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("Enter")
    visit.page.click("dialog[open] [data-delete]")


def test_a_reload_keeps_the_choice_and_a_switch_of_languages_renames_it(visit: Visit) -> None:
    pick(visit)
    take(visit, "background", "forest")
    text = OWN["zh"].replace("灰色背景", "森林背景")
    until_words(visit, text)
    visit.page.wait_for_timeout(500)  # until the browser has stored it
    visit.open()
    until_words(visit, text)
    visit.page.wait_for_selector(CHIP.format("background"))
    assert shown(visit, "background") == "背景 森林"
    for tag, title in (("en", "Background Forest"), ("zh-TW", "背景 森林")):
        with visit.page.expect_navigation():
            visit.page.select_option("#language", tag)
        visit.page.wait_for_selector(CHIP.format("background"))
        assert shown(visit, "background") == title
        until_words(visit, text)
        take(visit, "background", "beach")
        until_words(visit, OWN["zh"].replace("灰色背景", "海边背景"))
        take(visit, "background", "forest")
        until_words(visit, text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_by_keyboard_alone_with_names_for_those_who_do_not_see(browser: Any, base: str, language: str) -> None:
    say = words(language)
    window = Visit(browser, base, locale=say.tag)
    page = window.page
    pick(window)
    page.focus("#prompt textarea")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('popovertarget')") == "blank-age_woman"
    assert page.get_by_role("toolbar", name=say("blanks")).count() == 1
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    title = say.choose({"zh": "背景", "en": "Background"})
    assert page.evaluate("document.activeElement.textContent").startswith(title)
    page.keyboard.press("Enter")
    page.get_by_role("listbox", name=title).wait_for()
    page.wait_for_function("document.activeElement.dataset.option === 'grey'")
    assert page.locator("#blanks").get_by_role("option", selected=True).count() == 1
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is seen"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    page.wait_for_function("document.activeElement.getAttribute('popovertarget') === 'blank-background'")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.dataset.option === 'grey'")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    window.page.wait_for_function(f"/樱花背景|cherry blossom background/.test({PROMPT})")
    page.wait_for_function("document.activeElement.getAttribute('popovertarget') === 'blank-background'")
    page.keyboard.press("Tab")
    assert page.evaluate("!document.activeElement.closest('#blanks')"), "Tab leads to the row once"
    assert window.complaints == []
    window.close()


@pytest.mark.parametrize(
    ("width", "height", "locale"),
    [(360, 640, "en-US"), (390, 844, "zh-CN"), (1024, 600, "en-US"), (1024, 600, "zh-CN"), (1280, 720, "en-US")],
)
def test_the_next_step_stays_in_sight_and_fingers_hit(
    browser: Any, base: str, width: int, height: int, locale: str
) -> None:
    phone = width < 768
    window = Visit(browser, base, locale=locale, width=width, height=height, touch=phone)
    page = window.page
    for name in ("realistic", "hanfu"):
        pick(window, name)
        page.wait_for_timeout(500)
        box = page.locator("#generate").bounding_box()
        assert box and box["y"] + box["height"] <= height, "it is in the first window, not below"
    assert not window.scrolls_sideways()
    page.click(CHIP.format("background"))
    small = """() => [...document.querySelectorAll('#blanks button')].filter((button) => button.checkVisibility())
      .filter((button) => button.offsetHeight < 44 || button.offsetWidth < 44).length"""
    assert page.evaluate(small) == 0
    sheet = page.locator("#blank-background").bounding_box()
    assert sheet and sheet["x"] >= 0 and sheet["x"] + sheet["width"] <= width
    assert sheet["y"] >= 0 and sheet["y"] + sheet["height"] <= height + 1
    assert not phone or sheet["y"] + sheet["height"] >= height - 1, "under the thumb"
    page.mouse.click(width / 2, 100)  # beside it
    page.wait_for_selector("#blank-background", state="hidden")
    assert not window.scrolls_sideways()
    window.close()


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_chips_that_come_back_on_a_reload_move_nothing(browser: Any, base: str, width: int, height: int) -> None:
    """There is room for them from the start: where the row stands next to nothing moves when they come."""
    window = Visit(browser, base, width=width, height=height, touch=width < 768)
    page = window.page
    pick(window)
    page.wait_for_timeout(1000)
    page.add_init_script("""new MutationObserver(() => {
      const row = document.querySelector('#blanks .blanks');
      if (row && !window.heights) {
        window.heights = [];
        new ResizeObserver(() => window.heights.push(document.querySelector('#blanks').offsetHeight)).observe(
          document.querySelector('#blanks'));
      }
    }).observe(document, { subtree: true, childList: true });""")
    page.reload()
    page.wait_for_selector("#blanks .blanks button")
    page.wait_for_timeout(500)
    heights = page.evaluate("window.heights")
    assert heights and max(heights) - min(heights) <= 1, heights
    window.close()
