"""What the tests of the guard share: an application behind it, addresses, and how an answer of the guard looks."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from tests.support.http import X_CREDIT, Answer
from webui.guard import HEADERS_BY_KIND, PAGE_HEADERS

LAN = "192.168.1.5:7860"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """An application behind the guard: says how much it was sent, in its own clumsy headers."""
    size = 0
    while (message := await receive())["type"] == "http.request":
        size += len(message["body"])
        if not message["more_body"]:
            break
    headers = [(b"content-type", b"text/plain"), (b"x-frame-options", b"ALLOWALL"), (b"x-own", b"kept")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": f"{message['type']} {size}".encode()})


def assert_dressed(answer: Answer) -> None:
    """The headers that every answer has, whatever it is."""
    kind = answer.headers.get("content-type", "").partition(";")[0]
    dress = HEADERS_BY_KIND.get(kind, PAGE_HEADERS)
    assert {name: answer.headers.get(name.lower()) for name in dress} == dress
    assert answer.headers.get("x-credit") == (X_CREDIT if "X-Credit" in dress else None)


def assert_refused(answer: Answer, status: int, code: str) -> None:
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert (body["status"], body["code"]) == ("error", code)
    assert set(body) == {"status", "code", "message"} and body["message"]


HERE, EVIL = f"http://{LAN}", "https://evil.example"
SHUT = (
    "/pwa_icon", "/pwa_icon/12000", "/icons", "/service-worker.js/", "/monitoring", "/monitoring/summary",
    "/gradio_api/runs", "/gradio_api/run-history/records", "/gradio_api/proxy=http://127.0.0.1/", "/gradio_api/file=http://127.0.0.1/",
    "/gradio_api/file=https://example.com/x.png", "/gradio_api/file=HTTP://example.com", "/gradio_api/file=hTtPs:x",
    "/gradio_api/call/generate", "/gradio_api/call/v2/generate", "/gradio_api/run/generate",
    "/gradio_api/api/generate", "/gradio_api/component_server", "/gradio_api/stream/x", "/gradio_api/app_id",
    "/gradio_api/token", "/gradio_api/user", "/gradio_api/dev/reload", "/gradio_api/deep_link",
    "/gradio_api/openapi.json", "/gradio_api/file/x", "/gradio_api/custom_component/x/y/z/w",
    "/gradio_api/login_check", "/docs/x", "/redoc", "/openapi.json/",
    "/join", "/robots.txt", "/readyz/", "/metrics/x", "/v1", "/sdapi/", "/sdapi/v2/x", "/config/",
    "/healthz/", "/generate/x", "/enhance/x", "/outputs", "/file=/etc/passwd", "/gradio_api/uploads",
    "/gradio_api/cancel/x", "//healthz", "/HEALTHZ", "", "/.env", "/../etc/passwd", "*",
)  # fmt: skip


def example(path: str) -> str:
    """/file={path_or_url:path} -> /file=x"""
    while "{" in path:
        head, _, tail = path.partition("{")
        path = head + "x" + tail.partition("}")[2]
    return path


# Every route that the guard lets through. A new one belongs here only after somebody has looked at what it does.
REACHABLE = {
    "/", "/healthz", "/readyz", "/metrics", "/generate", "/enhance", "/outputs/{key}/{name}", "/outputs/{rest:path}",
    "/batch.zip", "/favicon.ico", "/manifest.json", "/service-worker.js", "/faces.js", "/away",
    "/icons/icon.svg",
    "/trust", "/trust/authority.crt", "/trust/{rest:path}",
    "/frame", "/frame/{name}.js", "/frame/{name}.css", "/frame/visit", "/frame/visit/draw", "/frame/visit/restore",
    "/frame/visit/wall/{job_id}", "/frame/visit/links/send", "/frame/visit/links/take/{job_id}",
    "/frame/visit/links/{code}", "/frame/visit/links/{code}/photo", "/frame/send/{code}", "/frame/take/{code}",
    "/frame/take/{code}/{name}", "/frame/list", "/frame/state", "/frame/picture/{picture_id}",
    "/frame/image.{ending}", "/frame/next", "/frame/pause", "/frame/favourite", "/frame/{rest:path}",
    "/albums/{folder}/{picture_id}", "/albums/{folder}/{picture_id}/{copy}", "/albums/{rest:path}",
    "/icons/icon-180.png", "/icons/icon-192.png", "/icons/icon-512.png", "/icons/{rest:path}", "/me", "/login",
    "/logout", "/leave", "/language/{tag}", "/language/{rest:path}", "/join/{invitation}", "/join/{rest:path}",
    "/invite", "/proof", "/jobs", "/jobs/{job_id}", "/jobs/{job_id}/events", "/jobs/{rest:path}",
    "/own-presets/{preset_id}.toml", "/own-presets/{rest:path}",
    "/jobs/{job_id}/retry", "/jobs/{job_id}/first", "/queue/pause", "/queue/resume", "/openapi.json", "/docs",
    "/v1/images/generations", "/v1/images/edits", "/v1/models", "/v1/models/{name}", "/v1/{rest:path}",
    "/sdapi/v1/txt2img", "/sdapi/v1/img2img", "/sdapi/v1/progress", "/sdapi/v1/options", "/sdapi/v1/sd-models",
    "/sdapi/v1/samplers", "/sdapi/v1/{rest:path}",
    "/workers/status", "/workers/leave", "/workers/claim", "/workers/jobs/{job_id}/{attempt}/photo",
    "/workers/jobs/{job_id}/{attempt}/pictures/{name}", "/workers/jobs/{job_id}/{attempt}/snapshot",
    "/workers/jobs/{job_id}/{attempt}/events", "/workers/{rest:path}",
    "/thumbnails/{key}/{name}", "/thumbnails/{path}", "/config", "/theme.css", "/static/{path:path}",
    "/assets/{path:path}", "/svelte/{path:path}", "/gradio_api/info",
    "/gradio_api/upload", "/gradio_api/upload_progress", "/gradio_api/file={path_or_url:path}",
    "/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/queue/status",
    "/gradio_api/heartbeat/{session_hash}", "/gradio_api/startup-events", "/gradio_api/cancel", "/gradio_api/reset",
    "/gradio_api/theme.css",
}  # fmt: skip
