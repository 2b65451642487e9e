"""
Engines run graphs; they know nothing about portraits.

An engine lives in `<name>_backend.py` and exports `ENGINE`; the file name is the registration. Importing such a file
must cost nothing: its runtime is imported when something is loaded, so that asking what is here is free and the edge
path never sees torch.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pkgutil
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Protocol, runtime_checkable

from engines.backends import verdicts
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import PRECISIONS, Bundle, Format, Part
from engines.bundle.loras import LoraFile
from engines.bundle.signatures import Array
from engines.errors import EngineUnavailable, LoraError, OptionError

PREFERENCE = ("tensorrt", "openvino", "ort", "torch")  # among engines on equal devices; one not named here comes last
GROUPS = {"pytorch": ("torch",), "edge": ("tensorrt", "openvino", "ort")}
TRUSTED = ("ort", "torch")  # with fp32 parts: the toolchain has held their graphs against the source to 1e-4
FOR_LORAS = "auto, pytorch; this engine takes a LoRA in a bundle built with --lora"


@dataclass(frozen=True)
class Probe:
    """`device` is "CPU" or an accelerator's name; `reason` says why not, or with what; `runtime` is the version."""

    ok: bool
    device: str
    reason: str
    runtime: str = ""


class Session(Protocol):
    """One graph on one device. Names and shapes are those of engines/bundle/signatures.py, on every engine."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]: ...

    def close(self) -> None: ...


@runtime_checkable
class AcceptsLoras(Protocol):
    """A session of a denoiser that takes LoRAs."""

    def apply_loras(self, loras: Sequence[LoraFile]) -> tuple[LoraError, ...]:
        """Apply these LoRAs from now on, and no others. Return why some cannot be."""


@runtime_checkable
class RefusesParts(Protocol):
    """An engine that cannot compute every part it can read."""

    def refuses(self, part: Part) -> str:
        """Return why the engine cannot compute this part; empty: it can."""


class Engine(Protocol):
    name: str
    formats: frozenset[Format]

    def probe(self) -> Probe: ...

    def load(self, bundle: Bundle, part: Part) -> Session: ...


def names() -> list[str]:
    """Return the names of engines whose file is here, in order of preference."""
    here = [m.name.removesuffix("_backend") for m in pkgutil.iter_modules(__path__) if m.name.endswith("_backend")]
    return sorted(here, key=lambda name: PREFERENCE.index(name) if name in PREFERENCE else len(PREFERENCE))


def engine(name: str) -> Engine:
    """Return the engine of that name. EngineUnavailable: there is none."""
    if name not in names():
        raise EngineUnavailable(
            f"no engine is called {name!r}; there are {', '.join(names())}", wanted=name, why="no such engine"
        )
    exported: Engine = importlib.import_module(f"{__name__}.{name}_backend").ENGINE
    return exported


def engines() -> Iterator[Engine]:
    return map(engine, names())


@dataclass(frozen=True)
class Candidate:
    """One engine for one bundle: can it run it, with which parts, and what did its proof on this machine say."""

    engine: Engine
    probe: Probe
    parts: tuple[Part, ...]
    refused: str = ""  # why it cannot, or may not
    verdict: Verdict | None = None

    @property
    def precision(self) -> str:
        """The coarsest arithmetic of any part; empty where nothing is readable."""
        return max((part.precision for part in self.parts), key=PRECISIONS.index, default="")

    @property
    def trusted(self) -> bool:
        return self.engine.name in TRUSTED and self.precision == "fp32"

    @property
    def key(self) -> str:
        parts = ((part.sha256, part.precision) for part in self.parts)
        device = f"{self.probe.device} {processor()}"
        return verdicts.key(self.engine.name, device, self.probe.runtime, parts)


def candidate(bundle: Bundle, engine: Engine, known: Verdicts | None = None) -> Candidate:
    probe = engine.probe()
    readable = {part.role for part in bundle.parts if part.format in engine.formats}
    missing = sorted(bundle.roles - readable)
    if not probe.ok:
        return Candidate(engine, probe, (), probe.reason)
    if missing:
        return Candidate(engine, probe, (), f"cannot read this bundle's {', '.join(missing)}")
    found = Candidate(engine, probe, tuple(bundle.part(role, engine.formats) for role in sorted(readable)))
    if why := "; ".join(filter(None, map(engine.refuses, found.parts))) if isinstance(engine, RefusesParts) else "":
        return replace(found, parts=(), refused=why)
    verdict = known.get(found.key) if known else None
    refused = f"failed its proof, {verdict.failing}" if verdict and verdict.failing else ""
    return replace(found, refused=refused, verdict=verdict)


def select(bundle: Bundle, wanted: str = "auto", known: Verdicts | None = None) -> tuple[Engine, str]:
    """
    The engine to run every part of a bundle, and one line saying why it and what became of the others.

    wanted: auto | pytorch | edge | an engine's name. The fastest of those whose proof was accepted; before there is
    one, an engine that is trusted, and any other last. Without a store of verdicts an accelerator comes first instead.
    EngineUnavailable: none can, or those that were asked for failed their proofs.
    """
    found = [candidate(bundle, engine, known) for engine in _wanted(wanted)]
    able = sorted((c for c in found if not c.refused), key=lambda c: _rank(c, known is not None))
    if not able:
        why = "; ".join(f"{c.engine.name}: {c.refused}" for c in found)
        raise EngineUnavailable(f"{bundle.name}: {why}", wanted=wanted, why=why)
    chosen, others = able[0], able[1:] + [c for c in found if c.refused]
    aside = "; ".join(f"{c.engine.name}: {_standing(c)}" for c in others)
    reason = f"{chosen.engine.name} on {chosen.probe.device}, {chosen.probe.reason}"
    if known is not None:
        verified = f", {_standing(chosen)}" if chosen.verdict or not chosen.trusted else ""
        reason += verified if chosen.probe.reason.endswith(chosen.precision) else f", {chosen.precision}{verified}"
    return chosen.engine, reason + (f" ({aside})" if aside else "")


def for_loras(wanted: str) -> str:
    """Return what to select for a request with LoRAs, which only PyTorch takes. OptionError: another was wanted."""
    able = ("pytorch", *GROUPS["pytorch"])
    if wanted not in ("auto", *able):
        raise OptionError("backend", wanted, FOR_LORAS)
    return wanted if wanted in able else "pytorch"


def _rank(c: Candidate, proving: bool) -> tuple[int, float, bool, bool, int]:
    stand = (0 if c.verdict else 1 if c.trusted else 2) if proving else 0
    order = PREFERENCE.index(c.engine.name) if c.engine.name in PREFERENCE else len(PREFERENCE)
    return stand, c.verdict.finish_s if c.verdict else 0.0, c.probe.device == "CPU", c.engine.name not in TRUSTED, order


def _standing(c: Candidate) -> str:
    if c.refused:
        return c.refused
    return f"verified, {c.verdict.finish_s:.2f} s" if c.verdict else "also ready" if c.trusted else "not verified yet"


def _wanted(wanted: str) -> list[Engine]:
    if wanted == "auto":
        return list(engines())
    return [engine(name) for name in GROUPS.get(wanted, (wanted,)) if wanted not in GROUPS or name in names()]


def version(package: str) -> str:
    """Return `name version` of an installed package, without importing it; empty where it is not installed."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""


def cores() -> int:
    """Count the processors this process may use, within the set that taskset or a container leaves it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def vocabulary(bundle: Bundle, part: Part) -> dict[str, int]:
    """
    Return how many rows the table has that `ids` look up in, where the bundle says so. A GPU looks beyond its end
    without a word, or never recovers from it.
    """
    if part.role != "text_encoder":
        return {}
    configs = [bundle.root / other.file / "config.json" for other in bundle.parts if other.role == part.role]
    config = next((path for path in configs if path.is_file()), None)
    return {"ids": int(json.loads(config.read_text(encoding="utf-8"))["vocab_size"])} if config else {}


@cache
def processor_flags() -> frozenset[str]:
    """
    Return what this processor can do, in the kernel's words ("avx512_bf16", "asimdhp"); empty where it is unknown.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(word for line in lines if line.startswith(("flags", "Features")) for word in line.split()[2:])


@cache
def processor() -> str:
    """Return a name for this kind of processor: what was compiled or proved on one says nothing about another."""
    facts = f"{platform.processor()} {sorted(processor_flags())}"
    return f"{platform.machine()} {hashlib.sha256(facts.encode()).hexdigest()[:16]}"
