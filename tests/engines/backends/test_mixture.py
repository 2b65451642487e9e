"""Parts on different engines: only where the parts say that it is faster, and only after a proof of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engines import backends
from engines.backends.arrangement import Arrangement
from engines.backends.mixture import mixture, work_s
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import Bundle
from engines.studio.trials import due
from tests.support.fakes import FakeEngine, add_proof, write_portrait

ORT, OPENVINO = FakeEngine("ort", rank=3, trusted=True), FakeEngine("openvino", rank=2)
TORCH = FakeEngine("torch", group="pytorch", rank=4, trusted=True)
Placed = dict[str, str]


@pytest.fixture
def portrait(tmp_path: Path) -> Bundle:
    return add_proof(write_portrait(tmp_path / "p", ("denoiser", "decoder", "text_encoder")), ())


@pytest.fixture
def verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verdicts:
    monkeypatch.setattr(backends, "engines", lambda: iter([OPENVINO, ORT, TORCH]))
    return Verdicts(tmp_path / "verdicts")


def took(denoiser: float, decoder: float, **changes: object) -> Verdict:
    run_s = {"denoiser": denoiser, "decoder": decoder}
    verdict = Verdict("x", "CPU", "v", "fp32", finish_s=4 * denoiser + decoder, run_s=run_s)
    return replace(verdict, **changes)  # type: ignore[arg-type]


def way(bundle: Bundle, engine: FakeEngine) -> Arrangement:
    (only,) = backends.candidates(bundle, engine)
    assert isinstance(only.engine, Arrangement)
    return only.engine


def of(bundle: Bundle, ort: Verdict, openvino: Verdict) -> tuple[Placed, bool] | None:
    found = mixture(bundle, [(way(bundle, ORT), ort), (way(bundle, OPENVINO), openvino)])
    return found and ({part.role: engine.name for part, engine in found[0].placed}, found[1])


def test_each_part_goes_where_it_was_the_fastest(portrait: Bundle) -> None:
    found = of(portrait, took(1.0, 6.0), took(2.0, 1.0))  # 10 s and 9 s; 5 s together
    assert found == ({"denoiser": "ort", "decoder": "openvino", "text_encoder": "openvino"}, True)


@pytest.mark.parametrize(("decoder_s", "worth"), [(1.39, False), (1.41, True)])
def test_it_is_worth_a_proof_from_a_tenth_on(portrait: Bundle, decoder_s: float, worth: bool) -> None:
    """4 s against 0.4 more for the decoder."""
    found = of(portrait, took(0.75, decoder_s), took(0.9, 1.0))
    assert found is not None and found[1] is worth


def test_where_all_is_the_fastest_on_one_there_is_none(portrait: Bundle) -> None:
    assert of(portrait, took(1.0, 1.0), took(2.0, 2.0)) is None
    assert of(portrait, took(1.0, 6.0), took(2.0, 1.0, disturbed=True)) is None, "nobody knows"
    assert of(portrait, took(1.0, 6.0), took(2.0, 1.0, device="ACME 9000")) is None, "numbers would be copied"
    assert of(portrait, took(1.0, 6.0), took(2.0, 1.0, run_s={})) is None, "a verdict of before"


def put(verdicts: Verdicts, bundle: Bundle, engine: FakeEngine, verdict: Verdict) -> None:
    verdicts.put(backends.candidate(bundle, engine).key, verdict)


def test_it_is_proved_and_serves_only_if_it_was_measured_to_be_faster(portrait: Bundle, verdicts: Verdicts) -> None:
    put(verdicts, portrait, ORT, took(1.0, 6.0))
    put(verdicts, portrait, OPENVINO, took(2.0, 1.0))
    put(verdicts, portrait, TORCH, took(0.99, 9.0))
    ((_, candidate),) = due([portrait], verdicts)
    assert candidate.engine.name == "openvino+ort", "PyTorch is not mixed with others"
    assert backends.select(portrait, "auto", verdicts)[0].name == "openvino", "not before its proof"
    verdicts.put(candidate.key, Verdict("openvino+ort", "CPU", "v", "fp32", finish_s=9.5))
    assert backends.select(portrait, "auto", verdicts)[0].name == "openvino" and due([portrait], verdicts) == []
    verdicts.put(candidate.key, Verdict("openvino+ort", "CPU", "v", "fp32", finish_s=5.5))
    engine, reason = backends.select(portrait, "auto", verdicts)
    assert engine == candidate.engine and reason.startswith(
        "openvino+ort on CPU, always ready, fp32, verified, 5.50 s ("
    )
    assert backends.select(portrait, "openvino+ort", verdicts)[0].name == "openvino+ort"
    assert backends.select(portrait, "ort", verdicts)[0].name == "ort"
    verdicts.put(candidate.key, Verdict("openvino+ort", "CPU", "v", "fp32", "PSNR 9.0 dB < 40 dB"))
    assert backends.select(portrait, "auto", verdicts)[0].name == "openvino"


def test_what_is_proved_belongs_to_where_each_part_ran(portrait: Bundle) -> None:
    """The parts and the names are the same if two engines swap them."""
    one, other = way(portrait, ORT), way(portrait, OPENVINO)
    mixed = Arrangement((one.placed[0], *other.placed[1:]))
    swapped = Arrangement((other.placed[0], *one.placed[1:]))
    keys = {backends.candidate(portrait, arrangement).key for arrangement in (one, other, mixed, swapped)}
    assert len(keys) == 4 and mixed.name == swapped.name


def test_the_work_of_a_restorer_is_a_run(portrait: Bundle) -> None:
    assert work_s(replace(portrait, sampling=None), {"restorer": 0.25, "text_encoder": 9.0}) == 0.25
