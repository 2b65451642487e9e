"""
A home with an inbox, its outbox and a real queue, a clock that a test turns, and a worker that restores nothing: what
it writes says of which bytes it is. What the tests of the watch folder and the chaos run share.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from engines.images import causes
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Event, Failed, Final, Preview
from engines.settings import Settings
from tests.support.immich import KEY
from webui.watch.contact_sheet import FOLDER
from webui.watch.inbox import Pace
from webui.watch.intake import OWNER
from webui.watch.ledger import DATABASE, Ledger
from webui.watch.report import NAME
from webui.watch.scan import MARK
from webui.watch.watcher import Clock, Watcher

PACE = Pace()
START_S = 1_800_000_000.0
BROKEN = b"this is what no decoder reads"


def photo(number: int, kind: str = "JPEG") -> bytes:
    """A picture like no other."""
    image = Image.new("RGB", (12, 10), (number % 256, number // 256 % 256, 7))
    image.save(data := io.BytesIO(), kind)
    return data.getvalue()


def broken(number: int) -> bytes:
    """A JPEG from its beginning to its end, and in between what the worker here refuses."""
    return b"\xff\xd8" + BROKEN + str(number).encode() + b"\xff\xd9"


def restored(data: bytes) -> bytes:
    """What the worker makes of these bytes, whatever they are called."""
    checksum = hashlib.sha256(data).digest()
    Image.new("RGB", (16, 16), tuple(checksum[:3])).save(written := io.BytesIO(), "PNG")
    return written.getvalue() + checksum


def at_once(work: Callable[[], None]) -> Callable[[], bool]:
    """In the place of a thread."""
    work()
    return lambda: False


@dataclass
class Hands:
    """Seconds on both clocks."""

    now_s: float = 0.0

    def clock(self) -> Clock:
        return Clock(lambda: self.now_s, lambda: START_S + self.now_s)


@dataclass
class House:
    """`root`: where the home lies, and beside it the share with the inbox. `immich`: its address, if there is one."""

    root: Path
    per_hour: int = 0
    outbox_name: str = ""
    queue_limit: float = 1000
    immich: str = ""
    hands: Hands = field(default_factory=Hands)

    def __post_init__(self) -> None:
        self.inbox = self.root / "share" / "inbox"
        self.inbox.mkdir(parents=True, exist_ok=True)
        named = {"outbox": str(self.root / self.outbox_name)} if self.outbox_name else {}
        self.settings = Settings(self.root / "home", inbox=str(self.inbox), inbox_per_hour=self.per_hour, **named)
        if self.immich:
            self.settings = replace(self.settings, immich=self.immich, immich_key=KEY, inbox_immich=True)
        folder = self.settings.outbox_folder
        assert folder is not None
        self.outbox = folder
        self.start()

    def start(self) -> None:
        self.queue = SqliteQueue(self.settings.state / "jobs.db", self.settings.outputs, self.queue_limit)
        self.queue.folder.mkdir(parents=True, exist_ok=True)
        self.queue.recover()
        self.ledger = Ledger(self.settings.state / DATABASE)
        self.watcher = Watcher(self.queue, self.settings, self.ledger, PACE, self.hands.clock())
        if self.watcher.stacking is not None:
            self.watcher.stacking.begin = at_once

    def close(self) -> None:
        self.ledger.close()
        self.queue.close()

    def restart(self) -> None:
        self.close()
        self.start()

    def put(self, path: str, data: bytes, mtime_s: float | None = None) -> Path:
        """Lay a file into the inbox, written when the clock says, unless another time is said."""
        target = self.inbox / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        then_ns = int(1e9 * (START_S + self.hands.now_s if mtime_s is None else mtime_s))
        os.utime(target, ns=(then_ns, then_ns))
        return target

    def pass_s(self, seconds: float) -> None:
        """Let time pass, and do a round then."""
        self.hands.now_s += seconds
        self.watcher.round()

    def settle(self) -> None:
        """Look, and look again when what was there then has settled."""
        self.pass_s(PACE.poll_s)
        self.pass_s(PACE.settle_s)

    def work(self, most: int = 1000) -> int:
        """Do what waits in the queue. Return how many jobs that were."""
        for count in range(most):
            if (job := self.queue.claim(0)) is None:
                return count
            assert isinstance(job.request, Enhance)
            for event in self._events(job.request, job.id):
                self.queue.publish(job, event)
        return most

    def _events(self, request: Enhance, job_id: str) -> list[Event]:
        data = Path(request.image).read_bytes()
        if BROKEN in data:
            return [Failed("bad_image", "broken", {"why": causes.DAMAGED})]
        number = int(job_id[:12], 16) % 10**14
        picture, before = f"outputs_{number:014}.png", f"preview_{job_id}.png"
        (self.queue.folder / before).write_bytes(photo(1, "PNG"))
        (self.queue.folder / picture).write_bytes(restored(data))
        return [Preview(0, before, kind="before"), Final((picture,), 0, 0.1, "fake")]

    def until_done(self) -> None:
        """Go on until nothing is to be done any more."""
        for _ in range(8):
            self.settle()
            self.work()
        self.pass_s(PACE.again_s)

    # ---- what came of it

    def jobs(self) -> Counter[str]:
        """How many jobs there are for which bytes, by the checksum that their copies are named by."""
        return Counter(
            Path(job.request.image).name.removeprefix("watch-")
            for job in self.queue.latest_of(OWNER, 100_000)
            if isinstance(job.request, Enhance)
        )

    def results(self) -> dict[str, bytes]:
        """What lies in the outbox, but for what the watcher says there."""
        said = {MARK, NAME}
        return {
            path.relative_to(self.outbox).as_posix(): path.read_bytes()
            for path in sorted(self.outbox.rglob("*"))
            if path.is_file() and path.name not in said and FOLDER not in path.parts
        }

    def report(self) -> str:
        path = self.outbox / NAME
        return path.read_text(encoding="utf-8") if path.exists() else ""


def checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
