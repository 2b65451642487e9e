"""
Who has used the processors meanwhile: a measured time says something only where nobody else wanted them.

Counted is what the kernel says of each processor (/proc/stat), less what this process has used itself. That holds in a
container too, where the file is the whole machine's: what others do on its processors disturbs whoever they are, and
only the processors count that this process may run on. /proc/pressure would not do: it rises as well when an engine has
one thread more than there are processors; nor would the ratio of our own time to the clock's, since an engine is idle
by itself where its graph has one branch. Time that a hypervisor gave to others (steal) is theirs.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
TICK_S = 0.01  # the kernel counts in hundredths of a second, of each processor (USER_HZ)
BUSY = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal; idle and iowait are not
DISTURBED_SHARE = 0.1  # of the time that was wanted: more, and a measurement is of the neighbours


@dataclass(frozen=True, slots=True)
class Usage:
    """
    Seconds until now: by the clock, of this process on all processors together, and of whoever used the `processors`
    that it may run on. Where the kernel does not say, nobody did.
    """

    clock_s: float
    ours_s: float
    busy_s: float = 0.0
    processors: int = 0


def read() -> Usage:
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
    try:
        lines = STAT.read_text(encoding="ascii").splitlines()
    except OSError:  # no Linux
        lines = []
    ticks = [_busy(line) for line in lines if line[:3] == "cpu" and line[3:4].isdigit() and _number(line) in allowed]
    return Usage(time.perf_counter(), time.process_time(), sum(ticks) * TICK_S, len(ticks))


def _number(line: str) -> int:
    return int(line.split()[0].removeprefix("cpu"))


def _busy(line: str) -> int:
    columns = line.split()[1:]
    return sum(int(columns[k]) for k in BUSY)


def taken_by_others(before: Usage, after: Usage, threads: int) -> float:
    """
    Return the share, 0 to 1, of the time of so many threads that others took between two readings. What they use of
    processors that the threads have no need of is not taken from these. A tick of each processor is not counted: which
    side of a reading it falls is chance.
    """
    passed_s, processors = after.clock_s - before.clock_s, after.processors
    others_s = (after.busy_s - before.busy_s) - (after.ours_s - before.ours_s)
    spare_s = max(processors - threads, 0) * passed_s + processors * TICK_S
    wanted_s = threads * passed_s
    return min(max(others_s - spare_s, 0.0) / wanted_s, 1.0) if wanted_s else 0.0


def disturbed(before: Usage, after: Usage, threads: int) -> bool:
    """Tell whether others took so much meanwhile that a time that was measured says nothing."""
    return taken_by_others(before, after, threads) > DISTURBED_SHARE
