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
# What a safetensors header may have here. Models of 30 GB have some thousand tensors and headers of less than 1 MB. The
# library's own limit, 100 MB, is half a minute of parsing and 700 MB of memory.
MAX_HEADER_BYTES, MAX_TENSORS = 16_000_000, 50_000
MAX_COMMAS = 16 * MAX_TENSORS  # nothing in JSON takes memory without a brace or a comma


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
    tensors, to the end of the file (safetensors' README, "Format"). OSError: it cannot be read. ValueError: it is no
    safetensors file, is cut off, or has a header that is too large to be parsed here, which is told before it is.
    """
    with path.open("rb") as file:
        size, length = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
        if 8 + length > size:
            raise ValueError(f"{path.name} is no safetensors file, or cut off: a header of {length} bytes")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"{path.name} has a header of {length} bytes; {MAX_HEADER_BYTES} are the limit")
        text = file.read(length)
    if text.count(b"{") > MAX_TENSORS + 1 or text.count(b",") > MAX_COMMAS:  # the whole is one brace too
        raise ValueError(f"{path.name} lists more than {MAX_TENSORS} tensors")
    tensors = stored_tensors(text, path.name)
    end = max((tensor.offset + tensor.length for tensor in tensors.values()), default=8 + length)
    if end != size:
        raise ValueError(f"{path.name} is damaged or cut off: {size} bytes, where its tensors end at {end}")
    return tensors


def stored_tensors(header: bytes, label: str) -> dict[str, StoredTensor]:
    """Return which tensors a header lists, by name. ValueError, which begins with the `label`: it is none."""
    entries: dict[str, Any] = parse_json(header)
    try:
        start = 8 + len(header)
        return {name: _stored(entry, start) for name, entry in entries.items() if name != "__metadata__"}
    except (AttributeError, KeyError, TypeError) as exc:
        raise ValueError(f"{label} is no safetensors file: {exc!r} in its header") from exc


def _stored(entry: dict[str, Any], start: int) -> StoredTensor:
    (begin, end), shape, dtype = entry["data_offsets"], tuple(entry["shape"]), entry["dtype"]
    if not isinstance(dtype, str) or not all(type(number) is int and number >= 0 for number in (begin, end, *shape)):
        raise TypeError(f"{dtype!r}, {shape}, {begin}, {end}")
    return StoredTensor(shape, dtype, start + begin, end - begin)
