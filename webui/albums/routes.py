"""
The addresses of pictures in the owner's folders: small and large copies to look at, which are made here, and the files
themselves, to take along. Nothing is sent but what a folder has listed, and nothing can be changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from engines.errors import NotFoundError
from engines.messages.photos import FORMATS
from engines.settings import Settings
from webui.albums.copies import Copies
from webui.albums.folders import Folder, Shown
from webui.albums.reading import PIECE_BYTES

if TYPE_CHECKING:
    from engines.images.scaling import Scaling

T = TypeVar("T")
PATHS = ("/albums/",)  # what Guard lets through
THREADS = 4  # for each folder, so that one that hangs keeps none of the others waiting
# Under its id a picture never changes: one that was replaced has another.
FOR_GOOD = {"Cache-Control": "private, max-age=31536000, immutable"}
THUMBNAIL_PX, THUMBNAIL_BYTES = 384, 30_000
LARGE_PX = 2560
MEDIA = {suffix: media for media, suffixes in FORMATS.items() for suffix in suffixes}


def address(folder: str, picture_id: str, copy: str = "") -> str:
    """Return where, within the house, a picture is served: its file, or with "thumbnail" or "large" a copy of it."""
    return "/".join(["albums", quote(folder, safe=""), picture_id, *filter(None, (copy,))])


@dataclass(frozen=True)
class Albums:
    """What the addresses share. `cache`: the folder for what is only needed for a moment."""

    folders: Mapping[str, Folder]
    limiters: Mapping[str, CapacityLimiter]
    copies: Copies
    cache: Path

    async def run(self, name: str, call: Callable[[Folder], T]) -> T:
        """Run what may wait for a folder's share, beside the other requests. NotFoundError: there is no such folder."""
        if name not in self.folders:
            raise NotFoundError("picture", name)
        return await to_thread.run_sync(call, self.folders[name], limiter=self.limiters[name])

    def scaled(self, picture_id: str, how: Scaling, folder: Folder) -> bytes:
        shown = folder.picture(picture_id)
        return self.copies.of(picture_id, shown.name, how, lambda: folder.lent(shown, self.cache))

    def opened(self, picture_id: str, folder: Folder) -> tuple[Shown, BinaryIO]:
        """Return a picture with its file, read to the end already: it has no name any more."""
        shown = folder.picture(picture_id)
        with folder.lent(shown, self.cache) as path:
            return shown, path.open("rb")


def add(routes: APIRouter, folders: Mapping[str, Folder], settings: Settings) -> None:
    limiters = {name: CapacityLimiter(THREADS) for name in folders}
    albums = Albums(folders, limiters, Copies(settings.state / "frame", settings.decode_s), settings.cache)

    @routes.get("/albums/{folder}/{picture_id}/{copy}", include_in_schema=False)  # the page's own, as all of these
    async def copy_of_picture(folder: str, picture_id: str, copy: str) -> Response:
        """A copy to look at, WEBP: "thumbnail", 384 px and 30 KB at most, or "large"."""
        data = await albums.run(folder, partial(albums.scaled, picture_id, _scaling(copy)))
        return Response(data, headers=FOR_GOOD, media_type="image/webp")

    @routes.get("/albums/{folder}/{picture_id}", include_in_schema=False)
    async def original(folder: str, picture_id: str) -> StreamingResponse:
        """The file as it is. It comes from anywhere: nothing looks at it here, and no browser shall show it."""
        shown, file = await albums.run(folder, partial(albums.opened, picture_id))
        headers = {
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(shown.name, safe='')}",
            "Content-Length": str(_size(file)),
            "Cache-Control": "no-store",  # it is being stored elsewhere just now
        }
        return StreamingResponse(_sent(file), headers=headers, media_type=MEDIA[shown.path.suffix.lower()])


def _scaling(copy: str) -> Scaling:
    """NotFoundError: there is no such copy."""
    from engines.images.scaling import Scaling

    sizes: dict[str, dict[str, Any]] = {
        "thumbnail": {"width": THUMBNAIL_PX, "height": THUMBNAIL_PX, "most_bytes": THUMBNAIL_BYTES},
        "large": {"width": LARGE_PX, "height": LARGE_PX},
    }
    if copy not in sizes:
        raise NotFoundError("picture", copy)
    return Scaling(**sizes[copy], fit="contain", format="webp")


def _size(file: BinaryIO) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    return size


def _sent(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE_BYTES):
            yield piece
