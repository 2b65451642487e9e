"""What the house's own dialect answers with when a job went well: now to those who wait, later at the job's address."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Literal

from typing_extensions import TypedDict

from engines.messages import Enhance, Final, Generate
from engines.messages.faces import FaceReport, FaceState
from webui.i18n import BOTH, words
from webui.own_jobs import HouseJobs
from webui.pictures import address


class Warned(TypedDict):
    """What is not as somebody may think, of a result that is there; the message in both languages."""

    code: str
    message: str


class Drawn(TypedDict):
    status: Literal["success"]
    seed: int
    seconds: float
    engine: str
    reason: str
    warnings: list[Warned]
    without: list[str]
    images: list[str]  # addresses


class DrawnHere(Drawn):
    image_base64: str  # the first


class Face(TypedDict):
    box: tuple[float, float, float, float]
    state: FaceState
    strength: int
    reason: str


class Restored(TypedDict):
    status: Literal["success"]
    output_path: str  # an address
    inference_time: str
    engine: str
    reason: str
    warnings: list[Warned]
    faces: list[Face]


def of(order: Generate | Enhance, final: Final, root: str) -> Drawn | Restored:
    return drawn(final, root) if isinstance(order, Generate) else restored(final, root)


def drawn(final: Final, root: str) -> Drawn:
    """`root`: as addresses.root has it."""
    return {
        "status": "success",
        "seed": final.seed,
        "seconds": final.seconds,
        "engine": final.engine,
        "reason": final.reason,
        "warnings": warned(final),
        "without": list(final.without),
        "images": [f"{root}/{address(name)}" for name in final.images],
    }


def drawn_here(jobs: HouseJobs, final: Final, root: str) -> DrawnHere:
    """Read and encode the picture: in a thread, so that the event loop answers others meanwhile."""
    return {**drawn(final, root), "image_base64": encoded(jobs, final.images[:1])[0]}


def encoded(jobs: HouseJobs, pictures: Sequence[str]) -> list[str]:
    """Return pictures in base64, as JSON carries them."""
    return [base64.b64encode(jobs.file(picture).read_bytes()).decode() for picture in pictures]


def restored(final: Final, root: str) -> Restored:
    return {
        "status": "success",
        "output_path": f"{root}/{address(final.images[0])}",
        "inference_time": f"{final.seconds:.2f}s",
        "engine": final.engine,
        "reason": final.reason,
        "warnings": warned(final),
        "faces": faces(final),
    }


def warned(final: Final) -> list[Warned]:
    both = [words(language) for language in BOTH]
    return [{"code": each.code, "message": " ".join(say.caution(each) for say in both)} for each in final.warnings]


def faces(final: Final) -> list[Face]:
    return [_face(face) for face in final.faces]


def _face(face: FaceReport) -> Face:
    return {"box": face.box, "state": face.state, "strength": face.strength, "reason": face.reason}
