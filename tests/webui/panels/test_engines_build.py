"""The panel that builds models: what it refuses, what it submits, and what it shows while somebody builds."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

import presets
from engines.bundle import BUILT_IN, Role
from engines.messages import Build, Final, Generate, Note, Progress, Recipe, unpack
from engines.messages.status import BundleKind
from engines.toolchain.compress.distill import DistillOptions
from engines.worker import execute
from tests.support.announced import BASE, MODEL, SOURCES
from tests.support.fake_workers import BUILD, FakeWorkshop
from tests.support.http import CJK, WARDROBE, Session, succeeded, tree
from webui.asset_files import FOLDER as ASSETS
from webui.i18n import words
from webui.panels.engines import recipes
from webui.panels.engines.build import reason_html
from webui.panels.engines.build_steps import PARTS, log_html, step_text
from webui.stream import LOG_LINES, JobView, advance

if TYPE_CHECKING:
    from tests.support.server import Rig

ZH, EN = words("zh"), words("en")
PORTRAIT, RESTORER = (f"{kind}:{name}" for kind, name in SOURCES)


@pytest.fixture
def bench(idle: Rig) -> Iterator[Rig]:
    """Doors before a worker that could build from SOURCES, and does nothing."""
    before = idle.queue.status()
    idle.queue.announce(replace(before, sources=SOURCES, can_build=""))
    yield idle
    idle.queue.announce(before)
    for job_id, state in idle.jobs().items():
        if state in ("queued", "running") and isinstance(idle.queue.job(job_id).request, Build):
            idle.queue.cancel(job_id)


@pytest.fixture
def shop(bench: Rig) -> Iterator[FakeWorkshop]:
    """Somebody who builds the next job."""
    made = FakeWorkshop(BUILD)

    def work() -> None:
        if (job := bench.queue.claim(30, "builds")) is not None:
            execute(job, bench.queue, made)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield made
    made.finish.set()
    thread.join(30)


def form(page: Session, **changes: Any) -> list[Any]:
    """What the form holds after the page has asked what can be built from."""
    page.answer(page.endpoint("offer", "build-source"), [None])
    chooser = dict(zip(WARDROBE, [[], None, None, *[0.8] * 8], strict=True))
    values = {"source": RESTORER, "recipe": "edge-int8", "name": "mine", "calibration": "", **chooser, **changes}
    return list(values.values())


def asked(page: Session, **changes: Any) -> list[dict[str, Any]]:
    """The messages about one press of the button, up to the first result."""
    return page.begin(page.endpoint("make"), form(page, **changes))


def builds(rig: Rig) -> list[Build]:
    return [request for request in map(unpack, rig.requests()) if isinstance(request, Build)]


# ---- what is asked


def test_what_can_be_built_from_is_offered_in_words(bench: Rig) -> None:
    for language, say in (("zh-CN", ZH), ("en", EN)):
        with bench.session(language) as page:
            source, go, hurdle = page.answer(page.endpoint("offer", "build-source"), [None])
        assert source["choices"] == [[f"{name} · {say(f'build_{kind}')}", f"{kind}:{name}"] for kind, name in SOURCES]
        assert source["value"] == PORTRAIT, "the first, where nothing was chosen"
        assert go["interactive"] is True and hurdle["visible"] is False


def test_a_source_that_was_chosen_stays_chosen(bench: Rig) -> None:
    with bench.session() as page:
        offer = page.endpoint("offer", "build-source")
        page.answer(offer, [None])
        assert "value" not in page.answer(offer, [RESTORER])[0], "whatever is chosen by the time the answer comes"


def test_every_recipe_is_offered_and_says_what_it_is_for(bench: Rig) -> None:
    with bench.session() as page:
        recipe = next(c["props"] for c in page.components.values() if c["props"].get("elem_id") == "build-recipe")
    assert [value for _, value in recipe["choices"]] == list(recipes.ORDER)
    assert set(recipes.ORDER) == set(get_args(Recipe)) == set(recipes.SHARES)
    for say in (ZH, EN):
        labels = [say(f"build_{value}") for value in recipes.ORDER]
        goals = [label.partition(" · ")[0] for label in labels]
        kinds = [len(list(same)) for _, same in groupby(goals)]
        assert kinds == [1, 1, 5, 2], "together that do the same for one"
        apart = re.search(r"#build-recipe label:is\((.*?)\) \{ margin-top", (ASSETS / "page.css").read_text("utf-8"))
        begun = [1 + sum(kinds[:k]) for k in range(1, len(kinds))]
        assert list(map(int, re.findall(r"\d+", apart[1]))) == begun, "the page sets kinds apart"
        assert all(label.endswith(f"({value})") for label, value in zip(labels, recipes.ORDER, strict=True))
        assert not any(value in goal for value, goal in zip(recipes.ORDER, goals, strict=True)), "words come first"


@pytest.mark.parametrize(("language", "say"), [("zh-CN", ZH), ("en", EN)])
def test_the_recipe_that_fits_is_chosen_with_its_reason(bench: Rig, language: str, say: Any) -> None:
    """z-image is a model of the catalogue; of a restorer nothing was told, and then it is not INT8."""
    large = replace(BASE, model=replace(BASE.model, recipe="lean-int4"))
    bench.queue.announce(replace(bench.queue.status(), models=(large,), bundles=(), source_mb=(32_900.0, 284.0)))
    with bench.session(language) as page:
        page.answer(page.endpoint("offer", "build-source"), [None])
        advise = page.endpoint("advise", "build-recipe")
        recipe, html = page.answer(advise, [PORTRAIT])
        assert recipe == "lean-int4"
        assert tree(html).text == [
            say("build_fits") + say("build_why_large", memory="20"),
            say("build_disk", size="40.0 GB"), say("build_time_unknown"),
        ]  # fmt: skip
        recipe, html = page.answer(advise, [RESTORER])
        assert recipe == "edge-bf16"
        assert tree(html).text == [
            say("build_fits") + say("build_why_usual"),
            say("build_disk", size="142 MB – 284 MB"), say("build_time_unknown"),
        ]  # fmt: skip


def test_another_recipe_is_weighed_and_stays_chosen(bench: Rig) -> None:
    bench.queue.announce(replace(bench.queue.status(), models=(), bundles=(), source_mb=(32_900.0, 284.0)))
    with bench.session("en") as page:
        page.answer(page.endpoint("offer", "build-source"), [None])
        (html,) = page.answer(page.endpoint("weigh"), [RESTORER, "edge-fp32"])
    lead, disk, _ = tree(html).text
    assert lead == EN("build_would_fit", recipe="edge-bf16") + EN("build_why_usual")
    assert disk == EN("build_disk", size="284 MB – 568 MB")


def test_how_long_it_takes_is_said_by_the_last_time(bench: Rig, shop: FakeWorkshop) -> None:
    shop.finish.set()
    with bench.session("en") as page:
        assert succeeded(page.call(page.endpoint("make"), form(page)))
        weigh = page.endpoint("weigh")
        assert EN("build_time", about="about 10 s") in page.answer(weigh, [RESTORER, "edge-int8"])[0]
        assert EN("build_time_unknown") in page.answer(weigh, [RESTORER, "edge-fp32"])[0], "of another nothing is said"


@pytest.mark.parametrize("source", [None, 5, ["x"], "", "portrait:nobody"], ids=str)
@pytest.mark.parametrize("recipe", [None, ["edge-int8"], "rm -rf", "edge-int8"], ids=str)
def test_whatever_is_to_be_weighed_harms_nobody(bench: Rig, source: Any, recipe: Any) -> None:
    with bench.session("en") as page:
        messages = page.call(page.endpoint("weigh"), [source, recipe])
        messages += page.call(page.endpoint("advise", "build-recipe"), [source])
    assert "Traceback" not in str(messages) and "build_" not in str(messages) and "<ul" not in str(messages)


def test_a_portrait_is_asked_for_with_every_prompt_of_the_presets(bench: Rig) -> None:
    before = len(builds(bench))
    with bench.session() as page:
        asked(page, source=PORTRAIT, recipe="edge-int4", name=" new-1 ", calibration=" faces ")
    (request,) = builds(bench)[before:]
    assert request == Build("portrait", "z-image", "edge-int4", "new-1", "faces", presets.prompts())
    wordings = [preset.wording(dialect) for preset in presets.load() for dialect in ("natural", "attributes")]
    wanted = {text for w in wordings for said in (w.prompt, w.negative) for text in said.values()} - {""}
    assert set(request.prompts) == wanted and len(request.prompts) == len(wanted), "each once"


def test_a_restorer_reads_no_prompts(bench: Rig) -> None:
    before = len(builds(bench))
    with bench.session() as page:
        asked(page, recipe="edge-fp32")
    assert builds(bench)[before:] == [Build("restorer", "GPEN-BFR-512.pth", "edge-fp32", "mine")]


BAD_NAMES = (
    "",
    "  ",
    "A",
    "Ä",
    "模型",
    "-x",
    "_x",
    "a b",
    "a/b",
    "..",
    "../x",
    "a.b",
    "x" * 41,
    "a\nb",
    "<b>",
    "{name}",
)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_no_folder_should_have_is_refused_in_words(bench: Rig, name: str) -> None:
    before = bench.requests()
    with bench.session("en") as page:
        told = asked(page, name=name)[-1]["output"]["error"]
    assert "start with a lower-case letter or a digit" in told and "<b>" not in told
    assert bench.requests() == before


@pytest.mark.parametrize(("language", "say"), [("zh-CN", ZH), ("en", EN)])
def test_a_name_that_is_taken_is_refused_in_words(bench: Rig, language: str, say: Any) -> None:
    before = bench.requests()
    with bench.session(language) as page:
        told = asked(page, name="sketch")[-1]["output"]["error"]
    assert told == say("build_taken", name="sketch")
    assert bench.requests() == before


@pytest.mark.parametrize("source", [None, "", "portrait:../..", "restorer:z-image", "z-image", ["portrait:z-image"], 5])
def test_only_what_was_offered_can_be_built_from(bench: Rig, source: Any) -> None:
    before = bench.requests()
    with bench.session("en") as page:
        messages = asked(page, source=source)
    assert not succeeded(messages) and "error" in messages[-1]["output"]
    assert bench.requests() == before


def test_a_source_that_has_gone_since_it_was_offered_is_refused_in_words(bench: Rig) -> None:
    before = bench.requests()
    with bench.session("en") as page:
        filled = form(page)
        bench.queue.announce(replace(bench.queue.status(), sources=SOURCES[:1]))
        messages = page.begin(page.endpoint("make"), filled)
    assert messages[-1]["output"]["error"] == EN("build_no_source")
    assert bench.requests() == before


@pytest.mark.parametrize(
    "changes",
    [{"recipe": "rm -rf"}, {"recipe": None}, {"recipe": ["edge-int8"]}, {"name": None}, {"name": {"a": 1}},
     {"name": ["x"]}, {"calibration": None}, {"calibration": 7}, {"calibration": "../../etc"}],
    ids=str,
)  # fmt: skip
def test_whatever_a_page_asks_to_build_it_can_be_read_again(bench: Rig, changes: dict[str, Any]) -> None:
    before = bench.requests()
    with bench.session("en") as page:
        messages = asked(page, **changes)
    assert "Traceback" not in str(messages) and "/site-packages" not in str(messages)
    for text in bench.requests()[len(before) :]:
        assert isinstance(unpack(text), Build)


# ---- what is shown meanwhile


def test_progress_and_log_are_shown_from_the_click_to_the_end(bench: Rig, shop: FakeWorkshop) -> None:
    shown = []
    with bench.session() as page:
        page.join(page.endpoint("make"), form(page))
        for message in page.listen():
            shown.append(str(message.get("output", "")))
            if "2/4" in shown[-1]:
                shop.finish.set()
    first = [
        next(k for k, text in enumerate(shown) if part in text) for part in ("正在准备制作", "正在导出网络", "制作完成")
    ]
    assert first == sorted(first)
    assert any("剩余约 5 分钟" in text for text in shown)
    assert "耗时 12.3 秒" in shown[-1] and "mine: 5.2 MB" in shown[-1]
    assert "store &lt;restorer&gt;\\n2. export restorer\\n   differs by 8e-07" in shown[-1], "behind the lid"
    assert ZH("build_step_export", part=ZH("build_part_restorer")) in shown[-1]


def test_the_cancel_button_cancels_the_build(bench: Rig, shop: FakeWorkshop) -> None:
    with bench.session("en") as page, bench.session("en", of=page) as button:
        page.join(page.endpoint("make"), form(page))
        messages = page.listen()
        assert any("2/4" in str(message) for message in messages)
        job_id = list(bench.jobs())[-1]
        heard = button.answer(button.endpoint("stop", "build-cancel"), [job_id])
        assert heard[0]["interactive"] is False and "stage_cancelling" in str(heard)
        stage, use, log, go, cancel, *_ = list(messages)[-1]["output"]["data"]
    assert EN("error_cancelled") in stage and "❌" not in stage and "store" in log
    assert (go["visible"], cancel["visible"], cancel["interactive"]) == (True, False, True)
    assert (use["visible"], go["variant"]) == (False, "primary"), "nothing was made"
    assert bench.jobs()[job_id] == "cancelled"


def test_a_press_on_the_last_build_that_was_answered_after_its_end_does_not_hold_for_this_one(bench: Rig) -> None:
    with bench.session("en") as page:
        page.join(page.endpoint("make"), form(page))
        _, _, _, _, cancel, *_ = next(message for message in page.listen() if "output" in message)["output"]["data"]
    assert (cancel["visible"], cancel["interactive"]) == (True, True) and "portrait_cancel" in str(cancel["value"])


def test_a_page_that_was_reloaded_finds_its_build_and_follows_it(bench: Rig, shop: FakeWorkshop) -> None:
    with bench.session("en") as page:
        asked(page)
    with bench.session("en", of=page) as again:
        again.join(again.endpoint("come_back", "build-stage"), [list(bench.jobs())[-1]])
        seen = []
        for message in again.listen():
            seen.append(str(message.get("output", "")))
            if "2/4" in seen[-1]:
                shop.finish.set()
    assert any("['open'], True" in text for text in seen), "not left behind a closed lid"
    assert "in 12.3 s" in seen[-1] and "export restorer" in seen[-1]


def test_a_build_that_ended_is_shown_as_it_ended(bench: Rig, shop: FakeWorkshop) -> None:
    shop.finish.set()
    with bench.session("en") as page:
        assert succeeded(page.call(page.endpoint("make"), form(page)))
    with bench.session("en", of=page) as again:
        come_back = again.endpoint("come_back", "build-stage")
        stage, use, log, go, cancel, *_ = again.answer(come_back, [list(bench.jobs())[-1]])
    assert "in 12.3 s" in stage and "export restorer" in log
    assert go["visible"] is True and cancel["visible"] is False
    assert use["visible"] is True and go["variant"] == "secondary", "one primary button"


def test_a_portraits_job_shown_where_models_are_built_does_no_harm(rig: Rig) -> None:
    """A browser's memory can be edited."""
    job_id = rig.queue.submit(Generate("x", width=64, height=64, steps=1, bundle="sketch"))
    list(rig.queue.follow(job_id))
    with rig.session("en") as page:
        messages = page.call(page.endpoint("come_back", "build-stage"), [job_id])
    assert succeeded(messages)


# ---- where nothing can be built


@pytest.mark.parametrize(("language", "say"), [("zh-CN", ZH), ("en", EN)])
def test_without_pytorch_the_panel_says_why_and_what_to_do(bench: Rig, language: str, say: Any) -> None:
    why = "not installed (torch, diffusers)"
    bench.queue.announce(replace(bench.queue.status(), sources=SOURCES, can_build=why))
    with bench.session(language) as page:
        _, go, hurdle = page.answer(page.endpoint("offer", "build-source"), [None])
    assert go["interactive"] is False and hurdle["visible"] is True
    assert tree(hurdle["value"]).text == [say("build_cannot", reason=say.phrase(why))]
    assert "./run.sh setup" in hurdle["value"] and "torch" in hurdle["value"]
    assert "<b>" not in reason_html("<b>", say)


# ---- when it is done


def pressed(rig: Rig, job_id: Any) -> list[dict[str, Any]]:
    with rig.session("en") as page:
        return page.call(page.endpoint("use"), [job_id])


@pytest.mark.parametrize(("source", "tab"), [(PORTRAIT, "portrait"), (RESTORER, "restore")])
def test_what_was_built_is_used_in_one_press(bench: Rig, shop: FakeWorkshop, source: str, tab: str) -> None:
    kind: BundleKind = "portrait" if tab == "portrait" else "restorer"
    made = replace(MODEL, name="mine", kind=kind)
    shop.adopt = lambda: bench.queue.announce(
        replace(bench.queue.status(), bundles=(*bench.queue.status().bundles, made))
    )
    shop.finish.set()
    with bench.session("en") as page:
        assert succeeded(page.call(page.endpoint("make"), form(page, source=source)))
        answer = page.answer(page.endpoint("use"), [list(bench.jobs())[-1]])
    tabs, bundle, size, steps, guidance, backend, photo_bundle, photo_backend = answer
    assert tabs["selected"] == tab
    chosen, how = (bundle, backend) if tab == "portrait" else (photo_bundle, photo_backend)
    others = (photo_bundle, photo_backend) if tab == "portrait" else (bundle, backend)
    assert (chosen["value"], how["value"]) == ("mine", "auto") and "mine" in str(chosen["choices"])
    assert not any("value" in other for other in others), "the other form is left alone"
    if tab == "portrait":
        assert (size["value"], steps, guidance["value"]) == ("128×96", MODEL.steps, MODEL.guidance)


def test_what_is_not_here_any_more_is_said_to_be_gone(bench: Rig, shop: FakeWorkshop) -> None:
    shop.finish.set()
    with bench.session("en") as page:
        assert succeeded(page.call(page.endpoint("make"), form(page)))
        told = page.call(page.endpoint("use"), [list(bench.jobs())[-1]])[-1]["output"]["error"]
    assert told == EN.error("not_found", {"what": "bundle", "name": "mine"})


@pytest.mark.parametrize("job_id", [None, 5, ["x"], "0" * 32, "x"])
def test_a_job_that_is_no_build_is_not_used(bench: Rig, job_id: Any) -> None:
    messages = pressed(bench, job_id)
    assert not succeeded(messages) and "Traceback" not in str(messages)


# ---- the steps


PLAN = ("store denoiser", "int8 denoiser, static", "something <new>")


@pytest.mark.parametrize("say", [ZH, EN])
def test_the_steps_are_said_in_words_with_how_far_it_is(say: Any) -> None:
    scene = advance(JobView(task="build"), Note("\n".join(f"{k}. {title}" for k, title in enumerate(PLAN, start=1))))
    scene = advance(scene, Progress("quantize", 1, 3))
    parsed = tree(log_html(scene, say))
    assert [item["class"] for item in parsed.all("li")] == ["is-done", "is-now", "is-later"]
    part = say("build_part_denoiser")
    assert parsed.text[:3] == [
        say("build_step_store", part=part), say("build_step_quantize", part=part, precision="int8"), PLAN[2],
    ]  # fmt: skip
    done = advance(scene, Final((), 0, 1.0, ""))
    assert {item["class"] for item in tree(log_html(done, say)).all("li")} == {"is-done"}


def test_a_build_that_begins_anew_tells_its_plan_once() -> None:
    scene = JobView(task="build")
    for text in ("1. store denoiser", "2. export denoiser", "— store denoiser", "   1. of it", "1. store denoiser ✓"):
        scene = advance(scene, Note(text))
    assert scene.plan == ("store denoiser",)


@pytest.mark.parametrize("recipe", get_args(Recipe))
@pytest.mark.parametrize("kind", ["portrait", "restorer"])
def test_every_step_that_the_toolchain_takes_has_words(tmp_path: Path, kind: str, recipe: str) -> None:
    pytest.importorskip("torch", reason="the toolchain needs it")
    from engines.toolchain import sources
    from engines.toolchain.build import Builder, BuildOptions
    from engines.toolchain.recipe import Recipe as Read

    made_of = {"portrait": sources.portrait, "restorer": sources.restorer}[kind](BUILT_IN / kind, None)
    options = BuildOptions(prompts=("x",), prune=0.3, distill=DistillOptions(1, ("a", "b")), prove=True)
    titles = [step.title for step in Builder(made_of, Read.read(recipe), tmp_path / "x", options)._steps()]
    assert len(titles) > 4
    for title in titles:
        assert CJK.search(step_text(title, ZH)) and step_text(title, EN) != title
    assert set(PARTS) == set(get_args(Role))


def test_the_log_is_words_and_stays_short() -> None:
    lines = tuple(f"{k} <img src=x>" for k in range(LOG_LINES))
    parsed = tree(log_html(JobView(task="build", log=lines, plan=("<img src=x>",)), EN))
    assert [tag for tag, _ in parsed.elements] == ["ol", "li", "details", "summary", "div", "pre"]
    assert parsed.text == ["<img src=x>", EN("stage_details"), "\n".join(lines)]
    (box,) = parsed.all("div")
    assert (box["role"], box["tabindex"], box["aria-label"]) == ("log", "0", EN("build_log")), "it scrolls by keyboard"
    assert log_html(JobView(task="build"), EN) == ""
