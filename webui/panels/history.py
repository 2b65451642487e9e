"""The panel of pictures: one's own, and the album that all share; and how to make them again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, get_args

import gradio as gr
from markupsafe import Markup

from engines.jobs import Finished
from engines.messages import Generate
from engines.settings import Settings
from webui.boards.jobs import request_words
from webui.gradio_patches import event_data
from webui.i18n import Words
from webui.own_jobs import OwnJobs
from webui.pictures import address, thumbnail_address
from webui.stage import actions_html
from webui.stream import Tile
from webui.widgets.panel_context import PanelContext, complaining, in_turn, words_of

SHOWN, LOOKED_AT = 40, 400  # jobs; looks at photos and builds end without a picture
Collection = Literal["mine", "album"]
PRESSES = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  const { reuse, develop, share, unshare } = button.dataset;
  if (reuse) trigger('reuse', { job: reuse });
  if (develop) trigger('develop', { name: develop });
  if (share) trigger('album', { job: share, shared: true });
  if (unshare) trigger('album', { job: unshare, shared: false });
});"""


@dataclass(frozen=True)
class View:
    collection: gr.Radio
    grid: gr.HTML
    tab: gr.Tab


def build(context: PanelContext, tab: gr.Tab, ended: Any) -> View:
    """`ended`: an event after which there may be one more picture."""
    t = context.i18n
    choices = [(t(f"history_{collection}"), collection) for collection in get_args(Collection)]
    collection = gr.Radio(choices, value="mine", show_label=False, container=False, elem_id="collection")
    grid = gr.HTML(elem_id="history", js_on_load=PRESSES)

    def refresh(which: str, request: gr.Request) -> Markup:
        return collection_html(context.jobs.of(request), which, words_of(request), context.settings)

    def put(which: str, event: gr.EventData, request: gr.Request) -> Markup:
        say, own, asked = words_of(request), context.jobs.of(request), event_data(event)
        with complaining(say):
            own.share(str(asked["job"]), asked["shared"] is True)
        return collection_html(own, which, say, context.settings)

    gr.on([tab.select, collection.change, ended], refresh, [collection], [grid], **in_turn("history", "always_last"))
    grid.album(put, [collection], [grid], **in_turn("history", "multiple"))
    return View(collection, grid, tab)


def collection_html(own: OwnJobs, which: str, say: Words, settings: Settings) -> Markup:
    """`which`: a Collection; anybody may send anything."""
    if which == "album":
        return grid_html(_there(own, own.album(LOOKED_AT)), own, say, say("album_empty"))
    mine = _there(own, own.finished(LOOKED_AT))
    hint = say("album_has_some") if not mine and _there(own, own.album(LOOKED_AT)) else ""
    return notice_html(own, say, settings) + grid_html(mine, own, say, f"{say('history_empty')} {hint}")


def notice_html(own: OwnJobs, say: Words, settings: Settings) -> Markup:
    """Say which of one's own pictures will be deleted; empty: none, or the disk does not tell."""
    with suppress(OSError):
        if notice := own.notice(settings):
            text = say("history_notice", pictures=notice.pictures, hours=notice.hours)
            return Markup('<p class="note" role="status">{}</p>').format(text)
    return Markup()


def _there(own: OwnJobs, jobs: Iterable[Finished]) -> list[Finished]:
    """Return the first of them with those of their pictures that are still there: they may have been deleted."""
    left = ((job, tuple(name for name in job.final.images if own.file(name).is_file())) for job in jobs)
    shown = (replace(job, final=replace(job.final, images=names)) for job, names in left if names)
    return list(islice(shown, SHOWN))


def grid_html(jobs: list[Finished], own: OwnJobs, say: Words, empty: str) -> Markup:
    if not jobs:
        return Markup('<p class="note">{}</p>').format(empty)
    cards = Markup().join(_card(finished, own, say) for finished in jobs)
    return Markup('<div class="history">{}</div>').format(cards)


def _card(finished: Finished, own: OwnJobs, say: Words) -> Markup:
    """Of somebody else's there are the pictures; what was asked for is nobody's business."""
    job, final, is_own = finished.job, finished.final, finished.job.owner in ("", own.person.id)
    words = request_words(job.request, say) if is_own else say("album_shared")
    picture = Markup(
        '<a href="{address}" target="_blank" rel="noopener"><img src="{small}" alt="{words}" loading="lazy"></a>'
    )
    return Markup(
        '<article><div class="pictures">{pictures}</div><p class="words">{words}</p>'
        '<p class="chips"><span>{facts}</span></p>{actions}<p class="actions">{more}</p></article>'
    ).format(
        pictures=Markup().join(
            picture.format(address=address(name), small=thumbnail_address(name), words=words[:200])
            for name in final.images
        ),
        words=words,
        facts=f"{final.engine} · {say('stage_after', seconds=f'{final.seconds:.1f}')}",
        actions=actions_html(Tile(final.images[0], final.decoder, finished=True), say),
        more=Markup().join(_buttons(finished, is_own, own, say)),
    )


def _buttons(finished: Finished, is_own: bool, own: OwnJobs, say: Words) -> Iterator[Markup]:
    job = finished.job
    if is_own and isinstance(job.request, Generate):
        yield Markup('<button type="button" data-reuse="{}">{}</button>').format(job.id, say("history_reuse"))
    if finished.shared and own.may_take_out(job):
        yield Markup('<button type="button" data-unshare="{}">{}</button>').format(job.id, say("album_take_out"))
    elif is_own and not finished.shared:
        yield Markup('<button type="button" data-share="{}">{}</button>').format(job.id, say("album_put"))
