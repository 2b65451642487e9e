"""./run.sh bench [name ...]: run the named measurements, or all of them, one after the other."""

from __future__ import annotations

import sys

from benchmarks import decoders, gpen, photos, precisions, pruned, studio

MEASUREMENTS = {
    "studio": studio.main,
    "gpen": gpen.main,
    "decoders": decoders.main,
    "precisions": precisions.main,
    "photos": photos.main,
    "pruned": pruned.main,
}


def main() -> None:
    names = sys.argv[1:] or list(MEASUREMENTS)
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        sys.exit(f"no measurement is called {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
    for name in names:
        MEASUREMENTS[name]()


if __name__ == "__main__":
    main()
