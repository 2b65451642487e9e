"""Kits: files are checked once, parts are loaded once, and the same words are read once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from engines.bundle import Shelf
from engines.cache import ArrayCache
from engines.errors import BundleError, EngineUnavailable, NotFoundError
from engines.kit import Kit, Kits
from tests.fakes import PORTRAIT_ROLES, FakeEngine, write_portrait, write_restorer


@pytest.fixture
def kits(tmp_path: Path) -> Kits:
    write_portrait(tmp_path / "shelf" / "portrait")
    write_restorer(tmp_path / "shelf" / "restorer")
    return Kits(Shelf((tmp_path / "shelf",)), FakeEngine().select)


def test_a_kit_is_kept(kits: Kits) -> None:
    kit, reason = kits.take("portrait", "edge")
    assert reason == "fake, asked for edge"
    again, _ = kits.take("portrait", "auto")
    assert again is kit and again.denoiser is kit.denoiser
    assert kits.take("restorer", "auto")[0] is not kit


def test_files_are_checked_before_they_are_used(kits: Kits, tmp_path: Path) -> None:
    (tmp_path / "shelf" / "portrait" / "denoiser.onnx").write_text("other weights")
    for _ in range(2):
        with pytest.raises(BundleError, match="denoiser"):
            kits.take("portrait", "auto")
    kits.take("restorer", "auto")


def test_a_bundle_that_is_not_there_is_not_found(kits: Kits) -> None:
    with pytest.raises(NotFoundError):
        kits.take("landscape", "auto")


def test_nobody_who_can_run_it_is_said(tmp_path: Path) -> None:
    write_portrait(tmp_path / "portrait")
    with pytest.raises(EngineUnavailable):
        Kits(Shelf((tmp_path,))).take("portrait", "torch")  # its parts are ONNX


def test_load_all_loads_every_part_and_runs_none(tmp_path: Path) -> None:
    for bundle in (write_portrait(tmp_path / "p"), write_restorer(tmp_path / "r")):
        engine = FakeEngine()
        kit = Kit(bundle, engine)
        kit.load_all()
        assert len(vars(kit)) == 2 + len(bundle.roles) and engine.calls == []


def test_load_all_knows_every_role_that_a_manifest_may_have(tmp_path: Path) -> None:
    """A manifest may name a face detector: loading must work, or refuse it as a BundleError, not stop the worker."""
    bundle = write_portrait(tmp_path / "p", (*PORTRAIT_ROLES, "face_detector"))
    try:
        Kit(bundle, FakeEngine()).load_all()
    except BundleError:
        pass


def test_a_caption_is_read_once(kits: Kits, tmp_path: Path) -> None:
    kit, _ = kits.take("portrait", "auto")
    assert isinstance(kit.engine, FakeEngine)
    cache = ArrayCache(tmp_path / "cache", 8)
    first = kit.embedding("红发", cache)
    assert first.shape == (1, 2 + len("红发".encode()), 4) and first.dtype == np.float32
    assert (kit.embedding("红发", ArrayCache(tmp_path / "cache", 8)) == first).all()
    assert kit.engine.calls == ["text_encoder"]
    assert (kit.embedding("黑发", cache) != first).any()


@pytest.mark.parametrize("change", ["template", "max_tokens", "tokenizer", "weights"])
def test_what_changes_a_caption_is_part_of_its_key(tmp_path: Path, change: str) -> None:
    """Two bundles that read words differently never take each other's."""
    bundle, cache = write_portrait(tmp_path / "p"), ArrayCache(tmp_path / "cache", 8)
    Kit(bundle, FakeEngine()).embedding("long red hair", cache)
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
    Kit(changed, engine).embedding("long red hair", cache)
    assert engine.calls == ["text_encoder"]
