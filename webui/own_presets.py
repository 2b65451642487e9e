"""
The presets that people keep: whose they are, and where they lie. One file each, HOME/presets/OWNER/ID.toml, in the very
format of the built-in ones: what is stored is what is exported and imported, one damaged file costs one preset, a whole
file takes the old one's name in one step as everywhere here, and a backup takes the folder as it is. The queue's
database would need tables, repairs and a protocol for what no worker ever reads.

Of the picture only the name is kept, in a line of its own that no file from elsewhere may have: a picture that is
deleted is gone from its card, too.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import presets
from engines import files
from engines.errors import NotFoundError, PresetRefused, PresetsFull, RequestError, StorageError
from engines.messages.validation import allowed
from presets import Preset, PresetError

log = logging.getLogger(__name__)
MOST, NAME_LETTERS = 100, 40  # presets of one person; letters of a name
ORDER = 1000  # after the built-in ones, wherever the file goes
ID = re.compile(r"[0-9a-f]{16}")
PICTURE = re.compile(r'picture = "([\w.-]{1,120})"\n')  # the first line, where there is one
LASTING, DELETED = ".toml", ".deleted"
SIGNS = {"ge": "≥", "le": "≤", "min_length": "≥", "max_length": "≤"}  # of limits, as pydantic names them
JOINER = "\u200d"  # holds the parts of one emoji together


@dataclass(frozen=True)
class OwnPreset:
    """`picture`: the name of the file that it was saved from, which may have gone; empty: none."""

    id: str
    preset: Preset
    picture: str = ""


class OwnPresets:
    """
    The presets of everybody, each person's by that person's id. Every method may be given anything as `preset_id`:
    NotFoundError: this person has none of that id. StorageError: the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._adding = threading.Lock()  # so that no two take the last place

    def all(self, owner: str) -> list[OwnPreset]:
        """Return them in the order in which they were saved. One that cannot be read is passed over, and logged."""
        with _storage(self.folder):
            paths = sorted(self._of(owner).glob(f"*{LASTING}")) if owner else []
        return [own for path in paths if (own := _read(path))]

    def get(self, owner: str, preset_id: object) -> OwnPreset:
        path = self._path(owner, preset_id)
        own = _read(path) if path.is_file() else None
        if own is None:
            raise NotFoundError("preset", path.stem)
        return own

    def add(self, owner: str, preset: Preset, picture: str = "") -> str:
        """
        Return the id of a new one, last in the order. RequestError: nobody in particular keeps none. PresetsFull.
        PresetRefused: its texts are too long for a file, or its title is no name.
        """
        if not owner:
            raise RequestError("nobody in particular keeps presets")
        with self._adding:
            self._check_room(owner)
            own = OwnPreset(f"{time.time_ns():016x}", preset, picture)
            self._write(owner, own)
        return own.id

    def rename(self, owner: str, preset_id: object, name: str) -> None:
        """PresetRefused: that is no name."""
        own = self.get(owner, preset_id)
        self._write(owner, OwnPreset(own.id, presets.titled(own.preset, checked_name(name)), own.picture))

    def delete(self, owner: str, preset_id: object) -> None:
        """Delete one so that it can be taken back, until it is purged."""
        path = self._path(owner, preset_id)
        with _storage(self.folder, path.stem):
            os.utime(path)  # from when on it waits
            path.rename(path.with_suffix(DELETED))

    def undelete(self, owner: str, preset_id: object) -> None:
        """NotFoundError: it is gone for good. PresetsFull: its place was taken."""
        path = self._path(owner, preset_id)
        with self._adding, _storage(self.folder, path.stem):
            self._check_room(owner)
            path.with_suffix(DELETED).rename(path)

    def purge(self, before_s: float) -> None:
        """Delete for good what was deleted before then. Whoever takes one back at that moment is too late."""
        with _storage(self.folder):
            for path in self.folder.glob(f"*/*{DELETED}"):
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < before_s:
                        path.unlink()

    def _check_room(self, owner: str) -> None:
        if len(list(self._of(owner).glob(f"*{LASTING}"))) >= MOST:
            raise PresetsFull(f"{MOST} presets are here", most=MOST)

    def _write(self, owner: str, own: OwnPreset) -> None:
        text = presets.write(own.preset)
        parse(text)  # what is stored can be read, and what is exported imported
        head = f'picture = "{own.picture}"\n' if own.picture else ""
        with _storage(self.folder):
            files.write_atomic(self._path(owner, own.id), (head + text).encode(), durable=True)

    def _path(self, owner: str, preset_id: object) -> Path:
        if not owner or not isinstance(preset_id, str) or not ID.fullmatch(preset_id):
            raise NotFoundError("preset", str(preset_id))
        return self._of(owner) / f"{preset_id}{LASTING}"

    def _of(self, owner: str) -> Path:
        """A program's id holds its name, in any script."""
        return self.folder / hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def parse(text: str) -> Preset:
    """Read a file from elsewhere, or one that is about to be written. PresetRefused says why it is none."""
    if len(text.encode("utf-8", "surrogatepass")) > presets.MOST_BYTES:
        raise PresetRefused("TOML", "larger than 16 KB")
    if "\ufffd" in text:  # what a browser puts in the place of bytes that are no UTF-8
        raise PresetRefused("TOML", "not in UTF-8")
    try:
        preset = presets.parse(text, "own")
    except PresetError as exc:
        raise PresetRefused(exc.field or "TOML", _why(exc)) from exc
    for title in preset.title.values():
        checked_name(title)
    return preset


def _why(exc: PresetError) -> str:
    """Say what is wrong with the field, or with the whole, in the program's phrases."""
    if exc.fault is None:
        return "not as presets have it"
    kind, context = exc.fault["type"], exc.fault.get("ctx", {})
    limits = [f"{sign} {context[name]}" for name, sign in SIGNS.items() if name in context]
    if kind == "unexpected_keyword_argument":
        return "no such field"
    return limits[0] if limits else allowed(exc.fault)


def checked_name(text: str) -> str:
    """Return a name without the blanks around it. PresetRefused: it is none, or too long, or has odd signs in it."""
    name = " ".join(text.split())
    if not 0 < len(name) <= NAME_LETTERS:
        raise PresetRefused("title", f"1 … {NAME_LETTERS}")
    if any(unicodedata.category(letter)[0] in "CZ" for letter in name.replace(JOINER, "") if letter != " "):
        raise PresetRefused("title", "without control characters")
    return name


def file_name(title: str) -> str:
    """Return what an exported file is called: the preset's title, without what file systems do not take."""
    stem = re.sub(r'[\\/:*?"<>|.]', "_", title).strip("_ ")
    return f"{stem or 'preset'}{LASTING}"


def _read(path: Path) -> OwnPreset | None:
    try:
        text = path.read_text(encoding="utf-8")
        head = PICTURE.match(text)
        return OwnPreset(path.stem, presets.parse(text[head.end() if head else 0 :], "own"), head[1] if head else "")
    except FileNotFoundError:  # deleted since it was listed
        return None
    except (OSError, ValueError) as exc:  # PresetError is a ValueError
        log.warning("a preset cannot be read: %s: %s", path.name, type(exc).__name__)  # its text is somebody's
        return None


@contextmanager
def _storage(folder: Path, preset_id: str = "") -> Iterator[None]:
    """`preset_id`: of the one that has to be there."""
    try:
        yield
    except FileNotFoundError as exc:
        raise NotFoundError("preset", preset_id) from exc
    except OSError as exc:
        raise StorageError(f"{folder}: {exc.strerror}", why=exc.strerror or "?") from exc
