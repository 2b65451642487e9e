"""
The tokens of programs: `./run.sh token NAME` makes one and shows it once; only its checksum is stored, as it is drawn
by lot and long, so that no list of guesses leads to it. A server that runs reads the list anew when it has changed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import sys
from pathlib import Path

from engines import files
from engines.settings import Settings, SettingsError
from engines.settings.installation import COMMAND
from webui.people import WORKER, proof

NAME = re.compile(r"[\w.-]{1,40}")
BYTES = 32


class Tokens:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_at: tuple[int, int] = (0, 0)  # when the file was changed, and how long it was
        self._names: dict[str, str] = {}  # by checksum

    def name_of(self, token: str) -> str | None:
        """Return whose token it is; None: nobody's, or no longer."""
        return self._list().get(proof.checksum(token))

    def checksum_of(self, mark: str) -> str:
        """Return the checksum of the token with that mark (webui/people/proof.py); empty: there is none."""
        return next((checksum for checksum in self._list() if proof.mark(checksum) == mark), "")

    def names(self) -> list[str]:
        return sorted(self._list().values())

    def workers(self) -> list[str]:
        """Return the names of the machines that may work for this house."""
        return [name.removeprefix(WORKER) for name in self.names() if name.startswith(WORKER)]

    def add(self, name: str) -> str:
        """
        Return a new token of that name, which may be a worker's, in the place of the old one if there is one.
        ValueError, OSError.
        """
        if not NAME.fullmatch(name.removeprefix(WORKER)):
            raise ValueError(f"名称只能用字母、数字和 . _ - Letters, digits and . _ - only: {name!r}")
        token = "awp_" + secrets.token_urlsafe(BYTES)
        self._write({**self._others(name), proof.checksum(token): name})
        return token

    def revoke(self, name: str) -> bool:
        """Return whether there was one. OSError."""
        others = self._others(name)
        gone = len(others) < len(self._list())
        self._write(others)
        return gone

    def _others(self, name: str) -> dict[str, str]:
        return {checksum: other for checksum, other in self._list().items() if other != name}

    def _list(self) -> dict[str, str]:
        """What the file holds. One that cannot be read opens nothing to anybody."""
        try:
            stat = self.path.stat()
            if (stat.st_mtime_ns, stat.st_size) != self._read_at:
                self._names = files.read_json(dict[str, str], self.path)
                self._read_at = (stat.st_mtime_ns, stat.st_size)
        except (OSError, ValueError):
            self._names, self._read_at = {}, (0, 0)
        return self._names

    def _write(self, names: dict[str, str]) -> None:
        files.write_atomic(self.path, json.dumps(names).encode(), durable=True)
        self.path.chmod(0o600)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(f"{COMMAND} token", description="程序用的令牌 · tokens of programs")
    parser.add_argument("name", nargs="?", help="程序的名称;不写则列出 · the program's name; without, they are listed")
    parser.add_argument("--worker", action="store_true", help="给帮忙干活的另一台机器 · for a machine that shall help")
    parser.add_argument("--revoke", action="store_true", help="作废 · end it")
    asked = parser.parse_args(arguments)
    try:
        tokens = Tokens(Settings.load(os.environ).state / "tokens.json")
        name = f"{WORKER}{asked.name}" if asked.worker else asked.name
        if name is None:
            print("\n".join(tokens.names()) or "(没有 none)")
        elif not asked.revoke:
            print(f"{tokens.add(name)}\n请现在记下,之后不再显示。 Note it now: it is not shown again.", flush=True)
        elif not tokens.revoke(name):
            print(f"没有这个名称。 There is none of that name: {name}", file=sys.stderr)
            return 1
    except (SettingsError, ValueError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
