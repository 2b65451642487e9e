"""
Messages as earlier versions stored them. Rows of the queue and of the cache of restorations outlive the program that
wrote them.
"""

from __future__ import annotations

from typing import Any


def upgraded(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a stored message as this version would have written them."""
    if kind == "generate":
        return {name: value for name, value in values.items() if name != "restore_faces"}  # all but 0 was refused
    if kind == "preview" and "shows" not in values:
        return {**values, "shows": _shown_by(values)}
    return values


def _shown_by(preview: dict[str, Any]) -> str:
    """Return what a preview shows that does not say so: its step and the name of its picture tell."""
    if preview.get("step") == 0:
        return "before"
    return "result" if str(preview.get("image")).startswith("outputs_") else "step"
