"""`./run.sh app [--stop | --install | --uninstall]`: says what was opened, and what goes on when it is closed."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import webbrowser
from collections.abc import Sequence

from engines.errors import StorageError
from engines.jobs import counts
from engines.settings import Settings, SettingsError
from engines.settings.installation import COMMAND, called
from webui.banner import local_url, say_addresses
from webui.desktop import APP_ID, Unavailable, launcher, serving, window
from webui.desktop.serving import Server

STOP = f"停止 Stop: {COMMAND} app --stop"
NOTIFY_S = 5.0


def main(arguments: Sequence[str]) -> int:
    os.umask(0o077)  # as the server's
    asked = _parser().parse_args(arguments)
    try:
        settings = Settings.load(os.environ)
        if asked.install or asked.uninstall:
            return _menu(asked.install)
        if asked.stop:
            return _stop(settings)
        return _open(settings)
    except (SettingsError, Unavailable) as exc:
        _say(f"✗ {exc}", error=True)
    except KeyboardInterrupt:
        _say(f"  {STOP}")
        return 130
    except OSError as exc:
        _say(f"✗ {exc.filename or settings.home}: {exc.strerror}", error=True)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"{COMMAND} app", description=called(__doc__ or ""))
    verbs = parser.add_mutually_exclusive_group()
    verbs.add_argument("--stop", action="store_true", help="停止程序 · stop the server")
    verbs.add_argument("--install", action="store_true", help="加到应用菜单 · add it to the menu of the desktop")
    verbs.add_argument("--uninstall", action="store_true", help="从应用菜单移除 · remove it from there")
    return parser


def _menu(install: bool) -> int:
    if sys.platform == "darwin":
        raise Unavailable(
            f"macOS 没有这种应用菜单:请直接运行 {COMMAND} app · there is no such menu on macOS: run {COMMAND} app"
        )
    if install:
        files, what = launcher.install(os.environ), "已加入应用菜单 · it is in the menu now"
    else:
        files = launcher.uninstall(os.environ)
        what = "已从应用菜单移除 · removed from the menu" if files else "菜单里没有它 · it was not in the menu"
    print("\n  ".join([f"✓ {what}", *map(str, files)]))
    return 0


def _stop(settings: Settings) -> int:
    process = serving.stop(settings)
    if process:
        _say(
            f"✓ 已停止,没做完的任务下次启动后接着做 · stopped; what was not done goes on at the next start ({process})"
        )
    else:
        _say("✓ 程序没有在运行 · no server is at work in this home")
    return 0


def _open(settings: Settings) -> int:
    server = serving.find_or_start(settings)
    url = local_url(settings, server.port, server.https)
    if not window.has_display(os.environ):
        say_addresses(settings, server.port, server.https)
        print("  这里没有显示器,请在浏览器里打开上面的地址 · no display here: open the address in a browser")
        print(f"  {STOP}\n")
        return 0
    print(f"  {url}\n  {STOP}", flush=True)
    try:
        closed = window.show(url, settings.state)
    except Unavailable as exc:
        _open_elsewhere(url, exc)
    else:
        beside = "✓ 已在开着的窗口旁再开一个 · opened beside the window that is open"
        _say(_farewell(settings, server) if closed else beside)
    return 0


def _open_elsewhere(url: str, why: Unavailable) -> None:
    try:
        opened = webbrowser.open(url)
    except webbrowser.Error:
        opened = False
    what = "已用默认浏览器打开" if opened else "默认浏览器也打不开,请自己打开"
    english = "opened in the default one" if opened else "nor does the default one open it: do so yourself"
    _say(f"! {why}\n  {what} · {english}: {url}\n  关掉它任务照做 · jobs outlive it. {STOP}")


def _farewell(settings: Settings, server: Server) -> str:
    """Say what goes on now that the window is closed."""
    if serving.find(settings) is None:
        log = serving.start_log(settings)
        return f"! 窗口已关闭,程序也停了 · the window is closed, and the server has stopped too: {log}"
    try:
        left = counts.unfinished(settings.state / "jobs.db")
    except StorageError as exc:
        zh, en = f"任务数读不到({exc})", f"how many jobs there are cannot be read ({exc})"
    else:
        running, waiting = left["running"], left["queued"]
        zh = f"{running} 个任务在做,{waiting} 个在排队,都不受影响" if left else "没有未完成的任务"
        en = f"{running} running and {waiting} waiting jobs are not touched by that" if left else "no job is unfinished"
    again = f"再次打开 Open it again: {COMMAND} app, {local_url(settings, server.port, server.https)}"
    return f"✓ 窗口已关闭,程序仍在运行:{zh} · the window is closed, the studio goes on: {en}\n  {again}\n  {STOP}"


def _say(text: str, error: bool = False) -> None:
    """Print it; who has started this from a menu sees no terminal, but what the desktop shows."""
    print(text, file=sys.stderr if error else sys.stdout, flush=True)
    notify = shutil.which("notify-send")
    if notify and not sys.stdout.isatty() and window.has_display(os.environ):
        try:
            subprocess.run([notify, f"--icon={APP_ID}", "人像工作室", text], timeout=NOTIFY_S, capture_output=True)
        except (OSError, subprocess.TimeoutExpired) as exc:
            print(f"notify-send: {exc}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
