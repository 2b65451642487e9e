"""
The settings of a restoration, shared by one photo and by many: the controls, what they come to as fields of Enhance,
and what a browser remembers of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

from engines.errors import StudioError
from engines.messages import Advice, Enhance, PhotoFormat, RestoreMode, parse
from engines.messages.validation import limits
from webui.widgets.panel_context import QUICK, PanelContext, in_turn, remember, words_of

PLAIN = Enhance("")  # what every control starts from
TOO_STRONG = 80
FACES = ("all", "center")
# In this order handlers are given them. All but `faces` are fields of Enhance.
NAMES = (
    "auto", "strength", "mode", "more_detail", "faces", "whole_picture", "min_face_px", "denoise", "sharpen",
    "contrast", "brightness", "protect_skin", "fading", "scratches", "format", "quality", "keep_date", "bundle",
    "backend",
)  # fmt: skip
# Whether photos are made smaller before they leave the browser is the browser's business alone (assets/upload.js).
SHRINKS = "() => localStorage.getItem('awportrait-prescale') !== 'off'"
SHRINK = "(on) => { localStorage.setItem('awportrait-prescale', on ? 'on' : 'off'); }"
LATEST: dict[str, Any] = {**QUICK, "trigger_mode": "always_last"}  # of a slider that is being dragged
ORDERED = in_turn("restorer", "always_last")


@dataclass(frozen=True)
class Controls:
    auto: gr.Checkbox  # while it is on, page.css hides what it decides
    strength: gr.Slider
    warning: gr.Markdown
    mode: gr.Radio
    more_detail: gr.Checkbox
    faces: gr.Radio
    whole_picture: gr.Checkbox
    min_face_px: gr.Slider
    denoise: gr.Slider
    sharpen: gr.Slider
    contrast: gr.Slider
    brightness: gr.Slider
    protect_skin: gr.Checkbox
    fading: gr.Slider
    scratches: gr.Slider
    format: gr.Radio
    quality: gr.Slider
    keep_date: gr.Checkbox
    prescale: gr.Checkbox
    bundle: gr.Dropdown
    backend: gr.Radio
    memory: gr.BrowserState

    @property
    def values(self) -> list[Any]:
        """The components of NAMES."""
        return [getattr(self, name) for name in NAMES]


def build(context: PanelContext) -> Controls:
    """Build the controls. What most photos need is in sight; the rest waits in closed accordions."""
    t = context.i18n
    gr.Markdown(t("restore_settings"), elem_classes="label")
    parts = _essentials(context)
    with gr.Accordion(t("restore_more"), open=False, elem_id="restore-more"):
        parts |= _adjustments(context)
    with gr.Accordion(t("restore_old"), open=False, elem_id="restore-old"):
        parts |= {name: _slider(context, name) for name in ("fading", "scratches")}
    with gr.Accordion(t("restore_output"), open=False, elem_id="restore-output"):
        parts |= _output(context)
    memory = gr.BrowserState({}, storage_key="awportrait-restore-settings", secret="awportrait", render=False)
    return Controls(**parts, memory=memory)


def _essentials(context: PanelContext) -> dict[str, Any]:
    t = context.i18n
    auto = gr.Checkbox(True, label=t("restore_auto"), info=t("restore_auto_hint"), elem_id="restore-auto")
    low, high = limits(Enhance, "strength")
    label, hint = t("restore_strength"), t("restore_strength_hint")
    strength = gr.Slider(low, high, PLAIN.strength, step=1, label=label, info=hint, elem_id="restore-strength")
    warning = gr.Markdown(t("restore_warning"), visible=False, elem_classes="note", elem_id="restore-warning")
    modes = [(t(f"restore_{mode}"), mode) for mode in get_args(RestoreMode)]
    mode = gr.Radio(modes, value="natural", label=t("restore_mode"), elem_id="restore-mode")
    more_detail = gr.Checkbox(False, label=t("restore_more_detail"), elem_id="restore-more-detail")
    return {"auto": auto, "strength": strength, "warning": warning, "mode": mode, "more_detail": more_detail}


def _adjustments(context: PanelContext) -> dict[str, Any]:
    t = context.i18n
    kinds = [(t(f"restore_faces_{kind}"), kind) for kind in FACES]
    faces = gr.Radio(kinds, value="all", label=t("restore_faces"), elem_id="restore-faces")
    hint = t("restore_min_face_hint")
    lowest, _ = limits(Enhance, "min_face_px")
    small = gr.Slider(
        lowest, 256, PLAIN.min_face_px, step=1, label=t("restore_min_face_px"), info=hint, elem_id="restore-min-face"
    )
    label, hint = t("restore_whole_picture"), t("restore_whole_hint")
    whole = gr.Checkbox(False, label=label, info=hint, elem_id="restore-whole")
    sliders = {name: _slider(context, name) for name in ("denoise", "sharpen", "contrast", "brightness")}
    skin = gr.Checkbox(True, label=t("restore_protect_skin"))
    return {"faces": faces, "min_face_px": small, "whole_picture": whole, **sliders, "protect_skin": skin}


def _output(context: PanelContext) -> dict[str, Any]:
    t, names = context.i18n, [bundle.name for bundle in context.bundles("restorer")] or ["restorer"]
    formats = [(kind.upper(), kind) for kind in get_args(PhotoFormat)]
    format_ = gr.Radio(formats, value="png", label=t("restore_format"), elem_id="restore-format")
    low, high = limits(Enhance, "quality")
    label = t("restore_quality")
    quality = gr.Slider(low, high, PLAIN.quality, step=1, label=label, visible=False, elem_id="restore-quality")
    date = gr.Checkbox(False, label=t("restore_keep_date"), info=t("restore_keep_date_hint"), elem_id="keep-date")
    prescale = gr.Checkbox(True, label=t("restore_prescale"), info=t("restore_prescale_hint"), elem_id="prescale")
    backend = context.backend_radio("restore-backend")
    bundle = gr.Dropdown(names, value=names[0], label=t("portrait_bundle"), visible=len(names) > 1)
    return {
        "format": format_, "quality": quality, "keep_date": date, "prescale": prescale, "backend": backend,
        "bundle": bundle,
    }  # fmt: skip


def _slider(context: PanelContext, name: str) -> gr.Slider:
    low, high = limits(Enhance, name)
    label = context.i18n(f"restore_{name}")
    return gr.Slider(low, high, getattr(PLAIN, name), step=1, label=label, elem_id=f"restore-{name}")


# ---- what the values mean


def fields(values: Sequence[Any]) -> dict[str, Any]:
    """Return the fields of Enhance, but for the photo itself. Unchecked: whoever sends them may send anything."""
    named = dict(zip(NAMES, values, strict=False))
    only_center = named.pop("faces", FACES[0]) == "center"
    return {**named, "only_center_face": only_center}


def sound(memory: object, context: PanelContext) -> dict[str, Any]:
    """Return what can still be chosen of what a browser remembers: it may be old, or somebody's joke."""
    offered: dict[str, Sequence[Any]] = {
        "faces": FACES,
        "bundle": [bundle.name for bundle in context.bundles("restorer")],
        "backend": context.backends(),
    }
    remembered = memory if isinstance(memory, dict) else {}
    chosen = {name: remembered[name] for name in offered if remembered.get(name) in offered[name]}
    for name in set(NAMES) & set(remembered) - set(offered):
        with suppress(StudioError):
            chosen[name] = getattr(parse(Enhance, {"image": "", name: remembered[name]}), name)
    return chosen


def adopted(advice: Advice) -> list[Any]:
    """Return the updates of the controls when the advice is taken."""
    return [advice.settings.get(name, gr.skip()) for name in NAMES]


@dataclass(frozen=True)
class Handlers:
    """The handlers of events. Every method may be called by anybody who can reach the server, with any arguments."""

    context: PanelContext

    def recall(self, memory: Any) -> list[Any]:
        """On load, return the settings of the last time."""
        settings = sound(memory, self.context)
        return [settings.get(name, gr.skip()) for name in NAMES]

    def change_bundle(self, name: str, request: gr.Request) -> Any:
        return self.context.offer_backends(Enhance("", bundle=name), words_of(request))

    def offer(self, name: str, request: gr.Request) -> list[Any]:
        """Offer bundles that were built and times that were measured since the page was loaded."""
        target = self.context.find("restorer", name)
        wanted = Enhance("", bundle=target.name if target else name)
        return [self.context.offer_bundles("restorer", name), self.context.offer_backends(wanted, words_of(request))]


def listen(c: Controls, context: PanelContext, page: gr.Blocks, tab: gr.Tab) -> None:
    do = Handlers(context)
    recalled = page.load(do.recall, [c.memory], c.values, **QUICK)
    gr.on([part.change for part in c.values], None, c.values, [c.memory], js=remember(NAMES), **QUICK)
    page.load(None, None, [c.prescale], js=SHRINKS, **QUICK)
    c.prescale.change(None, [c.prescale], None, js=SHRINK, **QUICK)
    c.strength.change(lambda value: gr.update(visible=value > TOO_STRONG), [c.strength], [c.warning], **LATEST)
    c.format.change(lambda value: gr.update(visible=value != "png"), [c.format], [c.quality], **QUICK)
    c.bundle.change(do.change_bundle, [c.bundle], [c.backend], **ORDERED)
    offer_on([recalled.then, tab.select], c, context)


def offer_on(events: list[Any], c: Controls, context: PanelContext) -> None:
    """Bring the choices up to date."""
    for event in events:
        event(Handlers(context).offer, [c.bundle], [c.bundle, c.backend], **ORDERED)
