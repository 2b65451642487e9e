"""
Light presets by name. Directions point towards the light; the camera looks along -z. `side` is +1 or -1.

Colours are linear RGB, 1 a white surface at full exposure. All numbers were chosen for how the pictures look; the
judge (judge.py) reads the light off held-out renders and is right in 90 to 92 % (LOG.md).
"""

from __future__ import annotations

from math import sqrt

from training.portrait.renderer.shade import Lighting, Rgb


def aim(x: float, y: float, z: float) -> Rgb:
    """Return the unit vector in this direction."""
    s = 1.0 / sqrt(x * x + y * y + z * z)
    return x * s, y * s, z * s


def lighting(name: str, side: float, cel: float, flip: bool = False) -> Lighting:
    """Return the preset of this name. `flip` swaps the two colours of neon light."""
    studio = Lighting(
        aim(0.50 * side, 0.58, 0.80), (1.08, 1.05, 1.00), 0.10,  # key: high, 32 degrees to the side, a little warm
        aim(-0.8 * side, 0.1, 0.7), (0.26, 0.28, 0.31),  # fill: across from it, a quarter as strong (two stops)
        aim(-0.75 * side, 0.5, -0.45), (0.55, 0.58, 0.64),  # rim: from behind, half as strong
        (0.32, 0.32, 0.34), (0.21, 0.17, 0.15), cel,  # sky; ground, warm as a floor is
    )  # fmt: skip
    pink, cyan = (1.20, 0.36, 0.82), (0.26, 0.82, 1.18)
    a, b = (cyan, pink) if flip else (pink, cyan)
    presets = {
        "studio": studio,
        "beauty": studio._replace(  # large and frontal: for the demonstration LoRA only
            key=aim(0.22 * side, 0.45, 0.95), key_colour=(0.98, 0.96, 0.93), spread=0.32,
            fill_colour=(0.34, 0.34, 0.35),
            rim_colour=(0.75, 0.77, 0.80), sky=(0.42, 0.42, 0.43), ground=(0.32, 0.29, 0.28),
        ),
        "warm": studio._replace(
            key_colour=(1.28, 1.00, 0.72), fill_colour=(0.30, 0.24, 0.19), rim_colour=(0.7, 0.42, 0.2),
            sky=(0.36, 0.31, 0.26), ground=(0.25, 0.19, 0.14),
        ),
        "cool": studio._replace(
            key_colour=(0.94, 1.04, 1.24), fill_colour=(0.20, 0.25, 0.34), rim_colour=(0.4, 0.6, 0.95),
            sky=(0.30, 0.34, 0.44), ground=(0.18, 0.18, 0.21),
        ),
        "side": studio._replace(
            key=aim(1.0 * side, 0.30, 0.22), key_colour=(1.55, 1.48, 1.38), spread=0.06, fill_colour=(0.05, 0.05, 0.06),
            rim_colour=(0.30, 0.32, 0.36), sky=(0.10, 0.10, 0.11), ground=(0.05, 0.05, 0.05),
        ),
        "back": studio._replace(
            key_colour=(0.46, 0.45, 0.44), rim=aim(-0.70 * side, 0.55, -0.30), rim_colour=(2.6, 2.5, 2.35),
            fill_colour=(0.14, 0.15, 0.17), sky=(0.24, 0.24, 0.26), ground=(0.12, 0.11, 0.10),
        ),
        "golden": studio._replace(
            key=aim(0.80 * side, 0.34, 0.60), key_colour=(1.62, 1.02, 0.50), fill_colour=(0.22, 0.20, 0.24),
            rim=aim(0.55 * side, 0.45, -0.55), rim_colour=(2.0, 1.15, 0.45),
            sky=(0.30, 0.26, 0.30), ground=(0.22, 0.16, 0.12),
        ),
        "neon": studio._replace(
            key=aim(0.85 * side, 0.25, 0.55), key_colour=a, fill=aim(-0.90 * side, 0.1, 0.45),
            fill_colour=(b[0] * 0.7, b[1] * 0.7, b[2] * 0.7),
            rim=aim(-0.75 * side, 0.4, -0.4), rim_colour=b, sky=(0.20, 0.17, 0.26), ground=(0.14, 0.11, 0.16),
        ),
    }  # fmt: skip
    return presets[name]
