"""The workshop: bundles are made in a child process, which may end in any way; names lead nowhere else."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest

from engines import backends
from engines.backends import Candidate
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import BUILT_IN, Bundle, Shelf
from engines.bundle.build_job import BuildJob
from engines.bundle.loras import LoraFile
from engines.jobs.sqlite_queue import SqliteQueue
from engines.machine import usage
from engines.messages import Build, Event, Failed, Final, Generate, Lora, Note, Progress
from engines.studio import Studio, trials
from engines.studio.proof import Drawing
from engines.worker import builds, execute
from engines.worker.builds import BackgroundJobs
from engines.worker.inventory import cannot_build
from tests.conftest import Within
from tests.support.cancelling import cancelled_when
from tests.support.fakes import builtin_with_proof, write_restorer

MINE = Build("restorer", "mine.onnx", "edge-fp32", "mine")
BEGUN = Progress("export", 1, 9)  # what progress(1) of a child means
REFUSED = "tell(kind='failed', code='x', detail='y', facts={})"
Project = Callable[[str], None]
true_builds = pytest.mark.skipif(bool(cannot_build()), reason=f"builds true bundles: {cannot_build()}")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "checkpoints" / "photographs").mkdir(parents=True)
    (tmp_path / "checkpoints" / "mine.onnx").touch()
    return tmp_path


def opened(home: Path) -> BackgroundJobs:
    models = home / "models"
    return BackgroundJobs(Shelf((models,)), models, home / "checkpoints", Verdicts(home / "verdicts"))


@pytest.fixture
def project(home: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """project(code): what a child runs instead of the true toolchain. It notes down its arguments and its input."""

    def write(code: str) -> None:
        folder = home / "project" / "engines" / "toolchain"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").touch()
        (folder / "__init__.py").touch()
        head = f"""
import json, os, sys, time
from pathlib import Path
home = Path({str(home)!r})
half = home / "models" / ".mine.building"
half.mkdir(exist_ok=True)
def tell(**event):
    print(json.dumps(event), flush=True)
def progress(step):
    tell(kind="progress", stage="export", step=step, total=9)
(home / "arguments").write_text(json.dumps([*sys.argv[1:], *[k for k in os.environ if k.startswith("STUDIO_")]]))
(home / "job").write_bytes(sys.stdin.buffer.read())
"""
        (folder / "__main__.py").write_text(head + code)
        monkeypatch.setattr(builds, "PROJECT", home / "project")
        monkeypatch.setattr(builds, "PULSE_S", 0.05)

    return write


def run(shop: BackgroundJobs, request: Build = MINE) -> list[Event]:
    return list(shop.run(request, Path()))


def nobody_works_in(home: Path) -> bool:
    return not any(str(home) in command_of(process) for process in Path("/proc").glob("[0-9]*"))


def command_of(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:  # it ended meanwhile
        return ""


def test_events_are_passed_on_and_silence_is_filled(home: Path, project: Project) -> None:
    go_on = "while not (home / 'go on').exists():\n    time.sleep(0.01)\n"  # silent for as long as the test wants
    project("progress(1)\ntell(kind='note', text='人')\n" + go_on + REFUSED)
    events: list[Event] = []
    for event in opened(home).run(MINE, Path()):
        events.append(event)
        if events[-3:] == [BEGUN] * 3:
            (home / "go on").touch()
    begun = events.index(BEGUN)
    assert events[begun + 1] == Note("人") and events[-1] == Failed("x", "y")
    assert set(events[:begun]) <= {Progress("prepare", 0, 1)}
    assert len(events) > begun + 4 and set(events[begun + 2 : -1]) == {BEGUN}, "somebody watches: it lives"


def test_a_line_that_comes_in_pieces_is_one_event(home: Path, project: Project) -> None:
    project("""
line = json.dumps({"kind": "note", "text": "长" * 50_000}).encode() + b"\\n"
for i in range(0, len(line), 30_001):
    os.write(1, line[i : i + 30_001])
    time.sleep(0.08)
os.write(1, b'{"kind": "note", "text": "a"}\\n{"kind": "failed", "code": "x", "detail": "", "facts": {}}\\n')
""")
    assert [event for event in run(opened(home)) if isinstance(event, Note)] == [Note("长" * 50_000), Note("a")]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise MemoryError('so many bytes')", "MemoryError: so many bytes"),
        ("os.abort()", "it said nothing"),
        ("sys.exit('no space left')", "no space left"),
        ("pass", "it said nothing"),
    ],
)
def test_a_toolchain_that_ends_without_a_word_is_a_failed_build(
    home: Path, project: Project, code: str, why: str
) -> None:
    project("progress(1)\n" + code)
    shop = opened(home)
    *_, last = run(shop)
    assert isinstance(last, Failed) and last.code == "engine_failed" and why in last.detail
    assert (home / "models" / ".mine.building").is_dir(), "another try goes on from here"
    assert shop.shelf.names() == []


def test_what_it_prints_that_is_no_event_fails_the_job_and_nobody_else(home: Path, project: Project) -> None:
    project("print('a library greets', flush=True)\ntime.sleep(600)")
    *_, last = run(opened(home))
    assert isinstance(last, Failed) and nobody_works_in(home)


def test_a_cancelled_build_leaves_nothing(home: Path, project: Project) -> None:
    project("progress(1)\ntime.sleep(600)")
    *_, last = cancelled_when(opened(home).run(MINE, Path()), lambda event: event == BEGUN)
    assert isinstance(last, Failed) and last.code == "cancelled"
    assert os.listdir(home / "models") == [] and nobody_works_in(home)


def test_stopping_ends_the_child_and_keeps_what_was_made(home: Path, project: Project) -> None:
    project("progress(1)\ntime.sleep(600)")
    shop, events = opened(home), list[Event]()
    for event in shop.run(MINE, Path()):
        events.append(event)
        if event == BEGUN:
            shop.stop()
    assert events and not any(isinstance(event, Final | Failed) for event in events)
    assert nobody_works_in(home) and (home / "models" / ".mine.building").is_dir()


def test_a_stopped_build_waits_in_the_queue_for_the_next_start(home: Path, project: Project) -> None:
    project("progress(1)\ntime.sleep(600)")
    queue, shop = SqliteQueue(home / "queue.db", home), opened(home)
    job_id = queue.submit(MINE)
    job = queue.claim(lane="builds")
    assert job is not None and job.request == MINE
    shop.stop()
    execute(job, queue, shop)
    assert queue.job(job_id).state == "running"
    queue.recover()
    again = queue.claim(lane="builds")
    assert again is not None and (again.id, again.attempts) == (job_id, 2)
    queue.close()


def test_who_stops_listening_ends_the_child(home: Path, project: Project) -> None:
    project("progress(1)\ntime.sleep(600)")
    stream = opened(home).run(MINE, Path())
    assert isinstance(stream, Generator)
    while next(stream) != BEGUN:
        pass
    stream.close()
    assert nobody_works_in(home)


def test_the_child_gets_paths_and_no_settings(home: Path, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOME", "/elsewhere")
    project(REFUSED)
    run(opened(home), Build("restorer", "mine.onnx", "edge-int8", "mine", "photographs", ("one\ntwo", "三")))
    assert json.loads((home / "arguments").read_text()) == ["--job"], "and nothing of the environment"
    assert BuildJob.unpack((home / "job").read_bytes()) == BuildJob(
        "restorer", home / "checkpoints" / "mine.onnx", home / "models" / "mine", "edge-int8",
        checkpoints=home / "checkpoints", calibration=home / "checkpoints" / "photographs",
        prompts=("one\ntwo", "三"),
    )  # fmt: skip


def test_a_request_larger_than_a_pipe_gets_through(home: Path, project: Project) -> None:
    project(REFUSED)
    prompts = tuple(f"{i} " + "字" * 3000 for i in range(100))
    events = run(opened(home), Build("restorer", "mine.onnx", "edge-fp32", "mine", prompts=prompts))
    assert events[-1] == Failed("x", "y")
    assert BuildJob.unpack((home / "job").read_bytes()).prompts == prompts


@pytest.mark.parametrize("source", ["../secret.pth", "/etc/passwd", "gone.pth", "", ".", "photographs", "MINE.onnx"])
def test_a_source_is_a_name_and_never_a_path(home: Path, project: Project, source: str) -> None:
    (home / "secret.pth").touch()
    project("tell(kind='final')")
    (event,) = run(opened(home), Build("restorer", source, "edge-fp32", "mine"))
    assert isinstance(event, Failed) and event.code == "not_found" and not (home / "arguments").exists()


@pytest.fixture
def wardrobe(home: Path) -> Path:
    """A portrait to build from, and the folder of what it may wear."""
    (home / "checkpoints" / "z-image" / "transformer").mkdir(parents=True)
    (home / "loras").mkdir()
    (home / "loras" / "soft 柔: skin.safetensors").touch()
    return home / "loras"


def test_loras_are_handed_to_the_child_as_files_with_their_strengths(
    home: Path, project: Project, wardrobe: Path
) -> None:
    project(REFUSED)
    worn = (Lora("soft 柔: skin", -0.35), Lora("studio_light"))
    run(opened(home), Build("portrait", "z-image", "edge-int4", "mine", loras=worn))
    assert BuildJob.unpack((home / "job").read_bytes()).loras == (
        LoraFile(wardrobe / "soft 柔: skin.safetensors", -0.35),
        LoraFile(BUILT_IN / "loras" / "studio_light.safetensors", 0.8),
    )


@pytest.mark.parametrize("name", ["gone", "../loras/secret", "/etc/passwd", "soft 柔: skin.safetensors", "", ".", "*"])
def test_a_lora_is_a_name_and_never_a_path(home: Path, project: Project, wardrobe: Path, name: str) -> None:
    (home / "secret.safetensors").touch()
    project("tell(kind='final')")
    (event,) = run(opened(home), Build("portrait", "z-image", "edge-fp32", "mine", loras=(Lora(name),)))
    assert isinstance(event, Failed) and event.code == "bad_option" and event.facts["field"] == "loras"
    assert not (home / "arguments").exists()


def test_a_checkpoint_of_the_other_kind_is_not_found(home: Path) -> None:
    (event,) = run(opened(home), Build("portrait", "mine.onnx", "edge-fp32", "mine"))
    assert isinstance(event, Failed) and event.code == "not_found"


@pytest.mark.parametrize("folder", ["..", "../checkpoints/photographs", "/tmp", "mine.onnx", "gone"])
def test_photographs_are_a_name_and_never_a_path(home: Path, project: Project, folder: str) -> None:
    project("tell(kind='final')")
    (event,) = run(opened(home), Build("restorer", "mine.onnx", "edge-int8", "mine", folder))
    assert isinstance(event, Failed) and event.code == "not_found" and not (home / "arguments").exists()


@pytest.mark.parametrize("taken", ["a bundle", "a folder that is none"])
def test_what_is_there_is_not_replaced(home: Path, project: Project, taken: str) -> None:
    """Whatever it is, somebody put it there."""
    if taken == "a bundle":
        write_restorer(home / "models" / "mine")
    else:
        (home / "models" / "mine").mkdir()
        (home / "models" / "mine" / "half a download").touch()
    project("tell(kind='final')")
    before = sorted(home.rglob("*"))
    (event,) = run(opened(home))
    assert isinstance(event, Failed) and event.code == "bad_option" and event.facts["field"] == "name"
    assert sorted(home.rglob("*")) == before


def test_a_name_of_the_built_in_shelf_is_taken_too(home: Path, builtin: Path) -> None:
    shop = BackgroundJobs(
        Shelf((home / "models", builtin)), home / "models", home / "checkpoints", Verdicts(home / "v")
    )
    (event,) = run(shop, Build("restorer", "mine.onnx", "edge-fp32", "portrait"))
    assert isinstance(event, Failed) and event.code == "bad_option"


def test_pictures_are_not_the_workshops(home: Path) -> None:
    (event,) = opened(home).run(Generate("p"), Path())
    assert isinstance(event, Failed) and event.code == "bad_option"


def community(path: Path) -> None:
    pytest.importorskip("onnx", reason="writes an ONNX graph")
    from tests.support.community import community as write

    write(path)


@pytest.mark.slow
@true_builds
def test_a_true_build_becomes_a_bundle_that_serves(home: Path) -> None:
    """A graph that is taken in, so nothing is exported; test_build_command stops one and goes on with it."""
    community(home / "checkpoints" / "mine.onnx")
    shop = opened(home)
    events = run(shop)
    assert isinstance(events[-1], Final) and events[-1].reason.startswith("mine: "), events[-1]
    plan = [event.text for event in events if isinstance(event, Note)]
    assert plan[:3] == ["1. store restorer", "2. export restorer", "3. draw the proof"]
    assert {event.stage for event in events if isinstance(event, Progress)} >= {"prepare", "export", "verify"}
    bundle = shop.shelf.open("mine")
    bundle.verify()
    assert os.listdir(home / "models") == ["mine"] and (bundle.root / "report.json").is_file()
    for name in ("ort", "openvino"):
        if backends.engine(name).probe().ok:
            for found in backends.candidates(bundle, backends.engine(name), shop.verdicts):
                assert found.verdict is not None and found.verdict.accepted, "proved while it was built"
    assert shop.prove_next(lambda: False) is False, "nothing is proved twice"


@true_builds
def test_a_true_build_that_fails_says_why(home: Path) -> None:
    (home / "checkpoints" / "broken.pth").write_bytes(b"PK\x03\x04" + bytes(60))
    *_, last = run(opened(home), Build("restorer", "broken.pth", "edge-fp32", "mine"))
    assert isinstance(last, Failed) and last.code == "bad_bundle" and "broken.pth cannot be read" in last.detail
    assert os.listdir(home / "models") == []


@pytest.fixture
def proving(home: Path, builtin: Path) -> BackgroundJobs:
    """One bundle that true engines can be proved with."""
    builtin_with_proof(builtin, home / "models" / "restorer")
    return opened(home)


def test_engines_are_proved_one_by_one_until_none_is_left(proving: BackgroundJobs, within: Within[bool]) -> None:
    bundle = proving.shelf.open("restorer")
    due = [(c.engine.name, c.precision) for _, c in trials.due([bundle], proving.verdicts)]
    for _ in due:
        assert proving.prove_next(lambda: False) is True
    assert proving.prove_next(lambda: False) is False
    verdicts = {(c.engine.name, c.precision): c.verdict for c in backends.ways(bundle, proving.verdicts)}
    assert {name for name, verdict in verdicts.items() if verdict} == set(due)
    ort = verdicts["ort", "fp32"]
    assert ort is not None and ort.accepted and ort.finish_s > 0


def test_a_proof_gives_way_to_pictures_and_is_made_later(proving: BackgroundJobs, home: Path) -> None:
    started = time.monotonic()
    assert proving.prove_next(lambda: True) is True, "there still is something to prove"
    assert time.monotonic() - started < 60 and nobody_works_in(home)
    assert not list(proving.verdicts.folder.glob("*"))


def test_an_engine_that_crashed_is_not_tried_again(
    proving: BackgroundJobs, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is the trusted one: until something changes, it will crash again."""
    (home / "p" / "engines" / "studio").mkdir(parents=True)
    (home / "p" / "engines" / "studio" / "proof.py").write_text("import os\nos.abort()")
    monkeypatch.setattr(trials, "PROJECT", home / "p")
    count = 0
    while proving.prove_next(lambda: False):
        count += 1
        assert count < 19
    bundle = proving.shelf.open("restorer")
    for found in backends.ways(bundle, proving.verdicts):
        assert found.refused, "crashed, or never could"


def test_a_proof_that_gave_way_goes_on_with_what_it_has_drawn(
    proving: BackgroundJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    def stopped_after_one(bundle: Bundle, candidate: Candidate, stopped: object, drawn: list[Drawing]) -> None:
        given.append(len(drawn))
        drawn.append(Drawing(0, psnr_db=50.0))

    monkeypatch.setattr(trials, "prove_apart", stopped_after_one)
    for _ in range(3):
        assert proving.prove_next(lambda: True) is True
    assert given == [0, 1, 2]


@pytest.fixture
def close(proving: BackgroundJobs, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All is proved, and all took the same time. Lists what is timed again."""
    for c in backends.ways(proving.shelf.open("restorer")):
        if not c.refused:
            accepted = Verdict(c.engine.name, "CPU", "v", c.precision, psnr_db=50.0, finish_s=1.0)
            proving.verdicts.put(c.key, accepted)
    timed: list[str] = []

    def time_apart(bundle: Bundle, candidate: Candidate, stopped: Callable[[], bool]) -> tuple[Drawing, ...]:
        timed.append(f"{candidate.engine.name} {candidate.precision}")
        return (Drawing(0, finish_s=0.9),)

    monkeypatch.setattr(trials, "time_apart", time_apart)
    monkeypatch.setattr(builds, "GLANCE_S", 0.0)
    monkeypatch.setattr(usage, "disturbed", lambda before, after, threads: False)
    return timed


def test_those_that_are_close_are_timed_in_turn_until_it_is_enough(proving: BackgroundJobs, close: list[str]) -> None:
    while proving.time_next(lambda: False):
        assert len(close) < 40
    half = len(close) // 2
    assert len(close) == 2 * len(set(close)) > 0 and close[:half] == close[half:]
    served = [c.verdict for c in backends.ways(proving.shelf.open("restorer"), proving.verdicts) if c.verdict]
    assert {(verdict.finish_s, verdict.rounds) for verdict in served} == {(0.9, 3)}


def test_nothing_is_timed_while_others_compute_or_wait(
    proving: BackgroundJobs, close: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert proving.time_next(lambda: True) is False
    monkeypatch.setattr(usage, "disturbed", lambda before, after, threads: True)
    assert proving.time_next(lambda: False) is False and close == []


def test_what_was_disturbed_is_not_tried_over_and_over(
    proving: BackgroundJobs, close: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def beside_a_neighbour(bundle: Bundle, candidate: Candidate, stopped: object) -> tuple[Drawing, ...]:
        close.append(candidate.key)
        return (Drawing(0, finish_s=0.9, disturbed=True),)

    monkeypatch.setattr(trials, "time_apart", beside_a_neighbour)
    for c in backends.ways(proving.shelf.open("restorer"), proving.verdicts):
        if c.verdict:
            proving.verdicts.put(c.key, replace(c.verdict, disturbed=True))
    while proving.time_next(lambda: False):
        assert len(close) < 40
    assert len(close) == len(set(close)) >= 1


def test_a_build_is_not_the_studios(home: Path) -> None:
    """A queue that mixes its lanes up fails the job; it does not draw."""
    (event,) = Studio(Shelf((home / "models",)), home / "state").run(MINE, home)
    assert isinstance(event, Failed) and event.code == "bad_option"
