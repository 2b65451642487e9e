"""Gradio's own API, spoken by Gradio's own client: two endpoints, and nothing else of the page."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.client import Job
from gradio_client.exceptions import AppError
from gradio_client.utils import InvalidAPIEndpointError

from engines.messages import Enhance, Generate, unpack
from engines.messages.faces import Point
from tests.support.http import FILE_DATA, LEAKS, SKETCH, encoded, people, pixels
from tests.support.owners import KEY
from webui.gradio_patches import LEFT_S
from webui.i18n import words
from webui.people.tokens import Tokens

if TYPE_CHECKING:
    from tests.support.server import Rig

ZH, EN = words("zh"), words("en")
DRAW = {**{name: SKETCH[name] for name in ("width", "height", "steps", "bundle")}, "api_name": "/generate"}
PHOTO = encoded(people(), "PNG")
MIDDLE = {"x": 0.5, "y": 0.5}


@contextmanager
def opened(rig: Rig, folder: Path, **headers: str) -> Iterator[Client]:
    client = Client(
        rig.url,
        verbose=False,
        headers=headers,
        download_files=folder,
        analytics_enabled=False,
        httpx_kwargs={"timeout": 60},
    )
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def client(rig: Rig, tmp_path: Path) -> Iterator[Client]:
    with opened(rig, tmp_path / "downloads") as client:
        yield client


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "my photo.png"
    path.write_bytes(PHOTO)
    return path


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def cancel(job: Job) -> None:
    """When its client has heard which event it is: before that the package asks to cancel none."""
    until(lambda: job.communicator.event_id is not None)
    job.cancel()


def last(rig: Rig) -> Any:
    return unpack(rig.requests()[-1])


def refused(client: Client, endpoint: str, **asked: Any) -> str:
    """What a person is told who asks for that."""
    with pytest.raises(AppError) as error:
        client.predict(api_name=endpoint, **asked)
    message = str(error.value)
    assert message and not [leak for leak in LEAKS if leak in message], message
    return message


# ---- what there is


def test_two_endpoints_are_public_and_no_other(rig: Rig, client: Client) -> None:
    described = client.view_api(print_info=False, return_format="dict")
    assert isinstance(described, dict)
    assert set(described["named_endpoints"]) == {"/generate", "/restore"} and not described["unnamed_endpoints"]
    raw = rig.client.get("/gradio_api/info").json()
    assert set(raw["named_endpoints"]) == {"/generate", "/restore"} and not raw["unnamed_endpoints"]
    dependencies = client.config["dependencies"]
    assert len(dependencies) > 50 and sum(d["api_visibility"] != "private" for d in dependencies) == 2


def test_nothing_of_the_page_can_be_called(client: Client) -> None:
    for dependency in client.config["dependencies"]:
        if dependency["api_visibility"] == "private":
            with pytest.raises(ValueError, match="Cannot find a function"):
                client.predict(api_name=f"/{dependency['api_name']}")
            with pytest.raises((ValueError, InvalidAPIEndpointError)):
                client.predict(fn_index=dependency["id"])


def test_it_says_what_each_value_is(client: Client) -> None:
    text = client.view_api(print_info=False, return_format="str")
    assert isinstance(text, str)
    for line in text.splitlines():
        if line.startswith("     - "):
            assert "Any" not in line and "(" in line.rstrip().removesuffix("(required)"), line
    for part in ("prompt: str (required)", "seed: int", "start: filepath", "Literal['natural'",
                 "images: list[filepath]", "image: filepath", "faces: list"):  # fmt: skip
        assert part in text, part
    described = str(client.view_api(print_info=False, return_format="dict"))
    assert "Draw portraits." in described and "Restore a photo." in described


@pytest.mark.parametrize(
    ("endpoint", "kind", "without", "absent"),
    [
        ("/generate", Generate, {"preset", "preview"}, {"backend", "loras", "start"}),
        ("/restore", Enhance, {"name"}, {"backend", "faces"}),
    ],
)
def test_fields_and_defaults_are_those_of_the_messages(
    client: Client, endpoint: str, kind: type[Any], without: set[str], absent: set[str]
) -> None:
    described = client.view_api(print_info=False, return_format="dict")
    assert isinstance(described, dict)
    parameters = {p["parameter_name"]: p for p in described["named_endpoints"][endpoint]["parameters"]}
    defaults = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
    assert set(parameters) == {field.name for field in fields(kind)} - without
    for name, parameter in parameters.items():
        required = defaults[name] is inspect.Parameter.empty
        assert parameter["parameter_has_default"] is not required
        assert parameter["parameter_default"] == (None if required or name in absent else defaults[name]), name


# ---- what they do


def test_a_portrait_is_drawn_and_fetched(rig: Rig, client: Client) -> None:
    images, seed, seconds, engine = client.predict("a woman", count=2, seed=11, **DRAW)
    drawn = [pixels(Path(path).read_bytes()) for path in images]
    assert [picture.shape for picture in drawn] == [(64, 64, 3)] * 2 and not np.array_equal(*drawn)
    assert seed == 11 and seconds > 0 and engine
    assert [Path(path).name.partition("_")[0] for path in images] == ["outputs"] * 2
    assert last(rig) == Generate("a woman", "", 64, 64, 1, None, 11, 2, "sketch", "edge", preview="off")
    own = rig.client.post("/generate", json={"prompt": "a woman", **SKETCH, "seed": 11}).json()
    assert np.array_equal(pixels(rig.client.get(own["images"][0]).content), drawn[0]), "the same picture as elsewhere"


def test_who_names_the_words_alone_gets_our_portrait(rig: Rig, client: Client) -> None:
    images, *_ = client.predict("a smiling woman", api_name="/generate")
    assert last(rig) == Generate("a smiling woman", backend="edge", preview="off")
    native = next(bundle.sizes[0] for bundle in rig.queue.status().bundles if bundle.name == "portrait")
    assert pixels(Path(images[0]).read_bytes()).shape[1::-1] == native


def test_pictures_have_addresses_of_ours_and_no_copy(rig: Rig, tmp_path: Path) -> None:
    before = rig.cached()
    with opened(rig, tmp_path) as client:
        client.download_files = False
        (image,), *_ = client.predict("x", **DRAW)
    assert re.fullmatch(rf"{rig.url}/outputs/{KEY}/outputs_\d+(_\d+)?\.png", image["url"])
    assert rig.client.get(image["url"]).content.startswith(b"\x89PNG")
    assert rig.cached() == before and str(rig.settings.home) not in str(image)


def test_a_portrait_starts_from_a_photo(rig: Rig, client: Client, photo: Path) -> None:
    images, *_ = client.predict("x", start=handle_file(photo), strength=0.5, steps=2, api_name="/generate")
    order = last(rig)
    assert Path(order.start).parent == rig.settings.uploads and Path(order.start).read_bytes() == PHOTO
    assert order.strength == 0.5 and images


def test_a_photo_is_restored(rig: Rig, client: Client, photo: Path) -> None:
    image, faces, seconds, engine = client.predict(
        handle_file(photo), strength=50, mode="strong", format="webp", quality=80, faces=[MIDDLE], api_name="/restore"
    )
    assert Path(image).suffix == ".webp" and pixels(Path(image).read_bytes()).shape == (360, 360, 3)
    assert [face["state"] for face in faces] == ["restored"] and set(faces[0]) == {"box", "state", "strength", "reason"}
    assert seconds > 0 and engine
    order = last(rig)
    asked = Enhance(order.image, 50, "strong", format="webp", quality=80, name="my photo.png", backend="edge")
    assert order == replace(asked, faces=(Point(**MIDDLE),))
    assert Path(order.image).parent == rig.settings.uploads


# ---- what is refused, in words


def test_what_goes_wrong_is_said_in_both_languages_or_in_ones_own(rig: Rig, client: Client, tmp_path: Path) -> None:
    both = refused(client, "/generate", prompt=" ")
    assert ZH("error_empty_prompt") in both and EN("error_empty_prompt") in both
    with opened(rig, tmp_path, **{"accept-language": "en"}) as english:
        assert refused(english, "/generate", prompt=" ") == EN("error_empty_prompt")


@pytest.mark.parametrize(
    ("asked", "field"),
    [({"steps": 51}, "steps"), ({"seed": "x"}, "seed"), ({"count": 9}, "count"), ({"backend": "abacus"}, "backend"),
     ({"loras": [{"name": "x", "strength": 9}]}, "loras"), ({"loras": 5}, "loras"), ({"strength": 2}, "strength"),
     ({"start": "/etc/passwd"}, "start"), ({"start": {"path": "/etc/passwd"}}, "start"), ({"start": 5}, "start"),
     ({"start": {"path": None}}, "start"), ({"bundle": ["x"]}, "bundle"), ({"width": 1}, "")],
    ids=str,
)  # fmt: skip
def test_a_value_that_cannot_be_is_named(client: Client, asked: dict[str, Any], field: str) -> None:
    assert field in refused(client, "/generate", prompt="x", **asked)


def test_a_photo_without_a_face_is_said(client: Client, tmp_path: Path) -> None:
    (tmp_path / "grey.png").write_bytes(encoded(people().crop((0, 0, 40, 40)), "PNG"))
    assert EN("error_no_face") in refused(client, "/restore", image=handle_file(tmp_path / "grey.png"))


def test_no_address_is_fetched(rig: Rig, client: Client) -> None:
    before = rig.jobs()
    for address in (f"{rig.url}/favicon.ico", "https://evil.example/a.png"):
        for photo in (handle_file(address), address, {"path": address}, {"path": "x", "url": address}):
            assert "url" in (said := refused(client, "/restore", image=photo)) or "image" in said
    assert rig.jobs().keys() == before.keys()


def test_no_file_of_this_machine_can_be_named(rig: Rig, tmp_path: Path) -> None:
    """As a program writes it that is not Gradio's client, which would upload its own file of that name."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(PHOTO)
    before, cached = rig.jobs(), rig.cached()
    with rig.session() as page:
        for name, place in (("restore", 0), ("generate", 11)):
            endpoint = next(e for e in page.endpoints if e["api_name"] == name)
            for path in (str(secret), str(rig.settings.state / "secret"), "../state/secret", str(rig.cache)):
                for more in ({"meta": FILE_DATA}, {}, {"meta": FILE_DATA, "is_stream": True}, {"url": path}):
                    values = page.values(endpoint)
                    values[0], values[place] = "x", {"path": path, "orig_name": "a.png", **more}
                    messages = page.call(endpoint, values)
                    assert messages[-1]["success"] is False and str(secret) not in str(messages), (name, path, more)
    assert rig.jobs().keys() == before.keys() and rig.cached() == cached


# ---- whose it is, and whether anybody waits for it


def test_a_job_that_is_cancelled_is_not_drawn(rig: Rig, client: Client) -> None:
    with rig.stuck():
        job = client.submit("cancelled by its program", **DRAW)
        until(lambda: "cancelled by its program" in rig.requests()[-1])
        job_id = list(rig.jobs())[-1]
        cancel(job)
        until(lambda: rig.jobs()[job_id] == "cancelled")


def test_the_others_of_a_program_go_on_when_it_cancels_one(rig: Rig, client: Client) -> None:
    with rig.stuck():
        jobs = {}
        for does in ("stays", "leaves"):
            jobs[does] = client.submit(f"the one that {does}", **DRAW)
            until(lambda does=does: f"the one that {does}" in rig.requests()[-1])
        stays, leaves = list(rig.jobs())[-2:]
        cancel(jobs["leaves"])
        until(lambda: rig.jobs()[leaves] == "cancelled")
        time.sleep(3 * LEFT_S)
        assert rig.jobs()[stays] == "queued" and not jobs["stays"].done()
    with pytest.raises(AppError, match=EN("error_cancelled")):
        jobs["stays"].result(60)


def test_who_hangs_up_cancels(rig: Rig) -> None:
    with rig.stuck(), rig.session() as page:
        endpoint = next(e for e in page.endpoints if e["api_name"] == "generate")
        values = [*page.values(endpoint)]
        values[0], values[8] = "nobody waits for it", "sketch"
        page.join(endpoint, values)
        with page.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": page.name}) as stream:
            _held = next(lines := stream.iter_lines()), lines  # letting go of them hangs up
            until(lambda: "nobody waits for it" in rig.requests()[-1])
            job_id = list(rig.jobs())[-1]
            assert rig.jobs()[job_id] == "queued"
        until(lambda: rig.jobs()[job_id] == "cancelled")


def test_waiting_holds_no_thread(rig: Rig, client: Client) -> None:
    """As many as Gradio has threads wait for their turn, and the page answers others."""
    with rig.stuck():
        jobs = [client.submit(f"in a line {k}", **DRAW) for k in range(40)]
        until(lambda: sum("in a line " in request for request in rig.requests()) == 40)
        with rig.session() as page:
            assert page.answer(page.endpoint("change_bundle"), ["sketch"])
        assert not any(job.done() for job in jobs)
    for job in jobs:
        job.future.exception(60)


def test_what_one_program_drew_is_not_the_others(rig: Rig, tmp_path: Path) -> None:
    tokens = Tokens(rig.settings.state / "tokens.json")
    mine, other = ({"authorization": f"Bearer {tokens.add(name)}"} for name in ("mine", "other"))
    with opened(rig, tmp_path, **mine) as client:
        (image,), *_ = client.predict("very private words", **DRAW)
    (job,) = rig.client.get("/jobs", headers=mine).json()["jobs"]
    assert job["result"]["images"][0].endswith(Path(image).name)
    assert rig.client.get("/jobs", headers=other).json() == {"jobs": []}
    assert rig.client.get(f"/jobs/{job['id']}", headers=other).status_code == 404
    assert rig.client.get(f"/outputs/{'0' * 32}/{Path(image).name}", headers=other).status_code == 404
    with rig.session() as page:
        shown = page.call(page.endpoint("refresh"), ["mine"])
        assert "very private words" not in str(shown) and Path(image).name not in str(shown)


def test_a_house_with_a_password_wants_a_token(closed: Rig, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="401|credentials"), opened(closed, tmp_path):
        pass
    token = Tokens(closed.settings.state / "tokens.json").add("program")
    before = closed.jobs()
    with opened(closed, tmp_path, authorization=f"Bearer {token}") as client:
        job = client.submit("x", **DRAW)
        until(lambda: len(closed.jobs()) > len(before))
        (job_id,) = closed.jobs().keys() - before.keys()
        assert closed.queue.job(job_id).owner == "token:program"
        cancel(job)
        until(lambda: closed.jobs()[job_id] == "cancelled")


def test_it_works_below_a_path(below: Rig, tmp_path: Path, photo: Path) -> None:
    """Pictures come from the studio's own addresses, which are whole there."""
    with opened(below, tmp_path / "downloads") as client:
        pictures, *_ = client.predict("a girl", **DRAW)
        restored, *_ = client.predict(handle_file(photo), api_name="/restore")
    assert [Path(each).read_bytes()[:4] for each in (*pictures, restored)] == [b"\x89PNG"] * 2
