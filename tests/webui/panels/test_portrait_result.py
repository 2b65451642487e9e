"""What a finished portrait leads to: others like it, its restoration, and a drawing that begins with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engines.messages import Final, Generate, Inspect
from tests.support.http import SKETCH, Session, succeeded

if TYPE_CHECKING:
    from tests.support.server import Rig


@pytest.fixture
def portrait(rig: Rig) -> tuple[str, Final]:
    """Somebody's, whose id and address are all that one needs to have."""
    job_id = rig.queue.submit(Generate("somebody", **{**SKETCH, "seed": 5, "negative": "hat"}))
    *_, last = rig.queue.follow(job_id)
    assert isinstance(last, Final)
    return job_id, last


def last_request(rig: Rig) -> Any:
    return rig.queue.job(list(rig.jobs())[-1]).request


def test_others_are_drawn_with_the_same_words(rig: Rig, portrait: tuple[str, Final]) -> None:
    job_id, _ = portrait
    with rig.session() as page:
        assert succeeded(page.call(page.endpoint("vary"), [job_id]))
    asked, order = rig.queue.job(job_id).request, last_request(rig)
    assert isinstance(asked, Generate) and order == replace(asked, seed=-1, count=4)
    assert rig.jobs()[list(rig.jobs())[-1]] == "done"


def test_what_is_no_portrait_has_no_others(rig: Rig) -> None:
    looked = rig.queue.submit(Inspect("nowhere.png"))
    list(rig.queue.follow(looked))
    before = rig.jobs()
    with rig.session() as page:
        page.call(page.endpoint("vary"), [looked])
        unknown = page.call(page.endpoint("vary"), ["f" * 32])
    assert rig.jobs() == before and not succeeded(unknown)


def test_nobody_varies_what_is_somebody_else_s(rig: Rig) -> None:
    theirs = rig.queue.submit(Generate("secret", **SKETCH), owner="somebody else")
    list(rig.queue.follow(theirs))
    before = rig.jobs()
    with rig.session() as page:
        messages = page.call(page.endpoint("vary"), [theirs])
    assert rig.jobs() == before and not succeeded(messages) and "secret" not in str(messages)


def handed(page: Session, name: str, picture: str) -> list[dict[str, Any]]:
    return page.call(page.endpoint(name), [], {"picture": picture})


@pytest.mark.parametrize("name", ["to_restore", "to_start"])
def test_a_portrait_is_handed_to_a_form_as_if_it_had_been_chosen_there(
    rig: Rig, portrait: tuple[str, Final], name: str
) -> None:
    _, final = portrait
    with rig.session() as page:
        messages = handed(page, name, rig.signed(final))
        assert succeeded(messages)
        photo = next(value for value in messages[-1]["output"]["data"] if isinstance(value, dict) and "path" in value)
        lies = Path(photo["path"])
        assert lies.is_relative_to(rig.cache) and lies.name == final.images[0]
        assert lies.read_bytes() == (rig.settings.outputs / final.images[0]).read_bytes()
        assert page.client.get(f"/gradio_api/file={lies}").status_code == 200, "the page can show it"
        page.call(page.endpoint("advise"), [{**photo, "meta": {"_type": "gradio.FileData"}}, None, ""])
    assert isinstance(last_request(rig), Inspect), "and it is a photo like any other"


NOT_SIGNED = ("outputs_20260101000000.png", "x/outputs_20260101000000.png", "../../etc/passwd", "")


@pytest.mark.parametrize("picture", NOT_SIGNED)
@pytest.mark.parametrize("name", ["to_restore", "to_start"])
def test_what_has_no_key_is_handed_to_nobody(rig: Rig, name: str, picture: str) -> None:
    before = set(rig.cached())
    with rig.session() as page:
        messages = handed(page, name, picture)
    assert not succeeded(messages) and set(rig.cached()) == before


def test_a_picture_that_went_is_said_to_be_gone(rig: Rig, portrait: tuple[str, Final]) -> None:
    _, final = portrait
    (rig.settings.outputs / final.images[0]).unlink()
    with rig.session("en") as page:
        messages = handed(page, "to_restore", rig.signed(final))
    assert not succeeded(messages) and "not here" in str(messages)
