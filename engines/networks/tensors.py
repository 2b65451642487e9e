"""
Reads safetensors files for PyTorch, each after a look at its header (engines/files): the library's own parser works
half a minute, and takes 700 MB, on one that lists 500,000 tensors. Nobody else here calls the library's readers;
diffusers and transformers do, after `check_folder`.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from engines.files import safetensors_header


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return what a file holds, by name. OSError, ValueError, SafetensorError: it is no whole safetensors file."""
    safetensors_header(path)
    return load_file(path)


def read_metadata(path: Path) -> dict[str, str]:
    """Return what a file says of itself, beside its tensors. Errors as `read_tensors`."""
    safetensors_header(path)
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a folder's files, by name, from the headers alone. OSError, ValueError."""
    return {
        name: tensor.shape
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in safetensors_header(path).items()
    }


def check_folder(folder: Path) -> None:
    """Look at the headers of all files in a folder that a library is about to read. OSError, ValueError."""
    for path in folder.rglob("*.safetensors"):
        safetensors_header(path)
