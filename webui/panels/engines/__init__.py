"""The tab of engines and models: what is here, what can be had, building, comparing, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from webui.panels.engines import build, compare, doctor, models, overview
from webui.widgets.panel_context import PanelContext


@dataclass(frozen=True)
class View:
    overview: overview.View
    models: models.View
    build: build.View
    compare: compare.View
    built: list[Any]  # events after which there may be one more bundle
    fetched: list[Any]  # events after which there may be one more model

    @property
    def unseen(self) -> list[Any]:
        """The components that are still to be rendered, outside of the tab."""
        return [self.build.job, self.compare.jobs, self.models.jobs, self.models.memory, self.models.timer]


def build_tab(context: PanelContext, page: gr.Blocks, tab: gr.Tab, chip: gr.HTML) -> View:
    """`chip`: the short word on the engines in the page's header."""
    table = overview.build(context, page, tab, chip)
    gr.Markdown(context.i18n("models_owner_only"), elem_classes="note guests-only")
    catalogue, fetched = models.build(context, page, tab)
    form, built = build.build(context, page, tab)
    comparison = compare.build(context, page, tab)
    doctor.build(context)
    return View(table, catalogue, form, comparison, built, fetched)


def connect(view: View, context: PanelContext) -> None:
    """Bring each panel up to date with what the others made."""
    overview.look_on(view.built, view.overview, context)
    compare.offer_on(view.built, view.compare, context)
    build.offer_on(view.fetched, view.build, context)
    build.follow_on(models.pursue_on(view.models, view.build.job, context).then, view.build, context)
    build.fill_on(view.models.board.build, view.build, context)
