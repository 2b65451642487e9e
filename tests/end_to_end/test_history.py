"""The wall of pictures in a real browser: it goes on by itself, and everything on it can be done without a mouse."""

from __future__ import annotations

import re
import sqlite3
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from engines.messages import Final, Generate, pack
from tests.support.browser_window import BROWSER, Visit
from tests.support.http import encoded, people
from webui.panels.history import SHOWN

pytestmark = BROWSER
COUNT = 2 * SHOWN + 5
CARDS = "#history article:not([hidden])"


def fill(home: Path, owner: str) -> list[str]:
    """So many pictures of a person, older than what she has drawn herself; newest first."""
    picture = encoded(people().resize((120, 120)), "PNG")
    jobs = [uuid4().hex for _ in range(COUNT)]
    with closing(sqlite3.connect(home / "state" / "jobs.db", timeout=20)) as db:
        for k, job_id in enumerate(jobs):
            name = f"outputs_{20250101000000 + k}_{int(owner[:6], 36) % 10**9:09}.png"
            (home / "outputs" / name).write_bytes(picture)
            request = Generate(f"picture {k} " + ("of a very rare bird" if k == COUNT - 1 else "of nothing"), seed=k)
            row = (job_id, pack(request), 1e9 - k, owner)
            db.execute("INSERT INTO job(id, request, state, ended, owner) VALUES(?, ?, 'done', ?, ?)", row)
            db.execute("INSERT INTO event VALUES(?, 1, ?)", (job_id, pack(Final((name,), k, 1.0, "ort"))))
        db.commit()
    return jobs


def owner_of(home: Path) -> str:
    with closing(sqlite3.connect(home / "state" / "jobs.db", timeout=20)) as db:
        return str(db.execute("SELECT owner FROM job ORDER BY number DESC LIMIT 1").fetchone()[0])


@pytest.fixture(params=[(1280, False), (390, True)], ids=["desk", "phone"])
def window(request: pytest.FixtureRequest, browser, base: str, home: Path) -> Iterator[Visit]:
    """A person with many pictures, who looks at them."""
    width, touch = request.param
    opened = Visit(browser, base, width=width, height=800, touch=touch)
    opened.generate("the newest")
    opened.until("done")
    fill(home, owner_of(home))
    opened.tab(2)
    opened.page.wait_for_selector(CARDS)
    yield opened
    assert opened.complaints == []
    opened.close()


def count(window: Visit) -> int:
    return window.page.locator(CARDS).count()


def until(window: Visit, cards: int) -> None:
    window.page.wait_for_function(f"document.querySelectorAll({CARDS!r}).length === {cards}")


def words(window: Visit) -> list[str]:
    return window.page.locator(f"{CARDS} .words").all_inner_texts()


def test_it_goes_on_to_the_end_by_itself_and_in_order(window: Visit) -> None:
    assert count(window) in (SHOWN, 2 * SHOWN) and not window.scrolls_sideways()
    for _ in range(20):
        window.page.evaluate("scrollTo(0, document.body.scrollHeight)")
        window.page.wait_for_timeout(300)
        if count(window) == COUNT + 1:
            break
    assert words(window)[0] == "the newest"
    assert [int(re.findall(r"\d+", text)[0]) for text in words(window)[1:]] == list(range(COUNT))
    assert window.page.locator("#history [data-more]").count() == 0
    window.page.evaluate("scrollTo(0, 0)")
    window.tab(0)
    window.tab(2)
    window.page.wait_for_timeout(800)
    assert count(window) == COUNT + 1, "who comes back finds the wall as it was"


def test_the_button_at_its_end_can_be_pressed_by_keyboard(window: Visit) -> None:
    window.page.evaluate(
        "window.IntersectionObserver = null"
    )  # those that observe go on; for the next wall there is none
    before = count(window)
    window.page.locator("#history [data-more]").focus()
    window.page.keyboard.press("Enter")
    window.page.wait_for_function(f"document.querySelectorAll({CARDS!r}).length > {before}")
    assert window.page.evaluate("document.activeElement !== document.body"), "who pressed it is not thrown to the top"


def test_what_is_deleted_leaves_at_once_and_comes_back_to_its_place(window: Visit) -> None:
    page, before = window.page, words(window)
    third = page.locator(CARDS).nth(2)
    third.locator(".menu summary").click()
    third.locator("[data-act=delete]").click()
    page.wait_for_selector(".undo [data-undo]")
    assert before[2] not in words(window)
    window.open()  # the page is closed in between
    window.tab(2)
    page.wait_for_selector(".undo [data-undo]")
    assert before[2] not in words(window)[:10]
    page.click(".undo [data-undo]")
    page.wait_for_function(f"[...document.querySelectorAll('{CARDS} .words')][2]?.textContent === {before[2]!r}")
    assert page.locator(".undo p").count() == 0


def test_the_offer_to_undo_ends(window: Visit) -> None:
    page = window.page
    page.locator(f"{CARDS} .menu summary").nth(1).click()
    page.locator(CARDS).nth(1).locator("[data-act=delete]").click()
    page.wait_for_selector(".undo p")
    begun = time.monotonic()
    page.wait_for_selector(".undo p", state="detached")
    assert 7 < time.monotonic() - begun < 20


def test_a_heart_stays_under_the_finger(window: Visit) -> None:
    heart = window.page.locator(f"{CARDS} .heart").nth(3)
    heart.click()
    window.page.wait_for_selector(f"{CARDS}:nth-child(4) .heart[aria-pressed=true]")
    assert heart.evaluate("button => button === document.activeElement")
    window.page.locator("#find-favourite input").check()
    until(window, 1)
    window.page.locator("#find-favourite input").uncheck()
    window.page.wait_for_function(f"document.querySelectorAll({CARDS!r}).length > 1")


def test_many_are_chosen_loaded_kept_and_deleted(window: Visit, tmp_path: Path) -> None:
    page, before = window.page, count(window)
    page.click("[data-choosing=begin]")
    for k in (1, 2):
        page.locator(f"{CARDS} .choose").nth(k).click()
    page.locator(f"{CARDS} .pictures a").nth(4).click()  # on the picture, which does not open now
    assert re.search(r"3", page.inner_text(".tools [data-count]"))
    window.tab(0)
    window.tab(2)  # the wall is asked for again
    page.wait_for_timeout(800)
    assert page.locator(f"{CARDS}:has(:checked)").count() == 3
    box = page.locator(f"{CARDS} .choose").first.bounding_box()
    assert box is not None and min(box["width"], box["height"]) >= 44
    with page.expect_download() as download:
        page.click(".tools [data-all=zip]")
    with zipfile.ZipFile(download.value.path()) as pack_:
        assert len(pack_.namelist()) == 3 and pack_.testzip() is None
    page.click(".tools [data-all=favour]")
    page.wait_for_function(f"document.querySelectorAll('{CARDS} .heart[aria-pressed=true]').length === 3")
    assert not page.locator(".choose").first.is_visible(), "the mode is over"
    page.click("[data-choosing=begin]")
    page.locator(f"{CARDS} .choose").nth(0).click()
    page.keyboard.press("Escape")
    assert page.locator("[data-choosing=begin]").is_visible()
    page.click("[data-choosing=begin]")
    page.click("[data-choosing=all]")
    page.click(".tools [data-all=delete]")
    page.wait_for_selector(".undo [data-undo]")
    assert words(window)[:1] != ["the newest"]
    page.click(".undo [data-undo]")  # meanwhile the wall has gone on
    page.wait_for_function(f"document.querySelector('{CARDS} .words')?.textContent === 'the newest'")
    numbers = [int(re.findall(r"\d+", text)[0]) for text in words(window)[1:]]
    assert len(numbers) >= before - 1 and numbers == list(range(len(numbers)))


def test_words_find_a_picture_on_the_last_page(window: Visit) -> None:
    window.page.locator("#find-words").locator("input, textarea").press_sequentially("RARE bird", delay=30)
    until(window, 1)
    assert "very rare bird" in words(window)[0]
    window.page.locator("#find-words").locator("input, textarea").fill("no such bird")
    window.page.wait_for_selector("#history .rest .note")
    assert count(window) == 0
    window.page.locator("#collection label").nth(1).click()
    window.page.locator("#find").wait_for(state="hidden")


def test_every_control_has_a_name_and_room(window: Visit) -> None:
    for kind in ("button", "summary", "a", "input"):
        named = f"""[...document.querySelectorAll("#history {kind}, #find {kind}")].filter((part) =>
          part.checkVisibility() &&
          !(part.ariaLabel || part.textContent.trim() || part.labels?.[0]?.textContent.trim() ||
            part.querySelector("img[alt]:not([alt=''])"))).map((part) => part.outerHTML.slice(0, 200))"""
        assert window.page.evaluate(named) == [], kind
    sizes = window.page.locator(f"{CARDS} .acts > *, {CARDS} .heart").evaluate_all(
        "parts => parts.map(part => [part.offsetWidth, part.offsetHeight])"
    )
    assert sizes and all(min(size) >= 44 for size in sizes)
