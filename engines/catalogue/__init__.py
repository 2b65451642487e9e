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
from typing import Any

from pydantic import TypeAdapter

from engines.errors import NotFoundError
from engines.messages.status import Model as Model
from engines.messages.status import ModelStatus
from engines.messages.status import Piece as Piece

LIST = Path(__file__).parent / "catalogue.toml"


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
    """Measure the room on the disk of a folder that need not be there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


@cache
def catalogue() -> dict[str, Model]:
    tables: dict[str, dict[str, Any]] = tomllib.loads(LIST.read_text(encoding="utf-8"))
    models = [TypeAdapter(Model).validate_python({"id": name, **values}) for name, values in tables.items()]
    return {model.id: model for model in models}


def find(name: str) -> Model:
    """Look a model up by its id. NotFoundError: the catalogue has no such model."""
    if name not in catalogue():
        raise NotFoundError("model", name)
    return catalogue()[name]


def hurdle(model: Model, machine: Machine, here: bool) -> str:
    """Say why this machine is too small for a model, in the phrases of this program; empty: it is not."""
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
    return ModelStatus(model, here, hurdle(model, machine, here))
