"""What would end the process that imports it is found out by a child, once, and said in words."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from engines.machine import preflight
from engines.machine.preflight import BASE, BASELINE, FINE, ImportTrial, Outcome, examine
from tests.conftest import REPOSITORY
from tests.support.http import CJK
from tests.support.wheels import DIES, broken, use

V2 = frozenset(BASELINE["x86_64"])
WHEEL = ImportTrial("wheel", ("strange_wheel",))
COUNTS = "import os\nwith open(os.environ['COUNTED'], 'a') as file:\n    file.write('.')\n"


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in which each import of the strange wheel leaves a dot."""
    monkeypatch.setenv("COUNTED", str(tmp_path / "counted"))
    use(broken(tmp_path / "site", "strange_wheel", COUNTS), monkeypatch)
    return tmp_path / "counted"


def spoil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    use(broken(tmp_path / "site", "strange_wheel", text), monkeypatch)


@pytest.mark.parametrize(
    ("kind", "flags", "missing"),
    [
        ("x86_64", V2 | {"avx2"}, ()),
        ("x86_64", V2 - {"sse4_2", "popcnt"}, ("popcnt", "sse4_2")),
        ("aarch64", {"fp", "asimd"}, ()),
        ("aarch64", {"fp"}, ("asimd",)),
        ("x86_64", set(), ()),
        ("riscv64", {"rv64imafdc"}, ()),
    ],
)
def test_a_processor_below_what_wheels_are_built_for_is_named(
    kind: str, flags: set[str], missing: tuple[str, ...]
) -> None:
    assert preflight.lacking(kind, flags) == missing


def test_it_is_refused_before_anything_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(preflight, "processor_flags", lambda: V2 - {"sse4_2"})
    monkeypatch.setattr(preflight, "_begin", lambda *_: pytest.fail("a child was started"))
    why = preflight.refusal(None)
    assert why and CJK.search(why[0]) and "numpy" in why[1] and all("sse4_2" in part for part in why)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", ""),
        (DIES.format(name="SIGILL"), "needs instructions that this processor lacks (SIGILL)"),
        (DIES.format(name="SIGSEGV"), "crashes when it is imported (SIGSEGV)"),
        ("raise ImportError('libgomp.so.1: no file')", "cannot be imported (ImportError: libgomp.so.1: no file)"),
        (DIES.format(name="SIGKILL"), ""),  # the kernel, for want of memory
        ("import atexit, os, signal\natexit.register(lambda: os.kill(os.getpid(), signal.SIGSEGV))", ""),
    ],
)  # fmt: skip
def test_a_child_says_what_becomes_of_who_imports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    spoil(tmp_path, monkeypatch, text)
    assert examine((WHEEL,), None) == {"wheel": Outcome("strange_wheel" if why else "", why)}


def test_what_it_loads_later_is_tried_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenVINO loads its plugin for processors."""
    spoil(tmp_path, monkeypatch, "def load():\n    import os\n    os.kill(os.getpid(), 4)\n")
    assert examine((ImportTrial("wheel", ("strange_wheel",), "sys.modules['strange_wheel'].load()"),), None)[
        "wheel"
    ].why


def test_of_several_the_one_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(tmp_path, monkeypatch, DIES.format(name="SIGILL"))
    outcome = examine((ImportTrial("several", ("json", "strange_wheel", "csv")),), None)["several"]
    zh, en = preflight.sentence(outcome)
    assert en == "strange_wheel needs instructions that this processor lacks (SIGILL): use a newer machine."
    assert zh.startswith("strange_wheel 需要这个处理器没有的指令 (SIGILL)")


def test_it_is_imported_once_and_again_when_something_has_changed(
    counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site" / "strange-1.0.dist-info").mkdir()
    for _ in range(2):
        assert examine((WHEEL,), tmp_path / "kept") == {"wheel": FINE}
    assert counted.read_text() == "."
    (tmp_path / "site" / "strange-1.0.dist-info").rename(tmp_path / "site" / "strange-1.1.dist-info")
    examine((WHEEL,), tmp_path / "kept")
    assert counted.read_text() == ".."
    monkeypatch.setattr(preflight, "processor_flags", lambda: frozenset({"another"}))
    examine((WHEEL,), tmp_path / "kept")
    assert counted.read_text() == "..."
    os.utime(tmp_path / "site" / "strange_wheel" / "__init__.py", (1, 1))
    examine((WHEEL,), tmp_path / "kept")
    assert counted.read_text() == "...."
    (tmp_path / "kept" / "wheel.json").write_text("{half")
    examine((WHEEL,), tmp_path / "kept")
    assert counted.read_text() == "....."


@pytest.mark.parametrize(("number", "times"), [("SIGILL", 1), ("SIGSEGV", 2), ("SIGKILL", 2)])
def test_what_somebody_may_mend_is_tried_again(
    counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str, times: int
) -> None:
    spoil(tmp_path, monkeypatch, COUNTS + DIES.format(name=number))
    first, second = (examine((WHEEL,), tmp_path / "kept") for _ in range(2))
    assert first == second and len(counted.read_text()) == times


def test_a_disk_that_refuses_costs_another_trial_only(counted: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert [examine((WHEEL,), tmp_path / "file" / "kept") for _ in range(2)] == [{"wheel": FINE}] * 2
    assert counted.read_text() == ".."


def test_they_run_side_by_side_and_who_waits_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other, so that one after the other would never end."""
    meet = "import os, pathlib, time\npathlib.Path(os.environ['MEET'], {own!r}).touch()\n"
    meet += "while not pathlib.Path(os.environ['MEET'], {other!r}).exists():\n    time.sleep(0.01)\ntime.sleep(0.1)\n"
    for own, other in (("left", "right"), ("right", "left")):
        broken(tmp_path / "site", own, meet.format(own=own, other=other))
    monkeypatch.setenv("MEET", str(tmp_path))
    monkeypatch.setattr(preflight, "LOOK_S", 0.05)
    use(tmp_path / "site", monkeypatch)
    heard: list[float] = []
    outcomes = examine(
        (ImportTrial("l", ("left",)), ImportTrial("r", ("right",))), None, lambda: heard.append(time.monotonic())
    )
    assert outcomes == {"l": FINE, "r": FINE} and heard


def test_one_that_hangs_is_ended_and_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(tmp_path, monkeypatch, "import time\ntime.sleep(600)\n")
    monkeypatch.setattr(preflight, "LOOK_S", 0.05)
    monkeypatch.setattr(preflight, "LONGEST_S", 0.2)
    assert examine((WHEEL,), tmp_path / "kept") == {"wheel": FINE}
    assert not (tmp_path / "kept").exists()


def test_a_child_that_hangs_ends_with_who_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(
        tmp_path,
        monkeypatch,
        "import os, time\nprint(os.getpid(), file=open(os.environ['PID'], 'w'))\ntime.sleep(600)\n",
    )
    monkeypatch.setenv("PID", str(tmp_path / "pid"))
    text = "from engines.machine.preflight import *\nexamine((ImportTrial('wheel', ('strange_wheel',)),), None)"
    with subprocess.Popen([sys.executable, "-c", text], cwd=REPOSITORY) as waiting:
        deadline = time.monotonic() + 60
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        waiting.kill()
    child = Path("/proc", (tmp_path / "pid").read_text().strip())
    with suppress(OSError):  # it is gone while it is looked at
        while "zombie" not in (child / "status").read_text():
            assert time.monotonic() < deadline, "it is still there"
            time.sleep(0.01)


def test_what_the_program_needs_can_be_imported_here() -> None:
    assert examine((BASE,), None) == {"base": FINE} and preflight.refusal(None) is None


def start(module: str, home: Path, site: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(site),
        "STUDIO_HOME": str(home),
        "STUDIO_PORT": "0",
        **settings,
    }
    command = [sys.executable, "-m", module]
    return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", ["numpy", "pydantic_core", "cv2"])
@pytest.mark.parametrize("module", ["webui", "engines.machine.preflight"])
def test_the_program_ends_with_a_sentence_and_not_by_the_signal(tmp_path: Path, name: str, module: str) -> None:
    """The server, and what systemd asks before it."""
    site = broken(tmp_path / "site", name)
    (tmp_path / "home" / "state").mkdir(parents=True)
    for _ in range(2):
        done = start(module, tmp_path / "home", site)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert f"{name} needs instructions that this processor lacks (SIGILL)" in done.stderr
        assert re.search(f"{name} 需要这个处理器没有的指令", done.stderr)
    assert not list((tmp_path / "home").rglob("core*"))


def test_systemd_starts_what_it_has_nothing_against(tmp_path: Path) -> None:
    done = start("engines.machine.preflight", tmp_path / "home", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "home").exists(), "who only asks makes nothing"
    assert start("engines.machine.preflight", tmp_path / "home", tmp_path, STUDIO_PORT="x").returncode == 0


def test_a_stop_in_the_middle_of_it_is_a_stop(tmp_path: Path) -> None:
    site = broken(tmp_path / "site", "cv2", "import time\ntime.sleep(3)\n")
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(site),
        "STUDIO_HOME": str(tmp_path / "home"),
        "STUDIO_PORT": "0",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "webui"], cwd=REPOSITORY, env=env, stderr=subprocess.PIPE, text=True
    ) as server:
        threading.Timer(2.0, server.send_signal, (signal.SIGTERM,)).start()
        _, err = server.communicate(timeout=60)
    assert (server.returncode, err) == (0, "")


def test_what_is_tried_reports_to_nobody(counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO imports its reporter when it is imported, which writes an identity into the user's home."""
    reports = "try:\n    import openvino_telemetry\nexcept ImportError:\n    pass\n"
    use(broken(broken(tmp_path / "site", "openvino_telemetry", COUNTS), "strange_wheel", reports), monkeypatch)
    assert examine([WHEEL], None)["wheel"] == FINE
    assert not counted.exists()
    monkeypatch.setenv("HOME", str(home := tmp_path / "person"))
    home.mkdir()
    assert examine([ImportTrial("engines", ("onnxruntime", "openvino"))], None)["engines"] == FINE
    assert not any(home.iterdir())
