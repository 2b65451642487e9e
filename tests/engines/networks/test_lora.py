# ruff: noqa: E402 (imports follow the check that torch is here)
"""LoRA files against diffusers and PEFT: every layout, several at once, put on and taken off; and what is refused."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="tests torch modules")
for _module in ("diffusers", "transformers", "peft"):
    pytest.importorskip(_module, reason="compares with diffusers, which loads LoRA files with peft")

from diffusers import ZImagePipeline, ZImageTransformer2DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from engines.bundle.loras import LoraFile
from engines.errors import LoraError
from engines.networks.lora import ActiveLoras, Lora, read
from engines.networks.zimage import ZImageGraph
from tests.support import tiny
from tests.support.lora_files import LAYERS, Factors, Tensors, alphas, dotted, factors, kohya


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def base() -> Any:
    return tiny.transformer()


def original(pairs: Factors) -> Tensors:
    """As Z-Image's first code names its layers, with q, k and v in one."""
    block = "layers.0.attention"
    a = pairs[f"{block}.to_q"][0]
    together = torch.cat([pairs[f"{block}.to_{name}"][1] for name in "qkv"])
    renamed = {f"{block}.qkv": (a, together), f"{block}.out": pairs[f"{block}.to_out.0"]}
    return dotted(renamed, "diffusion_model.", "lora.down", "lora.up") | alphas(renamed)


LAYOUTS: dict[str, Callable[[Factors], Tensors]] = {
    "AWPortrait-Z": dotted,
    "with alpha": lambda pairs: dotted(pairs) | alphas(pairs),
    "kohya": kohya,
    "diffusers": lambda pairs: dotted(pairs, "transformer."),
    "default": lambda pairs: dotted(pairs, "diffusion_model.", "lora_A.default", "lora_B.default"),
    "half": lambda pairs: {key: value.half() for key, value in dotted(pairs).items()},
}


def saved(tensors: Tensors, path: Path, **metadata: str) -> Path:
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path, metadata=metadata or None)
    return path


def feeds() -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(5)
    return (
        torch.randn(1, 16, 8, 6, generator=generator),
        torch.tensor([0.3]),
        torch.randn(1, 9, 24, generator=generator),
    )


def drawn(graph: ZImageGraph) -> Any:
    return graph(*feeds())


def theirs(net: Any, *files: tuple[Path, float]) -> Any:
    """diffusers' own loader and forward."""
    net = copy.deepcopy(net)
    for i, (path, _) in enumerate(files):
        state = ZImagePipeline.lora_state_dict(str(path))
        ZImagePipeline.load_lora_into_transformer(state, net, adapter_name=f"lora{i}")
    net.set_adapters([f"lora{i}" for i in range(len(files))], [strength for _, strength in files])
    return forward(net)


def forward(net: Any) -> Any:
    x, time, prompt = feeds()
    return net([x[0][:, None]], time, [prompt[0]], return_dict=False)[0][0][:, 0][None]


def ours(net: Any, *files: tuple[Path, float]) -> Any:
    graph = ZImageGraph(copy.deepcopy(net)).eval()
    assert ActiveLoras(graph.net).set([LoraFile(*file) for file in files]) == ()
    return drawn(graph)


def apart(one: Any, other: Any) -> float:
    """As a share of the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def shapes(net: Any) -> Any:
    return ActiveLoras(net).shapes


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("strength", [0.8, -0.5])
def test_every_layout_draws_what_diffusers_draws(base: Any, tmp_path: Path, layout: str, strength: float) -> None:
    path = saved(LAYOUTS[layout](factors(base)), tmp_path / "l.safetensors")
    expected = theirs(base, (path, strength))
    assert apart(expected, forward(base)) > 0.05, "or it would be seen in no picture"
    assert apart(ours(base, (path, strength)), expected) <= 2e-5


def test_the_first_names_and_fused_layers_are_diffusers_too(base: Any, tmp_path: Path) -> None:
    pairs = factors(base, layers=LAYERS[:4])
    path = saved(original(pairs), tmp_path / "l.safetensors")
    expected = theirs(base, (path, 1.0))
    assert apart(expected, forward(base)) > 0.01
    assert apart(ours(base, (path, 1.0)), expected) <= 2e-5


def test_first_names_of_the_layers_at_both_ends(base: Any, tmp_path: Path) -> None:
    pairs = factors(base, layers=("all_x_embedder.2-1", "all_final_layer.2-1.linear"))
    renamed = dict(zip(("x_embedder", "final_layer.linear"), pairs.values(), strict=True))
    one = saved(dotted(pairs), tmp_path / "one.safetensors")
    other = saved(dotted(renamed, "model.diffusion_model."), tmp_path / "other.safetensors")
    assert torch.equal(ours(base, (other, 1.0)), ours(base, (one, 1.0)))


def test_twins_count_once(base: Any, tmp_path: Path) -> None:
    """Some trainers write a layer under both names."""
    pairs = factors(base, layers=LAYERS[:4])
    plain = saved(dotted(pairs), tmp_path / "plain.safetensors")
    both = saved(original(pairs) | dotted(pairs), tmp_path / "both.safetensors")
    assert torch.equal(ours(base, (both, 1.0)), ours(base, (plain, 1.0)))


def test_peft_names_without_diffusers(base: Any, tmp_path: Path) -> None:
    pairs = factors(base)
    one = saved(dotted(pairs), tmp_path / "one.safetensors")
    other = saved(dotted(pairs, "base_model.model."), tmp_path / "other.safetensors")
    assert torch.equal(ours(base, (other, 0.7)), ours(base, (one, 0.7)))


def trained(base: Any, folder: Path, **config: Any) -> tuple[Any, Path]:
    """A network with an adapter that PEFT made, and the file that diffusers writes of it."""
    net = copy.deepcopy(base)
    net.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_v", "w1", "w2"], **config), "trained")
    generator = torch.Generator().manual_seed(3)
    for name, value in net.named_parameters():
        if ".lora_" in name and "magnitude" not in name:
            value.copy_(torch.randn(value.shape, generator=generator) / 6)
    layers, told = get_peft_model_state_dict(net, adapter_name="trained"), net.peft_config["trained"].to_dict()
    ZImagePipeline.save_lora_weights(
        folder, layers, weight_name="t.safetensors", transformer_lora_adapter_metadata=told
    )
    return net.eval(), folder / "t.safetensors"


@pytest.mark.parametrize(
    "config",
    [
        {"lora_alpha": 4},
        {"lora_alpha": 16},
        {"lora_alpha": 6, "use_rslora": True},
        {"lora_alpha": 2, "alpha_pattern": {"layers.0.feed_forward.w1": 9, "to_v": 1}},
        {"lora_alpha": 4, "rank_pattern": {"to_q": 2}},
    ],
)
def test_what_diffusers_saved_is_what_was_trained(base: Any, tmp_path: Path, config: dict[str, Any]) -> None:
    """Its alphas stand in the file's header."""
    net, path = trained(base, tmp_path, **config)
    assert apart(ours(base, (path, 1.0)), forward(net)) <= 2e-5


@pytest.mark.filterwarnings("ignore:Already found a .peft_config")
def test_several_are_worn_together(base: Any, tmp_path: Path) -> None:
    one = saved(dotted(factors(base, 1)), tmp_path / "one.safetensors")
    two = saved(kohya(factors(base, 2, rank=2, layers=LAYERS[2:9])), tmp_path / "two.safetensors")
    worn = (one, 0.5), (two, -0.75)
    expected = theirs(base, *worn)
    assert apart(ours(base, *worn), expected) <= 2e-5
    assert apart(expected, theirs(base, worn[0])) > 0.01 and apart(expected, theirs(base, worn[1])) > 0.01


def test_nothing_is_left_of_what_is_taken_off(base: Any, tmp_path: Path) -> None:
    graph = ZImageGraph(copy.deepcopy(base)).eval()
    before, plain = copy.deepcopy(graph.state_dict()), drawn(graph)
    files = [saved(dotted(factors(base, k)), tmp_path / f"{k}.safetensors") for k in range(2)]
    active = ActiveLoras(graph.net)
    active.set([LoraFile(files[0], 0.7)])
    first = drawn(graph)
    for k in range(100):
        active.set([LoraFile(files[k % 2], 0.1 * k - 5), LoraFile(files[0], 1.0)])
    active.set([LoraFile(files[0], 0.7)])
    assert torch.equal(drawn(graph), first) and not torch.equal(first, plain)
    active.set([])
    assert torch.equal(drawn(graph), plain) and not active.held
    assert all(torch.equal(value, before[name]) for name, value in graph.state_dict().items())


def test_no_strength_is_no_change(base: Any, tmp_path: Path) -> None:
    path = saved(dotted(factors(base)), tmp_path / "l.safetensors")
    assert torch.equal(ours(base, (path, 0.0)), ours(base))


def test_a_file_is_read_once_and_again_when_it_is_another(base: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from engines.networks import lora

    times: list[Path] = []

    def counted(path: Path, shapes: Any) -> Lora:
        times.append(path)
        return read(path, shapes)

    monkeypatch.setattr(lora, "read", counted)
    graph = ZImageGraph(copy.deepcopy(base)).eval()
    active, path = ActiveLoras(graph.net), saved(dotted(factors(base)), tmp_path / "l.safetensors")
    for strength in (0.5, 0.5, 0.8):
        active.set([LoraFile(path, strength)])
    assert len(times) == 1
    one = drawn(graph)
    saved(dotted(factors(base, 9)), tmp_path / "l.safetensors")
    active.set([LoraFile(path, 0.8)])
    assert len(times) == 2 and not torch.equal(drawn(graph), one)


def test_a_text_encoders_layers_are_left_out(base: Any, tmp_path: Path) -> None:
    pairs = factors(base)
    words = {"lora_te_layers_0_mlp": (torch.ones(1, 2), torch.ones(2, 1)), "text_encoder.mlp": (torch.ones(1, 2),) * 2}
    plain = saved(dotted(pairs), tmp_path / "plain.safetensors")
    more = saved(dotted(pairs) | dotted(words, ""), tmp_path / "more.safetensors")
    assert read(more, shapes(base)).left_out == ("lora_te_layers_0_mlp", "text_encoder.mlp")
    assert torch.equal(ours(base, (more, 1.0)), ours(base, (plain, 1.0)))


def test_layers_that_the_network_has_not_are_left_out_and_named(base: Any, tmp_path: Path) -> None:
    more = {"layers.7.attention.to_q": factors(base)["layers.0.attention.to_q"]}
    path = saved(dotted(factors(base)) | dotted(more), tmp_path / "l.safetensors")
    assert read(path, shapes(base)).left_out == ("layers.7.attention.to_q",)


W1 = "diffusion_model.layers.0.feed_forward.w1"
ONE, TWO = torch.ones(2, 32), torch.ones(85, 2)
GOOD = {f"{W1}.lora_A.weight": ONE, f"{W1}.lora_B.weight": TWO}
REFUSED: list[tuple[Tensors, str]] = [
    ({}, "fits no layer"),
    (dotted({"unet.down.0.to_q": (ONE, TWO)}, ""), "fits no layer"),
    (dotted({"lora_te_layers_0_mlp": (ONE, TWO)}, ""), "fits no layer"),
    ({**GOOD, f"{W1}.dora_scale": torch.ones(85)}, "DoRA"),
    ({**GOOD, f"{W1}.lora_magnitude_vector": torch.ones(85)}, "DoRA"),
    ({f"{W1}.lokr_w1": ONE, f"{W1}.lokr_w2": TWO}, "LoKr"),
    ({f"{W1}.hada_w1_a": ONE}, "LoHa"),
    ({**GOOD, f"{W1}.diff_b": torch.ones(85)}, "diff_b"),
    ({**GOOD, "layers.0.feed_forward.w1.weight": torch.ones(85, 32)}, "w1.weight"),
    ({f"{W1}.lora_A.weight": ONE}, "layers.0.feed_forward.w1 lacks"),
    ({f"{W1}.lora_A.weight": ONE, f"{W1}.lora_B.weight": torch.ones(84, 2)}, "w1 is 84 x 32, in this model 85 x 32"),
    ({f"{W1}.lora_A.weight": torch.ones(2, 31), f"{W1}.lora_B.weight": TWO}, "w1 is 85 x 31, in this model 85 x 32"),
    ({f"{W1}.lora_A.weight": ONE, f"{W1}.lora_B.weight": torch.ones(85, 3)}, "w1, 85 x 3 and 2 x 32"),
    ({f"{W1}.lora_A.weight": ONE[..., None], f"{W1}.lora_B.weight": TWO}, "w1, 85 x 2 and 2 x 32 x 1"),
    ({f"{W1}.lora_A.weight": torch.ones(0, 32), f"{W1}.lora_B.weight": torch.ones(85, 0)}, "w1, 85 x 0"),
    ({f"{W1}.lora_A.weight": ONE * torch.nan, f"{W1}.lora_B.weight": TWO}, "w1 has values that are not numbers"),
    ({**GOOD, f"{W1}.alpha": torch.tensor(torch.inf)}, "not numbers"),
    ({**GOOD, f"{W1}.alpha": torch.ones(2)}, "not numbers"),
]


@pytest.mark.parametrize(("tensors", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_does_not_fit_is_refused_with_a_sentence(base: Any, tmp_path: Path, tensors: Tensors, why: str) -> None:
    path = saved(tensors, tmp_path / "mine.safetensors")
    with pytest.raises(LoraError, match="LoRA mine: ") as caught:
        read(path, shapes(base))
    assert why in str(caught.value) and str(tmp_path) not in str(caught.value)
    assert caught.value.facts == {"lora": "mine", "why": str(caught.value).removeprefix("LoRA mine: ")}


def test_a_dora_that_peft_trained_is_refused(base: Any, tmp_path: Path) -> None:
    _, path = trained(base, tmp_path, use_dora=True)
    with pytest.raises(LoraError, match="DoRA"):
        read(path, shapes(base))


@pytest.mark.parametrize("told", ["{", "[]", '{"lora_alpha": "much"}', '{"alpha_pattern": 3}'])
def test_a_header_that_makes_no_sense_is_refused(base: Any, tmp_path: Path, told: str) -> None:
    path = saved(dict(GOOD), tmp_path / "l.safetensors", lora_adapter_metadata=told)
    with pytest.raises(LoraError, match="it cannot be read"):
        read(path, shapes(base))


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 64, b"PK\x03\x04" + bytes(60), None])
def test_a_file_that_is_none_is_refused_and_the_others_are_worn(base: Any, tmp_path: Path, content: Any) -> None:
    good, bad = saved(dotted(factors(base)), tmp_path / "good.safetensors"), tmp_path / "bad.safetensors"
    if content is not None:
        bad.write_bytes(content)
    graph = ZImageGraph(copy.deepcopy(base)).eval()
    refused = ActiveLoras(graph.net).set([LoraFile(bad, 1.0), LoraFile(good, 0.6)])
    assert [error.facts["lora"] for error in refused] == ["bad"] and str(tmp_path) not in str(refused[0])
    assert torch.equal(drawn(graph), ours(base, (good, 0.6)))


def test_a_file_cut_short_is_refused(base: Any, tmp_path: Path) -> None:
    path = saved(dotted(factors(base)), tmp_path / "l.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LoraError, match="it cannot be read"):
        read(path, shapes(base))


@pytest.mark.parametrize("strength", [1.0, 0.8])
def test_the_shipped_lora_on_the_shipped_denoiser_is_diffusers(builtin: Path, tmp_path: Path, strength: float) -> None:
    folder = tmp_path / "denoiser"
    shutil.copytree(builtin / "portrait" / "denoiser", folder)
    net = ZImageTransformer2DModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
    path = builtin / "loras" / "studio_light.safetensors"
    x, prompt = torch.randn(1, 16, 16, 16), torch.randn(1, 20, net.config.cap_feat_dim)
    assert len(read(path, shapes(net)).changes) == len(load_file(path)) // 2

    def forward_(net: Any) -> Any:
        return net([x[0][:, None]], torch.tensor([0.4]), [prompt[0]], return_dict=False)[0][0][:, 0][None]

    plain = forward_(net)
    graph = ZImageGraph(copy.deepcopy(net)).eval()
    assert ActiveLoras(graph.net).set([LoraFile(path, strength)]) == ()
    ZImagePipeline.load_lora_into_transformer(ZImagePipeline.lora_state_dict(str(path)), net, adapter_name="light")
    net.set_adapters(["light"], [strength])
    expected = forward_(net)
    assert apart(expected, plain) > 0.01
    assert apart(graph(x, torch.tensor([0.4]), prompt), expected) <= 5e-5
