"""
Events -> what a page shows: pure functions, no Gradio, no queue.

A `JobView` is what has become of one job so far; `advance` takes it one event further; stage.py draws it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from engines.errors import Fact
from engines.jobs import Place
from engines.messages import Advice, DecoderKind, Event, Failed, Final, Note, Preview, Progress
from engines.messages.cautions import Caution
from engines.messages.faces import FaceReport

SHARE_OF_DECODE = 0.1  # of the progress bar
LOG_LINES = 200  # of a build; older ones leave
STEP = re.compile(r"(\d+)\. (.*?)(?: ✓)?")  # of the plan that a build tells first


@dataclass(frozen=True)
class Tile:
    """One picture of the job: its newest image, and when each decoder first showed it (seconds from the start)."""

    image: str = ""
    shown_by: DecoderKind = "tiny"
    step: int = 0
    tiny_s: float | None = None
    vae_s: float | None = None
    finished: bool = False


@dataclass(frozen=True)
class Versus:
    """A picture that another is held against; `was`, `now`: keys of the locales, by what either was drawn."""

    image: str
    was: str
    now: str


@dataclass(frozen=True)
class JobView:
    task: Literal["generate", "enhance", "develop", "build"] = "generate"
    state: Literal["idle", "running", "done", "failed"] = "idle"
    caption: str = ""  # the prompt, for those who cannot see the picture
    ratio: float = 1.0  # width / height of the frame while nothing is in it
    status: str = "stage_empty"  # a key of the locales
    facts: Mapping[str, Fact] = field(default_factory=dict)
    code: str = ""  # of the error
    fraction: float = 0.0
    eta_s: float | None = None
    tiles: tuple[Tile, ...] = ()
    before: str = ""  # of a restoration: the photo as it came
    versus: Versus | None = None  # of a portrait that was drawn again
    unknown: tuple[str, ...] = ()  # words of the prompt that the model does not know
    sheet: str = ""  # of a picture that was developed: the job of the contact sheet from which it was chosen
    seed: int | None = None
    reason: str = ""
    seconds: float | None = None  # of the whole job, in the end
    log: tuple[str, ...] = ()  # of a build: its last lines
    plan: tuple[str, ...] = ()  # of a build: its steps, as the toolchain calls them
    at: int = 0  # which of them it is in
    faces: tuple[FaceReport, ...] = ()  # of a restoration, in the end
    warnings: tuple[Caution, ...] = ()  # in the end

    @property
    def current(self) -> Tile | None:
        """The picture to show large: the one being drawn, in the end the first."""
        shown = [tile for tile in self.tiles if tile.image]
        return (shown[0] if self.state == "done" else shown[-1]) if shown else None

    @property
    def is_contact_sheet(self) -> bool:
        """Whether these are several looks, by the tiny decoder, of which those that please are developed."""
        shown = [tile for tile in self.tiles if tile.image]
        looks = all(tile.finished and tile.shown_by == "tiny" for tile in shown)
        return self.pictures > 1 and bool(shown) and looks

    @property
    def pictures(self) -> int:
        """How many there will be."""
        return max(len(self.tiles), int(self.facts.get("pictures", 0)))


def waiting(scene: JobView, place: Place) -> JobView:
    facts: dict[str, Fact] = {"ahead": place.ahead}
    status = "stage_paused" if place.paused else "stage_waiting"
    return replace(scene, state="running", status=status, facts=facts, eta_s=place.eta_s)


def begun(scene: JobView) -> JobView:
    status = "stage_prepare" if scene.task == "build" else "stage_load"
    return replace(scene, state="running", status=status, facts={}, eta_s=None)


def advance(scene: JobView, event: Event) -> JobView:
    match event:
        case Progress():
            return _progress(scene, event)
        case Preview():
            return _preview(scene, event)
        case Note():
            log = (*scene.log, *event.text.splitlines())[-LOG_LINES:]
            return replace(scene, log=log, plan=_planned(scene.plan, event.text))
        case Advice():
            return scene  # of a look at a photo, which is no scene
        case Final():
            return _final(scene, event)
        case Failed():
            done = sum(tile.finished for tile in scene.tiles)
            return replace(scene, state="failed", code=event.code, facts={**event.facts, "count": done}, eta_s=None)


def _progress(scene: JobView, event: Progress) -> JobView:
    of_many = {"denoise": ("stage_denoise_many", event.pictures), "restore": ("stage_restore_many", event.total)}
    key, count = of_many.get(event.stage, ("", 0))
    key = key if count > 1 else f"stage_{event.stage}"
    if event.stage == "load":  # it begins, perhaps anew, after a crash: what it showed before is gone
        scene = replace(scene, tiles=(), before="", fraction=0.0)
    facts = {"step": event.step, "total": event.total, "picture": event.picture, "pictures": event.pictures}
    facts |= {"face": min(event.step + 1, event.total)}  # the one being restored
    fraction = _built(scene, event) if scene.task == "build" else _drawn(event)
    return replace(scene, state="running", status=key, facts=facts, fraction=fraction, eta_s=event.eta_s, at=event.step)


def _planned(plan: tuple[str, ...], text: str) -> tuple[str, ...]:
    """Return the plan with what a note says of it, a step a line; one that begins with the first is another plan."""
    for line in text.splitlines():
        if step := STEP.fullmatch(line):
            plan = (*(() if step[1] == "1" else plan), step[2])
    return plan


def _drawn(event: Progress) -> float:
    drawn = (1 - SHARE_OF_DECODE) * event.step / max(event.total, 1)
    return (event.picture - 1 + drawn) / event.pictures


def _built(scene: JobView, event: Progress) -> float:
    """Steps count the whole build. A child process that starts knows of none yet: the bar never goes back."""
    return max(scene.fraction, event.step / max(event.total, 1))


def _preview(scene: JobView, event: Preview) -> JobView:
    if event.kind == "before":
        return replace(scene, before=event.image)
    tiles = list(scene.tiles) + [Tile()] * (event.picture - len(scene.tiles))
    old = tiles[event.picture - 1]
    tile = replace(old, image=event.image, shown_by=event.decoder, step=event.step)
    if event.decoder == "vae":
        tile = replace(tile, vae_s=event.seconds)
    elif event.decoder == "tiny" and old.tiny_s is None:
        tile = replace(tile, tiny_s=event.seconds)
    tiles[event.picture - 1] = replace(tile, finished=event.kind == "result")
    return replace(scene, tiles=tuple(tiles))


def _final(scene: JobView, event: Final) -> JobView:
    tiles = tuple(
        replace(old, image=name, shown_by=event.decoder, finished=True)
        for old, name in zip((*scene.tiles, *[Tile()] * len(event.images)), event.images, strict=False)
    )
    key = {"enhance": "stage_restored", "develop": "stage_developed", "build": "stage_built"}.get(scene.task)
    several = len(tiles) > 1
    if not key and event.decoder == "tiny":
        key = "stage_sheet" if several else "stage_kept"
    key = key or ("stage_done_many" if several else "stage_done_one")
    if untouched(event.faces):
        key = "stage_left_alone"
    if scene.task == "enhance" and not any(face.is_face for face in event.faces):
        key = "stage_cleaned"
    facts: dict[str, Fact] = {"count": len(tiles), "seconds": brief_s(event.seconds)}
    if event.without:
        key, facts["loras"] = "stage_without", ", ".join(event.without)
    return replace(
        scene,
        state="done",
        status=key,
        facts=facts,
        fraction=1.0,
        eta_s=None,
        tiles=tiles,
        seed=event.seed,
        reason=event.reason,
        seconds=event.seconds,
        faces=event.faces,
        warnings=event.warnings,
    )


def untouched(faces: tuple[FaceReport, ...]) -> bool:
    """Tell whether there are faces, and every one of them was left as it is."""
    return bool(faces) and all(face.state == "skipped" for face in faces)


def brief_s(seconds: float) -> str:
    """Return seconds as precisely as one cares who waits for them."""
    return f"{seconds:.1f}" if seconds < 60 else f"{seconds:.0f}"
