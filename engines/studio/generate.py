"""
Drawing portraits: the order of steps, previews and decodes for one Generate request.

Knows a kit (the roles on some engine) and a folder; no queue, no page, no engine by name.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from engines import images, sampler
from engines.bundle import Bundle, Role
from engines.bundle.loras import LoraFile
from engines.bundle.signatures import Array
from engines.errors import BundleError, JobCancelled, OptionError, PromptError, SizeError
from engines.families import FAMILIES
from engines.images import Pixels, infotext, kept_latents
from engines.messages import MAX_SEED, DecoderKind, Event, Final, Generate, Preview, Progress
from engines.roles import memory, not_blank
from engines.roles.embedding_cache import ArrayCache
from engines.roles.loaded import LoadedBundle
from engines.sampler import Schedule
from engines.studio import init_image

PREVIEW_SHARE = 0.1  # of a step's time may go into looking at it
SIZE_RANGE_PX = (64, 2048)


@dataclass(frozen=True)
class GenerationPlan:
    """A Generate with nothing left open. `steps` are of the whole schedule, of which a photo leaves some out."""

    request: Generate
    width: int
    height: int
    steps: int
    guidance: float
    seed: int
    schedule: Schedule

    @classmethod
    def of(cls, r: Generate, bundle: Bundle, photo: Pixels | None = None) -> GenerationPlan:
        """`photo`: what the request begins with. RequestError: this bundle cannot draw that."""
        if "denoiser" not in bundle.roles:
            raise OptionError("bundle", bundle.name, "a bundle that draws portraits")
        if bundle.family not in FAMILIES:
            raise BundleError(f"{bundle.name}: no family is called {bundle.family}", bundle=bundle.name)
        sampling = bundle.need(bundle.sampling, "sampling")
        sizes = bundle.need(bundle.sizes or None, "its sizes")
        native = sizes[0] if photo is None else init_image.nearest(photo, sizes)
        width = native[0] if r.width is None else r.width
        height = native[1] if r.height is None else r.height
        _check_size(width, height, FAMILIES[bundle.family].size_multiple_cells * sampling.latent_stride)
        if not r.prompt.strip():
            raise PromptError("the prompt is empty")
        if r.loras and not bundle.takes_loras:
            raise OptionError("loras", r.loras[0].name, "none with this model")
        if r.restore_faces:
            raise OptionError("restore_faces", r.restore_faces, "0")
        if r.preview == "only" and "preview_decoder" not in bundle.roles:
            raise OptionError("preview", r.preview, "live, off")
        guidance = sampling.guidance if r.guidance is None else r.guidance
        seed = secrets.randbelow(MAX_SEED + 1) if r.seed < 0 else r.seed
        steps = r.steps or sampling.steps
        strength = 1.0 if photo is None else r.strength
        schedule = FAMILIES[bundle.family].schedule(sampling, steps, guidance, strength)
        return cls(r, width, height, steps, guidance, seed, schedule)

    @property
    def todo(self) -> int:
        """The steps that are done."""
        return len(self.schedule.steps)

    def seed_of(self, k: int) -> int:
        return (self.seed + k) % (MAX_SEED + 1)


def _check_size(width: int, height: int, multiple: int) -> None:
    low, high = SIZE_RANGE_PX
    if width % multiple or height % multiple or not (low <= width <= high and low <= height <= high):
        raise SizeError(width, height, multiple, low, high)


@dataclass
class Timings:
    """What each thing last cost, in seconds; 0 = not yet known. Remembered between jobs, for honest estimates."""

    step_s: float = 0.0
    decode_s: float = 0.0
    preview_s: float = 0.0

    def eta_s(self, steps: int, decodes: int) -> float | None:
        return round(steps * self.step_s + decodes * self.decode_s, 2) if self.step_s else None

    def preview_every(self) -> int:
        return max(1, math.ceil(self.preview_s / (PREVIEW_SHARE * self.step_s))) if self.step_s else 1


@dataclass(frozen=True)
class Generation:
    """
    One request being drawn. `photo` is what it begins with, at the picture's size. `loras` are to be worn, `without`
    names those that cannot be.
    """

    plan: GenerationPlan
    loaded: LoadedBundle
    reason: str
    folder: Path
    pace: Timings
    started: float
    cancelled: Callable[[], bool]
    memory: memory.MemoryPlan
    photo: Pixels | None = None
    loras: tuple[LoraFile, ...] = ()
    without: tuple[str, ...] = ()

    def events(self, embeddings: ArrayCache) -> Iterator[Event]:
        plan, r = self.plan, self.plan.request
        self._let_go("denoiser", "decoder")  # of a job that was stopped
        yield Progress("encode", 0, plan.todo, self.pace.eta_s(plan.todo * r.count, r.count), 1, r.count)
        prompt = self.loaded.embedding(r.prompt, embeddings)
        negative = self.loaded.embedding(r.negative, embeddings) if plan.schedule.guidance else None
        photo = None if self.photo is None or not plan.schedule.photo_scale else self.loaded.encoder.encode(self.photo)
        yield from self._adapted()._pictures(prompt, negative, photo)

    def _adapted(self) -> Generation:
        """With the LoRAs that can be worn. The others cost no picture: the end names them."""
        refused = self.loaded.apply_loras(self.loras)
        without = tuple(str(error.facts["lora"]) for error in refused)
        kept = tuple(lora for lora in self.plan.request.loras if lora.name not in without)
        plan = replace(self.plan, request=replace(self.plan.request, loras=kept))
        return replace(self, plan=plan, without=without, reason="; ".join([self.reason, *map(str, refused)]))

    def _pictures(self, prompt: Array, negative: Array | None, photo: Array | None) -> Iterator[Event]:
        plan, r, names = self.plan, self.plan.request, []
        waiting: list[tuple[int, Array]] = []
        for k in range(r.count):
            waiting.append((k, (yield from self._denoise(k, prompt, negative, photo))))
            if self.memory.turns and k + 1 < r.count:
                continue
            self._let_go("denoiser")
            for picture in waiting:
                names.append((yield from self._decode(*picture)))
            waiting.clear()
        self._let_go("decoder")
        decoder: DecoderKind = "tiny" if r.preview == "only" else "vae"
        yield Final(
            tuple(names), plan.seed, self.seconds(), self.loaded.engine.name, self.reason, decoder, without=self.without
        )

    def _let_go(self, *roles: Role) -> None:
        """Where parts take turns."""
        for role in roles if self.memory.turns else ():
            self.loaded.unload(role)

    def seconds(self) -> float:
        return round(time.perf_counter() - self.started, 3)

    def _check(self) -> None:
        if self.cancelled():
            raise JobCancelled(f"after {self.seconds():.1f} s")

    def _denoise(
        self, k: int, prompt: Array, negative: Array | None, photo: Array | None
    ) -> Generator[Event, None, Array]:
        """Picture k from noise, over the photo's latents if there are any, to clean latents. (1, C, h, w)"""
        plan, sampling, count = self.plan, self.loaded.sampling, self.plan.request.count
        cells = (plan.height // sampling.latent_stride, plan.width // sampling.latent_stride)
        noise = sampler.noise((1, sampling.latent_channels, *cells), plan.seed_of(k))
        x = plan.schedule.begin(noise, photo)
        steps = self.loaded.denoiser.denoise(x, plan.schedule, prompt, negative, plan.seed_of(k))
        for i in range(1, plan.todo + 1):
            self._check()
            begun = time.perf_counter()
            x, denoised = next(steps)
            self.pace.step_s = time.perf_counter() - begun
            steps_left = plan.todo - i + plan.todo * (count - k - 1)
            yield Progress("denoise", i, plan.todo, self.pace.eta_s(steps_left, count - k), k + 1, count)
            last = i == plan.todo
            if plan.request.preview == "live" and (last or (i - 1) % self.pace.preview_every() == 0):
                yield from self._preview(k, i, x if last else denoised)
        return x

    def _preview(self, k: int, step: int, latents: Array) -> Iterator[Event]:
        if "preview_decoder" not in self.loaded.bundle.roles:
            return
        decoder = self.loaded.preview_decoder  # loaded now, the first time: that is no part of what a preview costs
        begun = time.perf_counter()
        name = images.write_preview(self.folder, decoder.decode(latents))
        self.pace.preview_s = time.perf_counter() - begun
        yield Preview(step, name, self.seconds(), "tiny", k + 1)

    def _decode(self, k: int, latents: Array) -> Generator[Event, None, str]:
        """Save picture k, from the full decoder or, with preview="only", from the tiny one with its latents kept beside
        it.
        """
        self._check()
        plan, only = self.plan, self.plan.request.preview == "only"
        steps_left = plan.todo * (plan.request.count - k - 1)
        yield Progress("decode", plan.todo, plan.todo, self.pace.eta_s(steps_left, 1), k + 1, plan.request.count)
        begun = time.perf_counter()
        name = images.write_output(self.folder, not_blank(self._pixels(latents, only)), self._text(k))
        self.pace.decode_s = time.perf_counter() - begun
        if only:
            kept = kept_latents.KeptLatents(latents, plan.request.bundle, plan.seed_of(k), self._text(k))
            kept_latents.write(self.folder / name, kept)
        yield Preview(plan.todo, name, self.seconds(), "tiny" if only else "vae", k + 1)
        return name

    def _pixels(self, latents: Array, only: bool) -> Array:
        if only:
            return self.loaded.preview_decoder.decode(latents)
        return self.loaded.decoder.decode(latents, self.memory.pieces)

    def _text(self, k: int) -> str:
        plan = self.plan
        size = (plan.width, plan.height)
        engine, others = self.loaded.engine.name, plan.schedule.words
        return infotext.describe(plan.request, plan.seed_of(k), size, plan.steps, plan.guidance, engine, others)
