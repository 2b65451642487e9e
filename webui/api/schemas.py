"""
What requests look like, for the description of the API: bodies are read by hand, so FastAPI cannot tell. Fields and
limits are those of the messages themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter

from engines.messages import Lora
from engines.messages.faces import MOST_POINTS, Point

Schema = dict[str, Any]  # JSON Schema, whose shape is its own subject
REFERENCE = "#/components/schemas/{model}"
FILE: Schema = {"type": "string", "format": "binary"}
POINTS: Schema = {
    "type": "array",
    "items": {"type": "object", "properties": TypeAdapter(Point).json_schema()["properties"]},
    "maxItems": MOST_POINTS,
}  # for doors that have no such place for what their fields refer to
IN_BASE64: Schema = {"type": "array", "items": {"type": "string", "contentEncoding": "base64"}, "maxItems": 1}


def body(**kinds: Schema) -> Schema:
    """Return what a route says of its body. `kinds`: "json" or "form", and its schema."""
    media = {"json": "application/json", "form": "multipart/form-data"}
    return {"requestBody": {"content": {media[kind]: {"schema": schema} for kind, schema in kinds.items()}}}


def schema(kind: type[Any], without: Iterable[str] = (), **more: Schema) -> Schema:
    """Return the fields of a request, `without` those that no caller names, and with those that are no field of it."""
    described = TypeAdapter(kind).json_schema(ref_template=REFERENCE)
    described.pop("$defs", None)
    left_out = set(without) - set(more)
    fields = {name: field for name, field in described["properties"].items() if name not in left_out}
    described["properties"] = {**fields, **more}
    described["required"] = [name for name in described.get("required", ()) if name not in left_out]
    return described


def shared() -> Mapping[str, Schema]:
    """Return what those fields refer to, by name."""
    return {kind.__name__: TypeAdapter(kind).json_schema() for kind in (Lora, Point)}
