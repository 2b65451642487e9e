"""
The panel that holds two engines against each other: one prompt, one seed, two jobs, both pictures under one slider, and
how long each took.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from anyio import to_thread
from markupsafe import Markup

from engines.errors import NotFoundError, OptionError, PromptError
from engines.messages import MAX_SEED, Generate
from engines.messages.status import BundleStatus
from webui.follow import resume
from webui.i18n import Words
from webui.own_jobs import OwnJobs
from webui.pictures import compare_html, image_html
from webui.stage import status_html
from webui.stream import JobView
from webui.widgets.panel_context import (
    LONG,
    PanelContext,
    Updates,
    cancel_button,
    cancel_pressed,
    complaint,
    fine_s,
    in_turn,
    parsed,
    submit,
    words_of,
)

AUTO = "auto"
SIDES = ("A", "B")
ORDERED = in_turn("compare", "always_last")
WAITS = JobView(state="running", status="stage_waiting", facts={"ahead": 1})


@dataclass(frozen=True)
class View:
    prompt: gr.Textbox
    seed: gr.Number
    bundle: gr.Dropdown
    a: gr.Dropdown
    b: gr.Dropdown
    go: gr.Button
    cancel: gr.Button
    stage: gr.HTML
    jobs: gr.BrowserState  # two names with a space between


def build(context: PanelContext, page: gr.Blocks, tab: gr.Tab) -> View:
    with gr.Accordion(context.i18n("compare_title"), open=False, elem_id="compare-panel"):
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=5, min_width=320, elem_classes="controls"):
                parts = _controls(context)
            with gr.Column(scale=6, min_width=320):
                stage = gr.HTML(elem_id="compare-stage")
    jobs = gr.BrowserState("", storage_key="awportrait-compare-jobs", secret="awportrait", render=False)
    view = View(**parts, stage=stage, jobs=jobs)
    _listen(view, Handlers(view, context), page, tab)
    return view


def _controls(context: PanelContext) -> dict[str, Any]:
    t, bundles = context.i18n, context.bundles("portrait")
    names, engines = [bundle.name for bundle in bundles], choosable(bundles[0])
    prompt = gr.Textbox(
        "", label=t("portrait_prompt"), placeholder=t("portrait_prompt_hint"), lines=3, elem_id="compare-prompt"
    )
    seed = gr.Number(7, precision=0, label=t("portrait_seed"), elem_id="compare-seed")
    bundle = gr.Dropdown(names, value=names[0], label=t("portrait_bundle"), visible=len(names) > 1)
    loose: Any = {"allow_custom_value": True}  # what was offered a moment ago may have failed its proof since
    a = gr.Dropdown(engines, value=engines[0], label=t("compare_a"), elem_id="compare-a", **loose)
    b = gr.Dropdown(engines, value=engines[-1], label=t("compare_b"), elem_id="compare-b", **loose)
    go = gr.Button(t("compare_go"), variant="primary", size="lg", elem_id="compare")
    cancel = gr.Button(t("portrait_cancel"), variant="stop", size="lg", visible=False, elem_id="compare-cancel")
    return {"prompt": prompt, "seed": seed, "bundle": bundle, "a": a, "b": b, "go": go, "cancel": cancel}


@dataclass(frozen=True)
class Handlers:
    """The handlers of events. Every method may be called by anybody who can reach the server, with any arguments."""

    view: View
    context: PanelContext

    def show(self, sides: list[tuple[str, JobView]], say: Words) -> Updates:
        busy = any(scene.state == "running" for _, scene in sides)
        return {
            self.view.stage: stage_html(sides, say),
            self.view.go: gr.update(visible=not busy),
            self.view.cancel: cancel_button(self.context, busy),
        }

    async def compare(
        self, prompt: str, seed: int | None, bundle: str, a: str, b: str, request: gr.Request
    ) -> AsyncIterator[Updates]:
        say = words_of(request)
        values = {"prompt": prompt, "seed": seed, "bundle": bundle}
        orders = [parsed(Generate, {**values, "backend": backend}, say) for backend in (a, b)]
        if orders[0].seed < 0:  # would be drawn by lot, twice
            raise complaint(OptionError("seed", orders[0].seed, f"0 … {MAX_SEED}"), say)
        if not orders[0].prompt.strip():
            raise complaint(PromptError("the prompt is empty"), say)
        jobs = " ".join(await to_thread.run_sync(submit, self.context.jobs.of(request), say, *orders))
        yield {self.view.jobs: jobs, self.view.cancel: cancel_button(self.context, True, has_begun=True)}
        async for updates in self._watch(jobs, request):
            yield updates

    async def come_back(self, jobs: str, request: gr.Request) -> AsyncIterator[Updates]:
        """On load, show what this browser's last comparison has come to."""
        say = words_of(request)
        yield {self.view.stage: stage_html([], say)}
        async for updates in self._watch(jobs, request):
            yield updates

    async def _watch(self, jobs: str, request: gr.Request) -> AsyncIterator[Updates]:
        """Follow one job after the other, as the queue does them."""
        say, own = words_of(request), self.context.jobs.of(request)
        orders = await to_thread.run_sync(_orders, own, jobs)
        sides = [(side_title(k, order.backend, say), WAITS) for k, order in enumerate(orders.values())]
        for k, (job_id, order) in enumerate(orders.items()):
            async for scene in resume(own, job_id, JobView(caption=order.prompt)):
                sides[k] = (sides[k][0], scene)
                yield self.show(sides, say)

    def stop(self, jobs: str, request: gr.Request) -> Any:
        orders = _orders(self.context.jobs.of(request), jobs)
        pressed = [cancel_pressed(self.context, job_id, request) for job_id in orders]
        return pressed[-1] if pressed else gr.skip()

    def offer(self, name: str, a: str, b: str, request: gr.Request) -> list[Any]:
        """Offer the bundles that are here now, and the engines that can run the chosen one."""
        say, bundle = words_of(request), self.context.find("portrait", name)
        return [self.context.offer_bundles("portrait", name), *self._engines(bundle, a, b, say)]

    def change_bundle(self, name: str, a: str, b: str, request: gr.Request) -> list[Any]:
        say = words_of(request)
        return self._engines(self.context.find("portrait", name), a, b, say)

    def _engines(self, bundle: BundleStatus | None, a: str, b: str, say: Words) -> list[Any]:
        """Return the choices of both sides again. An engine that is chosen is left alone, unless it cannot draw."""
        names = choosable(bundle)
        wanted = Generate("", bundle=bundle.name if bundle else "")
        choices = [(self.context.backend_label(name, wanted, say), name) for name in names]
        instead = [{} if side in names else {"value": names[k]} for side, k in ((a, 0), (b, -1))]
        return [gr.update(choices=choices, **value) for value in instead]


def choosable(bundle: BundleStatus | None) -> list[str]:
    """Return the engines that can draw: those that failed their proof cannot."""
    choices = bundle.choices if bundle else ()
    able = dict.fromkeys(choice.engine for choice in choices if choice.state in ("accepted", "unproven"))
    return [AUTO, *able]


def _orders(own: OwnJobs, jobs: str) -> dict[str, Generate]:
    """Return the jobs that a browser remembers, if they are two portraits."""
    try:
        requests = {job_id: own.job(job_id).request for job_id in str(jobs).split()[: len(SIDES)]}
    except NotFoundError:
        return {}
    portraits = {job_id: request for job_id, request in requests.items() if isinstance(request, Generate)}
    return portraits if len(portraits) == len(SIDES) else {}


def side_title(k: int, backend: str, say: Words) -> str:
    return f"{SIDES[k]} · {say('backend_auto') if backend == AUTO else backend}"


def stage_html(sides: list[tuple[str, JobView]], say: Words) -> Markup:
    """Draw both `sides`, each a title and what has become of its job; they are empty before anything was asked."""
    busy = any(scene.state == "running" for _, scene in sides)
    state = "running" if busy else "done" if sides else "idle"
    drawn = sides and all(scene.state == "done" for _, scene in sides)
    note = Markup('<p class="note">{}</p>').format(say("compare_loading"))
    return Markup('<div class="stage is-{state}">{pictures}<div class="sides">{columns}</div>{note}</div>').format(
        state=state,
        pictures=_pictures(sides, say),
        columns=Markup().join(_side(title, scene, say) for title, scene in sides),
        note=note if drawn else "",
    )


def _pictures(sides: list[tuple[str, JobView]], say: Words) -> Markup:
    """Draw the slider as soon as there are two; until then the one that is there."""
    shown = [(scene.current.image, title) for title, scene in sides if scene.current]
    if len(shown) == len(SIDES):
        return compare_html(shown[0], shown[1], say("compare_drag"))
    if shown:
        return Markup('<div class="frame">{}</div>').format(image_html(*shown[0]))
    idle = Markup("<p>{}</p>").format(say("compare_idle"))
    return Markup('<div class="frame is-empty">{}</div>').format("" if sides else idle)


def _side(title: str, scene: JobView, say: Words) -> Markup:
    facts = (Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(*fact) for fact in _took(scene, say))
    times = Markup("<dl>{}</dl>").format(Markup().join(facts))
    why = Markup('<p class="note">{}</p>').format(say.phrase(scene.reason))
    return Markup('<section class="is-{state}"><h4>{title}</h4>{status}{why}</section>').format(
        state=scene.state,
        title=title,
        status=times if scene.state == "done" else status_html(scene, say),
        why=why if scene.reason else "",
    )


def _took(scene: JobView, say: Words) -> list[tuple[str, str]]:
    """Name the times until the first picture of any decoder, and until the end of the job."""
    tile = scene.current
    looks = [seconds for seconds in (tile.tiny_s, tile.vae_s) if seconds is not None] if tile else []
    times = [("compare_look", min(looks, default=None)), ("compare_finish", scene.seconds)]
    return [(say(key), say("stage_after", seconds=fine_s(value))) for key, value in times if value is not None]


def _listen(v: View, do: Handlers, page: gr.Blocks, tab: gr.Tab) -> None:
    shown = [v.stage, v.go, v.cancel, v.jobs]
    v.go.click(do.compare, [v.prompt, v.seed, v.bundle, v.a, v.b], shown, **LONG)
    page.load(do.come_back, [v.jobs], shown, **LONG)
    v.cancel.click(do.stop, [v.jobs], [v.cancel], **LONG)
    v.bundle.change(do.change_bundle, [v.bundle, v.a, v.b], [v.a, v.b], **ORDERED)
    offer_on([page.load, tab.select], v, do.context)


def offer_on(events: list[Any], v: View, context: PanelContext) -> None:
    """Bring the choices up to date."""
    for event in events:
        event(Handlers(v, context).offer, [v.bundle, v.a, v.b], [v.bundle, v.a, v.b], **ORDERED)
