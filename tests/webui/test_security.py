"""What an attacker on the network would try first: to read this machine's files, and to use it as a messenger."""

from __future__ import annotations

import itertools
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest
from PIL import PngImagePlugin

from tests.support.http import FILE_DATA, Session, encoded, scene, succeeded, wire
from webui.panels import history
from webui.widgets import blanks, preset_cards

if TYPE_CHECKING:
    from tests.support.server import Listener, Rig

CANARY = "canary-5f0c-that-nobody-may-read"


def secret_photo() -> bytes:
    """A picture that every decoder takes, with words in it by which it is recognised."""
    info = PngImagePlugin.PngInfo()
    info.add_text("note", CANARY)
    return encoded(scene(61, 47), "PNG", pnginfo=info)


@pytest.fixture(scope="module")
def canaries(rig: Rig) -> list[str]:
    """Places where something lies that no request may read, in every spelling a path can have."""
    state, outputs, others = rig.settings.state, rig.settings.outputs, rig.settings.uploads
    for path in (state / "canary.png", outputs / "canary.png", others / "canary", rig.settings.home / ".canary.png"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(secret_photo())
    link = rig.cache / "link.png"
    link.symlink_to(state / "canary.png")
    return [
        "/etc/passwd",
        "/proc/self/environ",
        str(Path(__file__).parents[2] / "webui" / "guard.py"),
        str(state / "canary.png"),
        str(state / "jobs.db"),
        str(others / "canary"),
        str(rig.settings.home / ".canary.png"),
        str(link),
        f"{rig.cache}/../state/canary.png",
        f"file://{state}/canary.png",
        "pyproject.toml",
        f"\\\\evil.example\\share\\{state}/canary.png",
        str(rig.cache),
        "",
    ]


def file_endpoints(page: Session) -> list[dict[str, Any]]:
    return [e for e in page.endpoints if {"image", "file", "gallery", "audio", "video"} & set(page.takes(e))]


def assert_nothing_of_this_machine(text: str, rig: Rig, sent: str = "") -> None:
    """No content, and no folder but those that were in the question."""
    assert CANARY not in text and "root:x:0" not in text and "SQLite format" not in text
    for folder in (str(rig.settings.home), str(Path(__file__).parents[2]), sys.prefix, "/site-packages/"):
        assert folder not in text.replace(sent or "\0", ""), folder


# ---- S1: reading any file


def disguises(path: str) -> list[dict[str, Any]]:
    """The ways to hand a path to Gradio as if it had been uploaded."""
    return [
        {"path": path, "meta": FILE_DATA, "orig_name": "a.png"},
        {"path": path, "meta": FILE_DATA, "orig_name": "a.svg"},  # which Gradio hands on unread
        {"path": path, "meta": FILE_DATA, "is_stream": True},
        {"path": path, "meta": FILE_DATA, "url": f"/gradio_api/file={path}"},
        {"path": path, "orig_name": "a.png"},  # without the mark that makes Gradio check
        {"path": path, "orig_name": "a.svg"},
        {"path": path, "meta": {}},
        {"path": None, "url": path, "meta": FILE_DATA},
    ]


def test_no_file_of_this_machine_can_be_handed_in(rig: Rig, canaries: list[str]) -> None:
    """S1: 14 paths x 8 disguises x all inputs for files. Most are good pictures, which no decoder refuses."""
    before, cached = rig.jobs(), rig.cached()
    with rig.session() as page:
        takers = {
            "restore_1",
            "whole",
            "turn",
            "advise",
            "advise_3",
            "advise_4",
            "start",
            "generate_1",
            "contact_sheet",
            "shown",
            "shape",
            "shape_1",
            "shape_2",
        }
        assert {endpoint["api_name"] for endpoint in file_endpoints(page)} == takers
        for endpoint, path in itertools.product(file_endpoints(page), canaries):
            for payload in disguises(path):
                values, kinds = page.values(endpoint), page.takes(endpoint)
                many = "file" in kinds  # of a batch, in a list
                values[kinds.index("file" if many else "image")] = [payload] if many else payload
                messages = page.call(endpoint, values)
                assert not succeeded(messages), payload
                assert_nothing_of_this_machine(str(messages), rig, path)
    assert rig.jobs().keys() == before.keys(), "no job was made of it"
    assert rig.cached() == cached, "nothing was copied to where it can be fetched"


def test_a_path_in_the_place_of_words_is_words(rig: Rig, canaries: list[str]) -> None:
    """Every input of every endpoint, those that take no file included."""
    cached = rig.cached()
    payload = {"path": canaries[3], "meta": FILE_DATA, "orig_name": "a.png"}
    with rig.session() as page:
        for endpoint in page.endpoints:
            for k in range(len(endpoint["inputs"])):
                values = page.values(endpoint)
                values[k] = payload
                for event in (None, dict.fromkeys(("name", "job", "picture"), canaries[3])):
                    assert_nothing_of_this_machine(str(page.call(endpoint, values, event)), rig, canaries[3])
    for job_id in rig.jobs():
        rig.queue.cancel(job_id)
        list(rig.queue.follow(job_id))
    assert rig.cached() == cached


@pytest.mark.parametrize(
    "path", ["/call/restore", "/call/v2/restore", "/run/restore", "/api/restore", "/component_server"]
)
def test_gradios_other_ways_to_call_are_shut(rig: Rig, path: str) -> None:
    body = {
        "data": [{"path": "/etc/passwd", "meta": FILE_DATA, "orig_name": "a.png"}],
        "fn_index": 9,
        "session_hash": "x",
    }
    assert rig.client.post(f"/gradio_api{path}", json=body).status_code == 404


@pytest.mark.parametrize("name", ["develop", "reuse", "pick"])
@pytest.mark.parametrize(
    "value", ["../../state/jobs.db", "/etc/passwd", "outputs_1.png/../../x", "a\0b", "x" * 5000, 5, None, []]
)
def test_names_in_events_are_names(rig: Rig, canaries: list[str], name: str, value: Any) -> None:
    """What a click carries comes from outside as much as what is typed."""
    with rig.session() as page:
        endpoint = page.endpoint(name)
        messages = page.call(endpoint, page.values(endpoint), {"name": value, "job": value})
        assert_nothing_of_this_machine(str(messages), rig, str(value))


def test_no_words_are_used_as_a_template(rig: Rig) -> None:
    """Gradio evaluates an HTML component's template in the browser: words belong in its value, where they are data."""
    with rig.session() as page:
        html = [c["props"] for c in page.components.values() if c["type"] == "html"]
    assert len(html) >= 7
    assert {props["html_template"] for props in html} == {"${value}", blanks.PARTS, history.PARTS, preset_cards.PARTS}
    fixed = re.sub(r"</?div[^<>`${}]*>", "", history.PARTS + preset_cards.PARTS)
    assert not fixed.strip(), "empty boxes, and nothing to evaluate"


# ---- S2: traversal


def spellings(target: str) -> list[str]:
    """Twenty ways to write a path that leads out of a folder."""
    up, deep = "../" * 3 + target, "../" * 12 + target
    return [
        up, deep, "./" + up, "x/" + up, "//" + target, "/" + target, up.replace("../", "..//"),
        up.replace("../", "....//"), up.replace("..", "%2e%2e"), up.replace("/", "%2f"), quote(up, safe=""),
        up.replace("..", "%2e."), up.replace("../", "..%5c"), up.replace("../", "..\\"),
        up.replace("..", "%252e%252e"), up.replace("/", "%252f"), up.replace("..", "%c0%ae%c0%ae"),
        up.replace("/", "%c0%af"), up.replace("..", "..;"), up + "%00.png", up + "?x=.png", up + "%20",
    ]  # fmt: skip


def targets(rig: Rig) -> list[str]:
    return ["etc/passwd", "state/canary.png", str(rig.settings.state / "canary.png").lstrip("/")]


@pytest.mark.parametrize(
    "prefix",
    ["/gradio_api/file=", "/outputs/", "/thumbnails/", "/static/", "/assets/", "/svelte/", "/gradio_api/theme.css/"],
)
def test_no_spelling_of_a_path_leads_out(rig: Rig, canaries: list[str], prefix: str) -> None:
    """S2. Sent as they are: a tidy client would hide what a crude one finds."""
    for target in targets(rig):
        for spelling in spellings(target):
            answer = wire(rig.url, prefix + spelling)
            assert answer.status in (400, 403, 404), spelling
            sent = Path("/" + target).as_posix()
            assert_nothing_of_this_machine(answer.body.decode(errors="replace"), rig, sent)


def test_the_doors_do_serve_what_they_should(rig: Rig) -> None:
    """The tests above would pass on a server that serves nothing."""
    with rig.session() as page:
        photo = page.upload(encoded(scene(), "PNG"), "a.png")
    assert wire(rig.url, f"/gradio_api/file={quote(photo['path'])}").body == encoded(scene(), "PNG")
    name = rig.client.post("/generate", json={"prompt": "x", "bundle": "sketch"}).json()["images"][0]
    assert wire(rig.url, name).status == 200


@pytest.mark.parametrize(
    "name", ["../../evil.png", "/etc/evil.png", "..\\evil.png", "a\0.png", "x" * 300 + ".png", "", "."]
)
def test_an_uploads_name_does_not_choose_its_place(rig: Rig, name: str) -> None:
    before = {path for path in rig.settings.home.rglob("*") if rig.cache not in path.parents}
    answer = rig.client.post("/gradio_api/upload", files={"files": (name, b"content of " + name.encode())})
    if answer.status_code == 200:
        (path,) = answer.json()
        assert Path(path).resolve().is_relative_to(rig.cache)
    assert {path for path in rig.settings.home.rglob("*") if rig.cache not in path.parents} == before
    assert not Path("/etc/evil.png").exists()


@pytest.mark.parametrize("name", ["evil.html", "evil.svg", "evil.js", "evil.xhtml", "evil.png.html", "evil"])
def test_an_upload_is_never_served_as_a_page(rig: Rig, name: str) -> None:
    """Stored XSS: what anybody may upload must not run under this address."""
    content = b"<html><svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg></html>"
    with rig.session() as page:
        path = page.upload(content, name)["path"]
    answer = wire(rig.url, f"/gradio_api/file={quote(path)}")
    if answer.status == 200:
        assert answer.headers["content-disposition"].startswith("attachment")
        assert not any(kind in answer.headers["content-type"] for kind in ("html", "xml", "svg", "javascript"))
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in answer.headers["content-security-policy"]


# ---- S3: this machine as somebody's messenger


@pytest.fixture(scope="module")
def inside() -> Iterator[int]:
    """A service on this machine that only this machine can reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def addresses(port: int) -> list[str]:
    return [
        f"http://127.0.0.1:{port}/a.png", f"http://localhost:{port}/a.png", f"http://[::1]:{port}/a.png",
        f"http://2130706433:{port}/a.png", f"http://0x7f000001:{port}/", f"http://127.1:{port}/",
        f"http://0.0.0.0:{port}/", f"https://127.0.0.1:{port}/", f"HTTP://127.0.0.1:{port}/",
        f"http://user@127.0.0.1:{port}/", f"//127.0.0.1:{port}/", "http://169.254.169.254/latest/meta-data/",
        "http://192.0.2.7/a.png", "http://evil.example/a.png", f"ftp://127.0.0.1:{port}/a",
        f"gopher://127.0.0.1:{port}/_x", "file:///etc/passwd", f"http://evil.example#@127.0.0.1:{port}/",
        f"http:/127.0.0.1:{port}/a.png",
    ]  # fmt: skip


def test_no_address_is_fetched_for_anybody(rig: Rig, heard: Listener, inside: int) -> None:
    """S3: as a picture to restore, and through every route with a path. Nothing leaves, not even a name look-up."""
    cached = rig.cached()
    with rig.session() as page:
        endpoint = file_endpoints(page)[0]
        heard.connected.clear()
        for address in addresses(inside):
            for payload in disguises(address):
                values = page.values(endpoint)
                values[0] = payload
                assert not succeeded(page.call(endpoint, values)), payload
            for prefix in ("/gradio_api/file=", "/gradio_api/proxy=", "/proxy=", "/file=", "/outputs/"):
                assert wire(rig.url, prefix + quote(address, safe=":/@[]#")).status in (403, 404)
    assert_quiet(heard, rig)
    assert rig.cached() == cached


def assert_quiet(heard: Listener, rig: Rig) -> None:
    """Nothing was asked of the network but what this test asked of the server."""
    ours = urlsplit(rig.url).port
    assert [to for to in heard.connected if to[1] != ours] == []
    assert {name for name in heard.resolved if name != "127.0.0.1"} == set()


def test_no_address_is_fetched_in_the_place_of_words(rig: Rig, heard: Listener, inside: int) -> None:
    """Gradio looks for files in every input, those that hold words included."""
    with rig.session() as page:
        for endpoint in page.endpoints:
            for k in range(len(endpoint["inputs"])):
                values = page.values(endpoint)
                values[k] = {"path": f"http://evil.example:{inside}/a.png", "meta": FILE_DATA, "orig_name": "a.png"}
                page.call(endpoint, values)
    for job_id in rig.jobs():
        rig.queue.cancel(job_id)
        list(rig.queue.follow(job_id))
    assert_quiet(heard, rig)
