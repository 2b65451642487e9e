"""
Models that are had elsewhere: what they are, what may be done with them, what becomes of them here, and whether this
machine is large enough. The list is catalogue.toml. Nothing here asks the network; that is fetch.py's.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict

from engines import files
from engines.errors import NotFoundError
from engines.messages import Mirror
from engines.messages.status import ModelStatus

LIST = Path(__file__).parent / "catalogue.toml"
Becomes = Literal["portrait", "restorer", "preview_decoder", "lora"]


@dataclass(frozen=True)
class Piece:
    """
    The files of one repository that match `files`; each pattern must find one. What goes `into` a folder of the model's
    is an extra: a hub without it still has the model.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    hf: str
    files: tuple[str, ...]
    modelscope: str = ""
    into: str = ""

    def at(self, mirror: Mirror) -> str:
        """Its repository there; empty: that hub does not have it."""
        return self.hf if mirror == "hf" else self.modelscope


@dataclass(frozen=True)
class Model:
    """What the fields mean stands in catalogue.toml."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: str
    title: dict[str, str]
    becomes: Becomes
    target: str
    licence: str
    commercial: bool
    terms: dict[str, str]
    size_gb: float
    memory_gb: float
    disk_gb: float
    pieces: tuple[Piece, ...]
    approximate: bool = False

    @property
    def is_file(self) -> bool:
        return bool(Path(self.target).suffix)

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        return tuple(hub for hub in get_args(Mirror) if all(piece.at(hub) or piece.into for piece in self.pieces))


@dataclass(frozen=True)
class Places:
    """Where models go."""

    checkpoints: Path
    loras: Path

    def path(self, model: Model) -> Path:
        return (self.loras if model.becomes == "lora" else self.checkpoints) / model.target


@dataclass(frozen=True)
class Machine:
    memory_gb: float
    free_gb: float

    @classmethod
    def of(cls, folder: Path) -> Machine:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(memory / 1e9, free_bytes(folder) / 1e9)


def free_bytes(folder: Path) -> int:
    """On the disk of a folder that need not be there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


@cache
def catalogue() -> dict[str, Model]:
    told: dict[str, dict[str, Any]] = tomllib.loads(LIST.read_text(encoding="utf-8"))
    models = [files.validate(Model, {"id": name, **values}) for name, values in told.items()]
    return {model.id: model for model in models}


def find(name: str) -> Model:
    """NotFoundError: the catalogue has no such model."""
    if name not in catalogue():
        raise NotFoundError("model", name)
    return catalogue()[name]


def hurdle(model: Model, machine: Machine, here: bool) -> str:
    """Why this machine is too small for it, in the phrases of this program; empty: it is not."""
    if machine.memory_gb < model.memory_gb:
        return f"{model.memory_gb:g} GB of memory needed, {machine.memory_gb:.0f} GB available"
    disk_gb = model.disk_gb + (0 if here else model.size_gb)
    if machine.free_gb < disk_gb:
        return f"{disk_gb:.1f} GB of disk space needed, {machine.free_gb:.1f} GB available"
    return ""


def statuses(places: Places, machine: Machine | None = None) -> tuple[ModelStatus, ...]:
    machine = machine or Machine.of(places.checkpoints)
    return tuple(_status(model, places, machine) for model in catalogue().values())


def _status(model: Model, places: Places, machine: Machine) -> ModelStatus:
    here = places.path(model).exists()
    why = hurdle(model, machine, here)
    return ModelStatus(
        id=model.id,
        title=model.title,
        becomes=model.becomes,
        size_gb=model.size_gb,
        approximate=model.approximate,
        licence=model.licence,
        commercial=model.commercial,
        terms=model.terms,
        mirrors=model.mirrors,
        file=model.target,
        here=here,
        fits=not why,
        why=why,
    )
