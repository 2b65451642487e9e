"""The panel that builds models: what it refuses, what it submits, and what it shows while somebody builds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import pytest

import presets
from engines.messages import Build, Generate, Recipe, unpack
from engines.worker import execute
from tests.support.announced import SOURCES
from tests.support.fake_workers import BUILD, FakeWorkshop
from tests.support.http import WARDROBE, Session, succeeded, tree
from webui.i18n import words
from webui.panels.engines.build import log_html, reason_html
from webui.stream import LOG_LINES

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
    for job_id in idle.jobs():
        if isinstance(idle.queue.job(job_id).request, Build):
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
    assert [value for _, value in recipe["choices"]] == list(get_args(Recipe))
    for say in (ZH, EN):
        assert len({say(f"build_{value}") for value in get_args(Recipe)}) == len(get_args(Recipe))


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
    assert "store &lt;restorer&gt;\\n2. export restorer\\n   differs by 8e-07" in shown[-1]


def test_the_cancel_button_cancels_the_build(bench: Rig, shop: FakeWorkshop) -> None:
    with bench.session("en") as page, bench.session("en", of=page) as button:
        page.join(page.endpoint("make"), form(page))
        messages = page.listen()
        assert any("2/4" in str(message) for message in messages)
        job_id = list(bench.jobs())[-1]
        heard = button.answer(button.endpoint("stop", "build-cancel"), [job_id])
        assert heard[0]["interactive"] is False and "stage_cancelling" in str(heard)
        stage, log, go, cancel, *_ = list(messages)[-1]["output"]["data"]
    assert EN("error_cancelled") in stage and "❌" not in stage and "store" in log
    assert (go["visible"], cancel["visible"], cancel["interactive"]) == (True, False, True)
    assert bench.jobs()[job_id] == "cancelled"


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
        stage, log, go, cancel, *_ = again.answer(again.endpoint("come_back", "build-stage"), [list(bench.jobs())[-1]])
    assert "in 12.3 s" in stage and "export restorer" in log
    assert go["visible"] is True and cancel["visible"] is False


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


def test_the_log_is_words_and_stays_short() -> None:
    lines = tuple(f"{k} <img src=x>" for k in range(LOG_LINES))
    parsed = tree(log_html(lines, EN))
    assert [tag for tag, _ in parsed.elements] == ["div", "pre"]
    assert parsed.text == ["\n".join(lines)]
    (box,) = parsed.all("div")
    assert (box["role"], box["tabindex"], box["aria-label"]) == ("log", "0", EN("build_log")), "it scrolls by keyboard"
    assert log_html((), EN) == ""
