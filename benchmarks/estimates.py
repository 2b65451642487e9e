"""
How true the times are that are told before a job: `python -m benchmarks.estimates [--settings N] [--seed SEED]`.

The engine is proved first, as a server proves it while nobody asks. Then, after WARM_UP, settings drawn from a fixed
list are submitted one after the other, to a worker in this process, and what the queue says of each before it is
submitted is held against what it took. The history grows meanwhile, as everywhere. Wants a quiet machine: whatever else
runs is in the truth and not in the estimate.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.timing import PAUSE_S, head
from engines import backends, images, machine
from engines.backends.verdicts import Verdicts
from engines.bundle import BUILT_IN, PROOF, Shelf
from engines.faces import Picture
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Final, Generate
from engines.studio import Studio
from engines.studio.trials import prove_apart
from engines.worker.inventory import survey
from engines.worker.loop import Worker

PROMPT = "portrait of a young woman, long brown hair, smiling"
BACKEND, PROVED = "edge", ("portrait", "restorer")
PORTRAITS = [
    Generate(PROMPT, width=width, height=height, steps=steps, count=count, preview=preview, guidance=guidance)  # type: ignore[arg-type]
    for (width, height), steps, count, preview, guidance in product(
        ((512, 512), (384, 512), (256, 256), (640, 640)), (4, 8, 16), (1, 2, 8), ("live", "off", "only"), (0.0, 3.0)
    )
]
PHOTOS = [Enhance("", strength=strength) for strength in (60, 70, 100)]
PHOTO_SHARE = 0.15  # of the settings
PHOTO_PX = (960, 1280)
FACES = (1, 2)  # in a photo
WARM_UP = (Generate(PROMPT), Generate(PROMPT, width=256, height=256), Enhance(""))
GOAL = 0.25  # how far off an estimate may be, as a share of the truth
SETTINGS, SEED = 40, 1
Wanted = Generate | Enhance


@dataclass(frozen=True)
class Foretold:
    """`said_s` None: nothing was foretold."""

    wanted: Wanted
    said_s: float | None
    took_s: float

    @property
    def off(self) -> float:
        """As a share of the truth, positive where too much was said; what was not said is off by all of it."""
        return ((self.said_s or 0.0) - self.took_s) / self.took_s


def main(settings: int = SETTINGS, seed: int = SEED) -> None:
    dice = random.Random(seed)
    photos = round(PHOTO_SHARE * settings)
    drawn: list[Wanted] = [*dice.sample(PORTRAITS, settings - photos), *(dice.choice(PHOTOS) for _ in range(photos))]
    dice.shuffle(drawn)
    with tempfile.TemporaryDirectory() as folder, _queue(Path(folder)) as queue:
        photo = _photographs(Path(folder), dice)
        for wanted in WARM_UP:
            _do(queue, wanted, photo, dice)
        results = [_do(queue, wanted, photo, dice) for wanted in drawn]
    _report(results, seed)


@contextmanager
def _queue(home: Path) -> Iterator[SqliteQueue]:
    """A queue that is worked off, by engines that were proved."""
    shelf, verdicts = Shelf((BUILT_IN,), home / "compiled"), Verdicts(home / "verdicts")
    for bundle in map(shelf.open, PROVED):
        engine, _ = backends.select(bundle, BACKEND)
        candidate = backends.candidate(bundle, engine)
        verdict = prove_apart(bundle, candidate)
        assert verdict is not None and verdict.accepted, verdict
        verdicts.put(candidate.key, verdict)
    queue = SqliteQueue(home / "jobs.db", home / "outputs")
    worker = Worker(queue, Studio(shelf, home), shelf, BACKEND)
    worker.start()
    while queue.status().state == "loading":
        time.sleep(0.05)
    _, bundles = survey(shelf, BACKEND, verdicts)
    queue.announce(replace(queue.status(), bundles=bundles))
    try:
        yield queue
    finally:
        worker.stop(60)
        queue.close()


def _photographs(folder: Path, dice: random.Random) -> Iterator[Path]:
    """Photos with the faces of the restorer's proof in them, each another one: what was restored before is known."""
    faces = [images.read(path) for path in sorted((BUILT_IN / "restorer" / PROOF).glob("*-face.png"))]
    number = 0
    while True:
        number += 1
        picture = _photograph(dice.sample(faces, dice.choice(FACES)), number)
        yield folder / images.write_output(folder, picture, "")


def _photograph(faces: list[Picture], seed: int) -> Picture:
    picture = np.full((*PHOTO_PX, 3), 128, np.uint8)
    picture += np.random.default_rng(seed).integers(0, 4, picture.shape, np.uint8)
    for k, face in enumerate(faces):
        left = 60 + k * (PHOTO_PX[1] // 2)
        picture[200 : 200 + face.shape[0], left : left + face.shape[1]] = face
    return picture


def _do(queue: SqliteQueue, wanted: Wanted, photos: Iterator[Path], dice: random.Random) -> Foretold:
    if isinstance(wanted, Enhance):
        wanted = replace(wanted, image=str(next(photos)), backend=BACKEND)
    else:
        wanted = replace(wanted, seed=dice.randrange(1000), backend=BACKEND)
    time.sleep(PAUSE_S)
    said = queue.expected(wanted)
    submitted = time.perf_counter()
    *_, last = queue.follow(queue.submit(wanted))
    assert isinstance(last, Final), last
    return Foretold(wanted, said.finish_s if said else None, time.perf_counter() - submitted)


def _report(results: list[Foretold], seed: int) -> None:
    flags = ", ".join(machine.fast_flags(platform.machine(), machine.processor_flags()))
    about = f"seed {seed}, {BACKEND}, {machine.cores()} threads, {flags}"
    head(f"Each setting, {about}", "settings", "foretold", "taken", "off")
    for result in results:
        said = "—" if result.said_s is None else f"{result.said_s:.2f} s"
        print(f"| {_words(result.wanted)} | {said} | {result.took_s:.2f} s | {result.off:+.0%} |")
    head(f"Times foretold, {about}", "settings", f"within {GOAL:.0%}", "median off", "9 in 10 off by less than")
    _row("all", results)
    _row("portraits", [result for result in results if isinstance(result.wanted, Generate)])
    _row("photos", [result for result in results if isinstance(result.wanted, Enhance)])


def _words(wanted: Wanted) -> str:
    if isinstance(wanted, Enhance):
        return f"photo, strength {wanted.strength}"
    size, guided = f"{wanted.width}×{wanted.height}", ", guided" if wanted.guidance else ""
    return f"{size}, {wanted.steps} steps, {wanted.count} pictures, previews {wanted.preview}{guided}"


def _row(title: str, results: list[Foretold]) -> None:
    off = sorted(abs(result.off) for result in results)
    if not off:
        return
    within = sum(share <= GOAL for share in off)
    middle, nine = statistics.median(off), off[min(len(off) - 1, int(0.9 * len(off)))]
    print(f"| {title}: {len(off)} | {within} ({within / len(off):.0%}) | {middle:.0%} | {nine:.0%} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimates")
    parser.add_argument("--settings", type=int, default=SETTINGS)
    parser.add_argument("--seed", type=int, default=SEED)
    main(**vars(parser.parse_args()))
