"""A PNG dropped into the page, in headless Chromium: its recipe is read there, and the very picture comes of it."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from tests.support.browser_window import BROWSER, Visit, pixels

pytestmark = BROWSER
DROP = """([selector, name, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)), box = new DataTransfer();
  box.items.add(new File([bytes], name, { type: "image/png" }));
  const options = { bubbles: true, cancelable: true, dataTransfer: box }, target = document.querySelector(selector);
  const over = new DragEvent("dragover", options), drop = new DragEvent("drop", options);
  target.dispatchEvent(over);
  target.dispatchEvent(drop);
  return [over.defaultPrevented, drop.defaultPrevented];
}"""
CHINESE = "一只猫,戴着帽子\nNegative prompt: 模糊\nSteps: 20, Sampler: Euler, Seed: 7, Size: 512x768, Model: 梦"


def drop(window: Visit, data: bytes, on: str = "#header", name: str = "a.png") -> list[bool]:
    return list(window.page.evaluate(DROP, [on, name, base64.b64encode(data).decode()]))


@pytest.fixture(scope="module")
def window(browser, base: str) -> Iterator[Visit]:
    opened = Visit(browser, base)
    yield opened
    opened.close()


def test_a_picture_of_ours_is_drawn_again_to_the_pixel(window: Visit, home: Path) -> None:
    window.more()
    window.enter("#steps input[type=number]", "3")
    window.enter("#seed input", "1234")
    window.enter("#variety input[type=number]", "40")
    window.generate("a woman with green eyes")
    window.until("done")
    first = window.picture().name
    window.page.fill("#prompt textarea", "somebody else")
    window.enter("#steps input[type=number]", "7")
    window.enter("#seed input", "-1")
    window.enter("#variety input[type=number]", "0")
    window.tab(2)
    assert drop(window, (home / "outputs" / first).read_bytes()) == [True, True], "the browser does not leave"
    window.page.wait_for_selector("#recipe .note")
    assert "同一张图" in window.page.inner_text("#recipe .note")
    assert window.page.input_value("#prompt textarea") == "a woman with green eyes"
    assert window.page.input_value("#steps input[type=number]") == "3"
    assert window.page.input_value("#variety input[type=number]") == "40"
    window.page.click("#generate")
    window.page.wait_for_selector(f"#stage .stage.is-done .frame img:not([src*='{first}'])")
    assert window.page.locator("#recipe .note").count() == 0, "it is said of what is to be drawn"
    again = window.picture().name
    assert again != first and (pixels(home / "outputs" / again) == pixels(home / "outputs" / first)).all()


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def png(*chunks: bytes) -> bytes:
    """A picture of a pixel with chunks before its pixels."""
    data = io.BytesIO()
    Image.new("RGB", (1, 1)).save(data, "PNG")
    whole = data.getvalue()
    return whole[:33] + b"".join(chunks) + whole[33:]


def written(compressed: bool) -> bytes:
    info, data = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_itxt("parameters", CHINESE, zip=compressed)
    Image.new("RGB", (2, 2)).save(data, "PNG", pnginfo=info)
    return data.getvalue()


LATIN = b"a cat\nSteps: 20, Seed: 7, Size: 512x768, Model: dream"


@pytest.mark.parametrize(
    ("data", "prompt"),
    [
        (written(False), "一只猫,戴着帽子"),
        (written(True), "一只猫,戴着帽子"),
        (png(chunk(b"tEXt", b"Title\0other"), chunk(b"tEXt", b"parameters\0" + LATIN)), "a cat"),
        (png(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(LATIN))), "a cat"),
    ],
    ids=["iTXt", "iTXt compressed", "tEXt", "zTXt"],
)
def test_every_way_in_which_png_holds_text(window: Visit, data: bytes, prompt: str) -> None:
    window.page.fill("#prompt textarea", "")
    drop(window, data)
    window.page.wait_for_function("prompt => document.querySelector('#prompt textarea').value === prompt", arg=prompt)
    assert "别的程序" in window.page.inner_text("#recipe .note")


NO_RECIPES = {
    "no picture": b"no picture at all",
    "no text": png(),
    "cut off": png(chunk(b"tEXt", b"parameters\0" + LATIN))[:60],
    "a bomb": png(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * 50_000_000))),
    "a lie about its length": png()[:33] + (2**32 - 1).to_bytes(4) + b"tEXtparameters\0x",
    "damaged": png(chunk(b"zTXt", b"parameters\0\0" + b"\x78\x9cnothing")),
}


@pytest.mark.parametrize("data", NO_RECIPES.values(), ids=NO_RECIPES)
def test_of_what_has_no_recipe_one_is_told(window: Visit, data: bytes) -> None:
    window.page.fill("#prompt textarea", "mine")
    drop(window, data)
    toast = window.page.locator(".toast-body", has_text="没有配方")
    toast.first.wait_for()
    assert window.page.input_value("#prompt textarea") == "mine"
    window.page.locator(".toast-close").first.click()
    toast.first.wait_for(state="detached")
    assert window.complaints == []


def test_what_is_dropped_into_a_box_for_photos_is_a_photo(window: Visit) -> None:
    window.tab(1)
    window.page.wait_for_selector("#photo input[type=file]", state="attached")
    drop(window, written(False), "#photo button, #photo [role=button], #photo .wrap")
    window.page.wait_for_selector("#photo img")
    assert window.page.locator("#tabs [data-tab-id=restore][aria-selected=true]").count() == 1
    window.tab(0)


def test_a_phone_chooses_the_picture(browser, base: str) -> None:
    phone = Visit(browser, base, width=390, height=844, touch=True)
    try:
        phone.more()
        phone.page.set_input_files("#recipe-file", {"name": "a.png", "mimeType": "image/png", "buffer": written(False)})
        phone.page.wait_for_selector("#recipe .note")
        assert phone.page.input_value("#prompt textarea") == "一只猫,戴着帽子"
        box = phone.page.locator(".picker").bounding_box()
        assert box is not None and box["height"] >= 44
    finally:
        phone.close()
