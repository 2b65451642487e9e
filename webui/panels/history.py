"""The panel of the latest pictures, and how to make them again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import gradio as gr
from markupsafe import Markup

from engines.jobs import Finished
from engines.messages import Enhance, Generate, Request
from webui.i18n import Words
from webui.stream import Tile, actions_html, address
from webui.widgets.panel_context import QUICK, PanelContext, words_of

SHOWN, LOOKED_AT = 40, 400  # jobs; looks at photos and builds end without a picture
REUSE = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-reuse]');
  if (button) trigger('reuse', { job: button.dataset.reuse });
  const develop = event.target.closest('[data-develop]');
  if (develop) trigger('develop', { name: develop.dataset.develop });
});"""


@dataclass(frozen=True)
class View:
    grid: gr.HTML
    tab: gr.Tab


def build(context: PanelContext, page: gr.Blocks, tab: gr.Tab) -> View:
    gr.Markdown(context.i18n("history_title"), elem_classes="label")
    grid = gr.HTML(elem_id="history", js_on_load=REUSE)

    def refresh(request: gr.Request) -> Markup:
        shown = (job for job in context.queue.finished(LOOKED_AT) if _shows_something(job, context.queue.folder))
        return grid_html(list(islice(shown, SHOWN)), words_of(request))

    tab.select(refresh, None, [grid], **QUICK)
    return View(grid, tab)


def _shows_something(job: Finished, folder: Path) -> bool:
    """Tell whether its picture is still there: it may have been deleted."""
    return bool(job.final.images) and (folder / job.final.images[0]).is_file()


def grid_html(jobs: list[Finished], say: Words) -> Markup:
    if not jobs:
        return Markup('<p class="note">{}</p>').format(say("history_empty"))
    return Markup('<div class="history">{}</div>').format(Markup().join(_card(finished, say) for finished in jobs))


def _words(request: Request, say: Words) -> str:
    if isinstance(request, Generate):
        return request.prompt
    if isinstance(request, Enhance):
        return " · ".join(filter(None, (say("history_restored"), request.name)))
    return say("history_developed")


def _card(finished: Finished, say: Words) -> Markup:
    request, final = finished.job.request, finished.final
    words = _words(request, say)
    picture = Markup(
        '<a href="{address}" target="_blank" rel="noopener"><img src="{address}" alt="{words}" loading="lazy"></a>'
    )
    again = Markup('<button type="button" data-reuse="{}">{}</button>').format(finished.job.id, say("history_reuse"))
    return Markup(
        '<article><div class="pictures">{pictures}</div><p class="words">{words}</p>'
        '<p class="chips"><span>{facts}</span></p>{actions}<p class="actions">{again}</p></article>'
    ).format(
        pictures=Markup().join(picture.format(address=address(name), words=words[:200]) for name in final.images),
        words=words,
        facts=f"{final.engine} · {say('stage_after', seconds=f'{final.seconds:.1f}')}",
        actions=actions_html(Tile(final.images[0], final.decoder, finished=True), say),
        again=again if isinstance(request, Generate) else "",
    )
