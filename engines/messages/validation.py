"""
What fields of messages may hold: checks that frozen dataclasses make of themselves, and what is said of values that a
stranger sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.errors import OptionError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# The first word of pydantic's error types, and what it wants to see; a front door translates (webui/locales).
EXPECTED = {
    "missing": "must be given",
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "string": "text",
    "bool": "true or false",
}


def allowed(error: ErrorDetails) -> str:
    """What a field may be, in the program's own phrases rather than a library's."""
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"]).replace("'", "").replace(" or ", ", ")
    return EXPECTED.get(error["type"].partition("_")[0], "a fitting value")


def within(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise OptionError(name, value, f"{low} … {high}")


def writable(name: str, text: str) -> None:
    """Half a surrogate pair, which JSON can carry, fits into no file."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise OptionError(name, text.encode(errors="replace").decode(), "text")


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise OptionError(name, value, ", ".join(allowed))
