"""Which recipe fits a machine: by its GPU, by the model, by what was measured, by what its processor can do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engines.messages.status import Choice, EngineStatus, Status
from tests.support.announced import BASE, FAST, MODEL, TORCH
from webui.i18n import LANGUAGES, words
from webui.panels.engines.recipes import Advice, advised, disk_gb, split

LARGE = replace(BASE, model=replace(BASE.model, recipe="lean-int4"))
GPU = EngineStatus("tensorrt", True, "NVIDIA Orin", "TensorRT 10.3")
NO_GPU = replace(GPU, ok=False, device="", reason="no NVIDIA driver")


def choice(precision: str, seconds: float, state: str = "accepted") -> Choice:
    verdict = replace(FAST, precision=precision, finish_s=seconds)
    return Choice("openvino", "edge", state, precision, "", verdict)  # type: ignore[arg-type]


def here(*choices: Choice, kind: str = "portrait") -> Status:
    return Status("ready", engines=(TORCH, NO_GPU), bundles=(replace(MODEL, kind=kind, choices=choices),))  # type: ignore[arg-type]


def test_where_nothing_is_told_it_is_what_harms_nobody() -> None:
    assert advised(Status("loading"), "portrait", "x") == Advice("edge-bf16", "build_why_usual", {})


def test_a_gpu_is_used() -> None:
    told = advised(replace(here(), engines=(GPU,)), "restorer", "x")
    assert told == Advice("trt-fp16", "build_why_gpu", {"device": "NVIDIA Orin"})


def test_a_large_model_gets_the_recipe_that_the_catalogue_names() -> None:
    status = replace(here(choice("int8", 1.0), choice("fp32", 2.0)), models=(LARGE,))
    assert advised(status, "portrait", "z-image") == Advice("lean-int4", "build_why_large", {"memory": "20"})
    assert advised(status, "portrait", "another").recipe == "edge-int8"


@pytest.mark.parametrize(
    ("choices", "recipe"),
    [
        ((choice("int8", 1.0), choice("fp32", 2.0)), "edge-int8"),
        ((choice("int8", 2.0), choice("fp32", 1.0)), "edge-fp32"),
        ((choice("bf16", 0.5), choice("int8", 0.6), choice("fp32", 2.0)), "edge-bf16"),
        ((choice("int8", 1.0, "failed"), choice("fp32", 2.0), choice("bf16", 1.5)), "edge-bf16"),
    ],
)
def test_what_was_fastest_here_is_chosen(choices: tuple[Choice, ...], recipe: str) -> None:
    told = advised(here(*choices), "portrait", "x")
    assert (told.recipe, told.why) == (recipe, "build_why_measured")


@pytest.mark.parametrize("choices", [(choice("int8", 1.0),), (choice("int8", 0.0), choice("fp32", 2.0)), ()])
def test_int8_is_not_chosen_where_nothing_could_be_compared(choices: tuple[Choice, ...]) -> None:
    assert advised(here(*choices), "portrait", "x").recipe == "edge-bf16"
    assert advised(here(choice("int8", 1.0), choice("fp32", 2.0)), "restorer", "x").why == "build_why_usual"


def test_a_processor_that_computes_in_bf16_is_the_reason() -> None:
    status = here(Choice("openvino", "edge", "unproven", "bf16"))
    assert advised(status, "restorer", "x") == Advice("edge-bf16", "build_why_bf16", {"engine": "openvino"})
    gone = here(Choice("openvino", "edge", "unavailable", "bf16"))
    assert advised(gone, "restorer", "x").why == "build_why_usual"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_can_be_said(language: str) -> None:
    measured = here(choice("int8", 1.0), choice("fp32", 2.0))
    for status in (replace(here(), engines=(GPU,)), replace(here(), models=(LARGE,)), measured, here()):
        told = advised(status, "portrait", "z-image")
        assert words(language)(told.why, **told.facts)


def test_disk_is_the_catalogues_figure_or_arithmetic_from_the_sources_size() -> None:
    status = replace(here(), models=(LARGE,), sources=(("portrait", "z-image"), ("restorer", "a.pth")))
    status = replace(status, source_mb=(32_900.0, 284.0))
    assert disk_gb(status, "portrait", "z-image", "lean-int4") == (40.0, 40.0)
    assert disk_gb(status, "portrait", "z-image", "edge-bf16") == pytest.approx((16.45, 32.9))
    assert disk_gb(status, "restorer", "a.pth", "edge-int8") == pytest.approx((0.213, 0.71))
    assert disk_gb(status, "portrait", "a.pth", "edge-int8") is None, "of another kind"
    assert disk_gb(replace(status, source_mb=()), "restorer", "a.pth", "edge-int8") is None


def test_what_measured_bundles_take_lies_within() -> None:
    """README: SD 1.5 in float32 and Z-Image, of 4.3 and 32.9 GB."""
    status = Status("ready", sources=(("portrait", "sd"), ("portrait", "z")), source_mb=(4300.0, 32_900.0))
    for name, recipe, gb in (("sd", "lean-int8", 1.11), ("z", "lean-int4", 5.9)):
        low, high = disk_gb(status, "portrait", name, recipe) or (0.0, 0.0)  # type: ignore[arg-type]
        assert low <= gb <= high


@pytest.mark.parametrize(("source", "parts"), [(None, ("", "")), ("", ("", "")), ("portrait:a:b", ("portrait", "a:b"))])
def test_a_source_is_taken_apart(source: str | None, parts: tuple[str, str]) -> None:
    assert split(source) == parts
