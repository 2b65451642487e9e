"""
Cards of finished pictures, as the wall shows them (assets/history.js). Knows finished jobs and the words; no Gradio.
HTML is Markup, which escapes every text that is put into it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

from engines.jobs import Finished
from engines.messages import Enhance, Generate
from webui.boards.jobs import request_words
from webui.i18n import Words
from webui.own_jobs import OwnJobs
from webui.pictures import address, file_name, thumbnail_address

DAY_S = 86400.0
ICON = Markup('<svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true"><path d="{}"/></svg>')
HEART = ICON.format("M12 20s-7.5-4.6-7.5-10A4.3 4.3 0 0 1 12 7.4 4.3 4.3 0 0 1 19.5 10c0 5.4-7.5 10-7.5 10z")
DOWNLOAD = ICON.format("M12 4v11m-5-5 5 5 5-5M5 20h14")
AGAIN = ICON.format("M5 12a7 7 0 1 0 2.2-5.1M5 4v4h4")
MORE = ICON.format("M6 12h.01M12 12h.01M18 12h.01")


def wall_html(jobs: Sequence[Finished], befores: Mapping[str, str], own: OwnJobs, say: Words) -> Markup:
    """`befores`: of restored photos, by their jobs, the picture of the photo as it came; where there is one."""
    now_s = time.time()
    return Markup().join(_card(finished, befores.get(finished.job.id, ""), own, say, now_s) for finished in jobs)


def position_text(finished: Finished) -> str:
    """Return where a card stands among all others, by which a page knows it: "ended number"."""
    ended, number = finished.position
    return f"{ended!r} {number}"


def _card(finished: Finished, before: str, own: OwnJobs, say: Words, now_s: float) -> Markup:
    """Of somebody else's there are the pictures; what was asked for is nobody's business."""
    job, is_own = finished.job, own.may_see(finished.job)
    words = request_words(job.request, say) if is_own else say("album_shared")
    return Markup(
        '<article data-position="{position}"{name}>{chooser}<div class="pictures">{pictures}</div>{heart}'
        '<div class="under"><p class="words">{words}</p>{facts}<div class="acts">{acts}</div></div></article>'
    ).format(
        position=position_text(finished),
        name=Markup(' data-job="{}"').format(job.id) if own.owns(job) else "",
        chooser=_chooser(words, say) if own.owns(job) else "",
        pictures=_pictures(finished, before, words[:200], say),
        heart=_heart(finished, say) if own.owns(job) else "",
        words=words,
        facts=_facts(finished, say, now_s) if is_own else "",
        acts=Markup().join(_acts(finished, is_own, own, say)),
    )


def _pictures(finished: Finished, before: str, words: str, say: Words) -> Markup:
    link = Markup(
        '<a href="{address}" target="_blank" rel="noopener"><img src="{small}" alt="{words}" loading="lazy">{tag}</a>'
    )
    tag = Markup('<span class="tag">{}</span>')
    shown = [(name, words, "") for name in finished.final.images]
    if before:
        was, now = say("restore_before"), say("restore_after")
        shown = [(before, was, tag.format(was)), *((name, words, tag.format(now)) for name in finished.final.images)]
    return Markup().join(
        link.format(address=address(name), small=thumbnail_address(name), words=text, tag=mark)
        for name, text, mark in shown
    )


def _chooser(words: str, say: Words) -> Markup:
    return Markup('<label class="choose"><input type="checkbox" data-choose aria-label="{}"></label>').format(
        f"{say('history_choose')}: {words[:80]}"
    )


def _heart(finished: Finished, say: Words) -> Markup:
    return Markup(
        '<button type="button" class="heart" data-act="{act}" aria-pressed="{pressed}" aria-label="{label}" '
        'title="{label}">{icon}</button>'
    ).format(
        act="unfavour" if finished.favourite else "favour",
        pressed="true" if finished.favourite else "false",
        label=say("history_favourite"),
        icon=HEART,
    )


def _facts(finished: Finished, say: Words, now_s: float) -> Markup:
    """Say when it was drawn, and from which seed."""
    ended, seed = finished.job.ended or 0.0, finished.final.seed
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(ended))
    drawn = isinstance(finished.job.request, Generate)
    return Markup('<p class="facts"><time datetime="{}">{}</time>{}</p>').format(
        stamp,
        when_text(ended, now_s, say),
        Markup("<span>{}</span>").format(say("stage_seed", seed=seed)) if drawn else "",
    )


def when_text(then_s: float, now_s: float, say: Words) -> str:
    """Say when something was, by this machine's clock, as precisely as one remembers it."""
    then, now = time.localtime(then_s), time.localtime(now_s)
    clock = time.strftime("%H:%M", then)
    for key, day in (("history_today", now), ("history_yesterday", time.localtime(now_s - DAY_S))):
        if then[:3] == day[:3]:
            return say(key, time=clock)
    key = "history_day" if then.tm_year == now.tm_year else "history_date"
    month = say("history_months").split()[then.tm_mon - 1]
    return say(key, day=then.tm_mday, month=month, year=then.tm_year)


def _acts(finished: Finished, is_own: bool, own: OwnJobs, say: Words) -> Iterator[Markup]:
    job, final = finished.job, finished.final
    many = len(final.images) > 1 and own.owns(job)
    yield Markup('<a href="{address}" download="{name}" aria-label="{label}" title="{label}">{icon}</a>').format(
        address=f"batch.zip?jobs={job.id}" if many else address(final.images[0]),
        name="" if many else file_name(final.images[0]),
        label=say("stage_download"),
        icon=DOWNLOAD,
    )
    if is_own and isinstance(job.request, Generate):
        yield Markup(
            '<button type="button" data-reuse="{job}" aria-label="{label}" title="{label}">{icon}</button>'
        ).format(job=job.id, label=say("history_reuse"), icon=AGAIN)
    yield Markup(
        '<details class="menu"><summary aria-label="{label}" title="{label}">{icon}</summary>'
        "<div>{items}</div></details>"
    ).format(label=say("history_actions"), icon=MORE, items=Markup().join(_items(finished, is_own, own, say)))


def _items(finished: Finished, is_own: bool, own: OwnJobs, say: Words) -> Iterator[Markup]:
    job, final = finished.job, finished.final
    button = Markup('<button type="button" data-{what}="{which}">{label}</button>')
    yield Markup('<a href="{}" target="_blank" rel="noopener">{}</a>').format(
        address(final.images[0]), say("stage_open")
    )
    if final.decoder == "tiny":
        yield button.format(what="develop", which=final.images[0], label=say("stage_develop"))
    if finished.shared and own.may_take_out(job):
        yield button.format(what="unshare", which=job.id, label=say("album_take_out"))
    elif is_own and not finished.shared:
        yield button.format(what="share", which=job.id, label=say("album_put"))
    if own.owns(job):
        yield button.format(what="act", which="delete", label=say("history_delete"))
    if is_own:
        yield Markup('<p class="note">{}</p>').format(
            f"{final.engine} · {say('stage_after', seconds=f'{final.seconds:.1f}')}"
        )


def is_restored(finished: Finished, own: OwnJobs) -> bool:
    """Tell whether this person may see the photo as it came."""
    return isinstance(finished.job.request, Enhance) and own.may_see(finished.job)
