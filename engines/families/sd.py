"""
Stable Diffusion 1 and 2: a U-Net that predicts the noise in its latents, or v, and three ways of sampling it. Settled
here and nowhere else; checked against diffusers' LCMScheduler, DDIMScheduler and EulerDiscreteScheduler, and, where a
photo is the start, against StableDiffusionImg2ImgPipeline and LatentConsistencyModelImg2ImgPipeline.

Levels are training steps, 0 (hardly any noise) to 999 (hardly anything else), and the graph takes them as they are. At
level t the latents hold clean * sqrt(a) + noise * sqrt(1 - a), where a falls with t; Euler reckons with that divided by
sqrt(a). What the signature calls velocity is the network's noise or v. Every step is linear in the latents, in the
network's output and in the step's own noise, so a step is a few factors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.bundle import Diffusion, Sampling, Scheduler
from engines.bundle.signatures import Array
from engines.errors import BundleError, OptionError
from engines.sampler import Latents, Schedule

size_multiple_cells = 2  # what graphs are exported for; the U-Net itself takes any size
weighs: Final = "rows"
SIGMA_DATA = 0.5  # of LCM's boundary condition (Luo et al. 2023, section 4)
WORDS: Mapping[Scheduler, str] = {"lcm": "LCM", "ddim": "DDIM", "euler": "Euler"}
Factors = tuple[float, float]  # of the latents, and of the network's output


@dataclass(frozen=True)
class Mix:
    """
    A step as factors: `scale` of x in the network's input; x and the network's output in the prediction of the clean
    latents and in the next x; `noise` of the step's noise.
    """

    level: float
    scale: float
    to_x0: Factors
    to_next: Factors
    noise: float = 0.0

    @property
    def noisy(self) -> bool:
        return self.noise > 0

    def model_input(self, x: Latents) -> Latents:
        return x * np.float32(self.scale)

    def pred_x0(self, x: Latents, output: Latents) -> Latents:
        return np.float32(self.to_x0[0]) * x + np.float32(self.to_x0[1]) * output

    def next(self, x: Latents, output: Latents, step_noise: Latents | None) -> Latents:
        after = np.float32(self.to_next[0]) * x + np.float32(self.to_next[1]) * output
        return after if step_noise is None else after + np.float32(self.noise) * step_noise


def schedule(sampling: Sampling, steps: int, guidance: float, strength: float = 1.0) -> Schedule:
    """
    Return the schedule of a bundle's scheduler. A `strength` below 1 begins in its middle, with less noise on a photo.
    OptionError: more steps than the network can take. BundleError: its sampling has no diffusion.
    """
    d = sampling.diffusion
    if d is None:
        raise BundleError("bundle.json says nothing about diffusion, which family sd needs", bundle="sd")
    _check(d, steps)
    ts = levels(d, steps, strength)
    mixes = tuple({"lcm": _lcm, "ddim": _ddim, "euler": _euler}[d.scheduler](d, ts, steps))
    noise_scale, photo_scale = _photo_start(d, ts[0]) if strength < 1 else (_init_noise_sigma(d, ts), 0.0)
    words = {"Sampler": WORDS[d.scheduler], "CFG scale": f"{guidance + 1:g}"}
    if d.guidance_embedded:
        extras = {"guidance": np.array([guidance], dtype=np.float32)}
        return Schedule(mixes, noise_scale, photo_scale, extras=extras, words=words)
    return Schedule(mixes, noise_scale, photo_scale, guidance, words=words)


def feeds(latents: Array, level: float, prompt: Array) -> dict[str, Array]:
    """Return the graph's inputs: latents (1, C, h, w) as a step's model_input gives them, prompt (1, 77, D)."""
    return {"latents": latents, "time": np.array([level], dtype=np.float32), "prompt": prompt}


def velocity(outputs: Mapping[str, Array]) -> Array:
    """Return what a step takes of the graph's outputs: noise, or v (1, C, h, w)."""
    return outputs["velocity"]


def _check(d: Diffusion, steps: int) -> None:
    most = d.original_steps if d.scheduler == "lcm" else d.train_steps
    if not 1 <= steps <= most:
        raise OptionError("steps", steps, f"1 … {most}")


def alphas(d: Diffusion) -> NDArray[np.float64]:
    """
    Return the share of the clean latents' variance at every level (train_steps,); betas "scaled_linear". (diffusers:
    alphas_cumprod)
    """
    betas = np.linspace(d.beta_start**0.5, d.beta_end**0.5, d.train_steps, dtype=np.float32) ** 2
    return np.cumprod(1 - betas, dtype=np.float64)


def levels(d: Diffusion, steps: int, strength: float = 1.0) -> NDArray[np.float64]:
    """
    Return the training steps to run at, from noisy to clean: at least 1 and at most `steps`. A strength below 1 takes
    the end of them; for LCM as many, as far as there are, from the end of those it was distilled on.
    """
    if d.scheduler != "lcm":
        return _spaced(d, steps)[min(steps - int(steps * strength), steps - 1) :]
    count = max(1, int(d.original_steps * strength))
    distilled = np.arange(count, 0, -1.0) * (d.train_steps // d.original_steps) - 1
    chosen: NDArray[np.float64] = distilled[
        np.floor(np.linspace(0, count, min(steps, count), endpoint=False)).astype(int)
    ]
    return chosen


def _spaced(d: Diffusion, steps: int) -> NDArray[np.float64]:
    """Return `steps` training steps from noisy to clean. (Lin et al. 2023, table 2; diffusers: timestep_spacing)"""
    if d.spacing == "leading":
        return np.arange(steps - 1.0, -1, -1) * (d.train_steps // steps) + d.steps_offset
    if d.spacing == "trailing":
        return np.round(np.arange(d.train_steps, 0, -d.train_steps / steps))[:steps] - 1
    even = np.linspace(0, d.train_steps - 1.0, steps)[::-1]
    return even if d.scheduler == "euler" else np.round(even)


def _init_noise_sigma(d: Diffusion, ts: NDArray[np.float64]) -> float:
    """
    Return what pure noise is multiplied by before the first step, as diffusers' property of that name has it.

    For Euler x = clean + sigma * noise. "linspace" and "trailing" begin at the largest sigma of all, beside which clean
    counts for nothing: noise * sigma stands for x. "leading" begins below it, and EulerDiscreteScheduler, which gives
    no reason, takes sqrt(sigma^2 + 1): the standard deviation that x has where clean latents have one of 1.
    """
    if d.scheduler != "euler":
        return 1.0
    most = _sigmas(d, ts).max()
    return float(np.hypot(most, 1.0) if d.spacing == "leading" else most)


def _photo_start(d: Diffusion, t: float) -> Factors:
    """Return the factors of noise and of a photo's latents at the level that a photo begins with."""
    if d.scheduler == "euler":
        return float(_sigmas(d, t)), 1.0
    a = alphas(d)[int(t)]
    return float((1 - a) ** 0.5), float(a**0.5)


def _clean(d: Diffusion, a: float) -> Factors:
    """Return the factors of x and of the network's output in the prediction of the clean latents."""
    if d.prediction == "epsilon":
        return a**-0.5, -(((1 - a) / a) ** 0.5)
    return a**0.5, -((1 - a) ** 0.5)


def _noise(d: Diffusion, a: float) -> Factors:
    """Return the factors of x and of the network's output in the prediction of the noise."""
    return (0.0, 1.0) if d.prediction == "epsilon" else ((1 - a) ** 0.5, a**0.5)


def _sum(p: float, a: Factors, q: float, b: Factors) -> Factors:
    """Return the factors of p * a + q * b."""
    return p * a[0] + q * b[0], p * a[1] + q * b[1]


def _lcm(d: Diffusion, ts: NDArray[np.float64], steps: int) -> Iterator[Mix]:
    """Go to the clean latents at once, then back up to the next level with new noise. (Luo et al. 2023, algorithm 3)"""
    a, whole = alphas(d), ts.astype(int)
    for i, t in enumerate(whole):
        near = t * d.boundary_scale
        skip, out = SIGMA_DATA**2 / (near**2 + SIGMA_DATA**2), near / (near**2 + SIGMA_DATA**2) ** 0.5
        x0 = _sum(skip, (1.0, 0.0), out, _clean(d, a[t]))
        if i + 1 == len(whole):
            yield Mix(float(t), 1.0, x0, x0)
        else:
            after = a[whole[i + 1]]
            yield Mix(float(t), 1.0, x0, _sum(after**0.5, x0, 0.0, x0), float((1 - after) ** 0.5))


def _ddim(d: Diffusion, ts: NDArray[np.float64], steps: int) -> Iterator[Mix]:
    """Go along the predictions of clean latents and noise. (Song et al. 2020, equation 12 with eta = 0)"""
    a = alphas(d)
    for t in ts.astype(int):
        before = t - d.train_steps // steps
        after = a[before] if before >= 0 else (1.0 if d.alpha_to_one else a[0])
        x0, noise = _clean(d, a[t]), _noise(d, a[t])
        yield Mix(float(t), 1.0, x0, _sum(after**0.5, x0, (1 - after) ** 0.5, noise))


def _sigmas(d: Diffusion, ts: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return noise over clean, sqrt((1 - a) / a), at training steps `ts`, straight between whole ones."""
    a = alphas(d)
    return np.asarray(np.interp(ts, np.arange(d.train_steps), ((1 - a) / a) ** 0.5))


def _euler(d: Diffusion, ts: NDArray[np.float64], steps: int) -> Iterator[Mix]:
    """Go along dx / dsigma, where x = clean + sigma * noise. (Karras et al. 2022, algorithm 2 without churn)"""
    sigmas = np.append(_sigmas(d, ts), 0.0)
    for t, sigma, after in zip(ts, sigmas, sigmas[1:], strict=False):
        scale = float(np.hypot(sigma, 1.0) ** -1)
        x0 = (1.0, -sigma) if d.prediction == "epsilon" else (scale**2, -sigma * scale)
        rate = (after - sigma) / sigma
        yield Mix(float(t), scale, x0, _sum(1 + rate, (1.0, 0.0), -rate, x0))
