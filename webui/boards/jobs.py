"""
What a person has asked for and has not got: her jobs that run or wait, and those that came to nothing of late, which
can be tried again. Knows the queue and the words; no Gradio. HTML is Markup, which escapes every text put into it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from markupsafe import Markup

from engines.errors import (
    EngineError,
    EngineUnavailable,
    JobInterrupted,
    JobPostponed,
    MemoryShort,
    OutOfMemory,
    StorageError,
    StudioError,
)
from engines.jobs import Job, Place
from engines.messages import Develop, Enhance, Failed, Generate, Request
from webui.i18n import Words
from webui.own_jobs import OwnJobs
from webui.stage import left_text, waiting_text

Order = Generate | Enhance | Develop  # what people ask for; looks at photos, builds and downloads are shown elsewhere
LOOKED_AT, SHOWN = 250, 8  # jobs: more than a batch has, and rows
FAILED_S = 86400.0  # how long it is said that something failed
# What may go well another time: it was not the request that was at fault.
PASSING = {
    error.code
    for error in (StudioError, EngineError, EngineUnavailable, OutOfMemory, MemoryShort, StorageError, JobInterrupted)
}
ACTS: Mapping[str, Callable[[OwnJobs, str], object]] = {
    "cancel": OwnJobs.cancel,
    "first": OwnJobs.move_first,
    "retry": OwnJobs.retry,
    "pause": lambda own, _: own.pause(),
    "resume": lambda own, _: own.resume(),
}


@dataclass(frozen=True)
class OpenJob:
    """A job, and where it is in its line; of one that failed, why."""

    job: Job
    place: Place
    failed: Failed | None = None


@dataclass(frozen=True)
class OpenJobs:
    """`rows`: in the order in which they will end, what failed last. `may_pause`: this person is the owner."""

    rows: tuple[OpenJob, ...] = ()
    paused: bool = False
    may_pause: bool = False

    @property
    def busy(self) -> bool:
        return any(row.failed is None for row in self.rows)

    @property
    def outline(self) -> str:
        """A text that changes whenever a job begins or ends."""
        return " ".join(f"{row.job.id}:{row.job.state}" for row in self.rows)


def read(own: OwnJobs) -> OpenJobs:
    asked = [job for job in own.latest_jobs(LOOKED_AT) if isinstance(job.request, Order)]
    under_way = [row for job in asked if job.state in ("running", "queued") for row in _placed(own, job)]
    under_way.sort(key=lambda row: (row.job.state != "running", row.place.ahead))
    paused = own.queue.is_paused()
    may_pause = own.person.is_owner and (paused or own.queue.busy())
    return OpenJobs((*under_way, *_lost(own, asked)), paused, may_pause)


def _placed(own: OwnJobs, job: Job) -> Iterator[OpenJob]:
    with suppress(JobPostponed):  # the program is being stopped
        yield OpenJob(job, own.place(job.id))


def _lost(own: OwnJobs, asked: Sequence[Job]) -> Iterator[OpenJob]:
    """Yield what failed within a day, unless the same has been asked for since. `asked`: newest first."""
    since: list[Request] = []
    for job in asked:
        if job.state == "failed" and job.request not in since and time.time() - (job.ended or 0.0) < FAILED_S:
            if isinstance(failed := own.latest(job.id), Failed):
                yield OpenJob(job, Place(0, None), failed)
        since.append(job.request)


# ---- drawing


def board_html(board: OpenJobs, say: Words) -> Markup:
    if not board.rows and not board.may_pause and not board.paused:
        return Markup()
    more = Markup('<p class="note">{}</p>').format(say("jobs_more", count=len(board.rows) - SHOWN))
    return Markup('<section class="stage">{head}<ol class="photos">{rows}</ol>{more}</section>').format(
        head=_head(board, say),
        rows=Markup().join(_row(row, _may_be_first(row, board), say) for row in board.rows[:SHOWN]),
        more=more if len(board.rows) > SHOWN else "",
    )


def _head(board: OpenJobs, say: Words) -> Markup:
    act, label = ("resume", say("jobs_resume")) if board.paused else ("pause", say("jobs_pause"))
    button = Markup('<p class="actions"><button type="button" data-act="{}">{}</button></p>').format(act, label)
    note = Markup('<p class="note" role="status">{}</p>').format(say("jobs_paused"))
    return Markup('<div class="head"><h3>{title}</h3>{button}</div>{note}').format(
        title=say("jobs_title" if board.busy or not board.rows else "jobs_lost"),
        button=button if board.may_pause else "",
        note=note if board.paused else "",
    )


def _may_be_first(row: OpenJob, board: OpenJobs) -> bool:
    """Return whether another one of this person's begins before it."""
    waiting = [other for other in board.rows if other.job.state == "queued"]
    return row.job.state == "queued" and row is not waiting[0]


def _row(row: OpenJob, may_be_first: bool, say: Words) -> Markup:
    button = Markup('<button type="button" data-act="{}" data-job="{}">{}</button>')
    return Markup(
        '<li class="is-{state}"><div><p class="name">{words}</p><p class="note">{note}</p></div>'
        '<p class="actions">{actions}</p></li>'
    ).format(
        state=row.job.state,
        words=request_words(row.job.request, say)[:200],
        note=row_text(row, say),
        actions=Markup().join(button.format(act, row.job.id, label) for act, label in _acts(row, may_be_first, say)),
    )


def _acts(row: OpenJob, may_be_first: bool, say: Words) -> Iterator[tuple[str, str]]:
    if row.failed is None:
        yield "cancel", say("portrait_cancel")
    elif row.failed.code in PASSING:
        yield "retry", say("batch_retry")
    if may_be_first:
        yield "first", say("jobs_first")


def row_text(row: OpenJob, say: Words) -> str:
    if row.failed:
        return "❌ " + say.error(row.failed.code, row.failed.facts)
    if row.job.state == "running":
        return " · ".join([say("jobs_running"), *([left_text(row.place.eta_s, say)] if row.place.eta_s else [])])
    return say("batch_queued") if row.place.paused else waiting_text(row.place, say)


def request_words(request: Request, say: Words) -> str:
    """Return what a person would call this by: her own words, or the photo's name."""
    if isinstance(request, Generate):
        return request.prompt
    if isinstance(request, Enhance):
        return " · ".join(filter(None, (say("history_restored"), request.name)))
    return say("history_developed")
