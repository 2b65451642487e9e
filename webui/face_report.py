"""Shows what became of each face, and what a look at a photo advises: marks on the picture, and words beneath it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from markupsafe import Markup

from engines.messages import Advice
from engines.messages.faces import FaceReport, FaceState
from webui.i18n import Words

LIST_UP_TO = 4  # faces; the words of more wait behind a summary
BLURRED = ((0.25, "advice_sharp"), (0.5, "advice_soft"), (0.8, "advice_blurred"), (1.01, "advice_severe"))  # below
NOISY = 0.35
MARK_PX = 18  # what of a mark lies left of a face, and above it
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
    line = Markup('<li><span class="face is-{}">{}</span>{}</li>')
    lines = (line.format(face.state, number, face_text(face, say)) for number, face in enumerate(faces, start=1))
    listing = Markup('<ol class="faces">{}</ol>').format(Markup().join(lines))
    if len(faces) <= LIST_UP_TO:
        return listing
    return Markup("<details><summary>{}</summary>{}</details>").format(summary(faces, say), listing)


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
    """Return one line with the button that takes the advice."""
    return Markup(
        '<p class="advice" role="status"><span>{text}</span><button type="button" {button}>{label}</button></p>'
    ).format(
        text=advice_text(advice, say),
        button="data-adopt" if advice.faces else "data-whole",
        label=say("advice_adopt") if advice.faces else say("restore_anyway"),
    )


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
