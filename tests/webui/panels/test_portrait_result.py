"""What a finished portrait leads to: others like it, its restoration, and a drawing that begins with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engines.messages import Develop, Final, Generate, Inspect, Lora
from engines.messages.status import EngineStatus
from tests.support.http import SKETCH, Session, succeeded
from tests.support.queues import claimed
from webui.i18n import words

if TYPE_CHECKING:
    from tests.support.server import Rig


ZH = words("zh")


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


def test_a_contact_sheet_is_drawn_by_what_the_form_says(rig: Rig) -> None:
    """Six looks, whatever the form says of their number and of previews; each is finished as it was."""
    with rig.session() as page:
        form = page.sketching("several", seed=9, count=2, negative="hat")
        assert succeeded(page.call(page.endpoint("contact_sheet"), form))
        sheet, order = list(rig.jobs())[-1], last_request(rig)
        assert (order.count, order.preview, order.seed, order.negative) == (6, "only", 9, "hat")
        *_, last = rig.queue.follow(sheet)
        assert isinstance(last, Final) and len(last.images) == 6
        look = rig.house.keys.sign(last.images[2])
        messages = page.call(page.endpoint("develop"), ["auto", sheet], {"name": look})
    assert last_request(rig) == Develop(last.images[2], "auto")
    assert f'data-sheet="{sheet}"' in str(messages), "the way back"
    *_, developed = rig.queue.follow(list(rig.jobs())[-1])
    assert isinstance(developed, Final) and developed.seed == 11, "the third of those that begin with 9"


def test_what_is_developed_elsewhere_leads_to_no_contact_sheet(rig: Rig, portrait: tuple[str, Final]) -> None:
    only = rig.queue.submit(Generate("a single", **{**SKETCH, "preview": "only"}))
    *_, last = rig.queue.follow(only)
    assert isinstance(last, Final)
    with rig.session() as page:
        for on_stage in (portrait[0], only, "", "f" * 32):
            messages = page.call(
                page.endpoint("develop"), ["auto", on_stage], {"name": rig.house.keys.sign(last.images[0])}
            )
            assert succeeded(messages) and "data-sheet" not in str(messages)


def test_one_comes_back_to_a_contact_sheet(rig: Rig) -> None:
    sheet = rig.queue.submit(Generate("several", **{**SKETCH, "preview": "only", "count": 6}))
    *_, last = rig.queue.follow(sheet)
    theirs = rig.queue.submit(Generate("secret", **SKETCH), owner="somebody else")
    with rig.session() as page:
        shown = str(page.call(page.endpoint("back_to_sheet"), [sheet]))
        assert isinstance(last, Final) and all(rig.house.keys.sign(image) in shown for image in last.images)
        refused = page.call(page.endpoint("back_to_sheet"), [theirs])
    assert not succeeded(refused) and "secret" not in str(refused)
    rig.queue.cancel(theirs)


def test_other_looks_are_as_many(rig: Rig) -> None:
    sheet = rig.queue.submit(Generate("several", **{**SKETCH, "preview": "only", "count": 2}))
    list(rig.queue.follow(sheet))
    with rig.session() as page:
        assert succeeded(page.call(page.endpoint("vary"), [sheet]))
    order = last_request(rig)
    assert (order.count, order.preview, order.seed) == (6, "only", -1)


def test_a_portrait_is_drawn_again_with_the_other_backend(rig: Rig) -> None:
    """The very picture, by its own seed, and both are shown."""
    first = rig.queue.submit(Generate("somebody", **{**SKETCH, "seed": 5, "count": 3}))
    *_, last = rig.queue.follow(first)
    assert isinstance(last, Final)
    second = rig.house.keys.sign(last.images[1])
    before = rig.jobs()
    with rig.session() as page:
        stem, digit = rig.signed(last)[:-5], rig.signed(last)[-5]
        for no_picture_of_it in ("", "x/y.png", f"{stem}{'1' if digit == '0' else '0'}.png"):
            page.call(page.endpoint("draw_again"), [first], {"picture": no_picture_of_it})
        assert rig.jobs() == before
        page.call(page.endpoint("draw_again"), [first], {"picture": second})
    order = last_request(rig)
    other = "pytorch"  # the fakes' engine counts as an edge engine
    assert (order.prompt, order.seed, order.count, order.backend) == ("somebody", 6, 1, other)


def test_a_portrait_with_a_lora_is_not_drawn_again_where_none_can_be_worn(idle: Rig) -> None:
    idle.clear()  # what is claimed is this one
    status, torch = idle.queue.status(), EngineStatus("torch", True, "CPU", "", "pytorch")
    idle.queue.announce(replace(status, engines=(torch,)))
    job_id = idle.queue.submit(Generate("somebody", **{**SKETCH, "loras": (Lora("style", 0.5),)}))
    last = Final(("outputs_20260101000000.png",), 5, 1.0, "torch")
    idle.queue.publish(claimed(idle.queue), last)
    before = idle.jobs()
    with idle.session("en") as page:
        messages = page.call(page.endpoint("draw_again"), [job_id], {"picture": idle.signed(last)})
    idle.queue.announce(status)
    assert not succeeded(messages) and "LoRA" in str(messages) and idle.jobs() == before


def test_words_that_the_model_does_not_know_are_named_before_and_after(rig: Rig) -> None:
    with rig.session() as page:
        introduce = page.endpoint("introduce")
        before = str(page.call(introduce, ["一只猫, a hat", "portrait", ""])[-1])
        evil = str(page.call(introduce, ["<img src=x>", "portrait", "realistic"])[-1])
    assert ZH("portrait_unknown", words="猫") in before and ZH("portrait_sketcher") in before
    assert "<img" not in evil
