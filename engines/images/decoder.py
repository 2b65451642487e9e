"""
Strangers' files are decoded in a process of their own, `python -m engines.images.decoder`: one that crashes a decoder,
or would keep it busy for minutes, ends that process, and no models have to be loaded again.

The process starts with the first picture and stays for the next one; the end of its standard input is its own end. It
is asked by a line of JSON, [how, path, seconds, more], and answers with another, after which come the bytes of what was
read.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from engines import images
from engines.errors import EngineError, ImageError, ImageTooLarge, ImageTooSlow, OutOfMemory, StudioError
from engines.images import Photo, Pixels, causes
from engines.images.opening import MAX_MEGAPIXELS
from engines.images.scaling import Scaling, scaled
from engines.settings.installation import PROJECT

T = TypeVar("T")
COMMAND = (sys.executable, "-m", "engines.images.decoder")
DECODE_S = 8.0  # of processor time; phones' largest photos take two on a desktop
MOST_BYTES = 2 << 30  # of memory: 50 megapixels take half of it at most, whatever the format
# glibc's threshold, from which memory goes back to the system at once, rises if it is left alone until 200 MB of a
# photo stay; the memory of OpenBLAS's threads would count.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "OPENBLAS_NUM_THREADS": "1"}
PIPE_BYTES = 1 << 20
MOST_PROFILE_BYTES = MOST_SCALED_BYTES = 1 << 24
END_S = 1.0  # for a process that has closed its end to be gone
READY = b"ready\n"


class Decoder:
    """`limit_s` seconds of processor time are there for a picture. Any thread may ask; one at a time is answered."""

    def __init__(self, limit_s: float = DECODE_S, command: Sequence[str] = COMMAND) -> None:
        self.limit_s, self.command = limit_s, command
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def read(self, path: Path) -> Pixels:
        """As images.read; ImageError too if a file crashes the decoder, ImageTooSlow; EngineError: none starts."""
        return self._ask("read", path, _received).pixels

    def read_photo(self, path: Path) -> Photo:
        """As images.read_photo, and as read."""
        return self._ask("read_photo", path, _received)

    def scaled(self, path: Path, how: Scaling) -> bytes:
        """Return the file of a picture for a screen, as scaling.scaled, and as read."""
        return self._ask("scaled", path, _received_file, asdict(how))

    @property
    def pid(self) -> int | None:
        """The process that decodes; None: none does yet, or the last one has ended."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def close(self) -> None:
        """End the process. The next picture begins another."""
        with self._lock:
            if self._child is not None:
                self._end_of(self._child)

    def _ask(
        self,
        how: str,
        path: Path,
        received: Callable[[dict[str, Any], IO[bytes]], T],
        more: Mapping[str, Any] | None = None,
    ) -> T:
        with self._lock:
            if self.pid is None:
                self._child = self._begun()
            child = self._child
            assert child is not None and child.stdin is not None and child.stdout is not None  # they were asked for
            try:
                child.stdin.write(json.dumps([how, str(path.absolute()), self.limit_s, more]).encode() + b"\n")
                answer = json.loads(child.stdout.readline())
                _raise_what_it_is(answer)
                return received(answer, child.stdout)
            except (OSError, EOFError, ValueError, LookupError, TypeError) as exc:  # of its answer there is half, or
                raise self._end_of(child) from exc  # it is none
            except MemoryError:  # here, with the rest of it still to come
                self._end_of(child)
                raise

    def _begun(self) -> subprocess.Popen[bytes]:
        try:
            child = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pipesize=PIPE_BYTES,
                cwd=PROJECT,
                env={**os.environ, **MEMORY},
            )
        except OSError as exc:
            detail = f"no process to decode pictures can be started: {exc.strerror}"
            raise EngineError(detail, engine="decoder") from exc
        assert child.stdout is not None  # it was asked for
        if child.stdout.readline() != READY:
            with child:
                child.kill()
            raise EngineError(f"the process to decode pictures ends at once ({child.returncode})", engine="decoder")
        return child

    def _end_of(self, child: subprocess.Popen[bytes]) -> StudioError:
        """Say why a process has ended, and end one that has not."""
        with child:  # which closes what leads to it
            assert child.stdin is not None  # it was asked for
            child.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                child.wait(END_S)
            killed, self._child = child.poll() == -signal.SIGKILL, None
            child.kill()
        status = child.returncode
        if killed:  # the picture is not to blame, and may be tried again with more memory
            return OutOfMemory("the process that decodes pictures was killed", engine="decoder")
        if status == -signal.SIGXCPU:
            return ImageTooSlow(f"to decode it takes more than {self.limit_s:g} s", limit=round(self.limit_s))
        return ImageError(f"the picture ends the process that decodes it ({status})", why=causes.CRASHES)


SHARED = Decoder()  # of a process, for whoever has no other


def _raise_what_it_is(answer: dict[str, Any]) -> None:
    """Raise the error that an answer is, if it is one."""
    if "error" in answer:
        error = ImageTooLarge if answer["error"] == ImageTooLarge.__name__ else ImageError
        raise error(str(answer["detail"]), **answer["facts"])


def _received(answer: dict[str, Any], source: IO[bytes]) -> Photo:
    """Read what an answer announces. It comes from where strangers' files have been: ValueError, if it is too much."""
    height, width = int(answer["height"]), int(answer["width"])
    if height < 1 or not 0 < height * width <= MAX_MEGAPIXELS * 1e6:
        raise ValueError(f"a picture of {width}x{height}")
    pixels = _filled(np.empty((height, width, 3), np.uint8), source)
    alpha = _filled(np.empty((height, width), np.uint8), source) if answer["alpha"] else None
    if not 0 <= (size := int(answer["profile"])) <= MOST_PROFILE_BYTES:
        raise ValueError(f"a profile of {size} bytes")
    profile = _filled(np.empty(size, np.uint8), source).tobytes()
    missing = min(1.0, max(0.0, float(answer["missing"])))
    return Photo(pixels, alpha, profile, bool(answer["grey"]), str(answer["taken"]), missing)


def _received_file(answer: dict[str, Any], source: IO[bytes]) -> bytes:
    """As _received."""
    if not 0 < (size := int(answer["bytes"])) <= MOST_SCALED_BYTES:
        raise ValueError(f"a file of {size} bytes")
    return _filled(np.empty(size, np.uint8), source).tobytes()


def _filled(array: Pixels, source: IO[bytes]) -> Pixels:
    rest = array.data.cast("B")
    while rest:
        count = source.readinto(rest)  # type: ignore[attr-defined]  # of a pipe, unbuffered
        if not count:
            raise EOFError
        rest = rest[count:]
    return array


def _answered(how: str, path: Path, more: dict[str, Any]) -> tuple[dict[str, Any], list[memoryview]]:
    """What to say of a file, and the bytes that follow."""
    try:
        if how == "scaled":
            data = scaled(path, Scaling(**more))
            return {"bytes": len(data)}, [memoryview(data)]
        photo = images.read_photo(path) if how == "read_photo" else Photo(images.read(path))
    except ImageError as exc:
        return {"error": type(exc).__name__, "detail": str(exc), "facts": exc.facts}, []
    except MemoryError:
        detail = f"to decode it takes more than {MOST_BYTES >> 30} GB of memory"
        return {"error": ImageError.__name__, "detail": detail, "facts": {"why": causes.NO_ROOM}}, []
    height, width = photo.pixels.shape[:2]
    facts = {"alpha": photo.alpha is not None, "profile": len(photo.profile), "grey": photo.grey, "taken": photo.taken}
    facts["missing"] = photo.missing
    arrays = [photo.pixels] if photo.alpha is None else [photo.pixels, photo.alpha]
    pieces = [np.ascontiguousarray(array).data.cast("B") for array in arrays]
    return {"height": height, "width": width, **facts}, [*pieces, memoryview(photo.profile)]


def serve() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    for number in (signal.SIGINT, signal.SIGTERM):  # who has started this says when to stop
        signal.signal(number, signal.SIG_IGN)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, MOST_BYTES)
    answers.write(READY)
    for line in sys.stdin:
        how, path, seconds, more = json.loads(line)
        spent = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(spent.ru_utime + spent.ru_stime + seconds) + 1)  # SIGXCPU ends it there
        answer, pieces = _answered(how, Path(path), more or {})
        for piece in (memoryview(json.dumps(answer).encode() + b"\n"), *pieces):
            while piece:
                piece = piece[answers.write(piece) :]
        del pieces, piece  # 200 MB, which the other process has now


def _limit(kind: int, value: int) -> None:
    """Where a system or who has started this allows less, that stays."""
    with suppress(OSError, ValueError):
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # who asked has ended
        serve()
