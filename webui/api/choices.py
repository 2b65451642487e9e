"""
Which engines a caller may name: those that the worker has announced. A name that is none is the
caller's mistake and is refused before it waits in the queue; as long as nothing is announced, the worker will say.
"""

from __future__ import annotations

from typing import get_args

from engines.errors import OptionError
from engines.messages.status import Group, Status

AUTO = "auto"  # of our choosing: what clients send who name none


def check_backend(status: Status, name: str) -> None:
    """OptionError: no engine, and no group of engines, is called so."""
    names = (AUTO, *get_args(Group), *(engine.name for engine in status.engines))
    if status.engines and name not in names:
        raise OptionError("backend", name, ", ".join(names))
