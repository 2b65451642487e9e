"""
Arrays as bytes, for another machine: the format of safetensors, which has nothing to execute, read by rules stricter
than the library's. Knows signatures; what carries the bytes, and what is asked with them, others know.

What comes from elsewhere is held against the role's signature before an array is made of it: names, types, axes, and
how long each axis may be with this bundle.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from engines import files
from engines.bundle import Bundle, Role
from engines.bundle.signatures import LONGEST_PX, SIGNATURES, Array, Axes

DTYPES: Mapping[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
CODES = {dtype: code for code, dtype in DTYPES.items()}
HEADER_BYTES = 4096  # a handful of names
WIDEST = 16_384  # numbers of a token's embedding: those of language models with 400 billion weights
MOST_WORDS = 4096  # of a bundle that does not say
MOST_FACES, FACE_NUMBERS = 100_000, 64  # candidates of a detector, and what it says of each


def pack(arrays: Mapping[str, Array]) -> bytes:
    """Write arrays of float32 and int64. KeyError: one is of another type."""
    entries, pieces, end = {}, [], 0
    for name, array in arrays.items():
        pieces.append(np.ascontiguousarray(array).tobytes())
        begin, end = end, end + len(pieces[-1])
        entries[name] = {"dtype": CODES[array.dtype], "shape": array.shape, "data_offsets": (begin, end)}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return b"".join([len(header).to_bytes(8, "little"), header, *pieces])


def unpack_feeds(role: Role, bundle: Bundle, body: bytes) -> dict[str, Array]:
    """Read what a role is fed. ValueError: this is no such."""
    signature = SIGNATURES[role]
    return _unpack(body, signature.inputs, signature.optional, lengths(bundle))


def unpack_result(role: Role, bundle: Bundle, body: bytes) -> dict[str, Array]:
    """Read what a role gave. ValueError: this is no such."""
    return _unpack(body, {SIGNATURES[role].output: SIGNATURES[role].output_axes}, {}, lengths(bundle))


def most_fed_bytes(role: Role, bundle: Bundle) -> int:
    """Return how long the bytes can be of what a role is fed."""
    signature = SIGNATURES[role]
    return _most_bytes({**signature.inputs, **signature.optional}, bundle)


def most_given_bytes(role: Role, bundle: Bundle) -> int:
    """Return how long the bytes can be of what a role gives."""
    return _most_bytes({SIGNATURES[role].output: SIGNATURES[role].output_axes}, bundle)


def lengths(bundle: Bundle) -> dict[str, int]:
    """Return how long each axis of the signatures can be with this bundle."""
    sampling, text, face = bundle.sampling, bundle.text, bundle.face
    cells = LONGEST_PX // (sampling.latent_stride if sampling else 1)
    return {
        "T": text.max_tokens if text else MOST_WORDS, "D": WIDEST,
        "C": sampling.latent_channels if sampling else 0, "h": cells, "w": cells,
        "H": LONGEST_PX, "W": LONGEST_PX,
        "N": face.size_px if face else 0, "n": MOST_FACES, "K": FACE_NUMBERS,
    }  # fmt: skip


def _most_bytes(arrays: Mapping[str, Axes], bundle: Bundle) -> int:
    limits = lengths(bundle)
    sizes = {name: math.prod(_limit(axis, limits) for axis in axes) for name, axes in arrays.items()}
    return 8 + HEADER_BYTES + sum(_dtype(name).itemsize * size for name, size in sizes.items())


def _dtype(name: str) -> np.dtype[Any]:
    return DTYPES["I64"] if name == "ids" else DTYPES["F32"]


def _limit(axis: str | int, limits: Mapping[str, int]) -> int:
    return axis if isinstance(axis, int) else limits[axis]


def _unpack(
    body: bytes, needed: Mapping[str, Axes], optional: Mapping[str, Axes], limits: Mapping[str, int]
) -> dict[str, Array]:
    length = int.from_bytes(body[:8], "little")
    if not 0 < length <= HEADER_BYTES or 8 + length > len(body):
        raise ValueError(f"a header of {length} bytes")
    tensors = files.stored_tensors(body[8 : 8 + length], "what was sent")
    axes = {**needed, **optional}
    if not needed.keys() <= tensors.keys() <= axes.keys():
        raise ValueError(f"arrays called {', '.join(sorted(tensors))}, not {', '.join(sorted(axes))}")
    end, arrays, named = 8 + length, dict[str, Array](), dict[str, int]()
    for name, tensor in sorted(tensors.items(), key=lambda pair: pair[1].offset):
        dtype = _dtype(name)
        if CODES[dtype] != tensor.dtype or len(tensor.shape) != len(axes[name]):
            raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}")
        for axis, size in zip(axes[name], tensor.shape, strict=True):
            fixed = axis if isinstance(axis, int) else named.setdefault(axis, size)
            if not 1 <= size <= _limit(axis, limits) or size != fixed:
                raise ValueError(f"{name} has a shape of {tensor.shape}")
        if tensor.offset != end or tensor.length != math.prod(tensor.shape) * dtype.itemsize:
            raise ValueError(f"{name} has {tensor.length} bytes at {tensor.offset}")
        end += tensor.length
        if end > len(body):
            raise ValueError(f"{name} is cut off")
        flat = np.frombuffer(body, dtype, math.prod(tensor.shape), tensor.offset)
        arrays[name] = flat.reshape(tensor.shape).copy()  # its own memory: aligned, and an engine may write to it
    if end != len(body):
        raise ValueError(f"{len(body) - end} bytes are left over")
    return arrays
