"""
The chooser of LoRAs, for pictures and for builds: which of the files that are here, and how strongly each. A slider
waits for every LoRA that may be chosen, and those in use are shown: none is added while a page is open. What takes them
is its panel's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from engines.messages import MOST_LORAS, Lora
from engines.messages.validation import limits
from webui.gradio_patches import event_data
from webui.i18n import Words
from webui.widgets.panel_context import PanelContext, in_turn, scroll_to, words_of

USUAL, STEP = Lora("").strength, 0.05
NoLorasReason = Callable[[str | None], str]  # model or source -> why it takes none, as a key of the locales; or ""


@dataclass(frozen=True)
class View:
    reason: gr.HTML
    files: gr.Dropdown
    names: gr.State  # as the sliders have them
    usual: gr.State  # strength of one that is chosen next
    strengths: tuple[gr.Slider, ...]
    order: str  # what fills in the rows is done in turn

    @property
    def values(self) -> list[Any]:
        """The components that `fields` reads."""
        return [self.files, self.names, self.usual, *self.strengths]

    @property
    def rows(self) -> list[Any]:
        """The components that `choose` fills."""
        return [self.files, self.names, *self.strengths]


def build(context: PanelContext, label: str, hint: str, elem_id: str, order: str) -> View:
    t, names = context.i18n, list(context.status.loras)
    reason = gr.HTML(visible=False)
    files = gr.Dropdown(
        names, value=[], multiselect=True, max_choices=MOST_LORAS, label=t(label), info=t(hint), elem_id=elem_id
    )
    sliders = [
        gr.Slider(*limits(Lora, "strength"), USUAL, step=STEP, label="LoRA", visible=False, elem_id=f"{elem_id}-{k}")
        for k in range(MOST_LORAS)
    ]
    view = View(reason, files, gr.State([]), gr.State(USUAL), tuple(sliders), order)
    files.change(arrange, view.values, view.rows[1:], **in_turn(view.order, "always_last"))
    return view


def fields(values: Sequence[Any]) -> list[dict[str, Any]]:
    """
    `loras` of a request. Strengths go by the names that the sliders had when they were sent: a LoRA that was chosen a
    moment ago has none yet, and gets the usual one. Unchecked: whoever sends them may send anything.
    """
    files, names, usual, *strengths = values
    strength_of = dict(zip(names, strengths, strict=False))
    chosen = files if isinstance(files, list) else []
    return [{"name": name, "strength": strength_of.get(name, usual)} for name in chosen]


def usual(values: Sequence[Any]) -> float:
    """Return the strength of one that is chosen next, of View.values. Unchecked, as `fields`."""
    strength: float = values[2]
    return strength


def rows(wanted: Sequence[dict[str, Any]], usual: float) -> list[Any]:
    """Return the names that the sliders have from now on, and what becomes of each slider."""
    shown = [gr.update(visible=True, label=lora["name"], value=lora["strength"]) for lora in wanted[:MOST_LORAS]]
    hidden = [gr.update(visible=False, value=usual)] * (MOST_LORAS - len(shown))
    return [[lora["name"] for lora in wanted], *shown, *hidden]


def arrange(*values: Any) -> list[Any]:
    """Arrange the sliders after somebody has chosen: each LoRA keeps its strength, wherever its slider goes."""
    files, names, usual, *sliders = values
    if files == names:  # chosen by the program, which has set the sliders too: they may not have come through yet
        return [gr.skip()] * (1 + len(sliders))
    return rows(fields(values), usual)


def here(wanted: Sequence[Lora], context: PanelContext) -> list[Lora]:
    """Return those of the LoRAs whose files are still here."""
    return [lora for lora in wanted if lora.name in context.status.loras]


def choose(wanted: Sequence[dict[str, Any]], context: PanelContext, usual: float = USUAL) -> list[Any]:
    """Return the updates of View.rows that choose these LoRAs."""
    names = [lora["name"] for lora in wanted]
    return [gr.update(choices=list(context.status.loras), value=names), *rows(wanted, usual)]


def choose_another(values: Sequence[Any], file: str, context: PanelContext) -> list[Any]:
    """Return the updates of View.rows that choose this file as well, if it is here and there is room."""
    wanted, name, usual = fields(values), Path(file).stem, values[2]
    if name in context.status.loras and name not in [lora["name"] for lora in wanted]:
        wanted.append({"name": name, "strength": usual})
    return choose(wanted[:MOST_LORAS], context, usual)


def offer_on(events: list[Any], v: View, chosen: Any, no_loras_reason: NoLorasReason, context: PanelContext) -> None:
    """Bring the choices up to date: files that came or went, and whether what is `chosen` takes any."""

    def offer_loras(name: str | None, request: gr.Request, *values: Any) -> list[Any]:
        say, why, names = words_of(request), no_loras_reason(name), list(context.status.loras)
        wanted = fields(values)
        possible = [lora for lora in wanted if lora["name"] in names and not why]
        files = {"choices": names, "visible": not why}
        shown: list[Any] = [gr.skip()] * (len(v.rows) - 1)  # what is chosen is left alone, unless it has to go
        if possible != wanted:
            files["value"], shown = [lora["name"] for lora in possible], rows(possible, values[2])
        return [gr.update(value=reason_html(why, say), visible=bool(why)), gr.update(**files), *shown]

    for event in events:
        event(offer_loras, [chosen, *v.values], [v.reason, *v.rows], **in_turn(v.order, "always_last"))


def apply_on(event: Any, v: View, accordion: gr.Accordion, tabs: gr.Tabs, context: PanelContext) -> None:
    """Show the chooser of the portraits, in which the LoRA of the catalogue that the event names is chosen as well."""
    shown = [tabs, accordion, *v.rows]

    def apply(asked: gr.EventData, *values: Any) -> list[Any]:
        model = context.model(event_data(asked)["model"])
        if model is None or model.becomes != "lora":
            return [gr.skip()] * len(shown)
        return [gr.Tabs(selected="portrait"), gr.update(open=True), *choose_another(values, model.target, context)]

    applied = event(apply, v.values, shown, api_name="wear", **in_turn(v.order))
    applied.then(None, None, None, js=scroll_to(str(accordion.elem_id)))


def reason_html(why: str, say: Words) -> Markup:
    return Markup('<p class="note">{}</p>').format(say(why)) if why else Markup()
