"""The panel that draws portraits: preset cards, words, a few settings, and the stage on which the picture appears."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr
from anyio import to_thread
from markupsafe import Markup

import presets
from engines.messages import Develop, Final, Generate, PreviewMode
from engines.messages.status import BundleStatus
from engines.messages.validation import limits
from webui.follow import follow, resume
from webui.gradio_patches import event_data
from webui.i18n import Words
from webui.stage import job_html
from webui.stream import JobView
from webui.uploads import Upload
from webui.widgets import init_image, loras, preset_cards
from webui.widgets.panel_context import (
    LONG,
    QUICK,
    PanelContext,
    Updates,
    cancel_button,
    cancel_pressed,
    complaining,
    in_turn,
    parsed,
    submit,
    words_of,
)

OPEN = Generate("")  # leaves everything to the bundle
QUALITIES = {"fast": 4, "standard": 8, "high": 16}  # steps
ORDER = "portrait"  # in which what fills in the settings is done
LATEST = in_turn(ORDER, "always_last")
AS_PHOTO = "photo"  # a choice of size: what is nearest to the start photo's shape, which the worker sees
STAGE = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-develop]');
  if (button) trigger('develop', { name: button.dataset.develop });
});"""


@dataclass(frozen=True)
class View:
    cards: gr.HTML
    prompt: gr.Textbox
    count: gr.Slider
    quality: gr.Radio
    go: gr.Button
    cancel: gr.Button
    backend: gr.Radio
    negative: gr.Textbox
    bundle: gr.Dropdown
    size: gr.Dropdown
    steps: gr.Slider
    guidance: gr.Slider
    seed: gr.Number
    any_seed: gr.Button
    same_seed: gr.Button
    preview: gr.Radio
    lora_accordion: gr.Accordion
    loras: loras.View
    start: init_image.StartPhoto
    stage: gr.HTML
    job: gr.BrowserState
    last_seed: gr.BrowserState
    picked: gr.State


def build(context: PanelContext, page: gr.Blocks, tab: gr.Tab) -> View:
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="controls"):
            parts = _main_controls(context)
            with gr.Accordion(context.i18n("portrait_more"), open=False):
                parts |= _more_controls(context)
            with gr.Accordion(context.i18n("loras_title"), open=False, elem_id="wardrobe") as lora_accordion:
                chooser = loras.build(context, "loras_choose", "loras_choose_hint", "loras", ORDER)
        with gr.Column(scale=6, min_width=320):
            stage = gr.HTML(elem_id="stage", js_on_load=STAGE)
    view = View(
        **parts,
        lora_accordion=lora_accordion,
        loras=chooser,
        stage=stage,
        job=gr.BrowserState("", storage_key="awportrait-job", secret="awportrait"),
        last_seed=gr.BrowserState(-1, storage_key="awportrait-seed", secret="awportrait"),
        picked=gr.State(""),  # the preset whose words were taken
    )
    _listen(view, Handlers(view, context), page, tab)
    return view


def _main_controls(context: PanelContext) -> dict[str, Any]:
    t = context.i18n
    gr.Markdown(t("portrait_presets"), elem_classes="label")
    cards = preset_cards.build()
    prompt = gr.Textbox(
        "", label=t("portrait_prompt"), placeholder=t("portrait_prompt_hint"), lines=3, max_lines=8, elem_id="prompt"
    )
    with gr.Row():
        names = [(t(f"portrait_{name}"), name) for name in QUALITIES]
        quality = gr.Radio(names, value="standard", label=t("portrait_quality"), min_width=220, scale=2)
        count = gr.Slider(
            *limits(Generate, "count"), OPEN.count, step=1, label=t("portrait_count"), min_width=140, elem_id="count"
        )
    start = init_image.build(context)
    go = gr.Button(t("portrait_go"), variant="primary", size="lg", elem_id="generate")
    cancel = gr.Button(t("portrait_cancel"), variant="stop", size="lg", visible=False, elem_id="cancel")
    backend = context.backend_radio("backend")
    return {
        "cards": cards, "prompt": prompt, "quality": quality, "count": count, "go": go, "cancel": cancel,
        "backend": backend, "start": start,
    }  # fmt: skip


def _more_controls(context: PanelContext) -> dict[str, Any]:
    t, bundles = context.i18n, context.bundles("portrait")
    first, names = bundles[0], [bundle.name for bundle in bundles]
    negative = gr.Textbox("", label=t("portrait_negative"), info=t("portrait_negative_hint"), lines=2)
    bundle = gr.Dropdown(names, value=first.name, label=t("portrait_bundle"), visible=len(names) > 1, elem_id="bundle")
    size = gr.Dropdown(sizes(first), value=sizes(first)[0], label=t("portrait_size"))
    steps = gr.Slider(*limits(Generate, "steps"), first.steps, step=1, label=t("portrait_steps"), elem_id="steps")
    hint = t(guidance_hint(first))
    guidance = gr.Slider(0, 10, first.guidance, step=0.1, label=t("portrait_guidance"), info=hint, elem_id="guidance")
    label, hint = t("portrait_seed"), t("portrait_seed_hint")
    low, high = limits(Generate, "seed")
    seed = gr.Number(OPEN.seed, precision=0, minimum=low, maximum=high, label=label, info=hint, elem_id="seed")
    with gr.Row():
        any_seed = gr.Button(t("portrait_seed_random"), size="sm")
        same_seed = gr.Button(t("portrait_seed_last"), size="sm", elem_id="same-seed")
    modes = [(t(f"portrait_preview_{mode}"), mode) for mode in ("live", "off", "only")]
    preview = gr.Radio(modes, value="live", label=t("portrait_preview"), elem_id="preview-mode")
    return {
        "negative": negative, "bundle": bundle, "size": size, "steps": steps, "guidance": guidance, "seed": seed,
        "any_seed": any_seed, "same_seed": same_seed, "preview": preview,
    }  # fmt: skip


@dataclass(frozen=True)
class Handlers:
    """The handlers of events. Every method may be called by anybody who can reach the server, with any arguments."""

    view: View
    context: PanelContext

    def show(self, scene: JobView, say: Words) -> Updates:
        busy = scene.state == "running"
        updates: Updates = {
            self.view.stage: job_html(scene, say),
            self.view.go: gr.update(visible=not busy),
            self.view.cancel: cancel_button(self.context, busy),
        }
        return updates if scene.seed is None else {**updates, self.view.last_seed: scene.seed}

    async def watch(self, order: Generate | Develop, scene: JobView, request: gr.Request) -> AsyncIterator[Updates]:
        say, own = words_of(request), self.context.jobs.of(request)
        (job_id,) = await to_thread.run_sync(submit, own, say, order)
        yield {self.view.job: job_id, **self.show(scene, say)}
        async for now in follow(own, job_id, scene):
            yield self.show(now, say)

    async def generate(
        self, prompt: str, negative: str, size: str, steps: int, guidance: float, seed: float | None, count: int,
        bundle: str, backend: str, preset: str, preview: PreviewMode, photo: Upload | None, strength: float,
        request: gr.Request, *lora_values: Any,
    ) -> AsyncIterator[Updates]:  # fmt: skip
        say = words_of(request)
        width, height = (None, None) if size == AS_PHOTO else map(int, size.split("×"))
        values = {
            "prompt": prompt, "negative": negative, "width": width, "height": height, "steps": steps,
            "guidance": guidance, "seed": -1 if seed is None else seed, "count": count, "bundle": bundle,
            "backend": backend, "preset": preset, "preview": preview, "loras": loras.fields(lora_values),
            **await to_thread.run_sync(init_image.fields, photo, strength, self.context, say),
        }  # fmt: skip
        ratio = width / height if width and height else 1.0
        scene = JobView(state="running", caption=prompt, ratio=ratio, status="stage_load")
        async for updates in self.watch(parsed(Generate, values, say), scene, request):
            yield updates

    async def develop(self, backend: str, event: gr.EventData, request: gr.Request) -> AsyncIterator[Updates]:
        say, scene = words_of(request), JobView(task="develop", state="running", status="stage_load")
        with complaining(say):
            image = self.context.jobs.name(str(event_data(event)["name"]))
        order = parsed(Develop, {"image": image, "backend": backend}, say)
        async for updates in self.watch(order, scene, request):
            yield updates

    async def come_back(self, job_id: str, request: gr.Request) -> AsyncIterator[Updates]:
        """On load, show what this browser's last job has come to."""
        say = words_of(request)
        yield {self.view.stage: job_html(JobView(), say)}
        async for scene in resume(self.context.jobs.of(request), job_id, JobView()):
            yield self.show(scene, say)

    def stop(self, job_id: str, request: gr.Request) -> Any:
        return cancel_pressed(self.context, job_id, request)

    def pick(self, bundle: str, event: gr.EventData, request: gr.Request) -> list[Any]:
        language = words_of(request).language
        preset = next(preset for preset in presets.load() if preset.name == event_data(event)["name"])
        target = self.bundle(bundle)
        wording = preset.wording(target.dialect)
        width, height = presets.nearest_size(preset.width, preset.height, target.sizes)
        guidance = target.guidance if wording.guidance is None else wording.guidance
        prompt, negative, size = wording.prompt[language], wording.negative[language], f"{width}×{height}"
        return [prompt, negative, size, guidance, preset.name, preset.lora_strength]

    def change_bundle(self, name: str, request: gr.Request) -> list[Any]:
        """Set size, steps and guidance to what the bundle does best."""
        target = self.bundle(name)
        return [*self._suited(target), self._backends(target, request)]

    def _suited(self, target: BundleStatus, r: Generate = OPEN) -> list[Any]:
        """Return size, steps and guidance as a request has them; what it leaves to the bundle, as that wants it."""
        width, height = target.sizes[0]
        size = f"{r.width or width}×{r.height or height}"
        guidance = target.guidance if r.guidance is None else r.guidance
        return [
            gr.update(choices=list(dict.fromkeys([*sizes(target), size])), value=size),
            r.steps or target.steps,
            gr.update(value=guidance, info=self.context.i18n(guidance_hint(target))),
        ]

    def shape(self, photo: Upload | None, size: str, name: str, request: gr.Request) -> Any:
        """Offer the shape of a photo that came in, where the bundle draws several; without a photo, as before."""
        bundle, say = self.bundle(name), words_of(request)
        names, shapes = sizes(bundle), {width / height for width, height in bundle.sizes}
        if photo is not None and len(shapes) > 1:
            return gr.update(choices=[(say("portrait_size_photo"), AS_PHOTO), *names], value=AS_PHOTO)
        return gr.update(choices=names, value=names[0]) if size == AS_PHOTO else gr.skip()

    def _backends(self, target: BundleStatus | None, request: gr.Request) -> Any:
        return self.context.offer_backends(target, words_of(request))

    def offer(self, name: str, request: gr.Request) -> list[Any]:
        """Offer bundles that were built and times that were measured since the page was loaded."""
        target = self.context.find("portrait", name)
        suited = self._suited(target) if target and target.name != name else [gr.skip()] * 3
        return [self.context.offer_bundles("portrait", name), *suited, self._backends(target, request)]

    def take_up(self, r: Generate, final: Final, request: gr.Request) -> Updates:
        """Return the settings of a picture, to draw it again. What is no longer here is said."""
        v, say, bundles = self.view, words_of(request), self.context.bundles("portrait")
        target = next((bundle for bundle in bundles if bundle.name == r.bundle), bundles[0])
        active = [] if self.no_loras_reason(target.name) else loras.here(r.loras, self.context)
        gone = [lora.name for lora in r.loras if lora not in active] + [r.bundle] * (target.name != r.bundle)
        if gone:
            gr.Warning(Markup.escape(say("history_gone", names=", ".join(gone))))
        return {
            v.lora_accordion: gr.update(open=True) if active else gr.skip(),
            v.prompt: r.prompt, v.negative: r.negative, v.seed: final.seed, v.count: r.count, v.preview: r.preview,
            v.bundle: {**self.context.offer_bundles("portrait", target.name), "value": target.name},
            v.backend: self._backends(target, request), v.start.photo: None,
            **dict(zip((v.size, v.steps, v.guidance), self._suited(target, r), strict=True)),
            **dict(zip(v.loras.rows, loras.choose([asdict(lora) for lora in active], self.context), strict=True)),
        }  # fmt: skip

    def no_loras_reason(self, name: str | None) -> str:
        """Return why this bundle takes no LoRA, as a key of the locales; or nothing."""
        target = self.context.find("portrait", name or "")
        if target is None or not target.takes_loras:
            return "loras_compiled"
        return "" if self.context.torch_is_here() else "loras_no_torch"

    def bundle(self, name: str) -> BundleStatus:
        return next(bundle for bundle in self.context.bundles("portrait") if bundle.name == name)


def _listen(v: View, do: Handlers, page: gr.Blocks, tab: gr.Tab) -> None:
    order = [
        v.prompt, v.negative, v.size, v.steps, v.guidance, v.seed, v.count, v.bundle, v.backend, v.picked, v.preview,
        *v.start.inputs, *v.loras.values,
    ]  # fmt: skip
    drawn = gr.on([v.go.click, v.prompt.submit], do.generate, order, _shown(v), **LONG)
    page.load(do.come_back, [v.job], _shown(v), **LONG)
    v.cancel.click(do.stop, [v.job], [v.cancel], **LONG)
    v.quality.change(QUALITIES.__getitem__, [v.quality], [v.steps], **LATEST)
    shape: dict[str, Any] = {"fn": do.shape, "inputs": [v.start.photo, v.size, v.bundle], "outputs": [v.size], **LATEST}
    gr.on([v.start.photo.upload, v.start.photo.clear], **shape)
    picked = [v.prompt, v.negative, v.size, v.guidance, v.picked, v.loras.usual]
    v.cards.pick(do.pick, [v.bundle], picked, **in_turn(ORDER, "multiple")).then(**shape)
    v.bundle.input(do.change_bundle, [v.bundle], [v.size, v.steps, v.guidance, v.backend], **LATEST).then(**shape)
    v.any_seed.click(lambda: -1, None, [v.seed], **QUICK)
    v.same_seed.click(lambda seed: seed, [v.last_seed], [v.seed], **QUICK)
    develop_on(v.stage.develop, v, do.context)
    offer_on([page.load, tab.select, drawn.then], v, do.context)
    loras.offer_on([v.bundle.change], v.loras, v.bundle, do.no_loras_reason, do.context)


def develop_on(event: Any, v: View, context: PanelContext) -> None:
    """Develop the picture that the event names, here on the stage."""
    event(Handlers(v, context).develop, [v.backend], _shown(v), **LONG)


def offer_on(events: list[Any], v: View, context: PanelContext) -> None:
    """Bring the choices up to date."""
    do = Handlers(v, context)
    for event in events:
        event(do.offer, [v.bundle], [v.bundle, v.size, v.steps, v.guidance, v.backend], **LATEST)
    loras.offer_on(events, v.loras, v.bundle, do.no_loras_reason, context)


def _shown(v: View) -> list[Any]:
    return [v.stage, v.go, v.cancel, v.job, v.last_seed]


def guidance_hint(bundle: BundleStatus) -> str:
    """Elsewhere Stable Diffusion's guidance counts from 1 = none."""
    return "portrait_guidance_hint_sd" if bundle.family == "sd" else "portrait_guidance_hint"


def sizes(bundle: BundleStatus) -> list[str]:
    return [f"{width}×{height}" for width, height in bundle.sizes]
