"""The one place that knows numba. `compiled` keeps the Python signature for the type checker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba  # type: ignore[import-untyped,unused-ignore]

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Machine code, kept on disk: the second start costs nothing."""
    return cast(F, numba.njit(cache=True, fastmath=True, error_model="numpy")(function))
