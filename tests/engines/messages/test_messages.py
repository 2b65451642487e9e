"""Messages survive the way to another process and back, and a stranger's values are refused with the field's name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest

from engines.errors import OptionError, RequestError
from engines.messages import (
    MAX_SEED,
    Advice,
    Build,
    Develop,
    Enhance,
    Event,
    Failed,
    Fetch,
    Final,
    Generate,
    Inspect,
    Lora,
    Note,
    Preview,
    PreviewKind,
    Progress,
    Request,
    pack,
    parse,
    unpack,
)
from engines.messages.faces import FaceReport, Point
from engines.messages.status import BundleStatus, Choice, EngineStatus, Model, ModelStatus, Piece, Status, Verdict
from engines.messages.validation import limits

MODEL = Model(
    "z-image", {"zh": "通义", "en": "Z"}, "portrait", "z-image", "MIT", True, {}, 32.9, 20.0, 40.0,
    (Piece("a/b", ("*.json",), "c/d"), Piece("e/f", ("x",), into="preview_decoder")), True,
)  # fmt: skip
STATUS = Status(
    "ready",
    "",
    (EngineStatus("ort", True, "CPU", "2 threads"), EngineStatus("torch", False, "", "not installed", "pytorch")),
    (
        BundleStatus(
            "b", "portrait", {"zh": "人", "en": "x"}, "natural", ((128, 96), (64, 64)), 8, 1.5, "ort", "ort on CPU",
            (
                Choice(
                    "ort", "edge", "accepted", "int8", "2 threads",
                    Verdict("ort", "CPU", "onnxruntime 1", "int8", "", 41.5, 0.993, 4, 0.6, 2.25, 512.0),
                ),
                Choice("torch", "pytorch", "unavailable", reason="not installed"),
            ),
            12.5, "# 卡片\n",
        ),
    ),
    (("portrait", "z-image"), ("restorer", "GPEN-BFR-512.pth")), "torch is not installed",
    ("skin",), (ModelStatus(MODEL, True, "窄"),), memory_gb=24.4, free_gb=210.0, source_mb=(32_900.0, 284.5),
)  # fmt: skip
SAMPLES = (
    Generate('一位戴眼镜的女士, "quoted"\nnew line \u2028 🙂'),
    Generate("p", "n", 96, 64, 8, 1.5, MAX_SEED, 8, "b", "edge", (Lora("skin", 0.8), Lora("肤")), "retro", "only"),
    Generate("p", start="uploads/0f3a", strength=0.35),
    Enhance("a/b.jpg"),
    Enhance(
        "a.png",
        0,
        "detail",
        True,
        100,
        1,
        0,
        100,
        2,
        99,
        False,
        True,
        True,
        1024,
        "webp",
        1,
        True,
        "奶奶.jpg",
        "r",
        "ort",
    ),
    Enhance("a.png", faces=(Point(0.25, 0.5), Point(1.0, 0.0))),
    Inspect("a/b.jpg"),
    Develop("outputs_1.png", "pytorch"),
    Build("portrait", "z-image", "edge-int8", "mine"),
    Build("restorer", "GPEN 512.pth", "edge-fp32", "b-2_c", "faces", ("一位女士", "")),
    Build("portrait", "z-image", "edge-int4", "m", loras=(Lora("skin", -0.5), Lora("肤"))),
    Fetch("z-image-turbo"),
    Fetch("awportrait-z", "modelscope"),
    Note("3. export the denoiser ✓"),
    Progress("denoise", 3, 8, 1.25, 2, 4),
    Progress("load", 0, 1),
    Preview(3, "preview_x.webp", 0.5, "vae", 2),
    Preview(0, "preview_y.webp", kind="before"),
    Preview(4, "outputs_z.png", 1.5, "tiny", 8, "result"),
    Final(("a.png", "b.png"), 7, 2.5, "ort", "ort on CPU", "tiny"),
    Final((), 0, 0.0, "ort"),
    Final(("a.jpg",), 0, 1.5, "ort", faces=(FaceReport((0.1, 0.25, 0.5, 1.0), "softened", 35, "why"),) * 2),
    Advice(2, 4000, 3000, 0.75, 0.0, {"strength": 66, "mode": "natural"}),
    Advice(1, 40, 30, 0.0, 0.0, {}, ((0.1, 0.25, 0.5, 0.5),)),
    Failed("bad_size", "detail", {"width": 100, "share": 0.5, "why": "窄"}),
    Status("loading"),
    STATUS,
)


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_what_is_packed_comes_back_equal(message: Request | Event | Status) -> None:
    back = unpack(pack(message))
    assert back == message
    assert type(back) is type(message)
    assert hash(back) == hash(message) if not isinstance(message, Failed | Status | Advice) else True


def test_every_kind_of_message_has_a_sample() -> None:
    kinds = {*get_args(Request), *get_args(Event), Status}
    assert {type(message) for message in SAMPLES} == kinds


def test_numbers_keep_their_type() -> None:
    """3 and 3.0 are equal in Python and different on a page."""
    back = unpack(pack(Failed("x", "y", {"whole": 3, "part": 3.0, "text": "3"})))
    assert [type(fact) for fact in back.facts.values()] == [int, float, str]


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_packed_is_plain_json_for_every_reader(message: Request | Event | Status) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(pack(message), parse_constant=refuse)["kind"] == type(message).__name__.lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "3",
        "null",
        "{}",
        '{"kind": "lora", "name": "x"}',
        '{"kind": ["generate"]}',
        '{"kind": null}',
        "[" * 200_000,
    ],
)
def test_what_is_not_a_message_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        unpack(text)


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("steps", 1, 50),
        ("guidance", 0, 20),
        ("seed", -1, MAX_SEED),
        ("count", 1, 8),
        ("strength", 0, 1),
    ],
)
def test_ranges_of_generate(field: str, low: Any, high: Any) -> None:
    for value in (low, high):
        assert getattr(parse(Generate, {"prompt": "p", field: value}), field) == value
    for value in (low - 1, high + 1):
        with pytest.raises(OptionError) as caught:
            parse(Generate, {"prompt": "p", field: value})
        assert caught.value.facts["field"] == field
        with pytest.raises(OptionError):
            replace(Generate("p"), **{field: value})


@pytest.mark.parametrize("field", ["strength", "denoise", "sharpen", "contrast", "brightness", "fading", "scratches"])
def test_ranges_of_enhance(field: str) -> None:
    for value in (0, 100):
        assert getattr(parse(Enhance, {"image": "a", field: value}), field) == value
    for value in (-1, 101):
        with pytest.raises(OptionError):
            parse(Enhance, {"image": "a", field: value})


@pytest.mark.parametrize(("field", "low", "high"), [("min_face_px", 8, 1024), ("quality", 1, 100)])
def test_further_ranges_of_enhance(field: str, low: int, high: int) -> None:
    for value in (low, high):
        assert getattr(parse(Enhance, {"image": "a", field: value}), field) == value
    for value in (low - 1, high + 1):
        with pytest.raises(OptionError) as caught:
            parse(Enhance, {"image": "a", field: value})
        assert caught.value.facts["field"] == field


@pytest.mark.parametrize(
    ("field", "value"),
    [("format", "gif"), ("format", "PNG"), ("name", "x" * 256), ("name", "a\ud800"), ("keep_date", "perhaps")],
)
def test_an_enhance_that_makes_no_sense_is_refused(field: str, value: object) -> None:
    with pytest.raises(OptionError) as caught:
        parse(Enhance, {"image": "a", field: value})
    assert field in str(caught.value.facts["field"])
    json.dumps(caught.value.facts, ensure_ascii=False).encode()


BUILD = {"makes": "portrait", "source": "z-image", "recipe": "edge-int8", "name": "mine"}


@pytest.mark.parametrize("name", ["a", "0", "a_b-c9", "x" * 40])
def test_names_of_bundles(name: str) -> None:
    assert parse(Build, {**BUILD, "name": name}).name == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/x", "a\\b", ".a", "-a", "A", "人", "x" * 41, "a\n", "a "]
)
def test_a_bundle_is_not_called_what_leads_elsewhere(name: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(Build, {**BUILD, "name": name})
    assert caught.value.facts["field"] == "name"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("makes", "landscape"),
        ("recipe", "../recipe"),
        ("recipe", ""),
        ("prompts", ["p"] * 501),
        ("prompts", ["字" * 4001]),
        ("prompts", "a word"),
        ("loras", [{"name": "skin"}] * 9),
        ("loras", [{"name": "skin", "strength": 2.5}]),
        ("loras", ["skin"]),
        ("source", None),
    ],
)
def test_a_build_that_makes_no_sense_is_refused(field: str, value: object) -> None:
    with pytest.raises(OptionError) as caught:
        parse(Build, {**BUILD, field: value})
    assert str(caught.value.facts["field"]).startswith(field)


def test_only_a_portrait_has_loras_merged() -> None:
    with pytest.raises(OptionError) as caught:
        parse(Build, {**BUILD, "makes": "restorer", "loras": [{"name": "skin"}]})
    assert caught.value.facts["field"] == "loras" and caught.value.facts["value"] == "skin"


def test_texts_have_a_length() -> None:
    assert len(Generate("字" * 4000).prompt) == 4000
    for field in ("prompt", "negative"):
        with pytest.raises(OptionError) as caught:
            parse(Generate, {"prompt": "p", field: "字" * 4001})
        assert field in str(caught.value.facts["field"])


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"prompt": 3}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({}, "prompt"),
        ({"prompt": "p", "steps": "many"}, "steps"),
        ({"prompt": "p", "steps": 1.5}, "steps"),
        ({"prompt": "p", "steps": []}, "steps"),
        ({"prompt": "p", "width": "wide"}, "width"),
        ({"prompt": "p", "guidance": float("nan")}, "guidance"),
        ({"prompt": "p", "guidance": float("inf")}, "guidance"),
        ({"prompt": "p", "strength": float("nan")}, "strength"),
        ({"prompt": "p", "restore_faces": 0.0}, "restore_faces"),
        ({"prompt": "p", "preview": "sometimes"}, "preview"),
        ({"prompt": "p", "loras": 3}, "loras"),
        ({"prompt": "p", "loras": [{"strength": 1}]}, "loras.0.name"),
        ({"prompt": "p", "loras": [{"name": "x", "strength": "strong"}]}, "loras.0.strength"),
        ({"prompt": "p", "bogus": 1}, "bogus"),
        ({"prompt": "p", "kind": "generate"}, "kind"),
    ],
)
def test_a_field_that_does_not_fit_is_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(Generate, values)
    assert caught.value.facts["field"] == field


@pytest.mark.parametrize(
    ("faces", "field"),
    [
        ("left", "faces"),
        ([[0.1, 0.2]], "faces.0"),
        ([{"x": 0.5}], "faces.0.y"),
        ([{"x": 0.5, "y": 0.5}, {"x": 1.01, "y": 0.5}], "faces.x"),
        ([{"x": 0.5, "y": -0.01}], "faces.y"),
        ([{"x": 0.5, "y": float("nan")}], "faces.y"),
        ([{"x": 0.5, "y": 0.5, "z": 0.5}], "faces.0.z"),
        ([{"x": 0.5, "y": 0.5}] * 201, "faces"),
    ],
    ids=str,
)
def test_faces_are_points_in_the_picture(faces: object, field: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(Enhance, {"image": "a", "faces": faces})
    assert caught.value.facts["field"] == field


@pytest.mark.parametrize("mode", ["gentle", "", None, 3])
def test_modes_of_enhance(mode: object) -> None:
    with pytest.raises(OptionError):
        parse(Enhance, {"image": "a", "mode": mode})


def test_an_unknown_field_inside_a_lora_is_refused_too() -> None:
    with pytest.raises(OptionError):
        parse(Generate, {"prompt": "p", "loras": [{"name": "x", "strenght": 0.5}]})


def test_a_lora_strength_is_a_number() -> None:
    """NaN would be stored as JSON that no other reader takes, and would blacken the picture."""
    with pytest.raises(OptionError):
        parse(Generate, {"prompt": "p", "loras": [{"name": "x", "strength": float("nan")}]})


@pytest.mark.parametrize("field", ["prompt", "negative"])
def test_half_a_surrogate_pair_is_refused(field: str) -> None:
    """JSON can carry it, but no file, database or tokenizer takes it; and the answer must be able to leave as UTF-8."""
    with pytest.raises(OptionError) as caught:
        parse(Generate, {"prompt": "p", field: "a\ud800"})
    json.dumps(caught.value.facts, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("kind", "field", "expected"),
    [
        (Generate, "steps", (1, 50)),
        (Generate, "guidance", (0.0, 20.0)),
        (Generate, "seed", (-1, MAX_SEED)),
        (Generate, "prompt", (0, 4000)),
        (Generate, "loras", (0, 8)),
        (Enhance, "min_face_px", (8, 1024)),
        (Lora, "strength", (-2.0, 2.0)),
        (Enhance, "faces", (0, 200)),
        (Point, "x", (0.0, 1.0)),
    ],
)
def test_limits_are_those_that_are_enforced(kind: type[Any], field: str, expected: tuple[float, float]) -> None:
    assert limits(kind, field) == expected
    assert list(map(type, limits(kind, field))) == list(map(type, expected)), "a page shows 1, not 1.0"


FAR_TOO_STRONG = {"field": "loras.strength", "value": "3.0", "allowed": "-2.0 … 2.0"}


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ({"steps": 99}, {"field": "steps", "value": "99", "allowed": "1 … 50"}),
        ({"guidance": float("nan")}, {"field": "guidance", "value": "nan", "allowed": "0.0 … 20.0"}),
        ({"prompt": "字" * 4001}, {"field": "prompt length", "value": "4001", "allowed": "0 … 4000"}),
        ({"loras": ({"name": "x"},) * 9}, {"field": "loras", "value": "9", "allowed": "0 … 8"}),
        ({"loras": ({"name": "x", "strength": 3.0},)}, FAR_TOO_STRONG),
        ({"preview": "x"}, {"field": "preview", "value": "x", "allowed": "live, off, only"}),
        ({"prompt": "a\ud800"}, {"field": "prompt", "value": "a?", "allowed": "text"}),
        ({"count": "many"}, {"field": "count", "value": "many", "allowed": "a whole number"}),
    ],
)  # fmt: skip
def test_a_stranger_and_our_own_code_are_refused_in_the_same_words(
    values: dict[str, Any], facts: dict[str, Any]
) -> None:
    for make in (lambda: parse(Generate, {"prompt": "p", **values}), lambda: Generate(**{"prompt": "p", **values})):
        with pytest.raises(OptionError) as caught:
            make()
        assert caught.value.facts == facts


def test_values_as_a_form_sends_them_are_understood() -> None:
    request = parse(Enhance, {"image": "a", "strength": "70", "protect_skin": "false", "only_center_face": "true"})
    assert (request.strength, request.protect_skin, request.only_center_face) == (70, False, True)


def test_messages_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Generate("p").seed = 3  # type: ignore[misc]


def test_a_job_that_was_stored_before_it_could_start_from_a_photo_still_loads() -> None:
    stored = json.loads(pack(Generate("p", seed=4)))
    del stored["start"], stored["strength"]
    assert unpack(json.dumps(stored)) == Generate("p", seed=4)


def test_a_job_of_the_version_that_knew_restore_faces_still_loads() -> None:
    stored = {**json.loads(pack(Generate("p", seed=4))), "restore_faces": 0.0}
    assert unpack(json.dumps(stored)) == Generate("p", seed=4)


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        ('{"step": 0, "image": "preview_0a.webp", "seconds": 0.0, "decoder": "tiny", "picture": 1}', "before"),
        ('{"step": 3, "image": "preview_0a.webp", "seconds": 0.5, "decoder": "tiny", "picture": 1}', "step"),
        ('{"step": 8, "image": "outputs_1.png", "seconds": 2.5, "decoder": "vae", "picture": 2}', "result"),
        ('{"step": 8, "image": "outputs_1.png", "seconds": 1.5, "decoder": "tiny", "picture": 1}', "result"),
    ],
)
def test_a_preview_that_was_stored_before_it_had_a_kind_gets_one(stored: str, kind: str) -> None:
    values = json.loads(stored)
    assert unpack(json.dumps({"kind": "preview", **values})) == Preview(**values, kind=kind)


def test_what_a_preview_says_of_itself_is_believed() -> None:
    for kind in get_args(PreviewKind):
        assert unpack(pack(Preview(0, "outputs_1.png", kind=kind))).kind == kind
