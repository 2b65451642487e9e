"""
The blanks of a preset (presets/blanks.py), under the prompt: a chip for each, which opens the list of its options
(assets/blanks.js). Tab leads to the chips once, and arrows from one to the next.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from presets import Preset
from presets.blanks import offers, read, table
from webui import asset_files
from webui.i18n import Words

PARTS = "<div data-part></div>"
Value = dict[str, Any]  # what the script is sent: the row's name, and its blanks, of each what is chosen and of what


def build() -> gr.HTML:
    """Return the chips. Their event `choose` names a blank and an option."""
    return gr.HTML({}, html_template=PARTS, js_on_load=asset_files.script("blanks.js"), elem_id="blanks")


def value(preset: Preset | None, prompt: str, dialect: str, say: Words) -> Value:
    """Return the chips for a prompt. A blank whose words are gone from it has none. `dialect`: the bundle's."""
    reading = read(prompt, preset, dialect) if preset else None
    if preset is None or reading is None:
        return {"blanks": []}
    offered = offers(preset.wording(reading.dialect).blanks)
    return {
        "label": say("blanks"),
        "blanks": [
            {
                "name": name,
                "title": say.choose(table()[name].title),
                "options": [[option, _title(name, option, say)] for option in options],
                "chosen": reading.choices[name],
            }
            for name, options in offered.items()
            if name in reading.choices
        ],
    }


def _title(blank: str, option: str, say: Words) -> str:
    return say.choose(table()[blank].options[option].title) if option else say("blank_own")
