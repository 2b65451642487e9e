"""A home that serves https with certificates of its own: who trusts its authority can do all that others do."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.conftest import REPOSITORY
from tests.support.browser_window import BROWSER, CHROMIUM, serve
from tests.support.http import CJK, QUICK
from webui import certificates, connections
from webui.certificates import Certificates
from webui.connections import lan_address


@dataclass(frozen=True)
class Secure:
    """A server at work, and a client that trusts its authority and nobody else."""

    home: Path
    process: subprocess.Popen[bytes]
    url: str
    client: httpx.Client

    @property
    def files(self) -> Certificates:
        return Certificates.of(self.home / "state")

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        return (self.home / "server.log").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    home = tmp_path_factory.mktemp("https")
    process, plain = serve(home, STUDIO_HTTPS="on", STUDIO_BACKEND="edge", STUDIO_HOST="0.0.0.0")
    url, authority = plain.replace("http://127.0.0.1", "https://localhost"), Certificates.of(home / "state").authority
    deadline = time.monotonic() + 300
    try:
        while "Local:" not in (home / "server.log").read_text(encoding="utf-8"):
            assert process.poll() is None and time.monotonic() < deadline, (home / "server.log").read_text("utf-8")
            time.sleep(0.1)
        with httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=authority), timeout=300) as client:
            while _status(client) != 200:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
            yield Secure(home, process, url, client)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


def _status(client: httpx.Client) -> int:
    try:
        return client.get("/readyz").status_code
    except httpx.TransportError:
        return 0


def test_a_picture_is_drawn_and_its_events_come(secure: Secure) -> None:
    asked = {"prompt": "a girl with glasses", **QUICK}
    drawn = secure.client.post("/generate", json=asked).raise_for_status().json()
    assert secure.client.get(drawn["images"][0]).content[:4] in (b"\x89PNG", b"RIFF")
    job = secure.client.post("/generate", json=asked, headers={"Prefer": "respond-async"}).headers["location"]
    with secure.client.stream("GET", f"{job}/events") as stream:
        lines = list(stream.iter_lines())
    assert [line for line in lines if line.startswith("event:")][-1] == "event: final", lines


def test_it_is_reached_by_every_address_that_it_has(secure: Secure) -> None:
    names = ["127.0.0.1", *filter(None, [lan_address()])]
    for name in names:
        assert secure.client.get(f"{secure.url.replace('localhost', name)}/healthz").status_code == 200


def test_under_another_name_or_by_others_it_is_not_trusted(secure: Secure) -> None:
    context = ssl.create_default_context(cafile=secure.files.authority)
    with socket.create_connection(secure.address) as door, pytest.raises(ssl.SSLCertVerificationError, match="bank"):
        context.wrap_socket(door, server_hostname="bank.example")
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{secure.url}/healthz")


def test_what_it_says_of_itself_is_https(secure: Secure) -> None:
    port = secure.address[1]
    assert f"Local:   https://localhost:{port}" in secure.log and "http://" not in secure.log
    mark = certificates.fingerprint(secure.files.authority)
    assert mark in re.sub(r"\s", "", secure.log), "for people to compare"
    assert f":{port}/trust" in secure.log
    invitation = secure.client.get("/invite").text
    assert re.search(rf"<code>https://[^/]+:{port}/</code>", invitation) and 'href="trust"' in invitation


def test_the_cookie_stays_on_encrypted_ways(secure: Secure) -> None:
    cookie = secure.client.get("/me").headers["set-cookie"].lower()
    assert "secure" in [part.strip() for part in cookie.split(";")] and "httponly" in cookie


def test_its_own_page_may_act_and_another_s_may_not(secure: Secure) -> None:
    asked = {"prompt": "x", **QUICK}
    assert secure.client.post("/generate", json=asked, headers={"Origin": secure.url}).status_code == 200
    refused = secure.client.post("/generate", json=asked, headers={"Origin": "https://evil.example"})
    assert (refused.status_code, refused.json()["code"]) == (403, "cross_site")


def test_the_help_page_hands_out_the_authority_and_no_key(secure: Secure) -> None:
    page = secure.client.get("/trust", headers={"accept-language": "zh-CN"}).text
    assert certificates.fingerprint(secure.files.authority) in page and CJK.search(page)
    answer = secure.client.get("/trust/authority.crt")
    assert answer.headers["content-type"] == "application/x-x509-ca-cert"
    assert answer.content == secure.files.authority.read_bytes() and b"PRIVATE" not in answer.content


def test_who_never_agrees_on_keys_is_hung_up_on(secure: Secure) -> None:
    """asyncio would wait for a minute, with a file that stays open."""
    record = b"\x16\x03\x01\x02\x00\x01"  # the beginning of a ClientHello, of which no more comes

    def waits_s(said: bytes) -> float:
        with socket.create_connection(secure.address) as door:
            door.sendall(said)
            door.settimeout(3 * connections.HEAD_S)
            begun = time.monotonic()
            assert door.recv(1000) == b""
            return time.monotonic() - begun

    with ThreadPoolExecutor(3) as clients:
        silent, half = clients.submit(waits_s, b""), clients.submit(waits_s, record)
        plain = clients.submit(waits_s, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert max(silent.result(), half.result()) < 2 * connections.HEAD_S
        assert plain.result() < connections.HEAD_S / 2, "who speaks plain http is not kept waiting"
    assert secure.client.get("/healthz").status_code == 200


def test_who_agreed_on_keys_and_says_no_more_is_hung_up_on_too(secure: Secure) -> None:
    context = ssl.create_default_context(cafile=secure.files.authority)
    with socket.create_connection(secure.address) as door:
        door.settimeout(3 * connections.HEAD_S)
        with context.wrap_socket(door, server_hostname="localhost") as client:
            client.sendall(b"GET / HT")
            assert client.recv(1000) == b""


def test_the_doctor_asks_it_by_https(secure: Secure) -> None:
    done = run(secure, "webui.doctor")
    assert f"at work and ready (process {secure.process.pid}), https" in done.stdout, done.stdout


def test_without_a_display_the_address_is_said(secure: Secure) -> None:
    done = run(secure, "webui.desktop", DISPLAY="", WAYLAND_DISPLAY="")
    assert done.returncode == 0 and f"https://localhost:{secure.address[1]}" in done.stdout, done.stderr


def run(secure: Secure, module: str, **env: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, "STUDIO_HOME": str(secure.home), "STUDIO_PORT": str(secure.address[1]), **env}
    command = [sys.executable, "-m", module]
    return subprocess.run(command, cwd=REPOSITORY, env=full, capture_output=True, text=True, timeout=300)


@BROWSER[0]
@BROWSER[1]
def test_its_own_window_trusts_it(secure: Secure, tmp_path: Path) -> None:
    """The page is shown, and no warning; without the pin there is one."""
    from webui.desktop import window

    flags = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    titles = []
    for trust in (window._trust(secure.url, secure.home / "state"), ()):
        profile = f"--user-data-dir={tmp_path / f'profile {len(trust)}'}"
        command = [*flags, profile, *trust, f"{secure.url}/away"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        titles.append(re.findall("<title>(.*?)</title>", done.stdout))
    assert titles[0] == ["人像工作室"] and titles[1] != titles[0]
