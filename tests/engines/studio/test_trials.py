"""Trials: which engine is proved when, each in a process of its own, what is kept of one, and what is timed again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from engines import backends
from engines.backends import Candidate
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import PROOF, Bundle
from engines.studio import proof, trials
from engines.studio.proof import Case, Drawing
from engines.studio.trials import doubtful, due, prove_apart, retimed, time_apart
from tests.support.fakes import (
    FakeEngine,
    add_proof,
    builtin_with_proof,
    write_manifest,
    write_portrait,
    write_restorer,
)

PROMPTS = (Case("1.png", "一位女士", 7), Case("2.png", "a man", 8))
Project = Callable[[str], None]


@pytest.fixture
def portrait(tmp_path: Path) -> Bundle:
    return add_proof(write_portrait(tmp_path / "portrait"), PROMPTS)


def candidate(bundle: Bundle, engine: FakeEngine | None = None) -> Candidate:
    (only,) = backends.candidates(bundle, engine or FakeEngine())
    return only


def test_only_what_has_no_verdict_yet_is_due(portrait: Bundle, tmp_path: Path) -> None:
    known, unproved = Verdicts(tmp_path / "known"), write_restorer(tmp_path / "no proof")
    found = due([portrait, unproved], known)
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
        monkeypatch.setattr(trials, "PROJECT", tmp_path)

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
    monkeypatch.setattr(trials, "PATIENCE_S", 0.3)
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
    found = next(c for c in backends.candidates(bundle, backends.engine("ort")) if c.precision == "fp32")
    started = time.monotonic()
    verdict = prove_apart(bundle, found)
    assert verdict is not None and verdict.accepted, verdict
    assert verdict.psnr_db > 60 and 0 < verdict.finish_s < time.monotonic() - started and verdict.peak_mb > 40
    assert verdict.runtime == found.probe.runtime
    (bundle.root / PROOF / "1.png").write_bytes((bundle.root / PROOF / "face.png").read_bytes())
    verdict = prove_apart(bundle, found)
    assert verdict is not None and "checksum" in verdict.failing, "its files are checked before they are believed"


# ---- a trial that was stopped goes on


def printed(*drawings: Drawing) -> str:
    """What a child prints."""
    return "\n".join(f"print({json.dumps(asdict(d))!r}, flush=True)" for d in drawings) + "\n"


FIRST, SECOND = Drawing(0, psnr_db=50.0, ssim=0.99, finish_s=1.0), Drawing(1, psnr_db=45.0, ssim=0.99, finish_s=2.0)


def test_what_a_stopped_trial_has_drawn_is_kept_and_the_next_goes_on(
    portrait: Bundle, project: Project, tmp_path: Path
) -> None:
    rest = f"open({str(tmp_path / 'begun')!r}, 'w').close()\ntime.sleep(600)"
    project("import sys\nprint('a library greets')\n" + printed(FIRST) + rest)
    drawn: list[Drawing] = []
    assert prove_apart(portrait, candidate(portrait), (tmp_path / "begun").exists, drawn) is None
    assert drawn == [FIRST]
    child = tmp_path / "engines" / "studio" / "proof.py"
    told_before = f"import sys, json\nassert [d['case'] for d in json.load(sys.stdin)] == [0]\n{printed(SECOND)}"
    child.write_text(told_before)
    verdict = prove_apart(portrait, candidate(portrait), drawn=drawn)
    assert verdict is not None and verdict.accepted and (verdict.pictures, verdict.psnr_db) == (2, 45.0)
    assert drawn == [FIRST, SECOND]


def test_a_line_that_was_cut_off_is_no_drawing(portrait: Bundle, project: Project) -> None:
    project(printed(FIRST) + 'sys.stdout.write(\'{"case": 1, "psnr\')\nsys.stdout.flush()')
    drawn: list[Drawing] = []
    verdict = prove_apart(portrait, candidate(portrait), drawn=drawn)
    assert drawn == [FIRST] and verdict is not None and "without a verdict" in verdict.failing


def test_what_is_whole_already_needs_no_process(portrait: Bundle, project: Project) -> None:
    project("os.abort()")
    verdict = prove_apart(portrait, candidate(portrait), drawn=[FIRST, SECOND])
    assert verdict is not None and verdict.accepted


# ---- the order


def write_like(bundle: Bundle, *parts: tuple[str, str, str]) -> Bundle:
    """The bundle with these parts of its first role: format, precision, and a letter for its checksum."""
    role = bundle.parts[0].role
    rows = [
        {"role": role, "file": bundle.parts[0].file, "format": f, "precision": p, "sha256": s * 64, "licence": ""}
        for f, p, s in parts
    ]
    manifest = json.loads((bundle.root / "bundle.json").read_text(encoding="utf-8"))
    return write_manifest(bundle.root, {**manifest, "parts": rows, "extras": {PROOF: "x"}})


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three engines: two that read ONNX, and PyTorch."""
    found = [
        FakeEngine("torch", frozenset({"safetensors", "diffusers"}), "pytorch", rank=4, trusted=True),
        FakeEngine("openvino", rank=2),
        FakeEngine("ort", rank=3, trusted=True),
    ]
    monkeypatch.setattr(backends, "engines", lambda: iter(found))


PARTS = (("onnx", "int8", "a"), ("onnx", "fp32", "b"), ("safetensors", "fp32", "c"))


def test_what_is_built_in_goes_first_small_before_large_and_pytorch_last(
    three: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "BUILT_IN", tmp_path / "builtin")
    (tmp_path / "builtin").mkdir()
    theirs = write_like(write_restorer(tmp_path / "tiny"), *PARTS)
    restorer = write_like(write_restorer(tmp_path / "builtin" / "restorer"), *PARTS)
    portrait = write_like(write_portrait(tmp_path / "builtin" / "portrait", ("denoiser",)), *PARTS)
    (portrait.root / "denoiser.onnx").write_bytes(bytes(100_000))
    order = due([portrait, theirs, restorer], Verdicts(tmp_path / "verdicts"))
    edge = [(engine, precision) for engine in ("openvino", "ort") for precision in ("fp32", "int8")]
    assert [(b.name, c.engine.name, c.precision) for b, c in order] == [
        *((name, *way) for name in ("restorer", "portrait", "tiny") for way in edge),
        *((name, "torch", "fp32") for name in ("restorer", "tiny", "portrait")),
    ]


def test_what_memory_has_no_room_for_is_not_proved(three: None, tmp_path: Path) -> None:
    bundle = write_like(write_restorer(tmp_path / "restorer"), *PARTS)
    found = due([bundle], Verdicts(tmp_path / "v"), lambda bundle, parts, engine: "" if engine == "ort" else "large")
    assert {c.engine.name for _, c in found} == {"ort"}


# ---- what is timed again


def ways(**timed: Verdict) -> list[Candidate]:
    probe = FakeEngine().probe()
    return [Candidate(FakeEngine(name), probe, (), verdict=verdict) for name, verdict in timed.items()]


def took(finish_s: float, rounds: int = 1, disturbed: bool = False, failing: str = "") -> Verdict:
    return Verdict("x", "CPU", "v", "fp32", failing, finish_s=finish_s, rounds=rounds, disturbed=disturbed)


def again(*listed: Candidate) -> str:
    found = doubtful(listed)
    return found.engine.name if found else ""


def test_two_that_are_about_as_fast_are_timed_again_in_turn_and_not_for_ever() -> None:
    verdicts = {"a": took(1.0), "b": took(1.15), "c": took(1.3), "d": took(0.5, failing="PSNR")}
    order = []
    while name := again(*ways(**verdicts)):
        order.append(name)
        verdicts[name] = replace(verdicts[name], rounds=verdicts[name].rounds + 1)
        assert len(order) < 9
    assert order == ["a", "b", "a", "b"]


def test_one_that_is_the_fastest_by_far_is_not_timed_again() -> None:
    assert again(*ways(a=took(1.0), b=took(1.3))) == ""
    assert again(*ways(a=took(1.0))) == ""


def test_what_was_disturbed_is_timed_again_if_it_may_be_the_fastest() -> None:
    assert again(*ways(a=took(1.0), b=took(1.9, disturbed=True))) == "b"
    assert again(*ways(a=took(1.0), b=took(2.1, disturbed=True))) == "", "no neighbour made it so slow"
    assert again(*ways(a=took(1.0, disturbed=True))) == "a", "people are told its seconds"
    assert doubtful(ways(a=took(1.0, disturbed=True)), lambda c: False) is None, "tried a moment ago"


CANDIDATE = ways(a=took(1.0))[0]


def timed(*times: float, disturbed: bool = False) -> list[Drawing]:
    return [Drawing(0, finish_s=t, look_s=t / 2, run_s={"decoder": t / 4}, disturbed=disturbed) for t in times]


def test_of_two_timings_the_lesser_counts() -> None:
    before = replace(took(1.0), look_s=0.6, run_s={"decoder": 0.2, "denoiser": 0.1})
    after = retimed(before, CANDIDATE, timed(0.9, 0.8, 5.0))
    assert (after.finish_s, after.look_s, after.rounds) == (0.9, 0.45, 2)
    assert after.run_s == {"decoder": 0.2, "denoiser": 0.1}
    assert retimed(before, CANDIDATE, timed(1.5)).finish_s == 1.0


def test_what_was_undisturbed_stands_against_what_was_disturbed() -> None:
    before = took(1.0)
    assert retimed(before, CANDIDATE, timed(0.2, disturbed=True)) == replace(before, rounds=2)
    sure = retimed(took(1.0, disturbed=True), CANDIDATE, timed(1.2))
    assert (sure.finish_s, sure.disturbed) == (1.2, False), "the truth, though it is more"
    still = retimed(took(1.0, disturbed=True), CANDIDATE, timed(0.9, disturbed=True))
    assert (still.finish_s, still.disturbed) == (0.9, True)


def test_a_timing_that_came_to_nothing_changes_no_seconds() -> None:
    assert retimed(took(1.0), CANDIDATE, []) == took(1.0, rounds=2)


def test_timing_alone_is_asked_for_and_its_drawings_come_back(portrait: Bundle, project: Project) -> None:
    project("assert '--timing' in sys.argv\n" + printed(FIRST))
    assert time_apart(portrait, candidate(portrait)) == (FIRST,)


def test_a_proof_that_cannot_be_read_is_a_verdict_and_not_tried_for_ever(portrait: Bundle) -> None:
    (portrait.root / PROOF / "proof.json").write_text("{")
    verdict = prove_apart(portrait, candidate(portrait))
    assert verdict is not None and not verdict.accepted and "it stopped with 1" in verdict.failing
