"""
Engines run graphs; they know nothing about portraits.

An engine lives in `<name>_backend.py` and exports `ENGINE`; the file name is the registration. Importing such a file
must cost nothing: its runtime is imported when something is loaded, so that asking what is here is free and the edge
path never sees torch.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from engines.bundle import Bundle, Format, Part
from engines.errors import EngineUnavailable
from engines.signatures import Array

PREFERENCE = ("tensorrt", "openvino", "ort", "torch")  # among engines on equal devices; one not named here comes last
GROUPS = {"pytorch": ("torch",), "edge": ("tensorrt", "openvino", "ort")}


@dataclass(frozen=True)
class Probe:
    """`device` is "CPU" or an accelerator's name; `reason` says why not, or with what."""

    ok: bool
    device: str
    reason: str


class Session(Protocol):
    """One graph on one device. Names and shapes are those of engines/signatures.py, on every engine."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]: ...

    def close(self) -> None: ...


class Engine(Protocol):
    name: str
    formats: frozenset[Format]

    def probe(self) -> Probe: ...

    def load(self, bundle: Bundle, part: Part) -> Session: ...


def names() -> list[str]:
    """Engines whose file is here, in order of preference."""
    found = [m.name.removesuffix("_backend") for m in pkgutil.iter_modules(__path__) if m.name.endswith("_backend")]
    return sorted(found, key=lambda name: PREFERENCE.index(name) if name in PREFERENCE else len(PREFERENCE))


def engine(name: str) -> Engine:
    """EngineUnavailable: there is no such engine."""
    if name not in names():
        raise EngineUnavailable(
            f"no engine is called {name!r}; there are {', '.join(names())}", wanted=name, why="no such engine"
        )
    found: Engine = importlib.import_module(f"{__name__}.{name}_backend").ENGINE
    return found


def engines() -> Iterator[Engine]:
    return map(engine, names())


def select(bundle: Bundle, wanted: str = "auto") -> tuple[Engine, str]:
    """The engine to run every part of a bundle, and one line saying why it and what became of the others.

    wanted: auto | pytorch | edge | an engine's name. An accelerator wins over the CPU. EngineUnavailable: none can.
    """
    able: list[tuple[Engine, Probe]] = []
    refused: list[str] = []
    for candidate in _candidates(wanted):
        probe = candidate.probe()
        reason = probe.reason if not probe.ok else _unreadable(bundle, candidate)
        if reason:
            refused.append(f"{candidate.name}: {reason}")
        else:
            able.append((candidate, probe))
    if not able:
        raise EngineUnavailable(f"{bundle.name}: {'; '.join(refused)}", wanted=wanted, why="; ".join(refused))
    able.sort(key=lambda pair: pair[1].device == "CPU")
    (chosen, probe), others = able[0], [f"{other.name}: also ready" for other, _ in able[1:]]
    aside = "; ".join(refused + others)
    return chosen, f"{chosen.name} on {probe.device}, {probe.reason}" + (f" ({aside})" if aside else "")


def _candidates(wanted: str) -> list[Engine]:
    if wanted == "auto":
        return list(engines())
    return [engine(name) for name in GROUPS.get(wanted, (wanted,)) if wanted not in GROUPS or name in names()]


def _unreadable(bundle: Bundle, candidate: Engine) -> str:
    readable = {part.role for part in bundle.parts if part.format in candidate.formats}
    missing = sorted(bundle.roles - readable)
    return f"cannot read this bundle's {', '.join(missing)}" if missing else ""


def cores() -> int:
    """Processors this process may use: taskset and container limits on the set of processors count."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
