"""
./run.sh bench [name ...]: run the named measurements, or all of the first ones, one after the other. Those of large
models take an hour or more and 35 GB of disk, `quota` must be root: they are run by name alone.
"""

from __future__ import annotations

import sys

from benchmarks import (
    capacity,
    decoders,
    estimates,
    gpen,
    history,
    large,
    machines,
    operators,
    peers,
    photos,
    precisions,
    pruned,
    quota,
    split,
    studio,
    watch,
    workers,
)

MEASUREMENTS = {
    "studio": studio.main,
    "gpen": gpen.main,
    "decoders": decoders.main,
    "precisions": precisions.main,
    "photos": photos.main,
    "pruned": pruned.main,
    "estimates": estimates.main,
    "history": history.main,
    "machines": machines.main,
    "operators": operators.main,
    "watch": watch.main,
    "split": split.main,
    "workers": workers.main,
    "capacity": capacity.main,
}
BY_NAME = {"quota": quota.main, "sd": large.sd, "zimage": large.zimage, "peers": peers.main}


def main() -> None:
    names, measurements = sys.argv[1:] or list(MEASUREMENTS), {**MEASUREMENTS, **BY_NAME}
    if unknown := [name for name in names if name not in measurements]:
        sys.exit(f"no measurement is called {', '.join(unknown)}; there are {', '.join(measurements)}")
    for name in names:
        measurements[name]()


if __name__ == "__main__":
    main()
