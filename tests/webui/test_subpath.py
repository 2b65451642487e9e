"""A house below a path: what it is asked for, what it names, and where it sends people, by whatever proxy."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from tests.support.guarded import assert_dressed
from tests.support.http import SKETCH, Session, tree, wire
from webui.addresses import inside, root
from webui.connections import RELAYED, Subpath
from webui.i18n import words
from webui.people import pages
from webui.people.tokens import Tokens

if TYPE_CHECKING:
    from tests.support.server import Rig

PATH = "/studio"


def asked(path: str, relayed: bool = False, sent: tuple[tuple[bytes, bytes], ...] = (), query: bytes = b"") -> Any:
    """What the application is asked for, and the headers that leave: an answer without the first is none of its own."""
    arrived: list[Scope] = []
    left: list[Message] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        arrived.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": list(sent)})

    async def send(message: Message) -> None:
        left.append(message)

    scope = {
        "type": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [],
        RELAYED: relayed,
    }
    asyncio.run(Subpath(application, PATH)(scope, None, send))  # type: ignore[arg-type]
    return arrived[0] if arrived else None, [(k.decode(), v.decode()) for k, v in left[0]["headers"]]


@pytest.mark.parametrize(
    ("path", "relayed", "within"),
    [
        ("/studio/", False, "/"),
        ("/studio/frame", False, "/frame"),
        ("/studio/studio/x", False, "/studio/x"),
        ("/frame", True, "/frame"),  # by a proxy that has cut it off
        ("/", True, "/"),
        ("/healthz", False, "/healthz"),
        ("/readyz", False, "/readyz"),
        ("/frame", False, ""),  # which is nowhere
        ("/studios/frame", False, ""),
        ("/metrics", False, ""),
    ],
)
def test_what_is_asked_for_lies_below_it(path: str, relayed: bool, within: str) -> None:
    scope, _ = asked(path, relayed)
    assert (inside(scope), root(scope)) == (within, PATH)
    assert scope["raw_path"] == scope["path"].encode()


@pytest.mark.parametrize(("path", "relayed"), [("/studio", False), ("/studio", True), ("/", False)])
def test_its_door_has_a_slash(path: str, relayed: bool) -> None:
    """What the page names is named from there."""
    scope, headers = asked(path, relayed, query=b"tab=history&x=%2F")
    assert scope is None and ("location", "/studio/?tab=history&x=%2F") in headers


def test_where_it_sends_people_and_their_cookies_lies_below_it() -> None:
    cookies = ("a=1; Path=/; HttpOnly", "b=/x; path=/frame/send/1; Secure", "c=2; Secure")
    sent = [("location", "/frame?a=/b"), *(("set-cookie", each) for each in cookies)]
    elsewhere = ("location", "https://example.com/x")
    _, headers = asked("/studio/x", sent=tuple((k.encode(), v.encode()) for k, v in (*sent, elsewhere)))
    assert headers == [
        ("location", "/studio/frame?a=/b"),
        ("set-cookie", "a=1; Path=/studio/; HttpOnly"),
        ("set-cookie", "b=/x; path=/studio/frame/send/1; Secure"),
        ("set-cookie", "c=2; Secure"),
        elsewhere,
    ]


# ---- the real application


def test_nothing_lies_beside_it_but_what_watches_ask_for(below: Rig) -> None:
    host = below.url.removesuffix(PATH)
    assert [httpx.get(f"{host}{path}").status_code for path in ("/healthz", "/readyz")] == [200, 200]
    for path in ("/frame", "/metrics", "/config", "/generate", "/studio1/", "/studio/nowhere"):
        answer = wire(host, path)
        assert answer.status == 404
        assert_dressed(answer)
    for path in ("/", "/studio"):
        answer = wire(host, path)
        assert (answer.status, answer.headers["location"]) == (307, "/studio/")


ANYWHERE = (
    "/",
    "/frame",
    "/docs",
    "/trust",
    "/away",
    "/manifest.json",
    "/openapi.json",
    "/config",
    "/theme.css",
    "/me",
)
ANYWHERE += ("/gradio_api/info", "/thumbnails/anime.webp", "/v1/models", "/sdapi/v1/options", "/jobs", "/favicon.ico")


@pytest.mark.parametrize("path", ANYWHERE)
def test_it_serves_what_it_serves_at_the_root(rig: Rig, below: Rig, path: str) -> None:
    here, there = httpx.get(f"{rig.url}{path}"), httpx.get(f"{below.url}{path}")
    assert (here.status_code, there.status_code) == (200, 200)
    assert here.headers["content-type"] == there.headers["content-type"]


@pytest.mark.parametrize("path", ["/", "/frame", "/docs", "/trust", "/away"])
def test_a_page_names_nothing_outside(below: Rig, path: str) -> None:
    address = f"{below.url}{path}"
    page = tree(httpx.get(address, headers={"accept-language": "zh-CN"}).text)
    named = [
        urljoin(address, value)
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "action", "data-src")
    ]
    assert [url for url in named if not url.startswith((f"{below.url}/", "data:"))] == []
    assert len(named) > 0 or path in ("/trust", "/away")


def test_what_is_sent_to_the_page_later_names_nothing_outside(below: Rig) -> None:
    """The grid of pictures, and the stage."""
    with Session(below.url) as page:
        page.client.post("/generate", json={"prompt": "below", **SKETCH}).raise_for_status()
        assert urlsplit(page.config["root"]).path == PATH
        cards = str(page.answer(page.endpoint("refresh"), ["mine"]))
    named = [value for _, each in tree(cards).elements for name, value in each.items() if name in ("src", "href")]
    assert len(named) > 3
    assert [value for value in named if value.startswith("/")] == []


def test_programs_are_given_addresses_that_are_there(below: Rig) -> None:
    drawn = below.client.post("/generate", json={"prompt": "x", **SKETCH}).json()["images"]
    accepted = below.client.post("/generate", json={"prompt": "x", **SKETCH}, headers={"Prefer": "respond-async"})
    url = below.client.post(
        "/v1/images/generations", json={"prompt": "x", "model": "sketch", "size": "64x64", "response_format": "url"}
    ).json()["data"][0]["url"]
    addresses = [*drawn, accepted.headers["location"], urlsplit(url).path]
    assert all(each.startswith(f"{PATH}/") for each in addresses)
    assert [below.client.get(urljoin(below.url, each)).status_code for each in addresses] == [200] * 3
    with below.client.stream("GET", urljoin(below.url, f"{accepted.headers['location']}/events")) as stream:
        assert stream.headers["x-accel-buffering"] == "no"
        data = [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line.startswith("data: ")]
    assert data[-1]["images"][0].startswith(f"{PATH}/outputs/")
    assert below.client.get("/openapi.json").json()["servers"] == [{"url": PATH}]


def test_errors_have_the_form_of_their_dialect(below: Rig) -> None:
    assert "error" in below.client.get("/v1/none").json()
    assert below.client.get("/jobs/none").json()["status"] == "error"


def test_assistants_come_in(below: Rig) -> None:
    token = Tokens(below.settings.state / "tokens.json").add("below")
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    answer = below.client.post("/mcp", json=call, headers=headers)
    assert answer.status_code == 200 and "restore" in answer.text
    assert below.client.post("/mcp", json=call).status_code == 401


def test_a_stream_of_gradio_s_is_not_held_back_either(below: Rig) -> None:
    with below.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "x"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["x-accel-buffering"] == "no"


def test_the_page_at_the_door_stands_at_any_address() -> None:
    say = words("en")
    for path in ("", PATH):
        page = tree(pages.login(say, path))
        assert [form["action"] for form in page.all("form")] == [f"{path}/login"]
        assert f'fetch("{path}/me")' in pages.login(say, path)
