"""The API of AUTOMATIC1111's web UI, in the form in which its clients write their requests."""

from __future__ import annotations

import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from starlette.requests import Request

from engines.messages import Generate, unpack
from tests.support.http import CJK, LEAKS, X_CREDIT, encoded, people, pixels, unanswered
from webui.api.a1111 import CALLERS, Checkpoints

if TYPE_CHECKING:
    from tests.support.server import Rig

PHOTO = encoded(people(), "PNG")
IN_BASE64 = base64.b64encode(PHOTO).decode()
OURS = {"sd_model_checkpoint": "sketch"}


def draw(rig: Rig, **asked: Any) -> httpx.Response:
    body = {"prompt": "x", "width": 64, "height": 64, "steps": 1, "override_settings": OURS, **asked}
    return rig.client.post("/sdapi/v1/txt2img", json=body)


def redraw(rig: Rig, **asked: Any) -> httpx.Response:
    """With the built-in model, which takes photos."""
    return rig.client.post("/sdapi/v1/img2img", json={"prompt": "x", "width": 64, "height": 64, "steps": 2, **asked})


def good(answer: httpx.Response) -> tuple[list[bytes], dict[str, Any], dict[str, Any]]:
    """The pictures, the parameters and the info of an answer that is as every answer must be."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-credit"] == X_CREDIT
    body = answer.json()
    assert set(body) == {"images", "parameters", "info"}
    pictures = [base64.b64decode(text, validate=True) for text in body["images"]]
    return pictures, body["parameters"], json.loads(body["info"])


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json" and answer.headers["x-credit"] == X_CREDIT
    body = answer.json()
    assert set(body) == {"error", "detail", "body", "errors"} and body["error"] == code
    assert not [leak for leak in LEAKS if leak in body["detail"]]
    return str(body["detail"])


def last(rig: Rig) -> Generate:
    order = unpack(rig.requests()[-1])
    assert isinstance(order, Generate)
    return order


# ---- txt2img


def test_a_portrait_of_words(rig: Rig) -> None:
    pictures, parameters, info = good(draw(rig, prompt="一位女士", seed=5, batch_size=2, n_iter=2, width=96))
    assert [pixels(content).shape for content in pictures] == [(64, 96, 3)] * 4
    assert (parameters["prompt"], parameters["batch_size"], parameters["width"]) == ("一位女士", 2, 96)
    assert (info["seed"], info["all_seeds"]) == (5, [5, 6, 7, 8])
    assert info["all_prompts"] == ["一位女士"] * 4 and info["sd_model_name"] == "sketch"
    again, _, _ = good(draw(rig, prompt="一位女士", seed=6, width=96))
    assert np.array_equal(pixels(again[0]), pixels(pictures[1])), "picture k has seed + k"


def test_fields_become_those_of_an_order(rig: Rig) -> None:
    good(draw(rig, negative_prompt="n", seed=7, steps=3, cfg_scale=2.5, batch_size=2))
    wanted = Generate("x", "n", 64, 64, 3, 1.5, 7, 2, "sketch", "edge", preview="off")
    assert asdict(last(rig)) == asdict(wanted), "cfg_scale 1 is no guidance, which is 0 here"


@pytest.mark.parametrize(("scale", "guidance"), [(None, None), (0, 0.0), (1, 0.0), (21, 20.0)])
def test_guidance_is_counted_as_there(rig: Rig, scale: float | None, guidance: float | None) -> None:
    good(draw(rig, cfg_scale=scale))
    assert last(rig).guidance == guidance


def test_what_is_not_said_is_the_models_own(rig: Rig) -> None:
    pictures, _, _ = good(rig.client.post("/sdapi/v1/txt2img", json={"prompt": "x", "seed": -1}))
    order = last(rig)
    assert (order.bundle, order.width, order.height, order.steps, order.guidance) == ("portrait", *[None] * 4)
    assert pixels(pictures[0]).shape[0] > 64


@pytest.mark.parametrize("field", ["sampler_name", "sampler_index"])
def test_names_of_samplers_are_passed_over_and_that_is_said(rig: Rig, field: str) -> None:
    """Ours belongs to the model. The picture is the same whatever is named."""
    plain, _, info = good(draw(rig, seed=3))
    assert "Sampler passed over" not in info["extra_generation_params"]
    (own,) = rig.client.get("/sdapi/v1/samplers").json()
    for name, said in (("DPM++ 2M Karras", "DPM++ 2M Karras"), (own["name"], None)):
        named, _, info = good(draw(rig, seed=3, **{field: name}))
        assert info["extra_generation_params"].get("Sampler passed over") == said
        assert info["sampler_name"] == own["name"]
        assert np.array_equal(pixels(named[0]), pixels(plain[0]))


def test_fields_for_other_servers_are_passed_over(rig: Rig) -> None:
    others = {"scheduler": "Karras", "enable_hr": False, "restore_faces": True, "styles": [], "tiling": None, "eta": 0,
              "alwayson_scripts": {}, "send_images": True, "save_images": False, "script_name": None}  # fmt: skip
    good(draw(rig, **others))


def test_what_is_no_json_in_a_field_that_is_passed_over_breaks_no_answer(rig: Rig) -> None:
    """Python reads NaN, which no JSON may hold: an answer that repeated it could not be written."""
    values = b'{"prompt":"x","width":64,"height":64,"steps":2,"override_settings":{"a":NaN}'
    good(rig.client.post("/sdapi/v1/txt2img", content=values + b"}"))
    photo = b',"init_images":["' + IN_BASE64.encode() + b'"]}'
    good(rig.client.post("/sdapi/v1/img2img", content=values + photo))


# ---- as Open WebUI asks


def test_as_open_webui_asks(rig: Rig) -> None:
    """It reads the options, writes them back whole with another model in them, and then names none."""
    headers = {"authorization": ""}
    options = rig.client.get("/sdapi/v1/options", headers=headers).json()
    assert options["sd_model_checkpoint"] == "portrait"
    models = rig.client.get("/sdapi/v1/sd-models", headers=headers).json()
    assert {(model["title"], model["model_name"]) for model in models} == {("portrait",) * 2, ("sketch",) * 2}
    assert str(rig.settings.home) not in str(models)
    try:
        options["sd_model_checkpoint"] = "sketch"
        assert rig.client.post("/sdapi/v1/options", json=options, headers=headers).status_code == 200
        assert rig.client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "sketch"
        data = {"prompt": "x", "batch_size": 1, "width": 64, "height": 64, "steps": 1, "negative_prompt": "n"}
        pictures, _, info = good(rig.client.post("/sdapi/v1/txt2img", json=data, headers=headers))
        assert len(pictures) == 1 and info["sd_model_name"] == "sketch"
    finally:
        rig.client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "portrait"})


def test_a_choice_is_the_callers_own(rig: Rig) -> None:
    transport = httpx.HTTPTransport(local_address="127.0.0.9")
    with httpx.Client(base_url=rig.url, transport=transport, timeout=60) as neighbour:
        neighbour.post("/sdapi/v1/options", json=OURS).raise_for_status()
        assert neighbour.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "sketch"
        assert rig.client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "portrait"
        good(neighbour.post("/sdapi/v1/txt2img", json={"prompt": "x", "width": 64, "height": 64, "steps": 1}))
    assert last(rig).bundle == "sketch"


@pytest.mark.parametrize("name", ["none", "restorer", "../x"])
def test_a_model_that_is_none_is_not_chosen(rig: Rig, name: str) -> None:
    refused(rig.client.post("/sdapi/v1/options", json={"sd_model_checkpoint": name}), 404, "not_found")
    assert rig.client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "portrait"


def test_options_without_a_model_change_nothing(rig: Rig) -> None:
    assert rig.client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 2}).status_code == 200
    assert rig.client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "portrait"


def test_choices_do_not_pile_up(rig: Rig) -> None:
    def caller(k: int) -> Request:
        return Request({"type": "http", "client": (f"10.0.{k // 256}.{k % 256}", 1)})

    checkpoints = Checkpoints()
    for k in range(CALLERS + 10):
        checkpoints.choose(caller(k), f"model-{k}")
    assert [checkpoints.of(caller(k)) for k in (0, 9, 10)] == ["portrait", "portrait", "model-10"]


# ---- img2img


@pytest.mark.parametrize("head", ["", "data:image/png;base64,"])
def test_a_portrait_from_a_photo(rig: Rig, head: str) -> None:
    asked = {"prompt": "a smiling woman", "steps": 4, "seed": 5, "init_images": [head + IN_BASE64]}
    from_photo, parameters, _ = good(rig.client.post("/sdapi/v1/img2img", json={**asked, "denoising_strength": 0.5}))
    order = last(rig)
    assert order.strength == 0.5
    assert (rig.settings.uploads / order.start.rpartition("/")[2]).read_bytes() == PHOTO
    assert parameters["init_images"] is None and str(rig.settings.home) not in json.dumps(parameters)
    of_words, _, _ = good(rig.client.post("/sdapi/v1/txt2img", json=asked))
    assert not np.array_equal(pixels(from_photo[0]), pixels(of_words[0]))


WRONG_PHOTOS: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({}, 400, "bad_option"),
    ({"init_images": []}, 400, "bad_option"),
    ({"init_images": None}, 400, "bad_option"),
    ({"init_images": IN_BASE64}, 400, "bad_option"),
    ({"init_images": [5]}, 400, "bad_option"),
    ({"init_images": [IN_BASE64, IN_BASE64]}, 400, "bad_option"),
    ({"init_images": ["/etc/passwd"]}, 415, "bad_image"),
    ({"init_images": ["http://127.0.0.1/a.png"]}, 415, "bad_image"),
    ({"init_images": ["not base64!"]}, 415, "bad_image"),
    ({"init_images": [""]}, 415, "bad_image"),
    ({"init_images": [base64.b64encode(b"no photo").decode()]}, 415, "bad_image"),
    ({"init_images": [IN_BASE64], "denoising_strength": 1.5}, 400, "bad_option"),
)


@pytest.mark.parametrize(("asked", "status", "code"), WRONG_PHOTOS, ids=lambda value: str(value)[:30])
def test_what_is_no_photo_is_refused(rig: Rig, asked: dict[str, Any], status: int, code: str) -> None:
    refused(redraw(rig, **asked), status, code)


def test_a_mask_is_refused_in_words(rig: Rig) -> None:
    sentence = refused(redraw(rig, init_images=[IN_BASE64], mask=IN_BASE64), 400, "bad_option")
    assert "whole picture" in sentence and CJK.search(sentence)
    good(redraw(rig, init_images=[IN_BASE64], mask=None, inpainting_fill=1))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"prompt":"\\ud800"}'])
def test_a_body_that_is_none_is_refused(rig: Rig, body: bytes) -> None:
    refused(rig.client.post("/sdapi/v1/img2img", content=body), 400, "bad_option")


def test_a_photo_in_base64_may_be_as_large_as_an_upload_is(rig: Rig) -> None:
    """More than other JSON; beyond the limit it is refused before it is read."""
    limit = rig.settings.upload_mb * 1_000_000
    large = base64.b64encode(bytes(limit * 3 // 4 - 3000)).decode()
    refused(redraw(rig, init_images=[large]), 415, "bad_image")
    answer = redraw(rig, init_images=[large + "A" * 400_000])
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


# ---- refusals

WRONG: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({"prompt": ""}, 400, "empty_prompt"),
    ({"prompt": 5}, 400, "bad_option"),
    ({"prompt": "x" * 4001}, 400, "bad_option"),
    ({"steps": 0}, 400, "bad_option"),
    ({"steps": 51}, 400, "bad_option"),
    ({"cfg_scale": 30}, 400, "bad_option"),
    ({"cfg_scale": -1}, 400, "bad_option"),
    ({"seed": 2**31}, 400, "bad_option"),
    ({"batch_size": 0}, 400, "bad_option"),
    ({"batch_size": 3, "n_iter": 3}, 400, "bad_option"),
    ({"batch_size": 10**9, "n_iter": 10**9}, 400, "bad_option"),
    ({"width": 100}, 400, "bad_size"),
    ({"width": "wide"}, 400, "bad_option"),
    ({"override_settings": {"sd_model_checkpoint": "none"}}, 404, "not_found"),
    ({"override_settings": {"sd_model_checkpoint": 5}}, 400, "bad_option"),
    ({"override_settings": "x"}, 400, "bad_option"),
)


@pytest.mark.parametrize(("asked", "status", "code"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_said_in_that_web_uis_form(rig: Rig, asked: dict[str, Any], status: int, code: str) -> None:
    refused(draw(rig, **asked), status, code)


def test_addresses_that_are_none_are_refused_in_the_same_form(rig: Rig) -> None:
    refused(rig.client.get("/sdapi/v1/none"), 404, "no_such_address")
    refused(rig.client.post("/sdapi/v1/interrupt"), 404, "no_such_address")
    refused(rig.client.get("/sdapi/v1/txt2img"), 405, "wrong_method")


# ---- progress


def test_progress_is_that_of_what_was_asked_here(rig: Rig) -> None:
    """Not of what somebody else draws, on the page say: the one that is stuck."""
    rig.settle()
    nothing = rig.client.get("/sdapi/v1/progress").json()
    assert (nothing["progress"], nothing["state"]["job_count"], nothing["current_image"]) == (0.0, 0, None)
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool, rig.stuck():
        waiting = pool.submit(draw, rig)
        deadline = time.monotonic() + 60
        while (look := rig.client.get("/sdapi/v1/progress").json())["state"]["job_count"] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert (look["progress"], look["state"]["sampling_steps"]) == (0.0, 0), "it has not begun"
    assert waiting.result(60).status_code == 409, "cancelled with all the others"
    assert rig.client.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0
    rig.engine.spoil["denoiser"] = lambda result: result if gate.wait(60) else result
    try:
        with ThreadPoolExecutor(1) as pool:
            drawing = pool.submit(draw, rig, steps=4)
            deadline = time.monotonic() + 60
            while (look := rig.client.get("/sdapi/v1/progress").json())["state"]["sampling_steps"] != 4:
                assert time.monotonic() < deadline, look
                time.sleep(0.02)
            assert 0 <= look["progress"] < 1 and look["current_image"] is None
            gate.set()
            good(drawing.result(60))
    finally:
        gate.set()
        del rig.engine.spoil["denoiser"]


def test_who_hangs_up_cancels_the_job(rig: Rig) -> None:
    rig.settle()
    with rig.stuck():
        before, deadline = len(rig.jobs()), time.monotonic() + 60
        with closing(unanswered(rig.url, "/sdapi/v1/txt2img", {"prompt": "x"})):
            while len(rig.jobs()) == before:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        job_id = list(rig.jobs())[before]
        while rig.jobs()[job_id] != "cancelled":
            assert time.monotonic() < deadline, rig.jobs()[job_id]
            time.sleep(0.02)
