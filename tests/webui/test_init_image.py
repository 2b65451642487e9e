"""A photo to start a portrait from, through the front doors: REST's form, and the page's corner."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from PIL import Image

from engines.images import causes
from engines.messages import Generate, Lora, unpack
from tests.support.fakes import waves
from tests.support.http import Session, encoded, people, pixels, private_photo, refused, succeeded
from webui.i18n import words

if TYPE_CHECKING:
    from tests.support.server import Rig

ZH = words("zh")
PHOTO = encoded(people(), "PNG")
WAVES = encoded(Image.fromarray(waves(512, 512)), "PNG")


def draw(rig: Rig, content: bytes = PHOTO, **fields: str) -> httpx.Response:
    data = {"prompt": "a smiling woman", "steps": "4", "seed": "5", **fields}
    return httpx.post(f"{rig.url}/generate", files={"start": ("a.png", content)}, data=data, timeout=120)


def last(rig: Rig) -> Any:
    return unpack(rig.requests()[-1])


# ---- REST


def test_a_form_with_a_photo_starts_from_it(rig: Rig) -> None:
    """Half of the steps are done, the photo shows through, and without it another picture comes."""
    answer = draw(rig, WAVES, strength="0.5", preview="off")
    assert answer.status_code == 200, answer.text
    picture = base64.b64decode(answer.json()["image_base64"])
    with Image.open(io.BytesIO(picture)) as image:
        assert "Denoising strength: 0.5," in image.info["parameters"]
    order = last(rig)
    kept = rig.settings.uploads / hashlib.sha256(WAVES).hexdigest()[:32]
    wanted = Generate("a smiling woman", steps=4, seed=5, preview="off", start=str(kept), strength=0.5)
    assert order == Generate(**{**vars_of(wanted), "backend": order.backend})
    plain = rig.client.post("/generate", json={"prompt": "a smiling woman", "steps": 4, "seed": 5}).json()
    found, other, shown = pixels(picture), pixels(base64.b64decode(plain["image_base64"])), waves(512, 512)
    assert np.corrcoef(found.ravel(), shown.ravel())[0, 1] > 0.4 > np.corrcoef(other.ravel(), shown.ravel())[0, 1]
    again = draw(rig, WAVES, strength="0.5", preview="off").json()
    assert (pixels(base64.b64decode(again["image_base64"])) == found).all(), "one seed, one photo, one picture"


def test_a_form_can_wear_loras(rig: Rig) -> None:
    """As JSON in a field; and the same in the address."""
    pytest.importorskip("torch", reason="LoRAs are worn on PyTorch")
    worn, plain = '[{"name": "studio_light", "strength": 0.5}]', {"backend": "auto", "preview": "off"}
    answer = draw(rig, WAVES, loras=worn, **plain)
    assert answer.status_code == 200, answer.text
    assert last(rig).loras == (Lora("studio_light", 0.5),) and last(rig).start
    rig.client.post("/generate", json={"prompt": "a man", **plain}, params={"loras": worn}).raise_for_status()
    assert last(rig).loras == (Lora("studio_light", 0.5),)


def vars_of(order: Generate) -> dict[str, Any]:
    return {name: getattr(order, name) for name in Generate.__dataclass_fields__}


def test_a_photo_says_nothing_but_its_pixels(rig: Rig) -> None:
    answer = draw(rig, private_photo("JPEG", 6), strength="0.3")
    assert answer.status_code == 200, answer.text
    data = base64.b64decode(answer.json()["image_base64"])
    with Image.open(io.BytesIO(data)) as image:
        assert set(image.info) == {"parameters"} and not image.getexif()
        assert str(rig.settings.uploads) not in image.info["parameters"]


IMPOSSIBLE: tuple[tuple[bytes, dict[str, str], int, str], ...] = (
    (b"", {}, 415, "bad_image"),
    (b"hello, I am text", {}, 415, "bad_image"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {}, 415, "bad_image"),
    (encoded(Image.new("1", (8000, 7000)), "PNG"), {}, 413, "image_too_large"),
    (PHOTO, {"strength": "1.5"}, 400, "bad_option"),
    (PHOTO, {"strength": "nan"}, 400, "bad_option"),
    (PHOTO, {"strenght": "0.5"}, 400, "bad_option"),
    (PHOTO, {"bundle": "sketch"}, 400, "bad_option"),  # has no encoder
    (PHOTO, {"width": "100"}, 400, "bad_size"),
    (PHOTO, {"prompt": " "}, 400, "empty_prompt"),
    (PHOTO, {"loras": "studio_light"}, 400, "bad_option"),
    (PHOTO, {"loras": '{"name": "studio_light"}'}, 400, "bad_option"),
    (PHOTO, {"loras": "[" * 10_000}, 400, "bad_option"),
    (PHOTO, {"loras": '[{"name": "studio_light", "strength": 9}]'}, 400, "bad_option"),
    (PHOTO, {"prompt": "x" * 20_000}, 400, "bad_request"),
    (PHOTO, {f"field{k}": "" for k in range(30)}, 400, "bad_request"),
)


@pytest.mark.parametrize(("content", "fields", "status", "code"), IMPOSSIBLE, ids=lambda value: str(value)[:30])
def test_what_cannot_be_drawn_from_is_refused(
    rig: Rig, content: bytes, fields: dict[str, str], status: int, code: str
) -> None:
    refused(draw(rig, content, **fields), status, code)


@pytest.mark.parametrize("how", ["json", "query", "form"])
def test_nobody_names_a_path(rig: Rig, how: str, tmp_path: Path) -> None:
    """A file of the server, or what somebody else has sent, is not to be had by its name."""
    (tmp_path / "secret.png").write_bytes(PHOTO)
    named, before = {"prompt": "x", "start": str(tmp_path / "secret.png")}, rig.jobs()
    asked: dict[str, Any] = {"json": {"json": named}, "query": {"params": named}, "form": {"files": {"x": (None, "y")}}}
    more = {"data": named} if how == "form" else {}
    refused(httpx.post(f"{rig.url}/generate", timeout=300, **asked[how], **more), 400, "bad_option")
    assert rig.jobs().keys() == before.keys()


def test_a_path_beside_the_photo_is_refused_too(rig: Rig) -> None:
    files = [("start", ("a.png", PHOTO)), ("prompt", (None, "x"))]
    answer = httpx.post(f"{rig.url}/generate", params={"start": "/etc/passwd"}, files=files, timeout=300)
    refused(answer, 400, "bad_option")


# ---- the page


def begun(page: Session, photo: Any, strength: float = 0.6) -> list[dict[str, Any]]:
    """With the built-in bundle, as the page has been opened."""
    endpoint = page.endpoint("generate")
    named = [page.elem_id(component) for component in endpoint["inputs"]]
    changed = {"prompt": "a smiling woman", "steps": 2, "start-photo": photo, "start-strength": strength}
    data = [changed.get(name, value) for name, value in zip(named, page.values(endpoint), strict=True)]
    assert set(changed) <= set(named)
    return page.call(endpoint, data)


def test_the_page_hands_the_photo_over(rig: Rig) -> None:
    with rig.session() as page:
        assert succeeded(begun(page, page.upload(PHOTO, "我.png"), strength=0.3))
        assert succeeded(begun(page, None, strength=0.3))
    first, second = (unpack(text) for text in rig.requests()[-2:])
    assert Path(first.start) == rig.settings.uploads / hashlib.sha256(PHOTO).hexdigest()[:32]
    assert first.strength == 0.3 and Path(first.start).read_bytes() == PHOTO
    assert second.start == ""


def test_the_slider_comes_with_the_photo(rig: Rig) -> None:
    with rig.session() as page:
        for photo, visible in ((page.upload(PHOTO, "a.png"), True), (None, False)):
            (message,) = [m for m in page.call(page.endpoint("shown", "start-photo"), [photo]) if "output" in m]
            assert message["output"]["data"][0]["visible"] is visible


def test_a_file_that_nobody_uploaded_is_not_taken(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PHOTO)
    with rig.session() as page:
        real, before = page.upload(PHOTO, "a.png"), rig.jobs()
        for path in (str(tmp_path / "secret.png"), "/etc/passwd", str(rig.settings.state / "jobs.db")):
            assert not succeeded(begun(page, {**real, "path": path}))
    assert rig.jobs().keys() == before.keys()


def test_what_is_no_photo_is_said_in_words(rig: Rig) -> None:
    with rig.session() as page:
        messages = begun(page, page.upload(b"hello", "a.png"))
    assert ZH.error("bad_image", {"why": causes.TEXT}) in str(messages[-1])


def test_settings_that_are_used_again_leave_the_photo_out(rig: Rig) -> None:
    """The words and the seed are that picture's; another's photo in the box would make another picture."""
    assert rig.client.post("/generate", json={"prompt": "x", "steps": 1, "preview": "off"}).status_code == 200
    with rig.session() as page:
        endpoint = page.endpoint("reuse")
        (message,) = [m for m in page.call(endpoint, [], {"job": list(rig.jobs())[-1]}) if "output" in m]
        ids = [page.elem_id(component) for component in endpoint["outputs"]]
    assert message["output"]["data"][ids.index("start-photo")] is None


def sized(page: Session, photo: Any, size: str, bundle: str) -> Any:
    """What becomes of the size when a photo has come in or gone."""
    endpoint = page.endpoint("shape", "start-photo")
    (message,) = [m for m in page.call(endpoint, [photo, size, bundle]) if "output" in m]
    (update,) = message["output"]["data"]
    return update


def test_a_photo_brings_its_shape_where_there_is_a_choice(rig: Rig) -> None:
    """Else somebody's tall portrait is cut to a square because nobody looked at the size."""
    square = "64×64"
    with rig.session() as page:
        photo = page.upload(PHOTO, "a.png")
        assert "value" not in sized(page, photo, "256×256", "portrait"), "its sizes are of one shape"
        page.call(page.endpoint("change_bundle"), ["sketch"])
        offered = sized(page, photo, square, "sketch")
        assert offered["value"] == "photo" and [ZH("portrait_size_photo"), "photo"] in map(list, offered["choices"])
        gone = sized(page, None, "photo", "sketch")
        assert gone["value"] == square and "photo" not in str(gone["choices"])
        assert "value" not in sized(page, None, square, "sketch"), "what was chosen is left alone"


def test_as_the_photo_leaves_the_size_to_the_worker(rig: Rig) -> None:
    with rig.session() as page:
        data = page.sketching("x", size="photo", photo=page.upload(PHOTO, "a.png"))
        sized(page, page.upload(PHOTO, "a.png"), "64×64", "sketch")
        page.call(page.endpoint("generate"), data)
    order = last(rig)
    assert (order.width, order.height) == (None, None) and order.start
