"""
A bundle is a folder of model parts plus bundle.json. It says what the parts are and how to sample, never how graphs
run.

A part's `file` is a file, or a folder that several formats share: config.json and safetensors for PyTorch, model.onnx
beside them for the compiled engines, whose weights are the same bytes (toolchain/export/shared_weights.py). Parts of
one role stand in order of preference. The format "openvino" is whatever OpenVINO compiles, a model.onnx included: so a
part may allow that engine a coarser arithmetic than others have.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from engines import files
from engines.errors import BundleError, NotFoundError

Role = Literal["text_encoder", "denoiser", "decoder", "preview_decoder", "encoder", "face_detector", "restorer"]
Format = Literal["safetensors", "diffusers", "onnx", "openvino", "tensorrt"]
Precision = Literal["fp32", "bf16", "fp16", "int8", "int4"]
Scheduler = Literal["lcm", "ddim", "euler"]
Prediction = Literal["epsilon", "v_prediction"]
Spacing = Literal["leading", "trailing", "linspace"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)  # from fine to coarse
BUILT_IN = Path(__file__).parents[1] / "builtin"  # what is shipped
EMBEDDINGS, PROOF = "embeddings.npz", "proof"  # names among a bundle's extras
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """
    `precision` is the coarsest that the arithmetic may be rounded to; weights may be stored narrower. `sha256` covers
    the file, or every file of the folder.
    """

    role: Role
    file: str
    format: Format
    precision: Precision
    sha256: str
    licence: str


@dataclass(frozen=True)
class Diffusion:
    """
    How a network that learned to undo noise in `train_steps` small steps is sampled: diffusers' LCMScheduler,
    DDIMScheduler or EulerDiscreteScheduler, and their constants. The betas are "scaled_linear".
    """

    scheduler: Scheduler
    prediction: Prediction = "epsilon"  # what the network predicts: the noise, or v (Salimans & Ho 2022)
    spacing: Spacing = "leading"
    steps_offset: int = 0
    alpha_to_one: bool = True  # DDIM ends at the clean latents, not at the first training step
    beta_start: float = 0.00085
    beta_end: float = 0.012
    train_steps: int = 1000
    original_steps: int = 50  # LCM: the steps it was distilled on
    boundary_scale: float = 10.0  # LCM: diffusers' timestep_scaling
    guidance_embedded: bool = False  # the network takes the guidance as a number, and needs one forward a step


@dataclass(frozen=True)
class Sampling:
    """
    Defaults and geometry of a denoiser. The decoder takes latents / latent_scale + latent_shift, and the encoder gives
    such. Guidance counts from 0 = none in every family: what Stable Diffusion's users call 7.5 is 6.5 here.
    """

    steps: int
    shift: float  # of flow matching's noise levels, as FlowMatchEulerDiscreteScheduler counts it
    latent_channels: int
    latent_stride: int  # pixels per latent cell
    latent_scale: float
    latent_shift: float
    guidance: float = 0.0
    diffusion: Diffusion | None = None  # none: flow matching


@dataclass(frozen=True)
class Text:
    """
    How words become token ids. `template` holds {prompt}. `begin`, `end` and `pad` are tokens by their names: what
    stands round the ids, and what fills them up to `max_tokens`; empty ones are left out.
    """

    tokenizer: str  # file, in the format of the `tokenizers` library
    sha256: str
    template: str = "{prompt}"
    max_tokens: int = 512
    begin: str = ""
    end: str = ""
    pad: str = ""


@dataclass(frozen=True)
class FaceInput:
    """
    What a network takes that looks at faces. For a restorer `size_px` is the side of a square face, and its output
    times `residual` is added to the input, if not 0; for a detector it is the longest side of a picture.
    """

    size_px: int
    residual: float = 0.0


@dataclass(frozen=True)
class Bundle:
    """
    `family` names the module in engines/families (or "gpen"); `sizes` are the (width, height) it draws well, the native
    one first; `dialect` says which words it knows: "natural" language, or the "attributes" of the built-in drawings.
    `extras` are further files or folders with their sha256 (EMBEDDINGS, PROOF); `cache` is a folder for what engines
    compile, or None, and then nothing is kept.
    """

    name: str
    family: str
    root: Path
    parts: tuple[Part, ...]
    sampling: Sampling | None = None
    lineage: tuple[str, ...] = ()
    text: Text | None = None
    face: FaceInput | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    dialect: str = "natural"
    title: dict[str, str] = field(default_factory=dict)
    extras: dict[str, str] = field(default_factory=dict)
    cache: Path | None = None

    @classmethod
    def open(cls, root: Path) -> Bundle:
        """Open the bundle in a folder. BundleError: no manifest, or one that does not say what a bundle must."""
        try:
            manifest: dict[str, Any] = files.parse_json((root / "bundle.json").read_text(encoding="utf-8"))
            return files.validate(cls, {**manifest, "root": root})
        except (OSError, ValueError, TypeError) as exc:
            raise BundleError(f"{root.name}/bundle.json: {exc}", bundle=root.name) from exc

    def part(self, role: Role, formats: frozenset[Format]) -> Part:
        """Return the preferred part for a role among those an engine can read. BundleError: there is none."""
        for part in self.parts:
            if part.role == role and part.format in formats:
                return part
        raise BundleError(f"{self.name} has no {role} in {', '.join(sorted(formats))}", bundle=self.name)

    def graph(self, part: Part) -> Path:
        """Return the part's ONNX graph: its file, or model.onnx in its folder."""
        path = self.root / part.file
        return path / "model.onnx" if path.is_dir() else path

    def has(self, role: Role) -> bool:
        return any(part.role == role for part in self.parts)

    @property
    def takes_loras(self) -> bool:
        """Whether it takes LoRAs while it draws, on PyTorch: what is compiled has them merged or not at all."""
        return any(part.role == "denoiser" and part.format == "diffusers" for part in self.parts)

    @property
    def roles(self) -> frozenset[Role]:
        return frozenset(part.role for part in self.parts)

    def verify(self) -> None:
        """
        Read every byte and compare checksums. BundleError: a part is missing, is not what the manifest says, or lies
        elsewhere.
        """
        expected = {(part.file, part.sha256) for part in self.parts} | set(self.extras.items())
        if self.text is not None:
            expected.add((self.text.tokenizer, self.text.sha256))
        for file, sha256 in sorted(expected):
            inside = (self.root / file).resolve().is_relative_to(self.root.resolve())
            if not (inside and sha256 and digest(self.root / file) == sha256):
                raise BundleError(f"{self.name}/{file}: its checksum is not the manifest's", bundle=self.name)

    def need(self, value: T | None, what: str) -> T:
        """Return a field that this kind of bundle must have. BundleError: its manifest lacks it."""
        if value is None:
            raise BundleError(f"{self.name}/bundle.json says nothing about {what}", bundle=self.name)
        return value


@dataclass(frozen=True)
class Shelf:
    """The folders that hold bundles; an earlier folder wins over a later one. `cache`: for what engines compile."""

    folders: tuple[Path, ...]
    cache: Path | None = None

    def names(self) -> list[str]:
        return sorted({name for folder in self.folders for name in _bundles_in(folder)})

    def open(self, name: str) -> Bundle:
        """Open the bundle in the folder of that name, whatever its manifest calls it. NotFoundError: there is none."""
        for folder in self.folders:
            if name in _bundles_in(folder):  # compared, never joined to a path: a name cannot lead out of the shelf
                return replace(Bundle.open(folder / name), name=name, cache=self.cache and self.cache / name)
        raise NotFoundError("bundle", name)


def _bundles_in(folder: Path) -> set[str]:
    """Return the names of folders with a manifest; a hidden one is still being built."""
    return {path.parent.name for path in folder.glob("[!.]*/bundle.json")}


def digest(path: Path) -> str:
    """Return the sha256 of a file; for a folder that of lines `<sha256>  <path>` sorted by path; missing: empty."""
    if not path.is_dir():
        return _file_digest(path) if path.is_file() else ""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    lines = "".join(f"{_file_digest(p)}  {p.relative_to(path).as_posix()}\n" for p in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def size_bytes(path: Path) -> int:
    """Return the size of a file, or of all files of a folder; nothing there: 0."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())


def _file_digest(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
