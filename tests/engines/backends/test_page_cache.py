"""Pages of mapped files are given back, those of the named folders alone, and nothing that was written is lost."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engines.backends import page_cache

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's"),
    pytest.mark.usefixtures("on_disk"),
]
SIZE = 8 << 20
BYTES = bytes(range(256)) * (SIZE // 256)


@pytest.fixture
def on_disk(tmp_path: Path) -> None:
    """A file in memory has nowhere to give pages back to."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    over = [(len(point), kind) for point, kind in mounts if tmp_path.is_relative_to(point)]
    if max(over)[1] == "tmpfs":
        pytest.skip(f"{tmp_path} is no disk")


@contextmanager
def mapped(path: Path, access: int = mmap.ACCESS_READ) -> Iterator[mmap.mmap]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(BYTES)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, access=access) as region:
        os.fsync(file.fileno())  # what is not on the disk yet cannot be given back
        assert sum(region[:: mmap.PAGESIZE]) == sum(BYTES[:: mmap.PAGESIZE])
        yield region


def resident_kb(path: Path) -> int:
    """Of the file's mapping, by /proc/self/smaps."""
    text = Path("/proc/self/smaps").read_text()
    (found,) = re.findall(rf"{re.escape(str(path))}\nSize:.*?\nRss: +(\d+) kB", text, re.DOTALL)
    return int(found)


def test_pages_are_given_back_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "weights.bin"
    with mapped(path) as region:
        assert resident_kb(path) == SIZE >> 10
        with page_cache.given_back(path.parent):
            pass
        assert resident_kb(path) == 0
        assert region[:] == BYTES


def cached(path: Path) -> float:
    """How much of a file is in the system's cache, 0..1. (mincore(2))"""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as region:
        here = (ctypes.c_ubyte * (SIZE // mmap.PAGESIZE))()
        view = ctypes.c_char.from_buffer(region)
        failed = ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(SIZE), here)
        del view
        assert not failed
    return sum(flag & 1 for flag in here) / len(here)


def test_the_file_is_in_the_systems_cache_for_who_loads_it_next(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    with mapped(path):
        with page_cache.given_back(tmp_path):
            pass
        deadline = time.monotonic() + 20
        while cached(path) < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert cached(path) == 1 and resident_kb(path) == 0


def test_they_are_given_back_while_the_body_still_runs(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    with mapped(path), page_cache.given_back(tmp_path):
        deadline = time.monotonic() + 20
        while resident_kb(path) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert resident_kb(path) == 0


def test_other_folders_keep_theirs(tmp_path: Path) -> None:
    path = tmp_path / "models-2" / "weights.bin"  # begins like the other's name
    with mapped(path):
        with page_cache.given_back(tmp_path / "models"):
            pass
        assert resident_kb(path) == SIZE >> 10


def test_what_was_written_stays(tmp_path: Path) -> None:
    """A private mapping has its changes nowhere else."""
    with mapped(tmp_path / "weights.bin", mmap.ACCESS_COPY) as region:
        region[:4] = b"mine"
        with page_cache.given_back(tmp_path):
            pass
        assert region[:] == b"mine" + BYTES[4:]


def test_a_failing_body_ends_the_watch_and_the_fault_comes_through(tmp_path: Path) -> None:
    with mapped(tmp_path / "weights.bin"), pytest.raises(ValueError, match="broken graph"):
        with page_cache.given_back(tmp_path):
            raise ValueError("broken graph")
    with page_cache.given_back(tmp_path):
        pass


def test_without_proc_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_cache, "MAPS", tmp_path / "nowhere")
    path = tmp_path / "weights.bin"
    with mapped(path):
        with page_cache.given_back(tmp_path):
            pass
        assert resident_kb(path) == SIZE >> 10
