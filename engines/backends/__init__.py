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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from typing import get_args

from engines.backends.arrangement import Arrangement, arrangements
from engines.backends.arrangement import coarsest as coarsest
from engines.backends.mixture import mixture
from engines.backends.protocols import AcceptsLoras as AcceptsLoras
from engines.backends.protocols import ChoosesParts as ChoosesParts
from engines.backends.protocols import Engine as Engine
from engines.backends.protocols import Probe as Probe
from engines.backends.protocols import RefusesParts as RefusesParts
from engines.backends.protocols import RegisteredEngine as RegisteredEngine
from engines.backends.protocols import ReleasesMemory as ReleasesMemory
from engines.backends.protocols import Session as Session
from engines.backends.verdicts import Verdict, Verdicts
from engines.backends.verdicts import key as verdict_key
from engines.bundle import PRECISIONS, Bundle, Part
from engines.errors import EngineUnavailable, OptionError
from engines.machine import processor_flags
from engines.messages.status import Group

FOR_LORAS = "auto, pytorch; this engine takes a LoRA in a bundle built with --lora"
UNSURE = 2.0  # a time from a busy machine may be this many times too long


def names() -> list[str]:
    """List the engines whose file is here, in order of preference."""
    return [engine.name for engine in engines()]


def engine(name: str) -> RegisteredEngine:
    """Look an engine up by its name. EngineUnavailable: there is no such engine."""
    for registered in engines():
        if registered.name == name:
            return registered
    raise EngineUnavailable(
        f"no engine is called {name!r}; there are {', '.join(names())}", wanted=name, why="no such engine"
    )


def engines() -> Iterator[RegisteredEngine]:
    """Import every engine whose file is here, and yield them in order of preference."""
    files = [module.name for module in pkgutil.iter_modules(__path__) if module.name.endswith("_backend")]
    registered: list[RegisteredEngine] = [importlib.import_module(f"{__name__}.{file}").ENGINE for file in files]
    return iter(sorted(registered, key=lambda engine: (engine.rank, engine.name)))


@dataclass(frozen=True)
class Candidate:
    """One way to run a bundle: can it be had, with which parts, and what did its proof on this machine say."""

    engine: Engine
    probe: Probe
    parts: tuple[Part, ...]
    refused: str = ""  # why it cannot, or may not
    verdict: Verdict | None = None
    too_large: str = ""  # why this machine has not the memory for it

    @property
    def precision(self) -> str:
        """The coarsest arithmetic of any part; empty where nothing is readable."""
        return coarsest(self.parts) or ""

    @property
    def trusted(self) -> bool:
        return self.engine.trusted and self.precision == "fp32"

    @property
    def key(self) -> str:
        parts = ((part.sha256, part.precision) for part in self.parts)
        device = f"{self.probe.device} {processor()}"
        name = self.engine.placement if isinstance(self.engine, Arrangement) else self.engine.name
        return verdict_key(name, device, self.probe.runtime, parts)


# Says why a machine has not the memory to run these parts of a bundle on the engine of that name; empty: it has.
TooLarge = Callable[[Bundle, Sequence[Part], str], str]


def fits(bundle: Bundle, parts: Sequence[Part], engine: str) -> str:
    """Say that everything fits, as where memory is not limited."""
    return ""


def candidates(
    bundle: Bundle, engine: Engine, verdicts: Verdicts | None = None, too_large: TooLarge = fits
) -> list[Candidate]:
    """
    Probe an engine, hold a bundle's parts against what it reads, and look up what became of its proofs: one candidate
    for each precision, the finest first; or a single one, which says why it cannot run the bundle.
    """
    probe = engine.probe()
    refuses = engine.refuses if isinstance(engine, RefusesParts) else lambda part: ""
    if not probe.ok:
        return [Candidate(engine, probe, (), probe.reason)]
    if able := arrangements(bundle, engine, refuses):
        return [_looked_up(Candidate(way, probe, way.parts), bundle, verdicts, too_large) for way in able]
    readable = [part for part in bundle.parts if part.format in engine.formats]
    missing = sorted(bundle.roles - {part.role for part in readable})
    allowed = {part.role for part in readable if not refuses(part)}
    whys = dict.fromkeys(refuses(part) for part in readable if part.role not in allowed)
    return [
        Candidate(engine, probe, (), f"cannot read this bundle's {', '.join(missing)}" if missing else "; ".join(whys))
    ]


def ways(bundle: Bundle, verdicts: Verdicts | None = None, too_large: TooLarge = fits) -> list[Candidate]:
    """
    List all candidates of all engines for a bundle, and the mixture of those that are compiled, if it is worth it. Once
    that is proved it is always listed.
    """
    alone = [c for engine in engines() for c in candidates(bundle, engine, verdicts, too_large)]
    proved = [
        (c.engine, c.verdict)
        for c in alone
        if isinstance(c.engine, Arrangement) and c.engine.group == "edge" and c.verdict and c.verdict.accepted
    ]
    found = mixture(bundle, proved)
    if found is None:
        return alone
    way, is_worth_it = found
    mixed = _looked_up(Candidate(way, way.probe(), way.parts), bundle, verdicts, too_large)
    return [*alone, mixed] if mixed.verdict or is_worth_it else alone


def candidate(bundle: Bundle, engine: Engine, verdicts: Verdicts | None = None) -> Candidate:
    """
    Return the candidate that runs those parts that the engine chooses: an arrangement its own, any other engine those
    that its bundle prefers for it.
    """
    if isinstance(engine, Arrangement):
        return _looked_up(Candidate(engine, engine.probe(), engine.parts), bundle, verdicts, fits)
    listed = candidates(bundle, engine, verdicts)
    return next((c for c in listed if c.parts == _preferred(bundle, engine)), listed[-1])


def _preferred(bundle: Bundle, engine: Engine) -> tuple[Part, ...]:
    able = {part.role for part in bundle.parts if part.format in engine.formats}
    return tuple(bundle.part(role, engine.formats) for role in sorted(able))


def _looked_up(c: Candidate, bundle: Bundle, verdicts: Verdicts | None, too_large: TooLarge) -> Candidate:
    verdict = verdicts.get(c.key) if verdicts else None
    refused = f"failed its proof, {verdict.failing}" if verdict and verdict.failing else ""
    return replace(c, refused=refused, verdict=verdict, too_large=too_large(bundle, c.parts, c.engine.name))


def select(
    bundle: Bundle,
    wanted: str = "auto",
    verdicts: Verdicts | None = None,
    passed_over: int = 0,
    too_large: TooLarge = fits,
) -> tuple[Engine, str]:
    """
    Select what is to run every part of a bundle, and say in one line why it and what became of the others.

    wanted: auto | pytorch | edge | an engine's name. The fastest of those whose proof was accepted; before there is
    one, an engine that is trusted, and any other last. Without a store of verdicts an accelerator comes first instead.
    `passed_over`: how many of the best engines not to take; the next one must have been proved or be trusted.
    EngineUnavailable: none can, or those that were asked for failed their proofs.
    """
    return choose(bundle, ways(bundle, verdicts, too_large), wanted, verdicts is not None, passed_over)


def choose(
    bundle: Bundle, candidates: Sequence[Candidate], wanted: str, proving: bool, passed_over: int = 0
) -> tuple[Engine, str]:
    """Select among candidates that are looked at already. `proving`: verdicts were asked for. EngineUnavailable."""
    asked = [c for c in candidates if _is_wanted(c.engine, wanted)]
    if not asked and wanted not in get_args(Group):
        engine(wanted)  # says which there are
    able = ranked([c for c in asked if not c.refused], proving)
    if proving and passed_over:
        able = [c for c in able if c.verdict or c.trusted]
    left_out = list(dict.fromkeys(c.engine.name for c in able))[:passed_over]
    allowed = [c for c in able if c.engine.name not in left_out]
    if not allowed:
        why = "; ".join(f"{_label(c, asked)}: {c.refused}" for c in asked)
        raise EngineUnavailable(f"{bundle.name}: {why}", wanted=wanted, why=why)
    chosen = allowed[0]
    others = [c for c in able if c is not chosen] + [c for c in asked if c.refused]
    aside = "; ".join(f"{_label(c, asked)}: {_standing(c)}" for c in others)
    reason = f"{chosen.engine.name} on {chosen.probe.device}, {chosen.probe.reason}"
    if proving:
        verified = f", {_standing(chosen)}" if chosen.verdict or not chosen.trusted else ""
        reason += verified if chosen.probe.reason.endswith(chosen.precision) else f", {chosen.precision}{verified}"
    return chosen.engine, reason + (f" ({aside})" if aside else "")


def ranked(able: Sequence[Candidate], proving: bool) -> list[Candidate]:
    """
    Sort candidates that can serve, the first to do so first. A time that was measured beside a busy neighbour is only
    an upper bound: where the least is such a one, the usual order of engines decides among those that may be as fast.
    On a CPU PyTorch waits, though it is proved, until what may go before it is proved too.
    """
    unproved = any(c.trusted and not c.verdict and c.engine.group == "edge" for c in able)
    order = sorted(able, key=lambda c: _rank(c, proving, unproved))
    first = order[0].verdict if order and proving else None
    if first is None or not first.disturbed:
        return order
    as_fast = [c for c in order if c.verdict and c.verdict.disturbed and c.verdict.finish_s <= UNSURE * first.finish_s]
    chosen = min(as_fast, key=lambda c: (bool(c.too_large), c.probe.device == "CPU", c.engine.rank))
    return [chosen, *(c for c in order if c is not chosen)]


def for_loras(wanted: str) -> str:
    """Narrow what is wanted for a request with LoRAs, which only PyTorch takes. OptionError."""
    able = ("pytorch", *(engine.name for engine in engines() if engine.group == "pytorch"))
    if wanted not in ("auto", *able):
        raise OptionError("backend", wanted, FOR_LORAS)
    return wanted if wanted in able else "pytorch"


def _rank(c: Candidate, proving: bool, unproved: bool) -> tuple[bool, int, float, bool, bool, int, int]:
    on_cpu, verdict = c.probe.device == "CPU", c.verdict
    if unproved and on_cpu and c.engine.group == "pytorch":
        verdict = None
    stand = (0 if verdict else 1 if c.trusted else 2) if proving else 0
    finish_s = verdict.finish_s if verdict else 0.0
    fineness = PRECISIONS.index(precision) if (precision := coarsest(c.parts)) else 0
    return bool(c.too_large), stand, finish_s, on_cpu, not c.trusted, c.engine.rank, fineness


def _label(c: Candidate, asked: Sequence[Candidate]) -> str:
    """Name a candidate; with its precision, where its engine has several."""
    several = sum(other.engine.name == c.engine.name for other in asked) > 1
    return f"{c.engine.name} {c.precision}" if several else c.engine.name


def _standing(c: Candidate) -> str:
    if c.refused or (c.too_large and not c.verdict):
        return c.refused or c.too_large
    if c.verdict is None:
        return "also ready" if c.trusted else "not verified yet"
    return f"verified, {c.verdict.finish_s:.2f} s" + (", on a busy machine" if c.verdict.disturbed else "")


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
