"""A safetensors file is looked at before a library parses it: one that lists half a million tensors stuns nobody."""

from __future__ import annotations

import ast
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="reads tensors for PyTorch")
# Imported before anything is measured: alone these modules take 50 MB, which whoever came first was charged with.
pytest.importorskip("diffusers.loaders.single_file_utils", reason="reads Stable Diffusion's files")
pytest.importorskip("transformers.models.clip.modeling_clip", reason="reads Stable Diffusion's files")

import torch
from safetensors.torch import save_file

import engines
from engines import files
from engines.bundle import Bundle, Part
from engines.bundle.loras import LoraFile
from engines.errors import BundleError, LoraError
from engines.messages.status import BundleKind
from engines.networks import lora, tensors
from engines.networks.graphs import open_graph
from engines.networks.lora import ActiveLoras
from engines.roles import memory
from engines.toolchain import sources
from engines.toolchain.sources import autoencoder, merge_lora, stable_diffusion, weights
from engines.worker import inventory
from tests.support.fakes import write_portrait, write_restorer

MANY = 500_000
PEAK_BYTES = 100_000_000


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole file whose header lists MANY tensors, all of them empty."""
    path = tmp_path_factory.mktemp("crowded") / "model.safetensors"
    with path.open("wb") as file:
        file.write(bytes(8))
        file.write(b"{")
        for number in range(MANY):
            file.write(b'%s"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % (b"," if number else b"", number))
        length = file.write(b"}") and file.tell() - 8
        file.seek(0)
        file.write(length.to_bytes(8, "little"))
    return path


@pytest.fixture
def parsers_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever parses a header fails the test, the library's reader or ours."""

    def parse(*_: object, **__: object) -> None:
        pytest.fail("it was parsed")

    monkeypatch.setattr(tensors, "load_file", parse)
    monkeypatch.setattr(tensors, "safe_open", parse)
    monkeypatch.setattr(files, "parse_json", parse)


@pytest.fixture
def refused(crowded: Path, tmp_path: Path) -> Callable[[str], Path]:
    """refused(name): the crowded file, under this name in a folder of its own."""

    def put(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(crowded)
        return path

    return put


@pytest.fixture
def measured() -> Iterator[None]:
    """What happens in between takes little memory."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < PEAK_BYTES


Put = Callable[[str], Path]
pytestmark = pytest.mark.usefixtures("measured")


@pytest.mark.usefixtures("parsers_rest")
@pytest.mark.parametrize("read", [tensors.read_tensors, tensors.read_metadata, files.safetensors_header])
def test_a_header_of_half_a_million_tensors_is_parsed_by_nobody(crowded: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(ValueError, match=r"model\.safetensors has a header of \d+ bytes"):
        read(crowded)


@pytest.mark.usefixtures("parsers_rest")
def test_as_a_lora_it_is_refused(refused: Put) -> None:
    path = refused("crowd.safetensors")
    with pytest.raises(LoraError, match="LoRA crowd: it cannot be read"):
        lora.read(path, {"layer": (4, 4)})
    (error,) = ActiveLoras(torch.nn.Sequential(torch.nn.Linear(4, 4))).set([LoraFile(path, 1.0)])
    assert "it cannot be read" in str(error)


@pytest.mark.usefixtures("parsers_rest")
def test_as_something_to_build_from_it_is_refused(refused: Put, tmp_path: Path) -> None:
    path = refused("from/model.safetensors")
    with pytest.raises(BundleError):
        sources.restorer(path)
    with pytest.raises(BundleError):
        sources.portrait(path)
    with pytest.raises(BundleError):
        stable_diffusion.check_single(path)
    with pytest.raises(BundleError):
        stable_diffusion.unpack(path, "denoiser", tmp_path / "unpacked")
    with pytest.raises(BundleError):
        autoencoder.with_encoder({"decoder": path.parent})
    with pytest.raises(BundleError):
        merge_lora._shapes(path.parent)
    with pytest.raises(BundleError):
        weights.part("denoiser", path.parent, tmp_path, "fp32", (), print)


def as_safetensors(bundle: Bundle, role: str) -> tuple[Bundle, Part]:
    """Return the bundle with this part alone, as if it were weights for PyTorch in a folder of their own."""
    (part,) = (part for part in bundle.parts if part.role == role)
    part = Part(part.role, part.role, "diffusers", "fp32", part.sha256, part.licence)
    (bundle.root / part.file).mkdir()
    return bundle, part


@pytest.mark.parametrize("role", ["denoiser", "text_encoder", "decoder", "preview_decoder", "restorer"])
def test_as_a_part_of_a_bundle_it_is_refused(refused: Put, tmp_path: Path, role: str) -> None:
    """diffusers and transformers, which read a folder by themselves, are not asked."""
    write = write_restorer if role == "restorer" else write_portrait
    bundle, part = as_safetensors(write(tmp_path / "mine"), role)
    refused(f"mine/{part.file}/model.safetensors")
    refused(f"mine/{part.file}/diffusion_pytorch_model.safetensors")
    (bundle.root / part.file / "config.json").write_text("{}")
    with pytest.raises(BundleError, match=f"mine/{role}: .* has a header of"):
        open_graph(bundle, part)
    with pytest.raises(BundleError, match=f"mine/{role}: .* has a header of"):
        memory._weights(bundle, part)


@pytest.mark.usefixtures("parsers_rest")
def test_among_the_checkpoints_it_holds_nobody_up(refused: Put, tmp_path: Path) -> None:
    path = refused("checkpoints/model.safetensors")
    origins: dict[tuple[BundleKind, str], Path] = inventory.sources(inventory.Shelf(()), path.parent)
    assert origins == {("restorer", path.name): path}, "as what cannot be read: a build will say why"


def test_nobody_else_calls_the_librarys_readers() -> None:
    """So that none is forgotten: engines/networks/tensors.py alone."""
    guests = []
    for path in sorted(Path(engines.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("safetensors"):
                guests += [path.name for alias in node.names if alias.name not in ("save_file", "SafetensorError")]
            if isinstance(node, ast.Import):
                guests += [path.name for alias in node.names if alias.name.startswith("safetensors")]
    assert guests == ["tensors.py", "tensors.py"]


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    """Tensors without numbers and without dimensions too, and what it says of itself."""
    state = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.zeros(0, 4),
        "c": torch.tensor(2.0),
        "d": torch.ones(3).half(),
    }
    path = tmp_path / "model.safetensors"
    save_file(state, path, metadata={"format": "pt", "maker": "{, {,"})
    read = tensors.read_tensors(path)
    assert {name: value.tolist() for name, value in read.items()} == {n: v.tolist() for n, v in state.items()}
    assert tensors.read_shapes(tmp_path) == {name: tuple(value.shape) for name, value in state.items()}
    assert tensors.read_metadata(path)["maker"] == "{, {,"
    tensors.check_folder(tmp_path)
    save_file({}, path)
    assert tensors.read_tensors(path) == {}
