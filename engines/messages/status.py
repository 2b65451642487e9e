"""
What a worker says of itself: engines, bundles with what was measured of them, and what can be built. Every front door
reads the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BundleKind = Literal["portrait", "restorer", "detector"]


@dataclass(frozen=True, slots=True)
class EngineStatus:
    name: str
    ok: bool
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """
    One engine for one bundle, and how it did when measured on this machine: seconds to the first picture to look at and
    to the finished one; 0 where nothing was measured.
    """

    engine: str
    group: Literal["pytorch", "edge"]
    state: Literal["accepted", "failed", "unproven", "unavailable"]
    precision: str = ""
    reason: str = ""
    psnr_db: float = 0.0
    ssim: float = 0.0
    look_s: float = 0.0
    finish_s: float = 0.0
    peak_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class BundleStatus:
    """What a page must know to offer a bundle: its words, sizes and defaults, and which engine would serve it."""

    name: str
    kind: BundleKind
    title: dict[str, str]
    dialect: str
    sizes: tuple[tuple[int, int], ...]
    steps: int
    guidance: float
    engine: str
    reason: str
    choices: tuple[Choice, ...] = ()
    size_mb: float = 0.0
    card: str = ""  # Markdown, as the bundle's maker wrote it
    family: str = ""
    takes_loras: bool = False


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """
    A model of the catalogue: what it becomes, its licence in short (`terms`), and whether this machine is large enough,
    or `why` not, in the phrases of this program. `file` is its name among the checkpoints, or the LoRAs.
    """

    id: str
    title: dict[str, str]
    becomes: Literal["portrait", "restorer", "preview_decoder", "lora"]
    size_gb: float
    approximate: bool
    licence: str
    commercial: bool
    terms: dict[str, str]
    mirrors: tuple[str, ...]
    file: str
    here: bool
    fits: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """How a worker is; every front door reads the same. `sources`: (kind, name) of what can be built from."""

    state: Literal["loading", "ready", "failed"]
    detail: str = ""
    engines: tuple[EngineStatus, ...] = ()
    bundles: tuple[BundleStatus, ...] = ()
    sources: tuple[tuple[BundleKind, str], ...] = ()
    can_build: str = ""  # why not, in the phrases of this program; empty: it can
    loras: tuple[str, ...] = ()  # names of those that are here, for Generate
    models: tuple[ModelStatus, ...] = ()  # the catalogue
    strays: tuple[str, ...] = ()  # what lies among the bundles and is none that can be read
