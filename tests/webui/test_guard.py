"""Who may ask for what: the guard alone, over every kind of Host, Origin, path and body."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from starlette.types import Receive, Scope, Send

from engines.messages import CREDIT
from tests.support.guarded import EVIL, HERE, LAN, SHUT, assert_dressed, assert_refused, echo
from tests.support.http import Answer, ask
from webui import api, guard
from webui.guard import HEADERS_BY_KIND, PAGE_HEADERS, SMALL_BODY_BYTES, Guard

if TYPE_CHECKING:
    pass

UPLOAD_BYTES = 10_000_000
GOOD_HOSTS = (
    "localhost", "localhost:7860", "LOCALHOST:7860", "Studio.Local.:7860", "studio.local", "127.0.0.1:7860",
    "127.0.0.1", "127.8.8.8:1", "192.168.1.5:7860", "10.0.0.7", "172.31.255.1:80", "169.254.3.4", "[::1]",
    "[::1]:7860", "[fe80::1]:7860", "[FD00::a]:7860", "100.64.0.1:7860", "100.127.255.254", "nas.example",
    "studio.tail1234.ts.net", "A.B.Photos.example:443",
)  # fmt: skip
BAD_HOSTS = (
    "", "evil.example", "evil.example:7860", "localhost.evil.example", "studio.local.evil.example", "xstudio.local",
    "8.8.8.8", "8.8.8.8:7860", "1.1.1.1.", "[2606:4700::1111]:7860", "127.0.0.1.evil.example", "2130706433",
    "0x7f000001", "127.1", "localhost:7860@evil.example.", "127.0.0.1, evil.example", "[::1", "[evil.example]",
    "100.63.255.255", "100.128.0.1", "photos.example", "studio.ts.net.evil.example", "xnas.example", "nas.example.evil",
    "user@192.168.1.5", "..", "192.168.1.5 ", "studio.local..", "\xe9.example",
)  # fmt: skip


NAMES = ("localhost", "studio.local", "nas.example", "studio.*.ts.net", "*.photos.example")
GUARD = Guard(echo, NAMES, api.PATHS, UPLOAD_BYTES)


def through(method: str = "GET", path: str = "/", host: str = LAN, **headers: str) -> Answer:
    named = [("host", host), *((name.replace("_", "-"), value) for name, value in headers.items())]
    answer = ask(GUARD, method, path, named)
    assert_dressed(answer)
    return answer


def test_the_headers_are_those_that_were_decided() -> None:
    policy = dict(line.split(" ", 1) for line in PAGE_HEADERS["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'self'"
    assert policy["object-src"] == "'none'" and policy["frame-ancestors"] == "'self'"
    assert not any(source in line for line in policy.values() for source in ("http:", "https:", "*"))
    assert PAGE_HEADERS["Cross-Origin-Opener-Policy"] == "same-origin"
    for headers in (PAGE_HEADERS, *HEADERS_BY_KIND.values()):
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "SAMEORIGIN"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/xhtml+xml", "text/xml", "text/plain", ""])
def test_whatever_a_browser_may_take_for_a_page_has_a_page_s_headers(kind: str) -> None:
    assert kind not in HEADERS_BY_KIND


@pytest.mark.parametrize("kind", sorted(HEADERS_BY_KIND))
def test_what_is_no_page_may_do_less_than_a_page(kind: str) -> None:
    assert HEADERS_BY_KIND[kind]["Content-Security-Policy"] == "default-src 'self'"


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_it_answers_to_its_names_and_to_private_addresses(host: str) -> None:
    assert through(host=host).status == 200


@pytest.mark.parametrize("host", BAD_HOSTS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_it_answers_to_no_other_name(host: str, method: str) -> None:
    """Otherwise a name that an attacker lets resolve to this machine would be a door into it (DNS rebinding)."""
    assert_refused(through(method, "/healthz", host), 400, "bad_host")


@pytest.mark.parametrize("address", ["2a00:1450::5", "93.184.215.14"])
def test_it_answers_to_the_address_that_was_connected_to(address: str) -> None:
    """A global one, of the interface: no page of another site can have it for its own."""
    host = f"[{address}]:7860" if ":" in address else address
    assert ask(GUARD, "GET", "/healthz", [("host", host)], server=address).status == 200
    assert_refused(ask(GUARD, "GET", "/healthz", [("host", host)], server="192.168.1.5"), 400, "bad_host")


def test_people_are_refused_with_a_page_that_says_what_to_do() -> None:
    answer = through(host="<b>evil</b>.example", accept="text/html,*/*;q=0.8")
    text = answer.body.decode()
    assert answer.status == 400 and answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "STUDIO_NAMES" in text and "&lt;b&gt;evil" in text and "<b>" not in text and CREDIT in text


@pytest.mark.parametrize("chunks", [[], [b"x" * 1000]], ids=["nothing", "a part"])
def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, chunks: list[bytes]) -> None:
    monkeypatch.setattr(guard, "BODY_S", 0.05)
    headers = [("host", LAN), ("content-length", "100000")]
    assert_refused(ask(GUARD, "POST", "/generate", headers, chunks, stalls=True), 408, "body_too_slow")


def test_a_body_that_comes_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived buys time for what is still to come."""
    monkeypatch.setattr(guard, "BODY_S", 0.05)
    monkeypatch.setattr(guard, "BODY_BYTES_PER_S", 1)
    answer = ask(GUARD, "POST", "/generate", [("host", LAN)], [b"x" * 1000, b"y"], pause_s=0.1)
    assert (answer.status, answer.body) == (200, b"http.request 1001")


def test_a_request_without_host_is_refused() -> None:
    assert_refused(ask(GUARD, "GET", "/"), 400, "bad_host")


NAVIGATE = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
ALLOWED: tuple[tuple[str, dict[str, str]], ...] = (
    ("GET", {}),
    ("POST", {}),
    ("POST", {"origin": HERE}),
    ("POST", {"origin": HERE.upper().replace("HTTP", "http")}),
    ("POST", {"origin": HERE, "sec_fetch_site": "same-origin"}),
    ("POST", {"origin": HERE.replace("7860", "8080"), "sec_fetch_site": "same-origin"}),  # through a proxy's own port
    ("POST", {"sec_fetch_site": "none"}),
    ("GET", {"sec_fetch_site": "same-origin"}),
    ("GET", {"sec_fetch_site": "none", **NAVIGATE}),
    ("GET", {"sec_fetch_site": "cross-site", **NAVIGATE}),  # somebody follows a link
    ("HEAD", {"sec_fetch_site": "same-site", **NAVIGATE}),
    ("OPTIONS", {"origin": HERE}),
)
FOREIGN: tuple[tuple[str, dict[str, str]], ...] = (
    ("POST", {"origin": EVIL}),
    ("POST", {"origin": "null"}),
    ("POST", {"origin": ""}),
    ("POST", {"origin": "http://192.168.1.5"}),  # another port is another site
    ("POST", {"origin": "http://192.168.1.5:7861"}),
    ("POST", {"origin": "http://192.168.1.6:7860"}),
    ("POST", {"origin": f"{HERE}.evil.example"}),
    ("POST", {"origin": f"http://evil.example@{LAN}"}),
    ("POST", {"origin": LAN}),
    ("POST", {"origin": "file://"}),
    ("POST", {"origin": "chrome-extension://abcdef"}),
    ("POST", {"origin": f"{EVIL}, {HERE}"}),
    ("POST", {"origin": "http://["}),  # nothing a browser sends; it must be refused, not break the guard
    ("POST", {"origin": "http://[::1"}),
    ("POST", {"origin": HERE, "sec_fetch_site": "cross-site"}),
    ("POST", {"sec_fetch_site": "cross-site"}),
    ("POST", {"sec_fetch_site": "same-site"}),
    ("POST", {"sec_fetch_site": "cross-site", **NAVIGATE}),  # a form that posts by itself
    ("PUT", {"origin": EVIL}),
    ("DELETE", {"origin": EVIL}),
    ("OPTIONS", {"origin": EVIL, "access_control_request_method": "POST"}),
    ("GET", {"sec_fetch_site": "cross-site"}),
    ("GET", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"}),
    ("GET", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "cors", "sec_fetch_dest": "empty"}),
    ("GET", {"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "script"}),
    ("GET", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}),
    ("HEAD", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "empty"}),
)


@pytest.mark.parametrize(("method", "headers"), ALLOWED)
def test_its_own_page_and_programs_may_ask(method: str, headers: dict[str, str]) -> None:
    assert through(method, "/generate", **headers).status == 200


@pytest.mark.parametrize(("method", "headers"), FOREIGN)
@pytest.mark.parametrize("path", ["/generate", "/gradio_api/upload", "/gradio_api/queue/join"])
def test_other_sites_may_not(method: str, headers: dict[str, str], path: str) -> None:
    assert_refused(through(method, path, **headers), 403, "cross_site")


@pytest.mark.parametrize("host", ["localhost:7860", "[::1]:7860", "Studio.local:7860"])
def test_the_origin_is_compared_with_the_host_that_was_asked(host: str) -> None:
    assert through("POST", "/generate", host, origin=f"http://{host.lower()}").status == 200
    assert_refused(through("POST", "/generate", host, origin=HERE), 403, "cross_site")


OPEN = (
    "/", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/jobs/x", "/v1/models", "/sdapi/v1/x",
    "/generate", "/enhance", "/outputs/x.png", "/batch.zip", "/config", "/theme.css", "/static/x.js",
    "/assets/x.js", "/svelte/x.js", "/gradio_api/info", "/gradio_api/upload", "/gradio_api/upload_progress",
    "/gradio_api/file=/tmp/x.png", "/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/heartbeat/abc",
    "/gradio_api/startup-events", "/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/theme.css",
)  # fmt: skip


@pytest.mark.parametrize("path", OPEN)
def test_what_the_page_needs_is_open(path: str) -> None:
    assert through(path=path).status == 200


@pytest.mark.parametrize("path", SHUT)
def test_everything_else_is_shut(path: str) -> None:
    assert_refused(through(path=path), 404, "no_such_address")


# ---- bodies


def send(path: str, *chunks: bytes, length: str | None = None) -> Answer:
    headers = [("host", LAN)] + ([("content-length", length)] if length is not None else [])
    answer = ask(GUARD, "POST", path, headers, chunks)
    assert_dressed(answer)
    return answer


SIZES = (("/generate", SMALL_BODY_BYTES), ("/gradio_api/queue/join", SMALL_BODY_BYTES), ("/healthz", SMALL_BODY_BYTES),
         ("/v1/images/generations", SMALL_BODY_BYTES), ("/sdapi/v1/txt2img", SMALL_BODY_BYTES),
         ("/v1/images/edits", UPLOAD_BYTES), ("/sdapi/v1/img2img", UPLOAD_BYTES),
         ("/enhance", UPLOAD_BYTES), ("/gradio_api/upload", UPLOAD_BYTES))  # fmt: skip


@pytest.mark.parametrize(("path", "limit"), SIZES)
def test_a_body_may_be_as_large_as_the_limit(path: str, limit: int) -> None:
    whole = send(path, bytes(limit), length=str(limit))
    assert (whole.status, whole.body) == (200, f"http.request {limit}".encode())
    pieces = [bytes(limit // 10)] * 10
    assert send(path, *pieces).body == f"http.request {limit}".encode()


@pytest.mark.parametrize(("path", "limit"), SIZES)
def test_a_larger_body_is_refused_before_it_is_read(path: str, limit: int) -> None:
    assert_refused(send(path, b"", length=str(limit + 1)), 413, "body_too_large")


@pytest.mark.parametrize(("path", "limit"), SIZES)
def test_a_larger_body_that_does_not_say_so_is_cut_off(path: str, limit: int) -> None:
    assert_refused(send(path, bytes(limit), b"x"), 413, "body_too_large")
    assert_refused(send(path, *[bytes(limit // 10)] * 10, b"x"), 413, "body_too_large")


@pytest.mark.parametrize(("path", "limit"), SIZES)
def test_a_body_larger_than_it_says_is_cut_off(path: str, limit: int) -> None:
    assert_refused(send(path, bytes(limit + 1), length="5"), 413, "body_too_large")


@pytest.mark.parametrize("length", ["-1", "+5", "1e3", "0x10", "five", "", " ", "5, 5", "5.0", "9" * 5000, "²"])
def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    assert_refused(send("/generate", b"hello", length=length), 413, "body_too_large")


def test_a_form_may_carry_a_photo_where_anything_else_is_small() -> None:
    for kind, status in (("multipart/form-data; boundary=x", 200), ("application/json", 413), ("", 413)):
        for path in ("/generate", "/gradio_api/queue/join"):
            headers = [("host", "localhost"), ("content-type", kind), ("content-length", str(SMALL_BODY_BYTES + 1))]
            answer = ask(GUARD, "POST", path, headers, [bytes(SMALL_BODY_BYTES + 1)])
            assert answer.status == (status if path == "/generate" else 413), (kind, path)


def test_the_limit_is_named() -> None:
    assert "10 MB" in send("/enhance", b"", length=str(UPLOAD_BYTES + 1)).json()["message"]


def test_no_application_goes_on_with_half_a_body() -> None:
    """It sees a disconnect, as if the sender had gone, and what it says to that is not sent."""
    seen: list[str] = []

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([(await receive())["type"] for _ in range(4)])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"all is well"})

    app = Guard(stubborn, ("localhost",), ("/generate",), 100)
    answer = ask(app, "POST", "/generate", [("host", "localhost")], [bytes(SMALL_BODY_BYTES), b"x", b"y", b"z"])
    assert_refused(answer, 413, "body_too_large")
    assert seen == ["http.request", *["http.disconnect"] * 3]


def test_an_application_that_answers_before_it_is_overfed_is_left_alone() -> None:
    async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 202, "headers": []})
        while (await receive())["type"] == "http.request":
            pass
        await send({"type": "http.response.body", "body": b"done"})

    app = Guard(hasty, ("localhost",), ("/generate",), 100)
    answer = ask(app, "POST", "/generate", [("host", "localhost")], [bytes(SMALL_BODY_BYTES), b"x"])
    assert (answer.status, answer.body) == (202, b"done")


def test_an_applications_own_headers_stay_but_cannot_weaken_the_guards() -> None:
    answer = through()
    assert answer.headers["x-own"] == "kept"
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"


def test_an_error_of_the_application_is_not_hidden() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("a bug")

    with pytest.raises(LookupError):
        ask(Guard(broken, ("localhost",), ("/generate",), 100), "GET", "/generate", [("host", "localhost")])


def test_a_web_socket_passes_the_same_gate() -> None:
    """Browsers let every page open web sockets to anywhere: a gate for http alone has a hole beside it."""
    reached: list[str] = []

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        return {"type": "websocket.connect"}

    headers = [(b"host", b"evil.example"), (b"origin", EVIL.encode())]
    scope = {"type": "websocket", "path": "/monitoring", "headers": headers, "method": "GET"}
    asyncio.run(Guard(listening, ("localhost",), (), 100)(scope, nothing, nothing))
    assert reached == []
