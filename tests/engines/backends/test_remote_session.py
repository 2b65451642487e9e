"""A part on another machine: what that one may answer, and what comes of it when it answers otherwise or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from engines import backends
from engines.backends import array_format, remote_session
from engines.backends.arrangement import Arrangement
from engines.backends.lenders import Lenders, Opened, Platform
from engines.backends.remote_session import RemoteSession
from engines.bundle import Bundle, Shelf
from engines.errors import EngineError, OutOfMemory, PartAway, PartRefused, StudioError

TOKEN = "a token for parts of models"
LATENTS = np.zeros((1, 16, 16, 16), np.float32)
IMAGE = np.full((1, 3, 256, 256), 0.25, np.float32)
Answer = tuple[int, bytes]


@dataclass
class Stranger:
    """A machine that answers `opened` when a part is to be opened, and `given` in turn when it is to be run."""

    opened: Answer = (200, b"")
    given: list[Answer] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str) -> Answer:
        self.asked.append(path.rpartition("/")[2])
        return self.opened if path == "/parts/open" else self.given.pop(0)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, stranger: Stranger, *arguments: object) -> None:
        self.stranger = stranger
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Authorization"] == f"Bearer {TOKEN}"
        status, body = self.stranger.answer(self.path)
        if not status:  # it is switched off
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:9/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    answering = Stranger((200, json.dumps(asdict(opened())).encode()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, answering))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    answering.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield answering
    server.shutdown()
    thread.join()
    server.server_close()


def opened(**changes: object) -> Opened:
    platform = replace(Platform.of(backends.engine("ort")), **changes)  # type: ignore[arg-type]
    return Opened("p" * 32, platform, "fp32")


@pytest.fixture
def bundle(builtin: Path) -> Bundle:
    return Shelf((builtin,)).open("portrait")


@pytest.fixture
def session(stranger: Stranger, bundle: Bundle) -> Iterator[RemoteSession]:
    ort = backends.engine("ort")
    way = Arrangement(tuple((bundle.part(role, ort.formats), ort) for role in sorted(bundle.roles)))
    lent = RemoteSession(Lenders({"preview_decoder": stranger.url}, TOKEN), bundle, way, "preview_decoder")
    yield lent
    lent.close()


def image() -> Answer:
    return 200, array_format.pack({"image": IMAGE})


def refusal(code: str, **facts: object) -> bytes:
    return json.dumps({"status": "error", "code": code, "message": "", "facts": facts}).encode()


def test_what_is_given_is_what_came(session: RemoteSession, stranger: Stranger) -> None:
    stranger.given = [image(), image()]
    for _ in range(2):
        assert np.array_equal(session.run({"latents": LATENTS})["image"], IMAGE)
    assert stranger.asked == ["open", "run", "run"]
    session.close()
    stranger.given = [image()]
    session.run({"latents": LATENTS})
    assert stranger.asked[3:] == ["open", "run"]


def test_it_says_how_equal_it_is(session: RemoteSession, stranger: Stranger) -> None:
    name = stranger.url.removeprefix("http://")
    runtime = opened().platform.runtime
    assert session.open() == f"preview_decoder lent by {name} ({runtime} on CPU, fp32, equal to the bit)"
    for changes in ({"threads": 99}, {"processor": "another"}, {"device": "a GPU"}):
        stranger.opened = 200, json.dumps(asdict(opened(**changes))).encode()
        assert session.open().endswith("equal but for rounding)")


@pytest.mark.parametrize("changes", [{"runtime": "onnxruntime 0.1"}, {"program": "0.0.1"}])
def test_it_holds_the_other_side_against_itself_too(
    changes: dict[str, str], session: RemoteSession, stranger: Stranger
) -> None:
    stranger.opened = 200, json.dumps(asdict(opened(**changes))).encode()
    with pytest.raises(PartRefused, match="another version") as refused:
        session.open()
    assert refused.value.facts["machine"] == stranger.url.removeprefix("http://")


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ((401, refusal("token_needed")), PartRefused, "STUDIO_PARTS_TOKEN is not its token"),
        ((503, refusal("part_refused", why="it has no such bundle")), PartRefused, "it has no such bundle"),
        ((507, refusal("out_of_memory")), OutOfMemory, "out of memory"),
        ((500, refusal("engine_failed", engine="ort")), EngineError, "its engine failed"),
        ((500, refusal("internal")), PartRefused, remote_session.SENSELESS),
        ((404, b"<html>"), PartRefused, remote_session.SENSELESS),
        ((302, b""), PartRefused, remote_session.SENSELESS),
        ((200, b""), PartRefused, remote_session.SENSELESS),
        ((200, b"{}"), PartRefused, remote_session.SENSELESS),
        ((200, b" " * 20_000), PartRefused, remote_session.SENSELESS),
        ((500, b"[]"), PartRefused, remote_session.SENSELESS),
        ((500, b" " * 20_000), PartRefused, remote_session.SENSELESS),
    ],
)
def test_whatever_it_refuses_with_is_an_error_of_ours(
    answer: Answer, kind: type[StudioError], said: str, session: RemoteSession, stranger: Stranger
) -> None:
    stranger.opened = answer
    with pytest.raises(kind, match=said) as refused:
        session.run({"latents": LATENTS})
    assert type(refused.value) is kind and stranger.asked == ["open"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"garbage", array_format.pack({"latents": LATENTS}), image()[1][:-4], image()[1] + bytes(4),
        array_format.pack({"image": np.zeros((1, 3, 2049, 1), np.float32)}), bytes(60_000_000),
    ],
    ids=["nothing", "garbage", "another", "cut off", "left over", "too large", "60 MB"],
)  # fmt: skip
def test_garbage_is_no_result(body: bytes, session: RemoteSession, stranger: Stranger) -> None:
    stranger.given = [(200, body)]
    with pytest.raises(PartRefused, match=remote_session.SENSELESS):
        session.run({"latents": LATENTS})
    stranger.given = [image()]
    assert np.array_equal(session.run({"latents": LATENTS})["image"], IMAGE)


def test_it_opens_again_what_was_unloaded_and_asks_again_where_the_connection_broke(
    session: RemoteSession, stranger: Stranger
) -> None:
    for broken in ((404, refusal("not_found")), (0, b"")):
        stranger.given, stranger.asked[:] = [image(), broken, image()], []
        session.close()
        for _ in range(2):
            assert np.array_equal(session.run({"latents": LATENTS})["image"], IMAGE)
        assert stranger.asked == ["open", "run", "run", "open", "run"]


def test_a_machine_that_stays_away_is_asked_twice(session: RemoteSession, stranger: Stranger) -> None:
    stranger.given = [(0, b""), (0, b"")]
    with pytest.raises(PartAway, match=remote_session.BROKE) as away:
        session.run({"latents": LATENTS})
    assert type(away.value) is PartAway and stranger.asked == ["open", "run", "open", "run"]


def test_a_machine_that_is_off_does_not_answer(bundle: Bundle) -> None:
    ort = backends.engine("ort")
    way = Arrangement(tuple((bundle.part(role, ort.formats), ort) for role in sorted(bundle.roles)))
    session = RemoteSession(Lenders({"decoder": "http://127.0.0.1:9"}, TOKEN), bundle, way, "decoder")
    with pytest.raises(PartAway, match=remote_session.SILENT) as away:
        session.run({"latents": LATENTS})
    assert away.value.facts == {"role": "decoder", "machine": "127.0.0.1:9", "why": remote_session.SILENT}
