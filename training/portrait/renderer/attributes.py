"""
What can be said about a portrait, and how often each thing is drawn.

A `Person` decides the geometry, a `Look` all that can change without drawing the geometry again. Words for them are
captions.py's, numbers for them anatomy.py's and palette.py's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GENDERS = ("woman", "man")
AGES = ("child", "young", "adult", "elderly")
HAIRSTYLES = (
    "bald", "crop", "side part", "quiff", "bob", "long straight", "long wavy", "curly", "long curly", "ponytail", "bun",
    "twin tails",
)  # fmt: skip
HAIR_COLOURS = ("black", "dark brown", "brown", "blonde", "ginger", "grey", "white", "pink", "blue", "purple", "green")
SKINS = ("pale", "fair", "light", "tan", "brown", "dark")
EYES = ("brown", "blue", "green", "amber", "grey")
GLASSES = ("none", "round", "square", "sunglasses")
HATS = ("none", "beanie", "wide brim", "cap", "beret")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
EARRINGS = ("none", "stud", "hoop")
EXPRESSIONS = ("neutral", "smile", "laugh")
CLOTHES = ("t-shirt", "sweater", "turtleneck", "hoodie", "suit", "shirt", "dress", "hanfu")
COLOURS = ("white", "black", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "teal")
LIGHTS = ("studio", "warm", "cool", "side", "back", "golden", "neon")
BACKDROPS = (
    "grey", "white", "dark", "blue", "pink", "yellow", "forest", "sunset", "night city", "beach", "interior", "blossom",
)  # fmt: skip
STYLES = ("realistic", "anime", "oil", "watercolour", "film", "vintage")
VIEWS = ("front", "turned")


@dataclass(frozen=True)
class Person:
    gender: str
    age: str
    hairstyle: str
    bangs: bool
    glasses: str
    hat: str
    beard: str
    earrings: str
    expression: str
    clothes: str
    view: str
    anime: bool  # larger eyes: decided with the geometry
    seed: int


@dataclass(frozen=True)
class Look:
    skin: str
    hair_colour: str
    eyes: str
    clothes_colour: str
    hat_colour: str
    stripes: bool
    tie: bool
    freckles: bool
    makeup: bool
    light: str
    backdrop: str
    style: str
    seed: int


def pick(rng: np.random.Generator, names: tuple[str, ...], weights: tuple[float, ...]) -> str:
    share = np.asarray(weights, float)
    return names[int(rng.choice(len(names), p=share / share.sum()))]


WOMEN_HAIR = (0.6, 3, 1, 0.5, 14, 18, 17, 7, 13, 10, 9, 7)
MEN_HAIR = (10, 24, 24, 18, 2, 3, 4, 10, 3, 1.5, 0.5, 0)


CLOTH_COLOURS = (12, 12, 9, 11, 6, 8, 9, 14, 8, 8, 6, 7)
SUIT_COLOURS = (10, 24, 18, 5, 1, 2, 4, 20, 5, 3, 10, 4)


def sample_person(rng: np.random.Generator) -> Person:
    gender = pick(rng, GENDERS, (1, 1))
    age = pick(rng, AGES, (11, 42, 27, 20))
    woman = gender == "woman"
    hair = pick(rng, HAIRSTYLES, WOMEN_HAIR if woman else MEN_HAIR)
    if age == "child" and hair == "bald":
        hair = "crop"
    if age == "elderly" and hair == "twin tails":
        hair = "bob"
    bare_top = hair not in ("bun", "curly", "twin tails", "quiff")
    shaven = woman or age == "child"
    beard_weights = (48, 14, 10, 8, 20)
    clothes = pick(rng, CLOTHES, (17, 12, 14, 12, 9, 12, 13, 11) if woman else (18, 12, 13, 14, 20, 15, 0, 8))
    return Person(
        gender=gender,
        age=age,
        hairstyle=hair,
        bangs=hair in ("bob", "long straight", "long wavy", "ponytail", "bun", "twin tails") and rng.random() < 0.42,
        glasses=pick(rng, GLASSES, (60, 16, 14, 10)),
        hat=pick(rng, HATS, (76, 7, 6, 6, 5)) if bare_top else "none",
        beard="none" if shaven else pick(rng, BEARDS, beard_weights),
        earrings=pick(rng, EARRINGS, (50, 25, 25)) if woman and age != "child" else "none",
        expression=pick(rng, EXPRESSIONS, (30, 42, 28)),
        clothes=clothes,
        view=pick(rng, VIEWS, (78, 22)),
        anime=rng.random() < 0.15,
        seed=int(rng.integers(1 << 30)),
    )


def sample_hair_colour(rng: np.random.Generator, person: Person) -> str:
    if person.age == "elderly":
        return pick(rng, HAIR_COLOURS, (5, 3, 3, 2, 1, 42, 42, 0.5, 0.5, 0.5, 0.5))
    if person.anime:
        return pick(rng, HAIR_COLOURS, (14, 9, 9, 14, 9, 4, 9, 12, 12, 8, 6))
    return pick(rng, HAIR_COLOURS, (20, 16, 15, 16, 11, 2, 3, 6, 5, 4, 3))


def sample_look(rng: np.random.Generator, person: Person) -> Look:
    style = "anime" if person.anime else pick(rng, STYLES, (40, 0, 13, 13, 12, 10))
    return Look(
        skin=pick(rng, SKINS, (17, 24, 21, 14, 13, 11)),
        hair_colour=sample_hair_colour(rng, person),
        eyes=pick(rng, EYES, (38, 20, 16, 14, 12)),
        clothes_colour=pick(rng, COLOURS, SUIT_COLOURS if person.clothes == "suit" else CLOTH_COLOURS),
        hat_colour=pick(rng, COLOURS, (6, 12, 8, 14, 4, 8, 8, 14, 4, 6, 12, 4)),
        stripes=rng.random() < 0.35,
        tie=rng.random() < 0.75,
        freckles=rng.random() < 0.10,
        makeup=person.gender == "woman" and person.age != "child" and rng.random() < 0.55,
        light=pick(rng, LIGHTS, (34, 12, 10, 12, 8, 13, 11)),
        backdrop=pick(rng, BACKDROPS, (12, 10, 9, 10, 8, 7, 9, 8, 8, 7, 7, 7)),
        style=style,
        seed=int(rng.integers(1 << 30)),
    )
