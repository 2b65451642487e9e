"""Photos on the page: decoded in one place, refused in words, and nothing of them but pixels goes on."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

from engines.images import causes
from tests.support.http import (
    FILE_DATA,
    GPS_MARK,
    MAKER_MARK,
    Session,
    encoded,
    people,
    private_photo,
    scene,
    succeeded,
    wire,
)
from webui.i18n import words
from webui.widgets.photo_settings import NAMES

if TYPE_CHECKING:
    from tests.support.server import Listener, Rig


def restored(rig: Rig, page: Session, photo: Any, **changes: Any) -> list[dict[str, Any]]:
    endpoint = page.endpoint("restore")
    values = dict(zip(NAMES, page.values(endpoint)[1:], strict=True))
    return page.call(endpoint, [photo, *{**values, **changes}.values()])


def test_a_photo_of_the_page_is_restored(rig: Rig) -> None:
    with rig.session() as page:
        messages = restored(rig, page, page.upload(encoded(people(), "JPEG"), "照片.jpg"))
    assert succeeded(messages)
    assert "-%E7%85%A7%E7%89%87.png" in str(messages[-1]) and "compare" in str(messages[-1])


def test_an_uploaded_photo_is_decoded_in_a_process_of_its_own(rig: Rig, heard: Listener) -> None:
    """Neither the server nor the worker opens it as a picture, both of which are this process here."""
    content = encoded(people(), "JPEG", quality=71)  # nobody else has sent this one
    with rig.session() as page:
        photo = page.upload(content, "a.jpg")
        heard.opened.clear()
        assert succeeded(restored(rig, page, photo))
    heard.active = False
    copies = {str(path) for path in rig.settings.home.rglob("*") if path.is_file() and path.read_bytes() == content}
    assert photo["path"] in copies and len(copies) == 2
    decoders = [files for path, files in heard.opened if path in copies and any("/PIL/Image.py" in f for f in files)]
    assert decoders == []


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "BMP", "PPM"])
def test_a_photo_inside_an_address_is_not_decoded(rig: Rig, kind: str) -> None:
    """Gradio decodes data: addresses itself, in any format and any size, and stores the result."""
    data = base64.b64encode(encoded(scene(), kind)).decode()
    before, cached = rig.jobs(), rig.cached()
    with rig.session() as page:
        messages = restored(rig, page, {"path": None, "url": f"data:image/png;base64,{data}", "meta": FILE_DATA})
    assert not succeeded(messages)
    assert (rig.jobs(), rig.cached()) == (before, cached)


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize(
    ("content", "name", "code", "why"),
    [
        (b"hello", "a.png", "bad_image", causes.TEXT),
        (b"<svg/>", "a.svg", "bad_image", causes.LAYERS),
        (b"", "a.png", "bad_image", causes.EMPTY),
        (encoded(scene(), "ICO"), "a.ico", "bad_image", f"ICO: {causes.ANOTHER}"),
        (b"%PDF-1.7", "a.jpg", "bad_image", causes.DOCUMENT),
        (encoded(scene(), "PNG")[:150], "a.png", "bad_image", causes.CUT_OFF),
        (encoded(Image.new("1", (9000, 6000)), "PNG"), "a.png", "image_too_large", ""),
    ],
    ids=["text", "drawing", "nothing", "icon", "document", "torn", "huge"],
)
def test_the_page_says_what_is_wrong_with_a_photo(
    rig: Rig, content: bytes, name: str, code: str, why: str, language: str
) -> None:
    """In words, not with a bare "Error"."""
    with rig.session(language) as page:
        messages = restored(rig, page, page.upload(content, name))
    sentence = words(language).error(code, {"megapixels": 54, "limit": 50, "why": why})
    assert sentence in str(messages[-1]), messages[-1]


def test_without_a_photo_the_page_asks_for_one(rig: Rig) -> None:
    with rig.session("en") as page:
        assert words("en")("restore_empty") in str(restored(rig, page, None))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_nothing_but_pixels_of_a_photo_goes_on(rig: Rig, kind: str) -> None:
    """S15: where it was taken, and by which camera, is in no output, no preview, no answer and no cache."""
    photo = private_photo(kind, orientation=8)  # nobody else has sent this one
    assert GPS_MARK in photo and MAKER_MARK in photo
    before = {path for path in rig.settings.home.rglob("*") if path.is_file()}
    whole = {"whole_picture": "true"}
    answer = httpx.post(f"{rig.url}/enhance", files={"image": ("a", photo)}, data=whole, timeout=300)
    with rig.session() as page:
        messages = restored(rig, page, page.upload(photo, f"a.{kind.lower()}"), whole_picture=True)
    assert succeeded(messages) and "outputs_" in str(messages[-1])
    served = wire(rig.url, answer.json()["output_path"]).body
    for content in (answer.content, served, str(messages).encode()):
        assert GPS_MARK not in content and MAKER_MARK not in content
    new = [path for path in rig.settings.home.rglob("*") if path.is_file() and path not in before]
    carriers = [path for path in new if GPS_MARK in (content := path.read_bytes()) or MAKER_MARK in content]
    assert {path.read_bytes() for path in carriers} == {photo}, "only the photo itself, as it was sent"
    assert {path.parent for path in carriers if not path.is_relative_to(rig.cache)} == {rig.settings.uploads}
    with Image.open(io.BytesIO(served)) as image:
        assert set(image.info) == {"parameters"} and not image.getexif()
        assert image.size == (64, 96), "upright"


def test_a_stored_photo_is_not_served(rig: Rig) -> None:
    """It may be somebody's face and address; its name is its content's, which others may have too."""
    httpx.post(f"{rig.url}/enhance", files={"image": ("a", private_photo())}, timeout=300)
    (kept,) = [path for path in rig.settings.uploads.iterdir() if path.read_bytes() == private_photo()]
    for target in (f"/gradio_api/file={kept}", f"/outputs/{kept.name}", f"/outputs/../uploads/{kept.name}"):
        assert wire(rig.url, target).status in (403, 404)


def test_what_the_page_caches_is_closed_to_other_users_of_the_machine(rig: Rig) -> None:
    assert rig.cache.stat().st_mode & 0o077 == 0
