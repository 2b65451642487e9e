"""
Where the house lies at its address: at the root of a host, or below a path of it (STUDIO_PATH), which ASGI calls
`root_path`. What a page names, it names from where it is; what programs read is named from the root of the host.
"""

from __future__ import annotations

from starlette.types import Scope


def root(scope: Scope) -> str:
    """Return the path below which everything lies, without a slash at its end; empty: at the root of the host."""
    return str(scope.get("root_path", ""))


def inside(scope: Scope) -> str:
    """Return the path that is asked for, within the house; empty: it is not in the house."""
    path, below = str(scope.get("path", "")), root(scope)
    return path.removeprefix(below) if path.startswith(f"{below}/") else ""
