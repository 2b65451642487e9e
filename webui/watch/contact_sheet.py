"""
A sheet for each day with all photos that were restored, before and after, and a text with their names. Opens pictures
that the studio has written, never a stranger's file: how a photo came is seen in the studio's own preview of it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from engines.errors import NotFoundError
from engines.jobs import JobQueue
from engines.messages import Preview
from webui import thumbnails
from webui.watch.intake import shown
from webui.watch.ledger import Content, Pair

FOLDER = "对照-contact-sheets"
CELL_PX, GAP_PX, LINE_PX = 192, 8, 20
COLUMNS, ROWS = 4, 8  # of pairs, on a page: 1600 x 1768 px
PAPER, INK = (255, 255, 255), (64, 64, 64)
QUALITY = 85


@dataclass(frozen=True, slots=True)
class Page:
    """A file of the outbox."""

    name: str
    data: bytes


def pair(queue: JobQueue, content: Content, path: str, day: str) -> Pair | None:
    """Return small copies of a photo before and after; None: the result is not among the pictures any more."""
    try:
        after = _small(queue, content.picture)
    except NotFoundError:
        return None
    try:
        events, _ = queue.since(content.job, 0)
        befores = [event.image for _, event in events if isinstance(event, Preview) and event.kind == "before"]
        before = _small(queue, befores[-1]) if befores else b""
    except NotFoundError:  # previews live for a day
        before = b""
    return Pair(day, path, before, after)


def _small(queue: JobQueue, picture: str) -> bytes:
    return thumbnails.stored(queue.folder / picture) or thumbnails.make(queue.folder / picture)


def pages(day: str, pairs: Sequence[Pair]) -> list[Page]:
    """Return the sheets of a day, and the list of what is on them."""
    size = COLUMNS * ROWS
    sheets = [
        Page(f"{FOLDER}/{day}{f'-{at // size + 1}' if at else ''}.jpg", _sheet(pairs[at : at + size], at + 1))
        for at in range(0, len(pairs), size)
    ]
    names = "".join(f"{number}. {shown(pair.path)}\n" for number, pair in enumerate(pairs, 1))
    return [*sheets, Page(f"{FOLDER}/{day}.txt", names.encode())]


def _sheet(pairs: Sequence[Pair], first: int) -> bytes:
    rows = -(-len(pairs) // COLUMNS)
    wide, high = 2 * CELL_PX + 2 * GAP_PX, CELL_PX + LINE_PX + GAP_PX
    sheet = Image.new("RGB", (COLUMNS * wide, rows * high), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for k, pair in enumerate(pairs):
        x, y = (k % COLUMNS) * wide + GAP_PX, (k // COLUMNS) * high
        draw.text((x, y + 2), str(first + k), INK, font)
        for side, data in enumerate((pair.before, pair.after)):
            if data:
                _paste(sheet, data, x + side * CELL_PX, y + LINE_PX)
    sheet.save(written := io.BytesIO(), "JPEG", quality=QUALITY)
    return written.getvalue()


def _paste(sheet: Image.Image, data: bytes, x: int, y: int) -> None:
    with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
        small = image.convert("RGB")
    small.thumbnail((CELL_PX - 2, CELL_PX))
    sheet.paste(small, (x + (CELL_PX - small.width) // 2, y + (CELL_PX - small.height) // 2))
