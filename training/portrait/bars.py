"""
All bars of the portrait model in one table: `python -m training.portrait.bars --work DIR --faces centerface.onnx`.

Held-out people and seeds; the same prompts in both languages; the renders of the same people stand beside the model's
pictures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from tokenizers import Tokenizer
from torch import Tensor

from engines.networks.autoencoder import DecoderGraph
from training.loop import pick_device
from training.portrait.captions import Record, caption
from training.portrait.contact import save_sheet
from training.portrait.faces import FaceFinder
from training.portrait.judge import agreement, labels, load, thumbnail, verdicts
from training.portrait.pictures import Pictures, psnr, to_tensor
from training.portrait.renderer.attributes import sample_look, sample_person
from training.portrait.renderer.draw import Picture, build, picture
from training.portrait.sampling import draw
from training.portrait.state import load_averaged
from training.portrait.tiny import compare

JUDGED = ("hairstyle", "hair_colour", "glasses", "hat", "beard", "backdrop", "clothes_colour", "light", "style")
SHARE_BAR, FACE_BAR, STEPS_BAR, VARIETY_BAR = 0.92, 0.95, 0.02, 0.60


@dataclass(frozen=True)
class Line:
    """One bar: what, how much, how much is wanted, reached or not."""

    what: str
    value: str
    bar: str
    reached: bool

    def show(self) -> str:
        return f"{'ok  ' if self.reached else 'MISS'} {self.what:44s} {self.value:>24s}   bar {self.bar}"


def prompts_for(records: Sequence[Record], language: str) -> list[str]:
    """Full captions in plain words; the same choices in both languages."""
    return [caption(r, np.random.default_rng((9, i)), language, full=True).text for i, r in enumerate(records)]


def judge_lines(
    said: dict[str, Tensor], ceiling: dict[str, float], records: Sequence[Record], title: str
) -> list[Line]:
    agreed = agreement(said, labels(records))
    lines = []
    for name in JUDGED:
        share = agreed[name] / ceiling[name]
        value = f"{agreed[name]:.3f} / {ceiling[name]:.3f} = {share:.1%}"
        lines.append(Line(f"{title}: {name}", value, f">= {SHARE_BAR:.0%}", share >= SHARE_BAR))
    return lines


def flat_or_broken(pictures: Sequence[Picture]) -> int:
    """Pictures with next to no contrast; not-a-number comes out as one colour, too."""
    return sum(float(p.astype(np.float32).std()) < 8.0 for p in pictures)


def spread(pictures: Sequence[Picture]) -> float:
    """Mean distance of all pairs of thumbnails."""
    small = np.stack([thumbnail(p).astype(np.float32).ravel() for p in pictures])
    pairs = [(i, j) for i in range(len(small)) for j in range(i)]
    return float(np.mean([np.sqrt(np.mean((small[i] - small[j]) ** 2)) for i, j in pairs]))


def same_prompt_renders(record: Record, mentioned: frozenset[str], count: int, size_px: int) -> list[Picture]:
    """People who fit the prompt, drawn by the renderer: what is not mentioned is free."""
    rng = np.random.default_rng(77)
    drawn: list[Picture] = []
    while len(drawn) < count:
        person = sample_person(rng)
        fixed = {k: record[k] for k in person.__dataclass_fields__ if k in mentioned or k in ("anime", "gender", "age")}
        person = type(person)(**{**person.__dict__, **fixed})
        look = sample_look(rng, person)
        named = set(mentioned) | ({"hair_colour", "clothes_colour"} if "hairstyle" in mentioned else set())
        kept = {k: record[k] for k in look.__dataclass_fields__ if k in named and k != "seed"}
        drawn.append(picture(build(person, size_px), type(look)(**{**look.__dict__, **kept})))
    return drawn


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """The fastest of a few calls."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times[1:])


@torch.no_grad()
def decoder_lines(vae: Any, tiny: Any, held_out: Pictures, device: torch.device) -> list[Line]:
    images = to_tensor([held_out[i] for i in range(64, 128)]).to(device)
    full = torch.cat([psnr(vae.decode(vae.encode(x).latent_dist.mode()).sample, x) for x in images.chunk(32)])
    small, _, _ = compare(vae, tiny, images)
    lines = [Line("full VAE, held-out PSNR", f"{full.mean():.2f} dB", ">= 32 dB", bool(full.mean() >= 32))]
    lines.append(Line("tiny decoder, held-out PSNR", f"{small:.2f} dB", ">= 28 dB", small >= 28))
    graph = DecoderGraph(tiny)
    for side in (16, 32):
        z = torch.randn(1, 16, side, side, device=device)
        share = seconds(lambda z=z: graph(z)) / seconds(lambda z=z: vae.decode(z))  # type: ignore[misc]
        lines.append(Line(f"tiny decoder's cost at {side * 16} px", f"1 / {1 / share:.1f}", "<= 1 / 8", share <= 1 / 8))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--faces", required=True, help="centerface.onnx")
    parser.add_argument("--checkpoint", default="distilled")
    parser.add_argument("--vae", default="vae")
    parser.add_argument("--tiny", default="tiny")
    parser.add_argument("--pictures", type=int, default=480, help="half of them in each language")
    parser.add_argument("--slow-pictures", type=int, default=160, help="drawn again in 50 steps")
    parser.add_argument("--guidance", type=float, default=0.0)
    parser.add_argument("--folder", help="an exported bundle, for its size")
    for line in measure(parser.parse_args()):
        print(line.show(), flush=True)


def measure(args: argparse.Namespace) -> list[Line]:
    work, device = Path(args.work), pick_device()
    model, sizes = load_averaged(work / f"{args.checkpoint}.pt", device)
    vae = AutoencoderKL.from_pretrained(work / args.vae).to(device).eval()
    tiny = AutoencoderTiny.from_pretrained(work / args.tiny).to(device).eval()
    tokenizer = Tokenizer.from_file(str(work / "tokenizer" / "tokenizer.json"))
    held_out, judge, finder = Pictures.open(work, "valid"), load(work, device), FaceFinder(Path(args.faces))
    count = min(args.pictures, len(held_out))
    records, renders = held_out.records[:count], [held_out[i] for i in range(count)]
    ceiling = agreement(verdicts(judge, renders, device), labels(records))
    prompts = [prompts_for(records, language) for language in ("en", "zh")]
    mixed = [prompts[i % 2][i] for i in range(count)]

    def drawn(texts: Sequence[str], steps: int, first_seed: int = 5000) -> list[Picture]:
        parts, seeds = (model.transformer, model.encoder, vae), range(first_seed, first_seed + len(texts))
        return draw(parts, tokenizer, texts, seeds, renders[0].shape[0] // sizes.stride, steps, args.guidance)

    pictures = drawn(mixed, 8)
    save_sheet(pictures[:48], 8, work / f"sheet-bars-{args.checkpoint}.png")
    said = verdicts(judge, pictures, device)
    lines = judge_lines(said, ceiling, records, "both languages")
    for offset, language in enumerate(("English", "Chinese")):
        own = {name: values[offset::2] for name, values in said.items()}
        lines += judge_lines(own, ceiling, records[offset::2], language)
    rate, usual = finder.rate(pictures), finder.rate(renders)
    value = f"{rate:.3f} / {usual:.3f} = {rate / usual:.1%}"
    lines.append(Line("faces found, share of the renders' rate", value, f">= {FACE_BAR:.0%}", rate >= FACE_BAR * usual))
    lines.append(steps_line(drawn, mixed[: args.slow_pictures], records, said, judge, device))
    broken = flat_or_broken(pictures)
    lines.append(Line(f"blank, flat or broken of {count}", str(broken), "0", broken == 0))
    lines.append(variety_line(drawn, records))
    return lines + decoder_lines(vae, tiny, held_out, device) + size_line(args.folder)


def steps_line(
    drawn: Callable[..., list[Picture]],
    prompts: Sequence[str],
    records: Sequence[Record],
    said: dict[str, Tensor],
    judge: Any,
    device: torch.device,
) -> Line:
    """Mean agreement over the judged attributes, 8 steps against 50, same prompts and seeds."""
    truth = labels(records[: len(prompts)])
    slow = agreement(verdicts(judge, drawn(prompts, 50), device), truth)
    fast = agreement({name: values[: len(prompts)] for name, values in said.items()}, truth)
    a, b = (float(np.mean([x[name] for name in JUDGED])) for x in (fast, slow))
    return Line("attributes, 8 steps against 50", f"{a:.3f} against {b:.3f}", "within 0.02", a >= b - STEPS_BAR)


def variety_line(
    drawn: Callable[..., list[Picture]], records: Sequence[Record], people: int = 4, each: int = 12
) -> Line:
    shares = []
    for record in records[:people]:
        named = caption(record, np.random.default_rng(9), "en", full=True)
        pictures = drawn([named.text] * each, 8, 9000)
        renders = same_prompt_renders(record, named.mentioned, each, pictures[0].shape[0])
        shares.append(spread(pictures) / spread(renders))
    share = float(np.mean(shares))
    return Line(
        "variety at one prompt, share of renders'", f"{share:.1%}", f">= {VARIETY_BAR:.0%}", share >= VARIETY_BAR
    )


def size_line(folder: str | None) -> list[Line]:
    if folder is None:
        return []
    total = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 1e6
    return [Line("bundle's folder", f"{total:.1f} MB", "<= 60 MB in all formats", total <= 60)]


if __name__ == "__main__":
    main()
