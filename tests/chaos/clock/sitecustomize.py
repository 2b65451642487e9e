"""
Python imports this before anything else where PYTHONPATH has this folder: the clock of the process is put forward by
CHAOS_CLOCK_S seconds, or back. What kernels say of files stays as it is: those of before a jump look as they would.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

SHIFT_S = int(os.environ.get("CHAOS_CLOCK_S", "0"))
_time, _time_ns = time.time, time.time_ns


def _of_now(read: Callable[..., Any]) -> Callable[..., Any]:
    """A function of seconds since 1970 that takes those of now where it is given none."""
    return lambda seconds=None: read(time.time() if seconds is None else seconds)


def _strftime(form: str, moment: Any = None, strftime: Callable[..., str] = time.strftime) -> str:
    return strftime(form, time.localtime() if moment is None else moment)


if SHIFT_S:
    time.time = lambda: _time() + SHIFT_S
    time.time_ns = lambda: _time_ns() + SHIFT_S * 1_000_000_000
    time.localtime, time.gmtime, time.ctime = map(_of_now, (time.localtime, time.gmtime, time.ctime))
    time.strftime = _strftime
