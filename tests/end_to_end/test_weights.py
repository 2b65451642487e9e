"""Weights of words at the keyboard, in Chromium: Ctrl+Up and Ctrl+Down, and the picture's recipe has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.browser_window import BROWSER, Visit

pytestmark = BROWSER
BOX = "#prompt textarea"
SELECT = "(box, [from, to]) => { box.focus(); box.setSelectionRange(from, to); }"


def weighed(window: Visit, text: str, selection: tuple[int, int], *keys: str, box: str = BOX) -> tuple[str, str]:
    """What stands there after these keys, and what is selected of it."""
    window.page.fill(box, text)
    window.page.locator(box).evaluate(SELECT, list(selection))
    for key in keys:
        window.page.keyboard.press(f"Control+Arrow{key}")
    value = window.page.input_value(box)
    chosen = window.page.locator(box).evaluate("box => [box.selectionStart, box.selectionEnd]")
    return value, value[slice(*chosen)]


@pytest.fixture(scope="module")
def window(browser, base: str) -> Iterator[Visit]:
    opened = Visit(browser, base)
    yield opened
    opened.close()


CASES = [
    ("女孩,微笑,红发", (3, 5), ["Up"], "女孩,(微笑:1.1),红发", "微笑"),
    ("女孩,微笑,红发", (3, 5), ["Up"] * 3 + ["Down"], "女孩,(微笑:1.2),红发", "微笑"),
    ("女孩,微笑,红发", (4, 4), ["Down"], "女孩,(微笑:0.9),红发", "微笑"),
    ("女孩,微笑,红发", (3, 5), ["Up", "Down"], "女孩,微笑,红发", "微笑"),
    ("a woman, long red hair", (9, 22), ["Up"], "a woman, (long red hair:1.1)", "long red hair"),
    ("a woman, long red hair", (8, 22), ["Up"], "a woman, (long red hair:1.1)", "long red hair"),
    ("(long red hair:1.25), hat", (7, 7), ["Up"], "(long red hair:1.35), hat", "long red hair"),
    ("(long red hair:1.25), hat", (0, 20), ["Down"] * 2, "(long red hair:1.05), hat", "long red hair"),
    ("(hat)", (1, 4), ["Up"], "(hat:1.2)", "hat"),
    ("（微笑：1.3），帽子", (2, 2), ["Up"], "(微笑:1.4)，帽子", "微笑"),
    ("女孩（微笑）", (3, 5), ["Up"], "女孩（(微笑:1.1)）", "微笑"),
    (r"\(hat\)", (2, 5), ["Up"], r"\((hat:1.1)\)", "hat"),
    ("hat", (0, 3), ["Down"] * 12, "(hat:0)", "hat"),
    ("hat", (0, 3), ["Up"] * 12, "(hat:2)", "hat"),
    ("a,  b", (3, 3), ["Up"], "a,  b", ""),
    ("", (0, 0), ["Up"], "", ""),
]


@pytest.mark.parametrize(("text", "selection", "keys", "value", "chosen"), CASES)
def test_the_words_meant_are_weighed(
    window: Visit, text: str, selection: tuple[int, int], keys: list[str], value: str, chosen: str
) -> None:
    assert weighed(window, text, selection, *keys) == (value, chosen)


def test_other_keys_and_other_boxes_are_as_ever(visit: Visit) -> None:
    visit.more()
    assert weighed(visit, "帽子,眼镜", (0, 2), "Up", box="#negative textarea")[0] == "(帽子:1.1),眼镜"
    assert weighed(visit, "hat", (0, 3))[0] == "hat"
    visit.page.keyboard.press("ArrowUp")
    assert visit.page.input_value(BOX) == "hat"
    weighed(visit, "hat", (0, 3), "Up")
    visit.page.keyboard.press("Control+z")
    assert visit.page.input_value(BOX) == "hat"


def test_what_was_weighed_is_drawn_and_stands_in_the_recipe(visit: Visit, home: Path) -> None:
    visit.more()
    visit.enter("#steps input[type=number]", "2")
    assert weighed(visit, "a woman, 龙 hat", (11, 14), "Up", "Up")[0] == "a woman, 龙 (hat:1.2)"
    visit.page.wait_for_function("document.querySelector('#introduced')?.innerText.includes('它不认识:龙')")
    visit.page.keyboard.press("Control+Enter")
    visit.until("done")
    with Image.open(home / "outputs" / visit.picture().name) as image:
        assert image.info["parameters"].startswith("a woman, 龙 (hat:1.2)\nSteps: 2,")
    visit.open()
    visit.page.wait_for_function("document.querySelector('#prompt textarea').value.includes('(hat:1.2)')")
    assert visit.complaints == []
