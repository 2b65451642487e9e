"""
Stable Diffusion 1 and 2: a U-Net that tells the noise in its latents, or v, and the three ways of sampling it. Settled
here and nowhere else; checked against diffusers' LCMScheduler, DDIMScheduler and EulerDiscreteScheduler, and, where a
photo is the start, against StableDiffusionImg2ImgPipeline and LatentConsistencyModelImg2ImgPipeline.

Levels are training steps, 0 (hardly any noise) to 999 (hardly anything else), and the graph is told them as they are.
At level t the latents hold clean * sqrt(a) + noise * sqrt(1 - a), where a falls with t; Euler reckons with that divided
by sqrt(a). What the signature calls velocity is the network's noise or v. Every step is linear in the latents, in what
the network tells, and in fresh noise, so a step is a few factors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.bundle import Diffusion, Sampling, Scheduler
from engines.bundle.signatures import Array
from engines.errors import BundleError, OptionError
from engines.sampler import Latents, Schedule

size_multiple_cells = 2  # what graphs are exported for; the U-Net itself takes any size
SIGMA_DATA = 0.5  # of LCM's boundary condition (Luo et al. 2023, section 4)
WORDS: Mapping[Scheduler, str] = {"lcm": "LCM", "ddim": "DDIM", "euler": "Euler"}
Factors = tuple[float, float]  # of the latents, and of what the network tells


@dataclass(frozen=True)
class Mix:
    """A step as factors: of x as it is shown; of x and what is told, in the clean guess and in the next x; of noise."""

    level: float
    scale: float
    to_guess: Factors
    to_next: Factors
    noise: float = 0.0

    @property
    def noisy(self) -> bool:
        return self.noise > 0

    def shown(self, x: Latents) -> Latents:
        return x * np.float32(self.scale)

    def guess(self, x: Latents, told: Latents) -> Latents:
        return np.float32(self.to_guess[0]) * x + np.float32(self.to_guess[1]) * told

    def next(self, x: Latents, told: Latents, fresh: Latents | None) -> Latents:
        after = np.float32(self.to_next[0]) * x + np.float32(self.to_next[1]) * told
        return after if fresh is None else after + np.float32(self.noise) * fresh


def schedule(sampling: Sampling, steps: int, guidance: float, strength: float = 1.0) -> Schedule:
    """OptionError: more steps than the network can take."""
    d = sampling.diffusion
    if d is None:
        raise BundleError("bundle.json says nothing about diffusion, which family sd needs", bundle="sd")
    _check(d, steps)
    ts = levels(d, steps, strength)
    mixes = tuple({"lcm": _lcm, "ddim": _ddim, "euler": _euler}[d.scheduler](d, ts, steps))
    start, kept = _start(d, ts[0]) if strength < 1 else (_pure(d, ts), 0.0)
    words = {"Sampler": WORDS[d.scheduler], "CFG scale": f"{guidance + 1:g}"}
    if d.guidance_embedded:
        extras = {"guidance": np.array([guidance], dtype=np.float32)}
        return Schedule(mixes, start, kept, extras=extras, words=words)
    return Schedule(mixes, start, kept, guidance, words=words)


def feeds(latents: Array, level: float, prompt: Array) -> dict[str, Array]:
    """latents (1, C, h, w) as the step shows them, prompt (1, 77, D) -> the graph's inputs"""
    return {"latents": latents, "time": np.array([level], dtype=np.float32), "prompt": prompt}


def velocity(outputs: Mapping[str, Array]) -> Array:
    """The graph's outputs -> what a step takes: noise, or v (1, C, h, w)"""
    return outputs["velocity"]


def _check(d: Diffusion, steps: int) -> None:
    most = d.original_steps if d.scheduler == "lcm" else d.train_steps
    if not 1 <= steps <= most:
        raise OptionError("steps", steps, f"1 … {most}")


def alphas(d: Diffusion) -> NDArray[np.float64]:
    """The share of the clean latents' variance at every level; betas "scaled_linear". (train_steps,)"""
    betas = np.linspace(d.beta_start**0.5, d.beta_end**0.5, d.train_steps, dtype=np.float32) ** 2
    return np.cumprod(1 - betas, dtype=np.float64)


def levels(d: Diffusion, steps: int, strength: float = 1.0) -> NDArray[np.float64]:
    """
    From noisy to clean. A strength below 1 takes the end of them; for LCM as many, as far as there are, from the end of
    those it was distilled on. (at least 1 and at most `steps`,)
    """
    if d.scheduler != "lcm":
        return _spaced(d, steps)[min(steps - int(steps * strength), steps - 1) :]
    count = max(1, int(d.original_steps * strength))
    known = np.arange(count, 0, -1.0) * (d.train_steps // d.original_steps) - 1
    chosen: NDArray[np.float64] = known[np.floor(np.linspace(0, count, min(steps, count), endpoint=False)).astype(int)]
    return chosen


def _spaced(d: Diffusion, steps: int) -> NDArray[np.float64]:
    if d.spacing == "leading":
        return np.arange(steps - 1.0, -1, -1) * (d.train_steps // steps) + d.steps_offset
    if d.spacing == "trailing":
        return np.round(np.arange(d.train_steps, 0, -d.train_steps / steps))[:steps] - 1
    even = np.linspace(0, d.train_steps - 1.0, steps)[::-1]
    return even if d.scheduler == "euler" else np.round(even)


def _pure(d: Diffusion, ts: NDArray[np.float64]) -> float:
    """What noise alone is multiplied by."""
    if d.scheduler != "euler":
        return 1.0
    most = _sigmas(d, ts).max()
    return float(np.hypot(most, 1.0) if d.spacing == "leading" else most)


def _start(d: Diffusion, t: float) -> Factors:
    """Of noise and of a photo's latents, at the level that a photo begins with."""
    if d.scheduler == "euler":
        return float(_sigmas(d, t)), 1.0
    a = alphas(d)[int(t)]
    return float((1 - a) ** 0.5), float(a**0.5)


def _clean(d: Diffusion, a: float) -> Factors:
    """Of the guess of the clean latents."""
    if d.prediction == "epsilon":
        return a**-0.5, -(((1 - a) / a) ** 0.5)
    return a**0.5, -((1 - a) ** 0.5)


def _noise(d: Diffusion, a: float) -> Factors:
    """Of the guess of the noise."""
    return (0.0, 1.0) if d.prediction == "epsilon" else ((1 - a) ** 0.5, a**0.5)


def _sum(p: float, one: Factors, q: float, other: Factors) -> Factors:
    return p * one[0] + q * other[0], p * one[1] + q * other[1]


def _lcm(d: Diffusion, ts: NDArray[np.float64], steps: int) -> Iterator[Mix]:
    """To the clean latents at once, then back up to the next level with fresh noise. (Luo et al. 2023, algorithm 3)"""
    a, whole = alphas(d), ts.astype(int)
    for i, t in enumerate(whole):
        near = t * d.boundary_scale
        skip, out = SIGMA_DATA**2 / (near**2 + SIGMA_DATA**2), near / (near**2 + SIGMA_DATA**2) ** 0.5
        guess = _sum(skip, (1.0, 0.0), out, _clean(d, a[t]))
        if i + 1 == len(whole):
            yield Mix(float(t), 1.0, guess, guess)
        else:
            after = a[whole[i + 1]]
            yield Mix(float(t), 1.0, guess, _sum(after**0.5, guess, 0.0, guess), float((1 - after) ** 0.5))


def _ddim(d: Diffusion, ts: NDArray[np.float64], steps: int) -> Iterator[Mix]:
    """Along the guesses of clean latents and noise. (Song et al. 2020, equation 12 with eta = 0)"""
    a = alphas(d)
    for t in ts.astype(int):
        before = t - d.train_steps // steps
        after = a[before] if before >= 0 else (1.0 if d.alpha_to_one else a[0])
        guess, noise = _clean(d, a[t]), _noise(d, a[t])
        yield Mix(float(t), 1.0, guess, _sum(after**0.5, guess, (1 - after) ** 0.5, noise))


def _sigmas(d: Diffusion, ts: NDArray[np.float64] | float) -> NDArray[np.float64]:
    a = alphas(d)
    return np.asarray(np.interp(ts, np.arange(d.train_steps), ((1 - a) / a) ** 0.5))


def _euler(d: Diffusion, ts: NDArray[np.float64], steps: int) -> Iterator[Mix]:
    """Along dx / dsigma, where x = clean + sigma * noise. (Karras et al. 2022, algorithm 2 without churn)"""
    sigmas = np.append(_sigmas(d, ts), 0.0)
    for t, sigma, after in zip(ts, sigmas, sigmas[1:], strict=False):
        scale = float(np.hypot(sigma, 1.0) ** -1)
        guess = (1.0, -sigma) if d.prediction == "epsilon" else (scale**2, -sigma * scale)
        rate = (after - sigma) / sigma
        yield Mix(float(t), scale, guess, _sum(1 + rate, (1.0, 0.0), -rate, guess))
