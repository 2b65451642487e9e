"""
The cards of the presets, the built-in ones and a person's own (assets/presets.js): a press on one says which. Tab leads
to them once, and arrows from one to the next. Their value is a Shown, which the script merges into the row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import gradio as gr
from markupsafe import Markup

import presets
from webui import asset_files
from webui.i18n import Words
from webui.own_presets import NAME_LETTERS, OwnPreset, file_name
from webui.widgets.languages import spans, spans_of

PARTS = """<div class="cards" role="toolbar" aria-labelledby="presets-label"><div data-part="cards"></div>
<div data-part="own"></div><div data-part="ends"></div></div><div data-part="sheets"></div>
<div data-part="undo" class="undo" role="status"></div>"""
OFFERED_S = 10  # how long the page offers to undo a deletion; webui/sweep.py leaves more
Value = dict[str, Any]  # what the script is sent: HTML by the part that it is for, and `focus`, the id of a card


def build() -> gr.HTML:
    """
    Return the cards. Its events: `pick` names a preset, `fill`, `rename`, `delete`, `undo` an own one by its id,
    `keep` the name of a new one, and `take` brings the text of a file.
    """
    return gr.HTML(
        {"cards": cards_html()}, html_template=PARTS, js_on_load=asset_files.script("presets.js"), elem_id="presets"
    )


def cards_html() -> Markup:
    """
    Return the built-in cards, and the name of their row, in all languages at once; the style sheet shows the one that
    the page is in.
    """
    card = Markup(
        '<button type="button" data-preset="{name}" aria-pressed="false" tabindex="{tabindex}">'
        "{picture}{title}</button>"
    )
    label = Markup('<span id="presets-label" class="unseen">{}</span>').format(spans_of("portrait_presets"))
    return label + Markup().join(
        card.format(
            name=preset.name,
            tabindex=-1 if number else 0,
            picture=_picture(f"thumbnails/{quote(preset.name)}.webp" * preset.thumbnail.is_file(), preset.title["zh"]),
            title=spans(preset.title),
        )
        for number, preset in enumerate(presets.load())
    )


def own_cards_html(mine: Iterable[tuple[OwnPreset, str]], say: Words) -> Markup:
    """`mine`: each with the address of its picture's small copy; empty: there is none any more."""
    card = Markup(
        '<div class="own"><button type="button" data-own="{id}" aria-pressed="false" tabindex="-1">{picture}'
        '<b>{title}</b></button><button type="button" data-manage="{id}" data-title="{title}" data-file="{file}"'
        ' aria-haspopup="dialog" aria-label="{label}" title="{label}" tabindex="-1">⋯</button></div>'
    )
    return Markup().join(
        card.format(
            id=own.id,
            picture=_picture(address, title),
            title=title,
            file=file_name(title),
            label=f"{say('own_manage')}: {title}",
        )
        for own, address in mine
        for title in (say.choose(own.preset.title),)
    )


def _picture(address: str, title: str) -> Markup:
    """Return a card's picture; where there is none, the first letter of its title."""
    if not address:
        return Markup('<i aria-hidden="true">{}</i>').format(title[:1])
    return Markup('<img data-src="{}" alt="" width="128" height="128">').format(address)


def ends_html(say: Words) -> Markup:
    """Return what stands after the cards: the one that saves what the form holds, and the one that takes a file."""
    card = Markup(
        '<button type="button" data-{what} tabindex="-1"><i aria-hidden="true">{sign}</i><b>{text}</b></button>'
    )
    return card.format(what="import", sign="↥", text=say("own_import")) + card.format(
        what="save", sign="+", text=say("own_save")
    )


def sheets_html(say: Words) -> Markup:
    """Return the two dialogs: one asks for the name of a new preset, the other is what can be done with an old one."""
    name = Markup(
        '<label>{}<input name="name" required maxlength="{}" autocomplete="off" enterkeyhint="done"></label>'
    ).format(say("own_name"), NAME_LETTERS)
    return Markup(
        '<dialog class="sheet" data-sheet="save" aria-label="{save}"><form method="dialog"><h3>{save}</h3>{name}'
        '<p class="note">{hint}</p><p class="actions"><button type="submit" class="is-first">{save}</button>'
        '<button type="button" data-close>{close}</button></p></form></dialog>'
        '<dialog class="sheet" data-sheet="manage" aria-label="{manage}"><form method="dialog"><h3>{manage}</h3>{name}'
        '<p class="actions"><button type="submit" class="is-first">{rename}</button>'
        '<a data-export download>{export}</a><button type="button" data-delete>{delete}</button>'
        '<button type="button" data-close>{close}</button></p></form></dialog>'
        '<input type="file" data-file hidden tabindex="-1" aria-hidden="true">'
    ).format(
        save=say("own_save"),
        hint=say("own_save_hint"),
        manage=say("own_manage"),
        rename=say("own_rename"),
        export=say("own_export"),
        delete=say("own_delete"),
        close=say("own_close"),
        name=name,
    )


def undo_html(own: OwnPreset, say: Words) -> Markup:
    return Markup(
        '<p data-left="{left}"><span>{text}</span> <button type="button" data-undo="{id}">{undo}</button></p>'
    ).format(
        left=OFFERED_S,
        text=say("own_deleted", name=say.choose(own.preset.title)),
        id=own.id,
        undo=say("history_undo"),
    )
