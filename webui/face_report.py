"""What became of each face, and what a look at a photo found: as marks on the picture, and in words beneath it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import get_args

from engines.messages import Advice, FaceReport, FaceState
from webui.i18n import Words

LIST_UP_TO = 4  # faces; the words of more wait behind a summary
BLURRED = ((0.25, "advice_sharp"), (0.5, "advice_soft"), (0.8, "advice_blurred"), (1.01, "advice_severe"))  # below
NOISY = 0.35
MARK_PX = 18  # what of a mark lies left of a face, and above it
STATES: tuple[FaceState, ...] = get_args(FaceState)


def marks_html(faces: Sequence[FaceReport]) -> str:
    """A numbered mark where each face begins, in percent of the picture that they lie on."""
    return "".join(
        f'<span class="face is-{face.state}" style="left:max({100 * _inside(face.box[0]):.2f}%,{MARK_PX}px);'
        f'top:max({100 * _inside(face.box[1]):.2f}%,{MARK_PX}px)" aria-hidden="true">{number}</span>'
        for number, face in enumerate(faces, start=1)
    )


def _inside(share: float) -> float:
    """A face may reach beyond the edge; its mark may not."""
    return min(max(share, 0.0), 0.97)


def list_html(faces: Sequence[FaceReport], say: Words) -> str:
    """In words, a line for each face."""
    if not faces:
        return ""
    lines = "".join(
        f'<li><span class="face is-{face.state}">{number}</span>{escape(told(face, say))}</li>'
        for number, face in enumerate(faces, start=1)
    )
    listed = f'<ol class="faces">{lines}</ol>'
    if len(faces) <= LIST_UP_TO:
        return listed
    return f"<details><summary>{escape(summary(faces, say))}</summary>{listed}</details>"


def told(face: FaceReport, say: Words) -> str:
    reason = say.phrase(face.reason) or say("face_strength_zero")
    return say(f"face_{face.state}", strength=face.strength, reason=reason)


def summary(faces: Sequence[FaceReport], say: Words) -> str:
    """How many faces there are, and how many of them came to what."""
    count = Counter(face.state for face in faces)
    parts = [say(f"faces_{state}", count=count[state]) for state in STATES if count[state]]
    return " · ".join([say("faces_count", count=len(faces)), *parts])


def advice_html(advice: Advice, say: Words) -> str:
    """One line with the button that takes it."""
    button = "data-adopt" if advice.faces else "data-whole"
    label = say("advice_adopt") if advice.faces else say("restore_anyway")
    return (
        f'<p class="advice" role="status"><span>{escape(advice_text(advice, say))}</span>'
        f'<button type="button" {button}>{escape(label)}</button></p>'
    )


def advice_text(advice: Advice, say: Words) -> str:
    if not advice.faces:
        return say("advice_none")
    comma = say("comma")
    look = [say(next(key for limit, key in BLURRED if advice.blur < limit))]
    look += [say("advice_noisy")] if advice.noise >= NOISY else []
    found = say("advice_one" if advice.faces == 1 else "advice_many", count=advice.faces, look=comma.join(look))
    return found + say("advice_suggest", settings=comma.join(_suggested(advice, say)))


def _suggested(advice: Advice, say: Words) -> list[str]:
    """What is worth saying: strength and mode, and of the rest what is not nothing."""
    named = [f"{say(f'restore_{name}')} {value}" for name, value in advice.settings.items() if value and name != "mode"]
    mode = advice.settings.get("mode")
    return [*named[:1], *([say(f"restore_{mode}")] if mode else []), *named[1:]]
