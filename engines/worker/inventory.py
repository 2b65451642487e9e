"""What is here: engines, bundles with the engine that would serve each, how others did, and what can be built."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from engines import backends
from engines.backends import Candidate
from engines.backends.verdicts import Verdicts
from engines.bundle import Bundle, Role, Shelf, size_bytes
from engines.errors import StudioError
from engines.files import safetensors_header
from engines.messages.status import BundleKind, BundleStatus, Choice, EngineStatus

log = logging.getLogger(__name__)
Inventory = tuple[tuple[EngineStatus, ...], tuple[BundleStatus, ...]]
UNET = "model.diffusion_model."  # begins names in the header of Stable Diffusion's files
NEEDED_TO_BUILD = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "ml_dtypes")
CHECKPOINTS = (".pth", ".safetensors", ".onnx")
CARD_BYTES = 20_000
KINDS: dict[Role, BundleKind] = {"restorer": "restorer", "face_detector": "detector"}


def survey(shelf: Shelf, backend: str, known: Verdicts | None = None) -> Inventory:
    probes = [(engine.name, engine.probe()) for engine in backends.engines()]
    engines = tuple(EngineStatus(name, probe.ok, probe.device, probe.reason) for name, probe in probes)
    return engines, tuple(_bundle_status(bundle, backend, known) for bundle in readable(shelf))


def readable(shelf: Shelf) -> Iterator[Bundle]:
    for name in shelf.names():
        try:
            yield shelf.open(name)
        except StudioError as exc:
            log.error("left out: %s", exc)


def strays(models: Path) -> tuple[str, ...]:
    """Names in the folder of bundles that are none: weights without a manifest, or a manifest that cannot be read."""
    found = sorted(path for path in models.glob("[!.]*") if path.is_dir() or path.suffix.lower() in CHECKPOINTS)
    shelf = Shelf((models,))
    good = {bundle.name for bundle in readable(shelf)}
    for path in found:
        if path.name not in shelf.names():
            log.warning("%s is no bundle: weights belong into the folder of checkpoints, to be built from", path.name)
    return tuple(path.name for path in found if path.name not in good)


def kind_of(bundle: Bundle) -> BundleKind:
    return next((kind for role, kind in KINDS.items() if bundle.has(role)), "portrait")


def _bundle_status(bundle: Bundle, backend: str, known: Verdicts | None) -> BundleStatus:
    try:
        wanted = "auto" if bundle.has("face_detector") else backend  # faces are found alike, whoever restores them
        engine, reason = backends.select(bundle, wanted, known)
        chosen = engine.name
    except StudioError as exc:
        chosen, reason = "", str(exc)
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
        reason=reason,
        choices=tuple(_choice(backends.candidate(bundle, engine, known)) for engine in backends.engines()),
        size_mb=round(size_bytes(bundle.root) / 1e6, 1),
        card=_card(bundle.root / "card.md"),
        family=bundle.family,
        takes_loras=bundle.takes_loras,
    )


def _card(path: Path) -> str:
    try:
        return path.read_bytes()[:CARD_BYTES].decode("utf-8", errors="replace")
    except OSError:  # a bundle need not have one
        return ""


def _choice(c: Candidate) -> Choice:
    group: Literal["pytorch", "edge"] = "pytorch" if c.engine.name in backends.GROUPS["pytorch"] else "edge"
    v = c.verdict
    if v is None:
        return Choice(c.engine.name, group, "unavailable" if c.refused else "unproven", c.precision, c.refused)
    return Choice(
        c.engine.name,
        group,
        "accepted" if v.accepted else "failed",
        c.precision,
        c.refused,
        v.psnr_db,
        v.ssim,
        v.look_s,
        v.finish_s,
        v.peak_mb,
    )


def sources(shelf: Shelf, checkpoints: Path) -> dict[tuple[BundleKind, str], Path]:
    """What can be built from, by kind and name: bundles that carry their source, and what lies in `checkpoints`."""
    found: dict[tuple[BundleKind, str], Path] = {}
    for path in sorted(checkpoints.glob("[!.]*")):
        if path.suffix.lower() in CHECKPOINTS and path.is_file():
            found["portrait" if _is_stable_diffusion(path) else "restorer", path.name] = path
        elif any((path / name).exists() for name in ("model_index.json", "transformer", "unet")):
            found["portrait", path.name] = path
    for bundle in readable(shelf):
        carried = {part.role for part in bundle.parts if part.format in ("diffusers", "safetensors")}
        if carried == bundle.roles:
            found[kind_of(bundle), bundle.name] = bundle.root
    return found


def _is_stable_diffusion(path: Path) -> bool:
    """Whether it is a .safetensors whose header names a tensor of its U-Net."""
    if path.suffix.lower() != ".safetensors":
        return False
    try:
        return any(name.startswith(UNET) for name in safetensors_header(path))
    except (OSError, ValueError):  # whoever builds from it will be told why it cannot be read
        return False


def cannot_build() -> str:
    """Why bundles cannot be made here; empty: they can."""
    missing = [name for name in NEEDED_TO_BUILD if find_spec(name) is None]
    return f"not installed ({', '.join(missing)})" if missing else ""
