"""What to make of each part of a bundle: recipes/*.toml, validated."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, ValidationError

from engines import files
from engines.bundle import Precision, Role
from engines.errors import OptionError

FOLDER = Path(__file__).parent / "recipes"
Method = Literal["", "static", "dynamic", "weights"]
Ranges = Literal["minmax", "percentile"]
Stored = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class Treatment:
    """
    What is done to the part of one role. quantize: "static" (int8 activations and weights, calibrated), "dynamic"
    (int8, activations measured at run time; ONNX Runtime only), "weights" (int8 or int4 weights, float arithmetic), or
    nothing. `ranges` are compared, and the best is taken. Below `bar_db` against float32 on held-out feeds, the most
    sensitive layers stay in float. `openvino` is the arithmetic that OpenVINO may use for what is not quantised.
    `kv_stride`: in what is quantised, keys and values of self-attention at the two largest sizes come from every so
    many rows and columns alone (token downsampling; Stable Diffusion's denoiser).
    `tensorrt`: a graph of its own for TensorRT, in half precision; what is quantised is then for TensorRT alone, whose
    integers have no zero points.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    quantize: Method = ""
    ops: tuple[str, ...] = ()
    ranges: tuple[Ranges, ...] = ("minmax",)
    bits: Literal[4, 8] = 8
    block: int = 32
    bar_db: float = 0.0
    openvino: Precision = "fp32"
    kv_stride: Literal[1, 2, 4] = 1
    tensorrt: Literal["", "fp16"] = ""

    @property
    def precision(self) -> Precision:
        return ("int4" if self.bits == 4 else "int8") if self.quantize else "fp32"


PLAIN = Treatment()


@dataclass(frozen=True)
class Recipe:
    """`lean`: what is quantised is in the bundle in that form alone, and PyTorch cannot run it."""

    name: str
    stored: Stored  # how float32 weights of the source are stored; narrower ones stay as they are
    roles: Mapping[Role, Treatment] = field(default_factory=dict)
    lean: bool = False

    @classmethod
    def read(cls, name: str) -> Recipe:
        """Read a recipe by its name. OptionError: there is no such recipe, or it makes no sense."""
        path = FOLDER / f"{name}.toml"
        if name not in names():
            raise OptionError("recipe", name, ", ".join(names()))
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        try:
            top = {"name": name, "stored": values.pop("stored"), "lean": values.pop("lean", False)}
            return files.validate(cls, {**top, "roles": values})
        except (KeyError, ValidationError) as exc:
            raise OptionError("recipe", name, f"a recipe that makes sense: {exc}") from exc

    def of(self, role: Role) -> Treatment:
        return self.roles.get(role, PLAIN)

    @property
    def subsamples(self) -> bool:
        return any(how.kv_stride > 1 for how in self.roles.values())

    def alone(self, role: Role) -> bool:
        """Tell whether the quantised form of a role is the only one."""
        return self.lean and bool(self.of(role).quantize)


def chosen(name: str) -> Recipe:
    """Return the recipe of this name; without one, weights stored in fp16 and all arithmetic in float32."""
    return Recipe.read(name) if name else Recipe("", "fp16")


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))
