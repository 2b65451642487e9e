"""What a machine lends, and what not: the very same part on the same engine, as long as its memory allows it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from engines import backends
from engines.backends import array_format
from engines.backends.arrangement import Arrangement, spelled
from engines.backends.lenders import Platform, Wanted
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import Bundle, Role, Shelf
from engines.errors import NotFoundError, PartRefused, RequestError
from engines.roles import memory
from engines.worker import lender as lending
from engines.worker.lender import Lender


@pytest.fixture
def shelf(builtin: Path, tmp_path: Path) -> Shelf:
    shutil.copytree(builtin / "portrait", tmp_path / "models" / "portrait")
    return Shelf((tmp_path / "models",))


@pytest.fixture
def verdicts(tmp_path: Path) -> Verdicts:
    return Verdicts(tmp_path / "verdicts")


@pytest.fixture
def lender(shelf: Shelf, verdicts: Verdicts) -> Lender:
    return Lender(shelf, verdicts, "desk")


def on_ort(bundle: Bundle) -> Arrangement:
    ort = backends.engine("ort")
    return Arrangement(tuple((bundle.part(role, ort.formats), ort) for role in sorted(bundle.roles)))


def wanted(shelf: Shelf, role: Role = "preview_decoder") -> Wanted:
    bundle = shelf.open("portrait")
    return Wanted.of(bundle, on_ort(bundle), role)


def why(lender: Lender, asked: Wanted) -> str:
    with pytest.raises(PartRefused) as refusal:
        lender.open(asked)
    assert (refusal.value.facts["role"], refusal.value.facts["machine"]) == (asked.role, "desk")
    return str(refusal.value.facts["why"])


def latents() -> bytes:
    rng = np.random.default_rng(1)
    return array_format.pack({"latents": rng.standard_normal((1, 16, 16, 16), dtype=np.float32)})


def test_a_part_runs_there_as_here(lender: Lender, shelf: Shelf) -> None:
    asked, bundle = wanted(shelf), shelf.open("portrait")
    opened = lender.open(asked)
    assert (opened.platform, opened.precision) == (asked.platform, "fp32")
    assert lender.open(asked) == opened, "it is open"
    lent = array_format.unpack_result("preview_decoder", bundle, lender.run(opened.id, latents()))
    session = backends.engine("ort").load(bundle, bundle.part("preview_decoder", frozenset({"onnx"})))
    here = session.run(array_format.unpack_feeds("preview_decoder", bundle, latents()))
    assert np.array_equal(lent["image"], here["image"])
    lender.close()
    with pytest.raises(NotFoundError):
        lender.run(opened.id, latents())


def test_a_question_is_json_and_so_is_the_answer(lender: Lender, shelf: Shelf) -> None:
    answer = json.loads(lender.answer(json.dumps(asdict(wanted(shelf))).encode()))
    assert answer == asdict(lender.open(wanted(shelf)))
    for garbage in (b"", b"[]", b"{}", b"\xff", json.dumps({**asdict(wanted(shelf)), "role": "tea"}).encode()):
        with pytest.raises(RequestError):
            lender.answer(garbage)


CHANGES: dict[str, tuple[Callable[[Wanted], Wanted], str]] = {
    "another bundle": (lambda w: replace(w, bundle="nothing"), lending.ABSENT),
    "a path": (lambda w: replace(w, bundle="../models/portrait"), lending.ABSENT),
    "another manifest": (lambda w: replace(w, manifest="0" * 64), lending.ANOTHER),
    "another engine": (lambda w: replace(w, arrangement=w.arrangement.replace("ort", "pytorch2")), "no such engine"),
    "another runtime": (
        lambda w: replace(w, platform=replace(w.platform, runtime="onnxruntime 0.1")), "another version: onnxruntime",
    ),
    "another program": (lambda w: replace(w, platform=replace(w.platform, program="9")), "another version: "),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_not_the_same_is_not_lent(name: str, lender: Lender, shelf: Shelf) -> None:
    change, said = CHANGES[name]
    assert said in why(lender, change(wanted(shelf)))
    assert lender.open(wanted(shelf)), "what is the same still is"


def test_the_manifest_has_the_checksums_and_the_bytes_are_held_against_them(lender: Lender, shelf: Shelf) -> None:
    asked, root = wanted(shelf), shelf.open("portrait").root
    manifest = json.loads((root / "bundle.json").read_text(encoding="utf-8"))
    for part in manifest["parts"]:
        part["sha256"] = part["sha256"][::-1]
    before = (root / "bundle.json").read_bytes()
    (root / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert why(lender, asked) == lending.ANOTHER
    (root / "bundle.json").write_bytes(before)
    graph = root / "preview_decoder" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x00")
    assert why(lender, asked) == lending.DAMAGED


def test_an_engine_is_as_good_as_there_or_not_lent(lender: Lender, shelf: Shelf, verdicts: Verdicts) -> None:
    """On another processor a proof is needed where an engine is not trusted by itself; the last bits may differ."""
    other = replace(wanted(shelf), platform=replace(wanted(shelf).platform, processor="x86_64 another", threads=96))
    assert lender.open(other).platform == Platform.of(backends.engine("ort")), "ONNX Runtime in float32 is trusted"
    bundle = shelf.open("portrait")
    openvino = backends.engine("openvino")
    if not openvino.probe().ok:
        pytest.skip("no OpenVINO here")
    way = Arrangement(tuple((bundle.part(role, frozenset({"onnx"})), openvino) for role in sorted(bundle.roles)))
    asked = Wanted.of(bundle, way, "preview_decoder")
    strange = replace(asked, platform=replace(asked.platform, processor="x86_64 another"))
    assert why(lender, strange) == lending.UNPROVED
    assert lender.open(asked), "what proved it there has proved it here"
    candidate = backends.candidate(bundle, way)
    verdicts.put(candidate.key, Verdict("openvino", "CPU", "v", "fp32"))
    assert lender.open(strange)


@pytest.mark.parametrize("role", ["preview_decoder", "denoiser"])
def test_what_it_is_fed_is_the_roles(role: Role, lender: Lender, shelf: Shelf) -> None:
    opened = lender.open(wanted(shelf, role))
    assert lender.limit(opened.id) == array_format.most_fed_bytes(role, shelf.open("portrait"))
    for garbage in (b"", b"garbage" * 100, array_format.pack({"ids": np.zeros((1, 4), np.int64)})):
        with pytest.raises(RequestError):
            lender.run(opened.id, garbage)
    with pytest.raises(NotFoundError):
        lender.limit("0" * 32)


def test_one_part_makes_room_for_another(shelf: Shelf, verdicts: Verdicts) -> None:
    bundle = shelf.open("portrait")
    parts = on_ort(bundle).parts
    taken = {role: memory.of_part(bundle, parts, "ort", role, memory.UNLIMITED) for role in bundle.roles}
    budget = max(taken["denoiser"], taken["decoder"]) + taken["preview_decoder"]
    lender = Lender(shelf, verdicts, "desk", lambda: budget)
    looks, decoder = lender.open(wanted(shelf)), lender.open(wanted(shelf, "decoder"))
    lender.run(looks.id, latents())
    assert lender.open(wanted(shelf, "denoiser")).id != decoder.id
    with pytest.raises(NotFoundError):
        lender.limit(decoder.id)
    assert lender.limit(looks.id), "that was used later, and there is room for both"
    small = Lender(shelf, verdicts, "desk", lambda: taken["preview_decoder"] - 1)
    assert "GB of memory needed" in why(small, wanted(shelf))


def test_what_nobody_uses_is_unloaded(lender: Lender, shelf: Shelf) -> None:
    opened = lender.open(wanted(shelf))
    lender.unload_idle()
    assert lender.limit(opened.id)
    lender.unload_idle(0.0)
    with pytest.raises(NotFoundError):
        lender.limit(opened.id)
    again = lender.open(wanted(shelf))
    assert again.id != opened.id and lender.run(again.id, latents())


def test_a_spelled_arrangement_must_be_one(lender: Lender, shelf: Shelf) -> None:
    asked = wanted(shelf)
    for text in ("", "decoder", "decoder=ort", "decoder=ort:x", "decoder=ort:999"):
        with pytest.raises(RequestError):
            lender.open(replace(asked, arrangement=text))
    bundle = shelf.open("portrait")
    assert asked.arrangement == spelled(bundle, on_ort(bundle))
