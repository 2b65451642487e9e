"""
What a student is shown: clean latents of pictures that the teacher drew, made noisy again, half of them at the very
levels of the bundle's schedule and half between. Any number of batches comes from one drawing. Each batch follows from
the seed and its number. Knows both families by what engines/families says of them; nothing of how is learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engines import backends, files, machine, sampler
from engines.bundle import Bundle, Sampling
from engines.bundle.signatures import Array
from engines.families import FAMILIES, sd
from engines.messages import Generate
from engines.roles import Denoiser, TextEncoder
from engines.roles.prompt_embedding import PromptEmbedding
from engines.studio.generate import GenerationPlan
from engines.tokens import Tokens
from engines.toolchain.steps import Say

AT_ONCE = 16  # pictures that the teacher draws together
ON_SCHEDULE = 0.5  # of the noise levels
WORDLESS = 0.1  # of the batches of a guided network: its output without words counts as well
Feeds = dict[str, Tensor]


@dataclass(frozen=True)
class Drawn:
    """Captions that are equally long in tokens: their embeddings, and the clean latents the teacher drew of them."""

    prompts: Array  # (n, T, D)
    latents: Array  # (n, C, h, w)


def predict(graph: nn.Module, feeds: Feeds, exact: bool = False) -> Tensor:
    """Return the network's output for several pictures, on its own device; in bfloat16 where that is faster."""
    device = next(graph.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=not exact and supports_bf16(device)):
        result: Tensor = graph(**{name: value.to(device) for name, value in feeds.items()})
    return result.float()


def supports_bf16(device: torch.device) -> bool:
    """Tell whether the device multiplies in bfloat16 faster than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool({"avx512_bf16", "amx_bf16"} & machine.processor_flags())


@dataclass(frozen=True)
class BatchSession:
    """A graph behind the Session protocol that draws several pictures at a time. Whoever opened the graph closes it."""

    graph: nn.Module

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            result = predict(self.graph, {name: torch.from_numpy(array) for name, array in feeds.items()})
        return {"velocity": result.cpu().numpy()}

    def close(self) -> None:
        """Do nothing: it holds nothing of its own."""


@dataclass(frozen=True)
class DistillData:
    """What the teacher drew. `wordless`: the embedding of no words (1, T, D), for a network that is guided."""

    bundle: Bundle
    drawn: Sequence[Drawn]
    wordless: Array | None

    @classmethod
    def of(cls, bundle: Bundle, captions: Sequence[str], teacher: nn.Module, path: Path, say: Say) -> DistillData:
        """Let the teacher draw the captions, unless `path` holds what it drew."""
        if not path.is_file():
            read, wordless = _read(bundle, captions)
            drawn: list[Drawn] = []
            for some in read:
                drawn.append(Drawn(some, _draw(bundle, teacher, some, wordless)))
                say(f"the teacher has drawn {sum(len(part.latents) for part in drawn)} of {len(captions)} pictures")
            pairs = [(torch.from_numpy(part.prompts), torch.from_numpy(part.latents)) for part in drawn]
            with files.replacing(path) as beside, beside.open("wb") as file:
                torch.save((pairs, None if wordless is None else torch.from_numpy(wordless)), file)
        pairs, empty = torch.load(path, weights_only=True)
        again = [Drawn(prompts.numpy(), latents.numpy()) for prompts, latents in pairs]
        return cls(bundle, again, None if empty is None else empty.numpy())

    def batch(self, count: int, seed: tuple[int, ...]) -> Feeds:
        """Return what the network is fed: `count` pictures at a time, all of captions of one length."""
        rng = np.random.default_rng(seed)
        sizes = np.array([len(part.latents) for part in self.drawn])
        some = self.drawn[rng.choice(len(sizes), p=sizes / sizes.sum())]
        chosen = rng.integers(len(some.latents), size=count)
        clean, prompts = some.latents[chosen], some.prompts[chosen]
        if self.wordless is not None and rng.random() < WORDLESS:
            prompts = self.wordless.repeat(count, 0)
        noise = rng.standard_normal(clean.shape, dtype=np.float32)
        plan, sampling = _plan(self.bundle), self.bundle.need(self.bundle.sampling, "sampling")
        levels = _levels([step.level for step in plan.schedule.steps], count, rng)
        family, each = FAMILIES[self.bundle.family], []
        for i, level in enumerate(levels):
            level = level if sampling.diffusion is None else float(round(level))
            noisy = noised(sampling, clean[i : i + 1], noise[i : i + 1], level)
            each.append({**family.feeds(noisy, level, prompts[i : i + 1]), **plan.schedule.extras})
        return {name: torch.from_numpy(np.concatenate([feeds[name] for feeds in each])) for name in each[0]}


def _plan(bundle: Bundle) -> GenerationPlan:
    """Return the plan of a picture at the bundle's own size, steps and guidance."""
    return GenerationPlan.of(Generate("p", seed=0), bundle)


def _levels(schedule: Sequence[float], count: int, rng: np.random.Generator) -> list[float]:
    """Draw `count` levels from the schedule's, which end before 0, or between two of them."""
    stations = [*schedule, 0.0]
    exact = rng.integers(len(schedule), size=count)
    between = rng.random(count) * len(schedule)
    where = np.where(rng.random(count) < ON_SCHEDULE, exact, between)
    return [float(level) for level in np.interp(where, np.arange(len(stations)), stations)]


def noised(sampling: Sampling, clean: Array, noise: Array, level: float) -> Array:
    """Mix `clean` and `noise` as the network is shown them at this level. (engines/families says what levels are)"""
    if sampling.diffusion is None:
        return np.asarray((1 - level) * clean + level * noise, np.float32)
    share = sd.alphas(sampling.diffusion)[int(level)]
    return np.asarray(share**0.5 * clean + (1 - share) ** 0.5 * noise, np.float32)


def _read(bundle: Bundle, captions: Sequence[str]) -> tuple[list[Array], Array | None]:
    """Return the embeddings of the captions, stacked by length (n, T, D); and of no words, if the network is guided."""
    engine = backends.engine("torch")
    session = engine.load(bundle, bundle.part("text_encoder", engine.formats))
    encoder = TextEncoder(session, Tokens(bundle.root, bundle.need(bundle.text, "its words")))
    by_length: dict[int, list[Array]] = {}
    for caption in captions:
        words = encoder.encode(caption)
        by_length.setdefault(words.shape[1], []).append(words)
    wordless = encoder.encode("") if _plan(bundle).schedule.guidance else None
    session.close()
    return [np.concatenate(some) for _, some in sorted(by_length.items())], wordless


def _draw(bundle: Bundle, teacher: nn.Module, prompts: Array, wordless: Array | None) -> Array:
    """Let the teacher draw these embeddings. (n, T, D) -> (n, C, h, w)"""
    return np.concatenate(list(_batches(bundle, teacher, prompts, wordless)))


def _batches(bundle: Bundle, teacher: nn.Module, prompts: Array, wordless: Array | None) -> Iterator[Array]:
    plan, sampling = _plan(bundle), bundle.need(bundle.sampling, "sampling")
    cells = (plan.height // sampling.latent_stride, plan.width // sampling.latent_stride)
    artist = Denoiser(BatchSession(teacher), FAMILIES[bundle.family])
    for start in range(0, len(prompts), AT_ONCE):
        words, seed = prompts[start : start + AT_ONCE], 1000 * prompts.shape[1] + start
        x = plan.schedule.begin(sampler.noise((len(words), sampling.latent_channels, *cells), seed))
        negative = None if wordless is None else PromptEmbedding(wordless.repeat(len(words), 0))
        *_, (latents, _) = artist.denoise(x, plan.schedule, PromptEmbedding(words), negative, seed)
        yield latents
