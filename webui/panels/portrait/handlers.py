"""What the panel of portraits does when something is pressed, chosen or loaded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import gradio as gr
from anyio import to_thread
from markupsafe import Markup

import presets
from engines.errors import NotFoundError, StudioError
from engines.messages import MAX_SEED, Develop, Final, Generate, Preview, Request, parse, prompts
from engines.messages.status import BundleStatus, Group
from presets.blanks import choose
from presets.vocabulary import unknown_words, vocabulary
from webui.follow import follow, resume
from webui.gradio_patches import event_data
from webui.i18n import Words
from webui.own_jobs import OwnJobs
from webui.panels.portrait.controls import AS_PHOTO, FORM, NAMES, OPEN, View, guidance_hint, sizes
from webui.stage import job_html
from webui.stream import JobView, Versus, advance
from webui.uploads import Upload
from webui.widgets import blanks, init_image, loras
from webui.widgets.panel_context import PanelContext, Updates, cancel, complaining, parsed, refusal, submit, words_of

VARIATIONS, LOOKS = 4, 6  # a contact sheet fills a phone, in two columns
NAMED = 5  # words that are not known


@dataclass(frozen=True)
class Handlers:
    """The handlers of events. Every method may be called by anybody who can reach the server, with any arguments."""

    view: View
    context: PanelContext

    def show(self, scene: JobView, say: Words, first: bool = False) -> Updates:
        """`first`: of a job."""
        seed = {} if scene.seed is None else {self.view.last_seed: scene.seed}
        button = self.view.main.update(scene.state == "running", first)
        return {self.view.stage: job_html(scene, say), **button, **seed}

    async def watch(self, order: Generate | Develop, scene: JobView, request: gr.Request) -> AsyncIterator[Updates]:
        say, own = words_of(request), self.context.jobs.of(request)
        (job_id,) = await to_thread.run_sync(submit, own, say, order)
        v = self.view
        yield {v.job: job_id, v.sheet: scene.sheet, v.recipe: "", **self.show(scene, say, first=True)}
        async for now in follow(own, job_id, scene):
            yield self.show(now, say)

    async def generate(self, request: gr.Request, *values: Any) -> AsyncIterator[Updates]:
        async for updates in self._draw(values, request):
            yield updates

    async def contact_sheet(self, request: gr.Request, *values: Any) -> AsyncIterator[Updates]:
        """Draw several for the tiny decoder alone, of which those that please are developed."""
        async for updates in self._draw(values, request, count=LOOKS, preview="only"):
            yield updates

    async def _draw(self, values: Sequence[Any], request: gr.Request, **instead: Any) -> AsyncIterator[Updates]:
        """`values`: of FORM, then of the LoRAs. `instead`: of what the form says."""
        say, (fields, photo, strength) = words_of(request), form_fields(values)
        start = await to_thread.run_sync(init_image.fields, photo, strength, self.context, say)
        order = parsed(Generate, {**fields, **start, **instead}, say)
        async for updates in self.watch(order, self._scene(order), request):
            yield updates

    def _scene(self, order: Request) -> JobView:
        """Return what is shown of a portrait, or of its development, before anything is heard of it."""
        if not isinstance(order, Generate):
            return JobView(task="develop", state="running", status="stage_load")
        ratio = order.width / order.height if order.width and order.height else 1.0
        unknown = self._unknown_words(order.prompt, order.bundle)
        return JobView(state="running", caption=order.prompt, ratio=ratio, status="stage_load", unknown=unknown)

    def _unknown_words(self, prompt: str, bundle: str) -> tuple[str, ...]:
        target = next((b for b in self.context.bundles("portrait") if b.name == bundle), None)
        return unknown_words(prompts.read(prompt).text, target.dialect)[:NAMED] if target else ()

    def introduce(self, prompt: str, bundle: str, picked: str, request: gr.Request) -> tuple[Markup, blanks.Value]:
        """Say what the model is, and what is chosen in the blanks of the preset that was picked."""
        say, target = words_of(request), self.context.find("portrait", bundle)
        if target is None:
            return Markup(), {"blanks": []}
        return self._note(prompt, target, say), blanks.value(presets.named(picked), prompt, target.dialect, say)

    def _note(self, prompt: str, target: BundleStatus, say: Words) -> Markup:
        """Say of a model that knows few words what it is, and which of these it does not know."""
        if not vocabulary(target.dialect):
            return Markup()
        unknown = self._unknown_words(prompt, target.name)
        lines = [say("portrait_sketcher")] + [say("portrait_unknown", words=say("comma").join(unknown))] * bool(unknown)
        spans = Markup().join(Markup("<span>{}</span>").format(line) for line in lines)
        return Markup('<p class="note" role="status">{}</p>').format(spans)

    async def vary(self, job_id: str, request: gr.Request) -> AsyncIterator[Updates]:
        """Draw others with the words and settings of this browser's last portrait."""
        say = words_of(request)
        with complaining(say):
            order = (await to_thread.run_sync(self.context.jobs.of(request).job, job_id)).request
        if isinstance(order, Generate):
            count = LOOKS if order.preview == "only" else VARIATIONS
            order = replace(order, seed=-1, count=count)
            async for updates in self.watch(order, self._scene(order), request):
                yield updates

    async def draw_again(self, job_id: str, event: gr.EventData, request: gr.Request) -> AsyncIterator[Updates]:
        """Draw a picture of this browser's last portrait with the other backend, and lay both under one slider."""
        own, say, picture = self.context.jobs.of(request), words_of(request), str(event_data(event)["picture"])
        with complaining(say):
            order = (await to_thread.run_sync(own.job, job_id)).request
            last = await to_thread.run_sync(own.latest, job_id)
        if not (isinstance(order, Generate) and isinstance(last, Final) and picture in last.images):
            return
        was, now = self._groups(last.engine)
        if now not in self.context.backends():
            raise refusal(say("engines_no_torch"))
        if order.loras and now == "edge":
            raise refusal(say("loras_compiled"))
        seed = (last.seed + last.images.index(picture)) % (MAX_SEED + 1)
        order = replace(order, seed=seed, count=1, backend=now)
        scene = replace(self._scene(order), versus=Versus(picture, f"backend_{was}", f"backend_{now}"))
        async for updates in self.watch(order, scene, request):
            yield updates

    def _groups(self, engine: str) -> tuple[Group, Group]:
        """Return the group of an engine, and the other."""
        here: Group = next((status.group for status in self.context.status.engines if status.name == engine), "edge")
        return (here, "edge") if here == "pytorch" else (here, "pytorch")

    async def develop(
        self, backend: str, job_id: str, event: gr.EventData, request: gr.Request
    ) -> AsyncIterator[Updates]:
        """`job_id`: what the stage shows, a contact sheet perhaps, to which the picture leads back then."""
        say, picture = words_of(request), str(event_data(event)["name"])
        with complaining(say):
            image = self.context.jobs.name(picture)
        order = parsed(Develop, {"image": image, "backend": backend}, say)
        looks = await to_thread.run_sync(looks_of, self.context.jobs.of(request), job_id)
        scene = replace(self._scene(order), sheet=job_id if picture in looks else "")
        async for updates in self.watch(order, scene, request):
            yield updates

    async def come_back(self, job_id: str, sheet: str, request: gr.Request) -> AsyncIterator[Updates]:
        """On load, show what this browser's last job has come to."""
        yield {self.view.stage: job_html(JobView(), words_of(request))}
        async for updates in self._show_job(job_id, sheet, request):
            yield updates

    async def back_to_sheet(self, sheet: str, request: gr.Request) -> AsyncIterator[Updates]:
        """Show the contact sheet again from which a picture was chosen."""
        with complaining(words_of(request)):
            await to_thread.run_sync(self.context.jobs.of(request).job, sheet)
        yield {self.view.job: sheet, self.view.sheet: ""}
        async for updates in self._show_job(sheet, "", request):
            yield updates

    async def _show_job(self, job_id: str, sheet: str, request: gr.Request) -> AsyncIterator[Updates]:
        say, own, first = words_of(request), self.context.jobs.of(request), True
        with suppress(NotFoundError):
            scene = self._scene((await to_thread.run_sync(own.job, job_id)).request)
            async for now in resume(own, job_id, replace(scene, sheet=sheet)):
                yield self.show(now, say, first)
                first = False

    def stop(self, job_id: str, request: gr.Request) -> Markup:
        cancel(self.context, job_id, request)
        return self.view.main.at("cancelling")

    def pick(self, bundle: str, event: gr.EventData, request: gr.Request) -> list[Any]:
        say = words_of(request)
        preset = next(preset for preset in presets.load() if preset.name == event_data(event)["name"])
        target = self.bundle(bundle)
        wording = preset.wording(target.dialect)
        width, height = presets.nearest_size(preset.width, preset.height, target.sizes)
        guidance = target.guidance if wording.guidance is None else wording.guidance
        prompt, negative = say.choose(wording.prompt), say.choose(wording.negative)
        return [prompt, negative, f"{width}×{height}", guidance, preset.name, preset.lora_strength]

    def fill_blank(self, prompt: str, bundle: str, picked: str, event: gr.EventData) -> str:
        """Exchange the words of a blank in the prompt."""
        preset, target, asked = presets.named(picked), self.context.find("portrait", bundle), event_data(event)
        if preset is None or target is None:
            return prompt
        return choose(prompt, preset, str(asked["blank"]), str(asked["option"]), target.dialect)

    def change_bundle(self, name: str, request: gr.Request) -> list[Any]:
        """Set size, steps and guidance to what the bundle does best."""
        offered = self.context.offer_backends(Generate("", bundle=name), words_of(request))
        return [*self._suited(self.bundle(name)), offered]

    def _suited(self, target: BundleStatus, r: Generate = OPEN) -> list[Any]:
        """Return size, steps and guidance as a request has them; what it leaves to the bundle, as that wants it."""
        width, height = target.sizes[0]
        size = f"{r.width or width}×{r.height or height}"
        guidance = target.guidance if r.guidance is None else r.guidance
        return [
            gr.update(choices=list(dict.fromkeys([*sizes(target), size])), value=size),
            r.steps or target.steps,
            gr.update(value=guidance, info=self.context.i18n(guidance_hint(target))),
        ]

    def shape(self, photo: Upload | None, size: str, name: str, request: gr.Request) -> Any:
        """Offer the shape of a photo that came in, where the bundle draws several; without a photo, as before."""
        bundle, say = self.bundle(name), words_of(request)
        names, shapes = sizes(bundle), {width / height for width, height in bundle.sizes}
        if photo is not None and len(shapes) > 1:
            return gr.update(choices=[(say("portrait_size_photo"), AS_PHOTO), *names], value=AS_PHOTO)
        return gr.update(choices=names, value=names[0]) if size == AS_PHOTO else gr.skip()

    def foretell(self, request: gr.Request, *values: Any) -> Any:
        """
        Say beside each backend how long it takes with what is chosen now. `values`: as of `generate`, but of the photo
        only whether there is one.
        """
        with suppress(StudioError, AttributeError, KeyError, TypeError, ValueError):
            fields, given, strength = form_fields(values)
            start = {"start": "photo", "strength": strength} if given else {}
            return self.context.offer_backends(parse(Generate, {**fields, **start}), words_of(request))
        return gr.skip()

    def offer(self, name: str, request: gr.Request) -> list[Any]:
        """Offer bundles that were built since the page was loaded. What time each takes is for `foretell` to say."""
        target, offered = self.context.find("portrait", name), self.context.offer_bundles("portrait", name)
        if target and target.name != name:
            return [offered, *self.change_bundle(target.name, request)]
        return [offered, *[gr.skip()] * 4]

    def recall_settings(self, memory: Any, request: gr.Request) -> Updates:
        """On load, return the settings as this browser left them. What it remembers may be old, or somebody's joke."""
        with suppress(StudioError, AttributeError, KeyError, TypeError, ValueError):
            width, height = size_of(memory["size"])
            here = [name for name in NAMES if name in memory]  # an earlier version of the page had fewer
            fields = {name: memory[name] for name in here if name not in ("size", "backend")}
            r = parse(Generate, {**fields, "width": width, "height": height})
            backend = memory["backend"] if memory["backend"] in self.context.backends() else gr.skip()
            if r.bundle in [bundle.name for bundle in self.context.bundles("portrait")]:
                return {**self.settings_of(r, request), self.view.backend: backend}
            return {self.view.prompt: r.prompt, self.view.negative: r.negative, self.view.count: r.count}
        return {self.view.prompt: gr.skip()}

    def settings_of(self, r: Generate, request: gr.Request) -> Updates:
        """Return the settings of a request whose bundle is here."""
        v, target = self.view, self.bundle(r.bundle)
        return {
            v.prompt: r.prompt, v.negative: r.negative, v.seed: r.seed, v.variety: r.variety, v.count: r.count,
            v.preview: r.preview,
            v.bundle: {**self.context.offer_bundles("portrait", target.name), "value": target.name},
            v.backend: self.context.offer_backends(r, words_of(request)),
            **dict(zip((v.size, v.steps, v.guidance), self._suited(target, r), strict=True)),
        }  # fmt: skip

    def take_up(self, r: Generate, final: Final, request: gr.Request) -> Updates:
        """Return the settings of a picture, to draw it again. What is no longer here is said."""
        v, say, bundles = self.view, words_of(request), self.context.bundles("portrait")
        target = next((bundle for bundle in bundles if bundle.name == r.bundle), bundles[0])
        active = [] if self.no_loras_reason(target.name) else loras.here(r.loras, self.context)
        gone = [lora.name for lora in r.loras if lora not in active] + [r.bundle] * (target.name != r.bundle)
        if gone:
            gr.Warning(Markup.escape(say("history_gone", names=", ".join(gone))))
        return {
            v.lora_accordion: gr.update(open=True) if active else gr.skip(),
            **self.settings_of(replace(r, bundle=target.name, seed=final.seed), request),
            v.picked: r.preset,
            v.start.photo: None,
            **dict(zip(v.loras.rows, loras.choose([asdict(lora) for lora in active], self.context), strict=True)),
        }

    def show_again(self, r: Generate, final: Final, request: gr.Request) -> Updates:
        """Put what has been drawn on the stage, if any of it is there."""
        scene = advance(JobView(state="running", caption=r.prompt), final)
        return {self.view.stage: job_html(scene, words_of(request)) if final.images else gr.skip()}

    def no_loras_reason(self, name: str | None) -> str:
        """Return why this bundle takes no LoRA, as a key of the locales; or nothing."""
        target = self.context.find("portrait", name or "")
        if target is None or not target.takes_loras:
            return "loras_compiled"
        return "" if self.context.torch_is_here() else "loras_no_torch"

    def bundle(self, name: str) -> BundleStatus:
        return next(bundle for bundle in self.context.bundles("portrait") if bundle.name == name)


def form_fields(values: Sequence[Any]) -> tuple[dict[str, Any], Any, Any]:
    """
    Return the fields of Generate that values of FORM and of the LoRAs have, and the photo and how much of it is drawn
    anew. Unchecked: whoever sends them may send anything.
    """
    form = dict(zip(FORM, values, strict=False))
    width, height = size_of(form.pop("size"))
    seed, photo, strength = form.pop("seed"), form.pop("photo"), form.pop("strength")
    own = {"seed": -1 if seed is None else seed, "loras": loras.fields(values[len(FORM) :])}
    return {**form, "width": width, "height": height, **own}, photo, strength


def looks_of(own: OwnJobs, job_id: str) -> set[str]:
    """Return the pictures of a contact sheet, which may still be drawn; none of another job, or of none."""
    with suppress(StudioError):
        order = own.job(job_id).request
        if isinstance(order, Generate) and order.preview == "only" and order.count > 1:
            events = (event for _, event in own.since(job_id, 0)[0])
            return {event.image for event in events if isinstance(event, Preview)}
    return set()


def size_of(size: str) -> tuple[int | None, int | None]:
    """Return width and height of a choice of size. None: the photo's."""
    if size == AS_PHOTO:
        return None, None
    width, height = map(int, size.split("×"))
    return width, height
