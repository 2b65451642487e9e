"""What is deleted in time, and what is not."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engines import files
from engines.files import HALF_WRITTEN
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Failed, Generate, Inspect
from engines.settings import Settings
from tests.support.queues import FINAL, claimed
from webui import sweep
from webui.sweep import forget


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path, keep_days=7)


@pytest.fixture
def queue(settings: Settings) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(settings.state / "jobs.db", settings.outputs)
    yield opened
    opened.close()


def aged(path: Path, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    then = time.time() - days * 86400
    os.utime(path, (then, then))
    return path


def test_photos_are_forgotten_after_their_days(tmp_path: Path) -> None:
    old, older, young = aged(tmp_path / "old", 7.01), aged(tmp_path / "older", 400), aged(tmp_path / "young", 6.99)
    torn = aged(tmp_path / "torn.5.tmp", 8)
    (tmp_path / "folder").mkdir()
    forget(tmp_path, 7)
    assert not any(path.exists() for path in (old, older, torn))
    assert young.exists() and (tmp_path / "folder").is_dir(), "somebody is about to put something in"


def test_forgetting_where_nothing_was_kept_is_fine(tmp_path: Path) -> None:
    forget(tmp_path / "never", 7)
    assert list(tmp_path.iterdir()) == []


def test_folders_go_when_nothing_is_in_them(tmp_path: Path) -> None:
    aged(tmp_path / "hash" / "photo.jpg", 2)
    forget(tmp_path, 1)
    assert [path.name for path in tmp_path.rglob("*")] == ["hash"], "it has just been changed"
    os.utime(tmp_path / "hash", (0, 0))
    forget(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_deleted_and_not_where_it_leads(tmp_path: Path) -> None:
    elsewhere = aged(tmp_path / "elsewhere" / "photo.jpg", 400)
    (tmp_path / "cache").mkdir()
    for target in (elsewhere, elsewhere.parent):
        link = tmp_path / "cache" / target.name
        link.symlink_to(target)
        os.utime(link, (0, 0), follow_symlinks=False)
    forget(tmp_path / "cache", 1)
    assert list((tmp_path / "cache").iterdir()) == [] and elsewhere.exists()


def test_a_photo_that_a_job_waits_for_stays(queue: SqliteQueue, settings: Settings) -> None:
    """However long the queue was paused: it is deleted when the job has ended."""
    names = ("restored", "looked at", "begun with", "done with")
    photos = [aged(settings.uploads / name, 30) for name in names]
    queue.submit(Enhance(str(photos[3])))
    job = queue.claim()
    assert job is not None
    queue.publish(job, Failed("no_face", ""))
    queue.submit_all(
        [Enhance(str(photos[0])), Inspect(str(photos[1])), Generate("p", start=str(photos[2])), Generate("q")]
    )
    sweep.sweep(queue, settings)
    assert [path.exists() for path in photos] == [True, True, True, False]


def test_what_a_page_sent_and_what_a_crash_left_goes_after_a_day(queue: SqliteQueue, settings: Settings) -> None:
    sent, young = aged(settings.cache / "hash" / "a.jpg", 1.1), aged(settings.cache / "hash" / "b.jpg", 0.9)
    torn = [
        aged(folder / ".0123.tmp", 1.1) for folder in (settings.outputs, settings.uploads, settings.state / "compiled")
    ]
    pictures = [
        aged(settings.outputs / "outputs_20200101000000.png", 3000),
        aged(settings.state / "verdicts" / "v", 99),
    ]
    sweep.sweep(queue, settings)
    assert not any(path.exists() for path in (sent, *torn))
    assert young.exists() and all(path.exists() for path in pictures)


def test_what_is_being_written_has_the_name_that_is_swept(tmp_path: Path) -> None:
    with files.temporary(tmp_path) as beside:
        beside.touch()
        assert list(tmp_path.glob(HALF_WRITTEN)) == [beside]


def test_it_goes_on_every_hour(queue: SqliteQueue, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "EVERY_S", 0.01)
    stopping = threading.Event()
    sweeper = threading.Thread(target=sweep.hourly, args=(queue, settings, stopping))
    sweeper.start()
    try:
        for k in range(3):
            old = aged(settings.uploads / str(k), 8)
            deadline = time.monotonic() + 20
            while old.exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
    finally:
        stopping.set()
        sweeper.join(20)
    assert not sweeper.is_alive()


# ---- visitors at a frame whose page has died


def visited(queue: SqliteQueue, settings: Settings, owner: str) -> tuple[Path, Path]:
    """Return the photo and the picture of somebody whose photo was restored."""
    photo, picture = settings.uploads / f"{owner[-1]}.jpg", queue.folder / f"{owner[-1]}.png"
    for path in (photo, picture):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    queue.submit(Enhance(str(photo)), owner)
    assert queue.publish(claimed(queue), replace(FINAL, images=(picture.name,)))
    return photo, picture


def test_what_a_visitor_has_left_goes_when_his_page_is_dead(
    queue: SqliteQueue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, person = visited(queue, settings, "visitor:1"), visited(queue, settings, "anna2")
    late = aged(settings.phone_links / "code" / "photo", sweep.ON_THEIR_WAY_S / 86400 * 1.1)
    on_its_way = aged(settings.phone_links / "other" / "photo", 0)
    sweep.purge(queue, settings)
    assert all(path.exists() for path in (*gone, *person, on_its_way)) and not late.exists()
    monkeypatch.setattr(sweep, "VISIT_S", -1.0)
    sweep.purge(queue, settings)
    assert not any(path.exists() for path in gone) and all(path.exists() for path in person)
    assert queue.lapsed("visitor:", 4e9) == []
