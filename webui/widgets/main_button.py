"""
The one next step of a panel: a button that begins a job, and cancels it while it goes on.

One button that changes its words, and not two that change places: what has the keyboard's focus keeps it. A press that
comes right after such a change was meant for what stood there before, as the second one of a double click is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import gradio as gr
from markupsafe import Markup

from webui.widgets.languages import spans_of

Step = Literal["begin", "cancel", "cancelling"]
PRESS = """const DEAF_MS = 700;
let timer, step = element.querySelector('[data-step]')?.dataset.step;
let words = element.querySelector('[data-step]')?.innerHTML; // of the step that begins
const hear = () => {
  const button = element.querySelector('[data-step]');
  if (button && button.dataset.step !== 'cancelling') button.ariaDisabled = 'false';
};
new MutationObserver(() => {
  const button = element.querySelector('[data-step]');
  if (!button || button.dataset.step === step) return;
  if (step === 'begin' && button.dataset.step === 'cancelling') { // the press was answered after the job had ended
    button.dataset.step = step;
    button.innerHTML = words;
  }
  step = button.dataset.step;
  if (step === 'begin') words = button.innerHTML;
  button.ariaDisabled = 'true';
  clearTimeout(timer);
  timer = setTimeout(hear, DEAF_MS);
}).observe(element, { subtree: true, childList: true, attributeFilter: ['data-step'] });
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-step]');
  if (!button || button.ariaDisabled === 'true') return;
  if (button.dataset.step === 'begin') trigger('begin', DATA);
  if (button.dataset.step === 'cancel') trigger('cancel', {});
});"""


@dataclass(frozen=True)
class MainButton:
    """`html` has the events `begin` and `cancel`. `words`: of each step, a key of the locales."""

    html: gr.HTML
    elem_id: str
    words: dict[Step, str]

    def at(self, step: Step) -> Markup:
        return button_html(self.elem_id, step, self.words[step])

    def update(self, busy: bool, first: bool) -> dict[gr.HTML, Markup]:
        """
        Return its update for what is shown of a job. `first`: nothing was yet. After that it is left alone until the
        job has ended: a press may have changed its words.
        """
        return {self.html: self.at("cancel" if busy else "begin")} if first or not busy else {}


def build(elem_id: str, begin: str, cancel: str = "portrait_cancel", data: str = "{}") -> MainButton:
    """`begin`, `cancel`: keys of the locales. `data`: what goes with the event `begin`, as the browser is to say it."""
    said: dict[Step, str] = {"begin": begin, "cancel": cancel, "cancelling": "stage_cancelling"}
    html = gr.HTML(
        button_html(elem_id, "begin", begin), js_on_load=PRESS.replace("DATA", data), elem_classes="main-step"
    )
    return MainButton(html, elem_id, said)


def button_html(elem_id: str, step: Step, key: str) -> Markup:
    # aria-disabled: one that is disabled loses the focus.
    return Markup(
        '<button type="button" id="{}" data-step="{}" aria-disabled="{}" aria-keyshortcuts="Control+Enter">{}</button>'
    ).format(elem_id, step, str(step == "cancelling").lower(), spans_of(key))
