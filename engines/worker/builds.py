"""
Makes bundles, fetches what they are made from and proves engines, in child processes: the toolchain needs PyTorch and
gigabytes, a download goes online, and an engine that is on trial may crash. To the queue a build is a job like others:
`run` has the shape of Studio.run.
"""

from __future__ import annotations

import json
import math
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO

from engines import backends, catalogue, files, machine
from engines.backends import Candidate, TooLarge, fits
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import BUILT_IN, Shelf
from engines.bundle.build_job import BuildJob
from engines.bundle.loras import Loras
from engines.errors import EngineError, JobCancelled, NotDownloaded, NotFoundError, OptionError, StudioError
from engines.machine import usage
from engines.messages import Build, Event, Failed, Fetch, Final, Progress, Request, unpack
from engines.messages.status import ModelStatus
from engines.settings.installation import PROJECT
from engines.studio import trials
from engines.studio.proof import Drawing
from engines.worker.inventory import readable, sources

DISTURBED_AGAIN_S = 600.0  # until what others disturbed twice is timed once more
GLANCE_S = 1.0
PULSE_S = 3.0  # a silent child says this often that it lives; a cancelled job is noticed then


class BackgroundJobs:
    """
    Bundles go to `models`; `checkpoints` holds what they are made from, `loras` what may be applied to them; `verdicts`
    are this machine's, `endpoint` is the address of a hub in the place of huggingface.co. `refresh` is called before a
    job ends well, so that what it brought is on every page before anybody hears of the end. `too_large` says what this
    machine has not the memory for, and `too_large_alone` for what without the parts that others lend.
    """

    def __init__(
        self,
        shelf: Shelf,
        models: Path,
        checkpoints: Path,
        verdicts: Verdicts,
        loras: Path | None = None,
        endpoint: str = "",
        too_large: TooLarge = fits,
        too_large_alone: TooLarge | None = None,
    ) -> None:
        self.shelf, self.models, self.checkpoints, self.verdicts = shelf, models, checkpoints, verdicts
        self.places = catalogue.Places(checkpoints, loras or checkpoints.with_name("loras"))
        self.loras = Loras((self.places.loras, BUILT_IN / "loras"))
        self.endpoint, self.too_large = endpoint, too_large
        self.too_large_alone = too_large_alone or too_large
        self._drawn: defaultdict[str, list[Drawing]] = defaultdict(list)  # of proofs that were stopped, by their key
        self._timed_at: dict[str, float] = {}  # when what others disturbed was timed last, by its key
        self.refresh: Callable[[], None] = lambda: None
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let go of what is being made; a build goes on at the next start, from the step it was in."""
        self._stopped.set()

    def run(self, request: Request, folder: Path) -> Generator[Event]:
        """
        Yield the child's events, to Final or Failed; none of them after `stop`, and then the job is still to be done.
        When JobCancelled is thrown in, a build leaves nothing behind, and a download what it has, hidden, to go on
        from.
        """
        try:
            match request:
                case Build():
                    last = yield from self._build(request)
                case Fetch():
                    last = yield from self._fetch(request)
                case _:
                    raise OptionError("kind", type(request).__name__.lower(), "build, fetch")
            if isinstance(last, Final):
                self.refresh()
            if last is not None:
                yield last
        except StudioError as exc:
            yield Failed(exc.code, str(exc), exc.facts)

    def _build(self, r: Build) -> Generator[Event, None, Event | None]:
        """Yield the events of a build but the last, which is returned; None: it was stopped."""
        if r.name in self.shelf.names() or (self.models / r.name).exists():
            raise OptionError("name", r.name, "a name that is not taken")
        command = [sys.executable, "-W", "ignore", "-m", "engines.toolchain", "--job"]
        try:
            last = yield from self._through(command, "toolchain", self._build_job(r).pack())
        except JobCancelled:
            shutil.rmtree(self.models / f".{r.name}.building", ignore_errors=True)
            raise
        if isinstance(last, Final):
            self._adopt(r.name)
        return last

    def _build_job(self, r: Build) -> BuildJob:
        """The request with every name resolved to a path. NotFoundError, OptionError: nothing here is called so."""
        origins = sources(self.shelf, self.checkpoints)
        if (r.makes, r.source) not in origins:
            ours = any(model.target == r.source for model in catalogue.catalogue().values())
            raise (NotDownloaded if ours else NotFoundError)("checkpoint", r.source)
        return BuildJob(
            r.makes,
            origins[r.makes, r.source],
            self.models / r.name,
            r.recipe,
            checkpoints=self.checkpoints,
            calibration=self._photographs(r.calibration) if r.calibration else None,
            prompts=r.prompts,
            loras=self.loras.pick(r.loras),
        )

    def _photographs(self, name: str) -> Path:
        folders = {path.name: path for path in self.checkpoints.glob("[!.]*") if path.is_dir()}
        if name not in folders:
            raise NotFoundError("folder of photographs", name)
        return folders[name]

    def _fetch(self, r: Fetch) -> Generator[Event, None, Event | None]:
        """Yield the events of a download but the last, which is returned; None: it was stopped."""
        model = catalogue.find(r.model)
        command = [sys.executable, "-W", "ignore", "-m", "engines.catalogue", "get", model.id, "--events"]
        command += ["--from", r.mirror, "--endpoint", r.endpoint or self.endpoint]
        command += ["--guarded"] if r.endpoint else []
        command += ["--checkpoints", str(self.places.checkpoints), "--loras", str(self.places.loras)]
        return (yield from self._through(command, "download"))

    def offered(self) -> tuple[ModelStatus, ...]:
        return catalogue.statuses(self.places)

    def _through(self, command: list[str], what: str, sent: bytes = b"") -> Generator[Event, None, Event | None]:
        """
        The events of a child, which reads `sent` on its standard input, and, returned, its last one: None if `stop`
        came before it. Nobody is left behind.
        """
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as log:
            stdin.write(sent)  # a file: nobody waits until the child has read it
            stdin.seek(0)
            child = _child(command, stdin, log)
            try:
                last = yield from self._relay(child)
            finally:
                _end(child)
            if last is None and not self._stopped.is_set():
                raise EngineError(f"the {what} stopped: {_last_line(log)}", engine=what)
        return last

    def _relay(self, child: subprocess.Popen[bytes]) -> Generator[Event, None, Event | None]:
        """Its events as they come, the last of which is returned; in silence the latest progress again."""
        latest: Event = Progress("prepare", 0, 1)
        for line in _lines(child):
            if self._stopped.is_set():
                break
            event: Event = unpack(line) if line else latest
            if isinstance(event, Final | Failed):
                return event
            latest = event if isinstance(event, Progress) else latest
            yield event
        return None

    def _adopt(self, name: str) -> None:
        """What the toolchain proved a moment ago on this machine need not be proved again."""
        bundle = self.shelf.open(name)
        report = json.loads((bundle.root / "report.json").read_text(encoding="utf-8"))
        for verdict in files.validate(tuple[Verdict, ...], report["verdicts"]):
            for candidate in backends.candidates(bundle, backends.engine(verdict.engine)):
                if candidate.precision == verdict.precision:
                    self.verdicts.put(candidate.key, verdict)

    def prove_next(self, wait: Callable[[], bool]) -> bool:
        """
        Prove one candidate that was not proved yet, until `wait` says that others need the machine: the next time goes
        on with what was drawn by then. False: none is left.
        """
        for bundle, candidate in trials.due(readable(self.shelf), self.verdicts, self.too_large_alone)[:1]:
            drawn = self._drawn[candidate.key]
            verdict = trials.prove_apart(bundle, candidate, lambda: self._stopped.is_set() or wait(), drawn)
            if verdict is not None:
                self.verdicts.put(candidate.key, verdict)
                del self._drawn[candidate.key]
            return True
        return False

    def time_next(self, wait: Callable[[], bool]) -> bool:
        """
        Time one candidate again of which the seconds decide and are not sure, until `wait` says that others need the
        machine. False: there is none, or the machine is busy with something else.
        """
        for bundle in readable(self.shelf):
            ways = backends.ways(bundle, self.verdicts, self.too_large_alone)
            candidate = trials.doubtful(ways, self._is_fresh)
            if candidate is None or candidate.verdict is None:
                continue
            if wait() or self._others_compute():
                return False
            self._timed_at[candidate.key] = time.monotonic()
            drawings = trials.time_apart(bundle, candidate, lambda: self._stopped.is_set() or wait())
            if any(drawing.finish_s for drawing in drawings) or not wait():
                latest = self.verdicts.get(candidate.key) or candidate.verdict  # a job may have refined it meanwhile
                self.verdicts.put(candidate.key, trials.retimed(latest, candidate, drawings))
            return True
        return False

    def _is_fresh(self, candidate: Candidate) -> bool:
        """Tell whether what others disturbed was not tried again just now."""
        return time.monotonic() - self._timed_at.get(candidate.key, -math.inf) > DISTURBED_AGAIN_S

    def _others_compute(self) -> bool:
        """Look for a moment whether other processes use the processors."""
        before = usage.read()
        self._stopped.wait(GLANCE_S)
        return usage.disturbed(before, usage.read(), machine.cores())


def _child(command: list[str], stdin: IO[bytes], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Niced, so that pictures come first. It reads no settings: everything is in its command or on its input."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("STUDIO_")}
    niced = ["nice", "-n", "5", *command]
    return subprocess.Popen(niced, stdin=stdin, stdout=subprocess.PIPE, stderr=log, cwd=PROJECT, env=env)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Nobody is left behind, and a pipe is closed."""
    if child.poll() is None:
        child.terminate()
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _lines(child: subprocess.Popen[bytes]) -> Iterator[str]:
    """What it writes, line by line; an empty one after every PULSE_S of silence."""
    assert child.stdout is not None  # it was opened as a pipe
    held = b""
    while True:
        ready, _, _ = select.select([child.stdout], [], [], PULSE_S)
        chunk = os.read(child.stdout.fileno(), 1 << 16) if ready else b""
        if not ready:
            yield ""
        elif not chunk:
            return
        *lines, held = (held + chunk).split(b"\n")
        yield from (line.decode("utf-8", errors="replace") for line in lines if line)


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"
