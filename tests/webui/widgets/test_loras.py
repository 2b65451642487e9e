"""The chooser of LoRAs: what is offered where, which strength belongs to which, and what is submitted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import presets
from engines.messages import Build, Generate, Lora, unpack
from engines.messages.status import BundleStatus, EngineStatus, Model, ModelStatus
from tests.support.http import Session, succeeded
from webui.i18n import words
from webui.widgets.loras import USUAL, fields

if TYPE_CHECKING:
    from tests.support.server import Rig

pytest_plugins = ("tests.support.server",)
ZH, EN = words("zh"), words("en")
TORCH = EngineStatus("torch", True, "CPU", "2 threads", "pytorch")
PLAIN = BundleStatus(
    "plain", "portrait", {}, "natural", ((64, 64),), 8, 1.0, "torch", "", family="zimage", takes_loras=True
)
BUNDLES = (PLAIN, replace(PLAIN, name="compiled", takes_loras=False), replace(PLAIN, name="sd15", family="sd"))
LORAS = ("skin", "studio_light", "柔光")
UNSET = [0.8] * 8
STUDIO_LIGHT = ModelStatus(
    Model("light", {"zh": "光", "en": "Light"}, "lora", "柔光.safetensors", "MIT", True, {}, 0.1, 0.0, 0.1, ()), True
)


@pytest.fixture
def dressing(idle: Rig) -> Iterator[Rig]:
    """Doors before a worker that tells of LORAS, of PyTorch, and of bundles that wear them and do not."""
    before = idle.queue.status()
    known = (*before.bundles, *BUNDLES)
    idle.queue.announce(
        replace(before, engines=(TORCH,), bundles=known, loras=LORAS, models=(STUDIO_LIGHT,), sources=SOURCES)
    )
    yield idle
    idle.queue.announce(before)


SOURCES = (("portrait", "z-image"), ("restorer", "GPEN-BFR-512.pth"))


@contextmanager
def opened(rig: Rig, language: str = "zh-CN") -> Iterator[Session]:
    """A page that has asked what there is, as it does when it is loaded."""
    with rig.session(language) as page:
        page.answer(page.endpoint("offer", "bundle"), ["portrait"])
        page.answer(page.endpoint("offer", "build-source"), [None])
        page.answer(page.endpoint("offer_loras", "loras"), ["portrait", [], None, None, *UNSET])
        page.answer(page.endpoint("offer_loras", "build-loras"), ["portrait:z-image", [], None, None, *UNSET])
        yield page


def offered(page: Session, bundle: str, *chosen: str) -> list[Any]:
    """The sentence, the choices, and a slider each, as the page has them once it has asked."""
    return page.answer(page.endpoint("offer_loras", "loras"), [bundle, list(chosen), None, None, *UNSET])


def arranged(page: Session, chosen: list[str], strengths: list[float]) -> list[tuple[str, float]]:
    """The sliders that are to be seen, after `chosen` was chosen while they stood at `strengths`."""
    given = [*strengths, *UNSET][:8]
    _, *sliders = page.answer(page.endpoint("arrange", "loras"), [chosen, None, None, *given])
    shown = [slider for slider in sliders if slider["visible"]]
    assert sliders[: len(shown)] == shown and len(sliders) == 8, "without gaps"
    return [(slider["label"], slider["value"]) for slider in shown]


def worn(page: Session, chosen: list[str], strengths: list[float]) -> dict[str, Any]:
    sliders = {f"strength {k}": value for k, value in enumerate(strengths)}
    return {"files": chosen, "bundle": "plain", **sliders}


def drawn(rig: Rig, page: Session, **changes: Any) -> list[Generate]:
    """What is in the queue after the button was pressed."""
    before = len(rig.requests())
    page.begin(page.endpoint("generate"), page.sketching("dressed", **changes))
    return [unpack(text) for text in rig.requests()[before:]]


# ---- what is offered


@pytest.mark.parametrize(("language", "say"), [("zh-CN", ZH), ("en", EN)])
def test_where_no_lora_can_be_worn_one_sentence_says_why(dressing: Rig, language: str, say: Any) -> None:
    with opened(dressing, language) as page:
        for bundle, why in (("plain", ""), ("compiled", "loras_compiled"), ("sd15", "")):
            hurdle, files, _, *sliders = offered(page, bundle, "skin")
            assert (hurdle["visible"], files["visible"]) == (bool(why), not why)
            assert not why or say(why) in hurdle["value"]
            assert files["choices"] == [[name, name] for name in LORAS]
            assert files.get("value") == ([] if why else None), "what cannot be worn is not sent either"
            assert not why or not any(slider["visible"] for slider in sliders)
        dressing.queue.announce(replace(dressing.queue.status(), engines=(replace(TORCH, ok=False),)))
        hurdle, files, *_ = offered(page, "plain")
        assert say("loras_no_torch") in hurdle["value"] and files["visible"] is False


def test_a_file_that_has_gone_is_taken_off(dressing: Rig) -> None:
    with opened(dressing) as page:
        arranged(page, ["skin", "柔光"], [])
        dressing.queue.announce(replace(dressing.queue.status(), loras=("studio_light", "柔光")))
        endpoint = page.endpoint("offer_loras", "loras")
        _, files, _, first, second, *_ = page.answer(
            endpoint, ["plain", ["skin", "柔光"], None, None, 0.3, -1.0, *UNSET[2:]]
        )
    assert files["value"] == ["柔光"] and (first["label"], first["value"]) == ("柔光", -1.0)
    assert second["visible"] is False


@pytest.mark.parametrize("about", ["loras", "build-loras"])
def test_eight_can_be_chosen_within_what_a_request_allows(rig: Rig, about: str) -> None:
    with rig.session() as page:
        by_id = {c["props"].get("elem_id"): c["props"] for c in page.components.values()}
        sliders = [by_id[f"{about}-{k}"] for k in range(8)]
    assert by_id[about]["multiselect"] is True and by_id[about]["max_choices"] == 8 and f"{about}-8" not in by_id
    for slider in sliders:
        assert (slider["minimum"], slider["maximum"], slider["step"], slider["visible"]) == (-2, 2, 0.05, False)
        Generate("x", loras=(Lora("a", slider["minimum"]), Lora("a", slider["maximum"])))


# ---- which strength belongs to which


def test_a_strength_stays_with_its_lora_when_another_is_taken_off(dressing: Rig) -> None:
    with opened(dressing) as page:
        assert arranged(page, ["skin"], []) == [("skin", USUAL)]
        assert arranged(page, ["skin", "柔光"], [1.5]) == [("skin", 1.5), ("柔光", USUAL)]
        assert arranged(page, ["柔光"], [1.5, -0.5]) == [("柔光", -0.5)]
        assert arranged(page, ["柔光", "skin"], [-0.5]) == [("柔光", -0.5), ("skin", USUAL)], "chosen anew"
        assert arranged(page, [], [-0.5, 0.1]) == []


def test_the_usual_strength_is_the_presets(dressing: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = [replace(preset, lora_strength=0.35) for preset in presets.load()]
    with opened(dressing) as page:
        arranged(page, ["skin"], [])
        monkeypatch.setattr(presets, "load", lambda: changed)
        assert succeeded(page.call(page.endpoint("pick"), ["portrait"], {"name": "film"}))
        assert arranged(page, ["skin", "柔光"], [0.8]) == [("skin", 0.8), ("柔光", 0.35)], "what is worn stays"


def test_one_that_was_chosen_a_moment_ago_has_the_usual_strength() -> None:
    """The page may send before the sliders have been arranged: what they say is another's."""
    assert fields([["b", "new", "a"], ["a", "b"], 0.6, 1.0, -1.0, *UNSET]) == [
        {"name": "b", "strength": -1.0},
        {"name": "new", "strength": 0.6},
        {"name": "a", "strength": 1.0},
    ]
    assert fields([None, [], 0.8, *UNSET]) == []


def test_what_the_program_puts_on_is_left_alone_by_what_the_page_says_of_it_too_early(dressing: Rig) -> None:
    """A page tells of the change before the sliders have their values: those it sends are old ones."""
    with opened(dressing) as page:
        arranged(page, ["skin"], [])
        messages = page.call(page.endpoint("wear"), [["skin"], None, None, 0.2, *UNSET[1:]], {"model": "light"})
        assert [slider["value"] for slider in messages[-1]["output"]["data"][4:6]] == [0.2, USUAL]
        early = [["skin", "柔光"], None, None, *UNSET]
        settled = page.answer(page.endpoint("arrange", "loras"), early)
        asked = page.answer(page.endpoint("offer_loras", "loras"), ["plain", *early])
    assert not any("value" in slider for slider in (*settled[1:], *asked[3:]) if slider)
    assert "value" not in asked[1]


# ---- what is submitted


def test_a_picture_is_asked_for_with_what_was_chosen(dressing: Rig) -> None:
    with opened(dressing) as page:
        arranged(page, ["柔光", "skin"], [])
        (request,) = drawn(dressing, page, **worn(page, ["柔光", "skin"], [-0.55, 2.0]))
    assert request.loras == (Lora("柔光", -0.55), Lora("skin", 2.0)) and request.bundle == "plain"


HOSTILE: tuple[dict[str, Any], ...] = (
    {"files": ["../x"]}, {"files": ["skin"] * 9}, {"files": "skin"}, {"files": 5}, {"files": [["skin"]]},
    {"files": {"skin": 1}}, {"files": ["skin"], "strength 0": 3}, {"files": ["skin"], "strength 0": "x"},
    {"files": ["skin"], "strength 0": None}, {"files": ["skin"], "strength 0": 1e300},
    {"files": ["skin"], "worn": ["skin"], "usual": 9}, {"files": ["skin"], "worn": 5, "usual": [1]},
)  # fmt: skip


@pytest.mark.parametrize("changes", HOSTILE, ids=str)
def test_whatever_is_sent_a_stored_request_can_be_read_and_is_in_range(dressing: Rig, changes: dict[str, Any]) -> None:
    with opened(dressing, "en") as page:
        arranged(page, ["skin"], [])
        for request in drawn(dressing, page, **{"bundle": "plain", **changes}):
            assert {lora.name for lora in request.loras} <= {"skin"} and len(request.loras) <= 8


def test_a_build_is_asked_for_with_what_is_to_be_merged(dressing: Rig) -> None:
    before = len(dressing.requests())
    with opened(dressing) as page:
        offer = page.endpoint("offer_loras", "build-loras")
        hurdle, files, *_ = page.answer(offer, ["restorer:GPEN-BFR-512.pth", ["skin"], None, None, *UNSET])
        assert ZH("loras_portraits_only") in hurdle["value"] and (files["visible"], files["value"]) == (False, [])
        page.answer(offer, ["portrait:z-image", [], None, None, *UNSET])
        page.answer(page.endpoint("arrange", "build-loras"), [["skin"], None, None, *UNSET])
        order = ["portrait:z-image", "edge-int4", "dressed", "", ["skin"], None, None, 0.45, *UNSET[1:]]
        page.begin(page.endpoint("make"), order)
    (request,) = (unpack(text) for text in dressing.requests()[before:])
    assert isinstance(request, Build) and request.loras == (Lora("skin", 0.45),)
    list(map(dressing.queue.cancel, list(dressing.jobs())[-1:]))


# ---- taken up again


@pytest.fixture(scope="module")
def picture(rig: Rig) -> str:
    """The job of a picture that wears the shipped LoRA."""
    pytest.importorskip("torch", reason="LoRAs are worn on PyTorch")
    asked = {"prompt": "lit", "width": 64, "height": 64, "steps": 1, "preview": "off", "backend": "auto", "seed": 3}
    rig.client.post(
        "/generate", json={**asked, "loras": [{"name": "studio_light", "strength": 0.45}]}
    ).raise_for_status()
    return rig.queue.finished(1)[0].job.id


def taken_up(page: Session, job_id: str) -> tuple[list[str], dict[str, Any], list[Any]]:
    """Warnings, the chooser's update, and its sliders that are to be seen."""
    endpoint = page.endpoint("reuse")
    messages = page.call(endpoint, [], {"job": job_id})
    assert succeeded(messages), messages
    warnings = [message["log"] for message in messages if message["msg"] == "log"]
    by_id = dict(zip(map(page.elem_id, endpoint["outputs"]), messages[-1]["output"]["data"], strict=True))
    assert by_id["bundle"]["value"] == "portrait"
    sliders = [by_id[f"loras-{k}"] for k in range(8)]
    return warnings, by_id["loras"], [(s["label"], s["value"]) for s in sliders if s["visible"]]


def test_a_pictures_loras_are_taken_up_again(rig: Rig, picture: str) -> None:
    with rig.session() as page:
        warnings, files, sliders = taken_up(page, picture)
    assert (warnings, files["value"], sliders) == ([], ["studio_light"], [("studio_light", 0.45)])


@pytest.mark.parametrize(("language", "say"), [("zh-CN", ZH), ("en", EN)])
def test_a_lora_that_has_gone_is_named_when_its_picture_is_taken_up(
    rig: Rig, picture: str, language: str, say: Any
) -> None:
    before = rig.queue.status()
    rig.queue.announce(replace(before, loras=()))
    try:
        with rig.session(language) as page:
            warnings, files, sliders = taken_up(page, picture)
    finally:
        rig.queue.announce(before)
    assert warnings == [say("history_gone", names="studio_light")] and (files["value"], sliders) == ([], [])


def test_the_next_step_after_a_download_puts_the_lora_on(dressing: Rig) -> None:
    with opened(dressing) as page:
        arranged(page, ["skin"], [])
        wear = page.endpoint("wear")
        messages = page.call(wear, [["skin"], None, None, 0.2, *UNSET[1:]], {"model": "light"})
        _, lid, files, _, *sliders = messages[-1]["output"]["data"]
        assert lid["open"] is True and files["value"] == ["skin", "柔光"]
        assert [(s["label"], s["value"]) for s in sliders if s["visible"]] == [("skin", 0.2), ("柔光", USUAL)]
        nothing = page.call(wear, [["skin"], None, None, *UNSET], {"model": "no such model"})
        assert succeeded(nothing) and "open" not in str(nothing[-1]["output"]["data"])


# ---- guidance, which others count from 1


@pytest.mark.parametrize(
    ("bundle", "hint"), [("sd15", "portrait_guidance_hint_sd"), ("plain", "portrait_guidance_hint")]
)
def test_the_hint_beside_the_guidance_is_the_familys(dressing: Rig, bundle: str, hint: str) -> None:
    with opened(dressing) as page:
        _, _, guidance, _ = page.answer(page.endpoint("change_bundle"), [bundle])
    assert f"'{hint}'" in str(guidance["info"]) or f'"{hint}"' in str(guidance["info"])
    for say in (ZH, EN):
        assert ("7.5" in say(hint) and "6.5" in say(hint)) == (bundle == "sd15")
