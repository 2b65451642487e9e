"""
Hubs that hold models: which files a repository has, how long each is and what it hashes to, and their bytes. The
border to huggingface_hub, ModelScope and HTTP; their errors end here. Where files go is fetch.py's.

No token is sent, to nobody: every model of the catalogue is public, and a mirror is a stranger.
"""

from __future__ import annotations

import errno
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from engines.catalogue import Model, Piece
from engines.errors import DownloadError, StudioError
from engines.messages.status import Mirror

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
ANSWER_S = 3.0  # for a hub to say what it has: with the start of a process, who asks hears of it within 5 s
SILENCE_S = 30.0  # in the middle of a file, where patience costs nobody anything
CHUNK = 1 << 20
PASSING = (408, 429, *range(500, 600))  # answers that may be others in a moment
MODELSCOPE = "https://modelscope.cn"
INSTALL = "未安装 ModelScope:pip install modelscope_hub。 ModelScope is not installed: pip install modelscope_hub."


class Broken(Exception):
    """The connection failed, not the request: worth another try. `why` is a phrase of this program."""

    def __init__(self, why: str, host: str = "") -> None:
        super().__init__(f"{host}: {why}" if host else why)
        self.why, self.host = why, host


class Unreachable(Broken):
    """Nobody answers at that address, or nobody can be asked: no better in a moment."""


@dataclass(frozen=True)
class Remote:
    """A file of a hub. `path` is its place in the model's folder; `digest` is sha256, or git's for small files."""

    path: str
    url: str
    size: int
    digest: str

    def agrees(self, file: Path) -> bool:
        """Tell whether a file on disk holds these bytes."""
        if not file.is_file() or file.stat().st_size != self.size:
            return False
        checksum = hashlib.sha256() if len(self.digest) == 64 else hashlib.sha1(b"blob %d\0" % self.size)
        with file.open("rb") as f:
            while chunk := f.read(CHUNK):
                checksum.update(chunk)
        return checksum.hexdigest() == self.digest


def listing(model: Model, mirror: Mirror, endpoint: str = "", answer_s: float = ANSWER_S) -> tuple[Remote, ...]:
    """
    List the files of a model. `endpoint` is the address of a hub that stands in for huggingface.co; `answer_s` is the
    longest that a hub may take to list a repository. Broken. DownloadError: this hub does not have them, or not as the
    catalogue expects.
    """
    if mirror not in model.mirrors:
        raise _failed(model, f"{mirror} does not have it")
    pieces = [piece for piece in model.pieces if piece.at(mirror)]
    return tuple(remote for piece in pieces for remote in _chosen(model, piece, mirror, endpoint, answer_s))


def _chosen(model: Model, piece: Piece, mirror: Mirror, endpoint: str, answer_s: float) -> Iterator[Remote]:
    repository = piece.at(mirror)
    if mirror == "hf":
        ask, host = _hugging_face(model, repository, endpoint), _host(endpoint or _hugging_face_itself())
    else:
        ask, host = _modelscope(model, repository), _host(MODELSCOPE)
    files = _in_time(ask, answer_s, host)
    for pattern in piece.files:
        matching = [file for file in files if fnmatchcase(file.path, pattern)]
        if not matching:
            raise _failed(model, f"{repository} has no {pattern}")
        for file in matching:
            yield Remote(_inside(model, piece.into, file.path), file.url, file.size, file.digest)


def _in_time(work: Callable[[], T], limit_s: float, host: str) -> T:
    """
    Return what the work returns. Unreachable: it takes longer, and is left to itself. No time-out of a library bounds
    the look-up of a name, or an answer that comes drop by drop.
    """
    results: list[T] = []
    failures: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except (Broken, StudioError) as exc:
            failures.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        raise Unreachable("it does not answer", host)
    if failures:
        raise failures[0]
    return results[0]


def _host(url: str) -> str:
    """Return the host of an address, without the port, and without the password that a proxy's may hold."""
    return urlsplit(url).hostname or ""


def _hugging_face_itself() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _inside(model: Model, into: str, path: str) -> str:
    """Keep a stranger's file name within the model's folder, where it hides nothing. DownloadError: it leads out."""
    if any(step == ".." or step.startswith((".", "/")) for step in PurePosixPath(path).parts) or "\\" in path:
        raise _failed(model, f"unsafe file name {path[:80]}")
    return str(PurePosixPath(into) / path)


def _hugging_face(model: Model, repository: str, endpoint: str) -> Callable[[], list[Remote]]:
    """Return what asks a hub; its library is imported by then, which takes a while on a busy machine."""
    import httpx2
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    address = endpoint.rstrip("/") or None
    _session()
    hub = HfApi(endpoint=address, token=False)

    def ask() -> list[Remote]:
        try:
            info = hub.model_info(repository, files_metadata=True, timeout=ANSWER_S, token=False)
            return [
                Remote(
                    file.rfilename,
                    hf_hub_url(repository, file.rfilename, revision=info.sha, endpoint=address),
                    int(file.size or 0),
                    str(file.lfs.sha256 if file.lfs else file.blob_id),
                )
                for file in info.siblings or ()
            ]
        except HfHubHTTPError as exc:
            raise _refused(model, exc.response.status_code) from exc
        except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
            raise _lost(exc, address or _hugging_face_itself()) from exc
        except (ValueError, LookupError, TypeError) as exc:  # something answers there, but no hub
            raise _failed(model, f"{address or _hugging_face_itself()} does not answer as a hub") from exc

    return ask


def _modelscope(model: Model, repository: str) -> Callable[[], list[Remote]]:
    """Return the same for a repository of ModelScope, whose library tells the sha256 of every file."""
    try:
        from modelscope_hub.api import HubApi
        from modelscope_hub.errors import HubError, NetworkError, NotExistError
    except ImportError as exc:
        why = "ModelScope is not installed: pip install modelscope_hub"
        raise DownloadError(INSTALL, model=model.id, why=why) from exc

    def ask() -> list[Remote]:
        try:
            hub = HubApi(token="")
            address = partial(hub.legacy.get_download_url, repository, "model")
            return [
                Remote(file.path, address(file.path), file.size, str(file.sha256))
                for file in hub.list_repo_files(repository, "model")
                if file.type != "tree"
            ]
        except NotExistError as exc:
            raise _failed(model, f"{repository} is not there") from exc
        except (NetworkError, OSError) as exc:  # what `requests` raises are OSErrors
            raise _lost(exc, MODELSCOPE) from exc
        except (HubError, ValueError, LookupError, TypeError, AttributeError) as exc:
            raise _failed(model, "ModelScope does not answer as a hub") from exc

    return ask


@contextmanager
def opened(model: Model, url: str, start: int, silence_s: float = SILENCE_S) -> Iterator[tuple[int, Iterator[bytes]]]:
    """
    Open a file at a position, and yield where the answer begins, which is 0 if the hub knows no ranges, and its bytes
    as they come. Broken: also after `silence_s` without any. DownloadError: the hub refuses.
    """
    import httpx2

    timeout = httpx2.Timeout(silence_s, connect=ANSWER_S)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        with _session().stream("GET", url, headers=headers, timeout=timeout) as response:
            if response.status_code >= 400:
                raise _refused(model, response.status_code)
            yield start if response.status_code == 206 else 0, response.iter_raw()
    except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
        raise _lost(exc, url) from exc


def _session() -> httpx2.Client:
    """Return huggingface_hub's client, which reads the proxies of the environment. Unreachable: they are unusable."""
    from huggingface_hub import get_session

    try:
        return get_session()
    except (ImportError, ValueError) as exc:  # SOCKS wants a library of its own; an address that is none
        raise Unreachable("the proxy that is set cannot be used", _host(_proxy("https") or _proxy("http"))) from exc


def _lost(exc: Exception, url: str) -> Broken:
    """Say why nothing comes from there: by what the system said, under what libraries have made of it."""
    url = _asked(exc) or url  # an answer may have led elsewhere
    host, scheme = _host(url), urlsplit(url).scheme
    causes = list(_causes(exc))
    nobody = next(filter(None, map(_nobody, causes)), "")
    if (proxy := _proxy(scheme)) and not proxy_bypass(host):
        lost = any("Proxy" in type(cause).__name__ or isinstance(cause, ssl.SSLError) for cause in causes)
        if nobody or lost or "Protocol" in type(exc).__name__:
            why = "the proxy does not answer" if nobody else "the proxy gives no sensible answer"
            return Unreachable(why, _host(proxy))
    if nobody:
        return Unreachable(nobody, host)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return Unreachable("no secure connection", host)
    return Broken("the connection broke", host)


def _asked(exc: Exception) -> str:
    """Return the address that an error of httpx2 is about; empty: it names none."""
    try:
        return str(exc.request.url)  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):
        return ""


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def _nobody(exc: BaseException) -> str:
    """Say why there was no connection, in the phrases of this program; empty: this does not tell."""
    match exc:
        case socket.gaierror():
            return "its name is not found"
        case PermissionError():
            return "connections to it are not allowed"
        case ConnectionRefusedError():
            return "it refuses the connection"
        case TimeoutError():
            return "it does not answer"
        case OSError(errno=errno.ENETUNREACH | errno.EHOSTUNREACH | errno.ENETDOWN):
            return "no network leads there"
    return ""


def _proxy(scheme: str) -> str:
    """Return the proxy that the environment names for such addresses; empty: none."""
    proxies = getproxies()
    return proxies.get(scheme) or proxies.get("all", "")


def _refused(model: Model, status: int) -> Exception:
    return Broken(f"it is busy, HTTP {status}") if status in PASSING else _failed(model, f"HTTP {status}")


def _failed(model: Model, why: str) -> DownloadError:
    return DownloadError(f"{model.id} 无法下载 cannot be downloaded: {why}", model=model.id, why=why)
