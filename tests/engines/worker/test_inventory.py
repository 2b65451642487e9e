"""What a worker tells its doors: which engines serve which bundles, how each did, and what can be built from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engines import backends
from engines.backends.lenders import Lenders
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import Bundle, Shelf
from engines.messages.status import BundleStatus, Choice
from engines.settings import Settings
from engines.worker import inventory
from tests.support.fakes import write_manifest, write_portrait, write_restorer

MEASURED = Verdict("ort", "CPU", "v", "fp32", "", 41.5, 0.991, 4, 0.4, 2.0, 321.0)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    write_portrait(tmp_path / "shelf" / "portrait")
    write_restorer(tmp_path / "shelf" / "restorer")
    return Shelf((tmp_path / "shelf",))


@pytest.fixture
def known(tmp_path: Path) -> Verdicts:
    return Verdicts(tmp_path / "verdicts")


def put(known: Verdicts, bundle: Bundle, name: str, failing: str = "", finish_s: float = 2.0) -> None:
    engine = backends.engine(name)
    verdict = replace(MEASURED, engine=name, failing=failing, finish_s=finish_s)
    known.put(backends.candidate(bundle, engine).key, verdict)


def told(shelf: Shelf, known: Verdicts | None, name: str = "portrait") -> BundleStatus:
    _, bundles = inventory.survey(shelf, "auto", known)
    (found,) = (bundle for bundle in bundles if bundle.name == name)
    return found


def choices(status: BundleStatus) -> dict[str, Choice]:
    return {choice.engine: choice for choice in status.choices}


def test_every_engine_is_a_choice_with_its_group(shelf: Shelf, known: Verdicts) -> None:
    found = choices(told(shelf, known))
    assert list(found) == backends.names()
    assert found["torch"].group == "pytorch" and {found[name].group for name in found if name != "torch"} == {"edge"}


def test_an_engine_that_cannot_is_unavailable_and_says_why(shelf: Shelf, known: Verdicts) -> None:
    torch = choices(told(shelf, known))["torch"]  # the fakes' parts are ONNX
    assert torch.state == "unavailable" and torch.reason
    assert (torch.precision, torch.verdict) == ("", None), "nothing is made up"


def test_before_its_proof_an_engine_is_unproven(shelf: Shelf, known: Verdicts) -> None:
    ort = choices(told(shelf, known))["ort"]
    assert (ort.state, ort.precision, ort.reason, ort.verdict) == ("unproven", "fp32", "", None)


def test_a_verdict_is_shown_with_its_figures(shelf: Shelf, known: Verdicts) -> None:
    put(known, shelf.open("portrait"), "ort")
    ort = choices(told(shelf, known))["ort"]
    assert ort == Choice("ort", "edge", "accepted", "fp32", "", MEASURED)
    assert choices(told(shelf, known, "restorer"))["ort"].state == "unproven", "of this bundle only"


def test_a_failed_engine_is_shown_with_its_bar_and_another_serves(shelf: Shelf, known: Verdicts) -> None:
    put(known, shelf.open("portrait"), "ort", "PSNR 31.0 dB < 40 dB")
    status = told(shelf, known)
    ort = choices(status)["ort"]
    assert (
        ort.state == "failed"
        and "PSNR 31.0 dB < 40 dB" in ort.reason
        and ort.verdict == replace(MEASURED, failing="PSNR 31.0 dB < 40 dB")
    )
    assert status.engine != "ort" and "ort: failed its proof, PSNR 31.0 dB < 40 dB" in status.reason


def test_what_lies_here_is_known_before_there_is_a_worker(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, backend="edge")
    write_portrait(settings.models / "sketch")
    told = inventory.at_start(settings)
    assert told.state == "loading" and [engine.name for engine in told.engines] == backends.names()
    here = {status.name: status for status in told.bundles}
    assert set(here) == {"sketch", "portrait", "restorer", "detector"} and here["portrait"].choices


def test_an_engine_is_looked_at_once_for_a_bundle(
    shelf: Shelf, known: Verdicts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe may load a driver, and a verdict is a file."""
    asked: list[str] = []
    get = Verdicts.get
    monkeypatch.setattr(Verdicts, "get", lambda self, name: asked.append(name) or get(self, name))
    inventory.survey(shelf, "auto", known)
    assert asked and len(asked) == len(set(asked))


def test_what_serves_is_what_select_takes(shelf: Shelf, known: Verdicts) -> None:
    status = told(shelf, known)
    engine, reason = backends.select(shelf.open("portrait"), "auto", known)
    assert (status.engine, status.reason) == (engine.name, reason)


def test_each_precision_is_a_choice_and_the_one_that_serves_is_named(shelf: Shelf, known: Verdicts) -> None:
    root = shelf.open("restorer").root
    manifest = json.loads((root / "bundle.json").read_text(encoding="utf-8"))
    (part,) = manifest["parts"]
    write_manifest(root, {**manifest, "parts": [{**part, "precision": "int8"}, part]})
    status = told(shelf, known, "restorer")
    ways = [(c.engine, c.precision) for c in status.choices if c.state == "unproven"]
    assert ("ort", "fp32") in ways and ("ort", "int8") in ways
    assert (status.engine, status.precision) == ("ort", "fp32")
    assert [c.precision for c in status.choices if status.is_served_by(c)] == ["fp32"]


def test_what_is_too_large_for_the_memory_says_so(shelf: Shelf, known: Verdicts) -> None:
    _, bundles = inventory.survey(shelf, "auto", known, lambda bundle, parts, engine: f"{engine} is too large")
    ort = choices(bundles[0])["ort"]
    assert (ort.state, ort.reason) == ("unproven", "ort is too large")


def test_parts_that_are_lent_are_named(shelf: Shelf, known: Verdicts) -> None:
    lenders = Lenders({"portrait/denoiser": "http://desk.lan:7870", "restorer/decoder": "http://den.lan"})
    _, bundles = inventory.survey(shelf, "auto", known, lenders=lenders)
    reasons = {bundle.name: bundle.reason for bundle in bundles}
    assert reasons["portrait"] == f"{told(shelf, known).reason}; denoiser lent by desk.lan:7870"
    assert "lent" not in reasons["restorer"], "it has no decoder"


def test_a_bundle_that_nothing_can_run_is_listed_with_the_reason(tmp_path: Path, known: Verdicts) -> None:
    shelf = Shelf((tmp_path,))
    bundle = write_restorer(tmp_path / "restorer")
    able = [e.name for e in backends.engines() if e.probe().ok and "onnx" in e.formats]
    for name in able:
        put(known, bundle, name, "PSNR 1.0 dB < 40 dB")
    status = told(shelf, known, "restorer")
    assert status.engine == "" and all(f"{name}: failed its proof" in status.reason for name in able)


def test_a_card_is_passed_on_but_not_without_end(shelf: Shelf) -> None:
    root = shelf.open("portrait").root
    assert told(shelf, None).card == ""
    (root / "card.md").write_text("# 卡片\n" + "字" * 50_000, encoding="utf-8")
    card = told(shelf, None).card
    assert card.startswith("# 卡片\n") and len(card.encode()) <= inventory.CARD_BYTES + 3
    (root / "card.md").write_bytes(b"caf\xe9")
    assert told(shelf, None).card.startswith("caf"), "in another encoding: readable enough, and no crash"


def test_the_size_is_that_of_the_files(shelf: Shelf) -> None:
    root = shelf.open("portrait").root
    (root / "more.bin").write_bytes(bytes(2_500_000))
    assert told(shelf, None).size_mb == 2.5


def test_sources_are_checkpoints_pipelines_and_bundles_that_carry_theirs(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for name in ("GPEN 512.pth", "a.safetensors", "community.onnx", "UPPER.PTH", "note.txt", ".hidden.pth"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    for name in ("z-image/transformer", "of diffusers", "photographs", ".hidden/transformer", "folder.pth"):
        (folder / name).mkdir(parents=True)
    (folder / "of diffusers" / "model_index.json").touch()
    (folder / "photographs" / "face.jpg").touch()
    found = inventory.sources(shelf, folder)
    assert set(found) == {
        ("restorer", "GPEN 512.pth"),
        ("restorer", "a.safetensors"),
        ("restorer", "community.onnx"),
        ("restorer", "UPPER.PTH"),
        ("portrait", "z-image"),
        ("portrait", "of diffusers"),
    }, "the fakes' bundles carry no source"
    assert found["restorer", "a.safetensors"] == folder / "a.safetensors"
    assert inventory.sources(shelf, tmp_path / "nothing there") == {}


def test_the_built_in_bundles_can_be_built_from(builtin: Path, tmp_path: Path) -> None:
    found = inventory.sources(Shelf((builtin,)), tmp_path)
    assert found == {("portrait", "portrait"): builtin / "portrait", ("restorer", "restorer"): builtin / "restorer"}


def test_how_large_a_source_is_counts_what_is_read_of_it(builtin: Path, tmp_path: Path) -> None:
    """A bundle holds graphs and proofs besides: an estimate by all of it was twice too much."""
    (tmp_path / "a.pth").write_bytes(bytes(1000))
    (tmp_path / "pipeline" / "unet").mkdir(parents=True)
    (tmp_path / "pipeline" / "unet" / "weights.bin").write_bytes(bytes(2000))
    assert [inventory.weights_bytes(tmp_path / name) for name in ("a.pth", "pipeline")] == [1000, 2000]
    restorer = builtin / "restorer"
    assert inventory.weights_bytes(restorer) == (restorer / "restorer" / "model.safetensors").stat().st_size


def test_what_wears_a_lora_is_told(builtin: Path, shelf: Shelf) -> None:
    shipped = {bundle.name: bundle for bundle in inventory.survey(Shelf((builtin,)), "auto")[1]}
    assert {name: (b.family, b.takes_loras) for name, b in shipped.items() if name != "detector"} == {
        "portrait": ("zimage", True),
        "restorer": ("gpen", False),
    }
    assert not any(bundle.takes_loras for bundle in inventory.survey(shelf, "auto")[1]), "the fakes are compiled"


def test_why_nothing_can_be_built_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "NEEDED_TO_BUILD", ("json", "no_such_library", "nor_this"))
    assert inventory.cannot_build() == "not installed (no_such_library, nor_this)"
    monkeypatch.setattr(inventory, "NEEDED_TO_BUILD", ("json",))
    assert inventory.cannot_build() == ""
