"""What stands in the panel of portraits: its components, and what a browser remembers of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from engines.messages import Generate
from engines.messages.status import BundleStatus
from engines.messages.validation import limits
from presets.vocabulary import vocabulary
from webui.widgets import blanks, init_image, loras, main_button, preset_cards, recipe
from webui.widgets.languages import spans_of
from webui.widgets.panel_context import PanelContext, in_turn

OPEN = Generate("")  # leaves everything to the bundle
QUALITIES = {"fast": 4, "standard": 8, "high": 16}  # steps
QUALITY_OF = f"(steps) => Object.entries({json.dumps(QUALITIES)}).find(([, count]) => count === steps)?.[0] ?? null"
STEPS_OF = f"(quality) => ({json.dumps(QUALITIES)})[quality]"
ORDER = "portrait"  # in which what fills in the settings is done
LATEST = in_turn(ORDER, "always_last")
AS_PHOTO = "photo"  # a choice of size: what is nearest to the start photo's shape, which the worker sees
# What a browser remembers, so that a page that is loaded anew is as it was left.
NAMES = (
    "prompt", "negative", "size", "steps", "guidance", "seed", "variety", "count", "bundle", "backend", "preview",
)  # fmt: skip
FORM = (*NAMES, "preset", "photo", "strength")  # what is drawn by; after it come the values of LoRAs
# What finished pictures offer; "restore" and "begin_with" go to other forms (page.py). What is pressed goes, and the
# keyboard's focus stays on the stage.
STAGE = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  const { develop, vary, again, sheet, restore, beginWith } = button.dataset;
  const leaves = [develop, vary, again, sheet].some((value) => value !== undefined);
  if (leaves) button.closest('.stage').focus({ preventScroll: true });
  if (develop) trigger('develop', { name: develop });
  if (vary !== undefined) trigger('vary', {});
  if (again) trigger('again', { picture: again });
  if (sheet) trigger('sheet', {});
  if (restore) trigger('restore', { picture: restore });
  if (beginWith) trigger('begin_with', { picture: beginWith });
});"""


@dataclass(frozen=True)
class View:
    cards: gr.HTML
    prompt: gr.Textbox
    blanks: gr.HTML
    introduced: gr.HTML
    main: main_button.MainButton
    contact_sheet: gr.Button
    recipe: gr.HTML
    count: gr.Slider
    quality: gr.Radio
    backend: gr.Radio
    negative: gr.Textbox
    bundle: gr.Dropdown
    size: gr.Dropdown
    steps: gr.Slider
    guidance: gr.Slider
    seed: gr.Number
    variety: gr.Slider
    any_seed: gr.Button
    same_seed: gr.Button
    preview: gr.Radio
    lora_accordion: gr.Accordion
    loras: loras.View
    start: init_image.StartPhoto
    stage: gr.HTML
    job: gr.BrowserState
    sheet: gr.BrowserState
    last_seed: gr.BrowserState
    picked: gr.BrowserState
    memory: gr.BrowserState

    @property
    def remembered(self) -> list[Any]:
        """The components of NAMES."""
        return [getattr(self, name) for name in NAMES]

    @property
    def scene(self) -> list[Any]:
        """The components that show what becomes of a job."""
        return [self.stage, self.main.html, self.job, self.sheet, self.last_seed, self.recipe]


def build(context: PanelContext) -> View:
    """Build them: on the left what is asked for, the next step in sight; on the right what comes of it."""
    with gr.Row(elem_classes="columns has-stage"):
        with gr.Column(scale=5, min_width=320, elem_classes="controls"):
            parts = _first(context)
            with gr.Accordion(context.i18n("portrait_more"), open=False):
                parts |= _more(context)
            with gr.Accordion(context.i18n("loras_title"), open=False, elem_id="wardrobe") as lora_accordion:
                chooser = loras.build(context, "loras_choose", "loras_choose_hint", "loras", ORDER)
        with gr.Column(scale=6, min_width=320, elem_classes="stage-column"):
            stage = gr.HTML(elem_id="stage", js_on_load=STAGE)
    return View(
        **parts,
        lora_accordion=lora_accordion,
        loras=chooser,
        stage=stage,
        job=gr.BrowserState("", storage_key="awportrait-job", secret="awportrait"),
        sheet=gr.BrowserState("", storage_key="awportrait-sheet", secret="awportrait"),
        last_seed=gr.BrowserState(-1, storage_key="awportrait-seed", secret="awportrait"),
        picked=gr.BrowserState("", storage_key="awportrait-preset", secret="awportrait"),  # whose words were taken
        memory=gr.BrowserState({}, storage_key="awportrait-portrait-settings", secret="awportrait"),
    )


def _first(context: PanelContext) -> dict[str, Any]:
    t = context.i18n
    cards = preset_cards.build()
    prompt = gr.Textbox(
        "", label=t("portrait_prompt"), placeholder=t("portrait_prompt_hint"), lines=2, max_lines=8, elem_id="prompt"
    )
    offered = blanks.build()
    introduced = gr.HTML(introduced_html(context.bundles("portrait")[0]), elem_id="introduced")
    main = main_button.build("generate", "portrait_go")
    contact_sheet = gr.Button(t("portrait_sheet"), elem_id="contact-sheet")
    note = recipe.build_note()
    with gr.Row():
        names = [(t(f"portrait_{name}"), name) for name in QUALITIES]
        quality = gr.Radio(
            names, value="standard", label=t("portrait_quality"), min_width=220, scale=2, elem_id="quality"
        )
        count = gr.Slider(
            *limits(Generate, "count"), OPEN.count, step=1, label=t("portrait_count"), min_width=140, elem_id="count"
        )
    start = init_image.build(context)
    backend = context.backend_radio("backend")
    return {
        "cards": cards, "prompt": prompt, "blanks": offered, "introduced": introduced, "main": main,
        "contact_sheet": contact_sheet, "recipe": note, "quality": quality, "count": count, "backend": backend,
        "start": start,
    }  # fmt: skip


def introduced_html(bundle: BundleStatus) -> Markup:
    """Return what a page says of the model when it opens, in all languages: else the form would move as it comes."""
    if not vocabulary(bundle.dialect):
        return Markup()
    return Markup('<p class="note" role="status"><span>{}</span></p>').format(spans_of("portrait_sketcher"))


def _more(context: PanelContext) -> dict[str, Any]:
    t, bundles = context.i18n, context.bundles("portrait")
    first, names = bundles[0], [bundle.name for bundle in bundles]
    hint = t("portrait_negative_hint")
    negative = gr.Textbox("", label=t("portrait_negative"), info=hint, lines=2, elem_id="negative")
    gr.Markdown(t("portrait_weights_hint"), elem_classes="note")
    bundle = gr.Dropdown(names, value=first.name, label=t("portrait_bundle"), visible=len(names) > 1, elem_id="bundle")
    size = gr.Dropdown(sizes(first), value=sizes(first)[0], label=t("portrait_size"), elem_id="size")
    steps = gr.Slider(*limits(Generate, "steps"), first.steps, step=1, label=t("portrait_steps"), elem_id="steps")
    hint = t(guidance_hint(first))
    guidance = gr.Slider(0, 10, first.guidance, step=0.1, label=t("portrait_guidance"), info=hint, elem_id="guidance")
    label, hint = t("portrait_seed"), t("portrait_seed_hint")
    low, high = limits(Generate, "seed")
    seed = gr.Number(OPEN.seed, precision=0, minimum=low, maximum=high, label=label, info=hint, elem_id="seed")
    with gr.Row():
        any_seed = gr.Button(t("portrait_seed_random"), size="sm")
        same_seed = gr.Button(t("portrait_seed_last"), size="sm", elem_id="same-seed")
    label, hint = t("portrait_variety"), t("portrait_variety_hint")
    variety = gr.Slider(*limits(Generate, "variety"), OPEN.variety, step=5, label=label, info=hint, elem_id="variety")
    modes = [(t(f"portrait_preview_{mode}"), mode) for mode in ("live", "off", "only")]
    preview = gr.Radio(modes, value="live", label=t("portrait_preview"), elem_id="preview-mode")
    recipe.build_picker()
    return {
        "negative": negative, "bundle": bundle, "size": size, "steps": steps, "guidance": guidance, "seed": seed,
        "any_seed": any_seed, "same_seed": same_seed, "variety": variety, "preview": preview,
    }  # fmt: skip


def guidance_hint(bundle: BundleStatus) -> str:
    """Elsewhere Stable Diffusion's guidance counts from 1 = none."""
    return "portrait_guidance_hint_sd" if bundle.family == "sd" else "portrait_guidance_hint"


def sizes(bundle: BundleStatus) -> list[str]:
    return [f"{width}×{height}" for width, height in bundle.sizes]
