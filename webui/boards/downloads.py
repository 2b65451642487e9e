"""
The models of the catalogue as a page shows them: what each is, whether this machine can run it, how its download goes,
and what to do next. A download is a job like others, so this knows the queue and the words; no Gradio. HTML is Markup,
which escapes every text that is put into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from engines.jobs import ENDED, Job, Place, State
from engines.messages import Event, Failed, Fetch, Progress
from engines.messages.status import Model, ModelStatus, Status
from webui.follow import jobs_of
from webui.i18n import Words
from webui.own_jobs import OwnJobs
from webui.stage import left_text, waiting_text

LIMIT = 50  # downloads
NEXT = {"portrait": "build", "restorer": "build", "lora": "wear"}  # what becomes of it -> the event of the next step
ARRIVING = ("fetch", "reconnect")  # stages that say how much is here
HUBS = {"hf": "Hugging Face", "modelscope": "ModelScope"}


@dataclass(frozen=True)
class Download:
    """`latest`: what it said last. `stopping`: somebody has pressed cancel just now."""

    job_id: str
    model: str
    state: State
    latest: Event | None = None
    place: Place = Place(0, None)
    stopping: bool = False

    @property
    def busy(self) -> bool:
        return self.state not in ENDED


def read(own: OwnJobs, jobs: object) -> list[Download]:
    """Return the downloads that a browser remembers. What is none of them is passed over."""
    return [_download(own, job, order) for job, order in jobs_of(own, jobs, Fetch, LIMIT)]


def _download(own: OwnJobs, job: Job, order: Fetch) -> Download:
    return Download(job.id, order.model, job.state, own.latest(job.id), own.place(job.id))


def busy(downloads: Sequence[Download]) -> bool:
    return any(download.busy for download in downloads)


def outline(downloads: Sequence[Download]) -> str:
    """Return a text that changes whenever one begins or ends."""
    return " ".join(f"{download.job_id}:{download.state}" for download in downloads)


# ---- drawing


def board_html(status: Status, downloads: Sequence[Download], say: Words) -> Markup:
    of_model = {download.model: download for download in downloads}  # of one model, the last
    return Markup('{strays}<p class="note">{note}</p><div class="models">{cards}</div>').format(
        strays=_strays(status.strays, say),
        note=say("models_note"),
        cards=Markup().join(_card(model_status, of_model, say) for model_status in status.models),
    )


def _strays(names: Sequence[str], say: Words) -> Markup:
    if not names:
        return Markup()
    return Markup('<p class="hurdle">{}</p>').format(say("models_strays", names=", ".join(names)))


def _card(status: ModelStatus, of_model: Mapping[str, Download], say: Words) -> Markup:
    model, download = status.model, of_model.get(status.model.id)
    now = _busy(download, say) if download and download.busy else _here(model, say) if status.here else None
    return Markup(
        '<article><h4>{title}</h4><p class="chips"><span>{size}</span><span{limited}>{licence}</span></p>'
        '<p class="note">{terms}</p><p class="note">{hubs}</p>{now}</article>'
    ).format(
        title=say.choose(model.title) or model.id,
        size=size_text(model),
        limited="" if model.commercial else Markup(' class="is-limited"'),
        licence=model.licence,
        terms=say.choose(model.terms),
        hubs=_hubs(model, say),
        now=now or _away(status, download, say),
    )


def _hubs(model: Model, say: Words) -> str:
    """Say from where it can be had, before anybody presses."""
    hubs = [HUBS.get(mirror, mirror) for mirror in model.mirrors]
    return say("models_hub_only", hub=hubs[0]) if len(hubs) == 1 else say("models_hubs", hubs=", ".join(hubs))


def gb_text(gb: float) -> str:
    return f"{gb:.1f} GB" if gb >= 1 else f"{1000 * gb:.0f} MB"


def size_text(model: Model) -> str:
    return f"≈ {gb_text(model.size_gb)}" if model.approximate else gb_text(model.size_gb)


def _busy(download: Download, say: Words) -> Markup:
    p = download.latest
    value, total = (p.step, p.total) if isinstance(p, Progress) and p.stage in ARRIVING else (0, 1)
    return Markup(
        '<div class="stage is-running"><p class="status" role="status">{text}</p>'
        '<progress max="{total}" value="{value}"></progress><p class="actions">'
        '<button type="button" data-stop="{job}"{off}>{label}</button></p></div>'
    ).format(
        text=status_text(download, say),
        total=total,
        value=value,
        job=download.job_id,
        off=" disabled" if download.stopping else "",
        label=say("stage_cancelling") if download.stopping else say("portrait_cancel"),
    )


def status_text(download: Download, say: Words) -> str:
    """Say in one line how many are before it, or how much of it is here and when the rest will be."""
    if download.place.ahead:
        return waiting_text(download.place, say)
    p = download.latest
    if not isinstance(p, Progress) or p.stage not in ARRIVING:
        return say("models_asking")
    return " · ".join([say(f"stage_{p.stage}"), _amount(p), *([left_text(p.eta_s, say)] if p.eta_s else [])])


def _amount(p: Progress) -> str:
    """Steps are megabytes."""
    return f"{p.step / 1000:.2f} / {p.total / 1000:.2f} GB" if p.total >= 1000 else f"{p.step} / {p.total} MB"


def _here(model: Model, say: Words) -> Markup:
    """Offer what to do next, in one press; a small decoder is taken by itself."""
    line = Markup('<p class="now is-here">{}</p>').format(say("models_here"))
    if model.becomes not in NEXT:
        return line + Markup('<p class="note">{}</p>').format(say("models_taken"))
    button = Markup('<p class="actions"><button type="button" data-{step}="{model}">{label}</button></p>')
    step = NEXT[model.becomes]
    return line + button.format(step=step, model=model.id, label=say(f"models_{step}"))


def _away(status: ModelStatus, download: Download | None, say: Words) -> Markup:
    failed = download.latest if download and isinstance(download.latest, Failed) else None
    line = Markup('<p class="now is-lost" role="status">{}</p>').format(why(failed, say)) if failed else Markup()
    if not status.fits:
        return line + Markup('<p class="now">{}</p>').format(say("models_too_large", why=say.phrase(status.why)))
    button, model = Markup('<button type="button" data-fetch="{}" data-mirror="{}">{}</button>'), status.model
    several = len(model.mirrors) > 1
    buttons = Markup().join(
        button.format(
            model.id, mirror, say("models_get_from", hub=HUBS.get(mirror, mirror)) if several else say("models_get")
        )
        for mirror in model.mirrors
    )
    return line + Markup('<p class="actions">{}</p>').format(buttons)


def why(failed: Failed, say: Words) -> str:
    sentence = say.error(failed.code, failed.facts)
    return sentence if failed.code == "cancelled" else f"❌ {sentence}"
