"""
What drawing took of memory when a bundle was built: its report.json has the peak of each engine's proof. Another
machine's numbers, and for memory as good as this one's: networks take what they take.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

REPORTS = 64  # that are remembered
MOST_BYTES = 1_000_000  # of a report: it comes with bundles of strangers


@dataclass(frozen=True)
class Peak:
    """The most `bytes` that a process held while it drew pictures of so many `pixels`, everything loaded."""

    bytes: int
    pixels: int


def of(root: Path, engine: str, precision: str) -> Peak | None:
    """Return what the bundle in this folder took on that engine in that precision. None: nobody has measured it."""
    path = root / "report.json"
    try:
        verdicts = _verdicts(path, path.stat().st_mtime_ns)
    except OSError:
        return None
    return verdicts.get((engine, precision))


@lru_cache(REPORTS)
def _verdicts(path: Path, changed_ns: int) -> dict[tuple[str, str], Peak]:
    """Return all that a report says of memory, by engine and precision: nothing, where it is none."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(MOST_BYTES))["verdicts"]
        return {(str(v["engine"]), str(v["precision"])): _peak(v) for v in said if not v["failing"] and _is_whole(v)}
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return {}


def _is_whole(verdict: dict[str, Any]) -> bool:
    """Whether it says memory and size: those of an earlier version did not say the size."""
    return float(verdict.get("peak_mb", 0)) > 0 and float(verdict.get("megapixels", 0)) > 0


def _peak(verdict: dict[str, Any]) -> Peak:
    return Peak(round(float(verdict["peak_mb"]) * 1e6), round(float(verdict["megapixels"]) * 1e6))
