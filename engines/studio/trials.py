"""
Which engine is proved when, and each in a process of its own (engines/studio/proof.py), whose crash is a verdict too. A
proof that is stopped goes on later with what it has drawn; and what was timed beside busy neighbours, or so nearly like
another that chance has decided, is timed again. Knows no queue: who waits, and where verdicts lie, is the caller's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import IO, Literal

from engines import backends, files
from engines.backends import Candidate, TooLarge, fits
from engines.backends.arrangement import Arrangement, spelled
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import BUILT_IN, PRECISIONS, PROOF, Bundle, size_bytes
from engines.settings.installation import PROJECT
from engines.studio import proof
from engines.studio.proof import Drawing

PATIENCE_S = 1800.0
LOOK_S = 0.1
CLOSE = 1.2  # times as long as the fastest: chance decides
ROUNDS = 3  # timings of those that are close, in turn


def due(bundles: Iterable[Bundle], verdicts: Verdicts, too_large: TooLarge = fits) -> list[tuple[Bundle, Candidate]]:
    """
    List what carries a proof and could be run, but has no verdict here yet: the edge engines first, and of each what is
    built in before the rest, and small before large. PyTorch draws portraits last.
    """
    found = [
        (bundle, candidate)
        for bundle in bundles
        if PROOF in bundle.extras
        for candidate in backends.ways(bundle, verdicts, too_large)
        if not candidate.refused and candidate.verdict is None and not candidate.too_large
    ]
    return sorted(found, key=lambda pair: _turn(*pair))


def _turn(bundle: Bundle, candidate: Candidate) -> tuple[bool, bool, bool, int, int, int]:
    pytorch = candidate.engine.group == "pytorch"
    theirs = not bundle.root.is_relative_to(BUILT_IN)
    fineness = PRECISIONS.index(precision) if (precision := backends.coarsest(candidate.parts)) else 0
    last = pytorch and bundle.has("denoiser")
    return pytorch, last, theirs, size_bytes(bundle.root), candidate.engine.rank, fineness


def doubtful(ways: Sequence[Candidate], fresh: Callable[[Candidate], bool] = lambda c: True) -> Candidate | None:
    """
    Return which of a bundle's candidates is to be timed again, if any: the one that was timed least often of those that
    are about as fast as the fastest, or that others disturbed and that may be as fast. So two take turns. `fresh` says
    of one that was disturbed whether it may be tried already.
    """
    timed = [
        (c, c.verdict) for c in ways if c.verdict and c.verdict.accepted and c.verdict.finish_s and not c.too_large
    ]
    least_s = min((verdict.finish_s for _, verdict in timed), default=0.0)
    unsure = [(c, v) for c, v in timed if v.disturbed and v.finish_s <= backends.UNSURE * least_s and fresh(c)]
    close = [(c, v) for c, v in timed if not v.disturbed and v.finish_s <= CLOSE * least_s]
    again = unsure or [(c, v) for c, v in close if len(close) > 1 and v.rounds < ROUNDS]
    return min(again, key=lambda pair: pair[1].rounds, default=(None, None))[0]


def retimed(verdict: Verdict, candidate: Candidate, drawings: Sequence[Drawing]) -> Verdict:
    """Return the verdict with what was timed anew: the lesser of both counts, unless only one was undisturbed."""
    new = proof.verdict(candidate, "", drawings)
    verdict = replace(verdict, rounds=verdict.rounds + 1)
    if not new.finish_s or (new.disturbed and not verdict.disturbed):
        return verdict
    if new.disturbed == verdict.disturbed:
        times = {role: min(seconds, verdict.run_s.get(role, seconds)) for role, seconds in new.run_s.items()}
        look_s, finish_s = min(new.look_s, verdict.look_s), min(new.finish_s, verdict.finish_s)
        return replace(verdict, look_s=look_s, finish_s=finish_s, run_s={**verdict.run_s, **times})
    return replace(
        verdict, look_s=new.look_s, finish_s=new.finish_s, run_s={**verdict.run_s, **new.run_s}, disturbed=False
    )


def prove_apart(
    bundle: Bundle,
    candidate: Candidate,
    stopped: Callable[[], bool] = lambda: False,
    drawn: list[Drawing] | None = None,
) -> Verdict | None:
    """
    Prove a candidate in a process of its own. `drawn`: what earlier attempts drew; what this one draws is added. None:
    `stopped` said so meanwhile.
    """
    drawn = [] if drawn is None else drawn
    why = ""
    if not proof.is_whole(bundle, drawn):
        came, why, drawings = _apart(bundle, candidate, stopped, drawn)
        drawn += drawings
        if came == "stop":
            return None
    if not why and proof.is_whole(bundle, drawn):
        return proof.judge(candidate, drawn)
    return proof.verdict(candidate, why or "it stopped without a verdict", drawn)


def time_apart(
    bundle: Bundle, candidate: Candidate, stopped: Callable[[], bool] = lambda: False
) -> tuple[Drawing, ...]:
    """Time a candidate that has been proved, in a process of its own; return what it did before `stopped` said so."""
    return _apart(bundle, candidate, stopped, (), "--timing")[2]


Came = Literal["end", "stop", "deadline"]


def _apart(
    bundle: Bundle, candidate: Candidate, stopped: Callable[[], bool], before: Sequence[Drawing], *options: str
) -> tuple[Came, str, tuple[Drawing, ...]]:
    """Return what came first, why it failed (empty: it did not), and what was drawn until then."""
    assert isinstance(candidate.engine, Arrangement)  # whatever can run a bundle is one
    command = [sys.executable, "-m", "engines.studio.proof", str(bundle.root), spelled(bundle, candidate.engine)]
    command += [*options, *(["--cache", str(bundle.cache)] if bundle.cache else [])]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        given.write(json.dumps([asdict(drawing) for drawing in before]).encode())
        given.seek(0)
        child = subprocess.Popen(command, stdin=given, stdout=out, stderr=log, cwd=PROJECT)
        try:
            came = _wait(child, stopped)
        finally:  # whatever ends this, the child ends with it
            child.kill()
            child.wait()
        why = ""
        if came == "deadline":
            why = f"not done after {PATIENCE_S / 60:.0f} min"
        elif came == "end" and child.returncode:
            why = f"it stopped with {child.returncode}: {_last_line(log)[:200]}"
        return came, why, tuple(_drawings(out))


def _drawings(out: IO[bytes]) -> Iterator[Drawing]:
    """Yield what was printed; a library may have greeted between the lines, and the last may be cut off."""
    out.seek(0)
    for line in out.read().decode(errors="replace").splitlines():
        try:
            drawing: Drawing = files.validate(Drawing, files.parse_json(line))
        except ValueError:
            continue
        yield drawing


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    return "".join(file.read().decode(errors="replace").strip().splitlines()[-1:])


def _wait(child: subprocess.Popen[bytes], stopped: Callable[[], bool]) -> Came:
    """What came first. Asked for once: a job that waits now may be done in a moment, and a stop is no verdict."""
    deadline = time.monotonic() + PATIENCE_S
    while child.poll() is None:
        if stopped():
            return "stop"
        if time.monotonic() > deadline:
            return "deadline"
        time.sleep(LOOK_S)
    return "end"
