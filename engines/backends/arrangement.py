"""
Which part of a bundle runs on which engine. Bundles hold a role in several precisions, and an engine reads more than
one of them: each is a way of its own to run the bundle, with its own quality and its own time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from engines.backends.protocols import Engine, Probe, Session
from engines.bundle import PRECISIONS, Bundle, Format, Part, Precision, Role
from engines.errors import BundleError
from engines.messages.status import Group


@dataclass(frozen=True)
class Arrangement:
    """One part with its engine for each role, in the order of the roles' names; to who loads parts an engine."""

    placed: tuple[tuple[Part, Engine], ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(part for part, _ in self.placed)

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Return the engines, each once, in the order of their names."""
        by_name = {engine.name: engine for _, engine in self.placed}
        return tuple(by_name[name] for name in sorted(by_name))

    @property
    def name(self) -> str:
        return "+".join(engine.name for engine in self.engines)

    @property
    def placement(self) -> str:
        """Name it by where each role runs, where that is not the same for all: `decoder=ort,denoiser=openvino`."""
        if len(self.engines) == 1:
            return self.name
        return ",".join(f"{part.role}={engine.name}" for part, engine in self.placed)

    @property
    def formats(self) -> frozenset[Format]:
        return frozenset[Format]().union(*(engine.formats for engine in self.engines))

    @property
    def group(self) -> Group:
        return "pytorch" if any(engine.group == "pytorch" for engine in self.engines) else "edge"

    @property
    def rank(self) -> int:
        return max(engine.rank for engine in self.engines)

    @property
    def trusted(self) -> bool:
        return all(engine.trusted for engine in self.engines)

    def probe(self) -> Probe:
        """Return the engine's; of several, all that they say, and that they can only if each can."""
        probes = [engine.probe() for engine in self.engines]
        if len(probes) == 1:
            return probes[0]
        devices = "+".join(dict.fromkeys(probe.device for probe in probes))
        reasons = ", ".join(dict.fromkeys(probe.reason for probe in probes))
        return Probe(all(p.ok for p in probes), devices, reasons, ", ".join(p.runtime for p in probes))

    def part(self, bundle: Bundle, role: Role) -> Part:
        """Return the part for a role. BundleError: there is none."""
        return self._of(bundle, role)[0]

    def engine(self, bundle: Bundle, role: Role) -> Engine:
        """Return the engine of a role. BundleError: there is none."""
        return self._of(bundle, role)[1]

    def load(self, bundle: Bundle, part: Part) -> Session:
        """Open a part on its role's engine."""
        return self._of(bundle, part.role)[1].load(bundle, part)

    def _of(self, bundle: Bundle, role: Role) -> tuple[Part, Engine]:
        for part, engine in self.placed:
            if part.role == role:
                return part, engine
        raise BundleError(f"{bundle.name} has no {role} on {self.name}", bundle=bundle.name)


def coarsest(parts: Iterable[Part]) -> Precision | None:
    """Return the coarsest arithmetic of any of these parts; None: there are none."""
    return max((part.precision for part in parts), key=PRECISIONS.index, default=None)


def arrangements(bundle: Bundle, engine: Engine, refuses: Callable[[Part], str]) -> list[Arrangement]:
    """
    List the ways in which an engine can run a bundle, the finest first: for each precision that it can read, of every
    role the coarsest part that is no coarser. None: a role has no part that it can read and does not refuse.
    """
    able = [part for part in bundle.parts if part.format in engine.formats and not refuses(part)]
    roles = sorted(bundle.roles)
    if {part.role for part in able} != set(roles):
        return []
    levels = sorted({PRECISIONS.index(part.precision) for part in able})
    chosen = [tuple(_at(level, [part for part in able if part.role == role]) for role in roles) for level in levels]
    return [Arrangement(tuple((part, engine) for part in parts)) for parts in dict.fromkeys(chosen)]


def _at(level: int, parts: Sequence[Part]) -> Part:
    """Return the coarsest part that is no coarser than a level; where all are, the finest. Of equals the first."""
    finest = min(parts, key=lambda part: PRECISIONS.index(part.precision))
    within = [part for part in parts if PRECISIONS.index(part.precision) <= level]
    return max(within, key=lambda part: PRECISIONS.index(part.precision), default=finest)


def spelled(bundle: Bundle, arrangement: Arrangement) -> str:
    """Write an arrangement down, for another process that has the same bundle: `decoder=ort:3,denoiser=ort:0`."""
    return ",".join(f"{part.role}={engine.name}:{bundle.parts.index(part)}" for part, engine in arrangement.placed)


def read(bundle: Bundle, text: str, engine: Callable[[str], Engine]) -> Arrangement:
    """Read what `spelled` wrote. EngineUnavailable: an engine is not here. ValueError, IndexError: it is no such."""
    placed = []
    for entry in text.split(","):
        name, _, number = entry.partition("=")[2].partition(":")
        placed.append((bundle.parts[int(number)], engine(name)))
    return Arrangement(tuple(placed))
