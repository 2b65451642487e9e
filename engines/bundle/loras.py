"""
LoRA files by name: which are here, and where. A request says a name, never a path.

A name is a file's, without `.safetensors`. Knows folders and nothing of what the files hold: that is
engines/networks/lora.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.errors import OptionError
from engines.messages import Lora

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class LoraFile:
    """A LoRA to apply, and how strongly."""

    path: Path
    strength: float

    @property
    def name(self) -> str:
        return self.path.stem


@dataclass(frozen=True)
class Loras:
    """The folders that hold LoRA files; an earlier folder wins over a later one."""

    folders: tuple[Path, ...]

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._files()))

    def pick(self, wanted: Sequence[Lora]) -> tuple[LoraFile, ...]:
        """Return the files of these LoRAs. OptionError: there is none of that name."""
        files = self._files()  # names are compared, never joined to a path: none can lead out of the folders
        for lora in wanted:
            if lora.name not in files:
                raise OptionError("loras", lora.name, ", ".join(sorted(files)) or "none with this model")
        return tuple(LoraFile(files[lora.name], lora.strength) for lora in wanted)

    def _files(self) -> dict[str, Path]:
        """Return the files by name; a hidden one is still being copied."""
        paths = (path for folder in reversed(self.folders) for path in folder.glob(f"[!.]*{SUFFIX}"))
        return {path.stem: path for path in paths if path.is_file()}
