"""How a picture was made, as the text A1111's web UI writes into PNG files, so that other tools can read ours."""

from __future__ import annotations

from collections.abc import Mapping

from engines.messages import CREDIT, Enhance, Generate


def describe(
    request: Generate,
    seed: int,
    size: tuple[int, int],
    steps: int,
    guidance: float,
    engine: str,
    precision: str,
    others: Mapping[str, str] | None = None,
) -> str:
    """
    Return the prompt, the negative prompt, then one line `Name: value, ...`. `precision`: the coarsest arithmetic that
    the engine used; `others`: worded by a family.
    """
    loras = " + ".join(f"{lora.name} {lora.strength:g}" for lora in request.loras)
    values = {
        "Steps": steps,
        "Sampler": "FlowMatch Euler",
        "CFG scale": f"{guidance:g}",
        "Seed": seed,
        "Size": f"{size[0]}x{size[1]}",
        "Model": request.bundle,
        "Engine": engine,
        "Precision": precision,
        **({"LoRA": loras} if loras else {}),
        **({"Seed variety": request.variety} if request.variety else {}),
        **({"Denoising strength": f"{request.strength:g}"} if request.start else {}),
        "Credit": CREDIT,
        **(others or {}),
    }
    line = ", ".join(f"{name}: {value}" for name, value in values.items())
    negative = [f"Negative prompt: {request.negative}"] if request.negative else []
    return "\n".join([request.prompt, *negative, line])


def describe_restoration(r: Enhance, engine: str, precision: str) -> str:
    values = {
        "Automatic": r.auto,
        "Strength": r.strength,
        "Mode": r.mode,
        "Denoise": r.denoise,
        "Sharpen": r.sharpen,
        "Contrast": r.contrast,
        "Brightness": r.brightness,
        "Fading": r.fading,
        "Scratches": r.scratches,
        "More detail": r.more_detail,
        "Whole picture": r.whole_picture,
        "Protect skin": r.protect_skin,
        "Model": r.bundle,
        "Engine": engine,
        "Precision": precision,
        "Credit": CREDIT,
    }
    return "Restored photo\n" + ", ".join(f"{name}: {value}" for name, value in values.items())
