"""
PyTorch and ONNX Runtime on an NVIDIA GPU: when they use it, and why not. What needs one is marked gpu, and is run by
`./run.sh test -m gpu` on a machine that has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines import backends
from engines.backends import device_buffers, ort_backend, torch_backend, vocabulary
from engines.backends.device_buffers import Gpu
from engines.bundle import Bundle, Role, Shelf
from engines.bundle.signatures import SIGNATURES, check_words
from engines.errors import EngineError
from engines.machine import cores
from engines.studio import trials
from tests.support.fakes import write_portrait
from tests.support.role_feeds import feeds_of, load

ACME = Gpu("ACME RTX 9000", "8.7", (12, 4))
ON_GPU = ("torch", "ort")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[Gpu | None], None]:
    """gpu(this one): it is what the machine has. None: it has none."""

    def install(found: Gpu | None) -> None:
        def answer() -> Gpu:
            if found is None:
                raise EngineError(device_buffers.NO_GPU, engine="cuda")
            return found

        monkeypatch.setattr(device_buffers, "gpu", answer)

    return install


needs_torch = pytest.mark.skipif(not backends.engine("torch").probe().ok, reason="PyTorch is not installed")
needs_ort = pytest.mark.skipif(not backends.engine("ort").probe().ok, reason="ONNX Runtime is not installed")


@needs_torch
@pytest.mark.parametrize(
    ("built", "device", "reason"),
    [
        ((12, 6), "ACME RTX 9000", "compute 8.7, driver for CUDA 12.4"),
        ((11, 8), "ACME RTX 9000", "compute 8.7, driver for CUDA 12.4"),
        ((13, 0), "CPU", f"{cores()} threads, ACME RTX 9000 left out: its driver is older than CUDA 13.0"),
        ((0, 0), "CPU", f"{cores()} threads, ACME RTX 9000 left out: this PyTorch is built for CPUs"),
    ],
)
def test_torch_takes_a_gpu_that_it_was_built_for(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, built: tuple[int, int], device: str, reason: str
) -> None:
    gpu(ACME)
    monkeypatch.setattr(torch_backend, "built_for", lambda: built)
    probe = backends.engine("torch").probe()
    assert (probe.ok, probe.device, probe.reason) == (True, device, reason)


@needs_torch
def test_what_torch_was_built_for_is_read_without_importing_it() -> None:
    import torch

    told = tuple(map(int, torch.version.cuda.split("."))) if torch.version.cuda else (0, 0)
    assert torch_backend.built_for() == told


@pytest.mark.parametrize(
    ("text", "built"),
    [
        ("cuda: Optional[str] = '12.6'\n", (12, 6)),
        ("cuda = '13.0'\n", (13, 0)),
        ("cuda: Optional[str] = None\n", (0, 0)),
    ],
)
def test_the_version_file_of_torch_in_its_forms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, built: tuple[int, int]
) -> None:
    (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\ndebug = False\n{text}hip: Optional[str] = None\n")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(torch_backend, "find_spec", lambda name: spec)
    assert torch_backend.built_for() == built


@needs_ort
@pytest.mark.parametrize(("built", "device"), [(True, "ACME RTX 9000"), (False, "CPU")])
def test_ort_takes_a_gpu_where_its_package_is_for_gpus(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, built: bool, device: str
) -> None:
    gpu(ACME)
    monkeypatch.setattr(ort_backend, "built_for_gpus", lambda: built)
    probe = backends.engine("ort").probe()
    assert probe.device == device
    if not built:
        left_out = "ACME RTX 9000 left out: it needs onnxruntime-gpu in the place of onnxruntime"
        assert probe.reason == f"{cores()} threads, {left_out}"


@pytest.mark.parametrize("name", ON_GPU)
def test_without_a_gpu_nothing_is_excused(gpu: Any, name: str) -> None:
    gpu(None)
    probe = backends.engine(name).probe()
    if not probe.ok:
        pytest.skip(probe.reason)
    assert (probe.device, probe.reason) == ("CPU", f"{cores()} threads")


@needs_ort
def test_ort_does_not_go_on_with_the_cpu_in_silence(gpu: Any, monkeypatch: pytest.MonkeyPatch, builtin: Path) -> None:
    """Here the CUDA provider is promised and not there, as where cuDNN is missing: ONNX Runtime only warns of it."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("the CUDA provider is here")
    gpu(ACME)
    monkeypatch.setattr(ort_backend, "built_for_gpus", lambda: True)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    bundle, engine = Shelf((builtin,)).open("detector"), backends.engine("ort")
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(EngineError, match="cuDNN"):
        engine.load(bundle, bundle.part("face_detector", engine.formats))


def test_the_table_of_words_is_known_where_a_bundle_says_so(built: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(built / "portrait")
    for part in bundle.parts:
        assert vocabulary(bundle, part) == ({"ids": 512} if part.role == "text_encoder" else {})
    silent = write_portrait(tmp_path / "p")
    assert vocabulary(silent, silent.part("text_encoder", frozenset({"onnx"}))) == {}


@pytest.mark.parametrize("ids", [[[0, 511]], [[]]])
def test_words_of_the_table_pass(ids: list[list[int]]) -> None:
    check_words({"ids": np.array(ids, np.int64)}, {"ids": 512}, "torch: x")


@pytest.mark.parametrize("word", [-1, 512])
def test_words_beyond_it_do_not(word: int) -> None:
    with pytest.raises(EngineError, match="torch: x: ids beyond 512") as caught:
        check_words({"ids": np.array([[3, word]])}, {"ids": 512}, "torch: x")
    assert caught.value.facts == {"engine": "torch"}


every_role = pytest.mark.parametrize("role", [role for role in SIGNATURES if role != "face_detector"])


@needs_torch
@every_role
def test_a_graph_makes_nothing_on_the_cpu_by_itself(built: Path, role: Role) -> None:
    """On a device without numbers, that is not the CPU: what a graph made there would meet what it is fed elsewhere."""
    import torch

    from engines.networks.graphs import open_graph

    bundle = Bundle.open(built / ("restorer" if role == "restorer" else "portrait"))
    part = bundle.part(role, frozenset({"safetensors", "diffusers"}))
    graph = open_graph(bundle, part).to("meta")
    feeds = {name: torch.from_numpy(array).to("meta") for name, array in feeds_of(role).items()}
    with torch.inference_mode():
        assert graph(**feeds).device.type == "meta"


@needs_torch
def test_the_guidance_is_told_where_the_network_is() -> None:
    import torch

    from engines.networks.unet import guidance_embedding

    assert guidance_embedding(torch.ones(1, device="meta"), 8).device.type == "meta"


# ---- on a GPU


@pytest.fixture
def real_gpu() -> Gpu:
    try:
        return device_buffers.gpu()
    except EngineError as exc:
        pytest.skip(str(exc))


@pytest.mark.gpu
def test_memory_of_the_gpu_gives_back_what_was_put_there(real_gpu: Gpu) -> None:
    assert re.fullmatch(r"\d+\.\d", real_gpu.capability) and real_gpu.cuda[0] >= 11 and real_gpu.name
    buffers = device_buffers.DeviceBuffers(device_buffers.driver())
    array = np.random.default_rng(0).normal(size=(3, 1000, 1000)).astype(np.float32)
    buffers.upload("x", array)
    back = buffers.download("x", array.shape, np.float32)
    buffers.wait()
    buffers.close()
    assert (back == array).all()


@pytest.mark.gpu
@every_role
@pytest.mark.parametrize("name", ["torch", "ort", "tensorrt"])
def test_a_gpus_numbers_are_those_of_the_contract(
    real_gpu: Gpu, built: Path, name: str, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the same engine's, or for TensorRT ONNX Runtime's, on the CPU."""
    if (probe := backends.engine(name).probe()).device in ("", "CPU"):
        pytest.skip(f"{name}: {probe.reason}")
    session = load(built, name, role)
    monkeypatch.setattr(
        device_buffers, "gpu", lambda: (_ for _ in ()).throw(EngineError(device_buffers.NO_GPU, engine="cuda"))
    )
    reference = load(built, "ort" if name == "tensorrt" else name, role)
    for seed in range(3):
        feeds = feeds_of(role, seed)
        (ours,), (wanted,) = session.run(feeds).values(), reference.run(feeds).values()
        assert np.abs(ours - wanted).max() <= 1e-4 * max(1.0, float(np.abs(wanted).max()))
    session.close()


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", ["trt-fp16", "trt-int8"])
@pytest.mark.parametrize("kind", ["portrait", "restorer"])
def test_tensorrt_proves_itself_on_the_built_in_bundles(
    real_gpu: Gpu, builtin: Path, tmp_path: Path, recipe: str, kind: str
) -> None:
    """Made anew by the recipe from the built-in source, and held against its proof in a process of its own."""
    engine = backends.engine("tensorrt")
    if not (probe := engine.probe()).ok:
        pytest.skip(f"tensorrt: {probe.reason}")
    from engines.toolchain import build

    make = build.build_portrait if kind == "portrait" else build.build_restorer
    make(builtin / kind, None, tmp_path / "models" / kind, recipe, options=build.BuildOptions(prove=True))
    bundle = Shelf((tmp_path / "models",), tmp_path / "compiled").open(kind)
    verdict = trials.prove_apart(bundle, backends.candidate(bundle, engine))
    assert verdict is not None and verdict.accepted, verdict
    assert verdict.device == real_gpu.name and verdict.precision == recipe.removeprefix("trt-")
    assert list((tmp_path / "compiled").rglob("*.plan")) and list((tmp_path / "compiled").rglob("*.sig"))
