"""
A person's own presets, in the row of cards: what the form holds is saved under a name, and comes back at a press; each
can be renamed, exported, deleted and brought from a file. What is stored where, webui/own_presets.py knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

import presets
from engines.errors import NotFoundError, RequestError, StudioError
from engines.messages import Final, Generate, Lora
from presets import LANGUAGES, Preset, Wording
from webui.gradio_patches import event_data
from webui.i18n import Words
from webui.own_jobs import OwnJobs
from webui.own_presets import ORDER as LAST
from webui.own_presets import OwnPreset, OwnPresets, checked_name, parse
from webui.panels.portrait.controls import ORDER
from webui.panels.portrait.handlers import Handlers, size_of
from webui.people import person_of
from webui.pictures import thumbnail_address
from webui.widgets import loras, preset_cards
from webui.widgets.panel_context import (
    QUICK,
    PanelContext,
    Updates,
    complaining,
    in_turn,
    parsed,
    refusal,
    words_of,
)
from webui.widgets.preset_cards import Value

# There is something to save when there are words: the style sheet shows the card.
SHOW_SAVE = "(words) => { document.documentElement.toggleAttribute('data-words', Boolean(words?.trim())); }"


@dataclass(frozen=True)
class OwnHandlers:
    """The handlers of events. Every method may be called by anybody who can reach the server, with any arguments."""

    form: Handlers
    store: OwnPresets

    @property
    def context(self) -> PanelContext:
        return self.form.context

    def load(self, request: gr.Request) -> Value:
        say = words_of(request)
        return {**self._row(request), "ends": preset_cards.ends_html(say), "sheets": preset_cards.sheets_html(say)}

    def keep(
        self, prompt: str, negative: str, size: str, steps: int, guidance: float, bundle: str, job_id: str,
        event: gr.EventData, request: gr.Request, *lora_values: Any,
    ) -> Value:  # fmt: skip
        """Save what the form holds. The seed is not: it makes a picture, not a kind of pictures."""
        say, name = words_of(request), str(event_data(event)["name"])
        if not str(prompt).strip():
            raise refusal(say("own_no_words"))
        width, height = size_of(size)
        values = {
            "prompt": prompt, "negative": negative, "width": width, "height": height, "steps": steps,
            "guidance": guidance, "bundle": bundle, "loras": loras.fields(lora_values),
        }  # fmt: skip
        asked = parsed(Generate, values, say)
        with complaining(say):
            try:
                preset = self._preset(checked_name(name), asked, lora_values)
            except ValueError as exc:  # a size or a LoRA's name that no page offers
                raise RequestError("the form holds what no preset can") from exc
            picture = _picture(self.context.jobs.of(request), job_id, asked.prompt)
            new = self.store.add(person_of(request).id, preset, picture)
        return {**self._row(request), "undo": "", "focus": new}

    def _preset(self, name: str, asked: Generate, lora_values: Sequence[Any]) -> Preset:
        """A size that is a photo's becomes the bundle's first: the photo is not kept."""
        target = self.form.bundle(asked.bundle)
        width, height = target.sizes[0]
        wording = Wording(
            dict.fromkeys(LANGUAGES, asked.prompt), dict.fromkeys(LANGUAGES, asked.negative), asked.guidance
        )
        return Preset(
            "own", LAST, dict.fromkeys(LANGUAGES, name), asked.width or width, asked.height or height,
            asked.steps or target.steps, float(loras.usual(lora_values)), wording, wording, bundle=target.name,
            loras=tuple(presets.Lora(lora.name, lora.strength) for lora in asked.loras),
        )  # fmt: skip

    def fill_own(self, bundle: str, event: gr.EventData, request: gr.Request) -> Updates:
        """
        Fill the form. One that was saved here holds all of it; one that came from a file of the built-in kind names no
        bundle, and leaves alone what those leave alone. What is no longer here is said.
        """
        v, say = self.form.view, words_of(request)
        with complaining(say):
            preset = self.store.get(person_of(request).id, event_data(event)["id"]).preset
        here = preset.bundle in [status.name for status in self.context.bundles("portrait")]
        target = self.form.bundle(preset.bundle if here else bundle)
        wording = preset.wording(target.dialect)
        width, height = preset.width, preset.height
        if not here:
            width, height = presets.nearest_size(width, height, target.sizes)
        order = Generate(
            say.choose(wording.prompt), say.choose(wording.negative), width, height,
            preset.steps, wording.guidance, bundle=target.name,
        )  # fmt: skip
        settings = self.form.settings_of(order, request)
        if not preset.bundle:
            del settings[v.bundle], settings[v.steps], settings[v.backend]
        filled = {part: settings[part] for part in self.fills if part in settings}
        return {**filled, v.picked: "", **self._loras(preset, target.name, say)}

    @property
    def fills(self) -> list[Any]:
        """The components that a request's settings fill."""
        v = self.form.view
        return [v.prompt, v.negative, v.size, v.steps, v.guidance, v.bundle, v.backend]

    def _loras(self, preset: Preset, bundle: str, say: Words) -> Updates:
        v, wanted = self.form.view, [Lora(lora.name, lora.strength) for lora in preset.loras]
        active = [] if self.form.no_loras_reason(bundle) else loras.here(wanted, self.context)
        gone = [lora.name for lora in wanted if lora not in active]
        gone += [preset.bundle] * (preset.bundle not in ("", bundle))
        if gone:
            gr.Warning(Markup.escape(say("history_gone", names=", ".join(gone))))
        if not preset.bundle and not wanted:
            return {v.loras.usual: preset.lora_strength}
        chosen = loras.choose([asdict(lora) for lora in active], self.context, preset.lora_strength)
        return {
            v.loras.usual: preset.lora_strength,
            v.lora_accordion: gr.update(open=True) if active else gr.skip(),
            **dict(zip(v.loras.rows, chosen, strict=True)),
        }

    def rename(self, event: gr.EventData, request: gr.Request) -> Value:
        asked = event_data(event)
        with complaining(words_of(request)):
            self.store.rename(person_of(request).id, asked["id"], str(asked["name"]))
        return {**self._row(request), "undo": "", "focus": asked["id"]}

    def delete(self, event: gr.EventData, request: gr.Request) -> Value:
        say, owner, preset_id = words_of(request), person_of(request).id, event_data(event)["id"]
        with complaining(say):
            going = self.store.get(owner, preset_id)
            self.store.delete(owner, preset_id)
        return {**self._row(request), "undo": preset_cards.undo_html(going, say)}

    def undo(self, event: gr.EventData, request: gr.Request) -> Value:
        """Take a deletion back. What is gone for good is said to be."""
        say, preset_id = words_of(request), event_data(event)["id"]
        with complaining(say):
            try:
                self.store.undelete(person_of(request).id, preset_id)
            except NotFoundError as exc:
                raise refusal(say("own_too_late")) from exc
        return {**self._row(request), "undo": "", "focus": preset_id}

    def take(self, event: gr.EventData, request: gr.Request) -> Value:
        """Make an own one of a stranger's file."""
        with complaining(words_of(request)):
            new = self.store.add(person_of(request).id, parse(str(event_data(event)["text"])))
        return {**self._row(request), "undo": "", "focus": new}

    def _row(self, request: gr.Request) -> Value:
        jobs = self.context.jobs.of(request)
        mine = [(own, _thumbnail(jobs, own)) for own in self.store.all(person_of(request).id)]
        return {"own": preset_cards.own_cards_html(mine, words_of(request))}


def _picture(jobs: OwnJobs, job_id: str, prompt: str) -> str:
    """Return the name of the picture that these words have made here last; empty: there is none, or of other words."""
    with suppress(StudioError):
        job, last = jobs.job(job_id), jobs.latest(job_id)
        if isinstance(job.request, Generate) and job.request.prompt == prompt and isinstance(last, Final):
            return next(map(jobs.name, jobs.pictures([job_id])), "")
    return ""


def _thumbnail(jobs: OwnJobs, own: OwnPreset) -> str:
    """Return the address of its picture's small copy; empty: it has none, or the picture was deleted."""
    signed = own.picture and jobs.keys.sign(own.picture)
    with suppress(NotFoundError):
        if signed and jobs.file(signed).is_file():
            return thumbnail_address(signed)
    return ""


def listen(form: Handlers, page: gr.Blocks) -> None:
    v, do = form.view, OwnHandlers(form, OwnPresets(form.context.settings.presets))
    form_parts = [v.prompt, v.negative, v.size, v.steps, v.guidance, v.bundle, v.job, *v.loras.values]
    page.load(do.load, None, [v.cards], **in_turn("presets"))
    v.cards.keep(do.keep, form_parts, [v.cards], **in_turn("presets", "multiple"))
    filled = [*do.fills, v.picked, v.lora_accordion, v.loras.usual, *v.loras.rows]
    v.cards.fill(do.fill_own, [v.bundle], filled, **in_turn(ORDER, "multiple"))
    v.cards.rename(do.rename, None, [v.cards], **in_turn("presets", "multiple"))
    v.cards.delete(do.delete, None, [v.cards], **in_turn("presets", "multiple"))
    v.cards.undo(do.undo, None, [v.cards], **in_turn("presets", "multiple"))
    v.cards.take(do.take, None, [v.cards], **in_turn("presets", "multiple"))
    v.prompt.change(None, [v.prompt], None, js=SHOW_SAVE, **QUICK)
