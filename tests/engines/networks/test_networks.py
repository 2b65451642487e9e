# ruff: noqa: E402 (imports follow the check that torch is here)
"""The torch modules we own, against the code they replace: diffusers, transformers, upstream's GPEN."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="tests torch modules")
for _module in ("diffusers", "transformers"):
    pytest.importorskip(_module, reason="compares with diffusers and transformers")

from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from engines.bundle import Bundle
from engines.errors import BundleError
from engines.networks import zimage
from engines.networks.autoencoder import DecoderGraph
from engines.networks.gpen import GPEN, ModulatedConv, Spec, Upsample, dense_upsampling, fir, up_in_phases
from engines.networks.graphs import open_graph
from engines.networks.qwen import Qwen3Graph
from engines.networks.restorer import RestorerGraph
from engines.networks.zimage import ZImageGraph
from tests.support import tiny


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


def drawn(*shape: int, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_gpen_gives_upstreams_numbers(shared: Path) -> None:
    state = torch.load(shared / "golden" / "gpen-64-narrow0.0625.pth", weights_only=True)
    network = GPEN(Spec.of(state))
    network.load_state_dict(state)
    golden = np.load(shared / "golden" / "gpen-64-narrow0.0625.npz")
    names = sorted(golden.files)
    face, expected = sorted((golden[name] for name in names), key=lambda array: np.abs(array).max() > 1)
    assert np.abs(network.eval()(torch.from_numpy(face)).numpy() - expected).max() <= 1e-4


@pytest.mark.parametrize("name", ["GPEN-BFR-256", "GPEN-BFR-512"])
def test_official_checkpoints_fit(shared: Path, name: str) -> None:
    """Every key and shape of upstream's state dict, and no other; the shape of the network is read back from them."""
    told = json.loads((shared / "golden" / "gpen-official-state-dicts.json").read_text())[name]
    (official,) = (value for value in told.values() if isinstance(value, dict))
    spec = Spec.official(told["size"], told["channel_multiplier"], told["narrow"], told["style_dim"])
    assert spec.size_px == told["size"]
    with torch.device("meta"):
        network = GPEN(spec)
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == official
    assert Spec.of(network.state_dict()) == spec


def naive_modulated_conv(conv: ModulatedConv, x: Any, latent: Any) -> Any:
    """As StyleGAN2 writes it: new weights for every sample, run as a grouped convolution."""
    batch, c_in, height, width = x.shape
    style = conv.modulation(latent).view(batch, 1, c_in, 1, 1)
    weight = conv.weight * conv.scale * style  # (B, c_out, c_in, k, k)
    if conv.demodulate:
        weight = weight / (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    joined = x.reshape(1, batch * c_in, height, width)
    if conv.blur is None:
        y = F.conv2d(joined, weight.flatten(0, 1), padding=conv.kernel // 2, groups=batch)
        return y.view(batch, -1, height, width)
    y = F.conv_transpose2d(joined, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=batch)
    y = y.view(batch, -1, 2 * height + 1, 2 * width + 1)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = (torch.outer(taps, taps) * 4).expand(y.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(y, (1, 1, 1, 1)), kernel, groups=y.shape[1])


@pytest.mark.parametrize(
    ("kernel", "demodulate", "up"), [(3, True, False), (3, True, True), (1, False, False), (3, False, True)]
)
def test_static_weights_are_the_same_function(kernel: int, demodulate: bool, up: bool) -> None:
    torch.manual_seed(0)
    conv = ModulatedConv(6, 5, kernel, 8, demodulate, up)
    x, latent = drawn(3, 6, 7, 9), drawn(3, 8, seed=1)
    ours, naive = conv(x, latent), naive_modulated_conv(conv, x, latent)
    assert ours.shape == naive.shape == ((3, 5, 14, 18) if up else (3, 5, 7, 9))
    assert (ours - naive).abs().max() <= 2e-5
    assert (ours[0] - ours[1]).abs().max() > 0.1


def test_gpens_faces_do_not_mix_in_a_batch() -> None:
    network = tiny.gpen()
    faces = drawn(2, 3, 16, 16).clamp(-1, 1)
    together = network(faces)
    assert together.shape == faces.shape
    assert (together - torch.cat([network(face[None]) for face in faces])).abs().max() <= 1e-4


def test_the_residual_belongs_to_the_graph() -> None:
    network, face = tiny.gpen(), drawn(1, 3, 16, 16).clamp(-1, 1)
    raw = network(face)
    assert raw.abs().max() > 1  # or clamping would not be seen
    assert torch.equal(RestorerGraph(network, 0.0)(face), raw.clamp(-1, 1))
    assert torch.equal(RestorerGraph(network, 0.2)(face), (face + 0.2 * raw).clamp(-1, 1))


@pytest.mark.parametrize("length", [1, 2, 31, 100])
def test_qwens_graph_is_the_last_hidden_state_but_one(length: int) -> None:
    model = tiny.text_encoder()
    ids = torch.randint(0, 256, (1, length), generator=torch.Generator().manual_seed(length))
    expected = copy.deepcopy(model)(input_ids=ids, output_hidden_states=True).hidden_states[-2]
    ours = Qwen3Graph(model)(ids)
    assert ours.shape == (1, length, 24)
    assert (ours - expected).abs().max() <= 1e-5


def test_qwens_graph_needs_no_padding() -> None:
    """The pipeline pads to 512 tokens and masks; what stands to the right changes nothing."""
    model = tiny.text_encoder()
    ids = torch.randint(0, 256, (1, 20), generator=torch.Generator().manual_seed(0))
    padded, mask = F.pad(ids, (0, 44)), F.pad(torch.ones_like(ids), (0, 44))
    theirs = copy.deepcopy(model)(input_ids=padded, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
    assert (Qwen3Graph(model)(ids) - theirs[:, :20]).abs().max() <= 1e-5


@pytest.fixture(scope="module")
def transformers_pair() -> tuple[Any, ZImageGraph]:
    original = tiny.transformer()
    return original, ZImageGraph(copy.deepcopy(original)).eval()


@pytest.mark.parametrize(
    ("rows", "columns", "tokens"),
    [(16, 16, 7), (16, 16, 32), (18, 16, 33), (2, 2, 1), (6, 10, 64), (2, 30, 31), (126, 4, 5), (16, 14, 500)],
)
def test_the_denoisers_graph_is_diffusers_forward(
    transformers_pair: tuple[Any, ZImageGraph], rows: int, columns: int, tokens: int
) -> None:
    original, graph = transformers_pair
    x, prompt = drawn(1, 16, rows, columns), drawn(1, tokens, 24, seed=1)
    for time in (0.0, 0.3, 1.0):
        t = torch.tensor([time])
        expected = original([x[0][:, None]], t, [prompt[0]], return_dict=False)[0][0][:, 0]
        ours = graph(x, t, prompt)
        assert ours.shape == x.shape
        assert (ours[0] - expected).abs().max() <= 2e-5 * max(1.0, float(expected.abs().max()))


def test_pad_tokens_are_attended_to(transformers_pair: tuple[Any, ZImageGraph]) -> None:
    """Other pad tokens, another picture: where a caption is not full, and where a picture is not."""
    _, graph = transformers_pair
    time = torch.tensor([0.5])
    for name, rows, tokens in (("cap_pad_token", 16, 31), ("x_pad_token", 18, 32)):
        changed = copy.deepcopy(graph)
        getattr(changed.net, name).add_(1.0)
        x, prompt = drawn(1, 16, rows, 16), drawn(1, tokens, 24, seed=1)
        assert (changed(x, time, prompt) - graph(x, time, prompt)).abs().max() > 1e-3
        full_x, full_prompt = drawn(1, 16, 16, 16), drawn(1, 32, 24, seed=1)
        assert torch.equal(changed(full_x, time, full_prompt), graph(full_x, time, full_prompt))


@pytest.mark.parametrize("make", [tiny.vae, tiny.tiny_vae])
@pytest.mark.parametrize(("rows", "columns"), [(2, 4), (16, 18)])
def test_decoders_are_diffusers(make: Any, rows: int, columns: int) -> None:
    autoencoder, latents = make(), drawn(1, 16, rows, columns)
    image = DecoderGraph(autoencoder)(latents)
    assert image.shape == (1, 3, 2 * rows, 2 * columns)
    assert torch.equal(image, autoencoder.decode(latents).sample)


def test_a_decoder_with_a_post_quant_convolution() -> None:
    from diffusers import AutoencoderKL

    net = tiny.randomise(AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4), 1.0)
    latents = drawn(1, 4, 6, 6)
    assert torch.equal(DecoderGraph(net)(latents), net.decode(latents).sample)


def damage_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def first_matrix(state: Mapping[str, Any]) -> str:
    """One that every graph needs: an embedding, or a decoder's first or a denoiser's last layer."""
    return min(name for name in state if state[name].ndim > 1)


def damage_missing_tensor(path: Path) -> None:
    state = load_file(path)
    del state[first_matrix(state)]
    save_file(state, path, metadata={"format": "pt"})


def damage_shape(path: Path) -> None:
    state = load_file(path)
    name = first_matrix(state)
    save_file({**state, name: state[name][1:].contiguous()}, path, metadata={"format": "pt"})


@pytest.mark.filterwarnings("ignore")  # the libraries also warn of some of these; that is not enough
@pytest.mark.parametrize("role", ["text_encoder", "denoiser", "decoder", "preview_decoder", "encoder", "restorer"])
@pytest.mark.parametrize("damage", [damage_short, damage_header, damage_missing_tensor, damage_shape])
def test_files_that_make_no_network_are_refused(built: Path, tmp_path: Path, role: str, damage: Any) -> None:
    """A tensor that is missing must not be drawn at random: the picture would be noise, and nobody told."""

    shutil.copytree(built / ("restorer" if role == "restorer" else "portrait"), tmp_path / "b")
    bundle = Bundle.open(tmp_path / "b")
    (part,) = (part for part in bundle.parts if part.role == role and part.format != "onnx")
    (weights,) = (bundle.root / part.file).glob("*.safetensors")
    damage(weights)
    with pytest.raises(BundleError, match=part.file):
        open_graph(bundle, part)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (7, 9), (16, 16)])
@pytest.mark.parametrize("demodulate", [True, False])
def test_phases_are_the_same_function(height: int, width: int, demodulate: bool) -> None:
    """Four small convolutions woven together, for a transposed one."""
    torch.manual_seed(1)
    conv = ModulatedConv(6, 5, 3, 8, demodulate, up=True)
    x, latent = drawn(2, 6, height, width), drawn(2, 8, seed=1)
    plain = conv(x, latent)
    conv.phased = True
    phased = conv(x, latent)
    assert phased.shape == plain.shape == (2, 5, 2 * height, 2 * width)
    assert (phased - plain).abs().max() <= 2e-5 and plain.abs().max() > 0.1


def test_phases_alone_are_the_transposed_convolution_with_zeros_behind() -> None:
    x, weight = drawn(2, 4, 5, 6), drawn(3, 4, 3, 3, seed=1)
    woven, plain = up_in_phases(x, weight), F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    assert (woven[..., :-1, :-1] - plain).abs().max() <= 1e-5
    assert woven[..., -1, :].abs().max() == woven[..., :, -1].abs().max() == 0


def test_a_restorer_in_phases_is_the_same_restorer() -> None:
    face = drawn(1, 3, 16, 16).clamp(-1, 1)
    plain = RestorerGraph(tiny.gpen(), 0.2)(face)
    graph = RestorerGraph(tiny.gpen(), 0.2).in_phases()
    assert sum(module.phased for module in graph.modules() if isinstance(module, ModulatedConv)) > 2
    assert (graph(face) - plain).abs().max() <= 1e-5


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (16, 16)])
def test_upsampling_is_upstreams_filtered_transposed_convolution(height: int, width: int) -> None:
    x, kernel = drawn(2, 3, height, width), fir(4.0)
    upstreams = F.conv_transpose2d(x, kernel.expand(3, 1, 4, 4), stride=2, padding=1, groups=3)
    ours = Upsample()(x)
    assert ours.shape == upstreams.shape == (2, 3, 2 * height, 2 * width)
    assert (ours - upstreams).abs().max() <= 1e-6
    assert "kernel" in Upsample().state_dict() and "dense" not in Upsample().state_dict(), "upstream's keys alone"


def test_dense_upsampling_holds_for_a_kernel_without_symmetry() -> None:
    """The binomial one would not show taps that are swapped or turned."""
    x, kernel = drawn(1, 2, 4, 6), drawn(4, 4, seed=1)
    upstreams = F.conv_transpose2d(x, kernel.expand(2, 1, 4, 4), stride=2, padding=1, groups=2)
    dense = F.pixel_shuffle(F.conv2d(x, dense_upsampling(kernel, 2), padding=1), 2)
    assert (dense - upstreams).abs().max() <= 1e-5


def test_rotation_in_real_numbers_is_diffusers_in_complex_ones() -> None:
    """By the angle of each position, pair by pair; so a rotated vector keeps its length."""
    dim, length = 8, 11
    x, angles = drawn(1, length, 3, dim), zimage._angles(dim, length, 256.0)
    turned = zimage._rotate(x, angles.cos()[:, None], angles.sin()[:, None], zimage._quarter_turn(dim))
    frequencies = 256.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    phase = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
    pairs = torch.view_as_complex(x.double().reshape(1, length, 3, dim // 2, 2))
    expected = torch.view_as_real(pairs * torch.polar(torch.ones_like(phase), phase)[None, :, None]).flatten(3)
    assert (turned - expected).abs().max() <= 1e-5
    assert (turned.norm(dim=-1) - x.norm(dim=-1)).abs().max() <= 1e-5
    assert torch.equal(turned[:, 0], x[:, 0]) and not torch.allclose(turned[:, 1:], x[:, 1:])
