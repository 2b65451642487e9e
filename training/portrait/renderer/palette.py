"""Colours by name, as linear RGB, and from a `Look` to the painters' parameters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from training.portrait.renderer.attributes import Look, Person
from training.portrait.renderer.garments import Wardrobe
from training.portrait.renderer.skinpaint import Complexion

Rgb = tuple[float, float, float]

SKIN = {"pale": "eac4a8", "fair": "e2b08c", "light": "d39c74", "tan": "b98058", "brown": "8f5b3c", "dark": "68422f"}
LIPS = {"pale": "d08a80", "fair": "c67a6c", "light": "b86c5a", "tan": "a35e4a", "brown": "844a3a", "dark": "683c32"}
LIPSTICK = ("b8323f", "c9536b", "a8324f", "c4574a")
HAIR = {
    "black": "1d1a1c", "dark brown": "3a281e", "brown": "6b452b", "blonde": "d9b36c", "ginger": "a8502a",
    "grey": "8d8c8e", "white": "dedcd8", "pink": "e58fae", "blue": "4a78c8", "purple": "7d56a8", "green": "4f9a68",
}  # fmt: skip
IRIS = {"brown": "5b3a20", "blue": "4d8fca", "green": "4f9464", "amber": "a3702a", "grey": "8496a3"}
CLOTH = {
    "white": "ecebe8", "black": "242428", "grey": "8c8d92", "red": "bf2f36", "orange": "e0792f", "yellow": "e8bd3f",
    "green": "3f8a55", "blue": "2f5fae", "purple": "74489e", "pink": "e79ab4", "brown": "7a5238", "teal": "2e8f93",
}  # fmt: skip


class Materials(NamedTuple):
    hat: Rgb
    band: Rgb
    frame: Rgb
    lens: Rgb
    metal: Rgb


def linear(code: str, factor: float = 1.0) -> Rgb:
    r, g, b = (min((int(code[i : i + 2], 16) / 255) ** 2.2 * factor, 0.92) for i in (0, 2, 4))
    return r, g, b


def scaled(rgb: Rgb, factor: float) -> Rgb:
    return rgb[0] * factor, rgb[1] * factor, rgb[2] * factor


def mixed(a: Rgb, b: Rgb, t: float) -> Rgb:
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t


def complexion(person: Person, look: Look, rng: np.random.Generator) -> Complexion:
    woman = person.gender == "woman"
    vary = float(rng.uniform(0.94, 1.06))
    hair = linear(HAIR[look.hair_colour], float(rng.uniform(0.88, 1.14)))
    lips = linear(str(rng.choice(LIPSTICK))) if look.makeup else linear(LIPS[look.skin])
    if not woman:
        lips = mixed(lips, linear(SKIN[look.skin], 0.72), 0.30)
    light_hair = look.hair_colour in ("white", "grey", "blonde")
    return Complexion(
        skin=linear(SKIN[look.skin], vary),
        lips=lips,
        hair=hair,
        brow=scaled(hair, 0.55) if light_hair else scaled(hair, 0.50),
        iris=linear(IRIS[look.eyes], 1.25),
        blush=float(rng.uniform(0.5, 1.0)) * (1.2 if person.age == "child" else 1.0 if woman else 0.7),
        freckles=1.0 if look.freckles else 0.0,
        makeup=0.9 if look.makeup else 0.0,
        stubble=0.9 if person.beard == "stubble" else 0.0,
        scalp=0.0 if person.hairstyle == "bald" else 1.0,
    )


def wardrobe(person: Person, look: Look, rng: np.random.Generator) -> Wardrobe:
    second = "e9e8e4" if look.clothes_colour != "white" else str(rng.choice(("2f4a7a", "b0343c", "33343a")))
    if person.clothes == "suit":
        second = "efeeea"
    if person.clothes == "hanfu":
        second = str(rng.choice(("8e2a30", "2b3a5e", "d9b36c", "3f6a5a"))) if look.clothes_colour != "red" else "d9b36c"
    accent = str(rng.choice(("8f2530", "243a68", "2f5a48", "5a3268"))) if person.clothes == "suit" else "e6e4df"
    return Wardrobe(
        linear(CLOTH[look.clothes_colour], float(rng.uniform(0.88, 1.12))), linear(second), linear(accent),
        float(look.stripes), float(look.tie),
    )  # fmt: skip


def materials(person: Person, look: Look, rng: np.random.Generator) -> Materials:
    hat = linear(CLOTH[look.hat_colour])
    frame = linear(str(rng.choice(("17171a", "17171a", "4a2c18", "a8843f"))))
    if person.glasses == "sunglasses":
        frame = linear("141416")
    metal = linear(str(rng.choice(("e2b65a", "dadade"))))
    return Materials(hat, linear("26242a"), frame, linear("121318"), metal)
