"""
The roles of one bundle on one engine. Each is loaded when it is first used and stays until it is unloaded; but the text
encoder, the largest part of a large model and used for a moment, is loaded for each new text and unloaded after it; and
so is the encoder, for each photo.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np

from engines import backends, machine, sampler
from engines.backends import AcceptsLoras, ChoosesParts, Engine, ReleasesMemory, Session
from engines.backends.arrangement import Arrangement
from engines.backends.lenders import NO_LENDERS, Lenders
from engines.backends.remote_session import RemoteSession
from engines.backends.timed import Note, TimedSession
from engines.bundle import EMBEDDINGS, Bundle, Part, Role, Sampling, Shelf
from engines.bundle.loras import LoraFile
from engines.bundle.signatures import SIGNATURES, Array
from engines.errors import BundleError, LoraError, OptionError
from engines.families import FAMILIES
from engines.messages.prompts import Prompt
from engines.roles import Decoder, Denoiser, Detector, Encoder, PreviewDecoder, Restorer, TextEncoder, memory
from engines.roles.embedding_cache import ArrayCache
from engines.roles.memory import Budget
from engines.roles.prompt_embedding import PromptEmbedding
from engines.tokens import Tokens


class Select(Protocol):
    """Selects an engine for a bundle, and says why it, as backends.select does."""

    def __call__(self, bundle: Bundle, wanted: str, *, passed_over: int = 0) -> tuple[Engine, str]: ...


AnyRole = TextEncoder | Denoiser | Decoder | Encoder | PreviewDecoder | Restorer | Detector


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
        """Do nothing: between calls nothing is loaded."""


@dataclass(eq=False)  # two of the same bundle hold different sessions
class LoadedBundle:
    """
    One bundle on one engine, and those of its roles that are loaded now. `budget`: bytes of memory that may be used by
    this job; `cores`: how many processors there were when it was opened, each of which has a thread in its sessions.
    `note` is told of each run of a session here; parts may be lent by other machines, the `lenders`.
    Each property loads its role when it is first read. BundleError: the bundle has no part for it, or says too little
    about it. EngineError: the engine refuses the part.
    """

    bundle: Bundle
    engine: Engine
    budget: int = memory.UNLIMITED
    cores: int = field(default_factory=lambda: machine.cores())
    note: Note | None = None
    lenders: Lenders = NO_LENDERS
    roles: dict[Role, AnyRole] = field(default_factory=dict, init=False)

    @property
    def sampling(self) -> Sampling:
        return self.bundle.need(self.bundle.sampling, "sampling")

    @property
    def precision(self) -> str:
        """The coarsest arithmetic of any of its parts."""
        return backends.coarsest(map(self._part, sorted(self.bundle.roles))) or ""

    @property
    def text_encoder(self) -> TextEncoder:
        return cast(TextEncoder, self.load("text_encoder"))

    @property
    def denoiser(self) -> Denoiser:
        return cast(Denoiser, self.load("denoiser"))

    @property
    def decoder(self) -> Decoder:
        return cast(Decoder, self.load("decoder"))

    @property
    def encoder(self) -> Encoder:
        return cast(Encoder, self.load("encoder"))

    @property
    def preview_decoder(self) -> PreviewDecoder:
        return cast(PreviewDecoder, self.load("preview_decoder"))

    @property
    def restorer(self) -> Restorer:
        return cast(Restorer, self.load("restorer"))

    @property
    def face_detector(self) -> Detector:
        return cast(Detector, self.load("face_detector"))

    def load(self, role: Role) -> AnyRole:
        """Return the role; where it is not loaded, load it first."""
        if role not in self.roles:
            self.roles[role] = self._open(role)
        return self.roles[role]

    def load_all(self) -> None:
        """Load every role now, so that the first picture does not wait for it."""
        for role in self.bundle.roles & SIGNATURES.keys():
            self.load(role)

    def unload(self, role: Role) -> None:
        """Close the role's session, if it is loaded; what is used again is loaded again."""
        if role in self.roles:
            self.roles.pop(role).session.close()

    def release_memory(self) -> None:
        """Give back what the sessions took beside their weights."""
        for role in self.roles.values():
            if isinstance(role.session, ReleasesMemory):
                role.session.release_memory()

    def close(self) -> None:
        """Unload every role."""
        for role in tuple(self.roles):
            self.unload(role)

    def _open(self, role: Role) -> AnyRole:
        match role:
            case "text_encoder":
                text = self.bundle.need(self.bundle.text, "its words")
                return TextEncoder(self._per_call(role), Tokens(self.bundle.root, text))
            case "denoiser":
                return Denoiser(self._session(role), FAMILIES[self.bundle.family])
            case "decoder":
                return Decoder(self._session(role), self.sampling)
            case "encoder":
                return Encoder(self._per_call(role), self.sampling)
            case "preview_decoder":
                return PreviewDecoder(self._session(role))
            case "restorer":
                return Restorer(self._session(role))
            case "face_detector":
                longest_px = self.bundle.need(self.bundle.face, "its face").size_px
                return Detector(self._session(role), self.bundle.family, longest_px)

    def _session(self, role: Role) -> Session:
        """Open the role's part here, or name it to who lends it; how fast others are says nothing of this machine."""
        if role in self.lent:
            assert isinstance(self.engine, Arrangement)  # whatever can run a bundle is one
            return RemoteSession(self.lenders, self.bundle, self.engine, role)
        session = self.engine.load(self.bundle, self._part(role))
        return TimedSession(session, role, self.note) if self.note else session

    def _per_call(self, role: Role) -> Session:
        return self._session(role) if role in self.lent else PerCallSession(lambda: self._session(role))

    @property
    def lent(self) -> Mapping[Role, str]:
        """The addresses of those who lend parts of it."""
        return self.lenders.of(self.bundle)

    def borrow(self) -> str:
        """
        Open what other machines lend, so that a job begins when all is there, and say who lends what. PartAway,
        PartRefused, and what opening a part here may raise.
        """
        sessions = [self.load(role).session for role in sorted(self.lent)]
        return ", ".join(session.open() for session in sessions if isinstance(session, RemoteSession))

    def part(self, role: Role) -> Part:
        """Return the part that runs for a role. BundleError: there is none that the engine reads."""
        if isinstance(self.engine, ChoosesParts):
            return self.engine.part(self.bundle, role)
        return self.bundle.part(role, self.engine.formats)

    def _part(self, role: Role) -> Part:
        """Return the part for a role as it is computed here; how another machine does it, that one says."""
        part = self.part(role)
        return part if role in self.lent else memory.sized(self.bundle, part, self.budget)

    def embedding(self, prompt: str, cache: ArrayCache) -> Array:
        """
        Return a prompt's embedding (1, T, D): from the bundle, if its maker stored it; else from the cache, if these
        weights have read these words under this template before; else from the text encoder.
        """
        stored = self._stored(prompt)
        if stored is not None:
            return stored
        part = self.part("text_encoder")
        text = self.bundle.need(self.bundle.text, "its words")
        key = (part.sha256, part.precision, repr(text), prompt)
        return cache.get_or(key, lambda: self.text_encoder.encode(prompt))

    def prompt_embedding(self, prompt: Prompt, cache: ArrayCache) -> PromptEmbedding:
        """Return what the denoiser is given of a prompt, its words weighted in the way of the family."""
        whole = self.embedding(prompt.text, cache)
        if FAMILIES[self.bundle.family].weighs == "guidance":
            without = tuple((weight, self.embedding(prompt.without(weight), cache)) for weight in prompt.weights)
            return PromptEmbedding(whole, without)
        if prompt.spans:
            whole = sampler.weigh_rows(whole, self.text_encoder.tokens.weights(prompt))
        return PromptEmbedding(whole)

    def apply_loras(self, loras: Sequence[LoraFile]) -> tuple[LoraError, ...]:
        """
        Apply these LoRAs to the denoiser from now on, and no others. Return why some cannot be. OptionError: this
        engine takes none.
        """
        session = self.denoiser.session
        session = session.session if isinstance(session, TimedSession) else session
        if isinstance(session, AcceptsLoras):
            return session.apply_loras(loras)
        if loras and "denoiser" in self.lent:
            raise OptionError("loras", loras[0].name, "none while another machine lends the denoiser")
        if loras:
            raise OptionError("backend", self.engine.name, backends.FOR_LORAS)
        return ()

    def _stored(self, prompt: str) -> Array | None:
        """Return the embedding (1, T, D) that the bundle holds, if it does. BundleError: the file is damaged."""
        if EMBEDDINGS not in self.bundle.extras:
            return None
        try:
            with (self.bundle.root / EMBEDDINGS).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                name = stored_name(prompt)
                return stored[name] if name in stored.files else None
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as exc:
            raise BundleError(f"{self.bundle.name}/{EMBEDDINGS}: {exc}", bundle=self.bundle.name) from exc

    def memory_plan(self, size: tuple[int, int], thrift: int = 0) -> memory.MemoryPlan:
        """Return what drawing a picture of this size (width, height) takes, as memory.plan does. MemoryShort."""
        parts = [self._part(role) for role in sorted(self.bundle.roles)]
        return memory.plan(self.bundle, parts, self.engine.name, size, self.budget, thrift, self.lent.keys())


def stored_name(prompt: str) -> str:
    """Return the name of a prompt's embedding in a bundle's EMBEDDINGS."""
    return hashlib.sha256(prompt.encode()).hexdigest()


class LoadedBundles:
    """
    The bundles in use, by name and engine. One engine a bundle: another one takes its place, and its memory. `budget`
    is asked whenever a bundle is: other programs take memory and give it back, and a container's limit is moved.
    """

    def __init__(
        self,
        shelf: Shelf,
        select: Select = backends.select,
        budget: Budget = memory.unlimited,
        note: Note | None = None,
        lenders: Lenders = NO_LENDERS,
    ) -> None:
        self.shelf, self.select, self.budget, self.note, self.lenders = shelf, select, budget, note, lenders
        self.loaded: dict[tuple[str, str], LoadedBundle] = {}

    def get(self, name: str, backend: str, passed_over: int = 0) -> tuple[LoadedBundle, str]:
        """
        Return the bundle of that name on the engine that `backend` selects when so many of the best are passed over,
        and why on this engine. The bundle's files are verified when it is new here, or was built anew; and it is opened
        anew where this process was given more or fewer processors meanwhile. NotFoundError, BundleError,
        EngineUnavailable.
        """
        bundle = self.shelf.open(name)
        engine, reason = self.select(bundle, backend, passed_over=passed_over)
        loaded = self.loaded.get((name, engine.name))
        stays = loaded is not None and loaded.engine == engine and loaded.cores == machine.cores()
        if loaded is None or not stays or loaded.bundle.parts != bundle.parts:
            bundle.verify()
            self.unload(name)
            loaded = self.loaded[name, engine.name] = LoadedBundle(bundle, engine, note=self.note, lenders=self.lenders)
        loaded.budget = self.budget()
        return loaded, reason

    def keep_only(self, loaded: LoadedBundle) -> None:
        """Unload the roles of every other bundle."""
        for other in self.loaded.values():
            if other is not loaded:
                other.close()

    def release_memory(self) -> None:
        """Give back what runs took beside the weights: while nobody draws, other programs may have it."""
        for loaded in self.loaded.values():
            loaded.release_memory()
        machine.trim_heap()

    def close(self) -> None:
        """Unload the roles of every bundle."""
        for loaded in self.loaded.values():
            loaded.close()

    def unload(self, name: str) -> None:
        """Close a bundle, on whichever engine it is."""
        for key in [key for key in self.loaded if key[0] == name]:
            self.loaded.pop(key).close()
