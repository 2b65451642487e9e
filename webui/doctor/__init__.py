"""
A look at everything that a start needs, `./run.sh doctor`: a line for each, with what to do about it. It changes
nothing, works beside a server, and needs the standard library alone: it can say what is not installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]
MARKS: dict[Level, str] = {"ok": "✓", "warning": "!", "error": "✗"}
GB = 1_000_000_000


@dataclass(frozen=True)
class Line:
    """What was looked at and how it is, in both languages. "error": a start, or the next job, would fail."""

    level: Level
    zh: str
    en: str

    def __str__(self) -> str:
        return f"{MARKS[self.level]} {self.zh} · {self.en}"
