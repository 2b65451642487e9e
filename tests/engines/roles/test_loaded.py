"""Loaded bundles: files are checked once, parts are loaded once, and the same words are read once."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from engines import machine
from engines.bundle import EMBEDDINGS, Bundle, Shelf, digest
from engines.bundle.signatures import Array
from engines.errors import BundleError, EngineError, EngineUnavailable, NotFoundError
from engines.roles.embedding_cache import ArrayCache
from engines.roles.loaded import LoadedBundle, LoadedBundles, stored_name
from tests.support.fakes import PORTRAIT_ROLES, FakeEngine, write_detector, write_portrait, write_restorer


@pytest.fixture
def loaded_bundles(tmp_path: Path) -> LoadedBundles:
    write_portrait(tmp_path / "shelf" / "portrait")
    write_restorer(tmp_path / "shelf" / "restorer")
    return LoadedBundles(Shelf((tmp_path / "shelf",)), FakeEngine().select)


def test_a_bundle_stays_loaded(loaded_bundles: LoadedBundles) -> None:
    loaded, reason = loaded_bundles.get("portrait", "edge")
    assert reason == "fake, asked for edge"
    again, _ = loaded_bundles.get("portrait", "auto")
    assert again is loaded and again.denoiser is loaded.denoiser
    assert loaded_bundles.get("restorer", "auto")[0] is not loaded


def test_files_are_checked_before_they_are_used(loaded_bundles: LoadedBundles, tmp_path: Path) -> None:
    (tmp_path / "shelf" / "portrait" / "denoiser.onnx").write_text("other weights")
    for _ in range(2):
        with pytest.raises(BundleError, match="denoiser"):
            loaded_bundles.get("portrait", "auto")
    loaded_bundles.get("restorer", "auto")


def test_a_bundle_that_is_not_there_is_not_found(loaded_bundles: LoadedBundles) -> None:
    with pytest.raises(NotFoundError):
        loaded_bundles.get("landscape", "auto")


def test_nobody_who_can_run_it_is_said(tmp_path: Path) -> None:
    write_portrait(tmp_path / "portrait")
    with pytest.raises(EngineUnavailable):
        LoadedBundles(Shelf((tmp_path,))).get("portrait", "torch")  # its parts are ONNX


def test_load_all_loads_every_part_and_runs_none(tmp_path: Path) -> None:
    for bundle in (write_portrait(tmp_path / "p"), write_restorer(tmp_path / "r")):
        engine = FakeEngine()
        loaded = LoadedBundle(bundle, engine)
        loaded.load_all()
        assert loaded.roles.keys() == bundle.roles and engine.calls == []


def test_load_all_knows_every_role_that_a_manifest_may_have(tmp_path: Path) -> None:
    """A face detector too: it is opened, or refused with what the manifest lacks."""
    engine = FakeEngine()
    LoadedBundle(write_detector(tmp_path / "d"), engine).load_all()
    assert engine.opened == ["face_detector"]
    with pytest.raises(BundleError, match="says nothing about its face"):
        LoadedBundle(write_portrait(tmp_path / "p", (*PORTRAIT_ROLES, "face_detector")), engine).load_all()


def test_a_caption_is_read_once(loaded_bundles: LoadedBundles, tmp_path: Path) -> None:
    loaded, _ = loaded_bundles.get("portrait", "auto")
    assert isinstance(loaded.engine, FakeEngine)
    cache = ArrayCache(tmp_path / "cache", 8)
    first = loaded.embedding("红发", cache)
    assert first.shape == (1, 2 + len("红发".encode()), 4) and first.dtype == np.float32
    assert (loaded.embedding("红发", ArrayCache(tmp_path / "cache", 8)) == first).all()
    assert loaded.engine.calls == ["text_encoder"]
    assert (loaded.embedding("黑发", cache) != first).any()


@pytest.mark.parametrize("change", ["template", "max_tokens", "tokenizer", "weights"])
def test_what_changes_a_caption_is_part_of_its_key(tmp_path: Path, change: str) -> None:
    """Two bundles that read words differently never take each other's."""
    bundle, cache = write_portrait(tmp_path / "p"), ArrayCache(tmp_path / "cache", 8)
    LoadedBundle(bundle, FakeEngine()).embedding("long red hair", cache)
    text = bundle.need(bundle.text, "text")
    changed = {
        "template": dataclasses.replace(
            bundle, text=dataclasses.replace(text, template="<|im_start|>a {prompt}<|im_end|>")
        ),
        "max_tokens": dataclasses.replace(bundle, text=dataclasses.replace(text, max_tokens=5)),
        "tokenizer": dataclasses.replace(bundle, text=dataclasses.replace(text, sha256="0")),
        "weights": dataclasses.replace(
            bundle, parts=tuple(dataclasses.replace(part, sha256="0") for part in bundle.parts)
        ),
    }[change]
    engine = FakeEngine()
    LoadedBundle(changed, engine).embedding("long red hair", cache)
    assert engine.calls == ["text_encoder"]


STORED = ("一位女士", "a man with a hat")


def with_stored(bundle: Bundle, prompts: tuple[str, ...] = STORED) -> Bundle:
    """The bundle with embeddings of these prompts, which no text encoder would give."""
    arrays = {stored_name(prompt): np.full((1, 3, 4), i + 10, np.float32) for i, prompt in enumerate(prompts)}
    np.savez(bundle.root / EMBEDDINGS, **arrays)  # type: ignore[arg-type]
    return dataclasses.replace(bundle, extras={EMBEDDINGS: digest(bundle.root / EMBEDDINGS)})


def test_stored_words_need_no_text_encoder(tmp_path: Path) -> None:
    """Neither loaded nor run, and nothing is put into the cache for them."""
    engine, cache = FakeEngine(), ArrayCache(tmp_path / "cache", 8)
    loaded = LoadedBundle(with_stored(write_portrait(tmp_path / "p")), engine)
    loaded.load_all()
    for i, prompt in enumerate(STORED):
        stored = loaded.embedding(prompt, cache)
        assert stored.dtype == np.float32 and (stored == i + 10).all()
    assert "text_encoder" not in engine.opened and engine.calls == []
    assert not (tmp_path / "cache").exists()


def test_other_words_are_read_by_the_text_encoder_which_is_let_go_of(tmp_path: Path) -> None:
    """The largest part of a large model is in memory for a moment only."""
    engine, cache = FakeEngine(), ArrayCache(tmp_path / "cache", 8)
    loaded = LoadedBundle(with_stored(write_portrait(tmp_path / "p")), engine)
    loaded.load_all()
    first = loaded.embedding("a man with a hat ", cache)
    assert first.shape[2] == 4 and (first < 10).all(), "one space more: other words"
    assert engine.opened.count("text_encoder") == engine.closed.count("text_encoder") == 1
    loaded.embedding("a man with a hat ", cache)
    assert engine.opened.count("text_encoder") == 1, "from the cache"
    loaded.embedding("another text", cache)
    assert engine.opened.count("text_encoder") == engine.closed.count("text_encoder") == 2


def test_a_text_encoder_that_fails_is_let_go_of_too(tmp_path: Path) -> None:
    def refuse(result: Array) -> Array:
        raise EngineError("no memory", engine="fake")

    engine = FakeEngine(spoil={"text_encoder": refuse})
    loaded = LoadedBundle(write_portrait(tmp_path / "p"), engine)
    with pytest.raises(EngineError):
        loaded.embedding("p", ArrayCache(tmp_path / "cache", 8))
    assert engine.opened == engine.closed == ["text_encoder"]


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04" + bytes(60)])
def test_damaged_embeddings_are_a_bundle_error(tmp_path: Path, content: bytes) -> None:
    bundle = with_stored(write_portrait(tmp_path / "p"))
    bundle.verify()
    (bundle.root / EMBEDDINGS).write_bytes(content)
    with pytest.raises(BundleError, match=EMBEDDINGS):
        LoadedBundle(bundle, FakeEngine()).embedding(STORED[0], ArrayCache(tmp_path / "cache", 8))
    with pytest.raises(BundleError, match=EMBEDDINGS):
        bundle.verify()


def test_one_changed_byte_of_an_embedding_is_noticed(tmp_path: Path) -> None:
    bundle = with_stored(write_portrait(tmp_path / "p"), STORED[:1])
    data = bytearray((bundle.root / EMBEDDINGS).read_bytes())
    data[data.index(np.float32(10).tobytes())] ^= 1
    (bundle.root / EMBEDDINGS).write_bytes(data)
    with pytest.raises(BundleError, match=EMBEDDINGS):
        LoadedBundle(bundle, FakeEngine()).embedding(STORED[0], ArrayCache(tmp_path / "cache", 8))


def test_a_bundle_that_is_closed_unloads_everything_and_works_again(tmp_path: Path) -> None:
    engine = FakeEngine()
    loaded = LoadedBundle(write_portrait(tmp_path / "p"), engine)
    loaded.load_all()
    loaded.close()
    assert sorted(engine.opened) == sorted(engine.closed) == ["decoder", "denoiser", "preview_decoder"]
    loaded.close()  # twice is no harm
    assert loaded.denoiser is not None and engine.opened.count("denoiser") == 2


def test_another_engine_takes_the_place_of_the_first(tmp_path: Path) -> None:
    """Two copies of a large model do not fit."""
    write_portrait(tmp_path / "portrait")
    engines = {name: FakeEngine(name) for name in ("one", "two")}
    loaded_bundles = LoadedBundles(Shelf((tmp_path,)), lambda bundle, wanted, passed_over: (engines[wanted], "why"))
    loaded_bundles.get("portrait", "one")[0].load_all()
    loaded_bundles.get("portrait", "two")[0].load_all()
    assert sorted(engines["one"].closed) == sorted(engines["one"].opened) and not engines["two"].closed


def test_a_bundle_that_was_made_anew_is_loaded_anew(loaded_bundles: LoadedBundles, tmp_path: Path) -> None:
    loaded, _ = loaded_bundles.get("restorer", "auto")
    shutil.rmtree(tmp_path / "shelf" / "restorer")
    bundle = write_restorer(tmp_path / "shelf" / "restorer")
    (bundle.root / "restorer.onnx").write_text("better weights")
    old = bundle.parts[0].sha256
    text = (bundle.root / "bundle.json").read_text().replace(old, digest(bundle.root / "restorer.onnx"))
    (bundle.root / "bundle.json").write_text(text)
    assert loaded_bundles.get("restorer", "auto")[0] is not loaded


def test_with_more_or_fewer_processors_a_bundle_is_opened_anew(
    loaded_bundles: LoadedBundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session has as many threads as there were when it was opened; `docker update --cpus` changes them."""
    count = 4
    monkeypatch.setattr(machine, "cores", lambda: count)
    loaded, _ = loaded_bundles.get("portrait", "auto")
    session = loaded.denoiser.session
    assert loaded_bundles.get("portrait", "auto")[0] is loaded
    count = 1
    again, _ = loaded_bundles.get("portrait", "auto")
    assert again is not loaded and again.denoiser.session is not session and not loaded.roles
    assert loaded_bundles.get("portrait", "auto")[0] is again
