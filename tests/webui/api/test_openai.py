"""OpenAI's Images API, spoken by OpenAI's own client, and by programs that write the requests themselves."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import openai
import pytest

from engines.messages import Generate, unpack
from engines.messages.status import Status
from tests.support.http import CJK, LEAKS, SKETCH, X_CREDIT, encoded, people, pixels, unanswered

if TYPE_CHECKING:
    from tests.support.server import Rig

SIZE, OTHER_SIZE = "64x64", "96x64"
FEW = {"steps": 1}
PHOTO = encoded(people(), "PNG")


@pytest.fixture(scope="module")
def client(rig: Rig) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{rig.url}/v1", api_key="any", max_retries=0, timeout=120) as opened:
        yield opened


def last(rig: Rig) -> Generate:
    order = unpack(rig.requests()[-1])
    assert isinstance(order, Generate)
    return order


def pictures(response: openai.types.ImagesResponse) -> list[bytes]:
    return [base64.b64decode(picture.b64_json or "", validate=True) for picture in response.data or ()]


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """An error that is as every error of this dialect must be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json" and answer.headers["x-credit"] == X_CREDIT
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert not [leak for leak in LEAKS if leak in body["error"]["message"]]
    error: dict[str, Any] = body["error"]
    return error


def post(rig: Rig, path: str = "generations", **asked: Any) -> httpx.Response:
    return rig.client.post(f"/v1/images/{path}", json={"prompt": "x", "model": "sketch", "size": SIZE, **asked})


# ---- generations


def test_its_own_client_draws(rig: Rig, client: openai.OpenAI) -> None:
    response = client.images.generate(
        prompt="一位女士", model="sketch", size=OTHER_SIZE, n=2, extra_body={**FEW, "seed": 5}
    )
    drawn = pictures(response)
    assert len(drawn) == 2 and {pixels(content).shape for content in drawn} == {(64, 96, 3)}
    assert not np.array_equal(*map(pixels, drawn))
    assert response.output_format == "png" and abs(response.created - time.time()) < 3600
    assert response.model_extra is not None and response.model_extra["seed"] == 5
    same = {**SKETCH, "prompt": "一位女士", "width": 96, "height": 64, "seed": 5}
    own = rig.client.post("/generate", json=same).json()
    assert np.array_equal(pixels(base64.b64decode(own["image_base64"])), pixels(drawn[0])), "the same picture"


def test_pictures_are_fetched_by_their_address(rig: Rig, client: openai.OpenAI) -> None:
    response = client.images.generate(prompt="x", model="sketch", size=SIZE, n=2, response_format="url", extra_body=FEW)
    addresses = [picture.url or "" for picture in response.data or ()]
    assert len(set(addresses)) == 2 and all(address.startswith(f"{rig.url}/outputs/") for address in addresses)
    assert not any(picture.b64_json for picture in response.data or ())
    assert {pixels(httpx.get(address).content).shape for address in addresses} == {(64, 64, 3)}


def test_fields_become_those_of_an_order(rig: Rig) -> None:
    asked = {"seed": 7, "steps": 2, "negative_prompt": "n", "backend": "ort", "n": 2}
    assert post(rig, **asked).status_code == 200
    wanted = Generate("x", "n", 64, 64, 2, None, 7, 2, "sketch", "ort", preview="off")
    assert asdict(last(rig)) == asdict(wanted)


@pytest.mark.parametrize("model", [None, "", "auto"])
@pytest.mark.parametrize("size", [None, "auto"])
def test_who_names_neither_model_nor_size_gets_ours(rig: Rig, model: str | None, size: str | None) -> None:
    answer = post(rig, model=model, size=size, n=None, steps=1)
    assert answer.status_code == 200, answer.text
    order, native = last(rig), next(b.sizes[0] for b in rig.queue.status().bundles if b.name == "portrait")
    assert (order.bundle, order.width, order.height, order.backend) == ("portrait", None, None, "edge")
    (picture,) = answer.json()["data"]
    assert pixels(base64.b64decode(picture["b64_json"])).shape[1::-1] == native


def test_what_only_other_models_know_is_passed_over(client: openai.OpenAI) -> None:
    response = client.images.generate(
        prompt="x", model="sketch", size=SIZE, quality="hd", style="vivid", user="somebody", background="auto",
        moderation="low", output_compression=80, output_format="png", extra_body={**FEW, "partial_images": 0},
    )  # fmt: skip
    assert len(pictures(response)) == 1


def test_as_home_assistant_asks(rig: Rig) -> None:
    """Its openai_conversation: an address back, and every field of dall-e-3. The model must be one that is here."""
    with openai.OpenAI(base_url=f"{rig.url}/v1", api_key="sk-x", max_retries=0) as client:
        assert "sketch" in [model.id for model in client.with_options(timeout=10.0).models.list()]
        response = client.images.generate(
            model="sketch", prompt="x", size=SIZE, quality="standard", style="vivid", response_format="url",  # type: ignore[call-overload]
            n=1,
        )  # fmt: skip
    (picture,) = response.data
    shown = picture.model_dump(exclude={"b64_json"})
    assert httpx.get(shown["url"]).content.startswith(b"\x89PNG")


def test_as_open_webui_asks(rig: Rig) -> None:
    headers = {"Authorization": "Bearer x", "Content-Type": "application/json"}
    data = {"model": "sketch", "prompt": "x", "n": 1, "size": SIZE, "response_format": "b64_json"}
    answer = rig.client.post("/v1/images/generations", json=data, headers=headers)
    assert answer.status_code == 200, answer.text
    assert [set(picture) for picture in answer.json()["data"]] == [{"b64_json"}]
    form = {"model": "portrait", "prompt": "x", "n": "1", "size": "256x256", "response_format": "b64_json"}
    for name in ("image", "image[]"):
        edited = rig.client.post(
            "/v1/images/edits",
            data=form,
            files={name: ("0.png", PHOTO, "image/png")},
            headers={"Authorization": "Bearer x"},
        )
        assert edited.status_code == 200, edited.text
        assert base64.b64decode(edited.json()["data"][0]["b64_json"]).startswith(b"\x89PNG")


# ---- edits


def test_an_edit_starts_from_the_photo(rig: Rig, client: openai.OpenAI) -> None:
    response = client.images.edit(image=("我.png", PHOTO), prompt="a smiling woman", extra_body={"steps": 4, "seed": 5})
    order = last(rig)
    assert order.start and (rig.settings.uploads / order.start.rpartition("/")[2]).read_bytes() == PHOTO
    plain = client.images.generate(prompt="a smiling woman", extra_body={"steps": 4, "seed": 5})
    assert not np.array_equal(pixels(pictures(response)[0]), pixels(pictures(plain)[0]))
    little = client.images.edit(
        image=PHOTO, prompt="a smiling woman", extra_body={"steps": 4, "seed": 5, "strength": 0.25}
    )
    assert last(rig).strength == 0.25
    assert not np.array_equal(pixels(pictures(little)[0]), pixels(pictures(response)[0]))


def test_a_mask_is_refused_in_words(rig: Rig, client: openai.OpenAI) -> None:
    before = rig.jobs()
    with pytest.raises(openai.BadRequestError) as refusal:
        client.images.edit(image=PHOTO, mask=PHOTO, prompt="x", model="sketch")
    assert refusal.value.param == "mask" and "whole picture" in refusal.value.message
    assert CJK.search(refusal.value.message), "to who names no language, in both"
    assert rig.jobs().keys() == before.keys()


@pytest.mark.parametrize(
    ("files", "param"),
    [([], "image"), ([("photo", ("a.png", PHOTO))], "image"),
     ([("image[]", ("a.png", PHOTO)), ("image[]", ("b.png", PHOTO))], "image")],
)  # fmt: skip
def test_an_edit_has_exactly_one_photo(rig: Rig, files: Any, param: str) -> None:
    answer = rig.client.post("/v1/images/edits", files=[("prompt", (None, "x")), *files])
    assert error_of(answer, 400)["param"] == param


def test_a_model_that_takes_no_photo_says_so(rig: Rig) -> None:
    answer = rig.client.post(
        "/v1/images/edits", files={"image": ("a.png", PHOTO)}, data={"prompt": "x", "model": "sketch"}
    )
    assert error_of(answer, 400)["param"] == "image"


def test_an_edit_of_no_photo_is_refused(rig: Rig) -> None:
    answer = rig.client.post("/v1/images/edits", files={"image": ("a.png", b"hello")}, data={"prompt": "x"})
    assert error_of(answer, 415)["code"] == "bad_image"


# ---- models


def test_the_models_are_those_that_draw(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"portrait", "sketch"}
    model = client.models.retrieve("sketch")
    assert (model.id, model.object) == ("sketch", "model")
    for name in ("restorer", "none", "../portrait"):
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(name)


# ---- refusals

WRONG: tuple[tuple[dict[str, Any], int, str, str | None], ...] = (
    ({"model": "dall-e-3"}, 404, "model_not_found", "model"),
    ({"model": "restorer"}, 404, "model_not_found", "model"),
    ({"model": "../x"}, 404, "model_not_found", "model"),
    ({"model": 5}, 400, "bad_option", "model"),
    ({"backend": "abacus"}, 400, "bad_option", "backend"),
    ({"size": "large"}, 400, "bad_option", "size"),
    ({"size": "64"}, 400, "bad_option", "size"),
    ({"size": "64X64"}, 400, "bad_option", "size"),
    ({"size": "100x64"}, 400, "bad_size", "size"),
    ({"size": "99999x99999"}, 400, "bad_size", "size"),
    ({"n": 0}, 400, "bad_option", "n"),
    ({"n": 9}, 400, "bad_option", "n"),
    ({"n": "many"}, 400, "bad_option", "n"),
    ({"prompt": ""}, 400, "empty_prompt", "prompt"),
    ({"prompt": None}, 400, "bad_option", "prompt"),
    ({"prompt": 5}, 400, "bad_option", "prompt"),
    ({"prompt": "x" * 4001}, 400, "bad_option", "prompt"),
    ({"negative_prompt": "x" * 4001}, 400, "bad_option", "negative_prompt"),
    ({"response_format": "file"}, 400, "bad_option", "response_format"),
    ({"output_format": "jpeg"}, 400, "bad_option", "output_format"),
    ({"stream": True}, 400, "bad_option", "stream"),
    ({"steps": 51}, 400, "bad_option", "steps"),
    ({"seed": -5}, 400, "bad_option", "seed"),
)


@pytest.mark.parametrize(("asked", "status", "code", "param"), WRONG, ids=lambda value: str(value)[:30])
def test_what_is_wrong_is_said_in_openais_form(
    rig: Rig, asked: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    error = error_of(post(rig, **asked), status)
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)


def test_a_wrong_size_is_told_with_those_that_fit(rig: Rig) -> None:
    assert "auto, 512x512, 256x256" in error_of(post(rig, model="portrait", size="big"), 400)["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/none", 404), ("POST", "/v1/chat/completions", 404), ("GET", "/v1/images/generations", 405),
     ("PUT", "/v1/models", 405)],
)  # fmt: skip
def test_addresses_that_are_none_are_refused_in_the_same_form(rig: Rig, method: str, path: str, status: int) -> None:
    error_of(rig.client.request(method, path), status)


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff", b'{"prompt":"\\ud800"}'])
def test_a_body_that_is_none_is_refused_in_the_same_form(rig: Rig, body: bytes) -> None:
    error_of(rig.client.post("/v1/images/generations", content=body), 400)


def test_a_bug_is_a_server_error_in_the_same_form(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Status:
        raise LookupError("/home/somebody/secret.py")

    monkeypatch.setattr(rig.queue, "status", broken)
    answer = httpx.get(f"{rig.url}/v1/models")
    assert error_of(answer, 500)["type"] == "server_error" and "secret" not in answer.text


def test_a_full_queue_says_when_to_come_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.queue, "limit", 0)
    answer = post(rig)
    assert error_of(answer, 429)["type"] == "rate_limit_error"
    assert 1 <= int(answer.headers["retry-after"]) <= 600


def test_before_the_worker_has_spoken_it_decides_what_is_there(rig: Rig) -> None:
    """Else everything would be unknown as long as models are being loaded."""
    before = rig.queue.status()
    try:
        rig.queue.announce(Status("loading"))
        answers = [post(rig, **FEW), post(rig, model="none")]
    finally:
        rig.queue.announce(before)
    assert answers[0].status_code == 200
    assert error_of(answers[1], 404)["code"] == "model_not_found"


def test_who_hangs_up_cancels_the_job(rig: Rig) -> None:
    rig.settle()
    with rig.stuck():
        before, deadline = len(rig.jobs()), time.monotonic() + 60
        asked = {"prompt": "x", "model": "sketch", "size": SIZE}
        with closing(unanswered(rig.url, "/v1/images/generations", asked)):
            while len(rig.jobs()) == before:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        job_id = list(rig.jobs())[before]
        while rig.jobs()[job_id] != "cancelled":
            assert time.monotonic() < deadline, rig.jobs()[job_id]
            time.sleep(0.02)
