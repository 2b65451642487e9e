"""
What every panel is given, and what panels share. A panel is one file: its components first, then its handlers, then who
listens to what. Panels do not know each other; their tab, and page.py, connect them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import gradio as gr
from markupsafe import Markup

from engines.errors import StudioError
from engines.jobs import Estimate, Priority
from engines.messages import Enhance, Generate, Request, parse
from engines.messages.status import BundleKind, BundleStatus, Model, Status
from engines.settings import Settings
from webui import uploads
from webui.i18n import Words, preferred, spoken
from webui.own_jobs import HouseJobs, OwnJobs
from webui.stage import MINUTES_FROM_S
from webui.uploads import Upload

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
Updates = dict[Any, Any]  # component -> its new value
TriggerMode = Literal["once", "multiple", "always_last"]
GROUPS = ("auto", "pytorch", "edge")  # backends that have words of their own; engines are called by their names
# How listeners are wired. Progress is shown in our own HTML; for Gradio's, a page would walk through its whole tree for
# each output of each event: a third of what its start takes (4.6 against 3.0 s of processor time). For
# programs there is api/gradio_api.py.
QUICK: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
# What follows a job waits without a thread: any number may, each client its share (gradio_patches.share).
LONG: dict[str, Any] = {**QUICK, "concurrency_limit": None}


def in_turn(name: str, trigger_mode: TriggerMode | None = None) -> dict[str, Any]:
    """
    Return how listeners are wired that write the same components: their events are done in the order in which they
    came. Gradio takes waiting events in a random order, and one that looked before a press would hide what it began.
    `trigger_mode` says what becomes of an event that comes before the page has the answer to the last one of its kind.
    Gradio forgets it ("once", but for changes). "always_last" asks once more when the answer is there, with the values
    of then, but with the first event's own data. "multiple" asks at once.
    """
    return {**QUICK, "concurrency_id": name, "concurrency_limit": 1, "trigger_mode": trigger_mode}


@dataclass(frozen=True)
class PanelContext:
    """The jobs, the settings and the words: every panel is given them."""

    jobs: HouseJobs
    settings: Settings
    i18n: gr.I18n

    @property
    def status(self) -> Status:
        """Return how the worker is now: bundles and times come while pages are open."""
        return self.jobs.status

    def bundles(self, kind: BundleKind) -> list[BundleStatus]:
        """Return the bundles of a kind. The default one, which is called after its kind, stands first."""
        return sorted((b for b in self.status.bundles if b.kind == kind), key=lambda bundle: bundle.name != kind)

    def find(self, kind: BundleKind, name: str) -> BundleStatus | None:
        """Return the bundle of that name, or else the default one: what a page shows may have gone meanwhile."""
        bundles = self.bundles(kind)
        return next((bundle for bundle in bundles if bundle.name == name), bundles[0] if bundles else None)

    def model(self, name: object) -> Model | None:
        """Return the model of the catalogue that has this name. None: there is no such model."""
        return next((status.model for status in self.status.models if status.model.id == name), None)

    def torch_is_here(self) -> bool:
        return any(engine.group == "pytorch" and engine.ok for engine in self.status.engines)

    def backends(self) -> list[str]:
        """Return auto, then the two groups; then an engine, if STUDIO_BACKEND names one."""
        groups = ["auto", "pytorch", "edge"] if self.torch_is_here() else ["auto", "edge"]
        return groups if self.settings.backend in groups else [*groups, self.settings.backend]

    def backend_radio(self, elem_id: str) -> gr.Radio:
        """Build the radio. Without PyTorch it says so, and offers less. `offer_backends` adds how long each takes."""
        t = self.i18n
        choices = [(t(f"backend_{name}") if name in GROUPS else name, name) for name in self.backends()]
        hint = t(self._backend_hint())
        return gr.Radio(choices, value=self.settings.backend, label=t("backend"), info=hint, elem_id=elem_id)

    def offer_backends(self, wanted: Generate | Enhance, say: Words) -> Any:
        """Return the radio's choices again, each with how long what is wanted takes with it on this machine."""
        choices = [(self.backend_label(name, wanted, say), name) for name in self.backends()]
        return gr.update(choices=choices, info=say(self._backend_hint()))

    def _backend_hint(self) -> str:
        return "backend_hint" if self.torch_is_here() else "engines_no_torch"

    def backend_label(self, name: str, wanted: Generate | Enhance, say: Words) -> str:
        """Return what stands beside a backend. Without such a bundle nothing is said of time."""
        label = say(f"backend_{name}") if name in GROUPS else name
        bundle = next((bundle for bundle in self.status.bundles if bundle.name == wanted.bundle), None)
        if bundle is None:
            return label
        return f"{label} · {self._time(replace(wanted, backend=name), bundle, say)}"

    def _time(self, wanted: Generate | Enhance, bundle: BundleStatus, say: Words) -> str:
        """Of photos nothing is known before they are opened: what others took, and before there are any, a face."""
        expected, verdict = self.jobs.expected(wanted), bundle.verdict_for(wanted.backend)
        if isinstance(wanted, Enhance) and expected is not None:
            return say("backend_photo", time=span(expected.finish_s, say))
        if isinstance(wanted, Enhance) and verdict is not None:
            return say("backend_face", time=span(verdict.finish_s, say))
        return say("backend_unmeasured") if expected is None else times(expected, say)

    def offer_bundles(self, kind: BundleKind, shown: str) -> Any:
        """
        Return the dropdown's choices again. The one that is `shown` is left alone, unless it has gone: the person may
        have chosen another while this was on its way.
        """
        names, chosen = [bundle.name for bundle in self.bundles(kind)], self.find(kind, shown)
        if chosen is None:
            return gr.skip()
        value = {} if chosen.name == shown else {"value": chosen.name}
        return gr.update(choices=names, visible=len(names) > 1, **value)


def words_of(request: gr.Request) -> Words:
    """Return the words of the language that was chosen on the page, or that the browser likes best."""
    return spoken(preferred(request.headers))


def times(expected: Estimate, say: Words) -> str:
    """Say how long it takes until there is something to look at, and until the end; once, where both are the same."""
    finish = span(expected.finish_s, say)
    look = finish if expected.look_s is None else span(expected.look_s, say)
    return finish if look == finish else say("backend_times", look=look, finish=finish)


def span(seconds: float, say: Words) -> str:
    """Say how long something takes as precisely as one cares, in minutes where seconds would feign to be known."""
    if seconds >= MINUTES_FROM_S:
        return say("stage_after_minutes", minutes=round(seconds / 60))
    return say("stage_after", seconds=fine_s(seconds))


def fine_s(seconds: float) -> str:
    """Return seconds as precisely as one cares: what takes a moment is given in hundredths."""
    return f"{seconds:.{3 if seconds < 0.01 else 2 if seconds < 10 else 0}f}"


def parsed(kind: type[T], values: dict[str, Any], say: Words) -> T:
    """Return a message of checked types out of what a browser, or somebody pretending to be one, sent."""
    with complaining(say):
        return parse(kind, values)


def store_photo(context: PanelContext, photo: Upload, say: Words) -> str:
    """Store a photo that came through the page, and return where it lies, for a worker to read when it comes to it."""
    with complaining(say), Path(photo.path).open("rb") as source:
        return str(uploads.keep(source, context.settings.uploads))


def submit(own: OwnJobs, say: Words, *requests: Request, priority: Priority = "interactive") -> list[str]:
    """Submit all of them or none, and return the jobs' names."""
    with complaining(say):
        return own.submit_all(requests, priority)


@contextmanager
def complaining(say: Words) -> Iterator[None]:
    """Show the person what went wrong, in words."""
    try:
        yield
    except StudioError as exc:
        raise complaint(exc, say) from exc


def complaint(exc: StudioError, say: Words) -> gr.Error:
    return refusal(say.error(exc.code, exc.facts))


def refusal(text: str) -> gr.Error:
    """Return what Gradio shows in a corner of the page, where it would take text for HTML."""
    return gr.Error(Markup.escape(text), print_exception=False)


def scroll_to(elem_id: str) -> str:
    """Return a script for the browser, after something has appeared elsewhere on the page."""
    return f"() => document.getElementById('{elem_id}').scrollIntoView({{ behavior: 'smooth' }})"


def newest(jobs: Any, session_jobs: Any) -> Any:
    """
    Return the names of jobs as this page's own presses have left them on the server, or else as the browser remembers
    them. Those may have been sent before the page had the answer to a press: a look with them would hide what it began.
    """
    return jobs if session_jobs is None else session_jobs


def cancel_button(context: PanelContext, busy: bool, label: str = "portrait_cancel", *, has_begun: bool = False) -> Any:
    """
    Update the button. While a job goes on, only show it: a press may have changed its words (`cancel_pressed`).
    `has_begun`: a job has been asked for just now. A press on the last one may have been answered after that one's end.
    """
    if busy and not has_begun:
        return gr.update(visible=True)
    return gr.update(visible=busy, interactive=True, value=context.i18n(label))


def cancel_pressed(context: PanelContext, job_id: str, request: gr.Request) -> Any:
    """Cancel, and say at once that the press was heard: a step of a large network takes seconds."""
    cancel(context, job_id, request)
    return gr.update(interactive=False, value=context.i18n("stage_cancelling"))


def cancel(context: PanelContext, job_id: str, request: gr.Request) -> None:
    with complaining(words_of(request)):
        context.jobs.of(request).cancel(job_id)


def remember(names: Sequence[str]) -> str:
    """Return a script for the browser: what components of these names have, as the one value of a BrowserState."""
    return f"(...values) => [Object.fromEntries({json.dumps(names)}.map((name, k) => [name, values[k]]))]"


def within_limits(components: Sequence[Any]) -> str:
    """
    Return a script for the browser: what sliders among the components have, within their limits. A number that is half
    typed is beyond them, and Gradio would complain of it to somebody who has not pressed anything.
    """
    limits = [[part.minimum, part.maximum] if isinstance(part, gr.Slider) else None for part in components]
    return f"""(...values) => {{
  const limits = {json.dumps(limits)};
  const held = (value, [low, high]) => Math.min(Math.max(value ?? low, low), high);
  return values.map((value, k) => limits[k] ? held(value, limits[k]) : value);
}}"""
