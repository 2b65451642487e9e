"""
An entry in the menu of a Linux desktop, with its icons, for this user alone. Sources: the Desktop Entry Specification
1.5 and the Icon Theme Specification, freedesktop.org.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from engines.settings import HASHED
from engines.settings.installation import COMMAND, IS_SOURCE, data_folder, root_of
from webui.asset_files import FOLDER as ASSETS
from webui.desktop import APP_ID, Unavailable

ICONS = {"icon.svg": "scalable", "icon-192.png": "192x192", "icon-512.png": "512x512"}
RESERVED = set(" \t\n\"'\\><~|&;$*?#()`")  # what has one of these must be quoted
ENTRY = """\
[Desktop Entry]
Type=Application
Name=AWPortrait Edge
Name[zh_CN]=人像工作室
Name[zh_TW]=人像工作室
Comment=Draw portraits and restore photos on this machine
Comment[zh_CN]=在本机画人像、修照片
Comment[zh_TW]=在本機畫人像、修照片
TryExec={program}
Exec={open}
Icon={icon}
Categories=Graphics;Photography;
StartupNotify=true
StartupWMClass={icon}
Actions=stop;

[Desktop Action stop]
Name=Stop the studio
Name[zh_CN]=停止工作室
Name[zh_TW]=停止工作室
Exec={stop}
"""


def command() -> tuple[str, ...]:
    """Return what starts this installation's command line: a program, and before it what it needs."""
    return ("bash", str(root_of() / "run.sh")) if IS_SOURCE else (str(Path(sys.executable).with_name(COMMAND)),)


def entry(command: Sequence[str], settings: Mapping[str, str]) -> str:
    """Return the entry that starts a command, of which the program is the last word, with these variables set."""
    begin = ["env", *(f"{name}={value}" for name, value in sorted(settings.items()))] if settings else []
    commands = {
        name: _string(" ".join(map(_argument, [*begin, *command, "app", *arguments])))
        for name, arguments in (("open", ()), ("stop", ("--stop",)))
    }
    return ENTRY.format(program=_string(command[-1]), icon=APP_ID, **commands)


def install(env: Mapping[str, str]) -> list[Path]:
    """
    Write the entry, which starts the studio with the settings of now, and the icons; return the files. Unavailable: it
    would hold a password. OSError.
    """
    ours = (name for name in env if name.startswith("STUDIO_") and not name.startswith("STUDIO_TEST_"))
    settings = {name: env[name] for name in ours}
    if not settings.get("STUDIO_PASSWORD", HASHED).startswith(HASHED):
        raise Unavailable(
            f"STUDIO_PASSWORD: 密码不应写进菜单文件,请先用 {COMMAND} password 得到散列,再用它来设置。"
            f" A menu should not hold the password: set its hash instead, by {COMMAND} password."
        )
    if settings.get("STUDIO_MQTT_PASSWORD"):
        raise Unavailable(
            "STUDIO_MQTT_PASSWORD: 密码不应写进菜单文件。请把工作室作为服务运行(docs/systemd.md),或安装菜单时不带它。"
            " A menu should not hold it: run the studio as a service (docs/systemd.md), or install without it."
        )
    menu, *icons = paths(data_folder(env))
    for path in (menu, *icons):
        path.parent.mkdir(parents=True, exist_ok=True)
    for name, icon in zip(ICONS, icons, strict=True):
        shutil.copyfile(ASSETS / name, icon)
    menu.touch(0o600)
    menu.chmod(0o600)  # there may be a key among the settings
    menu.write_text(entry(command(), settings), encoding="utf-8")
    _tell(icons[0].parents[2])
    return [menu, *icons]


def uninstall(env: Mapping[str, str]) -> list[Path]:
    """Delete the entry and the icons; return what was there. OSError."""
    there = [path for path in paths(data_folder(env)) if path.exists()]
    for path in there:
        path.unlink()
    return there


def paths(data: Path) -> list[Path]:
    icons = data / "icons" / "hicolor"
    files = [icons / folder / "apps" / f"{APP_ID}{Path(name).suffix}" for name, folder in ICONS.items()]
    return [data / "applications" / f"{APP_ID}.desktop", *files]


def _tell(theme: Path) -> None:
    """Make a cache of icons that desktops keep older than their folder: then they read it again."""
    os.utime(theme)


def _argument(text: str) -> str:
    """Return an argument as Exec has it: quoted where it must be, and % doubled, which else is a field."""
    text = text.replace("%", "%%")
    return '"' + re.sub(r'(["`$\\])', r"\\\1", text) + '"' if RESERVED & set(text) or not text else text


def _string(text: str) -> str:
    """Return a value as the file has it, in which a backslash begins an escape."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
