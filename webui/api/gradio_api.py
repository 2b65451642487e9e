"""
Gradio's own API, for programs that use `gradio_client`: two endpoints, which take plain values and photos that were
uploaded, and give pictures by their addresses. Fields and limits are those of the messages; what else a page calls is
private.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr
from anyio import to_thread
from pydantic import TypeAdapter

from engines.errors import OptionError, StudioError
from engines.messages import Enhance, Final, Generate, Lora, parse
from engines.settings import Settings
from webui import gradio_patches, uploads
from webui.api import answers, choices
from webui.api.bodies import Values
from webui.api.errors import JobFailed, sentence
from webui.api.outcome import outcome_until
from webui.api.schemas import POINTS, schema
from webui.gradio_patches import FILE, REQUIRED, Slot
from webui.i18n import preferred
from webui.own_jobs import HouseJobs
from webui.pictures import address, file_name

OWN_MODEL = "none: the model's own"
OWN_BACKEND = "auto, pytorch, edge, or an engine's name; none: this server's own"
GENERATE: Mapping[str, str] = {  # the fields that programs have of it, and what is said of them
    "prompt": "what to draw, in Chinese or English",
    "negative": "what not to draw",
    "width": f"in pixels; {OWN_MODEL}",
    "height": f"in pixels; {OWN_MODEL}",
    "steps": f"1 to 50; {OWN_MODEL}",
    "guidance": f"how closely the words are followed, 0 to 20; {OWN_MODEL}",
    "seed": "the same draws the same; -1: by lot",
    "count": "1 to 8 pictures; picture k has seed + k",
    "bundle": "the model that draws",
    "backend": OWN_BACKEND,
    "loras": 'up to 8, each {"name": "...", "strength": -2 to 2}',
    "start": "a photo to start from: handle_file(PATH); an address is not fetched",
    "strength": "how much of that photo is drawn anew, 0 to 1",
    "variety": "how far seeds differ, 0 to 100: for models that draw them nearly alike",
}
ENHANCE: Mapping[str, str] = {
    "image": "the photo: handle_file(PATH); an address is not fetched",
    "auto": "strength, mode, denoise, sharpen and fading by a look at the photo; without a face, whole_picture",
    "strength": "of the faces' restoration, 0 to 100",
    "mode": "how faces are restored",
    "more_detail": "of the faces",
    "denoise": "0 to 100, of the whole picture",
    "sharpen": "0 to 100, of the whole picture",
    "contrast": "0 to 100; 50 leaves it",
    "brightness": "0 to 100; 50 leaves it",
    "fading": "against faded colours, 0 to 100",
    "scratches": "against scratches, 0 to 100",
    "protect_skin": "keep the tone of the skin",
    "only_center_face": "leave the other faces",
    "faces": 'the faces that are meant, each by a point in it, {"x": 0 to 1, "y": 0 to 1} of the picture; none: all',
    "whole_picture": "clean all of it, whether there are faces or not",
    "min_face_px": "leave faces that are smaller, 8 to 1024 pixels",
    "format": "of the file that is given back",
    "quality": "of JPEG and WEBP, 1 to 100",
    "keep_date": "when the photo was taken; nothing else of its metadata is ever kept",
    "turn": "clockwise, by 90, 180 or 270 degrees, after its own orientation",
    "bundle": "the model that restores",
    "backend": OWN_BACKEND,
}
LORA = {"type": "object", "properties": TypeAdapter(Lora).json_schema()["properties"]}
UNSAID = {"backend", "loras", "start", "faces"}  # None says better than a message's default that nothing was said
SECONDS = Slot("seconds", {"type": "number"}, "how long it took")
ENGINE = Slot("engine", {"type": "string"}, "which engine did it")
DRAWN = (
    Slot("images", {"type": "array", "items": FILE}, "the pictures"),
    Slot("seed", {"type": "integer"}, "of the first of them"),
    SECONDS,
    ENGINE,
)
RESTORED = (
    Slot("image", FILE, "the restored photo"),
    Slot("faces", {"type": "array", "items": {"type": "object"}}, "what became of each: box, state, strength, reason"),
    SECONDS,
    ENGINE,
)


def add(house: HouseJobs, settings: Settings) -> None:
    """Add the endpoints to the page that is being built: first, as its own handlers would else have these names."""
    do = Endpoints(house, settings)
    gradio_patches.publish(do.generate, "generate", "Draw portraits.", _slots(Generate, GENERATE, "start"), DRAWN)
    gradio_patches.publish(do.restore, "restore", "Restore a photo.", _slots(Enhance, ENHANCE, "image"), RESTORED)


def _slots(kind: type[Generate | Enhance], about: Mapping[str, str], photo: str) -> list[Slot]:
    """Return the fields of a request as an endpoint takes them: with their limits, and what they are if not given."""
    described = schema(kind)
    shapes = {**described["properties"], photo: FILE, "loras": {"type": "array", "items": LORA}, "faces": POINTS}
    defaults = {field.name: field.default for field in fields(kind) if field.name not in described["required"]}
    defaults |= dict.fromkeys(UNSAID & set(defaults))
    return [Slot(name, shapes[name], text, defaults.get(name, REQUIRED)) for name, text in about.items()]


@dataclass(frozen=True)
class Endpoints:
    """Every method may be called by anybody who can reach the server, with any values."""

    house: HouseJobs
    settings: Settings

    async def generate(self, request: gr.Request, values: Values) -> tuple[Any, ...]:
        with _in_words(request):
            final = await self._outcome(Generate, "start", {"preview": "off", **values}, request)
        return [_file(name, request) for name in final.images], final.seed, final.seconds, final.engine

    async def restore(self, request: gr.Request, values: Values) -> tuple[Any, ...]:
        with _in_words(request):
            final = await self._outcome(Enhance, "image", values, request)
        faces = answers.faces(final)
        return _file(final.images[0], request), faces, final.seconds, final.engine

    async def _outcome(self, kind: type[Generate | Enhance], photo: str, values: Values, request: gr.Request) -> Final:
        given = {name: value for name, value in values.items() if value is not None}
        if "backend" in given:
            choices.check_backend(self.house.status, str(given["backend"]))
        if photo in given:
            given |= await to_thread.run_sync(self._stored, kind, photo, given[photo])
        order = parse(kind, {"backend": self.settings.backend, **given})
        return await outcome_until(self.house.of(request), order, gradio_patches.program_left())

    def _stored(self, kind: type[Generate | Enhance], field: str, value: Any) -> Values:
        """Return where the photo lies now. OptionError: none was uploaded. ImageError, StorageError."""
        try:
            upload = gradio_patches.uploaded(value)
        except ValueError as exc:
            raise OptionError(field, "", "a file") from exc
        with Path(upload.path).open("rb") as source:
            path = str(uploads.keep(source, self.settings.uploads))
        return {field: path, "name": upload.name} if kind is Enhance else {field: path}


def _file(picture: str, request: gr.Request) -> Values:
    return gradio_patches.served(str(request.request.base_url) + address(picture), file_name(picture))


@contextmanager
def _in_words(request: gr.Request) -> Iterator[None]:
    """Let errors leave as Gradio's, in the caller's language, or in both."""
    try:
        yield
    except (StudioError, JobFailed) as exc:
        error = exc.failed if isinstance(exc, JobFailed) else exc
        text = sentence(preferred(request.headers), error.code, error.facts)
        raise gr.Error(text, print_exception=False) from exc
