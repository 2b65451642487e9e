"""
A newer program in the place of this one, `./run.sh update FILE`, and back, `./run.sh rollback`. Releases lie side by
side, each with its own packages, and one link says which is meant: what cannot serve is left as easily as it came.

It runs with what the older program has, and imports no package before there is a database to be copied.
"""

from __future__ import annotations

import sys
from contextlib import suppress

MISFIT = 3  # exit status of webui/update/database.py: another release cannot work with what is there


class NotDone(Exception):
    """It was not done. The message says why, and what to do, in both languages."""


def report(text: str) -> None:
    """Print it. A terminal that was closed meanwhile is no reason to stop half-way."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)
