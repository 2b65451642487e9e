"""
A stand-in for immich on a loopback port, with the routes of its documented API (v2) that this program asks. Alone it
runs by `python -m tests.support.immich`, prints its address, says at /state what it has, and at /forget starts anew.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import NAMESPACE_URL, uuid5

from tests.support.site import Handler, served_by

KEY = "the key of immich"
TAKEN = "2026-05-01T10:00:00.000Z"


def asset_id(name: str) -> str:
    """What is called so has always this id."""
    return str(uuid5(NAMESPACE_URL, name))


@dataclass
class Stored:
    """An asset. `data`: what its preview is; `sha1` in hexadecimal, of the original."""

    name: str
    data: bytes = b""
    sha1: str = ""
    favourite: bool = False
    of_partner: bool = False
    trashed: bool = False
    kind: str = "IMAGE"
    people: list[dict[str, Any]] = field(default_factory=list)
    taken: str = TAKEN

    @property
    def id(self) -> str:
        return asset_id(self.name)

    def told(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": self.kind,
            "originalFileName": self.name,
            "fileCreatedAt": self.taken,
            "thumbhash": base64.b64encode(hashlib.sha1(self.data).digest()).decode() if self.data else None,
            "checksum": base64.b64encode(bytes.fromhex(self.sha1)).decode(),
            "isFavorite": self.favourite and not self.of_partner,
            "isTrashed": self.trashed,
            "people": self.people,
        }


@dataclass
class Library:
    """
    `albums`: by their ids, the name and the assets; `shared` are another's. `failing`: by the beginning of a path, the
    statuses of coming answers. `leads`: by the beginning of a path, where answers lead. `gate`: opens before anything
    is said. `page`: assets of an answer.
    """

    assets: dict[str, Stored] = field(default_factory=dict)
    albums: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    stacks: list[list[str]] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)  # every time that bytes came in
    failing: dict[str, list[int]] = field(default_factory=dict)
    leads: dict[str, str] = field(default_factory=dict)
    gate: threading.Event | None = None
    version: int = 2
    page: int = 500
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def add(self, stored: Stored, *albums: str) -> str:
        """Return its id. `albums`: names."""
        self.assets[stored.id] = stored
        for album in albums:
            self.albums.setdefault(asset_id("album " + album), (album, []))[1].append(stored.id)
        return stored.id

    def state(self) -> dict[str, Any]:
        return {
            "names": sorted(stored.name for stored in self.assets.values()),
            "stacks": self.stacks,
            "uploads": self.uploads,
        }


class LibraryHandler(Handler):
    library: Library

    def do_GET(self) -> None:
        self._do(b"")

    def do_POST(self) -> None:
        self._do(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def _do(self, body: bytes) -> None:
        library, path = self.library, urlsplit(self.path).path
        library.asked.append(f"{self.command} {path}")
        if library.gate is not None:
            library.gate.wait(60)
        lead = next((to for start, to in library.leads.items() if path.startswith(start)), None)
        failing = next((left for start, left in library.failing.items() if path.startswith(start) and left), None)
        if lead is not None:
            return self.answer(302, headers={"Location": lead})
        if failing is not None:
            return self.answer(failing.pop(0))
        if path == "/state":
            return self._json(library.state())
        if path == "/forget":  # what was uploaded, and every stack
            library.assets = {id: stored for id, stored in library.assets.items() if stored.sha1 not in library.uploads}
            library.stacks, library.uploads = [], []
            return self._json({})
        if path == "/api/server/version":
            return self._json({"major": library.version, "minor": 1, "patch": 0})
        if self.headers.get("x-api-key") != KEY:
            return self._json({"message": "Invalid API key", "statusCode": 401}, 401)
        match (self.command, path.removeprefix("/api/").split("/")):
            case ("GET", ["albums"]):
                self._albums(parse_qs(urlsplit(self.path).query).get("shared") == ["true"])
            case ("POST", ["search", "metadata"]):
                self._search(json.loads(body))
            case ("GET", ["assets", asset, "thumbnail"]) if asset in library.assets:
                self.answer(200, library.assets[asset].data)
            case ("POST", ["assets", "bulk-upload-check"]):
                self._check(json.loads(body))
            case ("POST", ["assets"]):
                self._upload(body)
            case ("POST", ["stacks"]):
                self._stack(json.loads(body)["assetIds"])
            case _:
                self._json({"message": "Not found"}, 404)

    def _json(self, told: object, status: int = 200) -> None:
        self.answer(status, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _albums(self, shared: bool) -> None:
        library = self.library
        listed = {id: name for id, (name, _) in library.albums.items() if (id in library.shared) == shared}
        self._json([{"id": id, "albumName": name} for id, name in listed.items()])

    def _search(self, wanted: dict[str, Any]) -> None:
        library = self.library
        chosen = [stored for stored in library.assets.values() if not stored.trashed]
        if library.version >= 2 and "albumIds" in wanted:  # an earlier one has no such filter
            within = {asset for album in wanted["albumIds"] for asset in library.albums.get(album, ("", []))[1]}
            chosen = [stored for stored in chosen if stored.id in within]
        if wanted.get("isFavorite"):
            chosen = [stored for stored in chosen if stored.favourite]
        chosen = sorted((s for s in chosen if s.kind == wanted["type"]), key=lambda s: s.taken, reverse=True)
        size, page = min(wanted["size"], library.page), wanted["page"]
        items = [stored.told() for stored in chosen[(page - 1) * size : page * size]]
        more = str(page + 1) if len(chosen) > page * size else None
        self._json({"assets": {"items": items, "nextPage": more, "total": len(items)}, "albums": {"items": []}})

    def _check(self, wanted: dict[str, Any]) -> None:
        by_checksum = {stored.sha1: stored for stored in self.library.assets.values()}
        results: list[dict[str, Any]] = []
        for each in wanted["assets"]:
            stored = by_checksum.get(each["checksum"])
            more = {"reason": "duplicate", "assetId": stored.id, "isTrashed": stored.trashed} if stored else {}
            results.append({"id": each["id"], "action": "reject" if stored else "accept", **more})
        self._json({"results": results})

    def _upload(self, body: bytes) -> None:
        kind = self.headers["Content-Type"].encode()
        message = message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + body)
        values: dict[str, bytes] = {}
        for part in message.get_payload():  # type: ignore[union-attr]
            name = part.get_param("name", header="content-disposition")  # type: ignore[union-attr]
            values[str(name)] = part.get_payload(decode=True)  # type: ignore[union-attr,assignment]
        if missing := {"deviceAssetId", "deviceId", "fileCreatedAt", "fileModifiedAt", "assetData"} - set(values):
            return self._json({"message": sorted(missing)}, 400)
        data = values["assetData"]
        sha1 = hashlib.sha1(data).hexdigest()
        same = next((stored for stored in self.library.assets.values() if stored.sha1 == sha1), None)
        if same is not None:
            return self._json({"id": same.id, "status": "duplicate"})
        stored = Stored(values["filename"].decode(), data, sha1, taken=values["fileCreatedAt"].decode())
        stored.name += f" #{len(self.library.uploads)}"  # names are not unique there
        self.library.uploads.append(sha1)
        self._json({"id": self.library.add(stored), "status": "created"}, 201)

    def _stack(self, ids: list[str]) -> None:
        """As immich: a stack that one of them is on top of is taken up in the new one."""
        library = self.library
        if len(ids) < 2 or not set(ids) <= set(library.assets):
            return self._json({"message": "Bad request"}, 400)
        old = [stack for stack in library.stacks if stack[0] in ids]
        joined = list(dict.fromkeys([*ids, *(asset for stack in old for asset in stack)]))
        others = [[asset for asset in stack if asset not in joined] for stack in library.stacks if stack not in old]
        library.stacks = [*filter(lambda stack: len(stack) > 1, others), joined]
        self._json({"id": asset_id("stack " + ids[0]), "primaryAssetId": ids[0]}, 201)


@contextmanager
def served(library: Library, port: int = 0) -> Iterator[Library]:
    with served_by(type("Bound", (LibraryHandler,), {"library": library}), port) as library.url:
        yield library


def main(checksums: list[str]) -> None:
    """Serve a library with originals of these SHA-1 until the standard input ends."""
    library = Library()
    for checksum in checksums:
        library.add(Stored("original " + checksum, sha1=checksum))
    with served(library):
        print(library.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
