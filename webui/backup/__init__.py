"""
A home as one file, and a home out of it: `./run.sh backup FILE` while the server runs, `./run.sh restore FILE` while it
does not. The file is a tar, as pictures are compressed already.
"""

from __future__ import annotations

from dataclasses import dataclass

# Folders of a home. What can be had again from its maker, and is large, is in a backup that is to have it.
ALWAYS = ("outputs", "uploads", "loras", "presets")
MODELS = ("models", "checkpoints")
STATE = "state"
DATABASE = "jobs.db"
LEDGER = "watch.db"  # of the watch folder: without it all of an inbox would be restored once more
# Of the state only what nobody could make anew: jobs and events, the secret that all addresses of pictures and all
# cookies come of, and the tokens of programs. Not what is computed again when it is missing (embeddings, restored
# photos, verdicts), nor what holds for this machine alone: plans for its GPU in `compiled`, which are programs and
# are run by nobody but who made them, the lock, and the log.
STATE_FILES = ("secret", "tokens.json", LEDGER)
# Of those all files that a home may have.
BESIDE = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", *STATE_FILES, f"{LEDGER}-wal", f"{LEDGER}-shm")
LABEL = "backup.json"  # the last member: what has none is not whole, or something else
VERSION = 1


@dataclass(frozen=True)
class Label:
    """What the last member says: the format's version, the home's path, and how many files there are before it."""

    version: int
    home: str
    files: int
