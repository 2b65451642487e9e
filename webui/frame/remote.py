"""
What frames are told from elsewhere (next, pause), what they say they show, and whose turn it is on those that only
fetch one picture at a time. In memory: after a restart a frame goes on, whatever it was told before.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

SHOWN_S = 90.0  # for how long what a frame has said it shows is taken for shown
DAY_S = 86400.0
MOST_FRAMES = 64


@dataclass(frozen=True, slots=True)
class Orders:
    """`next`: how often "next" was pressed since the start. `paused_at`: in seconds since 1970; None: it is not."""

    next: int = 0
    paused_at: float | None = None


class Remote:
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._state = Orders()
        self._shown: dict[str, tuple[float, tuple[str, ...]]] = {}  # by frame: when it said so, and pictures
        self._lock = threading.Lock()

    @property
    def state(self) -> Orders:
        return self._state

    def next(self) -> Orders:
        """Go on to the next picture, and go on at all."""
        with self._lock:
            self._state = Orders(self._state.next + 1)
            return self._state

    def pause(self, paused: bool | None = None) -> Orders:
        """Stay at this picture, or go on; None: the other of the two."""
        with self._lock:
            wanted = self._state.paused_at is None if paused is None else paused
            if wanted != (self._state.paused_at is not None):
                self._state = replace(self._state, paused_at=self._clock() if wanted else None)
            return self._state

    def says(self, frame: str, picture_ids: Sequence[str]) -> None:
        """Take note of what a frame shows now."""
        with self._lock:
            self._shown.pop(frame, None)
            self._shown[frame] = (self._clock(), tuple(picture_ids))
            while len(self._shown) > MOST_FRAMES:
                self._shown.pop(next(iter(self._shown)))

    def shown(self, name: str = "") -> list[str]:
        """Return the pictures that frames show now, or the frame of this name."""
        with self._lock:
            since = self._clock() - SHOWN_S
            asked = [said for frame, said in self._shown.items() if name in ("", frame)]
            return list(dict.fromkeys(i for at, ids in asked if at >= since for i in ids))

    def frames(self) -> int:
        """Return how many frames are on: have lately said what they show, be it nothing."""
        with self._lock:
            since = self._clock() - SHOWN_S
            return sum(at >= since for at, _ in self._shown.values())

    def turn(self, picture_ids: Sequence[str], seconds: float) -> list[str]:
        """
        Return the pictures in the order in which a frame that fetches one takes them, the present one first: another
        order each day, the next after so many seconds, for all that ask the same one.
        """
        now = self._state.paused_at or self._clock()
        day = int(now // DAY_S)
        order = sorted(picture_ids, key=lambda picture_id: hashlib.sha256(f"{day} {picture_id}".encode()).digest())
        first = (int(now // seconds) + self._state.next) % len(order) if order else 0
        return order[first:] + order[:first]
