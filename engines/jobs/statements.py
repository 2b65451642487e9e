"""What the default queue says to its database. What makes a statement safe while others write is told beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from engines.jobs import Job
from engines.jobs.turns import MOST_PASSED
from engines.messages import Event, pack, unpack

JOB = "id, owner, request, state, attempts, ended"
LANE = "SELECT passed, paused FROM lane WHERE name=?"
PAUSE = "INSERT INTO lane(name, paused) VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE SET paused=?2"
GOES_ON = "NOT EXISTS(SELECT 1 FROM lane WHERE name=?2 AND paused)"
# ?1: it is quiet. ?2: the lane. ?3: who asks, of those to whom jobs are given.
MAY_BEGIN = f"state='queued' AND lane=?2 AND worker=?3 AND NOT (?1 AND priority='batch') AND {GOES_ON}"
WAITING = f"SELECT 1 FROM job WHERE {MAY_BEGIN} LIMIT 1"
# Which of those, engines.jobs.turns says.
TURN = f"(priority='batch') = (COALESCE((SELECT passed FROM lane WHERE name=?2), 0) < {MOST_PASSED}), number"
# One statement selects and claims, so two workers cannot take the same job.
CLAIM = f"""UPDATE job SET state='running', attempts=attempts+1, begun=?4
WHERE number=(SELECT number FROM job WHERE {MAY_BEGIN}
  ORDER BY {TURN} LIMIT 1)
RETURNING {JOB}"""
# In the transaction of CLAIM, of the job that it took: how many have begun in a row while a batch waited.
COUNT_PASSED = """INSERT INTO lane(name, passed) SELECT lane, priority='interactive' FROM job AS taken
WHERE id=? AND (priority='batch' OR EXISTS(
  SELECT 1 FROM job WHERE state='queued' AND lane=taken.lane AND priority='batch'))
ON CONFLICT(name) DO UPDATE SET passed=CASE excluded.passed WHEN 1 THEN lane.passed+1 ELSE 0 END"""
LEFT_RUNNING = "SELECT id, attempts-stops, begun FROM job WHERE state='running' AND worker=?"
UNGIVEN = "SELECT 1 FROM job WHERE state='queued' AND worker<>? LIMIT 1"
GIVE = "UPDATE job SET worker=? WHERE id=? AND state='queued'"
GIVEN_AWAY = "SELECT DISTINCT worker FROM job WHERE state IN ('queued', 'running') AND worker NOT IN (?, ?)"
RUNNING_ELSEWHERE = "SELECT id, worker, attempts FROM job WHERE state='running' AND worker<>?"
TAKE_BACK = """UPDATE job SET state='queued', stops=stops+1, losses=losses+?, worker=?
WHERE state='running' AND worker=? AND id=? RETURNING losses"""
# Of a worker that does nothing: the job that it would be given.
DUE = f"""SELECT id FROM job WHERE {MAY_BEGIN} AND NOT EXISTS(SELECT 1 FROM job WHERE state='running' AND worker=?3)
ORDER BY {TURN} LIMIT 1"""
# One statement checks the fencing token and changes the state, so a late attempt cannot overwrite its successor's.
# Never before the latest end: a clock that was put back does not reorder what is done.
ADVANCE = """UPDATE job SET state=?1,
  ended=MAX(?2, COALESCE((SELECT MAX(ended) FROM job AS done WHERE done.lane=job.lane AND done.state='done'), 0))
WHERE id=?3 AND attempts=?4 AND state='running' RETURNING cancelled"""
# No number is given twice, also where events were forgotten: who follows goes on after the last that he heard.
NUMBER = "UPDATE job SET last_event=last_event+1 WHERE id=?"
APPEND = "INSERT INTO event SELECT id, last_event, ? FROM job WHERE id=?"
EVENTS = "SELECT seq, body FROM event WHERE job=? AND seq>? ORDER BY seq"
# One statement checks the fencing token, as ADVANCE does.
KEEP = """INSERT OR REPLACE INTO snapshot SELECT id, ?, ? FROM job WHERE id=? AND attempts=? AND state='running'"""
GOT_FURTHER = "UPDATE job SET losses=0 WHERE id=? AND attempts=? AND state='running'"
FORGET_SNAPSHOT = "DELETE FROM snapshot WHERE job=?"
NEWEST = "SELECT body FROM event WHERE job=? ORDER BY seq DESC LIMIT ?"
# Whether any event, or a snapshot, names a picture.
NAMED = """SELECT 1 FROM event WHERE body LIKE ?1 UNION ALL
SELECT 1 FROM snapshot WHERE pictures LIKE ?1 LIMIT 1"""
# A row may also hold no JSON at all.
MOVE_PHOTO = """UPDATE job SET request=json_set(request, ?1, ?3 || substr(json_extract(request, ?1), length(?2) + 1))
WHERE CASE WHEN json_valid(request) THEN substr(json_extract(request, ?1), 1, length(?2)) = ?2 ELSE 0 END"""
REQUEST = "SELECT request FROM job WHERE id=?"
LAST = "SELECT body FROM event WHERE job=id ORDER BY seq DESC LIMIT 1"  # of the job of a row
DONE = "state='done' AND lane='pictures' AND deleted IS NULL"
BEFORE = """SELECT body FROM event WHERE job=?
AND CASE WHEN json_valid(body) THEN json_extract(body, '$.shows')='before' END"""
DONE_ENDS = f"SELECT ({LAST}) FROM job WHERE {DONE}"
OF_OWNER = f"id=? AND owner=? AND owner<>'' AND {DONE} RETURNING id"
FAVOUR = f"UPDATE job SET favourite=? WHERE {OF_OWNER}"
DELETE = f"UPDATE job SET deleted=? WHERE {OF_OWNER}"
HAND_OVER = f"UPDATE job SET owner=? WHERE {OF_OWNER}"
# However far they are; what is deleted at the beginning of time does not come back.
ERASE = """UPDATE job SET deleted=0, cancelled=1, ended=COALESCE(ended, ?1),
  state=CASE state WHEN 'queued' THEN 'cancelled' ELSE state END
WHERE owner=?2 AND owner<>'' AND deleted IS NULL RETURNING request"""
LAPSED = """SELECT owner FROM job WHERE owner>=?1 AND owner<?1 || char(1114111) AND deleted IS NULL
GROUP BY owner HAVING NOT SUM(state IN ('queued', 'running')) AND MAX(ended)<?2"""
UNDELETE = "UPDATE job SET deleted=NULL WHERE id=? AND owner=? AND deleted IS NOT NULL RETURNING id"
# What was deleted later may still come back.
STAYING_ENDS = f"""SELECT ({LAST}) FROM job
WHERE state='done' AND lane='pictures' AND (deleted IS NULL OR deleted>=?)"""
DELETED_OF = "SELECT id, deleted FROM job WHERE owner=? AND deleted>=?"
TRASH = """SELECT id, body FROM job LEFT JOIN event ON job=id
WHERE deleted<? AND state NOT IN ('queued', 'running')"""
TRASH_NAMES = "SELECT 1 FROM job JOIN event ON job=id WHERE deleted IS NOT NULL AND instr(body, ?) LIMIT 1"
FORGET = tuple(f"DELETE FROM {table} WHERE {column}=?" for table, column in (("event", "job"), ("job", "id")))
FINISHED = f"{JOB}, ({LAST}), shared, favourite, number"
FINISHED_JOB = f"SELECT {FINISHED} FROM job WHERE id=? AND owner=? AND {DONE}"
BUNDLES = f"""SELECT DISTINCT CASE WHEN json_valid(request) THEN json_extract(request, '$.bundle') END AS bundle
FROM job WHERE {DONE} AND owner=? ORDER BY bundle"""
KEPT_ENDS = f"SELECT ({LAST}) FROM job WHERE {DONE} AND (shared OR favourite)"
OTHER_ENDS = f"""SELECT id, owner, ({LAST}) FROM job
WHERE {DONE} AND NOT shared AND NOT favourite ORDER BY ended DESC, number DESC"""
UNFINISHED = "SELECT request FROM job WHERE state IN ('queued', 'running') AND deleted IS NULL"
COUNT_UNFINISHED = "SELECT state, COUNT(*) FROM job WHERE state IN ('queued', 'running') GROUP BY state"
UNFINISHED_EVENTS = "SELECT body FROM event JOIN job ON id=job WHERE state IN ('queued', 'running')"
# Of whose jobs like this one wait, in their order: what belongs to nobody has no others beside it.
LIKE_IT = """SELECT number, id FROM job WHERE state='queued' AND owner<>''
AND (owner, lane, priority)=(SELECT owner, lane, priority FROM job WHERE id=?) ORDER BY number"""
# The line of a lane, and its history after a moment: the index job_ended leads there, however many jobs there were.
LINE = """SELECT id, state, priority, worker, begun, last_event FROM job
WHERE state IN ('queued', 'running') AND lane=? ORDER BY number"""
HISTORY = f"""SELECT request, ({LAST}), ended, worker FROM job
WHERE state='done' AND lane=? AND ended>? AND ended<=? ORDER BY ended DESC LIMIT ?"""


def job_of(row: Sequence[Any]) -> Job:
    """Return the job of a row of JOB. RequestError: it holds no request of ours."""
    job_id, owner, request, state, attempts, ended = row
    return Job(job_id, owner, unpack(request), state, attempts, ended)


def append(db: sqlite3.Connection, job_id: str, event: Event) -> None:
    """Add to what is told of a job, in the caller's transaction. sqlite3.Error."""
    db.execute(NUMBER, (job_id,))
    db.execute(APPEND, (pack(event), job_id))
