"""
What the tests of the front doors speak: HTTP as written on the wire, Gradio's queue as a browser uses it, HTML as a
browser reads it, and photographs with something private in them.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.types import ASGIApp, Message

from engines.bundle import BUILT_IN

QUICK: Mapping[str, Any] = {"width": 64, "height": 64, "steps": 1, "preview": "off"}
SKETCH: Mapping[str, Any] = {**QUICK, "bundle": "sketch"}  # drawn by the fakes
WARDROBE = ("files", "worn", "usual", *(f"strength {k}" for k in range(8)))  # what the chooser of LoRAs sends
X_CREDIT = "webUI%E4%BA%8C%E6%AC%A1%E5%BC%80%E5%8F%91%20by%20%E7%A7%91%E5%93%A5"
LEAKS = ("Traceback", "/home", "/tmp", "/root", "site-packages", ".py", "Error:", "Exception", "sqlite", "pydantic")
FILE_DATA = {"_type": "gradio.FileData"}  # the mark of what a browser has uploaded
FACES = (1, 2)  # of the restorer's proof: blurred, and without noise that would pass for detail
GPS_MARK, MAKER_MARK = b"PRIVATE-PLACE", b"PRIVATE-MAKER"

CJK = re.compile(r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def wire(url: str, target: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
    """A request whose target goes out as it is written; clients like httpx tidy `..` away."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=300)
    try:
        connection.putrequest(method, target, skip_host=bool(headers and "Host" in headers), skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def ask(
    app: ASGIApp, method: str, path: str, headers: Iterable[tuple[str, str]] = (), chunks: Iterable[bytes] = (b"",),
    server: str = "192.168.1.5", stalls: bool = False, pause_s: float = 0.0,
) -> Answer:  # fmt: skip
    """
    One request to an ASGI application, with nothing in between that would correct it. `server`: its end of the
    connection. It `stalls`: after the last chunk there should be more, which never comes. `pause_s`: after each chunk.
    """
    return asyncio.run(_ask(app, method, path, headers, list(chunks), server, stalls, pause_s))


async def _ask(
    app: ASGIApp, method: str, path: str, headers: Iterable[tuple[str, str]], chunks: list[bytes], server: str,
    stalls: bool, pause_s: float,
) -> Answer:  # fmt: skip
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "client": ("192.168.1.9", 5000), "server": (server, 7860),
    }  # fmt: skip
    sent: list[Message] = []
    coming = iter(range(len(chunks)))

    async def receive() -> Message:
        k = next(coming, None)
        if k:
            await asyncio.sleep(pause_s)
        if k is None and stalls:
            await asyncio.sleep(3600)
        if k is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunks[k], "more_body": stalls or k + 1 < len(chunks)}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 1, sent
    body = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    return Answer(starts[0]["status"], {k.decode(): v.decode() for k, v in starts[0]["headers"]}, body)


class Session:
    """One open page: what a browser sends to Gradio's queue, and what comes back."""

    def __init__(
        self,
        url: str,
        language: str = "zh-CN,zh;q=0.9",
        address: str | None = None,
        of: Session | httpx.Client | None = None,
    ) -> None:
        """`of`: another page in the same browser, or the browser."""
        transport = httpx.HTTPTransport(local_address=address)
        browser = of.client if isinstance(of, Session) else of
        headers, cookies = {"accept-language": language}, browser.cookies if browser else None
        self.client = httpx.Client(base_url=url, headers=headers, cookies=cookies, timeout=300, transport=transport)
        self.client.get("/me")  # whose cookie is who it is
        self.config: dict[str, Any] = self.client.get("/config").json()
        self.components: dict[int, dict[str, Any]] = {c["id"]: c for c in self.config["components"]}
        self.name = uuid4().hex

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    @property
    def endpoints(self) -> list[dict[str, Any]]:
        return list(self.config["dependencies"])

    def endpoint(self, name: str, about: str = "") -> dict[str, Any]:
        """
        A handler of the page, by its name. Those of one name are numbered (`look`, `look_1`), after an endpoint for
        programs that has it too; `about` tells them apart by an element they touch.
        """
        named = (e for e in self.endpoints if re.fullmatch(rf"{name}(_\d+)?", str(e["api_name"])))
        of_that_name = (e for e in named if e["api_visibility"] == "private")
        if not about:
            return next(of_that_name)
        return next(e for e in of_that_name if about in map(self.elem_id, (*e["inputs"], *e["outputs"])))

    def elem_id(self, component: int) -> str:
        return str(self.components[component]["props"].get("elem_id"))

    def answer(self, endpoint: Mapping[str, Any], data: list[Any]) -> list[Any]:
        """What the endpoint's outputs become."""
        messages = self.call(endpoint, data)
        assert succeeded(messages), messages
        answer: list[Any] = messages[-1]["output"]["data"]
        return answer

    def values(self, endpoint: Mapping[str, Any]) -> list[Any]:
        """What the endpoint's inputs hold when the page has just been opened."""
        return [self.components[i]["props"].get("value") for i in endpoint["inputs"]]

    def takes(self, endpoint: Mapping[str, Any]) -> list[str]:
        return [self.components[i]["type"] for i in endpoint["inputs"]]

    def join(self, endpoint: Mapping[str, Any], data: list[Any], event: Any = None) -> httpx.Response:
        states = [None] * (len(endpoint["inputs"]) - len(data))  # the server's own, of which a browser sends nothing
        body = {"data": [*data, *states], "event_data": event, "fn_index": endpoint["id"],
                "trigger_id": next((target for target, _ in endpoint["targets"]), None),
                "session_hash": self.name}  # fmt: skip
        return self.client.post("/gradio_api/queue/join", json=body)

    def call(self, endpoint: Mapping[str, Any], data: list[Any], event: Any = None) -> list[dict[str, Any]]:
        """Every message about one call, to its end."""
        joined = self.join(endpoint, data, event)
        if joined.status_code != 200:
            return [{"msg": "refused", "success": False, "text": joined.text}]
        return list(self.listen())

    def begin(self, endpoint: Mapping[str, Any], data: list[Any]) -> list[dict[str, Any]]:
        """Messages up to the first result: a job that nobody works off has no end."""
        self.join(endpoint, data)
        messages = []
        for message in self.listen():
            messages.append(message)
            if message["msg"] in ("process_generating", "process_completed"):
                break
        return messages

    def listen(self) -> Iterator[dict[str, Any]]:
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.name}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    message = json.loads(line.removeprefix("data:"))
                    if message["msg"] == "close_stream":
                        return
                    yield message

    def sketching(self, prompt: str, **changes: Any) -> list[Any]:
        """The inputs of Generate after the bundle of the fakes has been chosen and a prompt written."""
        assert succeeded(self.call(self.endpoint("change_bundle"), ["sketch"]))
        fields = (
            "prompt",
            "negative",
            "size",
            "steps",
            "guidance",
            "seed",
            "variety",
            "count",
            "bundle",
            "backend",
            "preview",
            "preset",
            "photo",
            "strength",
            *WARDROBE,
        )
        values = dict(zip(fields, self.values(self.endpoint("generate")), strict=True))
        return list(
            {
                **values,
                "negative": "",
                "prompt": prompt,
                "size": "64×64",
                "steps": 2,
                "bundle": "sketch",
                **changes,
            }.values()
        )

    def upload(self, content: bytes, name: str = "photo.jpg") -> dict[str, Any]:
        """What a browser hands to an Image after it has uploaded a file."""
        answer = self.client.post("/gradio_api/upload", files={"files": (name, content)})
        answer.raise_for_status()
        path = answer.json()[0]
        return {"path": path, "orig_name": name, "size": len(content), "meta": FILE_DATA}


def succeeded(messages: list[dict[str, Any]]) -> bool:
    return bool(messages) and messages[-1]["msg"] == "process_completed" and bool(messages[-1]["success"])


@dataclass
class Tree(HTMLParser):
    """HTML as a browser takes it apart: elements with their attributes, and text."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.elements.append(("!--", {"": data}))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def skeleton(self) -> list[tuple[str, tuple[str, ...]]]:
        """Elements and the names of their attributes, without any words."""
        return [(tag, tuple(attributes)) for tag, attributes in self.elements]


def tree(html: str) -> Tree:
    parsed = Tree()
    parsed.feed(html)
    parsed.close()
    return parsed


def pixels(png: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as image:
        return np.array(image.convert("RGB"))


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """Red on the left, green on the right, dark above, bright below: its orientation can be seen."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red, green, blue = 255 * (1 - x / width), 255 * x / width, 255 * y / height
    return Image.fromarray(np.stack([red, green, blue], -1).astype(np.uint8))


def people(count: int = 1) -> Image.Image:
    """Real faces, one or two, which the built-in detector finds; poor enough to be restored."""
    photo = Image.new("RGB", (360 * count, 360), (120, 130, 140))
    for k in range(count):
        with Image.open(BUILT_IN / "restorer" / "proof" / f"{FACES[k]}-face.png") as face:
            photo.paste(face.resize((256, 256)), (360 * k + 52, 52))
    return photo


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    image.save(data := io.BytesIO(), kind, **how)
    return data.getvalue()


def private_photo(kind: str = "JPEG", orientation: int = 1) -> bytes:
    """A photo that says where it was taken and by which camera, in every place that tools write to."""
    exif = Image.Exif()
    exif[274], exif[271], exif[272] = orientation, MAKER_MARK.decode(), MAKER_MARK.decode()
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[29] = "N", (48.0, 51.0, 29.0), GPS_MARK.decode()
    extra: dict[str, Any] = {"xmp": b"<x:xmpmeta>" + GPS_MARK + b"</x:xmpmeta>"} if kind != "PNG" else {}
    return encoded(scene(), kind, exif=exif, **extra)


def post(url: str, asked: Any, language: str | None = None) -> httpx.Response:
    """On a connection of its own, which an answer 500 closes."""
    content = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    headers = {} if language is None else {"accept-language": language}
    return httpx.post(f"{url}/generate", content=content, headers=headers, timeout=300)


def unanswered(url: str, path: str, asked: Any) -> http.client.HTTPConnection:
    """A request that has been sent, and whose answer nobody has read: to hang up, close it."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=300)
    connection.request("POST", path, json.dumps(asked), {"Content-Type": "application/json"})
    return connection


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """The sentence of an error that is as every error must be."""
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-credit"] == X_CREDIT
    body = answer.json()
    assert set(body) == {"status", "code", "message"} and body["status"] == "error"
    assert not [leak for leak in LEAKS if leak in body["message"]]
    assert "{" not in body["message"].replace("{'", ""), "every fact is filled in"
    message: str = body["message"]
    return message
