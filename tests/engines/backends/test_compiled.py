"""What engines compile is kept and used again; lost, damaged or unwritable, it costs time and nothing else."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines import backends
from engines.backends import Engine, Session, openvino_backend
from engines.bundle import Bundle, Shelf
from engines.bundle.signatures import Array

KEEPS = [name for name in ("ort", "openvino") if backends.engine(name).probe().ok]
SMAPS = Path("/proc/self/smaps")
every_keeper = pytest.mark.parametrize("name", KEEPS)


@pytest.fixture
def bundle(builtin: Path, tmp_path: Path) -> Bundle:
    return Shelf((builtin,), tmp_path / "cache").open("restorer")


def face(bundle: Bundle) -> Array:
    side = bundle.need(bundle.face, "face").size_px
    return np.random.default_rng(0).uniform(-1, 1, (1, 3, side, side)).astype(np.float32)


def load(engine: Engine, bundle: Bundle) -> Session:
    return engine.load(bundle, bundle.part("restorer", engine.formats))


def restored(name: str, bundle: Bundle) -> Array:
    session = load(backends.engine(name), bundle)
    (result,) = session.run({"face": face(bundle)}).values()
    kept: Array = result.copy()
    session.close()
    return kept


def files(bundle: Bundle) -> dict[Path, tuple[int, int]]:
    """What is kept, and what tells that it was written again."""
    assert bundle.cache is not None
    found = (path for path in bundle.cache.rglob("*") if path.is_file())
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


@every_keeper
def test_what_was_compiled_is_kept_and_read_the_next_time(name: str, bundle: Bundle) -> None:
    first = restored(name, bundle)
    kept = files(bundle)
    assert kept and all(path.is_relative_to(bundle.cache or "") and "tmp" not in path.suffix for path in kept)
    for path in kept:
        os.utime(path, (1, 1))  # reading shows in the time of access
    again = restored(name, bundle)
    assert files(bundle).keys() == kept.keys(), "compiled once"
    assert all(path.stat().st_mtime == 1 for path in kept), "and not written a second time"
    assert np.abs(again - first).max() <= 1e-5


def test_ort_reads_the_kept_graph_and_not_the_bundles(bundle: Bundle, tmp_path: Path) -> None:
    """The graph of the bundle is replaced by junk: who still loads, loads what was kept."""
    if "ort" not in KEEPS:
        pytest.skip("ONNX Runtime is not installed")
    shutil.copytree(bundle.root, tmp_path / "restorer")
    copy = replace(bundle, root=tmp_path / "restorer")
    first = restored("ort", copy)
    part = copy.part("restorer", frozenset({"onnx"}))
    path = copy.root / part.file
    (path / "model.onnx" if path.is_dir() else path).write_bytes(b"junk")
    assert np.abs(restored("ort", copy) - first).max() <= 1e-5


def resident_kb(folder: Path) -> int:
    """Of all mappings of files in there."""
    found = re.findall(rf"{re.escape(str(folder))}/.*\nSize:.*\n(?:.*\n)*?Rss: +(\d+) kB", SMAPS.read_text())
    return sum(map(int, found))


@pytest.mark.skipif("openvino" not in KEEPS or not SMAPS.exists(), reason="needs OpenVINO and Linux's /proc")
def test_large_weights_take_no_memory_twice(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO maps what it compiled before; once it has run, the pages of that are given back."""
    first, engine = restored("openvino", bundle), backends.engine("openvino")
    left: dict[int, int] = {}
    for limit in (1 << 40, 0):
        monkeypatch.setattr(openvino_backend, "LARGE", limit)
        session = load(engine, bundle)
        for _ in range(2):
            (result,) = session.run({"face": face(bundle)}).values()
            assert np.abs(result - first).max() <= 1e-5
        left[limit] = resident_kb(bundle.root) + resident_kb(bundle.cache or Path())
        session.close()
    assert left[1 << 40] > 1000 > 200 > left[0]


DAMAGE = {"cut off": lambda data: data[: len(data) // 2], "empty": lambda data: b"", "junk": lambda data: b"junk" * 99}


@every_keeper
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_not_used_and_is_replaced(name: str, bundle: Bundle, damage: str) -> None:
    first = restored(name, bundle)
    kept = {path: path.read_bytes() for path in files(bundle)}
    for path, data in kept.items():
        path.write_bytes(DAMAGE[damage](data))
    assert np.abs(restored(name, bundle) - first).max() <= 1e-5
    assert np.abs(restored(name, bundle) - first).max() <= 1e-5
    whole = max(len(data) for data in kept.values())
    assert max(path.stat().st_size for path in files(bundle)) > 0.9 * whole, "it stands there whole again"


@every_keeper
def test_other_weights_are_not_taken_from_the_cache(name: str, bundle: Bundle) -> None:
    """The same folder, a bundle of the same name: nothing is kept under a name alone."""
    restored(name, bundle)
    before = files(bundle)
    other = replace(bundle, parts=tuple(replace(part, sha256="0" * 64) for part in bundle.parts))
    restored(name, other)
    if name == "ort":  # OpenVINO tells models apart by their content, which is the same here
        assert len(files(other)) == 2 * len(before)


@every_keeper
def test_without_a_cache_nothing_is_kept(name: str, builtin: Path, tmp_path: Path) -> None:
    bundle = Shelf((builtin,)).open("restorer")
    assert bundle.cache is None
    before = sorted(bundle.root.rglob("*"))
    restored(name, bundle)
    assert sorted(bundle.root.rglob("*")) == before


@every_keeper
def test_a_cache_that_cannot_be_written_costs_only_time(name: str, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    first = restored(name, bundle)
    for cache in (tmp_path / "file", tmp_path / "file" / "below"):
        assert np.abs(restored(name, replace(bundle, cache=cache)) - first).max() <= 1e-5


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the processor can do, as a test says."""
    found: list[str] = []
    monkeypatch.setattr(openvino_backend, "processor_flags", lambda: frozenset(found))
    yield found


@pytest.mark.skipif("openvino" not in KEEPS, reason="OpenVINO is not installed")
@pytest.mark.parametrize(
    ("has", "narrow"),
    [
        ([], "f32"),
        (["avx2", "avx512f"], "f32"),
        (["avx512_bf16"], "bf16"),
        (["amx_bf16", "avx512_fp16"], "bf16"),
        (["asimdhp"], "f16"),
    ],
)
def test_the_probe_says_how_narrow_the_arithmetic_is(flags: list[str], has: list[str], narrow: str) -> None:
    flags += has
    assert backends.engine("openvino").probe().reason.endswith(f" threads, {narrow}")


@pytest.mark.skipif("openvino" not in KEEPS, reason="OpenVINO is not installed")
def test_openvino_rounds_only_where_the_bundle_allows_it(builtin: Path) -> None:
    """The same graph twice: as fp32 it agrees with ONNX Runtime, as bf16 it may differ."""
    bundle = Shelf((builtin,)).open("restorer")
    onnx = next(part for part in bundle.parts if part.format == "onnx" and part.precision == "fp32")
    exact = replace(bundle, parts=(onnx,))
    coarse = replace(bundle, parts=(replace(onnx, precision="bf16"),))
    reference, ours = restored("ort", exact), restored("openvino", exact)
    assert np.abs(ours - reference).max() <= 1e-4
    differs = float(np.abs(restored("openvino", coarse) - reference).max())
    narrow = backends.engine("openvino").probe().reason.rpartition(" ")[2]
    assert (differs > 1e-4) == (narrow != "f32") and differs < 0.1


@pytest.mark.parametrize(
    ("held_to", "kind"), [("", "bf16"), ("ALL", "bf16"), ("AVX2", "f32"), ("AVX512_CORE_VNNI", "f32")]
)
def test_no_float_is_asked_for_that_onednn_is_kept_from(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, held_to: str, kind: str
) -> None:
    flags.append("avx512_bf16")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", held_to)
    assert openvino_backend.reduced_precision() == kind
