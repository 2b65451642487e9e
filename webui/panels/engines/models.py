"""
The panel of models that are had elsewhere: a card each, its download, and the next step with what is here. Downloads
are jobs in the queue; the browser remembers their names, so that a page that comes back finds them all.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

import presets
from engines.errors import NotFoundError, OptionError, StudioError
from engines.messages import Build, Fetch, parse
from engines.messages.status import Model
from engines.messages.validation import limits
from webui.boards import downloads, goals
from webui.boards.downloads import Download
from webui.gradio_patches import event_data
from webui.i18n import Words
from webui.own_jobs import OwnJobs
from webui.panels.engines import recipes
from webui.widgets.panel_context import (
    QUICK,
    PanelContext,
    Updates,
    complaint,
    in_turn,
    newest,
    parsed,
    refusal,
    remember,
    submit,
    words_of,
)

LOOK_S = 1.0
ORDERED = in_turn("downloads")
BOARD = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  const { fetch, mirror, stop, build, wear } = button.dataset;
  if (fetch) trigger('fetch', { model: fetch, mirror });
  if (stop) trigger('stop', { job: stop });
  if (build) trigger('build', { model: build });
  if (wear) trigger('wear', { model: wear });
});"""

GOALS_BOARD = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-goal]');
  if (button) trigger('pursue', { model: button.dataset.goal });
});"""


@dataclass(frozen=True)
class View:
    frame: gr.Accordion
    endpoint: gr.Textbox
    memory: gr.BrowserState  # of what stands there
    goals: gr.HTML
    board: gr.HTML
    jobs: gr.BrowserState  # names of downloads
    outline: gr.State  # which there are, and how each is
    session_jobs: gr.State  # the same, as this page's own presses have left them; None: there was none
    timer: gr.Timer


def build(context: PanelContext, page: gr.Blocks, tab: gr.Tab) -> tuple[View, list[Any]]:
    """Build the panel. Also return what can be waited for: events after which there may be one more model."""
    t = context.i18n
    with gr.Accordion(t("models_title"), open=False, elem_id="models-panel") as frame:
        roads = gr.HTML(elem_id="goals", js_on_load=GOALS_BOARD)
        endpoint = gr.Textbox(
            label=t("models_mirror"), info=t("models_mirror_hint"), placeholder="https://", type="text",
            max_length=int(limits(Fetch, "endpoint")[1]), elem_id="models-mirror", elem_classes="owners-only",
        )  # fmt: skip
        board = gr.HTML(elem_id="models", js_on_load=BOARD)
    jobs = gr.BrowserState([], storage_key="awportrait-downloads", secret="awportrait", render=False)
    timer = gr.Timer(LOOK_S, active=False, render=False)
    memory = gr.BrowserState({}, storage_key="awportrait-mirror", secret="awportrait", render=False)
    view = View(frame, endpoint, memory, roads, board, jobs, gr.State(""), gr.State(None), timer)
    _listen(view, Handlers(view, context), page, tab)
    return view, [view.outline.change]


@dataclass(frozen=True)
class Handlers:
    """The handlers of events. Every method may be called by anybody who can reach the server, with any arguments."""

    view: View
    context: PanelContext

    def show(self, shown: list[Download], own: OwnJobs, say: Words) -> Updates:
        making = goals.builds(own, say)
        return {
            self.view.goals: goals.goals_html(self.context.status, shown, making, say),
            self.view.board: downloads.board_html(self.context.status, shown, say),
            self.view.outline: downloads.outline(shown),
            self.view.timer: gr.Timer(active=downloads.busy(shown) or goals.busy(making)),
        }

    def fetch(self, jobs: Any, session_jobs: Any, endpoint: Any, event: gr.EventData, request: gr.Request) -> Updates:
        """Begin one download of a model at a time; of several models one waits for the other."""
        say, asked, own = words_of(request), event_data(event), self.context.jobs.of(request)
        order = self._order(asked, endpoint, say)
        if self.context.model(order.model) is None:
            raise complaint(NotFoundError("model", order.model), say)
        earlier = downloads.read(own, newest(jobs, session_jobs))
        names = [download.job_id for download in earlier if download.model != order.model or download.busy]
        if not any(download.busy and download.model == order.model for download in earlier):
            names += submit(own, say, order)
        return {
            self.view.jobs: names,
            self.view.session_jobs: names,
            **self.show(downloads.read(own, names), own, say),
        }

    def pursue(
        self, jobs: Any, session_jobs: Any, endpoint: Any, event: gr.EventData, request: gr.Request
    ) -> tuple[Updates, str]:
        """
        Submit the download of a goal's model, if it is not here, and its build by the recipe that fits this machine.
        The lane works off one after the other, also after a restart. Also return the build's name.
        """
        say, own, status = words_of(request), self.context.jobs.of(request), self.context.status
        name = event_data(event)["model"]
        entry = next(
            (entry for entry in status.models if entry.model.id == name and name in goals.GOALS.values()), None
        )
        if entry is None:
            raise complaint(NotFoundError("model", str(name)), say)
        earlier = downloads.read(own, newest(jobs, session_jobs))
        others = [download.job_id for download in earlier if download.model != name or download.busy]
        fetching = any(download.busy and download.model == name for download in earlier)
        begun = goals.builds(own, say).get(name)
        if begun and begun.busy:
            return self._pursued(others, own, say), begun.job.id
        fetch = [self._order({"model": name, "mirror": "hf"}, endpoint, say)] * (not entry.here and not fetching)
        names = submit(own, say, *fetch, self._build(entry.model, say))
        return self._pursued([*others, *names[:-1]], own, say), names[-1]

    def _build(self, model: Model, say: Words) -> Build:
        recipe = recipes.advised(self.context.status, model.becomes, model.target).recipe
        prompts = presets.prompts() if model.becomes == "portrait" else ()
        values = {"makes": model.becomes, "source": model.target, "recipe": recipe, "name": model.id}
        return parsed(Build, {**values, "prompts": prompts}, say)

    def _pursued(self, names: list[str], own: OwnJobs, say: Words) -> Updates:
        shown = self.show(downloads.read(own, names), own, say)
        return {self.view.jobs: names, self.view.session_jobs: names, **shown}

    def _order(self, asked: dict[str, Any], endpoint: Any, say: Words) -> Fetch:
        """Check what was asked. Only of huggingface.co there are mirrors."""
        values = {"model": asked["model"], "mirror": asked["mirror"]}
        if values["mirror"] == "hf" and endpoint:
            values["endpoint"] = endpoint.strip() if isinstance(endpoint, str) else endpoint
        try:
            return parse(Fetch, values)
        except OptionError as exc:
            if exc.facts["field"] != "endpoint":
                raise complaint(exc, say) from exc
            allowed = say.phrase(str(exc.facts["allowed"]))
            raise refusal(say("models_mirror_refused", address=exc.facts["value"], allowed=allowed)) from exc

    def recall(self, memory: Any) -> Any:
        """On load, return the mirror that this browser used last. It may remember anything."""
        with suppress(StudioError, AttributeError):
            return parse(Fetch, {"model": "", "endpoint": memory.get("endpoint")}).endpoint
        return gr.skip()

    def stop(self, jobs: Any, session_jobs: Any, event: gr.EventData, request: gr.Request) -> Updates:
        """Cancel, and say at once that the press was heard: a running download hears of it at its next event."""
        own = self.context.jobs.of(request)
        for download in downloads.read(own, [event_data(event)["job"]]):
            own.cancel(download.job_id)
        shown = [
            replace(download, stopping=download.job_id == event_data(event)["job"])
            for download in downloads.read(own, newest(jobs, session_jobs))
        ]
        return self.show(shown, own, words_of(request))

    def watch(self, jobs: Any, session_jobs: Any, request: gr.Request) -> Updates:
        own = self.context.jobs.of(request)
        return self.show(downloads.read(own, newest(jobs, session_jobs)), own, words_of(request))

    def come_back(self, jobs: Any, session_jobs: Any, request: gr.Request) -> Updates:
        """On load, show how this browser's downloads are, and open the accordion if any goes on."""
        updates = self.watch(jobs, session_jobs, request)
        goes_on = downloads.busy(downloads.read(self.context.jobs.of(request), newest(jobs, session_jobs)))
        return {**updates, self.view.frame: gr.update(open=True)} if goes_on else updates


def _listen(v: View, do: Handlers, page: gr.Blocks, tab: gr.Tab) -> None:
    shown = [v.board, v.outline, v.timer, v.goals]
    page.load(do.recall, [v.memory], [v.endpoint], **QUICK)
    v.endpoint.change(None, [v.endpoint], [v.memory], js=remember(["endpoint"]), **QUICK)
    v.board.fetch(do.fetch, [v.jobs, v.session_jobs, v.endpoint], [v.jobs, *shown, v.session_jobs], **ORDERED)
    v.board.stop(do.stop, [v.jobs, v.session_jobs], shown, **ORDERED)
    gr.on([v.timer.tick, tab.select], do.watch, [v.jobs, v.session_jobs], shown, **ORDERED)
    page.load(do.come_back, [v.jobs, v.session_jobs], [*shown, v.frame], **ORDERED)


def look_on(events: list[Any], v: View, context: PanelContext) -> None:
    """Look again how everything is."""
    for event in events:
        event(Handlers(v, context).watch, [v.jobs, v.session_jobs], [v.board, v.outline, v.timer, v.goals], **ORDERED)


def pursue_on(v: View, build_job: gr.BrowserState, context: PanelContext) -> Any:
    """Begin the download and the build of a goal; `build_job` is where the browser keeps the build's name."""
    do = Handlers(v, context)

    def pursue(jobs: Any, session_jobs: Any, endpoint: Any, event: gr.EventData, request: gr.Request) -> Updates:
        updates, name = do.pursue(jobs, session_jobs, endpoint, event, request)
        return {**updates, build_job: name}

    outputs = [v.jobs, v.board, v.outline, v.timer, v.goals, v.session_jobs, build_job]
    return v.goals.pursue(pursue, [v.jobs, v.session_jobs, v.endpoint], outputs, **ORDERED)
