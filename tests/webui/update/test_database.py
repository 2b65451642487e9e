"""What an update does to the databases of a home, which its owner does for it."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engines.errors import StorageError
from engines.jobs import schema
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Generate
from engines.settings import Settings
from tests.conftest import REPOSITORY
from webui.update import MISFIT, NotDone, database
from webui.update.change import Home
from webui.update.service import ByHand

NOBODY = 65534
OURS = REPOSITORY / "engines" / "jobs" / "schema.py"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Of a home with one job, as a server that was killed leaves it: a log lies beside the database."""
    queue = SqliteQueue(tmp_path / "at-work" / "jobs.db", tmp_path / "outputs")
    queue.submit(Generate("first"))
    state = tmp_path / "home" / "state"
    state.mkdir(parents=True)
    for name in ("jobs.db", "jobs.db-wal"):
        shutil.copyfile(tmp_path / "at-work" / name, state / name)
    queue.close()
    assert (state / "jobs.db-wal").stat().st_size
    return state


def sql(path: Path, *statements: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db, db:
        return [row for statement in statements for row in db.execute(statement).fetchall()]


def count(path: Path) -> int:
    ((number,),) = sql(path, "SELECT COUNT(*) FROM job")
    assert isinstance(number, int)
    return number


def child(state: Path, verb: str, argument: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "webui.update.database", verb, str(state.parent), argument]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)


def test_what_is_put_back_is_what_was_there_and_what_was_there_lies_beside(state: Path) -> None:
    assert child(state, "copy", "1.0").returncode == 0
    sql(state / "jobs.db", "ALTER TABLE job ADD COLUMN colour TEXT", "DELETE FROM job")
    assert child(state, "restore", "1.0").returncode == 0
    assert count(state / "jobs.db") == 1 and count(state / "before-update" / "undone" / "jobs.db") == 0
    assert "colour" not in str(sql(state / "jobs.db", "SELECT sql FROM sqlite_master"))
    assert (state / "before-update").stat().st_mode & 0o77 == 0


def test_what_was_not_there_is_not_there_again(state: Path) -> None:
    database.copy(state, "1.0")
    sql(state / "watch.db", "CREATE TABLE t(a)")
    database.restore(state, "1.0")
    assert not (state / "watch.db").exists()
    assert sql(state / "before-update" / "undone" / "watch.db", "SELECT name FROM sqlite_master") == [("t",)]


def test_what_is_damaged_is_set_aside(state: Path) -> None:
    database.copy(state, "1.0")
    (state / "jobs.db-wal").unlink(missing_ok=True)
    (state / "jobs.db").write_bytes(b"nonsense" * 1000)
    database.restore(state, "1.0")
    assert count(state / "jobs.db") == 1
    (aside,) = (state / "before-update").glob("undone-*")
    assert (aside / "jobs.db").read_bytes().startswith(b"nonsense")


def test_nothing_is_put_back_where_there_is_no_copy(state: Path) -> None:
    with pytest.raises(StorageError):
        database.restore(state, "1.0")
    assert child(state, "restore", "1.0").returncode == 1
    assert count(state / "jobs.db") == 1


def test_copies_of_other_versions_go(state: Path) -> None:
    for name in ("1.0", "2.0"):
        database.copy(state, name)
    database.tidy(state, "2.0")
    assert [path.name for path in (state / "before-update").iterdir()] == ["2.0"]


def test_a_home_that_is_in_use_is_not_copied(state: Path) -> None:
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert child(state, "copy", "1.0").returncode == 1
    assert not (state / "before-update").exists()


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ((), True),
        (("ALTER TABLE job ADD COLUMN colour TEXT",), True),
        (("ALTER TABLE job ADD COLUMN colour TEXT NOT NULL DEFAULT ''", "CREATE TABLE another(a)"), True),
        (("CREATE TABLE new(name TEXT PRIMARY KEY, passed, paused, size TEXT NOT NULL)",
          "DROP TABLE lane", "ALTER TABLE new RENAME TO lane"), False),
        (("ALTER TABLE job RENAME COLUMN owner TO person",), False),
        (("DROP TABLE snapshot",), False),
    ],
)  # fmt: skip
def test_an_older_program_can_work_with_what_it_need_not_fill_in(
    changes: tuple[str, ...], fits: bool, state: Path
) -> None:
    sql(state / "jobs.db", *changes)
    assert database.fits(state / "jobs.db", schema.COLUMNS) == fits
    assert child(state, "fits", str(OURS)).returncode == (0 if fits else MISFIT)


def test_a_home_without_a_database_fits(tmp_path: Path) -> None:
    assert database.fits(tmp_path / "jobs.db", schema.COLUMNS)


@pytest.fixture
def nobodys(state: Path) -> Iterator[Path]:
    """That home, where a user who may do nothing else can get at it."""
    if os.geteuid() != 0:
        pytest.skip("needs root, which becomes another user")
    probe = [sys.executable, "-c", "import webui.update.database"]
    try:
        subprocess.run(probe, cwd=REPOSITORY, capture_output=True, user=NOBODY, group=NOBODY, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this Python, or this program, is not readable by others")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        home = shutil.copytree(state.parent, Path(folder, "home"))
        for path in [home, *home.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        yield home


def test_root_does_it_as_whoever_owns_the_home(nobodys: Path, tmp_path: Path) -> None:
    """A link that somebody has laid there leads root nowhere."""
    home = Home(ByHand(Settings(nobodys), False, "", ""))
    home.copy("1.0")
    copies = nobodys / "state" / "before-update"
    assert (copies / "1.0" / "jobs.db").stat().st_uid == NOBODY
    victim = tmp_path / "victim"
    victim.mkdir()
    copies.rename(nobodys / "state" / "elsewhere")
    copies.symlink_to(victim)
    with pytest.raises(NotDone, match="Permission denied"):
        home.copy("2.0")
    assert list(victim.iterdir()) == []
