"""
How much is to be done for a request: steps, pictures, pixels. Knows requests, and what a worker says of its bundles; no
queue, no seconds.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from engines.messages import Build, Develop, Enhance, Fetch, Generate, Inspect, PreviewMode, Request, prompts
from engines.messages.status import BundleStatus, Status


@dataclass(frozen=True, slots=True)
class Work:
    """
    What is to be done for a request. `steps` and `megapixels` are of one picture; in each step the denoiser runs `runs`
    times. `preview` is as in Generate; `photo`: it begins with one.
    """

    steps: int = 1
    pictures: int = 1
    megapixels: float = 1.0
    runs: int = 1
    preview: PreviewMode = "off"
    photo: bool = False

    @property
    def denoising(self) -> float:
        return self.steps * self.runs * self.megapixels * self.pictures


def likeness(request: Request) -> tuple[Hashable, ...]:
    """
    Return what makes jobs alike, the most important first. Of a build or a download nothing but the very same says
    anything.
    """
    match request:
        case Generate():
            only = request.preview == "only"  # decoded by another network
            return "generate", request.bundle, request.backend, bool(request.loras), only
        case Enhance():
            return "enhance", request.bundle, request.backend
        case Develop():
            return "develop", request.backend
        case Inspect():
            return ("inspect",)
        case Build():
            return (("build", request.makes, request.source, request.recipe),)
        case Fetch():
            return (("fetch", request.model),)


def work_of(request: Request, bundles: Sequence[BundleStatus]) -> Work | None:
    """
    Return what is to be done. What a portrait leaves open is its bundle's; None: that is not here. Of photos nothing is
    known before they are opened, so one is like another.
    """
    if not isinstance(request, Generate):
        return Work()
    bundle = bundle_of(request, bundles)
    return None if bundle is None else portrait_work(request, bundle)


def can_do(request: Request, worker: Status, home: Status) -> bool:
    """
    Return whether a worker beside the home's can do it now, and the same comes of it: the bundle is the very same, and
    so are LoRAs, of which that is certain only where the home has none to be mistaken for.
    """
    if worker.state != "ready" or not isinstance(request, Generate | Enhance):
        return False
    bundle, own = _named(request.bundle, worker), _named(request.bundle, home)
    if bundle is None or not bundle.engine or (own is not None and own.digest != bundle.digest) or not bundle.digest:
        return False
    if isinstance(request, Enhance):
        detector = _named("detector", worker)
        if detector is None or not detector.engine:
            return False
    elif request.loras and (own is not None or not {lora.name for lora in request.loras} <= set(worker.loras)):
        return False
    choices = (choice for choice in bundle.choices if choice.state != "unavailable")
    return request.backend == "auto" or any(request.backend in (c.engine, c.group) for c in choices)


def has_bundle(request: Request, home: Status) -> bool:
    """Return whether the bundle that a request names is there, if it names one."""
    return not isinstance(request, Generate | Enhance) or _named(request.bundle, home) is not None


def _named(name: str, status: Status) -> BundleStatus | None:
    return next((bundle for bundle in status.bundles if bundle.name == name), None)


def bundle_of(request: Generate, bundles: Sequence[BundleStatus]) -> BundleStatus | None:
    """Return the bundle that is to draw it. None: it is not here."""
    return next((bundle for bundle in bundles if bundle.name == request.bundle and bundle.sizes), None)


def portrait_work(request: Generate, bundle: BundleStatus) -> Work:
    width, height = request.width or bundle.sizes[0][0], request.height or bundle.sizes[0][1]
    steps = request.steps or bundle.steps
    if request.start:
        steps = max(1, math.ceil(steps * request.strength))
    guidance = bundle.guidance if request.guidance is None else request.guidance
    texts = [request.prompt, request.negative] if guidance else [request.prompt]  # guided: once more without words
    weights = sum(len(prompts.read(text).weights) for text in texts) if bundle.weighs_by_guidance else 0
    runs, photo = len(texts) + weights, bool(request.start) and request.strength < 1
    return Work(steps, request.count, width * height / 1e6, runs, request.preview, photo)
