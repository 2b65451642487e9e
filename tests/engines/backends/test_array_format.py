"""Arrays as bytes: what safetensors writes and reads, and nothing that does not fit its role is ever an array."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.backends import array_format
from engines.bundle import Bundle, Shelf
from engines.bundle.signatures import Array


@pytest.fixture(scope="module")
def bundle(builtin: Path) -> Bundle:
    return Shelf((builtin,)).open("portrait")


def feeds() -> dict[str, Array]:
    rng = np.random.default_rng(7)
    return {
        "latents": rng.standard_normal((1, 16, 32, 24), dtype=np.float32),
        "time": np.array([np.nextafter(np.float32(0.5), np.float32(1))], np.float32),
        "prompt": rng.standard_normal((1, 9, 64), dtype=np.float32),
    }


def written(header: dict[str, Any] | bytes, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: tuple[int, ...], begin: int = 0, dtype: str = "F32", size: int = 4) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": (begin, begin + int(np.prod(shape)) * size)}


def test_every_bit_comes_through(bundle: Bundle) -> None:
    sent = feeds()
    sent["latents"][0, 0, 0, :4] = [np.nan, -np.inf, -0.0, np.float32(1e-45)]
    came = array_format.unpack_feeds("denoiser", bundle, array_format.pack(sent))
    assert came.keys() == sent.keys()
    for name, array in came.items():
        assert (array.dtype, array.shape, array.tobytes()) == (sent[name].dtype, sent[name].shape, sent[name].tobytes())
        assert array.flags.writeable and array.flags.aligned, "PyTorch would copy it, or warn"


def test_it_is_the_format_of_safetensors(bundle: Bundle) -> None:
    library = pytest.importorskip("safetensors.numpy")
    for name, array in library.load(array_format.pack(feeds())).items():
        assert np.array_equal(array, feeds()[name])
    came = array_format.unpack_feeds("denoiser", bundle, library.save(feeds()))
    assert all(np.array_equal(array, feeds()[name]) for name, array in came.items())


def test_what_is_not_contiguous_is_written_in_order(bundle: Bundle) -> None:
    picture = np.arange(2 * 4 * 3, dtype=np.float32).reshape(2, 4, 3).transpose(2, 0, 1)[None]
    came = array_format.unpack_feeds("encoder", bundle, array_format.pack({"image": picture}))
    assert np.array_equal(came["image"], picture)


def test_limits_are_the_bundles(bundle: Bundle) -> None:
    words = array_format.most_fed_bytes("text_encoder", bundle)
    assert words == 8 + array_format.HEADER_BYTES + 512 * 8
    cells = 16 * 128 * 128 * 4  # of 2048 x 2048 pixels
    assert array_format.most_fed_bytes("decoder", bundle) == 8 + array_format.HEADER_BYTES + cells
    assert array_format.most_given_bytes("decoder", bundle) == 8 + array_format.HEADER_BYTES + 3 * 2048 * 2048 * 4
    ids = np.zeros((1, 512), np.int64)
    assert len(array_format.pack({"ids": ids})) <= words
    assert array_format.unpack_feeds("text_encoder", bundle, array_format.pack({"ids": ids}))["ids"].shape == (1, 512)
    with pytest.raises(ValueError, match="shape"):
        array_format.unpack_feeds("text_encoder", bundle, array_format.pack({"ids": np.zeros((1, 513), np.int64)}))


LATENTS = (1, 16, 2, 2)
DATA = bytes(4 * 16 * 4)
GARBAGE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "a pickle": lambda: b"\x80\x05\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "half a number": lambda: b"\x08\x00\x00",
    "a header of 2^63 bytes": lambda: (2**63).to_bytes(8, "little") + DATA,
    "a header longer than the rest": lambda: (100).to_bytes(8, "little") + b"{}",
    "a long header": lambda: written(json.dumps({"latents": entry(LATENTS)}).encode().ljust(5000), DATA),
    "no JSON": lambda: written(b"\xff\xfe latents", DATA),
    "JSON nested deeply": lambda: written(b"[" * 4000, DATA),
    "a list": lambda: written(b"[1, 2]", DATA),
    "no array": lambda: written({}, b""),
    "another name": lambda: written({"cells": entry(LATENTS)}, DATA),
    "one more": lambda: written({"latents": entry(LATENTS), "x": entry((1,), 256)}, DATA + bytes(4)),
    "another type": lambda: written({"latents": entry(LATENTS, 0, "F64", 8)}, DATA * 2),
    "integers": lambda: written({"latents": entry(LATENTS, 0, "I64", 8)}, DATA * 2),
    "another rank": lambda: written({"latents": entry((16, 2, 2))}, DATA),
    "two pictures": lambda: written({"latents": entry((2, 16, 2, 2))}, DATA * 2),
    "more channels": lambda: written({"latents": entry((1, 17, 2, 2))}, bytes(4 * 17 * 4)),
    "an axis of 0": lambda: written({"latents": entry((1, 16, 0, 2))}, b""),
    "an axis below 0": lambda: written(
        {"latents": {"dtype": "F32", "shape": [1, 16, -2, -2], "data_offsets": [0, 256]}}, DATA
    ),
    "a side of 2^40": lambda: written({"latents": entry((1, 16, 2**40, 1))}, DATA),
    "a side beyond the largest": lambda: written({"latents": entry((1, 16, 129, 1))}, bytes(4 * 16 * 129)),
    "cut off": lambda: written({"latents": entry(LATENTS)}, DATA[:-1]),
    "left over": lambda: written({"latents": entry(LATENTS)}, DATA + b"\x00"),
    "a gap": lambda: written({"latents": entry(LATENTS, 4)}, bytes(4) + DATA),
    "bytes of another number": lambda: written(
        {"latents": {"dtype": "F32", "shape": LATENTS, "data_offsets": (0, 128)}}, DATA[:128]
    ),
    "offsets that are no numbers": lambda: written(
        {"latents": {"dtype": "F32", "shape": LATENTS, "data_offsets": (0, True)}}, DATA
    ),
    "an entry that is none": lambda: written({"latents": 5}, DATA),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_no_array(name: str, bundle: Bundle) -> None:
    good = array_format.unpack_feeds("decoder", bundle, written({"latents": entry(LATENTS)}, DATA))
    assert good["latents"].shape == LATENTS
    with pytest.raises(ValueError):
        array_format.unpack_feeds("decoder", bundle, GARBAGE[name]())


def test_arrays_do_not_share_bytes_and_their_axes_agree(bundle: Bundle) -> None:
    """Otherwise few bytes of a stranger's would be many of ours."""
    sent = feeds()
    for change in ({"prompt": sent["prompt"].repeat(60, 1)}, {"time": np.zeros(2, np.float32)}):
        with pytest.raises(ValueError, match="shape"):
            array_format.unpack_feeds("denoiser", bundle, array_format.pack({**sent, **change}))
    twice = {"latents": entry(LATENTS), "time": entry((1,)), "prompt": entry((1, 1, 1))}
    with pytest.raises(ValueError, match="bytes at"):
        array_format.unpack_feeds("denoiser", bundle, written(twice, DATA))
    with pytest.raises(ValueError, match="called"):
        array_format.unpack_feeds("denoiser", bundle, array_format.pack({"latents": sent["latents"]}))


def test_a_random_flip_never_does_more_than_change_numbers(bundle: Bundle) -> None:
    body, rng = array_format.pack(feeds()), np.random.default_rng(3)
    refused = 0
    for _ in range(2000):
        spoilt = bytearray(body)
        spoilt[int(rng.integers(0, 300))] ^= 1 << int(rng.integers(0, 8))
        try:
            came = array_format.unpack_feeds("denoiser", bundle, bytes(spoilt))
        except ValueError:
            refused += 1
        else:
            assert {name: array.shape for name, array in came.items()} == {n: a.shape for n, a in feeds().items()}
    assert refused > 1000
