"""
The models of the catalogue as a page shows them: what each is, whether this machine can run it, how its download goes,
and what to do next. A download is a job like others, so this knows the queue and the words; no Gradio. Everything that
came from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from engines.jobs import ENDED, Job, JobQueue, State
from engines.messages import Event, Failed, Fetch, Progress
from engines.messages.status import Model, ModelStatus, Status
from webui.follow import jobs_of
from webui.i18n import Words
from webui.stream import left_text

LIMIT = 50  # downloads
NEXT = {"portrait": "build", "restorer": "build", "lora": "wear"}  # what becomes of it -> the event of the next step
HUBS = {"hf": "Hugging Face", "modelscope": "ModelScope"}


@dataclass(frozen=True)
class Download:
    """`latest`: what it said last. `stopping`: somebody has pressed cancel just now."""

    job_id: str
    model: str
    state: State
    latest: Event | None = None
    ahead: int = 0
    stopping: bool = False

    @property
    def busy(self) -> bool:
        return self.state not in ENDED


def read(queue: JobQueue, jobs: object) -> list[Download]:
    """The downloads that a browser remembers. What is none of them is passed over."""
    return [_download(queue, job, order) for job, order in jobs_of(queue, jobs, Fetch, LIMIT)]


def _download(queue: JobQueue, job: Job, order: Fetch) -> Download:
    return Download(job.id, order.model, job.state, queue.latest(job.id), queue.ahead(job.id))


def busy(downloads: Sequence[Download]) -> bool:
    return any(download.busy for download in downloads)


def outline(downloads: Sequence[Download]) -> str:
    """Changes whenever one begins or ends."""
    return " ".join(f"{download.job_id}:{download.state}" for download in downloads)


# ---- drawing


def board_html(status: Status, downloads: Sequence[Download], say: Words) -> str:
    of_model = {download.model: download for download in downloads}  # of one model, the last
    cards = "".join(_card(model_status, of_model, say) for model_status in status.models)
    note = f'<p class="note">{escape(say("models_note"))}</p>'
    return f'{_strays(status.strays, say)}{note}<div class="models">{cards}</div>'


def _strays(names: Sequence[str], say: Words) -> str:
    if not names:
        return ""
    return f'<p class="hurdle">{escape(say("models_strays", names=", ".join(names)))}</p>'


def _card(status: ModelStatus, of_model: Mapping[str, Download], say: Words) -> str:
    model = status.model
    download = of_model.get(model.id)
    title = model.title.get(say.language, model.id)
    limited = "" if model.commercial else ' class="is-limited"'
    chips = f"<span>{escape(_size(model))}</span><span{limited}>{escape(model.licence)}</span>"
    terms = f'<p class="note">{escape(model.terms.get(say.language, ""))}</p>'
    now = _busy(download, say) if download and download.busy else _here(model, say) if status.here else ""
    head = f'<h4>{escape(title)}</h4><p class="chips">{chips}</p>{terms}'
    return f"<article>{head}{now or _away(status, download, say)}</article>"


def _size(model: Model) -> str:
    size = f"{model.size_gb:.1f} GB" if model.size_gb >= 1 else f"{1000 * model.size_gb:.0f} MB"
    return f"≈ {size}" if model.approximate else size


def _busy(download: Download, say: Words) -> str:
    p = download.latest
    value, total = (p.step, p.total) if isinstance(p, Progress) and p.stage == "fetch" else (0, 1)
    waiting = say("stage_cancelling") if download.stopping else say("portrait_cancel")
    off = " disabled" if download.stopping else ""
    return (
        f'<div class="stage is-running"><p class="status" role="status">{escape(status_text(download, say))}</p>'
        f'<progress max="{total}" value="{value}"></progress><p class="actions">'
        f'<button type="button" data-stop="{download.job_id}"{off}>{escape(waiting)}</button></p></div>'
    )


def status_text(download: Download, say: Words) -> str:
    """One line: how many are before it, or how much of it is here and when the rest will be."""
    if download.ahead:
        return say("stage_waiting", ahead=download.ahead)
    p = download.latest
    if not isinstance(p, Progress) or p.stage != "fetch":
        return say("models_asking")
    return " · ".join([say("stage_fetch"), _amount(p), *([left_text(p.eta_s, say)] if p.eta_s else [])])


def _amount(p: Progress) -> str:
    """Steps are megabytes."""
    return f"{p.step / 1000:.2f} / {p.total / 1000:.2f} GB" if p.total >= 1000 else f"{p.step} / {p.total} MB"


def _here(model: Model, say: Words) -> str:
    """What to do next, in one press; a small decoder is taken by itself."""
    line = f'<p class="now is-here">{escape(say("models_here"))}</p>'
    if model.becomes not in NEXT:
        return f'{line}<p class="note">{escape(say("models_taken"))}</p>'
    step = NEXT[model.becomes]
    words = escape(say(f"models_{step}"))
    button = f'<button type="button" data-{step}="{escape(model.id)}">{words}</button>'
    return f'{line}<p class="actions">{button}</p>'


def _away(status: ModelStatus, download: Download | None, say: Words) -> str:
    failed = download.latest if download and isinstance(download.latest, Failed) else None
    line = f'<p class="now is-lost" role="status">{escape(_why(failed, say))}</p>' if failed else ""
    if not status.fits:
        return f'{line}<p class="now">{escape(say("models_too_large", why=say.phrase(status.why)))}</p>'
    model = status.model
    buttons = "".join(
        f'<button type="button" data-fetch="{escape(model.id)}" data-mirror="{escape(mirror)}">'
        f"{escape(say('models_get' if k == 0 else 'models_get_from', hub=HUBS.get(mirror, mirror)))}</button>"
        for k, mirror in enumerate(model.mirrors)
    )
    return f'{line}<p class="actions">{buttons}</p>'


def _why(failed: Failed, say: Words) -> str:
    sentence = say.error(failed.code, failed.facts)
    return sentence if failed.code == "cancelled" else f"❌ {sentence}"
