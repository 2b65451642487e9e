# ruff: noqa: E402 (imports follow the check that torch is here)
"""What Stable Diffusion's bundles are made from: folders, single files, tokenizers, tiny decoders; and its networks."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="reads checkpoints with torch")
for _module in ("diffusers", "transformers", "onnx", "onnxscript", "ml_dtypes"):
    pytest.importorskip(_module, reason="builds bundles with the toolchain")

import diffusers
from diffusers.models.attention_processor import AttnProcessor2_0
from transformers import CLIPTokenizer

from engines.bundle import Diffusion, Text
from engines.errors import BundleError
from engines.networks.autoencoder import DecoderGraph
from engines.networks.clip import ClipGraph
from engines.networks.unet import SubsampledKeys, UNetGraph, guidance_embedding
from engines.tokens import Tokens
from engines.toolchain import sources
from engines.toolchain.sources import stable_diffusion, weights
from tests.support import tiny_sd
from tests.support.tiny_sd import drawn

TEXTS = [
    "a portrait of a woman, long red hair",
    "一位戴眼镜的老年男性，黑色长发",
    "🙂👩🏽‍🦰 café naïve ÀÉ ﬁ  tabs\tand\nlines",
    "it's they're we've 12345 a.b,c!? (((x:1.2)))",
    "<|endoftext|> inside <|startoftext|>",
    "",
    " ",
    "very long words and many of them, " * 40,
]


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd.save(tmp_path_factory.mktemp("sources") / "sd")


# ---- networks


@pytest.mark.parametrize(("rows", "columns", "tokens"), [(16, 16, 77), (18, 14, 77), (2, 30, 1), (26, 34, 40)])
@pytest.mark.parametrize("blocks", [tiny_sd.ATTENTION_ONCE, tiny_sd.EVERY_BLOCK], ids=["tiny", "Stable Diffusion"])
def test_the_unets_graph_is_diffusers_forward(rows: int, columns: int, tokens: int, blocks: dict[str, Any]) -> None:
    original = tiny_sd.unet(**blocks)
    graph = UNetGraph(copy.deepcopy(original))
    x, prompt = drawn(1, 4, rows, columns), drawn(1, tokens, tiny_sd.WIDTH, seed=1)
    for time in (0, 499, 999):
        expected = original(x, torch.tensor(time), prompt).sample
        assert (graph(x, torch.tensor([float(time)]), prompt) - expected).abs().max() <= 1e-5
        assert expected.std() > 0.1


@pytest.mark.parametrize(
    ("rows", "columns", "keys"),
    [(16, 16, {256: 64, 64: 16, 16: 16}), (18, 14, {252: 63, 63: 20, 20: 20}), (2, 2, {4: 1, 1: 1})],
)
def test_at_the_two_largest_sizes_every_other_row_and_column_gives_keys(
    rows: int, columns: int, keys: dict[int, int]
) -> None:
    unet, counted = tiny_sd.unet(**tiny_sd.EVERY_BLOCK), dict[int, int]()
    graph = UNetGraph(unet)
    graph.subsample_keys(2)
    for name, module in unet.named_modules():
        if name.endswith(".attn1") and not name.startswith("mid_block"):
            module.to_k.register_forward_pre_hook(
                lambda _, inputs, of=module: counted.__setitem__(of.tokens, inputs[0].shape[1])
            )
            module.register_forward_pre_hook(lambda of, inputs: setattr(of, "tokens", inputs[0].shape[1]))
    graph(drawn(1, 4, rows, columns), torch.tensor([499.0]), drawn(1, 7, tiny_sd.WIDTH, seed=1))
    assert counted == keys


def test_attention_to_what_is_alike_in_each_cell_is_not_changed_by_looking_at_one_of_them() -> None:
    attend = AttnProcessor2_0()
    attention = diffusers.models.attention_processor.Attention(24, heads=3, dim_head=8).eval()
    cells = drawn(2, 24, 3, 5)
    x = cells.repeat_interleave(2, 2).repeat_interleave(2, 3).flatten(2).transpose(1, 2)  # (2, 6 * 10, 24)
    subsampled = SubsampledKeys(attend, 1, 2)(attention, x, None, (12, 20))
    assert (subsampled - attend(attention, x)).abs().max() <= 1e-6 < subsampled.std()
    words = drawn(2, 9, 24, seed=1)
    assert torch.equal(SubsampledKeys(attend, 0, 2)(attention, x, words, (6, 10)), attend(attention, x, words))


@pytest.mark.parametrize(("width", "guidance"), [(10, 7.0), (10, 0.0), (256, 3.5), (7, 1.0)])
def test_guidance_is_embedded_as_the_pipeline_does(width: int, guidance: float) -> None:
    how = {"embedding_dim": width}
    expected = diffusers.StableDiffusionPipeline.get_guidance_scale_embedding(None, torch.tensor([guidance]), **how)
    assert (guidance_embedding(torch.tensor([guidance]), width) - expected).abs().max() <= 1e-5


def test_guidance_that_is_missing_or_too_much_is_said() -> None:
    feeds = drawn(1, 4, 8, 8), torch.tensor([5.0]), drawn(1, 7, tiny_sd.WIDTH)
    with pytest.raises(TypeError, match="no guidance"):
        UNetGraph(tiny_sd.unet())(*feeds, torch.tensor([1.0]))
    with pytest.raises(TypeError, match="missing"):
        UNetGraph(tiny_sd.unet(time_cond_proj_dim=6))(*feeds)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"in_channels": 9}, "9 channels"), ({"class_embed_type": "timestep"}, "class_embed_type")],
)
def test_unets_of_other_pipelines_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        UNetGraph(tiny_sd.unet(**change))


@pytest.mark.parametrize("length", [1, 2, 77])
def test_clips_graph_is_the_last_hidden_state(length: int) -> None:
    model = tiny_sd.text_encoder()
    ids = torch.randint(0, 400, (1, length), generator=torch.Generator().manual_seed(length))
    expected = copy.deepcopy(model)(input_ids=ids).last_hidden_state
    ours = ClipGraph(model)(ids)
    assert ours.shape == (1, length, tiny_sd.WIDTH) and (ours - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("make", [tiny_sd.vae, tiny_sd.tiny_vae])
def test_decoders_of_four_channels_are_diffusers(make: Any) -> None:
    autoencoder, latents = make(), drawn(1, 4, 10, 14)
    assert torch.equal(DecoderGraph(autoencoder)(latents), autoencoder.decode(latents).sample)


# ---- words


@pytest.mark.parametrize("folder", [None, stable_diffusion.SD15 / "tokenizer"], ids=["tiny", "Stable Diffusion 1.5"])
@pytest.mark.parametrize("pad", [tiny_sd.END, "!"])
@pytest.mark.parametrize("prompt", TEXTS)
def test_ids_are_those_of_transformers(tmp_path: Path, folder: Path | None, pad: str, prompt: str) -> None:
    """Padded to 77 and cut there, as the pipeline asks for it; Stable Diffusion 2 pads with "!"."""
    source = tmp_path / "tokenizer"
    shutil.copytree(folder or tiny_sd.save_tokenizer(tmp_path / "made"), source)
    told = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps({**told, "pad_token": pad}))
    text = stable_diffusion.text(source, 77)
    assert text == Text("tokenizer.json", "", "{prompt}", 77, tiny_sd.BEGIN, tiny_sd.END, pad)
    weights.tokenizer(source, tmp_path / "tokenizer.json")
    theirs = CLIPTokenizer.from_pretrained(source)
    wanted = theirs(prompt, padding="max_length", max_length=77, truncation=True)["input_ids"]
    ours = Tokens(tmp_path, text).ids(prompt)
    assert ours.dtype == np.int64 and ours.shape == (1, 77) and ours[0].tolist() == wanted


def test_stable_diffusions_own_vocabulary_is_whole() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(stable_diffusion.SD15 / "tokenizer")
    assert len(tokenizer) == 49408
    known = tokenizer("a photo of an astronaut riding a horse on mars")["input_ids"]
    assert known == [49406, 320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496, 49407]


def test_a_token_that_the_tokenizer_has_not_is_said(tmp_path: Path) -> None:
    weights.tokenizer(tiny_sd.save_tokenizer(tmp_path / "made"), tmp_path / "tokenizer.json")
    with pytest.raises(BundleError, match="<nothing>"):
        Tokens(tmp_path, Text("tokenizer.json", "", pad="<nothing>"))


# ---- what a folder says


def test_a_folder_says_what_it_is(base: Path) -> None:
    source = sources.portrait(base)  # nobody says anything about it
    roles = {"text_encoder", "denoiser", "decoder", "preview_decoder", "encoder"}
    assert source.family == "sd" and set(source.parts) == roles
    sampling = source.sampling
    assert sampling is not None and sampling.diffusion == Diffusion("ddim", steps_offset=1)
    assert (sampling.steps, sampling.guidance, sampling.latent_channels, sampling.latent_stride) == (25, 6.5, 4, 2)
    assert (sampling.latent_scale, sampling.latent_shift) == (0.4, 0.0)
    assert source.about.sizes == ((64, 64), (64, 96), (96, 64)) and source.about.template == "{prompt}"
    told = sources.portrait(base, base / "about.toml")
    assert told.sampling is not None and (told.sampling.steps, told.sampling.guidance) == (3, 1.5)


def saved_with(base: Path, folder: Path, scheduler: dict[str, Any]) -> Path:
    shutil.copytree(base, folder)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


def test_a_scheduler_that_we_have_not_becomes_ddim(base: Path, tmp_path: Path) -> None:
    """Stable Diffusion 1.5's own is PNDM."""
    told = json.loads((stable_diffusion.SD15 / "scheduler" / "scheduler_config.json").read_text())
    source = sources.portrait(saved_with(base, tmp_path / "sd", told))
    assert source.sampling is not None
    assert source.sampling.diffusion == Diffusion("ddim", steps_offset=1, alpha_to_one=False)
    assert source.about.lineage == ("sampled by DDIM in place of PNDMScheduler",)


def test_what_the_pipeline_overrules_counts_for_nothing(base: Path, tmp_path: Path) -> None:
    told = json.loads((base / "scheduler" / "scheduler_config.json").read_text())
    source = sources.portrait(saved_with(base, tmp_path / "sd", {**told, "clip_sample": True, "steps_offset": 0}))
    assert source.sampling == sources.portrait(base).sampling


def test_somebody_may_wish_another_scheduler(base: Path, tmp_path: Path) -> None:
    (tmp_path / "about.toml").write_text('scheduler = "lcm"')
    source = sources.portrait(base, tmp_path / "about.toml")
    assert source.sampling is not None and source.sampling.diffusion is not None
    assert source.sampling.diffusion.scheduler == "lcm" and (source.sampling.steps, source.sampling.guidance) == (8, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta_schedule": "linear"}, "beta_schedule"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"prediction_type": "sample"}, "predicts sample"),
    ],
)
def test_what_we_would_sample_wrongly_is_refused(
    base: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    told = json.loads((base / "scheduler" / "scheduler_config.json").read_text())
    with pytest.raises(BundleError, match=words):
        sources.portrait(saved_with(base, tmp_path / "sd", {**told, **change}))


@pytest.mark.parametrize("name", ["StableDiffusionXLPipeline", "FluxPipeline", None])
def test_pipelines_of_other_kinds_are_named(base: Path, tmp_path: Path, name: str | None) -> None:
    shutil.copytree(base, tmp_path / "other")
    (tmp_path / "other" / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(BundleError, match=f"is a {name}; known are ZImagePipeline"):
        sources.portrait(tmp_path / "other")


@pytest.mark.parametrize("gone", ["unet", "vae", "text_encoder", "tokenizer", "scheduler", "unet/config.json"])
def test_what_a_folder_lacks_is_said(base: Path, tmp_path: Path, gone: str) -> None:
    shutil.copytree(base, tmp_path / "sd")
    shutil.rmtree(tmp_path / "sd" / gone) if (base / gone).is_dir() else (tmp_path / "sd" / gone).unlink()
    with pytest.raises(BundleError, match="sd "):
        sources.portrait(tmp_path / "sd")


def test_of_several_widths_the_full_one_is_taken(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unet"
    shutil.copytree(base / "unet", folder)
    whole = folder / "diffusion_pytorch_model.safetensors"
    for other in ("diffusion_pytorch_model.fp16", "diffusion_pytorch_model.non_ema", "taesd_decoder"):
        shutil.copy(whole, folder / f"{other}.safetensors")
    assert sources.weight_files(folder) == [whole]
    whole.unlink()
    assert sources.weight_files(folder) == [folder / "diffusion_pytorch_model.fp16.safetensors"]


def test_weights_that_are_no_safetensors_are_said(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "sd")
    (tmp_path / "sd" / "unet" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "sd" / "unet" / "x.bin")
    with pytest.raises(BundleError, match="denoiser are no safetensors"):
        sources.portrait(tmp_path / "sd")


# ---- tiny decoders


def test_the_tiny_decoder_is_chosen_by_latent_space(base: Path, checkpoints: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "sd", ignore=shutil.ignore_patterns("preview_decoder"))
    shutil.copytree(checkpoints / "portrait", tmp_path / "z", ignore=shutil.ignore_patterns("preview_decoder"))
    assert "preview_decoder" not in sources.portrait(tmp_path / "sd", None, tmp_path / "checkpoints").parts
    for name, channels in (("taesd", 4), ("taef1", 16)):
        tiny_sd.tiny_vae(channels).save_pretrained(tmp_path / "checkpoints" / name)
    for folder, name in (("sd", "taesd"), ("z", "taef1")):
        found = sources.portrait(tmp_path / folder, None, tmp_path / "checkpoints").parts
        assert found["preview_decoder"] == tmp_path / "checkpoints" / name
    beside = sources.portrait(base, None, tmp_path / "checkpoints").parts
    assert beside["preview_decoder"] == base / "preview_decoder"


def test_a_tiny_decoder_of_another_latent_space_is_refused(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "sd", ignore=shutil.ignore_patterns("preview_decoder"))
    tiny_sd.tiny_vae(16).save_pretrained(tmp_path / "sd" / "preview_decoder")
    with pytest.raises(BundleError, match="16 latent channels, sd has 4: taesd"):
        sources.portrait(tmp_path / "sd")
