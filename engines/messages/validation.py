"""
What fields of messages may hold. A field says it once, in its annotation; messages are held against that wherever they
come from, a stranger's JSON or our own code, and are refused in the program's own phrases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from engines.errors import OptionError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
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


def check(message: DataclassInstance) -> None:
    """Hold a message that was made in Python against its annotations. OptionError names the first field at fault."""
    kind = type(message)
    for name, adapter in _adapters(kind).items():
        try:
            adapter.validate_python(getattr(message, name))
        except ValidationError as exc:
            raise refusal(kind, exc, (name,)) from exc


def limits(kind: type[Any], name: str) -> tuple[float, float]:
    """Return the lowest and the highest value that a field's annotation allows; of a text or a tuple, the length."""
    annotation = get_type_hints(kind, include_extras=True)[name]
    constraints = [constraint for field in annotation.__metadata__ for constraint in field.metadata]
    values = {key: getattr(c, key) for c in constraints for key in ("ge", "le", "max_length") if hasattr(c, key)}
    return values.get("ge", 0), values["le"] if "le" in values else values["max_length"]


def refusal(kind: type[Any], exc: ValidationError, start: tuple[int | str, ...] = ()) -> OptionError:
    """Say which value does not fit, the first of them. `start` leads from the message to what was validated."""
    error = exc.errors()[0]
    path = (*start, *error["loc"])
    given, context = error["input"], error.get("ctx", {})
    names = ".".join(step for step in path if isinstance(step, str))  # of what is too much, without its position
    match error["type"]:
        case "greater_than_equal" | "less_than_equal":
            low, high = limits(_owner(kind, path), str(path[-1]))
            return OptionError(names, given, f"{low} … {high}")
        case "multiple_of":
            low, high = limits(_owner(kind, path), str(path[-1]))
            return OptionError(
                names, given, ", ".join(map(str, range(int(low), int(high) + 1, context["multiple_of"])))
            )
        case "too_long":
            return OptionError(names, len(given), f"0 … {context['max_length']}")
        case "string_too_long":
            return OptionError(f"{names} length", len(given), f"0 … {context['max_length']}")
        case "missing":
            given = ""  # what is missing has no value
        case "string_unicode":  # half a surrogate pair, which JSON can carry, fits into no file, nor into an answer
            given = given.encode(errors="replace").decode()
    return OptionError(".".join(map(str, path)), given, allowed(error))


def allowed(error: ErrorDetails) -> str:
    """Say what a field may be, in the program's own phrases rather than a library's."""
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"]).replace("'", "").replace(" or ", ", ")
    return EXPECTED.get(error["type"].partition("_")[0], "a fitting value")


def within(name: str, value: float, low: float, high: float) -> None:
    """Check a value that is no message's, such as an argument of a command. OptionError: it is out of its range."""
    if not low <= value <= high:
        raise OptionError(name, value, f"{low} … {high}")


@cache
def _adapters(kind: type[Any]) -> Mapping[str, TypeAdapter[Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in fields(kind)}


def _owner(kind: type[Any], path: tuple[int | str, ...]) -> type[Any]:
    """Find the dataclass whose field a path ends at: for loras.0.strength, what the tuple `loras` holds."""
    owner = kind
    for name in [step for step in path[:-1] if isinstance(step, str)]:
        owner, *_ = get_args(get_type_hints(owner)[name])
    return owner
