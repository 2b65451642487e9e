"""
Hubs that hold models: which files a repository has, how long each is and what it hashes to, and their bytes. The
border to huggingface_hub, ModelScope and HTTP; their errors end here. Where files go is fetch.py's.

No token is sent, to nobody: every model of the catalogue is public, and a mirror is a stranger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from engines.catalogue import Model, Piece
from engines.errors import DownloadError
from engines.messages.status import Mirror

TIMEOUT_S = 30.0
CHUNK = 1 << 20
PASSING = (408, 429, *range(500, 600))  # answers that may be others in a moment
INSTALL = "未安装 ModelScope:pip install modelscope_hub。 ModelScope is not installed: pip install modelscope_hub."


class Broken(Exception):
    """The connection failed, not the request: worth another try."""


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


def listing(model: Model, mirror: Mirror, endpoint: str = "") -> tuple[Remote, ...]:
    """
    List the files of a model. `endpoint` is the address of a hub that stands in for huggingface.co. Broken.
    DownloadError: this hub does not have them, or not as the catalogue expects.
    """
    if mirror not in model.mirrors:
        raise _failed(model, f"{mirror} does not have it")
    pieces = [piece for piece in model.pieces if piece.at(mirror)]
    return tuple(remote for piece in pieces for remote in _chosen(model, piece, mirror, endpoint))


def _chosen(model: Model, piece: Piece, mirror: Mirror, endpoint: str) -> Iterator[Remote]:
    repository = piece.at(mirror)
    files = _hugging_face(model, repository, endpoint) if mirror == "hf" else _modelscope(model, repository)
    for pattern in piece.files:
        matching = [file for file in files if fnmatchcase(file.path, pattern)]
        if not matching:
            raise _failed(model, f"{repository} has no {pattern}")
        for file in matching:
            yield Remote(_inside(model, piece.into, file.path), file.url, file.size, file.digest)


def _inside(model: Model, into: str, path: str) -> str:
    """Keep a stranger's file name within the model's folder, where it hides nothing. DownloadError: it leads out."""
    if any(step == ".." or step.startswith((".", "/")) for step in PurePosixPath(path).parts) or "\\" in path:
        raise _failed(model, f"unsafe file name {path[:80]}")
    return str(PurePosixPath(into) / path)


def _hugging_face(model: Model, repository: str, endpoint: str) -> list[Remote]:
    import httpx2
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    address = endpoint.rstrip("/") or None
    try:
        hub = HfApi(endpoint=address, token=False)
        info = hub.model_info(repository, files_metadata=True, timeout=TIMEOUT_S, token=False)
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
        raise Broken(str(exc) or type(exc).__name__) from exc
    except (ValueError, LookupError, TypeError) as exc:  # something answers there, but no hub
        raise _failed(model, f"{address or 'the hub'} does not answer as a hub") from exc


def _modelscope(model: Model, repository: str) -> list[Remote]:
    """List a repository of ModelScope, whose library tells the sha256 of every file."""
    try:
        from modelscope_hub.api import HubApi
        from modelscope_hub.errors import HubError, NetworkError, NotExistError
    except ImportError as exc:
        why = "ModelScope is not installed: pip install modelscope_hub"
        raise DownloadError(INSTALL, model=model.id, why=why) from exc
    try:
        hub = HubApi(token="")
        return [
            Remote(file.path, hub.legacy.get_download_url(repository, "model", file.path), file.size, str(file.sha256))
            for file in hub.list_repo_files(repository, "model")
            if file.type != "tree"
        ]
    except NotExistError as exc:
        raise _failed(model, f"{repository} is not there") from exc
    except (NetworkError, OSError) as exc:  # what `requests` raises are OSErrors
        raise Broken(str(exc)) from exc
    except (HubError, ValueError, LookupError, TypeError, AttributeError) as exc:
        raise _failed(model, "ModelScope does not answer as a hub") from exc


@contextmanager
def opened(model: Model, url: str, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    """
    Open a file at a position, and yield where the answer begins, which is 0 if the hub knows no ranges, and its bytes
    as they come. Broken. DownloadError: the hub refuses.
    """
    import httpx2
    from huggingface_hub import get_session

    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S) as response:
            if response.status_code >= 400:
                raise _refused(model, response.status_code)
            yield start if response.status_code == 206 else 0, response.iter_raw()
    except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
        raise Broken(str(exc) or type(exc).__name__) from exc


def _refused(model: Model, status: int) -> Exception:
    return Broken(f"HTTP {status}") if status in PASSING else _failed(model, f"HTTP {status}")


def _failed(model: Model, why: str) -> DownloadError:
    return DownloadError(f"{model.id} 无法下载 cannot be downloaded: {why}", model=model.id, why=why)
