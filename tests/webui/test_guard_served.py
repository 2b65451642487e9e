"""The guard around the real application: every route, every kind of answer, nothing for other origins."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.guarded import EVIL, LAN, REACHABLE, SHUT, assert_dressed, assert_refused, echo, example
from tests.support.http import ask, wire
from webui.guard import Guard

if TYPE_CHECKING:
    from tests.support.server import Rig


def routes(collection: Any, prefix: str = "") -> Iterator[str]:
    """The path of every route of an application and of those mounted in it."""
    for route in collection:
        if hasattr(route, "original_router"):  # FastAPI's include_router
            yield from routes(route.original_router.routes, prefix + getattr(route.include_context, "prefix", ""))
        elif hasattr(route, "methods"):
            yield prefix + route.path
        else:  # a mount
            inner = getattr(route.app, "routes", None)
            yield from routes(inner, prefix + route.path) if inner else [f"{prefix}{route.path}/{{path}}"]


def test_no_route_is_open_that_nobody_has_looked_at(rig: Rig) -> None:
    """S17. Which of all routes the guard lets through to the application."""
    everything = set(routes(rig.routes))
    gate = Guard(echo, rig.app.names, rig.app.paths, 100)
    found = {path for path in everything if ask(gate, "GET", example(path), [("host", LAN)]).status != 404}
    assert len(everything) > 60, "Gradio's own are among them"
    assert found == REACHABLE


@pytest.mark.parametrize("path", SHUT)
def test_shut_paths_are_shut_in_the_real_application(rig: Rig, path: str) -> None:
    if not path.startswith("/"):
        pytest.skip("such a request line cannot be sent")
    answer = wire(rig.url, path)
    assert_refused(answer, 404, "no_such_address")
    assert_dressed(answer)


PROGRAMS_READ = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/v1/models", "/sdapi/v1/sd-models")
EVERY_KIND = (
    ("GET", "/", 200), ("HEAD", "/", 200), ("GET", "/healthz", 200), ("GET", "/config", 200),
    ("GET", "/theme.css", 200), ("GET", "/favicon.ico", 200), ("GET", "/gradio_api/info", 200),
    ("GET", "/gradio_api/startup-events", 200), ("GET", "/outputs/x/none.png", 404),
    ("GET", "/thumbnails/none.webp", 404), ("GET", "/static/none.js", 404), ("GET", "/nowhere", 404),
    ("GET", "/gradio_api/file=/etc/passwd", 403), ("POST", "/generate", 400), ("POST", "/enhance", 400),
    ("GET", "/readyz", 200), ("GET", "/metrics", 200), ("GET", "/docs", 200), ("GET", "/openapi.json", 200),
    ("GET", "/jobs/none", 404), ("GET", "/v1/models", 200), ("GET", "/v1/none", 404), ("POST", "/v1/images/edits", 400),
    ("GET", "/sdapi/v1/options", 200), ("GET", "/sdapi/v1/none", 404), ("POST", "/sdapi/v1/img2img", 400),
    ("GET", "/gradio_api/queue/data", 422), ("POST", "/config", 405), ("GET", "/pwa_icon/9", 404),
)  # fmt: skip


@pytest.mark.parametrize(("method", "path", "status"), EVERY_KIND)
def test_every_kind_of_answer_is_dressed(rig: Rig, method: str, path: str, status: int) -> None:
    """S16: pages, JSON, files, errors of ours and of Gradio."""
    answer = wire(rig.url, path, method, {"Content-Length": "0"} if method == "POST" else None)
    assert answer.status == status
    assert_dressed(answer)


def test_scripts_styles_and_pictures_are_dressed(rig: Rig) -> None:
    """The page's own files, as the page names them."""
    page = rig.client.get("/").text
    files = set(re.findall(r"(?:src|href)=\"\.?(/(?:assets|static|theme\.css|thumbnails)[^\"?]*)", page))
    assert any(file.endswith(".js") for file in files)
    assert any(file.endswith(".css") for file in files)
    for file in files:
        answer = wire(rig.url, file)
        assert answer.status == 200, file
        assert_dressed(answer)


@pytest.mark.parametrize(("status", "headers"), [(400, {"Host": "evil.example"}), (403, {"Origin": EVIL})])
def test_refusals_of_the_real_server_are_dressed(rig: Rig, status: int, headers: dict[str, str]) -> None:
    before = rig.jobs()
    answer = wire(rig.url, "/generate?prompt=x", "POST", {**headers, "Content-Length": "0"})
    assert answer.status == status
    assert_dressed(answer)
    assert rig.jobs().keys() == before.keys(), "nothing was done"


def test_a_bug_answers_500_dressed_and_without_a_trace(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise LookupError("/home/somebody/secret.py")

    monkeypatch.setattr(rig.queue, "status", broken)
    answer = wire(rig.url, "/healthz")
    assert (answer.status, answer.json()["code"]) == (500, "internal")
    assert_dressed(answer)
    assert b"secret" not in answer.body and b"Traceback" not in answer.body and b"LookupError" not in answer.body


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0.0.0.0", "192.168.1.5"])
@pytest.mark.parametrize("path", ["/config", "/healthz", "/gradio_api/info", "/"])
def test_no_other_origin_is_told_that_it_may_read(rig: Rig, host: str, path: str) -> None:
    """S6. Without Sec-Fetch-Site the request goes through, as from a page on plain http: it cannot be read there."""
    for origin in (EVIL, "null", "http://localhost:3000"):
        answer = wire(rig.url, path, headers={"Host": host, "Origin": origin})
        assert answer.status == 200
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/generate", "/gradio_api/upload", "/config"])
def test_no_preflight_succeeds(rig: Rig, path: str) -> None:
    asked = {"Origin": EVIL, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    answer = wire(rig.url, path, "OPTIONS", asked)
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control-allow")]


def test_the_server_does_not_say_what_it_runs_on(rig: Rig) -> None:
    assert "server" not in wire(rig.url, "/healthz").headers
    assert "x-powered-by" not in wire(rig.url, "/").headers


def test_what_the_page_is_told_names_no_folder_of_this_machine(rig: Rig) -> None:
    origins = [spec.origin for name in ("gradio", "webui") if (spec := find_spec(name)) and spec.origin]
    folders = [str(rig.settings.home), *(str(Path(origin).parent) for origin in origins)]
    assert len(folders) == 3
    for path in (*PROGRAMS_READ, "/", "/config", "/gradio_api/info", "/theme.css", "/gradio_api/startup-events"):
        body = wire(rig.url, path).body.decode()
        assert [folder for folder in folders if folder in body] == []
    config = json.loads(wire(rig.url, "/config").body)
    assert config["show_error"] is False and config["analytics_enabled"] is False and config["run_history"] is False
