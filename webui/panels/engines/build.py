"""
The panel that makes bundles: out of what, by which recipe, under which name; then the progress and the steps of it, and
in the end one press to use what was made. The work is a job in the queue like any other: this page may close and come
back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from anyio import to_thread
from markupsafe import Markup

import presets
from engines.errors import NotFoundError
from engines.messages import BUNDLE_NAME, Build, Recipe, parse
from engines.messages.status import Status
from webui.boards.downloads import gb_text
from webui.follow import follow, resume
from webui.gradio_patches import event_data
from webui.i18n import Words
from webui.own_jobs import OwnJobs
from webui.panels.engines import recipes
from webui.panels.engines.build_steps import log_html
from webui.panels.engines.overview import KEEP_OPEN
from webui.stage import about_text, status_html
from webui.stream import JobView
from webui.widgets import loras
from webui.widgets.panel_context import (
    LONG,
    PanelContext,
    Updates,
    cancel_button,
    cancel_pressed,
    complaining,
    complaint,
    in_turn,
    parsed,
    refusal,
    scroll_to,
    submit,
    words_of,
)

START = JobView(task="build", status="build_idle")
ORDER = "build"  # in which what fills in the form is done


@dataclass(frozen=True)
class View:
    frame: gr.Accordion
    source: gr.Dropdown
    recipe: gr.Radio
    name: gr.Textbox
    calibration: gr.Textbox
    loras: loras.View
    advice: gr.HTML
    go: gr.Button
    cancel: gr.Button
    reason: gr.HTML
    stage: gr.HTML
    use: gr.Button
    log: gr.HTML
    job: gr.BrowserState


def build(context: PanelContext, page: gr.Blocks, tab: gr.Tab) -> tuple[View, list[Any]]:
    """Build the panel. Also return what can be waited for: events after which there may be one more bundle."""
    with gr.Accordion(context.i18n("build_title"), open=False, elem_id="build-panel") as frame:
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=5, min_width=320, elem_classes="controls"):
                parts = _controls(context)
            with gr.Column(scale=6, min_width=320):
                stage = gr.HTML(elem_id="build-stage")
                label = context.i18n("build_use")
                use = gr.Button(label, variant="primary", size="lg", visible=False, elem_id="build-use")
                log = gr.HTML(elem_id="build-log", js_on_load=KEEP_OPEN)
    job = gr.BrowserState("", storage_key="awportrait-build-job", secret="awportrait", render=False)
    view = View(**parts, frame=frame, stage=stage, use=use, log=log, job=job)
    return view, _listen(view, Handlers(view, context), page, tab)


def _controls(context: PanelContext) -> dict[str, Any]:
    t, status = context.i18n, context.status
    source = gr.Dropdown(
        [(f"{name} · {kind}", f"{kind}:{name}") for kind, name in status.sources],
        label=t("build_source"), info=t("build_source_hint"), elem_id="build-source",
    )  # fmt: skip
    offered = [(t(f"build_{recipe}"), recipe) for recipe in recipes.ORDER]
    first = recipes.advised(status, *status.sources[0]).recipe if status.sources else recipes.USUAL
    recipe = gr.Radio(offered, value=first, label=t("build_recipe"), elem_id="build-recipe")
    advice = gr.HTML(elem_id="build-advice")
    name = gr.Textbox(label=t("build_name"), info=t("build_name_hint"), max_length=40, elem_id="build-name")
    calibration = gr.Textbox(label=t("build_calibration"), info=t("build_calibration_hint"), max_length=200)
    chooser = loras.build(context, "build_loras", "build_loras_hint", "build-loras", ORDER)
    reason = gr.HTML(visible=False)
    go = gr.Button(t("build_go"), variant="primary", size="lg", interactive=not status.can_build, elem_id="build")
    cancel = gr.Button(t("portrait_cancel"), variant="stop", size="lg", visible=False, elem_id="build-cancel")
    return {
        "source": source, "recipe": recipe, "name": name, "calibration": calibration, "loras": chooser,
        "advice": advice, "go": go, "cancel": cancel, "reason": reason,
    }  # fmt: skip


@dataclass(frozen=True)
class Handlers:
    """The handlers of events. Every method may be called by anybody who can reach the server, with any arguments."""

    view: View
    context: PanelContext

    def show(self, scene: JobView, say: Words) -> Updates:
        busy, done = scene.state == "running", scene.state == "done"
        return {
            self.view.stage: stage_html(scene, say),
            self.view.use: gr.update(visible=done),
            self.view.log: log_html(scene, say),
            self.view.go: gr.update(visible=not busy, variant="secondary" if done else "primary"),
            self.view.cancel: cancel_button(self.context, busy),
        }

    async def make(
        self, source: str | None, recipe: str, name: str, calibration: str, request: gr.Request, *lora_values: Any
    ) -> AsyncIterator[Updates]:
        say, own = words_of(request), self.context.jobs.of(request)
        kind, origin = recipes.split(source)
        if (kind, origin) not in self.context.status.sources:
            raise refusal(say("build_no_source"))
        values = {
            "makes": kind, "source": origin, "recipe": recipe, "name": self._free(name, say),
            "calibration": (calibration or "").strip(), "prompts": presets.prompts() if kind == "portrait" else (),
            "loras": loras.fields(lora_values),
        }  # fmt: skip
        (job_id,) = await to_thread.run_sync(submit, own, say, parsed(Build, values, say))
        shown = self.show(JobView(task="build", state="running", status="stage_prepare"), say)
        yield {self.view.job: job_id, **shown, self.view.cancel: cancel_button(self.context, True, has_begun=True)}
        async for now in follow(own, job_id, START):
            yield self.show(now, say)

    def _free(self, name: str, say: Words) -> str:
        """Return the name, if no bundle has it: none must be lost by a word typed twice."""
        name = (name or "").strip()
        if any(bundle.name == name for bundle in self.context.status.bundles):
            raise refusal(say("build_taken", name=name))
        if not BUNDLE_NAME.fullmatch(name):
            raise refusal(say("build_bad_name", name=name[:60]))
        return name

    async def come_back(self, job_id: str, request: gr.Request) -> AsyncIterator[Updates]:
        """On load, show what this browser's last build has come to, and open the accordion while it goes on."""
        say = words_of(request)
        yield {self.view.stage: stage_html(START, say)}
        async for scene in resume(self.context.jobs.of(request), job_id, START):
            opened = {self.view.frame: gr.update(open=True)} if scene.state == "running" else {}
            yield {**opened, **self.show(scene, say)}

    def stop(self, job_id: str, request: gr.Request) -> Any:
        return cancel_pressed(self.context, job_id, request)

    def advise(self, source: Any, request: gr.Request) -> list[Any]:
        """Choose the recipe that fits this machine and this source, and say why, and what it takes."""
        source = source if isinstance(source, str) else ""
        recipe = recipes.advised(self.context.status, *recipes.split(source)).recipe
        return [recipe, self.weigh(source, recipe, request)]

    def weigh(self, source: Any, recipe: Any, request: gr.Request) -> Markup:
        """Say what the build of this takes before anybody presses."""
        kind, name = recipes.split(source if isinstance(source, str) else "")
        if recipe not in recipes.ORDER or (kind, name) not in self.context.status.sources:
            return Markup()
        return advice_html(self.context.status, kind, name, recipe, self.context.jobs.of(request), words_of(request))

    def order(self, job_id: Any, request: gr.Request) -> Build:
        """Return what this browser's last build was asked for, whose bundle is here."""
        say = words_of(request)
        with complaining(say):
            order = self.context.jobs.of(request).job(str(job_id)).request
        if isinstance(order, Build) and any(bundle.name == order.name for bundle in self.context.status.bundles):
            return order
        raise complaint(NotFoundError("bundle", getattr(order, "name", "")), say)

    def offer(self, chosen: str | None, request: gr.Request) -> list[Any]:
        """Bring up to date what can be built from, and whether it can."""
        say, status = words_of(request), self.context.status
        sources = source_choices(status, say)
        values = [value for _, value in sources]
        # What is chosen is left alone: the person may have chosen something else while this was on its way.
        first = {} if chosen in values else {"value": next(iter(values), None)}
        return [
            gr.update(choices=sources, **first),
            gr.update(interactive=not status.can_build),
            gr.update(value=reason_html(status.can_build, say), visible=bool(status.can_build)),
        ]


def stage_html(scene: JobView, say: Words) -> Markup:
    idle = Markup('<p class="note">{}</p>').format(say(scene.status)) if scene.state == "idle" else Markup()
    return Markup('<div class="stage is-{}">{}</div>').format(scene.state, idle or status_html(scene, say))


def advice_html(status: Status, kind: str, name: str, recipe: Recipe, own: OwnJobs, say: Words) -> Markup:
    """Say which recipe fits this machine, and why; how much disk this one takes, and how long."""
    fits = recipes.advised(status, kind, name)
    why = say(fits.why, **fits.facts)
    lead = say("build_fits") if recipe == fits.recipe else say("build_would_fit", recipe=fits.recipe)
    gb = recipes.disk_gb(status, kind, name, recipe)
    disk = say("build_disk", size=_between(*gb)) if gb else say("build_disk_unknown")
    like = {"makes": kind, "source": name, "recipe": recipe, "name": "x"}  # whatever it will be called
    expected = own.expected(parse(Build, like))
    time = say("build_time", about=about_text(expected.finish_s, say)) if expected else say("build_time_unknown")
    lines = Markup().join(Markup("<li>{}</li>").format(text) for text in (f"{lead}{why}", disk, time))
    return Markup('<ul class="hints">{}</ul>').format(lines)


def _between(low_gb: float, high_gb: float) -> str:
    return gb_text(low_gb) if low_gb == high_gb else f"{gb_text(low_gb)} – {gb_text(high_gb)}"


def reason_html(reason: str, say: Words) -> Markup:
    """Say why nothing can be built here."""
    return Markup('<p class="hurdle">{}</p>').format(say("build_cannot", reason=say.phrase(reason)))


def _listen(v: View, do: Handlers, page: gr.Blocks, tab: gr.Tab) -> list[Any]:
    shown = [v.stage, v.use, v.log, v.go, v.cancel, v.job, v.frame]
    order = [v.source, v.recipe, v.name, v.calibration, *v.loras.values]
    built = gr.on([v.go.click, v.name.submit], do.make, order, shown, **LONG)
    back = page.load(do.come_back, [v.job], shown, **LONG)
    chosen = [v.recipe, v.advice]
    v.source.change(do.advise, [v.source], chosen, **in_turn(ORDER, "always_last"))
    page.load(do.advise, [v.source], chosen, **in_turn(ORDER))
    for event in (v.recipe.input, v.frame.expand, built.then):
        event(do.weigh, [v.source, v.recipe], [v.advice], **in_turn(ORDER, "always_last"))
    v.cancel.click(do.stop, [v.job], [v.cancel], **LONG)
    offer_on([page.load, tab.select, built.then], v, do.context)
    loras.offer_on([v.source.change], v.loras, v.source, no_loras_reason, do.context)
    return [built.then, back.then]


def offer_on(events: list[Any], v: View, context: PanelContext) -> None:
    """Bring the choices up to date."""
    for event in events:
        event(Handlers(v, context).offer, [v.source], [v.source, v.go, v.reason], **in_turn(ORDER, "always_last"))
    loras.offer_on(events, v.loras, v.source, no_loras_reason, context)


def follow_on(event: Any, v: View, context: PanelContext) -> None:
    """Follow the build whose name the browser keeps, as after a reload."""
    event(Handlers(v, context).come_back, [v.job], [v.stage, v.use, v.log, v.go, v.cancel, v.frame], **LONG)


def fill_on(event: Any, v: View, context: PanelContext) -> None:
    """Open the form with the model that the event names as its source, if it can be built from."""

    def fill(asked: gr.EventData, request: gr.Request) -> list[Any]:
        model = context.model(event_data(asked)["model"])
        sources = source_choices(context.status, words_of(request))
        source = f"{model.becomes}:{model.target}" if model else ""
        if model is None or source not in [value for _, value in sources]:
            return [gr.skip()] * 3
        return [gr.update(open=True), gr.update(choices=sources, value=source), model.id]

    event(fill, None, [v.frame, v.source, v.name], **in_turn(ORDER)).then(None, None, None, js=scroll_to("build-panel"))


def source_choices(status: Status, say: Words) -> list[tuple[str, str]]:
    return [(f"{name} · {say(f'build_{kind}')}", f"{kind}:{name}") for kind, name in status.sources]


def no_loras_reason(source: str | None) -> str:
    """Return why nothing is merged into what is built from this source, as a key of the locales; or nothing."""
    return "" if (source or "").startswith("portrait:") else "loras_portraits_only"
