"""./run.sh build ...: makes bundles out of checkpoints."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from engines.toolchain import build


def main() -> None:
    parser = argparse.ArgumentParser(prog="run.sh build", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    portrait = kinds.add_parser(
        "portrait", help="from a diffusers folder of Z-Image's classes, with preview_decoder/ beside"
    )
    portrait.add_argument("--base", type=Path, required=True)
    restorer = kinds.add_parser("restorer", help="from a GPEN state dict in safetensors")
    restorer.add_argument("--weights", type=Path, required=True)
    for kind in (portrait, restorer):
        kind.add_argument("--about", type=Path, required=True, help="TOML: what weights cannot say of themselves")
        kind.add_argument("--out", type=Path, required=True, help="the bundle's folder; one that is there is replaced")
    args = parser.parse_args()
    started = time.perf_counter()
    if args.kind == "portrait":
        bundle = build.build_portrait(args.base, args.about, args.out)
    else:
        bundle = build.build_restorer(args.weights, args.about, args.out)
    bundle.verify()
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
