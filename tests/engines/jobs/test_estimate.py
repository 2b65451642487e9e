"""How long a job will take, by earlier ones: of which, how they are scaled, and that nothing is made up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from engines.jobs import Estimate
from engines.jobs.estimate import History, Run, estimate
from engines.jobs.work import Work, work_of
from engines.messages import Build, Develop, Enhance, Fetch, Generate, Lora, Request
from engines.messages.status import BundleStatus, Choice, Verdict

PORTRAIT = BundleStatus("portrait", "portrait", {}, "", ((512, 512), (256, 256)), 8, 0.0, "ort", "")
BUNDLES = (PORTRAIT, replace(PORTRAIT, name="other"), replace(PORTRAIT, name="guided", guidance=6.5))
DRAW = Generate("p")
MEGAPIXELS = 512 * 512 / 1e6


def after(*runs: tuple[Request, float]) -> Callable[[Request], float | None]:
    """What is said after these runs, the oldest first."""
    newest_first = [Run(request, seconds, "ort") for request, seconds in reversed(runs)]
    return lambda request: seconds(estimate(request, newest_first, BUNDLES))


def seconds(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.finish_s


@pytest.mark.parametrize("request_", [DRAW, Enhance("a.jpg"), Fetch("gpen"), Develop("a.png")])
def test_nothing_is_made_up(request_: Request) -> None:
    assert after()(request_) is None
    assert after((request_, 0.0))(request_) is None, "it can be no measurement"


def test_the_same_takes_as_long_again() -> None:
    for request in (DRAW, Enhance("a.jpg"), Develop("a.png"), Fetch("gpen"), Build("restorer", "a", "edge-fp32", "b")):
        assert after((request, 4.0))(request) == pytest.approx(4.0)


def test_what_is_left_open_is_the_bundles() -> None:
    assert work_of(DRAW, BUNDLES) == work_of(Generate("p", steps=8, width=512, height=512), BUNDLES)
    assert work_of(DRAW, BUNDLES) == Work(8, 1, MEGAPIXELS, preview="live")
    assert work_of(Generate("p", bundle="gone", steps=4, width=64, height=64), BUNDLES) is None
    guided = work_of(Generate("p", bundle="guided"), BUNDLES)
    assert guided == Work(8, 1, MEGAPIXELS, 2, "live"), "each step is run with the words and without"
    assert work_of(Generate("p", bundle="guided", guidance=0.0), BUNDLES) == work_of(DRAW, BUNDLES)
    assert work_of(Generate("(a:1.5), [b]"), BUNDLES) == work_of(DRAW, BUNDLES), "rows of an embedding are multiplied"
    assert work_of(Generate("p", start="a.jpg", strength=0.5), BUNDLES) == Work(4, 1, MEGAPIXELS, 1, "live", True)
    assert work_of(Generate("p", start="a.jpg", strength=1.0), BUNDLES) == work_of(DRAW, BUNDLES), "it is not looked at"


def test_a_weight_takes_a_run_more_where_it_is_a_matter_of_guidance() -> None:
    bundles = tuple(replace(bundle, weighs_by_guidance=True) for bundle in BUNDLES)

    def runs(request: Generate) -> int:
        work = work_of(request, bundles)
        assert work is not None
        return work.runs

    assert runs(Generate("(a:1.5), b, [c], (d:1.5)", "(e)")) == 3, "none is negative"
    assert runs(Generate("(a:1.5), b", "(e)", bundle="guided")) == 4
    assert runs(Generate("a (b", "(e:1)", bundle="guided")) == 2


def test_more_work_takes_longer() -> None:
    say = after((DRAW, 10.0))
    assert say(Generate("p", count=4)) == pytest.approx(40.0)
    assert say(Generate("p", width=256, height=256)) == pytest.approx(2.5)
    more_steps = say(Generate("p", steps=16))
    assert more_steps is not None and 15 < more_steps < 20, "the decode is the same"


def test_the_job_that_loaded_the_model_spoils_nothing() -> None:
    for usual in (1, 2, 5):
        assert after((DRAW, 30.0), *[(DRAW, 2.0)] * usual)(DRAW) == pytest.approx(2.0)


def test_like_is_told_by_like() -> None:
    slow, other = Generate("p", backend="pytorch"), Generate("p", bundle="other")
    say = after(*[(slow, 40.0)] * 5, *[(other, 80.0)] * 5, (DRAW, 2.0))
    assert (say(slow), say(other), say(DRAW)) == pytest.approx((40.0, 80.0, 2.0))
    dressed = replace(DRAW, loras=(Lora("a"),))
    assert say(dressed) == pytest.approx(2.0), "of the same bundle and backend, for want of better"
    assert after((DRAW, 2.0), (dressed, 9.0))(dressed) == pytest.approx(9.0)
    assert after((other, 80.0))(DRAW) == pytest.approx(80.0), "of the same kind, for want of better"
    assert after((DRAW, 2.0))(Enhance("a.jpg")) is None


def test_a_build_or_a_download_says_nothing_of_another() -> None:
    assert after((Fetch("gpen"), 9.0))(Fetch("taef1")) is None
    assert after((Build("restorer", "a", "edge-fp32", "b"), 9.0))(Build("restorer", "a", "edge-int8", "b")) is None


def test_an_engine_that_took_over_is_believed_at_once() -> None:
    runs = [Run(DRAW, 2.0, "openvino"), *[Run(DRAW, 9.0, "torch")] * 20]
    assert seconds(estimate(DRAW, runs, BUNDLES)) == pytest.approx(2.0)


@pytest.mark.parametrize(("decode", "once"), [(0.0, 0.0), (1.0, 0.2), (4.0, 0.0), (6.0, 1.5), (0.5, 3.0)])
@pytest.mark.parametrize("seed", range(4))
def test_varied_jobs_are_foretold_within_a_quarter(decode: float, once: float, seed: int) -> None:
    """A machine whose speed wavers by a tenth, and whose attention makes large pictures dearer than their pixels."""
    dice = random.Random(seed)

    def truth(request: Request) -> float:
        work = work_of(request, BUNDLES)
        assert work is not None
        area = work.megapixels**1.15
        return (0.8 * area * work.pictures * (work.steps + decode) + 0.8 * once) * dice.uniform(0.92, 1.1)

    def asked() -> Generate:
        side = dice.choice((256, 384, 512))
        return Generate(
            "p", steps=dice.choice((4, 6, 8, 12, 20)), width=side, height=512, count=dice.choice((1, 1, 2, 4))
        )

    history, close = History(), 0
    for k in range(60):
        request = asked()
        said, took = seconds(history.estimate(request, BUNDLES)), truth(request)
        close += k >= 10 and said is not None and abs(said - took) <= 0.25 * took
        history.add([Run(request, took * (5 if k in (0, 25) else 1), "ort")])  # a start: a model was loaded
    assert close >= 45, "nine of ten, after the first ten"


def test_what_is_remembered_is_the_latest_of_each_kind() -> None:
    history = History()
    history.add([Run(DRAW, 2.0, "ort")])
    history.add([Run(Enhance("a.jpg"), 1.0, "ort")] * 500)
    assert seconds(history.estimate(DRAW, BUNDLES)) == pytest.approx(2.0), "a batch of photos drives out no portrait"
    history.add([Run(DRAW, 7.0, "ort")] * 200)
    assert seconds(history.estimate(DRAW, BUNDLES)) == pytest.approx(7.0)


def test_bundles_that_come_later_are_counted() -> None:
    history = History()
    history.add([Run(DRAW, 2.0, "ort")])
    assert history.estimate(DRAW, ()) is None
    assert seconds(history.estimate(DRAW, BUNDLES)) == pytest.approx(2.0)


# ---- by a proof. What its parts do not explain is 1 s: 0.25 + 8 steps * 0.5 + 5 previews * 0.25 + 2 = 7.5 of 8.5

PASSED = Verdict(
    "ort", "CPU", "1.0", "fp32", look_s=0.5, finish_s=8.5, megapixels=MEGAPIXELS,
    run_s={"text_encoder": 0.25, "denoiser": 0.5, "decoder": 2.0, "preview_decoder": 0.25, "encoder": 1.0},
)  # fmt: skip
PROVED = (
    replace(
        PORTRAIT, choices=(Choice("ort", "edge", "accepted", verdict=PASSED), Choice("torch", "pytorch", "unproven"))
    ),
    replace(PORTRAIT, name="guided", guidance=6.5, choices=(Choice("ort", "edge", "accepted", verdict=PASSED),)),
)


def foretold(request: Request, *runs: tuple[Request, float], engine: str = "ort") -> float | None:
    """What is said after these runs, the oldest first, of bundles that were proved."""
    return seconds(estimate(request, [Run(asked, took, engine) for asked, took in reversed(runs)], PROVED))


@pytest.mark.parametrize(
    ("request_", "look_s", "finish_s"),
    [
        (DRAW, 1.2, 8.5),
        (Generate("p", steps=4), 1.2, 0.25 + 4 * 0.5 + 4 * 0.45 + 2),
        (Generate("p", steps=16), 1.2, 0.25 + 16 * 0.5 + 7 * 0.45 + 2),
        (Generate("p", count=8), 1.2, 0.25 + 8 * 8.25),
        (Generate("p", preview="off"), 0.25 + 6, 0.25 + 6),
        (Generate("p", preview="off", count=3), 0.25 + 6, 0.25 + 3 * 6),
        (Generate("p", preview="only", count=6), 0.25 + 4 + 0.25, 0.25 + 6 * (4 + 0.25)),
        (Generate("p", guidance=5.0), 0.5 + 1 + 0.45, 0.5 + 8 * 1 + 6 * 0.45 + 2),
        (Generate("p", width=256, height=256), 0.25 + 0.95 / 4, 0.25 + 8.25 / 4),
        (Generate("p", width=1024, height=1024), 0.25 + 0.95 * 4, 0.25 + 8.25 * 4),
        (Generate("p", start="a.jpg", strength=0.5), 2.2, 0.25 + 1 + 4 * 0.5 + 4 * 0.45 + 2),
    ],
)
def test_before_there_is_a_history_the_proof_foretells(request_: Generate, look_s: float, finish_s: float) -> None:
    """What is left of its 8.5 s, 1.0, is of showing its 5 previews: who has none does not pay for it."""
    said = estimate(request_, (), PROVED)
    assert said is not None and (said.look_s, said.finish_s) == pytest.approx((look_s, finish_s))


def test_a_bundle_that_is_always_guided_was_proved_so() -> None:
    """Its 8.5 s are of 16 runs: more than its parts take together, so the parts are dearer when they are measured."""
    assert foretold(Generate("p", bundle="guided")) == pytest.approx(8.5)
    assert foretold(Generate("p", bundle="guided", guidance=0.0)) == pytest.approx(7.5 * 8.5 / 12)


def test_what_was_not_proved_has_no_estimate() -> None:
    for request in (Generate("p", backend="pytorch"), Generate("p", loras=(Lora("a"),)), Generate("p", bundle="gone")):
        assert foretold(request) is None
    failed = replace(PORTRAIT, choices=(Choice("ort", "edge", "failed", verdict=replace(PASSED, failing="PSNR")),))
    assert estimate(DRAW, (), (failed,)) is None
    assert foretold(Generate("p", loras=(Lora("a"),)), (Generate("p", loras=(Lora("a"),)), 20.0)) == pytest.approx(20.0)


def test_a_proof_of_an_earlier_version_knows_no_parts() -> None:
    choices = (Choice("ort", "edge", "accepted", verdict=replace(PASSED, run_s={}, megapixels=0.0)),)
    bundles = (replace(PORTRAIT, choices=choices),)
    assert estimate(DRAW, (), bundles) == Estimate(pytest.approx(8.5))
    assert estimate(Generate("p", steps=16), (), bundles) == Estimate(pytest.approx(8.5 * (16 + 2) / (8 + 2)))


def test_real_jobs_correct_the_proof() -> None:
    assert foretold(DRAW, *[(DRAW, 17.0)] * 2) == pytest.approx(17.0)
    assert foretold(Generate("p", count=8), *[(DRAW, 17.0)] * 2) == pytest.approx(2 * 66.25)
    assert foretold(DRAW, (DRAW, 4.25)) == pytest.approx(4.25), "nothing takes less than its work"
    assert foretold(DRAW, *[(Generate("p", backend="edge"), 17.0)] * 2) == pytest.approx(17.0), "the same engine's"
    assert foretold(DRAW, *[(DRAW, 17.0)] * 9, engine="torch") == pytest.approx(8.5), "another engine's"
    assert foretold(DRAW, *[(Generate("p", bundle="guided"), 99.0)] * 9) == pytest.approx(8.5)
    assert foretold(DRAW, *[(Generate("p", loras=(Lora("a"),)), 99.0)] * 9) == pytest.approx(8.5)


def test_a_cold_run_does_not_spoil_what_was_proved() -> None:
    for request in (DRAW, Generate("p", steps=16), Generate("p", width=256, height=256)):
        assert foretold(request, (request, 90.0)) == foretold(request)
        assert foretold(request, (request, 90.0), *[(request, foretold(request) or 0.0)] * 3) == foretold(request)


def test_how_time_grows_with_pixels_is_learnt_below_the_proof_and_above_it() -> None:
    small, large, huge = (Generate("p", width=side, height=side) for side in (256, 1024, 2048))
    on_top = [(small, 0.25 + 8.25 * 0.25**0.8)] * 2
    assert foretold(small, *on_top) == pytest.approx(on_top[0][1])
    assert foretold(large, *on_top) == foretold(large), "a small picture says nothing of a large one"
    attention = [*on_top, *[(large, 0.25 + 8.25 * 4**1.2)] * 2]
    assert foretold(huge, *attention) == pytest.approx(0.25 + 8.25 * 16**1.2)
    assert foretold(small, *attention) == pytest.approx(on_top[0][1])
    assert foretold(DRAW, *attention) == pytest.approx(8.5)
