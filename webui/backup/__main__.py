"""`./run.sh backup FILE [--models]`, `./run.sh restore FILE [--replace]`: say what was done, or why nothing was."""

from __future__ import annotations

import argparse
import os
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from engines.errors import StorageError
from engines.settings import Settings
from engines.settings.installation import COMMAND, called
from webui.backup.restore import restore
from webui.backup.write import write


def main(arguments: Sequence[str]) -> int:
    os.umask(0o077)  # as the server's
    asked = _parser().parse_args(arguments)
    path = Path(asked.file).expanduser().absolute()
    try:
        settings = Settings.load(os.environ)
        if asked.verb == "backup":
            count = write(settings, path, asked.models)
            megabytes = path.stat().st_size / 1e6
            print(f"✓ 已备份 {count} 个文件,{megabytes:.1f} MB:{path} · {count} files, {megabytes:.1f} MB: {path}")
            print("  里面有照片、提示词与密钥,请妥善保管 · with photos, prompts and the secret: keep it to yourself")
            return 0
        restored = restore(settings, path, asked.replace)
    except (ValueError, OSError, StorageError, tarfile.TarError) as exc:  # SettingsError is a ValueError
        print(f"✗ 没有完成,什么都没有改 Not done, and nothing was changed: {exc}", file=sys.stderr)
        return 1
    print(f"✓ 已恢复 {restored.files} 个文件 · {restored.files} files are back in {settings.home}")
    if restored.aside:
        print(f"  原有数据在 {restored.aside} · what was there before lies there")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description=called(__doc__ or ""))
    verbs = parser.add_subparsers(dest="verb", required=True)
    backup = verbs.add_parser("backup", description="把数据写成一个文件 · write the home into one file")
    backup.add_argument("file")
    backup.add_argument("--models", action="store_true", help="连同模型与权重 · with models and checkpoints")
    restore_ = verbs.add_parser("restore", description="从备份恢复,先停止程序 · make the home out of a backup")
    restore_.add_argument("file")
    restore_.add_argument("--replace", action="store_true", help="原有数据移到一旁 · set aside what is there")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
