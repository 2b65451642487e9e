"""
How pictures stand in a page: their addresses, within the house, and two of them under one slider. HTML is Markup.
"""

from __future__ import annotations

from urllib.parse import quote

from markupsafe import Markup


def address(picture: str) -> str:
    """Return where a picture is served, which doors call "KEY/NAME": a name may be in any script."""
    return f"outputs/{quote(picture)}"


def thumbnail_address(picture: str) -> str:
    """Return where its small copy is served."""
    return f"thumbnails/{quote(picture)}"


def file_name(picture: str) -> str:
    """Return what it is called on a disk."""
    return picture.rpartition("/")[2]


def image_html(picture: str, alt: str, kind: str = "") -> Markup:
    return Markup('<img src="{}" alt="{}" class="{}">').format(address(picture), alt, kind)


def compare_html(left: tuple[str, str], right: tuple[str, str], hint: str, marks: str = "", kind: str = "") -> Markup:
    """
    Lay two pictures, each with its label, under one range control, which mouse, finger and keyboard can move
    (assets/page.js). `marks`, which are Markup, lie on them; their places fit if the box is as large as its pictures
    ("fits").
    """
    return Markup('<div class="compare {kind}" style="--at:50%">{first}{second}{marks}{slider}</div>').format(
        kind=kind,
        first=image_html(*left),
        second=image_html(*right, "after"),
        marks=marks,
        slider=slider_html(left[1], right[1], hint),
    )


def slider_html(was: str, now: str, hint: str) -> Markup:
    """Return the control that lies on two pictures, and their labels."""
    return Markup(
        '<span class="tag">{}</span><span class="tag after">{}</span>'
        '<input type="range" min="0" max="100" value="50" aria-label="{}">'
    ).format(was, now, hint)
