"""
Fetches Python and our wheels for aarch64, for tests/machines/test_aarch64.py: `python -m tests.machines FOLDER`, with
apt-get of Debian or Ubuntu and pip, as both are set up here; nothing is installed. Then STUDIO_TEST_AARCH64=FOLDER.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
DEBIAN = (
    f"python{VERSION}-minimal", f"libpython{VERSION}-minimal", f"libpython{VERSION}-stdlib",
    "libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8",
)  # fmt: skip
WHEELS = (
    "numpy", "pydantic_core", "typing_extensions", "pillow", "opencv-python-headless", "tokenizers", "brotli",
    "pillow-heif", "onnxruntime", "openvino",
)  # fmt: skip
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64", "manylinux_2_17_aarch64")


def fetch_python(folder: Path) -> None:
    """Unpack Debian's packages of another architecture, by lists of its own: this machine's stay as they are."""
    apt, root = folder / "apt", folder / "root"
    for name in ("lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    options = {
        "APT::Architecture": "arm64", "APT::Architectures": "arm64", "Dir::Cache": apt / "cache",
        "Dir::State::lists": apt / "lists", "Dir::State::status": apt / "status",
    }  # fmt: skip
    command = ["apt-get", "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    subprocess.run([*command, "update"], check=True)
    subprocess.run([*command, "download", *DEBIAN], check=True, cwd=apt)
    for package in apt.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, root], check=True)


def fetch_wheels(folder: Path) -> None:
    wanted = [word for name in PLATFORMS for word in ("--platform", name)]
    exactly = ["--only-binary=:all:", "--no-deps", "--python-version", VERSION, "-d", str(folder / "wheels")]
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", *wanted, *exactly, *WHEELS], check=True)
    for wheel in (folder / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "site")


if __name__ == "__main__":
    there = Path(sys.argv[1]).resolve()
    fetch_python(there)
    fetch_wheels(there)
