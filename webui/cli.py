"""
The program's command line: `awportrait VERB`, or `./run.sh VERB` in a source tree, which installs what a verb needs
first. Each verb is a module that runs as a program; what it takes, it says itself (--help). Imports no library: help
is there before anything is installed.
"""

from __future__ import annotations

import os
import platform
import runpy
import sys
from dataclasses import dataclass, fields
from importlib.util import find_spec

from engines.settings import Settings
from engines.settings.installation import COMMAND, IS_SOURCE, PACKAGE, called, version
from engines.settings.values import variable

TITLE = "AWPortrait Edge · 人像工作室        webUI二次开发 by 科哥"
HTTPS = "--https"  # wherever it stands: the setting STUDIO_HTTPS
TORCH = "torch"
SETUP = f"""\
要用 PyTorch 引擎和制作模型包,请运行 · For the PyTorch engine, and to build models, run:
  pip install "{PACKAGE}[torch,build]"
要重装,请运行 · To install everything anew, run:
  pip install --force-reinstall {PACKAGE}"""


@dataclass(frozen=True)
class Verb:
    """`usage`: what stands after the name. `module`: what runs, with its first words; "": nothing does, by itself."""

    name: str
    usage: str
    module: str
    zh: str
    en: str


# fmt: off
VERBS = (
    Verb("serve", "", "webui", "启动,浏览器打开 http://localhost:7860", "serve, at http://localhost:7860"),
    Verb("edge", "", "webui", "轻量启动,不需要 PyTorch", "serve, with what needs no PyTorch"),
    Verb("app", "[--stop|--install|--uninstall]", "webui.desktop",
         "在自己的窗口里打开,关掉窗口任务照做(--stop 停止;--install 加到应用菜单)",
         "the page in a window of its own, which jobs outlive (--stop; --install: into the menu)"),
    Verb("watch", "[INBOX]", "webui.watch",
         "放入即修复:看着一个文件夹,修好的放进另一个(服务器运行时用 STUDIO_INBOX)",
         "what is put into a folder is restored into another (with a server: STUDIO_INBOX)"),
    Verb("worker", "--join URL --token TOKEN", "webui.join",
         "让这台机器为另一台上的工作室干活", "let this machine work for a studio on another, while it is here"),
    Verb("parts", "--token TOKEN", "webui.parts",
         "把这台机器的模型部件借给另一台上的工作室", "lend parts of this machine's models to a studio on another"),
    Verb("models", "[get ID]", "engines.catalogue", "可下载的模型", "models to download"),
    Verb("build", "KIND", "engines.toolchain", "制作模型包", "make model bundles"),
    Verb("doctor", "[--json]", "webui.doctor",
         "体检:缺什么、哪里不对、怎么办,什么都不改", "what is missing or wrong, and what to do; changes nothing"),
    Verb("token", "NAME [--worker] [--revoke]", "webui.people.tokens",
         "程序用的令牌(显示一次;作废)", "a token for a program (shown once; ended)"),
    Verb("password", "", "webui.people.password",
         "把密码变成可写进配置的散列", "turn a password into a hash that a configuration may hold"),
    Verb("backup", "FILE [--models]", "webui.backup backup",
         "备份作品与任务,可在运行时做", "pictures and jobs into one file, while the server runs too"),
    Verb("restore", "FILE [--replace]", "webui.backup restore",
         "从备份恢复,先停止程序", "a home out of a backup, while no server runs"),
    Verb("setup", "", "", "只安装", "install only"),
    Verb("version", "", "", "版本", "which version this is"),
    Verb("help", "", "", "本说明", "this text"),
)
OF_THE_SOURCE = (
    Verb("test", "[quick]", "", "检查与全部测试,多进程并行(quick:三分钟内)",
         "lint, types, architecture and all tests, in parallel (quick: within three minutes)"),
    Verb("update", "FILE|FOLDER", "", "换成新版本,启动不了就换回来,数据不变(--help)",
         "a newer version, or back to this if it does not start; data stay (--help)"),
    Verb("rollback", "", "", "换回上一个版本", "the version before this one"),
    Verb("wheelhouse", "FOLDER [--full]", "", "收集离线安装所需的包(--help);安装:--wheelhouse FOLDER",
         "the packages of an offline installation (--help); to install: --wheelhouse FOLDER"),
    Verb("release", "[FOLDER]", "", "打成发布包", "pack a release"),
    Verb("bench", "[NAME ...]", "", "在本机测速", "measure this machine"),
    Verb("chaos", "WHAT", "", "故意杀死、停止、弄崩、挤爆服务,看有没有丢东西(--help)",
         "kill, stop, crash or crowd the service, and see what is lost (--help)"),
)
# fmt: on


def usage() -> str:
    """Return what there is to say: every verb, and every setting."""
    verbs = VERBS + (OF_THE_SOURCE if IS_SOURCE else ())
    starts = [f"  {COMMAND} {verb.name} {verb.usage}".rstrip() for verb in verbs]
    width = min(34, max(map(len, starts)))
    lines = [TITLE, ""]
    lines += [f"{start:<{width}}  {verb.zh} · {verb.en}" for start, verb in zip(starts, verbs, strict=True)]
    lines += [
        "",
        f"  {HTTPS}  用 https 提供服务,/trust 说明怎样让手机信任 · serve https; /trust says how phones trust it",
        "",
        "设置 Settings (environment variables):",
    ]
    lines += [
        called(f"  {variable(f.name):<21} {f.metadata['zh']} · {f.metadata['en']} [{f.default}]")
        for f in fields(Settings)
    ]
    return "\n".join(lines)


def main() -> None:
    """Run a verb; "serve" if there is none. Its process's end is this one's."""
    words = [word for word in sys.argv[1:] if word != HTTPS]
    if HTTPS in sys.argv[1:]:
        os.environ[variable("https")] = "on"
    name, *rest = words or ["serve"]
    if name in ("help", "-h", "--help"):
        print(usage())
    elif name in ("version", "-V", "--version"):
        print(f"{PACKAGE} {version()} (Python {platform.python_version()})")
    elif name == "setup":
        print(SETUP)
    elif verb := next((verb for verb in VERBS if verb.name == name), None):
        _run(verb, rest)
    elif name in (verb.name for verb in OF_THE_SOURCE):
        sys.exit(f"✗ 请在源代码里运行 ./run.sh {name} · run ./run.sh {name} in the source tree")
    else:
        print(usage())
        sys.exit(f"✗ 不认识的命令 Unknown verb: {name}")


def _run(verb: Verb, arguments: list[str]) -> None:
    if verb.name == "build" and find_spec(TORCH) is None:
        sys.exit(f"✗ 制作模型包需要 PyTorch · to build models takes PyTorch: {COMMAND} setup")
    module, *first = verb.module.split()
    sys.argv = [sys.argv[0], *first, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
