"""
Feeds of pictures, as the owner has named them: JSON Feed 1.1 (jsonfeed.org), or a list of addresses, or of objects that
have one. What a feed names on its own server may be fetched, and by https what is public; all else is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

from webui import outgoing
from webui.albums.folders import Shown
from webui.frame.sources import MOST
from webui.outgoing import Resource, Unanswered

FEED = "feed:"
ADDRESSES = ("image", "url", "src")  # of an object in a list
LONGEST = 2000  # letters of an address


@dataclass(frozen=True)
class Feeds:
    """`addresses`: of the feeds, by their names."""

    addresses: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(FEED + name for name in self.addresses)

    def has(self, name: str) -> bool:
        return name in self.names

    def pictures(self, name: str) -> list[Shown]:
        """Return what a feed names now. Unanswered: it does not, or it is none."""
        address = self.addresses[name.removeprefix(FEED)]
        listed = outgoing.asked(Resource(address, address))
        if isinstance(listed, dict) and isinstance(listed.get("items"), list):
            named = _of_feed(listed["items"])
        elif isinstance(listed, list):
            named = _of_list(listed)
        else:
            raise Unanswered(urlsplit(address).hostname or "", "is no feed of pictures")
        shown = [_shown(address, url, date, place) for place, (url, date) in enumerate(named)]
        return [picture for picture in shown if picture is not None][:MOST]


def _of_feed(items: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield addresses and dates: the image of an item, and its attachments that are images."""
    for item in filter(lambda item: isinstance(item, dict), items):
        attachments = item.get("attachments")
        urls = [item.get("image")]
        for each in attachments if isinstance(attachments, list) else ():
            if isinstance(each, dict) and str(each.get("mime_type", "")).startswith("image/"):
                urls.append(each.get("url"))
        for url in dict.fromkeys(url for url in urls if isinstance(url, str)):
            yield url, _date(item)


def _of_list(listed: list[Any]) -> Iterator[tuple[str, str]]:
    for each in listed:
        if isinstance(each, str):
            yield each, ""
        elif isinstance(each, dict):
            urls = [each[key] for key in ADDRESSES if isinstance(each.get(key), str)]
            yield (urls[0] if urls else "", _date(each))


def _date(item: Mapping[str, Any]) -> str:
    return str(item.get("date_modified") or item.get("date_published") or "")


def _shown(address: str, url: str, date: str, place: int) -> Shown | None:
    """
    Return a picture; None: it may not be fetched. One without a date is as new as its place in the feed, after all that
    have one.
    """
    try:
        remote = Resource(urljoin(address, url.strip()), address)
        name = PurePosixPath(urlsplit(remote.url).path).name
    except ValueError:
        return None
    if not url.strip() or len(remote.url) > LONGEST or not remote.may_be_asked():
        return None
    version = hashlib.sha256(f"{remote.url}\0{date}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    try:
        since = datetime.fromisoformat(date).timestamp()
    except (ValueError, OverflowError):
        since = float(-1 - place)
    return Shown(Path(FEED, version, name[:80] or "picture"), since, remote=remote)
