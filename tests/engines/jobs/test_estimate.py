"""How long a job will take, by earlier ones: of which, how they are scaled, and that nothing is made up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from engines.jobs.estimate import History, Run, Work, estimate, work_of
from engines.messages import Build, Develop, Enhance, Fetch, Generate, Lora, Request
from engines.messages.status import BundleStatus

PORTRAIT = BundleStatus("portrait", "portrait", {}, "", ((512, 512), (256, 256)), 8, 0.0, "ort", "")
BUNDLES = (PORTRAIT, replace(PORTRAIT, name="other"), replace(PORTRAIT, name="guided", guidance=6.5))
DRAW = Generate("p")


def after(*runs: tuple[Request, float]) -> Callable[[Request], float | None]:
    """What is said after these runs, the oldest first."""
    newest_first = [Run(request, seconds, "ort") for request, seconds in reversed(runs)]
    return lambda request: estimate(request, newest_first, BUNDLES)


@pytest.mark.parametrize("request_", [DRAW, Enhance("a.jpg"), Fetch("gpen"), Develop("a.png")])
def test_nothing_is_made_up(request_: Request) -> None:
    assert after()(request_) is None
    assert after((request_, 0.0))(request_) is None, "it can be no measurement"


def test_the_same_takes_as_long_again() -> None:
    for request in (DRAW, Enhance("a.jpg"), Develop("a.png"), Fetch("gpen"), Build("restorer", "a", "edge-fp32", "b")):
        assert after((request, 4.0))(request) == pytest.approx(4.0)


def test_what_is_left_open_is_the_bundles() -> None:
    assert work_of(DRAW, BUNDLES) == work_of(Generate("p", steps=8, width=512, height=512), BUNDLES)
    assert work_of(DRAW, BUNDLES) == Work(8, 1, 512 * 512 / 1e6)
    assert work_of(Generate("p", bundle="gone", steps=4, width=64, height=64), BUNDLES) is None
    guided = work_of(Generate("p", bundle="guided"), BUNDLES)
    assert guided == Work(16, 1, 512 * 512 / 1e6), "each step is run with the words and without"
    assert work_of(Generate("p", bundle="guided", guidance=0.0), BUNDLES) == work_of(DRAW, BUNDLES)
    assert work_of(Generate("(a:1.5), [b]"), BUNDLES) == work_of(DRAW, BUNDLES), "rows of an embedding are multiplied"
    assert work_of(Generate("p", start="a.jpg", strength=0.5), BUNDLES) == Work(4, 1, 512 * 512 / 1e6)


def test_a_weight_takes_a_run_more_where_it_is_a_matter_of_guidance() -> None:
    bundles = tuple(replace(bundle, weighs_by_guidance=True) for bundle in BUNDLES)
    megapixels = 512 * 512 / 1e6
    assert work_of(Generate("(a:1.5), b, [c], (d:1.5)", "(e)"), bundles) == Work(24, 1, megapixels), "none is negative"
    assert work_of(Generate("(a:1.5), b", "(e)", bundle="guided"), bundles) == Work(32, 1, megapixels)
    assert work_of(Generate("a (b", "(e:1)", bundle="guided"), bundles) == Work(16, 1, megapixels)


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
    assert estimate(DRAW, runs, BUNDLES) == pytest.approx(2.0)


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
        said, took = history.seconds(request, BUNDLES), truth(request)
        close += k >= 10 and said is not None and abs(said - took) <= 0.25 * took
        history.add([Run(request, took * (5 if k in (0, 25) else 1), "ort")])  # a start: a model was loaded
    assert close >= 45, "nine of ten, after the first ten"


def test_what_is_remembered_is_the_latest_of_each_kind() -> None:
    history = History()
    history.add([Run(DRAW, 2.0, "ort")])
    history.add([Run(Enhance("a.jpg"), 1.0, "ort")] * 500)
    assert history.seconds(DRAW, BUNDLES) == pytest.approx(2.0), "a batch of photos drives out no portrait"
    history.add([Run(DRAW, 7.0, "ort")] * 200)
    assert history.seconds(DRAW, BUNDLES) == pytest.approx(7.0)


def test_bundles_that_come_later_are_counted() -> None:
    history = History()
    history.add([Run(DRAW, 2.0, "ort")])
    assert history.seconds(DRAW, ()) is None
    assert history.seconds(DRAW, BUNDLES) == pytest.approx(2.0)
