"""POST /enhance over a real server: photos in, restored pictures out, and what is said to everything else."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.web import X_CREDIT, encoded, pixels, refused, scene

if TYPE_CHECKING:
    from tests.rig import Rig

pytest_plugins = ("tests.rig",)
PHOTO = encoded(scene(), "PNG")
RESTORED = {"status", "output_path", "inference_time", "engine", "reason"}


def restore(rig: Rig, content: bytes = PHOTO, name: str = "a.png", **fields: str) -> httpx.Response:
    return httpx.post(f"{rig.url}/enhance", files={"image": (name, content)}, data=fields, timeout=60)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photo_is_restored(rig: Rig, kind: str) -> None:
    answer = restore(rig, encoded(scene(), kind))
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-credit"] == X_CREDIT
    body = answer.json()
    assert set(body) == RESTORED
    assert (body["status"], body["engine"]) == ("success", "ort")
    assert re.fullmatch(r"\d+\.\d\ds", body["inference_time"])
    assert re.fullmatch(r"/outputs/outputs_\d{14}(_\d{3})?\.png", body["output_path"])
    picture = rig.client.get(body["output_path"])
    assert picture.headers["content-type"] == "image/png"
    restored = pixels(picture.content)
    assert restored.shape == (64, 96, 3)
    assert np.abs(restored.astype(int) - np.array(scene()).astype(int)).mean() < 60, "it is still that photo"


def test_strength_zero_leaves_the_photo_as_it_is(rig: Rig) -> None:
    kept = rig.client.get(restore(rig, strength="0").json()["output_path"]).content
    changed = rig.client.get(restore(rig, strength="100", mode="strong").json()["output_path"]).content
    assert np.abs(pixels(kept).astype(int) - np.array(scene()).astype(int)).max() <= 2
    assert not np.array_equal(pixels(kept), pixels(changed))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photo_that_was_taken_turned_comes_back_upright(rig: Rig, orientation: int) -> None:
    turn = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[
        orientation
    ]
    exif = Image.Exif()
    exif[274] = orientation
    stored = scene() if turn is None else scene().transpose(turn)
    answer = restore(rig, encoded(stored, "JPEG", quality=95, exif=exif), strength="0")
    upright = pixels(rig.client.get(answer.json()["output_path"]).content)
    assert upright.shape == (64, 96, 3)
    assert np.abs(upright.astype(int) - np.array(scene()).astype(int)).mean() < 6


def test_every_form_field_arrives(rig: Rig) -> None:
    fields = {"strength": "55", "mode": "detail", "denoise": "1", "sharpen": "2", "contrast": "60", "brightness": "40",
              "protect_skin": "false", "only_center_face": "true", "backend": "ort", "bundle": "restorer"}  # fmt: skip
    assert restore(rig, **fields).status_code == 200
    stored = asdict(rig.queue.job(list(rig.jobs())[-1]).request)
    wanted = {**fields, "strength": 55, "denoise": 1, "sharpen": 2, "contrast": 60, "brightness": 40,
              "protect_skin": False, "only_center_face": True}  # fmt: skip
    assert {name: stored[name] for name in wanted} == wanted


NO_PHOTO: tuple[tuple[bytes, dict[str, str], int, str], ...] = (
    (b"", {}, 415, "bad_image"),
    (b"hello, I am text", {}, 415, "bad_image"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {}, 415, "bad_image"),
    (encoded(scene(), "GIF"), {}, 415, "bad_image"),
    (encoded(scene(), "BMP"), {}, 415, "bad_image"),
    (PHOTO[:150], {}, 415, "bad_image"),
    (encoded(Image.new("1", (8000, 7000)), "PNG"), {}, 413, "image_too_large"),
    (PHOTO, {"strength": "x"}, 400, "bad_option"),
    (PHOTO, {"strength": "101"}, 400, "bad_option"),
    (PHOTO, {"mode": "beautiful"}, 400, "bad_option"),
    (PHOTO, {"protect_skin": "perhaps"}, 400, "bad_option"),
    (PHOTO, {"strenght": "5"}, 400, "bad_option"),
    (PHOTO, {"bundle": "none"}, 404, "not_found"),
    (PHOTO, {"bundle": "portrait"}, 400, "bad_option"),
    (PHOTO, {"backend": "cuda12"}, 503, "engine_unavailable"),
    (PHOTO, {"mode": "x" * 20_000}, 400, "bad_request"),
    (PHOTO, {f"field{k}": "" for k in range(30)}, 400, "bad_request"),
)


@pytest.mark.parametrize(("content", "fields", "status", "code"), NO_PHOTO, ids=lambda value: str(value)[:30])
def test_what_cannot_be_restored_is_refused(
    rig: Rig, content: bytes, fields: dict[str, str], status: int, code: str
) -> None:
    refused(restore(rig, content, "../../secret/photo.jpg", **fields), status, code)


@pytest.mark.parametrize(
    "asked",
    [{}, {"data": {"image": "x"}}, {"files": {"photo": ("a.png", PHOTO)}}, {"json": {"image": "x"}}, {"content": PHOTO},
     {"files": [("image", ("a.png", PHOTO)), ("image", ("b.png", PHOTO))]},
     {"files": [("image", ("a.png", PHOTO)), ("other", ("b.png", PHOTO))]},
     {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
     {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
     {"content": b"--b\r\n\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}}],
)  # fmt: skip
def test_a_form_without_exactly_one_photo_is_refused(rig: Rig, asked: dict[str, Any]) -> None:
    before = rig.jobs()
    answer = httpx.post(f"{rig.url}/enhance", timeout=60, **asked)
    assert answer.json()["code"] in ("bad_option", "bad_request")
    refused(answer, 400, answer.json()["code"])
    assert rig.jobs() == before
