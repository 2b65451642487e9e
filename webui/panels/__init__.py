"""
One panel of the page a file: its components first, then its handlers, then who listens to what. Panels do not know each
other; page.py connects them.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

import gradio as gr

from engines.errors import StudioError
from engines.jobs import JobQueue
from engines.messages import BundleStatus, Status, parse
from engines.settings import Settings
from webui.i18n import Words

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
Updates = dict[Any, Any]  # component -> its new value
FOLLOWERS = 16  # pages that may follow jobs at one time, for each listener that follows
QUICK: dict[str, Any] = {"show_progress": "hidden"}  # how listeners are wired
LONG: dict[str, Any] = {**QUICK, "concurrency_limit": FOLLOWERS}


@dataclass(frozen=True)
class Desk:
    """What every panel is given: the queue, the settings, the words, and how the worker was when the page was built."""

    queue: JobQueue
    settings: Settings
    i18n: gr.I18n
    status: Status

    def bundles(self, kind: str) -> list[BundleStatus]:
        return [bundle for bundle in self.status.bundles if bundle.kind == kind]

    def backend_radio(self, elem_id: str) -> gr.Radio:
        """Auto, then the two groups; an installation without PyTorch says so and does not offer it."""
        t = self.i18n
        torch_is_here = any(engine.name == "torch" and engine.ok for engine in self.status.engines)
        groups = ("auto", "pytorch", "edge") if torch_is_here else ("auto", "edge")
        choices = [(t(f"backend_{name}"), name) for name in groups]
        if self.settings.backend not in groups:  # an engine's name, from STUDIO_BACKEND
            choices.append((self.settings.backend, self.settings.backend))
        hint = t("backend_hint") if torch_is_here else t("engines_no_torch")
        return gr.Radio(choices, value=self.settings.backend, label=t("backend"), info=hint, elem_id=elem_id)


def parsed(kind: type[T], values: dict[str, Any], say: Words) -> T:
    """A message of checked types out of what a browser, or somebody pretending to be one, sent."""
    try:
        return parse(kind, values)
    except StudioError as exc:
        raise complaint(exc, say) from exc


def complaint(exc: StudioError, say: Words) -> gr.Error:
    """What Gradio shows in a corner of the page."""
    return gr.Error(escape(say.error(exc.code, exc.facts)), print_exception=False)


def cancel_button(desk: Desk, busy: bool) -> Any:
    """While a job goes on, only whether it is seen: a press has changed its words already (`cancel_pressed`)."""
    if busy:
        return gr.update(visible=True)
    return gr.update(visible=False, interactive=True, value=desk.i18n("portrait_cancel"))


def cancel_pressed(desk: Desk, job_id: str) -> Any:
    """A step of a large network takes seconds: say at once that the press was heard."""
    desk.queue.cancel(job_id)
    return gr.update(interactive=False, value=desk.i18n("stage_cancelling"))
