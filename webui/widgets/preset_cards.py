"""The cards of the presets: a press on one says which. Tab leads to them once, and arrows from one to the next."""

from __future__ import annotations

import gradio as gr
from markupsafe import Markup

import presets
from webui.i18n import LANGUAGES, words

PICK = """element.addEventListener('click', (event) => {
  const card = event.target.closest('[data-preset]');
  if (!card) return;
  element.querySelectorAll('[data-preset]').forEach((other) => other.setAttribute('aria-pressed', other === card));
  trigger('pick', { name: card.dataset.preset });
});
element.addEventListener('keydown', (event) => {
  const cards = [...element.querySelectorAll('[data-preset]')], at = cards.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: cards.length - 1 }[event.key];
  if (at < 0 || !cards[to]) return;
  event.preventDefault();
  [cards[at].tabIndex, cards[to].tabIndex] = [-1, 0];
  cards[to].focus();
});"""


def build() -> gr.HTML:
    """Return the cards, whose event `pick` names the preset."""
    return gr.HTML(cards_html(), js_on_load=PICK, elem_id="presets")


def cards_html() -> Markup:
    """Return the cards in both languages at once; the style sheet shows the one the page is in."""
    card = Markup(
        '<button type="button" data-preset="{name}" aria-pressed="false" tabindex="{tabindex}">'
        '<img src="/thumbnails/{name}.webp" alt="" loading="lazy" width="128" height="128">'
        '<span lang="zh">{zh}</span><span lang="en">{en}</span></button>'
    )
    cards = (
        card.format(name=preset.name, tabindex=-1 if number else 0, **preset.title)
        for number, preset in enumerate(presets.load())
    )
    label = " · ".join(words(language)("portrait_presets") for language in LANGUAGES)
    return Markup('<div class="cards" role="toolbar" aria-label="{}">{}</div>').format(label, Markup().join(cards))
