"""
Every change to Gradio's insides, and every use of what it does not document: each with its reason, and with a test of
its own in tests/webui/test_gradio_patches.py. They were written for the version below; before another one is installed,
those tests say whether each of them still works and is still needed.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from types import GenericAlias
from typing import Any, cast

from starlette.formparsers import MultiPartException

from engines.errors import OptionError
from webui import uploads
from webui.gradio_patches import template
from webui.i18n import in_both


@contextmanager
def _without_stubs() -> Iterator[None]:
    """
    Let Gradio's classes come from no file meanwhile. While it is imported it parses the source of each component, to
    write a .pyi for editors beside it: half of the time, at every start.
    """
    find = inspect.getfile

    def refuse(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("not asked for")
        return find(thing)

    inspect.getfile = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = find


@contextmanager
def _without_mcp() -> Iterator[None]:
    """Let there be no package mcp meanwhile. Where it is installed Gradio imports it, which takes 0.8 s, for no use."""
    here = sys.modules.get("mcp", ...)
    sys.modules["mcp"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["mcp"]
        if here is not ...:
            sys.modules["mcp"] = here


with _without_stubs(), _without_mcp():
    import gradio as gr
    from gradio import processing_utils, route_utils, routes, utils
    from gradio.context import LocalContext, get_blocks_context
    from gradio.data_classes import FileData

WRITTEN_FOR = "6.31"  # major and minor
FIELD_BYTES = 10_000
LOOK_S = 0.01  # how long an event may lie in Gradio's queue unseen
ACTIVE = 1024  # events that are done at one time: those that follow a job hold no thread
EVENTS, FOLLOWED = 200, 48  # of one client that have not ended; of them, those that follow a job
REQUIRED = Parameter.empty
LEFT_S = 0.5  # how soon it is noticed that a program has left
FILE: Mapping[str, Any] = {  # as JSON Schema, by whose mark Gradio's client knows it
    "type": "object",
    "properties": {"path": {"type": "string"}, "meta": {"properties": {"_type": {"const": "gradio.FileData"}}}},
}


def install(blocks: gr.Blocks) -> None:
    """Change what all of Gradio shares, and arm these blocks, before they are mounted."""
    route_utils.GradioMultiPartParser = LimitedParser
    processing_utils.async_ssrf_protected_download = fetch_nothing
    template.install(routes.templates.env)
    check_paths(blocks)
    look_less_often(blocks)
    share(blocks)
    cancel_one(blocks)


class LimitedParser(route_utils.GradioMultiPartParser):  # type: ignore[misc]
    """The parser of uploads, with a limit on text. Gradio limits files, but holds a field of any length in memory."""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        super().on_part_data(data, start, end)
        if self._current_part.file is None and len(self._current_part.data) > FIELD_BYTES:
            raise MultiPartException("a field is too long")


async def fetch_nothing(url: str, cache_dir: str) -> str:
    """
    Refuse, in words. Gradio fetches any address that a client sends where a file could be, whatever the input is.
    """
    facts = {"field": "url", "value": "", "allowed": "a file"}
    raise gr.Error(in_both(OptionError.code, facts), print_exception=False)


def check_paths(blocks: gr.Blocks) -> None:
    """Arm the check that a file which a client names was uploaded. Gradio arms it in launch(), but not in mounting."""
    blocks.has_launched = True


def look_less_often(blocks: gr.Blocks) -> None:
    """Let the queue rest. Gradio looks for events every millisecond: 8 % of a processor, on a server nobody asks."""
    blocks._queue.sleep_when_free = LOOK_S


def take_uploads_only(component: gr.Image | gr.File) -> None:
    """
    Let the component hand on an `Upload` (a File: a list of them) that nobody has opened. Gradio would open a picture
    with every decoder there is, would decode data: addresses, and checks only paths that carry its mark.
    """
    read = uploads.received_many if isinstance(component, gr.File) else uploads.received
    component.preprocess = partial(read, Path(component.GRADIO_CACHE).resolve())


def event_data(event: gr.EventData) -> Any:
    """
    Return what a page's script has handed to trigger(), unchecked: anybody may send anything. Gradio offers it as
    attributes, where `target` and the methods of the event stand before what was sent.
    """
    return event._data


def share(blocks: gr.Blocks) -> None:
    """
    Give each client its share of the queue. Gradio does 40 events at one time and lets as many wait as its `max_size`
    says, whosever they are: one that followed a waiting job 40 times shut the page for everybody.
    """
    queue, push = blocks._queue, blocks._queue.push
    queue.max_thread_count = ACTIVE

    async def push_if_room(body: Any, request: Any, username: str | None) -> Any:
        events, host = queue.event_ids_to_events.values(), _host(request)
        theirs = [event.fn for event in events if event.alive and _host(event.request) == host]
        follows = body.fn_index in blocks.fns and _follows(blocks.fns[body.fn_index])
        if len(theirs) >= EVENTS or (follows and sum(map(_follows, theirs)) >= FOLLOWED):
            return False, "Too many events of this client are under way.", "queue_full"
        return await push(body=body, request=request, username=username)

    queue.push = push_if_room


def cancel_one(blocks: gr.Blocks) -> None:
    """
    Let a program that cancels an event have that one cancelled. Gradio cancels every task of the client's that does the
    same, finding them by their names, and leaves the others without an answer. Those of programs bear no such name
    (`publish`): they notice by themselves that nobody waits for them (`program_left`).
    """
    queue, remove = blocks._queue, blocks._queue.remove_from_queue

    async def remove_and_leave(event_id: str) -> None:
        if event := queue.event_ids_to_events.get(event_id):
            event.alive = False
        await remove(event_id)

    queue.remove_from_queue = remove_and_leave


def _follows(fn: Any) -> bool:
    """Does such an event last as long as a job? Those of pages yield what becomes of it; those of programs wait."""
    return bool(fn.types_generator) or fn.api_visibility == "public"


def _host(request: Any) -> str:
    return request.client.host if request.client else ""


@dataclass(frozen=True)
class Slot:
    """What an endpoint takes or gives. `schema`: JSON Schema. `default`: of what need not be given."""

    name: str
    schema: Mapping[str, Any]
    about: str
    default: Any = REQUIRED


Call = Callable[[gr.Request, dict[str, Any]], Awaitable[tuple[Any, ...]]]


def publish(call: Call, name: str, about: str, takes: Sequence[Slot], gives: Sequence[Slot]) -> None:
    """
    Add an endpoint for programs to the blocks that are being built. gr.api reads types out of a signature, but neither
    limits nor descriptions. Its components stay in the layout, where nothing is seen of them: a page that lacks one of
    them does not begin.
    """
    names = [slot.name for slot in takes]

    async def endpoint(request: gr.Request, *values: Any) -> tuple[Any, ...]:
        cast(asyncio.Task[Any], asyncio.current_task()).set_name(name)  # `cancel_one` says why
        return await call(request, dict(zip(names, values, strict=True)))

    kind = Parameter.POSITIONAL_OR_KEYWORD
    first = Parameter("request", kind, annotation=gr.Request)
    rest = [Parameter(slot.name, kind, default=slot.default, annotation=Any) for slot in takes]
    answer = GenericAlias(tuple, (Any,) * len(gives))
    endpoint.__signature__ = Signature([first, *rest], return_annotation=answer)  # type: ignore[attr-defined]
    endpoint.__annotations__ = {"request": gr.Request, **dict.fromkeys(names, Any)}
    gr.api(endpoint, api_name=name, api_description=about, concurrency_limit=None)
    published = list(get_blocks_context().fns.values())[-1]
    for component, slot in zip((*published.inputs, *published.outputs), (*takes, *gives), strict=True):
        component.label = slot.name
        component._api_info = {**slot.schema, "description": slot.about, "additional_description": slot.about}


def uploaded(value: Any) -> uploads.Upload:
    """Return the file that a program names as one that it has uploaded. ValueError: it has not."""
    upload = uploads.received(Path(utils.get_upload_folder()).resolve(), FileData.model_validate(value))
    if upload is None:
        raise ValueError("no file")
    return upload


def served(url: str, name: str) -> dict[str, Any]:
    """
    Return a file that is served at this address, which is not Gradio's. Gradio's client asks Gradio for every file,
    by its path in the cache, but for those of a stream: their address it takes as it is.
    """
    return {"path": name, "url": url, "orig_name": name, "is_stream": True, "meta": {"_type": "gradio.FileData"}}


async def program_left() -> None:
    """Return when nobody waits for the event that is being done now: Gradio goes on with it as if somebody did."""
    event = LocalContext.blocks.get()._queue.event_ids_to_events[LocalContext.event_id.get()]
    while event.alive:
        await asyncio.sleep(LEFT_S)
