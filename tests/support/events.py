"""The events of one portrait from first to last, and a fold of events into what the page shows."""

from __future__ import annotations

from functools import reduce

from engines.messages import Event, Final, Preview, Progress
from webui.stream import JobView, advance

PICTURE = "outputs_20260102030405.png"


def play(*events: Event, scene: JobView | None = None) -> JobView:
    return reduce(
        advance, events, scene or JobView(state="running", caption="a woman", ratio=2 / 3, status="stage_load")
    )


def denoise(step: int, total: int = 4, eta_s: float | None = None, picture: int = 1, pictures: int = 1) -> Progress:
    return Progress("denoise", step, total, eta_s, picture, pictures)


ONE: tuple[Event, ...] = (
    Progress("load", 0, 1),
    Progress("encode", 0, 4, 2.5),
    denoise(1, eta_s=2.0),
    Preview(1, "preview_1.webp", 0.4),
    denoise(2, eta_s=1.5),
    Preview(2, "preview_2.webp", 0.7),
    denoise(3, eta_s=1.0),
    denoise(4, eta_s=0.5),
    Preview(4, "preview_4.webp", 1.3),
    Progress("decode", 4, 4, 0.5),
    Preview(4, PICTURE, 1.9, "vae", kind="result"),
    Final((PICTURE,), 77, 1.94, "ort", "ort on CPU", "vae"),
)
