"""The hours of a day in which a queue begins no batch."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from engines.settings import HOURS

DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class QuietHours:
    """
    The hours of each day in which no batch begins, because somebody sleeps beside the machine: from `begin` to `end`,
    in minutes after midnight by this machine's clock, over midnight where they end before they begin. Where both are
    the same there are none.
    """

    begin: int = 0
    end: int = 0

    @classmethod
    def parse(cls, text: str) -> QuietHours:
        """Read "22:00-7:00"; empty: none. ValueError: it is no such span."""
        if not text.strip():
            return cls()
        match = re.fullmatch(HOURS, text)
        if not match:
            raise ValueError(f"{text}: must be hours of the day, like 22:00-07:00")
        begin_h, begin_min, end_h, end_min = map(int, match.groups())
        return cls(60 * begin_h + begin_min, 60 * end_h + end_min)

    def left_s(self, now: float) -> float:
        """Return for how many seconds it stays quiet from `now` on, in seconds since 1970; 0: it is not."""
        clock = time.localtime(now)
        minute = 60 * clock.tm_hour + clock.tm_min
        if (minute - self.begin) % DAY_MINUTES >= (self.end - self.begin) % DAY_MINUTES:
            return 0.0
        return float(60 * ((self.end - minute) % DAY_MINUTES) - clock.tm_sec)


NEVER_QUIET = QuietHours()
