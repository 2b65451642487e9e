"""
What the wall of pictures is sent of a folder of the owner's: it is looked at, and photos are taken from it. Knows the
folder and the words; no Gradio.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from urllib.parse import quote

from markupsafe import Markup

from engines.jobs import Position
from webui import albums
from webui.albums.folders import Folder, Shown
from webui.i18n import Words
from webui.panels.history.cards import DOWNLOAD, MORE, when_text
from webui.panels.history.wall import SHOWN, Value, more_button, note_html, status_html

FOLDER = "folder:"  # before its name, as frames have it
PATIENCE_S = 0.5  # with a folder: all who look at the wall are served in turn
AGAIN_S = 5  # after which a page looks once more at a folder that is away
Entry = tuple[str, Shown]
FRAME = Markup('<a href="frame?show={}" target="_blank" rel="noopener">{}</a>')


def first_page(name: str, folder: Folder, say: Words) -> Value:
    entries = list(folder.pictures(PATIENCE_S).items())
    away = status_html(say("albums_away", name=name)) if folder.is_away else Markup()
    empty = note_html(say("albums_empty", name=name)) if not away else Markup()
    return {
        **_page("first", name, entries[:SHOWN], say),
        "rest": _rest(entries, SHOWN, say) if entries else empty,
        "notice": away,
        "tools": FRAME.format(quote(FOLDER + name), say("frame_open")) if entries else "",
        "undo": "",
        "again": AGAIN_S if away else 0,
    }


def next_page(name: str, folder: Folder, after: Position, say: Words) -> Value:
    entries = list(folder.pictures(PATIENCE_S).items())
    begin = bisect_right(entries, (-after[0], -after[1]), key=_order)
    end = begin + SHOWN
    return {**_page("more", name, entries[begin:end], say), "rest": _rest(entries, end, say)}


def _page(show: str, name: str, entries: list[Entry], say: Words) -> Value:
    now_s = time.time()
    cards = Markup().join(_card(name, entry, say, now_s) for entry in entries)
    return {"show": show, "query": FOLDER + name, "cards": cards, "at": time.time_ns()}


def _rest(entries: list[Entry], end: int, say: Words) -> Markup:
    return more_button(position_text(entries[end - 1]), say) if end < len(entries) else Markup()


def _position(entry: Entry) -> Position:
    """Return where a card stands among all others: of pictures of one moment, as the folder has them in order."""
    picture_id, shown = entry
    return shown.since, int(picture_id[:12], 16)


def _order(entry: Entry) -> Position:
    since, number = _position(entry)
    return -since, -number


def position_text(entry: Entry) -> str:
    return "{:.6f} {}".format(*_position(entry))


def _card(name: str, entry: Entry, say: Words, now_s: float) -> Markup:
    picture_id, shown = entry
    return Markup(
        '<article data-position="{position}" data-picture="{folder}/{id}"><div class="pictures">'
        '<a href="{large}" target="_blank" rel="noopener" data-unreadable="{unreadable}">'
        '<img src="{small}" alt="{file}" loading="lazy"></a></div>'
        '<div class="under"><p class="words">{file}</p><p class="facts"><time datetime="{stamp}">{when}</time></p>'
        '<div class="acts">{acts}</div></div></article>'
    ).format(
        position=position_text(entry),
        folder=name,
        id=picture_id,
        large=albums.address(name, picture_id, "large"),
        small=albums.address(name, picture_id, "thumbnail"),
        unreadable=say("albums_unreadable"),
        file=shown.name,
        stamp=time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(shown.since)),
        when=when_text(shown.since, now_s, say),
        acts=_acts(name, entry, say),
    )


def _acts(name: str, entry: Entry, say: Words) -> Markup:
    picture_id, shown = entry
    return Markup(
        '<a href="{original}" download="{file}" aria-label="{download}" title="{download}">{arrow}</a>'
        '<button type="button" class="next" data-take="restore">{restore}</button>'
        '<details class="menu"><summary aria-label="{more}" title="{more}">{dots}</summary><div>'
        '<a href="{large}" target="_blank" rel="noopener">{open}</a>'
        '<button type="button" data-take="begin_with">{begin_with}</button></div></details>'
    ).format(
        original=albums.address(name, picture_id),
        file=shown.name,
        download=say("stage_download"),
        arrow=DOWNLOAD,
        restore=say("albums_restore"),
        more=say("history_actions"),
        dots=MORE,
        large=albums.address(name, picture_id, "large"),
        open=say("stage_open"),
        begin_with=say("stage_begin_with"),
    )
