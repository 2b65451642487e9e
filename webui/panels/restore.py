"""The panel that restores photos: one photo in, a few settings, before and after under one slider."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from engines.errors import StudioError
from engines.messages import Enhance, RestoreMode
from webui import uploads
from webui.following import follow, resume
from webui.i18n import Words, spoken
from webui.panels import LONG, QUICK, Desk, Updates, cancel_button, cancel_pressed, complaint, parsed
from webui.stream import Scene, scene_html

TOO_STRONG = 80


@dataclass(frozen=True)
class View:
    photo: gr.Image
    strength: gr.Slider
    warning: gr.Markdown
    mode: gr.Radio
    go: gr.Button
    cancel: gr.Button
    backend: gr.Radio
    denoise: gr.Slider
    sharpen: gr.Slider
    contrast: gr.Slider
    brightness: gr.Slider
    protect_skin: gr.Checkbox
    bundle: gr.Dropdown
    stage: gr.HTML
    job: gr.BrowserState


def build(desk: Desk, page: gr.Blocks, tab: gr.Tab) -> View:
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="controls"):
            parts = _main_controls(desk)
            with gr.Accordion(desk.i18n("restore_more"), open=False):
                parts |= _more_controls(desk)
        with gr.Column(scale=6, min_width=320):
            stage = gr.HTML(elem_id="restore-stage")
    job = gr.BrowserState("", storage_key="awportrait-restore-job", secret="awportrait", render=False)
    view = View(**parts, stage=stage, job=job)
    _listen(view, Handlers(view, desk), page, tab)
    return view


def _main_controls(desk: Desk) -> dict[str, Any]:
    t = desk.i18n
    photo = gr.Image(
        label=t("restore_photo"), show_label=False, placeholder=t("restore_photo"), type="filepath", image_mode=None,
        sources=["upload", "clipboard"], height=260, buttons=[], elem_id="photo",
    )  # fmt: skip
    photo.preprocess = partial(_uploaded, Path(photo.GRADIO_CACHE).resolve())
    strength = gr.Slider(0, 100, 70, step=1, label=t("restore_strength"), info=t("restore_strength_hint"))
    warning = gr.Markdown(t("restore_warning"), visible=False, elem_classes="note")
    modes = [(t(f"restore_{mode}"), mode) for mode in ("natural", "strong", "detail")]
    mode = gr.Radio(modes, value="natural", label=t("restore_mode"))
    go = gr.Button(t("restore_go"), variant="primary", size="lg", elem_id="restore")
    cancel = gr.Button(t("portrait_cancel"), variant="stop", size="lg", visible=False)
    backend = desk.backend_radio("restore-backend")
    return {
        "photo": photo, "strength": strength, "warning": warning, "mode": mode, "go": go, "cancel": cancel,
        "backend": backend,
    }  # fmt: skip


def _uploaded(folder: Path, payload: Any) -> str | None:
    """
    The file and nothing else. Gradio would open it with every decoder there is, would decode data: addresses, and
    checks only paths that carry its mark.
    """
    if payload is None:
        return None
    path = Path(payload.path or "").resolve()
    if not path.is_relative_to(folder):
        raise ValueError("not a file that was uploaded")
    return str(path)


def _more_controls(desk: Desk) -> dict[str, Any]:
    t, names = desk.i18n, [bundle.name for bundle in desk.bundles("restorer")] or ["restorer"]
    sliders = {
        name: gr.Slider(0, 100, neutral, step=1, label=t(f"restore_{name}"))
        for name, neutral in (("denoise", 0), ("sharpen", 0), ("contrast", 50), ("brightness", 50))
    }
    skin = gr.Checkbox(True, label=t("restore_protect_skin"))
    bundle = gr.Dropdown(names, value=names[0], label=t("portrait_bundle"), visible=len(names) > 1)
    return {**sliders, "protect_skin": skin, "bundle": bundle}


@dataclass(frozen=True)
class Handlers:
    """What happens. Every method may be called by anybody who can reach the server, with any arguments."""

    view: View
    desk: Desk

    def show(self, scene: Scene, say: Words) -> Updates:
        busy = scene.state == "running"
        return {
            self.view.stage: scene_html(scene, say),
            self.view.go: gr.update(visible=not busy),
            self.view.cancel: cancel_button(self.desk, busy),
        }

    def restore(
        self, photo: str | None, strength: int, mode: RestoreMode, denoise: int, sharpen: int, contrast: int,
        brightness: int, protect_skin: bool, backend: str, bundle: str, request: gr.Request,
    ) -> Iterator[Updates]:  # fmt: skip
        say = spoken(request.headers.get("accept-language"))
        if photo is None:
            raise gr.Error(say("restore_empty"), print_exception=False)
        values = {
            "image": self._kept(photo, say), "strength": strength, "mode": mode, "denoise": denoise, "sharpen": sharpen,
            "contrast": contrast, "brightness": brightness, "protect_skin": protect_skin, "backend": backend,
            "bundle": bundle,
        }  # fmt: skip
        order = parsed(Enhance, values, say)
        job_id, scene = self.desk.queue.submit(order), Scene(task="enhance", state="running", status="stage_load")
        yield {self.view.job: job_id, **self.show(scene, say)}
        for now in follow(self.desk.queue, job_id, scene):
            yield self.show(now, say)

    def _kept(self, photo: str, say: Words) -> str:
        try:
            with Path(photo).open("rb") as source:
                return str(uploads.keep(source, self.desk.settings.uploads))
        except StudioError as exc:
            raise complaint(exc, say) from exc

    def come_back(self, job_id: str, request: gr.Request) -> Iterator[Updates]:
        """On load: what this browser's last job has come to."""
        say = spoken(request.headers.get("accept-language"))
        start = Scene(task="enhance", status="restore_empty")
        yield {self.view.stage: scene_html(start, say)}
        for scene in resume(self.desk.queue, job_id, start):
            yield self.show(scene, say)

    def stop(self, job_id: str) -> Any:
        return cancel_pressed(self.desk, job_id)

    def change_bundle(self, name: str, request: gr.Request) -> Any:
        say = spoken(request.headers.get("accept-language"))
        return self.desk.offer_backends(self.desk.find("restorer", name), say)

    def offer(self, name: str, request: gr.Request) -> list[Any]:
        """Bundles that were built and times that were measured since the page was loaded."""
        say, target = spoken(request.headers.get("accept-language")), self.desk.find("restorer", name)
        return [self.desk.offer_bundles("restorer", target), self.desk.offer_backends(target, say)]


def offer_on(events: list[Any], v: View, desk: Desk) -> None:
    """Bring the choices up to date."""
    for event in events:
        event(Handlers(v, desk).offer, [v.bundle], [v.bundle, v.backend], **QUICK)


def _listen(v: View, do: Handlers, page: gr.Blocks, tab: gr.Tab) -> None:
    shown = [v.stage, v.go, v.cancel, v.job]
    order = [
        v.photo, v.strength, v.mode, v.denoise, v.sharpen, v.contrast, v.brightness, v.protect_skin, v.backend,
        v.bundle,
    ]  # fmt: skip
    restored = v.go.click(do.restore, order, shown, **LONG)
    page.load(do.come_back, [v.job], shown, **LONG)
    v.cancel.click(do.stop, [v.job], [v.cancel], **LONG)
    v.strength.release(lambda value: gr.update(visible=value > TOO_STRONG), [v.strength], [v.warning], **QUICK)
    v.bundle.change(do.change_bundle, [v.bundle], [v.backend], **QUICK)
    offer_on([page.load, tab.select, restored.then], v, do.desk)
