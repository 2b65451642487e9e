"""The panel of pictures: one's own, found, kept, deleted, and made again; the album of all; folders of the owner's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import gradio as gr

from engines.errors import NotFoundError
from engines.jobs import Position, Search
from webui import asset_files
from webui.albums import Folder
from webui.gradio_patches import event_data
from webui.own_jobs import OwnJobs
from webui.panels.history import find, folder_wall, wall
from webui.panels.history.folder_wall import FOLDER
from webui.panels.history.wall import SHOWN, Value
from webui.widgets.panel_context import PanelContext, Updates, complaining, in_turn, refusal, words_of

__all__ = ["PARTS", "SHOWN", "View", "build"]

MOST_AT_ONCE = 1000  # jobs that are deleted or kept with one press
POSITION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?) (\d{1,15})")
Collection = Literal["mine", "album"]
PARTS = """<div data-part="notice"></div><div data-part="tools" class="tools"></div>
<div data-part="cards" class="history"></div><div data-part="rest" class="rest"></div>
<div data-part="undo" class="undo" role="status"></div>"""


@dataclass(frozen=True)
class View:
    collection: gr.Radio
    find: find.Find
    grid: gr.HTML
    tab: gr.Tab


def build(context: PanelContext, tab: gr.Tab, ended: Any, folders: Mapping[str, Folder]) -> View:
    """`ended`: an event after which there may be one more picture. `folders`: the owner's, by their names."""
    t = context.i18n
    choices = [(t(f"history_{collection}"), collection) for collection in get_args(Collection)]
    choices += [(name, FOLDER + name) for name in folders]
    collection = gr.Radio(choices, value="mine", show_label=False, container=False, elem_id="collection")
    controls = find.build(t)
    grid = gr.HTML(html_template=PARTS, elem_id="history", js_on_load=asset_files.script("history.js"))
    view = View(collection, controls, grid, tab)
    _listen(view, Handlers(view, context, folders), ended)
    return view


@dataclass(frozen=True)
class Handlers:
    """The handlers of events. Every method may be called by anybody who can reach the server, with any arguments."""

    view: View
    context: PanelContext
    folders: Mapping[str, Folder]

    def folder(self, which: str) -> tuple[str, Folder | None]:
        """Return the folder that is asked for, by its name; None: it is none."""
        name = which.removeprefix(FOLDER) if which.startswith(FOLDER) else ""
        return name, self.folders.get(name)

    def own(self, request: gr.Request) -> OwnJobs:
        return self.context.jobs.of(request)

    def refresh(
        self, which: str, words: str, kind: str, bundle: str, days: int, favourite: bool, request: gr.Request
    ) -> Updates:
        """Show the first page of what is looked for."""
        own, say = self.own(request), words_of(request)
        name, folder = self.folder(str(which))
        if folder is not None:
            return {
                self.view.grid: folder_wall.first_page(name, folder, say),
                self.view.find.row: gr.Row(visible=False),
            }
        search = wanted(which, own, words, kind, bundle, days, favourite)
        shown = wall.first_page(own, search, say, self.context.settings)
        return {self.view.grid: shown, self.view.find.row: gr.Row(visible=search.owner is not None)}

    def more(
        self, which: str, words: str, kind: str, bundle: str, days: int, favourite: bool,
        event: gr.EventData, request: gr.Request,
    ) -> Value:  # fmt: skip
        """Show the page after the one that the event names."""
        own, say, after = self.own(request), words_of(request), _position(event_data(event)["after"])
        name, folder = self.folder(str(which))
        if folder is not None:
            return folder_wall.next_page(name, folder, after, say)
        search = wanted(which, own, words, kind, bundle, days, favourite)
        return wall.next_page(own, search, after, say)

    def offer_bundles(self, request: gr.Request) -> Any:
        return find.offer_bundles(self.own(request).bundles(), self.context.i18n)

    def put(self, which: str, event: gr.EventData, request: gr.Request) -> Value:
        """Put pictures into the album, or take them out, after which they are not to be seen in it."""
        say, own, asked = words_of(request), self.own(request), event_data(event)
        job_id, shared = str(asked["job"]), asked["shared"] is True
        with complaining(say):
            own.share(job_id, shared)
        if which == "album" and not shared:
            return {**wall.changed(own, (), say), "gone": [str(asked["position"])]}
        return wall.changed(own, [job_id], say)

    def approve(self, event: gr.EventData, request: gr.Request) -> Value:
        """Put what a visitor has left onto the wall, or delete it; then show the album, where both are told."""
        say, own, asked = words_of(request), self.own(request), event_data(event)
        with complaining(say):
            own.approve([str(asked["job"])], asked["approved"] is True)
        return wall.first_page(own, Search(None), say, self.context.settings)

    def favour(self, event: gr.EventData, request: gr.Request) -> Value:
        say, own, asked = words_of(request), self.own(request), event_data(event)
        with complaining(say):
            marked = own.favour(_job_ids(asked), asked["favourite"] is True)
        return wall.changed(own, marked, say)

    def delete(self, event: gr.EventData, request: gr.Request) -> Value:
        say, own, job_ids = words_of(request), self.own(request), _job_ids(event_data(event))
        going = own.finished_jobs(job_ids)
        with complaining(say):
            own.delete(job_ids)
        return wall.deleted(own, going, say)

    def undo(self, event: gr.EventData, request: gr.Request) -> Value:
        """Take a deletion back. What is gone for good is said to be."""
        say, own, job_ids = words_of(request), self.own(request), _job_ids(event_data(event))
        try:
            back = own.undelete(job_ids)
        except NotFoundError as exc:
            raise refusal(say("history_too_late")) from exc
        return wall.changed(own, back, say)


def _listen(v: View, do: Handlers, ended: Any) -> None:
    asked = [v.collection, *v.find.values]
    looks = [v.tab.select, ended, *(part.change for part in asked)]
    for look in (partial(gr.on, looks), v.grid.look):
        look(do.refresh, asked, [v.grid, v.find.row], **in_turn("history", "always_last"))
    v.tab.select(do.offer_bundles, None, [v.find.bundle], **in_turn("history bundles"))
    pressed = in_turn("history", "multiple")
    v.grid.more(do.more, asked, [v.grid], **pressed)
    v.grid.album(do.put, [v.collection], [v.grid], **pressed)
    v.grid.approve(do.approve, None, [v.grid], **pressed)
    v.grid.favour(do.favour, None, [v.grid], **pressed)
    v.grid.delete(do.delete, None, [v.grid], **pressed)
    v.grid.undo(do.undo, None, [v.grid], **pressed)


def wanted(which: object, own: OwnJobs, *values: Any) -> Search:
    """`which`: a Collection; anybody may send anything. In the album nobody looks for words: they are their owners'."""
    return Search(None) if which == "album" else find.search(own.person.id, values)


def _position(text: object) -> Position:
    """Return the position that a card has (cards.position_text); ValueError: it is none."""
    if not (read := POSITION.fullmatch(str(text))):
        raise ValueError("no position of a picture")
    return float(read[1]), int(read[2])


def _job_ids(asked: Any) -> list[str]:
    jobs = asked["jobs"]
    return [str(job_id) for job_id in jobs[:MOST_AT_ONCE]] if isinstance(jobs, list) else []
