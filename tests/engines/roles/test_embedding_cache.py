"""The cache saves time and nothing else: whatever happens to its files, the right array comes back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.roles.embedding_cache import ArrayCache
from tests.conftest import REPOSITORY

ARRAY = np.arange(24, dtype=np.float32).reshape(1, 4, 6)


class Maker:
    """Makes ARRAY and counts how often."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> NDArray[np.float32]:
        self.made += 1
        return ARRAY


def test_a_hit_is_not_made_again(tmp_path: Path) -> None:
    make = Maker()
    for _ in range(3):
        kept = ArrayCache(tmp_path / "cache", 4).get_or(("a", "b"), make)
        assert kept.dtype == np.float32 and (kept == ARRAY).all()
    assert make.made == 1


def test_keys_are_told_apart(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, 10)
    keys = [("a", "b"), ("ab",), ("a", "b", ""), ("b", "a"), ("a', 'b",), ("图",)]
    for i, key in enumerate(keys):
        cache.get_or(key, partial(np.array, [i]))
    assert [cache.get_or(key, lambda: np.array([-1]))[0] for key in keys] == list(range(len(keys)))


def kept_file(folder: Path) -> tuple[ArrayCache, Path]:
    cache = ArrayCache(folder, 4)
    cache.get_or(("k",), Maker())
    (file,) = (path for path in folder.iterdir() if path.is_file())
    return cache, file


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"PK\x03\x04" + bytes(40), bytes(300), b"\x93NUMPY\x01\x00v\x00{'descr': "]
)
def test_a_file_that_is_no_array_is_a_miss_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    cache, file = kept_file(tmp_path)
    file.write_bytes(content)
    make = Maker()
    for _ in range(2):
        assert (cache.get_or(("k",), make) == ARRAY).all()
    assert make.made == 1


def test_a_short_file_is_a_miss(tmp_path: Path) -> None:
    cache, file = kept_file(tmp_path)
    whole = file.read_bytes()
    for length in range(0, len(whole), 5):
        file.write_bytes(whole[:length])
        assert (cache.get_or(("k",), Maker()) == ARRAY).all()


def test_one_changed_byte_is_a_miss(tmp_path: Path) -> None:
    """Wherever it is: a caption read wrongly from a worn SD card would draw another picture, for ever."""
    cache, file = kept_file(tmp_path)
    whole = file.read_bytes()
    for at in range(len(whole)):
        for value in {ord("("), whole[at] ^ 1} - {whole[at]}:
            file.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            kept = cache.get_or(("k",), Maker())
            assert kept.dtype == np.float32 and kept.shape == ARRAY.shape and (kept == ARRAY).all()


def test_the_least_recently_used_leave_first(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, 3)
    for i, name in enumerate("abc"):
        cache.get_or((name,), Maker())
        for file in tmp_path.iterdir():
            if file.stat().st_mtime > 1_000_000:
                os.utime(file, (i + 1, i + 1))  # a, b, c were used in this order, long ago
    kept = Maker()
    cache.get_or(("a",), kept)
    cache.get_or(("d",), Maker())
    assert len(list(tmp_path.iterdir())) == 3
    for name in "acd":
        cache.get_or((name,), kept)
    assert kept.made == 0
    cache.get_or(("b",), kept)
    assert kept.made == 1


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    make = Maker()
    for _ in range(2):
        assert (ArrayCache(tmp_path / "file", 4).get_or(("a",), make) == ARRAY).all()
        assert (ArrayCache(tmp_path / "file" / "below", 4).get_or(("a",), make) == ARRAY).all()
    assert make.made == 4


def test_an_array_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> NDArray[np.float32]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ArrayCache(tmp_path, 4).get_or(("a",), fail)
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    import numpy as np
    from engines.roles.embedding_cache import ArrayCache
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    cache = ArrayCache(Path(sys.argv[1]), 4)
    print(cache.get_or(("big",), lambda: np.ones((1, 100, 100), np.float32)).sum())
    print(cache.get_or(("small",), lambda: np.ones(3, np.float32)).sum())
"""


def test_a_full_disk_costs_only_time_and_leaves_no_half_file(tmp_path: Path) -> None:
    code = textwrap.dedent(FULL_DISK)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["10000.0", "3.0"]
    assert len(list(tmp_path.iterdir())) == 1


def test_threads_share_one_folder(tmp_path: Path) -> None:
    """Same keys at the same time: everybody gets the right array, and no half-written file is left."""
    cache = ArrayCache(tmp_path, 100)
    wrong: list[int] = []

    def work() -> None:
        for i in range(60):
            if (cache.get_or((str(i % 7),), partial(np.full, 2000, i % 7)) != i % 7).any():
                wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(list(tmp_path.iterdir())) == 7


def test_the_last_few_are_held_in_memory_and_no_more(tmp_path: Path) -> None:
    """Without their files too; which of them leaves is decided by use, not by age."""
    cache, make = ArrayCache(tmp_path / "cache", 9, recent=2), Maker()
    first = cache.get_or(("a",), make)
    cache.get_or(("b",), make)
    assert cache.get_or(("a",), make) is first, "not even read"
    cache.get_or(("c",), make)
    shutil.rmtree(tmp_path / "cache")
    for name in "ac":
        cache.get_or((name,), make)
    assert make.made == 3
    cache.get_or(("b",), make)
    assert make.made == 4, "the one that was used least recently had left"


def test_nothing_is_held_in_memory_unless_asked(tmp_path: Path) -> None:
    cache, make = ArrayCache(tmp_path / "cache", 9), Maker()
    for _ in range(2):
        cache.get_or(("a",), make)
        shutil.rmtree(tmp_path / "cache")
    assert make.made == 2


def test_what_is_held_in_memory_is_on_disk_for_the_next_start(tmp_path: Path) -> None:
    make = Maker()
    for _ in range(2):
        assert (ArrayCache(tmp_path / "cache", 9, recent=2).get_or(("a",), make) == ARRAY).all()
    assert make.made == 1
