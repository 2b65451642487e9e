"""
What a student is shown: clean latents of pictures that the teacher drew, made noisy again, half of them at the very
levels of the bundle's schedule and half between. Any number of lessons comes from one drawing. Each lesson follows from
the seed and its number. Knows both families by what engines/families says of them; nothing of how is learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engines import backends, files, sampler
from engines.bundle import Bundle, Sampling
from engines.bundle.signatures import Array
from engines.families import FAMILIES, sd
from engines.messages import Generate
from engines.roles import Denoiser, TextEncoder
from engines.studio.generate import GenerationPlan
from engines.tokens import Tokens
from engines.toolchain.steps import Say

AT_ONCE = 16  # pictures that the teacher draws together
ON_SCHEDULE = 0.5  # of the noise levels
WORDLESS = 0.1  # of the lessons of a guided network: what it tells without words counts as well
Feeds = dict[str, Tensor]


@dataclass(frozen=True)
class Drawn:
    """Of captions that are equally long in tokens: their embeddings, and the clean latents the teacher drew of them."""

    prompts: Array  # (n, T, D)
    latents: Array  # (n, C, h, w)


def told(graph: nn.Module, feeds: Feeds, exact: bool = False) -> Tensor:
    """What the network tells of several pictures at a time, wherever it lies; in bfloat16 where that is faster."""
    device = next(graph.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=not exact and narrow(device)):
        result: Tensor = graph(**{name: value.to(device) for name, value in feeds.items()})
    return result.float()


def narrow(device: torch.device) -> bool:
    """Whether it multiplies in bfloat16 faster than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool({"avx512_bf16", "amx_bf16"} & backends.processor_flags())


@dataclass(frozen=True)
class Session:
    """A graph that draws several pictures at a time. Closing it is its maker's."""

    graph: nn.Module

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            result = told(self.graph, {name: torch.from_numpy(array) for name, array in feeds.items()})
        return {"velocity": result.cpu().numpy()}

    def close(self) -> None:
        """There is nothing of its own."""


@dataclass(frozen=True)
class DistillData:
    """`wordless`: the embedding of no words (1, T, D), for a network that is guided."""

    bundle: Bundle
    drawn: Sequence[Drawn]
    wordless: Array | None

    @classmethod
    def of(cls, bundle: Bundle, captions: Sequence[str], teacher: nn.Module, path: Path, say: Say) -> DistillData:
        """The teacher draws, unless `path` holds what it drew."""
        if not path.is_file():
            read, wordless = _read(bundle, captions)
            drawn: list[Drawn] = []
            for some in read:
                drawn.append(Drawn(some, _draw(bundle, teacher, some, wordless)))
                say(f"the teacher has drawn {sum(len(one.latents) for one in drawn)} of {len(captions)} pictures")
            kept = [(torch.from_numpy(one.prompts), torch.from_numpy(one.latents)) for one in drawn]
            with files.replacing(path) as beside, beside.open("wb") as file:
                torch.save((kept, None if wordless is None else torch.from_numpy(wordless)), file)
        kept, empty = torch.load(path, weights_only=True)
        again = [Drawn(prompts.numpy(), latents.numpy()) for prompts, latents in kept]
        return cls(bundle, again, None if empty is None else empty.numpy())

    def lesson(self, count: int, seed: tuple[int, ...]) -> Feeds:
        """What the network is fed, `count` pictures at a time, all of captions of one length."""
        rng = np.random.default_rng(seed)
        sizes = np.array([len(one.latents) for one in self.drawn])
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
        return {name: torch.from_numpy(np.concatenate([one[name] for one in each])) for name in each[0]}


def _plan(bundle: Bundle) -> GenerationPlan:
    """At the bundle's own size, steps and guidance."""
    return GenerationPlan.of(Generate("p", seed=0), bundle)


def _levels(schedule: Sequence[float], count: int, rng: np.random.Generator) -> list[float]:
    """From the schedule's, which end before 0, or between two of them."""
    stations = [*schedule, 0.0]
    exact = rng.integers(len(schedule), size=count)
    between = rng.random(count) * len(schedule)
    where = np.where(rng.random(count) < ON_SCHEDULE, exact, between)
    return [float(level) for level in np.interp(where, np.arange(len(stations)), stations)]


def noised(sampling: Sampling, clean: Array, noise: Array, level: float) -> Array:
    """What the network is shown at this level. (engines/families says what levels are)"""
    if sampling.diffusion is None:
        return np.asarray((1 - level) * clean + level * noise, np.float32)
    share = sd.alphas(sampling.diffusion)[int(level)]
    return np.asarray(share**0.5 * clean + (1 - share) ** 0.5 * noise, np.float32)


def _read(bundle: Bundle, captions: Sequence[str]) -> tuple[list[Array], Array | None]:
    """Embeddings of the captions, stacked where they are equally long (n, T, D); and of none, if it is wanted."""
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
    """(n, T, D) -> (n, C, h, w)"""
    return np.concatenate(list(_batches(bundle, teacher, prompts, wordless)))


def _batches(bundle: Bundle, teacher: nn.Module, prompts: Array, wordless: Array | None) -> Iterator[Array]:
    plan, sampling = _plan(bundle), bundle.need(bundle.sampling, "sampling")
    cells = (plan.height // sampling.latent_stride, plan.width // sampling.latent_stride)
    artist = Denoiser(Session(teacher), FAMILIES[bundle.family])
    for start in range(0, len(prompts), AT_ONCE):
        words, seed = prompts[start : start + AT_ONCE], 1000 * prompts.shape[1] + start
        x = plan.schedule.begin(sampler.noise((len(words), sampling.latent_channels, *cells), seed))
        negative = None if wordless is None else wordless.repeat(len(words), 0)
        *_, (latents, _) = artist.denoise(x, plan.schedule, words, negative, seed)
        yield latents
