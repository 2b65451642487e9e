"""
What callers send, as plain values: JSON, forms, and a photo in either, which goes to the disk unopened. Which fields a
request has is its dialect's to say.
"""

from __future__ import annotations

import base64
import binascii
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from anyio import CapacityLimiter, to_thread
from fastapi import Request
from pydantic_core import from_json
from starlette.datastructures import UploadFile

from engines import files
from engines.errors import ImageError, OptionError, StorageError
from engines.messages import parse
from webui import uploads

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
Values = dict[str, Any]  # a stranger's: engines.messages.parse holds them against their types
FIELD_BYTES = 16_000  # of a form's field: the longest prompt, in any letters
MOST_FIELDS = 25
IN_MEMORY_BYTES = 1 << 20  # of a large body; the rest of it is on disk until it is its turn
BASE64_LETTERS = 1 << 20  # decoded at a time: a multiple of 4


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


async def read_json_with_photo(request: Request, field: str, folder: Path, turn: CapacityLimiter) -> tuple[Values, str]:
    """
    Return the object that a body holds, without its field of photos in base64, and where the one in it lies. The body
    waits on disk: those who have `turn` have theirs in memory, as text and decoded, however many are being sent.
    OptionError: it is no such object, or holds not exactly one photo. ImageError, StorageError.
    """
    with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as body:
        try:
            async for chunk in request.stream():
                await to_thread.run_sync(body.write, chunk)
        except OSError as exc:
            raise StorageError(f"a body of a request: {exc.strerror}", why=exc.strerror or "?") from exc
        body.seek(0)
        return await to_thread.run_sync(_photo_of, cast(BinaryIO, body), field, folder, limiter=turn)


def _photo_of(body: BinaryIO, field: str, folder: Path) -> tuple[Values, str]:
    try:
        values = from_json(body.read(), cache_strings="none")  # from bytes, so that they are not decoded as a whole
    except ValueError as exc:
        raise OptionError("body", "", "a JSON object") from exc
    if not isinstance(values, dict):
        raise OptionError("body", "", "a JSON object")
    photos = values.pop(field, None) or []
    if not (isinstance(photos, list) and len(photos) == 1 and isinstance(photos[0], str)):
        raise OptionError(field, len(photos) if isinstance(photos, list) else "", "a file")
    return values, keep_base64(photos[0], folder)


def keep_base64(text: str, folder: Path) -> str:
    """Store the photo that a text holds in base64, and return where. ImageError, StorageError."""
    return str(uploads.keep(cast(BinaryIO, _Base64(text)), folder))


class _Base64:
    """A text in base64, or a data: address that ends in one, read as the bytes it stands for, a piece at a time."""

    def __init__(self, text: str) -> None:
        start = text.find(",") + 1 if text.startswith("data:") else 0
        self._pieces = self._decoded(text, start)

    def read(self, size: int) -> bytes:
        """Return the next piece, whatever its size; nothing at the end. ImageError: that is no base64."""
        return next(self._pieces, b"")

    @staticmethod
    def _decoded(text: str, start: int) -> Iterator[bytes]:
        for position in range(start, len(text), BASE64_LETTERS):
            try:
                yield base64.b64decode(text[position : position + BASE64_LETTERS], validate=True)
            except (binascii.Error, ValueError) as exc:
                raise ImageError("that is no base64", why="it is no base64") from exc


def parse_known(kind: type[T], values: Values) -> T:
    """
    Build a dialect's request from a stranger's values: its clients send fields for other servers too, and null for what
    they do not say, which are passed over. OptionError names the first field that does not fit.
    """
    names = [field.name for field in fields(kind)]
    return parse(kind, {name: values[name] for name in names if values.get(name) is not None})
