"""
Drawing portraits: the order of steps, previews and decodes for one Generate request.

Knows a loaded bundle (the roles on some engine) and a folder; no queue, no page, no engine by name.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from engines import images, sampler
from engines.bundle import Bundle, Role
from engines.bundle.loras import LoraFile
from engines.bundle.signatures import LONGEST_PX, Array
from engines.errors import BundleError, OptionError, PromptError, SizeError, StorageError
from engines.faces.detection import Face
from engines.families import FAMILIES
from engines.images import Pixels, infotext, kept_latents
from engines.images.decoder import SHARED, Decoder
from engines.messages import MAX_SEED, DecoderKind, Event, Final, Generate, Preview, Progress
from engines.roles import memory, not_blank
from engines.roles.embedding_cache import ArrayCache
from engines.roles.loaded import LoadedBundle
from engines.roles.prompt_embedding import PromptEmbedding
from engines.sampler import Schedule
from engines.studio import init_image
from engines.studio.rough_preview import RoughDecoder
from engines.studio.snapshot import NoSnapshots, Saver, Snapshot
from engines.studio.timings import Timings
from engines.studio.weighted import WeightedPrompts

SIZE_RANGE_PX = (64, LONGEST_PX)
FindFaces = Callable[[Pixels], Sequence[Face]]


def seed_or_lot(seed: int) -> int:
    """Return the seed; for a negative one any, drawn by lot."""
    return secrets.randbelow(MAX_SEED + 1) if seed < 0 else seed


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
    words: WeightedPrompts
    photo: Pixels | None = field(default=None, repr=False, compare=False)

    @classmethod
    def for_request(
        cls, r: Generate, bundle: Bundle, find_faces: FindFaces, decoder: Decoder = SHARED
    ) -> GenerationPlan:
        """
        Plan a request, and read its photo, if it has one: of that the part about the largest face is taken.
        RequestError, BundleError, ImageError, and what `find_faces` raises.
        """
        photo = init_image.read(r, bundle, decoder)
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
        family, sampling = FAMILIES[bundle.family], bundle.need(bundle.sampling, "sampling")
        sizes = bundle.need(bundle.sizes or None, "its sizes")
        native = sizes[0] if photo is None else init_image.nearest(photo, sizes)
        width = native[0] if r.width is None else r.width
        height = native[1] if r.height is None else r.height
        _check_size(width, height, family.size_multiple_cells * sampling.latent_stride)
        if r.loras and not bundle.takes_loras:
            raise OptionError("loras", r.loras[0].name, "none with this model")
        if r.preview == "only" and "preview_decoder" not in bundle.roles:
            raise OptionError("preview", r.preview, "live, off")
        guidance = sampling.guidance if r.guidance is None else r.guidance
        seed = seed_or_lot(r.seed)
        steps = r.steps or sampling.steps
        strength = 1.0 if photo is None else r.strength
        schedule = family.schedule(sampling, steps, guidance, strength)
        words = WeightedPrompts.of(r, family, guided=bool(schedule.guidance))
        if not words.prompt.text.strip():
            raise PromptError("the prompt is empty")
        return cls(r, width, height, steps, guidance, seed, schedule, words)

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


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser is told besides its latents: prompts, and the latents of a photo to begin with."""

    prompt: PromptEmbedding
    negative: PromptEmbedding | None
    photo: Array | None  # (1, C, h, w)


@dataclass
class Pictures:
    """Of one request: the names of those that are done, and the latents of the next, which are only to be decoded."""

    names: list[str]
    denoised: list[Array]  # each (1, C, h, w)


@dataclass(frozen=True, kw_only=True)
class Generation:
    """
    One request being drawn. `reason`: why this engine. `started`: time.perf_counter() of the job's start. `loras` are
    to be applied, `without` names those that cannot be. `begun`: how far an earlier attempt came; `saver` keeps how far
    this one comes.
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
    begun: Snapshot | None = None
    saver: Saver = field(default_factory=lambda: Saver(NoSnapshots()))
    drawing: str = ""  # as snapshots call it

    def events(self, embeddings: ArrayCache) -> Iterator[Event]:
        plan, r, words = self.plan, self.plan.request, self.plan.words
        self._unload("denoiser", "decoder")  # of a job that was stopped
        self.pace.expect(words.runs)
        yield Progress("encode", 0, plan.steps_to_run, self._eta_s(r.count - 1, 0, r.count), 1, r.count)
        prompt, negative = self.loaded.prompt_embedding(words.prompt, embeddings), None
        if words.negative is not None:
            negative = self.loaded.prompt_embedding(words.negative, embeddings)
        photo = None if plan.photo is None or not plan.schedule.photo_scale else self.loaded.encoder.encode(plan.photo)
        yield from self._adapted()._pictures(Conditioning(prompt, negative, photo))

    def _adapted(self) -> Generation:
        """Return it with the LoRAs that can be applied. The others cost no picture: the end names them."""
        refused = self.loaded.apply_loras(self.loras)
        without = tuple(str(error.facts["lora"]) for error in refused)
        loras = tuple(lora for lora in self.plan.request.loras if lora.name not in without)
        plan = replace(self.plan, request=replace(self.plan.request, loras=loras))
        return replace(self, plan=plan, without=without, reason="; ".join([self.reason, *map(str, refused)]))

    def _pictures(self, conditioning: Conditioning) -> Iterator[Event]:
        plan, begun = self.plan, self.begun or self._snapshot()
        pictures = Pictures(list(begun.names), list(begun.denoised))
        for k, name in enumerate(begun.names):
            yield Preview(plan.steps_to_run, name, self.seconds(), self._decoded_by, k + 1, "result")
        first = len(begun.names) + len(begun.denoised)
        for k in range(first, plan.request.count):
            clean = yield from self._denoise(k, conditioning, pictures, begun if k == first else self._snapshot())
            pictures.denoised.append(clean)
            if not self.memory_plan.turns:
                yield from self._decode_all(pictures)
        self._unload("denoiser")
        yield from self._decode_all(pictures)
        self._unload("decoder")
        names, engine = tuple(pictures.names), self.loaded.engine.name
        yield Final(names, plan.seed, self.seconds(), engine, self.reason, self._decoded_by, without=self.without)

    def _decode_all(self, pictures: Pictures) -> Iterator[Event]:
        while pictures.denoised:
            yield from self._decode(pictures)

    @property
    def _decoded_by(self) -> DecoderKind:
        return "tiny" if self.plan.request.preview == "only" else "vae"

    def _snapshot(self, pictures: Pictures | None = None, latents: Array | None = None, step: int = 0) -> Snapshot:
        names, denoised = (pictures.names, pictures.denoised) if pictures else ((), ())
        seconds, plan = self.seconds(), self.plan
        return Snapshot(self.drawing, plan.seed, seconds, tuple(names), tuple(denoised), latents, step)

    def _save(self, pictures: Pictures, latents: Array | None = None, step: int = 0) -> None:
        if self.saver.due:
            self.saver.save(self._snapshot(pictures, latents, step))

    def _unload(self, *roles: Role) -> None:
        """Free the memory of these roles, if they take turns in it."""
        for role in roles if self.memory_plan.turns else ():
            self.loaded.unload(role)

    def seconds(self) -> float:
        return round(time.perf_counter() - self.started, 3)

    def _noise(self, k: int, photo: Array | None) -> Array:
        """What picture k begins with, over the photo's latents if there are any. (1, C, h, w)"""
        plan, sampling = self.plan, self.loaded.sampling
        cells = (plan.height // sampling.latent_stride, plan.width // sampling.latent_stride)
        return plan.schedule.begin(sampler.noise((1, sampling.latent_channels, *cells), plan.seed_of(k)), photo)

    def _denoise(
        self, k: int, conditioning: Conditioning, pictures: Pictures, begun: Snapshot
    ) -> Generator[Event, None, Array]:
        """Picture k, from where it has come to, to clean latents. (1, C, h, w)"""
        plan, count = self.plan, self.plan.request.count
        x = self._noise(k, conditioning.photo) if begun.latents is None else begun.latents
        prompt, negative = conditioning.prompt, conditioning.negative
        steps = self.loaded.denoiser.denoise(
            x, plan.schedule, prompt, negative, plan.seed_of(k), begun.step, plan.request.variety
        )
        for i in range(begun.step + 1, plan.steps_to_run + 1):
            step_begun = time.perf_counter()
            x, denoised = next(steps)
            self.pace.step_s = time.perf_counter() - step_begun
            self._save(pictures, x, i)  # before anybody hears of it: a stop breaks off at an event
            eta_s = self._eta_s(count - k - 1, i, count - len(pictures.names))
            yield Progress("denoise", i, plan.steps_to_run, eta_s, k + 1, count)
            if plan.request.preview == "live":
                yield from self._look(k, i, x if i == plan.steps_to_run else denoised)
        return x

    def _eta_s(self, to_begin: int, step: int, decodes: int) -> float | None:
        """The time left: so many pictures are to be begun, one has come to `step`, and `decodes` are to be made."""
        steps = self.plan.steps_to_run
        shown = self.pace.preview_steps(steps) if self.plan.request.preview == "live" else ()
        looks = len(shown) * to_begin + sum(at > step for at in shown)
        return self.pace.eta_s(steps * (to_begin + 1) - step, decodes, looks)

    def _look(self, k: int, step: int, latents: Array) -> Iterator[Event]:
        """A preview from the tiny decoder when it is time for one, and what is rough between two of them."""
        if step in self.pace.preview_steps(self.plan.steps_to_run):
            yield from self._preview(k, step, latents)
        elif self.pace.rough and (step - 1) % self.pace.rough_every() == 0:
            begun = time.perf_counter()
            pixels = self.pace.rough.decode(latents, self.plan.width, self.plan.height)
            name = images.write_preview(self.folder, pixels)
            self.pace.rough_s = time.perf_counter() - begun
            yield Preview(step, name, self.seconds(), "rough", k + 1)

    def _preview(self, k: int, step: int, latents: Array) -> Iterator[Event]:
        if "preview_decoder" not in self.loaded.bundle.roles:
            return
        decoder = self.loaded.preview_decoder  # loaded now, the first time: that is no part of what a preview costs
        begun = time.perf_counter()
        pixels = decoder.decode(latents)
        name = images.write_preview(self.folder, pixels)
        self.pace.preview_s = time.perf_counter() - begun
        self.pace.rough = RoughDecoder.fitted(latents, pixels)
        yield Preview(step, name, self.seconds(), "tiny", k + 1)

    def _decode(self, pictures: Pictures) -> Iterator[Event]:
        """
        Store the next picture, from the full decoder or, with preview="only", from the tiny one, with its latents kept
        beside it.
        """
        k, latents = len(pictures.names), pictures.denoised[0]
        plan, only = self.plan, self.plan.request.preview == "only"
        steps, count = plan.steps_to_run, plan.request.count
        eta_s = self._eta_s(count - k - len(pictures.denoised), steps, count - k)
        yield Progress("decode", steps, steps, eta_s, k + 1, count)
        begun = time.perf_counter()
        name = images.write_output(self.folder, not_blank(self._pixels(latents, only)), self._text(k))
        self.pace.decode_s = time.perf_counter() - begun
        if only:
            picture = kept_latents.KeptLatents(latents, plan.request.bundle, plan.seed_of(k), self._text(k))
            self._keep_latents(self.folder / name, picture)
        pictures.names.append(name)
        del pictures.denoised[0]
        self._save(pictures)
        yield Preview(steps, name, self.seconds(), self._decoded_by, k + 1, "result")

    def _keep_latents(self, path: Path, picture: kept_latents.KeptLatents) -> None:
        """StorageError: the disk refuses, and the picture goes too, as no event will name it."""
        try:
            kept_latents.write(path, picture)
        except StorageError:
            with suppress(OSError):  # it must not hide why
                path.unlink()
            raise

    def _pixels(self, latents: Array, only: bool) -> Array:
        if only:
            return self.loaded.preview_decoder.decode(latents)
        return self.loaded.decoder.decode(latents, self.memory_plan.side)

    def _text(self, k: int) -> str:
        plan = self.plan
        size = (plan.width, plan.height)
        served, others = (self.loaded.engine.name, self.loaded.precision), plan.schedule.words
        return infotext.describe(plan.request, plan.seed_of(k), size, plan.steps, plan.guidance, *served, others)
