"""
What is said of the faces in a photo: where they are, which of them somebody means, and what became of each. Places are
shares of the upright picture: the detector may look at it anew, on another engine, and count them in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from engines.messages.validation import check

FaceState = Literal["restored", "softened", "skipped"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Box = tuple[float, float, float, float]  # left, top, width, height
MOST_POINTS = 200
# Why a face was skipped. These are rules, which whoever names the face overrules.
SHARP, NOT_CENTRAL, NOT_CHOSEN, TOO_SMALL = "already sharp", "not the face in the centre", "not chosen", "smaller than"
NO_FACE_THERE = "no face is there"
TRIED = (0.5, 0.25, 0.75, 0.1, 0.9, 0.03, 0.97)  # of a box's sides, for a point that means it


@dataclass(frozen=True, slots=True)
class Point:
    """A place in a picture: from its left edge, and from its upper one."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    x: Share
    y: Share

    def __post_init__(self) -> None:
        check(self)


Points = Annotated[tuple[Point, ...], Field(max_length=MOST_POINTS)]


@dataclass(frozen=True, slots=True)
class FaceReport:
    """
    What became of a face, or of a point that somebody named and where none is: its box has no size. `strength` is what
    was taken.
    """

    box: Box
    state: FaceState
    strength: int
    reason: str = ""

    @property
    def is_face(self) -> bool:
        return self.box[2] > 0

    @property
    def by_rule(self) -> bool:
        """Whether it was skipped for a reason that whoever names it overrules."""
        return self.state == "skipped" and self.reason.startswith((SHARP, NOT_CENTRAL, NOT_CHOSEN, TOO_SMALL))


def face_at(boxes: Sequence[Box], point: Point) -> int | None:
    """Return which of the boxes a point means: the smallest that holds it. None: none does."""
    held = [k for k, (left, top, w, h) in enumerate(boxes) if 0 <= point.x - left <= w and 0 <= point.y - top <= h]
    return min(held, key=lambda k: boxes[k][2] * boxes[k][3], default=None)


def point_in(boxes: Sequence[Box], k: int) -> Point:
    """Return a point that means that one of the boxes; its middle, unless a smaller face lies before it there."""
    left, top, width, height = boxes[k]
    inside = [Point(_within(left + i * width), _within(top + j * height)) for j in TRIED for i in TRIED]
    return next((point for point in inside if face_at(boxes, point) == k), inside[0])


def _within(share: float) -> float:
    return round(min(max(share, 0.0), 1.0), 4)
