"""
What a worker says of itself: engines, bundles with what was measured of them, models that can be had, and what can be
built. Every front door reads the same. What is said of an engine's proof and of a model is what is known of it: Verdict
and Model are those of backends and of the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field

BundleKind = Literal["portrait", "restorer", "detector"]
Group = Literal["pytorch", "edge"]  # of engines: the networks themselves, and what was compiled of them
WorkerState = Literal["loading", "ready", "failed"]
State = Literal["accepted", "failed", "unproven", "unavailable"]  # of an engine for a bundle
HardwareAddress = Annotated[str, Field(pattern=r"^([0-9a-f]{2}(:[0-9a-f]{2}){5})?$")]
Mirror = Literal["hf", "modelscope"]  # a hub; where each of them is, the server's owner says


@dataclass(frozen=True, slots=True)
class EngineStatus:
    name: str
    ok: bool
    device: str
    reason: str
    group: Group = "edge"


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What became of an engine's proof. `failing` names the bar that was missed, with the number reached; empty: accepted.
    `psnr_db` and `ssim` are the lowest over `pictures`. Seconds to the first picture to look at and to the finished one
    are medians on this machine, 0 where nothing was measured; `peak_mb` is the proving process's. `run_s`: seconds of
    one run of each role's session at the proof's size, its lower quartile; `megapixels` are those of one picture of the
    proof. `disturbed`: others used the processors whenever it was timed, so that it may be faster; `rounds`: how often
    it was timed.
    """

    engine: str
    device: str
    runtime: str
    precision: str
    failing: str = ""
    psnr_db: float = 0.0
    ssim: float = 0.0
    pictures: int = 0
    look_s: float = 0.0
    finish_s: float = 0.0
    peak_mb: float = 0.0
    run_s: dict[str, float] = field(default_factory=dict)
    megapixels: float = 0.0
    disturbed: bool = False
    rounds: int = 1

    @property
    def accepted(self) -> bool:
        return not self.failing


@dataclass(frozen=True, slots=True)
class Choice:
    """One engine for one bundle, and how it did when it was measured on this machine, if it was."""

    engine: str
    group: Group
    state: State
    precision: str = ""
    reason: str = ""
    verdict: Verdict | None = None


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
    weighs_by_guidance: bool = False  # a weight in a prompt takes a run of the denoiser more in each step
    precision: str = ""  # in which the engine would serve it
    digest: str = ""  # SHA-256 of its manifest, which has those of its parts: who has the same draws the same
    at: str = ""  # the machine that has it, if it is not the home's; it may be off

    def is_served_by(self, choice: Choice) -> bool:
        """Tell whether it is this choice that would serve; a worker of before says no precision."""
        return choice.engine == self.engine and self.precision in ("", choice.precision)

    def verdict_for(self, backend: str) -> Verdict | None:
        """Return how a backend does: of a group, the fastest that passed its proof here. None: nothing was measured."""
        meant = [
            c for c in self.choices if backend in (c.engine, c.group) or (backend == "auto" and self.is_served_by(c))
        ]
        timed = [c.verdict for c in meant if c.state == "accepted" and c.verdict and c.verdict.finish_s]
        return min(timed, key=lambda verdict: verdict.finish_s, default=None)


@dataclass(frozen=True, slots=True)
class Piece:
    """
    The files of one repository that match `files`; each pattern must find one. What goes `into` a folder of the model's
    is an extra: a hub without it still has the model.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    hf: str
    files: tuple[str, ...]
    modelscope: str = ""
    into: str = ""

    def at(self, mirror: Mirror) -> str:
        """Return its repository on that hub; empty: the hub does not have it."""
        return self.hf if mirror == "hf" else self.modelscope


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be had elsewhere. What the fields mean stands in catalogue.toml."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    id: str
    title: dict[str, str]
    becomes: Literal["portrait", "restorer", "preview_decoder", "lora"]
    target: str
    licence: str
    commercial: bool
    terms: dict[str, str]
    size_gb: float
    memory_gb: float
    disk_gb: float
    pieces: tuple[Piece, ...]
    approximate: bool = False
    recipe: str = ""

    @property
    def is_file(self) -> bool:
        return bool(Path(self.target).suffix)

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        return tuple(hub for hub in get_args(Mirror) if all(piece.at(hub) or piece.into for piece in self.pieces))


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model of the catalogue, whether it is here, and `why` this machine is too small, in this program's phrases."""

    model: Model
    here: bool
    why: str = ""

    @property
    def fits(self) -> bool:
        return not self.why


@dataclass(frozen=True, slots=True)
class Status:
    """How a worker is; every front door reads the same. `sources`: (kind, name) of what can be built from."""

    state: WorkerState
    detail: str = ""
    engines: tuple[EngineStatus, ...] = ()
    bundles: tuple[BundleStatus, ...] = ()
    sources: tuple[tuple[BundleKind, str], ...] = ()
    can_build: str = ""  # why not, in the phrases of this program; empty: it can
    loras: tuple[str, ...] = ()  # names of those that are here, for Generate
    models: tuple[ModelStatus, ...] = ()  # the catalogue
    strays: tuple[str, ...] = ()  # what lies among the bundles and is none that can be read
    resting: str = ""  # why no job is begun at the moment, in the phrases of this program; empty: jobs are begun
    temperature_c: float | None = None  # of the hottest processor; None: unknown
    memory_gb: float = 0.0  # of this machine; 0: not told
    free_gb: float = 0.0  # of the disk where models lie
    source_mb: tuple[float, ...] = ()  # how large each of the sources is, in their order
    hurdle: str = ""  # why some other machines are given nothing at the moment, in the phrases of this program
    wakes_at: HardwareAddress = ""  # the network card's, like 02:00:5e:10:00:0f; empty: nobody may wake this machine
