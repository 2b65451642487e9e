# ruff: noqa: E402 (imports follow the check that torch is here)
"""Whole builds of tiny checkpoints by every recipe: what comes out is what the recipe says, proved and told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

for _module in ("torch", "diffusers", "transformers", "onnx", "onnxscript", "ml_dtypes", "onnxruntime"):
    pytest.importorskip(_module, reason="builds bundles with the toolchain")

import onnx
from safetensors.numpy import load_file

from engines import backends, messages
from engines.bundle import EMBEDDINGS, PROOF, Bundle, Role
from engines.errors import BundleError, EngineError, OptionError
from engines.messages import CREDIT, Event, Note, Progress
from engines.roles.embedding_cache import ArrayCache
from engines.roles.loaded import LoadedBundle
from engines.studio import proof, trials
from engines.toolchain import build, recipe
from engines.toolchain.build import BuildOptions
from engines.toolchain.quantize import calibration
from engines.toolchain.recipe import Recipe
from tests.support import builds, tiny
from tests.support.proved import prove
from tests.support.role_feeds import feeds_of

# torch's exporter uses a class that torch itself has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
RECIPES = ("edge-fp32", "edge-bf16", "edge-int8", "edge-int4", "trt-fp16", "trt-int8")
PROMPTS = ("一位女士", "a man with a hat")
Made = tuple[Bundle, list[Event]]
Make = Callable[[str, str], Made]


@pytest.fixture(scope="module")
def make(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """make(kind, recipe): built once. Engines are proved in this process, for which test_proof has their own."""
    folder, done = tmp_path_factory.mktemp("models"), dict[tuple[str, str], Made]()

    def built(kind: str, name: str) -> Made:
        if (kind, name) not in done:
            events: list[Event] = []
            with pytest.MonkeyPatch.context() as patch:
                builds.lighten(patch)
                patch.setattr(trials, "prove_apart", prove)
                do = build.build_portrait if kind == "portrait" else build.build_restorer
                source = checkpoints / kind / ("" if kind == "portrait" else "model.safetensors")
                options = BuildOptions(prompts=PROMPTS if kind == "portrait" else (), prove=True)
                about, out = checkpoints / kind / "about.toml", folder / f"{kind}-{name}"
                bundle = do(source, about, out, name, options=options, emit=events.append)
            done[kind, name] = bundle, events
        return done[kind, name]

    return built


slow = pytest.mark.slow
every_build = pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param("portrait", name, marks=slow) for name in RECIPES] + [("restorer", name) for name in RECIPES],
)


def report_of(bundle: Bundle) -> Any:
    return json.loads((bundle.root / "report.json").read_text(encoding="utf-8"))


@every_build
def test_a_build_is_whole_and_leaves_nothing_else(make: Make, kind: str, name: str) -> None:
    bundle, _ = make(kind, name)
    bundle.verify()
    assert bundle.root.name == f"{kind}-{name}" and PROOF in bundle.extras
    assert {"bundle.json", "report.json", "card.md"} <= set(os.listdir(bundle.root))
    assert not [path for path in bundle.root.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]
    assert not list(bundle.root.parent.glob(f".{bundle.root.name}*"))


@every_build
def test_parts_are_what_the_recipe_says(make: Make, kind: str, name: str) -> None:
    bundle, _ = make(kind, name)
    told = Recipe.read(name)
    for role in bundle.roles:
        parts = [(part.format, part.precision) for part in bundle.parts if part.role == role]
        how = told.of(role)
        if how.quantize:
            expected = "tensorrt" if how.tensorrt else "onnx"
            assert parts[0] == (expected, how.precision), "the coarse one is preferred"
        elif how.tensorrt:
            assert parts[0] == ("tensorrt", how.tensorrt)
        elif how.openvino != "fp32":
            assert parts[0] == ("openvino", how.openvino)
        assert ("onnx", "fp32") in parts, "the exact one stays, to fall back upon"
        assert parts[-1] in (("diffusers", "fp32"), ("safetensors", "fp32"))


@every_build
def test_weights_are_stored_as_wide_as_the_recipe_says(make: Make, kind: str, name: str) -> None:
    bundle, _ = make(kind, name)
    for path in bundle.root.rglob("*.safetensors"):
        width = "float32" if Recipe.read(name).stored == "fp32" else "float16"
        assert {array.dtype.name for array in load_file(path).values()} == {width}


@every_build
def test_every_engine_was_proved_and_the_report_says_how(make: Make, kind: str, name: str) -> None:
    bundle, events = make(kind, name)
    report = report_of(bundle)
    able = [(c.engine.name, c.precision) for c in backends.ways(bundle) if not c.refused]
    assert [(verdict["engine"], verdict["precision"]) for verdict in report["verdicts"]] == able, "each precision"
    assert ("ort", "fp32") in able
    for verdict in report["verdicts"]:
        assert verdict["pictures"] >= 2 and verdict["finish_s"] >= 0 and verdict["psnr_db"] > 20, verdict
        assert verdict["failing"] == "" or verdict["precision"] != "fp32", "random numbers may bear no rounding"
    files = [path for path in bundle.root.rglob("*") if path.is_file()]
    assert report["megabytes"] == pytest.approx(sum(path.stat().st_size for path in files) / 1e6, abs=0.15)
    assert report["credit"] == CREDIT and report["machine"]["cores"] >= 1
    titles = [step["step"] for step in report["steps"]]
    planned = [event.text.partition(". ")[2] for event in events if isinstance(event, Note)][: len(titles)]
    assert titles == planned and all(step["seconds"] >= 0 for step in report["steps"])


@every_build
def test_what_was_quantised_was_measured(make: Make, kind: str, name: str) -> None:
    bundle, _ = make(kind, name)
    told = {step["role"]: step for step in report_of(bundle)["steps"] if step["stage"] == "quantize"}
    assert set(told) == {role for role in bundle.roles if Recipe.read(name).of(role).quantize}
    for role, step in told.items():
        how = Recipe.read(name).of(role)
        assert how.bar_db > 0 and step["layers"] > 3
        assert step["quantized"] == step["layers"] and step["in_float"] == [], "builds.lighten took the bar away"
        assert step["reached_db"] == max(step["compared_db"].values())
        assert set(step["compared_db"]) == (set(how.ranges) if how.quantize == "static" else {""})


@pytest.mark.parametrize("kind", [pytest.param("portrait", marks=slow), "restorer"])
def test_integers_for_tensorrt_are_as_it_wants_them(make: Make, kind: str) -> None:
    """Explicit, symmetric, a scale for each output channel of a weight, and in one type with what is around them."""
    bundle, _ = make(kind, "trt-int8")
    parts = [part for part in bundle.parts if part.precision == "int8"]
    assert {part.role for part in parts} == ({"denoiser", "decoder"} if kind == "portrait" else {"restorer"})
    for part in parts:
        graph = onnx.load(bundle.root / part.file / "model.onnx").graph
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        made = {output: node for node in graph.node for output in node.output}
        layers = [node for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
        layers = [node for node in layers if getattr(made.get(node.input[1]), "op_type", "") == "DequantizeLinear"]
        assert len(layers) > 5
        for node in layers:
            activation, weight = (made[name] for name in node.input[:2])
            assert activation.op_type == "DequantizeLinear" and made[activation.input[0]].op_type == "QuantizeLinear"
            integers, scale, zero = (constants[name] for name in weight.input)
            (axis,) = (attribute.i for attribute in weight.attribute if attribute.name == "axis")
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            assert axis == (0 if node.op_type == "Conv" or transposed else 1) and scale.shape == (integers.shape[axis],)
            assert integers.dtype == np.int8 and scale.dtype == np.float16 and zero.dtype == np.int8 and not zero.any()
        for node in (node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")):
            assert constants[node.input[2]].dtype == np.int8 and not constants[node.input[2]].any()


@pytest.mark.parametrize("name", ["trt-fp16", "trt-int8"])
def test_what_is_for_tensorrt_is_read_by_no_other_engine(make: Make, name: str) -> None:
    bundle, _ = make("restorer", name)
    assert backends.candidate(bundle, backends.engine("ort")).precision == "fp32"
    part = bundle.part("restorer", backends.engine("tensorrt").formats)
    assert part.precision == name.removeprefix("trt-")


@pytest.mark.parametrize(("name", "share"), [("edge-int8", 0.35), ("edge-int4", 0.3)])
@slow
def test_a_quantised_denoiser_takes_less_room(make: Make, name: str, share: float) -> None:
    exact, _ = make("portrait", "edge-fp32")
    bundle, _ = make("portrait", name)
    weights = sum(path.stat().st_size for path in (exact.root / "denoiser").glob("*.safetensors"))
    (part,) = (part for part in bundle.parts if part.role == "denoiser" and part.precision in ("int8", "int4"))
    assert sum(path.stat().st_size for path in (bundle.root / part.file).iterdir()) < share * weights + 300_000


@every_build
def test_graphs_take_other_sizes_and_captions(make: Make, kind: str, name: str) -> None:
    """The preferred part of every role, quantised or not."""
    bundle, _ = make(kind, name)
    for engine in (e for e in backends.engines() if not backends.candidate(bundle, e).refused):
        for role in bundle.roles:
            session = engine.load(bundle, bundle.part(role, engine.formats))
            times = {"decoder": 2, "preview_decoder": 2, "encoder": 0.5}.get(role, 1)  # a cell is two pixels wide
            for sizes in ({}, {"T": 1, "h": 4, "w": 8, "H": 8, "W": 16}, {"T": 77, "h": 10, "w": 48, "H": 20, "W": 96}):
                feeds = feeds_of(role, **sizes)
                (result,) = session.run(feeds).values()
                given = next(iter(feeds.values())).shape
                assert result.shape[1 if role == "text_encoder" else -1] == given[-1] * times, (engine.name, role)
                assert np.isfinite(result).all() and result.std() > 1e-3
            session.close()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(pytest.param("portrait", name, marks=slow) for name in RECIPES),
        *(("restorer", name) for name in RECIPES),
    ],
)
def test_every_graph_is_valid_onnx(make: Make, kind: str, name: str) -> None:
    bundle, _ = make(kind, name)
    paths = list(bundle.root.rglob("*.onnx"))
    assert len(paths) >= len(bundle.roles)
    for path in paths:
        onnx.checker.check_model(path, full_check=True)


@every_build
def test_the_plan_comes_first_and_progress_counts_to_the_end(make: Make, kind: str, name: str) -> None:
    _, events = make(kind, name)
    first = next(i for i, event in enumerate(events) if isinstance(event, Progress))
    plan = [event.text for event in events[:first] if isinstance(event, Note)]
    assert len(plan) == first and plan[0].startswith("1. store ") and plan[-1].endswith(f"prove {backends.names()[-1]}")
    steps = [event for event in events if isinstance(event, Progress)]
    assert [event.step for event in steps] == list(range(len(plan))) and {event.total for event in steps} == {len(plan)}
    foretold = [event.eta_s is not None for event in steps]
    assert not foretold[0] and foretold[-1] and foretold == sorted(foretold), "once there is something to tell from"


@slow
@pytest.mark.parametrize("name", RECIPES)
def test_known_prompts_are_stored_as_the_text_encoder_reads_them(make: Make, tmp_path: Path, name: str) -> None:
    bundle, _ = make("portrait", name)
    assert EMBEDDINGS in bundle.extras
    loaded = LoadedBundle(bundle, backends.engine("torch"))
    for prompt in PROMPTS:
        stored = loaded.embedding(prompt, ArrayCache(tmp_path, 1))
        assert stored.dtype == np.float32 and np.abs(stored - loaded.text_encoder.encode(prompt)).max() <= 1e-5
    assert not list(tmp_path.iterdir())


def test_a_card_is_written_where_the_maker_wrote_none(make: Make) -> None:
    bundle, _ = make("restorer", "edge-int8")
    card = (bundle.root / "card.md").read_text(encoding="utf-8")
    assert card.startswith("# 小 · Tiny\n") and "- recipe edge-int8" in card and "- licence: Apache-2.0" in card
    assert CREDIT in card and "- random numbers" in card
    for verdict in report_of(bundle)["verdicts"]:
        rows = [line for line in card.splitlines() if line.startswith(f"| {verdict['engine']} ")]
        (row,) = [line for line in rows if f" {verdict['precision']} " in line]
        assert f"{verdict['psnr_db']} dB" in row and row.endswith(f"| {verdict['failing'] or 'accepted'} |")


@slow
def test_the_makers_own_card_is_kept(make: Make) -> None:
    bundle, _ = make("portrait", "edge-int8")
    assert (bundle.root / "card.md").read_text(encoding="utf-8") == tiny.CARD


def test_a_restorers_proof_shows_nobodys_photograph(make: Make) -> None:
    """Faces in it are drawn; they go along with the bundle."""
    bundle, _ = make("restorer", "edge-fp32")
    cases = proof.Proof.read(bundle).cases
    assert len(cases) == 4 and all((bundle.root / PROOF / case.face).is_file() for case in cases)


def test_a_graph_that_is_not_its_source_is_no_bundle(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exporter that goes wrong by a thousandth."""

    def wrong(graph: Any, role: Role, feeds: Any, path: Path, **how: Any) -> None:
        builds.cached_export(graph, role, feeds, path, **how)
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            if array.ndim == 4:
                tensor.CopyFrom(onnx.numpy_helper.from_array((array * 1.01).astype(array.dtype), tensor.name))
        onnx.save(model, path)

    monkeypatch.setattr(build, "export", wrong)
    with pytest.raises(EngineError, match="restorer: the graph differs from PyTorch by"):
        build.build_restorer(checkpoints / "restorer" / "model.safetensors", None, tmp_path / "r", "edge-fp32")
    assert not (tmp_path / "r").exists()


def test_upstreams_checkpoint_becomes_a_bundle_with_upstreams_numbers(shared: Path, tmp_path: Path) -> None:
    weights = shared / "golden" / "gpen-64-narrow0.0625.pth"
    if not weights.is_file():
        pytest.skip(f"no {weights.name}: upstream's numbers are not part of the repository")
    bundle = build.build_restorer(weights, None, tmp_path / "gpen", "edge-fp32")
    assert bundle.need(bundle.face, "face").size_px == 64
    golden = np.load(weights.with_suffix(".npz"))
    for engine in (e for e in backends.engines() if not backends.candidate(bundle, e).refused):
        session = engine.load(bundle, bundle.part("restorer", engine.formats))
        (restored,) = session.run({"face": golden["input"]}).values()
        assert np.abs(restored - golden["output"].clip(-1, 1)).max() <= 1e-4, engine.name
        session.close()


def test_recipes_are_those_that_a_request_may_name() -> None:
    known = get_args(messages.Recipe)
    assert sorted(known) == recipe.names() and [Recipe.read(name).name for name in known] == list(known)
    assert [name for name in known if not Recipe.read(name).lean] == list(RECIPES)  # the others: test_lean_builds.py


@pytest.mark.parametrize("name", ["", "edge", "../recipes/edge-int8", "edge-int8.toml", "EDGE-INT8"])
def test_an_unknown_recipe_is_refused_and_the_known_are_named(name: str) -> None:
    with pytest.raises(OptionError, match="edge-int4"):
        Recipe.read(name)


@pytest.mark.parametrize(
    "text", ["", 'stored = "int2"', 'stored = "fp16"\n[nose]\n', 'stored = "fp16"\n[decoder]\nquantise = "static"\n']
)
def test_a_recipe_that_makes_no_sense_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(recipe, "FOLDER", tmp_path)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(OptionError, match="recipe"):
        Recipe.read("mine")


def test_a_folder_without_photographs_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "broken.jpg").write_bytes(b"junk")
    with pytest.raises(BundleError, match="photographs"):
        list(calibration.faces(tmp_path / "photographs", 32))


def test_what_its_maker_calls_exact_stays_exact_on_every_engine(checkpoints: Path, tmp_path: Path) -> None:
    weights, about = checkpoints / "restorer" / "model.safetensors", tmp_path / "about.toml"
    for text, coarsest in (("", "bf16"), ('exact = ["restorer"]', "fp32")):
        about.write_text(text)
        bundle = build.build_restorer(weights, about, tmp_path / coarsest, "edge-bf16")
        assert backends.candidate(bundle, backends.engine("openvino")).precision == coarsest
