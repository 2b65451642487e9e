"""`./run.sh update FILE|FOLDER`, `./run.sh rollback`: what is done is said, and where the log is if it fails."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from engines.settings import SettingsError
from engines.settings.installation import PROJECT
from webui.update import NotDone, release, report, service
from webui.update.change import Change, Home
from webui.update.installation import VENV, VENVS, Installation

WAIT_S = 300.0  # models are read from a memory card
INSTALLED_BYTES = {"edge": 900_000_000, "full": 4_000_000_000}  # of the packages, where none can be measured
SPARE_BYTES = 300_000_000  # pip unpacks, the system goes on


def main(arguments: Sequence[str]) -> int:
    os.umask(0o022)  # a service reads what root installs; the databases are copied by a process with its own
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # who closes the terminal has not said no
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    wheelhouse = os.environ.pop("STUDIO_WHEELHOUSE", "")  # of run.sh, and no setting of the program's
    asked = _parser().parse_args(arguments)
    place = Installation(asked.root.absolute()) if asked.root else Installation.of(PROJECT)
    try:
        with place.alone():
            if at := place.interrupted():
                report(f"! 上次更新在这一步被打断 · the last update was interrupted at: {at}")
            if asked.verb == "rollback":
                _rollback(place, asked.wait)
            else:
                _update(place, asked, wheelhouse)
    except KeyboardInterrupt:
        report("✗ 已中断,什么都没有改 · interrupted, and nothing was changed")
        return 130
    except (NotDone, SettingsError) as exc:
        report(f"✗ {exc}")
        return 1
    except OSError as exc:
        report(f"✗ {exc.filename or place.root}: {exc.strerror}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)  # of an installation that is to be
    verbs = parser.add_subparsers(dest="verb", required=True)
    update = verbs.add_parser("update", description="换成新版本,不行就换回来 · a newer version, or back if it fails")
    update.add_argument("source", type=Path, help="发布包 .tar.gz,或解开的文件夹 · a release, or a folder of one")
    kinds = update.add_mutually_exclusive_group()
    kinds.add_argument("--edge", dest="kind", action="store_const", const="edge", help="不装 PyTorch · no PyTorch")
    update.add_argument("--untried", action="store_true", help=argparse.SUPPRESS)  # in an image: nothing is started
    kinds.add_argument("--full", dest="kind", action="store_const", const="full", help="装 PyTorch · with PyTorch")
    back = verbs.add_parser("rollback", description="换回上一个版本 · the version before this one")
    for verb in (update, back):
        verb.add_argument("--wait", type=float, default=WAIT_S, help="等它可以接活的秒数 · seconds until it can work")
    return parser


def _update(place: Installation, asked: argparse.Namespace, wheelhouse: str) -> None:
    source = release.examine(asked.source.absolute())
    present = place.current
    server = service.of(place, os.environ) if present and not asked.untried else None
    there = place.kind(present) if present else None
    kind = asked.kind or (server.kind if server else "") or there or "full"
    place.prune()
    _check_room(place, source, kind, server)
    folder = place.new(source.version)
    report(f"→ {source.version}: {folder}")
    try:
        place.step(f"unpack {folder.name}")
        release.unpack(source, folder)
        place.step(f"install {folder.name}")
        _install(folder, kind, wheelhouse)
        (folder / VENV).symlink_to(VENVS[kind])
        if server is None:
            place.switch(folder.name)
            place.done()
        else:
            Change(place, server, folder.name, kind, asked.wait).make()
    finally:
        if place.current != folder.name:
            shutil.rmtree(folder, ignore_errors=True)
            place.done()
    place.prune()
    if server is not None and present is not None:
        with suppress(NotDone):  # what is left of older copies is deleted next time
            Home(server).tidy(present)
    _say_done(place, server, source.version)


def _rollback(place: Installation, wait_s: float) -> None:
    present = place.current
    before = place.previous(present) if present else None
    if present is None or before is None:
        raise NotDone("没有上一个版本 · there is no version before this one")
    server, kind = service.of(place, os.environ), place.kind(before)
    if kind is None:
        raise NotDone(f"{place.folder(before)}: 没有安装 · it is not installed")
    report(f"→ {place.folder(before)}")
    Change(place, server, before, kind, wait_s, going_back=True).make()
    _say_done(place, server, str(place.folder(before)))


def _check_room(place: Installation, source: release.Source, kind: str, server: service.Service | None) -> None:
    """NotDone: what is to be written does not fit."""
    present = place.current
    venv = place.folder(present) / VENVS[kind] if present else None
    needed = source.size + SPARE_BYTES + (_size(venv) if venv and venv.is_dir() else INSTALLED_BYTES[kind])
    _fits(place.releases, needed)
    if server is not None and (state := server.settings.state).is_dir():
        with suppress(PermissionError):
            _fits(state, SPARE_BYTES + 3 * sum(path.stat().st_size for path in state.glob("*.db*")))


def _fits(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NotDone(
            f"{folder}: 空间不够,需要 {needed / 1e9:.2f} GB,空闲 {free / 1e9:.2f} GB;什么都没有改"
            f" · not enough room: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free; nothing was changed"
        )


def _size(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.resolve().rglob("*"))


def _install(folder: Path, kind: str, wheelhouse: str) -> None:
    """Install the packages of a release, and have it imported, while the old one goes on. NotDone, OSError."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("STUDIO_")}
    if wheelhouse:
        outside["STUDIO_WHEELHOUSE"] = str(Path(wheelhouse).absolute())
    python = str(folder / VENVS[kind] / "bin" / "python")
    for command in (
        ["bash", "run.sh", "setup", *(["edge"] if kind == "edge" else [])],
        [python, "-c", "import webui.server"],
    ):
        if status := subprocess.run(command, cwd=folder, env=outside, stdin=subprocess.DEVNULL).returncode:
            raise NotDone(f"装不好({status}),旧版本照旧运行 · it cannot be installed ({status}); the old one goes on")


def _say_done(place: Installation, server: service.Service | None, version: str) -> None:
    report(f"✓ {version}")
    if isinstance(server, service.ByHand):
        if server.running:
            report("  程序在后台运行 · it runs in the background. 停止 Stop: ./run.sh app --stop")
        else:
            report("  启动 Start: ./run.sh" + (" edge" if place.kind(place.current or "") == "edge" else ""))
    if place.current and place.previous(place.current):
        report("  换回去 Back: ./run.sh rollback")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
