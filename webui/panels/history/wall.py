"""
What the wall of pictures is sent (assets/history.js): HTML for its parts, and how it goes together with what is there.
Knows one person's jobs and the words; no Gradio.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from markupsafe import Markup

from engines.jobs import Finished, Page, Position, Search
from engines.settings import Settings
from webui.i18n import Words
from webui.own_jobs import OwnJobs
from webui.panels.history.cards import is_restored, position_text, wall_html
from webui.pictures import address, thumbnail_address

SHOWN = 24  # cards of a page
OFFERED_S = 10.0  # how long it is offered to take a deletion back
Value = dict[str, Any]
FRAME = Markup('<a href="frame" target="_blank" rel="noopener">{}</a>')


def first_page(own: OwnJobs, search: Search, say: Words, settings: Settings) -> Value:
    page, mine = own.page(search, SHOWN), search.owner is not None
    return {
        **_page("first", page, search, own, say),
        "rest": _rest(page, say) if page.jobs else _empty(own, search, say),
        "notice": notice_html(own, say, settings) if mine else left_html(own, say),
        "tools": _tools(mine, page, say),
        "undo": undo_html(own, say),
    }


def _tools(mine: bool, page: Page, say: Words) -> Markup:
    if not page.jobs:
        return Markup()
    return tools_html(say) if mine else FRAME.format(say("frame_open"))


def next_page(own: OwnJobs, search: Search, after: Position, say: Words) -> Value:
    page = own.page(search, SHOWN, after)
    return {**_page("more", page, search, own, say), "rest": _rest(page, say)}


def changed(own: OwnJobs, job_ids: Sequence[str], say: Words) -> Value:
    """Return some cards anew, wherever they stand: those that are there."""
    return {"show": "changed", "cards": _cards(own.finished_jobs(job_ids), own, say), "at": time.time_ns()}


def deleted(own: OwnJobs, gone: Sequence[Finished], say: Words) -> Value:
    return {**changed(own, (), say), "gone": list(map(position_text, gone)), "undo": undo_html(own, say)}


def _page(show: str, page: Page, search: Search, own: OwnJobs, say: Words) -> Value:
    """`at`: a page does nothing with an answer that is the same as the last one."""
    return {"show": show, "query": repr(search), "cards": _cards(page.jobs, own, say), "at": time.time_ns()}


def _cards(jobs: Sequence[Finished], own: OwnJobs, say: Words) -> Markup:
    befores = {finished.job.id: own.before(finished.job.id) for finished in jobs if is_restored(finished, own)}
    return wall_html(jobs, befores, own, say)


def _rest(page: Page, say: Words) -> Markup:
    return more_button(position_text(page.jobs[-1]), say) if page.more else Markup()


def more_button(after: str, say: Words) -> Markup:
    """`after`: the position of the last card that is there."""
    return Markup('<button type="button" data-more="{}">{}</button>').format(after, say("history_more"))


def note_html(text: str) -> Markup:
    return Markup('<p class="note">{}</p>').format(text)


def status_html(text: str) -> Markup:
    """Return a note that is also read out."""
    return Markup('<p class="note" role="status">{}</p>').format(text)


def _empty(own: OwnJobs, search: Search, say: Words) -> Markup:
    if search.owner is None:
        return note_html(say("album_empty"))
    if search != Search(search.owner):
        return note_html(say("history_none"))
    hint = say("album_has_some") if own.page(Search(None), 1).jobs else ""
    return note_html(f"{say('history_empty')} {hint}")


def notice_html(own: OwnJobs, say: Words, settings: Settings) -> Markup:
    """Say which of one's own pictures will be deleted; empty: none, or the disk does not tell."""
    with suppress(OSError):
        if notice := own.notice(settings):
            text = say("history_notice", pictures=notice.pictures, hours=notice.hours)
            return status_html(text)
    return Markup()


def left_html(own: OwnJobs, say: Words) -> Markup:
    """Show the owner what visitors have left for the wall and nobody has looked at; empty: nothing."""
    left = own.left_for_wall(SHOWN)
    button = Markup('<button type="button" data-{}="{}">{}</button>')
    figures = [
        Markup('<figure><a href="{}" target="_blank" rel="noopener"><img src="{}" alt="{}"></a>{}{}</figure>').format(
            address(finished.final.images[0]),
            thumbnail_address(finished.final.images[0]),
            say("wall_left_picture"),
            button.format("approve", finished.job.id, say("touch_wall")),
            button.format("decline", finished.job.id, say("wall_decline")),
        )
        for finished in left
    ]
    words = status_html(say("wall_left", count=len(left)))
    return words + Markup('<div class="left">{}</div>').format(Markup().join(figures)) if left else Markup()


def tools_html(say: Words) -> Markup:
    """Return the buttons for many at once: which of them can be seen, the style sheet says."""
    button = Markup('<button type="button" data-{}="{}">{}</button>')
    keys = (
        ("choosing", "begin", "history_choose"),
        ("choosing", "all", "history_choose_all"),
        ("all", "zip", "history_zip"),
        ("all", "favour", "history_favourite"),
        ("all", "delete", "history_delete"),
        ("choosing", "end", "history_choose_end"),
    )
    count = Markup('<span data-count="{0}" role="status">{0}</span>').format(say("history_chosen", count=0))
    return count + Markup().join(button.format(what, which, say(key)) for what, which, key in keys)


def undo_html(own: OwnJobs, say: Words) -> Markup:
    """Say what was deleted a moment ago, also on a page that was loaded since."""
    now_s = time.time()
    if not (lately := own.deleted_since(now_s - OFFERED_S)):
        return Markup()
    left_s = max(then_s for _, then_s in lately) + OFFERED_S - now_s
    return Markup(
        '<p data-left="{left}"><span>{text}</span> <button type="button" data-undo="{jobs}">{undo}</button></p>'
    ).format(
        left=round(min(left_s, OFFERED_S), 1),
        text=say("history_deleted", count=len(lately)),
        jobs=" ".join(job_id for job_id, _ in lately),
        undo=say("history_undo"),
    )
