"""The folders of other people's photos: that which is watched, where results go, and those that frames show."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from webui.doctor import Line

READ, WRITE = os.R_OK | os.X_OK, os.W_OK | os.X_OK


def watched(inbox: Path, outbox: Path) -> Iterator[Line]:
    """Yield whether photos can be read from the one, and results laid into the other."""
    if not os.path.isdir(inbox):
        yield Line(
            "warning",
            f"收件文件夹 {inbox} 不在(共享离线,或 STUDIO_INBOX 写错):在它出现之前没有照片可修",
            f"the inbox {inbox} is not there (a share that is away? a mistake in STUDIO_INBOX?): nothing comes from it",
        )
    elif not os.access(inbox, READ):
        yield _shut("STUDIO_INBOX", inbox, "读取", "read")
    else:
        yield Line("ok", f"收件文件夹 {inbox} 可读", f"the inbox {inbox} can be read")
    place = outbox if os.path.lexists(outbox) else outbox.parent
    if os.path.isdir(place) and not os.access(place, WRITE):
        yield _shut("STUDIO_OUTBOX", place, "写入", "write to")
    elif os.path.isdir(place):
        yield Line("ok", f"发件文件夹 {outbox} 可写", f"the outbox {outbox} can be written to")
    else:
        yield Line(
            "warning",
            f"发件文件夹 {outbox} 不在:结果会等它出现(STUDIO_OUTBOX)",
            f"the outbox {outbox} is not there: results wait for it (STUDIO_OUTBOX)",
        )


def albums(folders: Mapping[str, Path]) -> Iterator[Line]:
    """Yield whether frames can show each of these."""
    for name, folder in folders.items():
        if os.path.isdir(folder) and os.access(folder, READ):
            yield Line("ok", f"相框可显示 folder:{name}({folder})", f"frames can show folder:{name} ({folder})")
        else:
            yield Line(
                "warning",
                f"相框的文件夹 {folder} 不在或读不了(STUDIO_ALBUMS):相框里的 folder:{name} 是空的",
                f"the folder {folder} of frames is not there or cannot be read (STUDIO_ALBUMS): folder:{name} is empty",
            )


def _shut(setting: str, folder: Path, zh: str, en: str) -> Line:
    return Line(
        "error",
        f"用户 {os.getuid()} 不能{zh} {folder}:请改权限,或换一个 {setting}",
        f"user {os.getuid()} cannot {en} {folder}: change its permissions, or choose another {setting}",
    )
