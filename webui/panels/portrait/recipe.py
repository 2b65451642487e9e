"""
How a picture was made, taken from its file into the form: its words and settings, and whether the same picture comes of
them here. The file stays in the browser (assets/recipe.js).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from markupsafe import Markup

import presets
from engines.errors import RequestError
from engines.messages import Final, Generate
from engines.messages.status import BundleStatus
from webui import infotext
from webui.gradio_patches import event_data
from webui.i18n import Words
from webui.infotext import Infotext
from webui.panels.portrait.controls import View
from webui.panels.portrait.handlers import Handlers
from webui.widgets.panel_context import GROUPS, PanelContext, Updates, refusal, words_of


@dataclass(frozen=True)
class Outlook:
    """What comes of a recipe here: a key of the locales and its facts, and the backend that comes closest."""

    key: str
    facts: dict[str, str]
    backend: str = "auto"


def take(do: Handlers, event: gr.EventData, request: gr.Request) -> tuple[Updates, Markup]:
    """Return the form's updates, and what is said of them. gr.Error: there is no recipe for a portrait in it."""
    say, text = words_of(request), str(event_data(event)["text"])
    try:
        info = infotext.read(text)
        if info.is_restoration:
            raise refusal(say("recipe_restored"))
        bundle = _bundle(info, do.context)
        order = info.request(bundle.family if bundle else "")
    except RequestError as exc:
        raise refusal(say("recipe_none")) from exc
    if not info.is_ours:
        order = _fitted(order, do.bundle(order.bundle))
    outlook = foresee(info, bundle, order, do.context)
    settings = do.take_up(order, Final((), order.seed, 0.0, ""), request)
    if outlook.backend in do.context.backends():
        settings[do.view.backend] = {**settings[do.view.backend], "value": outlook.backend}
    return settings, note_html(outlook, say)


def foresee(info: Infotext, bundle: BundleStatus | None, order: Generate, context: PanelContext) -> Outlook:
    """Say whether it comes out as it was."""
    if not info.is_ours:
        return Outlook("recipe_foreign", {"model": info.values.get("Model", "?")[:60]})
    if bundle is None:
        return Outlook("recipe_no_model", {"model": info.values["Model"][:60]})
    if info.began_with_a_photo:
        return Outlook("recipe_photo", {})
    wearable = context.status.loras if bundle.takes_loras and context.torch_is_here() else ()
    if gone := [lora.name for lora in order.loras if lora.name not in wearable]:
        return Outlook("recipe_no_loras", {"loras": ", ".join(gone)})
    if order.loras:  # which PyTorch wears
        return Outlook("recipe_exact", {}, "pytorch")
    drawn_by = info.values["Engine"], info.values.get("Precision", "")  # which earlier versions did not write
    backend = next((name for name in GROUPS if _is_same(_server(bundle, name), drawn_by)), None)
    if backend is not None:
        return Outlook("recipe_exact", {}, backend)
    verdict = bundle.verdict_for("auto")
    psnr_db = verdict.psnr_db if verdict else 0.0
    return Outlook("recipe_close", {"db": f"{psnr_db:.0f}"}) if psnr_db else Outlook("recipe_near", {})


def note_html(outlook: Outlook, say: Words) -> Markup:
    return Markup('<p class="note" role="status">{}</p>').format(say(outlook.key, **outlook.facts))


def _bundle(info: Infotext, context: PanelContext) -> BundleStatus | None:
    wanted = info.values["Model"] if info.is_ours else ""
    return next((bundle for bundle in context.bundles("portrait") if bundle.name == wanted), None)


def _server(bundle: BundleStatus, backend: str) -> tuple[str, str]:
    """Return the engine that serves a backend and its arithmetic; empty: nothing is known of them yet."""
    if backend == "auto":
        return bundle.engine, bundle.precision
    verdict = bundle.verdict_for(backend)
    return (verdict.engine, verdict.precision) if verdict else ("", "")


def _is_same(server: tuple[str, str], drawn_by: tuple[str, str]) -> bool:
    """Tell whether both are the same engine in the same arithmetic, as far as it is known."""
    return server[0] == drawn_by[0] and (server[1] == drawn_by[1] or not all((server[1], drawn_by[1])))


def _fitted(order: Generate, target: BundleStatus) -> Generate:
    """Another program's sizes are those of its models."""
    if not (order.width and order.height):
        return order
    width, height = presets.nearest_size(order.width, order.height, target.sizes)
    return replace(order, width=width, height=height)


def outputs(v: View) -> list[Any]:
    """The components that `take` updates."""
    return [*v.remembered, v.start.photo, v.lora_accordion, *v.loras.rows, v.picked]
