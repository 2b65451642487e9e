"""The panel that restores one photo: advice, settings that are remembered, and what to do when there is no face."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from engines.errors import Fact
from engines.images import causes
from engines.messages import Advice, Enhance, Final, Generate, Inspect, unpack
from engines.messages.faces import FaceReport, Point
from tests.support.http import SKETCH, Session, encoded, people, scene, succeeded, tree
from webui import face_report
from webui.i18n import words
from webui.widgets import photo_settings
from webui.widgets.panel_context import PanelContext
from webui.widgets.photo_settings import NAMES, fields, sound

if TYPE_CHECKING:
    from tests.support.server import Rig

ZH, EN = words("zh"), words("en")
CHANGED: dict[str, Any] = {
    "auto": False, "strength": 33, "mode": "detail", "more_detail": True, "faces": "center", "whole_picture": True,
    "min_face_px": 40, "denoise": 11, "sharpen": 12, "contrast": 61, "brightness": 39, "protect_skin": False,
    "fading": 13, "scratches": 14, "format": "webp", "quality": 55, "keep_date": True, "bundle": "restorer",
    "backend": "edge",
}  # fmt: skip


def restored(page: Session, photo: Any, event: Any = None, **changes: Any) -> list[dict[str, Any]]:
    """`event`: what the browser says of the press: which faces were chosen."""
    endpoint = page.endpoint("restore")
    values = dict(zip(NAMES, page.values(endpoint)[1:], strict=True))
    return page.call(endpoint, [photo, *{**values, **changes}.values()], event)


def requests(rig: Rig) -> list[Any]:
    return [unpack(text) for text in rig.requests()]


# ---- settings


def test_every_setting_arrives(rig: Rig) -> None:
    """And the name that the photo's owner gave it."""
    assert set(CHANGED) == set(NAMES)
    with rig.session() as page:
        photo = page.upload(encoded(people(), "PNG"), "奶奶 1962.png")
        messages = restored(page, photo, **CHANGED)
    assert succeeded(messages)
    order = requests(rig)[-1]
    wanted = {name: value for name, value in CHANGED.items() if name != "faces"}
    assert {name: getattr(order, name) for name in wanted} == wanted
    assert order.only_center_face is True and order.name == "奶奶 1962.png"
    assert rig.queue.finished(1)[0].final.images[0].endswith("-奶奶-1962.webp")


def test_at_rest_the_page_leaves_it_to_a_look_at_the_photo(rig: Rig) -> None:
    with rig.session() as page:
        assert succeeded(restored(page, page.upload(encoded(people(), "PNG"), "a.png")))
    order = requests(rig)[-1]
    assert order == Enhance(order.image, auto=True, name="a.png", backend="edge")


@pytest.mark.parametrize(
    ("name", "kept"),
    [("../../etc/passwd", "passwd"), ("C:\\photos\\me.jpg", "me.jpg"), ("x" * 300 + ".jpg", "x" * 251 + ".jpg")],
)
def test_a_name_is_no_path(rig: Rig, name: str, kept: str) -> None:
    with rig.session() as page:
        photo = {**page.upload(encoded(scene(), "PNG"), "a.png"), "orig_name": name}
        restored(page, photo, whole_picture=True)
    assert requests(rig)[-1].name == kept


@pytest.fixture
def context(rig: Rig) -> PanelContext:
    return PanelContext(rig.house, rig.settings, None)


def test_what_a_browser_remembers_is_taken_up(context: PanelContext) -> None:
    assert sound(CHANGED, context) == CHANGED
    assert sound({}, context) == {}


HOSTILE: Sequence[Any] = (None, "x", [1], 5, {"strength": 101}, {"strength": "many"}, {"mode": "x"}, {"mode": ["x"]},
    {"faces": {}}, {"bundle": "gone"}, {"bundle": ["restorer"]}, {"backend": "rm"}, {"format": "x"}, {"image": "/x"},
    {"quality": 0}, {"min_face_px": 1e9}, {"name": "x"}, {"prescale": True}, {"keep_date": None})  # fmt: skip


@pytest.mark.parametrize("kept", HOSTILE, ids=str)
def test_what_cannot_be_chosen_is_forgotten(context: PanelContext, kept: Any) -> None:
    assert sound(kept, context) == {}
    if isinstance(kept, dict):
        assert sound({**CHANGED, **kept}, context).keys() == CHANGED.keys() - kept.keys(), "and nothing else with it"


def test_a_page_is_given_the_settings_of_the_last_time(rig: Rig) -> None:
    with rig.session() as page:
        answer = page.answer(page.endpoint("recall"), [{"strength": 12, "mode": "x", "format": "jpeg"}])
    values = dict(zip(NAMES, answer, strict=True))
    assert (values["strength"], values["format"]) == (12, "jpeg")
    assert all("__type__" in value for name, value in values.items() if name not in ("strength", "format"))


def test_the_fields_of_values() -> None:
    made = fields(list(CHANGED.values()))
    assert made["only_center_face"] is True and "faces" not in made
    assert fields(["x"]) == {"auto": "x", "only_center_face": False}


# ---- advice


def looked(page: Session, photo: Any, job: str = "") -> list[dict[str, Any]]:
    return page.call(page.endpoint("advise"), [photo, None, job, "all"])


def test_a_photo_is_looked_at_and_the_advice_can_be_taken(rig: Rig) -> None:
    with rig.session() as page:
        messages = looked(page, page.upload(encoded(people(2), "JPEG"), "a.jpg"))
        line = messages[-1]["output"]["data"][0] or messages[-2]["output"]["data"][0]
        adopted = page.answer(page.endpoint("adopt"), [None])
    job = list(rig.jobs())[-1]
    assert isinstance(rig.queue.job(job).request, Inspect)
    (advice,) = [event for event in rig.queue.follow(job) if isinstance(event, Advice)]
    assert advice.faces == 2
    assert [b for b in tree(str(line)).all("button") if "data-adopt" in b]
    assert face_report.advice_text(advice, ZH) in "".join(tree(str(line)).text)
    values = dict(zip(NAMES, adopted, strict=True))
    assert {name: values[name] for name in advice.settings} == advice.settings
    assert all("__type__" in values[name] for name in set(NAMES) - set(advice.settings)), "the rest stays"


def test_without_a_face_the_advice_is_another(rig: Rig) -> None:
    with rig.session("en") as page:
        messages = looked(page, page.upload(encoded(scene(), "PNG"), "a.png"))
    shown = str(messages)
    assert EN("advice_none") in shown and "data-whole" in shown and "data-adopt" not in shown


def test_a_photo_that_lies_on_its_side_can_be_turned(rig: Rig) -> None:
    """From the look at it, and after it was restored in vain."""
    lying = people().transpose(Image.Transpose.ROTATE_90)
    with rig.session("en") as page:
        photo = page.upload(encoded(lying, "PNG"), "a.png")
        shown = str(looked(page, photo))
        assert EN("advice_turned", turn=90) in shown and "data-turn=90" in shown
        endpoint = page.endpoint("turn")
        values = page.values(endpoint)[1:]
        assert succeeded(page.call(endpoint, [photo, *values], {"turn": 90}))
        turned = list(rig.jobs())[-1]
        assert not succeeded(page.call(endpoint, [photo, *values], {"turn": 45}))
        assert not succeeded(page.call(endpoint, [photo, *values], {}))
        assert succeeded(page.call(page.endpoint("upright"), [turned], {"turn": 270}))
    orders = requests(rig)
    assert [order.turn for order in orders[-2:]] == [90, 270] and orders[-1].image == orders[-2].image
    result = rig.queue.latest(turned)
    assert isinstance(result, Final) and result.faces[0].state == "restored"


def test_what_is_no_photo_is_said_before_anything_is_pressed(rig: Rig) -> None:
    with rig.session("en") as page:
        said = str(looked(page, page.upload(b"hello", "a.png")))
    assert EN.error("bad_image", {"why": causes.TEXT}) in said


def test_a_photo_that_was_taken_away_leaves_no_advice(rig: Rig) -> None:
    before = rig.jobs()
    with rig.session() as page:
        assert succeeded(looked(page, None))
    assert rig.jobs().keys() == before.keys()


def test_a_new_photo_does_not_stand_beside_what_became_of_the_last(rig: Rig) -> None:
    """But a job that goes on is shown, whatever photo comes in."""
    photo = encoded(people(), "PNG")
    with rig.session("en") as page:
        restored(page, page.upload(photo, "a.png"))
        done = list(rig.jobs())[-1]
        assert EN("restore_empty") in str(looked(page, page.upload(photo, "b.png"), done))
        assert EN("restore_empty") in str(looked(page, page.upload(photo, "b.png"), "f" * 32))
        with rig.stuck():
            waits = rig.client.post("/generate", json=SKETCH | {"prompt": "x"}, headers={"Prefer": "respond-async"})
            asked = [page.upload(photo, "c.png"), None, waits.json()["id"], "all"]
            begun = page.begin(page.endpoint("advise"), asked)
    assert EN("advice_looking") in str(begun) and EN("restore_empty") not in str(begun)


def test_who_looks_at_the_photo_before_may_stop(rig: Rig) -> None:
    """Two photos in a row while the worker is busy: the first one's advice would come late and over the second's."""
    with rig.stuck(), rig.session() as page:
        look = page.endpoint("advise")
        for name in ("a.png", "b.png"):
            page.begin(look, [page.upload(encoded(scene(), "PNG"), name), None, "", "all"])
        states = list(rig.jobs().values())[-2:]
    assert states == ["cancelled", "queued"]


ADVICE = Advice(3, 4000, 3000, 0.7, 0.0, {"strength": 65, "mode": "natural", "denoise": 0, "sharpen": 18, "fading": 0})


def test_the_line_of_the_advice() -> None:
    assert face_report.advice_text(ADVICE, ZH) == "找到 3 张脸,比较模糊。建议:增强强度 65,自然,锐化 18。"
    assert face_report.advice_text(ADVICE, EN) == "3 faces, blurred. Suggested: Strength 65, Natural, Sharpen 18."
    noisy = replace(ADVICE, faces=1, blur=0.0, noise=0.9, settings={"strength": 40, "mode": "strong", "denoise": 45})
    assert face_report.advice_text(noisy, ZH) == "找到 1 张脸,清晰,噪点较多。建议:增强强度 40,强力,降噪 45。"
    assert face_report.advice_text(replace(ADVICE, blur=1.0), EN).startswith("3 faces, very blurred.")


# ---- faces


def report(state: Any, strength: int = 70, reason: str = "", box: Any = (0.1, 0.2, 0.3, 0.4)) -> FaceReport:
    return FaceReport(box, state, strength, reason)


REASONS: Sequence[tuple[FaceReport, str]] = (
    (report("restored"), "已修复 70%"),
    (report("softened", 35, "the features would change"), "已减弱到 35%:五官会改变"),
    (report("softened", 35, "the features would move"), "已减弱到 35%:五官会移位"),
    (report("skipped", 0, "smaller than 24 px"), "跳过:小于 24 px"),
    (report("skipped", 0, "already sharp"), "跳过:已经清晰"),
    (report("skipped", 0, "not the face in the centre"), "跳过:不是中间的那张脸"),
    (report("skipped", 0, "not chosen"), "跳过:没有被选中"),
    (report("skipped", 0, "no face is there", (0.5, 0.5, 0, 0)), "跳过:此处没有人脸"),
    (report("skipped", 0, ""), "跳过:强度为 0"),
)


@pytest.mark.parametrize(("face", "chinese"), REASONS)
def test_what_became_of_a_face_is_told_in_chinese(face: FaceReport, chinese: str) -> None:
    assert face_report.face_text(face, ZH) == chinese


def test_marks_lie_where_faces_are_and_never_beside_the_picture() -> None:
    boxes = [(0.125, 0.25, 0.1, 0.1), (-0.2, 0.999, 0.5, 0.5)]
    marks = tree(face_report.marks_html([report("restored", box=box) for box in boxes])).all("span")
    assert [mark["style"] for mark in marks] == [
        "left:max(12.50%,18px);top:max(25.00%,18px)",
        "left:max(0.00%,18px);top:max(97.00%,18px)",
    ]
    assert all(mark["class"] == "face is-restored" for mark in marks)


def test_many_faces_are_summed_up() -> None:
    few = [report("restored"), report("skipped", 0, "already sharp")]
    assert "<details>" not in face_report.list_html(few, ZH)
    many = face_report.list_html(few * 4, ZH)
    assert "<summary>8 张脸 · 已修复 4 · 跳过 4</summary>" in many
    assert len(tree(many).all("li")) == 8


# ---- which faces


TWO = encoded(people(2), "PNG")
LEFT, RIGHT = {"x": 0.25, "y": 0.5}, {"x": 0.75, "y": 0.5}


def test_the_faces_that_were_chosen_are_restored(rig: Rig) -> None:
    with rig.session() as page:
        messages = restored(page, page.upload(TWO, "a.png"), {"faces": [RIGHT]})
    assert succeeded(messages) and requests(rig)[-1].faces == (Point(**RIGHT),)
    assert [face.reason for face in rig.queue.finished(1)[0].final.faces] == ["not chosen", ""]
    assert "跳过:没有被选中" in str(messages[-1])


@pytest.mark.parametrize("event", [None, {}, {"faces": None}, [1], "x"], ids=str)
def test_where_nobody_chose_all_are_restored(rig: Rig, event: Any) -> None:
    with rig.session() as page:
        assert succeeded(restored(page, page.upload(TWO, "a.png"), event))
    assert requests(rig)[-1].faces == ()


@pytest.mark.parametrize(
    ("faces", "said"),
    [
        ([], EN("faces_none")),
        ([{"x": 2, "y": 0}], "faces.x"),
        (["x"], "faces.0"),
        (5, "faces"),
        ([RIGHT] * 201, "faces"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_choice_that_is_none_is_said_and_makes_no_job(rig: Rig, faces: Any, said: str) -> None:
    before = rig.jobs()
    with rig.session("en") as page:
        messages = restored(page, page.upload(TWO, "a.png"), {"faces": faces})
    assert not succeeded(messages) and said in str(messages)
    assert rig.jobs().keys() == before.keys()


def test_faces_are_offered_after_a_look_only_where_there_is_a_choice(rig: Rig) -> None:
    with rig.session("en") as page:
        many, single = page.upload(TWO, "a.png"), page.upload(encoded(people(), "PNG"), "b.png")
        shown = str(looked(page, many))
        assert set(re.findall(r"Face \d, \w+", shown)) == {"Face 1, left", "Face 2, right"}
        assert "data-x=" not in str(looked(page, single))
        center = page.call(page.endpoint("advise"), [many, None, "", "center"])
    assert EN("advice_adopt") in str(center) and "data-x=" not in str(center), "the setting has chosen already"


def also(page: Session, job: str, face: Any) -> list[dict[str, Any]]:
    return page.call(page.endpoint("also"), [job], {"face": face})


def test_a_face_that_was_skipped_by_a_rule_is_restored_all_the_same(rig: Rig) -> None:
    """With those that were not, and as everything else was asked for."""
    with rig.session() as page:
        first = restored(page, page.upload(TWO, "a.png"), {"faces": [LEFT]}, auto=False, strength=44)
        job = list(rig.jobs())[-1]
        assert str(first[-1]).count("data-also") == 2, "in the list, and where it is looked at"
        again = also(page, job, 1)
    assert succeeded(again)
    before, order = rig.queue.job(job).request, requests(rig)[-1]
    assert isinstance(before, Enhance) and order == replace(before, faces=order.faces) and len(order.faces) == 2
    assert {face.state for face in rig.queue.finished(1)[0].final.faces} <= {"restored", "softened"}


@pytest.mark.parametrize("face", [2, -1, None, "0", 0.5, [0]], ids=str)
def test_what_is_no_face_of_that_photo_makes_no_job(rig: Rig, face: Any) -> None:
    with rig.session("en") as page:
        restored(page, page.upload(TWO, "a.png"), {"faces": [LEFT]})
        before = rig.jobs()
        assert not succeeded(also(page, list(before)[-1], face))
        assert not succeeded(also(page, "f" * 32, 0))
    assert rig.jobs().keys() == before.keys()


def test_of_a_photo_that_is_gone_one_is_told(rig: Rig) -> None:
    with rig.session("en") as page:
        restored(page, page.upload(TWO, "gone.png"), {"faces": [LEFT]})
        order = requests(rig)[-1]
        Path(order.image).unlink()
        messages = also(page, list(rig.jobs())[-1], 1)
    assert EN.error("not_found", {"name": "gone.png", "what": "picture"}) in str(messages)


BOXES = ((0.1, 0.1, 0.2, 0.3), (0.4, 0.4, 0.2, 0.2), (0.8, 0.9, 0.1, 0.1))


def test_a_face_is_called_by_its_number_and_its_place() -> None:
    names = [button["aria-label"] for button in tree(face_report.pick_html(BOXES, ZH)).all("button")]
    assert names == ["第 1 张脸,左上", "第 2 张脸,中间", "第 3 张脸,右下"]
    assert [button["aria-pressed"] for button in tree(face_report.pick_html(BOXES, EN)).all("button")] == ["true"] * 3
    assert face_report.pick_html(BOXES[:1], ZH) == ""


def test_faces_can_be_looked_at_closely_and_where_that_shows_nothing_they_are_not_offered() -> None:
    reports = [report("restored", 70, box=BOXES[0]), report("skipped", 0, "already sharp", BOXES[1])]
    whole, first, second = tree(face_report.strip_html(reports, "a.png", ZH)).all("button")
    assert (whole["data-face"], whole["aria-pressed"]) == ("", "true")
    assert first["aria-label"] == "第 1 张脸,左上 · 已修复 70%" and "data-offer" not in first
    assert second["aria-label"] == "第 2 张脸,中间 · 跳过:已经清晰" and "data-offer" in second
    large = [report("restored", 70, box=(0.2, 0.1, 0.5, 0.7))]
    missed = report("skipped", 0, "no face is there", (0.5, 0.5, 0.0, 0.0))
    assert face_report.strip_html(large, "a.png", ZH) == face_report.strip_html([missed], "a.png", ZH) == ""
    assert len(tree(face_report.strip_html([*reports, missed], "a.png", ZH)).all("button")) == 3


# ---- no face


def test_a_photo_without_a_face_can_be_cleaned_all_the_same(rig: Rig) -> None:
    with rig.session() as page:
        photo = page.upload(encoded(scene(), "PNG"), "山.png")
        failed = restored(page, photo, auto=False, strength=44, format="jpeg")
        job = list(rig.jobs())[-1]
        messages = page.call(page.endpoint("anyway"), [job])
    assert ZH("error_no_face") in str(failed[-1]) and "data-anyway" in str(failed[-1])
    assert rig.jobs()[job] == "failed"
    assert succeeded(messages)
    asked, order = rig.queue.job(job).request, requests(rig)[-1]
    assert isinstance(asked, Enhance) and order == replace(asked, whole_picture=True)
    assert (order.strength, order.format, order.name) == (44, "jpeg", "山.png")
    assert rig.queue.finished(1)[0].job.request == order


def test_left_to_itself_a_photo_without_a_face_is_cleaned_at_once(rig: Rig) -> None:
    with rig.session("en") as page:
        messages = restored(page, page.upload(encoded(scene(), "PNG"), "hill.png"))
    assert succeeded(messages) and EN("stage_cleaned", seconds="").split("  ")[0][:20] in str(messages)
    assert list(rig.jobs().values())[-1] == "done"


def test_the_advice_cleans_a_photo_that_was_not_restored_yet(rig: Rig) -> None:
    with rig.session() as page:
        endpoint = page.endpoint("whole")
        values = page.values(endpoint)
        assert succeeded(page.call(endpoint, [page.upload(encoded(scene(), "PNG"), "a.png"), *values[1:]]))
    assert requests(rig)[-1].whole_picture is True


def test_only_a_restoration_is_done_once_more(rig: Rig) -> None:
    drawn = rig.queue.submit(Generate("x", bundle="sketch", width=64, height=64, steps=1))
    list(rig.queue.follow(drawn))
    before = rig.jobs()
    with rig.session("en") as page:
        page.call(page.endpoint("anyway"), [drawn])
        assert EN.error("not_found", {"name": "f" * 32, "what": "job"}) in str(
            page.call(page.endpoint("anyway"), ["f" * 32])
        )
    assert rig.jobs().keys() == before.keys()


def test_the_button_is_there_for_no_other_failure(rig: Rig) -> None:
    with rig.session() as page:
        assert "data-anyway" not in str(restored(page, page.upload(b"hello", "a.png"))[-1])


def test_the_result_says_what_became_of_each_face(rig: Rig) -> None:
    with rig.session() as page:
        messages = restored(page, page.upload(encoded(people(2), "PNG"), "a.png"), min_face_px=8)
    shown = str(messages[-1])
    reports = rig.queue.finished(1)[0].final.faces
    assert len(reports) == 2
    for number, face in enumerate(reports, start=1):
        assert face_report.face_text(face, ZH) in shown
        assert f">{number}</span>" in shown
    assert "compare fits" in shown


def test_the_switch_and_the_words_speak_of_the_same_size() -> None:
    from webui import asset_files

    assert "LONGEST_PX = 2560" in asset_files.script("upload.js")
    assert all("2560" in say("restore_prescale_hint") for say in (ZH, EN))
    assert "awportrait-prescale" in photo_settings.SHRINK and "awportrait-prescale" in photo_settings.SHRINKS


def test_a_number_of_facts_is_no_advice() -> None:
    """Only what is something is worth saying."""
    settings: dict[str, Fact] = {"strength": 0, "mode": "natural", "denoise": 0}
    assert face_report.advice_text(replace(ADVICE, settings=settings), EN) == "3 faces, blurred. Suggested: Natural."
