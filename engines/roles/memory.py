"""
What a job takes of this machine's memory, estimated before anything is loaded: all parts together, or one after the
other where that would be too much; the decoder in pieces where even that would. What cannot fit is refused with words.

Weights are counted from the files. What a network needs beside them, and keeps until it is unloaded, grows with the
picture: Stable Diffusion's three on OpenVINO took some 3,900 bytes a pixel together (512 to 1024 px, see
benchmarks/large.py); how they share them is a guess on the safe side. On ONNX Runtime attention's scores, which grow
with the square of the picture, are most of it (7.2 GB at 768 px). Networks of another width take another share of
that, which their bundle's report tells (roles/peaks.py). Pages of mapped files do not count: they are given back
(backends/page_cache.py), or taken back by the system when it needs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from engines import machine
from engines.backends.arrangement import coarsest
from engines.backends.lenders import NO_LENDERS, Lenders
from engines.bundle import Bundle, Format, Part, Precision, Role, size_bytes
from engines.errors import BundleError, MemoryShort
from engines.files import safetensors_header
from engines.roles import peaks, tiled_decode

GB = 1_000_000_000
UNLIMITED = machine.UNLIMITED
SHARE = 0.8  # of what is free, but for this process, may be used
BASE = 350_000_000  # Python, numpy, the engine's library, and what nobody has foreseen
# The same without the unforeseen, by engine, where the rest is measured
MEASURED_BASE: Mapping[str, int] = {"ort": 130_000_000, "openvino": 240_000_000, "torch": 500_000_000}
BYTES_A_PIXEL: Mapping[Role, int] = {"denoiser": 900, "decoder": 2600, "preview_decoder": 400, "encoder": 2600}
LEAST, MOST = 0.05, 2.0  # share of BYTES_A_PIXEL that a report is believed to have measured
FOR_PYTORCH: tuple[Format, ...] = ("diffusers", "safetensors")
FLEETING: tuple[Role, ...] = ("text_encoder", "encoder")
PACKED = 1.15  # integers take a little more in memory than in the file
ONE_ARENA = ("ort",)  # engines whose sessions take what they need beside weights from one place, one after the other
# Engines that write attention's scores down, before and after softmax: bytes for a pair of pixels, by family. Stable
# Diffusion has 8 heads and a token for 8x8 pixels.
SCORES: Mapping[tuple[str, str], float] = {("ort", "sd"): 8 * 2 * 4 / 64**2}
# Ways of drawing a picture, the fastest first: whether one part is unloaded before the next is loaded, and the side of
# the pieces in which it is decoded, in latent cells; 0: as a whole.
WAYS = (False, 0), (True, 0), *((True, side) for side in tiled_decode.SIDES)
THRIFTIEST = len(WAYS) - 1
Sizes = tuple[int, int]
Budget = Callable[[], int]  # bytes that models may take, as it is when it is asked


@dataclass(frozen=True)
class MemoryPlan:
    """`turns` and `side`: of WAYS."""

    turns: bool
    side: int
    peak: int  # bytes

    def __str__(self) -> str:
        how = (", one part after the other" if self.turns else "") + (", decoded in pieces" if self.side else "")
        return f"{self.peak / GB:.1f} GB of memory{how}"


def plan(
    bundle: Bundle,
    parts: Sequence[Part],
    engine: str,
    size: Sizes,
    budget: int,
    thrift: int = 0,
    elsewhere: Set[Role] = frozenset(),
) -> MemoryPlan:
    """
    Return the first way that fits of drawing a picture of `size` (width, height) by these parts, one a role. `thrift`:
    how many ways, of THRIFTIEST, are left out that would be faster. What runs `elsewhere` takes nothing here.
    MemoryShort: nothing would make it fit.
    """
    stride, pixels = bundle.need(bundle.sampling, "sampling").latent_stride, math.prod(size)
    base, share = _measured(bundle, parts, engine)
    weights = {part.role: _weights(bundle, part) for part in parts if part.role not in elsewhere}
    for turns, side in WAYS[thrift:]:
        at_once = {"decoder": min(pixels, (side * stride) ** 2)} if side else {}
        work = {role: share * _work(bundle, engine, role, at_once.get(role, pixels)) for role in weights}
        fitted = MemoryPlan(turns, side, base + _peak(weights, work, turns, engine))
        if fitted.peak <= budget:
            return fitted
    raise MemoryShort(bundle.name, fitted.peak / GB, budget / GB)


def of_part(bundle: Bundle, parts: Sequence[Part], engine: str, role: Role, budget: int) -> int:
    """
    Return the bytes that one of these parts takes without the others, with pictures of the size that the bundle draws
    best. MemoryShort: the budget does not allow it.
    """
    if bundle.sampling is not None and bundle.sizes:
        others = {part.role for part in parts} - {role}
        return plan(bundle, parts, engine, bundle.sizes[0], budget, elsewhere=others).peak
    taken = BASE + sum(_weights(bundle, part) for part in parts if part.role == role)
    if taken > budget:
        raise MemoryShort(bundle.name, taken / GB, budget / GB)
    return taken


def too_large(
    bundle: Bundle, parts: Sequence[Part], engine: str, *, budget: Budget, lenders: Lenders = NO_LENDERS
) -> str:
    """
    Say why no picture of the size that the bundle draws best would fit with these parts; empty: it would. PyTorch may
    compute in bf16 what it is given in float32.
    """
    if bundle.sampling is None or not bundle.sizes:
        return ""
    narrow = [replace(part, precision="bf16") if part.format in FOR_PYTORCH else part for part in parts]
    try:
        plan(bundle, narrow, engine, bundle.sizes[0], budget(), elsewhere=lenders.of(bundle).keys())
    except MemoryShort as exc:
        return f"{exc.facts['needed_gb']} GB of memory needed, {exc.facts['budget_gb']} GB available"
    except BundleError as exc:
        return str(exc)
    return ""


def _measured(bundle: Bundle, parts: Sequence[Part], engine: str) -> tuple[int, float]:
    """
    Return the bytes that are taken whatever is loaded, and the share of BYTES_A_PIXEL that these networks take: what
    explains the peak of their proof, where the bundle's report has one. PyTorch is proved in float32.
    """
    proved = [replace(part, precision="fp32") if part.format in FOR_PYTORCH else part for part in parts]
    peak = peaks.of(bundle.root, engine, coarsest(proved) or "")
    if peak is None:
        return BASE, 1.0
    stay = [part for part in proved if part.role not in FLEETING]
    weights = sum(_weights(bundle, part) for part in stay)
    work = _together({part.role: _work(bundle, engine, part.role, peak.pixels) for part in stay}, engine)
    base = MEASURED_BASE.get(engine, BASE)
    return base, min(max((peak.bytes - base - weights) / work, LEAST), MOST) if work else 1.0


def _peak(weights: Mapping[Role, int], work: Mapping[Role, float], turns: bool, engine: str) -> int:
    """
    Return the most bytes that models take at one time. Both encoders are loaded for a moment only, whatever happens;
    the tiny decoder stays beside the others.
    """
    needs = {role: weights[role] + work[role] for role in weights}
    beside = needs.get("preview_decoder", 0)
    fleeting = [needs.get(role, 0) for role in FLEETING]
    stay = [role for role in needs if role not in FLEETING]
    together = sum(weights[role] for role in stay) + _together({role: work[role] for role in stay}, engine)
    one = beside + max((needs[role] for role in stay if role != "preview_decoder"), default=0)
    return int(max(one if turns else together, beside + max(fleeting)))


def _together(work: Mapping[Role, float], engine: str) -> float:
    """Return what roles take beside their weights that are loaded together."""
    beside = work.get("preview_decoder", 0.0)
    others = [each for role, each in work.items() if role != "preview_decoder"]
    return beside + (max(others, default=0.0) if engine in ONE_ARENA else sum(others))


def fitting(path: Path, budget: int) -> Precision:
    """Return what PyTorch computes in with these weights: bf16 takes half of the memory of float32, and more time."""
    return "fp32" if BASE + numbers(path) * 4 <= budget else "bf16"


def sized(bundle: Bundle, part: Part, budget: int) -> Part:
    """Return a part as it is computed: one in float32 for PyTorch allows bf16 where memory is short. BundleError."""
    if part.format not in FOR_PYTORCH or part.precision != "fp32":
        return part
    try:
        return replace(part, precision=fitting(bundle.root / part.file, budget))
    except (OSError, ValueError) as exc:
        raise BundleError(f"{bundle.name}/{part.file}: {exc}", bundle=bundle.name) from exc


def _weights(bundle: Bundle, part: Part) -> int:
    path = bundle.root / part.file
    if part.precision in ("int8", "int4"):
        return int(PACKED * size_bytes(path))
    try:
        return numbers(path) * (2 if part.precision == "bf16" else 4)
    except (OSError, ValueError) as exc:
        raise BundleError(f"{bundle.name}/{part.file}: {exc}", bundle=bundle.name) from exc


def _work(bundle: Bundle, engine: str, role: Role, pixels: int) -> float:
    """Return the bytes that a role takes beside its weights; of a mixture, as its engine that takes most would."""
    scores = max(SCORES.get((name, bundle.family), 0.0) for name in engine.split("+")) if role == "denoiser" else 0.0
    return BYTES_A_PIXEL.get(role, 0) * pixels + scores * pixels**2


def numbers(path: Path) -> int:
    """
    Count the numbers in a safetensors file, or in those of a folder; in other files four bytes count as one. OSError,
    ValueError: one of them cannot be read.
    """
    weights = list(path.rglob("*.safetensors")) if path.is_dir() else [path]
    paths = weights or [file for file in path.iterdir() if file.is_file()]
    return sum(_numbers_in(file) if file.suffix == ".safetensors" else file.stat().st_size // 4 for file in paths)


def _numbers_in(file: Path) -> int:
    return sum(math.prod(tensor.shape) for tensor in safetensors_header(file).values())


def usable_bytes() -> int:
    """
    Return the bytes that models may take now where nobody has set them: of what is free, and of what this process holds
    already, or the models of one job would be taken off what the next one may have.
    """
    return int((machine.free_bytes() + machine.held_bytes()) * SHARE)


def budget(set_gb: float) -> Budget:
    """Return what models may take where its owner has set so many GB; 0: nobody has."""
    return (lambda: int(set_gb * GB)) if set_gb else usable_bytes


def unlimited() -> int:
    """Return more bytes than there are."""
    return UNLIMITED
