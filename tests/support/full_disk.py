"""A disk that is full: what is written while it lasts fails half-way, as there."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def full_disk(most_bytes: int = 16) -> Iterator[None]:
    """Let no file of this process grow beyond `most_bytes`. (Python ignores SIGXFSZ: the write is an OSError.)"""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
