"""What a studio says to a machine that works for it: a job, with what is to be fetched for it; and which shall end."""

from __future__ import annotations

from dataclasses import dataclass

PHOTO = "photo"  # stands in a request for the path of one, which is of the studio's machine alone


@dataclass(frozen=True, slots=True)
class Order:
    """
    A job, and which attempt at it. `request` is packed. `photo_bytes`, `photo_sha256`: of the photo that it begins
    with; 0: with none. `pictures`: those on which its snapshot counts, if it has one.
    """

    id: str
    attempt: int
    request: str
    photo_name: str
    photo_bytes: int
    photo_sha256: str
    has_snapshot: bool
    pictures: tuple[str, ...]

    @property
    def path(self) -> str:
        """Return below which address all that is the job's can be had and sent, as long as it is this attempt's."""
        return f"/workers/jobs/{self.id}/{self.attempt}"


@dataclass(frozen=True, slots=True)
class Echo:
    """
    What a machine hears when it has said how it is: its name at the studio, whether the studio `calls` machines to
    their jobs, and which of its jobs shall end.
    """

    name: str
    calls: bool
    cancelled: tuple[str, ...] = ()
