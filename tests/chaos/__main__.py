"""./run.sh chaos NAME: does one of them, prints what came of it, and fails if anything was lost."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

from tests.chaos import bombs, crashes, crowd, disk, frame, inbox, kills, machines, soak

CHAOS: dict[str, Callable[[int, int], list[str]]] = {
    "kills": kills.run,
    "stops": kills.run_stops,
    "crashes": crashes.run,
    "bombs": bombs.run,
    "crowd": crowd.run,
    "disk": disk.run,
    "soak": soak.run,
    "frame": frame.run,
    "machines": machines.run,
}
INBOX = "inbox"  # takes one number more


def main() -> int:
    parser = argparse.ArgumentParser(prog="run.sh chaos", description=__doc__)
    parser.add_argument("name", choices=[*CHAOS, INBOX])
    parser.add_argument(
        "--count",
        type=int,
        default=20,
        help="how often; of a crowd, how many at one time; of bombs, how many damaged photos; of a soak, minutes;"
        " of a frame, hundreds of pictures",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=1000, help="of an inbox: how many photos are put in")
    args = parser.parse_args()
    run = partial(inbox.run, files=args.files) if args.name == INBOX else CHAOS[args.name]
    faults = run(args.count, args.seed)
    for fault in faults:
        print(f"✗ {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
