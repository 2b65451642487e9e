"""
Drawing portraits: the order of steps, previews and decodes for one Generate request.

Knows a loaded bundle (the roles on some engine) and a folder; no queue, no page, no engine by name.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engines import images, sampler
from engines.bundle import Bundle, Role
from engines.bundle.loras import LoraFile
from engines.bundle.signatures import Array
from engines.errors import BundleError, OptionError, PromptError, SizeError
from engines.faces.detection import Face
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
FindFaces = Callable[[Pixels], Sequence[Face]]


@dataclass(frozen=True)
class GenerationPlan:
    """
    A Generate with nothing left open. `steps` are of the whole schedule, of which a photo leaves some out; `photo` is
    what the picture begins with, at its size.
    """

    request: Generate
    width: int
    height: int
    steps: int
    guidance: float
    seed: int
    schedule: Schedule
    photo: Pixels | None = field(default=None, repr=False, compare=False)

    @classmethod
    def for_request(cls, r: Generate, bundle: Bundle, find_faces: FindFaces) -> GenerationPlan:
        """
        Plan a request, and read its photo, if it has one: of that the part about the largest face is taken.
        RequestError, BundleError, ImageError, and what `find_faces` raises.
        """
        photo = init_image.read(r, bundle)
        plan = cls.of(r, bundle, photo)
        if photo is None:
            return plan
        return replace(plan, photo=init_image.fitted(photo, plan.width, plan.height, find_faces(photo)))

    @classmethod
    def of(cls, r: Generate, bundle: Bundle, photo: Pixels | None = None) -> GenerationPlan:
        """Plan a request that begins with this photo, which is only measured. RequestError: it cannot be drawn."""
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
        if r.preview == "only" and "preview_decoder" not in bundle.roles:
            raise OptionError("preview", r.preview, "live, off")
        guidance = sampling.guidance if r.guidance is None else r.guidance
        seed = secrets.randbelow(MAX_SEED + 1) if r.seed < 0 else r.seed
        steps = r.steps or sampling.steps
        strength = 1.0 if photo is None else r.strength
        schedule = FAMILIES[bundle.family].schedule(sampling, steps, guidance, strength)
        return cls(r, width, height, steps, guidance, seed, schedule)

    @property
    def steps_to_run(self) -> int:
        """The number of steps to run for a picture: fewer than `steps` when it begins with a photo."""
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


@dataclass(frozen=True, kw_only=True)
class Generation:
    """
    One request being drawn. `reason`: why this engine. `started`: time.perf_counter() of the job's start. `loras` are
    to be applied, `without` names those that cannot be.
    """

    plan: GenerationPlan
    loaded: LoadedBundle
    reason: str
    folder: Path
    pace: Timings
    started: float
    memory_plan: memory.MemoryPlan
    loras: tuple[LoraFile, ...] = ()
    without: tuple[str, ...] = ()

    def events(self, embeddings: ArrayCache) -> Iterator[Event]:
        plan, r = self.plan, self.plan.request
        self._unload("denoiser", "decoder")  # of a job that was stopped
        eta_s = self.pace.eta_s(plan.steps_to_run * r.count, r.count)
        yield Progress("encode", 0, plan.steps_to_run, eta_s, 1, r.count)
        prompt = self.loaded.embedding(r.prompt, embeddings)
        negative = self.loaded.embedding(r.negative, embeddings) if plan.schedule.guidance else None
        photo = None if plan.photo is None or not plan.schedule.photo_scale else self.loaded.encoder.encode(plan.photo)
        yield from self._adapted()._pictures(prompt, negative, photo)

    def _adapted(self) -> Generation:
        """Return it with the LoRAs that can be applied. The others cost no picture: the end names them."""
        refused = self.loaded.apply_loras(self.loras)
        without = tuple(str(error.facts["lora"]) for error in refused)
        loras = tuple(lora for lora in self.plan.request.loras if lora.name not in without)
        plan = replace(self.plan, request=replace(self.plan.request, loras=loras))
        return replace(self, plan=plan, without=without, reason="; ".join([self.reason, *map(str, refused)]))

    def _pictures(self, prompt: Array, negative: Array | None, photo: Array | None) -> Iterator[Event]:
        plan, r, names = self.plan, self.plan.request, []
        waiting: list[tuple[int, Array]] = []
        for k in range(r.count):
            waiting.append((k, (yield from self._denoise(k, prompt, negative, photo))))
            if self.memory_plan.turns and k + 1 < r.count:
                continue
            self._unload("denoiser")
            for picture in waiting:
                names.append((yield from self._decode(*picture)))
            waiting.clear()
        self._unload("decoder")
        decoder: DecoderKind = "tiny" if r.preview == "only" else "vae"
        yield Final(
            tuple(names), plan.seed, self.seconds(), self.loaded.engine.name, self.reason, decoder, without=self.without
        )

    def _unload(self, *roles: Role) -> None:
        """Free the memory of these roles, if they take turns in it."""
        for role in roles if self.memory_plan.turns else ():
            self.loaded.unload(role)

    def seconds(self) -> float:
        return round(time.perf_counter() - self.started, 3)

    def _denoise(
        self, k: int, prompt: Array, negative: Array | None, photo: Array | None
    ) -> Generator[Event, None, Array]:
        """Picture k from noise, over the photo's latents if there are any, to clean latents. (1, C, h, w)"""
        plan, sampling, count = self.plan, self.loaded.sampling, self.plan.request.count
        cells = (plan.height // sampling.latent_stride, plan.width // sampling.latent_stride)
        noise = sampler.noise((1, sampling.latent_channels, *cells), plan.seed_of(k))
        x = plan.schedule.begin(noise, photo)
        steps = self.loaded.denoiser.denoise(x, plan.schedule, prompt, negative, plan.seed_of(k))
        for i in range(1, plan.steps_to_run + 1):
            begun = time.perf_counter()
            x, denoised = next(steps)
            self.pace.step_s = time.perf_counter() - begun
            steps_left = plan.steps_to_run - i + plan.steps_to_run * (count - k - 1)
            yield Progress("denoise", i, plan.steps_to_run, self.pace.eta_s(steps_left, count - k), k + 1, count)
            last = i == plan.steps_to_run
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
        plan, only = self.plan, self.plan.request.preview == "only"
        steps, count = plan.steps_to_run, plan.request.count
        eta_s = self.pace.eta_s(steps * (count - k - 1), 1)
        yield Progress("decode", steps, steps, eta_s, k + 1, count)
        begun = time.perf_counter()
        name = images.write_output(self.folder, not_blank(self._pixels(latents, only)), self._text(k))
        self.pace.decode_s = time.perf_counter() - begun
        if only:
            picture = kept_latents.KeptLatents(latents, plan.request.bundle, plan.seed_of(k), self._text(k))
            kept_latents.write(self.folder / name, picture)
        yield Preview(steps, name, self.seconds(), "tiny" if only else "vae", k + 1, "result")
        return name

    def _pixels(self, latents: Array, only: bool) -> Array:
        if only:
            return self.loaded.preview_decoder.decode(latents)
        return self.loaded.decoder.decode(latents, self.memory_plan.pieces)

    def _text(self, k: int) -> str:
        plan = self.plan
        size = (plan.width, plan.height)
        engine, others = self.loaded.engine.name, plan.schedule.words
        return infotext.describe(plan.request, plan.seed_of(k), size, plan.steps, plan.guidance, engine, others)
