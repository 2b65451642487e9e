# ruff: noqa: E402 (imports follow the check that torch is here)
"""./run.sh build as a process: what it prints, how it stops, and that it goes on where it stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for _module in ("torch", "diffusers", "transformers", "onnx", "onnxscript", "ml_dtypes"):
    pytest.importorskip(_module, reason="builds bundles with the toolchain")

from engines.bundle import Bundle, Shelf
from engines.messages import Event, Failed, Final, Note, Progress, unpack
from tests.conftest import REPOSITORY


class Command:
    """One run of the toolchain, with what it says so far."""

    def __init__(self, home: Path, *arguments: str) -> None:
        ours = {key: value for key, value in os.environ.items() if not key.startswith("STUDIO_")}
        command = [sys.executable, "-W", "ignore", "-m", "engines.toolchain", *arguments]
        self.log = (home / "log").open("w+")
        self.popen = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**ours, "STUDIO_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.events: list[Event] = []

    def __iter__(self) -> Iterator[Event]:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.events.append(unpack(line))  # RequestError: something else than an event
            yield self.events[-1]

    def until(self, text: str) -> None:
        for event in self:
            if isinstance(event, Note) and event.text == text:
                return
        raise AssertionError(self.events)

    def end(self, number: signal.Signals | None = None) -> int:
        if number is not None:
            self.popen.send_signal(number)
        for _ in self:
            pass
        code = self.popen.wait(120)
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        self.log.seek(0)
        self.said = self.log.read()
        self.log.close()
        return code

    def plan(self) -> list[str]:
        first = next(i for i, event in enumerate(self.events) if isinstance(event, Progress))
        return [event.text for event in self.events[:first] if isinstance(event, Note)]


def restorer(home: Path, checkpoints: Path, *more: str) -> Command:
    folder = checkpoints / "restorer"
    source = ("--weights", str(folder / "model.safetensors"), "--about", str(folder / "about.toml"))
    return Command(home, "restorer", *source, "--recipe", "edge-fp32", "--name", "mine", "--events", *more)


@pytest.mark.slow
def test_a_build_is_stopped_and_killed_and_goes_on_each_time(checkpoints: Path, tmp_path: Path) -> None:
    work = tmp_path / "models" / ".mine.building"
    stopped = restorer(tmp_path, checkpoints)
    stopped.until("— export restorer")
    # Where the signal went through an exec(), Python ends by it though it was caught: to a shell that is 130 as well.
    assert stopped.end(signal.SIGINT) in (130, -signal.SIGINT), stopped.said
    assert "Paused" in stopped.said and "已暂停" in stopped.said
    assert "Traceback" not in stopped.said and work.is_dir()

    killed = restorer(tmp_path, checkpoints)
    killed.until("— draw the proof")
    assert killed.plan()[:3] == ["1. store restorer ✓", "2. export restorer", "3. draw the proof"]
    killed.end(signal.SIGKILL)
    assert Shelf((tmp_path / "models",)).names() == [], "what is half made is nobody's bundle"

    terminated = restorer(tmp_path, checkpoints)
    terminated.until("— prove torch")
    assert terminated.end(signal.SIGTERM) == 143
    assert nobody_works_in(tmp_path / "models"), "also not the process that proves an engine"

    last = restorer(tmp_path, checkpoints)
    assert last.end() == 0, last.said
    assert last.plan()[:3] == ["1. store restorer ✓", "2. export restorer ✓", "3. draw the proof ✓"]
    assert isinstance(last.events[-1], Final) and last.events[-1].reason.startswith("mine: ")
    Bundle.open(tmp_path / "models" / "mine").verify()
    assert not work.exists()


STOPPED = """
import signal, sys
from engines.messages import Note
from engines.toolchain.__main__ import Stoppable

def ends_with(act):
    try:
        with Stoppable() as stoppable:
            act(stoppable.before(lambda event: print(event.text)))
    except BaseException as exc:
        print(type(exc).__name__)

def as_an_import_does(emit):
    try:
        signal.raise_signal(int(sys.argv[1]))
    except BaseException as exc:
        raise AttributeError("half a module") from exc

def swallowed(emit):
    emit(Note("before"))
    try:
        signal.raise_signal(int(sys.argv[1]))
    except BaseException:
        pass
    emit(Note("after"))

ends_with(as_an_import_does)
ends_with(swallowed)
"""


@pytest.mark.parametrize(("number", "end"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "SystemExit")])
def test_a_stop_is_a_stop_whatever_a_library_makes_of_it(number: signal.Signals, end: str) -> None:
    """PyTorch makes an AttributeError of one that comes in the middle of an import. In a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", STOPPED, str(int(number))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr, done.returncode) == ([end, "before", end], "", 0)


def nobody_works_in(folder: Path) -> bool:
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    return not any(str(folder).encode() in line for line in lines)


def test_what_cannot_be_built_is_one_event_and_no_story(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"junk")
    command = Command(tmp_path, "restorer", "--weights", str(tmp_path / "x.pth"), "--name", "mine", "--events")
    assert command.end() == 1
    (event,) = command.events
    assert isinstance(event, Failed) and event.code == "bad_bundle" and "x.pth cannot be read" in event.detail
    assert "Traceback" not in command.said


def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    command = Command(tmp_path, "restorer", "--weights", "x.pth", "--name", "../mine", "--events")
    assert command.end() == 1
    assert isinstance(command.events[0], Failed) and command.events[0].code == "bad_option"
    assert os.listdir(tmp_path) == ["log"]
