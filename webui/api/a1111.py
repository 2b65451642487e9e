"""
The API of AUTOMATIC1111's web UI, as far as its clients use it to draw. One sampler belongs to each model here, so
names of samplers are read and passed over, and the answer's `info` says so.

There the chosen checkpoint is one for all. Here each caller, by its address, has its own, in memory until the program
ends: who chooses changes nothing for others, and who names a model in a request needs no choice.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from typing_extensions import TypedDict

from engines.errors import OptionError
from engines.messages import MAX_SEED, Event, Final, Generate, Progress, parse
from engines.messages.status import Status
from engines.settings import Settings
from webui.api import answers, choices
from webui.api.bodies import Values, no_mask, parse_known, read_json, read_json_with_photo
from webui.api.errors import Refusal
from webui.api.outcome import final
from webui.api.schemas import IN_BASE64, body, schema
from webui.own_jobs import HouseJobs

SAMPLER = "Model default"
CHECKPOINT = "sd_model_checkpoint"
CALLERS = 256  # whose choices are remembered
NO_GUIDANCE = 1.0  # as cfg_scale counts, which is Generate.guidance + 1 (Ho & Salimans 2022, in its two notations)
AT_ONCE = 1  # bodies with a photo that are in memory


@dataclass(frozen=True, slots=True)
class Txt2Img:
    """What is read of a request, of either kind. Limits are those of Generate; none is the model's own value."""

    prompt: str = ""
    negative_prompt: str = ""
    seed: int = -1
    steps: int | None = None
    cfg_scale: Annotated[float | None, Field(ge=0.0, le=21.0)] = None
    width: int | None = None
    height: int | None = None
    batch_size: Annotated[int, Field(ge=1, le=choices.MOST_PICTURES)] = 1
    n_iter: Annotated[int, Field(ge=1, le=choices.MOST_PICTURES)] = 1
    denoising_strength: float = Generate("").strength
    sampler_name: str = ""
    sampler_index: str = ""
    override_settings: Mapping[str, object] = field(default_factory=dict)


class Images(TypedDict):
    """`info`: JSON in a text."""

    images: list[str]
    parameters: Mapping[str, object]
    info: str


class ProgressState(TypedDict):
    skipped: bool
    interrupted: bool
    job: str
    job_count: int
    job_no: int
    sampling_step: int
    sampling_steps: int


class ProgressBody(TypedDict):
    progress: float
    eta_relative: float
    state: ProgressState
    current_image: None  # it may be somebody else's
    textinfo: None


class Checkpoints:
    """Which model each caller has chosen, by address: of the callers who chose last."""

    def __init__(self) -> None:
        self._chosen: OrderedDict[str, str] = OrderedDict()

    def choose(self, request: Request, name: str) -> None:
        self._chosen[_caller(request)] = name
        self._chosen.move_to_end(_caller(request))
        if len(self._chosen) > CALLERS:
            self._chosen.popitem(last=False)

    def of(self, request: Request) -> str:
        return self._chosen.get(_caller(request), choices.DEFAULT_BUNDLE)


def _caller(request: Request) -> str:
    return request.client.host if request.client else ""


def add_pictures(routes: APIRouter, jobs: HouseJobs, settings: Settings, checkpoints: Checkpoints) -> None:
    drawing: list[tuple[str, str]] = []  # (person, job): what this dialect waits for, oldest first
    turn = CapacityLimiter(AT_ONCE)

    @routes.post(
        "/sdapi/v1/txt2img",
        responses={200: {"model": Images}},
        openapi_extra=body(json=schema(Txt2Img, ("denoising_strength",))),
    )
    async def txt2img(request: Request) -> JSONResponse:
        """Draw portraits. Fields that are not listed are passed over."""
        return await _draw(await read_json(request), "", request)

    @routes.post(
        "/sdapi/v1/img2img",
        responses={200: {"model": Images}},
        openapi_extra=body(json=schema(Txt2Img, init_images=IN_BASE64)),
    )
    async def img2img(request: Request) -> JSONResponse:
        """Draw a portrait that starts from a photo: `init_images` holds one, in base64."""
        values, photo = await read_json_with_photo(request, "init_images", settings.uploads, turn)
        if values.get("mask"):
            raise no_mask("…")
        return await _draw(values, photo, request)

    @routes.get("/sdapi/v1/progress", responses={200: {"model": ProgressBody}})
    def progress(request: Request) -> JSONResponse:
        """How far the oldest of the caller's is that this API was asked for and has not answered."""
        own = jobs.of(request)
        waiting = [job_id for person, job_id in list(drawing) if person == own.person.id]
        return JSONResponse(_progress(own.latest(waiting[0]) if waiting else None, len(waiting)))

    async def _draw(values: Values, photo: str, request: Request) -> JSONResponse:
        asked, own = parse_known(Txt2Img, values), jobs.of(request)
        order = order_of(asked, photo, checkpoints.of(request), jobs.status, settings.backend)
        job_id = await to_thread.run_sync(own.submit, order)
        drawing.append((own.person.id, job_id))
        try:
            ended = await final(own, job_id, request)
        finally:
            drawing.remove((own.person.id, job_id))
        return JSONResponse(await to_thread.run_sync(_answered, asked, order, ended, jobs))


def add_options(routes: APIRouter, jobs: HouseJobs, checkpoints: Checkpoints) -> None:
    @routes.get("/sdapi/v1/options")
    async def options(request: Request) -> JSONResponse:
        """The options there are: the model that this caller has chosen, or ours."""
        return JSONResponse({CHECKPOINT: checkpoints.of(request), "samples_format": "png"})

    @routes.post("/sdapi/v1/options")
    async def choose(request: Request) -> JSONResponse:
        """Choose a model, for this caller's requests that name none. Other options are passed over."""
        named = (await read_json(request)).get(CHECKPOINT)
        if named is not None:
            checkpoints.choose(request, _checkpoint(jobs.status, named))
        return JSONResponse(None)

    @routes.get("/sdapi/v1/sd-models")
    async def models() -> JSONResponse:
        """`title` is what a request names. Files' names are nobody's business."""
        names = [bundle.name for bundle in choices.portraits(jobs.status)]
        unknown = {"hash": None, "sha256": None, "filename": "", "config": None}
        return JSONResponse([{"title": name, "model_name": name, **unknown} for name in names])

    @routes.get("/sdapi/v1/samplers")
    async def samplers() -> JSONResponse:
        """One, which stands for the sampler of each model."""
        return JSONResponse([{"name": SAMPLER, "aliases": [], "options": {}}])


def _checkpoint(status: Status, named: object) -> str:
    """Return the model's name. OptionError, NotFoundError."""
    if not isinstance(named, str):
        raise OptionError(CHECKPOINT, named, "text")
    return choices.portrait(status, named)


def order_of(asked: Txt2Img, photo: str, chosen: str, status: Status, backend: str) -> Generate:
    """OptionError, NotFoundError: a field names what cannot be. `chosen`: the model, where the request names none."""
    count = asked.batch_size * asked.n_iter
    if count > choices.MOST_PICTURES:
        raise OptionError("batch_size × n_iter", count, f"1 … {choices.MOST_PICTURES}")
    values = {
        "prompt": asked.prompt, "negative": asked.negative_prompt, "width": asked.width, "height": asked.height,
        "steps": asked.steps, "seed": asked.seed, "count": count, "preview": "off", "backend": backend,
        "bundle": _checkpoint(status, asked.override_settings.get(CHECKPOINT) or chosen),
        "guidance": None if asked.cfg_scale is None else max(0.0, asked.cfg_scale - NO_GUIDANCE),
        "start": photo, "strength": asked.denoising_strength,
    }  # fmt: skip
    return parse(Generate, values)


def _answered(asked: Txt2Img, order: Generate, ended: Final, jobs: HouseJobs) -> Images:
    """Read and encode the pictures, in a thread."""
    parameters = {**asdict(asked), "override_settings": {CHECKPOINT: order.bundle}, "init_images": None}
    return {
        "images": answers.encoded(jobs, ended.images),
        "parameters": parameters,
        "info": json.dumps(_info(asked, order, ended), ensure_ascii=False),
    }


def _info(asked: Txt2Img, order: Generate, ended: Final) -> Mapping[str, object]:
    count = len(ended.images)
    extra, sampler = {"Engine": ended.engine, "Reason": ended.reason}, asked.sampler_name or asked.sampler_index
    if sampler not in ("", SAMPLER):
        extra["Sampler passed over"] = sampler
    return {
        "prompt": order.prompt,
        "all_prompts": [order.prompt] * count,
        "negative_prompt": order.negative,
        "all_negative_prompts": [order.negative] * count,
        "seed": ended.seed,
        "all_seeds": [(ended.seed + k) % (MAX_SEED + 1) for k in range(count)],
        "width": order.width,
        "height": order.height,
        "steps": order.steps,
        "cfg_scale": asked.cfg_scale,
        "batch_size": count,
        "sampler_name": SAMPLER,
        "sd_model_name": order.bundle,
        "extra_generation_params": extra,
    }


def _progress(event: Event | None, count: int) -> ProgressBody:
    step = event if isinstance(event, Progress) else None
    share = (step.picture - 1 + step.step / max(step.total, 1)) / step.pictures if step else 0.0
    return {
        "progress": share,
        "eta_relative": (step.eta_s or 0.0) if step else 0.0,
        "state": {
            "skipped": False,
            "interrupted": False,
            "job": "",
            "job_count": count,
            "job_no": 0,
            "sampling_step": step.step if step else 0,
            "sampling_steps": step.total if step else 0,
        },
        "current_image": None,
        "textinfo": None,
    }


def error_form(refusal: Refusal) -> Mapping[str, object]:
    """Return an error as that web UI writes it: `detail` is for people."""
    return {"error": refusal.code, "detail": refusal.message, "body": "", "errors": refusal.message}
