"""
The panel that restores many photos with the settings of one. Each photo is a job of its own in the queue; the browser
remembers their names, so that a page that comes back finds them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from engines.errors import ImageError, StorageError
from engines.jobs import Priority
from engines.messages import Enhance, Request
from engines.messages.photos import SUFFIXES
from webui import uploads
from webui.boards import photos
from webui.boards.photos import LIMIT, Item
from webui.gradio_patches import event_data, take_uploads_only
from webui.i18n import Words
from webui.uploads import Upload
from webui.widgets import photo_settings as settings
from webui.widgets.panel_context import (
    LONG,
    QUICK,
    PanelContext,
    Updates,
    cancel_button,
    complaint,
    in_turn,
    newest,
    parsed,
    refusal,
    submit,
    words_of,
)

LOOK_S = 1.0
ORDERED = in_turn("batch")
KINDS = ["image", *SUFFIXES]  # Gradio knows fewer as pictures; assets/upload.js says it to browsers
BOARD = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-again]');
  const { again: job, turn = 0 } = button?.dataset ?? {};
  if (button) trigger('again', { job, whole: 'whole' in button.dataset, turn: Number(turn) });
});"""


@dataclass(frozen=True)
class Entrance:
    """The controls where the photos come in."""

    files: gr.File
    go: gr.Button
    cancel: gr.Button


@dataclass(frozen=True)
class View(Entrance):
    controls: settings.Controls
    board: gr.HTML
    jobs: gr.BrowserState  # their names, in the order of the photos
    session_jobs: gr.State  # the same, as this page's own presses have left them; None: there was none
    outline: gr.State  # what the board shows
    timer: gr.Timer


def entrance(context: PanelContext) -> Entrance:
    t = context.i18n
    files = gr.File(
        label=t("batch_files"), file_count="multiple", file_types=KINDS, height=260, elem_id="batch-files",
    )  # fmt: skip
    take_uploads_only(files)
    go = gr.Button(t("batch_go"), variant="primary", size="lg", elem_id="batch")
    cancel = gr.Button(t("batch_cancel"), variant="stop", size="lg", visible=False, elem_id="batch-cancel")
    return Entrance(files, go, cancel)


def build(context: PanelContext, page: gr.Blocks, entered: Entrance, controls: settings.Controls) -> View:
    board = gr.HTML(elem_id="batch-board", js_on_load=BOARD)
    jobs = gr.BrowserState([], storage_key="awportrait-batch-jobs", secret="awportrait", render=False)
    timer = gr.Timer(LOOK_S, active=False, render=False)
    view = View(
        **vars(entered),
        controls=controls,
        board=board,
        jobs=jobs,
        session_jobs=gr.State(None),
        outline=gr.State(""),
        timer=timer,
    )
    _listen(view, Handlers(view, context), page)
    return view


@dataclass(frozen=True)
class Handlers:
    """The handlers of events. Every method may be called by anybody who can reach the server, with any arguments."""

    view: View
    context: PanelContext

    def show(self, items: list[Item], request: gr.Request, *, has_begun: bool = False) -> Updates:
        busy, quiet_s = photos.busy(items), photos.quiet_s(self.context.jobs.of(request), items)
        return {
            self.view.board: photos.board_html(items, words_of(request), quiet_s),
            self.view.outline: photos.outline(items),
            self.view.cancel: cancel_button(self.context, busy, "batch_cancel", has_begun=has_begun),
            self.view.timer: gr.Timer(active=busy),
        }

    def start(self, files: list[Upload], jobs: Any, request: gr.Request, *asked: Any) -> Updates:
        """Restore the photos; while an earlier batch goes on, they join it."""
        say, own = words_of(request), self.context.jobs.of(request)
        *values, session_jobs = asked
        running = photos.read(own, newest(jobs, session_jobs))
        running = running if photos.busy(running) else []
        if not files:
            raise refusal(say("batch_none"))
        if len(running) + len(files) > LIMIT:
            raise refusal(say("batch_too_many", limit=LIMIT))
        fields = settings.fields(values)
        orders = [parsed(Enhance, {**fields, **self._photo(upload, say)}, say) for upload in files]
        names = [item.job_id for item in running] + submit(own, say, *orders, priority=_priority(orders))
        return {self.view.files: None, **self._begun(names, request)}

    def _photo(self, upload: Upload, say: Words) -> dict[str, str]:
        """Store a photo. What cannot be one becomes a job too: it fails by itself, and says why in its own line."""
        try:
            with Path(upload.path).open("rb") as source:
                path = str(uploads.keep(source, self.context.settings.uploads))
        except ImageError:
            path = upload.path
        except StorageError as exc:
            raise complaint(exc, say) from exc
        return {"image": path, "name": upload.name}

    def _now(self, jobs: Any, request: gr.Request, *, has_begun: bool = False) -> Updates:
        return self.show(photos.read(self.context.jobs.of(request), jobs), request, has_begun=has_begun)

    def _begun(self, names: list[str], request: gr.Request) -> Updates:
        return {self.view.jobs: names, self.view.session_jobs: names, **self._now(names, request, has_begun=True)}

    def again(self, jobs: Any, event: gr.EventData, request: gr.Request, *asked: Any) -> Updates:
        """Restore the named photo, or all that failed, once more with the settings of now. Others stay as they are."""
        say, own = words_of(request), self.context.jobs.of(request)
        *values, session_jobs = asked
        items, wanted = photos.read(own, newest(jobs, session_jobs)), event_data(event)["job"]
        fields = settings.fields(values)
        if event_data(event)["whole"]:
            fields["whole_picture"] = True
        fields["turn"] = event_data(event).get("turn", 0)
        chosen = [item.job_id for item in items if item.lost and wanted in ("", item.job_id)]
        orders = [self._anew(own.job(name).request, fields, say) for name in chosen]
        jobs_anew = submit(own, say, *orders, priority=_priority(orders))
        instead = dict(zip(chosen, jobs_anew, strict=True))
        names = [instead.get(item.job_id, item.job_id) for item in items]
        return self._begun(names, request)

    @staticmethod
    def _anew(before: Request, fields: dict[str, Any], say: Words) -> Enhance:
        photo = {"image": before.image, "name": before.name} if isinstance(before, Enhance) else {}
        return parsed(Enhance, {**fields, **photo}, say)

    def watch(self, jobs: Any, outline: str, session_jobs: Any, request: gr.Request) -> Updates:
        """While photos wait, show the list, if anything in it has changed."""
        items = photos.read(self.context.jobs.of(request), newest(jobs, session_jobs))
        if photos.outline(items) == outline:
            return {self.view.outline: gr.skip()}
        return self.show(items, request)

    def come_back(self, jobs: Any, session_jobs: Any, request: gr.Request) -> Updates:
        """On load, show what this browser's last batch has come to."""
        return self._now(newest(jobs, session_jobs), request)

    def stop(self, jobs: Any, session_jobs: Any, request: gr.Request) -> Any:
        """Cancel all that is not finished. What is, stays."""
        own = self.context.jobs.of(request)
        for item in photos.read(own, newest(jobs, session_jobs)):
            if photos.busy([item]):
                own.cancel(item.job_id)
        return gr.update(interactive=False, value=self.context.i18n("stage_cancelling"))


def _priority(orders: Sequence[Enhance]) -> Priority:
    """Many photos with one press let others pass, who wait for one picture."""
    return "batch" if len(orders) > 1 else "interactive"


def _listen(v: View, do: Handlers, page: gr.Blocks) -> None:
    shown, asked = [v.board, v.outline, v.cancel, v.timer], [*v.controls.values, v.session_jobs]
    v.go.click(do.start, [v.files, v.jobs, *asked], [v.jobs, v.files, *shown, v.session_jobs], **LONG)
    v.board.again(do.again, [v.jobs, *asked], [v.jobs, *shown, v.session_jobs], **ORDERED)
    v.timer.tick(do.watch, [v.jobs, v.outline, v.session_jobs], shown, **ORDERED)
    page.load(do.come_back, [v.jobs, v.session_jobs], shown, **ORDERED)
    v.cancel.click(do.stop, [v.jobs, v.session_jobs], [v.cancel], **QUICK)
