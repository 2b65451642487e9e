"""MCP, spoken by its own client: four tools for programs with a token, and nobody else."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import numpy as np
import pytest
from mcp import Client, ClientSession
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

from engines.messages import Enhance, Generate, unpack
from engines.messages.faces import Point
from tests.support.http import LEAKS, SKETCH, encoded, people, pixels, refused
from webui.api import mcp as door
from webui.i18n import words
from webui.people.tokens import Tokens

if TYPE_CHECKING:
    from tests.support.server import Rig

ZH, EN = words("zh"), words("en")
NO_BASE64 = EN.error("bad_image", {"why": "it is no base64"})
DRAW = {name: SKETCH[name] for name in ("width", "height", "steps", "bundle")}
PHOTO = encoded(people(), "PNG")
MIDDLE = {"x": 0.5, "y": 0.5}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ACCEPT = {"accept": "application/json, text/event-stream"}


@pytest.fixture
def token(assisted: Rig) -> str:
    return Tokens(assisted.settings.state / "tokens.json").add("assistant")


@asynccontextmanager
async def session(rig: Rig, token: str, **headers: str) -> AsyncIterator[ClientSession]:
    headers = {"authorization": f"Bearer {token}", **headers}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as client,
        streamable_http_client(f"{rig.url}/mcp", http_client=client) as streams,
        ClientSession(*streams) as opened,
    ):
        await opened.initialize()
        yield opened


def asked(rig: Rig, token: str, tool: str, headers: dict[str, str] | None = None, **values: Any) -> Any:
    """What the tool answers."""

    async def ask() -> Any:
        async with session(rig, token, **(headers or {})) as opened:
            return await opened.call_tool(tool, values)

    return asyncio.run(ask())


def told(answer: Any) -> list[Any]:
    """What the answer says in words."""
    assert not answer.is_error, answer
    return [json.loads(content.text) for content in answer.content if content.type == "text"]


def refusal(answer: Any) -> str:
    (content,) = answer.content
    assert answer.is_error and not [leak for leak in LEAKS if leak in content.text], answer
    return str(content.text)


async def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came to that"
        await asyncio.sleep(0.05)


def last(rig: Rig) -> Any:
    return unpack(rig.requests()[-1])


# ---- who may come in


def test_nobody_comes_in_without_a_token_in_an_open_house_too(assisted: Rig, token: str) -> None:
    assisted.client.get("/me")
    for headers in ({}, {"authorization": "Bearer x"}, {"authorization": f"Bearer {token}x"}):
        for method in ("POST", "GET", "DELETE"):
            answer = assisted.client.request(method, "/mcp", json=CALL, headers={**ACCEPT, **headers})
            assert EN("error_token_needed") in refused(answer, 401, "token_needed")
            assert answer.headers["www-authenticate"] == "Bearer"
    own = {**ACCEPT, "authorization": f"Bearer {token}"}
    assert assisted.client.post("/mcp", json=CALL, headers=own).status_code == 200
    Tokens(assisted.settings.state / "tokens.json").revoke("assistant")
    assert assisted.client.post("/mcp", json=CALL, headers=own).status_code == 401


def test_other_sites_and_other_names_are_refused_as_everywhere(assisted: Rig, token: str) -> None:
    own = {**ACCEPT, "authorization": f"Bearer {token}"}
    foreign = assisted.client.post("/mcp", json=CALL, headers={**own, "origin": "https://evil.example"})
    assert foreign.status_code == 403
    assert assisted.client.post("/mcp", json=CALL, headers={**own, "host": "evil.example"}).status_code == 400


def test_it_is_not_there_unless_it_is_switched_on(rig: Rig, token: str) -> None:
    answer = rig.client.post("/mcp", json=CALL, headers={**ACCEPT, "authorization": f"Bearer {token}"})
    assert answer.status_code == 404


def test_it_is_one_address_more(rig: Rig, assisted: Rig) -> None:
    assert set(assisted.app.paths) - set(rig.app.paths) == {"/mcp"}
    assert assisted.client.get("/mcp/x").status_code == 404
    assert {getattr(r, "path", "") for r in assisted.routes} - {getattr(r, "path", "") for r in rig.routes} == {"/mcp"}


def test_there_is_nothing_to_listen_to(assisted: Rig, token: str) -> None:
    for method in ("GET", "DELETE"):
        answer = assisted.client.request(method, "/mcp", headers={"authorization": f"Bearer {token}", **ACCEPT})
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


# ---- the tools


def test_four_tools_say_what_they_take_and_name_no_path(assisted: Rig, token: str) -> None:
    async def ask() -> Any:
        async with session(assisted, token) as opened:
            return (await opened.list_tools()).tools

    tools = {tool.name: tool for tool in asyncio.run(ask())}
    assert set(tools) == {"draw", "restore", "status", "pictures"}
    for tool in tools.values():
        assert tool.description and tool.input_schema["additionalProperties"] is False
        assert "start" not in tool.input_schema["properties"]
    draw, restore = (tools[name].input_schema for name in ("draw", "restore"))
    assert draw["required"] == ["prompt"] and draw["properties"]["count"]["maximum"] == 8
    assert restore["required"] == ["image"] and restore["properties"]["image"]["contentEncoding"] == "base64"
    assert str(assisted.settings.home) not in str(tools)


def test_a_portrait_is_drawn(assisted: Rig, token: str) -> None:
    answer = asked(assisted, token, "draw", prompt="a woman", seed=11, count=2, **DRAW)
    (about,) = told(answer)
    assert about["seed"] == 11 and about["engine"] and len(about["images"]) == 2
    assert last(assisted) == Generate("a woman", "", 64, 64, 1, None, 11, 2, "sketch", "edge", preview="off")
    shown = [content for content in answer.content if content.type == "image"]
    assert [content.mime_type for content in shown] == ["image/webp"] * 2
    for content, address in zip(shown, about["images"], strict=True):
        whole = pixels(httpx.get(address).content)
        assert address.startswith(f"{assisted.url}/outputs/") and whole.shape == (64, 64, 3)
        preview = pixels(base64.b64decode(content.data, validate=True)).astype(int)
        assert preview.shape == whole.shape and np.abs(preview - whole).mean() < 12, "the same picture"


def test_a_photo_is_restored(assisted: Rig, token: str) -> None:
    photo = base64.b64encode(PHOTO).decode()
    answer = asked(assisted, token, "restore", image=photo, strength=50, mode="strong", format="jpeg", faces=[MIDDLE])
    (about,) = told(answer)
    order = last(assisted)
    assert order == Enhance(order.image, 50, "strong", format="jpeg", backend="edge", faces=(Point(**MIDDLE),))
    assert (assisted.settings.uploads / order.image.rpartition("/")[2]).read_bytes() == PHOTO
    (address,) = about["images"]
    assert address.endswith(".jpg") and pixels(httpx.get(address).content).shape == (360, 360, 3)
    assert about["faces"] == ["restored"] or set(about["faces"]) <= {"restored", "softened", "skipped"}


def test_what_is_shown_is_of_bounded_size(tmp_path: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 3000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    content = door._preview(tmp_path / "a.png")
    with Image.open(io.BytesIO(base64.b64decode(content.data))) as shown:
        assert shown.size == (1024, 512) and shown.format == "WEBP"
    assert len(content.data) < 1_000_000, "of noise, which cannot be made smaller"


def test_how_the_studio_is(assisted: Rig, token: str) -> None:
    (about,) = told(asked(assisted, token, "status"))
    assert about["state"] == "ready" and about["models"]["sketch"]["kind"] == "portrait"
    assert "64x64" in about["models"]["sketch"]["sizes"] and about["waiting"] == 0


def test_two_programs_do_not_see_each_others_pictures(assisted: Rig, token: str) -> None:
    other = Tokens(assisted.settings.state / "tokens.json").add("another assistant".replace(" ", "-"))
    (about,) = told(asked(assisted, token, "draw", prompt="very private words", **DRAW))
    mine = told(asked(assisted, token, "pictures", limit=1))
    assert [(p["prompt"], p["images"]) for p in mine] == [("very private words", about["images"])]
    assert told(asked(assisted, other, "pictures")) == [{"images": []}]


# ---- what is refused


@pytest.mark.parametrize(
    ("tool", "values", "part"),
    [("draw", {"prompt": "x", "start": "/etc/passwd"}, "start"), ("draw", {"prompt": "x", "loras": []}, "loras"),
     ("draw", {"prompt": "x", "steps": 51}, "steps"), ("draw", {"prompt": "x", "backend": "abacus"}, "backend"),
     ("draw", {}, "prompt"), ("draw", {"prompt": 5}, "prompt"),
     ("draw", {"prompt": "x", "preset": "y"}, "preset"), ("restore", {}, "image"), ("restore", {"image": 5}, "image"),
     ("restore", {"image": "/etc/passwd"}, NO_BASE64), ("restore", {"image": "ab", "name": "x"}, "name"),
     ("restore", {"image": "%%%"}, NO_BASE64), ("pictures", {"limit": 21}, "limit"),
     ("pictures", {"limit": True}, "limit"), ("status", {"x": 1}, "x"), ("format_disk", {}, "tool")],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_said_and_makes_no_job(
    assisted: Rig, token: str, tool: str, values: dict[str, Any], part: str
) -> None:
    before = assisted.jobs()
    assert part in refusal(asked(assisted, token, tool, **values))
    assert assisted.jobs().keys() == before.keys()


def test_words_are_in_ones_own_language(assisted: Rig, token: str) -> None:
    english = asked(assisted, token, "draw", {"accept-language": "en"}, prompt=" ")
    assert refusal(english) == EN("error_empty_prompt")
    assert ZH("error_empty_prompt") in refusal(asked(assisted, token, "draw", prompt=" "))


def test_a_photo_that_is_too_large_is_refused(assisted: Rig, token: str) -> None:
    large = {**CALL, "method": "tools/call", "params": {"name": "restore", "arguments": {"image": "A" * 6_000_000}}}
    answer = assisted.client.post("/mcp", json=large, headers={**ACCEPT, "authorization": f"Bearer {token}"})
    assert answer.status_code == 413


# ---- who leaves cancels


@pytest.mark.parametrize("modern", [False, True], ids=["2025-11-25", "2026-07-28"])
def test_who_leaves_in_the_middle_cancels_the_job(assisted: Rig, token: str, modern: bool) -> None:
    """Before 2026-07-28 a program leaves by ending its session; since then, by cancelling its call."""
    words = f"left alone, {modern}"

    async def leave() -> str:
        async with (
            httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=60) as client,
            Client(streamable_http_client(f"{assisted.url}/mcp", http_client=client)) if modern
            else session(assisted, token) as opened,
        ):  # fmt: skip
            call = asyncio.ensure_future(opened.call_tool("draw", {"prompt": words, **DRAW}))
            await until(lambda: words in assisted.requests()[-1])
            job_id = list(assisted.jobs())[-1]
            assert assisted.jobs()[job_id] == "queued"
            call.cancel()
            await asyncio.wait([call])
            if modern:
                await until(lambda: assisted.jobs()[job_id] == "cancelled")
        await until(lambda: assisted.jobs()[job_id] == "cancelled")
        return job_id

    with assisted.stuck():
        assert asyncio.run(leave())


def test_who_hangs_up_cancels_the_job(assisted: Rig, token: str) -> None:
    call = {**CALL, "method": "tools/call", "params": {"name": "draw", "arguments": {"prompt": "hung up", **DRAW}}}
    own = {**ACCEPT, "authorization": f"Bearer {token}"}
    with assisted.stuck():
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{assisted.url}/mcp", json=call, timeout=3, headers=own)
        (job_id,) = [j for j, r in zip(assisted.jobs(), assisted.requests(), strict=True) if "hung up" in r]
        asyncio.run(until(lambda: assisted.jobs()[job_id] == "cancelled"))


# ---- nobody pays for it who has it not


def test_it_is_imported_only_where_it_is_switched_on() -> None:
    script = (
        "import sys; from webui import gradio_patches, server;"
        " print([name for name in sys.modules if name.partition('.')[0] in ('mcp', 'mcp_types', 'sse_starlette')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
