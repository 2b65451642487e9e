"""
An autoencoder's encoder and decoder: a checkpoint holds both in one folder or file, a bundle each in a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engines.bundle import Role
from engines.errors import BundleError
from engines.files import safetensors_header

MARK = "encoder.conv_in.weight"  # how the name of one tensor ends, in every layout


def with_encoder(parts: Mapping[Role, Path]) -> dict[Role, Path]:
    """
    Return the parts with the encoder, if there is one. A decoder may come without, and nothing is lost but photos as a
    start. In a bundle of earlier days both lie in the decoder's folder. BundleError: a file cannot be read.
    """
    complete: dict[Role, Path] = {role: path for role, path in parts.items() if role != "encoder"}
    for path in (parts.get("encoder"), parts.get("decoder")):
        if path is not None and "encoder" not in complete and _encodes(path):
            complete["encoder"] = path
    return complete


def _encodes(autoencoder: Path) -> bool:
    files = sorted(autoencoder.glob("*.safetensors")) if autoencoder.is_dir() else [autoencoder]
    return any(name.endswith(MARK) for file in files for name in _names(file))


def _names(file: Path) -> list[str]:
    try:
        return list(safetensors_header(file))
    except (OSError, ValueError) as exc:
        raise BundleError(f"{file.name} cannot be read: {exc}", bundle=file.name) from exc
