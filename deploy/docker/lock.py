"""
Write requirements-*.txt: every package of each image at its version in constraints.txt, with the hashes of the wheels
that pip takes for Debian's Python 3.11 on amd64 and arm64, and of no other file. Needs uv and packaging:

    python deploy/docker/lock.py [--find-links FOLDER]     FOLDER: with torch's wheel of the CPU, if no index has it
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PYTHON = (3, 11)
GLIBC = 36  # 2.36, of Debian 12
OLDEST_GLIBC = 5  # that manylinux has a name for
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
EDGE = ("mcp", "mqtt")
TORCH = (*EDGE, "torch", "build")
# What huggingface_hub would load files with: the program has its own way (engines/catalogue/fetch.py), and it is 11 MB.
LEFT_OUT = frozenset({"hf-xet"})
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Image:
    """`machines` that it is made for, in the kernel's words, and the extras of pyproject.toml that are in it."""

    extras: tuple[str, ...]
    machines: tuple[str, ...] = ("x86_64", "aarch64")
    cpu_torch: bool = False


IMAGES = {
    "edge": Image(EDGE),
    "full": Image(TORCH, machines=("x86_64",), cpu_torch=True),
    "cuda": Image(TORCH),
    "redis": Image((*EDGE, "scale")),
}
HEADER = """\
# Made by deploy/docker/lock.py from pyproject.toml and constraints.txt: change those, and run it again.
# For Python {python} on {machines}. Install with pip's --require-hashes --no-deps.
"""


def tags(machine: str) -> list[Tag]:
    """List what pip accepts in the image, the best first."""
    platforms = []
    for minor in range(GLIBC, OLDEST_GLIBC - 1, -1):
        platforms.append(f"manylinux_2_{minor}_{machine}")
        if minor in LEGACY:
            platforms.append(f"{LEGACY[minor]}_{machine}")
    platforms.append(f"linux_{machine}")
    return [
        *cpython_tags(PYTHON, platforms=platforms),
        *compatible_tags(PYTHON, interpreter=f"cp{PYTHON[0]}{PYTHON[1]}", platforms=platforms),
    ]


def chosen(package: dict, machine: str) -> str:
    """Return the hash of the wheel that pip takes. LookupError: there is none for this machine."""
    order = {tag: place for place, tag in enumerate(tags(machine))}
    ranked = []
    for wheel in package.get("wheels", []):
        name = unquote((wheel.get("url") or wheel["path"]).rsplit("/", 1)[-1])
        if places := [order[tag] for tag in parse_wheel_filename(name)[3] if tag in order]:
            ranked.append((min(places), wheel["hashes"]["sha256"]))
    if not ranked:
        raise LookupError(f"{package['name']} {package['version']} has no wheel for {machine}")
    return min(ranked)[1]


def resolved(image: Image, machine: str, find_links: Sequence[str]) -> dict[str, dict]:
    command = ["uv", "pip", "compile", "pyproject.toml", "-c", "constraints.txt", "-q", "--format", "pylock.toml"]
    command += ["--python-platform", f"{machine}-manylinux_2_{GLIBC}", "--python-version", "3.11"]
    command += [word for extra in image.extras for word in ("--extra", extra)]
    if image.cpu_torch:
        command += [word for place in find_links or [CPU_INDEX] for word in ("--find-links", place)]
    text = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return {package["name"]: package for package in tomllib.loads(text)["packages"]}


def lines(image: Image, find_links: Sequence[str]) -> list[str]:
    of_machine = {machine: resolved(image, machine, find_links) for machine in image.machines}
    first = of_machine[image.machines[0]]
    for machine, packages in of_machine.items():
        if set(packages) != set(first):
            raise LookupError(f"other packages for {machine}: {sorted(set(packages) ^ set(first))}")
    pinned = []
    for name in sorted(set(first) - LEFT_OUT):
        hashes = dict.fromkeys(chosen(of_machine[machine][name], machine) for machine in image.machines)
        version = first[name]["version"]
        pinned.append(" \\\n    ".join([f"{name}=={version}", *(f"--hash=sha256:{digest}" for digest in hashes)]))
    return pinned


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--find-links", action="append", default=[])
    places = parser.parse_args().find_links
    for name, image in IMAGES.items():
        machines = ", ".join(image.machines)
        header = HEADER.format(python=".".join(map(str, PYTHON)), machines=machines)
        path = HERE / f"requirements-{name}.txt"
        path.write_text(header + "\n".join(lines(image, places)) + "\n", encoding="utf-8")
        print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
