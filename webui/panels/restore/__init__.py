"""
The tab that restores photos: one, or many. Two ways in, one set of settings, and beside them what has become of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from webui.panels.restore import batch, single
from webui.widgets import photo_settings
from webui.widgets.panel_context import PanelContext


@dataclass(frozen=True)
class View:
    single: single.View
    batch: batch.View
    settings: photo_settings.Controls

    @property
    def unseen(self) -> list[Any]:
        """The components that are still to be rendered, outside of the tab."""
        return [self.single.job, self.settings.memory, self.batch.jobs, self.batch.timer]


def advise_on(event: Any, v: View, context: PanelContext) -> None:
    """Look at the photo that is in the box of the single one after this event."""
    single.advise_on(event, v.single, context)


def build_tab(context: PanelContext, page: gr.Blocks, tab: gr.Tab) -> View:
    t = context.i18n
    with gr.Row(elem_classes="columns has-stage", elem_id="photo-columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="controls"):
            with gr.Tabs(elem_id="photo-tabs"):
                with gr.Tab(t("restore_one"), id="one"):
                    single_entrance = single.entrance(context)
                with gr.Tab(t("restore_many"), id="many"):
                    batch_entrance = batch.entrance(context)
            settings = photo_settings.build(context)
        # Which of them is seen, page.css says, by the tab that is chosen. Asked of the server, the answer for the tab
        # of before came last, once, and a batch went on unseen.
        with gr.Column(scale=6, min_width=320, elem_classes="stage-column", elem_id="photo-stage"):
            single_view = single.build(context, page, single_entrance, settings)
        with gr.Column(scale=6, min_width=320, elem_classes="stage-column", elem_id="photo-board"):
            batch_view = batch.build(context, page, batch_entrance, settings)
    photo_settings.listen(settings, context, page, tab)
    return View(single_view, batch_view, settings)
