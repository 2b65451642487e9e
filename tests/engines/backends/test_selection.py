"""How an engine is chosen once engines are proved: the fastest that drew the right picture; none unseen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from engines import backends
from engines.backends import Engine, Probe
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import Bundle, Format, Part
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
    assert engine.name == "ort"
    assert reason.startswith("ort on CPU, 2 threads, fp32") and "gpu: not verified yet" in reason
    assert "openvino: not verified yet" in reason


def test_trust_is_for_exact_arithmetic_only(here: Here, bundle: Bundle, known: Verdicts) -> None:
    """Where all that ONNX Runtime reads is quantised it is on trial too: PyTorch serves, in float32."""
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


@pytest.fixture
def both(bundle: Bundle) -> Bundle:
    """A restorer in int8 and in fp32, the quantised part first in its manifest, and for PyTorch."""
    parts = [
        {**vars_of(bundle), "precision": "int8", "sha256": "8" * 64},
        vars_of(bundle),
        {**vars_of(bundle), "format": "safetensors", "sha256": "f" * 64},
    ]
    return write_manifest(bundle.root, {"name": "r", "family": "gpen", "parts": parts, "face": {"size_px": 32}})


TORCH_ALONE = replace(TORCH, formats=frozenset({"safetensors"}))


def put_each(known: Verdicts, bundle: Bundle, engine: Engine, **finish_s: float) -> None:
    """Of each precision, how long it took; a negative one failed."""
    for way in backends.candidates(bundle, engine):
        if way.precision in finish_s:
            seconds = finish_s[way.precision]
            failing = "" if seconds > 0 else "PSNR 20.0 dB < 30 dB"
            known.put(way.key, Verdict(engine.name, "CPU", "v", way.precision, failing, finish_s=abs(seconds)))


def served(bundle: Bundle, known: Verdicts, wanted: str = "auto") -> tuple[str, str]:
    """Name the engine, and the precision of the part that it would load."""
    engine, _ = backends.select(bundle, wanted, known)
    assert isinstance(engine, backends.ChoosesParts)
    return engine.name, engine.part(bundle, "restorer").precision


def test_before_any_proof_the_exact_part_serves_though_another_is_listed_first(
    here: Here, both: Bundle, known: Verdicts
) -> None:
    """It was PyTorch: the first part that ONNX Runtime reads is quantised, and nobody asked for the other one."""
    here(OPENVINO, ORT, TORCH_ALONE)
    assert served(both, known) == ("ort", "fp32")
    _, reason = backends.select(both, "auto", known)
    assert reason.startswith("ort on CPU, 2 threads, fp32 (") and "ort int8: not verified yet" in reason


@pytest.mark.parametrize(
    ("ort", "openvino", "wanted", "serves"),
    [
        ({"fp32": 0.036, "int8": 0.044}, {}, "auto", ("ort", "fp32")),
        ({"fp32": 0.036, "int8": 0.044}, {}, "ort", ("ort", "fp32")),
        ({"fp32": 0.044, "int8": 0.036}, {}, "auto", ("ort", "int8")),
        ({"fp32": 0.036, "int8": 0.044}, {"fp32": 0.026, "int8": 0.019}, "auto", ("openvino", "int8")),
        ({"fp32": 0.036, "int8": 0.044}, {"fp32": 0.026, "int8": 0.019}, "ort", ("ort", "fp32")),
        ({"fp32": 0.036}, {"fp32": 0.026, "int8": -0.019}, "auto", ("openvino", "fp32")),
        ({"int8": -0.044}, {}, "ort", ("ort", "fp32")),
        ({}, {"int8": 0.019}, "openvino", ("openvino", "int8")),
    ],
)
def test_each_precision_is_measured_for_itself(
    here: Here,
    both: Bundle,
    known: Verdicts,
    ort: dict[str, float],
    openvino: dict[str, float],
    wanted: str,
    serves: tuple[str, str],
) -> None:
    here(OPENVINO, ORT, TORCH_ALONE)
    put_each(known, both, ORT, **ort)
    put_each(known, both, OPENVINO, **openvino)
    assert served(both, known, wanted) == serves


def test_each_precision_is_told_with_its_seconds(here: Here, both: Bundle, known: Verdicts) -> None:
    here(ORT)
    put_each(known, both, ORT, fp32=0.5, int8=0.75)
    _, reason = backends.select(both, "auto", known)
    assert reason == "ort on CPU, 2 threads, fp32, verified, 0.50 s (ort int8: verified, 0.75 s)"


def test_what_an_engine_refuses_is_no_candidate(here: Here, both: Bundle, known: Verdicts) -> None:
    class Choosy(OnTrial):
        def refuses(self, part: Part) -> str:
            return "too coarse" if part.precision == "int8" else ""

    choosy = Choosy("ort", trusted=True)
    here(choosy)
    assert [way.precision for way in backends.candidates(both, choosy)] == ["fp32"]
    assert served(both, known) == ("ort", "fp32")


def test_where_all_of_a_role_is_refused_it_says_why(here: Here, bundle: Bundle) -> None:
    class Choosy(OnTrial):
        def refuses(self, part: Part) -> str:
            return "not today"

    (way,) = backends.candidates(bundle, Choosy("ort"))
    assert (way.refused, way.parts) == ("not today", ())


def test_what_memory_has_no_room_for_comes_last_whatever_it_is(here: Here, both: Bundle, known: Verdicts) -> None:
    def large(bundle: Bundle, parts: Sequence[Part], engine: str) -> str:
        return "too large" if parts[0].precision == "fp32" and engine != "torch" else ""

    here(OPENVINO, ORT, TORCH_ALONE)
    engine, reason = backends.select(both, "auto", known, too_large=large)
    assert engine.name == "torch" and "ort fp32: too large" in reason
    put_each(known, both, ORT, int8=9.0)
    engine, _ = backends.select(both, "auto", known, too_large=large)
    assert engine.name == "ort"
    engine, _ = backends.select(bundle_of(both, "fp32"), "ort", known, too_large=large)
    assert engine.name == "ort", "rather than nothing; who loads it says what it takes"


def bundle_of(bundle: Bundle, precision: str) -> Bundle:
    return replace(bundle, parts=tuple(part for part in bundle.parts if part.precision == precision))


def test_another_engine_takes_over_for_want_of_memory_not_another_precision(
    here: Here, both: Bundle, known: Verdicts
) -> None:
    here(ORT, TORCH_ALONE)
    put_each(known, both, ORT, fp32=0.5, int8=0.75)
    assert backends.select(both, "auto", known, passed_over=1)[0].name == "torch"


def busy(known: Verdicts, bundle: Bundle, engine: Engine, finish_s: float) -> None:
    verdict = Verdict(engine.name, "CPU", "v", "fp32", finish_s=finish_s, disturbed=True)
    known.put(backends.candidate(bundle, engine).key, verdict)


def test_seconds_of_a_busy_machine_do_not_decide_between_engines(here: Here, bundle: Bundle, known: Verdicts) -> None:
    """Torch in 2.05 s against 2.10 and 2.11 beside a browser: by the parts OpenVINO needed 0.9."""
    here(OPENVINO, ORT, TORCH)
    for engine, seconds in ((TORCH, 2.05), (ORT, 2.10), (OPENVINO, 2.11)):
        busy(known, bundle, engine, seconds)
    engine, reason = backends.select(bundle, "auto", known)
    assert engine.name == "openvino" and "verified, 2.11 s, on a busy machine (" in reason
    busy(known, bundle, OPENVINO, 4.2)
    assert chosen(bundle, known) == "ort", "no neighbour doubles it"


def test_seconds_that_are_sure_go_before_those_that_may_be_less(here: Here, bundle: Bundle, known: Verdicts) -> None:
    here(OPENVINO, ORT, TORCH)
    busy(known, bundle, OPENVINO, 1.9)
    put(known, bundle, ORT, 1.0)
    assert chosen(bundle, known) == "ort"
    busy(known, bundle, OPENVINO, 0.9)
    assert chosen(bundle, known) == "openvino", "at most so long"


def test_without_a_trusted_one_an_engine_on_trial_serves_rather_than_none(
    here: Here, bundle: Bundle, known: Verdicts
) -> None:
    here(OPENVINO)
    engine, reason = backends.select(bundle, "auto", known)
    assert engine.name == "openvino" and "not verified yet" in reason


def test_an_accepted_engine_goes_before_a_trusted_one(here: Here, bundle: Bundle, known: Verdicts) -> None:
    here(OPENVINO, ORT)
    put(known, bundle, OPENVINO, finish_s=0.25)
    engine, reason = backends.select(bundle, "auto", known)
    assert (
        engine.name == "openvino" and reason == "openvino on CPU, 2 threads, fp32, verified, 0.25 s (ort: also ready)"
    )


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
    assert engine.name == "ort" and reason.endswith("(openvino: failed its proof, PSNR 31.0 dB < 40 dB)")


def test_a_trusted_engine_that_failed_is_trusted_no_more(here: Here, bundle: Bundle, known: Verdicts) -> None:
    here(OPENVINO, ORT)
    put(known, bundle, ORT, 0.1, "SSIM 0.100 < 0.98")
    assert chosen(bundle, known) == "openvino"


def test_the_next_best_serves_in_the_place_of_the_best_if_it_may(here: Here, bundle: Bundle, known: Verdicts) -> None:
    """Where the best has no memory for a job."""
    here(OPENVINO, ORT, TORCH)
    assert backends.select(bundle, "auto", known, passed_over=1)[0].name == "torch"
    put(known, bundle, OPENVINO, finish_s=0.5)
    engine, reason = backends.select(bundle, "auto", known, passed_over=1)
    assert engine.name == "ort" and "openvino: verified, 0.50 s" in reason
    assert backends.select(bundle, "edge", known, passed_over=1)[0].name == "ort"
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
    assert engine.name == "openvino" and "not verified yet" in reason


def test_a_group_is_chosen_from_in_the_same_way(here: Here, bundle: Bundle, known: Verdicts) -> None:
    here(OPENVINO, ORT, TORCH)
    put(known, bundle, TORCH, 0.001)
    assert (chosen(bundle, known, "edge"), chosen(bundle, known, "pytorch")) == ("ort", "torch")
    put(known, bundle, OPENVINO, 9.0)
    assert chosen(bundle, known, "edge") == "openvino"


def test_on_a_cpu_pytorch_waits_until_the_edge_is_measured_too(here: Here, bundle: Bundle, known: Verdicts) -> None:
    """It was proved first, and served for a quarter of an hour what ONNX Runtime does in a third of the time."""
    here(OPENVINO, ORT, TORCH)
    put(known, bundle, TORCH, 0.5)
    assert chosen(bundle, known) == "ort", "it is exact, and may be the faster one"
    put(known, bundle, ORT, 1.0)
    assert chosen(bundle, known) == "torch", "it has been measured now"
    put(known, bundle, OPENVINO, 0.4)
    assert chosen(bundle, known) == "openvino"


def test_pytorch_on_an_accelerator_does_not_wait(here: Here, bundle: Bundle, known: Verdicts) -> None:
    on_gpu = replace(TORCH, device="ACME 9000")
    here(ORT, on_gpu)
    put(known, bundle, on_gpu, 0.5)
    assert chosen(bundle, known) == "torch"


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
