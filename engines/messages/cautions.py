"""What front doors are to say beside a result: it is there, and something of it is not as somebody may think."""

from __future__ import annotations

from dataclasses import dataclass, field

from engines.errors import Fact


@dataclass(frozen=True, slots=True)
class Caution:
    """`code`: by which a front door finds its sentence, and `facts` fill it."""

    code: str
    facts: dict[str, Fact] = field(default_factory=dict)


def cut_off(missing: float) -> tuple[Caution, ...]:
    """Return what to say of a photo of which this share, 0 to 1, is missing."""
    return (Caution("photo_cut_off", {"percent": max(1, round(100 * missing))}),) if missing else ()
