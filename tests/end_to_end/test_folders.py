"""Folders of the owner's in a real browser: the wall goes on to their end; a photo is taken from it and restored."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pillow_heif import register_heif_opener

from tests.support.browser_window import BROWSER, Visit, served
from tests.support.http import people
from webui.panels.history import SHOWN

pytestmark = BROWSER
COUNT = 2 * SHOWN + 5
CARDS = "#history article"
LOADED = "(image) => image.complete && image.naturalWidth > 0"


def put(path: Path, at: float) -> None:
    register_heif_opener()
    people().resize((600, 600)).save(path)
    os.utime(path, (at, at))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The newest is HEIC, which the browser cannot read; the second is no picture."""
    folder = tmp_path_factory.mktemp("share") / "假日 2019"
    folder.mkdir()
    for k in range(COUNT):
        put(folder / (f"{k}.jpg" if k else "0.heic"), 1e9 - k)
    (folder / "1.jpg").write_bytes(b"\xff\xd8\xff no picture")
    os.utime(folder / "1.jpg", (1e9 - 1, 1e9 - 1))
    return folder


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is not there yet."""
    return tmp_path_factory.mktemp("nas") / "婚礼"


@pytest.fixture(scope="module")
def url(root: Path, away: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("house"), STUDIO_ALBUMS=f"{root},{away}") as address:
        yield address


@pytest.fixture(params=[(1280, False), (390, True)], ids=["desk", "phone"])
def window(request: pytest.FixtureRequest, browser, url: str) -> Iterator[Visit]:
    width, touch = request.param
    opened = Visit(browser, url, width=width, height=800, touch=touch)
    opened.tab(2)
    yield opened
    assert [text for text in opened.complaints if "415" not in text] == []  # of the file that is no picture
    opened.close()


def choose(window: Visit, number: int) -> None:
    window.page.locator("#collection label").nth(number).click()


def names(window: Visit) -> list[str]:
    return window.page.locator(f"{CARDS} .words").all_inner_texts()


def test_the_wall_of_a_folder_goes_on_to_its_end_and_its_pictures_open(window: Visit) -> None:
    page = window.page
    choose(window, 2)
    page.wait_for_selector(CARDS)
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url) if "/thumbnail" in request.url else None)
    page.wait_for_function(f"({LOADED})(document.querySelector('{CARDS} img'))")
    page.wait_for_selector(f"{CARDS}:nth-child(2) .is-unreadable")
    assert not window.scrolls_sideways()
    assert page.locator("#find").is_hidden()
    with page.expect_popup() as large:
        page.locator(f"{CARDS} .pictures a").first.click()
    large.value.wait_for_function(f"({LOADED})(document.querySelector('img'))")
    assert large.value.url.endswith("/large")
    large.value.close()
    page.wait_for_function(
        f"""() => {{
          scrollTo(0, document.body.scrollHeight);
          return document.querySelectorAll({CARDS!r}).length === {COUNT};
        }}""",
        polling=200,
    )
    assert names(window) == ["0.heic", *(f"{k}.jpg" for k in range(1, COUNT))]
    assert page.locator("#history [data-more]").count() == 0
    page.wait_for_function(f"({LOADED})(document.querySelector('{CARDS}:last-child img'))")
    sizes = page.locator(f"{CARDS} .acts > *").evaluate_all(
        "parts => parts.map((p) => [p.offsetWidth, p.offsetHeight])"
    )
    assert all(min(size) >= 44 for size in sizes)
    clipped = page.locator(f"{CARDS} .acts > .next").evaluate_all(
        "parts => parts.filter((p) => p.scrollWidth > p.clientWidth)"
    )
    assert clipped == []


@pytest.mark.parametrize("number", [0, 2], ids=["heic", "jpg"])
def test_a_photo_is_taken_from_a_folder_and_restored(window: Visit, root: Path, number: int) -> None:
    page, path = window.page, root / ("0.heic" if number == 0 else "2.jpg")
    before = path.read_bytes(), path.stat().st_mtime_ns
    choose(window, 2)
    page.locator(f"{CARDS} [data-take=restore]").nth(number).click()
    page.wait_for_selector("#photo img" if number else "#photo .cannot-be-shown", state="attached")
    page.wait_for_selector("#restore-advice p")
    page.click("#restore-start")
    window.until("done", "#restore-stage")
    result = page.locator("#restore-stage a[download]").get_attribute("download") or ""
    assert f"-{path.stem}." in result, "it has the photo's name"
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before and len(list(root.iterdir())) == COUNT
    window.tab(2)
    choose(window, 0)
    page.wait_for_selector(f"{CARDS} [data-act=delete]", state="attached")  # one's own can be
    assert path.name in names(window)[0]


def test_a_portrait_starts_from_a_photo_of_a_folder(window: Visit) -> None:
    page = window.page
    choose(window, 2)
    card = page.locator(CARDS).nth(2)
    card.locator(".menu summary").click()
    card.locator("[data-take=begin_with]").click()
    page.wait_for_selector("#start-photo img")
    page.wait_for_selector("#start-strength input")
    window.rest()
    page.wait_for_function(
        """() => {
          const { top, bottom } = document.querySelector("#start-photo img").getBoundingClientRect();
          return top >= 0 && bottom <= innerHeight;
        }"""
    )


def test_the_file_itself_is_taken_along(window: Visit, root: Path) -> None:
    choose(window, 2)
    with window.page.expect_download() as download:
        window.page.locator(f"{CARDS} a[download]").first.click()
    assert download.value.suggested_filename == "0.heic"
    assert Path(download.value.path()).read_bytes() == (root / "0.heic").read_bytes()


def test_a_share_that_is_away_says_so_and_comes_back_by_itself(browser, url: str, away: Path) -> None:
    window = Visit(browser, url)
    window.tab(2)
    choose(window, 3)
    window.page.wait_for_selector("#history [data-part=notice] .note")
    assert "婚礼" in window.page.inner_text("#history [data-part=notice]") and names(window) == []
    away.mkdir()
    put(away / "kiss.jpg", 1e9)
    window.page.wait_for_selector(CARDS)
    assert names(window) == ["kiss.jpg"] and window.page.locator("#history [data-part=notice] .note").count() == 0
    assert window.complaints == []
    window.close()
