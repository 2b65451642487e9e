"""
The chooser of LoRAs, for pictures and for builds: which of the files that are here, and how strongly each. A slider
waits for every LoRA that may be chosen, and those in use are shown: nothing is made while a page is open. What can wear
them is its panel's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from engines.messages import MOST_LORAS, Lora
from engines.messages.validation import limits
from webui.i18n import Words, spoken
from webui.widgets.panel_context import QUICK, PanelContext, scroll_to

USUAL, STEP = Lora("").strength, 0.05
Obstacle = Callable[[str | None], str]  # chosen model or source -> why it takes none, as a key of the locales; or ""


@dataclass(frozen=True)
class View:
    hurdle: gr.HTML
    files: gr.Dropdown
    worn: gr.State  # names, as the sliders have them
    usual: gr.State  # strength of one that is chosen next
    strengths: tuple[gr.Slider, ...]

    @property
    def values(self) -> list[Any]:
        """What `fields` reads."""
        return [self.files, self.worn, self.usual, *self.strengths]

    @property
    def rows(self) -> list[Any]:
        """What `rows` fills."""
        return [self.files, self.worn, *self.strengths]


def build(context: PanelContext, label: str, hint: str, elem_id: str) -> View:
    t, names = context.i18n, list(context.status.loras)
    hurdle = gr.HTML(visible=False)
    files = gr.Dropdown(
        names, value=[], multiselect=True, max_choices=MOST_LORAS, label=t(label), info=t(hint), elem_id=elem_id
    )
    sliders = [
        gr.Slider(*limits(Lora, "strength"), USUAL, step=STEP, label="LoRA", visible=False, elem_id=f"{elem_id}-{k}")
        for k in range(MOST_LORAS)
    ]
    view = View(hurdle, files, gr.State([]), gr.State(USUAL), tuple(sliders))
    files.change(arrange, view.values, view.rows[1:], **QUICK)
    return view


def fields(values: Sequence[Any]) -> list[dict[str, Any]]:
    """
    `loras` of a request. Strengths go by the names that the sliders had when they were sent: a LoRA that was chosen a
    moment ago has none yet, and gets the usual one. Unchecked: whoever sends them may send anything.
    """
    files, worn, usual, *strengths = values
    known = dict(zip(worn, strengths, strict=False))
    chosen = files if isinstance(files, list) else []
    return [{"name": name, "strength": known.get(name, usual)} for name in chosen]


def rows(wanted: Sequence[dict[str, Any]], usual: float) -> list[Any]:
    """The names that the sliders have from now on, and what becomes of each slider."""
    shown = [gr.update(visible=True, label=one["name"], value=one["strength"]) for one in wanted[:MOST_LORAS]]
    hidden = [gr.update(visible=False, value=usual)] * (MOST_LORAS - len(shown))
    return [[one["name"] for one in wanted], *shown, *hidden]


def arrange(*values: Any) -> list[Any]:
    """After somebody has chosen: each LoRA keeps its strength, wherever its slider goes."""
    files, worn, usual, *sliders = values
    if files == worn:  # put on by the program, which has set the sliders too: they may not have come through yet
        return [gr.skip()] * (1 + len(sliders))
    return rows(fields(values), usual)


def here(wanted: Sequence[Lora], context: PanelContext) -> list[Lora]:
    """A file may have gone since it was worn."""
    return [lora for lora in wanted if lora.name in context.status.loras]


def put_on(wanted: Sequence[dict[str, Any]], context: PanelContext, usual: float = USUAL) -> list[Any]:
    """What becomes of View.rows."""
    names = [one["name"] for one in wanted]
    return [gr.update(choices=list(context.status.loras), value=names), *rows(wanted, usual)]


def with_one_more(values: Sequence[Any], file: str, context: PanelContext) -> list[Any]:
    """What becomes of View.rows when this file is put on as well, if it is here and there is room."""
    wanted, name, usual = fields(values), Path(file).stem, values[2]
    if name in context.status.loras and name not in [one["name"] for one in wanted]:
        wanted.append({"name": name, "strength": usual})
    return put_on(wanted[:MOST_LORAS], context, usual)


def offer_on(events: list[Any], v: View, chosen: Any, obstacle: Obstacle, context: PanelContext) -> None:
    """Bring the choices up to date: files that came or went, and whether what is `chosen` takes any."""

    def offer_loras(name: str | None, request: gr.Request, *values: Any) -> list[Any]:
        say, why, names = spoken(request.headers.get("accept-language")), obstacle(name), list(context.status.loras)
        worn = fields(values)
        kept = [one for one in worn if one["name"] in names and not why]
        files = {"choices": names, "visible": not why}
        shown: list[Any] = [gr.skip()] * (len(v.rows) - 1)  # what is chosen is left alone, unless it has to go
        if kept != worn:
            files["value"], shown = [one["name"] for one in kept], rows(kept, values[2])
        return [gr.update(value=hurdle_html(why, say), visible=bool(why)), gr.update(**files), *shown]

    for event in events:
        event(offer_loras, [chosen, *v.values], [v.hurdle, *v.rows], **QUICK)


def wear_on(event: Any, v: View, lid: gr.Accordion, tabs: gr.Tabs, context: PanelContext) -> None:
    """Show the chooser of the portraits with the LoRA of the catalogue that the event names put on."""
    shown = [tabs, lid, *v.rows]

    def wear(asked: gr.EventData, *values: Any) -> list[Any]:
        model = context.model(asked._data["model"])
        if model is None or model.becomes != "lora":
            return [gr.skip()] * len(shown)
        return [gr.Tabs(selected="portrait"), gr.update(open=True), *with_one_more(values, model.target, context)]

    event(wear, v.values, shown, **QUICK).then(None, None, None, js=scroll_to(str(lid.elem_id)))


def hurdle_html(why: str, say: Words) -> str:
    return f'<p class="note">{escape(say(why))}</p>' if why else ""
