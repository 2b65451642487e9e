"""
Files that are worth as much as a program: what a GPU's compiler made is run by whoever reads it. So each lies beside a
signature that only this installation can have written, and is read only when that fits its bytes and its name.

The signature is HMAC-SHA256 under 32 random bytes, which lie with the caches, readable by their owner alone. Knows
files; what is in them is the engine's.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from engines import files
from engines.errors import EngineError

log = logging.getLogger(__name__)
KEY_BYTES = 32
Bytes = bytes | memoryview


class Refused(EngineError):
    """A file that is there and must not be used."""


@dataclass(frozen=True)
class SignedFiles:
    """`key_file` is made when it is first needed."""

    key_file: Path

    def write(self, path: Path, data: Bytes) -> None:
        """
        Write a file, then its signature, without which it is worth nothing. OSError: the disk is full or read-only.
        """
        signature = self._sign(path.name, data)
        files.write_atomic(path, data)
        files.write_atomic(_signature_of(path), signature)

    def read(self, path: Path) -> bytes:
        """
        Read a signed file. FileNotFoundError: there is none. Refused: it was not written here, or has changed since.
        """
        data = path.read_bytes()
        try:
            signature = _signature_of(path).read_bytes()
        except OSError as exc:
            raise Refused(f"{path.name} is not signed", engine="") from exc
        if not hmac.compare_digest(self._sign(path.name, data), signature):
            raise Refused(f"{path.name} was changed, or made by another installation", engine="")
        return data

    def _sign(self, name: str, data: Bytes) -> bytes:
        """Return the signature of a file, its name included: one signed file must not stand in for another."""
        digest = hmac.new(self._key(), f"{name}\0".encode(), "sha256")
        digest.update(data)
        return digest.hexdigest().encode()

    def _key(self) -> bytes:
        """
        Return the key. One that others may have read, or that is none, is replaced: what it signed is then made again.
        """
        try:
            with self.key_file.open("rb") as file:
                status, key = os.fstat(file.fileno()), file.read(KEY_BYTES + 1)
            if len(key) == KEY_BYTES and _private(status):
                return key
            log.warning("%s is no secret of this program: a new one takes its place", self.key_file)
            self.key_file.unlink()
        except FileNotFoundError:
            pass
        return self._new_key()

    def _new_key(self) -> bytes:
        """Make a key, whole before it has its name; if another process was first, its key counts."""
        key = secrets.token_bytes(KEY_BYTES)
        with files.temporary(self.key_file.parent) as beside:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(key)
            try:
                os.link(beside, self.key_file)
            except FileExistsError:
                return self.key_file.read_bytes()
        return key


def _private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def _signature_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sig")
