"""
What of immich's API this program speaks: albums and their pictures, and uploads that are stacked. Needs version 2 or
later: an earlier one knows no filter by album, and would answer with everything. (api.immich.app)
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NotRequired, TypeVar
from uuid import UUID

from typing_extensions import TypedDict

from engines import files
from webui import outgoing
from webui.outgoing import Resource, Unanswered

T = TypeVar("T")
OLDEST = 2  # version
PAGE = 250  # assets of an answer
UPLOAD_S = 600.0
REFUSED = (401, 403)  # the key is none, or may not do this
DEVICE = "awportrait-edge"
LATEST_S = 4e9  # since 1970: what a file system says may be any
Box = tuple[float, float, float, float]  # left, top, width and height, in shares of the picture


class _Version(TypedDict):
    major: int


class _Album(TypedDict):
    id: UUID
    albumName: str


class _Face(TypedDict):
    boundingBoxX1: float
    boundingBoxY1: float
    boundingBoxX2: float
    boundingBoxY2: float
    imageWidth: float
    imageHeight: float


class _Person(TypedDict):
    faces: list[_Face]


class _Asset(TypedDict):
    id: UUID
    type: str
    fileCreatedAt: datetime
    thumbhash: NotRequired[str | None]
    isTrashed: NotRequired[bool]
    isFavorite: NotRequired[bool]
    people: NotRequired[list[_Person]]


class _Assets(TypedDict):
    items: list[_Asset]
    nextPage: int | None


class _Searched(TypedDict):
    assets: _Assets


class _Checked(TypedDict):
    id: str
    action: str
    assetId: NotRequired[UUID | None]
    isTrashed: NotRequired[bool]


class _CheckedAll(TypedDict):
    results: list[_Checked]


class _Uploaded(TypedDict):
    id: UUID


class _Stack(TypedDict):
    id: UUID


@dataclass(frozen=True, slots=True)
class Asset:
    """A picture. `version` changes with how it looks; `taken`: in seconds since 1970."""

    id: str
    version: str
    taken: float
    faces: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class Present:
    """An asset that is there, be it in the trash."""

    id: str
    is_trashed: bool


@dataclass(frozen=True)
class Immich:
    """`address`: as the owner has set it. Every method: Unanswered, with status 401 or 403 where the key is refused."""

    address: str
    key: str = field(repr=False)

    def albums(self) -> dict[str, str]:
        """Return the names of all albums that the key may see, by their ids."""
        if (major := self._ask("server/version", _Version)["major"]) < OLDEST:
            raise Unanswered(self._resource("").host, f"is version {major} of immich; {OLDEST} is needed")
        listed = self._ask("albums", list[_Album]) + self._ask("albums?shared=true", list[_Album])
        return {str(album["id"]): album["albumName"] for album in listed}

    def pictures(self, album: str, most: int) -> list[Asset]:
        """Return the pictures of an album, by its id, the newest first; empty: the key's own favourites."""
        wanted = {"albumIds": [album]} if album else {"isFavorite": True}
        assets = [asset for asset in self._search(wanted, most) if _may_be_shown(asset, bool(album))]
        return [_asset(asset) for asset in assets]

    def preview(self, asset: str) -> Resource:
        """Return where a picture lies, about as large as a screen, and as it was edited."""
        return self._resource(f"assets/{asset}/thumbnail?size=preview&edited=true")

    def present(self, checksums: Mapping[str, str]) -> dict[str, Present]:
        """Return the assets that have these SHA-1, in hexadecimal, by whatever those are called here."""
        body = {"assets": [{"id": name, "checksum": checksum} for name, checksum in checksums.items()]}
        results = self._ask("assets/bulk-upload-check", _CheckedAll, body)["results"]
        return {
            result["id"]: Present(str(result["assetId"]), result.get("isTrashed", False))
            for result in results
            if result["action"] == "reject" and result.get("assetId")
        }

    def upload(self, path: Path, name: str, checksum: str, modified: float) -> str:
        """
        Upload a picture, and return its id: that of an asset that is there, if one has the same bytes. `modified`: in
        seconds since 1970. OSError: it cannot be read.
        """
        when = (
            datetime.fromtimestamp(min(max(0.0, modified), LATEST_S), UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )
        values = {"deviceAssetId": checksum, "deviceId": DEVICE, "fileCreatedAt": when, "fileModifiedAt": when}
        boundary = uuid.uuid4().hex
        before, after = _multipart(values, name, boundary)
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "x-immich-checksum": checksum,
        }
        with path.open("rb") as file:
            size = len(before) + file.seek(0, 2) + len(after)
            file.seek(0)
            body = _chain(before, iter(lambda: file.read(outgoing.PIECE_BYTES), b""), after)
            headers["Content-Length"] = str(size)
            answer = outgoing.asked(self._resource("assets"), "POST", body, headers, UPLOAD_S)
        return str(self._valid(_Uploaded, answer)["id"])

    def stack(self, assets: Sequence[str]) -> None:
        """Stack these, the first on top. Those that are stacked already are so once more."""
        self._ask("stacks", _Stack, {"assetIds": list(assets)})

    def _search(self, wanted: Mapping[str, object], most: int) -> Iterator[_Asset]:
        page: int | None = 1
        count = 0
        while page is not None and count < most:
            body = {**wanted, "type": "IMAGE", "withPeople": True, "size": PAGE, "page": page}
            assets = self._ask("search/metadata", _Searched, body)["assets"]
            yield from assets["items"]
            count += PAGE
            page = assets["nextPage"]

    def _ask(self, path: str, kind: type[T], body: Mapping[str, object] | None = None) -> T:
        if body is None:
            return self._valid(kind, outgoing.asked(self._resource(path)))
        headers = {"Content-Type": "application/json"}
        return self._valid(kind, outgoing.asked(self._resource(path), "POST", json.dumps(body).encode(), headers))

    def _valid(self, kind: type[T], answer: Any) -> T:
        try:
            return files.validate(kind, answer)
        except ValueError as exc:
            raise Unanswered(self._resource("").host, "does not answer as immich") from exc

    def _resource(self, path: str) -> Resource:
        base = self.address.rstrip("/").removesuffix("/api")
        return Resource(f"{base}/api/{path}", self.address, {"x-api-key": self.key, "Accept": "*/*"})


def _may_be_shown(asset: _Asset, of_album: bool) -> bool:
    """
    Tell whether it is what was asked for, and has a preview yet. Of the favourites those of a partner are none: immich
    searches in their pictures too, and does not call these favourites.
    """
    shown = asset.get("type") == "IMAGE" and bool(asset.get("thumbhash")) and not asset.get("isTrashed")
    return shown and (of_album or bool(asset.get("isFavorite")))


def _asset(asset: _Asset) -> Asset:
    faces = (face for person in asset.get("people") or () for face in person["faces"])
    boxes = tuple(_box(face) for face in faces if face["imageWidth"] > 0 and face["imageHeight"] > 0)
    return Asset(str(asset["id"]), str(asset["thumbhash"]), asset["fileCreatedAt"].timestamp(), boxes)


def _box(face: _Face) -> Box:
    wide, high = face["imageWidth"], face["imageHeight"]
    left, top = face["boundingBoxX1"] / wide, face["boundingBoxY1"] / high
    return left, top, face["boundingBoxX2"] / wide - left, face["boundingBoxY2"] / high - top


def _multipart(values: Mapping[str, str], name: str, boundary: str) -> tuple[bytes, bytes]:
    """Return what comes before a file and after it (RFC 7578)."""
    name = "".join(sign if sign.isprintable() else "_" for sign in name)
    quoted = name.replace('"', "_").replace("\\", "_")
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in {**values, "filename": name}.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="assetData"; filename="{quoted}"\r\n'
    before = "".join([*parts, head, "Content-Type: application/octet-stream\r\n\r\n"]).encode()
    return before, f"\r\n--{boundary}--\r\n".encode()


def _chain(before: bytes, pieces: Iterator[bytes], after: bytes) -> Iterator[bytes]:
    yield before
    yield from pieces
    yield after
