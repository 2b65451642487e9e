"""Which engines can work here. Each is asked in a process of its own, which a damaged library may end, or hang in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from signal import Signals

from engines.machine import preflight
from engines.settings.installation import INSTALL_ANEW, PROJECT
from webui.doctor import Level, Line

ANSWER_S = preflight.LONGEST_S - 20.0  # so that one that hangs is named: the child that imports it is given up later
ENDING = "_backend.py"  # the file name is the registration
COMMAND = (sys.executable, "-B", "-m", "engines.backends")


def names() -> list[str]:
    return sorted(path.name.removesuffix(ENDING) for path in (PROJECT / "engines" / "backends").glob(f"*{ENDING}"))


def engines(command: Sequence[str] = COMMAND, asked: Sequence[str] = ()) -> Iterator[Line]:
    """Yield a line for each; at last one more, if none can work. `command` asks for the engine named after it."""
    some = False
    for name in asked or names():
        line = engine(name, command)
        some |= line.level == "ok"
        yield line
    if not some:
        yield Line(
            "error",
            f"没有可用的引擎:请{INSTALL_ANEW[0]}",
            f"no engine can work: {INSTALL_ANEW[1]}",
        )


def engine(name: str, command: Sequence[str] = COMMAND) -> Line:
    try:
        done = subprocess.run([*command, name], cwd=PROJECT, capture_output=True, text=True, timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        return _broken(name, f"{ANSWER_S:.0f} 秒没有回答", f"no answer in {ANSWER_S:.0f} s")
    if done.returncode < 0:
        crash = Signals(-done.returncode).name
        if crash == "SIGILL":  # it is as it should be, and for other processors
            zh, en = f"{preflight.in_chinese(preflight.LACKS)}({crash})", f"{preflight.LACKS} ({crash})"
            return Line("error", f"引擎 {name}:{zh}", f"engine {name}: {en}")
        return _broken(name, f"崩溃({crash})", f"it crashed ({crash})")
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["?"])[-1]
        return _broken(name, why, why)
    probe = json.loads(done.stdout.splitlines()[-1])
    words = ", ".join(filter(None, (probe["device"], probe["reason"], probe["runtime"])))
    level: Level = "ok" if probe["ok"] else "warning"
    return Line(level, f"引擎 {name}:{preflight.in_chinese(words)}", f"engine {name}: {words}")


def _broken(name: str, zh: str, en: str) -> Line:
    return Line(
        "error",
        f"引擎 {name}:{zh};请重装:{INSTALL_ANEW[0]}",
        f"engine {name}: {en}; install it anew: {INSTALL_ANEW[1]}",
    )
