"""
The roles of one bundle on one engine. Each part is loaded when it is first used, and stays until it is let go of; but
the text encoder, the largest part of a large model and used for a moment, is loaded for each new text and let go of;
and so is the encoder, for each photo.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from engines import backends
from engines.backends import AcceptsLoras, Engine, Session
from engines.bundle import EMBEDDINGS, Bundle, Part, Role, Sampling, Shelf
from engines.bundle.loras import LoraFile
from engines.bundle.signatures import SIGNATURES, Array
from engines.errors import BundleError, LoraError, OptionError
from engines.families import FAMILIES
from engines.roles import Decoder, Denoiser, Detector, Encoder, PreviewDecoder, Restorer, TextEncoder, memory
from engines.roles.embedding_cache import ArrayCache
from engines.tokens import Tokens

Select = Callable[[Bundle, str], tuple[Engine, str]]
NAMES: dict[Role, str] = {
    "text_encoder": "text",
    "preview_decoder": "preview",
    "face_detector": "detector",
}  # where a property is not called after its role


@dataclass(frozen=True)
class PerCallSession:
    """A session that is loaded for each call and closed after it: what is rarely used takes no memory meanwhile."""

    load: Callable[[], Session]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        session = self.load()
        try:
            return session.run(feeds)
        finally:
            session.close()

    def close(self) -> None:
        """There is nothing between calls."""


@dataclass(frozen=True)
class LoadedBundle:
    """`budget`: bytes of memory that may be used."""

    bundle: Bundle
    engine: Engine
    budget: int = memory.UNLIMITED

    @property
    def sampling(self) -> Sampling:
        return self.bundle.need(self.bundle.sampling, "sampling")

    @cached_property
    def text(self) -> TextEncoder:
        text = self.bundle.need(self.bundle.text, "its words")
        return TextEncoder(PerCallSession(lambda: self._load("text_encoder")), Tokens(self.bundle.root, text))

    @cached_property
    def denoiser(self) -> Denoiser:
        return Denoiser(self._load("denoiser"), FAMILIES[self.bundle.family])

    @cached_property
    def decoder(self) -> Decoder:
        return Decoder(self._load("decoder"), self.sampling)

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(PerCallSession(lambda: self._load("encoder")), self.sampling)

    @cached_property
    def preview(self) -> PreviewDecoder:
        return PreviewDecoder(self._load("preview_decoder"))

    @cached_property
    def restorer(self) -> Restorer:
        return Restorer(self._load("restorer"))

    @cached_property
    def detector(self) -> Detector:
        longest_px = self.bundle.need(self.bundle.face, "its face").size_px
        return Detector(self._load("face_detector"), self.bundle.family, longest_px)

    def embedding(self, prompt: str, cache: ArrayCache) -> Array:
        """
        (1, T, D): from the bundle, if its maker stored these words; else from the cache, if these weights have read
        them under this template before; else the text encoder reads them.
        """
        stored = self._stored(prompt)
        if stored is not None:
            return stored
        part = self.bundle.part("text_encoder", self.engine.formats)
        text = self.bundle.need(self.bundle.text, "its words")
        key = (part.sha256, part.precision, repr(text), prompt)
        return cache.get_or(key, lambda: self.text.encode(prompt))

    def apply_loras(self, loras: Sequence[LoraFile]) -> tuple[LoraError, ...]:
        """
        Let the denoiser wear these LoRAs from now on, and no others. Returns why some cannot be worn. OptionError: this
        engine has no place for any.
        """
        session = self.denoiser.session
        if isinstance(session, AcceptsLoras):
            return session.apply_loras(loras)
        if loras:
            raise OptionError("backend", self.engine.name, backends.FOR_LORAS)
        return ()

    def _stored(self, prompt: str) -> Array | None:
        """BundleError: the file is damaged."""
        if EMBEDDINGS not in self.bundle.extras:
            return None
        try:
            with (self.bundle.root / EMBEDDINGS).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                name = stored_name(prompt)
                return stored[name] if name in stored.files else None
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as exc:
            raise BundleError(f"{self.bundle.name}/{EMBEDDINGS}: {exc}", bundle=self.bundle.name) from exc

    def memory_for(self, size: tuple[int, int]) -> memory.MemoryPlan:
        """What drawing a picture of this size (width, height) takes. MemoryShort: more than there is."""
        parts = [self._part(role) for role in sorted(self.bundle.roles)]
        return memory.plan(self.bundle, parts, self.engine.name, size, self.budget)

    def close(self) -> None:
        """Let go of every part that was loaded; what is used again is loaded again."""
        for role in self.bundle.roles & SIGNATURES.keys():
            self.let_go(role)

    def let_go(self, role: Role) -> None:
        if (loaded := vars(self).pop(NAMES.get(role, role), None)) is not None:
            loaded.session.close()

    def load_all(self) -> None:
        """Load every part now, so that the first picture does not wait for it."""
        for role in self.bundle.roles & SIGNATURES.keys():
            getattr(self, NAMES.get(role, role))

    def _load(self, role: Role) -> Session:
        return self.engine.load(self.bundle, self._part(role))

    def _part(self, role: Role) -> Part:
        """Weights for PyTorch, which it computes with in float32 or, where memory is short, in bf16."""
        part = self.bundle.part(role, self.engine.formats)
        wide = part.format in ("diffusers", "safetensors") and part.precision == "fp32"
        return replace(part, precision=memory.fitting(self.bundle.root / part.file, self.budget)) if wide else part


def stored_name(prompt: str) -> str:
    """What an embedding is called in a bundle's file of them."""
    return hashlib.sha256(prompt.encode()).hexdigest()


class LoadedBundles:
    """Every kit in use, by bundle and engine. One engine a bundle: another one takes its place, and its memory."""

    def __init__(self, shelf: Shelf, select: Select = backends.select, budget: int = memory.UNLIMITED) -> None:
        self.shelf, self.select, self.budget = shelf, select, budget
        self.loaded: dict[tuple[str, str], LoadedBundle] = {}

    def take(self, name: str, backend: str) -> tuple[LoadedBundle, str]:
        """The kit, and why this engine. NotFoundError, BundleError (its files are checked once), EngineUnavailable."""
        bundle = self.shelf.open(name)
        engine, reason = self.select(bundle, backend)
        loaded = self.loaded.get((name, engine.name))
        if loaded is None or loaded.bundle.parts != bundle.parts:  # new here, or made anew meanwhile
            bundle.verify()
            self.drop(name)
            loaded = self.loaded[name, engine.name] = LoadedBundle(bundle, engine, self.budget)
        return loaded, reason

    def leave(self, loaded: LoadedBundle) -> None:
        """Nothing but this kit stays in memory."""
        for other in self.loaded.values():
            if other is not loaded:
                other.close()

    def drop(self, name: str) -> None:
        for key in [key for key in self.loaded if key[0] == name]:
            self.loaded.pop(key).close()
