"""
The round of the watch folder: look what is there, take what has settled, submit it, fetch what is done, lay it down,
and say what has failed. What must outlive this process is in the ledger before the next step begins, so that a round
may be broken off anywhere, and the next one, of whichever process, goes on from there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from engines.errors import JobInterrupted, NotFoundError, OutOfMemory, QueueFull, StorageError, StudioError
from engines.jobs import ENDED, JobQueue
from engines.messages import Failed, Final
from engines.settings import Settings
from webui.immich import Immich
from webui.watch import contact_sheet, report
from webui.watch.inbox import Inbox, Notices, Pace
from webui.watch.intake import OWNER, Changed, Intake, Unreadable
from webui.watch.ledger import DATABASE, Content, Ledger, Photo
from webui.watch.outbox import OF_ALL, Outbox, OutboxAway, Where
from webui.watch.report import Failure
from webui.watch.stacking import Stacking

log = logging.getLogger(__name__)
HOUR_S, DAY_S = 3600.0, 86400.0
IDLE_SHARE = 1 / 150  # of a core, at most, goes into looking where nothing happens
PASSING = frozenset((JobInterrupted.code, StorageError.code, OutOfMemory.code))  # the machine's fault, not the photo's
MOST_TRIES = 4


@dataclass(frozen=True)
class Clock:
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time  # seconds since 1970


PACE, CLOCK = Pace(), Clock()


def watch(queue: JobQueue, settings: Settings, stopping: threading.Event, pace: Pace = PACE) -> None:
    """Watch the inbox until it is `stopping`; do nothing where there is none. What a disk refuses is tried again."""
    notices = Notices()
    while settings.inbox_folder is not None and not stopping.is_set():
        try:
            with closing(Ledger(settings.state / DATABASE)) as ledger:
                if ledger.set_aside is not None:
                    log.error("the ledger of the watch folder was damaged, and lies in %s now", ledger.set_aside)
                _rounds(Watcher(queue, settings, ledger, pace), notices, stopping)
        except StudioError as exc:  # it cannot be opened
            notices.tell("home", f"the watch folder waits: {exc}")
            stopping.wait(pace.again_s)


def _rounds(watcher: Watcher, notices: Notices, stopping: threading.Event) -> None:
    wait_s = 0.0
    while not stopping.wait(wait_s):
        try:
            wait_s = watcher.round()
            notices.tell("home", "", "the watch folder goes on")
        except StudioError as exc:
            notices.tell("home", f"the watch folder waits: {exc}")
            wait_s = watcher.pace.again_s


class Watcher:
    """For the thread that the ledger is for. The settings name an inbox."""

    def __init__(
        self, queue: JobQueue, settings: Settings, ledger: Ledger, pace: Pace = PACE, clock: Clock = CLOCK
    ) -> None:
        folder, outbox = settings.inbox_folder, settings.outbox_folder
        assert folder is not None and outbox is not None  # whoever begins this has looked
        self.queue, self.settings, self.ledger, self.pace, self.clock = queue, settings, ledger, pace, clock
        # A home inside the inbox is no album; an inbox inside the home is.
        left_out = [outbox, *([] if folder.is_relative_to(settings.home) else [settings.home])]
        self.inbox = Inbox(folder, left_out, ledger.stamps, settings.upload_mb, pace, clock.monotonic)
        self.outbox = Outbox(outbox, folder)
        self.intake = Intake(queue, ledger, folder, settings.uploads, clock.wall)
        self._notices = Notices()
        immich = Immich(settings.immich, settings.immich_key)
        stacking = Stacking(immich, ledger, self.outbox, pace.again_s, clock.wall, self._notices)
        self.stacking = stacking if settings.inbox_immich else None
        self._next_scan_s = self._next_submit_s = self._next_tidy_s = float("-inf")  # by the monotonic clock
        self._undelivered: dict[str, tuple[Failure, float]] = {}  # what could not be laid down, and when to try again
        self._reported: str | None = None

    def round(self) -> float:
        """Do what can be done now. Return for how many seconds there is nothing. StorageError: this machine's disk."""
        if self.clock.monotonic() >= self._next_scan_s:
            self._look()
        self._collect()
        self._submit()
        if self.inbox.is_there:
            self._take()
            self._deliver()
        if self.stacking is not None:
            self.stacking.step()
        self._tidy()
        until_scan_s = max(0.0, self._next_scan_s - self.clock.monotonic())
        is_busy = self._under_way() or (self.stacking is not None and self.stacking.is_busy())
        return min(self.pace.look_s, until_scan_s) if is_busy else until_scan_s

    def _look(self) -> None:
        begun_s = time.thread_time()
        self.inbox.look()
        rest_s = max(self.pace.poll_s, (time.thread_time() - begun_s) / IDLE_SHARE)
        self._next_scan_s = self.clock.monotonic() + rest_s

    def _under_way(self) -> int:
        return len(self.ledger.contents("submitted")) + len(self.ledger.contents("intended"))

    # ---- from the inbox into the queue

    def _take(self) -> None:
        """Take what has settled, as far as there is room."""
        while self._room() > 0 and (settled := self.inbox.next()) is not None:
            path, stamp = settled
            try:
                self.intake.take(path, stamp)
            except Changed:
                continue
            except Unreadable as exc:
                self.inbox.put_off(path, str(exc))
                continue
            self._submit()

    def _room(self) -> int:
        """Return how many photos may be taken now."""
        room = self.pace.jobs - self._under_way()
        if (most := self.settings.inbox_per_hour) > 0:
            lately = self.ledger.submitted_since(self.clock.wall() - HOUR_S)
            room = min(room, most - lately - len(self.ledger.contents("intended")))
        return room

    def _submit(self) -> None:
        now_s = self.clock.wall()
        due = [content for content in self.ledger.contents("intended") if content.due <= now_s]
        for content in due if self.clock.monotonic() >= self._next_submit_s else ():
            try:
                self.intake.submit(content)
            except QueueFull as exc:
                self._next_submit_s = self.clock.monotonic() + float(exc.facts["retry_s"])
                return

    # ---- out of the queue

    def _collect(self) -> None:
        """Write down what has become of the jobs that were submitted."""
        for content in self.ledger.contents("submitted"):
            try:
                job = self.queue.job(content.job)
            except NotFoundError as exc:  # a database that was damaged has lost it
                self._again(content, Failed(exc.code, str(exc), exc.facts))
                continue
            if job.state in ENDED:
                self._end(content)

    def _end(self, content: Content) -> None:
        match self.queue.latest(content.job):
            case Final(images=(picture, *_)):
                self.ledger.done(content.sha256, picture)
            case Failed() as failed if failed.code not in PASSING:
                self.ledger.failed(content.sha256, failed.code, failed.facts)
            case Failed() as failed:
                self._again(content, failed)
            case _:  # its end was lost
                self._again(content, Failed(StudioError.code, "the job ended without a word"))

    def _again(self, content: Content, failed: Failed) -> None:
        """Try it once more, later each time; it fails in the end."""
        if content.tries + 1 >= MOST_TRIES:
            self.ledger.failed(content.sha256, failed.code, failed.facts)
        else:
            wait_s = self.pace.again_s * content.tries  # at once, the first time
            self.ledger.intend_again(content.sha256, self.clock.wall() + wait_s)

    # ---- into the outbox

    def _deliver(self) -> None:
        """Lay down what is done, and say what has failed. An outbox that is away, or full, is waited for."""
        try:
            where = self.ledger.mark("outbox")
            if (now := self.outbox.open(cast(Where, where))) != where:
                self.ledger.set_mark("outbox", now)
            for photo in self.ledger.undelivered():
                self._lay(photo)
            self._report()
            self._write_sheets()
        except OutboxAway:
            folder = self.outbox.folder
            self._notices.tell(
                "outbox", f"the outbox is away; results wait until {folder} with its mark is there again"
            )
        except OSError as exc:
            self._notices.tell("outbox", f"nothing can be laid into the outbox: {exc.strerror}; results wait")
        else:
            self._notices.tell("outbox", "", "results are laid into the outbox again")

    def _lay(self, photo: Photo) -> None:
        """Lay one result down, unless it is to be elsewhere. OSError: no other could be laid down either."""
        if self._undelivered.get(photo.path, (None, 0.0))[1] > self.clock.monotonic():
            return
        content = self.ledger.content(photo.sha256)
        others = [other for other in self.ledger.photos_of(photo.sha256) if other.path != photo.path]
        if content is None or self._was_renamed(photo, others):
            return
        picture = self.queue.folder / content.picture
        source = picture if content.picture and picture.is_file() else self._laid_before(others)
        if source is None:  # it is nowhere any more: it is restored once more
            self.ledger.forget(photo.sha256)
            return
        try:
            name, checksum = self.outbox.lay(source, photo)
        except OSError as exc:
            if exc.errno in OF_ALL or not self.outbox.is_there():
                raise
            why = Failure(photo.path, key="watch_undelivered", facts={"why": exc.strerror or "?"})
            self._undelivered[photo.path] = (why, self.clock.monotonic() + self.pace.again_s)
            return
        is_first = source == picture and not any(other.laid for other in others)
        pair = contact_sheet.pair(self.queue, content, photo.path, self._today()) if is_first else None
        originals = (self.intake.upload(photo.sha256), self.inbox.folder / photo.path)
        sha1 = self.stacking.will_stack(originals, photo.sha256) if self.stacking is not None else ""
        self.ledger.delivered(photo.path, name, checksum, pair, sha1)
        self._undelivered.pop(photo.path, None)

    def _was_renamed(self, photo: Photo, others: list[Photo]) -> bool:
        """
        Return whether a file is not there under its name any more, but is, or will soon be seen to be, under another.
        One that is nowhere was taken away by whoever wants its result.
        """
        if self.inbox.has(photo.path):
            return False
        if any(self.inbox.has(other.path) for other in others):
            self.ledger.delivered(photo.path, photo.outbox, photo.laid)  # nothing is to be laid down for it
            return True
        return self.inbox.is_elsewhere(photo.stamp)

    def _laid_before(self, others: list[Photo]) -> Path | None:
        places = (self.outbox.holds(other) for other in others)
        return next((path for path in places if path is not None), None)

    def _report(self) -> None:
        """Say what has failed of what is there. OSError."""
        failures = [
            *(Failure(path, code, facts=facts) for path, code, facts in self.ledger.failures()),
            *self.inbox.refused.values(),
            *(why for why, _ in self._undelivered.values()),
            *(self.stacking.failures() if self.stacking is not None else ()),
        ]
        absent = self.stacking.absent() if self.stacking is not None else []
        text = report.text(
            (failure for failure in failures if self.inbox.has(failure.path)),
            sum(map(self.inbox.has, absent)),
        )
        if text == self._reported:
            return
        if text:
            self.outbox.write(report.NAME, text.encode())
        else:
            (self.outbox.folder / report.NAME).unlink(missing_ok=True)
        self._reported = text

    def _write_sheets(self) -> None:
        """Make the sheets of the days that are over. OSError."""
        today = self._today()
        for day in self.ledger.days():
            if day < today:
                for page in contact_sheet.pages(day, self.ledger.pairs(day)):
                    self.outbox.write(page.name, page.data)
                self.ledger.forget_day(day)

    def _today(self) -> str:
        return time.strftime("%Y-%m-%d", time.localtime(self.clock.wall()))

    def _tidy(self) -> None:
        """Every hour, delete results that were delivered days ago from among the pictures, where nobody sees them."""
        if self.clock.monotonic() < self._next_tidy_s:
            return
        self._next_tidy_s = self.clock.monotonic() + HOUR_S
        old = self.ledger.delivered_before(self.clock.wall() - self.settings.keep_days * DAY_S)
        if old:
            self.queue.delete([content.job for content in old], OWNER, self.clock.wall())
            self.ledger.let_go([content.sha256 for content in old])
