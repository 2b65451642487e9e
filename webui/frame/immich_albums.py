"""Pictures of immich for frames: those that the key's owner marked as favourites, and albums by name or id."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from webui.albums.folders import FOLDER_S, Shown
from webui.frame.sources import MOST, middle_of
from webui.immich import REFUSED, Asset, Immich
from webui.outgoing import Unanswered

log = logging.getLogger(__name__)
IMMICH, ALBUM = "immich", "immich:"


class ImmichAlbums:
    """Any thread may ask."""

    def __init__(self, immich: Immich, clock: Callable[[], float] = time.monotonic) -> None:
        self.immich, self._clock = immich, clock
        self._albums: dict[str, str] = {}
        self._until_s = float("-inf")

    @property
    def names(self) -> tuple[str, ...]:
        return (IMMICH, ALBUM + "ALBUM")  # which albums there are is not said to who does not know

    def has(self, name: str) -> bool:
        return name == IMMICH or (name.startswith(ALBUM) and name != ALBUM)

    def pictures(self, name: str) -> list[Shown]:
        """Return what is in it now; nothing, where immich has no such album, or refuses the key. Unanswered."""
        try:
            albums = self._listed()
            if name == IMMICH:
                return [self._shown(asset) for asset in self.immich.pictures("", MOST)]
            wanted = name.removeprefix(ALBUM)
            ids = [album for album, title in albums.items() if wanted in (album, title)]
            assets = {asset.id: asset for album in ids for asset in self.immich.pictures(album, MOST)}
            return [self._shown(asset) for asset in assets.values()]
        except Unanswered as exc:
            if exc.status not in REFUSED:
                raise
            log.warning("immich refuses the key of STUDIO_IMMICH_KEY to the frame: %s", exc)
            return []

    def _listed(self) -> dict[str, str]:
        """Anybody may ask for albums that there are not: immich is not asked for each."""
        if self._clock() >= self._until_s:
            self._albums, self._until_s = self.immich.albums(), self._clock() + FOLDER_S
        return self._albums

    def _shown(self, asset: Asset) -> Shown:
        path = Path(IMMICH, asset.version.replace("/", "_"), asset.id)
        return Shown(path, asset.taken, middle_of(asset.faces), remote=self.immich.preview(asset.id))
