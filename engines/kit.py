"""The roles of one bundle on one engine. Each part is loaded when it is first used, and stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from engines import backends
from engines.backends import Engine, Session
from engines.bundle import Bundle, Role, Sampling, Shelf
from engines.cache import ArrayCache
from engines.families import FAMILIES
from engines.roles import Decoder, Denoiser, PreviewDecoder, Restorer, TextEncoder
from engines.signatures import SIGNATURES, Array
from engines.tokens import Tokens

Select = Callable[[Bundle, str], tuple[Engine, str]]
NAMES: dict[Role, str] = {
    "text_encoder": "text",
    "preview_decoder": "preview",
}  # where a property is not called after its role


@dataclass(frozen=True)
class Kit:
    bundle: Bundle
    engine: Engine

    @property
    def sampling(self) -> Sampling:
        return self.bundle.need(self.bundle.sampling, "sampling")

    @cached_property
    def text(self) -> TextEncoder:
        text = self.bundle.need(self.bundle.text, "its words")
        return TextEncoder(self._load("text_encoder"), Tokens(self.bundle.root, text))

    @cached_property
    def denoiser(self) -> Denoiser:
        return Denoiser(self._load("denoiser"), FAMILIES[self.bundle.family])

    @cached_property
    def decoder(self) -> Decoder:
        return Decoder(self._load("decoder"), self.sampling)

    @cached_property
    def preview(self) -> PreviewDecoder:
        return PreviewDecoder(self._load("preview_decoder"))

    @cached_property
    def restorer(self) -> Restorer:
        return Restorer(self._load("restorer"))

    def embedding(self, prompt: str, cache: ArrayCache) -> Array:
        """(1, T, D), from disk when these weights have read these words under this template before."""
        part = self.bundle.part("text_encoder", self.engine.formats)
        text = self.bundle.need(self.bundle.text, "its words")
        key = (part.sha256, text.sha256, text.template, str(text.max_tokens), prompt)
        return cache.get_or(key, lambda: self.text.encode(prompt))

    def load_all(self) -> None:
        """Load every part now, so that the first picture does not wait for it."""
        for role in self.bundle.roles & SIGNATURES.keys():
            getattr(self, NAMES.get(role, role))

    def _load(self, role: Role) -> Session:
        return self.engine.load(self.bundle, self.bundle.part(role, self.engine.formats))


class Kits:
    """Every kit in use, by bundle and engine."""

    def __init__(self, shelf: Shelf, select: Select = backends.select) -> None:
        self.shelf, self.select = shelf, select
        self.loaded: dict[tuple[str, str], Kit] = {}

    def take(self, name: str, backend: str) -> tuple[Kit, str]:
        """The kit, and why this engine. NotFoundError, BundleError (its files are checked once), EngineUnavailable."""
        bundle = self.shelf.open(name)
        engine, reason = self.select(bundle, backend)
        if (name, engine.name) not in self.loaded:
            bundle.verify()
            self.loaded[name, engine.name] = Kit(bundle, engine)
        return self.loaded[name, engine.name], reason
