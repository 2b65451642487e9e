"""What is here: engines, bundles with the engine that would serve each, how others did, and what can be built."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from engines import backends
from engines.backends import Candidate, TooLarge, fits
from engines.backends.lenders import NO_LENDERS, Lenders
from engines.backends.verdicts import Verdicts
from engines.bundle import BUILT_IN, Bundle, Role, Shelf, size_bytes
from engines.errors import StudioError
from engines.families import FAMILIES
from engines.files import safetensors_header
from engines.messages.status import BundleKind, BundleStatus, Choice, EngineStatus, State, Status
from engines.settings import Settings

log = logging.getLogger(__name__)
Inventory = tuple[tuple[EngineStatus, ...], tuple[BundleStatus, ...]]
UNET = "model.diffusion_model."  # begins names in the header of Stable Diffusion's files
NEEDED_TO_BUILD = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "ml_dtypes")
CHECKPOINTS = (".pth", ".safetensors", ".onnx")
CARD_BYTES = 20_000
KINDS: dict[Role, BundleKind] = {"restorer": "restorer", "face_detector": "detector"}


def survey(
    shelf: Shelf,
    backend: str,
    verdicts: Verdicts | None = None,
    too_large: TooLarge = fits,
    lenders: Lenders = NO_LENDERS,
) -> Inventory:
    """Look at every engine and at every bundle that can be read. `backend` is what the server prefers."""
    probes = [(engine, engine.probe()) for engine in backends.engines()]
    engines = tuple(EngineStatus(e.name, probe.ok, probe.device, probe.reason, e.group) for e, probe in probes)
    return engines, tuple(_bundle_status(bundle, backend, verdicts, too_large, lenders) for bundle in readable(shelf))


def at_start(settings: Settings) -> Status:
    """
    Say what lies here, before a worker has tried whether its engines can work on this processor. The page is built of
    it, however long that takes.
    """
    shelf, verdicts = Shelf((settings.models, BUILT_IN)), Verdicts(settings.state / "verdicts")
    engines, bundles = survey(shelf, settings.backend, verdicts)
    return Status("loading", engines=engines, bundles=bundles)


def readable(shelf: Shelf) -> Iterator[Bundle]:
    for name in shelf.names():
        try:
            yield shelf.open(name)
        except StudioError as exc:
            log.error("left out: %s", exc)


def strays(models: Path, warned: set[str] | None = None) -> tuple[str, ...]:
    """
    List what is no bundle among the bundles: weights without a manifest, or a manifest that cannot be read. The log
    has those without one, except what is in `warned`, where they are then put.
    """
    warned = set() if warned is None else warned
    paths = sorted(path for path in models.glob("[!.]*") if path.is_dir() or path.suffix.lower() in CHECKPOINTS)
    shelf = Shelf((models,))
    good = {bundle.name for bundle in readable(shelf)}
    for path in paths:
        if path.name not in shelf.names() and path.name not in warned:
            warned.add(path.name)
            log.warning("%s is no bundle: weights belong into the folder of checkpoints, to be built from", path.name)
    return tuple(path.name for path in paths if path.name not in good)


def kind_of(bundle: Bundle) -> BundleKind:
    return next((kind for role, kind in KINDS.items() if bundle.has(role)), "portrait")


def _bundle_status(
    bundle: Bundle, backend: str, verdicts: Verdicts | None, too_large: TooLarge, lenders: Lenders
) -> BundleStatus:
    candidates = backends.ways(bundle, verdicts, too_large)
    wanted = "auto" if bundle.has("face_detector") else backend  # faces are found alike, whoever restores them
    try:
        engine, reason = backends.choose(bundle, candidates, wanted, verdicts is not None)
        chosen, precision = engine.name, next(c.precision for c in candidates if c.engine is engine)
    except StudioError as exc:
        chosen, precision, reason = "", "", str(exc)
    sampling = bundle.sampling
    return BundleStatus(
        name=bundle.name,
        kind=kind_of(bundle),
        title=bundle.title,
        dialect=bundle.dialect,
        sizes=bundle.sizes,
        steps=sampling.steps if sampling else 0,
        guidance=sampling.guidance if sampling else 0.0,
        engine=chosen,
        reason="; ".join(filter(None, [reason, lenders.words(bundle)])),
        choices=tuple(map(_choice, candidates)),
        size_mb=round(size_bytes(bundle.root) / 1e6, 1),
        card=_card(bundle.root / "card.md"),
        family=bundle.family,
        weighs_by_guidance=bundle.family in FAMILIES and FAMILIES[bundle.family].weighs == "guidance",
        takes_loras=bundle.takes_loras,
        precision=precision,
        digest=_digest(bundle.root / "bundle.json"),
    )


def _card(path: Path) -> str:
    try:
        return path.read_bytes()[:CARD_BYTES].decode("utf-8", errors="replace")
    except OSError:  # a bundle need not have one
        return ""


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:  # it has just gone
        return ""


def _choice(c: Candidate) -> Choice:
    state: State = "unavailable" if c.refused else "unproven"
    if c.verdict is not None:
        state = "accepted" if c.verdict.accepted else "failed"
    return Choice(c.engine.name, c.engine.group, state, c.precision, c.refused or c.too_large, c.verdict)


def sources(shelf: Shelf, checkpoints: Path) -> dict[tuple[BundleKind, str], Path]:
    """List what can be built from, by kind and name: bundles that carry their source, and the `checkpoints`."""
    origins: dict[tuple[BundleKind, str], Path] = {}
    for path in sorted(checkpoints.glob("[!.]*")):
        if path.suffix.lower() in CHECKPOINTS and path.is_file():
            origins["portrait" if _is_stable_diffusion(path) else "restorer", path.name] = path
        elif any((path / name).exists() for name in ("model_index.json", "transformer", "unet")):
            origins["portrait", path.name] = path
    for bundle in readable(shelf):
        carried = {part.role for part in bundle.parts if part.format in ("diffusers", "safetensors")}
        if carried == bundle.roles:
            origins[kind_of(bundle), bundle.name] = bundle.root
    return origins


def weights_bytes(source: Path) -> int:
    """Return how large the weights are that a build reads there; of a bundle, of all that it holds its own source."""
    if not (source / "bundle.json").is_file():
        return size_bytes(source)
    return sum(size_bytes(file) for file in source.rglob("*.safetensors"))


def _is_stable_diffusion(path: Path) -> bool:
    """Tell whether a file is a .safetensors whose header names a tensor of Stable Diffusion's U-Net."""
    if path.suffix.lower() != ".safetensors":
        return False
    try:
        return any(name.startswith(UNET) for name in safetensors_header(path))
    except (OSError, ValueError):  # whoever builds from it will be told why it cannot be read
        return False


def cannot_build() -> str:
    """Say why bundles cannot be made here; empty: they can."""
    missing = [name for name in NEEDED_TO_BUILD if find_spec(name) is None]
    return f"not installed ({', '.join(missing)})" if missing else ""
