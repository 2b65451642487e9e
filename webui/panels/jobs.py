"""The panel of one's own jobs that have not come to anything yet; the owner of the house pauses the queue here."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from webui.boards import jobs as board_of_jobs
from webui.boards.jobs import ACTS
from webui.gradio_patches import event_data
from webui.widgets.panel_context import PanelContext, Updates, complaining, in_turn, words_of

LOOK_S = 1.0
ORDERED = in_turn("jobs")
PRESSES = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) trigger('press', { act: button.dataset.act, job: button.dataset.job || '' });
});"""


@dataclass(frozen=True)
class View:
    board: gr.HTML
    outline: gr.State  # which jobs there are, and how each is
    timer: gr.Timer


def build(context: PanelContext, tab: gr.Tab) -> View:
    board = gr.HTML(elem_id="jobs", js_on_load=PRESSES)
    view = View(board, gr.State(""), gr.Timer(LOOK_S, active=False, render=False))
    shown = [view.board, view.outline, view.timer]

    def look_at_jobs(request: gr.Request) -> Updates:
        board = board_of_jobs.read(context.jobs.of(request))
        return {
            view.board: board_of_jobs.board_html(board, words_of(request)),
            view.outline: board.outline,
            view.timer: gr.Timer(active=board.busy),
        }

    def press(event: gr.EventData, request: gr.Request) -> Updates:
        """Anybody may send anything: what is no act changes nothing."""
        asked = event_data(event)
        if act := ACTS.get(str(asked["act"])):
            with complaining(words_of(request)):
                act(context.jobs.of(request), str(asked["job"]))
        return look_at_jobs(request)

    gr.on([tab.select, view.timer.tick], look_at_jobs, None, shown, **ORDERED)
    board.press(press, None, shown, **in_turn("jobs", "multiple"))
    return view
