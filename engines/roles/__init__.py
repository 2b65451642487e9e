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
from engines.roles.prompt_embedding import PromptEmbedding
from engines.sampler import Schedule
from engines.tokens import Tokens

FLAT = 1.0  # a picture whose standard deviation is below this many of 255 levels shows nothing


class TextEncoder:
    def __init__(self, session: Session, tokens: Tokens) -> None:
        self.session, self.tokens = session, tokens

    def encode(self, prompt: str) -> Array:
        """Return the prompt's embedding (1, T, D). PromptError: no token is left to encode."""
        return self.session.run({"ids": self.tokens.ids(prompt)})["prompt"]


class Denoiser:
    def __init__(self, session: Session, family: families.Family) -> None:
        self.session, self.family = session, family

    def velocity(self, latents: Array, level: float, prompt: Array, extras: Mapping[str, Array] | None = None) -> Array:
        """
        Run the network once: latents (1, C, h, w) at this noise level, prompt (1, T, D) -> (1, C, h, w), in the meaning
        that the family's steps take. `extras`: further feeds of the graph.
        """
        return self.family.velocity(self.session.run({**self.family.feeds(latents, level, prompt), **(extras or {})}))

    def denoise(
        self,
        x: Array,
        schedule: Schedule,
        prompt: PromptEmbedding,
        negative: PromptEmbedding | None,
        seed: int,
        after: int = 0,
        variety: int = 0,
    ) -> Iterator[tuple[Array, Array]]:
        """
        Yield after every step the latents and the prediction of the clean ones, each (1, C, h, w). `negative`: the
        negative prompt, for a schedule with guidance. `after`: so many steps are behind `x`. `variety`, 0..100:
        how much the seed varies the prompt in the first steps.
        """
        varied, first = prompt.varied(seed, variety), sampler.varied_steps(len(schedule.steps))
        for i, step in enumerate(schedule.steps[after:], start=after + 1):
            model_input = step.model_input(x)
            output = self._weighed(model_input, step.level, varied if i <= first else prompt, schedule.extras)
            if negative is not None:
                unwanted = self._weighed(model_input, step.level, negative, schedule.extras)
                output = sampler.guide(output, unwanted, schedule.guidance)
            noise = sampler.step_noise(x.shape, seed, i) if step.noisy else None
            denoised, x = step.pred_x0(x, output), step.next(x, output, noise)
            yield x, denoised

    def _weighed(self, latents: Array, level: float, prompt: PromptEmbedding, extras: Mapping[str, Array]) -> Array:
        whole = self.velocity(latents, level, prompt.whole, extras)
        without = [(weight, self.velocity(latents, level, less, extras)) for weight, less in prompt.without]
        return sampler.weigh(whole, without)


class Decoder:
    """The full decoder: its graph takes latents scaled and shifted as its autoencoder was trained."""

    def __init__(self, session: Session, sampling: Sampling) -> None:
        self.session, self.sampling = session, sampling

    def decode(self, latents: Array, side: int = 0) -> Array:
        """
        Decode (1, C, h, w) to (H, W, 3) uint8 RGB, in pieces of `side` latent cells; 0: as a whole. BlankPicture: the
        result is not a number.
        """
        scaled = latents / np.float32(self.sampling.latent_scale) + np.float32(self.sampling.latent_shift)
        return to_pixels(
            tiled_decode.decode(self._image, scaled, self.sampling.latent_stride, side) if side else self._image(scaled)
        )

    def _image(self, scaled: Array) -> Array:
        return self.session.run({"latents": scaled})["image"]


class Encoder:
    """The decoder's way back: gives latents scaled and shifted as the denoiser takes them."""

    def __init__(self, session: Session, sampling: Sampling) -> None:
        self.session, self.sampling = session, sampling

    def encode(self, picture: Array) -> Array:
        """Encode (H, W, 3) uint8 RGB, its sides multiples of the latents' stride, to (1, C, h, w)."""
        latents = self.session.run({"image": from_pixels(picture)})["latents"]
        scaled: Array = (latents - np.float32(self.sampling.latent_shift)) * np.float32(self.sampling.latent_scale)
        return scaled


class PreviewDecoder:
    """The tiny decoder: takes the sampler's latents as they are."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def decode(self, latents: Array) -> Array:
        """Decode (1, C, h, w) to (H, W, 3) uint8 RGB. BlankPicture: the result is not a number."""
        return to_pixels(self.session.run({"latents": latents})["image"])


class Restorer:
    def __init__(self, session: Session) -> None:
        self.session = session

    def restore(self, face: Array) -> Array:
        """Restore an aligned face (N, N, 3) uint8 RGB. BlankPicture: the result is not a number."""
        restored = self.session.run({"face": from_pixels(face)})["restored"]
        return to_pixels(restored)


class Detector:
    """Finds faces. `family` says how its numbers are read; a picture is shrunk to `longest_px` on its longer side."""

    def __init__(self, session: Session, family: str, longest_px: int) -> None:
        self.session, self.family, self.longest_px = session, family, longest_px

    def find(self, picture: Array) -> list[Face]:
        """Return the faces in a picture (H, W, 3) uint8 RGB, in its pixels, surest first."""
        small, scale = detection.shown(picture, self.longest_px, square=self.family == "yunet")
        feeds = {"picture": np.ascontiguousarray(small.transpose(2, 0, 1)[None], dtype=np.float32)}
        rows = self.session.run(feeds)["candidates"][0]
        faces = detection.decode(self.family, rows, *small.shape[:2])
        return [face.enlarged(1 / scale, *picture.shape[:2]) for face in faces]


def from_pixels(pixels: Array) -> Array:
    """Return a picture (H, W, 3) uint8 as a network takes it: (1, 3, H, W) float32 in [-1, 1]."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(127.5) - np.float32(1)


def to_pixels(image: Array) -> Array:
    """Return a network's (1, 3, H, W) float32 in about [-1, 1] as (H, W, 3) uint8. BlankPicture: it is no number."""
    if not np.isfinite(image).all():
        raise BlankPicture("the network returned values that are not numbers")
    pixels: Array = np.rint((image[0].transpose(1, 2, 0).clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return pixels


def not_blank(pixels: Array) -> Array:
    """Return the picture as it is. BlankPicture: it is one flat colour, which only early previews may be."""
    if pixels.std(axis=(0, 1)).max() < FLAT:
        raise BlankPicture("the network returned one flat colour")
    return pixels
