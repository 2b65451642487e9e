"""
What became of each engine's proof on this machine: a fast engine serves after it has drawn what the reference drew.

A verdict belongs to the very bytes, arithmetic, runtime and device that were proved: its key covers all of them, so a
new version of any must prove itself again. Knows files and keys; how a proof is made is engines/studio/proof.py's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from engines.messages.status import Verdict as Verdict


def key(engine: str, device: str, runtime: str, parts: Iterable[tuple[str, str]]) -> str:
    """Name what a verdict belongs to. `parts` are (sha256, precision) of everything the engine would run."""
    facts = "\n".join([engine, device, runtime, *(f"{sha256} {precision}" for sha256, precision in sorted(parts))])
    return hashlib.sha256(facts.encode()).hexdigest()


@dataclass(frozen=True)
class Verdicts:
    """One small file a verdict. One that cannot be read counts as absent: the proof is made again."""

    folder: Path

    def get(self, name: str) -> Verdict | None:
        try:
            return TypeAdapter(Verdict).validate_python(json.loads(self._path(name).read_text(encoding="utf-8")))
        except (OSError, ValueError, ValidationError):
            return None

    def put(self, name: str, verdict: Verdict) -> None:
        """Store a verdict. A full disk costs the proof, which is made again at the next start, and nothing else."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            beside = self._path(name).with_suffix(f".{uuid.uuid4().hex}.tmp")
            beside.write_text(json.dumps(asdict(verdict)), encoding="utf-8")
            beside.replace(self._path(name))

    def forget(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
