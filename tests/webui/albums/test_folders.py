"""Folders that are not ours: what is listed of them, what is read, and what a share that is away or hangs does."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.errors import FileTooLarge, FolderAway, ImageError, NotFoundError, StorageError
from webui.albums import folders, reading
from webui.albums.folders import AWAY_S, FOLDER_S, Folder, Shown, folders_of


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (folder := tmp_path / "share" / "holidays").mkdir(parents=True)
    return folder


@pytest.fixture
def folder(root: Path, clock: Clock) -> Folder:
    return Folder(root, b"secret", clock, most_bytes=1000)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hangs goes on when it is set."""
    event = threading.Event()
    yield event
    event.set()


def put(path: Path, at: float = 5.0, data: bytes = b"picture") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (at, at))
    return path


def names(folder: Folder) -> list[str]:
    return [shown.name for shown in folder.pictures().values()]


def only(folder: Folder) -> Shown:
    (shown,) = folder.pictures().values()
    return shown


# ---- the listing


def test_newest_first_and_of_one_moment_always_in_the_same_order(folder: Folder, root: Path, clock: Clock) -> None:
    for k in range(20):
        put(root / "below" / f"{k}.jpg", at=5.0)
    put(root / "old.jpg", at=1.0)
    put(root / "new.HEIC", at=9.0)
    first = names(folder)
    assert (first[0], first[-1], len(first)) == ("new.HEIC", "old.jpg", 22)
    clock.now += FOLDER_S
    assert names(folder) == first
    ids = list(folder.pictures())
    assert ids[1:-1] == sorted(ids[1:-1], reverse=True)


def test_a_picture_is_one_of_its_own_folder(folder: Folder, root: Path, tmp_path: Path) -> None:
    put(root / "a.jpg")
    put(tmp_path / "wedding" / "b.jpg")
    both = folders_of({"holidays": root, "wedding": tmp_path / "wedding"}, b"secret")
    (picture_id,) = both["wedding"].pictures()
    assert both["wedding"].picture(picture_id).name == "b.jpg"
    for asked in (picture_id, "", "../wedding/b.jpg", str(root / "a.jpg"), "a.jpg"):
        with pytest.raises(NotFoundError):
            folder.picture(asked)


def test_a_share_that_is_away_is_said_to_be_and_comes_back_soon(
    folder: Folder, root: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    put(root / "a.jpg")
    assert names(folder) == ["a.jpg"] and not folder.is_away
    shutil.move(root.parent, root.parents[1] / "away")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.now += FOLDER_S
            assert names(folder) == ["a.jpg"] and folder.is_away
    assert len(caplog.records) == 1 and str(root) not in caplog.text
    shutil.move(root.parents[1] / "away", root.parent)
    clock.now += AWAY_S
    assert names(folder) == ["a.jpg"] and not folder.is_away


def test_a_folder_that_was_never_there_is_away_and_not_empty(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "nowhere", b"secret")
    assert names(folder) == [] and folder.is_away


def test_a_bare_mount_point_is_a_share_that_is_away(folder: Folder, root: Path, clock: Clock) -> None:
    """Its files are gone with it, and it is on another device than what was mounted there."""
    path = put(root / "a.jpg")
    assert names(folder) == ["a.jpg"]
    path.unlink()
    folder._device += 1
    clock.now += FOLDER_S
    assert names(folder) == ["a.jpg"] and folder.is_away
    folder._device -= 1
    clock.now += FOLDER_S
    assert names(folder) == [] and not folder.is_away


def test_a_share_that_breaks_off_half_way_loses_nothing_and_a_folder_that_is_shut_is_passed_over(
    folder: Folder, root: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "a.jpg")
    put(root / "below" / "b.jpg", at=1.0)
    assert names(folder) == ["a.jpg", "b.jpg"]
    true_scandir, refusal = os.scandir, PermissionError(errno.EACCES, "Permission denied")

    def scandir(path: Any) -> Any:
        if str(path).endswith("below"):
            raise refusal
        return true_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    clock.now += FOLDER_S
    assert names(folder) == ["a.jpg"] and not folder.is_away
    monkeypatch.undo()
    clock.now += FOLDER_S
    assert names(folder) == ["a.jpg", "b.jpg"]
    refusal = OSError(errno.EHOSTDOWN, "Host is down")  # type: ignore[assignment]
    monkeypatch.setattr(os, "scandir", scandir)
    clock.now += FOLDER_S
    assert names(folder) == ["a.jpg", "b.jpg"] and folder.is_away


def test_a_share_that_hangs_is_away_until_it_answers(
    folder: Folder, root: Path, clock: Clock, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "a.jpg")
    true_walk, back = folders.files_of, threading.Event()

    def hanging(path: Path) -> Iterator[Shown]:
        gate.wait(60)
        yield from true_walk(path)
        back.set()

    monkeypatch.setattr(folders, "files_of", hanging)
    assert folder.pictures(patience_s=0.01) == {} and folder.is_away
    clock.now += 10 * FOLDER_S
    assert folder.pictures(patience_s=0.0) == {} and folder.is_away
    gate.set()
    assert back.wait(60) and folder._listed._idle.wait(60)
    assert names(folder) == ["a.jpg"] and not folder.is_away


def test_who_asks_while_it_is_being_read_waits_for_that(
    folder: Folder, root: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "a.jpg")
    true_walk, walks = folders.files_of, []

    def slow(path: Path) -> Iterator[Shown]:
        walks.append(path)
        gate.wait(60)
        return true_walk(path)

    monkeypatch.setattr(folders, "files_of", slow)
    answers: list[list[str]] = []
    askers = [
        threading.Thread(target=lambda: answers.append([s.name for s in folder.pictures(60).values()]))
        for _ in range(3)
    ]
    for asker in askers:
        asker.start()
    gate.set()
    for asker in askers:
        asker.join(60)
    assert answers == [["a.jpg"]] * 3 and len(walks) == 1


def test_a_name_that_cannot_be_written_has_one_that_can(folder: Folder, root: Path) -> None:
    put(Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.jpg")))
    assert only(folder).name == "caf?.jpg" and only(folder).path.is_file()


# ---- a file


def test_a_file_is_lent_as_a_copy_that_is_gone_in_the_end(folder: Folder, root: Path, cache: Path) -> None:
    path = put(root / "below" / "a.jpg", data=b"bytes" * 100)
    before = path.stat()
    with folder.lent(only(folder), cache) as copy:
        assert copy.read_bytes() == b"bytes" * 100 and copy.parent == cache
        copy.write_bytes(b"")
    assert list(cache.iterdir()) == []
    assert path.read_bytes() == b"bytes" * 100 and path.stat().st_mtime_ns == before.st_mtime_ns


def replaced_by_a_link(path: Path, secret: Path) -> None:
    path.unlink()
    path.symlink_to(secret)


def below_a_link(path: Path, secret: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to(secret.parent)


def replaced_by_a_pipe(path: Path, _: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replaced_by_a_folder(path: Path, _: Path) -> None:
    path.unlink()
    path.mkdir()


def gone(path: Path, _: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [replaced_by_a_link, below_a_link, replaced_by_a_pipe, replaced_by_a_folder, gone])
def test_what_is_no_file_of_the_folder_any_more_is_not_read(
    folder: Folder, root: Path, cache: Path, tmp_path: Path, change: Callable[[Path, Path], None]
) -> None:
    secret = put(tmp_path / "own" / "a.jpg", data=b"secret")
    path = put(root / "below" / "a.jpg")
    shown = only(folder)
    change(path, secret)
    with pytest.raises(NotFoundError), folder.lent(shown, cache):
        pass
    assert list(cache.iterdir()) == []


def test_a_file_with_too_many_bytes_is_not_read(folder: Folder, root: Path, cache: Path) -> None:
    put(root / "a.jpg", data=bytes(1001))
    with pytest.raises(FileTooLarge) as refusal, folder.lent(only(folder), cache):
        pass
    assert refusal.value.facts == {"size_mb": 1, "limit_mb": 0}


@pytest.mark.parametrize(
    ("fault", "error"),
    [(errno.EIO, FolderAway), (errno.ESTALE, FolderAway), (errno.ETIMEDOUT, FolderAway), (errno.EACCES, ImageError)],
)
def test_what_a_share_refuses(
    folder: Folder, root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, fault: int, error: type[Exception]
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(fault, os.strerror(fault))

    put(root / "a.jpg")
    shown = only(folder)
    monkeypatch.setattr(reading, "opened", refuse)
    with pytest.raises(error), folder.lent(shown, cache):
        pass


def test_a_full_disk_is_this_machines(folder: Folder, root: Path, cache: Path) -> None:
    put(root / "a.jpg")
    shown = only(folder)
    cache.mkdir()
    with pytest.raises(StorageError):
        reading.copy(root, shown.path, cache / "missing" / "copy", 1000)


def test_after_one_file_that_hangs_nobody_waits_until_it_has_come(
    folder: Folder, root: Path, cache: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "a.jpg")
    shown, true_opened, calls = only(folder), reading.opened, []

    def hanging(root: Path, path: Path) -> int:
        calls.append(path)
        gate.wait(60)
        return true_opened(root, path)

    monkeypatch.setattr(reading, "opened", hanging)
    monkeypatch.setattr(folders, "FILE_S", 0.01)
    for _ in range(20):
        with pytest.raises(FolderAway), folder.lent(shown, cache):
            pass
    assert len(calls) == 1 and folder.is_away
    gate.set()
    monkeypatch.setattr(folders, "FILE_S", 60.0)
    came_back = threading.Event()
    while folder.is_away:
        assert not came_back.wait(0.01)
    with folder.lent(shown, cache) as copy:
        assert copy.read_bytes() == b"picture"
    assert list(cache.iterdir()) == []
