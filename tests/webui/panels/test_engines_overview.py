"""The panel of engines: what is shown of each engine and each model, and when the page looks again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Final, Generate
from engines.messages.status import BundleKind, Choice, EngineStatus, Status
from engines.settings import Settings
from engines.worker.heat import PAUSE, TOO_HOT
from tests.support.announced import CHOICES, FAST, MODEL
from tests.support.http import CJK, Tree, tree
from webui.i18n import LANGUAGES, words
from webui.own_jobs import HouseJobs
from webui.panels.engines import overview
from webui.people.secret import Keys
from webui.widgets.panel_context import PanelContext, fine_s

if TYPE_CHECKING:
    from tests.support.server import Rig

ZH, EN = words("zh"), words("en")
HERE = Status("ready", "", (EngineStatus("openvino", True, "CPU", "2 threads"),), (MODEL,))


def rows(html: str) -> dict[str, tuple[str, Tree]]:
    """Of the table of choices: engine -> the state of its row, and the row."""
    table = html.split('<table class="choices">')[1].split("</table>")[0]
    found = [tree(row) for row in table.split("<tbody>")[1].split("<tr ")[1:]]
    return {row.text[1]: (row.text[0].split('"')[1].removeprefix("is-"), row) for row in found}


@pytest.fixture(params=LANGUAGES)
def shown(request: pytest.FixtureRequest) -> tuple[Callable[..., str], str]:
    say = words(request.param)
    return say, overview.status_html(HERE, say)


def test_every_engine_has_a_row_that_says_its_state_in_words(shown: tuple[Any, str]) -> None:
    say, html = shown
    found = rows(html)
    assert {name: state for name, (state, _) in found.items()} == {c.engine: c.state for c in CHOICES}
    for choice in CHOICES:
        assert say(f"engines_{choice.state}") in found[choice.engine][1].text


def test_what_was_measured_is_shown_and_what_was_not_is_a_dash(shown: tuple[Any, str]) -> None:
    say, html = shown
    found = rows(html)
    seconds = [say("stage_after", seconds=text) for text in ("0.31", "1.25")]
    figures = ["41.5 dB", "0.993", *seconds, "512 MB"]
    text = found["openvino"][1].text
    assert [cell for cell in text if cell in figures] == figures, "in the order of the headings"
    assert found["torch"][1].text.count("—") == found["tensorrt"][1].text.count("—") - 1 == len(figures)


def test_each_figure_bears_its_name_for_a_phone_that_shows_no_headings(shown: tuple[Any, str]) -> None:
    say, html = shown
    cells = [cell["data-name"] for cell in rows(html)["ort"][1].all("td") if cell.get("class") == "figure"]
    assert cells == [say(f"engines_{key}") for key in overview.FIGURES]
    headings = tree(html.split('<table class="choices">')[1].split("</thead>")[0]).text
    assert headings[-len(cells) :] == cells


def test_why_an_engine_does_not_serve_is_told(shown: tuple[Any, str]) -> None:
    say, html = shown
    for name, reason in (("ort", "failed its proof, PSNR 24.1 dB < 26 dB"), ("tensorrt", "not installed (tensorrt)")):
        assert say.phrase(reason) in rows(html)[name][1].text
    assert not rows(html)["openvino"][1].all("small"), "nothing to excuse"


def test_only_the_engine_that_serves_is_marked(shown: tuple[Any, str]) -> None:
    say, html = shown
    assert [name for name, (_, row) in rows(html).items() if say("engines_serves") in row.text] == ["openvino"]
    idle = replace(HERE, bundles=(replace(MODEL, engine="", reason="no driver"),))
    lost = overview.status_html(idle, say)
    assert say("engines_serves") not in lost and say("engines_none", reason="no driver") in lost


def test_of_several_precisions_the_one_that_serves_is_marked() -> None:
    exact = replace(CHOICES[0], precision="fp32")
    both = replace(MODEL, choices=(exact, CHOICES[0]), precision="fp32")
    html = overview.status_html(replace(HERE, bundles=(both,)), EN)
    table = html.split('<table class="choices">')[1].split("<tbody>")[1].split("</table>")[0]
    first, second = (tree(row).text for row in table.split("<tr ")[1:])
    assert EN("engines_serves") in first and "fp32" in first
    assert EN("engines_serves") not in second and "int8" in second


def test_what_draws_stands_first_and_what_finds_faces_last() -> None:
    kinds: tuple[BundleKind, ...] = ("detector", "restorer", "portrait")
    bundles = tuple(replace(MODEL, name=f"a-{kind}", kind=kind) for kind in kinds)
    html = overview.status_html(replace(HERE, bundles=bundles), EN)
    assert sorted(kinds, key=lambda kind: html.index(f"a-{kind}")) == ["portrait", "restorer", "detector"]


def test_the_card_says_name_title_size_and_what_runs_it(shown: tuple[Any, str]) -> None:
    say, html = shown
    text = tree(html).text
    assert say.choose({"zh": "我的", "en": "Mine"}) in " ".join(text)
    assert "mine" in text and "12.3 MB" in text and say("engines_sizes", sizes="128×96, 64×64") in text
    assert say("engines_chosen", reason=say.phrase(MODEL.reason)) in text


def test_english_shows_no_chinese() -> None:
    assert not CJK.search(overview.status_html(HERE, EN))


def test_an_old_worker_that_tells_no_choices_is_shown_without_a_table() -> None:
    bare = replace(HERE, bundles=(replace(MODEL, choices=(), card="", size_mb=0.0, sizes=()),))
    parsed = tree(overview.status_html(bare, ZH))
    assert len(parsed.all("article")) == 1 and len(parsed.all("table")) == 1
    assert not parsed.all("details") and "0.0 MB" not in parsed.text


# ---- heat

RESTING = replace(HERE, resting=TOO_HOT, temperature_c=85.4)


@pytest.mark.parametrize(
    ("say", "rest", "line"),
    [
        (ZH, "休息中:温度过高", "处理器 85 °C · 休息中:温度过高"),
        (EN, "At rest: too hot", "Processor at 85 °C · At rest: too hot"),
    ],
)
def test_a_rest_is_said_in_the_header_and_in_the_panel(say: Any, rest: str, line: str) -> None:
    assert tree(overview.chip_html(RESTING, say)).text == [rest]
    assert line in tree(overview.status_html(RESTING, say)).text


@pytest.mark.parametrize("reason", [TOO_HOT, PAUSE])
def test_why_it_rests_is_translated(reason: str) -> None:
    assert CJK.search(ZH.phrase(reason)) and not re.search("[a-z]", ZH.phrase(reason))


def test_a_temperature_alone_is_told_in_the_panel_and_one_that_nobody_measures_is_not() -> None:
    warm = replace(HERE, temperature_c=61.0)
    assert "Processor at 61 °C" in tree(overview.status_html(warm, EN)).text
    assert overview.chip_html(warm, EN) == overview.chip_html(HERE, EN)
    assert "°C" not in overview.status_html(HERE, EN)


@pytest.mark.parametrize("state", ["loading", "failed"])
def test_a_worker_that_does_not_work_is_not_said_to_rest_in_the_header(state: Any) -> None:
    without = replace(RESTING, resting="")
    shown = (overview.chip_html(replace(status, state=state, detail="x"), EN) for status in (RESTING, without))
    assert len(set(shown)) == 1


# ---- the maker's words


EVIL_CARDS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<div onclick=alert(1)>\n\n# x\n\n</div>",
    "![a picture](https://evil.example/x.png)",
    "[a link](javascript:alert(1))",
    "[a link](https://evil.example)",
    "[a link][1]\n\n[1]: https://evil.example",
    "<https://evil.example>",
    "https://evil.example www.evil.example a@evil.example",
    "<style>*{display:none}</style>",
    "<!-- a comment --> <?php x ?> <![CDATA[x]]>",
    "| <img src=x> | [l](//evil) |\n|---|---|\n| ![i](//evil) | <b>b</b> |",
    '```"><img/src=x/onerror=alert(1)>\ncode\n```',
    "&lt;img src=x onerror=alert(1)&gt; &#60;script&#62;",
    "</div></details></article><iframe src=//evil.example>",
    "# <svg/onload=alert(1)>",
)
FORMS = {"p", "h5", "h6", "ul", "ol", "li", "em", "strong", "code", "pre", "blockquote", "hr", "br"}
TABLES = {"table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("card", EVIL_CARDS)
def test_a_card_is_words_and_can_neither_run_nor_lead_away_nor_fetch(card: str) -> None:
    html = overview.card_html(card)
    parsed = tree(html)
    assert {tag for tag, _ in parsed.elements} <= FORMS | TABLES
    assert {name for _, attributes in parsed.elements for name in attributes} <= {"class", "style", "start"}
    whole = tree(overview.status_html(replace(HERE, bundles=(replace(MODEL, card=card),)), EN))
    assert not any(whole.all(tag) for tag in ("a", "img", "script", "iframe", "style", "svg"))
    assert len(whole.all("article")) == len(whole.all("details")) == 1


def test_a_card_that_is_markdown_looks_like_it() -> None:
    card = "# Title\n\nSome *words*.\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\ncode\n```\n"
    tags = [tag for tag, _ in tree(overview.card_html(card)).elements]
    assert {"h5", "em", "li", "table", "pre"} <= set(tags)
    assert not {"h1", "h2", "h3", "h4"} & set(tags), "below the headings of the panel"


def test_a_card_is_folded_away_until_somebody_opens_it() -> None:
    (details,) = tree(overview.status_html(HERE, EN)).all("details")
    assert "open" not in details and details["data-card"] == "mine"
    assert EN("engines_card") in tree(overview.status_html(HERE, EN)).text


# ---- looking again


def proven(*states: str) -> Status:
    choices = tuple(replace(CHOICES[0], state=state) for state in states)
    return replace(HERE, bundles=(replace(MODEL, choices=choices),))


def test_while_the_models_load_the_page_looks_often() -> None:
    timer = overview.next_look(replace(HERE, state="loading"), 60.0)
    assert timer.active and timer.value == overview.LOADING_S


def test_while_proofs_go_on_the_page_looks_ever_more_rarely() -> None:
    waits, every_s = [], overview.LOADING_S
    for _ in range(30):
        timer = overview.next_look(proven("accepted", "unproven"), every_s)
        assert timer.active
        waits.append(every_s := timer.value)
    assert waits == sorted(waits) and waits[0] == overview.PROVING_S and waits[-1] == overview.RARELY_S


@pytest.mark.parametrize("states", [(), ("accepted",), ("accepted", "failed", "unavailable")])
def test_when_nothing_is_unproven_the_page_stops_looking(states: tuple[str, ...]) -> None:
    assert not overview.next_look(proven(*states), overview.PROVING_S).active


def test_while_it_rests_the_page_looks_often() -> None:
    timer = overview.next_look(replace(proven("accepted"), resting=TOO_HOT), overview.RARELY_S)
    assert timer.active and timer.value == overview.PROVING_S


def test_where_a_temperature_is_measured_the_page_goes_on_looking() -> None:
    timer = overview.next_look(replace(proven("accepted"), temperature_c=50.0), overview.PROVING_S)
    assert timer.active and timer.value == overview.RARELY_S


@pytest.fixture
def told(idle: Rig) -> Iterator[Rig]:
    """A worker that tells HERE, as well as the bundles that the page was built with."""
    before = idle.queue.status()
    idle.queue.announce(replace(HERE, bundles=(*before.bundles, MODEL)))
    yield idle
    idle.queue.announce(before)


@pytest.mark.parametrize(("language", "say"), [("zh-CN", ZH), ("en-US", EN), ("fr", EN)])
def test_an_open_page_hears_of_a_new_model_in_its_own_language(told: Rig, language: str, say: Any) -> None:
    with told.session(language) as page:
        table, chip, timer = page.answer(page.endpoint("look"), [overview.PROVING_S])
    assert {say("engines_failed"), say.phrase("failed its proof, PSNR 24.1 dB < 26 dB")} <= set(tree(table).text)
    assert timer["active"] is True and timer["value"] > overview.PROVING_S
    assert "engine-chip" in chip


def test_an_open_page_is_told_to_stop_looking(told: Rig) -> None:
    told.queue.announce(proven("accepted"))
    with told.session() as page:
        *_, timer = page.answer(page.endpoint("look"), [overview.PROVING_S])
    assert timer["active"] is False


# ---- times beside the backends


@pytest.fixture
def context(told: Rig) -> PanelContext:
    told.queue.announce(HERE)
    return PanelContext(told.house, told.settings, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("backend", "zh", "en"),
    [
        ("auto", "自动 · 先看 0.33 秒 · 完成 1.25 秒", "Auto · look 0.33 s · finish 1.25 s"),
        ("edge", "边缘(编译) · 先看 0.33 秒 · 完成 1.25 秒", "Edge (compiled) · look 0.33 s · finish 1.25 s"),
        ("pytorch", "PyTorch · 用时未知", "PyTorch · time not known yet"),  # not proved: no promise
        ("openvino", "openvino · 先看 0.33 秒 · 完成 1.25 秒", "openvino · look 0.33 s · finish 1.25 s"),
        ("ort", "ort · 用时未知", "ort · time not known yet"),  # measured, but what it draws is wrong
    ],
)
def test_a_backend_says_how_long_it_takes_here(context: PanelContext, backend: str, zh: str, en: str) -> None:
    said = [context.backend_label(backend, Generate("", bundle="mine"), say) for say in (ZH, EN)]
    assert said == [zh, en]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"steps": 16}, "look 0.33 s · finish 2.07 s"),
        ({"count": 8}, "look 0.33 s · finish 8.40 s"),
        ({"width": 256, "height": 192}, "look 0.64 s · finish 4.32 s"),
        ({"preview": "off"}, "1.07 s"),
        ({"guidance": 0.0}, "look 0.18 s · finish 0.82 s"),
        ({"steps": 50, "count": 8, "width": 1024, "height": 1024}, "look 9.00 s · finish 61 min"),
    ],
)
def test_the_time_is_that_of_the_chosen_settings(context: PanelContext, wanted: dict[str, Any], said: str) -> None:
    """A step takes 0.08 s, a preview 0.002 s and 0.021 to show it, a decode 0.2 s, the words 0.228 s."""
    assert context.backend_label("edge", Generate("", bundle="mine", **wanted), EN) == f"Edge (compiled) · {said}"


def timed(look_s: float, finish_s: float) -> Choice:
    """CHOICES[0], measured to take this long."""
    return replace(CHOICES[0], verdict=replace(FAST, look_s=look_s, finish_s=finish_s))


def test_a_group_is_as_fast_as_its_fastest_and_auto_as_the_one_that_serves() -> None:
    slow, fast = replace(timed(0.31, 3.0), engine="ort"), timed(0.31, 0.5)
    torch = replace(timed(0.31, 0.1), engine="torch", group="pytorch")
    model = replace(MODEL, engine="ort", choices=(slow, fast, torch))
    verdicts = [model.verdict_for(backend) for backend in ("edge", "auto", "pytorch", "gone")]
    assert [verdict and verdict.finish_s for verdict in verdicts] == [0.5, 3.0, 0.1, None]


def test_of_photos_a_face_is_foretold_and_then_what_others_took(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "jobs.db", tmp_path)
    context = PanelContext(HouseJobs(queue, Keys(b"")), Settings(tmp_path), None)  # type: ignore[arg-type]
    restorer = replace(MODEL, name="restorer", kind="restorer", sizes=(), choices=(timed(0.09, 0.09),))
    queue.announce(replace(HERE, bundles=(restorer,)))
    wanted = Enhance("", bundle="restorer")
    assert context.backend_label("edge", wanted, ZH) == "边缘(编译) · 每张脸 0.09 秒"
    assert context.backend_label("pytorch", wanted, ZH) == "PyTorch · 用时未知"
    assert context.backend_label("edge", replace(wanted, bundle="gone"), ZH) == "边缘(编译)", "no model at all"
    queue.submit(Enhance("a.jpg"))
    job = queue.claim()
    assert job is not None
    queue.publish(job, Final((), 0, 1.5, "openvino"))
    assert context.backend_label("edge", wanted, EN) == "Edge (compiled) · about 1.50 s a photo"
    queue.close()


@pytest.mark.parametrize(("seconds", "text"), [(0.004, "0.004"), (0.0894, "0.09"), (9.994, "9.99"), (12.4, "12")])
def test_seconds_are_as_precise_as_one_cares(seconds: float, text: str) -> None:
    assert fine_s(seconds) == text


@pytest.mark.parametrize(("about", "instead"), [("backend", "mine"), ("restore-backend", "restorer")])
def test_the_radios_of_an_open_page_get_their_times(told: Rig, about: str, instead: str) -> None:
    restorer = replace(MODEL, name="restorer", kind="restorer", choices=(timed(0.09, 0.09),))
    told.queue.announce(replace(HERE, bundles=(MODEL, restorer)))
    with told.session() as page:
        offer = page.endpoint("offer", about)
        bundle, *_, radio = page.answer(offer, page.values(offer))
    assert [name for name, value in radio["choices"] if " 秒" in name and value == "edge"]
    assert radio.get("value", "kept") == "kept", "what was chosen stays"
    assert bundle.get("value", "restorer") == instead, "a model that has gone gives way to one that is here"


def test_the_machines_that_help_are_named() -> None:
    helpers = {"desk": Status("ready"), "<i>old</i>": Status("loading"), "attic": Status("failed")}
    lines = [line for line in tree(overview.status_html(HERE, EN, helpers)).text if line.startswith("Machines")]
    absent, ready, loading = (EN(f"engines_{key}") for key in ("absent", "ready", "loading"))
    assert lines == [f"Machines that help: <i>old</i>: {loading} · attic: {absent} · desk: {ready}"]
    assert not [line for line in tree(overview.status_html(HERE, EN)).text if line.startswith("Machines")]


def test_a_model_of_another_machine_says_where_it_is() -> None:
    there = replace(HERE, bundles=(replace(HERE.bundles[0], at="desk"),))
    assert "on desk" in tree(overview.status_html(there, EN)).text
