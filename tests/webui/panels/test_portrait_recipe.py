"""A picture's recipe in the form, and what is said of it: the very picture, close to it, or another, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from engines.images.infotext import describe, describe_restoration
from engines.messages import Enhance, Generate, Lora
from engines.messages.status import Choice, EngineStatus, Verdict
from tests.support.http import Session, succeeded
from webui.i18n import words
from webui.infotext import read
from webui.panels.portrait.recipe import Outlook, foresee
from webui.widgets.panel_context import PanelContext

if TYPE_CHECKING:
    from tests.support.server import Rig

EN = words("en")
ORT = Choice("ort", "edge", "accepted", verdict=Verdict("ort", "CPU", "1", "fp32", psnr_db=61.4, finish_s=1.0))
TORCH = Choice("torch", "pytorch", "accepted", verdict=Verdict("torch", "CPU", "2", "fp32", finish_s=2.0))


@pytest.fixture
def context(idle: Rig) -> Any:
    """A house with one model, which two engines draw; auto is the faster."""
    before = idle.queue.status()
    portrait = next(bundle for bundle in before.bundles if bundle.kind == "portrait")
    portrait = replace(
        portrait, name="portrait", engine="ort", precision="", choices=(ORT, TORCH), family="", takes_loras=True
    )
    torch = EngineStatus("torch", True, "CPU", "", "pytorch")
    idle.queue.announce(replace(before, bundles=(portrait,), loras=("film",), engines=(torch,)))
    yield PanelContext(idle.house, idle.settings, None)  # type: ignore[arg-type]
    idle.queue.announce(before)


def outlook(
    context: PanelContext, engine: str = "ort", text: str = "", precision: str = "fp32", **changes: Any
) -> Outlook:
    order = replace(Generate("a woman", seed=5), **changes)
    info = read(text or describe(order, 5, (512, 512), 8, 0.0, engine, precision))
    bundle = next((b for b in context.bundles("portrait") if b.name == order.bundle), None)
    return foresee(info, bundle, info.request(), context)


def test_what_comes_of_a_recipe(context: PanelContext) -> None:
    assert outlook(context) == Outlook("recipe_exact", {}, "auto")
    assert outlook(context, "torch") == Outlook("recipe_exact", {}, "pytorch")
    assert outlook(context, "tensorrt") == Outlook("recipe_close", {"db": "61"})
    assert outlook(context, loras=(Lora("film", 0.5),)) == Outlook("recipe_exact", {}, "pytorch")
    assert outlook(context, loras=(Lora("film", 0.5), Lora("gone"))) == Outlook("recipe_no_loras", {"loras": "gone"})
    assert outlook(context, bundle="elsewhere") == Outlook("recipe_no_model", {"model": "elsewhere"})
    assert outlook(context, start="/a.jpg") == Outlook("recipe_photo", {})
    foreign = "a cat\nSteps: 20, Sampler: Euler, Seed: 7, Size: 512x768, Model: dream"
    assert outlook(context, text=foreign) == Outlook("recipe_foreign", {"model": "dream"})


def test_the_same_engine_in_another_arithmetic_makes_a_picture_that_is_close(context: PanelContext) -> None:
    (portrait,) = context.status.bundles
    portrait = replace(portrait, precision="fp32", choices=(replace(ORT, precision="fp32"), TORCH))
    context.jobs.queue.announce(replace(context.status, bundles=(portrait,)))
    assert outlook(context, precision="fp32").key == "recipe_exact"
    assert outlook(context, precision="int8") == Outlook("recipe_close", {"db": "61"})
    earlier = describe(Generate("a woman", seed=5), 5, (512, 512), 8, 0.0, "ort", "").replace("Precision: , ", "")
    assert "Precision" not in earlier and outlook(context, text=earlier).key == "recipe_exact", "nothing says otherwise"


def test_a_lora_that_cannot_be_worn_here_makes_another_picture(context: PanelContext) -> None:
    status, missing = context.status, Outlook("recipe_no_loras", {"loras": "film"})
    compiled = replace(status.bundles[0], takes_loras=False)
    for without in (replace(status, engines=()), replace(status, bundles=(compiled,))):
        context.jobs.queue.announce(without)
        assert outlook(context, loras=(Lora("film", 0.5),)) == missing


def taken(page: Session, text: str) -> list[dict[str, Any]]:
    return page.call(page.endpoint("take_recipe"), [], {"text": text})


def test_the_form_is_filled_in(idle: Rig) -> None:
    name = next(bundle.name for bundle in idle.queue.status().bundles if bundle.kind == "portrait")
    order = Generate("a woman with a (hat:1.3)", "beard", bundle=name, variety=40)
    with idle.session("en") as page:
        endpoint = page.endpoint("take_recipe")
        messages = taken(page, describe(order, 41, (64, 64), 3, 0.0, "nothing like it", "fp32"))
        assert succeeded(messages)
        data = dict(zip(map(page.elem_id, endpoint["outputs"]), messages[-1]["output"]["data"], strict=True))
    assert (data["prompt"], data["seed"], data["variety"]) == ("a woman with a (hat:1.3)", 41, 40)
    assert data["size"]["value"] == "64×64" and data["tabs"]["selected"] == "portrait"
    assert "not equal to the pixel" in data["recipe"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "recipe_none"),
        ("a cat", "recipe_none"),
        ("x\nSteps: 999, Engine: e, Model: m, Credit: c", "recipe_none"),
        (describe_restoration(Enhance("a.jpg"), "ort", "int8"), "recipe_restored"),
    ],
    ids=["nothing", "words", "impossible", "restored"],
)
def test_what_is_no_recipe_changes_nothing_and_one_is_told_why(idle: Rig, text: str, said: str) -> None:
    with idle.session("en") as page:
        messages = taken(page, text)
    assert not succeeded(messages) and EN(said)[:40] in str(messages)


def test_a_stranger_s_words_are_no_markup(idle: Rig) -> None:
    evil = "<img src=x onerror=alert(1)>"
    with idle.session("en") as page:
        messages = taken(page, f"a cat\nSteps: 20, Seed: 7, Size: 512x768, Model: {evil}")
    assert succeeded(messages)
    note = next(value for value in messages[-1]["output"]["data"] if isinstance(value, str) and "Another" in value)
    assert "<img" not in note and "&lt;img" in note
