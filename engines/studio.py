"""
From a request to a stream of events: which steps, in which order. Knows no queue, no page and no engine by name.

Every run ends with Final or Failed; anything that is raised instead is a bug.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from engines import backends, images, parameters, retouch
from engines.bundle import Shelf
from engines.cache import ArrayCache
from engines.errors import OptionError, StudioError
from engines.kit import Kits, Select
from engines.messages import Build, Develop, Enhance, Event, Failed, Final, Generate, Preview, Progress, Request
from engines.portrait import Drawing, Pace, Plan
from engines.roles import seen

KEPT_EMBEDDINGS, RECENT_EMBEDDINGS = 512, 16  # on disk, in memory
PREVIEWS_LIVE_S = 86400.0
BEFORE_PX = 1600  # enough to compare on any screen
Cancelled = Callable[[], bool]


class Studio:
    """`shelf` holds the bundles; `state` is a folder for caches."""

    def __init__(self, shelf: Shelf, state: Path, select: Select = backends.select) -> None:
        self.kits = Kits(shelf, select)
        self.embeddings = ArrayCache(state / "embeddings", KEPT_EMBEDDINGS, RECENT_EMBEDDINGS)
        self.paces: defaultdict[tuple[str, str, int, int], Pace] = defaultdict(Pace)

    def run(self, request: Request, folder: Path, cancelled: Cancelled = lambda: False) -> Iterator[Event]:
        """Pictures go to `folder`, and events name them in it. `cancelled` is asked before every step."""
        images.remove_old_previews(folder, PREVIEWS_LIVE_S)
        try:
            match request:
                case Generate():
                    yield from self._generate(request, folder, cancelled)
                case Enhance():
                    yield from self._enhance(request, folder)
                case Develop():
                    yield from self._develop(request, folder)
                case Build():
                    raise OptionError("kind", "build", "generate, enhance, develop")  # the workshop's
        except StudioError as exc:
            yield Failed(exc.code, str(exc), exc.facts)

    def _generate(self, r: Generate, folder: Path, cancelled: Cancelled) -> Iterator[Event]:
        started = time.perf_counter()
        yield Progress("load", 0, 1)
        kit, reason = self.kits.take(r.bundle, r.backend)
        plan = Plan.of(r, kit.bundle)
        pace = self.paces[r.bundle, kit.engine.name, plan.width, plan.height]
        yield from Drawing(plan, kit, reason, folder, pace, started, cancelled).events(self.embeddings)

    def _enhance(self, r: Enhance, folder: Path) -> Iterator[Event]:
        started = time.perf_counter()
        yield Progress("load", 0, 1)
        kit, reason = self.kits.take(r.bundle, r.backend)
        if "restorer" not in kit.bundle.roles:
            raise OptionError("bundle", r.bundle, "a bundle that restores faces")
        photo = images.read(Path(r.image))
        yield Preview(0, images.write_preview(folder, images.fit(photo, BEFORE_PX)))
        yield Progress("restore", 0, 1)
        size_px = kit.bundle.need(kit.bundle.face, "its face").size_px
        before = retouch.to_square(photo, size_px)
        result = retouch.take_change(photo, before, kit.restorer.restore(before), r.strength / 100, r.mode)
        result = retouch.hold_chroma(photo, result) if r.protect_skin else result
        result = retouch.sharpen(retouch.denoise(result, r.denoise / 100), r.sharpen / 100)
        result = retouch.adjust(result, r.contrast / 100, r.brightness / 100)
        text = parameters.describe_restoration(r, kit.engine.name)
        name = images.write_output(folder, result, text)
        yield Final((name,), 0, round(time.perf_counter() - started, 3), kit.engine.name, reason)

    def _develop(self, r: Develop, folder: Path) -> Iterator[Event]:
        started = time.perf_counter()
        yield Progress("load", 0, 1)
        kept = images.read_negative(folder, r.image)
        kit, reason = self.kits.take(kept.bundle, r.backend)
        yield Progress("decode", 0, 1)
        name = images.write_output(folder, seen(kit.decoder.decode(kept.latents)), kept.text)
        yield Final((name,), kept.seed, round(time.perf_counter() - started, 3), kit.engine.name, reason)
