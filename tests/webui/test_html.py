"""Every piece of HTML that is made of words: nothing that came from outside is markup, and what should be there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import presets
from engines.jobs import Finished, Job, Place
from engines.messages import Advice, Enhance, Failed, Final, Generate, Note, Preview
from engines.messages.faces import FaceReport
from engines.messages.status import BundleStatus, Choice, EngineStatus, Status
from tests.support.events import ONE, PICTURE, play
from tests.support.http import Tree, tree
from tests.support.owners import KEYS
from webui import face_report
from webui.boards import jobs, photos
from webui.boards.photos import Item
from webui.i18n import LANGUAGES, words
from webui.own_jobs import OwnJobs
from webui.panels.engines import build, compare, overview
from webui.panels.history import folder_wall
from webui.panels.history.cards import wall_html
from webui.panels.restore import single
from webui.people import NOBODY, Person
from webui.stage import job_html
from webui.stream import JobView
from webui.widgets.preset_cards import cards_html

EN = words("en")
MINE = OwnJobs(None, KEYS, Person("me"))  # type: ignore[arg-type]
NOBODYS = OwnJobs(None, KEYS, NOBODY)  # type: ignore[arg-type]  # nothing is asked of the queue

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</figure></div><iframe src=//evil.example>",
    "`${alert(1)}`",
    "${constructor.constructor('alert(1)')()}",
    "{{#with this}}{{constructor}}{{/with}}",
    "&lt;b&gt; &amp; &#x3c;i&#x3e;",
    "<!-- --><style>*{display:none}</style>",
    "javascript:alert(1)",
    "\u2028\u2029\x00\x0b]]>",
    "{prompt} {0} %s",
)
TAME = "words"


def everywhere(text: str, say: Callable[..., str]) -> list[str]:
    """Every piece of HTML that is made of words, with these words in every place that a stranger or a file can fill."""
    before = Preview(0, text, kind="before")
    scenes = (
        play(*ONE[:-1], replace_reason(text), scene=JobView(state="running", caption=text)),
        play(Preview(1, text, 0.4), Preview(1, text, 0.4, "tiny", 2), scene=JobView(caption=text)),
        play(before, Final((text,), 0, 1.0, text, text), scene=JobView(task="enhance")),
        play(before, Final((text,), 0, 1.0, text, text, faces=faces(text)), scene=JobView(task="enhance")),
        play(before, Failed("no_face", text), scene=JobView(task="enhance")),
        play(Preview(1, text), Final((text, text), 1, 1.0, text, text, "tiny")),
        play(Failed("engine_failed", text, {"engine": text})),
        play(Failed("bad_option", text, {"field": text, "value": text, "allowed": text})),
        play(Failed("not_found", text, {"name": text, "what": text})),
        play(Failed(text, text, {"engine": text})),
    )
    drawn = [job_html(scene, say) for scene in scenes]
    return drawn + panels(text, say) + workbench(text, say) + photographs(text, say)


def faces(text: str, count: int = 1) -> tuple[FaceReport, ...]:
    return tuple(FaceReport((0.1, 0.1, 0.2, 0.2), "skipped", 0, text) for _ in range(count))


def photographs(text: str, say: Callable[..., str]) -> list[str]:
    """What is shown of many photos, and of a look at one."""
    facts = {"field": text, "value": text, "allowed": text}
    items = [
        Item("a" * 32, text, "done", text, text, 1.0, faces(text)),
        Item("b" * 32, text, "failed", text, code="bad_option", facts=facts),
        Item("c" * 32, text, "failed", text, code="no_face"),
        Item("d" * 32, text, "queued"),
    ]
    advice = Advice(2, 64, 64, 0.5, 0.5, {"strength": 50, "mode": "natural", "denoise": text})
    return [
        photos.board_html(items, say),
        face_report.list_html(faces(text, 9), say),
        face_report.pick_html([face.box for face in faces(text, 2)], say, text),
        face_report.strip_html(faces(text, 2), text, say),
        face_report.zoom_html(faces(text, 2), text, text, say),
        face_report.advice_html(advice, say),
        single.note_html(text),
    ]


def workbench(text: str, say: Callable[..., str]) -> list[str]:
    """What is shown of a build and of a comparison."""
    built = play(Note("x"), Final((), 0, 1.0, text, text), scene=build.START)
    failed = play(Failed("not_found", text, {"name": text, "what": text}), scene=build.START)
    drawn = play(*ONE[:-1], replace_reason(text), scene=JobView(state="running", caption=text))
    kept = play(Preview(1, text, 0.4), Final((text,), 1, 1.0, text, text, "tiny"))
    sides = [(compare.side_title(k, text, say), scene) for k, scene in enumerate((drawn, kept))]
    return [
        build.stage_html(built, say),
        build.stage_html(failed, say),
        build.log_html(JobView(task="build", log=(text,), plan=(text,)), say),
        build.reason_html(text, say),
        compare.stage_html(sides, say),
        compare.stage_html([*sides[:1], (sides[1][0], failed)], say),
    ]


def replace_reason(text: str) -> Final:
    return Final((PICTURE,), 1, 1.0, text, text)


def panels(text: str, say: Callable[..., str]) -> list[str]:
    drawn = Finished(
        Job("0" * 32, "", Generate(text[:4000] or "x"), "done", 1), Final((text,), 1, 1.0, text, text, "tiny")
    )
    restored = Finished(Job("1" * 32, "", Enhance(text), "done", 1), Final((PICTURE,), 1, 1.0, text))
    mine = replace(drawn, job=replace(drawn.job, owner="me", ended=1.0), favourite=True, shared=True)
    old = replace(restored, job=Job("5" * 32, "me", Enhance("p.png", name=text), "done", 1, 2.0))
    rows = [
        jobs.OpenJob(Job("2" * 32, "", Generate(text[:200] or "x"), "queued", 0), Place(1, 3.0)),
        jobs.OpenJob(Job("3" * 32, "", Enhance("p.png", name=text), "running", 1), Place(0, 3.0)),
        jobs.OpenJob(
            Job("4" * 32, "", Enhance("p.png", name=text), "failed", 1),
            Place(0, None),
            Failed("engine_failed", text, {"engine": text}),
        ),
    ]
    choices = tuple(Choice(text, "edge", state, text, text) for state in ("accepted", "failed", "unproven"))
    title = {"zh": text, "en": text}
    bundle = BundleStatus(text, "portrait", title, text, ((64, 64),), 8, 1.0, text, text, choices, 1.0, "# A card")
    broken = replace(bundle, engine="", title={})
    status = Status(
        "ready",
        text,
        (EngineStatus(text, True, text, text), EngineStatus("torch", False, text, text, "pytorch")),
        (bundle, broken),
    )
    return [
        wall_html([drawn, restored], {}, NOBODYS, say),
        wall_html([mine, old], {old.job.id: text}, MINE, say),
        *folder_parts(text, say),
        jobs.board_html(jobs.OpenJobs(tuple(rows), paused=True, may_pause=True), say),
        overview.status_html(status, say),
        overview.chip_html(status, say),
        overview.chip_html(Status("failed", text), say),
    ]


def folder_parts(text: str, say: Callable[..., str]) -> list[str]:
    """A folder with such a name, and in it a file with one; and such a folder that is away, with nothing in it."""

    class Listed:
        def __init__(self, pictures: dict[str, Any]) -> None:
            self._pictures, self.is_away = pictures, not pictures

        def pictures(self, patience_s: float) -> dict[str, Any]:
            return self._pictures

    folders: list[Any] = [Listed({"a" * 32: SimpleNamespace(name=text, since=1.0)}), Listed({})]
    values = [folder_wall.first_page(text, folder, say) for folder in folders]
    return [value[part] for value in values for part in ("cards", "tools", "notice", "rest")]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("text", HOSTILE)
def test_words_from_outside_are_words_on_the_page(text: str, language: str) -> None:
    """Not one element or attribute more than with harmless words, and the words are there as they were written."""
    say = words(language)
    for hostile, harmless in zip(everywhere(text, say), everywhere(TAME, say), strict=True):
        parsed = tree(hostile)
        assert parsed.skeleton == tree(harmless).skeleton
        assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
        assert all(not value.lower().startswith("javascript:") for value in links(parsed))
        assert_there(text, parsed, tree(harmless))


def links(parsed: Tree) -> list[str]:
    return [value for _, attributes in parsed.elements for name, value in attributes.items() if name in ("href", "src")]


def assert_there(text: str, parsed: Tree, harmless: Tree) -> None:
    """Where the harmless words stood, these stand."""
    shown = "".join(parsed.text)
    wanted = "".join(harmless.text).replace(TAME, text)
    assert readable(shown) == readable(wanted)


def readable(text: str) -> str:
    return text.replace("\x00", "").replace("\ufffd", "")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_history_offers_each_picture_and_its_settings_again(language: str) -> None:
    say = words(language)
    final = Final(("outputs_1.png", "outputs_2.png"), 4, 2.5, "ort", "why")
    drawn = Finished(Job("a" * 32, "", Generate("a woman"), "done", 1), final)
    restored = Finished(Job("b" * 32, "", Enhance("x"), "done", 1), Final(("outputs_3.png",), 0, 1.0, "ort"))
    parsed = tree(wall_html([drawn, restored], {}, NOBODYS, say))
    assert [a["href"] for a in parsed.all("a") if a.get("target")][:2] == [
        "outputs/outputs_1.png",
        "outputs/outputs_2.png",
    ]
    assert [b["data-reuse"] for b in parsed.all("button") if "data-reuse" in b] == ["a" * 32], "a restoration cannot"
    assert "a woman" in parsed.text and say("history_restored") in parsed.text


def status(torch_ok: bool) -> Status:
    bundle = BundleStatus(
        "portrait", "portrait", {"zh": "肖像", "en": "Portrait"}, "natural", ((128, 96),), 8, 1.5, "ort", "ort on CPU"
    )
    lost = BundleStatus("big", "portrait", {}, "natural", (), 8, 1.5, "", "no driver")
    torch = EngineStatus(
        "torch", torch_ok, "CPU" if torch_ok else "", "2 threads" if torch_ok else "not installed", "pytorch"
    )
    return Status("ready", "", (EngineStatus("ort", True, "CPU", "2 threads"), torch), (bundle, lost))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_engines_panel_says_what_serves_and_why_not_the_others(language: str) -> None:
    say = words(language)
    html = overview.status_html(status(torch_ok=False), say)
    parsed = tree(html)
    assert [row["class"] for row in parsed.all("tr") if row] == ["is-ok", "is-off"]
    text = "".join(parsed.text)
    assert say("engines_chosen", reason=say.phrase("ort on CPU")) in text and "128×96" in text
    assert say("engines_none", reason="no driver") in text
    assert say.phrase("not installed") in text and say("engines_no_torch") in text
    assert say("engines_no_torch") not in overview.status_html(status(torch_ok=True), say)
    assert say.choose({"zh": "肖像", "en": "Portrait"}) in text and "big" in text, "without a title its name"


@pytest.mark.parametrize(
    ("state", "expected"),
    [("loading", EN("engines_loading")), ("ready", "ort on CPU"), ("failed", "no engine at all")],
)
def test_the_chip_says_what_serves(state: str, expected: str) -> None:
    now = replace(status(True), state=state, detail="no engine at all")
    if state == "failed":
        now = replace(now, bundles=())
    parsed = tree(overview.chip_html(now, EN))
    assert parsed.text == [expected]
    assert f"is-{state}" in parsed.elements[0][1]["class"]


def test_a_worker_that_failed_does_not_look_ready() -> None:
    """Its bundles are still listed; that must not hide that it cannot serve."""
    failed = replace(status(True), state="failed", detail="the restorer is damaged")
    assert "the restorer is damaged" in overview.chip_html(failed, EN)


def test_the_preset_cards_say_every_language_and_can_be_pressed() -> None:
    parsed = tree(cards_html())
    buttons = parsed.all("button")
    assert [button["data-preset"] for button in buttons] == [preset.name for preset in presets.load()]
    assert all(button["type"] == "button" and button["aria-pressed"] == "false" for button in buttons)
    spans = [span for span in parsed.all("span") if span.get("id") != "presets-label"]
    assert {span["lang"] for span in spans} == {"zh", "zh-CN", "zh-TW", "en"}, "zh for what is alike"
    assert len(parsed.all("span")) == len(spans) + 1, "the name of the row"
    assert {"写实人像", "寫實人像", "水彩", "Realistic"} <= set(parsed.text)
    assert {image["data-src"] for image in parsed.all("img")} == {f"thumbnails/{p.name}.webp" for p in presets.load()}


def test_a_preset_that_somebody_has_put_into_the_folder_is_a_card_without_a_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, *_ = presets.load()
    put = replace(first, name='a "b"', title={"zh": "<b>外婆</b>", "en": "Grandma"})
    monkeypatch.setattr(presets, "load", lambda: (put,))
    parsed = tree(cards_html())
    assert parsed.all("img") == parsed.all("b") == [] and len(parsed.all("i")) == 1
    assert [button["data-preset"] for button in parsed.all("button")] == ['a "b"']
