"""Verdicts: what was proved is remembered, for exactly what was proved, and nothing else is believed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from engines import backends
from engines.backends import Candidate, Probe
from engines.backends.verdicts import Verdict, Verdicts, key
from engines.bundle import Part
from tests.support.fakes import FakeEngine
from tests.support.full_disk import full_disk

ACCEPTED = Verdict("ort", "CPU", "onnxruntime 1.31", "int8", "", 41.25, 0.987, 4, 0.5, 2.25, 812.0)
FAILED = Verdict("openvino", "CPU", "openvino 2026.4", "bf16", "PSNR 31.0 dB < 40 dB", 31.0, 0.91, 4)
FACTS = {"engine": "ort", "device": "CPU x", "runtime": "onnxruntime 1.31"}
PARTS = (("a" * 64, "fp32"), ("b" * 64, "int8"))


@pytest.fixture
def known(tmp_path: Path) -> Verdicts:
    return Verdicts(tmp_path / "not there yet" / "verdicts")


@pytest.mark.parametrize("verdict", [ACCEPTED, FAILED], ids=lambda v: v.engine)
def test_what_is_put_comes_back_after_a_restart(known: Verdicts, verdict: Verdict) -> None:
    assert known.get("k") is None
    known.put("k", verdict)
    again = Verdicts(known.folder).get("k")
    assert again == verdict and again is not None and again.accepted == (verdict is ACCEPTED)
    assert known.get("another") is None


def test_the_latest_verdict_counts(known: Verdicts) -> None:
    known.put("k", ACCEPTED)
    known.put("k", FAILED)
    assert known.get("k") == FAILED
    assert [path.name for path in known.folder.iterdir()] == ["k.json"], "nothing half-written stays"


def test_a_full_disk_leaves_nothing_half_written(known: Verdicts) -> None:
    known.put("before", ACCEPTED)
    with full_disk():
        known.put("k", ACCEPTED)
    assert known.get("k") is None and [path.name for path in known.folder.iterdir()] == ["before.json"]


def test_forgetting(known: Verdicts) -> None:
    known.put("k", ACCEPTED)
    known.put("other", FAILED)
    known.forget("k")
    known.forget("k")  # twice is no harm
    assert known.get("k") is None and known.get("other") == FAILED


WHOLE = json.dumps(dataclasses.asdict(ACCEPTED))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        WHOLE[:-9].encode(),
        b'{"engine": "ort"}',
        WHOLE.replace("41.25", '"high"').encode(),
        WHOLE.replace('"failing": ""', '"failing": null').encode(),
    ],
    ids=range(9),
)
def test_a_broken_file_is_no_verdict_and_is_replaced(known: Verdicts, content: bytes) -> None:
    """Above all it is not an accepted one."""
    known.put("k", FAILED)
    (known.folder / "k.json").write_bytes(content)
    assert known.get("k") is None
    known.put("k", FAILED)
    assert known.get("k") == FAILED


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    known = Verdicts(tmp_path / "file")
    known.put("k", ACCEPTED)
    assert known.get("k") is None


def test_a_key_does_not_depend_on_the_order_of_parts() -> None:
    assert key(**FACTS, parts=PARTS) == key(**FACTS, parts=reversed(PARTS))


def test_a_key_changes_with_everything_that_was_proved() -> None:
    others = [
        key(**{**FACTS, name: value}, parts=PARTS)
        for name, value in (("engine", "openvino"), ("device", "CPU y"), ("runtime", "onnxruntime 1.32"))
    ]
    others += [
        key(**FACTS, parts=(("c" * 64, "fp32"), PARTS[1])),  # other weights
        key(**FACTS, parts=(("a" * 64, "int8"), PARTS[1])),  # the same, other arithmetic
        key(**FACTS, parts=(("a" * 64, "int8"), ("b" * 64, "fp32"))),  # the other way round
        key(**FACTS, parts=PARTS[:1]),
        key(**FACTS, parts=()),
    ]
    assert len({key(**FACTS, parts=PARTS), *others}) == 1 + len(others)


def test_a_key_is_a_file_name() -> None:
    """Whatever a driver calls its device."""
    name = key("gpu", "ACME ../../9000 / \n", "v1/2", ())
    assert name.isalnum() and len(name) < 100


def candidate(runtime: str = "fake 1.0", sha256: str = "a" * 64, precision: str = "fp32") -> Candidate:
    probe = Probe(True, "CPU", "2 threads", runtime)
    return Candidate(FakeEngine(), probe, (Part("restorer", "r", "onnx", precision, sha256, ""),))  # type: ignore[arg-type]


def test_a_candidates_key_changes_with_runtime_bytes_and_arithmetic() -> None:
    keys = {candidate().key, candidate("fake 1.1").key, candidate(sha256="b" * 64).key, candidate(precision="int8").key}
    assert len(keys) == 4 and candidate().key in keys


def test_another_processor_must_prove_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is moved to another machine, or a virtual machine that loses bf16 over night."""
    here = candidate().key
    backends.processor.cache_clear()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(backends, "processor_flags", lambda: frozenset({"avx2"}))
        there = candidate().key
    backends.processor.cache_clear()
    assert here != there and candidate().key == here
