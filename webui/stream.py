"""
Events -> what a page shows: pure functions, no Gradio, no queue.

A `JobView` is what has become of one job so far; `advance` takes it one event further; `job_html` draws it. Gradio's
HTML component patches the page in place, so a changed <img src> swaps the picture without a flash. HTML is Markup: it
escapes every text that is put into it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from markupsafe import Markup

from engines.errors import Fact
from engines.jobs import Place
from engines.messages import Advice, DecoderKind, Event, FaceReport, Failed, Final, Note, Preview, Progress
from webui import face_report
from webui.i18n import Words
from webui.pictures import address, compare_html, file_name, image_html

SHARE_OF_DECODE = 0.1  # of the progress bar
LOG_LINES = 200  # of a build; older ones leave
MINUTES_FROM_S = 120.0  # from here on, seconds would feign a precision that a guess does not have


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
    seed: int | None = None
    reason: str = ""
    seconds: float | None = None  # of the whole job, in the end
    log: tuple[str, ...] = ()  # of a build: its last lines
    faces: tuple[FaceReport, ...] = ()  # of a restoration, in the end

    @property
    def current(self) -> Tile | None:
        """The picture to show large: the one being drawn, in the end the first."""
        shown = [tile for tile in self.tiles if tile.image]
        return (shown[0] if self.state == "done" else shown[-1]) if shown else None


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
            return replace(scene, log=(*scene.log, *event.text.splitlines())[-LOG_LINES:])
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
    return replace(scene, state="running", status=key, facts=facts, fraction=fraction, eta_s=event.eta_s)


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
    elif old.tiny_s is None:
        tile = replace(tile, tiny_s=event.seconds)
    tiles[event.picture - 1] = replace(tile, finished=event.kind == "result")
    return replace(scene, tiles=tuple(tiles))


def _final(scene: JobView, event: Final) -> JobView:
    tiles = tuple(
        replace(old, image=name, shown_by=event.decoder, finished=True)
        for old, name in zip((*scene.tiles, *[Tile()] * len(event.images)), event.images, strict=False)
    )
    key = {"enhance": "stage_restored", "develop": "stage_developed", "build": "stage_built"}.get(scene.task)
    key = key or (
        "stage_kept" if event.decoder == "tiny" else "stage_done_many" if len(tiles) > 1 else "stage_done_one"
    )
    if untouched(event.faces):
        key = "stage_left_alone"
    facts: dict[str, Fact] = {"count": len(tiles), "seconds": _s(event.seconds)}
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
    )


def untouched(faces: tuple[FaceReport, ...]) -> bool:
    """Tell whether there are faces, and every one of them was left as it is."""
    return bool(faces) and all(face.state == "skipped" for face in faces)


# ---- drawing


def job_html(scene: JobView, say: Words) -> Markup:
    return Markup(
        '<figure class="stage is-{state}" style="--ratio:{ratio:.4f}">'
        "{frame}{strip}<figcaption>{status}{faces}{facts}{way_out}</figcaption></figure>"
    ).format(
        state=scene.state,
        ratio=scene.ratio,
        frame=_frame(scene, say),
        strip=_strip(scene),
        status=status_html(scene, say),
        faces=face_report.list_html(scene.faces, say),
        facts=_facts(scene, say),
        way_out=_way_out(scene, say),
    )


def _frame(scene: JobView, say: Words) -> Markup:
    tile = scene.current
    if tile is None and scene.before:
        return Markup('<div class="frame">{}</div>').format(image_html(scene.before, say("restore_before")))
    if tile is None:
        hint = say(scene.status) if scene.state == "idle" else ""
        return Markup('<div class="frame is-empty"><p>{}</p></div>').format(hint)
    if scene.before:
        was, now = (scene.before, say("restore_before")), (tile.image, say("restore_after"))
        return compare_html(was, now, say("restore_compare"), face_report.marks_html(scene.faces), "fits")
    badge = say("stage_vae") if tile.shown_by == "vae" else say("stage_tiny")
    if not tile.finished:
        badge += " · " + say("stage_step", step=tile.step)
    return Markup('<div class="frame">{image}<span class="badge is-{decoder}">{badge}</span></div>').format(
        image=image_html(tile.image, scene.caption[:200]), decoder=tile.shown_by, badge=badge
    )


def _strip(scene: JobView) -> Markup:
    if len(scene.tiles) < 2:
        return Markup()
    button = Markup('<button type="button" data-show="{name}" aria-label="{number}">{image}</button>')
    buttons = Markup().join(
        button.format(name=tile.image, number=number, image=image_html(tile.image, ""))
        for number, tile in enumerate(scene.tiles, start=1)
    )
    return Markup('<div class="strip">{}</div>').format(buttons)


def status_html(scene: JobView, say: Words) -> Markup:
    if scene.state == "idle":
        return Markup()
    line = Markup('<p class="status" role="status">{}</p>').format(status_text(scene, say))
    if scene.state != "running":
        return line
    return line + Markup('<progress max="100" value="{}"></progress>').format(round(100 * scene.fraction))


def status_text(scene: JobView, say: Words) -> str:
    """Say in one line, as the originals write it: what is going on, how far it is, how long it will take."""
    if scene.state == "failed":
        return _failure(scene, say)
    if scene.status == "stage_waiting":
        return waiting_text(Place(int(scene.facts["ahead"]), scene.eta_s), say)
    line = say(scene.status, **scene.facts)
    if scene.status.startswith("stage_denoise"):
        line += f" · {round(100 * scene.fraction)}%"
    if scene.task == "build":
        line += _of_a_build(scene, say)
    if scene.state == "running" and scene.eta_s:
        line += " · " + left_text(scene.eta_s, say)
    return line


def left_text(eta_s: float, say: Words) -> str:
    if eta_s < MINUTES_FROM_S:
        return say("stage_eta", seconds=_s(eta_s))
    return say("stage_eta_minutes", minutes=round(eta_s / 60))


def quiet_text(quiet_s: float, say: Words) -> str:
    """Say until when batches wait, by the clock of this machine, beside which somebody sleeps."""
    return say("stage_quiet", until=time.strftime("%H:%M", time.localtime(time.time() + quiet_s + 1)))


def waiting_text(place: Place, say: Words) -> str:
    if place.quiet_s:
        return quiet_text(place.quiet_s, say)
    line = say("stage_waiting", ahead=place.ahead)
    return line if place.eta_s is None else f"{line} · {_about(place.eta_s, say)}"


def _about(seconds: float, say: Words) -> str:
    """Say it as roughly as it is known: to 5 s under a minute, to 10 s under five, then in minutes."""
    if seconds >= 300:
        return say("stage_about_minutes", minutes=round(seconds / 60))
    step = 5 if seconds < 60 else 10
    return say("stage_about", seconds=max(step, step * round(seconds / step)))


def _of_a_build(scene: JobView, say: Words) -> str:
    """Return the number of its step, as the log counts them; in the end, what became of it."""
    if scene.state == "done":
        return f" {say.phrase(scene.reason)}".rstrip()
    total = int(scene.facts.get("total", 1))
    return f" · {min(int(scene.facts['step']) + 1, total)}/{total}" if total > 1 else ""


def _failure(scene: JobView, say: Words) -> str:
    sign = "" if scene.code == "cancelled" else "❌ "
    line = sign + say.error(scene.code, scene.facts)
    return f"{line} {say('stage_kept_pictures', **scene.facts)}" if scene.facts.get("count") else line


def _facts(scene: JobView, say: Words) -> Markup:
    tile = scene.current
    if tile is None:
        return Markup()
    chips = []
    if tile.tiny_s is not None:
        chips.append(f"{say('stage_tiny')} · {say('stage_after', seconds=_s(tile.tiny_s))}")
    if tile.vae_s is not None:
        chips.append(f"{say('stage_vae')} · {say('stage_after', seconds=_s(tile.vae_s))}")
    if scene.seed is not None and scene.task == "generate":
        chips.append(say("stage_seed", seed=scene.seed))
    if scene.reason:
        chips.append(say("stage_engine", reason=say.phrase(scene.reason)))
    spans = Markup().join(Markup("<span>{}</span>").format(chip) for chip in chips)
    return Markup('<p class="chips">{}</p>').format(spans) + (actions_html(tile, say) if tile.finished else "")


def _way_out(scene: JobView, say: Words) -> Markup:
    """Return what can be done with a photo in which no face was found."""
    if scene.state != "failed" or scene.code != "no_face":
        return Markup()
    button = Markup('<p class="actions"><button type="button" data-anyway>{}</button></p>')
    return button.format(say("restore_anyway"))


def actions_html(tile: Tile, say: Words) -> Markup:
    develop = Markup('<button type="button" data-develop="{}">{}</button>').format(tile.image, say("stage_develop"))
    return Markup(
        '<p class="actions"><a href="{address}" download="{name}">{download}</a>'
        '<a href="{address}" target="_blank" rel="noopener">{open}</a>{develop}</p>'
    ).format(
        address=address(tile.image),
        name=file_name(tile.image),
        download=say("stage_download"),
        open=say("stage_open"),
        develop=develop if tile.shown_by == "tiny" else "",
    )


def _s(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < 60 else f"{seconds:.0f}"
