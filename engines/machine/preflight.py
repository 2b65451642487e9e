"""
Whether what is installed can run on this processor at all, found out before it is imported here: by the instructions
that wheels are built for, and by importing each once in a child, which may die of it. Knows no engine, only what each
wants to be tried. Needs no installation: who starts the program, and the doctor, ask before anything else.

What came of a trial is kept with what it depends on, the processor and everything that is installed: a start for which
nothing has changed reads a few small files and starts no child. The first start after an installation waits 0.4 s for
BASE, which brings from the disk what the program imports next; the children of engines run side by side, and the port
is open by then.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from signal import Signals

from engines.machine import processor_flags
from engines.settings import Settings, SettingsError
from engines.settings.installation import INSTALL_ANEW

FOLDER = "preflight"  # of state/
# What numpy's wheels are built for, in the kernel's words: x86-64-v2, and Armv8 with its vectors. OpenCV, ONNX Runtime
# and OpenVINO ask for no more when they are imported (see tests/machines), and none of them runs without numpy.
BASELINE: Mapping[str, tuple[str, ...]] = {
    "x86_64": ("cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3"),
    "aarch64": ("asimd",),
}
LACKS = "needs instructions that this processor lacks"
CRASHES = "crashes when it is imported"
BROKEN = "cannot be imported"
IN_CHINESE = {LACKS: "需要这个处理器没有的指令", CRASHES: "导入时崩溃", BROKEN: "无法导入"}
FAULTS = (Signals.SIGSEGV, Signals.SIGBUS, Signals.SIGABRT, Signals.SIGFPE, Signals.SIGTRAP)
EXCEPTION = re.compile(r"^[\w.]+(Error|Exception): ", re.MULTILINE)
LONGEST = 200  # characters of it
LONGEST_S = 120.0  # of a child: the first import of a large library from a memory card takes a minute
LOOK_S = 1.0
# It ends with who waits for it (PR_SET_PDEATHSIG), leaves no core, which would have the size of the library, does not
# die of how a library is taken down, and, as engines/__init__.py, lets none of them report that it is used.
CHILD = """
import ctypes, os, resource, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
os.nice(int(sys.argv[1]))
sys.modules["openvino_telemetry"] = None
for name in sys.argv[2:]:
    print(name, flush=True)
    __import__(name)
{last}
os._exit(0)
"""


@dataclass(frozen=True)
class ImportTrial:
    """What a child does: it imports `modules`, in this order, and then executes `last`, a line of Python after them."""

    name: str
    modules: tuple[str, ...]
    last: str = ""


@dataclass(frozen=True)
class Outcome:
    """`why` the trial failed, at which of its modules; empty: all is well, or nobody knows."""

    module: str = ""
    why: str = ""

    @property
    def lasts(self) -> bool:
        """Whether it would be the same next time: a crash or a missing library is somebody's to mend."""
        return not self.why or self.why.startswith(LACKS)


FINE = Outcome()
# What the server and the worker import before anything else that is compiled
BASE = ImportTrial("base", ("numpy", "pydantic_core", "PIL._imaging", "cv2", "tokenizers", "brotli", "pillow_heif"))


def lacking(kind: str, flags: Set[str]) -> tuple[str, ...]:
    """Return what this kind of machine ("x86_64", "aarch64") should have and has not; nothing where nobody says."""
    return tuple(flag for flag in BASELINE.get(kind, ()) if flag not in flags) if flags else ()


def refusal(folder: Path | None, python: Sequence[str] = (sys.executable,)) -> tuple[str, str] | None:
    """
    Return why the program cannot run here, a sentence in Chinese and in English; None: it can. `folder` keeps what came
    of the trial; None: it is not kept.
    """
    if missing := ", ".join(lacking(platform.machine(), processor_flags())):
        return (
            f"这个处理器太旧,没有 numpy 等所需的指令({missing}):请换一台电脑。",
            f"This processor is too old, it lacks instructions that numpy needs ({missing}): use another machine.",
        )
    outcome = examine((BASE,), folder, python=python)[BASE.name]
    return sentence(outcome) if outcome.why else None


def sentence(outcome: Outcome) -> tuple[str, str]:
    """Say why a trial failed and what to do, in Chinese and in English."""
    zh, en = f"{outcome.module} {in_chinese(outcome.why)}", f"{outcome.module} {outcome.why}"
    if outcome.why.startswith(LACKS):
        return f"{zh}:请换一台较新的电脑。", f"{en}: use a newer machine."
    return (
        f"{zh}:请重装,{INSTALL_ANEW[0]}。",
        f"{en}: install it anew, {INSTALL_ANEW[1]}.",
    )


def in_chinese(why: str) -> str:
    for english, chinese in IN_CHINESE.items():
        why = why.replace(english, chinese)
    return why


def examine(
    trials: Iterable[ImportTrial],
    folder: Path | None,
    waiting: Callable[[], object] = lambda: None,
    nice: int = 0,
    python: Sequence[str] = (sys.executable,),
) -> dict[str, Outcome]:
    """
    Return what came of each trial, by its name: as it is kept in `folder`, or else of a child, all of which run side by
    side, `nice` to others. `waiting` is called every second meanwhile.
    """
    keys = {trial: _key(trial) for trial in trials}
    outcomes = {trial: _kept(trial, key, folder) for trial, key in keys.items()}
    children = {trial: _begin(trial, nice, python) for trial, outcome in outcomes.items() if outcome is None}
    for trial, child in children.items():
        outcomes[trial] = keep(trial, _outcome_of(trial, child, waiting), folder)
    return {trial.name: outcome or FINE for trial, outcome in outcomes.items()}


def keep(trial: ImportTrial, outcome: Outcome | None, folder: Path | None) -> Outcome | None:
    """Keep what came of a trial, if it lasts. A disk that refuses it costs another trial, nothing else."""
    if outcome is None or not outcome.lasts or folder is None:
        return outcome
    path = folder / f"{trial.name}.json"
    beside = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        folder.mkdir(exist_ok=True)  # in a state/ that is there: who only asks makes none
        beside.write_text(json.dumps({"key": _key(trial), **asdict(outcome)}), encoding="utf-8")
        beside.replace(path)
    return outcome


def _kept(trial: ImportTrial, key: str, folder: Path | None) -> Outcome | None:
    if folder is None:
        return None
    try:
        kept = json.loads((folder / f"{trial.name}.json").read_text(encoding="utf-8"))
        return Outcome(str(kept["module"]), str(kept["why"])) if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _key(trial: ImportTrial) -> str:
    """Of the processor, of every package that is installed with its version, and of where these modules lie."""
    names = {name.partition(".")[0] for name in trial.modules}
    facts = (
        platform.machine(),
        sorted(processor_flags()),
        sys.version,
        trial,
        _installed(),
        sorted(map(_origin, names)),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _installed() -> list[str]:
    """List name and version of what is installed, as folders say it; reading each one's metadata takes much longer."""
    names: set[str] = set()
    for folder in sys.path:
        with suppress(OSError):
            names.update(name for name in os.listdir(folder or ".") if name.endswith(".dist-info"))
    return sorted(names)


def _origin(name: str) -> tuple[str, int]:
    spec = find_spec(name)
    path = spec.origin if spec and spec.origin else ""
    return path, os.stat(path).st_mtime_ns if os.path.isfile(path) else 0


def _begin(trial: ImportTrial, nice: int, python: Sequence[str]) -> subprocess.Popen[str]:
    quiet = ["-B"] if sys.dont_write_bytecode else []  # the doctor changes nothing
    return subprocess.Popen(
        [*python, *quiet, "-W", "ignore", "-c", CHILD.format(last=trial.last), str(nice), *trial.modules],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _outcome_of(trial: ImportTrial, child: subprocess.Popen[str], waiting: Callable[[], object]) -> Outcome | None:
    """Return how a child has ended; None: it says nothing of what is installed, as somebody ended it."""
    with child:
        deadline = time.monotonic() + LONGEST_S
        while time.monotonic() < deadline:
            with suppress(subprocess.TimeoutExpired):
                out, err = child.communicate(timeout=LOOK_S)
                return _outcome(trial, child.returncode, out, err)
            waiting()
        child.kill()
    return None


def _outcome(trial: ImportTrial, status: int, out: str, err: str) -> Outcome | None:
    if status == 0:
        return FINE
    module = next((name for name in reversed(out.splitlines()) if name in trial.modules), trial.modules[0])
    if status == -Signals.SIGILL:
        return Outcome(module, f"{LACKS} (SIGILL)")
    if -status in FAULTS:
        return Outcome(module, f"{CRASHES} ({Signals(-status).name})")
    return Outcome(module, f"{BROKEN} ({_exception(err)})") if status > 0 else None


def _exception(err: str) -> str:
    """Return the last exception of what Python has written, in one line."""
    begin = [match.start() for match in EXCEPTION.finditer(err)]
    return " ".join(err[begin[-1] if begin else 0 :].split())[:LONGEST] or "?"


def main() -> int:
    """Say why the program cannot run here, and return 2; or 0: it can, or the server says why not."""
    try:
        settings = Settings.load(os.environ)
    except SettingsError:
        return 0
    if why := refusal(settings.state / FOLDER):
        print("无法启动 Cannot start:", *why, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
