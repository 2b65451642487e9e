"""
What the toolchain is asked to make. A front door's Build holds names; this holds the paths that a worker has resolved
them to, and goes to the worker's child on its standard input. Nothing reads it that comes from outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from engines.bundle.loras import LoraFile
from engines.errors import RequestError
from engines.messages.status import BundleKind


@dataclass(frozen=True)
class BuildJob:
    """
    A bundle to make of `source` by a recipe, into the folder `out`. `about` is a TOML of what weights cannot say of
    themselves, `checkpoints` a folder where tiny decoders may lie, `calibration` one of photographs. The embeddings of
    `prompts` are stored, and `loras` are merged in. The denoiser loses the share `prune` and is taught for as many
    steps as `distil` says to draw the `captions` again, `batch` pictures a step.
    """

    makes: BundleKind
    source: Path
    out: Path
    recipe: str
    about: Path | None = None
    checkpoints: Path | None = None
    calibration: Path | None = None
    prompts: tuple[str, ...] = ()
    loras: tuple[LoraFile, ...] = ()
    prune: float = 0.0
    distil: int = 0
    captions: tuple[str, ...] = ()
    batch: int = 32

    def pack(self) -> bytes:
        return _ADAPTER.dump_json(self)

    @classmethod
    def unpack(cls, text: bytes) -> BuildJob:
        """Read what `pack` wrote. RequestError: this is something else."""
        try:
            return _ADAPTER.validate_json(text)
        except ValueError as exc:
            raise RequestError("this is no build of ours") from exc


_ADAPTER = TypeAdapter(BuildJob)
