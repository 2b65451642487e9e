"""
The parts that this machine lends to others (engines/backends/remote_session.py): opened by the same code as where they
run for their own machine, and run one at a time. Knows no HTTP; webui/parts.py carries what is said.

Parts stay open until nobody has used them for a while, or until another one needs their memory.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass, field

from engines import backends, files
from engines.backends import Session, array_format, refusals
from engines.backends.arrangement import Arrangement, read
from engines.backends.lenders import Opened, Platform, Wanted, manifest_digest
from engines.backends.verdicts import Verdicts
from engines.bundle import BUILT_IN, Bundle, Part, Role, Shelf, digest
from engines.errors import BundleError, EngineUnavailable, MemoryShort, NotFoundError, PartRefused, RequestError
from engines.machine import preflight
from engines.roles import memory
from engines.roles.memory import Budget
from engines.settings import Settings

log = logging.getLogger(__name__)
IDLE_S = 600.0  # without a run, until a part is unloaded
ABSENT, ANOTHER, DAMAGED = "it has no such bundle", "its bundle of that name is another one", "its files are damaged"
UNPROVED = "this engine is not verified there"


Key = tuple[str, str, str, Role]  # bundle, manifest, arrangement


@dataclass
class OpenPart:
    """`key`: what it is. `taken`: bytes of memory, as was estimated. `used`: when, by time.monotonic()."""

    key: Key
    bundle: Bundle
    role: Role
    session: Session
    answer: Opened
    taken: int
    used: float = field(default_factory=time.monotonic)


class Lender:
    """
    `shelf` holds the bundles, `verdicts` are this machine's, `budget` says how many bytes of memory parts may take,
    and `name` is what errors call this machine. Any thread may ask; one is served at a time.
    """

    def __init__(self, shelf: Shelf, verdicts: Verdicts, name: str, budget: Budget = memory.unlimited) -> None:
        self.shelf, self.verdicts, self.name, self.budget = shelf, verdicts, name, budget
        self._open: dict[str, OpenPart] = {}  # by their names at who uses them
        self._verified: dict[tuple[str, str], str] = {}  # a part's checksum by its bundle and file
        self._turn = threading.Lock()

    @classmethod
    def at_home(cls, settings: Settings) -> Lender:
        """Return that of a home, when it has been tried which engines can work on this machine."""
        refusals.examine([engine.trial for engine in backends.engines()], settings.state / preflight.FOLDER)
        shelf = Shelf((settings.models, BUILT_IN), settings.state / "compiled")
        verdicts = Verdicts(settings.state / "verdicts")
        return cls(shelf, verdicts, socket.gethostname(), memory.budget(settings.memory_gb))

    def answer(self, question: bytes) -> bytes:
        """Open the part that a question names, which is a Wanted in JSON; the answer is an Opened."""
        try:
            wanted = files.validate(Wanted, files.parse_json(question))
        except ValueError as exc:
            raise RequestError("this names no part") from exc
        return json.dumps(asdict(self.open(wanted))).encode()

    def open(self, wanted: Wanted) -> Opened:
        """
        Open a part; one that is open stays so. PartRefused: there is no such, its numbers would be others, or there is
        no memory for it. EngineError.
        """
        with self._turn:
            bundle, way = self._resolved(wanted)
            platform = self._platform(wanted, bundle, way)
            key: Key = wanted.bundle, wanted.manifest, wanted.arrangement, wanted.role
            part = next((part for part in self._open.values() if part.key == key), None)
            if part is None:
                part = self._opened(key, bundle, way, platform)
                self._open[part.answer.id] = part
            part.used = time.monotonic()
            return part.answer

    def limit(self, part_id: str) -> int:
        """Return how many bytes a run of a part may be fed. NotFoundError: it is not open."""
        part = self._part(part_id)
        return array_format.most_fed_bytes(part.role, part.bundle)

    def run(self, part_id: str, body: bytes) -> bytes:
        """Run an open part on arrays. NotFoundError: it is not open. RequestError: these are not its. EngineError."""
        with self._turn:
            part = self._part(part_id)
            try:
                feeds = array_format.unpack_feeds(part.role, part.bundle, body)
            except ValueError as exc:
                raise RequestError(str(exc)) from exc
            try:
                return array_format.pack(part.session.run(feeds))
            finally:
                part.used = time.monotonic()

    def unload_idle(self, idle_s: float = IDLE_S) -> None:
        """Unload what nobody has used for so long."""
        if not self._turn.acquire(blocking=False):  # something runs
            return
        try:
            for part in [part for part in self._open.values() if time.monotonic() - part.used > idle_s]:
                self._close(part)
        finally:
            self._turn.release()

    def close(self) -> None:
        """Unload everything."""
        with self._turn:
            for part in tuple(self._open.values()):
                self._close(part)

    def _part(self, part_id: str) -> OpenPart:
        part = self._open.get(part_id)
        if part is None:
            raise NotFoundError("part", part_id)
        return part

    def _close(self, part: OpenPart) -> None:
        del self._open[part.answer.id]
        part.session.close()
        log.info("unloaded: %s/%s", part.bundle.name, part.role)

    def _opened(self, key: Key, bundle: Bundle, way: Arrangement, platform: Platform) -> OpenPart:
        role = key[-1]
        self._verify(bundle, way.part(bundle, role))
        part, taken = self._fitted(bundle, way, role)
        session = way.engine(bundle, role).load(bundle, part)
        log.info("open: %s/%s on %s, %s", bundle.name, role, platform.runtime, part.precision)
        answer = Opened(secrets.token_hex(16), platform, part.precision)
        return OpenPart(key, bundle, role, session, answer, taken)

    def _refused(self, role: Role, why: str) -> PartRefused:
        return PartRefused(role, self.name, why)

    def _resolved(self, wanted: Wanted) -> tuple[Bundle, Arrangement]:
        """Return the bundle, and which part of it runs where: both are the same as there, or there is no such."""
        try:
            bundle = self.shelf.open(wanted.bundle)
            if manifest_digest(bundle) != wanted.manifest:
                raise self._refused(wanted.role, ANOTHER)
            return bundle, read(bundle, wanted.arrangement, backends.engine)
        except (NotFoundError, BundleError, OSError) as exc:
            raise self._refused(wanted.role, ABSENT) from exc
        except (ValueError, IndexError) as exc:
            raise RequestError("this is no arrangement") from exc
        except EngineUnavailable as exc:
            raise self._refused(wanted.role, str(exc.facts["why"])) from exc

    def _platform(self, wanted: Wanted, bundle: Bundle, way: Arrangement) -> Platform:
        """Return this machine's, on which the part gives the numbers that it gives there, or is as good."""
        engine = way.engine(bundle, wanted.role)
        probe = engine.probe()
        if not probe.ok:
            raise self._refused(wanted.role, probe.reason)
        platform = Platform.of(engine)
        if why := wanted.platform.differs(platform):
            raise self._refused(wanted.role, why)
        candidate = backends.candidate(bundle, way, self.verdicts)
        proved = candidate.verdict is not None and candidate.verdict.accepted
        if not (candidate.trusted or proved or platform.is_like(wanted.platform)):
            raise self._refused(wanted.role, UNPROVED)
        return platform

    def _verify(self, bundle: Bundle, part: Part) -> None:
        """Read every byte of a part, the first time."""
        key = bundle.name, part.file
        if self._verified.get(key) != part.sha256:
            if digest(bundle.root / part.file) != part.sha256:
                raise self._refused(part.role, DAMAGED)
            self._verified[key] = part.sha256

    def _fitted(self, bundle: Bundle, way: Arrangement, role: Role) -> tuple[Part, int]:
        """Return the part as it is computed here, and the bytes that it takes; unload others to make room for them."""
        while True:
            budget = self.budget()
            room = budget - sum(part.taken for part in self._open.values())
            part = memory.sized(bundle, way.part(bundle, role), budget)
            parts = [part if other.role == role else other for other in way.parts]
            try:
                return part, memory.of_part(bundle, parts, way.name, role, room)
            except MemoryShort as exc:
                if not self._open:
                    needed, there = exc.facts["needed_gb"], exc.facts["budget_gb"]
                    raise self._refused(role, f"{needed} GB of memory needed, {there} GB available") from exc
            self._close(min(self._open.values(), key=lambda part: part.used))
