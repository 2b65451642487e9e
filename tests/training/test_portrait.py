"""The portrait model's training: renderer, words, the fast forward pass, and that training learns and resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("numba")

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from engines.messages import prompts
from engines.networks.autoencoder import DecoderGraph
from presets.vocabulary import traditional, unknown_words
from training.portrait import words
from training.portrait.bars import flat_or_broken, judge_lines, prompts_for, spread
from training.portrait.batches import Pool, make, pool_of
from training.portrait.captions import Record, caption
from training.portrait.denoiser import Grids, is_half, learn, new_run, straight
from training.portrait.export import pipeline
from training.portrait.forward import core, denoise, positions
from training.portrait.judge import labels
from training.portrait.latents import encode as to_latents
from training.portrait.latents import encode_all
from training.portrait.models import Sizes, new_tiny, new_transformer, new_vae
from training.portrait.pictures import Pictures, crops, psnr, shrunk, to_pictures, to_tensor
from training.portrait.render import Order, as_record, draw_shard
from training.portrait.renderer.attributes import Look, Person, sample_look, sample_person
from training.portrait.renderer.draw import Picture, build, picture
from training.portrait.sampling import draw, sample, sigmas
from training.portrait.state import load_averaged
from training.portrait.tokens import ALONE, encode, save, train
from training.portrait.unpack import unpack
from training.portrait.vae import bake_scale, examine, loss_of
from training.portrait.vocabulary import FILE, vocabulary

TINY = Sizes(vae_channels=(8, 8, 16), dim=64, layers=2, heads=2, axes=(8, 12, 12), text_dim=32, text_layers=2)
SIZE = 64  # px

PERSON = Person(
    gender="woman", age="young", hairstyle="bob", bangs=False, glasses="none", hat="none", beard="none",
    earrings="none", expression="neutral", clothes="t-shirt", view="front", anime=False, seed=7,
)  # fmt: skip
LOOK = Look(
    skin="fair", hair_colour="brown", eyes="blue", clothes_colour="red", hat_colour="blue", stripes=False, tie=True,
    freckles=False, makeup=False, light="studio", backdrop="grey", style="realistic", seed=8,
)  # fmt: skip


def drawn(**changes: Any) -> Picture:
    """The usual picture with some attributes changed."""
    own = {k: v for k, v in changes.items() if k in Person.__dataclass_fields__}
    rest = {k: v for k, v in changes.items() if k not in own}
    return picture(build(replace(PERSON, **own), SIZE), replace(LOOK, **rest))


def test_a_seed_decides_the_picture() -> None:
    first = drawn()
    assert first.shape == (SIZE, SIZE, 3)
    assert np.array_equal(first, drawn())
    assert not np.array_equal(first, drawn(clothes="shirt"))


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("age", "adult"), ("age", "elderly"), ("gender", "man"), ("hairstyle", "curly"), ("bangs", True),
     ("glasses", "square"), ("hat", "cap"), ("beard", "full"), ("earrings", "hoop"), ("expression", "laugh"),
     ("clothes", "suit"), ("view", "turned")],
)  # fmt: skip
def test_attributes_of_the_person_change_the_picture(attribute: str, value: str | bool) -> None:
    changed = drawn(**{attribute: value})
    assert np.abs(changed.astype(int) - drawn().astype(int)).max() > 30


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("skin", "dark"), ("hair_colour", "blonde"), ("eyes", "brown"), ("clothes_colour", "green"), ("makeup", True),
     ("light", "neon"), ("backdrop", "forest"), ("style", "oil"), ("style", "watercolour"), ("style", "film"),
     ("style", "vintage"), ("style", "anime")],
)  # fmt: skip
def test_attributes_of_the_look_change_the_picture(attribute: str, value: str | bool) -> None:
    changed = drawn(**{attribute: value})
    assert np.abs(changed.astype(int) - drawn().astype(int)).max() > 8


def test_the_eyes_stay_in_place_whatever_the_pose() -> None:
    """The whites of the eyes are about at the same height in frontal and turned heads."""
    rows = []
    for view in ("front", "turned"):
        scene = build(replace(PERSON, view=view), SIZE)
        eyes = np.argwhere(scene.buffer.material == 2)
        rows.append(eyes[:, 0].mean() / scene.buffer.z.shape[0])
    assert rows[0] == pytest.approx(0.43, abs=0.02)
    assert rows[1] == pytest.approx(rows[0], abs=0.02)


def some_records(count: int, seed: int = 0) -> list[Record]:
    rng = np.random.default_rng(seed)
    people = [sample_person(rng) for _ in range(count)]
    return [as_record(person, sample_look(rng, person)) for person in people]


FALSE_WORDS = {
    "glasses": ("glasses", "shades", "眼镜", "墨镜", "太阳镜"),
    "hat": ("beanie", "knit hat", "sun hat", "cap ", "beret", "帽"),
    "beard": ("beard", "stubble", "mustache", "moustache", "胡"),
}
HOODIE = "连帽衫"
DENIALS = ("no glasses", "without glasses", "no hat", "without a hat", "no beard", "clean-shaven",
           "不戴眼镜", "没有眼镜", "不戴帽子", "没有帽子", "没有胡子", "不留胡子")  # fmt: skip


@pytest.mark.parametrize("language", ["en", "zh"])
def test_captions_say_nothing_untrue(language: str) -> None:
    rng = np.random.default_rng(1)
    for record in some_records(300):
        text = caption(record, rng, language).text
        for denial in (*DENIALS, HOODIE):
            text = text.replace(denial, "")
        for attribute, said in FALSE_WORDS.items():
            if record[attribute] == "none":
                assert not any(word in text for word in said), (text, record)
        assert (language == "zh") == any("\u4e00" <= c <= "\u9fff" for c in text)


def test_captions_name_what_stands_out() -> None:
    rng = np.random.default_rng(2)
    texts = [caption(r, rng, "en") for r in some_records(400) if r["glasses"] != "none"]
    assert np.mean(["glasses" in t.mentioned for t in texts]) > 0.9


def test_the_page_knows_all_words_of_the_captions_and_no_others() -> None:
    assert FILE.read_text(encoding="utf-8").split() == vocabulary(), "python -m training.portrait.vocabulary"
    rng = np.random.default_rng(5)
    for record in some_records(300):
        for language in ("en", "zh"):
            text = caption(record, rng, language).text
            assert unknown_words(text, "attributes") == (), text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_caption_has_brackets(language: str) -> None:
    """They would be weights where the same words are drawn."""
    rng = np.random.default_rng(7)
    for record in some_records(300):
        text = caption(record, rng, language).text
        assert prompts.read(text) == prompts.Prompt(text) and not set("()[]（）") & set(text), text


def test_full_captions_are_plain_and_complete() -> None:
    record = some_records(1)[0]
    for language, colours in (("en", words.COLOUR_EN), ("zh", words.COLOUR_ZH)):
        said = caption(record, np.random.default_rng(3), language, full=True)
        assert {"clothes", "backdrop", "light", "style"} <= said.mentioned
        assert colours[str(record["clothes_colour"])][0] in said.text


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(1500, 5)


@pytest.mark.parametrize(
    "text", ["戴眼镜的长发女孩,蓝色背景", "a smiling old man, black and white", "Ünïcödé 😀龘 ok?", ""]
)
def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    ids = encode(tokenizer, text)
    assert tokenizer.decode(ids) == text.lower()
    assert tokenizer.token_to_id("<|im_start|>") == ids[0]


def test_traditional_characters_are_read_as_the_simplified_ones(builtin: Path, tokenizer: Tokenizer) -> None:
    shipped = Tokenizer.from_file(str(builtin / "portrait" / "tokenizer.json"))
    assert str(shipped.normalizer) == str(tokenizer.normalizer)
    to_traditional = str.maketrans({simplified: character for character, simplified in traditional().items()})
    for phrase in [*vocabulary(), "戴着圆框眼镜的长发女孩,蓝色背景"]:
        assert encode(shipped, phrase.translate(to_traditional)) == encode(shipped, phrase), phrase


def test_no_token_crosses_a_chinese_character(tokenizer: Tokenizer) -> None:
    import re

    for token in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([token], skip_special_tokens=False)
        assert not (re.search(ALONE, text) and len(text) > 1), text


def test_the_saved_tokenizer_is_the_same_in_transformers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "a girl, 粉色双马尾，樱花背景"
    turn = [{"role": "user", "content": text}]
    prompt = loaded.apply_chat_template(turn, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    assert loaded(prompt).input_ids == encode(Tokenizer.from_file(str(tmp_path / "tokenizer.json")), text)


def test_the_fast_forward_pass_is_diffusers_forward_pass() -> None:
    torch.manual_seed(0)
    model = new_transformer(TINY)
    torch.nn.init.normal_(model.all_final_layer["2-1"].linear.weight, std=0.1)
    latents, clean, lengths = torch.randn(3, 16, 8, 16), torch.rand(3), (20, 32, 9)
    text, padding = torch.randn(3, 32, 32), torch.arange(32)[None] >= torch.tensor(lengths)[:, None]
    with torch.no_grad():
        captions = [text[i, :n] for i, n in enumerate(lengths)]
        theirs = torch.stack(model(list(latents.unsqueeze(2)), clean, captions, return_dict=False)[0]).squeeze(2)
        ours = denoise(model, latents, clean, text, padding, positions(model, 32, 4, 8, latents.device), core)
    assert theirs.abs().mean() > 0.01
    assert (ours - theirs).abs().max() <= 1e-5


def test_the_sampler_walks_from_noise_to_picture() -> None:
    levels = sigmas(8)
    assert levels[0] == 1.0 and levels[-1] == 0.0
    assert levels[1] == pytest.approx(0.9545, abs=1e-3) and levels[-2] == pytest.approx(0.3, abs=1e-3)


def latents_and_pool(count: int, tokenizer: Tokenizer) -> tuple[torch.Tensor, Pool]:
    latents = torch.randn(count, 2, 16, 8, 8, generator=torch.Generator().manual_seed(1)).half()
    return latents, pool_of(some_records(count), tokenizer, 6, 0)


def losses_of(path: Path, tokenizer: Tokenizer, until: int) -> list[float]:
    """Train to a step, from the checkpoint when there is one, and leave a checkpoint."""
    run = new_run(TINY, path, 0.99, 0, torch.device("cpu"))
    grids, losses = Grids(run.model.transformer, torch.device("cpu")), []
    latents, pool = latents_and_pool(4, tokenizer)
    while run.step < until:
        batch = make(latents, pool, 4, False, (0, run.step, 0))
        at = grids.of(batch, False)
        losses.append(learn(run, batch, at, straight(batch, at), core, 3e-3))
    run.save(path)
    return losses


def test_training_lowers_the_loss_and_resumes_exactly(tokenizer: Tokenizer, tmp_path: Path) -> None:
    whole = losses_of(tmp_path / "whole.pt", tokenizer, 16)
    parts = losses_of(tmp_path / "parts.pt", tokenizer, 8) + losses_of(tmp_path / "parts.pt", tokenizer, 16)
    assert np.mean(whole[-4:]) < np.mean(whole[:4])
    assert parts == pytest.approx(whole, rel=1e-4)


@pytest.fixture(scope="module")
def unpacked(builtin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("unpacked")
    unpack(builtin / "portrait", work)
    return work


def test_the_shipped_lora_softens_the_light(builtin: Path, unpacked: Path) -> None:
    """Through diffusers' own loader: the two halves of a face that is lit from the side become more alike."""
    pytest.importorskip("peft", reason="diffusers loads LoRA files with peft")
    from diffusers import AutoencoderKL, ZImagePipeline

    model, sizes = load_averaged(unpacked / "shipped.pt", torch.device("cpu"))
    parts = (model.transformer, model.encoder, AutoencoderKL.from_pretrained(unpacked / "vae").eval())
    words = Tokenizer.from_file(str(unpacked / "tokenizer" / "tokenizer.json"))
    prompts = ["portrait of a man, short brown hair, dramatic side light, grey background"] * 4

    def unevenness() -> float:
        drawn = np.stack(draw(parts, words, prompts, range(4), 512 // sizes.stride)).astype(np.float32).mean(3)
        face = drawn[:, 160:320, 176:336]
        return float(np.abs(face.mean((0, 1)) - face.mean((0, 1))[::-1]).mean())

    plain = unevenness()
    file = builtin / "loras" / "studio_light.safetensors"
    ZImagePipeline.load_lora_into_transformer(ZImagePipeline.lora_state_dict(str(file)), model.transformer)
    assert unevenness() < 0.7 * plain


def test_a_shipped_bundle_is_enough_to_train_further(builtin: Path, unpacked: Path, tmp_path: Path) -> None:
    """Unpacked and written again it is the same, bit by bit; and a new training begins with its weights."""
    bundle = builtin / "portrait"
    pipeline(unpacked, "shipped", "vae").to(torch.float16).save_pretrained(tmp_path / "again")
    again = {"denoiser": "transformer", "decoder": "vae", "encoder": "vae", "text_encoder": "text_encoder"}
    for role, folder in again.items():
        (mine,), (theirs,) = (f.glob("*.safetensors") for f in (bundle / role, tmp_path / "again" / folder))
        before, after = load_file(mine), load_file(theirs)
        halves = {"decoder": ("decoder.",), "encoder": ("encoder.",)}
        assert before.keys() == {name for name in after if name.startswith(halves.get(role, ("",)))}
        assert all(torch.equal(value, after[name]) for name, value in before.items()), role
    run = new_run(TINY, unpacked / "further.pt", 0.99, 1, torch.device("cpu"), begin="shipped")
    assert run.step == 0 and run.sizes.dim == run.model.transformer.config.dim > TINY.dim
    weights = load_file(bundle / "denoiser" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(run.model.transformer.state_dict()["cap_pad_token"], weights["cap_pad_token"].float())


def test_pictures_at_half_their_size_are_a_share_of_the_steps() -> None:
    chosen = [is_half(0.25, 3, step) for step in range(400)]
    assert 70 < sum(chosen) < 130 and chosen == [is_half(0.25, 3, step) for step in range(400)]
    assert not any(is_half(0.0, 3, step) for step in range(50)) and all(is_half(1.0, 3, step) for step in range(50))


def test_latents_of_halves_are_those_of_smaller_pictures(shard: Path) -> None:
    torch.manual_seed(0)
    vae, pictures = new_vae(TINY).eval(), Pictures.open(shard, "valid")
    device = torch.device("cpu")
    halves = encode_all(vae, pictures, False, device, 2, half=True)
    smaller = to_latents(vae, to_tensor([shrunk(pictures[i]) for i in range(len(pictures))]))
    whole = encode_all(vae, pictures, False, device, 2)
    assert halves.shape[-1] * 2 == whole.shape[-1] and (halves.float() - smaller).abs().max() < 2e-2


def test_coarse_batches_have_a_quarter_of_the_tokens(tokenizer: Tokenizer) -> None:
    latents, pool = latents_and_pool(4, tokenizer)
    batch = make(latents, pool, 3, True, (0, 1))
    assert batch.clean.shape == (3, 16, 4, 4)
    assert batch.ids.shape == batch.padding.shape and batch.ids.shape[1] in (32, 64)


def test_drawing_needs_only_prompt_and_noise(tokenizer: Tokenizer) -> None:
    run = new_run(TINY, Path("nowhere.pt"), 0.9, 0, torch.device("cpu"))
    start = torch.randn(2, 16, 8, 8)
    rows = [encode(tokenizer, "a woman"), encode(tokenizer, "戴眼镜的女孩")]
    one = sample(run.model.transformer, run.model.encoder, rows, start, 2)
    again = sample(run.model.transformer, run.model.encoder, rows, start, 2)
    assert one.shape == start.shape and torch.equal(one, again)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("work")
    (work / "pictures").mkdir()
    for split in ("train", "valid"):
        draw_shard(Order(work / "pictures", split, 0, persons=2, looks=2, size_px=SIZE))
    return work


def test_shards_are_read_back(shard: Path) -> None:
    pictures = Pictures.open(shard, "train")
    assert len(pictures) == 4 and pictures[3].shape == (SIZE, SIZE, 3)
    lines = (shard / "pictures" / "train-0000.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[3]) == pictures.records[3]
    assert not np.array_equal(pictures[0], Pictures.open(shard, "valid")[0])
    assert shrunk(pictures[0]).shape == (SIZE // 2, SIZE // 2, 3)
    assert np.array_equal(to_pictures(to_tensor([pictures[1]]))[0], pictures[1])


def test_the_autoencoder_learns_and_its_scale_can_be_baked_in(shard: Path) -> None:
    torch.manual_seed(0)
    vae, pictures = new_vae(TINY), Pictures.open(shard, "train")
    optimiser, losses = torch.optim.Adam(vae.parameters(), 2e-3), []
    for step in range(12):
        images = crops(pictures, 2, 32, 0, 0)
        loss = loss_of(vae, images, 0.5, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    images = to_tensor([pictures[0]])
    before, latents, output = examine(vae.eval(), images)
    bake_scale(vae, latents)
    after, scaled, _ = examine(vae, images)
    assert after == pytest.approx(before, abs=0.01)
    assert torch.allclose(scaled.std((0, 2, 3)), torch.ones(16), atol=1e-3)
    assert psnr(output, images).shape == (1,)


@pytest.mark.parametrize("blocks", [(2, 1, 1), (1, 1), (1,)])
def test_the_tiny_decoder_has_the_autoencoders_geometry(blocks: tuple[int, ...]) -> None:
    """However many pixels a cell of its last size has."""
    tiny, vae = new_tiny(replace(TINY, tiny_blocks=blocks)), new_vae(TINY)
    latents = torch.randn(1, 16, 8, 8)
    assert DecoderGraph(tiny)(latents).shape == vae.decoder(latents).shape


def test_a_cell_of_the_tiny_decoder_is_a_square_of_its_pixels() -> None:
    """Its channels are the pixels of red, row by row, then those of green, then those of blue."""
    tiny = new_tiny(replace(TINY, tiny_blocks=(1,)))
    latents = torch.randn(1, 16, 2, 2)
    cells, image = tiny.decoder(latents), DecoderGraph(tiny)(latents)
    for colour, row, column in ((0, 0, 1), (1, 2, 3), (2, 3, 0)):
        pixel = cells[0, 16 * colour + 4 * row + column]
        assert torch.equal(image[0, colour, row::4, column::4], pixel)


def test_the_bars_notice_flat_pictures_and_sameness() -> None:
    flat = np.full((SIZE, SIZE, 3), 90, np.uint8)
    noisy = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), np.uint8)
    assert flat_or_broken([flat, noisy[0], to_pictures(torch.full((1, 3, SIZE, SIZE), float("nan")))[0]]) == 2
    assert spread([noisy[0], noisy[0]]) == 0 < spread(list(noisy))


def test_the_bars_ask_the_same_in_both_languages() -> None:
    records = some_records(6)
    english, chinese = (prompts_for(records, language) for language in ("en", "zh"))
    assert len(set(english)) == len(set(chinese)) == 6 and all(text.isascii() for text in english)
    for record, zh in zip(records, chinese, strict=True):
        assert not zh.isascii() and ("眼镜" in zh or "墨镜" in zh or "太阳镜" in zh) >= (record["glasses"] != "none")


def test_an_attribute_line_is_a_share_of_what_the_judge_can_see() -> None:
    records = some_records(10)
    truth = labels(records)
    wrong = {name: values.clone() for name, values in truth.items()}
    wrong["hat"][:1] = (wrong["hat"][:1] + 1) % 3
    lines = {line.what: line for line in judge_lines(wrong, dict.fromkeys(truth, 1.0), records, "all")}
    assert not lines["all: hat"].reached and "90.0%" in lines["all: hat"].value
    assert lines["all: style"].reached
    ceiling = {**dict.fromkeys(truth, 1.0), "hat": 0.9}  # the judge itself is right in nine of ten renders
    assert {line.what: line for line in judge_lines(wrong, ceiling, records, "all")}["all: hat"].reached
