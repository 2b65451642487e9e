"""A guest at a frame, in real Chromium: from a tap to a picture on his phone, and nothing is left of him."""

from __future__ import annotations

import io
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from PIL import Image

from engines.messages import CREDIT
from tests.support.browser_window import BROWSER, PATIENCE_MS, begin, serve, served, until_ready

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = BROWSER
MOST_TAPS = 5
# The page's clock can be put forward; how long things take stays true.
CLOCK = """{
  const now = Date.now;
  let ahead_ms = 0;
  Date.now = () => now() + ahead_ms;
  window.skip = (seconds) => (ahead_ms += seconds * 1000);
}"""


class Guest:
    """Somebody before the frame, whose taps are counted."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url, self.taps = page, url, 0
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.set_default_timeout(PATIENCE_MS)
        page.add_init_script(CLOCK)
        page.goto(f"{url}/frame?show=folder:wall")
        page.locator("[data-shown]").first.wait_for()

    def tap(self, selector: str = "") -> None:
        self.taps += 1
        if selector:
            self.page.locator(selector).first.tap()
        else:
            self.page.touchscreen.tap(200, 150)

    def pane(self, name: str) -> Locator:
        pane = self.page.locator(f"[data-pane={name}]")
        pane.wait_for()
        return pane

    def link(self, pane: str) -> str:
        """Return where a phone that looks at the screen is led, as this machine reaches it."""
        code = self.page.locator(f"[data-pane={pane}] .qr img")
        code.wait_for()
        screen = np.asarray(Image.open(io.BytesIO(code.screenshot())).convert("RGB"))
        # OpenCV's other detector does not read one code of a hundred, however large it is.
        text, *_ = cv2.QRCodeDetectorAruco().detectAndDecode(
            np.pad(screen, ((9, 9), (9, 9), (0, 0)), constant_values=255)
        )
        assert text, "no camera reads it"
        return self.url + urlsplit(text).path

    def draw(self) -> None:
        self.tap()
        self.tap("[data-do=style]")
        self.tap("[data-pane=style] button")
        self.tap("[data-do=draw]")
        self.pane("result")


@pytest.fixture
def wall(tmp_path: Path) -> Path:
    (folder := tmp_path / "wall").mkdir()
    for name, colour in (("a", (200, 40, 40)), ("b", (40, 160, 40))):
        Image.new("RGB", (900, 600), colour).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (folder := tmp_path / "home").mkdir()
    return folder


@pytest.fixture
def url(home: Path, wall: Path) -> Iterator[str]:
    with served(home, STUDIO_ALBUMS=str(wall)) as address:
        yield address


@pytest.fixture
def come(browser: Browser) -> Iterator[Callable[[str], Guest]]:
    contexts = []

    def opened(url: str) -> Guest:
        contexts.append(
            context := browser.new_context(viewport={"width": 1024, "height": 600}, locale="zh-CN", has_touch=True)
        )
        return Guest(context.new_page(), url)

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 390, "height": 844}, locale="zh-CN", has_touch=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    yield page
    context.close()


def left_behind(home: Path) -> list[str]:
    """Return the pictures, photos and jobs that are there."""
    with closing(sqlite3.connect(home / "state" / "jobs.db")) as db:
        jobs = [row[0] for row in db.execute("SELECT owner FROM job")]
    folders = (home / "outputs", home / "uploads", home / "state" / "frame" / "links")
    return jobs + [path.name for folder in folders for path in folder.rglob("*") if path.is_file()]


def wait_until_left(guest: Guest, home: Path, count: int = 0) -> None:
    """Wait until no more than that is there: the visit's end is told to the server, and nobody waits for it."""
    for _ in range(100):
        if len(left_behind(home)) == count:
            return
        guest.page.wait_for_timeout(100)
    raise AssertionError(left_behind(home))


def test_a_guest_draws_takes_the_picture_away_and_leaves_nothing(
    url: str, home: Path, come: Callable[[str], Guest], phone: Page
) -> None:
    guest = come(url)
    guest.draw()
    assert guest.taps <= MOST_TAPS
    assert guest.page.locator("#credit").inner_text() == CREDIT and guest.page.locator("#credit").is_visible()
    phone.goto(guest.link("result"))
    picture = phone.locator("main img")
    picture.wait_for()
    assert phone.evaluate("document.querySelector('main img').decode().then(() => true)")
    guest.tap("[data-do=next]")
    guest.page.locator("#touch").wait_for(state="hidden")
    with phone.expect_download() as download:
        phone.get_by_role("link", name="保存图片").tap()
    with Image.open(download.value.path()) as saved:
        assert saved.size[0] >= 256
    wait_until_left(guest, home, 1)  # the copy that the phone is taking
    assert guest.page.evaluate("document.querySelector('.picture').getAttribute('src')") is None
    assert not guest.complaints


def test_a_guest_is_photographed_and_restored(url: str, home: Path, come: Callable[[str], Guest]) -> None:
    guest = come(url)
    guest.tap()
    guest.tap("[data-do=photo]")
    guest.tap("[data-do=shoot]")
    assert guest.page.locator(".count").inner_text() in "321"
    guest.pane("ready")
    assert not guest.page.evaluate("document.querySelector('video').srcObject"), "the camera is off again"
    guest.tap("#dock [data-do=restore]")
    guest.pane("result")
    assert guest.taps <= MOST_TAPS
    guest.tap("[data-do=next]")
    wait_until_left(guest, home)
    assert not guest.complaints


def test_a_photo_comes_from_a_phone(url: str, come: Callable[[str], Guest], phone: Page, tmp_path: Path) -> None:
    Image.radial_gradient("L").convert("RGB").resize((600, 800)).save(tmp_path / "mine.jpg")
    guest = come(url)
    guest.tap()
    guest.tap("[data-do=restore]")
    assert "先拍一张" in guest.page.locator("#said").inner_text(), "it says what is missing"
    phone.goto(guest.link("photo"))
    guest.page.get_by_text("手机已经打开").wait_for()
    phone.locator("input[type=file]").set_input_files(tmp_path / "mine.jpg")
    phone.get_by_role("button", name="发送到相框").tap()
    phone.get_by_text("已送到相框").wait_for()
    guest.pane("ready")
    assert guest.page.locator(".mine").is_visible()
    guest.tap("#dock [data-do=restore]")
    guest.pane("result")
    assert guest.taps <= MOST_TAPS and not guest.complaints


def test_who_goes_away_is_forgotten(url: str, home: Path, come: Callable[[str], Guest]) -> None:
    guest = come(url)
    guest.draw()
    still, counting = guest.page.locator("#still"), guest.page.locator("#idle")
    counting.wait_for()
    assert 80 <= int(counting.inner_text()) <= 90 and still.is_hidden()
    guest.page.evaluate("skip(80)")
    still.wait_for()
    assert int(still.locator("b").inner_text()) <= 10
    guest.tap("[data-do=stay]")
    still.wait_for(state="hidden")
    guest.page.evaluate("skip(95)")
    guest.page.locator("#touch").wait_for(state="hidden")
    wait_until_left(guest, home)
    assert guest.page.evaluate("document.querySelectorAll('[data-pane=style] button').length") == 0


def test_the_buttons_go_again_and_next_is_the_next(url: str, come: Callable[[str], Guest]) -> None:
    guest = come(url)
    before = guest.page.locator(".layer.is-on[data-shown]").last.get_attribute("data-shown")
    guest.tap()
    guest.tap("[data-do=next]")
    guest.page.locator(f'.layer.is-on[data-shown]:last-child:not([data-shown="{before}"])').wait_for()
    guest.tap("[data-do=heart]")  # of a folder: it is not the studio's to mark
    guest.page.locator("#dock[data-said*=不能收藏]").wait_for()
    guest.page.evaluate("skip(13)")
    guest.page.locator("#touch").wait_for(state="hidden")


def test_a_server_that_dies_in_the_middle_is_waited_for(home: Path, wall: Path, come: Callable[[str], Guest]) -> None:
    server, url = serve(home, STUDIO_ALBUMS=str(wall))
    try:
        until_ready(url, server)
        guest = come(url)
        guest.tap()
        guest.tap("[data-do=style]")
        guest.tap("[data-pane=style] button")
        with guest.page.expect_response("**/frame/visit/draw"):
            guest.tap("[data-do=draw]")
        server.kill()
        server.wait()
        server = begin(home, urlsplit(url).port or 0, STUDIO_ALBUMS=str(wall))
        until_ready(url, server)
        guest.pane("result")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def test_a_frame_that_is_not_to_be_touched_is_not(url: str, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{url}/frame?show=folder:wall&touch=0")
    page.locator("[data-shown]").first.wait_for()
    page.mouse.click(200, 200)
    page.keyboard.press("Enter")
    assert page.locator("#touch").is_hidden()
    page.close()
