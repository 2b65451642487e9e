"""What a picture's file says of how it was made, as a request again: ours, A1111's, and what somebody made up."""

from __future__ import annotations

import time

import pytest

from engines.errors import RequestError
from engines.images.infotext import describe, describe_restoration
from engines.messages import Enhance, Generate, Lora
from webui.infotext import read

OURS = Generate("a woman", width=512, height=768, steps=8, guidance=1.5, seed=77)
A1111 = (
    "a cat, <lora:style:0.8>\nin a hat\nNegative prompt: bad,\nugly\n"
    'Steps: 20, Sampler: "DPM++ 2M, Karras", CFG scale: 7, Seed: 4294967295, Size: 512x768, '
    'Model hash: abc, Model: dream, Lora hashes: "style: 1, b: 2", Version: v1.9.4'
)


@pytest.mark.parametrize(
    "order",
    [
        OURS,
        Generate("一位老人,眼镜\n第二行, Steps: 3", "帽子, 模糊\n两行", 512, 512, 1, 0.0, 0),
        Generate("x", width=64, height=64, steps=50, guidance=20.0, seed=2**31 - 1, bundle="my-model"),
        Generate("y", width=512, height=512, steps=4, guidance=0.1, seed=1, loras=(Lora("film 2", 0.75), Lora("b", 1))),
        Generate("z", width=512, height=512, steps=8, guidance=0.0, seed=3, variety=40),
        Generate("a (b:1.3), （c：0.5）, \\(d\\)", "[e]", width=512, height=512, steps=8, guidance=0.0, seed=3),
    ],
    ids=["plain", "lines", "extremes", "loras", "variety", "weights"],
)
@pytest.mark.parametrize("family", ["portrait", "sd"])
def test_what_we_have_written_is_read_as_it_was(order: Generate, family: str) -> None:
    size, steps, guidance = (order.width or 0, order.height or 0), order.steps or 0, order.guidance or 0.0
    others = {"Sampler": "LCM", "CFG scale": f"{guidance + 1:g}"} if family == "sd" else {}
    info = read(describe(order, order.seed, size, steps, guidance, "ort", "fp32", others))
    assert info.is_ours and not info.is_restoration and not info.began_with_a_photo
    assert info.request(family) == order


def test_a_photo_to_begin_with_is_said_to_be_missing() -> None:
    text = describe(Generate("a", start="/somewhere/photo.jpg"), 5, (512, 512), 8, 0.0, "ort", "fp32")
    assert read(text).began_with_a_photo and read(text).request().start == ""


def test_a_restored_photo_is_no_drawing() -> None:
    info = read(describe_restoration(Enhance("a.jpg"), "ort", "int8"))
    assert info.is_restoration and info.is_ours


def test_another_program_s_words_and_size_are_taken_and_no_more() -> None:
    info = read(A1111)
    assert not info.is_ours and info.values["Model"] == "dream"
    assert info.values["Sampler"] == "DPM++ 2M, Karras", "a comma between quotes"
    assert info.request() == Generate("a cat, <lora:style:0.8>\nin a hat", "bad,\nugly", 512, 768)


def test_only_a_negative_prompt() -> None:
    info = read("Negative prompt: hat\nSteps: 3, Engine: e, Model: m")
    assert (info.prompt, info.negative) == ("", "hat")


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "a picture of my cat", "Steps", "Seed: 5", "{}", "\x00" * 100, '{"prompt": {"1": {"inputs": {}}}}'],
    ids=repr,
)
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        read(text)


HOSTILE = (
    "x\nSteps: 9999999999999, Engine: e, Model: m, Credit: c",
    "x\nSteps: -1, Engine: e, Model: m, Credit: c",
    f"x\nSteps: 8, CFG scale: {'9' * 400}, Engine: e, Model: m, Credit: c",
    "x\nSteps: 8, CFG scale: nan, Seed: 1e999, Engine: e, Model: m, Credit: c",
    "x\nSteps: 8, Size: 99999x99999, Engine: e, Model: m, Credit: c",
    "x\nSteps: 8, LoRA: ../../etc 9e99 + a 1 + a 1 + a 1, Engine: e, Model: ../../m, Credit: c",
    "x\nSteps: 8, Seed variety: 1000, Engine: e, Model: m, Credit: c",
    "x" * 100_000 + "\nSteps: 8, Engine: e, Model: m",
    "x\nSteps: 8, " + 'a: "' * 4000,
    "x\nSteps: 8, " + "a " * 8000,
    "x\nSteps: 8, " + "a: b\\" * 3000,
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_somebody_made_up_is_a_request_or_refused_at_once(text: str) -> None:
    begun = time.process_time()
    try:
        assert isinstance(read(text).request(), Generate)
    except RequestError:
        pass
    assert time.process_time() - begun < 5.0, "it takes a thousandth of that"
