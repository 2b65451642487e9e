"""
Between a studio on another machine and this machine's queue: takes the studio's jobs, lets them be done here as any
other, and sends what comes of them, as it comes. What keeps the engines alive, rests while it is hot and goes on after
a crash is this machine's worker, which knows nothing of it.

One job at a time. Its latest snapshot lies with the studio, so that another worker goes on from there if this one is
heard no more.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from engines import files, logs
from engines.errors import JobMoved, JobPostponed, StorageError, StudioError
from engines.images import names
from engines.images.kept_latents import KEPT_SUFFIX
from engines.jobs import ENDED, Job, state_after
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Event, Final, Generate, Preview, Progress, unpack
from engines.messages.order import Order
from engines.studio.snapshot import Snapshot
from engines.worker import surviving
from engines.worker.studio_client import StudioAway, StudioClient, StudioRefuses

log = logging.getLogger(__name__)
T = TypeVar("T")
WAIT_S = 15.0  # for a job, at the studio's door
HEARTBEAT_S = 2.0
LOOK_S = 0.5  # while nobody says that anything has happened
GATHER_S = 0.5  # what happens within it goes in one message, unless somebody waits for it
AGAIN_S = 1.0  # until a studio that did not answer is asked again
REFUSED_S = 30.0  # and one that refuses
SNAPSHOT_S = 2.0  # between two looks whether there is another
OWNER = "studio:"  # begins whose its jobs are in this machine's queue


@dataclass
class Relay:
    """
    One job on its way. `sent`: what pictures that were sent are called there, by their names here. `after`: the number
    of the latest event that was sent, at `told_at`. `looks`: of which pictures there is one to look at there.
    """

    order: Order
    local: Job
    sent: dict[str, str] = field(default_factory=dict)
    after: int = 0
    told_at: float = -math.inf
    looks: set[int] = field(default_factory=set)
    snapshot: str = ""  # a digest of the latest that the studio has
    looked: float = 0.0
    is_wanted: bool = True


class Bridge:
    """
    `name`: what people call this machine. `photos`: the folder for the photos that jobs begin with. `wakes_at`: the
    hardware address by which the studio may wake it; empty: it may not.
    """

    def __init__(self, studio: StudioClient, queue: SqliteQueue, photos: Path, name: str, wakes_at: str = "") -> None:
        self.studio, self.queue, self.photos, self.name, self.wakes_at = studio, queue, photos, name, wakes_at
        self._job = ""  # of the studio's, from when it was given until all that comes of it was sent
        self._relay: Relay | None = None
        self._away = ""  # why the studio does not answer; empty: it does
        self._name_there = ""
        self._named = threading.Event()

    def beat(self, stopping: threading.Event, called: bool = False) -> None:
        """
        Say how this worker is, again and again, until it is `stopping`; and end what the studio wants to end. `called`:
        to its jobs; else it asks for them.
        """
        while not stopping.is_set():
            relay = self._relay
            status = replace(self.queue.status(), wakes_at=self.wakes_at)
            echo = self._try(partial(self.studio.announce, status, self._job, called))
            if echo is not None:
                self._name_there = echo.name
                self._named.set()
                if relay is not None and relay.order.id in echo.cancelled:
                    self.queue.cancel(relay.local.id)
            stopping.wait(HEARTBEAT_S)

    def work(self, stopping: threading.Event) -> None:
        """Ask for the studio's jobs, and do them, until it is `stopping`."""
        self._clear()
        while not stopping.is_set():
            if self.queue.status().state != "ready":
                stopping.wait(AGAIN_S)
            else:
                self._next(WAIT_S, stopping)

    def heed(self, listen: Callable[[str, Callable[[str], None]], None], stopping: threading.Event) -> None:
        """
        Do the studio's jobs to which this machine is called. `listen` is told its name there, and what to do at a call.
        """
        self._clear()
        while not self._named.wait(AGAIN_S):
            if stopping.is_set():
                return
        listen(self._name_there, lambda job_id: self._next(0.0, stopping))

    def _next(self, wait_s: float, stopping: threading.Event) -> None:
        """Do the job whose turn it is here, if there is one within that time."""
        with surviving("the studio's job", lambda: stopping.wait(AGAIN_S)):
            if (order := self._try(lambda: self.studio.claim(wait_s), stopping)) is not None:
                with logs.about(order.id):
                    self._job = order.id
                    self._do(order, stopping)

    def _try(self, ask: Callable[[], T], stopping: threading.Event | None = None) -> T | None:
        """Ask once; None: there was no answer, which is logged once."""
        try:
            answer = ask()
        except (StudioAway, StudioRefuses) as exc:
            if str(exc) != self._away:
                log.warning("the studio: %s", exc)
            self._away = str(exc)
            if stopping is not None:
                stopping.wait(REFUSED_S if isinstance(exc, StudioRefuses) else AGAIN_S)
            return None
        if self._away:
            log.info("the studio answers again")
        self._away = ""
        return answer

    def _insist(self, act: Callable[[], T], stopping: threading.Event) -> T:
        """Do what the studio may be too far away for, until it is done. JobMoved; JobPostponed: it is `stopping`."""
        while True:
            try:
                return act()
            except (StudioAway, StudioRefuses) as exc:
                if str(exc) != self._away:
                    log.warning("the studio: %s; it is tried again", exc)
                self._away = str(exc)
                if stopping.wait(AGAIN_S):
                    raise JobPostponed("this machine stops") from exc

    def _do(self, order: Order, stopping: threading.Event) -> None:
        log.info("a job of the studio's, attempt %d", order.attempt)
        try:
            relay = self._relay = self._begun(order, stopping)
            self._send_all(relay, stopping)
        except JobMoved as exc:
            log.info("the studio has it done elsewhere: %s", exc)
        except JobPostponed:  # the studio hears that this machine leaves
            log.info("it is given back")
        except (StudioError, OSError) as exc:  # of this machine's disk: others may have room
            log.error("it is given back: %s", exc)
            self._try(self.studio.leave, stopping)
        finally:
            self._job, self._relay = "", None
            self._clear()

    def _begun(self, order: Order, stopping: threading.Event) -> Relay:
        """Have it done here. RequestError: it is of another version."""
        request = unpack(order.request)
        if order.photo_bytes:
            photo = self.photos / f"{order.id}{Path(order.photo_name).suffix}"
            photo.parent.mkdir(parents=True, exist_ok=True)
            self._insist(lambda: self.studio.fetch_photo(order, photo), stopping)
            match request:
                case Generate():
                    request = replace(request, start=str(photo))
                case Enhance():
                    request = replace(request, image=str(photo))
        body, pictures = b"", dict[str, str]()
        if order.has_snapshot:
            body, pictures = self._fetched_snapshot(order, stopping)
        local_id = self.queue.submit_begun(request, OWNER + order.id, body, list(pictures))
        return Relay(order, self.queue.job(local_id), sent=pictures, snapshot=_digest(body))

    def _fetched_snapshot(self, order: Order, stopping: threading.Event) -> tuple[bytes, dict[str, str]]:
        """Return how far another worker came, with what its pictures are called here and there. None: begin anew."""
        here: dict[str, str] = {}  # by their names there
        for name in order.pictures:
            with files.temporary(self.queue.folder) as path:
                self._insist(lambda name=name, path=path: self.studio.fetch_picture(order, name, path), stopping)  # type: ignore[misc]
                here[name] = names.adopt(path, self.queue.folder, name)
        body = self._insist(lambda: self.studio.snapshot(order), stopping)
        try:
            snapshot = Snapshot.unpack(body)
            body = replace(snapshot, names=tuple(here[name] for name in snapshot.names)).pack()
        except (ValueError, KeyError) as exc:  # only time is lost
            log.warning("a job begins anew: %s", exc)
            return b"", {}
        return body, {local: name for name, local in here.items()}

    def _send_all(self, relay: Relay, stopping: threading.Event) -> None:
        """Send what happens, to its end."""
        changed = threading.Event()
        with self.queue.listening(relay.local.id, changed.set):
            while True:
                changed.clear()  # first: what happens from here on is seen at the next look
                numbered, ended = self.queue.since(relay.local.id, relay.after)
                events = [event for _, event in numbered]
                ended = ended or any(state_after(event) in ENDED for event in events)
                wait_s = relay.told_at + GATHER_S - time.monotonic()
                if events and (ended or wait_s <= 0 or _is_awaited(relay, events)):
                    relay.after = numbered[-1][0]
                    self._send(relay, events, stopping)
                    relay.told_at, wait_s = time.monotonic(), LOOK_S
                if ended:
                    return
                self._send_snapshot(relay, stopping)
                changed.wait(wait_s if events else LOOK_S)

    def _send(self, relay: Relay, events: Sequence[Event], stopping: threading.Event) -> None:
        there = [self._there(relay, event, stopping) for event in _latest(events)]
        relay.looks |= {event.picture for event in there if isinstance(event, Preview)}
        goes_on = self._insist(lambda: self.studio.send_events(relay.order, there), stopping)
        if not goes_on and relay.is_wanted:
            relay.is_wanted = False
            self.queue.cancel(relay.local.id)

    def _there(self, relay: Relay, event: Event, stopping: threading.Event) -> Event:
        """Send an event's pictures; return it as the studio is to have it."""
        match event:
            case Preview():
                return replace(event, image=self._sent(relay, event.image, stopping))
            case Final():
                images = tuple(self._sent(relay, image, stopping) for image in event.images)
                return replace(event, images=images, reason=f"{event.reason} ({self.name})".strip())
        return event

    def _sent(self, relay: Relay, image: str, stopping: threading.Event) -> str:
        """Send a picture, with what is kept beside it, unless it was sent; return what it is called there."""
        if image not in relay.sent:
            path = self.queue.folder / image
            name = self._insist(lambda: self.studio.send_picture(relay.order, path, image), stopping)
            relay.sent[image] = name
            if (latents := path.with_suffix(KEPT_SUFFIX)).exists():
                beside = Path(name).with_suffix(KEPT_SUFFIX).name
                self._insist(lambda: self.studio.send_picture(relay.order, latents, beside), stopping)
        return relay.sent[image]

    def _send_snapshot(self, relay: Relay, stopping: threading.Event) -> None:
        """After its pictures, which earlier events have named."""
        if time.monotonic() - relay.looked < SNAPSHOT_S:
            return
        relay.looked = time.monotonic()
        if (body := self.queue.snapshot(relay.local)) is None:
            return
        digest = _digest(body)
        snapshot = Snapshot.unpack(body)
        if digest == relay.snapshot or not set(snapshot.names) <= set(relay.sent):
            return
        there = replace(snapshot, names=tuple(relay.sent[name] for name in snapshot.names))
        self._insist(lambda: self.studio.send_snapshot(relay.order, there.pack(), there.names), stopping)
        relay.snapshot = digest

    def _clear(self) -> None:
        """Leave nothing of the studio's jobs here: whatever a stop or a crash has left of earlier ones too."""
        with suppress(StorageError, OSError):
            for owner in self.queue.owners(OWNER):
                self.queue.erase(owner)
            self.queue.purge(time.time() + 1)
        for photo in self.photos.glob("*"):
            with suppress(OSError):
                photo.unlink()


def _is_awaited(relay: Relay, events: Sequence[Event]) -> bool:
    """Return whether there is something to look at of which there was nothing to be seen."""
    return any(isinstance(event, Preview) and event.picture not in relay.looks for event in events)


def _latest(events: Sequence[Event]) -> list[Event]:
    """
    Return what is still worth to be told: not how far it was, where it is further, and no look at a picture of which
    there is a later one.
    """
    has_picture = isinstance(events[-1], Final)
    furthest = max((k for k, event in enumerate(events) if isinstance(event, Progress)), default=-1)
    looks = {event.picture: k for k, event in enumerate(events) if isinstance(event, Preview)}

    def is_stale(k: int, event: Event) -> bool:
        match event:
            case Progress():
                return has_picture or k < furthest
            case Preview(kind="step"):
                return has_picture or k < looks[event.picture]
        return False

    return [event for k, event in enumerate(events) if not is_stale(k, event)]


def _digest(snapshot: bytes) -> str:
    return hashlib.sha256(snapshot).hexdigest()
