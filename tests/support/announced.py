"""What workers announce in the tests of the page: engines, bundles, LoRAs, and models to download."""

from __future__ import annotations

from dataclasses import replace

from engines.messages.status import BundleStatus, Choice, EngineStatus, ModelStatus

BASE = ModelStatus(
    "z-image", {"zh": "通义", "en": "Z-Image"}, "portrait", 32.9, True, "Apache-2.0", True,
    {"zh": "可商用", "en": "commercial use allowed"}, ("hf", "modelscope"), "z-image", False, True,
)  # fmt: skip
GPEN = replace(
    BASE, id="gpen", title={"zh": "修复", "en": "GPEN"}, becomes="restorer", size_gb=0.284, approximate=False,
    licence="non-commercial", commercial=False, mirrors=("hf",), file="GPEN.pth",
)  # fmt: skip
LORA = replace(GPEN, id="lora", becomes="lora", file="AW.safetensors")
TINY = replace(GPEN, id="tiny", becomes="preview_decoder", file="taef1")
LARGE = replace(BASE, id="large", fits=False, why="20 GB of memory needed, 8 GB available")
MODELS = (BASE, GPEN, LORA, TINY, LARGE)

CHOICES = (
    Choice("openvino", "edge", "accepted", "int8", "", 41.52, 0.9934, 0.31, 1.25, 512.4),
    Choice("ort", "edge", "failed", "int4", "failed its proof, PSNR 24.1 dB < 26 dB", 24.1, 0.91, 0.4, 2.5, 610.0),
    Choice("torch", "pytorch", "unproven", "fp32"),
    Choice("tensorrt", "edge", "unavailable", reason="not installed (tensorrt)"),
)
MODEL = BundleStatus(
    "mine", "portrait", {"zh": "我的", "en": "Mine"}, "natural", ((128, 96), (64, 64)), 8, 1.5, "openvino",
    "openvino on CPU, int8, verified, 1.25 s", CHOICES, 12.34, "# Mine\n\nDraws *people*.\n",
)  # fmt: skip

TORCH = EngineStatus("torch", True, "CPU", "2 threads")
PLAIN = BundleStatus(
    "plain", "portrait", {}, "natural", ((64, 64),), 8, 1.0, "torch", "", family="zimage", takes_loras=True
)
BUNDLES = (PLAIN, replace(PLAIN, name="compiled", takes_loras=False), replace(PLAIN, name="sd15", family="sd"))
LORAS = ("skin", "studio_light", "柔光")
STUDIO_LIGHT = ModelStatus(
    "light", {"zh": "光", "en": "Light"}, "lora", 0.1, False, "MIT", True, {}, ("hf",), "柔光.safetensors", True, True
)

SOURCES = (("portrait", "z-image"), ("restorer", "GPEN-BFR-512.pth"))
