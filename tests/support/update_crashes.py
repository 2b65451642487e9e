"""
`python -m tests.support.update_crashes N WORDS`: an update that is killed before the Nth thing that it does to a disk
or a process.
"""

from __future__ import annotations

import os
import sys

KILLED = -9
EFFECTS = (
    "os.rename", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.kill", "shutil.rmtree",
    "subprocess.Popen",
)  # fmt: skip


def main() -> int:
    last, number = int(sys.argv[1]), 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal number
        if event in EFFECTS or (event == "open" and "w" in str(arguments[1])):
            number += 1
            if number == last:
                os.kill(os.getpid(), 9)

    from webui.update import __main__ as update

    sys.addaudithook(count)
    return update.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
