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
import pkgutil
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from typing import Protocol, get_args, runtime_checkable

from engines.backends.verdicts import Verdict, Verdicts
from engines.backends.verdicts import key as verdict_key
from engines.bundle import PRECISIONS, Bundle, Format, Part
from engines.bundle.loras import LoraFile
from engines.bundle.signatures import Array
from engines.errors import EngineUnavailable, LoraError, OptionError
from engines.machine import processor_flags
from engines.machine.preflight import Trial
from engines.messages.status import Group

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
    """
    `rank` orders engines on equal devices, the lowest first. One that is `trusted` serves fp32 parts before its proof:
    the toolchain has held their graphs against the source to 1e-4. `trial`, of its name, imports its runtime, in a
    child, as that may end a process.
    """

    name: str
    formats: frozenset[Format]
    group: Group
    rank: int
    trusted: bool
    trial: Trial

    def probe(self) -> Probe: ...

    def load(self, bundle: Bundle, part: Part) -> Session: ...


def names() -> list[str]:
    """List the engines whose file is here, in order of preference."""
    return [engine.name for engine in engines()]


def engine(name: str) -> Engine:
    """Look an engine up by its name. EngineUnavailable: there is no such engine."""
    for registered in engines():
        if registered.name == name:
            return registered
    raise EngineUnavailable(
        f"no engine is called {name!r}; there are {', '.join(names())}", wanted=name, why="no such engine"
    )


def engines() -> Iterator[Engine]:
    """Import every engine whose file is here, and yield them in order of preference."""
    files = [module.name for module in pkgutil.iter_modules(__path__) if module.name.endswith("_backend")]
    registered: list[Engine] = [importlib.import_module(f"{__name__}.{file}").ENGINE for file in files]
    return iter(sorted(registered, key=lambda engine: (engine.rank, engine.name)))


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
        return self.engine.trusted and self.precision == "fp32"

    @property
    def key(self) -> str:
        parts = ((part.sha256, part.precision) for part in self.parts)
        device = f"{self.probe.device} {processor()}"
        return verdict_key(self.engine.name, device, self.probe.runtime, parts)


def candidate(bundle: Bundle, engine: Engine, verdicts: Verdicts | None = None) -> Candidate:
    """Probe an engine, hold a bundle's parts against what it reads, and look up what became of its proof."""
    probe = engine.probe()
    readable = {part.role for part in bundle.parts if part.format in engine.formats}
    missing = sorted(bundle.roles - readable)
    if not probe.ok:
        return Candidate(engine, probe, (), probe.reason)
    if missing:
        return Candidate(engine, probe, (), f"cannot read this bundle's {', '.join(missing)}")
    able = Candidate(engine, probe, tuple(bundle.part(role, engine.formats) for role in sorted(readable)))
    if why := "; ".join(filter(None, map(engine.refuses, able.parts))) if isinstance(engine, RefusesParts) else "":
        return replace(able, parts=(), refused=why)
    verdict = verdicts.get(able.key) if verdicts else None
    refused = f"failed its proof, {verdict.failing}" if verdict and verdict.failing else ""
    return replace(able, refused=refused, verdict=verdict)


def select(
    bundle: Bundle, wanted: str = "auto", verdicts: Verdicts | None = None, passed_over: int = 0
) -> tuple[Engine, str]:
    """
    Select the engine to run every part of a bundle, and say in one line why it and what became of the others.

    wanted: auto | pytorch | edge | an engine's name. The fastest of those whose proof was accepted; before there is
    one, an engine that is trusted, and any other last. Without a store of verdicts an accelerator comes first instead.
    `passed_over`: how many of the best not to take; the next one must have been proved or be trusted.
    EngineUnavailable: none can, or those that were asked for failed their proofs.
    """
    candidates = [candidate(bundle, engine, verdicts) for engine in engines() if _is_wanted(engine, wanted)]
    return choose(bundle, candidates, wanted, verdicts is not None, passed_over)


def choose(
    bundle: Bundle, candidates: Sequence[Candidate], wanted: str, proving: bool, passed_over: int = 0
) -> tuple[Engine, str]:
    """Select among candidates that are looked at already. `proving`: verdicts were asked for. EngineUnavailable."""
    asked = [c for c in candidates if _is_wanted(c.engine, wanted)]
    if not asked and wanted not in get_args(Group):
        engine(wanted)  # says which there are
    able = sorted((c for c in asked if not c.refused), key=lambda c: _rank(c, proving))
    if proving and passed_over:
        able = [c for c in able if c.verdict or c.trusted]
    if len(able) <= passed_over:
        why = "; ".join(f"{c.engine.name}: {c.refused}" for c in asked)
        raise EngineUnavailable(f"{bundle.name}: {why}", wanted=wanted, why=why)
    chosen = able.pop(passed_over)
    others = able + [c for c in asked if c.refused]
    aside = "; ".join(f"{c.engine.name}: {_standing(c)}" for c in others)
    reason = f"{chosen.engine.name} on {chosen.probe.device}, {chosen.probe.reason}"
    if proving:
        verified = f", {_standing(chosen)}" if chosen.verdict or not chosen.trusted else ""
        reason += verified if chosen.probe.reason.endswith(chosen.precision) else f", {chosen.precision}{verified}"
    return chosen.engine, reason + (f" ({aside})" if aside else "")


def for_loras(wanted: str) -> str:
    """Narrow what is wanted for a request with LoRAs, which only PyTorch takes. OptionError."""
    able = ("pytorch", *(engine.name for engine in engines() if engine.group == "pytorch"))
    if wanted not in ("auto", *able):
        raise OptionError("backend", wanted, FOR_LORAS)
    return wanted if wanted in able else "pytorch"


def _rank(c: Candidate, proving: bool) -> tuple[int, float, bool, bool, int]:
    stand = (0 if c.verdict else 1 if c.trusted else 2) if proving else 0
    finish_s = c.verdict.finish_s if c.verdict else 0.0
    return stand, finish_s, c.probe.device == "CPU", not c.engine.trusted, c.engine.rank


def _standing(c: Candidate) -> str:
    if c.refused:
        return c.refused
    return f"verified, {c.verdict.finish_s:.2f} s" if c.verdict else "also ready" if c.trusted else "not verified yet"


def _is_wanted(engine: Engine, wanted: str) -> bool:
    return wanted in ("auto", engine.group, engine.name)


def version(package: str) -> str:
    """Return `name version` of an installed package, without importing it; empty where it is not installed."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""


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
def processor() -> str:
    """Name this kind of processor: what was compiled or proved on one kind says nothing about another."""
    facts = f"{platform.processor()} {sorted(processor_flags())}"
    return f"{platform.machine()} {hashlib.sha256(facts.encode()).hexdigest()[:16]}"
