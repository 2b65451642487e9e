"""
The stage: what a page shows of a job, drawn from its JobView. Pure functions, no Gradio, no queue.

Gradio's HTML component patches the page in place, so a changed <img src> swaps the picture without a flash. HTML is
Markup: it escapes every text that is put into it.
"""

from __future__ import annotations

import time

from markupsafe import Markup

from engines.jobs import Place
from webui import face_report
from webui.i18n import Words
from webui.pictures import address, compare_html, file_name, image_html
from webui.stream import JobView, Tile, brief_s

MINUTES_FROM_S = 120.0  # from here on, seconds would feign a precision that a guess does not have


def job_html(scene: JobView, say: Words) -> Markup:
    return Markup(
        '<figure class="stage is-{state}" style="--ratio:{ratio:.4f}" tabindex="-1">'
        "{frame}{strip}<figcaption>{status}{next_steps}{faces}{details}</figcaption></figure>"
    ).format(
        state=scene.state,
        ratio=scene.ratio,
        frame=_frame(scene, say),
        strip=_strip(scene, say),
        status=status_html(scene, say),
        faces=face_report.list_html(scene.faces, say),
        next_steps=_next_steps(scene, say),
        details=_details(scene, say),
    )


def _frame(scene: JobView, say: Words) -> Markup:
    if scene.is_contact_sheet:
        return _contact_sheet(scene, say)
    tile = scene.current
    if tile is None and scene.before:
        return Markup('<div class="frame">{}</div>').format(image_html(scene.before, say("restore_before")))
    if tile is None:
        hint = say(scene.status) if scene.state == "idle" else ""
        return Markup('<div class="frame is-empty"><p>{}</p></div>').format(hint)
    if scene.before:
        was, now = (scene.before, say("restore_before")), (tile.image, say("restore_after"))
        whole = compare_html(was, now, say("restore_compare"), face_report.marks_html(scene.faces), "fits")
        return whole + face_report.zoom_html(scene.faces, scene.before, tile.image, say)
    if scene.versus and tile.finished:
        was, now = (scene.versus.image, say(scene.versus.was)), (tile.image, say(scene.versus.now))
        return compare_html(was, now, say("stage_versus"), kind="fits")
    badge = say("stage_full") if tile.shown_by == "vae" else say("stage_quick")
    if not tile.finished:
        badge += " · " + say("stage_step", step=tile.step)
    return Markup('<div class="frame">{image}<span class="badge is-{decoder}">{badge}</span></div>').format(
        image=image_html(tile.image, scene.caption[:200]), decoder=tile.shown_by, badge=badge
    )


def _contact_sheet(scene: JobView, say: Words) -> Markup:
    """Return the looks, each a button that has its picture finished, and room for those that are to come."""
    look = Markup('<button type="button" data-develop="{name}" aria-label="{label}">{image}</button>')
    looks = [
        look.format(name=tile.image, label=say("stage_sheet_look", number=number), image=image_html(tile.image, ""))
        for number, tile in enumerate(scene.tiles, start=1)
        if tile.image
    ]
    room = Markup("<span></span>") * (scene.pictures - len(looks))
    return Markup('<div class="contact-sheet">{}{}</div>').format(Markup().join(looks), room)


def _strip(scene: JobView, say: Words) -> Markup:
    if scene.before and scene.current:
        return face_report.strip_html(scene.faces, scene.current.image, say)
    if len(scene.tiles) < 2 or scene.is_contact_sheet:
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
    if scene.state == "done" and scene.unknown:
        line += Markup('<p class="note">{}</p>').format(say("portrait_unknown", words=say("comma").join(scene.unknown)))
    line += Markup().join(Markup('<p class="note">{}</p>').format(say.caution(each)) for each in scene.warnings)
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
        return say("stage_eta", seconds=brief_s(eta_s))
    return say("stage_eta_minutes", minutes=round(eta_s / 60))


def quiet_text(quiet_s: float, say: Words) -> str:
    """Say until when batches wait, by the clock of this machine, beside which somebody sleeps."""
    return say("stage_quiet", until=time.strftime("%H:%M", time.localtime(time.time() + quiet_s + 1)))


def waiting_text(place: Place, say: Words) -> str:
    if place.away:
        return say("stage_waking" if place.waking else "stage_away", name=place.away)
    if place.quiet_s:
        return quiet_text(place.quiet_s, say)
    line = say("stage_waiting", ahead=place.ahead)
    return line if place.eta_s is None else f"{line} · {about_text(place.eta_s, say)}"


def about_text(seconds: float, say: Words) -> str:
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


def _details(scene: JobView, say: Words) -> Markup:
    tile = scene.current
    if tile is None:
        return Markup()
    chips = []
    if tile.tiny_s is not None:
        chips.append(f"{say('stage_tiny')} · {say('stage_after', seconds=brief_s(tile.tiny_s))}")
    if tile.vae_s is not None:
        chips.append(f"{say('stage_vae')} · {say('stage_after', seconds=brief_s(tile.vae_s))}")
    if scene.seed is not None and scene.task in ("generate", "develop"):
        chips.append(say("stage_seed", seed=scene.seed))
    if scene.reason:
        chips.append(say("stage_engine", reason=say.phrase(scene.reason)))
    spans = Markup().join(Markup("<span>{}</span>").format(chip) for chip in chips)
    details = Markup('<details><summary>{}</summary><p class="chips">{}</p></details>')
    return details.format(say("stage_details"), spans)


def _next_steps(scene: JobView, say: Words) -> Markup:
    """Return what can be done with finished pictures, or with a photo in which no face was found."""
    button = Markup('<p class="actions"><button type="button" data-{}>{}</button></p>')
    if scene.is_contact_sheet:
        return button.format("vary", say("stage_sheet_vary")) if scene.state != "running" else Markup()
    if scene.current and scene.current.finished:
        drawn, again = scene.task != "enhance", scene.task == "generate"
        return actions_html(scene.current, say, drawn=drawn, again=again, sheet=scene.sheet)
    anyway, turn = button.format("anyway", say("restore_anyway")), Markup()
    if scene.state != "failed" or scene.code not in ("no_face", "faces_turned"):
        return Markup()
    if scene.code == "faces_turned":
        turn = button.format(f"turn={scene.facts['turn']}", say("restore_turn"))
    return turn + anyway


def actions_html(tile: Tile, say: Words, drawn: bool, again: bool, sheet: str = "") -> Markup:
    """
    Return what can be done with a finished picture (assets/result.js). `drawn`: it is a portrait, no restored photo;
    `again`: others like it can be drawn now; `sheet`: the job of the contact sheet it was chosen from.
    """
    button = Markup('<button type="button" data-{}="{}">{}</button>')
    first = [button.format("develop", tile.image, say("stage_develop"))] if tile.shown_by == "tiny" else []
    first += [button.format("sheet", sheet, say("stage_sheet_back"))] if sheet else []
    first += [button.format("vary", "", say("stage_vary"))] if again and not first else []
    further = {"restore": say("stage_restore_this"), "begin-with": say("stage_begin_with")} if drawn else {}
    further |= {"again": say("stage_again")} if again and tile.shown_by == "vae" else {}
    rest = [button.format(what, tile.image, label) for what, label in further.items()]
    return Markup(
        '<p class="actions"><a href="{address}" download="{name}" data-picture>{download}</a>{first}'
        '<button type="button" data-share-picture data-instead="{instead}">{share}</button></p>'
        '<details><summary>{more}</summary><p class="actions">'
        '<a href="{address}" target="_blank" rel="noopener" data-picture>{open}</a>'
        '<button type="button" data-copy-picture data-done="{copied}">{copy}</button>{rest}</p></details>'
    ).format(
        address=address(tile.image),
        name=file_name(tile.image),
        download=say("stage_download"),
        open=say("stage_open"),
        share=say("stage_share"),
        instead=say("stage_share_instead"),
        copy=say("stage_copy"),
        copied=say("stage_copied"),
        more=say("stage_more"),
        first=Markup().join(first),
        rest=Markup().join(rest),
    )
