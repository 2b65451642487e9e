"""Downloads that cannot work: how each way to be without a hub is said, soon, and in words with what to do."""

from __future__ import annotations

import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from engines.messages import Failed, Note, unpack
from tests.conftest import REPOSITORY
from webui.i18n import LANGUAGES, words

pytest.importorskip("huggingface_hub", reason="downloads")

PLENTY_S = 15.0  # on a busy machine; the waits between tries were 31 s before
# What the system says of the network, put in the place of what it would say: in the child, before anything runs.
NO_NETWORK = """
import errno, socket
class Cut(socket.socket):
    def connect(self, address):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")
socket.socket = Cut
def somewhere(host, port, *more, **even):
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]
socket.getaddrinfo = somewhere
"""
NO_NAME = """
import socket
def nobody(*asked, **more):
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
socket.getaddrinfo = nobody
"""
SLOW_NAME = """
import socket, time
def later(*asked, **more):
    time.sleep(120)
socket.getaddrinfo = later
"""


@contextmanager
def listening(talk: Callable[[socket.socket], object]) -> Iterator[str]:
    """The address of somebody who accepts every connection, and then talks in his own way."""

    class Talk(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # who asked has gone
                talk(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Talk) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def silent(connection: socket.socket) -> None:
    while connection.recv(1 << 16):  # until who asks has gone
        pass


def drop_by_drop(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not threading.Event().wait(0.2):
        connection.sendall(b" ")


def nonsense(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def refusal(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


def hang_up(connection: socket.socket) -> None:
    connection.recv(1 << 16)


def log_in(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>")


def failed(home: Path, *more: str, patch: str = "", **environment: str) -> tuple[Failed, list[str]]:
    """What the worker's child says in the end, and before."""
    (home / "sitecustomize.py").write_text(patch)
    ours = {name: text for name, text in os.environ.items() if not name.startswith(("STUDIO_", "HF_"))}
    ours |= {"STUDIO_HOME": str(home), "PYTHONPATH": str(home), "NO_PROXY": "", **environment}
    command = [sys.executable, "-W", "error", "-m", "engines.catalogue", "get", "awportrait-z", "--events", *more]
    done = subprocess.run(command, cwd=REPOSITORY, env=ours, capture_output=True, text=True, timeout=PLENTY_S)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    *before, last = map(unpack, done.stdout.splitlines())
    assert isinstance(last, Failed)
    return last, [event.text for event in before if isinstance(event, Note)]


def assert_said(last: Failed, why: str, hub: str) -> None:
    assert (last.code, last.facts["why"], last.facts["hub"]) == ("hub_unreachable", why, hub)
    for language in LANGUAGES:
        sentence = words(language).error(last.code, last.facts)
        assert words(language).phrase(why) in sentence and hub in sentence
        assert not re.search(r"errno|traceback|error|exception|\[", sentence, re.I), sentence
    assert "网络" in words("zh").error(last.code, last.facts) and "镜像" in words("zh").error(last.code, last.facts)


@pytest.mark.parametrize("mirror", ["hf", "modelscope"])
@pytest.mark.parametrize(
    ("patch", "why"),
    [(NO_NETWORK, "no network leads there"), (NO_NAME, "its name is not found"), (SLOW_NAME, "it does not answer")],
    ids=["no network", "no name", "no name server"],
)
def test_without_a_network_it_is_said_at_once(tmp_path: Path, mirror: str, patch: str, why: str) -> None:
    if mirror == "modelscope":
        pytest.importorskip("modelscope_hub", reason="asks ModelScope with its own library")
    last, said = failed(tmp_path, "--from", mirror, patch=patch)
    assert_said(last, why, {"hf": "huggingface.co", "modelscope": "modelscope.cn"}[mirror])
    assert said == [], "no second try: it would be no better"


@pytest.mark.parametrize(
    ("talk", "why"), [(silent, "it does not answer"), (drop_by_drop, "it does not answer"),
                      (hang_up, "the connection broke"), (nonsense, "the connection broke")],
)  # fmt: skip
def test_a_hub_that_does_not_answer_as_it_should_is_given_up(
    tmp_path: Path, talk: Callable[[socket.socket], object], why: str
) -> None:
    with listening(talk) as url:
        last, said = failed(tmp_path, "--endpoint", url)
    assert_said(last, why, "127.0.0.1")
    assert len(said) <= 1


def test_an_address_where_nobody_listens_is_given_up(tmp_path: Path) -> None:
    last, said = failed(tmp_path, "--endpoint", "http://127.0.0.1:9")
    assert_said(last, "it refuses the connection", "127.0.0.1")
    assert said == []


@pytest.mark.parametrize("talk", [nonsense, refusal])
def test_a_proxy_that_answers_nonsense_is_named(tmp_path: Path, talk: Callable[[socket.socket], object]) -> None:
    with listening(talk) as url:
        last, _ = failed(tmp_path, HTTPS_PROXY=url)
    assert_said(last, "the proxy gives no sensible answer", "127.0.0.1")


def test_a_proxy_that_is_not_there_is_named(tmp_path: Path) -> None:
    last, _ = failed(tmp_path, HTTPS_PROXY="http://127.0.0.1:9")
    assert_said(last, "the proxy does not answer", "127.0.0.1")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_named(tmp_path: Path, proxy: str) -> None:
    last, _ = failed(tmp_path, ALL_PROXY=proxy)
    assert_said(last, "the proxy that is set cannot be used", "127.0.0.1")


def test_a_page_that_asks_to_log_in_is_no_hub(tmp_path: Path) -> None:
    """Hotels and offices answer for everybody."""
    with listening(log_in) as url:
        last, _ = failed(tmp_path, "--endpoint", url)
    assert last.code == "download_failed" and "does not answer as a hub" in str(last.facts["why"])
