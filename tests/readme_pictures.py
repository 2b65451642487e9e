"""
python -m tests.readme_pictures [--proved HOME]: takes docs/places.webp and docs/drawing.webp, the README's, anew.

The real program with the built-in models in a home of its own, seen by Chromium in Chinese: at a desk, on a phone and
on a frame; and one drawing from the tap on a card to the picture. How long a view of that stays is set for the eye,
and says nothing of how long anything took. The photo on the phone is the damaged half of docs/group.webp
(training/restorer/group.py). What the page says of the engines was measured on this machine: now, or, where it
is busy now, while HOME was served. It takes Chinese and emoji fonts (fonts-noto-cjk, fonts-noto-color-emoji).
"""

from __future__ import annotations

import argparse
import io
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageDraw, ImageFilter
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.browser_window import CHROMIUM, PATIENCE_MS, REPO, begin, until_ready

DOCS = REPO / "docs"
DESK, PHONE, FRAME, RECORDED = (1280, 800), (390, 844), (1024, 600), (1024, 640)  # px, of windows
ALBUM: Mapping[str, int] = {"watercolour": 5, "business": 1, "elder": 4}  # card -> seed; the last is on the frame
ON_DESK, IN_ANIMATION = ("hanfu", 5), ("golden_hour", 4)
DARK, POLL_MS, FADED_MS = 60, 100, 3000  # of the frame's screen: nothing brighter on it; a picture has come up
PROOF_LOOKS, PROOF_LOOK_MS = 60, 5000
ROUGH = "#stage .badge.is-rough"  # of a look between two that the tiny decoder makes
SHARP = 2  # device pixels, of what is shown smaller

CALM, EDGE, BEZEL = (243, 241, 236), (205, 201, 193), (38, 36, 34)
PLACES_PX, GAP_PX, ROUND_PX, BEZEL_PX, SHADOW_PX = (1600, 610), 36, 14, 12, 14
DESK_PX, PHONE_PX, FRAME_PX = (788, 492), (253, 548), (427, 250)

ANIMATION_PX, FINGER_PX = (640, 400), 22  # both of the animation
LOOK_MS, TAP_MS, PREVIEW_MS, PICTURE_MS = 700, 700, 330, 3200  # how long each view stays
TAKES, MOST_VIEWS = 4, 14  # a busy machine misses previews: the take that has most of them


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proved", type=Path, metavar="HOME")
    proved: Path | None = parser.parse_args().proved
    with tempfile.TemporaryDirectory() as home, sync_playwright() as p:
        if proved:
            shutil.copytree(proved / "state" / "verdicts", Path(home) / "state" / "verdicts")
        with _served(Path(home)) as url:
            _take(p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]), url, Path(home))
    return 0


def _take(chromium: Browser, url: str, home: Path) -> None:
    _proved(_window(chromium, DESK), url)
    for card, seed in ALBUM.items():
        _share(_window(chromium, DESK), url, card, seed)
    save_places([_desk(_window(chromium, DESK), url), _phone(chromium, url, home), _frame(chromium, url)])
    takes = [list(_views(_window(chromium, RECORDED, scale=1.25), url)) for _ in range(TAKES)]
    save_animation(max(takes, key=len))


@contextmanager
def _served(home: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server, url = begin(home, port), f"http://127.0.0.1:{port}"
    try:
        until_ready(url, server)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def _proved(page: Page, url: str) -> None:
    """Until an engine has passed its proof, which it begins where nobody draws."""
    for _ in range(PROOF_LOOKS):
        page.goto(url)
        page.wait_for_selector("#stage .frame")
        if page.get_by_text("已验证").count():
            return
        page.wait_for_timeout(PROOF_LOOK_MS)
    raise AssertionError("no engine was proved")


def _window(chromium: Browser, size: tuple[int, int], scale: float = SHARP, **how: Any) -> Page:
    context = chromium.new_context(
        locale="zh-CN", viewport={"width": size[0], "height": size[1]}, device_scale_factor=scale, **how
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    return page


def _shot(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")


def _rest(page: Page) -> None:
    """Until two pictures of the window are the same: nothing fades, scrolls or loads any more."""
    before = page.screenshot()
    while (now := page.screenshot()) != before:
        before = now


def _choose(page: Page, card: str) -> None:
    page.locator(f"[data-preset={card}]").click()
    page.wait_for_selector("#blanks .blanks")


def _seed(page: Page, seed: int) -> None:
    """In the fold of more settings, which is shut again."""
    fold = page.get_by_role("button", name="更多设置")
    fold.click()
    page.fill("#seed input", str(seed))
    page.keyboard.press("Tab")
    fold.click()
    page.evaluate("scrollTo(0, 0)")
    _rest(page)


def _draw(page: Page, url: str, card: str, seed: int) -> None:
    """In a window that has drawn nothing: others bring back their words a little after they have opened."""
    page.goto(url)
    page.wait_for_selector("#stage .frame")
    _choose(page, card)
    _seed(page, seed)
    page.click("#generate")
    page.wait_for_selector("#stage .stage.is-done")


def _share(page: Page, url: str, card: str, seed: int) -> None:
    """Draw something and put it into the album."""
    _draw(page, url, card, seed)
    page.goto(f"{url}/?tab=history")
    page.locator("#history .menu summary").first.click()
    page.click("#history [data-share]")
    page.wait_for_selector("#history [data-unshare]", state="attached")


def _desk(page: Page, url: str) -> Image.Image:
    _draw(page, url, *ON_DESK)
    page.evaluate("scrollTo(0, 0)")
    _rest(page)
    return _shot(page)


def _phone(chromium: Browser, url: str, home: Path) -> Image.Image:
    """A photo that was restored."""
    with Image.open(DOCS / "group.webp") as pair:
        pair.crop((0, 0, pair.width // 2 - 4, pair.height)).save(photo := home / "photo.png")
    page = _window(chromium, PHONE, has_touch=True, is_mobile=True)
    page.goto(f"{url}/?tab=restore")
    page.set_input_files("#photo input[type=file]", photo)
    page.wait_for_selector(".pick button")
    page.click("#restore-start")
    page.wait_for_selector("#restore-stage .stage.is-done")
    _rest(page)
    return _shot(page)


def _frame(chromium: Browser, url: str) -> Image.Image:
    page = _window(chromium, FRAME)
    page.goto(f"{url}/frame?seconds=3600&shift=0&order=new")
    while not _shot(page).convert("L").point(lambda level: level > DARK and 255).getbbox():
        page.wait_for_timeout(POLL_MS)
    page.wait_for_timeout(FADED_MS)
    return _shot(page)


def _views(page: Page, url: str) -> Iterator[tuple[Image.Image, int]]:
    """Each view and how long it stays, in milliseconds."""
    card, seed = IN_ANIMATION
    page.goto(url)
    page.wait_for_selector("#stage .frame")
    _seed(page, seed)
    page.locator(f"[data-preset={card}]").scroll_into_view_if_needed()
    _rest(page)
    yield _shot(page), LOOK_MS
    yield _tapped(page, f"[data-preset={card}]"), TAP_MS
    _choose(page, card)
    _rest(page)
    yield _shot(page), LOOK_MS
    yield _tapped(page, "#generate"), TAP_MS
    page.click("#generate")
    last = None
    page.wait_for_selector("#stage .frame img")
    while page.locator("#stage .stage.is-done").count() == 0:
        was_rough, view = page.locator(ROUGH).count(), _shot(page)
        if was_rough or page.locator(ROUGH).count():  # slowed down, they would flicker
            continue
        if last is None or ImageChops.difference(view, last).getbbox():
            yield view, PREVIEW_MS
        last = view
    _rest(page)
    yield _shot(page), PICTURE_MS


def _tapped(page: Page, selector: str) -> Image.Image:
    """The window with a finger on the middle of what is tapped."""
    box = page.locator(selector).bounding_box()
    assert box
    view = _shot(page)
    scale = view.width / RECORDED[0]
    x, y = (box["x"] + box["width"] / 2) * scale, (box["y"] + box["height"] / 2) * scale
    mark = Image.new("RGBA", view.size)
    radius = FINGER_PX * view.width / ANIMATION_PX[0] / 2
    place = (x - radius, y - radius, x + radius, y + radius)
    ImageDraw.Draw(mark).ellipse(place, fill=(40, 40, 60, 110), outline=(255, 255, 255, 230), width=4)
    return Image.alpha_composite(view.convert("RGBA"), mark).convert("RGB")


def save_places(shots: list[Image.Image]) -> None:
    """The three side by side, the frame in a frame."""
    sizes = (DESK_PX, PHONE_PX, FRAME_PX)
    shown = [shot.resize(size, Image.Resampling.LANCZOS) for shot, size in zip(shots, sizes, strict=True)]
    framed = Image.new("RGB", (FRAME_PX[0] + 2 * BEZEL_PX, FRAME_PX[1] + 2 * BEZEL_PX), BEZEL)
    framed.paste(shown[2], (BEZEL_PX, BEZEL_PX))
    row = [*shown[:2], framed]
    sheet = Image.new("RGB", PLACES_PX, CALM)
    x = (PLACES_PX[0] - sum(part.width for part in row) - GAP_PX * (len(row) - 1)) // 2
    for part in row:
        _lay(sheet, part, (x, (PLACES_PX[1] - part.height) // 2))
        x += part.width + GAP_PX
    sheet.save(DOCS / "places.webp", quality=84, method=6)


def _lay(sheet: Image.Image, part: Image.Image, at: tuple[int, int]) -> None:
    """Paste with round corners and a soft shadow."""
    box = (*at, at[0] + part.width - 1, at[1] + part.height - 1)
    shadow = Image.new("L", sheet.size)
    ImageDraw.Draw(shadow).rounded_rectangle(box, ROUND_PX, fill=150)
    sheet.paste(EDGE, mask=shadow.filter(ImageFilter.GaussianBlur(SHADOW_PX)))
    corners = Image.new("L", (part.width * 4, part.height * 4))
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, corners.width - 1, corners.height - 1), ROUND_PX * 4, fill=255)
    sheet.paste(part, at, corners.resize(part.size, Image.Resampling.LANCZOS))


def save_animation(views: list[tuple[Image.Image, int]]) -> None:
    while len(views) > MOST_VIEWS:  # a slow machine: every other preview will do
        views = views[:4] + views[4:-1:2] + views[-1:]
    small = [view.resize(ANIMATION_PX, Image.Resampling.LANCZOS) for view, _ in views]
    stays = [stay for _, stay in views]
    small[0].save(
        DOCS / "drawing.webp", save_all=True, append_images=small[1:], duration=stays, loop=0, quality=80, method=6
    )


if __name__ == "__main__":
    sys.exit(main())
