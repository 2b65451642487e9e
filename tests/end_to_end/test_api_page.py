"""The page that describes the API, in Chromium: its script runs under our policy and asks nobody else for anything."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from tests.support.browser_window import BROWSER, Visit

pytestmark = BROWSER


def test_every_door_is_shown_with_what_it_takes(browser: Any, base: str) -> None:
    with urlopen(f"{base}/openapi.json") as answer:
        paths = json.load(answer)["paths"]
    doors = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
    visit = Visit(browser, base, start="/docs", first="summary")  # leaving the page of before would break off its calls
    visit.page.locator("summary").nth(len(doors) - 1).wait_for()
    assert visit.page.locator("summary").all_inner_texts() == doors
    door = visit.page.locator("details", has=visit.page.locator("summary", has_text="POST /generate"))
    door.locator("summary").click()
    text = door.locator("pre").inner_text()
    assert '"maximum": 8' in text and '"image_base64"' in text and "$ref" not in text
    assert visit.complaints == [] and visit.hosts == {urlsplit(base).netloc}
