"""A home as one file, and back: nothing that the database names is missing, and nothing evil comes out of a tar."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from engines import files
from engines.errors import StorageError
from engines.jobs import backup as databases
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Final, Generate, Preview
from engines.settings import Settings, SettingsError
from tests.conftest import REPOSITORY
from tests.support.full_disk import full_disk
from tests.support.http import CJK
from tests.support.queues import FINAL, claimed
from tests.support.tree import tree
from webui import home_lock
from webui.backup import LABEL, restore, write
from webui.people import secret
from webui.people.secret import Keys
from webui.people.tokens import Tokens

PICTURE = b"\x89PNG" + bytes(3000)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "home")


@pytest.fixture
def queue(settings: Settings) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(settings.state / "jobs.db", settings.outputs)
    yield opened
    opened.close()


def put(path: Path, data: bytes = PICTURE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, data)
    return path


def draw(queue: SqliteQueue, name: str, owner: str = "anna") -> str:
    """A job and its picture, which is on the disk before anything names it."""
    queue.submit(Generate("a girl with glasses"), owner)
    job = claimed(queue)
    put(queue.folder / name, name.encode() * 500)
    assert queue.publish(job, replace(FINAL, images=(name,)))
    return job.id


@pytest.fixture
def lived(queue: SqliteQueue, settings: Settings) -> Settings:
    """A home with all that one has after a while."""
    done = draw(queue, "outputs_20260101000000.png")
    queue.share(done, True)
    put(settings.outputs / "outputs_20260101000000.negative.npz")
    put(settings.outputs / "outputs_20150101000000.png")  # of before there was a database
    queue.submit(Enhance(str(put(settings.uploads / "0123abcd", b"a photo")), name="anna.jpg"), "anna")
    put(settings.loras / "light.safetensors")
    put(settings.presets / "anna" / "1.toml")
    put(settings.models / "mine" / "denoiser" / "model.onnx")
    put(settings.checkpoints / "gpen.pth")
    for cache in ("compiled/plan", "verdicts/v", "embeddings/e", "photos/p", "log/server.log"):
        put(settings.state / cache)
    secret.load(settings.state / "secret")
    Tokens(settings.state / "tokens.json").add("frame")
    put(settings.outputs / f".{'0' * 32}.tmp", b"half")
    return settings


def names(path: Path) -> set[str]:
    with tarfile.open(path) as tar:
        return {member.name for member in tar}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- what is in it


def test_it_holds_what_cannot_be_made_anew(lived: Settings, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "studio.tar"
    count = write.write(lived, target)
    held = {name for name in names(target) if name not in ("outputs", "uploads", "loras", "presets")}
    assert held == {
        "state/jobs.db",
        "state/secret",
        "state/tokens.json",
        "outputs/outputs_20260101000000.png",
        "outputs/outputs_20260101000000.negative.npz",
        "outputs/outputs_20150101000000.png",
        "uploads/0123abcd",
        "loras/light.safetensors",
        "presets/anna/1.toml",
        LABEL,
    }
    assert count == len(held) - 1
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["studio.tar"]


def test_models_come_along_if_that_is_wanted(lived: Settings, tmp_path: Path) -> None:
    target = tmp_path / "studio.tar"
    write.write(lived, target, with_models=True)
    assert {"models/mine/denoiser/model.onnx", "checkpoints/gpen.pth"} <= names(target)


def test_what_a_link_leads_to_is_in_it_and_no_circle_is_endless(lived: Settings, tmp_path: Path) -> None:
    put(tmp_path / "nas" / "big.safetensors", b"weights")
    (lived.loras / "nas").symlink_to(tmp_path / "nas")
    (tmp_path / "nas" / "back").symlink_to(lived.loras)
    write.write(lived, tmp_path / "studio.tar")
    with tarfile.open(tmp_path / "studio.tar") as tar:
        member = tar.getmember("loras/nas/big.safetensors")
        assert member.isreg() and tar.extractfile(member).read() == b"weights"  # type: ignore[union-attr]
        assert all(member.isreg() or member.isdir() for member in tar)


def test_one_file_under_two_names_is_two_files(lived: Settings, tmp_path: Path) -> None:
    os.link(lived.loras / "light.safetensors", lived.loras / "same.safetensors")
    write.write(lived, tmp_path / "studio.tar")
    with tarfile.open(tmp_path / "studio.tar") as tar:
        assert all(member.isreg() for member in tar if member.name.startswith("loras/"))


def test_what_goes_away_meanwhile_is_no_failure(
    lived: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = lived.outputs / "outputs_20150101000000.png"
    add = write._Parcel.add

    def sweeping(parcel: write._Parcel, path: Path, name: str) -> None:
        if path == gone:
            gone.unlink()
        add(parcel, path, name)

    monkeypatch.setattr(write._Parcel, "add", sweeping)
    write.write(lived, tmp_path / "studio.tar")
    assert f"outputs/{gone.name}" not in names(tmp_path / "studio.tar")
    fresh = Settings(tmp_path / "fresh")
    restore.restore(fresh, tmp_path / "studio.tar")
    assert (fresh.outputs / "outputs_20260101000000.png").is_file()


def test_what_has_come_since_the_database_was_read_belongs_to_jobs_that_are_done_again(
    lived: Settings, queue: SqliteQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = databases.copy

    def busy(path: Path, target: Path) -> None:
        draw(queue, "outputs_20260101000001.png")
        copy(path, target)
        draw(queue, "outputs_20260101000002.png")

    monkeypatch.setattr(databases, "copy", busy)
    write.write(lived, tmp_path / "studio.tar")
    held = names(tmp_path / "studio.tar")
    assert "outputs/outputs_20260101000001.png" in held and "outputs/outputs_20260101000002.png" not in held


# ---- while jobs run


def named_pictures(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as db:
        bodies = [json.loads(body) for (body,) in db.execute("SELECT body FROM event")]
        snapshots = [json.loads(text) for (text,) in db.execute("SELECT pictures FROM snapshot")]
    images = [image for body in bodies for image in (*body.get("images", ()), *filter(None, [body.get("image")]))]
    return {*images, *(name for pictures in snapshots for name in pictures)}


def test_every_picture_that_its_database_names_is_in_it(lived: Settings, queue: SqliteQueue, tmp_path: Path) -> None:
    over, drawn, faults = threading.Event(), [0], list[BaseException]()

    def work() -> None:
        try:
            while not over.is_set():
                queue.submit_all([Generate("p", count=2), Generate("never drawn")], "anna", "batch")
                job = claimed(queue)
                first, second = (f"outputs_20260102000000_{drawn[0]:04d}-{k}.png" for k in range(2))
                put(queue.folder / first)
                queue.publish(job, Preview(1, first, kind="result"))
                queue.save_snapshot(job, b"body", [first])
                put(queue.folder / second)
                queue.publish(job, Final((first, second), 1, 0.1, "ort"))
                drawn[0] += 1
        except BaseException as exc:
            faults.append(exc)
            raise

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for k in range(8):
            least = drawn[0] + 3
            while drawn[0] < least and worker.is_alive():
                time.sleep(0.001)
            target = tmp_path / f"{k}.tar"
            write.write(lived, target)
            with tarfile.open(target) as tar:
                tar.extractall(tmp_path / str(k), filter="data")
            database = tmp_path / str(k) / "state" / "jobs.db"
            with closing(sqlite3.connect(database)) as db:
                assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            pictures = {path.name for path in (tmp_path / str(k) / "outputs").iterdir()}
            named = named_pictures(database)
            assert len(named) > least and named <= pictures
            assert pictures - named <= {
                "outputs_20150101000000.png",
                "outputs_20260101000000.negative.npz",
                *(name for name in pictures if name.startswith("outputs_20260102")),
            }
            (tmp_path / str(k) / "state" / "jobs.db-shm").unlink(missing_ok=True)
    finally:
        over.set()
        worker.join()
    assert faults == [] and drawn[0] > 24


# ---- and back


def test_a_home_comes_back_as_it_was(lived: Settings, queue: SqliteQueue, tmp_path: Path) -> None:
    name, job = "outputs_20260101000000.png", queue.finished(9)[0].job.id
    signed = Keys(secret.load(lived.state / "secret")).sign(name)
    write.write(lived, tmp_path / "studio.tar", with_models=True)
    before = {
        folder: files_of(lived.home / folder) for folder in ("uploads", "loras", "presets", "models", "checkpoints")
    }
    fresh = Settings(tmp_path / "fresh")
    restored = restore.restore(fresh, tmp_path / "studio.tar")
    assert restored.aside is None and restored.files == len(names(tmp_path / "studio.tar")) - 7
    assert {folder: files_of(fresh.home / folder) for folder in before} == before
    with closing(SqliteQueue(fresh.state / "jobs.db", fresh.outputs)) as again:
        assert again.repaired is None
        (done,) = again.finished(9, "anna")
        assert (done.job.id, done.shared, done.final.images) == (job, True, (name,))
        assert (fresh.outputs / name).read_bytes() == (lived.outputs / name).read_bytes()
        assert Keys(secret.load(fresh.state / "secret")).name(signed) == name, "a picture keeps its address"
        waiting = claimed(again).request
        assert isinstance(waiting, Enhance) and waiting.image == str(fresh.uploads / "0123abcd")
        assert Path(waiting.image).read_bytes() == b"a photo"
    assert Tokens(fresh.state / "tokens.json").names() == ["frame"]
    assert {path.name for path in fresh.state.iterdir()} == {"jobs.db", "secret", "tokens.json", "lock"}
    for path in fresh.home.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0 or path == fresh.state / "lock", path


def test_only_photos_of_the_home_are_moved_with_it(queue: SqliteQueue, settings: Settings, tmp_path: Path) -> None:
    own, other = str(settings.uploads / "a%b_c"), f"{settings.home}-2/uploads/a"
    queue.submit_all([Enhance(own), Generate("p", start=own), Enhance(other), Generate("q")])
    with closing(sqlite3.connect(settings.state / "jobs.db")) as db, db:
        db.execute("INSERT INTO job(id, request) VALUES('x', 'no JSON')")
    databases.copy(settings.state / "jobs.db", tmp_path / "copy.db")
    databases.move(tmp_path / "copy.db", str(settings.home), "/new")
    with closing(SqliteQueue(tmp_path / "copy.db", tmp_path)) as moved:
        requests = [claimed(moved).request for _ in range(4)]
    assert [getattr(r, "image", getattr(r, "start", None)) for r in requests] == [
        "/new/uploads/a%b_c",
        "/new/uploads/a%b_c",
        other,
        "",
    ]


def test_nothing_is_overwritten_unless_it_is_set_aside(lived: Settings, queue: SqliteQueue, tmp_path: Path) -> None:
    target = tmp_path / "studio.tar"
    write.write(lived, target)
    later = draw(queue, "outputs_20260303000000.png")
    queue.close()
    put(lived.state / "jobs.db-wal", b"")
    before = tree(lived.home)
    with pytest.raises(ValueError, match=r"--replace") as refused:
        restore.restore(lived, target)
    assert CJK.search(str(refused.value)) and "jobs.db" in str(refused.value)
    after = tree(lived.home)
    assert {name: after[name] for name in before if name != "state/lock" and name not in (".", "state")} == {
        name: before[name] for name in before if name != "state/lock" and name not in (".", "state")
    }
    restored = restore.restore(lived, target, replacing=True)
    assert restored.aside is not None and restored.aside.parent == lived.home
    with closing(SqliteQueue(restored.aside / "state" / "jobs.db", restored.aside / "outputs")) as old:
        assert old.job(later).state == "done" and (old.folder / "outputs_20260303000000.png").is_file()
    with closing(SqliteQueue(lived.state / "jobs.db", lived.outputs)) as again:
        assert [done.job.id for done in again.finished(9)] != [later] and len(again.finished(9)) == 1
        assert not (lived.outputs / "outputs_20260303000000.png").exists()
    assert (lived.models / "mine").is_dir(), "the backup has no models: those of the home stay"
    assert (lived.state / "compiled" / "plan").is_file(), "nor caches"


def test_tokens_of_the_house_before_open_nothing_after(lived: Settings, tmp_path: Path) -> None:
    (lived.state / "tokens.json").rename(tmp_path / "tokens.json")
    write.write(lived, tmp_path / "studio.tar")
    shutil.move(tmp_path / "tokens.json", lived.state / "tokens.json")
    restore.restore(lived, tmp_path / "studio.tar", replacing=True)
    assert not (lived.state / "tokens.json").exists()


def test_a_home_in_use_is_left_alone(lived: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write.write(lived, tmp_path / "studio.tar")
    monkeypatch.setattr(home_lock, "TAKE_S", 0.0)
    with (lived.state / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = tree(lived.home)
        with pytest.raises(SettingsError, match="uses this folder"):
            restore.restore(lived, tmp_path / "studio.tar", replacing=True)
        assert tree(lived.home) == before


def test_a_server_cannot_begin_in_the_middle_of_it(
    lived: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write.write(lived, tmp_path / "studio.tar")
    set_in_place, refused = restore._set_in_place, list[str]()

    def begin(home: Path, fresh: Path, old: list[Path]) -> Path | None:
        aside = set_in_place(home, fresh, old)
        with pytest.raises(SettingsError) as error:
            home_lock.take(lived)
        refused.append(str(error.value))
        return aside

    monkeypatch.setattr(home_lock, "TAKE_S", 0.0)
    monkeypatch.setattr(restore, "_set_in_place", begin)
    restore.restore(lived, tmp_path / "studio.tar", replacing=True)
    assert f"process {os.getpid()}" in refused[0] and "restoring" in refused[0]
    home_lock.take(lived).close()


def test_what_a_crash_has_left_of_a_restore_goes_with_the_next(lived: Settings, tmp_path: Path) -> None:
    write.write(lived, tmp_path / "studio.tar")
    fresh = Settings(tmp_path / "fresh")
    put(fresh.home / ".restore-abc" / "outputs" / "x.png")
    restore.restore(fresh, tmp_path / "studio.tar")
    assert not list(fresh.home.glob(".restore-*"))


# ---- evil and broken files

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"x") -> Entry:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, len(data) if kind == tarfile.REGTYPE else 0
    return member, data if kind == tarfile.REGTYPE else b""


def forged(source: Path, target: Path, *more: Entry) -> Path:
    """A backup with more in it, whose label says so."""
    with tarfile.open(source) as tar:
        members = [(member, tar.extractfile(member).read() if member.isreg() else b"") for member in tar]  # type: ignore[union-attr]
    label, text = members.pop()
    values = json.loads(text)
    values["files"] += sum(member.isreg() for member, _ in more)
    data = json.dumps(values).encode()
    label.size = len(data)
    with tarfile.open(target, "w") as tar:
        for member, content in (*members, *more, (label, data)):
            tar.addfile(member, io.BytesIO(content))
    return target


EVIL = {
    "absolute": entry("/etc/cron.d/evil"),
    "above": entry("outputs/../../evil"),
    "above at once": entry("../evil"),
    "dot": entry("./outputs/x.png"),
    "empty part": entry("outputs//x.png"),
    "link away": entry("outputs/x.png", tarfile.SYMTYPE, "/etc/passwd"),
    "link within": entry("outputs/x.png", tarfile.SYMTYPE, "y.png"),
    "hard link": entry("outputs/x.png", tarfile.LNKTYPE, "state/secret"),
    "device": entry("outputs/x.png", tarfile.CHRTYPE),
    "pipe": entry("outputs/x.png", tarfile.FIFOTYPE),
    "another folder": entry("engines/__init__.py"),
    "a file of the home": entry("run.sh"),
    "a program of the state": entry("state/compiled/plan"),
    "the lock": entry("state/lock"),
    "a file in the place of a folder": entry("models"),
    "the secret as a folder": entry("state/secret", tarfile.DIRTYPE),
    "twice": entry("outputs/outputs_20260101000000.png"),
}


@pytest.mark.parametrize("what", EVIL)
def test_an_evil_tar_writes_nothing(lived: Settings, tmp_path: Path, what: str) -> None:
    write.write(lived, tmp_path / "studio.tar")
    evil = forged(tmp_path / "studio.tar", tmp_path / "evil.tar", EVIL[what])
    fresh = Settings(tmp_path / "in" / "fresh")
    with pytest.raises((ValueError, tarfile.TarError)) as refused:
        restore.restore(fresh, evil)
    assert EVIL[what][0].name in str(refused.value) and CJK.search(str(refused.value))
    assert set(tree(tmp_path / "in")) == {".", "fresh", "fresh/state", "fresh/state/lock"}


def test_a_tar_like_it_with_one_picture_more_is_fine(lived: Settings, tmp_path: Path) -> None:
    """Else the test above would say nothing."""
    write.write(lived, tmp_path / "studio.tar")
    more = forged(tmp_path / "studio.tar", tmp_path / "more.tar", entry("outputs/x.png"))
    fresh = Settings(tmp_path / "fresh")
    restore.restore(fresh, more)
    assert (fresh.outputs / "x.png").read_bytes() == b"x"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.97])
def test_half_a_backup_is_none(lived: Settings, tmp_path: Path, share: float) -> None:
    write.write(lived, tmp_path / "studio.tar")
    data = (tmp_path / "studio.tar").read_bytes().rstrip(b"\0")
    (tmp_path / "half.tar").write_bytes(data[: int(len(data) * share)])
    fresh = Settings(tmp_path / "fresh")
    with pytest.raises((ValueError, tarfile.TarError, OSError)):
        restore.restore(fresh, tmp_path / "half.tar")
    assert set(tree(fresh.home)) == {".", "state", "state/lock"}


def test_no_member_can_be_missing(lived: Settings, tmp_path: Path) -> None:
    write.write(lived, tmp_path / "studio.tar")
    with tarfile.open(tmp_path / "studio.tar") as tar, tarfile.open(tmp_path / "less.tar", "w") as less:
        for member in tar:
            if not member.name.endswith("000000.png"):
                less.addfile(member, tar.extractfile(member))
    with pytest.raises(ValueError, match="not whole"):
        restore.restore(Settings(tmp_path / "fresh"), tmp_path / "less.tar")


def test_a_database_that_is_none_is_not_put_anywhere(lived: Settings, tmp_path: Path) -> None:
    write.write(lived, tmp_path / "studio.tar")
    data = bytearray((tmp_path / "studio.tar").read_bytes())
    at = data.index(b"SQLite format 3")
    data[at : at + 4000] = b"\xee" * 4000
    (tmp_path / "damaged.tar").write_bytes(data)
    fresh = Settings(tmp_path / "fresh")
    with pytest.raises(StorageError, match="damaged"):
        restore.restore(fresh, tmp_path / "damaged.tar")
    assert set(tree(fresh.home)) == {".", "state", "state/lock"}


# ---- disks


def test_without_room_it_says_so_and_nothing_stays(
    lived: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = put(tmp_path / "nas" / "studio.tar", b"the last one")
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 5000))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="not enough room"):
        write.write(lived, target)
    assert files_of(target.parent) == {"studio.tar": b"the last one"}


@pytest.mark.parametrize("most_bytes", [100, 9000, 60_000])
def test_a_disk_that_is_full_in_the_middle_leaves_the_last_one(
    lived: Settings, tmp_path: Path, most_bytes: int
) -> None:
    target = put(tmp_path / "nas" / "studio.tar", b"the last one")
    with full_disk(most_bytes), pytest.raises((OSError, StorageError)):
        write.write(lived, target)
    assert files_of(target.parent) == {"studio.tar": b"the last one"}


def test_a_home_without_room_stays_as_it_is(lived: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write.write(lived, tmp_path / "studio.tar")
    fresh = Settings(tmp_path / "fresh")
    with full_disk(2000), pytest.raises((OSError, StorageError)):
        restore.restore(fresh, tmp_path / "studio.tar")
    assert set(tree(fresh.home)) == {".", "state", "state/lock"}
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 5000))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="not enough room"):
        restore.restore(fresh, tmp_path / "studio.tar")
    assert set(tree(fresh.home)) == {".", "state", "state/lock"}


def test_a_move_that_fails_is_undone(lived: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write.write(lived, tmp_path / "studio.tar")
    before = files_of(lived.home)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "secret" and ".restore-" in str(path):
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Input/output"):
        restore.restore(lived, tmp_path / "studio.tar", replacing=True)
    after = files_of(lived.home)
    assert {**after, "state/lock": b""} == {**before, "state/lock": b""}


def test_a_backup_cannot_hold_itself(lived: Settings) -> None:
    with pytest.raises(ValueError, match="cannot lie"):
        write.write(lived, lived.outputs / "studio.tar")
    with pytest.raises(ValueError, match="no database"):
        write.write(Settings(lived.home / "none"), lived.home / "studio.tar")


def test_a_damaged_database_is_not_backed_up_as_if_it_were_whole(
    lived: Settings, queue: SqliteQueue, tmp_path: Path
) -> None:
    queue.close()
    (lived.state / "jobs.db").write_bytes(b"\xee" * 9000)
    with pytest.raises(StorageError):
        write.write(lived, tmp_path / "studio.tar")
    assert not (tmp_path / "studio.tar").exists()


# ---- the command


def command(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("STUDIO_")}
    return subprocess.run(
        [sys.executable, "-m", "webui.backup", *words],
        cwd=REPOSITORY,
        env={**others, "STUDIO_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_commands_say_in_both_languages_what_they_did(lived: Settings, tmp_path: Path) -> None:
    target, fresh = tmp_path / "studio.tar", tmp_path / "fresh"
    done = command(lived.home, "backup", str(target))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"9 files, {target.stat().st_size / 1e6:.1f} MB: {target}" in done.stdout and CJK.search(done.stdout)
    done = command(fresh, "restore", str(target))
    assert (done.returncode, done.stderr) == (0, "") and "9 files are back" in done.stdout
    again = command(fresh, "restore", str(target))
    assert again.returncode == 1 and "--replace" in again.stderr and CJK.search(again.stderr)
    assert "Traceback" not in again.stderr
    done = command(fresh, "restore", str(target), "--replace")
    assert done.returncode == 0 and str(fresh / "before-restore-") in done.stdout
    for nothing in (tmp_path / "none.tar", lived.loras / "light.safetensors"):
        refused = command(tmp_path / "third", "restore", str(nothing))
        assert refused.returncode == 1 and "Traceback" not in refused.stderr, refused.stderr
