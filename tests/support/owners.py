"""What tests of the doors need of people: the jobs of one of them, and pictures by their keys."""

from __future__ import annotations

from engines.jobs.sqlite_queue import SqliteQueue
from webui.own_jobs import OwnJobs
from webui.people import NOBODY, Person
from webui.people.secret import Keys

KEYS = Keys(b"k" * 32)
KEY = "[0-9a-f]{32}"  # as a pattern


def own(queue: SqliteQueue, person: Person = NOBODY) -> OwnJobs:
    """The jobs of nobody in particular, or of this person."""
    return OwnJobs(queue, KEYS, person)
