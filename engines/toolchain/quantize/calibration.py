"""
What a graph sees in use: feeds for calibration and for checking. For a denoiser the whole way from noise to picture,
for decoders where it ends, for a restorer faces, most of them damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from engines import backends, images, sampler
from engines.backends import Session
from engines.bundle import BUILT_IN, Role, Shelf
from engines.bundle.signatures import Array
from engines.errors import BundleError, StudioError
from engines.faces import retouch
from engines.faces.retouch import Pixels
from engines.messages import Generate
from engines.roles import Denoiser, from_pixels
from engines.roles.loaded import LoadedBundle
from engines.roles.prompt_embedding import PromptEmbedding
from engines.studio.generate import GenerationPlan

Feeds = dict[str, Array]
FACES = 12  # as many faces as ranges need: more moved nothing
# Shrunk by, blurred by pixels, noise of 255: none, and what restorers are trained to undo, from mild to severe.
DAMAGE = ((1.0, 0.0, 0.0), (2.5, 1.2, 6.0), (4.0, 1.6, 8.0), (7.0, 2.8, 14.0))
CONTRAST = (1.0, 1.4, 1.8)  # drawn faces are softly lit: ranges of theirs alone cost photographs 2.5 dB at the worst
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
# For bundles whose maker gave no prompts. In the words of the built-in drawings, which other models understand too.
PROMPTS = (
    "portrait of a young woman, long brown hair, smiling, white blouse, grey studio background, soft studio light",
    "portrait of an old man, grey beard, glasses, dark suit, blue background, side light",
    "一位年轻女性的肖像，黑色长发，红色连衣裙，绿色背景，柔和的光线",
    "一位中年男性的肖像，短发，戴帽子，白色衬衫，灰色背景，写实风格",
    "portrait of a girl with red curly hair, green sweater, golden hour, watercolour style",
    "一位老年女性的肖像，白色短发，蓝色毛衣，油画风格",
    "black and white portrait of a man with a moustache, hat, rim light",
    "一位年轻男性的肖像，卷发，戴眼镜，黄色T恤，粉色背景",
)


@dataclass(frozen=True)
class ObservedSession:
    """A session that hands what it is fed to `on_feed` before it runs."""

    session: Session
    on_feed: Callable[[Feeds], None]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.on_feed(dict(feeds))
        return self.session.run(feeds)

    def close(self) -> None:
        self.session.close()


def trajectories(
    loaded: LoadedBundle, prompts: Sequence[str], most_steps: int | None = None
) -> dict[Role, list[Feeds]]:
    """
    Return feeds by role: every noise level of every prompt for the denoiser, and the clean latents for the decoders; or
    what there is of both after `most_steps`.
    """
    feeds: dict[Role, list[Feeds]] = {"denoiser": [], "decoder": [], "preview_decoder": []}
    sampling = loaded.sampling
    for seed, prompt in enumerate(prompts):
        x = trajectory(loaded, loaded.text_encoder.encode(prompt), seed, feeds["denoiser"].append, most_steps)
        feeds["preview_decoder"].append({"latents": x})
        scaled = x / np.float32(sampling.latent_scale) + np.float32(sampling.latent_shift)
        feeds["decoder"].append({"latents": scaled})
    return feeds


def trajectory(
    loaded: LoadedBundle,
    words: Array,
    seed: int,
    on_feed: Callable[[Feeds], None] = lambda feeds: None,
    most_steps: int | None = None,
) -> Array:
    """
    Draw from noise to clean latents (1, C, h, w), or to the guess after `most_steps`, in the bundle's own size and
    steps. `on_feed` is handed what the denoiser is fed.
    """
    sampling, plan = loaded.sampling, GenerationPlan.of(Generate("p", seed=seed), loaded.bundle)
    cells = (plan.height // sampling.latent_stride, plan.width // sampling.latent_stride)
    negative = PromptEmbedding(loaded.text_encoder.encode("")) if plan.schedule.guidance else None
    denoiser = Denoiser(ObservedSession(loaded.denoiser.session, on_feed), loaded.denoiser.family)
    x = plan.schedule.begin(sampler.noise((1, sampling.latent_channels, *cells), seed))
    *_, (_, denoised) = islice(denoiser.denoise(x, plan.schedule, PromptEmbedding(words), negative, seed), most_steps)
    return denoised


def words(prompts: Sequence[str], loaded: LoadedBundle) -> list[Feeds]:
    return [{"ids": loaded.text_encoder.tokens.ids(prompt)} for prompt in prompts]


def faces(folder: Path | None, size_px: int, count: int = FACES) -> Iterator[Pixels]:
    """
    Yield square faces (size_px, size_px, 3), three of four damaged: from a folder of photographs, or drawn by the
    built-in portrait model, so that no photographs are needed. BundleError: the folder holds no picture that can be
    read.
    """
    pictures = list(_photographs(folder, count)) if folder else list(_drawn(count))
    if not pictures:
        raise BundleError(f"{folder}: no picture that can be read", bundle=str(folder and folder.name))
    for i, picture in enumerate(pictures):
        square = retouch.to_square(picture, size_px)
        yield damaged(square if folder else with_contrast(square, CONTRAST[i % len(CONTRAST)]), i)


def _photographs(folder: Path, count: int) -> Iterator[Pixels]:
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PICTURES]
    for path in paths[:: max(1, len(paths) // count)][:count]:
        try:
            yield images.read(path)
        except StudioError:  # a broken file among many is no reason to stop
            continue


def _drawn(count: int) -> Iterator[Pixels]:
    engine = backends.engine("ort")
    loaded = LoadedBundle(Shelf((BUILT_IN,)).open("portrait"), engine)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(count)]
    for feeds in trajectories(loaded, prompts)["preview_decoder"]:
        yield loaded.decoder.decode(feeds["latents"])
    loaded.close()


def with_contrast(face: Pixels, factor: float) -> Pixels:
    """Return the face with its levels this many times as far from the middle, as far as there are levels."""
    return np.asarray(np.clip(np.rint((face.astype(np.float32) - 128) * factor + 128), 0, 255), dtype=np.uint8)


def damaged(face: Pixels, number: int) -> Pixels:
    """
    Return the face as damaged as its number says: a cycle through DAMAGE, and noise with the number as its seed.
    """
    shrink, blur_px, noise = DAMAGE[number % len(DAMAGE)]
    if shrink == 1:
        return face
    rng, side = np.random.default_rng(number), face.shape[0]
    small = cv2.resize(face, (round(side / shrink),) * 2, interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), (0, 0), blur_px)
    noisy = soft + rng.normal(0, noise, soft.shape)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), dtype=np.uint8)


def of_faces(pictures: Sequence[Pixels]) -> list[Feeds]:
    return [{"face": from_pixels(picture)} for picture in pictures]
