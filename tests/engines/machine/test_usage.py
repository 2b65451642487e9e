"""Whether a time that was measured is of what was measured, or of its neighbours."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engines.machine import usage
from engines.machine.usage import Usage, disturbed, taken_by_others


@pytest.mark.parametrize(
    ("others_s", "processors", "threads", "share"),
    [
        (0.0, 4, 4, 0.0),
        (4.04, 4, 4, 0.5),  # a tick of each processor is chance
        (8.04, 4, 4, 1.0),
        (99.0, 4, 4, 1.0),
        (4.0, 4, 2, 0.0),  # two processors were free for them
        (6.04, 4, 2, 0.5),
        (3.9, 64, 2, 0.0),  # a container's share of a large machine, where there is room
        (-0.5, 4, 4, 0.0),  # ticks are coarse
    ],
)
def test_what_others_took_is_a_share_of_what_was_wanted(
    others_s: float, processors: int, threads: int, share: float
) -> None:
    before = Usage(100.0, 50.0, 1000.0, processors)
    after = Usage(102.0, 50.0 + 2.0 * threads, 1000.0 + 2.0 * threads + others_s, processors)
    assert taken_by_others(before, after, threads) == pytest.approx(share, abs=1e-6)
    assert disturbed(before, after, threads) is (share > 0.1)


def test_where_the_kernel_says_nothing_nobody_disturbs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(usage, "STAT", tmp_path / "none")
    before = usage.read()
    sum(range(100_000))
    assert not disturbed(before, usage.read(), 2) and before.processors == 0


def test_no_time_is_no_share() -> None:
    now = Usage(1.0, 1.0, 1.0, 1)
    assert taken_by_others(now, now, 1) == 0.0


STAT = """cpu  {sum} 0 0 0 0 0 0 0 0 0
cpu0 100 10 20 5000 700 3 4 5 60 7
cpu1 {one} 0 0 5000 0 0 0 0 0 0
cpu12 900 0 0 0 0 0 0 0 0 0
intr 5 6 7
"""


def test_what_is_busy_is_read_of_our_processors_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Idle and waiting for a disk are free; a guest's time is in its user's already."""
    monkeypatch.setattr(usage, "STAT", tmp_path / "stat")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    usage.STAT.write_text(STAT.format(sum=9999, one=50))
    now = usage.read()
    assert (now.processors, round(now.busy_s, 2)) == (2, round((100 + 10 + 20 + 3 + 4 + 5 + 50) / 100, 2))


@pytest.mark.skipif(not usage.STAT.exists(), reason="only Linux counts what processors do")
def test_a_process_beside_us_is_noticed() -> None:
    """As many that compute as there are processors take from one thread of ours; those that have gone do not."""
    allowed = len(os.sched_getaffinity(0))
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * allowed)]
    try:
        time.sleep(0.3)  # they start
        before = usage.read()
        begun = time.perf_counter()
        while time.perf_counter() - begun < 1.0:
            sum(range(1000))
        assert disturbed(before, usage.read(), allowed)
    finally:
        for process in loops:
            process.kill()
            process.wait()
