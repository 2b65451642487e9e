"""Long work in steps: what is finished is not done twice, what is not is not believed, and other inputs start anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from engines.messages import Event, Note, Progress
from engines.toolchain import steps
from engines.toolchain.steps import Say, Step
from tests.conftest import REPOSITORY


class Work:
    """Three steps that count how often they ran; one of them may stumble."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ran, self.stumbles = folder, list[str](), ""
        self.events: list[Event] = []

    def _do(self, title: str, say: Say) -> dict[str, Any]:
        self.ran.append(title)
        (self.folder / f"{title}.half").write_text("begun")
        if title == self.stumbles:
            raise KeyboardInterrupt
        say(f"did {title}")
        return {"made": title.upper()}

    def run(self, inputs: str = "inputs") -> list[dict[str, Any]]:
        self.ran, self.events = [], []
        steps.resume(self.folder, inputs)
        made = [
            Step("prepare", "a", 1, lambda say: self._do("a", say)),
            Step("export", "b", 7, lambda say: self._do("b", say)),
            Step("verify", "c d", 2, lambda say: self._do("c d", say)),
        ]
        return steps.run(made, self.folder, self.events.append)

    def notes(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "models" / ".x.building")


def test_the_plan_comes_first_then_every_step_in_order(work: Work) -> None:
    records = work.run()
    assert work.ran == ["a", "b", "c d"]
    assert [record["made"] for record in records] == ["A", "B", "C D"]
    assert [(record["step"], record["stage"]) for record in records][2] == ("c d", "verify")
    assert all(record["seconds"] >= 0 for record in records)
    assert work.notes()[:3] == ["1. a", "2. b", "3. c d"]
    first = next(i for i, event in enumerate(work.events) if isinstance(event, Progress))
    assert first == 3, "the plan stands before anything is begun"
    assert [n.strip() for n in work.notes()[3:]] == ["— a", "did a", "— b", "did b", "— c d", "did c d"]


def test_progress_counts_steps_and_never_guesses_from_nothing(work: Work) -> None:
    work.run()
    progress = [event for event in work.events if isinstance(event, Progress)]
    assert [(p.stage, p.step, p.total) for p in progress] == [("prepare", 0, 3), ("export", 1, 3), ("verify", 2, 3)]
    foretold = [p.eta_s is not None for p in progress]
    assert not foretold[0] and foretold[-1] and foretold == sorted(foretold)
    assert all(p.eta_s is None or p.eta_s >= 0 for p in progress)


def test_a_second_run_does_nothing_and_says_the_same(work: Work) -> None:
    first = work.run()
    assert work.run() == first and work.ran == []
    assert work.notes() == ["1. a ✓", "2. b ✓", "3. c d ✓"]


def test_what_was_stopped_goes_on_with_the_step_it_was_in(work: Work) -> None:
    work.stumbles = "b"
    with pytest.raises(KeyboardInterrupt):
        work.run()
    assert work.ran == ["a", "b"]
    work.stumbles = ""
    records = work.run()
    assert work.ran == ["b", "c d"], "the half-done step is done again, the finished one is not"
    assert work.notes()[:3] == ["1. a ✓", "2. b", "3. c d"]
    assert [record["made"] for record in records] == ["A", "B", "C D"]


def test_other_inputs_begin_anew(work: Work) -> None:
    work.run("inputs")
    work.run("other inputs")
    assert work.ran == ["a", "b", "c d"]
    (work.folder / "left").touch()
    work.run("inputs")
    assert work.ran == ["a", "b", "c d"] and not (work.folder / "left").exists(), "nothing of the other work is left"


def test_a_folder_that_nobody_knows_is_begun_anew(work: Work) -> None:
    work.folder.mkdir(parents=True)
    (work.folder / "stale").touch()
    work.run()
    assert work.ran == ["a", "b", "c d"] and not (work.folder / "stale").exists()


CHILD = """
    import sys, time
    from pathlib import Path
    from engines.toolchain import steps
    work, where = Path(sys.argv[1]), sys.argv[2]
    def do(title):
        def run(say):
            print(title, flush=True)
            time.sleep(600 if title == where else 0)
            return {}
        return run
    steps.resume(work, "x")
    steps.run([steps.Step("prepare", title, 1, do(title)) for title in "abc"], work, lambda event: None)
"""


def child(work: Path, stuck_in: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(work), stuck_in]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def test_a_killed_process_leaves_what_it_finished(tmp_path: Path) -> None:
    first = child(tmp_path / "w", stuck_in="b")
    assert first.stdout is not None
    assert [first.stdout.readline().strip() for _ in range(2)] == ["a", "b"]
    time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close()
    told, _ = child(tmp_path / "w", stuck_in="").communicate(timeout=60)
    assert told.split() == ["b", "c"]
