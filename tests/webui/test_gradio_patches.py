"""
Every patch of Gradio does what it is for, through Gradio's own ways. After an update they say which of them holds.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import gradio_client.client
import pytest
from gradio import data_classes, processing_utils, queueing
from gradio import routes as gradio_routes
from gradio.context import LocalContext
from gradio.data_classes import FileData
from gradio.exceptions import InvalidPathError
from starlette.types import Message, Receive, Scope, Send

from tests.support.http import FILE_DATA, encoded, scene, succeeded
from webui import gradio_patches
from webui.gradio_patches import FIELD_BYTES, FILE, WRITTEN_FOR, Slot, handshake
from webui.gradio_patches.handshake import FAREWELL, HANG_UP_S, JOIN, STREAM, Handshake
from webui.uploads import Upload

if TYPE_CHECKING:
    from tests.support.server import Process, Rig

HELD_S = 2.0  # in the tests of the middleware alone
LOOK = ("change_bundle", ["sketch"])  # any event that is soon over


def test_the_patches_were_written_for_the_installed_gradio() -> None:
    assert gr.__version__.rpartition(".")[0] == WRITTEN_FOR, (
        f"Gradio {gr.__version__} is installed, and webui/gradio_patches was written for {WRITTEN_FOR}. Run this"
        " module, tests/webui and tests/end_to_end; read what each patch names in the new version's sources (is it"
        " still there, is the patch still needed?); then set WRITTEN_FOR to what was tested."
    )


# ---- what it does unasked


def test_it_is_imported_without_writing_stubs() -> None:
    """In a fresh process, told by the interpreter: no .pyi is opened, and Gradio alone would open many."""
    script = (
        "import sys; opened = []; sys.addaudithook(lambda event, args: opened.append(str(args[0]))"
        " if event == 'open' and str(args[0]).endswith('.pyi') else None); import {}; print(len(opened))"
    )
    counts = [
        int(subprocess.run([sys.executable, "-c", script.format(name)], capture_output=True, check=True).stdout)
        for name in ("webui.gradio_patches", "gradio")
    ]
    assert counts[0] == 0 < counts[1]


def test_it_is_imported_without_the_mcp_package(tmp_path: Path) -> None:
    """In a fresh process, where one is installed that says so; Gradio alone would import it."""
    (tmp_path / "mcp.py").write_text("")
    head = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    said = [
        subprocess.run(
            [sys.executable, "-c", f"{head}; import {name}; print('mcp' in sys.modules); import mcp"],
            capture_output=True,
            check=True,
        ).stdout
        for name in ("webui.gradio_patches", "gradio")
    ]
    assert [text.strip() for text in said] == [b"False", b"True"]


def test_no_table_is_kept_of_what_was_done(rig: Rig) -> None:
    with rig.session() as page:
        assert succeeded(page.call(page.endpoint(LOOK[0]), LOOK[1]))
        events = blocks_of(rig)._queue
    assert events.event_analytics and events.cached_event_analytics_summary == {"functions": {}}


def test_a_server_that_nobody_asks_rests(process: Process) -> None:
    """Processor time of a whole idle program; Gradio's own queue takes 8 % of one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:  # what was being proved or written comes to an end
        before = process.cpu_s()
        time.sleep(3)
        if process.cpu_s() - before <= 0.03 * 3:
            return
    raise AssertionError("it is never idle")


def blocks_of(rig: Rig) -> gr.Blocks:
    mounted = (getattr(route, "app", None) for route in rig.routes)
    return next(app for app in mounted if hasattr(app, "get_blocks")).get_blocks()


# ---- what comes in


def test_a_long_text_field_of_an_upload_is_refused(rig: Rig) -> None:
    photo = {"files": ("a.png", encoded(scene(), "PNG"))}
    short, long = ({"note": "x" * size} for size in (FIELD_BYTES, FIELD_BYTES + 1))
    assert rig.client.post("/gradio_api/upload", files=photo, data=short).status_code == 200
    assert rig.client.post("/gradio_api/upload", files=photo, data=long).status_code == 400


def in_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Outside a loop, Gradio makes loops of its own and forgets to close them."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


async def arrive(path: str, block: Any, blocks: gr.Blocks) -> Any:
    """What Gradio does with a file that a client names, before any handler sees it."""
    LocalContext.blocks.set(blocks)
    named = {"path": path, "meta": FILE_DATA}
    return await processing_utils.async_move_files_to_cache(named, block, check_in_upload_folder=True)


@in_a_loop
async def test_no_address_is_fetched(rig: Rig) -> None:
    """`rig`: a server was put together, and with it what all of Gradio shares was changed."""
    with gr.Blocks() as blocks:
        words = gr.Textbox()
    for address in ("http://127.0.0.1:9/a.png", "https://evil.example/a.png"):
        with pytest.raises(gr.Error, match="url"):
            await arrive(address, words, blocks)


@in_a_loop
async def test_a_path_that_was_not_uploaded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    (tmp_path / "secret.txt").write_text("secret")
    with gr.Blocks() as blocks:
        words = gr.Textbox()
    assert await arrive(str(tmp_path / "secret.txt"), words, blocks), "if Gradio refuses by itself, the patch may go"
    gradio_patches.check_paths(blocks)
    with pytest.raises(InvalidPathError):
        await arrive(str(tmp_path / "secret.txt"), words, blocks)


@in_a_loop
async def test_a_photo_is_handed_on_unopened_and_only_out_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    ours, other = tmp_path / "cache" / "a.png", tmp_path / "b.png"
    ours.parent.mkdir()
    for path in (ours, other):
        path.write_bytes(b"no picture")
    photo, files = gr.Image(type="filepath"), gr.File(file_count="multiple")
    gradio_patches.take_uploads_only(photo)
    gradio_patches.take_uploads_only(files)
    sent = data_classes.FileData(path=str(ours), orig_name="mine.png")
    assert photo.preprocess(sent) == Upload(str(ours), "mine.png")
    assert files.preprocess([sent]) == [Upload(str(ours), "mine.png")]
    assert photo.preprocess(None) is None and files.preprocess(None) == []
    foreign = data_classes.FileData(path=str(other))
    for take in (lambda: photo.preprocess(foreign), lambda: files.preprocess([sent, foreign])):
        with pytest.raises(ValueError, match="not a file that was uploaded"):
            take()


@pytest.mark.parametrize("sent", [{"target": "x", "name": "y"}, {}, None, 5, ["name"]])
def test_the_data_of_an_event_are_what_was_sent(sent: Any) -> None:
    assert gradio_patches.event_data(gr.EventData(None, sent)) == sent


# ---- shares of the queue


@in_a_loop
async def test_gradio_still_does_a_few_events_at_a_time_and_lets_anybody_fill_them() -> None:
    with gr.Blocks() as blocks:
        pass
    assert blocks._queue.max_thread_count < gradio_patches.FOLLOWED < gradio_patches.ACTIVE
    gradio_patches.share(blocks)
    assert blocks._queue.max_thread_count == gradio_patches.ACTIVE


# ---- an event that joins while its page's stream is ending is answered when the page has hung up


def farewell(stream: Any) -> Iterator[str]:
    """Read up to the server's farewell. What is left has to be held: letting go of it hangs up."""
    lines: Iterator[str] = stream.iter_lines()
    while "close_stream" not in next(lines):
        pass
    return lines


def test_gradio_says_farewell_as_is_expected_here(rig: Rig) -> None:
    """What `FAREWELL` is compared with comes from Gradio: were it written otherwise, nothing would be held."""
    with rig.session() as page:
        page.join(page.endpoint(LOOK[0]), LOOK[1])
        with page.client.stream("GET", STREAM, params={"session_hash": page.name}) as stream:
            assert any(line.encode().startswith(FAREWELL) for line in stream.iter_lines())


PATIENT_S = 60.0  # so long that whoever did not wait for it is known, on a busy machine too


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server waits long for a page to hang up."""
    monkeypatch.setattr(handshake, "HANG_UP_S", PATIENT_S)


def test_an_event_between_farewell_and_hanging_up_is_answered_after_it(rig: Rig, patient: None) -> None:
    """The order a page relies on: its stream is closed, then the event is known, then it opens a stream for it."""
    with rig.session() as page, ThreadPoolExecutor(1) as pool:
        look = page.endpoint(LOOK[0])
        page.join(look, LOOK[1])
        with page.client.stream("GET", STREAM, params={"session_hash": page.name}) as stream:
            _rest = farewell(stream)
            late = pool.submit(page.join, look, LOOK[1])
            time.sleep(0.5)
            assert not late.done(), "answered while the page still believes in its stream"
        started = time.monotonic()
        assert late.result().status_code == 200
        assert time.monotonic() - started < PATIENT_S / 2, "hanging up is what it waited for"
        assert succeeded(list(page.listen()))


def test_other_pages_do_not_wait(rig: Rig, patient: None) -> None:
    with rig.session() as page, rig.session() as other:
        page.join(page.endpoint(LOOK[0]), LOOK[1])
        with page.client.stream("GET", STREAM, params={"session_hash": page.name}) as stream:
            _rest = farewell(stream)
            started = time.monotonic()
            assert other.join(other.endpoint(LOOK[0]), LOOK[1]).status_code == 200
            assert time.monotonic() - started < PATIENT_S / 2


def test_a_page_that_never_hangs_up_is_not_waited_for(rig: Rig) -> None:
    with rig.session() as page:
        page.join(page.endpoint(LOOK[0]), LOOK[1])
        with page.client.stream("GET", STREAM, params={"session_hash": page.name}) as stream:
            _rest = farewell(stream)
            started = time.monotonic()
            assert page.join(page.endpoint(LOOK[0]), LOOK[1]).status_code == 200
            assert time.monotonic() - started < HANG_UP_S + PATIENT_S / 2


# ---- the middleware alone, with what no well-behaved Gradio sends


async def nothing_more() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def sends(*bodies: bytes) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for k, body in enumerate(bodies, start=1):
            await send({"type": "http.response.body", "body": body, "more_body": k < len(bodies)})

    return app


def scope(path: str, query: bytes = b"session_hash=s") -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": []}


def run(app: Handshake, where: dict[str, Any], body: bytes = b"") -> tuple[float, list[Message]]:
    """Seconds taken, and what was sent, where nobody hangs up."""
    sent: list[Message] = []
    coming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return coming.pop() if coming else await nothing_more()

    async def send(message: Message) -> None:
        sent.append(message)

    started = time.monotonic()
    asyncio.run(app(where, receive, send))
    return time.monotonic() - started, sent


@pytest.fixture(autouse=True)
def soon(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "rig" not in request.fixturenames:
        monkeypatch.setattr(handshake, "HANG_UP_S", HELD_S)


def test_only_a_stream_that_said_farewell_is_held() -> None:
    said = json.dumps({"msg": "process_generating", "output": '"msg":"close_stream"'}).encode()
    seconds, sent = run(Handshake(sends(b"data: " + said, b"")), scope(STREAM))
    assert seconds < HELD_S and len(sent) == 3
    app = Handshake(sends(FAREWELL + b"}\n\n", b""))
    seconds, sent = run(app, scope(STREAM))
    assert seconds >= HELD_S and len(sent) == 3 and sent[-1]["more_body"] is False
    assert app.ending == {}, "nothing is remembered of a stream that is over"


def test_a_second_stream_is_not_held_for_the_end_of_the_first() -> None:
    """A first one may be hung up later than the next is asked for: to hold its start would be to hold its events."""
    app = Handshake(sends(b"data: {}", b""))
    first = app.ending["s"] = asyncio.Event()
    seconds, sent = run(app, scope(STREAM))
    assert seconds < HELD_S and len(sent) == 3
    assert app.ending == {"s": first} and not first.is_set(), "and the first is still ending"


def test_a_stream_is_kept_out_of_caches() -> None:
    _seconds, sent = run(Handshake(sends(b"data: {}", b"")), scope(STREAM))
    assert (b"cache-control", b"no-store") in sent[0]["headers"]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b'{"session_hash": ["s"]}', b"\xff{", b'{"session_hash": "t"}', b"[" * 200_000]
)
def test_whatever_joins_is_passed_on(body: bytes) -> None:
    app = Handshake(sends(b"{}"))
    app.ending["s"] = asyncio.Event()
    seconds, sent = run(app, scope(JOIN), body)
    assert seconds < HELD_S and len(sent) == 2


def test_whoever_joins_an_ending_stream_waits() -> None:
    app = Handshake(sends(b"{}"))
    app.ending["s"] = asyncio.Event()
    seconds, sent = run(app, scope(JOIN), b'{"session_hash": "s"}')
    assert seconds >= HELD_S and len(sent) == 2


# ---- endpoints for programs


async def nothing(request: gr.Request, values: dict[str, Any]) -> tuple[Any, ...]:
    return 1, "a"


TAKES = (
    Slot("words", {"type": "string"}, "what to draw"),
    Slot("steps", {"type": "integer", "minimum": 1}, "how many", 8),
)
GIVES = (Slot("seed", {"type": "integer"}, "of the first"), Slot("picture", FILE, "as it is"))


@in_a_loop
async def test_an_endpoint_is_described_value_by_value() -> None:
    with gr.Blocks() as blocks:
        gradio_patches.publish(nothing, "draw", "Draw.", TAKES, GIVES)
    described = blocks.get_api_info()["named_endpoints"]["/draw"]
    words, steps = described["parameters"]
    assert described["description"] == "Draw."
    assert (words["parameter_name"], words["parameter_has_default"]) == ("words", False)
    assert (steps["parameter_default"], steps["type"]["minimum"]) == (8, 1)
    assert steps["python_type"] == {"type": "int", "description": "how many"}
    assert [(r["label"], r["python_type"]["type"]) for r in described["returns"]] == [
        ("seed", "int"),
        ("picture", "filepath"),
    ]


@in_a_loop
async def test_gradio_still_describes_no_value_of_an_endpoint() -> None:
    def draw(words: str, steps: int = 8) -> int:
        return steps

    with gr.Blocks() as blocks:
        gr.api(draw)
    (endpoint,) = blocks.get_api_info()["named_endpoints"].values()
    assert not any(parameter["python_type"]["description"] for parameter in endpoint["parameters"])


def test_gradio_still_cancels_every_task_of_that_kind(rig: Rig) -> None:
    """`cancel_one` is needed as long as it finds them by session and function, and not by event."""
    source = inspect.getsource(gradio_routes)
    assert 'cancel_tasks({f"{body.session_hash}_{body.fn_index}"})' in source
    assert inspect.getsource(queueing.Queue).count("remove_from_queue") == source.count("remove_from_queue") == 1


def test_a_file_of_ours_is_fetched_from_its_own_address(rig: Rig) -> None:
    """Gradio's client asks Gradio for every other one, which has none of ours: it is not in its cache."""
    answer = gradio_patches.served("http://house/outputs/k/a.png", "a.png")
    assert FileData.model_validate(answer).url == "http://house/outputs/k/a.png"
    client_source = inspect.getsource(gradio_client.client.Endpoint._download_file)
    assert 'x.get("is_stream", False) and "url" in x' in client_source
    assert rig.client.get("/gradio_api/file=http://house/outputs/k/a.png").status_code == 404


@pytest.mark.parametrize("named", [None, 5, "x", [], {}, {"path": None}, {"path": "/etc/passwd"}, {"path": ""}])
def test_what_was_not_uploaded_is_no_photo(named: Any) -> None:
    with pytest.raises(ValueError):
        gradio_patches.uploaded(named)
