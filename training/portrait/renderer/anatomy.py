"""
From a `Person` to numbers: shape of the face, pose, groups of hair. All that is random comes from the person's seed.
"""

from __future__ import annotations

from dataclasses import replace
from math import cos, sin

import numpy as np

from training.portrait.renderer.attributes import Person
from training.portrait.renderer.body import DRESS, HANFU, HOODIE, SHIRT, SUIT, TEE, TURTLENECK, VNECK, Anatomy
from training.portrait.renderer.grooms import Groom, bangs, style, trimmed

CLOTHES_KIND = {
    "t-shirt": TEE, "sweater": VNECK, "turtleneck": TURTLENECK, "hoodie": HOODIE, "suit": SUIT, "shirt": SHIRT,
    "dress": DRESS, "hanfu": HANFU,
}  # fmt: skip
SMILE = {"neutral": (-0.10, 0.20), "smile": (0.60, 0.90), "laugh": (0.85, 1.10)}
OPEN = {"neutral": (0.0, 0.0), "smile": (0.0, 0.0), "laugh": (0.056, 0.076)}
WIDE = {"neutral": 0.97, "smile": 1.06, "laugh": 1.13}


def rotation(yaw: float, pitch: float, roll: float) -> tuple[float, ...]:
    cy, sy, cp, sp, cr, sr = cos(yaw), sin(yaw), cos(pitch), sin(pitch), cos(roll), sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return tuple(float(v) for v in (about_y @ about_x @ about_z).ravel())


def pose(person: Person, rng: np.random.Generator) -> tuple[float, float, float]:
    """Yaw, pitch and roll in radians."""
    side = rng.choice((-1.0, 1.0))
    turned = float(side * rng.uniform(0.30, 0.52))
    yaw = float(np.clip(rng.normal(0, 0.085), -0.20, 0.20)) if person.view == "front" else turned
    pitch, roll = (float(np.clip(rng.normal(0, 0.035), -0.085, 0.085)) for _ in range(2))
    return yaw, pitch, roll


def anatomy(person: Person, rng: np.random.Generator) -> Anatomy:
    yaw, pitch, roll = pose(person, rng)
    woman, child, old = person.gender == "woman", person.age == "child", person.age == "elderly"

    def about(value: float, spread: float) -> float:
        return float(value * (1.0 + np.clip(rng.normal(0, spread), -2 * spread, 2 * spread)))

    grown = person.age == "adult"
    eyes = (1.14 if woman else 1.02) * (1.10 if child else 0.95 if grown else 1.0) * (1.18 if person.anime else 1.0)
    lips = (1.14 if woman else 0.97) * (0.78 if old else 0.92 if grown else 1.0)
    jaw_length = (0.965 if woman else 1.045) * (0.93 if child else 1.0)
    return Anatomy(
        turn=rotation(yaw, pitch, roll),  # type: ignore[arg-type]
        torso_cos=cos(0.35 * yaw),
        torso_sin=-sin(0.35 * yaw),
        jaw_width=about((0.955 if woman else 1.045) * (1.02 if child or grown else 1.0), 0.025),
        jaw_length=about(jaw_length, 0.015),
        jaw_corner=0.0 if woman or child else about(1.05, 0.10),
        cheek=about(1.08 if child else 1.0, 0.03),
        chin=about((0.92 if woman else 1.14) * (0.92 if child else 1.0), 0.05),
        eye_scale=about(eyes, 0.025),
        eye_open=about((1.0 if woman else 0.92) * (0.86 if old else 1.0) * (1.10 if person.anime else 1.0), 0.05),
        eye_cant=float(rng.uniform(0.005, 0.045)),
        nose_length=about((0.96 if woman else 1.03) * (0.90 if child else 1.0), 0.04),
        nose_width=about(0.95 if woman else 1.12, 0.08),
        nose_size=about((0.90 if woman else 1.06) * (0.86 if child else 1.0) * (0.82 if person.anime else 1.0), 0.05),
        mouth_width=about(WIDE[person.expression] * (0.86 if child else 1.0) * (0.98 if woman else 1.08), 0.03),
        mouth_y=-0.565 * jaw_length / 0.965,
        smile=float(rng.uniform(*SMILE[person.expression])),
        mouth_open=float(rng.uniform(*OPEN[person.expression])),
        lip=about(lips * (0.72 if person.anime else 1.0), 0.10),
        brow_y=float(rng.uniform(-0.008, 0.018)) + (0.015 if person.anime else 0.0),
        brow_weight=about((0.88 if woman else 1.32) * (0.80 if child else 1.0), 0.10),
        brow_arch=about(1.0 if woman else 0.55, 0.20),
        brow_tilt=float(rng.uniform(-0.02, 0.02)),
        gaze_x=-1.04 * sin(yaw) + float(rng.normal(0, 0.04)),  # into the camera
        gaze_y=-0.8 * sin(pitch) + float(rng.normal(0, 0.03)),
        lash=(0.95 if woman else 0.15) * (0.6 if child else 1.0),
        neck=about((0.86 if woman else 1.06) * (0.84 if child else 1.0), 0.03),
        shoulder=about((0.87 if woman else 1.04) * (0.80 if child else 1.0), 0.03),
        age=about(1.0, 0.1) if old else about(0.40, 0.1) if grown else 0.0,
        clothes=CLOTHES_KIND[person.clothes],
    )


def grooms(person: Person, rng: np.random.Generator) -> tuple[Groom, ...]:
    """Groups of locks for the person's hair; fewer and flatter under a hat."""
    if person.hairstyle == "bald":
        return ()
    groups = style(person.hairstyle, float(rng.choice((-1.0, 1.0))))
    if person.bangs:
        groups += (bangs(True),)
    if person.hat != "none":
        groups = tuple(replace(g, clear=(min(g.clear[0], 0.02), min(g.clear[1], 0.05))) for g in trimmed(groups, 0.03))
    return groups
