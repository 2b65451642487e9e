"""Request to events: their order, that every refusal is a Failed with code and facts, that nothing blank is saved."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines import images
from engines.bundle import Shelf
from engines.errors import JobCancelled
from engines.images import kept_latents
from engines.jobs import state_after
from engines.messages import (
    Build,
    Develop,
    Enhance,
    Event,
    Failed,
    Final,
    Generate,
    Inspect,
    Lora,
    Preview,
    PreviewMode,
    Progress,
    Request,
)
from engines.studio import Studio
from tests.support.cancelling import cancelled_when
from tests.support.fakes import FakeEngine, write_detector, write_portrait, write_restorer


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def studio(engine: FakeEngine, tmp_path: Path) -> Studio:
    write_portrait(tmp_path / "shelf" / "portrait")
    write_restorer(tmp_path / "shelf" / "restorer")
    write_detector(tmp_path / "shelf" / "detector")
    return Studio(Shelf((tmp_path / "shelf",)), tmp_path / "state", engine.select)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    y, x = np.mgrid[0:60, 0:90]
    picture = np.stack((90 + x, 200 - x - y, 60 + 2 * y), -1).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def kinds(events: list[Event]) -> list[str]:
    """The stream in words: stages, and decoders of the pictures shown."""
    words: list[str] = []
    for event in events:
        match event:
            case Progress():
                words.append(event.stage)
            case Preview():
                words.append(event.decoder)
            case _:
                words.append(type(event).__name__)
    return words


def run(studio: Studio, request: Request, out: Path) -> list[Event]:
    """All events; the last ends the stream and no other does."""
    events = list(studio.run(request, out))
    assert all(state_after(event) == "running" for event in events[:-1])
    assert state_after(events[-1]) != "running"
    return events


def final(studio: Studio, request: Request, out: Path) -> Final:
    last = run(studio, request, out)[-1]
    assert isinstance(last, Final), last
    return last


def failed(studio: Studio, request: Request, out: Path) -> Failed:
    last = run(studio, request, out)[-1]
    assert isinstance(last, Failed), last
    return last


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.array(image.convert("RGB")).astype(int)


def text_of(path: Path) -> str:
    with Image.open(path) as image:
        return str(image.info["parameters"])


def test_live_shows_previews_then_the_picture(studio: Studio, out: Path) -> None:
    events = run(studio, Generate("p", seed=5, steps=1), out)
    assert kinds(events) == ["load", "encode", "denoise", "tiny", "decode", "vae", "Final"]
    last = events[-1]
    assert isinstance(last, Final)
    assert (last.seed, last.engine, last.reason, last.decoder) == (
        5,
        "fake",
        "fake, asked for auto; 0.4 GB of memory",
        "vae",
    )
    shown = [event for event in events if isinstance(event, Preview)]
    assert shown[-1].image == last.images[0] and shown[0].image.startswith(images.PREVIEW_PREFIX)
    assert 0 <= shown[0].seconds <= shown[-1].seconds <= last.seconds
    assert all((out / event.image).is_file() for event in shown)


def test_off_shows_the_picture_only(studio: Studio, engine: FakeEngine, out: Path) -> None:
    events = run(studio, Generate("p", steps=3, preview="off"), out)
    assert kinds(events) == ["load", "encode", *["denoise"] * 3, "decode", "vae", "Final"]
    assert "preview_decoder" not in engine.calls
    assert [path.suffix for path in out.iterdir()] == [".png"]


def test_only_stops_at_the_tiny_decoder(studio: Studio, engine: FakeEngine, out: Path) -> None:
    events = run(studio, Generate("p", seed=5, steps=2, preview="only"), out)
    words = kinds(events)
    assert words[-3:] == ["decode", "tiny", "Final"] and "vae" not in words
    last = events[-1]
    assert isinstance(last, Final) and last.decoder == "tiny"
    assert "decoder" not in engine.calls
    assert kept_latents.read(out, last.images[0]).latents.shape == (1, 4, 8, 8)


def test_steps_and_pictures_are_counted(studio: Studio, out: Path) -> None:
    events = run(studio, Generate("p", steps=3, count=2, preview="off"), out)
    told = [event for event in events if isinstance(event, Progress) and event.stage == "denoise"]
    assert [(event.picture, event.step) for event in told] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert {(event.total, event.pictures) for event in told} == {(3, 2)}


@pytest.mark.parametrize("preview", ["live", "only", "off"])
def test_previews_say_what_they_show(studio: Studio, out: Path, preview: PreviewMode) -> None:
    events = run(studio, Generate("p", steps=2, count=2, preview=preview), out)
    shown = [event for event in events if isinstance(event, Preview)]
    finished = [event.image for event in shown if event.kind == "result"]
    assert isinstance(last := events[-1], Final) and finished == list(last.images)
    assert {event.kind for event in shown if event.image not in finished} == ({"step"} if preview == "live" else set())


def test_developing_draws_what_a_full_run_would_have_drawn(studio: Studio, out: Path) -> None:
    direct = final(studio, Generate("p", "n", seed=9, guidance=1.0), out)
    kept = final(studio, Generate("p", "n", seed=9, guidance=1.0, preview="only"), out)
    events = run(studio, Develop(kept.images[0]), out)
    assert kinds(events) == ["load", "decode", "Final"]
    developed = events[-1]
    assert isinstance(developed, Final) and developed.seed == 9 and developed.decoder == "vae"
    assert developed.images != kept.images
    assert (pixels(out / developed.images[0]) == pixels(out / direct.images[0])).all()
    assert (pixels(out / kept.images[0]) != pixels(out / direct.images[0])).any()
    assert text_of(out / developed.images[0]) == text_of(out / direct.images[0])


def test_each_of_several_kept_pictures_is_developed_as_itself(studio: Studio, out: Path) -> None:
    kept = final(studio, Generate("p", seed=20, count=2, preview="only"), out)
    for k, name in enumerate(kept.images):
        direct = final(studio, Generate("p", seed=20 + k), out)
        developed = final(studio, Develop(name), out)
        assert developed.seed == 20 + k
        assert (pixels(out / developed.images[0]) == pixels(out / direct.images[0])).all()


def test_cancelling_takes_effect_within_one_step(studio: Studio, engine: FakeEngine, out: Path) -> None:
    stream = studio.run(Generate("p", steps=50), out)
    for event in stream:
        if isinstance(event, Progress) and event.stage == "denoise" and event.step == 7:
            break
    before = engine.calls.count("denoiser")
    *more, last = [stream.throw(JobCancelled("by a test")), *stream]
    assert isinstance(last, Failed) and last.code == "cancelled"
    assert engine.calls.count("denoiser") == before == 7
    assert not any(isinstance(event, Progress) for event in more)
    assert not list(out.glob("outputs_*"))


def test_cancelling_between_pictures_and_before_the_dear_decode(studio: Studio, engine: FakeEngine, out: Path) -> None:
    def drawn(event: Event) -> bool:
        return isinstance(event, Progress) and (event.stage, event.picture, event.step) == ("denoise", 2, 2)

    *_, last = cancelled_when(studio.run(Generate("p", steps=2, count=3, preview="off"), out), drawn)
    assert isinstance(last, Failed) and last.code == "cancelled"
    assert engine.calls.count("decoder") == 1


def test_a_job_that_is_cancelled_before_it_begins_costs_nothing(studio: Studio, engine: FakeEngine, out: Path) -> None:
    last = cancelled_when(studio.run(Generate("p"), out), lambda event: True)[-1]
    assert isinstance(last, Failed) and last.code == "cancelled" and "denoiser" not in engine.calls


REFUSED: list[tuple[Request, str, dict[str, object]]] = [
    (Generate(""), "empty_prompt", {}),
    (Generate("p", width=65), "bad_size", {"width": 65, "height": 64, "multiple": 16, "low": 64, "high": 2048}),
    (Generate("p", loras=(Lora("skin"),)), "bad_option", {"field": "loras", "value": "skin"}),
    (Generate("p", bundle="nowhere"), "not_found", {"what": "bundle", "name": "nowhere"}),
    (Generate("p", bundle="../shelf/portrait"), "not_found", {"what": "bundle"}),
    (Generate("p", bundle="restorer"), "bad_option", {"field": "bundle", "value": "restorer"}),
    (Enhance("missing.jpg", bundle="nowhere"), "not_found", {"what": "bundle"}),
    (Enhance("missing.jpg", bundle="portrait"), "bad_option", {"field": "bundle", "value": "portrait"}),
    (Enhance("missing.jpg", bundle="detector"), "bad_option", {"field": "bundle", "value": "detector"}),
    (Enhance("missing.jpg"), "bad_image", {}),
    (Inspect("missing.jpg"), "bad_image", {}),
    (Build("restorer", "x.pth", "edge-fp32", "mine"), "bad_option", {"field": "kind"}),
    (Develop("missing.png"), "not_found", {"what": "kept latent", "name": "missing.png"}),
    (Develop("../out/x.png"), "not_found", {"what": "kept latent"}),
    (Develop("x" * 300), "not_found", {"what": "kept latent"}),
    (Generate("p", bundle="x" * 300), "not_found", {"what": "bundle"}),
]


@pytest.mark.parametrize(("request_", "code", "facts"), REFUSED)
def test_every_refusal_is_a_failed_with_its_code(
    studio: Studio, out: Path, tmp_path: Path, request_: Request, code: str, facts: dict[str, object]
) -> None:
    last = failed(studio, request_, out)
    assert last.code == code and last.detail
    assert facts.items() <= last.facts.items()
    assert str(tmp_path) not in last.detail  # it may reach a stranger
    assert not list(out.iterdir())


def test_without_an_engine_the_failure_says_why(tmp_path: Path, out: Path) -> None:
    write_portrait(tmp_path / "shelf" / "portrait")
    real = Studio(Shelf((tmp_path / "shelf",)), tmp_path / "state")
    last = failed(real, Generate("p", backend="quantum"), out)
    assert last.code == "engine_unavailable" and last.facts["wanted"] == "quantum"
    last = failed(real, Generate("p", backend="pytorch"), out)
    assert last.code == "engine_unavailable" and "torch" in str(last.facts["why"])


def test_a_photo_that_is_no_photo(studio: Studio, out: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("<svg/>")
    assert failed(studio, Enhance(str(tmp_path / "photo.jpg")), out).code == "bad_image"


def test_a_damaged_bundle_is_not_run(studio: Studio, engine: FakeEngine, out: Path, tmp_path: Path) -> None:
    (tmp_path / "shelf" / "portrait" / "decoder.onnx").write_text("other weights")
    assert failed(studio, Generate("p"), out).code == "bad_bundle"
    assert engine.calls == []


def test_a_disk_that_refuses(studio: Studio, out: Path, photo: Path) -> None:
    out.rmdir()
    out.write_text("a file where the folder should be")
    for request in (Generate("p", preview="off"), Generate("p"), Enhance(str(photo), whole_picture=True)):
        assert failed(studio, request, out).code == "storage_failed"


def test_an_old_preview_that_cannot_be_removed_stops_nobody(studio: Studio, out: Path) -> None:
    """As on a disk that has become read-only; tidying up must neither raise nor cost the job."""
    stuck = out / f"{images.PREVIEW_PREFIX}0.webp"
    stuck.mkdir()
    old = out / f"{images.PREVIEW_PREFIX}1.webp"
    old.touch()
    for path in (stuck, old):
        os.utime(path, (1, 1))
    (image,) = final(studio, Generate("p"), out).images
    assert (out / image).is_file() and stuck.is_dir() and not old.exists()


def test_old_previews_are_tidied_and_young_ones_kept(studio: Studio, out: Path) -> None:
    events = run(studio, Generate("p", steps=1), out)
    (young,) = (event.image for event in events if isinstance(event, Preview) and event.decoder == "tiny")
    old = out / f"{images.PREVIEW_PREFIX}old.webp"
    old.touch()
    os.utime(old, (1, 1))
    final(studio, Generate("p", preview="off"), out)
    assert not old.exists() and (out / young).exists()


def nan(result: Any) -> Any:
    return np.full_like(result, np.nan)


def one_nan(result: Any) -> Any:
    result = result.copy()
    result[0, 0, 0, 0] = np.nan
    return result


def flat(result: Any) -> Any:
    return np.zeros_like(result)


SPOILT: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("decoder", "off", nan),
    ("decoder", "live", one_nan),
    ("decoder", "off", flat),
    ("denoiser", "off", nan),
    ("denoiser", "live", one_nan),
    ("preview_decoder", "live", nan),
    ("preview_decoder", "only", nan),
    ("preview_decoder", "only", flat),
    ("denoiser", "only", nan),
]


@pytest.mark.parametrize(("role", "preview", "spoil"), SPOILT)
def test_blank_pictures_are_never_saved(
    studio: Studio, engine: FakeEngine, out: Path, role: Any, preview: Any, spoil: Callable[[Any], Any]
) -> None:
    engine.spoil = {role: spoil}
    assert failed(studio, Generate("p", preview=preview), out).code == "blank_picture"
    assert not list(out.glob("outputs_*"))
    engine.spoil = {}
    assert final(studio, Generate("p", preview=preview), out).images  # the next job is none the worse


def test_a_flat_preview_is_only_a_preview(studio: Studio, engine: FakeEngine, out: Path) -> None:
    engine.spoil = {"preview_decoder": flat}
    assert final(studio, Generate("p", preview="live"), out).decoder == "vae"


def test_captions_are_remembered_on_disk(studio: Studio, engine: FakeEngine, out: Path, tmp_path: Path) -> None:
    final(studio, Generate("红发的女士", "模糊", guidance=1.0), out)
    assert engine.calls.count("text_encoder") == 2
    later = FakeEngine()
    after_a_restart = Studio(Shelf((tmp_path / "shelf",)), tmp_path / "state", later.select)
    final(after_a_restart, Generate("红发的女士", "模糊", guidance=1.0), out)
    assert later.calls.count("text_encoder") == 0
    final(after_a_restart, Generate("黑发的女士"), out)
    assert later.calls.count("text_encoder") == 1


def test_the_stream_is_lazy(studio: Studio, engine: FakeEngine, out: Path) -> None:
    """The caller sets the pace: nothing runs ahead of what was asked for."""
    stream: Iterator[Event] = studio.run(Generate("p", steps=4, preview="off"), out)
    for expected in ("load", "encode", "denoise"):
        event = next(stream)
        assert isinstance(event, Progress) and event.stage == expected
    assert engine.calls.count("denoiser") == 1
