"""What the REST door says to those who ask for the impossible: a status, a stable code, a sentence they can read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from tests.support.http import CJK, SKETCH, post, refused, wire

if TYPE_CHECKING:
    from tests.support.server import Rig


IMPOSSIBLE: tuple[tuple[Any, int, str], ...] = (
    ({}, 400, "bad_option"),
    ({"prompt": 5}, 400, "bad_option"),
    ({"prompt": None}, 400, "bad_option"),
    ({"prompt": ["x"]}, 400, "bad_option"),
    ({"prompt": ""}, 400, "empty_prompt"),
    ({"prompt": " \n\t\u3000"}, 400, "empty_prompt"),
    ({"prompt": "x" * 4001}, 400, "bad_option"),
    ({"prompt": "x", "negative": "x" * 4001}, 400, "bad_option"),
    ({"prompt": "x", "steps": 0}, 400, "bad_option"),
    ({"prompt": "x", "steps": 51}, 400, "bad_option"),
    ({"prompt": "x", "steps": "many"}, 400, "bad_option"),
    ({"prompt": "x", "steps": 4.5}, 400, "bad_option"),
    ({"prompt": "x", "guidance": -1}, 400, "bad_option"),
    ({"prompt": "x", "seed": 2**31}, 400, "bad_option"),
    ({"prompt": "x", "seed": -2}, 400, "bad_option"),
    ({"prompt": "x", "count": 9}, 400, "bad_option"),
    ({"prompt": "x", "count": 0}, 400, "bad_option"),
    ({"prompt": "x", "preview": "maybe"}, 400, "bad_option"),
    ({"prompt": "x", "restore_faces": 2}, 400, "bad_option"),
    ({"prompt": "x", "restore_faces": 0.5}, 400, "bad_option"),
    ({"prompt": "x", "loras": [{"name": "a"}]}, 400, "bad_option"),
    ({"prompt": "x", "loras": "a"}, 400, "bad_option"),
    ({"prompt": "x", "promt": "y"}, 400, "bad_option"),
    ({"prompt": "x", "width": 100}, 400, "bad_size"),
    ({"prompt": "x", "height": 48}, 400, "bad_size"),
    ({"prompt": "x", "width": 0}, 400, "bad_size"),
    ({"prompt": "x", "width": 0, "height": 0}, 400, "bad_size"),
    ({"prompt": "x", "width": -64}, 400, "bad_size"),
    ({"prompt": "x", "width": 4096, "height": 4096}, 400, "bad_size"),
    ({"prompt": "x", "width": 10**30}, 400, "bad_size"),
    ({"prompt": "x", "bundle": "none"}, 404, "not_found"),
    ({"prompt": "x", "bundle": ""}, 404, "not_found"),
    ({"prompt": "x", "bundle": "../builtin/portrait"}, 404, "not_found"),
    ({"prompt": "x", "bundle": "b" * 300}, 404, "not_found"),
    ({"prompt": "x", "bundle": "a\0b"}, 404, "not_found"),
    ({"prompt": "x", "bundle": "restorer"}, 400, "bad_option"),
    ({"prompt": "x", "backend": "cuda12"}, 400, "bad_option"),
    ({"prompt": "x", "backend": "../ort"}, 400, "bad_option"),
    ({"prompt": "x", "backend": ""}, 400, "bad_option"),
    ({"prompt": "x", "backend": 5}, 400, "bad_option"),
    (b"{", 400, "bad_option"),
    (b"[]", 400, "bad_option"),
    (b"null", 400, "bad_option"),
    (b'"x"', 400, "bad_option"),
    (b"\xff\xfe\x00", 400, "bad_option"),
    (b'{"prompt":"x","seed":1e999}', 400, "bad_option"),
    (b'{"prompt":"x","guidance":NaN}', 400, "bad_option"),
    (b"[" * 100_000, 400, "bad_option"),
    (b'{"prompt":"\\ud800"}', 400, "bad_option"),
    (b'{"prompt":"x","\\udfff":1}', 400, "bad_option"),
    (b'{"prompt":"x","bundle":"\\ud800"}', 400, "bad_option"),
)


@pytest.mark.parametrize(("asked", "status", "code"), IMPOSSIBLE, ids=lambda value: str(value)[:40])
def test_the_impossible_is_refused_with_a_code_and_a_sentence(rig: Rig, asked: Any, status: int, code: str) -> None:
    refused(post(rig.url, asked), status, code)


def test_an_engine_that_is_known_and_cannot_serve_here_is_not_the_callers_mistake(rig: Rig) -> None:
    names = [engine.name for engine in rig.queue.status().engines if not engine.ok]
    if not names:
        pytest.skip("every engine can be used here")
    for name in names:
        message = refused(post(rig.url, {"prompt": "x", "backend": name}), 503, "engine_unavailable")
        assert name in message


def test_a_name_that_is_none_is_told_with_those_that_are(rig: Rig) -> None:
    before = rig.jobs()
    message = refused(post(rig.url, {"prompt": "x", "backend": "abacus"}, "en"), 400, "bad_option")
    assert all(name in message for name in ("abacus", "auto", "pytorch", "edge", "ort", "openvino"))
    assert rig.jobs().keys() == before.keys(), "it has waited for nothing"


@pytest.mark.parametrize(
    ("language", "chinese", "english"),
    [("zh", True, False), ("zh-CN,zh;q=0.9,en;q=0.8", True, False), ("en", False, True), ("fr", False, True),
     (None, True, True), ("*", True, True), ("", True, True)],
)  # fmt: skip
@pytest.mark.parametrize("asked", [{"prompt": "x", "width": 100}, {"prompt": ""}, {"prompt": "x", "steps": 99}])
def test_the_sentence_is_in_the_language_asked_for(
    rig: Rig, language: str | None, chinese: bool, english: bool, asked: Any
) -> None:
    """Programs that name no language get both."""
    message = post(rig.url, asked, language).json()["message"]
    assert bool(CJK.search(message)) is chinese
    assert bool(re.search(r"[a-z]{3,} [a-z]{2,} [a-z]{2,}", message)) is english


@pytest.mark.parametrize(
    "asked", [{"prompt": 5}, {"prompt": "x", "steps": "many"}, {"prompt": "x", "odd": 1}, {}, b"{"]
)
def test_a_chinese_sentence_is_chinese_to_its_end(rig: Rig, asked: Any) -> None:
    """What is possible is said in the language too, not in that of a library."""
    message = post(rig.url, asked, "zh").json()["message"]
    assert not re.search(r"[A-Za-z]+ [a-z]+ [a-z]+", message), message


def test_no_value_of_another_field_is_repeated(rig: Rig) -> None:
    """A field that is missing has no value; the rest of the request is none of the sentence's business."""
    message = post(rig.url, {"seed": 5, "negative": "something private"}).json()["message"]
    assert "private" not in message and "backend" not in message


def test_a_body_too_large_is_refused(rig: Rig) -> None:
    refused(post(rig.url, {"prompt": "x" * 3_000_000}), 413, "body_too_large")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/generate"), ("PUT", "/generate"), ("DELETE", "/generate"), ("GET", "/enhance"), ("POST", "/healthz"),
     ("POST", "/readyz"), ("PUT", "/jobs/" + "0" * 32), ("POST", "/metrics"),
     ("DELETE", "/outputs/x/outputs_20200101000000.png"), ("POST", "/outputs/x/y"), ("PATCH", "/enhance")],
)  # fmt: skip
def test_the_wrong_method_is_told_so(rig: Rig, method: str, path: str) -> None:
    answer = rig.client.request(method, path)
    refused(answer, 405, "wrong_method")
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    "path", ["/nowhere", "/outputs/a/b/c", "/outputs/a", "/outputs/", "/thumbnails/none.webp", "/jobs/", "/jobs/a/b"]
)
def test_an_address_that_is_none_has_one_code(rig: Rig, path: str) -> None:
    """A code is stable: the same for the same thing, wherever in the server it is noticed."""
    refused(rig.client.get(path), 404, rig.client.get("/nowhere").json()["code"])


def test_a_missing_picture_is_told_by_its_name(rig: Rig) -> None:
    message = refused(rig.client.get("/outputs/" + rig.house.keys.sign("outputs_20200101000000.png")), 404, "not_found")
    assert "outputs_20200101000000.png" in message


@pytest.mark.parametrize(
    "name",
    [
        "..", "../state/jobs.db", "%2e%2e/state/jobs.db", "..%2fstate%2fjobs.db", "%2e%2e%2fstate%2fjobs.db",
        "..%5cjobs.db", ".hidden", "jobs.db", "%00", "outputs_20200101000000.png%00", "outputs_20200101000000.png/",
        "outputs_2020.png", "OUTPUTS_20200101000000.PNG", "outputs_20200101000000.negative.npz",
        "outputs_٢٠٢٠٠١٠١٠٠٠٠٠٠.png", "x" * 5000,
    ],
)  # fmt: skip
def test_names_that_are_none_are_not_found(rig: Rig, name: str) -> None:
    """S2, this door's part. Anything but a picture's name is simply not there."""
    key, _, _ = rig.house.keys.sign(unquote(name)).partition("/")  # of the right key
    written = "".join(c if c.isascii() else "".join(f"%{b:02x}" for b in c.encode()) for c in name)
    answer = wire(rig.url, f"/outputs/{key}/{written}")
    assert answer.status == 404
    assert answer.json()["status"] == "error"


def test_what_lies_beside_the_pictures_is_not_served(rig: Rig) -> None:
    body = post(rig.url, {"prompt": "x", **SKETCH, "preview": "only"}).json()
    name = body["images"][0].rpartition("/")[2].removesuffix(".png") + ".negative.npz"
    assert (rig.settings.outputs / name).is_file()
    refused(rig.client.get(f"/outputs/{rig.house.keys.sign(name)}"), 404, "not_found")
