"""
Many photos restored with one press: what has become of each, as a list that a page shows. Every photo is a job of its
own, so this knows the queue and the words; no Gradio. Everything that came from outside is escaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape

from engines.errors import Fact
from engines.jobs import ENDED, Job, JobQueue, State
from engines.messages import Enhance, Event, FaceReport, Failed, Final, Preview
from webui import face_report
from webui.follow import jobs_of
from webui.i18n import Words
from webui.stream import address, left_text, untouched

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


def read(queue: JobQueue, jobs: object) -> list[Item]:
    """The restorations that a browser remembers. What is none of them is passed over: it may send anything."""
    return [_item(queue, job, order) for job, order in jobs_of(queue, jobs, Enhance, LIMIT)]


def _item(queue: JobQueue, job: Job, order: Enhance) -> Item:
    item = Item(job.id, order.name, job.state)
    for event in queue.follow(job.id) if job.state in ENDED else ():
        item = _after(item, event, queue)
    return item


def _after(item: Item, event: Event, queue: JobQueue) -> Item:
    match event:
        case Preview(kind="before") if (queue.folder / event.image).is_file():  # they live for a day
            return replace(item, before=event.image)
        case Final() if event.images:
            return replace(item, result=event.images[0], seconds=event.seconds, faces=event.faces)
        case Failed():
            return replace(item, code=event.code, facts=event.facts)
    return item


def results(queue: JobQueue, jobs: Sequence[str]) -> list[str]:
    """The names of the restored pictures, of those that were restored and are still there."""
    done = [item.result for item in read(queue, list(jobs)) if item.state == "done" and item.result]
    return [name for name in done if (queue.folder / name).is_file()]


def busy(items: Sequence[Item]) -> bool:
    return any(item.state not in ENDED for item in items)


def outline(items: Sequence[Item]) -> str:
    """Changes whenever the list does."""
    return " ".join(f"{item.job_id}:{item.state}" for item in items)


def left_s(items: Sequence[Item]) -> float | None:
    """How long the rest will take, as the finished ones tell."""
    took = [item.seconds for item in items if item.state == "done"]
    rest = sum(item.state not in ENDED for item in items)
    return sum(took) / len(took) * rest if took else None


# ---- drawing


def board_html(items: Sequence[Item], say: Words) -> str:
    if not items:
        return f'<div class="stage is-idle"><div class="frame is-empty"><p>{escape(_idle(say))}</p></div></div>'
    rows = "".join(_row(number, item, say) for number, item in enumerate(items, start=1))
    state = "running" if busy(items) else "done"
    return f'<div class="stage is-{state}">{_head(items, say)}<ol class="photos">{rows}</ol></div>'


def _idle(say: Words) -> str:
    return say("batch_empty", limit=LIMIT)


def _head(items: Sequence[Item], say: Words) -> str:
    ended = sum(item.state in ENDED for item in items)
    bar = f'<progress max="{len(items)}" value="{ended}"></progress>' if busy(items) else ""
    line = f'<p class="status" role="status">{escape(status_text(items, say))}</p>{bar}'
    return f'{line}<p class="actions">{_for_all(items, say)}</p>'


def status_text(items: Sequence[Item], say: Words) -> str:
    count = Counter(item.state for item in items)
    lost = count["failed"] + count["cancelled"]
    if busy(items):
        line = say("batch_progress", done=count["done"] + lost, total=len(items))
        rest = left_s(items)
        return f"{line} · {left_text(rest, say)}" if rest else line
    if lost:
        return say("batch_ended", done=count["done"], lost=lost)
    return say("batch_done", count=count["done"])


def _for_all(items: Sequence[Item], say: Words) -> str:
    """What can be done with all that is finished, and with all that failed."""
    done, lost = [item.job_id for item in items if item.result], sum(item.lost for item in items)
    archive = f'<a href="/batch.zip?jobs={"-".join(done)}" download>{escape(say("batch_zip", count=len(done)))}</a>'
    again = f'<button type="button" data-again="">{escape(say("batch_retry_all", count=lost))}</button>'
    return (archive if done else "") + (again if lost else "")


def _row(number: int, item: Item, say: Words) -> str:
    name = item.name or say("batch_unnamed", number=number)
    return (
        f'<li class="is-{item.state}">{_thumbnail(item)}<div><p class="name">{escape(name)}</p>'
        f'<p class="note">{escape(row_text(item, say))}</p></div><p class="actions">{_actions(item, say)}</p></li>'
    )


def _thumbnail(item: Item) -> str:
    shown = item.before or item.result
    if not shown:
        return '<span class="thumb"></span>'
    image = f'<img class="thumb" src="{address(shown)}" alt="" loading="lazy">'
    if not item.result:
        return image
    return f'<a href="{address(item.result)}" target="_blank" rel="noopener">{image}</a>'


def row_text(item: Item, say: Words) -> str:
    """What became of one photo, or why not."""
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


def _actions(item: Item, say: Words) -> str:
    if item.result:
        name = escape(item.result)
        return f'<a href="{address(item.result)}" download="{name}">{escape(say("stage_download"))}</a>'
    if not item.lost:
        return ""
    again = f'<button type="button" data-again="{item.job_id}">{escape(say("batch_retry"))}</button>'
    if item.code != "no_face":
        return again
    return f'<button type="button" data-again="{item.job_id}" data-whole>{escape(say("restore_anyway"))}</button>'
