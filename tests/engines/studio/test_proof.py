"""The proof of an engine: what it draws is held against the reference's, and nothing it does harms who asked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import backends, images
from engines.backends import Candidate
from engines.backends.verdicts import Verdict
from engines.bundle import PROOF, Bundle, Part, Precision
from engines.bundle.signatures import Array
from engines.errors import BundleError, EngineError
from engines.machine import usage
from engines.machine.usage import Usage
from engines.studio import proof
from engines.studio.proof import BARS, Case, Drawing, Proof, Trial, held_against, is_whole, judge
from tests.support.fakes import FakeEngine, add_proof, write_portrait, write_restorer
from tests.support.proved import prove

PROMPTS = (Case("1.png", "一位女士", 7), Case("2.png", "a man", 8))
FACES = (Case("1.png", face="face.png"),)


class Neighbours:
    """What the kernel would say: by default nobody else computes. `busy` answers for one timing after the other."""

    def __init__(self) -> None:
        self.busy, self.asked = list[bool](), 0

    def disturbed(self, before: Usage, after: Usage, threads: int) -> bool:
        assert after.clock_s > before.clock_s and threads >= 1
        self.asked += 1
        return self.busy.pop(0) if self.busy else False


@pytest.fixture(autouse=True)
def neighbours(monkeypatch: pytest.MonkeyPatch) -> Neighbours:
    """Nobody is measured here, whatever else this machine does; and each case is drawn once when it is timed."""
    answers = Neighbours()
    monkeypatch.setattr(usage, "disturbed", answers.disturbed)
    monkeypatch.setattr(proof, "WINDOW_S", 0.0)
    return answers


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
    (only,) = backends.candidates(bundle, engine or FakeEngine())
    return only


def test_an_engine_that_draws_the_same_is_accepted_with_figures(portrait: Bundle) -> None:
    engine = FakeEngine(slow_s={"denoiser": 0.01, "decoder": 0.05})
    verdict = prove(portrait, candidate(portrait, engine))
    assert verdict.accepted and (verdict.psnr_db, verdict.pictures) == (99.0, 2) and verdict.ssim == 1.0
    assert (verdict.engine, verdict.device, verdict.runtime, verdict.precision) == ("fake", "CPU", "fake 1.0", "fp32")
    assert 0.01 <= verdict.look_s < verdict.finish_s < 5 and verdict.finish_s >= 0.09, "four steps and a decoder"
    assert verdict.megapixels == round(64 * 64 / 1e6, 4)
    assert set(verdict.run_s) == {"text_encoder", "denoiser", "decoder", "preview_decoder"}
    assert 0.01 <= verdict.run_s["denoiser"] < verdict.finish_s > verdict.run_s["decoder"] >= 0.05
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


def judged(precision: Precision, amount: float) -> Verdict:
    """Of a picture that is off by so many levels, up and down in turn."""
    want = np.full((64, 64, 3), 128, np.uint8)
    want[::2] = 60  # strong structure, so that PSNR is what is missed
    signs = np.where(np.indices((64, 64)).sum(0) % 2, 1, -1)[..., None]
    picture = np.clip(want + signs * amount, 0, 255).astype(np.uint8)
    return judge(candidate_of(precision), [held_against(want, [picture], TIMED)])


TIMED = Drawing(0, look_s=0.5, finish_s=1.0)


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
    verdict = judge(candidate_of("fp32"), [held_against(want, [np.full_like(want, 129)], TIMED)])
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


def test_a_proof_is_part_of_what_is_checked(portrait: Bundle) -> None:
    portrait.verify()
    (portrait.root / PROOF / "1.png").write_bytes(os.urandom(100))
    with pytest.raises(BundleError, match=PROOF):
        portrait.verify()


# ---- how long it takes


def drawn(bundle: Bundle, engine: FakeEngine | None = None, before: Sequence[Drawing] = ()) -> list[Drawing]:
    with Trial.begun(bundle, candidate(bundle, engine)) as trial:
        return list(trial.prove(before))


def test_the_first_picture_of_a_process_is_judged_but_not_timed(portrait: Bundle) -> None:
    first, *others = drawn(portrait)
    assert (first.case, first.finish_s, first.psnr_db, first.run_s) == (0, 0.0, 99.0, {})
    assert [d.case for d in others[:2]] == [0, 1] and all(d.finish_s > 0 and d.run_s for d in others)


def test_what_others_disturbed_does_not_count(portrait: Bundle, neighbours: Neighbours) -> None:
    """The first is the warm-up; the second was timed beside a neighbour, and took ten times as long."""
    neighbours.busy = [False, True, False]
    engine = FakeEngine()

    def slow(image: Array) -> Array:
        time.sleep(3.0 if engine.calls.count("decoder") == 2 else 0.0)
        return image

    engine.spoil = {"decoder": slow}
    verdict = prove(portrait, candidate(portrait, engine))
    assert not verdict.disturbed and verdict.finish_s < 3.0 and verdict.run_s["decoder"] < 3.0


def test_as_many_are_drawn_again_as_it_takes_to_have_some_undisturbed(portrait: Bundle, neighbours: Neighbours) -> None:
    assert len(drawn(portrait)) == 1 + 3, "two cases, one of them twice"
    neighbours.busy = [False, True, True, True]
    found = drawn(portrait)
    assert [d.disturbed for d in found[1:]] == [True, True, True, False, False, False]


def test_a_machine_that_is_never_quiet_is_not_waited_for_and_the_verdict_says_so(
    portrait: Bundle, neighbours: Neighbours
) -> None:
    neighbours.busy = [True] * 99
    found = drawn(portrait)
    assert len(found) == 1 + 2 + 2 * proof.MORE_ROUNDS
    verdict = judge(candidate(portrait), found)
    assert verdict.accepted and verdict.disturbed and verdict.psnr_db == 99.0, "what it draws is right all the same"
    assert verdict.finish_s == min(d.finish_s for d in found[1:]), "which was disturbed least"


def test_a_long_proof_is_not_made_longer_for_its_seconds(
    portrait: Bundle, neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "MORE_S", 0.0)
    neighbours.busy = [True] * 99
    assert [d.case for d in drawn(portrait)] == [0, 0, 1]


def test_what_takes_a_moment_is_drawn_until_the_kernel_can_tell(
    restorer: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "WINDOW_S", 0.5)
    engine = FakeEngine(slow_s={"restorer": 0.01})
    found = drawn(restorer, engine)
    assert len(engine.calls) >= 1 + 3 * 3 and np.median([d.finish_s for d in found]) < 0.5, "of one, not of all"
    assert all(0.01 <= d.run_s["restorer"] <= d.finish_s for d in found[1:])


def test_every_picture_is_judged_however_often_it_is_drawn(restorer: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "WINDOW_S", 0.1)
    engine = FakeEngine()
    engine.spoil = {"restorer": lambda face: -face if len(engine.calls) == 5 else face}
    assert judge(candidate(restorer), drawn(restorer, engine)).failing.startswith("PSNR")


# ---- a proof that was stopped goes on


def test_what_was_drawn_before_is_not_drawn_again(portrait: Bundle) -> None:
    whole = drawn(portrait)
    for k in range(1, 4):
        rest = drawn(portrait, before=whole[:k])
        assert is_whole(portrait, [*whole[:k], *rest])
        missing = [case for case in (0, 1) if case not in {d.case for d in whole[:k] if d.finish_s}]
        assert [d.case for d in rest[1:]][: len(missing)] == missing, "after one that warms the engine up"
        assert len(whole[1:k]) + len(rest[1:]) == 3, "and no more than it takes"
    assert not is_whole(portrait, whole[:2]) and not is_whole(portrait, [])


def test_the_picture_that_warms_up_a_later_process_is_one_that_was_not_judged_yet(portrait: Bundle) -> None:
    (first, *_) = drawn(portrait, before=[Drawing(0, psnr_db=99.0, ssim=1.0)])
    assert first.case == 1 and first.psnr_db == 99.0


def test_a_bad_picture_of_an_earlier_attempt_counts(portrait: Bundle) -> None:
    before = [Drawing(0, psnr_db=12.0, ssim=0.5)]
    verdict = judge(candidate(portrait), [*before, *drawn(portrait, before=before)])
    assert verdict.failing == "PSNR 12.0 dB < 40 dB"


def test_timing_alone_judges_nothing(portrait: Bundle, neighbours: Neighbours) -> None:
    neighbours.busy = [False, True]
    engine = FakeEngine(spoil={"decoder": lambda image: image[..., ::-1]})
    with Trial.begun(portrait, candidate(portrait, engine)) as trial:
        found = list(trial.timed())
    assert [d.case for d in found] == [0, 0, 1, 0] and [d.psnr_db for d in found] == [0.0] * 4
    assert [d.disturbed for d in found[1:]] == [True, False, False] and not found[0].finish_s
