"""The faces of a photo in the real page in headless Chromium: chosen before, looked at closely after."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines.messages.faces import face_at
from tests.support import photo_files
from tests.support.browser_window import BROWSER, Visit
from tests.support.http import people
from tests.support.stored import last_event, last_order

pytestmark = [*BROWSER, pytest.mark.xdist_group("served")]
TILES, MARKS, START = ".pick button", "#photo .over span", "#restore-start"
STRIP, ZOOM = "#restore-stage .face-strip button", "#restore-stage .zoom"
SIZES = [(360, 640), (390, 844), (768, 1024), (1024, 600), (1280, 720), (1920, 1080), (2560, 1440)]


def trio() -> Image.Image:
    """Three faces, the last of them small."""
    photo = Image.new("RGB", (1200, 500), (120, 130, 140))
    photo.paste(people(2), (0, 60))
    photo.paste(people(1).resize((180, 180)), (900, 200))
    return photo


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """A file on the person's own disk."""

    def write(name: str, photo: Image.Image, kind: str = "PNG", **how: Any) -> Path:
        (tmp_path / name).write_bytes(photo_files.encoded(photo, kind, **how))
        return tmp_path / name

    return write


@pytest.fixture
def open_window(browser: Any, base: str) -> Iterator[Callable[..., Visit]]:
    windows: list[Visit] = []

    def opened(width: int = 1280, height: int = 900, **how: Any) -> Visit:
        windows.append(Visit(browser, base, width=width, height=height, **how))
        return windows[-1]

    yield opened
    for window in windows:
        window.close()


def choose(visit: Visit, path: Path) -> None:
    visit.tab(1)
    visit.page.set_input_files("#photo input[type=file]", path)
    visit.page.wait_for_selector("#restore-advice .advice")


def chosen(visit: Visit) -> list[bool]:
    return [tile == "true" for tile in visit.page.locator(TILES).evaluate_all("all => all.map((it) => it.ariaPressed)")]


def restore(visit: Visit) -> None:
    visit.page.click(START)
    visit.until("done", "#restore-stage")


def states(home: Path) -> list[str]:
    return [face.state if face.state != "skipped" else face.reason for face in last_event(home).faces]


def test_the_faces_that_are_chosen_are_restored(visit: Visit, home: Path, put: Any) -> None:
    """In the row, on the photo, and with keys; the button says what it does."""
    page = visit.page
    choose(visit, put("trio.png", trio()))
    assert chosen(visit) == [True] * 3 and "修复 3 张脸" in page.locator(START).evaluate(SAYS)
    page.locator(TILES).nth(0).click()
    assert chosen(visit) == [False, True, True] and "修复 2 张脸" in page.locator(START).evaluate(SAYS)
    page.locator(f"{MARKS}[data-tile='1']").click()
    assert chosen(visit) == [False, False, True] and "修复 1 张脸" in page.locator(START).evaluate(SAYS)
    assert [mark["left"] for mark in _marks(visit)] == [True, True, False]
    page.locator(TILES).nth(0).focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert chosen(visit) == [True, False, True]
    assert page.evaluate("document.activeElement.ariaLabel") == "第 2 张脸,中间"
    restore(visit)
    assert states(home)[1] == "not chosen" and {states(home)[0], states(home)[2]} <= {"restored", "softened"}
    boxes = [face.box for face in last_event(home).faces]
    assert [face_at(boxes, point) for point in last_order(home).faces] == [0, 2]
    assert "修复 2 张脸" in page.locator(START).evaluate(SAYS), "as before, for the next time"
    assert visit.complaints == []


SAYS = "(button) => button.ariaLabel ?? [...button.children].map((it) => it.innerText).join('')"


def _marks(visit: Visit) -> list[dict[str, Any]]:
    """Where the marks on the photo are, in shares of what is seen of it, from the left."""
    return visit.page.evaluate("""() => {
      const photo = document.querySelector('#photo .image-frame img'), around = photo.getBoundingClientRect();
      const scale = Math.min(around.width / photo.naturalWidth, around.height / photo.naturalHeight);
      const width = photo.naturalWidth * scale, height = photo.naturalHeight * scale;
      const x = around.x + (around.width - width) / 2, y = around.y + (around.height - height) / 2;
      return [...document.querySelectorAll('#photo .over span')].map((mark) => {
        const box = mark.getBoundingClientRect();
        return { k: +mark.dataset.tile, left: mark.matches('.is-left-out'),
                 box: [(box.x - x) / width, (box.y - y) / height, box.width / width, box.height / height] };
      }).sort((a, b) => a.k - b.k);
    }""")


def test_nobody_has_to_choose(visit: Visit, home: Path, put: Any) -> None:
    """Left alone, a press does what it did; and where there is one face there is no row."""
    choose(visit, put("trio.png", trio()))
    visit.page.wait_for_selector(MARKS)
    restore(visit)
    assert last_order(home).faces == ()
    choose(visit, put("single.png", people()))
    visit.page.wait_for_function("document.querySelector('#restore-advice').innerText.includes('找到 1 张脸')")
    assert visit.page.locator(TILES).count() == visit.page.locator(MARKS).count() == 0
    assert "开始增强" in visit.page.inner_text(START)


def test_with_no_face_chosen_the_button_says_so(visit: Visit, home: Path, put: Any) -> None:
    choose(visit, put("trio.png", trio()))
    for k in range(3):
        visit.page.locator(TILES).nth(k).click()
    assert "请先选一张脸" in visit.page.locator(START).evaluate(SAYS)
    before = last_order(home)
    visit.page.click(START)
    visit.page.wait_for_selector("[data-testid=toast-body]")
    assert "一张脸也没有选中" in visit.page.inner_text("[data-testid=toast-body]") and last_order(home) == before


def test_another_photo_has_faces_of_its_own(visit: Visit, put: Any) -> None:
    choose(visit, put("trio.png", trio()))
    visit.page.locator(TILES).nth(0).click()
    visit.page.click("#photo [aria-label='Remove Image'], #photo .icon-button")
    visit.page.wait_for_selector(TILES, state="detached")
    assert visit.page.locator(MARKS).count() == 0 and "开始增强" in visit.page.inner_text(START)
    choose(visit, put("pair.png", people(2)))
    visit.page.wait_for_function("document.querySelectorAll('.pick button').length === 2")
    assert chosen(visit) == [True, True]


def test_where_the_setting_has_chosen_there_is_no_row(visit: Visit, put: Any) -> None:
    choose(visit, put("trio.png", trio()))
    visit.lift("restore-more", "#restore-faces")
    visit.page.locator("#restore-faces input[value=center]").check()
    visit.page.wait_for_selector(".pick", state="hidden")
    assert visit.page.locator(MARKS).count() == 0 and "开始增强" in visit.page.inner_text(START)
    visit.page.locator("#restore-faces input[value=all]").check()
    visit.page.wait_for_selector(MARKS)
    assert "修复 3 张脸" in visit.page.locator(START).evaluate(SAYS)


@pytest.mark.parametrize("kind", ["wide", "turned", "tall"])
def test_the_marks_lie_on_the_faces(open_window: Any, home: Path, put: Any, kind: str) -> None:
    photo, how = trio(), {}
    if kind == "turned":
        how["exif"] = Image.Exif()
        how["exif"][274] = 6
        photo = photo.transpose(Image.Transpose.ROTATE_90)
    if kind == "tall":
        photo = Image.new("RGB", (1200, 2400), (120, 130, 140))
        photo.paste(trio(), (0, 900))
    visit = open_window(390, 844)
    choose(visit, put("trio.jpg", photo, "JPEG", quality=95, **how))
    visit.page.wait_for_selector(MARKS)
    visit.page.wait_for_timeout(300)
    restore(visit)
    boxes, marks = [face.box for face in last_event(home).faces], _marks(visit)
    assert len(boxes) == len(marks) == 3
    for box, mark in zip(boxes, marks, strict=True):
        assert all(abs(a - b) < 0.02 for a, b in zip(box, mark["box"], strict=True)), (box, mark)


def test_the_faces_of_a_photo_that_browsers_cannot_show(visit: Visit, home: Path, put: Any) -> None:
    choose(visit, put("IMG_0001.heic", trio(), "HEIF", quality=90))
    visit.page.wait_for_function(
        "[...document.querySelectorAll('.pick img')].every((it) => it.naturalWidth > 0 && it.src.includes('/outputs/'))"
    )
    visit.page.wait_for_selector(MARKS)
    visit.page.locator(f"{MARKS}[data-tile='2']").click()
    restore(visit)
    assert len(last_order(home).faces) == 2 and last_order(home).name == "IMG_0001.heic"


def test_cut_outs_show_the_faces(visit: Visit, put: Any) -> None:
    """As they would be cut out of the photo by hand."""
    choose(visit, put("trio.png", trio()))
    visit.page.wait_for_function("[...document.querySelectorAll('.pick img')].every((it) => it.naturalWidth > 0)")
    for tile in visit.page.locator(TILES).all():
        left, top, width, height = map(float, str(tile.get_attribute("data-box")).split())
        side, x, y = 1.8 * width * 1200, (left + width / 2) * 1200, (top + height / 2) * 500
        corners = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
        cut, hand = Image.open(io.BytesIO(tile.locator(".cut").screenshot())), trio().crop(tuple(map(round, corners)))
        a, b = (np.asarray(it.convert("L").resize((52, 52), Image.Resampling.BOX), np.float64) for it in (cut, hand))
        inner = (slice(5, 29), slice(8, 44))  # without the round corners and the tick
        assert np.abs(a[inner] - b[inner]).mean() < 20, "a pixel off at most: another face is 85 away"


# ---- after


def test_each_face_is_looked_at_closely(visit: Visit, put: Any) -> None:
    page = visit.page
    choose(visit, put("trio.png", trio()))
    page.locator(TILES).nth(1).click()
    restore(visit)
    labels = [tile.get_attribute("aria-label") or "" for tile in page.locator(STRIP).all()]
    assert labels[1].startswith("第 1 张脸,左") and "已修复" in labels[1] + "已减弱" and "没有被选中" in labels[2]
    assert not page.locator(ZOOM).is_visible()
    page.locator(STRIP).nth(3).click()
    assert page.locator(ZOOM).is_visible() and not page.locator("#restore-stage .compare.fits").is_visible()
    assert page.inner_text(f"{ZOOM} .badge") == labels[3] and not page.locator(f"{ZOOM} [data-also]").is_visible()
    page.locator(f"{ZOOM} input").focus()
    page.keyboard.press("Home")
    assert (page.get_attribute(ZOOM, "style") or "").replace(" ", "").startswith("--at:0%")
    shown = page.evaluate("""() => [...document.querySelectorAll('#restore-stage .zoom img')].map((image) => {
      const cut = image.parentElement.getBoundingClientRect(), all = image.getBoundingClientRect();
      const [x, y] = [cut.x + cut.width / 2 - all.x, cut.y + cut.height / 2 - all.y];
      return [cut.width / all.width, x / all.width, y / all.height];
    })""")
    tile = (page.locator(STRIP).nth(3).locator(".cut").get_attribute("style") or "").replace(" ", "")
    wanted = {name: float(value) for name, value in (part.split(":") for part in tile.strip(";").split(";"))}
    for wide, x, y in shown:  # both of them the same part, and that face
        assert abs(wide - wanted["--w"]) < 0.01 and abs(x - wanted["--x"]) < 0.01 and abs(y - wanted["--y"]) < 0.01
    page.locator(STRIP).nth(0).click()
    assert not page.locator(ZOOM).is_visible() and page.locator("#restore-stage .compare.fits").is_visible()
    assert visit.complaints == []


def test_a_face_that_was_skipped_is_restored_with_one_tap(visit: Visit, home: Path, put: Any) -> None:
    choose(visit, put("trio.png", trio()))
    visit.page.locator(TILES).nth(1).click()
    restore(visit)
    size = visit.page.locator("#restore-stage .faces [data-also]").bounding_box()
    assert size and size["height"] >= 44
    visit.page.click("#restore-stage .faces [data-also]")
    visit.page.wait_for_selector("#restore-stage .is-done .face-strip:not(:has(.is-skipped))")
    assert len(last_order(home).faces) == 3 and set(states(home)) <= {"restored", "softened"}


def test_the_faces_come_back_with_the_page(visit: Visit, home: Path, put: Any) -> None:
    """It is loaded anew while the job goes on, which nobody notices but who waits."""
    page = visit.page
    choose(visit, put("trio.png", trio()))
    page.locator(TILES).nth(0).click()
    page.click(START)
    page.wait_for_selector(f"{START}[data-step=cancel]")
    script: list[Any] = []  # held back by a slow network: the face is pressed before what hears it is here
    page.route("**/faces.js", lambda route: script.append(route))
    visit.open()
    visit.tab(1)
    visit.until("done", "#restore-stage")
    page.wait_for_selector(STRIP)
    assert page.locator(STRIP).count() == 4 and page.locator(f"{STRIP}.is-skipped").count() == 1
    page.locator(f"{STRIP}.is-skipped").click()
    assert not page.locator(ZOOM).is_visible()
    script[0].continue_()
    page.unroute("**/faces.js")
    page.click(f"{ZOOM} [data-also]")
    page.wait_for_selector("#restore-stage .is-done .face-strip:not(:has(.is-skipped))")
    for preview in (home / "outputs").glob("preview_*"):  # as a day later
        preview.unlink()
    visit.open()
    visit.tab(1)
    visit.until("done", "#restore-stage")
    assert page.locator("#restore-stage .compare").count() == page.locator(STRIP).count() == 0
    width = page.locator("#restore-stage .frame img").evaluate("(it) => it.decode().then(() => it.naturalWidth)")
    assert width == 1200


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_next_step_stays_in_sight(open_window: Any, put: Any, width: int, height: int) -> None:
    visit = open_window(width, height, touch=width < 768)
    choose(visit, put("trio.png", trio()))
    visit.page.wait_for_selector(MARKS)
    visit.page.wait_for_timeout(300)
    for selector in (START, TILES):
        box = visit.page.locator(selector).first.bounding_box()
        assert box and box["y"] >= 0 and box["y"] + box["height"] <= height, f"{selector}: {box}"
        assert box["height"] >= 44
        middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] - 6]
        over = f"([x, y]) => Boolean(document.elementFromPoint(x, y).closest('{selector}'))"
        assert visit.page.evaluate(over, middle), f"{selector} lies under something else"
    assert not visit.scrolls_sideways()
    restore(visit)
    visit.rest()
    box = visit.page.locator("#restore-stage .actions").first.bounding_box()
    assert box and box["y"] + box["height"] <= height and not visit.scrolls_sideways()
