"""What a frame may show: what is in its sources, nothing else, and not for longer than it is."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engines.errors import NotFoundError, OptionError
from engines.jobs import Finished
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Generate
from engines.messages.faces import FaceReport
from tests.support.queues import FINAL, claimed
from webui.albums import folders
from webui.albums.folders import FOLDER_S, Folder, Shown
from webui.frame.sources import ALBUM_S, Sources, focus_of


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(tmp_path / "jobs.db", tmp_path / "outputs")
    opened.folder.mkdir()
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def holidays(tmp_path: Path) -> Path:
    (folder := tmp_path / "share" / "holidays").mkdir(parents=True)
    return folder


@pytest.fixture
def opened(queue: SqliteQueue, holidays: Path, clock: Clock) -> Sources:
    return Sources(queue, b"secret", {"holidays": Folder(holidays, b"secret", clock)}, clock)


def draw(queue: SqliteQueue, name: str, owner: str = "anna") -> str:
    queue.submit(Generate("p"), owner)
    job = claimed(queue)
    (queue.folder / name).write_bytes(b"picture")
    assert queue.publish(job, replace(FINAL, images=(name,)))
    return job.id


def names(opened: Sources, *wanted: str) -> list[str]:
    return [shown.path.name for shown in opened.listing(wanted).pictures.values()]


def test_the_album_and_its_favourites_newest_first_and_nobodys_own(
    queue: SqliteQueue, opened: Sources, clock: Clock
) -> None:
    jobs = [draw(queue, f"{letter}.png") for letter in "abcd"]
    for job in jobs[:3]:
        queue.share(job, True)
    queue.favour([jobs[1], jobs[3]], "anna", True)  # the last of which is not in the album
    assert names(opened, "album") == ["c.png", "b.png", "a.png"]
    assert names(opened, "favourites") == ["b.png"]
    assert names(opened, "album", "favourites") == ["c.png", "b.png", "a.png"]  # each once


def test_what_is_taken_out_of_the_album_is_sent_no_longer(queue: SqliteQueue, opened: Sources, clock: Clock) -> None:
    job = draw(queue, "a.png")
    queue.share(job, True)
    listed = opened.listing(("album",))
    (picture_id,) = listed.pictures
    assert opened.picture(("album",), picture_id).job_id == job
    queue.share(job, False)
    clock.now += ALBUM_S
    assert opened.listing(("album",)).version != listed.version
    with pytest.raises(NotFoundError):
        opened.picture(("album",), picture_id)


def test_a_picture_of_another_source_is_not_sent(queue: SqliteQueue, opened: Sources, holidays: Path) -> None:
    (holidays / "a.jpg").write_bytes(b"x")
    (picture_id,) = opened.listing(("folder:holidays",)).pictures
    assert opened.picture(("album", "folder:holidays"), picture_id).path == holidays / "a.jpg"
    with pytest.raises(NotFoundError):
        opened.picture(("album",), picture_id)


@pytest.mark.parametrize("show", ["folder:secrets", "folder:../share", "everything", "album,everything", "folder:"])
def test_a_source_that_is_none_shows_nothing(opened: Sources, show: str) -> None:
    with pytest.raises(OptionError) as refusal:
        opened.parse(show)
    assert "folder:holidays" in str(refusal.value.facts)


def test_without_a_word_it_is_the_album(opened: Sources) -> None:
    assert opened.parse("") == opened.parse(" , ") == ("album",)
    assert opened.parse("folder:holidays, album,album") == ("folder:holidays", "album")


def test_a_folder_with_all_below_it_but_what_is_nobodys_picture(
    opened: Sources, holidays: Path, tmp_path: Path
) -> None:
    paths = ("a.JPG", "sea/b.heic", "sea/deep/c.webp", "d.png", "e.jpeg", ".hidden.jpg", "~tmp.jpg", "notes.txt",
             "@eaDir/a.jpg", "#recycle/f.jpg", ".trash/g.jpg", "h.svg")  # fmt: skip
    for i, path in enumerate(paths):
        (holidays / path).parent.mkdir(parents=True, exist_ok=True)
        (holidays / path).write_bytes(b"x")
        os.utime(holidays / path, (i, i))
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (holidays / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (holidays / "linked").symlink_to(tmp_path)
    assert names(opened, "folder:holidays") == ["e.jpeg", "d.png", "c.webp", "b.heic", "a.JPG"]


def test_a_share_that_is_away_is_not_empty(opened: Sources, holidays: Path, clock: Clock) -> None:
    (holidays / "a.jpg").write_bytes(b"x")
    assert names(opened, "folder:holidays") == ["a.jpg"]
    shutil.move(holidays.parent, holidays.parents[1] / "away")
    clock.now += FOLDER_S
    assert names(opened, "folder:holidays") == ["a.jpg"]
    shutil.move(holidays.parents[1] / "away", holidays.parent)
    (holidays / "a.jpg").unlink()
    clock.now += FOLDER_S
    assert names(opened, "folder:holidays") == []


def test_a_folder_is_not_read_for_every_question(
    opened: Sources, holidays: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks: list[Path] = []
    monkeypatch.setattr(folders, "files_of", lambda root: walks.append(root) or iter(()))
    for _ in range(20):
        opened.listing(("folder:holidays",))
        clock.now += FOLDER_S / 10
    assert len(walks) == 2


def test_a_file_in_the_place_of_another_is_a_new_picture(opened: Sources, holidays: Path, clock: Clock) -> None:
    """As that of a camera, which always has the same name."""
    (holidays / "latest.jpg").write_bytes(b"x")
    first = opened.listing(("folder:holidays",)).pictures
    os.utime(holidays / "latest.jpg", (5, 5))
    clock.now += FOLDER_S
    assert first.keys().isdisjoint(opened.listing(("folder:holidays",)).pictures)


def test_a_share_that_hangs_keeps_nobody_waiting_for_long(
    opened: Sources, queue: SqliteQueue, holidays: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (holidays / "a.jpg").write_bytes(b"x")
    queue.share(draw(queue, "b.png"), True)
    assert names(opened, "folder:holidays") == ["a.jpg"]
    gate, walks = threading.Event(), []
    true_walk = folders.files_of

    def hanging(root: Path) -> Iterator[Shown]:
        walks.append(root)
        gate.wait(60)
        return true_walk(root)

    monkeypatch.setattr(folders, "files_of", hanging)
    monkeypatch.setattr(folders, "PATIENCE_S", 0.01)
    clock.now += FOLDER_S
    for _ in range(5):  # the second does not wait at all
        assert sorted(names(opened, "folder:holidays", "album")) == ["a.jpg", "b.png"]
        clock.now += FOLDER_S
    assert len(walks) == 1
    gate.set()


def test_the_version_changes_with_the_pictures_alone(queue: SqliteQueue, opened: Sources, clock: Clock) -> None:
    queue.share(draw(queue, "a.png"), True)
    first = opened.listing(("album",)).version
    clock.now += ALBUM_S
    assert opened.listing(("album",)).version == first
    queue.share(draw(queue, "b.png"), True)
    clock.now += ALBUM_S
    assert opened.listing(("album",)).version != first


def test_an_id_cannot_be_guessed(holidays: Path) -> None:
    (holidays / "a.jpg").write_bytes(b"x")
    ids = [next(iter(Folder(holidays, secret).pictures())) for secret in (b"one", b"another")]
    assert ids[0] != ids[1] and all(len(each) == 32 for each in ids)


def finished(queue: SqliteQueue, *faces: FaceReport) -> Finished:
    draw(queue, "a.png")
    (job,) = queue.finished(1)
    return replace(job, final=replace(job.final, faces=faces))


def test_what_matters_is_between_the_faces(queue: SqliteQueue) -> None:
    left, right = FaceReport((0.1, 0.2, 0.2, 0.2), "restored", 70), FaceReport((0.5, 0.4, 0.1, 0.2), "skipped", 0)
    assert focus_of(finished(queue)) is None
    x, y = focus_of(finished(queue, left, right, FaceReport((0.9, 0.9, 0, 0), "skipped", 0)))
    assert (x, y) == pytest.approx((0.35, 0.4))
