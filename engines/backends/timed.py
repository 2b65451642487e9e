"""
How long each run of a session takes. Knows roles and the shapes of their feeds; what the seconds are good for, the
proof and the studio know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from engines.backends import ReleasesMemory, Session
from engines.bundle import Role
from engines.bundle.signatures import SIGNATURES, Array


@dataclass(frozen=True, slots=True)
class RoleRun:
    """
    One run of a role's session. `cells`: how many the picture has that it was fed, latent cells or pixels; of a text
    encoder, how many tokens.
    """

    role: Role
    cells: int
    seconds: float


Note = Callable[[RoleRun], None]


@dataclass(frozen=True)
class TimedSession:
    """A session, each of whose runs is noted. One that raises is not."""

    session: Session
    role: Role
    note: Note

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        begun = time.perf_counter()
        results = self.session.run(feeds)
        fed = feeds[next(iter(SIGNATURES[self.role].inputs))]
        cells = fed.shape[-1] * (fed.shape[-2] if fed.ndim == 4 else 1)
        self.note(RoleRun(self.role, cells, time.perf_counter() - begun))
        return results

    def release_memory(self) -> None:
        if isinstance(self.session, ReleasesMemory):
            self.session.release_memory()

    def close(self) -> None:
        self.session.close()


def lower_quartiles(runs: Iterable[RoleRun]) -> dict[str, float]:
    """
    Return the seconds of a run of each role that ran, so that a quarter of its runs took less. Not the median: a run
    takes up to twice as long after another network's, whose memory it has to fetch anew, and how often that happens is
    a matter of previews.
    """
    seconds: dict[str, list[float]] = {}
    for run in runs:
        seconds.setdefault(run.role, []).append(run.seconds)
    return {role: rounded_s(sorted(values)[len(values) // 4]) for role, values in seconds.items()}


def rounded_s(seconds: float) -> float:
    """Return seconds to four digits: what takes 40 microseconds was timed, and 0 would say that it was not."""
    return float(f"{seconds:.4g}")
