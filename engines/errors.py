"""
The error tree. `code` is stable: REST answers with it, and a front door finds its own sentence by it, in either
language, filling in `facts`. The text of the exception is for the log. Library errors are mapped to these at the border
where they arise.

* StudioError
  x RequestError            the caller asked for something impossible
    + OptionError             a field has a value it cannot have
    + SizeError               a picture size that this bundle does not draw
    + PromptError             nothing to draw
    + TooManyWeights          more different weights in a prompt than this model draws
    + PresetRefused           what no preset can be made of: a stranger's file, or a name
  x NotFoundError           no such bundle, job or picture
    + NotDownloaded           a model of the catalogue that is to be built from
  x LoginNeeded             the house has a password, and who asks has neither that nor a token
    + TokenNeeded             a door for programs only, in an open house too
  x FolderAway              a folder of the owner's on a share that does not answer
  x OwnerOnly               what the owner of the house may do, and a guest may not
  x LinkEnded               a link for a phone was used by another one, or its time is over
  x ImageError              an uploaded file that cannot be read as a picture
    + ImageTooLarge
    + ImageTooSlow            to decode it takes longer than may be
    + FileTooLarge            a file of an album that has more bytes than an upload may have
  x NoFaceError             a photo to restore in which no face was found
    + FacesTurned             but some are, when it is turned
  x BundleError             files on disk do not match their manifest
  x LoraError               a LoRA file that is damaged, of another kind, or made for another network
  x EngineError             an engine started and failed
    + EngineUnavailable       no engine can run this bundle here
    + OutOfMemory             there was not as much memory as was planned with
    + BlankPicture            the result is flat or not a number: never shown
  x MemoryShort             a picture, or a model, that this machine's memory cannot hold
  x PartAway                a machine that lends a part of a model does not answer
    + PartRefused             it answers, and does not lend the part that is wanted
  x DownloadError           a model of the catalogue could not be had from its hub
    + HubUnreachable          nobody answers there
    + DownloadBroken          it broke off in the middle: what has come is kept
  x StorageError            the disk is full or read-only
    + DatabaseDamaged         the next start repairs it
  x QueueFull               as many jobs wait as may
  x PresetsFull             as many presets of one person are kept as may
  x JobCancelled
  x JobInterrupted          the program stopped twice in the middle of this job
  x JobPostponed            the program is being stopped: the job is done after its next start
  x JobMoved                another worker does it by now
"""

from __future__ import annotations

import math
import re
from typing import ClassVar

Fact = str | int | float
# What libraries say where memory ran out, for which they have no sign of its own: ONNX Runtime's and OpenVINO's
# allocators, the C++ library, PyTorch's allocator, CUDA and TensorRT.
NO_MEMORY = re.compile(r"(failed to|can't|cannot|could not) allocate|bad_alloc|(out of|not enough) memory", re.I)


class StudioError(Exception):
    code: ClassVar[str] = "studio_error"

    def __init__(self, detail: str, **facts: Fact) -> None:
        super().__init__(detail)
        self.facts = facts


class RequestError(StudioError):
    code = "bad_request"


class OptionError(RequestError):
    code = "bad_option"

    def __init__(self, field: str, value: object, allowed: str) -> None:
        shown = str(value)[:60]
        super().__init__(f"{field}={shown}: {allowed}", field=field, value=shown, allowed=allowed)


class SizeError(RequestError):
    code = "bad_size"

    def __init__(self, width: int, height: int, multiple: int, low: int, high: int) -> None:
        detail = f"{width}x{height}: sides must be multiples of {multiple} from {low} to {high}"
        super().__init__(detail, width=width, height=height, multiple=multiple, low=low, high=high)


class PromptError(RequestError):
    code = "empty_prompt"


class TooManyWeights(RequestError):
    code = "too_many_weights"

    def __init__(self, count: int, most: int) -> None:
        super().__init__(f"{count} different weights, {most} at most", count=count, most=most)


class PresetRefused(RequestError):
    """`field`: of its file."""

    code = "bad_preset"

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}", field=field, why=why)


class NotFoundError(StudioError):
    code = "not_found"

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"no {what} named {name[:80]!r}", what=what, name=name[:80])


class NotDownloaded(NotFoundError):
    code = "not_downloaded"


class LoginNeeded(StudioError):
    code = "login_needed"


class TokenNeeded(LoginNeeded):
    code = "token_needed"


class FolderAway(StudioError):
    code = "folder_away"


class OwnerOnly(StudioError):
    code = "owner_only"


class LinkEnded(StudioError):
    code = "link_ended"

    def __init__(self) -> None:
        super().__init__("another one has used the link, or its time is over")


class ImageError(StudioError):
    """`why`: what is the matter with the file, and what to do with it; a phrase of the program's."""

    code = "bad_image"


class ImageTooLarge(ImageError):
    code = "image_too_large"


class ImageTooSlow(ImageError):
    code = "image_too_slow"


class FileTooLarge(ImageError):
    code = "file_too_large"

    def __init__(self, size: int, limit: int) -> None:
        size_mb, limit_mb = math.ceil(size / 1e6), round(limit / 1e6)
        super().__init__(f"{size_mb} MB, {limit_mb} at most", size_mb=size_mb, limit_mb=limit_mb)


class NoFaceError(StudioError):
    code = "no_face"


class FacesTurned(NoFaceError):
    """`turn`: by how many degrees clockwise they are upright."""

    code = "faces_turned"

    def __init__(self, turn: int) -> None:
        super().__init__(f"no face is upright; turned clockwise by {turn} degrees some are", turn=turn)


class BundleError(StudioError):
    code = "bad_bundle"


class LoraError(StudioError):
    code = "bad_lora"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"LoRA {name}: {why}", lora=name, why=why)


class EngineError(StudioError):
    code = "engine_failed"


class OutOfMemory(EngineError):
    code = "out_of_memory"


class EngineUnavailable(EngineError):
    code = "engine_unavailable"


class BlankPicture(EngineError):
    code = "blank_picture"


def engine_failed(engine: str, label: str, exc: Exception) -> EngineError:
    """Return what a library has raised as ours. `label`: of what it was at work on."""
    kind = OutOfMemory if isinstance(exc, MemoryError) or NO_MEMORY.search(str(exc)) else EngineError
    return kind(f"{engine}: {label}: {exc}", engine=engine)


class MemoryShort(StudioError):
    code = "memory_short"

    def __init__(self, bundle: str, needed_gb: float, budget_gb: float) -> None:
        needed, budget = round(needed_gb, 1), round(budget_gb, 1)
        super().__init__(
            f"{bundle} needs {needed} GB of memory, {budget} are there", needed_gb=needed, budget_gb=budget
        )


class PartAway(StudioError):
    """`role`: the part's; `machine`: where STUDIO_PARTS says that it is."""

    code = "part_away"

    def __init__(self, role: str, machine: str, why: str) -> None:
        super().__init__(f"{role} from {machine}: {why}", role=role, machine=machine, why=why)


class PartRefused(PartAway):
    code = "part_refused"


class DownloadError(StudioError):
    code = "download_failed"


class HubUnreachable(DownloadError):
    """`hub`: the name of who was asked, the hub, where it points, or a proxy."""

    code = "hub_unreachable"


class DownloadBroken(DownloadError):
    code = "download_broken"


class StorageError(StudioError):
    code = "storage_failed"


class DatabaseDamaged(StorageError):
    """The next start repairs it."""

    code = "database_damaged"


class QueueFull(StudioError):
    """`usual_s`: how long a job takes; by then one may be through."""

    code = "queue_full"

    def __init__(self, limit: float, usual_s: float) -> None:
        super().__init__(f"{limit} jobs wait already", limit=limit, retry_s=min(600, max(1, math.ceil(usual_s))))


class PresetsFull(StudioError):
    code = "presets_full"


class JobCancelled(StudioError):
    code = "cancelled"


class JobInterrupted(StudioError):
    code = "interrupted"


class JobPostponed(StudioError):
    code = "postponed"


class JobMoved(StudioError):
    code = "job_moved"
