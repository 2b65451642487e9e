"""
What crosses a process boundary: requests go in, events come out, and a worker says how it is. Plain frozen data, JSON
both ways; pictures travel as references, never as arrays. A request that exists has values in range; whether a bundle
can draw it is the studio's to say.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from engines.errors import Fact, OptionError, RequestError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic_core import ErrorDetails

T = TypeVar("T", bound="DataclassInstance")
CREDIT = "webUI二次开发 by 科哥"
MAX_SEED = 2**31 - 1
# The first word of pydantic's error types, and what it wants to see; a front door translates (webui/locales).
EXPECTED = {
    "missing": "must be given",
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "string": "text",
    "bool": "true or false",
}

PreviewMode = Literal["live", "off", "only"]  # only: stop at the tiny decoder, keep the latent
RestoreMode = Literal["natural", "strong", "detail"]
BundleKind = Literal["portrait", "restorer"]
Recipe = Literal["edge-fp32", "edge-bf16", "edge-int8", "edge-int4"]  # a file each in engines/toolchain/recipes
Stage = Literal[
    "load", "encode", "denoise", "decode", "restore",  # pictures
    "prepare", "export", "calibrate", "quantize", "embed", "verify",  # bundles
]  # fmt: skip
DecoderKind = Literal["tiny", "vae"]
BUNDLE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


@dataclass(frozen=True, slots=True)
class Lora:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    strength: float = 0.8  # -2..2

    def __post_init__(self) -> None:
        _within("loras.strength", self.strength, -2.0, 2.0)


@dataclass(frozen=True, slots=True)
class Generate:
    """Draw portraits from words. None means the bundle's own value; sizes are pixels; seed -1 is drawn by lot."""

    prompt: str
    negative: str = ""
    width: int | None = None
    height: int | None = None
    steps: int | None = None  # 1..50
    guidance: float | None = None  # 0 = none, as ZImagePipeline counts it
    seed: int = -1
    count: int = 1  # 1..8; picture k has seed + k
    bundle: str = "portrait"
    backend: str = "auto"
    loras: tuple[Lora, ...] = ()
    preset: str = ""
    preview: PreviewMode = "live"
    restore_faces: float = 0.0  # 0..1

    def __post_init__(self) -> None:
        _within("steps", self.steps, 1, 50)
        _within("guidance", self.guidance, 0.0, 20.0)
        _within("seed", self.seed, -1, MAX_SEED)
        _within("count", self.count, 1, 8)
        _within("restore_faces", self.restore_faces, 0.0, 1.0)
        _one_of("preview", self.preview, get_args(PreviewMode))
        for name, text in (("prompt", self.prompt), ("negative", self.negative)):
            _within(f"{name} length", len(text), 0, 4000)
            _writable(name, text)


@dataclass(frozen=True, slots=True)
class Enhance:
    """Restore a photo. `image` is the path of a file that a front door has stored."""

    image: str
    strength: int = 70  # 0..100, 0 leaves the photo as it is
    mode: RestoreMode = "natural"
    denoise: int = 0  # 0..100
    sharpen: int = 0  # 0..100
    contrast: int = 50  # 0..100, 50 leaves it
    brightness: int = 50  # 0..100, 50 leaves it
    protect_skin: bool = True
    only_center_face: bool = False
    bundle: str = "restorer"
    backend: str = "auto"

    def __post_init__(self) -> None:
        for name in ("strength", "denoise", "sharpen", "contrast", "brightness"):
            _within(name, getattr(self, name), 0, 100)
        _one_of("mode", self.mode, get_args(RestoreMode))


@dataclass(frozen=True, slots=True)
class Develop:
    """Decode a kept latent with the full decoder. `image` is the name of a picture made with preview="only"."""

    image: str
    backend: str = "auto"


@dataclass(frozen=True, slots=True)
class Build:
    """
    Make a bundle. `source` names one of the shelf's bundles, or what lies in the folder of checkpoints: never a path.
    `prompts` are read once and their embeddings stored. `calibration` names a folder of photographs there.
    """

    makes: BundleKind
    source: str
    recipe: Recipe
    name: str
    calibration: str = ""
    prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _one_of("makes", self.makes, get_args(BundleKind))
        _one_of("recipe", self.recipe, get_args(Recipe))
        if not BUNDLE_NAME.fullmatch(self.name):
            raise OptionError("name", self.name, "a-z 0-9 - _")
        _within("prompts", len(self.prompts), 0, 500)
        _within("prompts length", max(map(len, self.prompts), default=0), 0, 4000)


Request = Generate | Enhance | Develop | Build


@dataclass(frozen=True, slots=True)
class Progress:
    stage: Stage
    step: int
    total: int
    eta_s: float | None = None
    picture: int = 1
    pictures: int = 1


@dataclass(frozen=True, slots=True)
class Preview:
    """
    A picture to look at meanwhile; `seconds` counts from the start of the job. Step 0 of a restoration: the photo as it
    was read, upright.
    """

    step: int
    image: str
    seconds: float = 0.0
    decoder: DecoderKind = "tiny"
    picture: int = 1


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the log of a build, in the toolchain's own words."""

    text: str


@dataclass(frozen=True, slots=True)
class Final:
    """The end of a job that went well. `reason`: why this engine and not another; of a build, what became of it."""

    images: tuple[str, ...]
    seed: int
    seconds: float
    engine: str
    reason: str = ""
    decoder: DecoderKind = "vae"


@dataclass(frozen=True, slots=True)
class Failed:
    """The end of a job that did not. `code` is a StudioError's; `facts` fill a front door's sentence."""

    code: str
    detail: str
    facts: dict[str, Fact] = field(default_factory=dict)


Event = Progress | Preview | Note | Final | Failed


@dataclass(frozen=True, slots=True)
class EngineStatus:
    name: str
    ok: bool
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """
    One engine for one bundle, and how it did when measured on this machine: seconds to the first picture to look at and
    to the finished one; 0 where nothing was measured.
    """

    engine: str
    group: Literal["pytorch", "edge"]
    state: Literal["accepted", "failed", "unproven", "unavailable"]
    precision: str = ""
    reason: str = ""
    psnr_db: float = 0.0
    ssim: float = 0.0
    look_s: float = 0.0
    finish_s: float = 0.0
    peak_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class BundleStatus:
    """What a page must know to offer a bundle: its words, sizes and defaults, and which engine would serve it."""

    name: str
    kind: BundleKind
    title: dict[str, str]
    dialect: str
    sizes: tuple[tuple[int, int], ...]
    steps: int
    guidance: float
    engine: str
    reason: str
    choices: tuple[Choice, ...] = ()
    size_mb: float = 0.0
    card: str = ""  # Markdown, as the bundle's maker wrote it


@dataclass(frozen=True, slots=True)
class Status:
    """How a worker is; every front door reads the same. `sources`: (kind, name) of what can be built from."""

    state: Literal["loading", "ready", "failed"]
    detail: str = ""
    engines: tuple[EngineStatus, ...] = ()
    bundles: tuple[BundleStatus, ...] = ()
    sources: tuple[tuple[BundleKind, str], ...] = ()
    can_build: str = ""  # why not, in the phrases of this program; empty: it can


_KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (Generate, Enhance, Develop, Build, Progress, Preview, Note, Final, Failed, Status)
}


def pack(message: Request | Event | Status) -> str:
    """A message as JSON with its `kind`."""
    return json.dumps({"kind": type(message).__name__.lower(), **asdict(message)}, ensure_ascii=False)


def unpack(text: str) -> Any:
    """The message that `pack` wrote. RequestError: not one."""
    try:
        values = json.loads(text)
        kind = _KINDS[values.pop("kind")]
    except (ValueError, KeyError, TypeError, AttributeError) as exc:  # not JSON, not an object, of no known kind
        raise RequestError("this is no message of ours") from exc
    return parse(kind, values)


def parse(kind: type[T], values: dict[str, Any]) -> T:
    """Build a message from a stranger's values. OptionError names the first field that does not fit."""
    if unknown := sorted(set(values) - {f.name for f in fields(kind)}):
        raise OptionError(unknown[0], values[unknown[0]], "no such field")
    try:
        message: T = _adapter(kind).validate_python(values)
        return message
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        given = "" if first["type"] == "missing" else first["input"]  # what is missing has no value
        raise OptionError(where, given, _allowed(first)) from exc


def _allowed(error: ErrorDetails) -> str:
    """What a field may be, in the program's own phrases rather than a library's."""
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"]).replace("'", "").replace(" or ", ", ")
    return EXPECTED.get(error["type"].partition("_")[0], "a fitting value")


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


def _within(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise OptionError(name, value, f"{low} … {high}")


def _writable(name: str, text: str) -> None:
    """Half a surrogate pair, which JSON can carry, fits into no file."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise OptionError(name, text.encode(errors="replace").decode(), "text")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise OptionError(name, value, ", ".join(allowed))
