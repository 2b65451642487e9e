"""
`./run.sh wheelhouse FOLDER [--full] [--platform aarch64] [--python 3.13]`: every wheel that an installation needs, and
SHA256SUMS of them. For another machine too: `--wheelhouse FOLDER` installs there without a network. Runs with the pip
of a fresh virtual environment, and knows nothing of the program but its lists of requirements.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tomllib
from pathlib import Path

from pip._internal.cli.main import main as pip
from pip._vendor.packaging import markers

PROJECT = Path(__file__).parents[1]
FULL = ("torch", "build")
GLIBC = range(5, 41)  # of manylinux_2_N, the newest of which is Debian 13's: pip wants each by its name


def main() -> int:
    asked = _parser().parse_args()
    folder: Path = asked.folder
    folder.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"]]
    for extra in FULL if asked.full else ():
        wanted += project["optional-dependencies"][extra]
    # Never a source to be built: where there is no network there is no compiler either.
    command = ["download", "--quiet", "--dest", str(folder), "--only-binary=:all:", "--find-links", str(folder)]
    command += ["--constraint", str(PROJECT / "constraints.txt"), *_target(asked.platform, asked.python)]
    if asked.full:
        if status := pip([*command, *asked.torch_index.split(), "torch==2.13.*"]):
            return status
    if status := pip([*command, *wanted]):
        return status
    wheels = sorted(folder.glob("*.whl"))
    sums = [f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.name}\n" for wheel in wheels]
    (folder / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    megabytes = sum(wheel.stat().st_size for wheel in wheels) / 1e6
    print(f"✓ {len(wheels)} 个包,{megabytes:.0f} MB:{folder} · {len(wheels)} packages, {megabytes:.0f} MB")
    print(f"  安装 Install: ./run.sh {'setup' if asked.full else 'edge'} --wheelhouse {folder}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.sh wheelhouse", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--full", action="store_true", help="连同 PyTorch · with PyTorch")
    parser.add_argument(
        "--platform", help="另一种机器 · another machine: aarch64, x86_64, or a tag as pip has it, macosx_14_0_arm64"
    )
    parser.add_argument("--python", help="另一个 Python · another Python: 3.13")
    parser.add_argument("--torch-index", default="", help=argparse.SUPPRESS)
    return parser


def _target(platform: str | None, python: str | None) -> list[str]:
    """Return pip's options for another machine or Python, and let requirements be those of that one."""
    options: list[str] = []
    env = markers.default_environment()
    if platform:
        linux = platform in ("aarch64", "x86_64")
        tags = [f"manylinux_2_{minor}_{platform}" for minor in reversed(GLIBC)] if linux else [platform]
        if linux:
            tags += [f"manylinux2014_{platform}", f"linux_{platform}"]
            env.update(platform_machine=platform, sys_platform="linux", platform_system="Linux", os_name="posix")
        elif platform.startswith("macosx"):
            machine = platform.rpartition("_")[2]
            env.update(platform_machine=machine, sys_platform="darwin", platform_system="Darwin", os_name="posix")
        options += [word for tag in tags for word in ("--platform", tag)]
    if python:
        options += ["--python-version", python, "--implementation", "cp"]
        env.update(python_version=python, python_full_version=f"{python}.0")
    # pip asks which requirements there are of the Python that it runs in, whatever it downloads for: audioop-lts, which
    # Gradio needs from 3.13 on, would be missing.
    markers.default_environment = lambda: env.copy()
    if python and not markers.Marker(f'python_version == "{python}"').evaluate():
        sys.exit("✗ 这个 pip 不行,请换一个 Python(PYTHON=...) · not with this pip: try another Python (PYTHON=...)")
    return options


if __name__ == "__main__":
    sys.exit(main())
