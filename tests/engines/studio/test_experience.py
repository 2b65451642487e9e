"""What real jobs say of engines: a few that nobody disturbed refine a verdict, and a slower choice is left."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from engines import backends
from engines.backends.mixture import work_s
from engines.backends.timed import RoleRun
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import Bundle, Role, Shelf
from engines.machine import usage
from engines.messages import Enhance, Final, Generate
from engines.roles.loaded import LoadedBundle
from engines.studio import Studio
from engines.studio.experience import JOBS, Experience, refined, scaled
from tests.support.fakes import FakeEngine, write_detector, write_portrait, write_restorer

FACE = 32 * 32  # pixels
MEGAPIXELS = FACE / 1e6
A, B = FakeEngine("a", rank=1), FakeEngine("b", rank=2)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "engines", lambda: iter([A, B]))


@pytest.fixture
def restorer(tmp_path: Path) -> Bundle:
    return write_restorer(tmp_path / "shelf" / "restorer")


@pytest.fixture
def verdicts(tmp_path: Path) -> Verdicts:
    return Verdicts(tmp_path / "verdicts")


def put(verdicts: Verdicts, bundle: Bundle, engine: FakeEngine, finish_s: float, disturbed: bool = False) -> None:
    verdict = Verdict(
        engine.name, "CPU", "v", "fp32", look_s=finish_s, finish_s=finish_s,
        run_s={"restorer": finish_s}, megapixels=MEGAPIXELS, disturbed=disturbed,
    )  # fmt: skip
    verdicts.put(backends.candidate(bundle, engine).key, verdict)


def of(verdicts: Verdicts, bundle: Bundle, engine: FakeEngine) -> Verdict:
    verdict = backends.candidate(bundle, engine, verdicts).verdict
    assert verdict is not None
    return verdict


def serves(verdicts: Verdicts, bundle: Bundle) -> str:
    return backends.select(bundle, "auto", verdicts)[0].name


def jobs(experience: Experience, bundle: Bundle, engine: FakeEngine, *times: float) -> None:
    way = backends.candidates(bundle, engine)[0].engine
    for seconds in times:
        experience.learn(LoadedBundle(bundle, way), [RoleRun("restorer", FACE, seconds)])


def test_a_choice_that_is_slower_in_real_jobs_is_left_after_a_few(
    verdicts: Verdicts, restorer: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    put(verdicts, restorer, A, 1.0)
    put(verdicts, restorer, B, 1.1)
    experience, told = Experience(verdicts), list[str]()
    experience.refresh = lambda: told.append(serves(verdicts, restorer))
    jobs(experience, restorer, A, *[1.5] * (JOBS - 1))
    assert serves(verdicts, restorer) == "a" and told == [], "not by one or two"
    jobs(experience, restorer, A, 1.5)
    assert serves(verdicts, restorer) == "b" and told == ["b"], "and everybody is told"
    assert of(verdicts, restorer, A).finish_s == 1.5
    assert caplog.messages == ["restorer: b fp32 serves: 1.10 s by the latest jobs, a fp32 1.50 s"]


def test_one_that_is_slower_by_a_little_stays(verdicts: Verdicts, restorer: Bundle) -> None:
    put(verdicts, restorer, A, 1.0)
    put(verdicts, restorer, B, 1.1)
    jobs(Experience(verdicts), restorer, A, *[1.2] * 9)
    assert serves(verdicts, restorer) == "a" and of(verdicts, restorer, A).finish_s == 1.0


def test_nothing_goes_to_and_fro(verdicts: Verdicts, restorer: Bundle) -> None:
    """Each is slower in truth than its proof said, by turns a little more and a little less than the other."""
    put(verdicts, restorer, A, 1.0)
    put(verdicts, restorer, B, 1.1)
    experience, order = Experience(verdicts), list[str]()
    for k in range(40):
        name = serves(verdicts, restorer)
        order.append(name)
        jobs(experience, restorer, {"a": A, "b": B}[name], 1.3 if (name == "a") == bool(k % 2) else 1.45)
    assert len([k for k in range(1, 40) if order[k] != order[k - 1]]) <= 2


def test_a_slow_job_among_others_is_chance(verdicts: Verdicts, restorer: Bundle) -> None:
    put(verdicts, restorer, A, 1.0)
    put(verdicts, restorer, B, 1.1)
    jobs(Experience(verdicts), restorer, A, 1.0, 9.0, 1.01, 9.0, 1.0)
    assert serves(verdicts, restorer) == "a"


def test_each_job_refines_the_seconds_that_people_are_told(verdicts: Verdicts, restorer: Bundle) -> None:
    put(verdicts, restorer, A, 1.0, disturbed=True)
    experience = Experience(verdicts)
    jobs(experience, restorer, A, 0.5, 0.6, 0.55)
    assert of(verdicts, restorer, A).run_s == {"restorer": 0.55}
    assert (of(verdicts, restorer, A).finish_s, of(verdicts, restorer, A).disturbed) == (0.55, False)
    jobs(experience, restorer, A, 0.4, 0.4)
    assert of(verdicts, restorer, A).finish_s == 0.5, "of five"


def test_another_that_was_asked_for_by_name_takes_over_if_it_is_faster_by_much(
    verdicts: Verdicts, restorer: Bundle
) -> None:
    put(verdicts, restorer, A, 1.0)
    put(verdicts, restorer, B, 1.2)
    experience = Experience(verdicts)
    jobs(experience, restorer, B, 0.95, 0.95, 0.95)
    assert serves(verdicts, restorer) == "a"
    jobs(experience, restorer, B, 0.5, 0.5, 0.5, 0.5)
    assert serves(verdicts, restorer) == "b"


def test_who_has_no_verdict_or_failed_learns_nothing(verdicts: Verdicts, restorer: Bundle) -> None:
    experience = Experience(verdicts)
    jobs(experience, restorer, A, *[1.0] * 9)
    assert not verdicts.folder.exists()


def test_a_verdict_is_written_at_most_once_a_job(
    verdicts: Verdicts, restorer: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(verdicts, restorer, A, 1.0)
    written: list[str] = []
    monkeypatch.setattr(Verdicts, "put", lambda self, name, verdict: written.append(name))
    jobs(Experience(verdicts), restorer, A, 0.5, 0.5, 0.5, 0.5)
    assert len(written) == 2, "from the third on"


def run(role: Role, cells: int, seconds: float) -> RoleRun:
    return RoleRun(role, cells, seconds)


def test_runs_are_scaled_to_the_size_of_the_proof(tmp_path: Path) -> None:
    bundle = write_portrait(tmp_path / "p")  # 8 pixels a cell
    run_s = {"denoiser": 1.0, "decoder": 1.0, "text_encoder": 1.0}
    verdict = Verdict("a", "CPU", "v", "fp32", run_s=run_s, megapixels=64 * 64 / 1e6)
    runs = [
        run("denoiser", 64, 0.5),
        run("denoiser", 128, 0.8),  # twice as large
        run("denoiser", 64, 0.7),
        run("decoder", 256, 9.0),  # four times as large: attention would not be told from pixels
        run("decoder", 16, 0.01),  # a piece
        run("text_encoder", 9, 0.1),
        run("face_detector", 4096, 0.1),  # of another bundle
    ]
    assert scaled(bundle, verdict, runs) == {"denoiser": 0.4}
    assert scaled(bundle, Verdict("a", "CPU", "v", "fp32", run_s=run_s), runs) == {}, "of no size"


def test_a_picture_takes_its_steps_its_preview_and_its_decode(tmp_path: Path) -> None:
    bundle = write_portrait(tmp_path / "p")  # four steps
    run_s = {"denoiser": 1.0, "decoder": 3.0, "preview_decoder": 0.5, "text_encoder": 9.0}
    assert work_s(bundle, run_s) == 7.5
    verdict = Verdict("a", "CPU", "v", "fp32", look_s=1.0, finish_s=8.0, run_s=run_s)
    after = refined(bundle, verdict, [{"denoiser": 2.875}])
    assert after.finish_s == 16.0 and after.look_s == 2.0 and after.run_s == {**run_s, "denoiser": 2.875}


# ---- the studio's part


@pytest.fixture
def shelf(tmp_path: Path, restorer: Bundle) -> Shelf:
    write_portrait(tmp_path / "shelf" / "portrait")
    write_detector(tmp_path / "shelf" / "detector")
    return Shelf((tmp_path / "shelf",))


class Pupil(Experience):
    def __init__(self) -> None:
        super().__init__(Verdicts(Path("/nowhere")))
        self.lessons: list[tuple[str, list[Role]]] = []

    def learn(self, loaded: LoadedBundle, runs: object) -> None:
        self.lessons.append((loaded.bundle.name, [run.role for run in runs]))  # type: ignore[attr-defined]


@pytest.mark.parametrize("busy", [False, True])
def test_a_job_is_learnt_from_unless_somebody_disturbed_it(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    monkeypatch.setattr(usage, "disturbed", lambda before, after, threads: busy)
    pupil = Pupil()
    studio = Studio(shelf, tmp_path / "state", FakeEngine().select, experience=pupil)
    for _ in range(2):
        *_, last = studio.run(Generate("p", preview="off"), tmp_path)
        assert isinstance(last, Final)
    (again,) = {tuple(roles[-5:]) for _, roles in pupil.lessons} or {()}
    assert again == (() if busy else ("denoiser",) * 4 + ("decoder",)), "of this job alone"
    assert len(pupil.lessons) == (0 if busy else 2)


def test_a_job_that_fails_teaches_nothing(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "disturbed", lambda before, after, threads: False)
    pupil = Pupil()
    studio = Studio(shelf, tmp_path / "state", FakeEngine(spoil={"decoder": lambda x: x * 0}).select, experience=pupil)
    list(studio.run(Generate("p"), tmp_path))
    list(studio.run(Enhance(str(tmp_path / "none.png")), tmp_path))
    assert pupil.lessons == []
