"""
What is done when memory runs out in the middle of a job, though it was planned with: all that is loaded is freed, and
the job goes on, from its snapshot if it has one, with one part after the other, then decoded in pieces, then in smaller
ones; and at last on another engine, if the request lets one choose, from the start. The rung that worked is where the
next job of the kind begins. One part after the other gives the same picture to the bit; in pieces it is a little
another one.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

from engines.errors import EngineUnavailable, MemoryShort, OutOfMemory
from engines.jobs.leftovers import delete_picture
from engines.messages import Event, Preview
from engines.roles.loaded import LoadedBundles
from engines.roles.memory import THRIFTIEST
from engines.studio import snapshot
from engines.studio.snapshot import Snapshots

log = logging.getLogger(__name__)
# A job, by how thriftily, as memory.plan says, and by how many of the best engines are passed over.
Run = Callable[[int, int], Iterator[Event]]


class MemoryLadder:
    def __init__(self, bundles: LoadedBundles) -> None:
        self.bundles = bundles
        self.worked: defaultdict[Hashable, int] = defaultdict(int)  # by the kind of job: the rung

    def climb(
        self, kind: Hashable, snapshots: Snapshots, folder: Path, run: Run, last: int = THRIFTIEST
    ) -> Iterator[Event]:
        """
        Run the job, as thriftily as `last` at most, and after that on another engine. An attempt after another, which
        may have been ended for want of memory, begins with one part after the other. OutOfMemory: no rung has helped.
        """
        first, other = max(self.worked[kind], min(1, snapshots.attempt - 1)), last + 1
        why = ""
        for rung in range(min(first, other), other + 1):
            shown: list[str] = []
            try:
                for event in run(min(rung, last), int(rung == other)):
                    if isinstance(event, Preview):
                        shown.append(event.image)
                    yield event
            except (OutOfMemory, MemoryError) as exc:
                why = str(exc) or "no memory"
            except (EngineUnavailable, MemoryShort):
                if rung < other or not why:
                    raise
                break  # there is no other, or none that fits
            else:
                self.worked[kind] = rung
                return
            log.warning("memory has run out, rung %d of %d: %s", rung, other, why)
            self.bundles.close()
            _delete_uncounted(shown, snapshots, folder)
        raise OutOfMemory(why)


def _delete_uncounted(shown: list[str], snapshots: Snapshots, folder: Path) -> None:
    """Delete the pictures that will be drawn again."""
    begun = snapshot.latest(snapshots)
    for name in set(shown) - set(begun.names if begun else ()):
        delete_picture(folder, name)
