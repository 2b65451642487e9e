"""What the machine has: Python, processor, memory, a clock, a folder for what is fleeting."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Set

from engines import machine
from engines.settings.installation import PROJECT
from webui.doctor import GB, Line

NEEDED = (3, 11)
ENOUGH_MEMORY = 1 * GB  # an old photo of 12 megapixels with eight faces takes as much (docs/restore.md)
CLOCK_S = 86400.0  # by which the clocks of two machines may differ
LAST_YEAR = 2100
TEMPORARY = ("/tmp", "/var/tmp", "/usr/tmp")  # as Python's tempfile, which writes a file to find out


def python(version: tuple[int, ...]) -> Line:
    number = ".".join(map(str, version[:3]))
    if version[:2] < NEEDED:
        return Line(
            "error",
            f"Python {number}:需要 3.11 以上,可设 PYTHON=…",
            f"Python {number}: 3.11 or newer is needed, you may set PYTHON=...",
        )
    return Line("ok", f"Python {number}", f"Python {number}")


def processor(kind: str, flags: Set[str], cores: int) -> Line:
    """`flags`: as the kernel names them; none: it does not say."""
    least, here = machine.wished(kind)[0], ", ".join(machine.fast_flags(kind, flags)) or "-"
    if flags and least not in flags:
        return Line(
            "warning",
            f"处理器 {kind},{cores} 核,没有 {least}:会很慢",
            f"processor {kind}, {cores} cores, without {least}: it will be slow",
        )
    return Line("ok", f"处理器 {kind},{cores} 核,指令集 {here}", f"processor {kind}, {cores} cores, it has {here}")


def wheels(why: tuple[str, str] | None) -> Line:
    """`why` what is installed cannot be imported on this processor, in Chinese and in English; None: it can."""
    if why:
        return Line("error", *why)
    return Line("ok", "安装的程序库能在这个处理器上导入", "what is installed can be imported on this processor")


def memory(free: int, total: int, swap: int) -> Line:
    """Bytes; `free`: what a process may still take, of the container if that is less."""
    gb = [f"{size / GB:.1f}" for size in (free, total, swap)]
    zh = f"可用内存 {gb[0]} GB,共 {gb[1]} GB,空闲交换区 {gb[2]} GB"
    en = f"{gb[0]} GB of memory free, of {gb[1]} GB; {gb[2]} GB of swap free"
    if free < ENOUGH_MEMORY:
        return Line(
            "warning",
            f"{zh}:大照片可能不够,请关闭其他程序",
            f"{en}: large photos may not fit, close other programs",
        )
    return Line("ok", zh, en)


def clock(now_s: float, newest_s: float) -> Line:
    """Seconds since 1970; `newest_s`: of the newest file of the program, which cannot be of tomorrow."""
    date = time.strftime("%Y-%m-%d %H:%M", time.localtime(now_s))
    if now_s < newest_s - CLOCK_S or time.gmtime(now_s).tm_year >= LAST_YEAR:
        return Line(
            "error",
            f"时钟 {date} 不对:照片会删错时间,下载会失败;请校时(timedatectl set-ntp true)",
            f"the clock says {date}, which is wrong: photos are deleted by it, and downloads fail; "
            "set it (timedatectl set-ntp true)",
        )
    return Line("ok", f"时钟 {date}", f"the clock says {date}")


def newest_source_s() -> float:
    """When the newest file of the program was changed, seconds since 1970."""
    folders = (PROJECT / name for name in ("engines", "webui", "presets"))
    return max(path.stat().st_mtime for folder in folders for path in folder.rglob("*.py"))


def temporary(env: Mapping[str, str], needed: int) -> Line:
    """The folder through which uploads come, `needed` bytes of them at one time."""
    named = filter(None, (env.get(name) for name in ("TMPDIR", "TEMP", "TMP")))
    folder = next((path for path in (*named, *TEMPORARY) if os.path.isdir(path) and os.access(path, os.W_OK)), "")
    if not folder:
        return Line(
            "error",
            "没有可写的临时文件夹:请设 TMPDIR",
            "no folder for temporary files can be written to: set TMPDIR",
        )
    free = shutil.disk_usage(folder).free
    zh, en = f"临时文件夹 {folder},空闲 {free / GB:.1f} GB", f"temporary files in {folder}, {free / GB:.1f} GB free"
    if free < needed:
        return Line("warning", f"{zh}:上传可能失败", f"{en}: uploads may fail")
    return Line("ok", zh, en)
