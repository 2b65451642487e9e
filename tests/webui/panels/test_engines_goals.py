"""The roads to real portraits: what a card says, what one press submits, and what is said while both jobs go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import presets
from engines import catalogue
from engines.catalogue import Machine, Places
from engines.jobs import Job, Place
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Build, Failed, Fetch, Progress, Request, unpack
from engines.messages.status import Status
from tests.support.announced import BASE, GPEN, MODEL, MODELS, about
from tests.support.http import CJK, Session, succeeded, tree
from webui.boards.downloads import Download, status_text, why
from webui.boards.goals import GOALS, Making, goals_html
from webui.i18n import LANGUAGES, words

if TYPE_CHECKING:
    from tests.support.server import Rig

ZH, EN = words("zh"), words("en")
RESTORER = about(GPEN, id="gpen-bfr-512", title={"zh": "修复", "en": "GPEN"}, memory_gb=4.0, disk_gb=0.3)
PHOTO = about(BASE, id="z-image-turbo", target="z-image-turbo", recipe="lean-int4", disk_gb=7.0)
FETCH, BUILD = Fetch("gpen-bfr-512"), Build("restorer", "GPEN.pth", "edge-bf16", "gpen-bfr-512")
READY = Status("ready", models=(RESTORER,), memory_gb=24.4, free_gb=210.0)


def making(state: Any, text: str = "how it is") -> dict[str, Making]:
    return {"gpen-bfr-512": Making(Job("b" * 32, "", BUILD, state, 0), text)}


def fetching(state: Any, latest: Any = None) -> Download:
    return Download("a" * 32, "gpen-bfr-512", state, latest, Place(0, None))


def shown(status: Status, say: Any, *downloads: Download, made: Any = None) -> tuple[list[str], list[dict[str, str]]]:
    parsed = tree(goals_html(status, downloads, made or {}, say))
    return parsed.text, parsed.all("button")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_road_says_what_it_asks_of_this_machine(language: str) -> None:
    say = words(language)
    text, buttons = shown(READY, say)
    assert text == [
        say("goals_title"), say("goal_restore"), say.choose(RESTORER.model.title),
        say("goals_download"), "284 MB", say("goals_disk"), "0.6 GB" + say("goals_of_this", gb="210"),
        say("goals_memory"), "4 GB" + say("goals_of_this", gb="24"),
        f"non-commercial: {say.choose(RESTORER.model.terms)}", say("goals_begin"),
    ]  # fmt: skip
    assert [button["data-goal"] for button in buttons] == ["gpen-bfr-512"]


def test_every_road_leads_to_a_model_of_the_catalogue(tmp_path: Path) -> None:
    status = Status("ready", models=catalogue.statuses(Places(tmp_path, tmp_path), Machine(1e6, 1e6)))
    for say in (ZH, EN):
        text, buttons = shown(status, say)
        assert [button["data-goal"] for button in buttons] == list(GOALS.values())
        assert all(say(goal) in text for goal in GOALS)
        assert (say is EN) != bool(CJK.search(" ".join(text)))
    assert shown(Status("loading"), ZH) == ([], [])


@pytest.mark.parametrize("language", LANGUAGES)
def test_where_it_cannot_be_gone_it_says_why_and_offers_nothing(language: str) -> None:
    say = words(language)
    small = replace(READY, models=(replace(RESTORER, why="4 GB of memory needed, 2 GB available"),))
    text, buttons = shown(small, say)
    assert say("models_too_large", why=say.phrase("4 GB of memory needed, 2 GB available")) in text and buttons == []
    edge = replace(READY, can_build="not installed (torch)")
    text, buttons = shown(edge, say)
    assert say("build_cannot", reason=say.phrase("not installed (torch)")) in text and buttons == []


def test_what_is_done_what_goes_on_and_what_failed_is_said() -> None:
    here = replace(READY, models=(replace(RESTORER, here=True),))
    running = fetching("running", Progress("fetch", 12, 30))
    failed = Failed("hub_unreachable", "", {"hub": "huggingface.co", "why": "it does not answer"})
    for status, downloads, made, wanted, offered in (
        (READY, (running,), making("queued"), ("is-now", "is-later"), False),
        (READY, (fetching("failed", failed),), making("failed"), ("is-lost",), True),
        (here, (), making("running"), ("is-done", "is-now"), False),
        (here, (), making("failed"), ("is-done", "is-lost"), True),
        (here, (), {}, ("is-done",), True),
    ):
        parsed = tree(goals_html(status, downloads, made, EN))
        assert tuple(item["class"] for item in parsed.all("li")) == wanted
        assert bool(parsed.all("button")) is offered
    assert status_text(running, EN) in shown(READY, EN, running, made=making("queued"))[0]
    assert why(failed, EN) in shown(READY, EN, fetching("failed", failed), made=making("failed"))[0]
    ready = replace(here, bundles=(replace(MODEL, name="gpen-bfr-512"),))
    text, buttons = shown(ready, EN, made=making("done"))
    assert EN("goals_ready") in text and buttons == []


# ---- the press


@pytest.fixture
def crossroads(idle: Rig) -> Iterator[Rig]:
    """Doors before a worker that has two roads to offer, and does nothing."""
    before = idle.queue.status()
    told = replace(before, models=(*MODELS, RESTORER, PHOTO), sources=(), bundles=(), can_build="")
    idle.queue.announce(told)
    yield idle
    idle.queue.announce(before)
    for job_id, state in idle.jobs().items():
        if state in ("queued", "running") and isinstance(idle.queue.job(job_id).request, Fetch | Build):
            idle.queue.cancel(job_id)


def asked(rig: Rig) -> list[Request]:
    return [r for r in map(unpack, rig.requests()) if isinstance(r, Fetch | Build)]


def press(page: Session, model: Any, jobs: Any = (), endpoint: Any = "") -> list[dict[str, Any]]:
    return page.call(page.endpoint("pursue"), [list(jobs), None, endpoint], {"model": model})


def test_one_press_submits_the_download_and_then_the_build(crossroads: Rig) -> None:
    before = len(asked(crossroads))
    with crossroads.session("en") as page:
        messages = press(page, "z-image-turbo", endpoint="https://hf-mirror.com")
    assert succeeded(messages), messages
    names, _, _, timer, goals, _, build_job = messages[-1]["output"]["data"]
    assert asked(crossroads)[before:] == [
        Fetch("z-image-turbo", "hf", "https://hf-mirror.com"),
        Build("portrait", "z-image-turbo", "lean-int4", "z-image-turbo", prompts=presets.prompts()),
    ]
    assert len(names) == 1 and isinstance(crossroads.queue.job(build_job).request, Build)
    assert timer["active"] is True and EN("stage_waiting", ahead=1) in goals, "the build waits for the download"


def test_a_second_press_begins_nothing(crossroads: Rig) -> None:
    before = len(asked(crossroads))
    with crossroads.session("en") as page:
        names, *_ = press(page, "gpen-bfr-512")[-1]["output"]["data"]
        again, *_ = press(page, "gpen-bfr-512", names)[-1]["output"]["data"]
    assert asked(crossroads)[before:] == [FETCH, BUILD] and again == names


def test_what_is_here_is_built_alone(crossroads: Rig) -> None:
    before = len(asked(crossroads))
    crossroads.queue.announce(replace(crossroads.queue.status(), models=(replace(RESTORER, here=True),)))
    with crossroads.session("en") as page:
        assert succeeded(press(page, "gpen-bfr-512"))
    assert asked(crossroads)[before:] == [BUILD]


@pytest.mark.parametrize("model", [None, 5, ["gpen-bfr-512"], "gpen", "<b>", "../x"], ids=str)
def test_what_is_no_goal_is_refused(crossroads: Rig, model: Any) -> None:
    before = crossroads.requests()
    with crossroads.session("en") as page:
        messages = press(page, model)
    assert not succeeded(messages) and "Traceback" not in str(messages) and "<b>" not in str(messages)
    assert crossroads.requests() == before


def test_both_are_still_there_after_a_restart_and_in_this_order(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.db", tmp_path / "outputs")
    queue.submit_all([FETCH, BUILD], "somebody", "interactive")
    first = queue.claim(lane="builds")
    assert first is not None and first.request == FETCH
    queue.close()
    queue = SqliteQueue(tmp_path / "queue.db", tmp_path / "outputs")
    queue.recover()
    claimed = [queue.claim(lane="builds") for _ in range(2)]
    assert [job.request for job in claimed if job] == [FETCH, BUILD]
    queue.close()
