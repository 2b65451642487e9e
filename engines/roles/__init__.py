"""
What each part of a bundle does, over a session: words in, embedding out; latents in, pixels out. The same on every
engine.

Latents are (1, C, h, w) float32, pictures uint8 RGB (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from engines import families, sampler
from engines.backends import Session
from engines.bundle import Sampling
from engines.bundle.signatures import Array
from engines.errors import BlankPicture
from engines.faces import detection
from engines.faces.detection import Face
from engines.roles import tiled_decode
from engines.sampler import Schedule
from engines.tokens import Tokens

FLAT = 1.0  # a picture whose standard deviation is below this many of 255 levels shows nothing


class TextEncoder:
    def __init__(self, session: Session, tokens: Tokens) -> None:
        self.session, self.tokens = session, tokens

    def encode(self, prompt: str) -> Array:
        """-> (1, T, D)"""
        return self.session.run({"ids": self.tokens.ids(prompt)})["prompt"]


class Denoiser:
    def __init__(self, session: Session, family: families.Family) -> None:
        self.session, self.family = session, family

    def velocity(self, latents: Array, level: float, prompt: Array, extras: Mapping[str, Array] | None = None) -> Array:
        """What the network tells at this noise level. prompt (1, T, D) -> (1, C, h, w)"""
        return self.family.velocity(self.session.run({**self.family.feeds(latents, level, prompt), **(extras or {})}))

    def denoise(
        self, x: Array, schedule: Schedule, prompt: Array, negative: Array | None, seed: int
    ) -> Iterator[tuple[Array, Array]]:
        """After every step: the latents, and the guess of the clean ones. `negative`: for a schedule with guidance."""
        for i, step in enumerate(schedule.steps, start=1):
            shown = step.shown(x)
            told = self.velocity(shown, step.level, prompt, schedule.extras)
            if negative is not None:
                other = self.velocity(shown, step.level, negative, schedule.extras)
                told = sampler.guide(told, other, schedule.guidance)
            fresh = sampler.fresh(x.shape, seed, i) if step.noisy else None
            guess, x = step.guess(x, told), step.next(x, told, fresh)
            yield x, guess


class Decoder:
    """The full decoder: takes latents scaled and shifted as its autoencoder was trained."""

    def __init__(self, session: Session, sampling: Sampling) -> None:
        self.session, self.sampling = session, sampling

    def decode(self, latents: Array, pieces: bool = False) -> Array:
        """-> (H, W, 3) uint8 RGB, whole or piece by piece. BlankPicture: the result is not a number."""
        scaled = latents / np.float32(self.sampling.latent_scale) + np.float32(self.sampling.latent_shift)
        return to_pixels(
            tiled_decode.decode(self._image, scaled, self.sampling.latent_stride) if pieces else self._image(scaled)
        )

    def _image(self, scaled: Array) -> Array:
        return self.session.run({"latents": scaled})["image"]


class Encoder:
    """The decoder's way back: gives latents scaled and shifted as the denoiser takes them."""

    def __init__(self, session: Session, sampling: Sampling) -> None:
        self.session, self.sampling = session, sampling

    def encode(self, picture: Array) -> Array:
        """(H, W, 3) uint8 RGB, sides multiples of the latents' stride -> (1, C, h, w)"""
        latents = self.session.run({"image": from_pixels(picture)})["latents"]
        scaled: Array = (latents - np.float32(self.sampling.latent_shift)) * np.float32(self.sampling.latent_scale)
        return scaled


class PreviewDecoder:
    """The tiny decoder: takes the sampler's latents as they are."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def decode(self, latents: Array) -> Array:
        """-> (H, W, 3) uint8 RGB. BlankPicture: the result is not a number."""
        return to_pixels(self.session.run({"latents": latents})["image"])


class Restorer:
    def __init__(self, session: Session) -> None:
        self.session = session

    def restore(self, face: Array) -> Array:
        """(N, N, 3) uint8 RGB -> the same, restored. BlankPicture: the result is not a number."""
        restored = self.session.run({"face": from_pixels(face)})["restored"]
        return to_pixels(restored)


class Detector:
    """Finds faces. `family` says how its numbers are read, `longest_px` how large a picture it is shown."""

    def __init__(self, session: Session, family: str, longest_px: int) -> None:
        self.session, self.family, self.longest_px = session, family, longest_px

    def find(self, picture: Array) -> list[Face]:
        """(H, W, 3) uint8 RGB -> faces in its pixels, surest first."""
        look, scale = detection.shown(picture, self.longest_px, square=self.family == "yunet")
        feeds = {"picture": np.ascontiguousarray(look.transpose(2, 0, 1)[None], dtype=np.float32)}
        rows = self.session.run(feeds)["candidates"][0]
        found = detection.decode(self.family, rows, *look.shape[:2])
        return [face.enlarged(1 / scale, *picture.shape[:2]) for face in found]


def from_pixels(pixels: Array) -> Array:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [-1, 1]"""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(127.5) - np.float32(1)


def to_pixels(image: Array) -> Array:
    """(1, 3, H, W) float32 in about [-1, 1] -> (H, W, 3) uint8. BlankPicture: it is not a number."""
    if not np.isfinite(image).all():
        raise BlankPicture("the network returned values that are not numbers")
    pixels: Array = np.rint((image[0].transpose(1, 2, 0).clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return pixels


def seen(pixels: Array) -> Array:
    """The same picture. BlankPicture: it is flat; only early previews may be."""
    if pixels.std(axis=(0, 1)).max() < FLAT:
        raise BlankPicture("the network returned one flat colour")
    return pixels
