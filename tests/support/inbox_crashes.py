"""
`python -m tests.support.inbox_crashes FOLDER`: the watch folder is killed before each single thing that it does to a
disk, one after the other, started again, and looked at. Prints how many points there were, and then what went wrong.

A process that forks, and so none with threads: that of a test may have some.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.files import HALF_WRITTEN
from engines.jobs.database import Database
from tests.support.inboxes import PACE, House, broken, checksum, photo, restored
from webui.watch.contact_sheet import FOLDER
from webui.watch.ledger import Ledger

KILLED = 9
DAY_S = 86400
EFFECTS = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.chmod", "os.utime", "socket.connect")  # audit events
PHOTOS = {"a.png": photo(1, "PNG"), "x/b.png": photo(2, "PNG"), "twice.png": photo(1, "PNG"), "c.png": photo(3, "PNG")}
CHANGED = {**PHOTOS, "c.png": photo(4, "PNG")}


@dataclass
class Count:
    """Things done so far, and the one before which the process is killed; 0: none."""

    last: int = 0
    number: int = 0

    def next(self) -> None:
        self.number += 1
        if self.number == self.last:
            os._exit(KILLED)


def life(root: Path, count: Count) -> None:
    """Put photos in, and later another in the place of one; rename one; and let it all be done."""
    house = House(root)
    count_effects(count)
    house.until_done()
    if (old := house.inbox / "a.png").exists():
        old.rename(house.inbox / "renamed.png")
    house.put("c.png", CHANGED["c.png"], mtime_s=5)
    house.until_done()
    house.hands.now_s += DAY_S  # then there is a sheet of today
    house.until_done()
    house.close()


def count_effects(count: Count) -> None:
    """From now on, for as long as this process lives."""

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EFFECTS or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT):
            count.next()

    sys.addaudithook(hear)
    for kind in (Database, Ledger):
        kind._transaction = _counted(kind._transaction, count)  # type: ignore[method-assign,assignment]


def _counted(real: Callable[..., Any], count: Count) -> Callable[..., Any]:
    def counted(*given: Any, **named: Any) -> Any:
        count.next()
        return real(*given, **named)

    return counted


def prepare(root: Path) -> None:
    house = House(root)
    for path, data in PHOTOS.items():
        house.put(path, data, mtime_s=7)
    house.put("bad.jpg", broken(1), mtime_s=7)
    house.close()


def forked(work: Callable[[], None]) -> int:
    """Do it in a process of its own. Return its exit status."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        work()
        status = 0
    finally:  # the child must not go on as its parent
        if status:
            traceback.print_exc()
        os._exit(status)


def faults(root: Path) -> list[str]:
    """Look at what is there when all is done."""
    house, wrong = House(root), list[str]()
    for _ in range(2):
        house.until_done()
    house.pass_s(PACE.again_s)
    contents = {*PHOTOS.values(), *CHANGED.values(), broken(1)}
    jobs = house.jobs()
    if jobs != dict.fromkeys(map(checksum, contents), 1):
        wrong.append(f"jobs: {sorted(jobs.values())} for {len(contents)} contents")
    results = house.results()
    wanted = {path: restored(data) for path, data in CHANGED.items() if path != "a.png"}
    wanted["renamed.png"] = restored(PHOTOS["a.png"])
    results.pop("a.png", None)  # it was laid down, or was renamed before: as the moment has it
    if results != wanted:
        wrong.append(f"results: {sorted(results)}, of which {sorted(k for k in wanted if results.get(k) != wanted[k])}")
    if [path.suffix for path in sorted((house.outbox / FOLDER).iterdir())] != [".jpg", ".txt"]:
        wrong.append("the day has not its sheet")
    if half := [path.name for path in house.outbox.rglob(HALF_WRITTEN)]:
        wrong.append(f"half written: {half}")
    if house.report().count("bad.jpg") != 1:
        wrong.append("the report does not name the photo that failed")
    originals = {p.relative_to(house.inbox).as_posix(): p.read_bytes() for p in house.inbox.rglob("*") if p.is_file()}
    left = {path: data for path, data in CHANGED.items() if path != "a.png"}
    if originals != {**left, "renamed.png": PHOTOS["a.png"], "bad.jpg": broken(1)}:
        wrong.append("an original was touched")
    house.close()
    return wrong


def killed_at_each(
    folder: Path,
    prepare: Callable[[Path], None],
    life: Callable[[Path, Count], None],
    faults: Callable[[Path], list[str]],
) -> int:
    """Live each life again and again, killed before one thing more each time. Print what went wrong; return 1 then."""
    wrong, last = list[str](), 0
    while True:
        last += 1
        root = folder / str(last)
        prepare(root)
        status = forked(lambda root=root, last=last: life(root, Count(last)))  # type: ignore[misc]
        if status not in (0, KILLED):
            wrong.append(f"before thing {last}: the process ended with {status}")
            break
        if status == KILLED:
            forked(lambda root=root: life(root, Count()))  # type: ignore[misc]
        wrong += [f"killed before thing {last}: {fault}" for fault in faults(root)]
        if status == 0:
            break
    print(last - 1, *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(killed_at_each(Path(sys.argv[1]), prepare, life, faults))
