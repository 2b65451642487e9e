"""
The wall of pictures of somebody who has ten thousand: what a view of it takes on the server, and over the wire, with
its thumbnails. A home of its own is filled and served; nothing is drawn. `python -m benchmarks history`.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks import timing
from engines.jobs import Search
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Final, Generate, Progress, Request, pack
from engines.settings import Settings
from webui import outputs_cap
from webui.i18n import Words, words
from webui.own_jobs import OwnJobs
from webui.panels.history import wall
from webui.panels.history.find import word
from webui.people import Person
from webui.people.secret import Keys
from webui.thumbnails import make, stored

JOBS, OTHERS, EVENTS, ROUNDS = 10_000, 10_000, 12, 15
PICTURES = Path(__file__).parents[1] / "engines" / "builtin" / "portrait" / "proof"


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(Path(home))
        queue = SqliteQueue(settings.state / "jobs.db", settings.outputs)
        settings.outputs.mkdir()
        _fill(settings)
        own, say = OwnJobs(queue, Keys(b"k" * 32), Person("me")), words("zh")
        timing.head(
            f"The wall of pictures, {JOBS} of one's own and {OTHERS} of somebody else", "view", "ms", "HTML, KB"
        )
        for name, search in _views().items():
            _row(name, own, search, say, settings)
        _row_of_a_page(own, say)
        tight = replace(settings, outputs_gb=0.5 * sum(outputs_cap.sizes(settings.outputs).values()) / outputs_cap.GB)
        outputs_cap.enforce(queue, tight)
        _row("first, with the notice that there is no room", own, Search("me"), say, tight)
        _thumbnails(own, settings)
        queue.close()


def _views() -> Mapping[str, Search]:
    return {
        "first": Search("me"),
        "a word that many have": Search("me", (word("女士"),)),
        "a word that one has": Search("me", (word("numbered-1234,"),)),
        "two words that none has": Search("me", (word("女士"), word("zebra"))),
        "restored photos of 30 days": Search("me", kind="photos", since=time.time() - 30 * 86400),
        "favourites": Search("me", favourite=True),
        "the album": Search(None),
    }


def _row(name: str, own: OwnJobs, search: Search, say: Words, settings: Settings) -> None:
    taken = [_timed(lambda: wall.first_page(own, search, say, settings)) for _ in range(ROUNDS)]
    size = sum(len(str(part).encode()) for part in wall.first_page(own, search, say, settings).values())
    print(f"| {name} | {1000 * median(taken):.1f} | {size / 1000:.0f} |")


def _row_of_a_page(own: OwnJobs, say: Words) -> None:
    after = (time.time() - 60.0 * (JOBS // 2), JOBS)
    taken = [_timed(lambda: wall.next_page(own, Search("me"), after, say)) for _ in range(ROUNDS)]
    print(f"| the page in the middle | {1000 * median(taken):.1f} | |")


def _thumbnails(own: OwnJobs, settings: Settings) -> None:
    page = own.page(Search("me"), wall.SHOWN)
    paths = [own.file(name) for finished in page.jobs for name in finished.final.images]
    first = [_timed(lambda path=path: make(path)) for path in paths]  # type: ignore[misc]
    again = [_timed(lambda path=path: stored(path)) for path in paths]  # type: ignore[misc]
    sizes = [len(stored(path) or b"") for path in paths]
    print(f"\n{len(paths)} thumbnails of the first view: {sum(sizes) / 1000:.0f} KB, {max(sizes) / 1000:.1f} at most")
    print(f"made in {1000 * median(first):.1f} ms each (512 px), read in {1000 * median(again):.2f} ms the second time")
    large = settings.outputs / "outputs_20200101000000.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (3000, 4000, 3), np.uint8)).save(large)
    print(f"of 12 megapixels of noise, {large.stat().st_size / 1e6:.0f} MB: {_timed(lambda: make(large)):.2f} s")


def _timed(call: timing.Call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _fill(settings: Settings) -> None:
    pictures = [path.read_bytes() for path in sorted(PICTURES.glob("*.png"))]
    with closing(sqlite3.connect(settings.state / "jobs.db")) as db:
        for k in range(JOBS + OTHERS):
            job_id, own = f"{k:032x}", k % 2 == 0
            name = f"outputs_{20250101000000 + k}.png"
            (settings.outputs / name).write_bytes(pictures[k % len(pictures)] if own else b"x")
            row = (
                job_id,
                pack(_request(k)),
                time.time() - 30.0 * (JOBS + OTHERS - k),
                "me" if own else "you",
                k % 50 == 0,
            )
            db.execute(
                "INSERT INTO job(id, request, state, ended, owner, favourite) VALUES(?, ?, 'done', ?, ?, ?)", row
            )
            events = [pack(Progress("denoise", step, EVENTS)) for step in range(EVENTS)]
            events.append(
                pack(Final((name,), k, 1.5, "ort", "ort on CPU, 2 threads, the fastest that was proved here"))
            )
            db.executemany(
                "INSERT INTO event VALUES(?, ?, ?)", [(job_id, seq, body) for seq, body in enumerate(events, 1)]
            )
            if k % 100 == 1:
                db.execute("UPDATE job SET shared=1 WHERE id=?", (job_id,))
        db.commit()


def _request(k: int) -> Request:
    if k % 5 == 4:
        return Enhance("/photos/x", name=f"爷爷 {k}.jpg")
    return Generate(
        f"一位女士的肖像,棕色长发,白色衬衫,灰色影棚背景,柔光 numbered-{k}, studio light", seed=k, preset="business"
    )
