"""The description of the doors: whole, true, and nobody else's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from engines.messages import Enhance, Generate
from tests.support.http import tree
from webui import api

if TYPE_CHECKING:
    from tests.support.server import Rig


@pytest.fixture(scope="module")
def spec(rig: Rig) -> dict[str, Any]:
    described: dict[str, Any] = rig.client.get("/openapi.json").json()
    return described


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from [value["$ref"]] if "$ref" in value else []
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from references(item)


def test_it_describes_our_doors_and_no_others(spec: dict[str, Any]) -> None:
    assert spec["openapi"].startswith("3.1")
    assert set(spec["paths"]) == {
        "/generate", "/enhance", "/outputs/{key}/{name}", "/batch.zip", "/jobs", "/jobs/{job_id}", "/healthz",
        "/jobs/{job_id}/events", "/jobs/{job_id}/retry", "/jobs/{job_id}/first", "/queue/pause", "/queue/resume",
        "/readyz", "/metrics",
        "/v1/images/generations", "/v1/images/edits", "/v1/models", "/v1/models/{name}",
        "/sdapi/v1/txt2img", "/sdapi/v1/img2img", "/sdapi/v1/progress", "/sdapi/v1/options", "/sdapi/v1/sd-models",
        "/sdapi/v1/samplers",
    }  # fmt: skip
    assert all(path.startswith(api.PATHS) for path in spec["paths"])
    assert set(spec["paths"]["/jobs/{job_id}"]) == {"get", "delete"}


def test_nothing_that_it_refers_to_is_missing(spec: dict[str, Any]) -> None:
    names = set(references(spec))
    assert "#/components/schemas/Lora" in names
    for reference in names:
        at: Any = spec
        for step in reference.removeprefix("#/").split("/"):
            at = at[step]


def body(spec: dict[str, Any], path: str, media: str) -> dict[str, Any]:
    schema: dict[str, Any] = spec["paths"][path]["post"]["requestBody"]["content"][media]["schema"]
    return schema


def test_requests_have_the_fields_and_the_limits_of_the_messages(spec: dict[str, Any]) -> None:
    asked = body(spec, "/generate", "application/json")
    assert set(asked["properties"]) == {f.name for f in fields(Generate)} - {"start"}, "a path is nobody's to name"
    assert (asked["properties"]["count"]["minimum"], asked["properties"]["count"]["maximum"]) == (1, 8)
    assert asked["required"] == ["prompt"]
    for path, kind, photo in (("/generate", Generate, "start"), ("/enhance", Enhance, "image")):
        form = body(spec, path, "multipart/form-data")
        assert set(form["properties"]) == {f.name for f in fields(kind)}
        assert form["properties"][photo]["format"] == "binary"
    assert set(body(spec, "/v1/images/generations", "application/json")["properties"]) >= {
        "prompt",
        "n",
        "size",
        "model",
    }
    assert "init_images" in body(spec, "/sdapi/v1/img2img", "application/json")["properties"]


def test_every_door_says_what_it_does_in_words(spec: dict[str, Any]) -> None:
    silent = [
        f"{method} {path}"
        for path, methods in spec["paths"].items()
        for method, about in methods.items()
        if not about.get("description")
    ]
    assert silent == []


def test_answers_are_those_that_are_described(rig: Rig, spec: dict[str, Any]) -> None:
    schema = spec["paths"]["/generate"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    described = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    answer = rig.client.post(
        "/generate", json={"prompt": "x", "bundle": "sketch", "width": 64, "height": 64, "steps": 1}
    )
    assert set(described["properties"]) == set(described["required"]) == set(answer.json())


def test_the_page_needs_nothing_from_elsewhere(rig: Rig) -> None:
    answer = rig.client.get("/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = tree(answer.text)
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert addresses == ["icons/icon.svg", "openapi.json"]
    assert not re.findall(r"https?://|//[a-z]", answer.text.replace("// ", ""))
    assert any("科哥" in text for text in page.text)


def test_it_names_no_folder(rig: Rig, spec: dict[str, Any]) -> None:
    assert str(rig.settings.home) not in json.dumps(spec)
