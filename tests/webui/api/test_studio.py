"""The REST door over a real server: what goes in, exactly what comes out, and many at once."""

from __future__ import annotations

import base64
import io
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from engines.messages import CREDIT, Generate
from tests.support.http import QUICK, SKETCH, X_CREDIT, pixels, post, succeeded
from tests.support.owners import KEY
from webui.api import studio
from webui.connections import Forwarded
from webui.gradio_patches import FOLLOWED

if TYPE_CHECKING:
    from tests.support.server import Rig

WAITING = 130
GENERATED = {"status", "image_base64", "seed", "warnings", "without", "seconds", "engine", "reason", "images"}


@pytest.fixture(autouse=True)
def nothing_waits(rig: Rig) -> None:
    """A test that leaves a job behind would slow the next one down."""
    assert set(rig.jobs().values()) <= {"done", "failed", "cancelled"}


def draw(rig: Rig, **asked: Any) -> dict[str, Any]:
    answer = rig.client.post("/generate", json={"prompt": "a young woman, smiling", **asked})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-credit"] == X_CREDIT
    body: dict[str, Any] = answer.json()
    return body


def first(body: Mapping[str, Any]) -> bytes:
    return base64.b64decode(body["image_base64"], validate=True)


# ---- generate


def test_a_portrait_of_the_native_size(rig: Rig) -> None:
    body = draw(rig, seed=7)
    assert set(body) == GENERATED
    assert (body["status"], body["seed"], body["engine"]) == ("success", 7, "ort")
    assert body["reason"].startswith("ort on CPU")
    assert 0 < body["seconds"] < 60
    with Image.open(io.BytesIO(first(body))) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        native = next(b.sizes[0] for b in rig.queue.status().bundles if b.name == "portrait")
        assert image.size == native
        assert len(image.getcolors(1 << 20) or []) > 500, "a picture, not a flat field"
    (path,) = body["images"]
    assert re.fullmatch(rf"/outputs/{KEY}/outputs_\d{{14}}(_\d{{3}})?\.png", path)
    stored = rig.client.get(path)
    assert stored.content == first(body)
    assert stored.headers["content-type"] == "image/png"
    assert "immutable" in stored.headers["cache-control"]
    assert (rig.settings.outputs / path.rpartition("/")[2]).read_bytes() == first(body)


def test_the_same_seed_draws_the_same_picture_and_another_seed_another(rig: Rig) -> None:
    one, same, other = (pixels(first(draw(rig, seed=seed, **QUICK))) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_seed_drawn_by_lot_is_told_and_draws_the_same_again(rig: Rig) -> None:
    drawn = [draw(rig, **SKETCH) for _ in range(2)]
    assert drawn[0]["seed"] != drawn[1]["seed"]
    again = draw(rig, **SKETCH, seed=drawn[0]["seed"])
    assert np.array_equal(pixels(first(again)), pixels(first(drawn[0])))


def test_several_pictures_have_seeds_in_a_row(rig: Rig) -> None:
    both = draw(rig, **SKETCH, seed=40, count=2)
    assert both["seed"] == 40 and len(set(both["images"])) == 2
    contents = [rig.client.get(path).content for path in both["images"]]
    assert contents[0] == first(both)
    assert np.array_equal(pixels(contents[1]), pixels(first(draw(rig, **SKETCH, seed=41))))


@pytest.mark.parametrize(
    "prompt", ["一位戴眼镜的年轻女性,微笑,蓝色背景", "a+b & c=d #e 100%", "🙂\n\"quoted\" 'and' <b>"]
)
def test_the_prompt_may_stand_in_the_address(rig: Rig, prompt: str) -> None:
    """As JSON and as ?prompt=, the same words draw the same picture, and stand in the file as they were written."""
    query = {name: str(value) for name, value in {**SKETCH, "prompt": prompt, "seed": 3}.items()}
    by_query = rig.client.post("/generate", params=query)
    assert by_query.status_code == 200, by_query.text
    by_json = draw(rig, **SKETCH, prompt=prompt, seed=3)
    assert np.array_equal(pixels(first(by_query.json())), pixels(first(by_json)))
    with Image.open(io.BytesIO(first(by_json))) as image:
        assert image.info["parameters"].startswith(f"{prompt}\nSteps: 1, ")


def test_the_address_wins_over_the_body(rig: Rig) -> None:
    answer = rig.client.post("/generate", params={"seed": "5"}, json={"prompt": "x", "seed": 4, **SKETCH})
    assert answer.json()["seed"] == 5


def test_who_names_no_backend_gets_the_servers(rig: Rig) -> None:
    draw(rig, **SKETCH)
    assert replace(rig.queue.finished(1)[0].job.request, prompt="") == Generate("", backend="edge", **SKETCH)


def test_every_field_arrives(rig: Rig) -> None:
    asked = Generate("p, 词", "n", 96, 64, 3, 1.5, 9, 2, "sketch", "ort", (), "hanfu", "live")
    answer = rig.client.post("/generate", json=asdict(asked))
    assert answer.status_code == 200, answer.text
    stored = rig.queue.job(list(rig.jobs())[-1]).request
    assert stored == asked
    assert pixels(first(answer.json())).shape == (64, 96, 3)
    with Image.open(io.BytesIO(first(answer.json()))) as image:
        text = image.info["parameters"]
    for part in ("Negative prompt: n", "Steps: 3", "CFG scale: 1.5", "Seed: 9", "Size: 96x64", "Model: sketch", CREDIT):
        assert part in text


def test_only_a_preview_can_be_asked_for(rig: Rig) -> None:
    tiny, full = (first(draw(rig, **{**SKETCH, "preview": mode}, seed=2)) for mode in ("only", "off"))
    assert not np.array_equal(pixels(tiny), pixels(full)), "the decoders of the fakes differ"


@pytest.mark.parametrize("backend", ["edge", "ort", "auto"])
def test_the_backend_can_be_chosen(rig: Rig, backend: str) -> None:
    assert draw(rig, **QUICK, backend=backend)["engine"] == "ort"


# ---- many at once


def test_twenty_at_once_each_get_their_own_picture(rig: Rig) -> None:
    prompts = ["x" * 3 * k + "一" for k in range(20)]
    expected = [pixels(first(draw(rig, **SKETCH, prompt=prompt, seed=1))) for prompt in prompts]
    assert len({picture.tobytes() for picture in expected}) == 20, "the pictures can be told apart"
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda prompt: draw(rig, **SKETCH, prompt=prompt, seed=1), prompts))
    for answer, picture in zip(answers, expected, strict=True):
        assert np.array_equal(pixels(first(answer)), picture)
    assert len({path for answer in answers for path in answer["images"]}) == 20


def test_the_server_answers_while_many_wait(rig: Rig) -> None:
    """More people than any pool has threads wait for one slow portrait. Health, the page and pictures do not."""
    picture = draw(rig, **SKETCH)["images"][0]
    with ThreadPoolExecutor(WAITING) as pool:
        with rig.stuck():
            waiting = [pool.submit(post, rig.url, {"prompt": f"waiting {k}", **SKETCH}) for k in range(WAITING)]
            deadline = time.monotonic() + 120
            while sum(answer.done() for answer in waiting) + list(rig.jobs().values()).count("queued") < WAITING:
                assert time.monotonic() < deadline, "all of them are let in, or refused"
                time.sleep(0.05)
            served = [answers_within(rig, path, 8.0) for path in ("/healthz", "/", picture)]
        answers = [future.result(60) for future in waiting]
    assert served == [True] * 3
    assert {answer.status_code for answer in answers} <= {409, 429, 503}, "cancelled at the end, or not let in"


def test_the_server_answers_while_many_pages_watch(rig: Rig) -> None:
    """
    Of one client as many as may follow jobs: it follows no more, but its page loads and its buttons answer, and others
    notice nothing. Nobody holds a thread.
    """
    threads = threading.active_count()
    with rig.session() as page, rig.stuck(), rig.session(address="127.0.0.2") as neighbour:
        drawing, running = page.sketching("watched"), list(rig.jobs())[-1]
        kinds = [(page.endpoint("come_back"), [running]), (page.endpoint("generate"), drawing)]
        joined = [page.join(*kinds[k % 2]).status_code for k in range(FOLLOWED + 2)]
        assert joined == [200] * FOLLOWED + [503] * 2
        assert [answers_within(rig, path, 8.0) for path in ("/healthz", "/")] == [True] * 2
        assert succeeded(neighbour.call(neighbour.endpoint("change_bundle"), ["sketch"]))
        assert neighbour.begin(neighbour.endpoint("generate"), drawing)[-1]["msg"] == "process_generating"
        assert threading.active_count() - threads < 30
        with rig.session() as another:
            assert succeeded(another.call(another.endpoint("change_bundle"), ["sketch"]))


def test_who_hangs_up_cancels_the_job(rig: Rig) -> None:
    """Nobody else knows of it. The one behind it is drawn."""
    with rig.stuck():
        before = len(rig.jobs())
        with httpx.Client(base_url=rig.url, timeout=0.5) as client, pytest.raises(httpx.ReadTimeout):
            client.post("/generate", json={"prompt": "nobody waits for it", **SKETCH})
        job_id = list(rig.jobs())[before]
        deadline = time.monotonic() + 20
        while rig.jobs()[job_id] != "cancelled":
            assert time.monotonic() < deadline, rig.jobs()[job_id]
            time.sleep(0.02)


def test_no_more_wait_than_may(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ask at once: exactly as many are let in as there is room for; the others hear when to come again."""
    monkeypatch.setattr(rig.queue, "limit", 8)
    with ThreadPoolExecutor(30) as pool:
        with rig.stuck():
            asked = [pool.submit(post, rig.url, {"prompt": f"asked {k}", **SKETCH}) for k in range(30)]
            deadline = time.monotonic() + 60
            while sum(answer.done() for answer in asked) < 23:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert list(rig.jobs().values()).count("queued") == 7, "one is being drawn"
            with rig.session("en") as page:
                refused = str(page.call(page.endpoint("generate"), page.sketching("one more"))[-1])
        answers = [future.result(60) for future in asked]
    full = [answer for answer in answers if answer.status_code == 429]
    assert len(full) == 23 and {answer.status_code for answer in answers} == {409, 429}
    assert all(1 <= int(answer.headers["retry-after"]) <= 600 for answer in full)
    assert {answer.json()["code"] for answer in full} == {"queue_full"}
    assert "8 jobs are waiting already" in refused


def answers_within(rig: Rig, path: str, seconds: float) -> bool:
    try:
        return httpx.get(f"{rig.url}{path}", timeout=seconds).status_code == 200
    except httpx.TimeoutException:
        return False


@pytest.mark.parametrize(("proxies", "left_to_it"), [((), False), (("10.0.0.1",), False), (("192.168.1.9",), True)])
def test_only_a_proxy_of_the_house_is_told_where_a_picture_lies(
    rig: Rig, proxies: tuple[str, ...], left_to_it: bool
) -> None:
    address = draw(rig, **SKETCH)["images"][0]
    whole = rig.client.get(address).content
    app, routes = FastAPI(), APIRouter()
    studio.add_files(routes, rig.house, replace(rig.settings, accel="/_pictures"))
    app.include_router(routes)
    client = TestClient(Forwarded(app, proxies), client=("192.168.1.9", 5000))
    answer = client.get(address, headers={"x-forwarded-for": "203.0.113.9"})
    place = f"/_pictures/{address.rpartition('/')[2]}"
    assert (answer.content, answer.headers.get("x-accel-redirect")) == ((b"", place) if left_to_it else (whole, None))
    assert answer.headers["content-type"] == "image/png" and "immutable" in answer.headers["cache-control"]
