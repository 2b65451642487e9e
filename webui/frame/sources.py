"""
Which pictures a frame may show: the album of all, its favourites, folders that the owner has named. Nothing else is
ever listed, and what is not listed is not sent.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from engines.errors import NotFoundError, OptionError
from engines.jobs import Finished, JobQueue, Search
from webui.albums.folders import PORTRAIT, Focus, Folder, Listed, Pictures, Shown
from webui.people.secret import derive

ALBUM, FAVOURITES, FOLDER = "album", "favourites", "folder:"
MOST = 5000  # pictures of a listing, the newest
ALBUM_S = 3.0  # for how long a listing of the album counts


@dataclass(frozen=True)
class Listing:
    """Pictures by their ids, which nobody guesses, newest first. `version` changes with them."""

    pictures: Mapping[str, Shown]
    version: str = ""

    @classmethod
    def of(cls, pictures: Mapping[str, Shown]) -> Listing:
        newest = dict(sorted(pictures.items(), key=lambda item: -item[1].since)[:MOST])
        return cls(newest, hashlib.sha256(" ".join(newest).encode()).hexdigest()[:16])


class Sources:
    """`folders`: by the names that frames ask for them with. Any thread may ask."""

    def __init__(
        self,
        queue: JobQueue,
        secret: bytes,
        folders: Mapping[str, Folder],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue, self._secret = queue, secret
        self._sources: dict[str, Listed | Folder] = {
            **{name: Listed(partial(self._shared, name == FAVOURITES), ALBUM_S, clock) for name in (ALBUM, FAVOURITES)},
            **{FOLDER + name: folder for name, folder in folders.items()},
        }

    def parse(self, show: str) -> tuple[str, ...]:
        """
        Read what shall be shown, with commas between. OptionError: there is no such source; then nothing is shown, as
        another one might have what is not for this wall.
        """
        names = tuple(dict.fromkeys(name.strip() for name in show.split(",") if name.strip())) or (ALBUM,)
        for name in names:
            if name not in self._sources:
                raise OptionError("show", name[:100], ", ".join(self._sources))
        return names

    def listing(self, names: Sequence[str]) -> Listing:
        """Return the pictures of these sources, each one once."""
        return Listing.of(
            {picture_id: shown for name in names for picture_id, shown in self._sources[name].pictures().items()}
        )

    def picture(self, names: Sequence[str], picture_id: str) -> Shown:
        """NotFoundError: it is none of these sources', or not any more."""
        for name in names:
            if shown := self._sources[name].pictures().get(picture_id):
                return shown
        raise NotFoundError("picture", picture_id[:40])

    def _shared(self, favourite: bool, _: Pictures) -> Pictures:
        jobs = self.queue.page(Search(None, favourite=favourite), MOST).jobs
        return {
            self._id(name): Shown(self.queue.folder / name, *_facts(finished))
            for finished in jobs
            for name in finished.final.images
        }

    def _id(self, name: str) -> str:
        return derive(self._secret, "frame", name)


def _facts(finished: Finished) -> tuple[float, Focus, str]:
    return finished.position[0], focus_of(finished), finished.job.id


def focus_of(finished: Finished) -> Focus:
    """Return the middle of the faces, where they were looked for."""
    boxes = [face.box for face in finished.final.faces if face.is_face]
    if not boxes:
        return PORTRAIT
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    return (left + right) / 2, (top + bottom) / 2
