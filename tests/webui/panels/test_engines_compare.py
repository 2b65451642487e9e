"""The panel that holds two engines against each other: one seed, two jobs, one slider, and honest times."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engines.messages import MAX_SEED, Build, Enhance, Generate, unpack
from engines.messages.status import BundleStatus, Choice, Verdict
from tests.support.http import SKETCH, Session, pixels, succeeded, tree
from webui.i18n import words
from webui.panels.engines.compare import choosable, side_title, stage_html
from webui.stream import JobView, Tile
from webui.widgets.panel_context import fine_s

if TYPE_CHECKING:
    from tests.support.server import Rig

ZH, EN = words("zh"), words("en")


def filled(page: Session, **changes: Any) -> list[Any]:
    """The form after the bundle of the fakes was chosen and a prompt written."""
    page.answer(page.endpoint("change_bundle", "compare-a"), ["sketch", "auto", "auto"])
    return list({"prompt": "a woman", "seed": 7, "bundle": "sketch", "a": "auto", "b": "ort", **changes}.values())


def duel(page: Session, **changes: Any) -> list[dict[str, Any]]:
    return page.call(page.endpoint("compare"), filled(page, **changes))


def test_two_jobs_that_differ_in_their_backend_only(rig: Rig) -> None:
    before = len(rig.requests())
    with rig.session("en") as page:
        assert succeeded(duel(page, seed=11))
    a, b = map(unpack, rig.requests()[before:])
    assert a == Generate("a woman", seed=11, bundle="sketch", backend="auto")
    assert b == replace(a, backend="ort")


@pytest.mark.parametrize(("language", "say"), [("zh-CN", ZH), ("en", EN)])
def test_the_end_is_a_slider_over_both_pictures_with_the_times_of_both(rig: Rig, language: str, say: Any) -> None:
    with rig.session(language) as page:
        messages = duel(page)
        html = messages[-1]["output"]["data"][0]
    second, first = (finished.final for finished in rig.queue.finished(2))
    parsed = tree(html)
    (slider,) = parsed.all("input")
    assert (slider["type"], slider["aria-label"]) == ("range", say("compare_drag"))
    titles = [f"A · {say('backend_auto')}", "B · ort"]
    pictures = [(image["src"], image["alt"]) for image in parsed.all("img")]
    assert pictures == [(f"outputs/{rig.signed(f)}", title) for f, title in zip((first, second), titles, strict=True)]
    names = [text for text in parsed.text if text in (say("compare_look"), say("compare_finish"))]
    assert names == [say("compare_look"), say("compare_finish")] * 2
    seconds = [say("stage_after", seconds=fine_s(final.seconds)) for final in (first, second)]
    assert all(text in parsed.text for text in seconds)
    assert say("compare_loading") in parsed.text, "what the times include"
    assert any("fake, asked for ort" in text for text in parsed.text), "why this engine"


def test_one_seed_gives_one_picture(rig: Rig) -> None:
    with rig.session() as page:
        duel(page, seed=3)
    (b, a) = (rig.client.get(f"/outputs/{rig.signed(finished.final)}").content for finished in rig.queue.finished(2))
    assert np.array_equal(pixels(a), pixels(b)) and pixels(a).std() > 1


def test_there_is_no_slider_before_there_are_two_pictures(rig: Rig) -> None:
    with rig.session("en") as page:
        shown = [str(message.get("output", "")) for message in duel(page)]
    states = ["slider" if 'type="range"' in text else "one" if "outputs/" in text else "" for text in shown]
    assert states.index("one") < states.index("slider")
    assert any(EN("stage_waiting", ahead=1) in text for text in shown[: states.index("one")]), "both sides are told"


@pytest.mark.parametrize(("seed", "value"), [(-1, -1), (MAX_SEED + 1, MAX_SEED + 1), (None, None)])
def test_a_seed_by_lot_would_compare_two_pictures_and_is_refused(rig: Rig, seed: int | None, value: Any) -> None:
    before = rig.requests()
    with rig.session("en") as page:
        told = duel(page, seed=seed)[-1]["output"]["error"]
    assert "seed" in told and str(value) in told
    assert rig.requests() == before


@pytest.mark.parametrize(("language", "say"), [("zh-CN", ZH), ("en", EN)])
@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_nothing_to_draw_is_refused_in_words(rig: Rig, prompt: str, language: str, say: Any) -> None:
    before = rig.requests()
    with rig.session(language) as page:
        assert duel(page, prompt=prompt)[-1]["output"]["error"] == say("error_empty_prompt")
    assert rig.requests() == before


@pytest.mark.parametrize(
    "changes",
    [{"a": "rm -rf"}, {"b": None}, {"a": ["auto"]}, {"bundle": "../x"}, {"bundle": None}, {"prompt": None},
     {"prompt": "x" * 4001}, {"seed": "x"}, {"seed": 1e300}, {"seed": 2.5}, {"seed": [1]}],
    ids=ascii,
)  # fmt: skip
def test_whatever_a_page_sends_is_refused_or_two_jobs_that_can_be_read(idle: Rig, changes: dict[str, Any]) -> None:
    before = len(idle.requests())
    with idle.session("en") as page:
        messages = page.begin(page.endpoint("compare"), filled(page, **changes))
    assert "Traceback" not in str(messages) and "/site-packages" not in str(messages)
    stored = [unpack(text) for text in idle.requests()[before:]]
    assert len(stored) in (0, 2) and all(isinstance(request, Generate) for request in stored)


# ---- coming back


def come_back(page: Session, jobs: Any) -> str:
    (html, *_) = page.answer(page.endpoint("come_back", "compare-stage"), [jobs])
    return str(html)


def test_a_page_that_was_reloaded_shows_its_comparison_again(rig: Rig) -> None:
    with rig.session("en") as page:
        end = duel(page)[-1]["output"]["data"][0]
        jobs = " ".join(list(rig.jobs())[-2:])
    with rig.session("en", of=page) as again:
        assert come_back(again, jobs) == end


@pytest.mark.parametrize(
    "jobs", [None, "", 5, True, {"a": 1}, ["x", "y"], "x y", "x" * 9999, "\u0000 \u0000", "a b c d"]
)
def test_jobs_that_are_none_are_no_comparison(rig: Rig, jobs: Any) -> None:
    before = rig.jobs()
    with rig.session("en") as page:
        assert EN("compare_idle") in come_back(page, jobs)
        assert succeeded(page.call(page.endpoint("stop", "compare-cancel"), [jobs]))
    assert rig.jobs().keys() == before.keys()


def pretended(drawn: str, others: list[str]) -> list[str]:
    """What the browser's memory of a comparison can be edited to: one portrait, one twice, others than portraits."""
    return [drawn, f"{drawn} {drawn}", *(f"{drawn} {other}" for other in others), " ".join(others)]


def test_jobs_of_another_kind_are_not_shown(rig: Rig) -> None:
    queue = rig.queue
    drawn = queue.submit(Generate("x", **SKETCH))
    others = [queue.submit(Enhance("gone.jpg")), queue.submit(Build("restorer", "x", "edge-fp32", "x"))]
    queue.cancel(others[1])  # nobody builds here
    for job_id in (drawn, *others):
        list(queue.follow(job_id))
    with rig.session("en") as page:
        for jobs in pretended(drawn, others):
            assert EN("compare_idle") in come_back(page, jobs)


def test_jobs_of_another_kind_are_not_cancelled(idle: Rig) -> None:
    queue = idle.queue
    drawn = queue.submit(Generate("x", **SKETCH))
    others = [queue.submit(Enhance("x.jpg")), queue.submit(Build("restorer", "x", "edge-fp32", "x"))]
    with idle.session("en") as page:
        for jobs in pretended(drawn, others):
            assert succeeded(page.call(page.endpoint("stop", "compare-cancel"), [jobs]))
    assert {idle.jobs()[job_id] for job_id in (drawn, *others)} == {"queued"}
    for job_id in (drawn, *others):
        queue.cancel(job_id)


def test_cancel_stops_both(rig: Rig) -> None:
    with rig.stuck(), rig.session("en") as page, rig.session("en", of=page) as button:
        page.join(page.endpoint("compare"), filled(page))
        messages = page.listen()
        assert any(EN("stage_waiting", ahead=1) in str(message) for message in messages)
        jobs = list(rig.jobs())[-2:]
        heard = button.answer(button.endpoint("stop", "compare-cancel"), [" ".join(jobs)])
        assert "stage_cancelling" in str(heard)
        html, go, cancel, _ = list(messages)[-1]["output"]["data"]
    assert [rig.jobs()[job_id] for job_id in jobs] == ["cancelled"] * 2
    assert html.count(EN("error_cancelled")) == 2 and EN("compare_loading") not in html
    assert (go["visible"], cancel["visible"]) == (True, False)


# ---- what can be chosen, and what is shown


FAST = Verdict("openvino", "CPU", "v", "int8", look_s=0.31, finish_s=1.25)
MODEL = BundleStatus(
    "mine", "portrait", {}, "natural", ((64, 64),), 8, 1.5, "openvino", "",
    (
        Choice("openvino", "edge", "accepted", "int8", verdict=FAST), Choice("ort", "edge", "unproven"),
        Choice("torch", "pytorch", "unavailable"), Choice("tensorrt", "edge", "failed"),
    ),
)  # fmt: skip


def test_engines_that_would_draw_can_be_chosen() -> None:
    assert choosable(MODEL) == ["auto", "openvino", "ort"]
    assert choosable(None) == ["auto"]
    several = replace(MODEL, choices=(*MODEL.choices, replace(MODEL.choices[0], precision="fp32")))
    assert choosable(several) == ["auto", "openvino", "ort"], "an engine that knows several precisions once"


def test_the_engines_of_a_new_model_are_offered_with_their_times(idle: Rig) -> None:
    before = idle.queue.status()
    idle.queue.announce(replace(before, bundles=(*before.bundles, MODEL)))
    try:
        with idle.session() as page:
            bundle, a, b = page.answer(page.endpoint("offer", "compare-a"), ["portrait", "auto", "auto"])
            assert "mine" in [value for _, value in bundle["choices"]]
            assert "value" not in {**bundle, **a, **b}, "somebody may have chosen another meanwhile"
            a, b = page.answer(page.endpoint("change_bundle", "compare-a"), ["mine", "auto", "torch"])
    finally:
        idle.queue.announce(before)
    assert a["choices"] == b["choices"]
    assert a["choices"][1:] == [["openvino · 1.25 秒", "openvino"], ["ort · 用时未知", "ort"]]
    assert "value" not in a and b["value"] == "ort", "one that cannot be chosen gives way"


DONE = JobView(state="done", status="stage_done_one", facts={"seconds": "1.0"}, seconds=1.004)


def test_an_engine_that_is_offered_no_more_gives_way(idle: Rig) -> None:
    """It was chosen, and failed its proof since: the page is told of what there is, and complains of nothing."""
    with idle.session() as page:
        for _ in range(2):  # the server has forgotten the old choices by the second time
            _, a, b = page.answer(page.endpoint("offer", "compare-a"), ["portrait", "gone", "gone"])
            assert (a["value"], b["value"]) == ("auto", b["choices"][-1][1])


def test_a_failed_side_says_so_and_the_other_is_still_shown() -> None:
    drawn = replace(DONE, tiles=(Tile("outputs_1.png", "vae", finished=True, tiny_s=0.2, vae_s=0.9),))
    failed = JobView(state="failed", code="engine_failed", facts={"engine": "ort"})
    html = stage_html([(side_title(0, "auto", EN), drawn), (side_title(1, "ort", EN), failed)], EN)
    parsed = tree(html)
    assert [image["src"] for image in parsed.all("img")] == ["outputs/outputs_1.png"] and not parsed.all("input")
    assert EN.error("engine_failed", {"engine": "ort"}) in html and "is-failed" in html
    assert "0.20 s" in parsed.text and "1.00 s" in parsed.text, "the first look, whichever decoder gave it, and the end"


def test_a_side_that_had_no_preview_looks_when_it_is_finished() -> None:
    late = replace(DONE, tiles=(Tile("outputs_1.png", "vae", finished=True, vae_s=0.91),))
    assert tree(stage_html([("A", late), ("B", late)], EN)).text.count("0.91 s") == 2


def test_a_press_that_was_answered_after_its_end_does_not_hold_for_the_next_one(rig: Rig) -> None:
    with rig.session("en") as page:
        _, _, cancel, _ = next(message for message in duel(page) if "output" in message)["output"]["data"]
    assert (cancel["visible"], cancel["interactive"]) == (True, True) and "portrait_cancel" in str(cancel["value"])
