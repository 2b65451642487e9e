"""
The panel that restores one photo: what a look at it advises, before and after under one slider, and what became of each
face.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from anyio import to_thread
from markupsafe import Markup

from engines.errors import JobPostponed, NotFoundError
from engines.jobs import ENDED
from engines.messages import Advice, Enhance, Failed, Final, Inspect, Preview
from engines.messages.faces import point_in
from webui import face_report
from webui.follow import events, follow, resume
from webui.gradio_patches import event_data, take_uploads_only
from webui.i18n import Words
from webui.own_jobs import OwnJobs
from webui.stage import job_html
from webui.stream import JobView
from webui.uploads import Upload
from webui.widgets import main_button
from webui.widgets import photo_settings as settings
from webui.widgets.panel_context import (
    LONG,
    QUICK,
    PanelContext,
    Updates,
    cancel,
    complaining,
    parsed,
    refusal,
    store_photo,
    submit,
    words_of,
)

START = JobView(task="enhance", status="restore_empty")
CHOSEN = "{ faces: window.chosenFaces?.() ?? null }"
# The script for faces comes with this tab: nobody else needs it.
ADVICE = """document.head.append(Object.assign(document.createElement('script'), { src: 'faces.js' }));
new MutationObserver(() => window.showFaces?.()).observe(element, { childList: true, subtree: true });
element.addEventListener('click', (event) => {
  if (event.target.closest('[data-adopt]')) trigger('adopt', {});
  if (event.target.closest('[data-whole]')) trigger('whole', {});
  const lying = event.target.closest('[data-turn]');
  if (lying) trigger('turn', { turn: Number(lying.dataset.turn) });
});"""
STAGE = """element.addEventListener('click', (event) => {
  if (event.target.closest('[data-anyway]')) trigger('anyway', {});
  const lying = event.target.closest('[data-turn]');
  if (lying) trigger('upright', { turn: Number(lying.dataset.turn) });
  const face = event.target.closest('[data-also]');
  if (face) trigger('also', { face: Number(face.dataset.also) });
  if (!window.chosenFaces) window.pressedEarly = event.target.closest('.face-strip button'); // its script is on its way
});"""


@dataclass(frozen=True)
class Entrance:
    """The controls where a photo comes in."""

    photo: gr.Image
    advice: gr.HTML
    main: main_button.MainButton


@dataclass(frozen=True)
class View(Entrance):
    controls: settings.Controls
    stage: gr.HTML
    job: gr.BrowserState
    looked: gr.State  # the job of the last look


def entrance(context: PanelContext) -> Entrance:
    t = context.i18n
    photo = gr.Image(
        label=t("restore_photo"), show_label=False, placeholder=t("restore_photo"), type="filepath", image_mode=None,
        sources=["upload", "clipboard"], height=260, buttons=[], elem_id="photo",
    )  # fmt: skip
    take_uploads_only(photo)
    advice = gr.HTML(js_on_load=ADVICE, elem_id="restore-advice")
    return Entrance(photo, advice, main_button.build("restore-start", "restore_go", data=CHOSEN))


def build(context: PanelContext, page: gr.Blocks, entered: Entrance, controls: settings.Controls) -> View:
    stage = gr.HTML(elem_id="restore-stage", js_on_load=STAGE)
    job = gr.BrowserState("", storage_key="awportrait-restore-job", secret="awportrait", render=False)
    view = View(**vars(entered), controls=controls, stage=stage, job=job, looked=gr.State(""))
    _listen(view, Handlers(view, context), page)
    return view


@dataclass(frozen=True)
class Handlers:
    """The handlers of events. Every method may be called by anybody who can reach the server, with any arguments."""

    view: View
    context: PanelContext

    def show(self, scene: JobView, say: Words, first: bool = False) -> Updates:
        """`first`: of a job."""
        return {self.view.stage: job_html(scene, say), **self.view.main.update(scene.state == "running", first)}

    async def restore(
        self, photo: Upload | None, event: gr.EventData, request: gr.Request, *values: Any
    ) -> AsyncIterator[Updates]:
        """Restore the photo; of its faces those that were chosen, if not all of them were."""
        say = words_of(request)
        fields = {**settings.fields(values), **_chosen(event_data(event), say)}
        order = await to_thread.run_sync(self._order, photo, fields, say)
        async for updates in self._watch(order, request):
            yield updates

    async def whole(self, photo: Upload | None, request: gr.Request, *values: Any) -> AsyncIterator[Updates]:
        """Restore the photo as a whole, after a look has found no face."""
        say = words_of(request)
        fields = {**settings.fields(values), "whole_picture": True}
        order = await to_thread.run_sync(self._order, photo, fields, say)
        async for updates in self._watch(order, request):
            yield updates

    async def turn(
        self, photo: Upload | None, event: gr.EventData, request: gr.Request, *values: Any
    ) -> AsyncIterator[Updates]:
        """Turn the photo, in which a look has found that faces lie on their side, and restore it."""
        say = words_of(request)
        fields = {**settings.fields(values), "turn": _turn(event)}
        order = await to_thread.run_sync(self._order, photo, fields, say)
        async for updates in self._watch(order, request):
            yield updates

    async def upright(self, job_id: str, event: gr.EventData, request: gr.Request) -> AsyncIterator[Updates]:
        """Turn the same photo, and restore it once more."""
        say = words_of(request)
        with complaining(say):
            order = (await to_thread.run_sync(self.context.jobs.of(request).job, job_id)).request
        if isinstance(order, Enhance):
            with complaining(say):
                order = replace(order, turn=_turn(event))
            async for updates in self._watch(order, request):
                yield updates

    async def anyway(self, job_id: str, request: gr.Request) -> AsyncIterator[Updates]:
        """Restore the same photo once more, faces or not."""
        say = words_of(request)
        with complaining(say):
            order = (await to_thread.run_sync(self.context.jobs.of(request).job, job_id)).request
        if isinstance(order, Enhance):
            async for updates in self._watch(replace(order, whole_picture=True), request):
                yield updates

    async def also(self, job_id: str, event: gr.EventData, request: gr.Request) -> AsyncIterator[Updates]:
        """Restore the same photo once more, with one of the faces that were skipped by a rule."""
        say = words_of(request)
        with complaining(say):
            order = await to_thread.run_sync(_with_face, self.context.jobs.of(request), job_id, event_data(event))
        async for updates in self._watch(order, request):
            yield updates

    def _order(self, photo: Upload | None, fields: dict[str, Any], say: Words) -> Enhance:
        if photo is None:
            raise refusal(say("restore_empty"))
        return parsed(Enhance, {**fields, "image": store_photo(self.context, photo, say), "name": photo.name}, say)

    async def _watch(self, order: Enhance, request: gr.Request) -> AsyncIterator[Updates]:
        say, own = words_of(request), self.context.jobs.of(request)
        scene = JobView(task="enhance", state="running", status="stage_load")
        (job_id,) = await to_thread.run_sync(submit, own, say, order)
        yield {self.view.job: job_id, **self.show(scene, say, first=True)}
        async for now in follow(own, job_id, scene):
            yield self.show(now, say)

    async def advise(
        self, photo: Upload | None, looked: str, job_id: str, faces: str, request: gr.Request
    ) -> AsyncIterator[Updates]:
        """
        Say what would do a photo good that came in. Whoever looks at an earlier one may stop, and what became of that
        one leaves the stage.
        """
        say, v, own = words_of(request), self.view, self.context.jobs.of(request)
        if looked:
            await to_thread.run_sync(own.cancel, looked)
        if photo is None:
            yield {v.advice: "", v.looked: ""}
            return
        image = await to_thread.run_sync(store_photo, self.context, photo, say)
        stage = gr.skip() if await to_thread.run_sync(_goes_on, own, job_id) else job_html(START, say)
        (look_id,) = await to_thread.run_sync(submit, own, say, parsed(Inspect, {"image": image}, say))
        yield {v.advice: note_html(say("advice_looking")), v.looked: look_id, v.stage: stage}
        shown = ""
        with suppress(JobPostponed):
            async for event in events(own, look_id):
                match event:
                    case Preview():
                        shown = event.image
                    case Advice():
                        pick = face_report.pick_html(event.boxes, say, shown) if faces != "center" else ""
                        yield {v.advice: face_report.advice_html(event, say) + pick}
                    case Failed(code="cancelled"):
                        pass
                    case Failed():
                        yield {v.advice: note_html(say.error(event.code, event.facts))}
                    case None:
                        yield {v.advice: gr.skip()}

    def adopt(self, looked: str, request: gr.Request) -> list[Any]:
        """Set the controls as the last look advises."""
        happened, _ = self.context.jobs.of(request).since(looked, 0)
        advice = (event for _, event in happened if isinstance(event, Advice))
        return next((settings.adopted(event) for event in advice), [gr.skip()] * len(settings.NAMES))

    async def come_back(self, job_id: str, request: gr.Request) -> AsyncIterator[Updates]:
        """On load, show what this browser's last job has come to."""
        say, own, first = words_of(request), self.context.jobs.of(request), True
        yield {self.view.stage: job_html(START, say)}
        async for scene in resume(own, job_id, START):
            yield self.show(_left(own, scene), say, first)
            first = False

    def stop(self, job_id: str, request: gr.Request) -> Markup:
        cancel(self.context, job_id, request)
        return self.view.main.at("cancelling")


def _goes_on(own: OwnJobs, job_id: str) -> bool:
    with suppress(NotFoundError):
        return own.job(job_id).state not in ENDED
    return False


def _left(own: OwnJobs, scene: JobView) -> JobView:
    """Return the scene without a photo that was tidied away since: previews live for a day."""
    gone = scene.before and not own.file(scene.before).is_file()
    return replace(scene, before="") if gone else scene


def _chosen(data: Any, say: Words) -> dict[str, Any]:
    """Return the field of Enhance for the faces that a page says were chosen; none of them were not: all."""
    faces = data.get("faces") if isinstance(data, dict) else None
    if faces == []:
        raise refusal(say("faces_none"))
    return {} if faces is None else {"faces": faces}


def _with_face(own: OwnJobs, job_id: str, data: Any) -> Enhance:
    """
    Return what a finished restoration was asked for, with one more of its faces. NotFoundError: there is no such job or
    face, or its photo has been deleted since.
    """
    order, final = own.job(job_id).request, own.latest(job_id)
    faces = [face for face in final.faces if face.is_face] if isinstance(final, Final) else []
    wanted = data.get("face") if isinstance(data, dict) else None
    if not isinstance(order, Enhance) or wanted not in range(len(faces)):
        raise NotFoundError("job", job_id)
    if not Path(order.image).is_file():
        raise NotFoundError("picture", order.name)
    boxes = [face.box for face in faces]
    points = [point_in(boxes, k) for k, face in enumerate(faces) if k == wanted or not face.by_rule]
    return replace(order, faces=tuple(points))


def _turn(event: gr.EventData) -> Any:
    """Return the degrees that a page says, unchecked."""
    data = event_data(event)
    return data.get("turn") if isinstance(data, dict) else None


def note_html(text: str) -> Markup:
    return Markup('<p class="note" role="status">{}</p>').format(text)


def _listen(v: View, do: Handlers, page: gr.Blocks) -> None:
    shown = [v.stage, v.main.html, v.job]
    order = [v.photo, *v.controls.values]
    v.main.html.begin(do.restore, order, shown, **LONG)
    v.advice.whole(do.whole, order, shown, **LONG)
    v.advice.turn(do.turn, order, shown, **LONG)
    v.stage.upright(do.upright, [v.job], shown, **LONG)
    v.stage.anyway(do.anyway, [v.job], shown, **LONG)
    v.stage.also(do.also, [v.job], shown, **LONG)
    advise_on(partial(gr.on, [v.photo.upload, v.photo.clear]), v, do.context)
    v.advice.adopt(do.adopt, [v.looked], v.controls.values, **QUICK)
    page.load(do.come_back, [v.job], shown, **LONG)
    v.main.html.cancel(do.stop, [v.job], [v.main.html], **LONG)


def advise_on(event: Any, v: View, context: PanelContext) -> None:
    looks: dict[str, Any] = {**LONG, "trigger_mode": "multiple"}  # the second photo does not wait for the first one's
    asked = [v.photo, v.looked, v.job, v.controls.faces]
    event(Handlers(v, context).advise, asked, [v.advice, v.looked, v.stage], **looks)
