"""A person's own presets in a real browser: saved, there after a reload, pressed, renamed, deleted and taken back."""

from __future__ import annotations

from pathlib import Path

import presets
from tests.support.browser_window import BROWSER, Visit

pytestmark = BROWSER
WORDS = "戴眼镜的长发女孩,蓝色背景"
NAME = "<b>外婆</b>最喜欢的蓝色背景与红帽子的好看照片挂在客厅的墙上"
DROP = """text => {
  const box = new DataTransfer();
  box.items.add(new File([text], "a.toml"));
  document.querySelector('#presets .cards').dispatchEvent(
    new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: box }));
}"""
FOCUSED = "document.activeElement.dataset"


def titles(visit: Visit) -> list[str]:
    return visit.page.locator("#presets [data-own] b").all_inner_texts()


def test_an_own_preset_from_the_first_to_the_last(browser, base: str, tmp_path: Path) -> None:
    visit = Visit(browser, base, width=390, height=844, touch=True)
    page = visit.page
    save = page.locator("#presets [data-save]")
    page.locator("#presets [data-import]").wait_for()
    assert not save.is_visible(), "there is nothing to save yet"
    visit.more()
    visit.enter("#steps input[type=number]", "3")
    visit.generate(WORDS)
    visit.until("done")

    save.click()
    name = page.locator("dialog[open] [name=name]")
    assert name.input_value() == "戴眼镜的长发女孩", "the first words"
    page.locator("dialog[open] [type=submit]").click()
    own = page.locator("#presets [data-own]")
    own.wait_for()
    assert titles(visit) == ["戴眼镜的长发女孩"]
    page.wait_for_function(f"{FOCUSED}.own !== undefined")
    page.wait_for_function("document.querySelector('#presets [data-own] img').naturalWidth > 0")

    visit.open()
    own.wait_for()
    page.fill("#prompt textarea", "")
    save.wait_for(state="hidden")
    assert page.locator("#presets .cards [tabindex='0']").count() == 1, "Tab leads to them once"
    page.locator("#quality input[value=high]").check()
    own.click()
    page.wait_for_function("words => document.querySelector('#prompt textarea').value === words", arg=WORDS)
    page.wait_for_function("document.querySelector('#steps input[type=number]')?.value !== '16'")
    assert own.get_attribute("aria-pressed") == "true"

    # By keys alone: the menu is one arrow further, Escape leads back to where one was.
    own.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(f"{FOCUSED}.manage") == own.get_attribute("data-own")
    page.keyboard.press("Enter")
    name = page.locator("dialog[open] [name=name]")
    name.wait_for()
    page.keyboard.press("Escape")
    page.wait_for_function(f"{FOCUSED}.manage !== undefined")
    page.keyboard.press("Enter")
    name.fill(NAME)
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#presets [data-own] b')?.textContent.startsWith('<b>外婆</b>')")
    assert own.get_attribute("aria-pressed") == "true", "what is chosen stays chosen"

    menu = page.locator("#presets [data-manage]")
    size = menu.bounding_box()
    assert size and min(size["width"], size["height"]) >= 44
    menu.click()
    with page.expect_download() as download:
        page.click("dialog[open] [data-export]")
    assert download.value.suggested_filename == "b_外婆__b_" + NAME[9:] + ".toml"
    file = tmp_path / "exported.toml"
    download.value.save_as(file)
    exported = presets.parse(file.read_text(encoding="utf-8"), "x")
    assert (exported.natural.prompt["zh"], exported.steps, exported.bundle) == (WORDS, 3, "portrait")

    menu.click()
    for button in page.locator("dialog[open] .actions > *").all():
        size = button.bounding_box()
        assert size and size["height"] >= 44 and size["x"] >= 0 and size["x"] + size["width"] <= 390
    page.click("dialog[open] [data-delete]")
    undo = page.locator("#presets .undo button")
    undo.wait_for()
    size = undo.bounding_box()
    assert size and size["height"] >= 44 and size["x"] + size["width"] <= 390, "however long the name is"
    assert titles(visit) == [] and page.evaluate("document.activeElement !== document.body")
    undo.click()
    own.wait_for()
    assert titles(visit) == [NAME]

    page.set_input_files("#presets input[type=file]", file)
    page.wait_for_function("document.querySelectorAll('#presets [data-own]').length === 2")
    page.evaluate(DROP, file.read_text(encoding="utf-8"))
    page.wait_for_function("document.querySelectorAll('#presets [data-own]').length === 3")
    (tmp_path / "photo.toml").write_bytes(b"\x89PNG\r\n" + bytes(40_000))
    page.set_input_files("#presets input[type=file]", tmp_path / "photo.toml")
    page.get_by_text("不能用作预设").first.wait_for()
    assert len(titles(visit)) == 3 and not visit.scrolls_sideways() and visit.complaints == []
    visit.close()
