"""
Files that are whole or absent, values checked against a type, and the header of a safetensors file. Knows bytes; what a
file means, and which error of the house its fault is, is its reader's to say.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

T = TypeVar("T")
HALF_WRITTEN = ".*.tmp"  # what `temporary` gives; only a crash leaves one behind
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit: nobody's file makes us read more


@contextlib.contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """
    Give the body an unused hidden name in `folder`, which is made where it is missing, and remove in the end whatever
    then lies there. OSError: the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):  # what cannot be removed must not hide why the body failed
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[Path]:
    """
    Give the body a name to write to, whose file takes the name `path` when the body ends without an error. `durable`
    waits until the bytes are on the disk first. OSError: the disk refuses, and `path` is as it was.
    """
    with temporary(path.parent) as beside:
        yield beside
        if durable:
            sync(beside)
        beside.replace(path)


def write_atomic(path: Path, data: bytes | memoryview, durable: bool = False) -> None:
    """Write a whole file in one step: a reader sees the old bytes or the new ones. OSError as `replacing`."""
    with replacing(path, durable) as beside:
        beside.write_bytes(data)


def sync(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return the validator of a type; building one takes milliseconds."""
    return TypeAdapter(kind)


def validate(kind: type[T], values: object) -> T:
    """Return plain values (dicts, lists, numbers) as a `kind`. ValueError (pydantic's) names what does not fit."""
    checked: T = _adapter(cast(Hashable, kind)).validate_python(values)
    return checked


def parse_json(text: str | bytes | bytearray) -> Any:
    """Return what a JSON text says. ValueError: it is none, or nested more deeply than this interpreter follows."""
    try:
        return json.loads(text)
    except RecursionError as exc:  # no ValueError, so that whoever wrote the text would end whoever reads it
        raise ValueError("JSON that is nested too deeply") from exc


def read_json(kind: type[T], path: Path) -> T:
    """Read a JSON file in UTF-8 as a `kind`. OSError: it cannot be read. ValueError: it is no JSON, or no `kind`."""
    return validate(kind, parse_json(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in a safetensors file: bytes from the file's beginning. `dtype` is "F32", "BF16" ..."""

    shape: tuple[int, ...]
    dtype: str
    offset: int
    length: int


def safetensors_header(path: Path) -> dict[str, StoredTensor]:
    """
    Read which tensors a safetensors file holds, by name: 8 bytes of length (little-endian), so many of JSON, then the
    tensors (safetensors' README, "Format"). OSError: it cannot be read. ValueError: it is no safetensors file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"{path.name} is no safetensors file: a header of {length} bytes")
        entries: dict[str, Any] = parse_json(file.read(length))
    try:
        return {name: _stored(entry, 8 + length) for name, entry in entries.items() if name != "__metadata__"}
    except (AttributeError, KeyError, TypeError) as exc:
        raise ValueError(f"{path.name} is no safetensors file: {exc!r} in its header") from exc


def _stored(entry: dict[str, Any], start: int) -> StoredTensor:
    begin, end = entry["data_offsets"]
    return StoredTensor(tuple(entry["shape"]), entry["dtype"], start + begin, end - begin)
