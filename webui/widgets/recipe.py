"""
Where a picture's recipe comes in: it is dropped beside the boxes for photos, or chosen, and its text is read in the
browser (assets/recipe.js). What becomes of it is its panel's to say.
"""

from __future__ import annotations

import gradio as gr
from markupsafe import Markup

from webui.widgets.languages import spans_of

TAKE = "window.takeRecipe = (text) => trigger('take', { text });"


def build_note() -> gr.HTML:
    """Build the place where it is said what was taken. Its event `take` brings the text; it must always be there."""
    return gr.HTML("", js_on_load=TAKE, elem_id="recipe")


def build_picker() -> gr.HTML:
    """Build the button for those who cannot drop a picture into the page."""
    picker = Markup('<label class="picker">{}<input type="file" id="recipe-file" accept="image/png"></label>')
    return gr.HTML(picker.format(spans_of("recipe_read")))
