"""Jobs counted beside the server that has their queue open."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from engines.errors import StorageError
from engines.jobs import counts
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Generate
from tests.support.tree import tree


def test_what_waits_and_runs_is_counted_and_nothing_changed(tmp_path: Path) -> None:
    with closing(SqliteQueue(tmp_path / "jobs.db", tmp_path)) as queue:
        assert counts.unfinished(tmp_path / "jobs.db") == {}
        _, second, _ = queue.submit_all([Generate("p")] * 3)
        assert queue.claim("pictures")
        before = tree(tmp_path)
        assert counts.unfinished(tmp_path / "jobs.db") == {"running": 1, "queued": 2}
        after = tree(tmp_path)
        assert after.keys() == before.keys()
        assert [name for name in before if before[name] != after[name]] in ([], ["jobs.db-shm"])  # which has who reads
        queue.cancel(second)
        assert counts.unfinished(tmp_path / "jobs.db").total() == 2


def test_a_database_that_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        counts.unfinished(tmp_path / "none.db")
    assert not list(tmp_path.iterdir())
    (tmp_path / "jobs.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError):
        counts.unfinished(tmp_path / "jobs.db")
