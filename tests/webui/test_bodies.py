"""S7: bodies and pictures against memory, on a server of its own whose memory can be watched."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from tests.support.http import FILE_DATA, Session, encoded

if TYPE_CHECKING:
    from tests.support.server import Process


@contextlib.contextmanager
def bounded(process: Process, growth_mb: float, seconds: float) -> Iterator[None]:
    """Inside, the server's memory grows by no more than this at any moment, and it computes no longer than this."""
    before, begun = process.memory_mb("VmRSS"), process.cpu_s()
    process.reset_peak()
    yield
    assert process.cpu_s() - begun < seconds
    assert process.memory_mb("VmHWM") - before <= growth_mb


def poured(url: str, path: str, chunks: Iterator[bytes], **headers: str) -> int:
    """The status of a request whose body is sent until the server has had enough. 0: it hung up."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    try:
        connection.putrequest("POST", path)
        for name, value in {
            **({} if "Content_Length" in headers else {"Transfer_Encoding": "chunked"}),
            **headers,
        }.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for chunk in chunks:
                connection.send(chunk if "Content_Length" in headers else b"%x\r\n%s\r\n" % (len(chunk), chunk))
            if "Content_Length" not in headers:
                connection.send(b"0\r\n\r\n")
        return connection.getresponse().status
    except (ConnectionError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


MEGABYTE = b"x" * 1_000_000
JSON = {"Content_Type": "application/json"}
URL_ENCODED = {"Content_Type": "application/x-www-form-urlencoded"}
FORM = {"Content_Type": "multipart/form-data; boundary=b"}
TEXT_PART = b'--b\r\nContent-Disposition: form-data; name="mode"\r\n\r\n'
FILE_PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
FILES_PART = FILE_PART.replace(b'"image"', b'"files"')


def many(part: bytes, count: int) -> Iterator[bytes]:
    yield from itertools.repeat(part + b"x\r\n", count)
    yield b"--b--\r\n"


def long(head: bytes, megabytes: int) -> Iterator[bytes]:
    yield head
    yield from itertools.repeat(MEGABYTE, megabytes)
    yield b"\r\n--b--\r\n"


BODIES: dict[str, tuple[str, Callable[[], Iterator[bytes]], dict[str, str]]] = {
    "100 MB of JSON, declared": ("/generate", lambda: long(b'"', 100), {"Content_Length": "100000012"}),
    "100 MB of JSON, chunked": ("/generate", lambda: long(b'"', 100), {}),
    "100 MB to the queue, chunked": ("/gradio_api/queue/join", lambda: long(b'"', 100), JSON),
    "100 MB to a page without a body": ("/gradio_api/cancel", lambda: long(b'"', 100), JSON),
    "a text field without end": ("/enhance", lambda: long(TEXT_PART, 100), FORM),
    "a text field of 28 MB": ("/enhance", lambda: long(TEXT_PART, 28), FORM),
    "a file of 100 MB": ("/enhance", lambda: long(FILE_PART, 100), FORM),
    "a part header without end": ("/enhance", lambda: long(b"--b\r\nContent-Disposition: ", 28), FORM),
    "100000 fields": ("/enhance", lambda: many(TEXT_PART, 100_000), FORM),
    "1001 files": ("/enhance", lambda: many(FILE_PART, 1001), FORM),
    "100 MB of JSON with a photo, chunked": ("/sdapi/v1/img2img", lambda: long(b'"', 100), JSON),
    "28 MB of nothing where JSON with a photo is wanted": ("/sdapi/v1/img2img", lambda: long(b"[", 28), JSON),
    "a text field without end beside a photo": ("/v1/images/edits", lambda: long(TEXT_PART, 100), FORM),
    "28 MB of small fields, url-encoded": (
        "/enhance", lambda: itertools.repeat(b"a=b&" * 250_000, 28), URL_ENCODED,
    ),
    "a file of 100 MB for the page": ("/gradio_api/upload", lambda: long(FILES_PART, 100), FORM),
    "a text field of 28 MB for the page": ("/gradio_api/upload", lambda: long(TEXT_PART, 28), FORM),
    "100000 fields for the page": ("/gradio_api/upload", lambda: many(TEXT_PART, 100_000), FORM),
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_no_body_fills_the_memory(process: Process, body: str) -> None:
    """S7."""
    path, chunks, headers = BODIES[body]
    with bounded(process, 64, 20):
        status = poured(process.url, path, chunks(), **headers)
    assert status == 0 or 400 <= status < 500
    assert httpx.get(f"{process.url}/healthz", timeout=60).status_code == 200


def test_ten_large_uploads_at_once_stay_on_disk(process: Process) -> None:
    with bounded(process, 64, 40):
        threads = [
            threading.Thread(target=poured, args=(process.url, "/enhance", long(FILE_PART, 25)), kwargs=FORM)
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert httpx.get(f"{process.url}/healthz", timeout=60).status_code == 200


def test_ten_large_photos_in_base64_are_in_memory_one_after_the_other(process: Process) -> None:
    """One body is 28 MB, and half as much again where it is decoded; ten are not."""
    body = (b'{"prompt":"x","init_images":["', *itertools.repeat(b"A" * 1_000_000, 28), b'"]}')
    with bounded(process, 128, 60):
        threads = [
            threading.Thread(target=poured, args=(process.url, "/sdapi/v1/img2img", iter(body)), kwargs=JSON)
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert httpx.get(f"{process.url}/healthz", timeout=60).status_code == 200


BOMB = encoded(Image.new("1", (13_000, 13_000)), "PNG")


def test_a_small_file_that_is_a_huge_picture_is_refused_from_its_header(process: Process) -> None:
    assert len(BOMB) < 30_000
    with bounded(process, 64, 10):
        answer = httpx.post(f"{process.url}/enhance", files={"image": ("a.png", BOMB)}, timeout=120)
    assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")


@pytest.mark.parametrize("inline", [False, True], ids=["uploaded", "inside an address"])
def test_a_huge_picture_on_the_page_is_refused_from_its_header(process: Process, inline: bool) -> None:
    with Session(process.url, "en") as page:
        photo = {"path": None, "url": "data:image/png;base64," + base64.b64encode(BOMB).decode(), "meta": FILE_DATA}
        photo = photo if inline else page.upload(BOMB, "a.png")
        endpoint = page.endpoint("restore")
        with bounded(process, 64, 10):
            messages = page.call(endpoint, [photo, *page.values(endpoint)[1:]])
    assert "outputs_" not in str(messages[-1])
