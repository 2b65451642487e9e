"""Feeds for every role of the tiny bundles, right and wrong ones, and a session of an engine over such a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines import backends
from engines.backends import Session
from engines.bundle import Bundle, Role
from engines.bundle.signatures import SIGNATURES, Array

SIZES = {"C": 16, "D": 24, "N": 16, "T": 33, "h": 34, "w": 32, "H": 68, "W": 64}  # of the tiny bundles; stride 2


def feeds_of(role: Role, seed: int = 0, **sizes: int) -> dict[str, Array]:
    rng, sizes = np.random.default_rng(seed), {**SIZES, **sizes}
    feeds: dict[str, Array] = {}
    for name, axes in SIGNATURES[role].inputs.items():
        shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in axes)
        feeds[name] = rng.integers(0, 256, shape) if name == "ids" else rng.uniform(0, 1, shape).astype(np.float32)
    return feeds


def load(built: Path, name: str, role: Role) -> Session:
    engine = backends.engine(name)
    probe = engine.probe()
    if not probe.ok:
        pytest.skip(f"{name}: {probe.reason}")
    bundle = Bundle.open(built / ("restorer" if role == "restorer" else "portrait"))
    if not any(part.role == role and part.format in engine.formats for part in bundle.parts):
        pytest.skip(f"{name} reads none of the formats that the toolchain writes")
    return engine.load(bundle, bundle.part(role, engine.formats))


def wrong_feeds(role: Role) -> dict[str, dict[str, Array]]:
    feeds = feeds_of(role)
    first = next(iter(feeds))
    array = feeds[first]
    return {
        "another name": {("x" if key == first else key): value for key, value in feeds.items()},
        "one too few": {key: value for key, value in feeds.items() if key != first},
        "one too many": {**feeds, "bogus": array},
        "another rank": {**feeds, first: array[..., None]},
        "another type": {**feeds, first: array.astype(np.float64)},
        "nothing": {},
    }
