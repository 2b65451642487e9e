"""What workers announce in the tests of the page: engines, bundles, LoRAs, and models to download."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engines.messages.status import BundleStatus, Choice, EngineStatus, Model, ModelStatus, Piece, Verdict

Z_IMAGE = Model(
    "z-image", {"zh": "通义", "en": "Z-Image"}, "portrait", "z-image", "Apache-2.0", True,
    {"zh": "可商用", "en": "commercial use allowed"}, 32.9, 20.0, 40.0, (Piece("a/b", ("*",), "a/b"),), True,
)  # fmt: skip
BASE = ModelStatus(Z_IMAGE, False)


def about(base: ModelStatus, **changes: Any) -> ModelStatus:
    """Return the status of another model, which differs from the first in this."""
    return replace(base, model=replace(base.model, **changes))


GPEN = about(
    BASE, id="gpen", title={"zh": "修复", "en": "GPEN"}, becomes="restorer", size_gb=0.284, approximate=False,
    licence="non-commercial", commercial=False, pieces=(Piece("a/c", ("*",)),), target="GPEN.pth",
)  # fmt: skip
LORA = about(GPEN, id="lora", becomes="lora", target="AW.safetensors")
TINY = about(GPEN, id="tiny", becomes="preview_decoder", target="taef1")
LARGE = replace(about(BASE, id="large"), why="20 GB of memory needed, 8 GB available")
MODELS = (BASE, GPEN, LORA, TINY, LARGE)

RUN_S = {"text_encoder": 0.114, "denoiser": 0.04, "decoder": 0.2, "preview_decoder": 0.002}
FAST = Verdict(
    "openvino", "CPU", "openvino 2026.4", "int8", "", 41.52, 0.9934, 4, 0.31, 1.25, 512.4, RUN_S, 128 * 96 / 1e6
)
WRONG = Verdict("ort", "CPU", "onnxruntime 1", "int4", "PSNR 24.1 dB < 26 dB", 24.1, 0.91, 4, 0.4, 2.5, 610.0)
CHOICES = (
    Choice("openvino", "edge", "accepted", "int8", "", FAST),
    Choice("ort", "edge", "failed", "int4", "failed its proof, PSNR 24.1 dB < 26 dB", WRONG),
    Choice("torch", "pytorch", "unproven", "fp32"),
    Choice("tensorrt", "edge", "unavailable", reason="not installed (tensorrt)"),
)
MODEL = BundleStatus(
    "mine", "portrait", {"zh": "我的", "en": "Mine"}, "natural", ((128, 96), (64, 64)), 8, 1.5, "openvino",
    "openvino on CPU, int8, verified, 1.25 s", CHOICES, 12.34, "# Mine\n\nDraws *people*.\n",
)  # fmt: skip

TORCH = EngineStatus("torch", True, "CPU", "2 threads", "pytorch")
PLAIN = BundleStatus(
    "plain", "portrait", {}, "natural", ((64, 64),), 8, 1.0, "torch", "", family="zimage", takes_loras=True
)
BUNDLES = (PLAIN, replace(PLAIN, name="compiled", takes_loras=False), replace(PLAIN, name="sd15", family="sd"))
LORAS = ("skin", "studio_light", "柔光")
STUDIO_LIGHT = ModelStatus(
    Model("light", {"zh": "光", "en": "Light"}, "lora", "柔光.safetensors", "MIT", True, {}, 0.1, 0.0, 0.1, ()), True
)

SOURCES = (("portrait", "z-image"), ("restorer", "GPEN-BFR-512.pth"))
