"""
Many photos restored with one press: what has become of each, as a list that a page shows. Every photo is a job of its
own, so this knows the queue and the words; no Gradio. HTML is Markup, which escapes every text that is put into it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from markupsafe import Markup

from engines.errors import Fact, JobPostponed
from engines.jobs import ENDED, Job, State
from engines.messages import Enhance, Event, Failed, Final, Preview
from engines.messages.faces import FaceReport
from webui import face_report
from webui.follow import jobs_of
from webui.i18n import Words
from webui.own_jobs import OwnJobs
from webui.pictures import address, file_name
from webui.stage import left_text, quiet_text
from webui.stream import untouched

LIMIT = 200  # photos


@dataclass(frozen=True)
class Item:
    """One photo. `before`: a small picture of it as it came; `result`: the restored one, which only a success has."""

    job_id: str
    name: str
    state: State
    before: str = ""
    result: str = ""
    seconds: float = 0.0
    faces: tuple[FaceReport, ...] = ()
    code: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def lost(self) -> bool:
        return self.state in ("failed", "cancelled")


def read(own: OwnJobs, jobs: object) -> list[Item]:
    """Return the restorations that a browser remembers. What is none of them is passed over: it may send anything."""
    return [_item(own, job, order) for job, order in jobs_of(own, jobs, Enhance, LIMIT)]


def _item(own: OwnJobs, job: Job, order: Enhance) -> Item:
    item = Item(job.id, order.name, job.state)
    for event in own.follow(job.id) if job.state in ENDED else ():
        item = _after(item, event, own)
    return item


def _after(item: Item, event: Event, own: OwnJobs) -> Item:
    match event:
        case Preview(kind="before") if own.file(event.image).is_file():  # they live for a day
            return replace(item, before=event.image)
        case Final() if event.images:
            return replace(item, result=event.images[0], seconds=event.seconds, faces=event.faces)
        case Failed():
            return replace(item, code=event.code, facts=event.facts)
    return item


def busy(items: Sequence[Item]) -> bool:
    return any(item.state not in ENDED for item in items)


def quiet_s(own: OwnJobs, items: Sequence[Item]) -> float:
    """Return in how many seconds the quiet hours end, for which the next of them waits; 0: it does not."""
    following = [item.job_id for item in items if item.state == "queued"][:1]
    with suppress(JobPostponed):
        return sum(own.place(job_id).quiet_s for job_id in following)
    return 0.0


def outline(items: Sequence[Item]) -> str:
    """Return a text that changes whenever the list does."""
    return " ".join(f"{item.job_id}:{item.state}" for item in items)


def left_s(items: Sequence[Item]) -> float | None:
    """Return how long the rest will take, as the finished ones tell."""
    took = [item.seconds for item in items if item.state == "done"]
    rest = sum(item.state not in ENDED for item in items)
    return sum(took) / len(took) * rest if took else None


# ---- drawing


def board_html(items: Sequence[Item], say: Words, quiet_s: float = 0.0) -> Markup:
    """`quiet_s`: in how many seconds the quiet hours end, for which those that wait do so; 0: they do not."""
    if not items:
        idle = Markup('<div class="stage is-idle"><div class="frame is-empty"><p>{}</p></div></div>')
        return idle.format(say("batch_empty", limit=LIMIT))
    return Markup('<div class="stage is-{state}">{head}<ol class="photos">{rows}</ol></div>').format(
        state="running" if busy(items) else "done",
        head=_head(items, say, quiet_s),
        rows=Markup().join(_row(number, item, say) for number, item in enumerate(items, start=1)),
    )


def _head(items: Sequence[Item], say: Words, quiet_s: float) -> Markup:
    ended = sum(item.state in ENDED for item in items)
    bar = Markup('<progress max="{}" value="{}"></progress>').format(len(items), ended)
    return Markup('<p class="status" role="status">{text}</p>{bar}<p class="actions">{actions}</p>').format(
        text=status_text(items, say, quiet_s), bar=bar if busy(items) else "", actions=_for_all(items, say)
    )


def status_text(items: Sequence[Item], say: Words, quiet_s: float = 0.0) -> str:
    count = Counter(item.state for item in items)
    lost = count["failed"] + count["cancelled"]
    if busy(items):
        line = say("batch_progress", done=count["done"] + lost, total=len(items))
        if quiet_s and not count["running"]:
            return f"{line} · {quiet_text(quiet_s, say)}"
        rest = left_s(items)
        return f"{line} · {left_text(rest, say)}" if rest else line
    if lost:
        return say("batch_ended", done=count["done"], lost=lost)
    return say("batch_done", count=count["done"])


def _for_all(items: Sequence[Item], say: Words) -> Markup:
    """Return what can be done with all that is finished, and with all that failed."""
    done, lost = [item.job_id for item in items if item.result], sum(item.lost for item in items)
    archive = Markup('<a href="batch.zip?jobs={}" download>{}</a>').format(
        "-".join(done), say("batch_zip", count=len(done))
    )
    again = Markup('<button type="button" data-again="">{}</button>').format(say("batch_retry_all", count=lost))
    return (archive if done else Markup()) + (again if lost else Markup())


def _row(number: int, item: Item, say: Words) -> Markup:
    return Markup(
        '<li class="is-{state}">{thumbnail}<div><p class="name">{name}</p><p class="note">{note}</p></div>'
        '<p class="actions">{actions}</p></li>'
    ).format(
        state=item.state,
        thumbnail=_thumbnail(item),
        name=item.name or say("batch_unnamed", number=number),
        note=row_text(item, say),
        actions=_actions(item, say),
    )


def _thumbnail(item: Item) -> Markup:
    shown = item.before or item.result
    if not shown:
        return Markup('<span class="thumb"></span>')
    image = Markup('<img class="thumb" src="{}" alt="" loading="lazy">').format(address(shown))
    if not item.result:
        return image
    return Markup('<a href="{}" target="_blank" rel="noopener">{}</a>').format(address(item.result), image)


def row_text(item: Item, say: Words) -> str:
    """Say what became of one photo, or why nothing did."""
    if item.state == "failed":
        return "❌ " + say.error(item.code, item.facts)
    if item.state == "done":
        return "✅ " + _done(item, say)
    return say(f"batch_{item.state}")


def _done(item: Item, say: Words) -> str:
    took = say("stage_after", seconds=f"{item.seconds:.1f}")
    if untouched(item.faces):
        return f"{say('batch_untouched')} · {took}"
    return f"{face_report.summary(item.faces, say)} · {took}" if item.faces else took


def _actions(item: Item, say: Words) -> Markup:
    if item.result:
        link = Markup('<a href="{}" download="{}">{}</a>')
        return link.format(address(item.result), file_name(item.result), say("stage_download"))
    if not item.lost:
        return Markup()
    if item.code == "faces_turned":
        turn = Markup('<button type="button" data-again="{}" data-turn="{}">{}</button>')
        return turn.format(item.job_id, item.facts["turn"], say("restore_turn"))
    if item.code == "no_face":
        whole = Markup('<button type="button" data-again="{}" data-whole>{}</button>')
        return whole.format(item.job_id, say("restore_anyway"))
    return Markup('<button type="button" data-again="{}">{}</button>').format(item.job_id, say("batch_retry"))
