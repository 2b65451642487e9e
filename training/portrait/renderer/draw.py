"""The whole way: a `Person` becomes a scene (geometry, once), a scene and a `Look` become a picture (uint8 RGB)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.portrait.renderer import occlusion
from training.portrait.renderer.anatomy import anatomy, grooms
from training.portrait.renderer.attributes import Look, Person
from training.portrait.renderer.backdrop import backdrop
from training.portrait.renderer.beards import beard, bun
from training.portrait.renderer.body import Anatomy
from training.portrait.renderer.finish import PAINTERLY, anime, develop, ink, sun_glow
from training.portrait.renderer.garments import extras
from training.portrait.renderer.gbuffer import Camera, Floats, GBuffer, camera_for, empty
from training.portrait.renderer.grooms import sheets_of
from training.portrait.renderer.lighting import lighting
from training.portrait.renderer.paint import new_picture, paint
from training.portrait.renderer.palette import complexion, materials, wardrobe
from training.portrait.renderer.relief import add_relief
from training.portrait.renderer.sheets import Sheets, draw
from training.portrait.renderer.trace import trace
from training.portrait.renderer.wear import HATS, earrings, glasses

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    person: Person
    anatomy: Anatomy
    camera: Camera
    buffer: GBuffer
    ao: Floats  # (S, S) at the picture's size; the buffer has twice that


def dressing(person: Person, p: Anatomy, rng: np.random.Generator) -> list[Sheets]:
    """All sheets of a person: clothes, hair, beard, hat, glasses, earrings."""
    sheets = extras(p)
    sheets += [sheets_of(groom, p, rng) for groom in grooms(person, rng)]
    if person.hairstyle == "bun":
        sheets.append(bun(0.0, 1.17, -0.36, 0.27, p, rng))
    if person.beard in ("full", "goatee", "moustache"):
        sheets += beard(person.beard, p, rng)
    if person.hat != "none":
        sheets += HATS[person.hat](p)
    if person.glasses != "none":
        sheets += glasses(person.glasses, 1.0 + 0.5 * (p.eye_scale - 1.08), p)
    if person.earrings != "none":
        sheets += earrings(person.earrings, p)
    return sheets


def build(person: Person, size_px: int, wrinkles: float = 1.0) -> Scene:
    """Draw a person's geometry, to be lit by any look. `wrinkles` below 1 gives cleaner skin."""
    rng = np.random.default_rng(person.seed)
    p = anatomy(person, rng)
    p = p._replace(age=wrinkles * p.age)
    camera, buffer = camera_for(p, 2 * size_px), empty(2 * size_px)
    for sheets in dressing(person, p, rng):
        draw(buffer, sheets, camera)
    trace(buffer, camera, p)
    add_relief(buffer, p)
    z, normal = occlusion.downscaled(buffer.z, buffer.normal)
    ao = np.ones_like(z)
    occlusion.ambient(z, normal, 2 * camera.units_per_px, ao)
    return Scene(person, p, camera, buffer, occlusion.blur_within(ao, z, 4))


def sunlight(scene: Scene, key: tuple[float, float, float], spread: float) -> Floats:
    """Where the key light reaches, soft-edged."""
    z = np.ascontiguousarray(scene.buffer.z[::2, ::2])
    sun = np.ones_like(z)
    occlusion.shadow(z, 2 * scene.camera.units_per_px, *key, spread, sun)
    return occlusion.blur_within(occlusion.blur_within(sun, z, 4), z, 8)


def picture(scene: Scene, look: Look) -> Picture:
    rng = np.random.default_rng(look.seed)
    size = scene.ao.shape[0]
    side = float(rng.choice((-1.0, 1.0)))
    light = lighting(look.light, side, float(look.style == "anime"), bool(rng.random() < 0.5))
    person = scene.person
    colours = complexion(person, look, rng), wardrobe(person, look, rng), materials(person, look, rng)
    out, shown, alpha = new_picture(2 * size), new_picture(size), np.zeros((size, size, 1), np.float32)
    paint(scene.buffer, scene.ao, sunlight(scene, light.key, light.spread), scene.anatomy, *colours, light, out)
    develop(out, scene.buffer.material, shown, alpha)
    behind = backdrop(look.backdrop, look.light, size, rng)
    whole = shown + behind * (1 - alpha)
    if look.light == "golden":
        whole = sun_glow(whole, side)
    styled = anime(whole, ink(scene.buffer)) if look.style == "anime" else PAINTERLY[look.style](whole, rng)
    return (np.clip(styled, 0, 1) * 255 + 0.5).astype(np.uint8)
