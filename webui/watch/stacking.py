"""
Results that go to immich too, onto a stack with their originals there. Which of them is written down as it is laid into
the outbox; from there on each step asks immich what it has before it adds anything, so that one that was broken off
is done again without doing anything twice. It happens aside: immich may be slow or off, and nothing waits for it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from webui.immich import REFUSED, Immich
from webui.outgoing import Unanswered
from webui.watch.inbox import Notices
from webui.watch.intake import shown
from webui.watch.ledger import Ledger, Photo, Stacked, ToStack
from webui.watch.outbox import Outbox
from webui.watch.report import Failure

MOST_TRIES = 4  # for what immich says it does not take
MOST_DOUBLINGS = 8  # of the pause: to four hours
PASSING = (408, 429)  # of the statuses of 400 and more
PIECE_BYTES = 1 << 20
Begin = Callable[[Callable[[], None]], Callable[[], bool]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What has become of one; `waiting`: nothing yet, and `why`. `is_away`: the others need not be tried either now.
    `is_final`: it will not be otherwise another time.
    """

    state: Stacked
    why: str = ""
    is_away: bool = False
    is_final: bool = False


def in_a_thread(work: Callable[[], None]) -> Callable[[], bool]:
    """Begin it, and return what says whether it is still under way."""
    thread = threading.Thread(target=work, name="stacking", daemon=True)
    thread.start()
    return thread.is_alive


class Stacking:
    """For the thread of the ledger. One at a time is `begin`ned. `clock`: in seconds since 1970."""

    def __init__(
        self,
        immich: Immich,
        ledger: Ledger,
        outbox: Outbox,
        again_s: float,
        clock: Callable[[], float],
        notices: Notices,
        begin: Begin = in_a_thread,
    ) -> None:
        self.immich, self.ledger, self.outbox, self.again_s, self.clock = immich, ledger, outbox, again_s, clock
        self.begin = begin
        self._notices = notices
        self._task: ToStack | None = None  # what is under way, or is to be written down
        self._is_under_way: Callable[[], bool] = lambda: False
        self._outcome = Outcome("waiting")
        self._rest_until = 0.0
        self._absent: list[str] | None = None

    def is_busy(self) -> bool:
        return self._task is not None

    def step(self) -> None:
        """Write down what has become of the last one, and begin the next. StorageError."""
        if self._is_under_way():
            return
        if self._task is not None:
            self._write_down(self._task, self._outcome)
            self._task = None
        if self.clock() < self._rest_until or (task := self.ledger.to_stack(self.clock())) is None:
            return
        photo = next((photo for photo in self.ledger.photos_of(task.sha256) if photo.laid), None)
        if photo is None:  # the files have other bytes by now
            self.ledger.set_stacked(task.sha256, "gone")
            return
        self._task, self._outcome = task, Outcome("waiting", "it ended without a word")
        self._is_under_way = self.begin(lambda: self._work(task, photo))

    def will_stack(self, files: Iterable[Path], sha256: str) -> str:
        """
        Return the SHA-1 of the original that has these bytes, of the first of the files that still has them, for the
        ledger; empty: none has.
        """
        self._absent = None
        for path in files:
            with suppress(OSError):
                checksums = _checksums(path)
                if checksums[0] == sha256:
                    return checksums[1]
        return ""

    def absent(self) -> list[str]:
        """Return the files whose originals are not in immich."""
        if self._absent is None:
            self._absent = [path for path, _ in self.ledger.stacking("absent")]
        return self._absent

    def failures(self) -> list[Failure]:
        """Return what immich has refused."""
        refused = self.ledger.stacking("refused")
        return [Failure(path, key="watch_not_stacked", facts={"why": why}) for path, why in refused]

    def _work(self, task: ToStack, photo: Photo) -> None:
        try:
            self._outcome = self._stacked(task, photo)
        except Unanswered as exc:
            is_away = not exc.status or exc.status in REFUSED
            is_final = 400 <= exc.status < 500 and exc.status not in (*REFUSED, *PASSING)
            self._outcome = Outcome("waiting", str(exc), is_away, is_final)
        except OSError as exc:  # of the outbox
            self._outcome = Outcome("waiting", exc.strerror or str(exc))

    def _stacked(self, task: ToStack, photo: Photo) -> Outcome:
        """Do what is still to be done. Unanswered. OSError: the result cannot be read."""
        path = self.outbox.folder / photo.outbox
        try:
            sha256, sha1 = _checksums(path)
        except FileNotFoundError:
            if self.outbox.is_there():
                return Outcome("gone")
            raise
        if sha256 != photo.laid:  # somebody has changed it
            return Outcome("gone")
        present = self.immich.present({"original": task.sha1, "result": sha1})
        original, result = present.get("original"), present.get("result")
        if original is None or original.is_trashed:
            return Outcome("absent")
        if result is not None and result.is_trashed:  # by whoever does not want it
            return Outcome("gone")
        name = PurePosixPath(shown(photo.outbox)).name
        uploaded = result.id if result else self.immich.upload(path, name, sha1, photo.stamp[1] / 1e9)
        if uploaded != original.id:
            self.immich.stack([uploaded, original.id])
        return Outcome("stacked")

    def _write_down(self, task: ToStack, outcome: Outcome) -> None:
        self._notices.tell(
            "immich",
            f"a result could not be stacked in immich: {outcome.why}; later again" if outcome.why else "",
            "results are stacked in immich again",
        )
        self._absent = None
        if outcome.state != "waiting":
            self.ledger.set_stacked(task.sha256, outcome.state)
        elif outcome.is_final and task.tries + 1 >= MOST_TRIES:
            self.ledger.set_stacked(task.sha256, "refused", outcome.why)
        elif outcome.is_away:  # through no fault of this one: but another one is tried first
            self._rest_until = self.clock() + self.again_s
            self.ledger.stack_later(task.sha256, self._rest_until, task.tries)
        else:
            wait_s = self.again_s * 2 ** min(task.tries, MOST_DOUBLINGS)
            self.ledger.stack_later(task.sha256, self.clock() + wait_s, task.tries + 1)


def _checksums(path: Path) -> tuple[str, str]:
    """Return SHA-256 and SHA-1 of a file. OSError."""
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        while piece := file.read(PIECE_BYTES):
            sha256.update(piece)
            sha1.update(piece)
    return sha256.hexdigest(), sha1.hexdigest()
