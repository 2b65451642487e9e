"""
OpenAI's Images API, as its clients speak it: generations, edits, models. Their fields are turned into a Generate, and
its Final into what they expect; what only OpenAI's own models know (quality, style, background ...) is passed over.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NotRequired

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from typing_extensions import TypedDict

from engines.errors import NotFoundError, OptionError, PromptError, SizeError
from engines.messages import Final, Generate, parse
from engines.messages.status import Status
from engines.settings import Settings
from webui.api import answers, choices
from webui.api.bodies import parse_known, read_form, read_json
from webui.api.errors import Refusal
from webui.api.outcome import outcome
from webui.api.schemas import FILE, body, schema
from webui.own_jobs import HouseJobs
from webui.pictures import address

SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
# Where ours have other names.
PARAMS: Mapping[str, str] = {"bundle": "model", "negative": "negative_prompt", "start": "image"}
FAULTS: Mapping[str, str] = {SizeError.code: "size", PromptError.code: "prompt"}  # which parameter an error is about
CREATED = 0  # seconds since 1970; of a model nobody has noted when, and OpenAI's form wants a number


@dataclass(frozen=True, slots=True)
class ImagesRequest:
    """
    Generations, and edits beside their photo. `size` is "WIDTHxHEIGHT". Fields from `seed` on are ours: those of
    Generate, which says their limits.
    """

    prompt: str
    model: str = choices.AUTO
    n: Annotated[int, Field(ge=1, le=choices.MOST_PICTURES)] = 1
    size: str = choices.AUTO
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Literal["png"] = "png"
    stream: bool = False
    seed: int = -1
    steps: int | None = None
    negative_prompt: str = ""
    backend: str = ""
    strength: float = Generate("").strength  # of an edit: how much of the photo is drawn anew


class Picture(TypedDict):
    b64_json: NotRequired[str]
    url: NotRequired[str]


class ImagesResponse(TypedDict):
    """Fields from `seed` on are ours."""

    created: int
    data: list[Picture]
    output_format: Literal["png"]
    seed: int
    engine: str
    reason: str


class Model(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(TypedDict):
    object: Literal["list"]
    data: list[Model]


def add(routes: APIRouter, jobs: HouseJobs, settings: Settings) -> None:
    @routes.post(
        "/v1/images/generations",
        responses={200: {"model": ImagesResponse}},
        openapi_extra=body(json=schema(ImagesRequest, ("strength",))),
    )
    async def generations(request: Request) -> JSONResponse:
        """Draw portraits. Fields that are not listed, such as `quality`, are passed over."""
        asked = parse_known(ImagesRequest, await read_json(request))
        return await _answer(asked, "", request)

    @routes.post(
        "/v1/images/edits",
        responses={200: {"model": ImagesResponse}},
        openapi_extra=body(form=schema(ImagesRequest, image=FILE)),
    )
    async def edits(request: Request) -> JSONResponse:
        """Draw a portrait that starts from a photo, in a form: `image`, and the fields of generations."""
        form = await read_form(request, ("image", "image[]"), settings.uploads)
        return await _answer(parse_known(ImagesRequest, dict(form.fields)), form.path, request)

    @routes.get("/v1/models", responses={200: {"model": Models}})
    async def models() -> JSONResponse:
        """The models that draw portraits."""
        here: Models = {"object": "list", "data": [_model(b.name) for b in choices.portraits(jobs.status)]}
        return JSONResponse(here)

    @routes.get("/v1/models/{name}", responses={200: {"model": Model}})
    async def model(name: str) -> JSONResponse:
        """One of them, if it is here."""
        if name not in (bundle.name for bundle in choices.portraits(jobs.status)):
            raise NotFoundError("model", name)
        return JSONResponse(_model(name))

    async def _answer(asked: ImagesRequest, photo: str, request: Request) -> JSONResponse:
        order = order_of(asked, photo, jobs.status, settings.backend)
        final = await outcome(jobs.of(request), order, request)
        return JSONResponse(await to_thread.run_sync(_answered, asked, final, jobs, str(request.base_url)))


def order_of(asked: ImagesRequest, photo: str, status: Status, backend: str) -> Generate:
    """OptionError, NotFoundError: a field names what is not here. `backend`: the server's own."""
    if asked.stream:
        raise OptionError("stream", "true", "false")
    if asked.backend:
        choices.check_backend(status, asked.backend)
    bundle = choices.portrait(status, asked.model)
    width, height = _size(asked.size, choices.sizes(status, bundle))
    values = {
        "prompt": asked.prompt, "negative": asked.negative_prompt, "width": width, "height": height,
        "steps": asked.steps, "seed": asked.seed, "count": asked.n, "bundle": bundle, "preview": "off",
        "backend": asked.backend or backend, "start": photo, "strength": asked.strength,
    }  # fmt: skip
    return parse(Generate, values)


def _size(text: str, listed: list[str]) -> tuple[int | None, int | None]:
    if text == choices.AUTO:
        return None, None
    match = SIZE.fullmatch(text)
    if not match:
        raise OptionError("size", text, ", ".join((choices.AUTO, *listed)))
    return int(match[1]), int(match[2])


def _answered(asked: ImagesRequest, final: Final, jobs: HouseJobs, base_url: str) -> ImagesResponse:
    """Read and encode the pictures, in a thread."""
    if asked.response_format == "url":
        pictures = [Picture(url=base_url + address(name)) for name in final.images]
    else:
        pictures = [Picture(b64_json=text) for text in answers.encoded(jobs, final.images)]
    return {
        "created": int(time.time()),
        "data": pictures,
        "output_format": "png",
        "seed": final.seed,
        "engine": final.engine,
        "reason": final.reason,
    }


def _model(name: str) -> Model:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "local"}


def error_form(refusal: Refusal) -> Mapping[str, object]:
    """Return an error as OpenAI's clients look for it: they tell users the message, and programs the code."""
    no_model = refusal.code == NotFoundError.code and refusal.facts.get("what") in ("bundle", "model")
    error = {
        "message": refusal.message,
        "type": _type(refusal.status),
        "param": "model" if no_model else _param(refusal),
        "code": "model_not_found" if no_model else refusal.code,
    }
    return {"error": error}


def _param(refusal: Refusal) -> str | None:
    field, *_ = re.split(r"[ .]", str(refusal.facts.get("field", "")))  # "prompt length" -> "prompt"
    return PARAMS.get(field, field) or FAULTS.get(refusal.code)


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
