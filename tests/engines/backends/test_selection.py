"""How an engine is chosen once engines are proved: the fastest that drew the right picture; none unseen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from engines import backends
from engines.backends import Engine, Probe
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import Bundle, Format
from engines.errors import EngineUnavailable
from tests.support.fakes import FakeEngine, write_manifest, write_restorer


@dataclass
class OnTrial(FakeEngine):
    device: str = "CPU"
    why_not: str = ""
    formats: frozenset[Format] = field(default_factory=lambda: frozenset({"onnx"}))

    def probe(self) -> Probe:
        return Probe(
            not self.why_not, "" if self.why_not else self.device, self.why_not or "2 threads", f"{self.name} 1"
        )


Here = Callable[..., None]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """here(engine, ...): these are the engines of this machine."""

    def install(*engines: Engine) -> None:
        found = {engine.name: engine for engine in engines}
        monkeypatch.setattr(backends, "engines", lambda: iter(found.values()))
        monkeypatch.setattr(backends, "names", lambda: list(found))
        monkeypatch.setattr(backends, "engine", found.__getitem__)

    return install


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_restorer(tmp_path / "restorer")


@pytest.fixture
def known(tmp_path: Path) -> Verdicts:
    return Verdicts(tmp_path / "verdicts")


def put(known: Verdicts, bundle: Bundle, engine: Engine, finish_s: float = 1.0, failing: str = "") -> None:
    verdict = Verdict(engine.name, "CPU", "v", "fp32", failing, finish_s=finish_s)
    known.put(backends.candidate(bundle, engine).key, verdict)


def chosen(bundle: Bundle, known: Verdicts | None, wanted: str = "auto") -> str:
    return backends.select(bundle, wanted, known)[0].name


OPENVINO, ORT = OnTrial("openvino", rank=1), OnTrial("ort", rank=2, trusted=True)
TORCH = OnTrial("torch", group="pytorch", rank=3, trusted=True)
GPU = OnTrial("gpu", rank=4, device="ACME 9000")


def test_an_engine_on_trial_does_not_serve_while_a_trusted_one_can(here: Here, bundle: Bundle, known: Verdicts) -> None:
    """Not even an accelerator: what it draws has been seen by nobody."""
    here(GPU, OPENVINO, ORT)
    engine, reason = backends.select(bundle, "auto", known)
    assert engine is ORT
    assert reason.startswith("ort on CPU, 2 threads, fp32") and "gpu: not verified yet" in reason
    assert "openvino: not verified yet" in reason


def test_trust_is_for_exact_arithmetic_only(here: Here, bundle: Bundle, known: Verdicts) -> None:
    """A quantised part on ONNX Runtime is on trial too: PyTorch serves, in float32."""
    part = {**vars_of(bundle), "precision": "int8"}
    exact = {**vars_of(bundle), "format": "safetensors", "sha256": "f" * 64}
    both = write_manifest(bundle.root, {"name": "r", "family": "gpen", "parts": [part, exact], "face": {"size_px": 32}})
    torch = replace(TORCH, formats=frozenset({"safetensors"}))
    here(ORT, torch)
    assert chosen(both, known) == "torch"
    put(known, both, ORT)
    assert chosen(both, known) == "ort", "once it is proved"


def vars_of(bundle: Bundle) -> dict[str, str]:
    (part,) = bundle.parts
    return {
        "role": part.role,
        "file": part.file,
        "format": "onnx",
        "precision": "fp32",
        "sha256": "e" * 64,
        "licence": "",
    }


def test_without_a_trusted_one_an_engine_on_trial_serves_rather_than_none(
    here: Here, bundle: Bundle, known: Verdicts
) -> None:
    here(OPENVINO)
    engine, reason = backends.select(bundle, "auto", known)
    assert engine is OPENVINO and "not verified yet" in reason


def test_an_accepted_engine_goes_before_a_trusted_one(here: Here, bundle: Bundle, known: Verdicts) -> None:
    here(OPENVINO, ORT)
    put(known, bundle, OPENVINO, finish_s=0.25)
    engine, reason = backends.select(bundle, "auto", known)
    assert engine is OPENVINO and reason == "openvino on CPU, 2 threads, fp32, verified, 0.25 s (ort: also ready)"


@pytest.mark.parametrize(("ort_s", "openvino_s", "first"), [(1.0, 2.0, "ort"), (2.0, 1.0, "openvino")])
def test_of_accepted_engines_the_fastest_serves(
    here: Here, bundle: Bundle, known: Verdicts, ort_s: float, openvino_s: float, first: str
) -> None:
    here(OPENVINO, GPU, ORT)
    for engine, seconds in ((ORT, ort_s), (OPENVINO, openvino_s), (GPU, 3.0)):
        put(known, bundle, engine, seconds)
    engine, reason = backends.select(bundle, "auto", known)
    assert engine.name == first, "also before an accelerator that is slower"
    assert "gpu: verified, 3.00 s" in reason


def test_a_failed_engine_does_not_serve_and_the_bar_is_named(here: Here, bundle: Bundle, known: Verdicts) -> None:
    here(OPENVINO, ORT)
    put(known, bundle, OPENVINO, 0.1, "PSNR 31.0 dB < 40 dB")
    engine, reason = backends.select(bundle, "auto", known)
    assert engine is ORT and reason.endswith("(openvino: failed its proof, PSNR 31.0 dB < 40 dB)")


def test_a_trusted_engine_that_failed_is_trusted_no_more(here: Here, bundle: Bundle, known: Verdicts) -> None:
    here(OPENVINO, ORT)
    put(known, bundle, ORT, 0.1, "SSIM 0.100 < 0.98")
    assert chosen(bundle, known) == "openvino"


def test_the_next_best_serves_in_the_place_of_the_best_if_it_may(here: Here, bundle: Bundle, known: Verdicts) -> None:
    """Where the best has no memory for a job."""
    here(OPENVINO, ORT, TORCH)
    assert backends.select(bundle, "auto", known, passed_over=1)[0] is TORCH
    put(known, bundle, OPENVINO, finish_s=0.5)
    engine, reason = backends.select(bundle, "auto", known, passed_over=1)
    assert engine is ORT and "openvino: verified, 0.50 s" in reason
    assert backends.select(bundle, "edge", known, passed_over=1)[0] is ORT
    for wanted, passed_over in (("openvino", 1), ("pytorch", 1), ("edge", 2), ("auto", 3)):
        with pytest.raises(EngineUnavailable):
            backends.select(bundle, wanted, known, passed_over=passed_over)


def test_what_is_on_trial_does_not_serve_for_want_of_memory_either(here: Here, bundle: Bundle, known: Verdicts) -> None:
    here(OPENVINO, ORT)
    with pytest.raises(EngineUnavailable):
        backends.select(bundle, "auto", known, passed_over=1)
    put(known, bundle, ORT, 0.1, "SSIM 0.100 < 0.98")
    with pytest.raises(EngineUnavailable):
        backends.select(bundle, "auto", known, passed_over=1)


@pytest.mark.parametrize("wanted", ["openvino", "edge"])
def test_a_failed_engine_is_refused_even_when_it_is_asked_for(
    here: Here, bundle: Bundle, known: Verdicts, wanted: str
) -> None:
    here(OPENVINO)
    put(known, bundle, OPENVINO, 0.1, "SSIM 0.900 < 0.95")
    with pytest.raises(EngineUnavailable, match=r"openvino: failed its proof, SSIM 0\.900 < 0\.95") as caught:
        backends.select(bundle, wanted, known)
    assert caught.value.facts["wanted"] == wanted and "SSIM 0.900 < 0.95" in str(caught.value.facts["why"])


def test_an_engine_on_trial_serves_who_asks_for_it_by_name(here: Here, bundle: Bundle, known: Verdicts) -> None:
    here(OPENVINO, ORT)
    engine, reason = backends.select(bundle, "openvino", known)
    assert engine is OPENVINO and "not verified yet" in reason


def test_a_group_is_chosen_from_in_the_same_way(here: Here, bundle: Bundle, known: Verdicts) -> None:
    here(OPENVINO, ORT, TORCH)
    put(known, bundle, TORCH, 0.001)
    assert (chosen(bundle, known, "edge"), chosen(bundle, known, "pytorch"), chosen(bundle, known)) == (
        "ort", "torch", "torch",
    )  # fmt: skip
    put(known, bundle, OPENVINO, 9.0)
    assert chosen(bundle, known, "edge") == "openvino"


def test_a_verdict_about_other_bytes_says_nothing(here: Here, bundle: Bundle, known: Verdicts, tmp_path: Path) -> None:
    here(OPENVINO, ORT)
    put(known, bundle, OPENVINO, 0.1)
    other = write_restorer(tmp_path / "other")
    changed = {**vars_of(other), "sha256": "a" * 64}
    manifest = {"name": "other", "family": "gpen", "parts": [changed], "face": {"size_px": 32}}
    assert chosen(write_manifest(other.root, manifest), known) == "ort"


def test_a_verdict_about_another_version_says_nothing(here: Here, bundle: Bundle, known: Verdicts) -> None:
    class Newer(OnTrial):
        def probe(self) -> Probe:
            return Probe(True, "CPU", "2 threads", "openvino 2")

    put(known, bundle, OPENVINO, 0.1, "PSNR 1.0 dB < 40 dB")
    here(Newer("openvino"))
    assert chosen(bundle, known) == "openvino"


def test_an_engine_that_is_not_here_is_told_with_its_reason(here: Here, bundle: Bundle, known: Verdicts) -> None:
    here(OnTrial("gpu", why_not="no driver"), ORT)
    assert backends.select(bundle, "auto", known)[1].endswith("(gpu: no driver)")


def test_without_verdicts_an_accelerator_comes_first(here: Here, bundle: Bundle) -> None:
    here(ORT, OPENVINO, GPU)
    assert chosen(bundle, None) == "gpu"
