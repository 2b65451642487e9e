"""Uploaded photos on disk: named by their content, whole or not there at all, gone after their days."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

import pytest

from engines.errors import ImageError, StorageError
from webui import uploads
from webui.sweep import forget

PHOTO = b"\xff\xd8" + bytes(range(256)) * 40_000  # 10 MB: more than one buffer


def keep(content: bytes, folder: Path) -> Path:
    """As the form parser hands a file over."""
    with SpooledTemporaryFile(max_size=1_000_000) as file:
        file.write(content)
        file.seek(0)
        return uploads.keep(cast(BinaryIO, file), folder)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.mark.parametrize("content", [b"x", PHOTO], ids=["in memory", "spilled to disk"])
def test_what_is_kept_is_what_came(tmp_path: Path, content: bytes) -> None:
    path = keep(content, tmp_path / "new" / "folder")
    assert path.parent == tmp_path / "new" / "folder"
    assert path.read_bytes() == content
    assert path.name == hashlib.sha256(content).hexdigest()[:32], "no name that a stranger has chosen"


def test_an_open_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(PHOTO)
    with (tmp_path / "photo.jpg").open("rb") as photo:
        assert uploads.keep(photo, tmp_path / "uploads").read_bytes() == PHOTO
    assert (tmp_path / "photo.jpg").exists()


def test_bytes_in_memory_are_kept(tmp_path: Path) -> None:
    """BytesIO is a BinaryIO; hashlib reads it without moving it."""
    assert uploads.keep(io.BytesIO(b"photo"), tmp_path).read_bytes() == b"photo"


def test_the_same_photo_is_stored_once_and_another_beside_it(tmp_path: Path) -> None:
    first, again, other = (keep(content, tmp_path) for content in (b"a", b"a", b"b"))
    assert first == again != other
    assert names(tmp_path) == {first.name, other.name}


def test_a_photo_that_comes_again_lives_longer(tmp_path: Path) -> None:
    path = keep(b"a", tmp_path)
    os.utime(path, (0, 0))
    keep(b"a", tmp_path)
    forget(tmp_path, 1)
    assert path.exists()


def test_nothing_is_not_a_photo(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="empty"):
        keep(b"", tmp_path)
    assert names(tmp_path) == set()


def test_many_writers_at_once_leave_whole_files_only(tmp_path: Path) -> None:
    """Same and different photos; a reader never sees half of one."""
    contents = [bytes([k]) * 2_000_000 for k in range(4)]
    kept: list[Path] = []
    broken: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for path in tmp_path.glob("*"):
                if not path.suffix and path.stat().st_size != 2_000_000:
                    broken.append(path.name)

    def work(k: int) -> None:
        kept.extend(keep(contents[(k + j) % 4], tmp_path) for j in range(4))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    watcher = threading.Thread(target=watch)
    for thread in (watcher, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    assert broken == []
    assert len(kept) == 32
    assert {path.read_bytes() for path in set(kept)} == set(contents)
    assert names(tmp_path) == {path.name for path in kept}


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Inside, the system refuses to let any file grow further, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_half_way_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    """What could not be finished must not fill a full disk further."""
    (tmp_path / "photo").write_bytes(PHOTO)
    with (tmp_path / "photo").open("rb") as photo, files_up_to(1_000_000), pytest.raises(StorageError) as caught:
        uploads.keep(photo, tmp_path / "uploads")
    assert caught.value.facts == {"why": os.strerror(errno.EFBIG)}
    assert names(tmp_path / "uploads") == set()
    assert keep(b"small", tmp_path / "uploads").read_bytes() == b"small"


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "uploads").write_text("in the way")
    with pytest.raises(StorageError) as caught:
        keep(b"x", tmp_path / "uploads")
    assert caught.value.facts["why"]
    assert str(tmp_path) not in str(caught.value.facts), "facts are shown to people"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        folder = Path("/proc/uploads")  # where not even root can make one
    else:
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
    with pytest.raises(StorageError) as caught:
        keep(b"x", folder)
    assert caught.value.facts["why"]
