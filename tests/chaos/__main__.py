"""./run.sh chaos NAME: does one of them, prints what came of it, and fails if anything was lost."""

from __future__ import annotations

import argparse
import sys

from tests.chaos import bombs, crashes, crowd, disk, frame, kills, soak

CHAOS = {
    "kills": kills.run,
    "stops": kills.run_stops,
    "crashes": crashes.run,
    "bombs": bombs.run,
    "crowd": crowd.run,
    "disk": disk.run,
    "soak": soak.run,
    "frame": frame.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="run.sh chaos", description=__doc__)
    parser.add_argument("name", choices=CHAOS)
    parser.add_argument(
        "--count",
        type=int,
        default=20,
        help="how often; of a crowd, how many at one time; of bombs, how many damaged photos; of a soak, minutes;"
        " of a frame, hundreds of pictures",
    )
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    faults = CHAOS[args.name](args.count, args.seed)
    for fault in faults:
        print(f"✗ {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
