"""The panel that draws portraits: preset cards, words, a few settings, and the stage on which the picture appears."""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.panels.portrait import controls, own_presets, recipe
from webui.panels.portrait.controls import LATEST, NAMES, ORDER, QUALITY_OF, STEPS_OF, View
from webui.panels.portrait.handlers import Handlers
from webui.widgets import loras
from webui.widgets.panel_context import LONG, QUICK, PanelContext, Updates, in_turn, remember, within_limits

__all__ = ["ORDER", "Handlers", "View", "build", "develop_on", "offer_on", "take_recipes"]


def build(context: PanelContext, page: gr.Blocks, tab: gr.Tab) -> View:
    view = controls.build(context)
    do = Handlers(view, context)
    _listen(view, do, page, tab)
    own_presets.listen(do, page)
    return view


def _listen(v: View, do: Handlers, page: gr.Blocks, tab: gr.Tab) -> None:
    form = [*v.remembered, v.picked, *v.start.inputs, *v.loras.values]
    drawn = v.main.html.begin(do.generate, form, v.scene, **LONG)
    v.contact_sheet.click(do.contact_sheet, form, v.scene, **LONG)
    page.load(do.come_back, [v.job, v.sheet], v.scene, **LONG)
    v.main.html.cancel(do.stop, [v.job], [v.main.html], **LONG)
    recalled = page.load(do.recall_settings, [v.memory], v.remembered, **in_turn(ORDER))
    gr.on([part.change for part in v.remembered], None, v.remembered, [v.memory], js=remember(NAMES), **QUICK)
    v.quality.input(None, [v.quality], [v.steps], js=STEPS_OF, **QUICK)
    v.steps.change(None, [v.steps], [v.quality], js=QUALITY_OF, **QUICK)
    fit: dict[str, Any] = {"fn": do.shape, "inputs": [v.start.photo, v.size, v.bundle], "outputs": [v.size], **LATEST}
    gr.on([v.start.photo.upload, v.start.photo.clear], **fit)
    picked = [v.prompt, v.negative, v.size, v.guidance, v.picked, v.loras.usual]
    v.cards.pick(do.pick, [v.bundle], picked, **in_turn(ORDER, "multiple")).then(**fit)
    v.bundle.input(do.change_bundle, [v.bundle], [v.size, v.steps, v.guidance, v.backend], **LATEST).then(**fit)
    words = [v.prompt, v.bundle, v.picked]
    saying = {"fn": do.introduce, "inputs": words, "outputs": [v.introduced, v.blanks], **QUICK}
    gr.on([v.prompt.change, v.bundle.change, v.picked.change, page.load], **saying, trigger_mode="always_last")
    v.blanks.choose(do.fill_blank, words, [v.prompt], **in_turn(ORDER, "multiple"))
    v.any_seed.click(lambda: -1, None, [v.seed], **QUICK)
    v.same_seed.click(lambda seed: seed, [v.last_seed], [v.seed], **QUICK)
    v.stage.vary(do.vary, [v.job], v.scene, **LONG)
    v.stage.again(do.draw_again, [v.job], v.scene, **LONG)
    v.stage.sheet(do.back_to_sheet, [v.sheet], v.scene, **LONG)
    develop_on(v.stage.develop, v, do.context)
    gr.on([*_changes(v), v.prompt.blur, v.negative.blur], **_foretelling(v, do))
    offer_on([recalled.then, tab.select, drawn.then], v, do.context)
    loras.offer_on([v.bundle.change], v.loras, v.bundle, do.no_loras_reason, do.context)


def _foretelling(v: View, do: Handlers) -> dict[str, Any]:
    """Of the photo it is only told whether there is one: a file would be looked at again for each move of a slider."""
    form = [*v.remembered, v.picked, v.start.given, v.start.strength, *v.loras.values]
    return {"fn": do.foretell, "inputs": form, "outputs": [v.backend], "js": within_limits(form), **LATEST}


def _changes(v: View) -> list[Any]:
    """What a portrait's time depends on. Of words only weights do: they are looked at when one has left them."""
    start, parts = v.start, (v.size, v.steps, v.guidance, v.count, v.bundle, v.preview, v.loras.files)
    return [*(part.change for part in parts), start.strength.change, start.given.change]


def take_recipes(v: View, context: PanelContext, tabs: gr.Tabs) -> None:
    """Fill the form with the recipe of a picture, wherever on the page that was dropped."""
    do = Handlers(v, context)

    def take_recipe(event: gr.EventData, request: gr.Request) -> Updates:
        settings, note = recipe.take(do, event, request)
        return {tabs: gr.Tabs(selected="portrait"), v.recipe: note, **settings}

    v.recipe.take(take_recipe, None, [tabs, v.recipe, *recipe.outputs(v)], **in_turn(ORDER))


def develop_on(event: Any, v: View, context: PanelContext) -> None:
    """Develop the picture that the event names, here on the stage."""
    event(Handlers(v, context).develop, [v.backend, v.job], v.scene, **LONG)


def offer_on(events: list[Any], v: View, context: PanelContext) -> None:
    """Bring the choices up to date."""
    do = Handlers(v, context)
    for event in events:
        offered = event(do.offer, [v.bundle], [v.bundle, v.size, v.steps, v.guidance, v.backend], **LATEST)
        offered.then(**_foretelling(v, do))
    loras.offer_on(events, v.loras, v.bundle, do.no_loras_reason, context)
