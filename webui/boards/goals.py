"""
The roads to real portraits: for each goal one model of the catalogue, what it asks of this machine, and how far its
download and its build are. Knows the queue and the words; no Gradio. HTML is Markup, which escapes every text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from engines.jobs import ENDED, Job
from engines.messages import Build, Failed
from engines.messages.status import Model, ModelStatus, Status
from webui.boards.downloads import Download, size_text, status_text, why
from webui.i18n import Words
from webui.own_jobs import OwnJobs
from webui.stage import status_text as build_text
from webui.stage import waiting_text
from webui.stream import JobView, advance, begun

RECENT = 40  # jobs of a person, among which a build is looked for
# What one wants -> the model of the catalogue that leads there, whose id is the bundle's name.
GOALS: Mapping[str, str] = {
    "goal_photo": "z-image-turbo", "goal_small": "dreamshaper-8-lcm", "goal_restore": "gpen-bfr-512",
}  # fmt: skip


@dataclass(frozen=True)
class Making:
    """The last build of a bundle; `text`: how far it is, or what became of it."""

    job: Job
    text: str

    @property
    def busy(self) -> bool:
        return self.job.state not in ENDED


def builds(own: OwnJobs, say: Words) -> dict[str, Making]:
    """Return this person's last build of each goal's bundle."""
    latest: dict[str, Making] = {}
    for job in own.latest_jobs(RECENT):
        if isinstance(job.request, Build) and job.request.name in GOALS.values():
            latest.setdefault(job.request.name, Making(job, _text(own, job, say)))
    return latest


def _text(own: OwnJobs, job: Job, say: Words) -> str:
    place, latest = own.place(job.id), own.latest(job.id)
    if job.state == "queued":
        return waiting_text(place, say)
    scene = begun(JobView(task="build"))
    return build_text(advance(scene, latest) if latest else scene, say)


def busy(making: Mapping[str, Making]) -> bool:
    return any(each.busy for each in making.values())


def goals_html(status: Status, downloads: Sequence[Download], making: Mapping[str, Making], say: Words) -> Markup:
    of_model = {download.model: download for download in downloads}  # of one model, the last
    here = {entry.model.id: entry for entry in status.models}
    cards = [
        _card(goal, here[name], status, of_model.get(name), making.get(name), say)
        for goal, name in GOALS.items()
        if name in here
    ]
    if not cards:
        return Markup()
    return Markup('<h4 class="lead">{}</h4><div class="models goals">{}</div>').format(
        say("goals_title"), Markup().join(cards)
    )


def _card(
    goal: str, entry: ModelStatus, status: Status, download: Download | None, making: Making | None, say: Words
) -> Markup:
    model = entry.model
    return Markup(
        '<article><h4>{title}</h4><p class="note">{name}</p><dl>{facts}</dl>'
        '<p class="note">{licence}</p>{now}</article>'
    ).format(
        title=say(goal),
        name=say.choose(model.title) or model.id,
        facts=_facts(model, status, say),
        licence=f"{model.licence}: {say.choose(model.terms)}",
        now=_now(entry, status, download, making, say),
    )


def _facts(model: Model, status: Status, say: Words) -> Markup:
    memory = f"{model.memory_gb:g} GB"
    if status.memory_gb:
        memory += say("goals_of_this", gb=f"{status.memory_gb:.0f}")
    disk = f"{model.size_gb + model.disk_gb:.1f} GB"
    if status.free_gb:
        disk += say("goals_of_this", gb=f"{status.free_gb:.0f}")
    rows = ((say("goals_download"), size_text(model)), (say("goals_disk"), disk), (say("goals_memory"), memory))
    return Markup().join(Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(*row) for row in rows)


def _now(entry: ModelStatus, status: Status, download: Download | None, making: Making | None, say: Words) -> Markup:
    """Say what is done, what goes on and what failed; offer the one press where there is something to press for."""
    if any(bundle.name == entry.model.id for bundle in status.bundles):
        return Markup('<p class="now is-here">{}</p>').format(say("goals_ready"))
    fetching = bool(download and download.busy)
    lines: list[tuple[str, str]] = []
    if entry.here:
        lines.append(("done", say("goals_here")))
    elif download and fetching:
        lines.append(("now", status_text(download, say)))
    elif download and isinstance(download.latest, Failed):
        lines.append(("lost", why(download.latest, say)))
    if making and (making.busy or (entry.here and making.job.state != "done")):
        lines.append(("lost" if not making.busy else "now" if not fetching else "later", making.text))
    steps = Markup().join(Markup('<li class="is-{}">{}</li>').format(state, text) for state, text in lines)
    shown = Markup('<ol class="steps">{}</ol>').format(steps) if lines else Markup()
    if fetching or (making and making.busy):
        return shown
    hurdle = say("build_cannot", reason=say.phrase(status.can_build)) if status.can_build else ""
    if not entry.fits and not hurdle:
        hurdle = say("models_too_large", why=say.phrase(entry.why))
    if hurdle:
        return shown + Markup('<p class="now">{}</p>').format(hurdle)
    label = say("goals_build") if entry.here else say("goals_begin")
    button = Markup('<p class="actions"><button type="button" data-goal="{}">{}</button></p>')
    return shown + button.format(entry.model.id, label)
