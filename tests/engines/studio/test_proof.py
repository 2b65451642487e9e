"""The proof of an engine: what it draws is held against the reference's, and nothing it does harms who asked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import backends, images
from engines.backends import Candidate
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import PROOF, Bundle, Part, Precision
from engines.bundle.signatures import Array
from engines.errors import BundleError, EngineError
from engines.studio import proof
from engines.studio.proof import BARS, Case, Proof, TimedPicture, due, judge, prove, prove_apart
from tests.support.fakes import FakeEngine, add_proof, builtin_with_proof, write_portrait, write_restorer

PROMPTS = (Case("1.png", "一位女士", 7), Case("2.png", "a man", 8))
FACES = (Case("1.png", face="face.png"),)
Project = Callable[[str], None]


@pytest.fixture
def portrait(tmp_path: Path) -> Bundle:
    return add_proof(write_portrait(tmp_path / "portrait"), PROMPTS)


@pytest.fixture
def restorer(tmp_path: Path) -> Bundle:
    bundle = write_restorer(tmp_path / "restorer")
    (bundle.root / PROOF).mkdir()
    face = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    images.write_png(bundle.root / PROOF / "face.png", face)
    return add_proof(bundle, FACES)


def candidate(bundle: Bundle, engine: FakeEngine | None = None) -> Candidate:
    engine = engine or FakeEngine()
    return Candidate(engine, engine.probe(), bundle.parts)


def test_an_engine_that_draws_the_same_is_accepted_with_figures(portrait: Bundle) -> None:
    engine = FakeEngine(slow_s={"denoiser": 0.01, "decoder": 0.05})
    verdict = prove(portrait, candidate(portrait, engine))
    assert verdict.accepted and (verdict.psnr_db, verdict.pictures) == (99.0, 2) and verdict.ssim == 1.0
    assert (verdict.engine, verdict.device, verdict.runtime, verdict.precision) == ("fake", "CPU", "fake 1.0", "fp32")
    assert 0.01 <= verdict.look_s < verdict.finish_s < 5 and verdict.finish_s >= 0.09, "four steps and a decoder"
    assert verdict.megapixels == round(64 * 64 / 1e6, 4)
    assert set(verdict.run_s) == {"text_encoder", "denoiser", "decoder", "preview_decoder"}
    assert 0.01 <= verdict.run_s["denoiser"] < 0.05 <= verdict.run_s["decoder"] < verdict.finish_s
    assert 10 < verdict.peak_mb < 10_000
    assert sorted(engine.opened) == sorted(engine.closed), "what was loaded for the trial is let go of"


def test_a_restorer_is_proved_with_its_face(restorer: Bundle) -> None:
    engine = FakeEngine(slow_s={"restorer": 0.02})
    verdict = prove(restorer, candidate(restorer, engine))
    assert verdict.accepted and verdict.pictures == 1 and 0.02 <= verdict.look_s == verdict.finish_s < 1
    assert engine.calls == ["restorer"] * 2, "once to warm up"


SPOILT: dict[str, tuple[Callable[[Array], Array], str]] = {
    "not a number": (lambda image: image * np.float32("nan"), "blank_picture"),
    "one number": (lambda image: np.where(image == image.max(), np.inf, image), "blank_picture"),
    "flat": (lambda image: np.zeros_like(image), "blank_picture"),
    "another size": (lambda image: np.repeat(image, 2, 3), "another size"),
    "another picture": (lambda image: image[..., ::-1], "PSNR"),
    "darker": (lambda image: image - np.float32(0.1), "PSNR"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_an_engine_that_draws_something_else_is_refused_and_told_why(portrait: Bundle, what: str) -> None:
    spoil, why = SPOILT[what]
    verdict = prove(portrait, candidate(portrait, FakeEngine(spoil={"decoder": spoil})))
    assert not verdict.accepted and why in verdict.failing
    if why == "PSNR":
        assert verdict.failing == f"PSNR {verdict.psnr_db:.1f} dB < 40 dB" and 0 < verdict.psnr_db < 40


def test_one_bad_picture_among_many_is_enough(portrait: Bundle) -> None:
    """The lowest counts, not the mean; the first case may look right."""
    engine = FakeEngine()

    def sometimes(image: Array) -> Array:
        return image if engine.calls.count("decoder") < 3 else image[..., ::-1]

    engine.spoil = {"decoder": sometimes}
    assert prove(portrait, candidate(portrait, engine)).failing.startswith("PSNR")


def test_an_engine_that_raises_is_refused_with_its_words(portrait: Bundle) -> None:
    def refuse(result: Array) -> Array:
        raise EngineError("fake: no memory left", engine="fake")

    engine = FakeEngine(spoil={"denoiser": refuse})
    assert prove(portrait, candidate(portrait, engine)).failing == "engine_failed: fake: no memory left"
    assert sorted(engine.opened) == sorted(engine.closed)


def made(picture: Any) -> list[TimedPicture]:
    return [TimedPicture(picture, 0.5, 1.0)]


def judged(precision: Precision, amount: float) -> Verdict:
    """Of a picture that is off by so many levels, up and down in turn."""
    want = np.full((64, 64, 3), 128, np.uint8)
    want[::2] = 60  # strong structure, so that PSNR is what is missed
    signs = np.where(np.indices((64, 64)).sum(0) % 2, 1, -1)[..., None]
    bundle = Candidate(FakeEngine(), FakeEngine().probe(), (part_of(precision),))
    return judge(bundle, made(np.clip(want + signs * amount, 0, 255).astype(np.uint8)), [want])


def part_of(precision: Precision) -> Any:
    return Part("decoder", "d", "onnx", precision, "", "")


@pytest.mark.parametrize("precision", BARS)
def test_every_arithmetic_has_its_bar(precision: Precision) -> None:
    bar_db, bar_ssim = BARS[precision]
    off = 255 / 10 ** (bar_db / 20)  # levels of error that just reach it
    above, below = judged(precision, int(off)), judged(precision, int(off) + 2)
    assert above.accepted and above.psnr_db >= bar_db and above.ssim >= bar_ssim
    assert below.failing == f"PSNR {below.psnr_db:.1f} dB < {bar_db:.0f} dB"


def test_structure_has_a_bar_of_its_own() -> None:
    """Fine texture that is smoothed away costs few decibels; faces look like wax."""
    want = np.full((64, 64, 3), 128, np.uint8)
    want[::2, ::2] += 4
    verdict = judge(candidate_of("fp32"), made(np.full_like(want, 129)), [want])
    assert verdict.psnr_db > 40 and verdict.failing == f"SSIM {verdict.ssim:.3f} < 0.98"


def candidate_of(precision: Precision) -> Candidate:
    return Candidate(FakeEngine(), FakeEngine().probe(), (part_of(precision),))


@pytest.mark.parametrize("told", [None, "{", "[]", '{"reference": "x", "cases": [{"prompt": "no picture"}]}'])
def test_a_bundle_without_a_readable_proof_cannot_be_proved(portrait: Bundle, told: str | None) -> None:
    path = portrait.root / PROOF / "proof.json"
    path.unlink() if told is None else path.write_text(told)
    with pytest.raises(BundleError):
        Proof.read(portrait)
    with pytest.raises(BundleError):
        prove(portrait, candidate(portrait))


def test_only_what_has_no_verdict_yet_is_due(portrait: Bundle, tmp_path: Path) -> None:
    known, unproved = Verdicts(tmp_path / "known"), write_restorer(tmp_path / "no proof")
    found = list(due([portrait, unproved], known))
    assert {bundle.name for bundle, _ in found} == {"portrait"}
    able = [e.name for e in backends.engines() if e.probe().ok and "onnx" in e.formats]
    assert [c.engine.name for _, c in found] == able, "those that can read it"
    for failing, (_, one) in zip(("", "PSNR 1 dB < 40 dB"), found, strict=False):
        known.put(one.key, proof.verdict(one, failing))
    assert [c.engine.name for _, c in due([portrait], known)] == able[2:], "a failed one is not tried again either"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """project(code): what a child runs instead of the true engines.studio.proof."""

    def write(code: str) -> None:
        folder = tmp_path / "engines" / "studio"
        folder.mkdir(parents=True)
        for package in (folder.parent, folder):
            (package / "__init__.py").touch()
        (folder / "proof.py").write_text("import os, sys, time\n" + code)
        monkeypatch.setattr(proof, "PROJECT", tmp_path)

    return write


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("os.abort()", "it stopped with -6"),
        ("os.kill(os.getpid(), 9)", "it stopped with -9"),
        ("os.kill(os.getpid(), 11)", "it stopped with -11"),
        ("raise MemoryError('so many bytes')", "it stopped with 1: MemoryError: so many bytes"),
        ("os._exit(0)", "without a verdict"),
        ("print('a library greets')", "without a verdict"),
    ],
)
def test_an_engine_that_crashes_is_refused_and_takes_nobody_along(
    portrait: Bundle, project: Project, code: str, why: str
) -> None:
    project(code)
    verdict = prove_apart(portrait, candidate(portrait))
    assert verdict is not None and not verdict.accepted and why in verdict.failing
    assert (verdict.engine, verdict.pictures) == ("fake", 0)


def test_a_trial_that_hangs_is_ended(portrait: Bundle, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "PATIENCE_S", 0.3)
    project("time.sleep(600)")
    verdict = prove_apart(portrait, candidate(portrait))
    assert verdict is not None and verdict.failing.startswith("not done after")


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_trial_that_is_stopped_is_no_verdict_and_leaves_nobody_behind(
    portrait: Bundle, project: Project, tmp_path: Path
) -> None:
    project(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    assert prove_apart(portrait, candidate(portrait), stopped=lambda: told(tmp_path / "pid") != 0) is None
    assert not alive(told(tmp_path / "pid"))


def test_a_moment_in_which_others_wait_is_no_verdict_either(portrait: Bundle, project: Project) -> None:
    """Their job is done before anybody looks again: the engine has not failed, it has been interrupted."""
    project("time.sleep(600)")
    said = iter([True])
    assert prove_apart(portrait, candidate(portrait), stopped=lambda: next(said, False)) is None


def test_who_dies_while_a_trial_runs_ends_it_too(portrait: Bundle, project: Project, tmp_path: Path) -> None:
    """SIGTERM reaches a build as SystemExit: the trial that it waits for must not go on alone."""
    project(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")

    def told_to_go() -> bool:
        if told(tmp_path / "pid"):
            raise SystemExit(143)
        return False

    with pytest.raises(SystemExit):
        prove_apart(portrait, candidate(portrait), stopped=told_to_go)
    assert not alive(told(tmp_path / "pid"))


def told(path: Path) -> int:
    text = path.read_text() if path.exists() else ""
    return int(text or 0)


def test_a_real_engine_is_proved_in_a_process_of_its_own(builtin: Path, tmp_path: Path) -> None:
    """The built-in restorer on ONNX Runtime, against a picture that it drew; then against another picture."""
    bundle = builtin_with_proof(builtin, tmp_path / "restorer")
    found = backends.candidate(bundle, backends.engine("ort"))
    started = time.monotonic()
    verdict = prove_apart(bundle, found)
    assert verdict is not None and verdict.accepted, verdict
    assert verdict.psnr_db > 60 and 0 < verdict.finish_s < time.monotonic() - started and verdict.peak_mb > 40
    assert verdict.runtime == found.probe.runtime
    (bundle.root / PROOF / "1.png").write_bytes((bundle.root / PROOF / "face.png").read_bytes())
    verdict = prove_apart(bundle, found)
    assert verdict is not None and "checksum" in verdict.failing, "its files are checked before they are believed"


def test_a_proof_is_part_of_what_is_checked(portrait: Bundle) -> None:
    portrait.verify()
    (portrait.root / PROOF / "1.png").write_bytes(os.urandom(100))
    with pytest.raises(BundleError, match=PROOF):
        portrait.verify()
