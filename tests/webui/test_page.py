"""The page's handlers over Gradio's queue: what a person is shown, and what a stranger may send."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import gradio as gr
import pytest

import presets
from engines.messages import CREDIT, Develop, Generate, Inspect, unpack
from tests.support.http import SKETCH, Session, encoded, people, scene, succeeded
from webui.boards.photos import LIMIT
from webui.i18n import words
from webui.panels import history
from webui.panels.portrait import controls as portrait
from webui.widgets.photo_settings import NAMES

if TYPE_CHECKING:
    from tests.support.server import Rig

ZH, EN = words("zh"), words("en")
BACK = ("_1", "_2", "_3", "_4", "_5")  # handlers of one name are numbered


def generate(page: Session, prompt: str, **changes: Any) -> list[dict[str, Any]]:
    return page.call(page.endpoint("generate"), page.sketching(prompt, **changes))


def writers(rig: Rig, elem_id: str) -> list[Any]:
    """What may change the component; one press begins what takes longer, and nothing else waits for it."""
    (mounted,) = (route.app for route in rig.routes if isinstance(getattr(route, "app", None), gr.routes.App))
    fns = mounted.get_blocks().fns.values()
    asked = [
        fn for fn in fns if fn.name != "start" and not (fn.js and fn.fn is None)
    ]  # what a browser does, it does at once
    return [fn for fn in asked if any(part.elem_id == elem_id for part in fn.outputs)]


@pytest.mark.parametrize(
    "elem_id", ["models", "batch-board", "bundle", "steps", "compare-a", "loras-0", "build-source"]
)
def test_what_looks_never_hides_what_a_press_began(rig: Rig, elem_id: str) -> None:
    """
    Gradio takes waiting events in a random order, but one after the other where they share a queue of one. A batch's
    start stores its photos, for which nobody else should wait.
    """
    fns = writers(rig, elem_id)
    assert len(fns) > 2 and {fn.concurrency_limit for fn in fns} == {1}
    assert len({fn.concurrency_id for fn in fns}) == 1


def test_a_portrait_from_click_to_picture(rig: Rig) -> None:
    with rig.session("en") as page:
        messages = generate(page, "a woman <b>", count=2, seed=11)
    shown = [str(message.get("output", "")) for message in messages]
    assert succeeded(messages)
    first = [
        next(k for k, text in enumerate(shown) if part in text) for part in ("preview_", "outputs_", "Done: 2 pictures")
    ]
    assert first == sorted(first), "a preview comes first"
    assert "seed 11" in shown[-1] and "&lt;b&gt;" in shown[-1]
    assert rig.queue.finished(1)[0].final.seed == 11


def test_what_was_asked_on_the_page_is_what_is_drawn(rig: Rig) -> None:
    with rig.session() as page:
        asked = page.sketching(
            "word", negative="none", size="96×64", steps=3, guidance=1.5, seed=4, count=2, backend="edge", preview="off"
        )
        assert succeeded(page.call(page.endpoint("generate"), asked))
    wanted = Generate("word", "none", 96, 64, 3, 1.5, 4, 2, "sketch", "edge", preview="off")
    assert rig.queue.finished(1)[0].job.request == wanted


@pytest.mark.parametrize(("language", "say"), [("zh-CN,zh;q=0.9", ZH), ("en-US", EN), ("fr", EN)])
def test_what_goes_wrong_is_said_in_the_browsers_language(rig: Rig, language: str, say: Any) -> None:
    with rig.session(language) as page:
        assert say("error_empty_prompt") in str(generate(page, "  ")[-1])
        long = str(generate(page, "x" * 4001)[-1])
        assert say.error("bad_option", {"field": "prompt length", "value": 4001, "allowed": "0 … 4000"}) in long


def test_a_seed_that_was_cleared_is_drawn_by_lot(rig: Rig) -> None:
    with rig.session() as page:
        assert succeeded(generate(page, "x", seed=None, guidance=1.5))
    assert rig.queue.finished(1)[0].job.request == Generate("x", "", 64, 64, 2, 1.5, -1, 1, "sketch", "edge")


def test_cancel_stops_the_job_and_the_page_says_so(rig: Rig) -> None:
    with rig.stuck(), rig.session("en") as page, rig.session("en", of=page) as button:
        assert page.join(page.endpoint("generate"), page.sketching("cancelled soon")).status_code == 200
        messages = page.listen()
        assert any(EN("stage_waiting", ahead=1) in str(message) for message in messages)
        job_id = list(rig.jobs())[-1]
        heard = button.call(button.endpoint("stop"), [job_id])
        assert succeeded(heard) and EN("stage_cancelling") in str(heard[-1]), (
            "the button says at once that it was heard"
        )
        rest = list(messages)
    assert EN("error_cancelled") in str(rest[-1])
    assert rig.jobs()[job_id] == "cancelled"


def test_a_kept_preview_can_be_developed(rig: Rig) -> None:
    with rig.session("en") as page:
        generate(page, "x", preview="only")
        name = rig.queue.finished(1)[0].final.images[0]
        messages = page.call(page.endpoint("develop"), ["edge"], {"name": rig.house.keys.sign(name)})
    assert rig.queue.finished(1)[0].job.request == Develop(name, "edge")
    assert "Developed in" in str(messages[-1])


def test_developing_what_was_not_kept_is_refused_in_words(rig: Rig) -> None:
    with rig.session("en") as page:
        messages = page.call(
            page.endpoint("develop"), ["edge"], {"name": rig.house.keys.sign("outputs_20200101000000.png")}
        )
        others = page.call(page.endpoint("develop"), ["edge"], {"name": f"{'0' * 32}/outputs_20200101000000.png"})
    assert EN("error_not_found", what="picture", name="x")[-20:] in str(others[-1]), "its key is not guessed"
    assert "outputs_20200101000000.png (kept latent) is not here" in str(messages[-1])


@pytest.mark.parametrize(("language", "code"), [("zh", "zh"), ("en", "en")])
@pytest.mark.parametrize("preset", presets.load(), ids=lambda preset: preset.name)
def test_a_preset_fills_in_what_the_bundle_understands(
    rig: Rig, preset: presets.Preset, language: str, code: str
) -> None:
    with rig.session(language) as page:
        (message,) = [m for m in page.call(page.endpoint("pick"), ["portrait"], {"name": preset.name}) if "output" in m]
        prompt, negative, size, guidance, *_ = message["output"]["data"]
        sizes = page.components[page.endpoint("generate")["inputs"][2]]["props"]["choices"]
    wording = preset.wording("attributes")
    assert (prompt, negative) == (wording.prompt[code], wording.negative[code])
    assert size in [choice[0] for choice in sizes], "a size that the page offers"
    bundle = next(b for b in rig.queue.status().bundles if b.name == "portrait")
    assert guidance == (bundle.guidance if wording.guidance is None else wording.guidance)


def reuse(page: Session, job_id: str) -> dict[str, Any]:
    """What the controls hold after "use these settings"."""
    endpoint = page.endpoint("reuse")
    (message,) = [m for m in page.call(endpoint, [], {"job": job_id}) if "output" in m]
    assert message["success"], message
    *data, preset = message["output"]["data"]
    values = {**dict(zip(portrait.NAMES, data, strict=False)), "preset": preset}
    return {name: v["value"] if isinstance(v, dict) and "value" in v else v for name, v in values.items()}


def test_a_picture_of_the_history_can_be_taken_up_again(rig: Rig) -> None:
    with rig.session() as page:
        generate(
            page, "again", negative="not this", size="96×64", steps=3, guidance=2.5, seed=8, variety=40, count=2,
            preview="off", preset="film",
        )  # fmt: skip
        values = reuse(page, rig.queue.finished(1)[0].job.id)
    assert {name: value for name, value in values.items() if name not in ("bundle", "backend")} == {
        "prompt": "again", "negative": "not this", "guidance": 2.5, "seed": 8, "variety": 40, "count": 2,
        "preview": "off", "steps": 3, "size": "96×64", "preset": "film",
    }  # fmt: skip


def test_the_seed_that_was_drawn_by_lot_is_taken_up_too(rig: Rig) -> None:
    """To draw a picture again one needs the seed it got, not the wish for any."""
    with rig.session() as page:
        generate(page, "by lot", seed=-1)
        finished = rig.queue.finished(1)[0]
        assert reuse(page, finished.job.id)["seed"] == finished.final.seed


def test_a_picture_that_is_taken_up_again_is_on_the_stage(rig: Rig) -> None:
    """If it is there: somebody may have deleted it."""
    with rig.session("en") as page:
        generate(page, "for the stage", count=2, seed=5)
        finished = rig.queue.finished(1)[0]
        endpoint = page.endpoint("reuse")

        def stage() -> str:
            answer = page.call(endpoint, [], {"job": finished.job.id})[-1]["output"]["data"]
            return str(answer[[page.elem_id(part) for part in endpoint["outputs"]].index("stage")])

        first, second = map(rig.house.keys.sign, finished.final.images)
        assert f'src="outputs/{first}"' in stage() and f'data-show="{second}"' in stage()
        assert "for the stage" in stage() and "is-done" in stage()
        for name in finished.final.images:
            (rig.settings.outputs / name).unlink()
        assert "is-done" not in stage() and "__type__" in stage()


def test_a_picture_drawn_over_rest_can_be_taken_up_on_the_page(rig: Rig) -> None:
    """Such a request leaves to the bundle what it does not say; the page's controls need a value each."""
    rig.client.post("/generate", json={"prompt": "over REST", "bundle": "sketch", "seed": 1}).raise_for_status()
    with rig.session() as page:
        values = reuse(page, rig.queue.finished(1)[0].job.id)
    assert re.fullmatch(r"\d+×\d+", values["size"])
    assert isinstance(values["steps"], int) and isinstance(values["guidance"], int | float)


def test_restored_photos_and_portraits_are_in_the_history(rig: Rig) -> None:
    photo, webp = encoded(people(), "PNG"), {"format": "webp"}
    with rig.session("en") as page:
        page.client.post("/generate", json={"prompt": "in the <i>history</i>", **SKETCH}).raise_for_status()
        path = (
            page.client.post("/enhance", files={"image": ("the <b>.png", photo)}, data=webp)
            .json()["output_path"]
            .removeprefix("/")
        )
        owner = rig.queue.finished(1)[0].job.owner
        for _ in range(history.SHOWN + 5):  # looks at photos end without a picture
            rig.queue.submit(Inspect("gone.jpg"), owner)
        grid = str(page.call(page.endpoint("refresh"), ["mine"]))
    assert "in the &lt;i&gt;history&lt;/i&gt;" in grid
    assert path in grid and path.endswith(".webp")
    assert f"{EN('history_restored')} · the &lt;b&gt;.png" in grid


def test_the_engines_panel_and_the_chip(rig: Rig) -> None:
    with rig.session("en") as page:
        look = page.endpoint("look")
        table, chip, _ = page.answer(look, page.values(look))
    assert "ort" in table and EN("engines_title") in table
    assert "ort on CPU" in chip


LEFT: dict[str, Any] = {
    "prompt": "an old man", "negative": "a hat", "size": "384×512", "steps": 12, "guidance": 2.5, "seed": 7,
    "variety": 35, "count": 3, "bundle": "portrait", "backend": "edge", "preview": "off",
}  # fmt: skip


def recalled(rig: Rig, memory: Any) -> dict[str, Any]:
    """What the controls of portraits hold on a page that is loaded anew; what is left alone is not among it."""
    with rig.session() as page:
        answer = page.answer(page.endpoint("recall_settings"), [memory])
    values = {name: value["value"] if isinstance(value, dict) and "value" in value else value
              for name, value in zip(LEFT, answer, strict=True)}  # fmt: skip
    return {name: value for name, value in values.items() if not isinstance(value, dict)}


def test_a_page_that_is_loaded_anew_is_as_it_was_left(rig: Rig) -> None:
    assert set(LEFT) == set(portrait.NAMES)
    assert recalled(rig, LEFT) == LEFT


def test_what_an_earlier_page_has_left_is_taken_too(rig: Rig) -> None:
    """It had no variety."""
    left = {name: value for name, value in LEFT.items() if name != "variety"}
    assert recalled(rig, left) == {**LEFT, "variety": 0}


def test_without_its_model_the_words_are_still_there(rig: Rig) -> None:
    assert recalled(rig, {**LEFT, "bundle": "gone"}) == {name: LEFT[name] for name in ("prompt", "negative", "count")}


NO_MEMORY: tuple[Any, ...] = (None, "x", [1], {}, {"prompt": "x"}, *(
    {**LEFT, **part} for part in ({"size": "64x64"}, {"size": 5}, {"steps": 1000}, {"count": "many"}, {"seed": 1e300},
                                  {"preview": "x"}, {"prompt": None}, {"prompt": "x" * 5000}, {"bundle": ["portrait"]})
))  # fmt: skip


@pytest.mark.parametrize("memory", NO_MEMORY, ids=lambda memory: str(memory)[:60])
def test_what_nobody_can_have_left_is_forgotten(rig: Rig, memory: Any) -> None:
    assert recalled(rig, memory) == {}


def test_a_backend_that_is_not_here_is_not_chosen(rig: Rig) -> None:
    assert "backend" not in recalled(rig, {**LEFT, "backend": "rm -rf"})


def test_the_page_is_small_on_its_way(rig: Rig) -> None:
    with rig.session() as page:
        answer, plain = (page.client.get("/", headers={"Accept-Encoding": kind}) for kind in ("gzip", "identity"))
    assert answer.headers["content-encoding"] == "gzip" and "<html" in answer.text
    assert answer.num_bytes_downloaded < len(answer.content) / 5
    assert "content-encoding" not in plain.headers and plain.text == answer.text


@pytest.mark.parametrize("path", ["/thumbnails/anime.webp", "/me"])
def test_what_is_compressed_already_or_tiny_goes_as_it_is(rig: Rig, path: str) -> None:
    with rig.session() as page:
        assert "content-encoding" not in page.client.get(path).headers


HOSTILE: tuple[dict[str, Any], ...] = (
    {"size": "0×0"}, {"size": "64x64"}, {"size": "99999×99999"}, {"size": None}, {"size": ["64×64"]},
    {"steps": 1000}, {"steps": "many"}, {"steps": None}, {"count": 100}, {"count": -1}, {"count": 2.5},
    {"guidance": 1e9}, {"seed": 1e300}, {"seed": "x"}, {"seed": 2**40}, {"bundle": "../x"}, {"bundle": None},
    {"backend": "rm -rf"}, {"preview": "x"}, {"prompt": None}, {"prompt": {"a": 1}, "size": "0×0"},
    {"negative": None, "size": "0×0"},
)  # fmt: skip


@pytest.mark.parametrize("changes", HOSTILE, ids=str)
def test_whatever_a_page_sends_what_is_stored_can_be_read_again(idle: Rig, changes: dict[str, Any]) -> None:
    """A job whose request cannot be read stops the worker that takes it, and again at every start."""
    before = idle.requests()
    with idle.session("en") as page:
        messages = page.begin(page.endpoint("generate"), page.sketching(**{"prompt": "x", **changes}))
    assert "Traceback" not in str(messages) and "/site-packages" not in str(messages)
    assert_readable(idle.requests()[len(before) :])


def assert_readable(stored: list[str]) -> None:
    for text in stored:
        assert unpack(text) is not None


@pytest.mark.parametrize(
    "changes",
    [{"strength": 50.5}, {"strength": -1}, {"strength": "x"}, {"strength": None}, {"mode": "x"}, {"mode": None},
     {"denoise": 1e300}, {"contrast": 0.5}, {"brightness": [1]}, {"protect_skin": "maybe"}, {"protect_skin": None},
     {"backend": None}, {"bundle": None}, {"bundle": "../x"}, {"bundle": ["restorer"]}, {"faces": None},
     {"faces": ["center"]}, {"whole_picture": "x"}, {"min_face_px": 0}, {"min_face_px": None}, {"fading": 101},
     {"scratches": "x"}, {"format": "gif"}, {"format": None}, {"quality": 0}, {"quality": None}, {"keep_date": 7}],
    ids=str,
)  # fmt: skip
def test_whatever_a_page_asks_to_restore_it_can_be_read_again(idle: Rig, changes: dict[str, Any]) -> None:
    before = idle.requests()
    with idle.session("en") as page:
        endpoint = page.endpoint("restore")
        values = dict(zip(NAMES, page.values(endpoint)[1:], strict=True))
        photo = page.upload(encoded(scene(), "PNG"), "a.png")
        hostile = list({**values, **changes}.values())
        page.begin(endpoint, [photo, *hostile])
        page.begin(page.endpoint("whole"), [photo, *hostile])
        page.begin(page.endpoint("start"), [[photo], [], *hostile])
    assert_readable(idle.requests()[len(before) :])


@pytest.mark.parametrize("job_id", [None, 5, {"a": 1}, ["x"], "x" * 10_000, "\u0000", True])
@pytest.mark.parametrize("name", [f"{verb}{k}" for verb in ("come_back", "stop") for k in ("", *BACK)])
def test_a_job_that_is_none_does_nothing(rig: Rig, name: str, job_id: Any) -> None:
    """A browser keeps the job's name; whoever has the browser can change it."""
    before = rig.jobs()
    with rig.session("en") as page:
        messages = page.call(page.endpoint(name), [job_id])
    assert rig.jobs().keys() == before.keys()
    assert "outputs_" not in str(messages)
    if name.startswith("come_back"):
        idle = [EN(key) for key in ("stage_empty", "restore_empty", "build_idle", "compare_idle", "models_note")]
        assert any(text in str(messages) for text in [*idle, EN("batch_empty", limit=LIMIT)])


def test_the_credit_and_the_name_stand_on_the_page(rig: Rig) -> None:
    with rig.session() as page:
        header = next(c["props"]["value"] for c in page.components.values() if c["props"].get("elem_id") == "header")
    assert CREDIT in header and "AWPortrait Edge · 人像工作室" in header
    assert ZH("tagline") in header and EN("tagline") in header


def test_the_page_asks_for_nothing_elsewhere(rig: Rig) -> None:
    """U1's static part: no address of another machine in what is loaded with the page."""
    page = rig.client.get("/").text
    loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"([^\"]+)\"", page)
    assert len(loaded) >= 3
    assert [address for address in loaded if re.match(r"(?:https?:)?//", address)] == []
