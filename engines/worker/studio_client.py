"""
The studio that a worker on another machine works for, over HTTP: what webui/api/workers.py answers to. Knows requests
and answers; what is done with a job, engines/worker/bridge.py knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from engines import files
from engines.errors import JobMoved
from engines.messages import Event, pack
from engines.messages.order import Echo, Order
from engines.messages.status import Status

if TYPE_CHECKING:
    import httpx2

CONNECT_S, SILENCE_S = 5.0, 30.0
PIECE_BYTES = 1 << 16
NO_CALLS = "it has no STUDIO_QUEUE: set it there too, or not here"
GONE = (404, 409)  # there is no such job any more, or another worker does it


class StudioAway(Exception):
    """The studio does not answer, or not now. Its text says why."""


class StudioRefuses(Exception):
    """The studio does not let this machine work for it. Its text says why."""


class StudioClient:
    """Any thread may ask. Every call raises StudioAway and StudioRefuses; those about a job JobMoved too."""

    def __init__(self, url: str, token: str) -> None:
        import httpx2  # here: 0.1 s, which nobody else need wait for

        timeout = httpx2.Timeout(SILENCE_S, connect=CONNECT_S)
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)

    def close(self) -> None:
        self._http.close()

    def announce(self, status: Status, job: str, called: bool) -> Echo:
        """Say how this worker is, as Dispatcher.hear wants it."""
        params = {"job": job, "called": called}
        answer = self._ask("POST", "/workers/status", params=params, content=pack(status).encode())
        echo = files.validate(Echo, answer.json())
        if called and not echo.calls:
            raise StudioRefuses(NO_CALLS)
        return echo

    def leave(self) -> None:
        self._ask("POST", "/workers/leave")

    def claim(self, wait_s: float) -> Order | None:
        """Return the job whose turn it is, for which the studio may wait; None: there is none yet."""
        answer = self._ask("POST", "/workers/claim", params={"wait_s": wait_s})
        return None if answer.status_code == 204 else files.validate(Order, answer.json())

    def fetch_photo(self, order: Order, path: Path) -> None:
        """Write the photo that a job begins with. OSError: this machine's disk refuses."""
        self._download(f"{order.path}/photo", path)
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != order.photo_sha256:
                raise StudioAway("the photo has not come as it was sent")

    def fetch_picture(self, order: Order, name: str, path: Path) -> None:
        """Write a picture on which the job's snapshot counts. OSError."""
        self._download(f"{order.path}/pictures/{quote(name)}", path)

    def snapshot(self, order: Order) -> bytes:
        return bytes(self._ask("GET", f"{order.path}/snapshot").content)

    def send_snapshot(self, order: Order, body: bytes, pictures: Sequence[str]) -> None:
        self._ask("PUT", f"{order.path}/snapshot", params=[("picture", name) for name in pictures], content=body)

    def send_picture(self, order: Order, path: Path, name: str) -> str:
        """Send a picture; return what it is called there. OSError: it cannot be read."""
        data = path.read_bytes()
        headers = {"X-SHA256": hashlib.sha256(data).hexdigest()}
        answer = self._ask("PUT", f"{order.path}/pictures/{quote(name)}", content=data, headers=headers)
        return str(answer.json()["name"])

    def send_events(self, order: Order, events: Sequence[Event]) -> bool:
        """Say what has happened. Return whether the job shall go on."""
        answer = self._ask("POST", f"{order.path}/events", json=[pack(event) for event in events])
        return bool(answer.json()["goes_on"])

    def _ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        with _mapped():
            answer = self._http.request(method, path, **more)
            _check(answer)
            return answer

    def _download(self, path: str, to: Path) -> None:
        with _mapped(), self._http.stream("GET", path) as answer:
            _check(answer)
            with to.open("wb") as file:
                for piece in answer.iter_bytes(PIECE_BYTES):
                    file.write(piece)


@contextmanager
def _mapped() -> Iterator[None]:
    import httpx2

    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
        raise StudioAway(str(exc) or type(exc).__name__) from exc


def _check(answer: httpx2.Response) -> None:
    status = answer.status_code
    if status in GONE and "/workers/jobs/" in str(answer.url):
        raise JobMoved(f"the studio says {status}")
    if status in (401, 403, 404):
        raise StudioRefuses(f"{answer.url.host} says {status}")
    if status >= 300:
        raise StudioAway(f"{answer.url.host} says {status}")
