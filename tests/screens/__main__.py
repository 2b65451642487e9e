"""
python -m tests.screens [--axe axe.min.js]: takes docs/screens anew, from the real page in Chromium.

A sheet for each panel, language and scheme of colours, with all widths side by side at half their size. With axe-core,
which is no part of this project, its serious and critical findings are printed, and controls that a finger misses.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.support.browser_window import CHROMIUM, PATIENCE_MS, REPO, served
from tests.support.http import people

SIZES = ((360, 640), (390, 844), (768, 1024), (1024, 600), (1280, 800), (1920, 1080))
LANGUAGES = {"zh": "zh-CN", "en": "en-US"}
SCHEMES = ("light", "dark")
PANELS = ("portrait", "restore", "history", "engines")
TOUCH_PX, LEAST_PX = 768, 44  # narrower windows are touched; controls there are this high
GAP_PX = 12
SMALL = """(least) => [...document.querySelectorAll("button, a, input, select, summary, [role=tab]")]
  .filter((e) => e.checkVisibility() && !["radio", "checkbox", "file", "range"].includes(e.type))
  .filter((e) => { const r = e.getBoundingClientRect(); return r.width && r.height < least - 0.5; })
  .map((e) => `${e.tagName}#${e.id}.${e.className} ${e.getBoundingClientRect().height}`)"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--axe", type=Path, metavar="axe.min.js")
    axe = path.read_text(encoding="utf-8") if (path := parser.parse_args().axe) else ""
    findings = 0
    with tempfile.TemporaryDirectory() as home, served(Path(home)) as url, sync_playwright() as p:
        photo = Path(home) / "people.png"
        people(2).save(photo)
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for (language, locale), scheme in product(LANGUAGES.items(), SCHEMES):
            shots: dict[str, list[Image.Image]] = {panel: [] for panel in PANELS}
            for width, height in SIZES:
                touched = width < TOUCH_PX
                context = chromium.new_context(
                    locale=locale, viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=touched,
                    is_mobile=touched, bypass_csp=bool(axe),
                )  # fmt: skip
                page = context.new_page()
                page.set_default_timeout(PATIENCE_MS)
                for panel in _panels(page, url, photo):
                    shots[panel].append(Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB"))
                    for finding in _look(page, axe, touched):
                        print(panel, language, scheme, width, finding, flush=True)
                        findings += 1
                context.close()
            for panel, pictures in shots.items():
                _save(pictures, REPO / "docs" / "screens" / f"{panel}-{language}-{scheme}.webp")
    print(f"{findings} findings")
    return 1 if findings else 0


def _panels(page: Page, url: str, photo: Path) -> Iterator[str]:
    """Bring each panel to what people see of it most of the time: after something was done with it."""
    page.goto(url)
    page.wait_for_selector("#stage .frame")
    page.locator("[data-preset=business]").click()
    page.wait_for_selector("#blanks .blanks")
    page.click("#generate")
    page.wait_for_selector("#stage .stage.is-done")
    page.wait_for_timeout(1500)
    yield "portrait"
    page.goto(f"{url}/?tab=restore")
    page.wait_for_selector("#photo input[type=file]", state="attached")
    page.wait_for_timeout(1000)
    page.set_input_files("#photo input[type=file]", photo)
    page.wait_for_selector(".pick button")
    page.click("#restore-start")
    page.wait_for_selector("#restore-stage .stage.is-done")
    page.wait_for_timeout(1500)
    yield "restore"
    for panel, selector in (("history", "#history img"), ("engines", "#engines table")):
        page.goto(f"{url}/?tab={panel}")
        page.locator(selector).first.wait_for()
        page.wait_for_timeout(1500)
        yield panel


def _look(page: Page, axe: str, touched: bool) -> Iterator[str]:
    if touched:
        yield from page.evaluate(SMALL, LEAST_PX)
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        yield "scrolls sideways"
    if not axe:
        return
    page.evaluate(axe)
    said: dict[str, Any] = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    for violation in said["violations"]:
        if violation["impact"] in ("serious", "critical"):
            yield f"{violation['id']}: {violation['nodes'][0]['html'][:150]}"


def _save(pictures: list[Image.Image], path: Path) -> None:
    halves = [picture.reduce(2) for picture in pictures]
    size = sum(half.width + GAP_PX for half in halves) - GAP_PX, max(half.height for half in halves)
    sheet, x = Image.new("RGB", size, "white"), 0
    for half in halves:
        sheet.paste(half, (x, 0))
        x += half.width + GAP_PX
    path.parent.mkdir(exist_ok=True)
    sheet.save(path, quality=50, method=6)


if __name__ == "__main__":
    sys.exit(main())
