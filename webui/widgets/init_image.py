"""
The corner of the portrait panel where a photo comes in to start from, and how much of it is drawn anew.

Knows components and the request's two fields; what the worker makes of them is its own affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from engines.messages import Generate
from engines.messages.validation import limits
from webui.gradio_patches import take_uploads_only
from webui.i18n import Words
from webui.uploads import Upload
from webui.widgets.panel_context import QUICK, PanelContext, store_photo


@dataclass(frozen=True)
class StartPhoto:
    frame: gr.Accordion
    photo: gr.Image
    strength: gr.Slider
    given: gr.State  # whether there is a photo: for those who need no more of it

    @property
    def inputs(self) -> list[Any]:
        return [self.photo, self.strength]


def build(context: PanelContext) -> StartPhoto:
    t = context.i18n
    with gr.Accordion(t("start_photo"), open=False, elem_id="start-from") as frame:
        photo = gr.Image(
            label=t("start_photo"), show_label=False, placeholder=t("restore_photo"), type="filepath", image_mode=None,
            sources=["upload", "clipboard"], height=180, buttons=[], elem_id="start-photo",
        )  # fmt: skip
        take_uploads_only(photo)
        label, hint = t("start_strength"), t("start_strength_hint")
        _, high = limits(Generate, "strength")
        usual = Generate("").strength
        strength = gr.Slider(
            0.05, high, usual, step=0.05, label=label, info=hint, visible=False, elem_id="start-strength"
        )
    given = gr.State(False)
    photo.change(shown, [photo], [strength, given], **QUICK)
    return StartPhoto(frame, photo, strength, given)


def shown(photo: Upload | None) -> list[Any]:
    """Show the slider where it has something to say."""
    return [gr.update(visible=photo is not None), photo is not None]


def fields(photo: Upload | None, strength: float, context: PanelContext, say: Words) -> dict[str, Any]:
    """Return the fields of a Generate that the photo fills."""
    return {} if photo is None else {"start": store_photo(context, photo, say), "strength": strength}
