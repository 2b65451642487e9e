"""
Builds of tiny checkpoints, without what takes minutes and says nothing of them: an export that was made before comes
from disk, and no layer is searched for that should stay in float.

Exports lie in .pytest_cache/exports, for the next run and for the worker beside this one. Each is named by all that
decides it: versions, the code that makes it, the graph with its weights, and the shape of the example. Needs torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import nn

from engines.bundle import Role
from engines.images import Pixels
from engines.toolchain import build, export
from engines.toolchain.quantize import calibration
from engines.toolchain.recipe import Recipe
from tests.conftest import REPOSITORY

EXPORTS = REPOSITORY / ".pytest_cache" / "exports"
MAKERS = ("engines/networks", "engines/toolchain/export", "engines/bundle/signatures.py")
RUNTIMES = ("torch", "onnx", "onnxscript", "onnx-ir", "diffusers", "transformers")
DIGEST_BYTES = 32


@cache
def makers() -> bytes:
    """A digest of the code and of the libraries that make an export."""
    digest = hashlib.sha256(repr([(name, version(name)) for name in RUNTIMES]).encode())
    for place in map(REPOSITORY.joinpath, MAKERS):
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.digest()


def settings(graph: nn.Module) -> Iterator[str]:
    """What its modules are besides their weights: classes, plain attributes, configurations. No path is among them."""
    for name, module in graph.named_modules():
        plain = {k: v for k, v in vars(module).items() if isinstance(v, bool | int | float | tuple | None)}
        config = getattr(module, "config", None)
        config = config.to_dict() if hasattr(config, "to_dict") else config
        pairs = config.items() if isinstance(config, Mapping) else ()
        yield f"{name} {type(module).__qualname__} {sorted(plain.items())!r}"
        yield repr(sorted((k, str(v)) for k, v in pairs if not k.startswith("_") and "path" not in k))


def key(graph: nn.Module, role: Role, feeds: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(makers() + repr((role, repr(graph))).encode())
    for line in settings(graph):
        digest.update(line.encode())
    digest.update(repr([(name, feed.shape, feed.dtype) for name, feed in feeds.items()]).encode())
    for name, value in sorted(graph.state_dict().items()):
        weights = value.detach().reshape(-1).contiguous().view(torch.uint8).numpy()
        digest.update(f"{name} {value.shape} {value.dtype}".encode() + weights.tobytes())
    return digest.hexdigest()


def stored(path: Path) -> bytes | None:
    """The export in this file; None: there is no such file, or it is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, model = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    return model if hashlib.sha256(model).digest() == digest else None


def store(path: Path, model: bytes) -> None:
    """Under its name there is a whole file or none, whoever reads meanwhile."""
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(hashlib.sha256(model).digest() + model)
    part.replace(path)


def cached_export(graph: nn.Module, role: Role, feeds: Mapping[str, torch.Tensor], path: Path) -> None:
    """The toolchain's export, which takes seconds, made once: a second worker that wants the same waits for it."""
    EXPORTS.mkdir(parents=True, exist_ok=True)
    place = EXPORTS / key(graph, role, feeds)
    with FileLock(place.with_suffix(".lock")):
        if (model := stored(place)) is None:
            export.export(graph, role, feeds, path)
            store(place, path.read_bytes())
        else:
            path.write_bytes(model)


def without_bars(recipe: Recipe) -> Recipe:
    """Random weights miss every bar, and each layer would be quantised alone to find the worst: see test_quantize."""
    return replace(recipe, roles={role: replace(how, bar_db=0.0) for role, how in recipe.roles.items()})


@cache
def calibration_faces(folder: Path | None, size_px: int, count: int = calibration.FACES) -> tuple[Pixels, ...]:
    """Drawn by the built-in model, which takes as long as the build of a tiny restorer: the same for every recipe."""
    return tuple(true_faces(folder, size_px, count))


true_faces = calibration.faces


def lighten(patch: pytest.MonkeyPatch) -> None:
    """While `patch` lasts, builds take exports from disk, draw faces once, and search for no sensitive layers."""
    read = Recipe.read
    patch.setattr(build, "export", cached_export)
    patch.setattr(calibration, "faces", calibration_faces)
    patch.setattr(Recipe, "read", lambda name: without_bars(read(name)))
