"""Events become scenes, and scenes HTML: what is shown is named, timed and told in both languages."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import pytest

from engines.errors import Fact
from engines.jobs import Place
from engines.messages import (
    Event,
    FaceReport,
    Failed,
    Final,
    Note,
    Preview,
    Progress,
)
from engines.messages.cautions import Caution
from tests.support.events import ONE, PICTURE, denoise, play
from tests.support.http import tree
from webui.i18n import LANGUAGES, words
from webui.stage import job_html, status_text
from webui.stream import LOG_LINES, JobView, Tile, Versus, advance, begun, waiting

ZH, EN = words("zh"), words("en")


def test_one_portrait_from_first_to_last() -> None:
    scenes = [play(*ONE[: k + 1]) for k in range(len(ONE))]
    assert [scene.status for scene in scenes] == [
        "stage_load", "stage_encode", *["stage_denoise"] * 7, *["stage_decode"] * 2, "stage_done_one",
    ]  # fmt: skip
    images = [scene.current.image if scene.current else "" for scene in scenes]
    assert images == [
        *[""] * 3, *["preview_1.webp"] * 2, *["preview_2.webp"] * 3, *["preview_4.webp"] * 2, *[PICTURE] * 2,
    ]  # fmt: skip
    assert [scene.eta_s for scene in scenes] == [None, 2.5, 2.0, 2.0, 1.5, 1.5, 1.0, 0.5, 0.5, 0.5, 0.5, None]
    assert [scene.state for scene in scenes] == ["running"] * 11 + ["done"]


def test_a_job_that_begins_anew_shows_nothing_of_its_first_attempt() -> None:
    """A crash came in between, and the pictures of that attempt are deleted."""
    scene = play(*ONE[:-1], Progress("load", 0, 1))
    assert (scene.current, scene.before, scene.fraction) == (None, "", 0.0)
    assert play(*ONE[:-1], *ONE) == play(*ONE)


def test_the_bar_only_ever_grows_and_ends_full() -> None:
    shown = [play(*ONE[: k + 1]).fraction for k in range(len(ONE))]
    assert shown == sorted(shown)
    assert shown[-1] == 1
    assert 0.85 <= shown[-2] < 1, "the full decode is still to come"
    assert shown[2] == pytest.approx(0.9 / 4)


def test_each_decoder_is_named_with_the_time_it_first_showed_something() -> None:
    done = play(*ONE)
    assert done.tiles == (Tile(PICTURE, "vae", 4, tiny_s=0.4, vae_s=1.9, finished=True),)
    assert (done.seed, done.reason) == (77, "ort on CPU")
    html = job_html(done, EN)
    assert "TAESD preview · 0.4 s" in html and "Full VAE · 1.9 s" in html
    assert "seed 77" in html and "Engine: ort on CPU" in html


@pytest.mark.parametrize(
    ("say", "preview", "full"), [(ZH, "快速预览", "完整画质"), (EN, "Quick preview", "Full picture")]
)
def test_the_page_says_which_decoder_drew_what_it_shows(say: Callable[..., str], preview: str, full: str) -> None:
    def badge(scene: JobView) -> str:
        return job_html(scene, say).split('class="badge')[1].split(">")[1].split("<")[0]

    assert badge(play(*ONE[:4])).startswith(preview) and badge(play(*ONE[:10])).startswith(preview)
    assert badge(play(*ONE[:11])) == badge(play(*ONE)) == full


def many(pictures: int = 4) -> list[Event]:
    events: list[Event] = [Progress("load", 0, 1), Progress("encode", 0, 4, None, 1, pictures)]
    for k in range(1, pictures + 1):
        events += [denoise(2, picture=k, pictures=pictures), Preview(2, f"preview_{k}.webp", k - 0.5, "tiny", k)]
        events += [denoise(4, picture=k, pictures=pictures), Progress("decode", 4, 4, None, k, pictures)]
        events += [Preview(4, f"outputs_{k}.png", float(k), "vae", k, "result")]
    return [*events, Final(tuple(f"outputs_{k}.png" for k in range(1, pictures + 1)), 5, 4.2, "ort")]


def test_four_portraits_of_which_the_newest_is_shown_and_in_the_end_the_first() -> None:
    shown = [scene.current.image for k in range(len(many())) if (scene := play(*many()[: k + 1])).current]
    assert [image for image, _ in groupby(shown)] == [
        "preview_1.webp", "outputs_1.png", "preview_2.webp", "outputs_2.png", "preview_3.webp", "outputs_3.png",
        "preview_4.webp", "outputs_4.png", "outputs_1.png",
    ]  # fmt: skip
    assert [tile.image for tile in play(*many()).tiles] == [f"outputs_{k}.png" for k in range(1, 5)]
    assert [tile.tiny_s for tile in play(*many()).tiles] == [0.5, 1.5, 2.5, 3.5]


def test_the_bar_of_four_grows_over_all_of_them() -> None:
    shown = [play(*many()[: k + 1]).fraction for k in range(len(many()))]
    assert shown == sorted(shown)
    assert play(*many()[:12]).fraction == pytest.approx((1 + 0.9) / 4, abs=0.03)


@pytest.mark.parametrize(("say", "line"), [(ZH, "第 2/4 张 · 4/4 · 48%"), (EN, "picture 2/4 · 4/4 · 48%")])
def test_the_line_of_four_names_the_picture(say: Callable[..., str], line: str) -> None:
    assert status_text(play(*many()[:10]), say).endswith(line)


def test_a_strip_shows_every_picture_and_lets_each_be_chosen() -> None:
    strip = tree(job_html(play(*many()), EN)).all("button")
    assert [button["data-show"] for button in strip if "data-show" in button] == [
        f"outputs_{k}.png" for k in range(1, 5)
    ]
    assert all(button["aria-label"] and button["type"] == "button" for button in strip if "data-show" in button)
    assert not [b for b in tree(job_html(play(*ONE), EN)).all("button") if "data-show" in b], "one needs no strip"


def test_preview_only_offers_to_develop() -> None:
    only = (*ONE[:10], Preview(4, PICTURE, 1.4, "tiny", kind="result"), Final((PICTURE,), 77, 1.5, "ort", "", "tiny"))
    done = play(*only)
    assert (done.status, done.tiles[0].shown_by, done.tiles[0].vae_s) == ("stage_kept", "tiny", None)
    develop = [button for button in tree(job_html(done, ZH)).all("button") if "data-develop" in button]
    assert [button["data-develop"] for button in develop] == [PICTURE]
    assert "TAESD" in job_html(done, ZH) and "完整 VAE</span>" not in job_html(done, ZH)
    assert "data-develop" not in job_html(play(*ONE), ZH), "what the full decoder drew is developed"


def looks(count: int, pictures: int = 6) -> list[Event]:
    """What comes of a contact sheet until so many of its looks are there."""
    events: list[Event] = [Progress("load", 0, 1)]
    for k in range(1, count + 1):
        events += [denoise(4, picture=k, pictures=pictures), Progress("decode", 4, 4, None, k, pictures)]
        events += [Preview(4, f"outputs_{k}.png", 1.0 * k, "tiny", k, "result")]
    return events


def test_a_contact_sheet_shows_its_looks_as_they_come_each_to_be_finished() -> None:
    drawing = play(*looks(2))
    sheet = tree(job_html(drawing, EN))
    assert [b["data-develop"] for b in sheet.all("button") if "data-develop" in b] == ["outputs_1.png", "outputs_2.png"]
    assert len([b for b in sheet.all("button") if "data-develop" in b and b["aria-label"]]) == 2
    assert job_html(drawing, EN).count("<span></span>") == 4, "room for those that are to come"
    assert "data-vary" not in job_html(drawing, EN), "there is enough to look at"
    names = tuple(f"outputs_{k}.png" for k in range(1, 7))
    done = play(*looks(6), Final(names, 77, 6.5, "ort", "", "tiny"))
    assert (done.status, done.facts["count"]) == ("stage_sheet", 6)
    assert offered(done) == ["data-develop"] * 6 + ["data-vary"], "a look is no picture to be saved"
    assert "data-show" not in job_html(done, EN)
    stopped = play(*looks(2), Failed("cancelled", ""))
    assert offered(stopped) == ["data-develop"] * 2 + ["data-vary"], "those that are there can be finished"


def test_what_is_no_contact_sheet_is_shown_in_large() -> None:
    assert not play(*looks(1, pictures=1)).is_contact_sheet, "a single look"
    assert not any(play(*many()[:count]).is_contact_sheet for count in range(len(many())))


def test_what_was_chosen_from_a_contact_sheet_leads_back_to_it() -> None:
    scene = JobView(task="develop", state="running", sheet="abc")
    done = play(Final((PICTURE,), 9, 0.81, "ort", "why"), scene=scene)
    back = [button["data-sheet"] for button in tree(job_html(done, EN)).all("button") if "data-sheet" in button]
    assert back == ["abc"]


def test_what_was_not_understood_is_named_in_the_end() -> None:
    scene = JobView(state="running", unknown=("猫", "<b>"))
    assert "猫" not in job_html(play(*ONE[:-1], scene=scene), EN)
    assert EN("portrait_unknown", words="猫, &lt;b&gt;") in job_html(play(*ONE, scene=scene), EN)


def test_a_portrait_drawn_again_lies_under_a_slider_with_the_first() -> None:
    scene = JobView(state="running", versus=Versus("first.png", "backend_edge", "backend_pytorch"))
    assert "first.png" not in job_html(play(*ONE[:-2], scene=scene), EN), "while it is drawn, that is what is shown"
    shown = job_html(play(*ONE, scene=scene), EN)
    assert shown.index("first.png") < shown.index(PICTURE) and 'type="range"' in shown
    assert shown.index(EN("backend_edge")) < shown.index(EN("backend_pytorch"))


LOOKS = ("data-show", "data-face", "data-also")  # of strips


def offered(scene: JobView) -> list[str]:
    buttons = tree(job_html(scene, EN)).all("button")
    return [name for button in buttons for name in button if name.startswith("data-") and name not in LOOKS]


def test_a_finished_picture_leads_on() -> None:
    """To more of its kind, to a form that takes photos; to which of these, the picture that is shown says."""
    shared = ["data-share-picture", "data-instead", "data-copy-picture", "data-done"]
    done = play(*ONE)
    assert offered(done) == ["data-vary", *shared, "data-restore", "data-begin-with", "data-again"]
    named = {
        b[name]
        for b in tree(job_html(done, EN)).all("button")
        for name in ("data-restore", "data-begin-with", "data-again")
        if name in b
    }
    assert named == {PICTURE}
    developed = play(Final((PICTURE,), 9, 0.81, "ort", "why"), scene=JobView(task="develop", state="running"))
    assert offered(developed) == [*shared, "data-restore", "data-begin-with"], "no words to draw others by"
    restored = play(*RESTORATION, scene=JobView(task="enhance", state="running"))
    assert offered(restored) == shared
    assert offered(play(*ONE[:4])) == [], "what is not finished leads nowhere"


def test_a_developed_picture() -> None:
    events = (Progress("load", 0, 1), Progress("decode", 0, 1), Final((PICTURE,), 9, 0.81, "ort", "why"))
    done = play(*events, scene=JobView(task="develop", state="running"))
    assert (done.state, done.status, done.tiles[0].image) == ("done", "stage_developed", PICTURE)
    assert status_text(done, EN) == "✅ Developed in 0.8 s"
    assert "data-develop" not in job_html(done, EN)


RESTORATION: tuple[Event, ...] = (
    Progress("load", 0, 1),
    Preview(0, "preview_before.webp", 0.0, kind="before"),
    Progress("restore", 0, 1),
    Final((PICTURE,), 0, 1.26, "ort", "ort on CPU", faces=(FaceReport((0.1, 0.2, 0.3, 0.4), "restored", 70),)),
)


def test_a_restoration_shows_the_photo_at_once_and_then_both() -> None:
    start = JobView(task="enhance", state="running", status="stage_load")
    meanwhile, done = play(*RESTORATION[:3], scene=start), play(*RESTORATION, scene=start)
    assert [image["src"] for image in tree(job_html(meanwhile, EN)).all("img")] == ["outputs/preview_before.webp"]
    assert 'type="range"' not in job_html(meanwhile, EN)
    assert list(dict.fromkeys(image["src"] for image in tree(job_html(done, EN)).all("img"))) == [
        "outputs/preview_before.webp", f"outputs/{PICTURE}",
    ]  # fmt: skip
    assert status_text(done, ZH) == ZH("stage_restored", seconds="1.3")
    assert "seed" not in job_html(done, EN), "a restoration has none"


@pytest.mark.parametrize("language", LANGUAGES)
def test_before_and_after_are_compared_by_a_labelled_range(language: str) -> None:
    """A range input can be moved by keyboard, and its label is read out."""
    say = words(language)
    done = play(*RESTORATION, scene=JobView(task="enhance"))
    sliders = tree(job_html(done, say)).all("input")
    assert len(sliders) == 2, "of the whole picture, and of a face"
    for slider in sliders:
        assert slider["type"] == "range"
        assert (slider["min"], slider["max"], slider["value"]) == ("0", "100", "50")
        assert slider["aria-label"] == say("restore_compare")
    assert {image["alt"] for image in tree(job_html(done, say)).all("img")} - {""} == {
        say("restore_before"),
        say("restore_after"),
    }


@pytest.mark.parametrize("say", [ZH, EN])
def test_a_cancelled_job_says_so_without_alarm(say: Callable[..., str]) -> None:
    line = status_text(play(*ONE[:7], Failed("cancelled", "after 1.2 s")), say)
    assert line == say("error_cancelled")
    assert "❌" not in line and "%" not in line


def test_what_was_finished_before_a_cancel_is_not_lost() -> None:
    cancelled = play(*many()[:13], Failed("cancelled", "after 3.2 s"))
    assert [tile.finished for tile in cancelled.tiles] == [True, True]
    assert status_text(cancelled, EN) == f"{EN('error_cancelled')} {EN('stage_kept_pictures', count=2)}"
    assert status_text(play(*ONE[:7], Failed("cancelled", "")), EN) == EN("error_cancelled"), "none to speak of"


@pytest.mark.parametrize(
    ("code", "facts", "part"),
    [
        ("blank_picture", {}, "空白"),
        ("engine_failed", {"engine": "ort"}, "ort"),
        ("storage_failed", {"why": "No space left on device"}, "磁盘已满"),
        ("of_the_future", {}, "内部出错"),
        ("engine_failed", {}, "?"),
    ],
)
def test_a_failure_in_the_middle_says_what_to_do_and_keeps_the_picture_so_far(
    code: str, facts: dict[str, Fact], part: str
) -> None:
    failed = play(*ONE[:6], Failed(code, "/secret/detail", facts))
    line = status_text(failed, ZH)
    assert line.startswith("❌ ") and part in line
    html = job_html(failed, ZH)
    assert "/secret/detail" not in html, "details are for the log"
    assert "preview_2.webp" in html and "is-failed" in html
    assert failed.eta_s is None and "<progress" not in html


def test_a_failure_before_anything_was_drawn_leaves_an_empty_frame() -> None:
    html = job_html(play(ONE[0], Failed("empty_prompt", "")), EN)
    assert not tree(html).all("img")
    assert EN("error_empty_prompt") in html


def test_the_waiting_line_and_its_end() -> None:
    scene = waiting(JobView(caption="x"), Place(3, 41.0))
    assert (scene.state, scene.eta_s) == ("running", 41.0)
    after = begun(scene)
    assert (after.state, after.status, after.facts, after.eta_s) == ("running", "stage_load", {}, None)


@pytest.mark.parametrize(
    ("eta_s", "zh", "en"),
    [
        (None, "排队中,前面 2 个", "Waiting: 2 jobs ahead"),
        (0.2, "排队中,前面 2 个 · 约 5 秒", "Waiting: 2 jobs ahead · about 5 s"),
        (38.0, "排队中,前面 2 个 · 约 40 秒", "Waiting: 2 jobs ahead · about 40 s"),
        (144.0, "排队中,前面 2 个 · 约 140 秒", "Waiting: 2 jobs ahead · about 140 s"),
        (299.0, "排队中,前面 2 个 · 约 300 秒", "Waiting: 2 jobs ahead · about 300 s"),
        (400.0, "排队中,前面 2 个 · 约 7 分钟", "Waiting: 2 jobs ahead · about 7 min"),
    ],
)
def test_who_waits_is_told_roughly_how_long(eta_s: float | None, zh: str, en: str) -> None:
    scene = waiting(JobView(), Place(2, eta_s))
    assert (status_text(scene, ZH), status_text(scene, EN)) == (zh, en)


@pytest.mark.parametrize(
    ("eta_s", "zh", "en"),
    [
        (0.25, "剩余约 0.2 秒", "about 0.2 s left"),
        (12.34, "剩余约 12.3 秒", "about 12.3 s left"),
        (59.96, "剩余约 60.0 秒", "about 60.0 s left"),
        (75.5, "剩余约 76 秒", "about 76 s left"),
        (119.0, "剩余约 119 秒", "about 119 s left"),
        (340.0, "剩余约 6 分钟", "about 6 min left"),
    ],
)
def test_percent_and_time_left_are_in_the_line(eta_s: float, zh: str, en: str) -> None:
    scene = play(ONE[0], denoise(3, 8, eta_s))
    assert status_text(scene, ZH).endswith(f"3/8 · 34% · {zh}")
    assert status_text(scene, EN).endswith(f"3/8 · 34% · {en}")
    (bar,) = tree(job_html(scene, EN)).all("progress")
    assert (bar["max"], bar["value"]) == ("100", "34")


def test_an_unknown_time_left_is_not_invented() -> None:
    assert status_text(play(denoise(3, 8)), EN) == "Drawing: 3/8 · 34%"


def test_an_idle_stage_says_how_to_begin() -> None:
    assert EN("stage_empty") in job_html(JobView(), EN)
    assert EN("restore_empty") in job_html(JobView(task="enhance", status="restore_empty"), EN)


def test_the_status_is_announced_and_the_picture_described() -> None:
    parsed = tree(job_html(play(*ONE), EN))
    assert [p for p in parsed.all("p") if p.get("role") == "status"]
    assert parsed.all("img")[0]["alt"] == "a woman"


def test_the_finished_picture_can_be_downloaded_under_its_name() -> None:
    link = next(a for a in tree(job_html(play(*ONE), EN)).all("a") if "download" in a)
    assert (link["href"], link["download"]) == (f"outputs/{PICTURE}", PICTURE)
    assert "download" not in job_html(play(*ONE[:9]), EN), "a preview is no result"


BUILD = JobView(task="build")


def test_a_build_from_first_to_last() -> None:
    events: tuple[Event, ...] = (
        Progress("prepare", 0, 4),
        Note("— store restorer"),
        Progress("export", 1, 4, 40.0),
        Note("— export restorer"),
        Progress("verify", 3, 4, 300.0),
        Final((), 0, 61.0, "toolchain", "mine: 5.2 MB"),
    )
    scenes = [play(*events[: k + 1], scene=BUILD) for k in range(len(events))]
    assert [scene.fraction for scene in scenes] == [0, 0, 0.25, 0.25, 0.75, 1.0]
    assert [status_text(scene, EN) for scene in (scenes[2], scenes[4], scenes[5])] == [
        "Exporting the networks… · 2/4 · about 40.0 s left",
        "Verifying… · 4/4 · about 5 min left",
        "✅ The model is built, in 61 s. mine: 5.2 MB",
    ]
    assert scenes[-1].log == ("— store restorer", "— export restorer")
    assert (scenes[-1].state, scenes[-1].seconds, scenes[-1].tiles) == ("done", 61.0, ())


def test_a_child_that_starts_anew_does_not_turn_the_bar_back() -> None:
    scene = play(Progress("verify", 3, 4), Progress("prepare", 0, 1), scene=BUILD)
    assert scene.fraction == 0.75 and scene.status == "stage_prepare"


def test_a_note_is_a_line_of_the_log_and_changes_nothing_else() -> None:
    before = play(denoise(2, eta_s=3.0))
    after = advance(before, Note("one\ntwo"))
    assert after.log == ("one", "two")
    assert (after.status, after.facts, after.fraction, after.eta_s) == (
        before.status, before.facts, before.fraction, before.eta_s,
    )  # fmt: skip
    assert advance(after, Note("")).log == after.log


def test_a_log_keeps_its_last_lines() -> None:
    scene = play(*(Note(f"{k}a\n{k}b") for k in range(LOG_LINES)), scene=BUILD)
    assert len(scene.log) == LOG_LINES
    assert scene.log[-1] == f"{LOG_LINES - 1}b" and scene.log[0] == f"{LOG_LINES // 2}a"


def test_a_build_that_waits_or_begins_does_not_speak_of_pictures() -> None:
    assert status_text(begun(BUILD), ZH) == ZH("stage_prepare")
    assert status_text(waiting(BUILD, Place(2, None)), ZH) == ZH("stage_waiting", ahead=2)


def test_an_end_without_pictures_draws_none() -> None:
    for task in ("build", "generate", "enhance", "develop"):
        done = play(Final((), 0, 1.0, "x", "why"), scene=JobView(task=task, state="running"))
        assert done.state == "done" and done.current is None
        assert not tree(job_html(done, EN)).all("img")


def restoring(step: int, total: int) -> Progress:
    return Progress("restore", step, total, 3.0 if step else None)


ENHANCE = JobView(task="enhance", state="running")


def test_the_face_that_is_being_restored_is_named() -> None:
    scenes = [play(restoring(k, 3), scene=ENHANCE) for k in range(3)]
    assert [status_text(scene, ZH) for scene in scenes] == [
        "正在修复:第 1/3 张脸", "正在修复:第 2/3 张脸 · 剩余约 3.0 秒", "正在修复:第 3/3 张脸 · 剩余约 3.0 秒",
    ]  # fmt: skip
    assert status_text(play(restoring(0, 1), scene=ENHANCE), EN) == EN("stage_restore"), "one needs no number"
    shown = [scene.fraction for scene in scenes]
    assert shown == sorted(shown) and shown[-1] < 1


def finished(*states: str) -> JobView:
    faces = tuple(FaceReport((0.1, 0.2, 0.3, 0.4), state, 70, "already sharp") for state in states)  # type: ignore[arg-type]
    final = Final(("outputs_1-奶奶.jpg",), 0, 1.0, "ort", faces=faces)
    return play(Preview(0, "preview_1.webp", kind="before"), final, scene=ENHANCE)


def test_a_photo_whose_faces_were_left_alone_is_not_called_restored() -> None:
    assert finished("skipped", "skipped").status == "stage_left_alone"
    assert finished("skipped", "softened").status == finished("restored").status == "stage_restored"
    assert finished().status == "stage_cleaned", "there was none"


def test_each_face_has_a_mark_on_the_picture_and_a_line_beneath() -> None:
    parsed = tree(job_html(finished("restored", "skipped"), EN))
    marks = [span["class"] for span in parsed.all("span") if "left:" in span.get("style", "")]
    assert marks == ["face is-restored", "face is-skipped"] and len(parsed.all("li")) == 2
    boxes = [div["class"] for div in parsed.all("div") if div.get("class", "").startswith("compare")]
    assert boxes == ["compare fits", "compare zoom"], "as large as its pictures, or the marks would lie elsewhere"
    assert not [span for span in tree(job_html(play(*ONE), EN)).all("span") if span.get("style")]


def test_a_name_in_any_script_is_an_address() -> None:
    links = {a["href"]: a.get("download") for a in tree(job_html(finished("restored"), EN)).all("a")}
    assert links == {"outputs/outputs_1-%E5%A5%B6%E5%A5%B6.jpg": None} or "outputs_1-奶奶.jpg" in links.values()
    assert all(href.isascii() for href in links)


def test_only_a_photo_without_a_face_offers_a_way_out() -> None:
    for code, there in (("no_face", True), ("faces_turned", True), ("bad_image", False), ("cancelled", False)):
        buttons = tree(job_html(play(Failed(code, "", {"turn": 270}), scene=ENHANCE), EN)).all("button")
        assert any("data-anyway" in button for button in buttons) is there
        assert [b["data-turn"] for b in buttons if "data-turn" in b] == ["270"] * (code == "faces_turned")


def test_what_is_missing_of_a_photo_is_said_beside_it() -> None:
    final = Final(("outputs_1.png",), 7, 2.0, "ort", warnings=(Caution("photo_cut_off", {"percent": 36}),))
    for say in (ZH, EN):
        assert say("warning_photo_cut_off", percent=36) in job_html(play(final, scene=ENHANCE), say)


def test_a_lora_that_could_not_be_loaded_is_told_beside_the_picture() -> None:
    final = Final(("outputs_1.png",), 7, 2.0, "torch", "torch on CPU", without=("glow", "<b>"))
    html = job_html(play(final), ZH)
    assert "LoRA 加载失败" in html and "glow" in html and "<b>" not in html
    assert "outputs_1.png" in html
