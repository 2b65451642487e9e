"""Photos in the real page in headless Chromium: one, many, none with a face, and what leaves the browser."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import photo_files
from tests.support.browser_window import BROWSER, Visit, pixels, psnr
from tests.support.http import encoded, people, scene
from tests.support.photo_files import SECRETS, TAKEN, private
from tests.support.stored import last_event, last_order

pytestmark = BROWSER
WIDTHS = (1280, 390)


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """A file on the person's own disk."""

    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def choose(visit: Visit, path: Path) -> None:
    visit.tab(1)
    visit.page.set_input_files("#photo input[type=file]", path)
    visit.page.wait_for_selector("#photo img")


def advised(visit: Visit) -> str:
    visit.page.wait_for_selector("#restore-advice .advice")
    return visit.page.inner_text("#restore-advice")


def restore(visit: Visit, state: str = "done") -> None:
    visit.page.click("#restore-start")
    visit.until(state, "#restore-stage")


def strength(visit: Visit) -> str:
    return visit.page.locator("#restore-strength input[type=number]").input_value()


@pytest.mark.parametrize("backend", ["edge", "pytorch"])
def test_a_photo_is_restored_and_compared(visit: Visit, home: Path, put: Any, backend: str) -> None:
    if backend == "pytorch":
        pytest.importorskip("torch", reason="the PyTorch backend is not installed")
    photo = put("奶奶.png", encoded(people(), "PNG"))
    choose(visit, photo)
    visit.lift("restore-output", "#restore-backend")
    visit.backend(backend, "#restore-backend")
    restore(visit)
    name = visit.picture("#restore-stage .compare img:not(.after)").name
    result = visit.page.locator("#restore-stage a[download]").get_attribute("download") or ""
    assert re.fullmatch(r"outputs_\d{14}(_\d{3})?-奶奶\.png", result) and name.startswith("preview_")
    made, source = pixels(home / "outputs" / result), pixels(photo)
    assert made.shape == source.shape
    assert 15 < psnr(made, source) < 60  # changed, and still the same photo
    visit.page.locator("#restore-stage .fits input[type=range]").focus()
    visit.page.keyboard.press("Home")
    style = visit.page.get_attribute("#restore-stage .fits", "style") or ""
    assert style.replace(" ", "").startswith("--at:0%")
    with visit.page.expect_download() as download:
        visit.page.click("#restore-stage a[download]")
    assert Path(download.value.path()).read_bytes() == (home / "outputs" / result).read_bytes()
    assert visit.complaints == []


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844), (1024, 600)])
def test_a_press_that_has_begun_is_not_lost_when_the_advice_comes(
    browser, base: str, put: Any, width: int, height: int
) -> None:
    """What comes of looking at the photo moves nothing that one may just be pressing."""
    visit = Visit(browser, base, width=width, height=height)
    visit.tab(1)
    lid = visit.page.locator("#restore-output > button.label-wrap")
    lid.evaluate("element => element.scrollIntoView({ block: 'center' })")
    visit.rest()
    box = lid.bounding_box()
    visit.page.mouse.move(box["x"] + 60, box["y"] + box["height"] / 2)
    visit.page.mouse.down()
    visit.page.set_input_files("#photo input[type=file]", put("奶奶.png", encoded(people(), "PNG")))
    advised(visit)
    visit.page.mouse.up()
    visit.page.locator("#restore-backend").wait_for()
    assert abs(lid.bounding_box()["y"] - box["y"]) < 1
    visit.close()


def test_the_page_hangs_up_when_the_server_says_farewell(visit: Visit, put: Any) -> None:
    """After an upload too, for whose progress Gradio opens another stream. The server waits."""
    ends: list[str] = []
    visit.page.on("requestfinished", lambda r: ends.append("server") if "/queue/data?" in r.url else None)
    visit.page.on("requestfailed", lambda r: ends.append("page") if "/queue/data?" in r.url else None)
    choose(visit, put("奶奶.png", encoded(people(), "PNG")))
    advised(visit)
    restore(visit)
    visit.page.wait_for_timeout(1500)
    assert ends and set(ends) == {"page"} and visit.complaints == []


BOXES = """[...document.querySelectorAll('#restore-stage .compare :is(img.after, .face)')].map((element) => {
  const { x, y, width, height } = element.getBoundingClientRect();
  return { x, y, width, height };
})"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_the_mark_of_each_face_lies_on_it(browser, base: str, home: Path, put: Any, width: int, shape: str) -> None:
    """Measured on the page: in percent of the picture, not of a box around it."""
    group = people(2)
    group = group if shape == "wide" else group.crop((0, 0, 360, 360)).resize((720, 720))
    canvas = Image.new("RGB", (900, 500) if shape == "wide" else (800, 1600), (120, 130, 140))
    canvas.paste(group, (60, 60))
    visit = Visit(browser, base, width=width)
    choose(visit, put("group.png", encoded(canvas, "PNG")))
    restore(visit)
    visit.page.wait_for_function("document.querySelector('#restore-stage .compare img.after').naturalWidth > 0")
    picture, *marks = visit.page.evaluate(BOXES)  # at one moment: a phone's page may be scrolling
    assert abs(picture["width"] / picture["height"] - canvas.width / canvas.height) < 0.02
    boxes = [face.box for face in last_event(home).faces]
    assert len(marks) == len(boxes) == (2 if shape == "wide" else 1)
    for k, (left, top, *_) in enumerate(boxes):
        mark = marks[k]
        corner = (left * picture["width"], top * picture["height"])
        assert abs(mark["x"] + 0.75 * mark["width"] - picture["x"] - max(corner[0], 18)) < 4
        assert abs(mark["y"] + 0.75 * mark["height"] - picture["y"] - max(corner[1], 18)) < 4
    assert len(re.findall("已修复|已减弱|跳过", visit.page.inner_text("#restore-stage .faces"))) == len(boxes)
    assert not visit.scrolls_sideways()
    visit.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_photo_without_a_face_is_cleaned_or_left_alone_until_one_says_so(
    browser, base: str, home: Path, put: Any, width: int
) -> None:
    visit = Visit(browser, base, width=width)
    choose(visit, put("山.png", encoded(scene(300, 200), "PNG")))
    assert "没有找到人脸" in advised(visit)
    restore(visit)
    assert "没有找到人脸,已清理整张照片" in visit.page.inner_text("#restore-stage .status")
    visit.page.locator("#restore-auto input").uncheck()
    restore(visit, "failed")
    assert "没有找到人脸" in visit.page.inner_text("#restore-stage .status")
    visit.open()  # and the way out is still there
    visit.tab(1)
    button = visit.page.locator("#restore-stage [data-anyway]")
    size = button.bounding_box()
    assert size and size["height"] >= 40 and button.inner_text() == "增强整张照片"
    button.click()
    visit.until("done", "#restore-stage")
    assert last_order(home).whole_picture and last_order(home).name == "山.png"
    top_of = "(it) => document.querySelector(it).getBoundingClientRect().y"
    above = f"((top) => top('#restore-stage') < top('#restore-strength'))({top_of})"
    assert width > 640 or visit.page.evaluate(above), "on a phone the settings come after it"
    assert not visit.scrolls_sideways()
    visit.close()


def test_advice_is_taken_and_settings_are_remembered(visit: Visit, home: Path, put: Any) -> None:
    blurred = people().resize((90, 90)).resize((360, 360))
    choose(visit, put("soft.jpg", encoded(blurred, "JPEG")))
    line = advised(visit)
    wanted = re.search(r"建议:增强强度 (\d+)", line)
    assert "找到 1 张脸" in line and wanted
    for part in ("[data-adopt]", "#restore-strength", "#restore-mode"):
        assert not visit.page.locator(part).is_visible(), "as long as it is taken by itself"
    visit.page.locator("#restore-auto input").uncheck()
    visit.page.click("[data-adopt]")
    visit.page.wait_for_function(
        "value => document.querySelector('#restore-strength input[type=number]').value == value", arg=wanted[1]
    )
    visit.page.locator("#restore-mode input[value=detail]").check()
    visit.lift("restore-output", "#restore-format")
    assert not visit.page.locator("#restore-quality").is_visible(), "of PNG there is no quality to choose"
    visit.page.locator("#restore-format input[value=webp]").check()
    visit.page.wait_for_selector("#restore-quality")
    visit.page.wait_for_timeout(1500)  # until it is remembered
    visit.open()
    visit.tab(1)
    visit.page.wait_for_function(
        "value => document.querySelector('#restore-strength input[type=number]').value == value", arg=wanted[1]
    )
    visit.page.wait_for_selector("#restore-mode input[value=detail]:checked")
    visit.lift("restore-output", "#restore-format")
    visit.page.wait_for_selector("#restore-format input[value=webp]:checked")
    visit.page.wait_for_selector("#restore-quality")  # the server shows it, when it hears of the format
    choose(visit, put("soft.jpg", encoded(blurred, "JPEG")))
    restore(visit)
    assert (last_order(home).strength, last_order(home).mode, last_order(home).format) == (
        int(wanted[1]),
        "detail",
        "webp",
    )
    assert (visit.page.locator("#restore-stage a[download]").get_attribute("download") or "").endswith("-soft.webp")


def test_too_much_strength_is_warned_of(visit: Visit) -> None:
    visit.tab(1)
    visit.page.locator("#restore-auto input").uncheck()
    assert not visit.page.locator("#restore-warning").is_visible()
    visit.enter("#restore-strength input[type=number]", "85")
    visit.page.wait_for_selector("#restore-warning")
    visit.enter("#restore-strength input[type=number]", "80")
    visit.page.wait_for_selector("#restore-warning", state="detached")


# ---- what leaves the browser


def rough(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 255, (height, width, 3), dtype=np.uint8)


def arrived(home: Path, before: set[Path]) -> bytes:
    """The photo as the server got it."""
    (new,) = {path for path in (home / "tmp").rglob("*") if path.is_file()} - before
    return new.read_bytes()


def cached(home: Path) -> set[Path]:
    return {path for path in (home / "tmp").rglob("*") if path.is_file()}


def switch(visit: Visit, on: bool) -> None:
    visit.tab(1)
    visit.lift("restore-output", "#prescale")
    visit.page.locator("#prescale input").set_checked(on)
    visit.page.wait_for_function(f"localStorage.getItem('awportrait-prescale') === '{'on' if on else 'off'}'")


def test_a_large_photo_is_made_smaller_before_it_leaves(visit: Visit, home: Path, put: Any) -> None:
    """And it keeps the time at which it was taken, and nothing else of what the camera wrote."""
    photo = private("JPEG", rough(3200, 2000))
    before = cached(home)
    choose(visit, put("large.jpg", photo))
    visit.page.wait_for_timeout(500)
    got = arrived(home, before)
    with Image.open(io.BytesIO(got)) as image:
        assert (image.format, image.size) == ("JPEG", (2560, 1600))
        assert image.getexif().get_ifd(0x8769) == {0x9003: TAKEN}
    assert len(got) < len(photo) / 2
    assert not [secret for secret in SECRETS if secret in got]
    restore_whole(visit)
    assert last_order(home).name == "large.jpg"


def restore_whole(visit: Visit) -> None:
    visit.page.wait_for_selector("#restore-advice :is([data-whole], [data-adopt])", state="attached")
    restore(visit)  # noise has no face


def test_with_the_switch_off_the_photo_goes_as_it_is(visit: Visit, home: Path, put: Any) -> None:
    photo = private("JPEG", rough(2700, 300))
    switch(visit, on=False)
    visit.open()  # it is remembered
    before = cached(home)
    choose(visit, put("large.jpg", photo))
    visit.page.wait_for_timeout(500)
    assert arrived(home, before) == photo
    visit.lift("restore-output", "#prescale")
    assert not visit.page.locator("#prescale input").is_checked()
    switch_back = visit.page.locator("#prescale input")
    switch_back.check()


SMALL = encoded(Image.fromarray(rough(640, 480)), "JPEG", quality=95)


@pytest.mark.parametrize(
    ("name", "content"),
    [("small.jpg", SMALL), ("torn.jpg", b"\xff\xd8\xff\xe1 torn"), ("words.png", b"hello")],
    ids=["small", "torn", "words"],
)
def test_what_is_small_or_cannot_be_drawn_goes_as_it_is(
    visit: Visit, home: Path, put: Any, name: str, content: bytes
) -> None:
    visit.tab(1)
    before = cached(home)
    visit.page.set_input_files("#photo input[type=file]", put(name, content))
    visit.page.wait_for_selector("#restore-advice p")
    visit.page.wait_for_timeout(500)
    assert arrived(home, before) == content


def test_a_photo_that_the_browser_cannot_draw_is_restored_all_the_same(
    visit: Visit, home: Path, put: Any, tmp_path: Path
) -> None:
    """HEIC, as telephones keep photos: the browser shows its name instead of the picture."""
    photo = photo_files.encoded(people(), "HEIF", quality=90)
    before = cached(home)
    visit.tab(1)
    visit.page.set_input_files("#photo input[type=file]", put("IMG_0001.heic", photo))
    assert "找到 1 张脸" in advised(visit)
    assert arrived(home, before) == photo
    frame = visit.page.wait_for_selector("#photo .cannot-be-shown")
    assert frame and frame.get_attribute("data-name") == "IMG_0001.heic"
    restore(visit)
    assert last_order(home).name == "IMG_0001.heic"


# As a browser on a system that has no type for it hands it over: "chosen" or "dropped".
HANDED = """([way, name, bytes]) => {
  const input = document.querySelector('#photo input[type=file]'), box = new DataTransfer();
  box.items.add(new File([new Uint8Array(bytes)], name, { type: '' }));
  if (way === 'dropped') {
    const how = { bubbles: true, cancelable: true, dataTransfer: box };
    input.closest('button').dispatchEvent(new DragEvent('drop', how));
  } else {
    input.files = box.files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
  }
}"""


@pytest.mark.parametrize("way", ["chosen", "dropped"])
def test_a_photo_without_a_type_is_taken_for_what_it_is(visit: Visit, home: Path, way: str) -> None:
    photo = photo_files.encoded(people(), "HEIF", quality=90)
    visit.tab(1)
    visit.page.evaluate(HANDED, [way, "IMG_0002.HEIC", list(photo)])
    assert "找到 1 张脸" in advised(visit)
    restore(visit)
    assert last_order(home).name == "IMG_0002.HEIC"
    assert visit.page.locator("[data-testid=toast-body]").count() == 0


@pytest.mark.parametrize("way", ["chosen", "dropped"])
def test_of_what_is_no_photo_the_house_says_so_itself(visit: Visit, way: str) -> None:
    visit.tab(1)
    visit.page.evaluate(HANDED, [way, "letter.pdf", list(b"%PDF-1.7 dear grandmother")])
    visit.page.wait_for_function("document.querySelector('#restore-advice').innerText.includes('它是 PDF')")
    assert visit.page.locator("[data-testid=toast-body]").count() == 0


def test_glass_stays_glass(visit: Visit, home: Path, put: Any) -> None:
    """A PNG with transparency stays one; without it, it may become a JPEG."""
    picture = Image.fromarray(rough(2800, 400))
    for alpha, kind in ((True, "PNG"), (False, "JPEG")):
        shown = picture.copy()
        if alpha:
            shown.putalpha(Image.linear_gradient("L").resize(picture.size))
        before = cached(home)
        visit.tab(1)
        visit.open()
        choose(visit, put(f"glass-{alpha}.png", encoded(shown, "PNG")))
        visit.page.wait_for_timeout(700)
        with Image.open(io.BytesIO(arrived(home, before))) as image:
            assert (image.format, image.size, image.has_transparency_data) == (kind, (2560, 366), alpha)


def test_a_photo_that_was_taken_turned_leaves_upright(visit: Visit, home: Path, put: Any) -> None:
    exif = Image.Exif()
    exif[274] = 6
    before = cached(home)
    choose(visit, put("turned.jpg", encoded(Image.fromarray(rough(3000, 1500)), "JPEG", quality=95, exif=exif)))
    visit.page.wait_for_timeout(500)
    with Image.open(io.BytesIO(arrived(home, before))) as image:
        assert image.size == (1280, 2560) and not image.getexif()


DROP = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  const target = document.querySelector('#photo button, #photo .wrap');
  for (const kind of ['dragenter', 'dragover', 'drop'])
    target.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
}"""


def test_a_photo_that_is_dropped_is_made_smaller_too(visit: Visit, home: Path) -> None:
    visit.tab(1)
    before = cached(home)
    photo = base64.b64encode(encoded(Image.fromarray(rough(2600, 500)), "JPEG", quality=95)).decode()
    visit.page.evaluate(DROP, ["dropped.jpg", "image/jpeg", photo])
    visit.page.wait_for_selector("#photo img")
    visit.page.wait_for_timeout(500)
    with Image.open(io.BytesIO(arrived(home, before))) as image:
        assert image.size == (2560, 492)


# ---- many


def many(visit: Visit, paths: list[Path]) -> None:
    visit.tab(1)
    visit.page.locator("#photo-tabs [role=tab]").nth(1).click()
    visit.page.locator("[data-tab-id=many][aria-selected=true]").wait_for()
    assert not visit.page.locator("#photo-stage").is_visible(), "it stands beside the other tab"
    visit.page.set_input_files("#batch-files input[type=file]", paths)
    visit.page.wait_for_function(f"document.querySelectorAll('#batch-files tr.file').length == {len(paths)}")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_batch_with_a_broken_file(browser, base: str, home: Path, put: Any, width: int) -> None:
    visit = Visit(browser, base, width=width)
    page = visit.page
    photos = [put("一.jpg", encoded(people(), "JPEG")), put("torn.jpg", b"\xff\xd8 torn"),
              put("山.png", encoded(scene(), "PNG"))]  # fmt: skip
    many(visit, photos)
    page.locator("#restore-auto input").uncheck()
    page.click("#batch")
    page.wait_for_selector("#batch-board .stage.is-done")
    rows = page.locator("#batch-board .photos li")
    assert [rows.nth(k).locator(".name").inner_text() for k in range(3)] == ["一.jpg", "torn.jpg", "山.png"]
    assert "1 张完成,2 张未完成" in page.inner_text("#batch-board .status")
    assert "已修复" in rows.nth(0).inner_text() and "文件中途断了" in rows.nth(1).inner_text()
    assert rows.nth(1).locator("a").count() == rows.nth(2).locator("a").count() == 0
    assert not visit.scrolls_sideways()
    visit.open()  # the page is closed, and comes back
    visit.tab(1)
    page.locator("#photo-tabs [role=tab]").nth(1).click()
    page.locator("#batch-board [data-whole]").click()
    page.wait_for_selector("#batch-board li:nth-child(3).is-done")
    assert "2 张完成,1 张未完成" in page.inner_text("#batch-board .status")
    with page.expect_download() as download:
        page.click("#batch-board a[href*='batch.zip']")
    with zipfile.ZipFile(download.value.path()) as pack:
        assert [name.partition("-")[2] for name in pack.namelist()] == ["一.png", "山.png"]
        assert all(pack.read(name) == (home / "outputs" / name).read_bytes() for name in pack.namelist())
    size = page.locator("#batch-board [data-again]").first.bounding_box()
    assert size and size["height"] >= 40
    page.locator("#batch-board li:nth-child(2) [data-again]").click()
    page.wait_for_selector("#batch-board .stage.is-done li:nth-child(2).is-failed")
    assert [text for text in visit.complaints if "favicon" not in text] == []
    visit.close()


COUNTED = """() => {
  const box = document.querySelector('#batch-files'), seen = (window.counted = []);
  new MutationObserver(() => seen.push(getComputedStyle(box, '::after').content)).observe(box, { attributes: true });
}"""


def test_uploads_are_counted_while_they_go(visit: Visit, put: Any) -> None:
    """Gradio would show the first photo's name throughout, and in English."""
    visit.tab(1)
    visit.page.locator("#photo-tabs [role=tab]").nth(1).click()
    visit.page.evaluate(COUNTED)
    many(visit, [put(f"{k}.png", encoded(scene(60, 40), "PNG")) for k in range(3)])
    seen = list(dict.fromkeys(visit.page.evaluate("window.counted")))
    assert seen[:3] == [f'"正在上传 {k}/3"' for k in (1, 2, 3)]
    visit.page.wait_for_function("document.querySelector('#batch-files').dataset.count === ''")


def test_nothing_starts_before_its_photos_have_arrived(visit: Visit, put: Any) -> None:
    """Pressed too early, the button would say that no photo was chosen."""
    page, first = visit.page, []  # type: ignore[var-annotated]
    visit.tab(1)
    page.locator("#photo-tabs [role=tab]").nth(1).click()
    page.route("**/gradio_api/upload?*", lambda route: route.continue_() if first else first.append(route))
    page.set_input_files(
        "#batch-files input[type=file]", [put(f"{k}.png", encoded(scene(60, 40), "PNG")) for k in range(2)]
    )
    page.wait_for_selector("#batch[inert]")
    page.locator("#batch").press("Enter")  # no key reaches it, and no finger
    visit.tab(0)
    assert page.locator("#generate[inert]").count() == 0
    visit.tab(1)
    first[0].continue_()
    page.click("#batch")  # as soon as that can be done
    page.wait_for_selector("#batch-board .stage.is-done li:nth-child(2).is-done")
    assert page.locator("[data-testid=toast-body]").count() == 0


def test_every_photo_of_a_batch_is_made_smaller(visit: Visit, home: Path, put: Any) -> None:
    """And each is a request of its own: the limit of the server is one of photos, not of batches."""
    sizes: list[int] = []
    visit.page.on("request", lambda r: sizes.append(len(r.post_data_buffer or b"")) if "/upload?" in r.url else None)
    before = cached(home)
    paths = [put(f"{k}.jpg", private("JPEG", rough(2600 + k, 400))) for k in range(3)]
    many(visit, paths)
    visit.page.wait_for_timeout(1000)
    new = cached(home) - before
    assert sorted(path.name for path in new) == ["0.jpg", "1.jpg", "2.jpg"]
    assert [max(pixels(path).shape) for path in new] == [2560] * 3
    assert len(sizes) == 3


def test_a_batch_is_remembered_by_its_browser_alone(browser, base: str, put: Any) -> None:
    one, other = Visit(browser, base), Visit(browser, base)
    many(one, [put("mine.png", encoded(people(), "PNG"))])
    one.page.click("#batch")
    one.page.wait_for_selector("#batch-board .stage.is-done")
    other.tab(1)
    other.page.locator("#photo-tabs [role=tab]").nth(1).click()
    other.page.wait_for_selector("#batch-board .stage.is-idle")
    stored = json.dumps(one.page.evaluate("({...localStorage})"))
    assert "mine.png" not in stored
    one.close()
    other.close()


def test_the_history_shows_what_was_restored_in_any_format(visit: Visit, put: Any) -> None:
    choose(visit, put("album.png", encoded(people(), "PNG")))
    visit.lift("restore-output", "#restore-format")
    visit.page.locator("#restore-format input[value=jpeg]").check()
    restore(visit)
    name = visit.page.locator("#restore-stage a[download]").get_attribute("download") or ""
    visit.tab(2)
    card = visit.page.locator("#history article").first
    card.wait_for()
    assert "照片修复 · album.png" in card.inner_text()
    assert name.endswith(".jpg") and name in (card.locator("img").last.get_attribute("src") or "")
    card.locator("img").last.scroll_into_view_if_needed()
    visit.page.wait_for_function(
        "[...document.querySelectorAll('#history article:first-child img')].every((image) => image.naturalWidth > 0)"
    )
