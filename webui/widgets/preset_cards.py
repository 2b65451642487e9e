"""The cards of the presets: a press on one says which."""

from __future__ import annotations

import gradio as gr
from markupsafe import Markup

import presets

PICK = """element.addEventListener('click', (event) => {
  const card = event.target.closest('[data-preset]');
  if (!card) return;
  element.querySelectorAll('[data-preset]').forEach((other) => other.setAttribute('aria-pressed', other === card));
  trigger('pick', { name: card.dataset.preset });
});"""


def build() -> gr.HTML:
    """Return the cards, whose event `pick` names the preset."""
    return gr.HTML(cards_html(), js_on_load=PICK, elem_id="presets")


def cards_html() -> Markup:
    """Return the cards in both languages at once; the style sheet shows the one the page is in."""
    card = Markup(
        '<button type="button" data-preset="{name}" aria-pressed="false">'
        '<img src="/thumbnails/{name}.webp" alt="" loading="lazy" width="128" height="128">'
        '<span lang="zh">{zh}</span><span lang="en">{en}</span></button>'
    )
    cards = (card.format(name=preset.name, **preset.title) for preset in presets.load())
    return Markup('<div class="cards" role="group">{}</div>').format(Markup().join(cards))
