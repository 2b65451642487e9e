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
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from engines import files
from engines.errors import Fact, OptionError, RequestError
from engines.messages import earlier
from engines.messages.cautions import Caution
from engines.messages.faces import Box, FaceReport, Points, Share
from engines.messages.mirrors import check_mirror
from engines.messages.status import BundleKind, Mirror, Status
from engines.messages.validation import check, refusal

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
CREDIT = "webUI二次开发 by 科哥"
MAX_SEED = 2**31 - 1
MOST_LORAS = 8
RESTORED_BEFORE = "restored before"  # the reason of a Final that was remembered: its seconds are no measure

Turn = Annotated[int, Field(ge=0, le=270, multiple_of=90)]  # degrees
PreviewMode = Literal["live", "off", "only"]  # only: stop at the tiny decoder, keep the latent
RestoreMode = Literal["natural", "strong", "detail"]
PhotoFormat = Literal["png", "jpeg", "webp"]
# A file each in engines/toolchain/recipes.
Recipe = Literal[
    "edge-fp32", "edge-bf16", "edge-int8", "edge-int4", "lean-int8", "lean-int8-kv2", "lean-int4", "trt-fp16",
    "trt-int8",
]  # fmt: skip
Stage = Literal[
    "load", "encode", "denoise", "decode", "restore",  # pictures
    "prepare", "export", "calibrate", "quantize", "embed", "verify",  # bundles
    "fetch", "reconnect",  # models
]  # fmt: skip
DecoderKind = Literal["rough", "tiny", "vae"]  # of latents, from the roughest
PreviewKind = Literal["step", "before", "result"]
BUNDLE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
Percent = Annotated[int, Field(ge=0, le=100)]


@dataclass(frozen=True, slots=True)
class Lora:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    strength: Annotated[float, Field(ge=-2.0, le=2.0)] = 0.8

    def __post_init__(self) -> None:
        check(self)


Prompt = Annotated[str, Field(max_length=4000)]
Loras = Annotated[tuple[Lora, ...], Field(max_length=MOST_LORAS)]


@dataclass(frozen=True, slots=True)
class Generate:
    """
    Draw portraits from words, and from a photo, if there is one: `start` is the path of a file that a front door has
    stored. None means the bundle's own value; sizes are pixels; seed -1 is drawn by lot.
    """

    prompt: Prompt
    negative: Prompt = ""
    width: int | None = None
    height: int | None = None
    steps: Annotated[int | None, Field(ge=1, le=50)] = None
    guidance: Annotated[float | None, Field(ge=0.0, le=20.0)] = None  # 0 = none, as ZImagePipeline counts it
    seed: Annotated[int, Field(ge=-1, le=MAX_SEED)] = -1
    count: Annotated[int, Field(ge=1, le=8)] = 1  # picture k has seed + k
    bundle: str = "portrait"
    backend: str = "auto"
    loras: Loras = ()
    preset: str = ""
    preview: PreviewMode = "live"
    start: str = ""
    strength: Share = 0.6  # how much of the photo is drawn anew; at 1 nothing is left of it
    variety: Percent = 0  # how far seeds differ beyond their noise: of few steps they look alike

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Enhance:
    """
    Restore a photo. `image` is the path of a file that a front door has stored, `name` what its owner called it. The
    faces are restored, and nothing else is touched unless a control says so.
    """

    image: str
    strength: Percent = 70  # of the faces' restoration
    mode: RestoreMode = "natural"
    more_detail: bool = False
    denoise: Percent = 0
    sharpen: Percent = 0
    contrast: Percent = 50  # 50 leaves it
    brightness: Percent = 50  # 50 leaves it
    fading: Percent = 0
    scratches: Percent = 0
    protect_skin: bool = True
    only_center_face: bool = False
    whole_picture: bool = False  # clean all of it, whether there are faces or not
    min_face_px: Annotated[int, Field(ge=8, le=1024)] = 24
    format: PhotoFormat = "png"
    quality: Annotated[int, Field(ge=1, le=100)] = 92  # of JPEG and WEBP
    keep_date: bool = False  # when the photo was taken; nothing else of its metadata is ever kept
    name: Annotated[str, Field(max_length=255)] = ""
    bundle: str = "restorer"
    backend: str = "auto"
    auto: bool = False  # strength, mode, denoise, sharpen and fading as Inspect would advise; no face: whole_picture
    turn: Turn = 0  # clockwise, after its own orientation
    faces: Points = ()  # those that are meant, however sharp, small or far from the centre; empty: all, by the rules

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Inspect:
    """Look at a photo and say what would do it good. `image` as in Enhance."""

    image: str


@dataclass(frozen=True, slots=True)
class Develop:
    """Decode a kept latent with the full decoder. `image` is the name of a picture made with preview="only"."""

    image: str
    backend: str = "auto"


@dataclass(frozen=True, slots=True)
class Build:
    """
    Make a bundle. `source` names one of the shelf's bundles, or what lies in the folder of checkpoints: never a path.
    `prompts` are read once and their embeddings stored. `calibration` names a folder of photographs there. `loras` are
    merged into the weights for good.
    """

    makes: BundleKind
    source: str
    recipe: Recipe
    name: str
    calibration: str = ""
    prompts: Annotated[tuple[Prompt, ...], Field(max_length=500)] = ()
    loras: Loras = ()

    def __post_init__(self) -> None:
        check(self)
        if not BUNDLE_NAME.fullmatch(self.name):
            raise OptionError("name", self.name, "a-z 0-9 - _")
        if self.loras and self.makes != "portrait":
            raise OptionError("loras", self.loras[0].name, "none with this model")


@dataclass(frozen=True, slots=True)
class Fetch:
    """Download a model of the catalogue, by its id. `endpoint`: a hub in the place of huggingface.co; empty: as set."""

    model: str
    mirror: Mirror = "hf"
    endpoint: Annotated[str, Field(max_length=200)] = ""

    def __post_init__(self) -> None:
        check(self)
        check_mirror("endpoint", self.endpoint)


Request = Generate | Enhance | Inspect | Develop | Build | Fetch


def photo_of(request: Request) -> str:
    """Return the path of the photo that a request begins with; empty: with none."""
    match request:
        case Enhance() | Inspect():
            return request.image
        case Generate():
            return request.start
    return ""


@dataclass(frozen=True, slots=True)
class Progress:
    stage: Stage
    step: int  # of a fetch: megabytes that are here
    total: int
    eta_s: float | None = None
    picture: int = 1
    pictures: int = 1


@dataclass(frozen=True, slots=True)
class Preview:
    """
    A picture to look at meanwhile; `seconds` counts from the start of the job. `kind`: "step", how far it is; "before",
    the photo that is being restored, as it was read, upright; "result", a finished picture.
    """

    step: int
    image: str
    seconds: float = 0.0
    decoder: DecoderKind = "tiny"
    picture: int = 1
    kind: PreviewKind = "step"


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the log of a build, in the toolchain's own words."""

    text: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What a look at a photo found, and values of Enhance that would do it good. `blur`, `noise`: 0 none, 1 severe."""

    faces: int
    width: int
    height: int
    blur: float
    noise: float
    settings: dict[str, Fact]
    boxes: tuple[Box, ...] = ()  # of the faces, from left to right
    turn: Turn = 0  # clockwise, by which its faces are upright; without boxes they are found only then
    warnings: tuple[Caution, ...] = ()


@dataclass(frozen=True, slots=True)
class Final:
    """
    The end of a job that went well. `reason`: why this engine and not another; of a build or a download, its name and
    what became of it, for a log.
    """

    images: tuple[str, ...]
    seed: int
    seconds: float
    engine: str
    reason: str = ""
    decoder: DecoderKind = "vae"
    faces: tuple[FaceReport, ...] = ()  # of a restored photo, from left to right
    without: tuple[str, ...] = ()  # LoRAs that could not be loaded; `reason` says why
    warnings: tuple[Caution, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The end of a job that did not. `code` is a StudioError's; `facts` fill a front door's sentence."""

    code: str
    detail: str
    facts: dict[str, Fact] = field(default_factory=dict)


Event = Progress | Preview | Note | Advice | Final | Failed

_KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (
        *(Generate, Enhance, Inspect, Develop, Build, Fetch),
        *(Progress, Preview, Note, Advice, Final, Failed, Status),
    )
}


def pack(message: Request | Event | Status) -> str:
    """Write a message as JSON, in which `kind` says which one it is; what a Preview calls so is `shows` there."""
    values = asdict(message)
    if isinstance(message, Preview):
        values["shows"] = values.pop("kind")
    return json.dumps({"kind": type(message).__name__.lower(), **values}, ensure_ascii=False)


def unpack(text: str) -> Any:
    """Read the message that `pack` wrote, in this version or an earlier one. RequestError: this is none."""
    try:
        values = files.parse_json(text)
        name = values.pop("kind")
        kind = _KINDS[name]
    except (ValueError, KeyError, TypeError, AttributeError) as exc:  # not JSON, not an object, of no known kind
        raise RequestError("this is no message of ours") from exc
    values = earlier.upgraded(name, values)
    if kind is Preview:
        values["kind"] = values.pop("shows")
    return parse(kind, values)


def parse(kind: type[T], values: dict[str, Any]) -> T:
    """Build a message from a stranger's values. OptionError names the first field that does not fit."""
    if unknown := sorted(set(values) - {f.name for f in fields(kind)}):
        raise OptionError(unknown[0], values[unknown[0]], "no such field")
    try:
        message: T = _adapter(kind).validate_python(values)
        return message
    except ValidationError as exc:
        raise refusal(kind, exc) from exc


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)
