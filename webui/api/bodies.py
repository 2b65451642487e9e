"""
What callers send, as plain values: JSON, forms, and a photo in either, which goes to the disk unopened. Which fields a
request has is its dialect's to say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import to_thread
from fastapi import Request
from starlette.datastructures import UploadFile

from engines import files
from engines.errors import OptionError
from engines.messages import parse
from webui import uploads

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
Values = dict[str, Any]  # a stranger's: engines.messages.parse holds them against their types
FIELD_BYTES = 16_000  # of a form's field: the longest prompt, in any letters
MOST_FIELDS = 25


@dataclass(frozen=True)
class Form:
    """The fields of a form, where its photo lies, and what its owner calls it."""

    fields: dict[str, str]
    path: str
    name: str


async def read_form(request: Request, names: tuple[str, ...], folder: Path) -> Form:
    """
    Read a form with one photo, which stands under one of `names`. OptionError: there is none, or another file beside
    it. ImageError, StorageError.
    """
    async with request.form(max_files=2, max_fields=MOST_FIELDS, max_part_size=FIELD_BYTES) as form:
        texts = {name: value for name, value in form.items() if isinstance(value, str)}
        sent = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
        if masks := [file for name, file in sent if name == "mask"]:
            raise no_mask(masks[0].filename or "")
        if len(sent) != 1 or sent[0][0] not in names:
            raise OptionError(names[0], "", "a file")
        _, photo = sent[0]
        path = await to_thread.run_sync(uploads.keep, photo.file, folder)
        return Form(texts, str(path), photo.filename or "")


def no_mask(given: str) -> OptionError:
    """Return what is said to those who want a part of a picture drawn anew."""
    return OptionError("mask", given, "no mask: the whole picture is drawn anew")


async def read_json(request: Request) -> Values:
    """Return the object that a small body holds; nothing is an empty one. OptionError: that is no JSON object."""
    body = await request.body()
    values = parse_text("body", body, "a JSON object") if body else {}
    if not isinstance(values, dict):
        raise OptionError("body", "", "a JSON object")
    return values


def parse_text(field: str, text: str | bytes, allowed: str) -> Any:
    """OptionError: that is no JSON."""
    try:
        values = files.parse_json(text)
        json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as exc:
        raise OptionError(field, "", allowed) from exc
    return values


def parse_known(kind: type[T], values: Values) -> T:
    """
    Build a dialect's request from a stranger's values: its clients send fields for other servers too, and null for what
    they do not say, which are passed over. OptionError names the first field that does not fit.
    """
    names = [field.name for field in fields(kind)]
    return parse(kind, {name: values[name] for name in names if values.get(name) is not None})
