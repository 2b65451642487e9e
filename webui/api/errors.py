"""
How an error leaves: its HTTP status, its sentence in the caller's language, and the form in which clients of a dialect
look for it. Knows the error tree and the words; no queue, and no dialect but the house's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from engines import errors
from engines.errors import Fact, StudioError
from engines.messages import Failed
from webui.addresses import inside
from webui.i18n import in_both, preferred, spoken

STATUS: Mapping[type[StudioError], int] = {
    errors.StudioError: 500,
    errors.RequestError: 400,
    errors.NotFoundError: 404,
    errors.LoginNeeded: 401,
    errors.OwnerOnly: 403,
    errors.LinkEnded: 410,
    errors.ImageError: 415,
    errors.ImageTooLarge: 413,
    errors.ImageTooSlow: 413,
    errors.FileTooLarge: 413,
    errors.FolderAway: 503,
    errors.NoFaceError: 422,
    errors.LoraError: 422,
    errors.MemoryShort: 507,
    errors.PartAway: 503,
    errors.DownloadError: 502,
    errors.OutOfMemory: 507,
    errors.EngineUnavailable: 503,
    errors.StorageError: 507,
    errors.DatabaseDamaged: 503,
    errors.QueueFull: 429,
    errors.PresetsFull: 409,
    errors.JobCancelled: 409,
    errors.JobPostponed: 503,
    errors.JobMoved: 409,
}


@dataclass(frozen=True)
class Refusal:
    """What is said to a caller who does not get what was asked for. `facts` are those that the message was made of."""

    status: int
    code: str
    message: str
    facts: Mapping[str, Fact] = field(default_factory=dict)


Form = Callable[[Refusal], Mapping[str, object]]
Headers = Mapping[str, str] | None


class JobFailed(Exception):
    """A job ended with Failed."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.detail)
        self.failed = failed


def own_form(refusal: Refusal) -> Mapping[str, object]:
    return {"status": "error", "code": refusal.code, "message": refusal.message}


def install(app: FastAPI, forms: Mapping[str, Form]) -> None:
    """Let every error leave as JSON. `forms`: of the addresses that begin so; the others have the house's own."""

    def refuse(
        request: Request, status: int, code: str, facts: Mapping[str, Fact], headers: Headers = None
    ) -> Response:
        message = sentence(preferred(request.headers), code, facts)
        form = next((form for start, form in forms.items() if inside(request.scope).startswith(start)), own_form)
        if status == 401:
            headers = {**(headers or {}), "WWW-Authenticate": "Bearer"}
        if "retry_s" in facts:
            headers = {**(headers or {}), "Retry-After": str(facts["retry_s"])}
        return JSONResponse(form(Refusal(status, code, message, facts)), status, headers)

    @app.exception_handler(StudioError)
    async def studio_error(request: Request, exc: StudioError) -> Response:
        return refuse(request, status_of(exc.code), exc.code, exc.facts)

    @app.exception_handler(JobFailed)
    async def job_failed(request: Request, exc: JobFailed) -> Response:
        return refuse(request, status_of(exc.failed.code), exc.failed.code, exc.failed.facts)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, exc: HTTPException) -> Response:
        code = {404: "no_such_address", 405: "wrong_method"}.get(exc.status_code, "bad_request")
        return refuse(request, exc.status_code, code, {}, exc.headers)

    @app.exception_handler(500)
    async def bug(request: Request, exc: Exception) -> Response:
        return refuse(request, 500, "internal", {})


def sentence(accept_language: str | None, code: str, facts: Mapping[str, Fact]) -> str:
    """Return it in the caller's language; in both when it names none, as programs do."""
    if accept_language and accept_language != "*":
        return spoken(accept_language).error(code, facts)
    return in_both(code, facts)


def status_of(code: str) -> int:
    """Return the status of an error's code: that of the nearest class up the tree which has one."""
    kind = next((kind for kind in _tree(StudioError) if kind.code == code), StudioError)
    return next(STATUS[parent] for parent in kind.__mro__ if parent in STATUS)


def _tree(root: type[StudioError]) -> Iterator[type[StudioError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)
