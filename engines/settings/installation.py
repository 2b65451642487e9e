"""
Where the program lies and what starts it: a source tree with run.sh in it, an image, which has the tree without, or a
package that pip has installed. Imports no library, as its package says.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

PACKAGE = "awportrait-edge"
PROJECT = Path(__file__).parents[2]  # the folder of our packages, in which children find them
IS_SOURCE, IS_PACKAGE = (PROJECT / "run.sh").is_file(), not (PROJECT / "pyproject.toml").is_file()
RELEASE = ".release"  # a file in a program that lies beside others, below what it is a release of (webui/update)
COMMAND = "./run.sh" if IS_SOURCE else "awportrait"
# What to do about a library that cannot be imported: in Chinese, in English.
INSTALL_ANEW = (
    ("删除 .venv 后运行 ./run.sh setup", "delete .venv and run ./run.sh setup")
    if IS_SOURCE
    else (f"运行 pip install --force-reinstall {PACKAGE}", f"run pip install --force-reinstall {PACKAGE}")
    if IS_PACKAGE
    else ("重新制作映像(docker compose build --pull)", "build the image anew (docker compose build --pull)")
)


def root_of(program: Path = PROJECT) -> Path:
    """Return the folder that stays through all updates of that program."""
    real = program.resolve()
    return real.parents[1] if (real / RELEASE).exists() else program


def default_home(env: Mapping[str, str] = os.environ) -> Path:
    """
    Return where the data lie if nobody says it: beside a source tree's program, in the folder it is started from, and
    above all of its releases; of a package, where programs of this user have their data (XDG).
    """
    if (PROJECT / RELEASE).exists():
        return root_of() / "data"
    return Path("data") if IS_SOURCE else data_folder(env) / PACKAGE


def data_folder(env: Mapping[str, str]) -> Path:
    """Return where programs of this user have their data; a path that is not absolute counts as none (XDG)."""
    named = Path(env.get("XDG_DATA_HOME", ""))
    return named if named.is_absolute() else Path(os.path.expanduser("~/.local/share"))


def called(text: str) -> str:
    """Return a text that speaks of ./run.sh as this installation's command."""
    return text.replace("./run.sh", COMMAND)


def version() -> str:
    """Return the program's version. OSError, PackageNotFoundError: the installation is damaged."""
    if IS_PACKAGE:
        return metadata.version(PACKAGE)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])
