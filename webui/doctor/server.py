"""Is a server of ours at work in this home, and how is it? Is the port free?"""

from __future__ import annotations

import fcntl
import json
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import BaseHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from webui.doctor import Line

ANSWER_S = 5.0
# What webui/__main__.py writes into the lock, and webui/watch, which has no port.
SIGNED = re.compile(r"process (\d+) on (\S+), (?:port (\d+)(, https)?|watch)")
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
AUTHORITY = Path("tls", "authority.pem")  # in state/, of webui/certificates.py
SOON = "worker_loading"  # a reason that goes by itself


@dataclass(frozen=True)
class Holder:
    """Who works in a home; zeros where the lock does not say, as a server begins."""

    process: int
    machine: str
    port: int
    https: bool = False


@dataclass(frozen=True)
class Readiness:
    """What a server answers: its status as HTTP has it, and reasons, each a code and a sentence."""

    status: int
    reasons: tuple[tuple[str, str], ...]


def holder(lock: Path) -> Holder | None:
    """Return who has the lock of a home; None: nobody, or it is not ours to read."""
    try:
        with lock.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a moment: a server that begins tries for longer
    except BlockingIOError:
        signed = SIGNED.search(lock.read_text(encoding="utf-8"))
        return Holder(int(signed[1]), signed[2], int(signed[3] or 0), bool(signed[4])) if signed else Holder(0, "", 0)
    except OSError:
        return None
    return None


def port(host: str, number: int, held: Holder | None) -> Line:
    if held and held.port == number:
        return Line("ok", f"端口 {number} 由本程序使用", f"port {number} is this program's own server's")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, number), family=family).close()
    except OSError as exc:
        return Line(
            "error",
            f"端口 {number}({host})不能用:{exc.strerror};请换 STUDIO_PORT,或看看是谁:ss -ltnp",
            f"port {number} on {host} cannot be had: {exc.strerror}; choose another STUDIO_PORT, or see who has it: "
            "ss -ltnp",
        )
    return Line("ok", f"端口 {number} 空闲", f"port {number} is free")


def serving(host: str, held: Holder | None, authority: Path) -> Line:
    """Ask the server that works here how it is. `authority`: as `ask` has it."""
    if held is None:
        return Line("ok", "程序没有在运行", "no server is at work in this home")
    if not held.port or held.machine != socket.gethostname():
        return Line(
            "warning",
            f"数据文件夹正被使用(进程 {held.process},{held.machine or '本机'}),没有问到它",
            f"the home is in use (process {held.process} on {held.machine or 'this machine'}), which was not asked",
        )
    url = url_of(host, held, "/readyz")
    try:
        zh, en = ask(url, "zh", authority), ask(url, "en", authority)
    except (OSError, ValueError) as exc:  # URLError among them; what answers is no server of ours
        return Line(
            "error",
            f"进程 {held.process} 在端口 {held.port} 没有回答({exc}):正在启动,或已卡死",
            f"process {held.process} does not answer on port {held.port} ({exc}): it is starting, or hangs",
        )
    return _line(held, zh, en)


def _line(held: Holder, zh: Readiness, en: Readiness) -> Line:
    secure = ", https" if held.https else ""
    if en.status == 200:
        return Line(
            "ok",
            f"程序正在运行,可以接活(进程 {held.process}){secure}",
            f"the server is at work and ready (process {held.process}){secure}",
        )
    soon = bool(en.reasons) and all(code == SOON for code, _ in en.reasons)
    return Line(
        "warning" if soon else "error",
        f"程序正在运行(进程 {held.process}),还不能接活:{_sentences(zh.reasons) or zh.status}",
        f"the server is at work (process {held.process}) and not ready: {_sentences(en.reasons) or en.status}",
    )


def url_of(host: str, held: Holder, path: str) -> str:
    """Return an address of the server on this machine. `host`: what it listens on."""
    address = EVERYWHERE.get(host, host)
    return f"http{'s' * held.https}://{f'[{address}]' if ':' in address else address}:{held.port}{path}"


def ask(url: str, language: str, authority: Path) -> Readiness:
    """
    `authority`: a file in PEM; by whom the server's certificate must be signed, where it serves https. OSError: nobody
    answers, or with another certificate. ValueError: what answers is no JSON.
    """
    request = Request(url, headers={"Accept-Language": language, "Host": "localhost"})
    handlers: list[BaseHandler] = [ProxyHandler({})]  # no proxy: it is here
    if url.startswith("https:"):
        handlers.append(HTTPSHandler(context=ssl.create_default_context(cafile=authority)))
    try:
        with build_opener(*handlers).open(request, timeout=ANSWER_S) as answer:
            return Readiness(answer.status, ())
    except HTTPError as exc:
        with exc:
            body = json.loads(exc.read())
        reasons = body.get("reasons", ()) if isinstance(body, dict) else ()
        return Readiness(exc.code, tuple((reason["code"], reason["message"]) for reason in reasons))


def _sentences(reasons: Sequence[tuple[str, str]]) -> str:
    return " ".join(sentence for _, sentence in reasons)
