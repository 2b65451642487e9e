"""
A part that runs on another machine: a Session like any other, whose arrays go over HTTP to engines/worker/lender.py.
Before its first use both sides have found that they mean the very same part, on the same engine in the same version.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from engines import files
from engines.backends import array_format
from engines.backends.arrangement import Arrangement
from engines.backends.lenders import Lenders, Opened, Wanted, machine_at
from engines.bundle import Bundle, Role
from engines.bundle.signatures import Array, check_output
from engines.errors import BundleError, EngineError, NotFoundError, OutOfMemory, PartAway, PartRefused

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)
CONNECT_S = 5.0
ANSWER_S = 900.0  # for a part to be read from a slow disk, or to run; that its machine is gone shows long before
SMALL_BYTES = 16_000  # an answer that is no array
SILENT, SENSELESS, BROKE = "it does not answer", "it gives no sensible answer", "the connection broke"
# A machine that has lost its power closes no connection: the kernel asks it from the fifth second of silence on, and
# gives it up at the fourth question without an answer. (tcp(7))
KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 4}


class RemoteSession:
    """
    `run` opens the part where it is not open: `open` says so earlier. PartAway: its machine does not answer, or no
    more, after a second attempt at once. PartRefused: it does not lend this part, or has another one by that name.
    """

    def __init__(self, lenders: Lenders, bundle: Bundle, arrangement: Arrangement, role: Role) -> None:
        self.bundle, self.arrangement, self.role = bundle, arrangement, role
        self._address, self._token = lenders.of(bundle)[role], lenders.token
        self.machine = machine_at(self._address)
        self._opened: Opened | None = None
        self._http: httpx2.Client | None = None

    def open(self) -> str:
        """Have the part opened there, and say where it runs and how equal its numbers are to those of this machine."""
        wanted, opened = self._open()
        name, precision = f"{self.role} lent by {self.machine}", opened.precision
        like = "equal to the bit" if opened.platform == wanted.platform else "equal but for rounding"
        return f"{name} ({opened.platform.runtime} on {opened.platform.device}, {precision}, {like})"

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        body, most = array_format.pack(feeds), array_format.most_given_bytes(self.role, self.bundle)
        for attempt in (1, 2):
            try:
                answer = self._ask(f"/parts/{self._id()}/run", body, most)
                break
            except (PartAway, NotFoundError) as exc:
                self._opened = None
                if attempt == 2 or (isinstance(exc, PartAway) and exc.facts["why"] != BROKE):
                    raise
                log.warning("%s; once more", exc)  # a restart there
        try:
            result = array_format.unpack_result(self.role, self.bundle, answer)
        except ValueError as exc:
            log.error("%s from %s: %s", self.role, self.machine, exc)
            raise self._refused(SENSELESS) from exc
        for output in result.values():
            check_output(self.role, feeds, output, f"{self.machine}: {self.bundle.name}/{self.role}")
        return result

    def close(self) -> None:
        """Hang up. What nobody uses, its machine unloads by itself."""
        self._opened = None
        if self._http is not None:
            self._http.close()
            self._http = None

    def _id(self) -> str:
        return (self._opened or self._open()[1]).id

    def _open(self) -> tuple[Wanted, Opened]:
        try:
            wanted = Wanted.of(self.bundle, self.arrangement, self.role)
        except OSError as exc:
            raise BundleError(f"{self.bundle.name}/bundle.json: {exc}", bundle=self.bundle.name) from exc
        answer = self._ask("/parts/open", _json(asdict(wanted)), SMALL_BYTES)
        try:
            opened = files.validate(Opened, files.parse_json(answer))
        except ValueError as exc:
            raise self._refused(SENSELESS) from exc
        if why := wanted.platform.differs(opened.platform):
            raise self._refused(why)
        self._opened = opened
        return wanted, opened

    def _ask(self, path: str, body: bytes, most: int) -> bytes:
        """Return what is answered, which has no more than so many bytes. NotFoundError: it is not open there."""
        with self._mapped(), self._client().stream("POST", path, content=body) as answer:
            said = bytearray()
            limit = most if answer.status_code == 200 else SMALL_BYTES
            for piece in answer.iter_raw():
                said += piece
                if len(said) > limit:
                    raise self._refused(SENSELESS)
            if answer.status_code != 200:
                raise self._refusal(answer.status_code, bytes(said))
            return bytes(said)

    def _refused(self, why: str) -> PartRefused:
        return PartRefused(self.role, self.machine, why)

    def _refusal(self, status: int, body: bytes) -> Exception:
        """Return what the other side refuses with as ours."""
        try:
            said = files.parse_json(body)
            code, facts = str(said["code"]), dict(said.get("facts", {}))
        except (ValueError, TypeError, KeyError):
            return self._refused(SENSELESS)
        log.warning("%s from %s: %d %s %s", self.role, self.machine, status, code, facts)
        match code:
            case "not_found":
                return NotFoundError("part", self.role)
            case "out_of_memory":
                return OutOfMemory(f"{self.machine}: {self.role}: out of memory", engine=self.machine)
            case "engine_failed":
                return EngineError(f"{self.machine}: {self.role}: its engine failed", engine=self.machine)
            case "part_refused" if isinstance(why := facts.get("why"), str):
                return self._refused(why[:200])
            case "token_needed":
                return self._refused("STUDIO_PARTS_TOKEN is not its token")
        return self._refused(SENSELESS)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        import httpx2

        try:
            yield
        except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
            self.close()
            log.warning("%s from %s: %r", self.role, self.machine, exc)
            unreached = isinstance(exc, httpx2.ConnectError | httpx2.TimeoutException)
            raise PartAway(self.role, self.machine, SILENT if unreached else BROKE) from exc

    def _client(self) -> httpx2.Client:
        if self._http is None:
            import httpx2  # here: 0.1 s, which nobody else need wait for

            headers = {"Authorization": f"Bearer {self._token}", "Accept-Encoding": "identity"}
            timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
            transport = httpx2.HTTPTransport(socket_options=_keepalive())
            self._http = httpx2.Client(
                base_url=self._address.rstrip("/"), headers=headers, timeout=timeout, transport=transport
            )
        return self._http


def _keepalive() -> list[Any]:
    """Return how a socket finds out that the other side is gone, in what this system knows."""
    options: list[Any] = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    named = ((getattr(socket, name, None), value) for name, value in KEEPALIVE.items())
    return options + [(socket.IPPROTO_TCP, number, value) for number, value in named if number is not None]


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode()
