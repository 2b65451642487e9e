"""The panel of models to download: what a card says, what a press submits, and what is shown meanwhile."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

from engines import catalogue
from engines.catalogue import Machine, Places
from engines.jobs import Place
from engines.messages import Failed, Fetch, Generate, Mirror, Note, Progress
from engines.messages.mirrors import ELSEWHERE, WANTED
from engines.messages.status import ModelStatus, Status
from tests.support.announced import BASE, GPEN, LARGE, LORA, MODELS, TINY, Z_IMAGE, about
from tests.support.fake_workers import FakeHub, fetches
from tests.support.http import CJK, Session, succeeded, tree
from webui.boards.downloads import HUBS, Download, board_html, status_text
from webui.i18n import LANGUAGES, words

if TYPE_CHECKING:
    from tests.support.server import Rig

ZH, EN = words("zh"), words("en")
Card = tuple[list[str], list[dict[str, str]]]


def cards(html: str) -> list[Card]:
    """Of each card its texts and its buttons."""
    parsed = [tree(part) for part in html.split("<article>")[1:]]
    return [(card.text, card.all("button")) for card in parsed]


def card(model: ModelStatus, say: Any, *downloads: Download) -> Card:
    (only,) = cards(board_html(Status("ready", models=(model,)), downloads, say))
    return only


# ---- what a card says


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_card_says_what_a_person_must_know_before_a_download(language: str) -> None:
    say = words(language)
    text, buttons = card(BASE, say)
    assert {say.choose(Z_IMAGE.title), "≈ 32.9 GB", "Apache-2.0", say.choose(Z_IMAGE.terms)} <= set(text)
    assert [(b["data-fetch"], b["data-mirror"]) for b in buttons] == [("z-image", "hf"), ("z-image", "modelscope")]
    text, buttons = card(GPEN, say)
    assert {"284 MB", "non-commercial"} <= set(text) and say("models_get") in text
    assert [b["data-mirror"] for b in buttons] == ["hf"], "the only hub that has it"
    assert set(HUBS) == set(get_args(Mirror))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_model_that_is_too_large_says_so_and_offers_nothing(language: str) -> None:
    say = words(language)
    text, buttons = card(LARGE, say)
    assert say("models_too_large", why=say.phrase(LARGE.why)) in text and buttons == []
    assert ("内存" in str(text)) == (language == "zh")


@pytest.mark.parametrize(("model", "step"), [(BASE, "build"), (GPEN, "build"), (LORA, "wear"), (TINY, None)])
def test_a_model_that_is_here_offers_one_next_step(model: ModelStatus, step: str | None) -> None:
    text, buttons = card(replace(model, here=True), EN)
    assert EN("models_here") in text
    assert [{k: v for k, v in b.items() if k != "type"} for b in buttons] == (
        [{f"data-{step}": model.model.id}] if step else []
    )
    assert (EN("models_taken") in text) == (step is None)


def test_a_model_that_is_here_needs_no_larger_machine() -> None:
    """Whoever built on it once has it; what it needs is told by what is built."""
    assert card(replace(LARGE, here=True), EN)[1] != []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_download_shows_how_far_it_is_and_can_be_cancelled(language: str) -> None:
    say = words(language)
    for download, wanted in (
        (Download("a" * 32, "gpen", "queued", None, Place(2, None)), say("stage_waiting", ahead=2)),
        (Download("a" * 32, "gpen", "running"), say("models_asking")),
        (Download("a" * 32, "gpen", "running", Note("1. x")), say("models_asking")),
        (Download("a" * 32, "gpen", "running", Progress("prepare", 0, 1)), say("models_asking")),
        (
            Download("a" * 32, "gpen", "running", Progress("fetch", 12, 30, 90.0)),
            f"{say('stage_fetch')} · 12 / 30 MB · {say('stage_eta', seconds='90')}",
        ),
        (
            Download("a" * 32, "gpen", "running", Progress("fetch", 1234, 32900, 3600.0)),
            f"{say('stage_fetch')} · 1.23 / 32.90 GB · {say('stage_eta_minutes', minutes=60)}",
        ),
    ):
        assert status_text(download, say) == wanted
        text, buttons = card(GPEN, say, download)
        assert wanted in text and [b.get("data-stop") for b in buttons] == ["a" * 32]
    bar = tree(board_html(Status("ready", models=(GPEN,)), [download], say)).all("progress")
    assert bar == [{"max": "32900", "value": "1234"}]
    text, (button,) = card(GPEN, say, replace(download, stopping=True))
    assert say("stage_cancelling") in text and "disabled" in button


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_download_that_failed_says_why_and_can_be_tried_again(language: str) -> None:
    say, why = words(language), "wrong checksum: x.safetensors"
    failed = Failed("download_failed", "", {"model": "gpen", "why": why})
    text, buttons = card(GPEN, say, Download("a" * 32, "gpen", "failed", failed))
    assert f"❌ {say.error('download_failed', failed.facts)}" in text and say.phrase("wrong checksum") in str(text)
    assert [b["data-fetch"] for b in buttons] == ["gpen"]
    text, _ = card(GPEN, say, Download("a" * 32, "gpen", "cancelled", Failed("cancelled", "")))
    assert say("error_cancelled") in text and "❌" not in str(text)
    again = Download("b" * 32, "gpen", "running")
    assert say("models_asking") in card(GPEN, say, Download("a" * 32, "gpen", "failed", failed), again)[0]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("code", ["hub_unreachable", "download_broken"])
def test_a_hub_that_is_out_of_reach_is_told_with_what_to_do(language: str, code: str) -> None:
    say = words(language)
    failed = Failed(code, "", {"model": "gpen", "hub": "huggingface.co", "why": "its name is not found"})
    text, buttons = card(GPEN, say, Download("a" * 32, "gpen", "failed", failed))
    (told,) = [line for line in text if line.startswith("❌")]
    assert "huggingface.co" in told and say.phrase("its name is not found") in told
    assert {"zh": "网络", "zh-TW": "網路", "en": "network"}[language] in told and buttons != []
    assert "errno" not in told.lower() and (language == "en") != bool(CJK.search(told))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_line_that_broke_is_told_with_how_much_is_here(language: str) -> None:
    say = words(language)
    download = Download("a" * 32, "gpen", "running", Progress("reconnect", 12, 30))
    text, _ = card(GPEN, say, download)
    assert f"{say('stage_reconnect')} · 12 / 30 MB" in text
    assert tree(board_html(Status("ready", models=(GPEN,)), [download], say)).all("progress") == [
        {"max": "30", "value": "12"}
    ]


def test_the_whole_catalogue_is_shown_in_both_languages(tmp_path: Path) -> None:
    models = catalogue.statuses(Places(tmp_path, tmp_path), Machine(1e6, 1e6))
    for say in (ZH, EN):
        shown = cards(board_html(Status("ready", models=models), [], say))
        assert [buttons[0]["data-fetch"] for _, buttons in shown] == [status.model.id for status in models]
    assert len(models) >= 7 and not CJK.search(board_html(Status("ready", models=models), [], EN))


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_lies_among_the_models_and_is_none_is_named(language: str) -> None:
    say = words(language)
    html = board_html(Status("ready", models=MODELS, strays=("a<b>.pth", "文件夹")), [], say)
    assert say("models_strays", names="a<b>.pth, 文件夹") in tree(html).text and "<b>" not in html
    assert "hurdle" not in board_html(Status("ready", models=MODELS), [], say)


def test_whatever_a_worker_or_a_hub_tells_it_is_words() -> None:
    evil = "\"><img src=x onerror=alert(1)>'"
    model = replace(about(GPEN, id=evil, title={"en": evil}, licence=evil, terms={"en": evil}), why=evil)
    failed = Download("a" * 32, evil, "failed", Failed("download_failed", "", {"model": evil, "why": evil}))
    for one in (model, replace(model, here=True), replace(model, why="")):
        parsed = tree(board_html(Status("ready", models=(one,), strays=(evil,)), [failed], EN))
        assert not parsed.all("img") and len(parsed.all("article")) == 1


# ---- what a press does


def press(page: Session, jobs: Any, model: Any = "gpen", mirror: Any = "hf") -> list[dict[str, Any]]:
    return page.call(page.endpoint("fetch"), [jobs], {"model": model, "mirror": mirror})


def fetched(page: Session, jobs: Any, **what: Any) -> tuple[list[str], str, bool]:
    """The names that the browser keeps, the board, and whether the page looks on."""
    messages = press(page, jobs, **what)
    assert succeeded(messages), messages
    names, board, _, timer, *_ = messages[-1]["output"]["data"]
    return names, board, timer["active"]


def test_a_press_submits_the_model_from_the_hub_that_was_named(shop: Rig) -> None:
    before = len(fetches(shop))
    with shop.session() as page:
        names, _, looks = fetched(page, [], model="z-image", mirror="modelscope")
    assert fetches(shop)[before:] == [Fetch("z-image", "modelscope")]
    assert len(names) == 1 and looks is True


def test_one_model_is_fetched_once_and_several_wait_for_each_other(shop: Rig) -> None:
    before = len(fetches(shop))
    with shop.session("en") as page:
        names, _, _ = fetched(page, [], model="gpen")
        names, _, _ = fetched(page, names, model="lora")
        again, board, _ = fetched(page, names, model="gpen")
    assert fetches(shop)[before:] == [Fetch("gpen"), Fetch("lora")] and again == names
    of_gpen, of_lora = cards(board)[1:3]
    assert EN("models_asking") in of_gpen[0] and EN("stage_waiting", ahead=1) in of_lora[0]


def test_a_download_that_ended_is_forgotten_for_the_next_one(shop: Rig) -> None:
    with shop.session() as page:
        (first,), _, _ = fetched(page, [])
        shop.queue.cancel(first)
        names, _, _ = fetched(page, [first])
    assert first not in names and len(names) == 1


@pytest.mark.parametrize(("language", "say"), [("zh-CN", ZH), ("en", EN)])
def test_a_model_that_is_not_offered_is_refused_in_words(shop: Rig, language: str, say: Any) -> None:
    before = shop.requests()
    with shop.session(language) as page:
        told = press(page, [], model="no <such>")[-1]["output"]["error"]
    assert "no &lt;such&gt;" in told and say.phrase("model") in told and shop.requests() == before


@pytest.mark.parametrize(
    "asked",
    [{"model": None}, {"model": 5}, {"model": ["gpen"]}, {"model": ""}, {"mirror": "https://evil.example"},
     {"mirror": None}, {"mirror": ["hf"]}, {"mirror": 0}, {"jobs": 5, "model": "x"}],
    ids=str,
)  # fmt: skip
def test_nothing_else_is_submitted(shop: Rig, asked: dict[str, Any]) -> None:
    before = shop.requests()
    with shop.session("en") as page:
        messages = press(page, **{"jobs": [], **asked})
    assert not succeeded(messages) and "Traceback" not in str(messages)
    assert shop.requests() == before


MIRROR = "https://hf-mirror.com"


def test_the_mirror_that_stands_in_the_field_is_asked(shop: Rig) -> None:
    before = len(fetches(shop))
    with shop.session() as page:
        for model, mirror in (("gpen", "hf"), ("z-image", "modelscope")):
            asked = {"model": model, "mirror": mirror}
            assert succeeded(page.call(page.endpoint("fetch"), [[], None, f" {MIRROR} "], asked))
    assert fetches(shop)[before:] == [Fetch("gpen", "hf", MIRROR), Fetch("z-image", "modelscope")], "no mirror of that"


@pytest.mark.parametrize(("language", "say"), [("zh-CN", ZH), ("en", EN)])
@pytest.mark.parametrize(
    ("address", "allowed"),
    [("http://127.0.0.1:6379", ELSEWHERE), ("http://169.254.169.254", ELSEWHERE), ("<b>", WANTED), ("ftp://x", WANTED)],
)
def test_an_address_that_must_not_be_asked_is_refused_in_words(
    shop: Rig, address: str, allowed: str, language: str, say: Any
) -> None:
    before = shop.requests()
    with shop.session(language) as page:
        asked = {"model": "gpen", "mirror": "hf"}
        told = page.call(page.endpoint("fetch"), [[], None, address], asked)[-1]["output"]["error"]
    assert say.phrase(allowed) in told and "<b>" not in told and shop.requests() == before


@pytest.mark.parametrize("address", [5, ["x"], {"a": 1}, True, MIRROR + "x" * 200])
def test_whatever_stands_in_the_field_nothing_else_is_submitted(shop: Rig, address: Any) -> None:
    before = shop.requests()
    with shop.session("en") as page:
        messages = page.call(page.endpoint("fetch"), [[], None, address], {"model": "gpen", "mirror": "hf"})
    assert not succeeded(messages) and "Traceback" not in str(messages) and shop.requests() == before


def test_only_the_owner_names_a_mirror(shop: Rig) -> None:
    with shop.session() as page:
        (field,) = [c["props"] for c in page.components.values() if c["props"].get("elem_id") == "models-mirror"]
    assert "owners-only" in field["elem_classes"] and field["max_length"] == 200


@pytest.mark.parametrize(
    ("memory", "value"),
    [({"endpoint": MIRROR}, MIRROR), *((m, None) for m in (None, {}, 5, "x", {"endpoint": 5}, {"endpoint": "x"}))],
    ids=str,
)
def test_a_page_that_is_loaded_anew_has_its_mirror_again(shop: Rig, memory: Any, value: str | None) -> None:
    with shop.session() as page:
        (told,) = page.answer(page.endpoint("recall", "models-mirror"), [memory])
    assert told == value if value else isinstance(told, dict) and "value" not in told


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_card_says_from_where_its_model_can_be_had(language: str) -> None:
    say = words(language)
    assert say("models_hubs", hubs="Hugging Face, ModelScope") in card(BASE, say)[0]
    assert say("models_hub_only", hub="Hugging Face") in card(GPEN, say)[0]
    assert say("models_hub_only", hub="Hugging Face") in card(replace(GPEN, here=True), say)[0]


@pytest.mark.parametrize("jobs", [None, 5, "x", {"a": 1}, [None, 5, "x" * 10_000, {"a": 1}], ["0" * 32]])
def test_a_browsers_memory_may_hold_anything(shop: Rig, jobs: Any) -> None:
    with shop.session("en") as page:
        board, _, timer, *_ = page.answer(page.endpoint("come_back", "models"), [jobs])
    assert len(cards(board)) == len(MODELS) and timer["active"] is False


def test_progress_is_shown_until_the_model_is_here(shop: Rig, hub: FakeHub) -> None:
    with shop.session("en") as page:
        names, _, _ = fetched(page, [])
        watch = page.endpoint("watch", "models")
        shown, boards = "", []
        for _ in range(600):
            shown, _, timer, *_ = page.answer(watch, [names])
            boards.append(shown)
            if "12 / 30 MB" in shown:
                hub.finish.set()
            if not timer["active"]:
                break
            threading.Event().wait(0.05)
        assert any("12 / 30 MB · about 90 s left" in board for board in boards)
        assert EN("models_here") in cards(shown)[1][0]
        fill = page.call(page.endpoint("fill"), [], {"model": "gpen"})[-1]["output"]["data"]
    assert fill[0]["open"] is True and fill[1]["value"] == "restorer:GPEN.pth" and fill[2] == "gpen"
    assert ["GPEN.pth · restoration", "restorer:GPEN.pth"] in fill[1]["choices"], "though the page was loaded before"


def test_a_page_that_was_reloaded_finds_its_download(shop: Rig, hub: FakeHub) -> None:
    with shop.session("en") as page:
        names, _, _ = fetched(page, [])
    with shop.session("en", of=page) as again:
        come_back = again.endpoint("come_back", "models")
        board, _, timer, _, frame = again.answer(come_back, [names])
        assert timer["active"] is True and frame["open"] is True, "not left behind a closed lid"
        assert [b.get("data-stop") for b in cards(board)[1][1]] == names


def test_cancel_is_heard_at_once_and_ends_that_download_alone(shop: Rig, hub: FakeHub) -> None:
    with shop.session("en") as page:
        names, _, _ = fetched(page, [])
        names, _, _ = fetched(page, names, model="lora")
        hub.obeys = False  # until the page has been drawn, however long that takes
        heard = page.call(page.endpoint("stop", "models"), [names], {"job": names[0]})[-1]["output"]["data"][0]
        assert EN("stage_cancelling") in cards(heard)[1][0] and EN("stage_cancelling") not in cards(heard)[2][0]
        hub.obeys = True
        list(shop.queue.follow(names[0]))
        board, *_ = page.answer(page.endpoint("watch", "models"), [names])
    assert EN("error_cancelled") in cards(board)[1][0]
    assert [shop.jobs()[name] for name in names] == ["cancelled", "queued"]


def test_a_look_that_left_before_the_answer_to_a_press_hides_nothing(shop: Rig, hub: FakeHub) -> None:
    """Whatever the browser remembered when it was sent: the server knows what this page began."""
    with shop.session("en") as page:
        names, _, _ = fetched(page, [])
        board, *_ = page.answer(page.endpoint("watch", "models"), [[]])
        second, _, _ = fetched(page, [], model="lora")
    assert f'data-stop="{names[0]}"' in board
    assert second[: len(names)] == names


def test_only_downloads_are_cancelled_here(shop: Rig) -> None:
    picture = shop.queue.submit(Generate("not yours"))
    with shop.session() as page:
        page.call(page.endpoint("stop", "models"), [[picture]], {"job": picture})
    assert shop.jobs()[picture] == "queued"


@pytest.mark.parametrize("model", ["lora", "tiny", "gpen", "no such model", None, ["gpen"]])
def test_what_cannot_be_built_from_fills_in_nothing(shop: Rig, model: Any) -> None:
    """gpen is not here yet."""
    with shop.session() as page:
        messages = page.call(page.endpoint("fill"), [], {"model": model})
    assert succeeded(messages) and not re.search("open|choices", str(messages[-1]["output"]["data"]))
