"""
Shows what became of each face, and what a look at a photo advises: marks on the picture, words beneath it, and faces
cut out of it, to be chosen from or looked at closely (assets/faces.js).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from markupsafe import Markup

from engines.messages import Advice
from engines.messages.faces import Box, FaceReport, FaceState, point_in
from webui.i18n import Words
from webui.pictures import address, slider_html

LIST_UP_TO = 4  # faces; the words of more wait behind a summary
BLURRED = ((0.25, "advice_sharp"), (0.5, "advice_soft"), (0.8, "advice_blurred"), (1.01, "advice_severe"))  # below
NOISY = 0.35
MARK_PX = 18  # what of a mark lies left of a face, and above it
CUT = 1.8  # how wide a cut-out is, in widths of the face's box
LARGE = 0.6  # of the picture's width: a cut-out as wide as this shows little more
THIRDS = (1 / 3, 2 / 3)  # of the picture, for words that say where a face is
STATES: tuple[FaceState, ...] = get_args(FaceState)


def marks_html(faces: Sequence[FaceReport]) -> Markup:
    """Return a numbered mark where each face begins, in percent of the picture that they lie on."""
    mark = Markup(
        '<span class="face is-{state}" style="left:max({left:.2f}%,{px}px);top:max({top:.2f}%,{px}px)"'
        ' aria-hidden="true">{number}</span>'
    )
    return Markup().join(
        mark.format(
            state=face.state,
            left=100 * _inside(face.box[0]),
            top=100 * _inside(face.box[1]),
            px=MARK_PX,
            number=number,
        )
        for number, face in enumerate(faces, start=1)
    )


def _inside(share: float) -> float:
    """Keep a mark inside: a face may reach beyond the edge."""
    return min(max(share, 0.0), 0.97)


def list_html(faces: Sequence[FaceReport], say: Words) -> Markup:
    """Return a line of words for each face."""
    if not faces:
        return Markup()
    line = Markup('<li><span class="face is-{}">{}</span>{}{}</li>')
    lines = (
        line.format(face.state, number, face_text(face, say), _also(face, number, say))
        for number, face in enumerate(faces, start=1)
    )
    listing = Markup('<ol class="faces">{}</ol>').format(Markup().join(lines))
    if len(faces) <= LIST_UP_TO:
        return listing
    return Markup("<details><summary>{}</summary>{}</details>").format(summary(faces, say), listing)


def _also(face: FaceReport, number: int, say: Words) -> Markup:
    """Return the button that restores a face all the same, if a rule alone has left it out."""
    button = Markup('<button type="button" data-also="{}">{}</button>')
    return button.format(number - 1, say("face_also")) if face.by_rule else Markup()


def face_text(face: FaceReport, say: Words) -> str:
    """Return what became of a face, and why."""
    reason = say.phrase(face.reason) or say("face_strength_zero")
    return say(f"face_{face.state}", strength=face.strength, reason=reason)


def summary(faces: Sequence[FaceReport], say: Words) -> str:
    """Return how many faces there are, and how many of them came to what."""
    count = Counter(face.state for face in faces)
    parts = [say(f"faces_{state}", count=count[state]) for state in STATES if count[state]]
    return " · ".join([say("faces_count", count=len(faces)), *parts])


def advice_html(advice: Advice, say: Words) -> Markup:
    """Return a line with the button that takes the advice, after one that turns the photo, if its faces lie."""
    notes = Markup().join(Markup('<p class="note">{}</p>').format(say.caution(each)) for each in advice.warnings)
    line = Markup('<p class="advice" role="status"><span>{}</span><button type="button" data-{}>{}</button></p>')
    lines = []
    if advice.turn:
        lines += [line.format(say("advice_turned", turn=advice.turn), f"turn={advice.turn}", say("restore_turn"))]
    if advice.boxes or not advice.turn:
        adopt = ("adopt", say("advice_adopt")) if advice.faces else ("whole", say("restore_anyway"))
        lines += [line.format(advice_text(advice, say), *adopt)]
    return notes + Markup().join(lines)


def advice_text(advice: Advice, say: Words) -> str:
    if not advice.faces:
        return say("advice_none")
    comma = say("comma")
    look = [say(next(key for limit, key in BLURRED if advice.blur < limit))]
    look += [say("advice_noisy")] if advice.noise >= NOISY else []
    quality = say("advice_one" if advice.faces == 1 else "advice_many", count=advice.faces, look=comma.join(look))
    return quality + say("advice_suggest", settings=comma.join(_suggested(advice, say)))


def _suggested(advice: Advice, say: Words) -> list[str]:
    """Name what is worth saying: strength and mode, and of the rest what is not nothing."""
    named = [f"{say(f'restore_{name}')} {value}" for name, value in advice.settings.items() if value and name != "mode"]
    mode = advice.settings.get("mode")
    return [*named[:1], *([say(f"restore_{mode}")] if mode else []), *named[1:]]


# ---- faces cut out of the picture


def cut_html(box: Box, image: Markup) -> Markup:
    """
    Return a square of a picture around a face. The browser cuts it out of pictures of any size: where it is, is said in
    shares of them.
    """
    left, top, width, height = box
    wide = min(CUT * width, 1.0)
    middle = min(max(left + width / 2, wide / 2), 1 - wide / 2)
    return Markup('<span class="cut" style="--x:{:.4f};--y:{:.4f};--w:{:.4f}">{}</span>').format(
        middle, top + height / 2, wide, image
    )


def name_of(number: int, box: Box, say: Words) -> str:
    """Return what a face is called: its number, from the left, and where in the picture it is."""
    left, top, width, height = box
    row, column = (sum(middle > third for third in THIRDS) for middle in (top + height / 2, left + width / 2))
    return say("face_name", number=number, place=say("face_places").split("|")[3 * row + column])


def pick_html(boxes: Sequence[Box], say: Words, picture: str = "") -> Markup:
    """
    Return the faces of a photo to choose from, all of them chosen; nothing, if there are not several. `picture`: of the
    photo, if the browser cannot show the photo itself.
    """
    if len(boxes) < 2:
        return Markup()
    image = Markup('<img src="{}" alt="">').format(address(picture)) if picture else Markup('<img alt="">')
    button = Markup(
        '<button type="button" aria-pressed="true" aria-label="{}" data-x="{}" data-y="{}" data-box="{}">{}</button>'
    )
    points = [point_in(boxes, k) for k in range(len(boxes))]
    buttons = (
        button.format(name_of(k + 1, box, say), points[k].x, points[k].y, " ".join(map(str, box)), cut_html(box, image))
        for k, box in enumerate(boxes)
    )
    return Markup('<div class="pick" role="group" aria-label="{}">{}</div>').format(
        say("faces_pick"), Markup().join(buttons)
    )


def _worth_a_closer_look(faces: Sequence[FaceReport]) -> Sequence[FaceReport]:
    """Return the faces, unless it is one that is seen well as it is."""
    faces = [face for face in faces if face.is_face]
    return [] if len(faces) == 1 and CUT * faces[0].box[2] > LARGE else faces


def strip_html(faces: Sequence[FaceReport], picture: str, say: Words) -> Markup:
    """Return the faces of a restored picture, each to be looked at closely, and the way back to all of it."""
    if not (faces := _worth_a_closer_look(faces)):
        return Markup()
    image = Markup('<img src="{}" alt="">').format(address(picture))
    button = Markup(
        '<button type="button" aria-pressed="false" class="is-{state}" data-face="{k}" {offer} aria-label="{label}">'
        '{cut}<span class="face is-{state}">{number}</span></button>'
    )
    buttons = Markup().join(
        button.format(
            state=face.state,
            k=k,
            offer="data-offer" if face.by_rule else "",
            label=f"{name_of(k + 1, face.box, say)} · {face_text(face, say)}",
            cut=cut_html(face.box, image),
            number=k + 1,
        )
        for k, face in enumerate(faces)
    )
    whole = Markup('<button type="button" aria-pressed="true" data-face="">{}</button>').format(say("face_whole"))
    strip = Markup('<div class="face-strip" role="group" aria-label="{}">{}{}</div>')
    return strip.format(say("faces_closely"), whole, buttons)


def zoom_html(faces: Sequence[FaceReport], before: str, after: str, say: Words) -> Markup:
    """Return where a face is looked at closely, before and after: hidden, until one of the strip is chosen."""
    if not _worth_a_closer_look(faces):
        return Markup()
    was, now = say("restore_before"), say("restore_after")
    both = (Markup('<img src="{}" alt="{}">').format(address(name), alt) for name, alt in ((before, was), (after, now)))
    return Markup(
        '<div class="compare zoom" style="--at:50%" hidden>{cuts}{slider}<span class="badge" role="status"></span>'
        '<button type="button" data-also="" hidden>{also}</button></div>'
    ).format(
        cuts=Markup().join(cut_html((0.0, 0.0, 1.0, 1.0), image) for image in both),
        slider=slider_html(was, now, say("restore_compare")),
        also=say("face_also"),
    )
