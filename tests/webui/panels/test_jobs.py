"""The board of what a person has asked for and has not got: what is on it, and what its buttons do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engines.jobs import Job, Place
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Failed, Fetch, Final, Generate, Inspect
from tests.support.http import SKETCH, Session, succeeded, tree
from tests.support.owners import own
from webui.boards import jobs
from webui.boards.jobs import SHOWN, OpenJob, OpenJobs, board_html, row_text
from webui.i18n import LANGUAGES, words
from webui.people import Person

if TYPE_CHECKING:
    from tests.support.server import Rig

EN = words("en")
MINE, HOST = Person("me"), Person("host", "owner")
CRASH = Failed("interrupted", "x", {"why": "the program was killed"})


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(tmp_path / "jobs.db", tmp_path)
    yield opened
    opened.close()


def end(queue: SqliteQueue, event: Final | Failed) -> Job:
    job = queue.claim()
    assert job is not None
    queue.publish(job, event)
    return job


def acts(board: OpenJobs) -> list[tuple[str, str | None]]:
    return [(b["data-act"], b.get("data-job")) for b in tree(board_html(board, EN)).all("button")]


# ---- what is on it


def test_what_waits_stands_in_the_order_of_its_turns(queue: SqliteQueue) -> None:
    mine = own(queue, MINE)
    running = mine.submit(Generate("runs"))
    queue.claim()
    batch = mine.submit_all([Enhance("a.png", name="a.png")], "batch")[0]
    own(queue, Person("other")).submit(Generate("somebody else's"))
    waiting = mine.submit(Generate("waits"))
    board = jobs.read(mine)
    assert [(row.job.id, row.place.ahead) for row in board.rows] == [(running, 0), (waiting, 2), (batch, 3)]
    assert board.busy and "somebody else" not in board_html(board, EN)
    assert acts(board) == [("cancel", running), ("cancel", waiting), ("cancel", batch), ("first", batch)]


def test_only_what_people_ask_for_is_on_it(queue: SqliteQueue) -> None:
    """A look at a photo is over in a moment, and a download has a board of its own."""
    own(queue, HOST).submit(Inspect("a.png"))
    own(queue, HOST).submit(Fetch("gpen"))
    board = jobs.read(own(queue, HOST))
    assert board.rows == () and not board.busy


def test_what_failed_is_offered_again_until_it_has_been_asked_for(queue: SqliteQueue) -> None:
    mine = own(queue, MINE)
    mine.submit(Generate("a crash"))
    failed = end(queue, CRASH)
    board = jobs.read(mine)
    assert acts(board) == [("retry", failed.id)] and not board.busy
    shown = tree(board_html(board, EN)).text
    assert {EN("jobs_lost"), f"❌ {EN.error(CRASH.code, CRASH.facts)}"} <= set(shown)
    again = mine.retry(failed.id)
    assert [row.job.id for row in jobs.read(mine).rows] == [again], "it is under way, and no more lost"
    end(queue, Final((), 1, 1.0, "ort"))
    assert board_html(jobs.read(mine), EN) == ""


def test_what_failed_by_its_own_fault_or_was_cancelled_is_not_offered_again(queue: SqliteQueue) -> None:
    mine = own(queue, MINE)
    mine.submit(Enhance("a.png", name="a.png"))
    end(queue, Failed("no_face", "x"))
    mine.cancel(mine.submit(Generate("never mind")))
    board = jobs.read(mine)
    assert [row.job.state for row in board.rows] == ["failed"] and acts(board) == []


def test_what_failed_long_ago_is_forgotten(queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    own(queue, MINE).submit(Generate("a crash"))
    job = end(queue, CRASH)
    ended = queue.job(job.id).ended
    assert ended is not None
    for days, shown in ((0.9, 1), (1.1, 0)):
        monkeypatch.setattr(jobs.time, "time", lambda days=days: ended + 86400 * days)
        assert len(jobs.read(own(queue, MINE)).rows) == shown


def test_a_long_line_is_cut_and_says_how_long_it_is(queue: SqliteQueue) -> None:
    mine = own(queue, MINE)
    mine.submit_all([Generate(str(i)) for i in range(SHOWN + 3)])
    parsed = tree(board_html(jobs.read(mine), EN))
    assert len(parsed.all("li")) == SHOWN and EN("jobs_more", count=3) in parsed.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_row_says_how_it_is(language: str) -> None:
    say = words(language)
    waits = OpenJob(Job("a" * 32, "me", Generate("x"), "queued", 0), Place(2, 41.0))
    assert row_text(waits, say) == f"{say('stage_waiting', ahead=2)} · {say('stage_about', seconds=40)}"
    assert row_text(replace(waits, place=Place(0, None, away="desk")), say) == say("stage_away", name="desk")
    waking = replace(waits, place=Place(0, None, away="desk", waking=True))
    assert row_text(waking, say) == say("stage_waking", name="desk") != say("stage_away", name="desk")
    assert row_text(replace(waits, place=Place(2, None, paused=True)), say) == say("batch_queued")
    runs = replace(waits, job=replace(waits.job, state="running"), place=Place(0, 3.2))
    assert row_text(runs, say) == f"{say('jobs_running')} · {say('stage_eta', seconds='3.2')}"


def test_the_owner_may_pause_while_anybody_waits_and_others_are_not_offered_it(queue: SqliteQueue) -> None:
    mine, host = own(queue, MINE), own(queue, HOST)
    assert board_html(jobs.read(host), EN) == "", "there is nothing to pause"
    mine.submit(Generate("x"))
    assert acts(jobs.read(host)) == [("pause", None)] and ("pause", None) not in acts(jobs.read(mine))
    host.pause()
    assert acts(jobs.read(host)) == [("resume", None)]
    assert EN("jobs_paused") in board_html(jobs.read(mine), EN)
    end_of_pause = jobs.ACTS["resume"]
    end_of_pause(host, "")
    assert not queue.is_paused()


# ---- at the page


def pressed(page: Session, act: Any, job: Any = "") -> str:
    """The board after a press, as the page draws it."""
    messages = page.call(page.endpoint("press"), [], {"act": act, "job": job})
    assert succeeded(messages), messages
    return str(messages[-1]["output"]["data"][0])


def submitted(page: Session, prompt: str) -> str:
    answer = page.client.post("/generate", json={"prompt": prompt, **SKETCH}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_the_buttons_of_the_page(idle: Rig) -> None:
    with idle.session() as mine, idle.session() as other:
        first, second = submitted(mine, "first"), submitted(mine, "second")
        try:
            board = str(mine.answer(mine.endpoint("look_at_jobs"), [])[0])
            assert board.index(first) < board.index(second)
            assert first not in str(other.answer(other.endpoint("look_at_jobs"), [])[0])
            assert not succeeded(other.call(other.endpoint("press"), [], {"act": "cancel", "job": first}))
            board = pressed(mine, "first", second)
            assert board.index(second) < board.index(first)
            assert 'data-act="resume"' in pressed(mine, "pause") and idle.queue.is_paused()
            assert 'data-act="pause"' in pressed(mine, "resume") and not idle.queue.is_paused()
            assert first not in pressed(mine, "cancel", first)
            assert second not in pressed(mine, "cancel", second)
            again = tree(pressed(mine, "retry", second))
            assert len(again.all("li")) == 1 and "second" in again.text
        finally:
            idle.queue.resume()
            for job in idle.queue.latest_of(idle.queue.job(first).owner, 9):
                idle.queue.cancel(job.id)


@pytest.mark.parametrize("act", ["", "submit", "__class__", None, ["cancel"], {"a": 1}])
def test_a_press_of_no_button_changes_nothing(idle: Rig, act: Any) -> None:
    with idle.session() as page:
        assert "<li" not in pressed(page, act)
