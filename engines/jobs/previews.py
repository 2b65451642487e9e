"""
After which steps a portrait is shown meanwhile. One rule for both: the studio makes previews by it, and estimate.py
counts what they will cost. Knows no decoder and no clock.
"""

from __future__ import annotations

import math

SHARE = 0.1  # of a step's time may go into looking at it
QUARTERS = 4  # of a picture: each is shown as it ends, however dear that is


def every(step_s: float, cost_s: float) -> int:
    """Return after how many steps one may look again, if a look takes `cost_s`. A step of 0 s was not measured yet."""
    return max(1, math.ceil(cost_s / (SHARE * step_s))) if step_s else 1


def preview_steps(steps: int, every: int) -> frozenset[int]:
    """Return after which of the steps 1 to `steps` there is a preview: the first, each quarter's last, and others."""
    quarters = (math.ceil(steps * quarter / QUARTERS) for quarter in range(1, QUARTERS + 1))
    return frozenset((*range(1, steps + 1, every), *quarters))
