"""
`python -m tests.support.stack_crashes FOLDER`: as inbox_crashes, where the results go onto stacks in immich too. It is
killed before each request as well, so that what was uploaded, and stacked, is not written down yet.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from tests.support.immich import asset_id
from tests.support.inbox_crashes import Count, count_effects, killed_at_each
from tests.support.inboxes import PACE, House, photo, restored

THERE, ABSENT = {"a.png": photo(1, "PNG"), "b.png": photo(2, "PNG")}, {"c.png": photo(3, "PNG")}
DIRECT = build_opener(ProxyHandler({}))


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def prepare(url: str, root: Path) -> None:
    DIRECT.open(url + "/forget", timeout=60).close()
    house = House(root)
    for path, data in (THERE | ABSENT).items():
        house.put(path, data, mtime_s=7)
    house.close()


def life(url: str, root: Path, count: Count) -> None:
    house = House(root, immich=url)
    count_effects(count)
    house.until_done()
    house.close()


def faults(url: str, root: Path) -> list[str]:
    house, wrong = House(root, immich=url), list[str]()
    for _ in range(4):
        house.pass_s(PACE.again_s)
    with DIRECT.open(url + "/state", timeout=60) as answer:
        state = json.load(answer)
    wanted = {sha1(restored(data)): asset_id("original " + sha1(data)) for data in THERE.values()}
    if sorted(state["uploads"]) != sorted(wanted):
        wrong.append(f"uploads: {len(state['uploads'])} of {len(set(state['uploads']))} results, {len(wanted)} wanted")
    if sorted(stack[1:] for stack in state["stacks"]) != sorted([original] for original in wanted.values()):
        wrong.append(f"stacks: {state['stacks']}")
    if house.report().count("immich") != 2:  # in each language
        wrong.append(f"the report does not say what is not in immich: {house.report()!r}")
    if house.results() != {path: restored(data) for path, data in (THERE | ABSENT).items()}:
        wrong.append(f"results: {sorted(house.results())}")
    house.close()
    return wrong


def main(folder: Path) -> int:
    command = [sys.executable, "-m", "tests.support.immich", *map(sha1, THERE.values())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as immich:
        assert immich.stdin is not None and immich.stdout is not None  # they were asked for
        url = immich.stdout.readline().strip()
        status = killed_at_each(folder, partial(prepare, url), partial(life, url), partial(faults, url))
        immich.stdin.close()
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
