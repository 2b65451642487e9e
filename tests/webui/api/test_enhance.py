"""POST /enhance over a real server: photos in, restored pictures out, and what is said to everything else."""

from __future__ import annotations

import io
import json
import re
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
from PIL import Image

from engines import images
from engines.messages import Enhance
from tests.support.http import X_CREDIT, encoded, people, pixels, refused, scene
from tests.support.owners import KEY
from webui import api
from webui.i18n import words

if TYPE_CHECKING:
    from tests.support.server import Rig

PHOTO = encoded(scene(), "PNG")
RESTORED = {"status", "output_path", "inference_time", "engine", "reason", "warnings", "faces"}
FIELDS: dict[str, str] = {
    "strength": "55", "mode": "detail", "more_detail": "true", "denoise": "1", "sharpen": "2", "contrast": "60",
    "brightness": "40", "fading": "3", "scratches": "4", "protect_skin": "false", "only_center_face": "true",
    "whole_picture": "true", "min_face_px": "30", "format": "jpeg", "quality": "77", "keep_date": "true", "turn": "90",
    "name": "mine.png", "bundle": "restorer", "backend": "ort", "auto": "true",
    "faces": '[{"x": 0.5, "y": 0.25}]',
}  # fmt: skip


def restore(rig: Rig, content: bytes = PHOTO, called: str = "a.png", **fields: str) -> httpx.Response:
    """The scene has no face, and is cleaned as a whole."""
    data = {"whole_picture": "true", **fields}
    return httpx.post(f"{rig.url}/enhance", files={"image": (called, content)}, data=data, timeout=300)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photo_is_restored(rig: Rig, kind: str) -> None:
    answer = restore(rig, encoded(scene(), kind))
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-credit"] == X_CREDIT
    body = answer.json()
    assert set(body) == RESTORED
    assert (body["status"], body["faces"]) == ("success", []) and body["engine"] in ("ort", "openvino")
    assert re.fullmatch(r"\d+\.\d\ds", body["inference_time"])
    assert re.fullmatch(rf"/outputs/{KEY}/outputs_\d{{14}}(_\d{{3}})?-a\.png", body["output_path"])
    picture = rig.client.get(body["output_path"])
    assert picture.headers["content-type"] == "image/png"
    restored = pixels(picture.content)
    assert restored.shape == (64, 96, 3)
    assert np.abs(restored.astype(int) - np.array(scene()).astype(int)).mean() < 60, "it is still that photo"


def test_strength_zero_leaves_the_photo_as_it_is(rig: Rig) -> None:
    photo, plain = encoded(people(), "PNG"), {"whole_picture": "false"}
    kept, changed = (restore(rig, photo, **plain, strength=strength).json() for strength in ("0", "100"))
    assert np.array_equal(pixels(rig.client.get(kept["output_path"]).content), np.array(people()))
    assert not np.array_equal(pixels(rig.client.get(changed["output_path"]).content), np.array(people()))


def test_the_answer_tells_what_became_of_each_face(rig: Rig) -> None:
    body = restore(rig, encoded(people(2), "PNG"), whole_picture="false", only_center_face="true").json()
    assert [set(face) for face in body["faces"]] == [{"box", "state", "strength", "reason"}] * 2
    assert sorted(face["state"] == "skipped" for face in body["faces"]) == [False, True]
    (skipped,) = [face for face in body["faces"] if face["state"] == "skipped"]
    assert skipped["reason"] == "not the face in the centre" and skipped["strength"] == 0
    lefts = sorted(face["box"][0] for face in body["faces"])
    assert 0 < lefts[0] < 0.5 < lefts[1] < 1, "as shares of the picture"


def test_faces_are_chosen_by_points_in_them(rig: Rig) -> None:
    photo = encoded(people(2), "PNG")
    first, second = restore(rig, photo, whole_picture="false").json()["faces"]
    x, y, width, height = second["box"]
    chosen = [{"x": x + width / 2, "y": y + height / 2}, {"x": 0.5, "y": 0.01}]
    answer = restore(rig, photo, whole_picture="false", min_face_px="1024", faces=json.dumps(chosen)).json()
    assert [face["reason"] for face in answer["faces"]] == ["not chosen", "", "no face is there"]
    assert answer["faces"][1]["state"] == "restored" and answer["faces"][2]["box"] == [0.5, 0.01, 0, 0]
    before, after = np.array(people(2)), pixels(rig.client.get(answer["output_path"]).content)
    middle = round((first["box"][0] + first["box"][2] + x) / 2 * before.shape[1])
    assert (after[:, :middle] == before[:, :middle]).all() and (after[:, middle:] != before[:, middle:]).any()


def test_a_photo_without_a_face_is_refused_with_what_to_do(rig: Rig) -> None:
    rig.settle()
    before = set(rig.settings.outputs.glob("outputs_*"))
    sentence = refused(restore(rig, whole_picture="false"), 422, "no_face")
    assert words("zh")("error_no_face") in sentence and words("en")("error_no_face") in sentence
    assert set(rig.settings.outputs.glob("outputs_*")) == before, "an untouched photo is no result"


@pytest.mark.parametrize(("kind", "suffix"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")])
def test_the_picture_comes_in_the_asked_format_under_its_owners_name(rig: Rig, kind: str, suffix: str) -> None:
    path = restore(rig, PHOTO, "爷爷 & 奶奶.png", format=kind).json()["output_path"]
    assert path.isascii() and unquote(path).endswith(f"-爷爷-奶奶.{suffix}")
    for address in (path, unquote(path)):  # either way
        picture = rig.client.get(address)
        assert (picture.status_code, picture.headers["content-type"]) == (200, f"image/{kind}")
    with Image.open(io.BytesIO(picture.content)) as image:
        assert image.format == kind.upper()


@pytest.mark.parametrize("name", ["../../secret.jpg", "..\\..\\secret.jpg", "/etc/secret.jpg"])
def test_a_files_name_is_no_path(rig: Rig, name: str) -> None:
    path = restore(rig, PHOTO, name).json()["output_path"]
    assert re.fullmatch(rf"/outputs/{KEY}/outputs_\d{{14}}(_\d{{3}})?-secret\.png", path)
    assert rig.queue.finished(1)[0].job.request.name == "secret.jpg"  # type: ignore[union-attr]


NAMES = (
    "outputs_20260102030405.png", "outputs_20260102030405_001.webp", "outputs_20260102030405-a.jpg",
    "outputs_20260102030405_001-奶奶_1962-x.jpg", "outputs_20260102030405-" + "x" * 60 + ".png",
)  # fmt: skip
NO_NAMES = (
    "outputs_20260102030405.gif", "outputs_20260102030405-.png", "outputs_20260102030405-a b.png", "outputs_1.png",
    "outputs_20260102030405-a/b.png", "outputs_20260102030405-a.negative.npz", "outputs_20260102030405.png\n",
    "outputs_20260102030405-" + "x" * 61 + ".png", "outputs_20260102030405-..png", "x.png", ".png",
)  # fmt: skip


def test_the_names_that_are_served_are_the_names_that_are_written() -> None:
    for name in (*NAMES, *NO_NAMES):
        assert bool(api.PICTURE_NAME.fullmatch(name)) == bool(images.PICTURE_NAME.fullmatch(name)) == (name in NAMES)
    assert set(api.MEDIA) == {f".{suffix}" for suffix in images.SUFFIXES.values()}


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photo_that_was_taken_turned_comes_back_upright(rig: Rig, orientation: int) -> None:
    turn = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[
        orientation
    ]
    exif = Image.Exif()
    exif[274] = orientation
    stored = scene() if turn is None else scene().transpose(turn)
    answer = restore(rig, encoded(stored, "JPEG", quality=95, exif=exif), sharpen="1")
    upright = pixels(rig.client.get(answer.json()["output_path"]).content)
    assert upright.shape == (64, 96, 3)
    assert np.abs(upright.astype(int) - np.array(scene()).astype(int)).mean() < 6


def test_every_form_field_arrives(rig: Rig) -> None:
    assert set(FIELDS) == {f.name for f in fields(Enhance)} - {"image"}
    assert httpx.post(f"{rig.url}/enhance", files={"image": ("a", PHOTO)}, data=FIELDS, timeout=300).status_code == 200
    stored = asdict(rig.queue.job(list(rig.jobs())[-1]).request)
    booleans = {"true": True, "false": False}
    wanted = {name: booleans.get(text, int(text) if text.isdecimal() else text) for name, text in FIELDS.items()}
    wanted["faces"] = ({"x": 0.5, "y": 0.25},)
    assert {name: stored[name] for name in wanted} == wanted


NO_PHOTO: tuple[tuple[bytes, dict[str, str], int, str], ...] = (
    (b"", {}, 415, "bad_image"),
    (b"hello, I am text", {}, 415, "bad_image"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {}, 415, "bad_image"),
    (encoded(scene(), "ICO"), {}, 415, "bad_image"),
    (encoded(scene(), "PPM"), {}, 415, "bad_image"),
    (PHOTO, {"turn": "45"}, 400, "bad_option"),
    (PHOTO[:150], {}, 415, "bad_image"),
    (encoded(Image.new("1", (8000, 7000)), "PNG"), {}, 413, "image_too_large"),
    (PHOTO, {"strength": "x"}, 400, "bad_option"),
    (PHOTO, {"faces": "left"}, 400, "bad_option"),
    (PHOTO, {"faces": '[{"x": 2, "y": 0.5}]'}, 400, "bad_option"),
    (PHOTO, {"strength": "101"}, 400, "bad_option"),
    (PHOTO, {"mode": "beautiful"}, 400, "bad_option"),
    (PHOTO, {"protect_skin": "perhaps"}, 400, "bad_option"),
    (PHOTO, {"strenght": "5"}, 400, "bad_option"),
    (PHOTO, {"format": "gif"}, 400, "bad_option"),
    (PHOTO, {"quality": "0"}, 400, "bad_option"),
    (PHOTO, {"min_face_px": "0"}, 400, "bad_option"),
    (PHOTO, {"name": "x" * 256}, 400, "bad_option"),
    (PHOTO, {"bundle": "none"}, 404, "not_found"),
    (PHOTO, {"bundle": "portrait"}, 400, "bad_option"),
    (PHOTO, {"backend": "cuda12"}, 400, "bad_option"),
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
    answer = httpx.post(f"{rig.url}/enhance", timeout=300, **asked)
    assert answer.json()["code"] in ("bad_option", "bad_request")
    refused(answer, 400, answer.json()["code"])
    assert rig.jobs().keys() == before.keys()
