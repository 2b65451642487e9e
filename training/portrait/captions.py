"""
Captions from attributes, in English and Chinese: random subsets, synonyms and order, so that ordinary prompts are
understood.

What stands out (glasses, hats, beards, unusual styles and light) is nearly always named, so that a prompt without
glasses means a face without glasses. What does not stand out may be left out: then the picture may show anything.
Knows the words' order, not the words (words.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training.portrait import words as w

Record = Mapping[str, object]
NATURAL = ("black", "dark brown", "brown", "blonde", "ginger", "grey", "white")


@dataclass(frozen=True)
class Part:
    """One statement about the picture."""

    attribute: str
    text: str


@dataclass(frozen=True)
class Caption:
    text: str
    mentioned: frozenset[str]  # attributes


@dataclass(frozen=True)
class Voice:
    """How a caption speaks. `plain` always takes the usual word, which is never vague: the bars' prompts speak so."""

    rng: np.random.Generator
    zh: bool
    plain: bool = False

    def pick(self, english: tuple[str, ...], chinese: tuple[str, ...]) -> str:
        """The first synonym is the usual one."""
        options = chinese if self.zh else english
        usual = self.plain or self.rng.random() < 0.35
        return options[0] if usual else options[int(self.rng.integers(len(options)))]

    def say(self, tables: tuple[w.Words, w.Words], key: object) -> str:
        return self.pick(tables[0][str(key)], tables[1][str(key)])

    def lead(self, *options: str) -> str:
        """A word before the statement, or none."""
        return options[int(self.rng.integers(len(options)))]

    def maybe(self, chance: float) -> bool:
        return not self.plain and bool(self.rng.random() < chance)


def chances(r: Record) -> dict[str, float]:
    """How likely each attribute is named in a caption of full density; negative statements are rare."""
    unusual = 0.97
    return {
        "hairstyle": 0.90,
        "glasses": 0.06 if r["glasses"] == "none" else unusual,
        "hat": 0.05 if r["hat"] == "none" else unusual,
        "beard": (0.06 if r["gender"] == "man" else 0.0) if r["beard"] == "none" else unusual,
        "earrings": 0.0 if r["earrings"] == "none" else 0.55,
        "bangs": 0.60 if r["bangs"] else 0.0,
        "freckles": 0.85 if r["freckles"] else 0.0,
        "makeup": 0.35 if r["makeup"] else 0.0,
        "expression": 0.55 if r["expression"] == "neutral" else 0.80,
        "clothes": 0.80,
        "skin": 0.45,
        "eyes": 0.0 if r["glasses"] == "sunglasses" else 0.45,
        "light": 0.40 if r["light"] == "studio" else 0.93,
        "backdrop": 0.80,
        "style": 0.40 if r["style"] == "realistic" else unusual,
        "view": 0.15 if r["view"] == "front" else 0.60,
    }


NEAR_EN = ("hairstyle", "beard", "glasses", "expression", "eyes", "freckles")  # can follow "a woman with"
NEAR_ZH = ("hairstyle", "beard", "glasses", "hat", "clothes", "expression")  # can stand before 的
UNLIKE_A_NOUN = ("realistic", "photorealistic", "anime", "vintage", "cel shaded", "monochrome")  # no "... of a man"
ADJECTIVES = ("smiling", "laughing", "grinning", "serious", "bald")
ALWAYS = ("glasses", "hat", "beard", "style", "light")  # not thinned out in short captions


def hair(r: Record, v: Voice) -> str:
    style, colour = str(r["hairstyle"]), v.say((w.COLOUR_EN, w.COLOUR_ZH), r["hair_colour"])
    if style == "bald":
        return v.say((w.HAIR_EN, w.HAIR_ZH), style)
    if r["hair_colour"] in NATURAL and v.maybe(0.20):
        return v.say((w.PLAIN_HAIR_EN, w.PLAIN_HAIR_ZH), style)
    if v.maybe(0.10):
        return colour + ("发" if len(colour) == 1 else "头发") if v.zh else f"{colour} hair"
    return v.say((w.HAIR_EN, w.HAIR_ZH), style).format(c=colour)


def clothes(r: Record, v: Voice) -> str:
    name = v.say((w.CLOTHES_EN, w.CLOTHES_ZH), r["clothes"])
    colour = "" if v.maybe(0.08) else v.say((w.COLOUR_EN, w.COLOUR_ZH), r["clothes_colour"])
    striped = r["clothes"] == "t-shirt" and r["stripes"] and v.maybe(0.8)
    tie = r["clothes"] == "suit" and r["tie"] and v.maybe(0.4)
    if v.zh:
        what = colour + ("条纹" if striped else "") + name + (v.lead("打领带", "系领带") if tie else "")
        return v.lead("穿", "穿着", "身穿", "") + what
    what = " ".join(("striped " * bool(striped) + f"{colour} {name}").split()) + " and tie" * bool(tie)
    return v.lead(f"wearing {a_or_an(what)}", f"in {a_or_an(what)}", what, f"wearing {what}", what)


def hat(r: Record, v: Voice) -> str:
    name = v.say((w.HAT_EN, w.HAT_ZH), r["hat"])
    if r["hat"] == "none":
        return name
    if v.maybe(0.08):
        return "戴帽子" if v.zh else "wearing a hat"
    colour = "" if v.maybe(0.25) else v.say((w.COLOUR_EN, w.COLOUR_ZH), r["hat_colour"])
    what = name.format(c=colour).strip()
    if v.zh:
        return v.lead("戴", "戴着", "头戴", "") + what
    return v.lead(f"wearing {a_or_an(what)}", f"with {a_or_an(what)}", what)


def glasses(r: Record, v: Voice) -> str:
    what = v.say((w.GLASSES_EN, w.GLASSES_ZH), r["glasses"])
    if r["glasses"] == "none":
        return what
    return (v.lead("戴", "戴着", "戴", "") if v.zh else v.lead("wearing ", "with ", "")) + what


def beard(r: Record, v: Voice) -> str:
    colour = v.say((w.COLOUR_EN, w.COLOUR_ZH), r["hair_colour"])
    return " ".join(v.say((w.BEARD_EN, w.BEARD_ZH), r["beard"]).format(c=colour).split())


def backdrop(r: Record, v: Voice) -> str:
    place = v.say((w.BACKDROP_EN, w.BACKDROP_ZH), r["backdrop"])
    return place + ("背景" if v.zh else " background")


SPECIAL = {
    "hairstyle": hair, "clothes": clothes, "hat": hat, "glasses": glasses, "beard": beard, "backdrop": backdrop,
}  # fmt: skip
FLAGS = {"bangs": ("bangs", "刘海"), "freckles": ("freckles", "雀斑"), "makeup": ("makeup", "化妆")}
TABLES = {
    "earrings": (w.EARRINGS_EN, w.EARRINGS_ZH), "expression": (w.EXPRESSION_EN, w.EXPRESSION_ZH),
    "skin": (w.SKIN_EN, w.SKIN_ZH), "eyes": (w.EYES_EN, w.EYES_ZH), "light": (w.LIGHT_EN, w.LIGHT_ZH),
    "style": (w.STYLE_EN, w.STYLE_ZH), "view": (w.VIEW_EN, w.VIEW_ZH),
}  # fmt: skip


def statement(attribute: str, r: Record, v: Voice) -> str:
    """What the picture shows, for one attribute."""
    if attribute in SPECIAL:
        return SPECIAL[attribute](r, v)
    if attribute in FLAGS:
        return FLAGS[attribute][v.zh]
    return v.say(TABLES[attribute], r[attribute])


def statements(r: Record, v: Voice) -> list[Part]:
    density = float(v.rng.uniform(0.15, 1.0))
    parts = []
    for attribute, chance in chances(r).items():
        if v.plain:
            take = chance >= 0.40 and attribute not in ("skin", "eyes", "earrings", "makeup", "bangs")
        else:
            take = v.rng.random() < (chance if attribute in ALWAYS and chance > 0.3 else chance * density)
        if take:
            parts.append(Part(attribute, statement(attribute, r, v)))
    return parts


def in_order(parts: list[Part], rng: np.random.Generator) -> list[Part]:
    return [parts[i] for i in rng.permutation(len(parts))]


def a_or_an(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def english(r: Record, parts: list[Part], v: Voice) -> str:
    """A list of tags, or a sentence: adjective and subject, `with` parts, the rest."""
    rng = v.rng
    subject = v.pick(w.SUBJECT_EN[str(r["gender"]), str(r["age"])], ())
    style = next((p.text for p in parts if p.attribute == "style"), "")
    rest = in_order([p for p in parts if p.attribute != "style"], rng)
    if rng.random() < 0.45:
        pieces = sentence(subject, rest)
    else:
        one = a_or_an(subject)
        head = (f"portrait of {one}", subject, one, f"{subject} portrait", f"portrait, {subject}")
        pieces = [head[int(rng.integers(len(head)))], *(p.text for p in rest)]
    place = int(rng.integers(3))
    if style and place == 0:
        pieces = [style, *pieces]
    elif style and place == 1 and not style.endswith("style") and style not in UNLIKE_A_NOUN:
        pieces = [f"{style} of {pieces[0]}", *pieces[1:]]
    elif style:
        pieces = [*pieces, style]
    return (", " if rng.random() < 0.85 else " ").join(pieces)


def sentence(subject: str, rest: list[Part]) -> list[str]:
    """A "smiling old man with a ... and ...", then what does not fit into it."""
    adjective = next((p for p in rest if p.text in ADJECTIVES), None)
    noun = f"{adjective.text} {subject}" if adjective else subject
    rest = [p for p in rest if p is not adjective]
    near = [p.text for p in rest if p.attribute in NEAR_EN]
    near = [text for text in near if not text.startswith(("wearing", "with", "no ", "without"))]
    far = [p.text for p in rest if p.text not in near]
    phrase = a_or_an(noun) + (" with " + " and ".join(near[:3]) if near else "")
    return [phrase, *near[3:], *far]


def chinese(r: Record, parts: list[Part], v: Voice) -> str:
    """Tags, or one noun phrase: ...的女孩, then the rest."""
    rng = v.rng
    subject = v.pick((), w.SUBJECT_ZH[str(r["gender"]), str(r["age"])])
    style = next((p.text for p in parts if p.attribute == "style"), "")
    rest = in_order([p for p in parts if p.attribute != "style"], rng)
    article = v.lead("", "一位", "一个", "")
    if rng.random() < 0.45:
        near = [p.text for p in rest if p.attribute in NEAR_ZH][: int(rng.integers(1, 4))]
        far = [p.text for p in rest if p.text not in near]
        pieces = [article + v.lead("，", "、", "").join(near) + ("的" if near else "") + subject, *far]
    else:
        head = (article + subject + "的肖像", subject, article + subject, subject + "肖像", "人像照片，" + subject)
        pieces = [head[int(rng.integers(len(head)))], *(p.text for p in rest)]
    if style:
        pieces = [style, *pieces] if rng.random() < 0.4 else [*pieces, style]
    return v.lead("，", "，", "，", ",", "、", " ").join(pieces)


def caption(r: Record, rng: np.random.Generator, language: str | None = None, full: bool = False) -> Caption:
    """`full` names everything that the bars judge, in plain words."""
    zh = bool(rng.random() < 0.45) if language is None else language == "zh"
    v = Voice(rng, zh, full)
    parts = statements(r, v)
    text = (chinese if zh else english)(r, parts, v)
    if v.maybe(0.30):
        fillers = w.FILLER_ZH if zh else w.FILLER_EN
        extra = [fillers[i] for i in rng.choice(len(fillers), int(rng.integers(1, 4)), replace=False)]
        text = ("，" if zh else ", ").join([text, *extra] if rng.random() < 0.6 else [*extra, text])
    return Caption(text, frozenset(p.attribute for p in parts) | {"gender", "age"})
