"""
The password of the house: STUDIO_PASSWORD, or its Argon2 hash, which `python -m webui.people.password` makes, so that
no file need hold the password itself. Guessing is slow, and soon over.
"""

from __future__ import annotations

import getpass
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from engines.settings import HASHED
from webui.people.secret import derive

FREE, PER_S = 5, 300.0  # attempts that an address has, and in how many seconds they come back
ADDRESSES = 4096  # that are remembered


class Password:
    def __init__(self, setting: str, secret: bytes) -> None:
        """`setting`: the password, or its hash."""
        from argon2 import PasswordHasher  # here, as most houses have no password and need not wait for it

        self._hasher = PasswordHasher()
        self._hash = setting if setting.startswith(HASHED) else self._hasher.hash(setting)
        self.key = derive(secret, "password", setting)  # Pass.password_key: another one ends what the old one gave
        self._turn = threading.Lock()  # an attempt takes 64 MB and a moment

    def fits(self, text: str) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError

        with self._turn:
            try:
                return self._hasher.verify(self._hash, text)
            except (VerificationError, InvalidHashError):
                return False


@dataclass
class _Tries:
    left: float
    at: float


class Attempts:
    """How often each address may still try: FREE at once, then as they come back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: OrderedDict[str, _Tries] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, address: str) -> float:
        """Count one attempt. Return 0, or for how long there is none, in seconds."""
        with self._lock:
            now, refill = self._clock(), FREE / PER_S
            tries = self._tries.pop(address, _Tries(FREE, now))
            left = min(FREE, tries.left + (now - tries.at) * refill)
            self._tries[address] = _Tries(left - 1 if left >= 1 else left, now)
            if len(self._tries) > ADDRESSES:
                self._tries.popitem(last=False)
            return 0.0 if left >= 1 else (1 - left) / refill

    def forget(self, address: str) -> None:
        """Who has the password is not counted."""
        with self._lock:
            self._tries.pop(address, None)


def main() -> int:
    from argon2 import PasswordHasher

    first = getpass.getpass("密码 Password: ")
    if getpass.getpass("再输一遍 Once more: ") != first:
        print("两次不一样。 They differ.", file=sys.stderr)
        return 1
    print(f"STUDIO_PASSWORD='{PasswordHasher().hash(first)}'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
