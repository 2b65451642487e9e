"""The tables of the queue's database, and what earlier versions of them need."""

from __future__ import annotations

import sqlite3

SCHEMA = """
CREATE TABLE IF NOT EXISTS job(
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, request TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'queued',
  attempts INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0, ended REAL,
  lane TEXT NOT NULL DEFAULT 'pictures', stops INTEGER NOT NULL DEFAULT 0, begun REAL,
  last_event INTEGER NOT NULL DEFAULT 0, owner TEXT NOT NULL DEFAULT '', shared INTEGER NOT NULL DEFAULT 0,
  priority TEXT NOT NULL DEFAULT 'interactive', favourite INTEGER NOT NULL DEFAULT 0,
  deleted REAL, worker TEXT NOT NULL DEFAULT '', losses INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS job_state ON job(state, number);
CREATE TABLE IF NOT EXISTS event(
  job TEXT NOT NULL, seq INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY(job, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshot(job TEXT PRIMARY KEY, pictures TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS lane(
  name TEXT PRIMARY KEY, passed INTEGER NOT NULL DEFAULT 0, paused INTEGER NOT NULL DEFAULT 0);
"""
# Made when all columns are there: the latest jobs that ended well, anybody's, an owner's or the album's, without
# looking at the others.
INDEXES = (
    "CREATE INDEX IF NOT EXISTS job_ended ON job(lane, state, ended)",
    "CREATE INDEX IF NOT EXISTS job_owner ON job(owner, lane, state, ended)",
    "CREATE INDEX IF NOT EXISTS job_album ON job(lane, state, ended) WHERE shared",
    "CREATE INDEX IF NOT EXISTS job_deleted ON job(deleted) WHERE deleted IS NOT NULL",
)
COLUMNS = {
    "job": (
        *("number", "id", "request", "state", "attempts", "cancelled", "ended", "lane", "stops", "begun"),
        *("last_event", "owner", "shared", "priority", "favourite", "deleted", "worker", "losses"),
    ),
    "event": ("job", "seq", "body"),
    "snapshot": ("job", "pictures", "body"),
    "lane": ("name", "passed", "paused"),
}
COUNT_EVENTS = "UPDATE job SET last_event=MAX(last_event, (SELECT COALESCE(MAX(seq), 0) FROM event WHERE job=id))"
# What databases of earlier schemas need, by the column that they lack. A row may also hold no JSON at all.
ADD = {
    "lane": (
        "ALTER TABLE job ADD COLUMN lane TEXT NOT NULL DEFAULT 'pictures'",
        """UPDATE job SET lane='builds'
           WHERE CASE WHEN json_valid(request) THEN json_extract(request, '$.kind') IN ('build', 'fetch') ELSE 0 END""",
    ),
    "stops": ("ALTER TABLE job ADD COLUMN stops INTEGER NOT NULL DEFAULT 0",),
    "begun": ("ALTER TABLE job ADD COLUMN begun REAL",),
    "last_event": (
        "ALTER TABLE job ADD COLUMN last_event INTEGER NOT NULL DEFAULT 0",
        COUNT_EVENTS,
    ),
    "owner": ("ALTER TABLE job ADD COLUMN owner TEXT NOT NULL DEFAULT ''",),
    # What everybody saw before there were owners stays to be seen by everybody, and can be taken out.
    "shared": (
        "ALTER TABLE job ADD COLUMN shared INTEGER NOT NULL DEFAULT 0",
        "UPDATE job SET shared=1 WHERE state='done' AND lane='pictures'",
    ),
    "priority": ("ALTER TABLE job ADD COLUMN priority TEXT NOT NULL DEFAULT 'interactive'",),
    "favourite": ("ALTER TABLE job ADD COLUMN favourite INTEGER NOT NULL DEFAULT 0",),
    "deleted": ("ALTER TABLE job ADD COLUMN deleted REAL",),
    "worker": ("ALTER TABLE job ADD COLUMN worker TEXT NOT NULL DEFAULT ''",),
    "losses": ("ALTER TABLE job ADD COLUMN losses INTEGER NOT NULL DEFAULT 0",),
}


def upgrade(db: sqlite3.Connection) -> None:
    """Give the table of jobs the columns and the indexes that it lacks, in the caller's transaction. sqlite3.Error."""
    columns = {row[1] for row in db.execute("PRAGMA table_info(job)")}
    for statement in (statement for column in ADD if column not in columns for statement in ADD[column]):
        db.execute(statement)
    for index in INDEXES:
        db.execute(index)
