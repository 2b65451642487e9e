"""
The rooms of a package, and who imports whom: `python -m tests.support.import_graph [package]`.

A room is a direct sub-package, or a module that lies flat in the package. An arrow is a room that imports another, at
the top of a module or inside a function. Floors are the rooms on the longest path of arrows. Read by ast: nothing is
imported. It also says how many modules the contracts of import-linter (pyproject.toml) look at.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
Arrows = Mapping[str, frozenset[str]]


def modules(package: str) -> dict[str, Path]:
    """Every module of the package by its dotted name, the package itself among them."""
    root = REPOSITORY / package
    return {dotted(path): path for path in sorted(root.rglob("*.py"))}


def dotted(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Names that a file imports, as `package.module` or `package.module.name`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name: str, package: str) -> str:
    """The room that a dotted name lies in; empty for the package itself and for what is outside."""
    return name.removeprefix(f"{package}.").partition(".")[0] if name.startswith(f"{package}.") else ""


def flat_modules(package: str) -> set[str]:
    """Modules that lie in the package's own folder."""
    return {path.stem for path in (REPOSITORY / package).glob("*.py")} - {"__init__", "__main__"}


def arrows(package: str) -> Arrows:
    """Of every room the other rooms that it imports."""
    here = modules(package)
    names = {room(name, package) for name in here} - {"", "__main__"}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for name, path in here.items():
        if (source := room(name, package)) in names:
            graph[source] |= {room(target, package) for target in imports(path)} & names - {source}
    return {name: frozenset(targets) for name, targets in graph.items()}


def floors(graph: Arrows) -> int:
    """How many rooms lie on the longest path. graphlib.CycleError: rooms import each other in a circle."""
    height: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        height[name] = 1 + max((height[below] for below in graph[name]), default=0)
    return max(height.values(), default=0)


def covered(package: str) -> int:
    """How many modules a contract about what is inside the package names, alone or by the room that they lie in."""
    config = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    named: set[str] = set()
    for contract in config["tool"]["importlinter"]["contracts"]:
        named |= {name.removesuffix(".**") for name in contract.get("source_modules", ()) if name != package}
        layers = [
            name.strip("() ") for layer in contract.get("layers", ()) for name in layer.replace(":", "|").split("|")
        ]
        named |= {f"{parent}.{name}" for parent in contract.get("containers", ()) for name in layers}
    return sum(any(f"{name}.".startswith(f"{top}.") for top in named) for name in modules(package))


def main(package: str = "engines") -> None:
    graph = arrows(package)
    for name, targets in sorted(graph.items()):
        print(f"{name} -> {', '.join(sorted(targets)) or '-'}")
    count = sum(map(len, graph.values()))
    print(f"{package}: {len(graph)} rooms, {floors(graph)} floors, {count} arrows")
    print(f"{covered(package)} of {len(modules(package))} modules in contracts about its inside")


if __name__ == "__main__":
    main(*sys.argv[1:])
