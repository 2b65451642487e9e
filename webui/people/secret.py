"""The secret of a house, from which every key and signature is derived, and the keys of its pictures."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from engines import files

BYTES = 32
KEY_LETTERS = 32  # hexadecimal: 128 bits, which nobody guesses


def load(path: Path) -> bytes:
    """
    Return the secret that the file holds; where there is none, or half of one, draw it by lot first. Without the old
    one every browser is a stranger, and no address of a picture fits any more. OSError: the disk refuses.
    """
    secret = path.read_bytes() if path.is_file() else b""
    if len(secret) != BYTES:
        secret = secrets.token_bytes(BYTES)
        files.write_atomic(path, secret, durable=True)
        path.chmod(0o600)
    return secret


def derive(secret: bytes, purpose: str, text: str) -> str:
    """Return a name's key for one purpose, in hexadecimal: HMAC-SHA-256 (RFC 2104), cut to KEY_LETTERS."""
    message = f"{purpose}\0{text}".encode("utf-8", "surrogatepass")
    return hmac.new(secret, message, hashlib.sha256).hexdigest()[:KEY_LETTERS]


@dataclass(frozen=True, repr=False)
class Keys:
    """
    What makes the address of a picture one that cannot be guessed: its name says only when it was drawn. What leaves
    the house is "KEY/NAME".
    """

    secret: bytes

    def sign(self, name: str) -> str:
        """ "NAME" -> "KEY/NAME"."""
        return f"{derive(self.secret, 'picture', name)}/{name}"

    def name(self, signed: str) -> str | None:
        """ "KEY/NAME" -> "NAME"; None: the key is not that of the name."""
        name = signed.partition("/")[2]
        return name if hmac.compare_digest(self.sign(name).encode(), signed.encode("utf-8", "surrogatepass")) else None
