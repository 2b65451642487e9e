"""
From a request to a stream of events: which steps, in which order. Knows no queue, no page and no engine by name.

Every run ends with Final or Failed; anything that is raised instead is a bug.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from engines import backends, images
from engines.backends.lenders import NO_LENDERS, Lenders
from engines.backends.timed import RoleRun
from engines.bundle import BUILT_IN, Shelf
from engines.bundle.loras import Loras
from engines.errors import OptionError, StudioError
from engines.images import kept_latents
from engines.images.decoder import SHARED, Decoder
from engines.jobs.leftovers import delete_picture
from engines.machine import usage
from engines.messages import (
    Build,
    Develop,
    Enhance,
    Event,
    Failed,
    Fetch,
    Final,
    Generate,
    Inspect,
    Progress,
    Request,
)
from engines.roles import memory, not_blank
from engines.roles.embedding_cache import ArrayCache
from engines.roles.loaded import LoadedBundle, LoadedBundles, Select
from engines.studio import snapshot
from engines.studio.experience import Experience
from engines.studio.generate import Generation, GenerationPlan, seed_or_lot
from engines.studio.memory_ladder import MemoryLadder
from engines.studio.restore import Restoration, advise
from engines.studio.restore_cache import RestoreCache
from engines.studio.snapshot import NoSnapshots, Snapshots
from engines.studio.timings import Timings

log = logging.getLogger(__name__)
KEPT_EMBEDDINGS, RECENT_EMBEDDINGS = 512, 16  # on disk, in memory
PREVIEWS_LIVE_S = 86400.0
DETECTOR = "detector"  # the bundle of that name
KEPT_PHOTOS = 2000  # whose restorations are remembered
SHIPPED = Loras((BUILT_IN / "loras",))


class Studio:
    """
    `shelf` holds the bundles, `loras` what may be applied to them; `state` is a folder for caches, `budget` says
    how many bytes of memory models may take. `decoder` reads the photos. `experience` learns from each job how fast
    engines are. `lenders` are the machines that lend parts of bundles.
    """

    def __init__(
        self,
        shelf: Shelf,
        state: Path,
        select: Select = backends.select,
        loras: Loras = SHIPPED,
        budget: memory.Budget = memory.unlimited,
        decoder: Decoder = SHARED,
        experience: Experience | None = None,
        lenders: Lenders = NO_LENDERS,
    ) -> None:
        self.experience, self._runs = experience, list[RoleRun]()  # of the job that runs
        note = self._runs.append if experience else None
        self.loaded_bundles, self.loras = LoadedBundles(shelf, select, budget, note, lenders), loras
        self.decoder = decoder
        self.embeddings = ArrayCache(state / "embeddings", KEPT_EMBEDDINGS, RECENT_EMBEDDINGS)
        self.photos = RestoreCache(state / "photos", KEPT_PHOTOS)
        self.snapshots: Snapshots = NoSnapshots()  # of the job that runs
        self.ladder = MemoryLadder(self.loaded_bundles)
        self.paces: defaultdict[tuple[str, str, int, int], Timings] = defaultdict(Timings)

    def run(self, request: Request, folder: Path) -> Generator[Event]:
        """
        Yield the events of a job. Pictures go to `folder`, and events name them in it. When JobCancelled is thrown in,
        nothing more is computed and the next event is the last.
        """
        images.remove_old_previews(folder, PREVIEWS_LIVE_S)
        try:
            match request:
                case Generate():
                    yield from self._generate(request, folder)
                case Enhance():
                    yield from self._enhance(request, folder)
                case Inspect():
                    yield from self._inspect(request, folder)
                case Develop():
                    yield from self._develop(request, folder)
                case Build() | Fetch():  # for BackgroundJobs
                    raise OptionError("kind", type(request).__name__.lower(), "generate, enhance, develop")
        except StudioError as exc:
            yield Failed(exc.code, str(exc), exc.facts)

    def release_memory(self) -> None:
        """Give back what pictures took beside the models, between two of them."""
        self.loaded_bundles.release_memory()

    def _generate(self, r: Generate, folder: Path) -> Iterator[Event]:
        begun = snapshot.latest(self.snapshots)
        if r.seed < 0:  # drawn by lot once, whatever happens
            r = replace(r, seed=begun.seed if begun else seed_or_lot(r.seed))
        kind = (r.bundle, r.backend, r.width, r.height)
        yield from self.ladder.climb(kind, self.snapshots, folder, partial(self._draw, r, folder))

    def _draw(self, r: Generate, folder: Path, thrift: int, passed_over: int) -> Iterator[Event]:
        started, begun = time.perf_counter(), snapshot.latest(self.snapshots)
        yield Progress("load", 0, 1)
        loras = self.loras.pick(r.loras)
        backend = backends.for_loras(r.backend) if loras else r.backend
        loaded, reason = self._borrowed(r.bundle, backend, passed_over)
        reason += "; a LoRA needs PyTorch" if loras else ""
        plan = GenerationPlan.for_request(
            r, loaded.bundle, lambda photo: self._detector().face_detector.find(photo), self.decoder
        )
        pace = self.paces[r.bundle, loaded.engine.name, plan.width, plan.height]
        memory_plan = loaded.memory_plan((plan.width, plan.height), thrift)
        log.info("%s, %dx%d: %s", r.bundle, plan.width, plan.height, memory_plan)
        if memory_plan.turns:
            self.loaded_bundles.keep_only(loaded)
        drawing = snapshot.drawing(loaded, replace(r, seed=plan.seed), plan.width, plan.height, plan.steps)
        if begun is not None and begun.drawing != drawing:
            log.warning("it begins anew: what an earlier attempt has left is of another drawing")
            for name in begun.names:  # nobody would be shown them
                delete_picture(folder, name)
            begun = None
        generation = Generation(
            plan=plan,
            loaded=loaded,
            reason=f"{reason}; {memory_plan}",
            folder=folder,
            pace=pace,
            started=started - (begun.seconds if begun else 0.0),
            memory_plan=memory_plan,
            loras=loras,
            begun=begun,
            saver=snapshot.Saver(self.snapshots),
            drawing=drawing,
        )
        with self._learning(loaded, counts=not loras):
            yield from generation.events(self.embeddings)

    def _borrowed(self, name: str, backend: str, passed_over: int) -> tuple[LoadedBundle, str]:
        """Return a bundle of which everything that other machines lend is there, and why on this engine."""
        loaded, reason = self.loaded_bundles.get(name, backend, passed_over)
        lent = loaded.borrow()
        return loaded, f"{reason}; {lent}" if lent else reason

    def _enhance(self, r: Enhance, folder: Path) -> Iterator[Event]:
        kind, restore = (r.bundle, r.backend), partial(self._restore, r, folder)
        yield from self.ladder.climb(kind, self.snapshots, folder, restore, last=1)

    def _restore(self, r: Enhance, folder: Path, thrift: int, passed_over: int) -> Iterator[Event]:
        """A restoration is as thrifty as it can be: what is free of other models is all that helps."""
        started = time.perf_counter()
        yield Progress("load", 0, 1)
        loaded, reason = self._borrowed(r.bundle, r.backend, passed_over)
        if "restorer" not in loaded.bundle.roles:
            raise OptionError("bundle", r.bundle, "a bundle that restores faces")
        detector = self._detector()
        if thrift:
            self.loaded_bundles.keep_only(loaded)
        restoration = Restoration(
            request=r,
            loaded=loaded,
            detector=detector.face_detector,
            reason=reason,
            folder=folder,
            started=started,
            decoder=self.decoder,
        )
        with self._learning(loaded):
            yield from self.photos.events(r, (loaded, detector), folder, restoration)

    @contextmanager
    def _learning(self, loaded: LoadedBundle, counts: bool = True) -> Iterator[None]:
        """Learn from what is run meanwhile, if it ends well, nobody disturbs it, and it `counts`."""
        self._runs.clear()
        before, threads = usage.read(), loaded.cores
        yield
        if self.experience and counts and not usage.disturbed(before, usage.read(), threads):
            self.experience.learn(loaded, tuple(self._runs))

    def _inspect(self, r: Inspect, folder: Path) -> Iterator[Event]:
        started = time.perf_counter()
        yield Progress("load", 0, 1)
        yield from advise(r, self._detector().face_detector, folder, self.decoder)
        yield Final((), 0, round(time.perf_counter() - started, 3), "")

    def _detector(self) -> LoadedBundle:
        """Return the detector's bundle, one graph for all engines: whichever serves, the same faces are found."""
        return self.loaded_bundles.get(DETECTOR, "auto")[0]

    def _develop(self, r: Develop, folder: Path) -> Iterator[Event]:
        yield from self.ladder.climb(r.backend, self.snapshots, folder, partial(self._decode, r, folder))

    def _decode(self, r: Develop, folder: Path, thrift: int, passed_over: int) -> Iterator[Event]:
        started = time.perf_counter()
        yield Progress("load", 0, 1)
        picture = kept_latents.read(folder, r.image)
        loaded, reason = self._borrowed(picture.bundle, r.backend, passed_over)
        yield Progress("decode", 0, 1)
        pixels = loaded.decoder.decode(picture.latents, memory.WAYS[thrift][1])
        name = images.write_output(folder, not_blank(pixels), picture.text)
        yield Final((name,), picture.seed, round(time.perf_counter() - started, 3), loaded.engine.name, reason)
