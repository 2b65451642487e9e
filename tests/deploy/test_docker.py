"""What is written for Docker, without one: tests/end_to_end/test_image.py builds and runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import distribution, requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from engines.settings import Settings, variable
from tests.conftest import REPOSITORY
from tests.support.stub_commands import Commands
from webui import __main__ as root

DOCKER = REPOSITORY / "deploy" / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
LOCKS = {path.stem.removeprefix("requirements-"): path for path in DOCKER.glob("requirements-*.txt")}
WHOLE = ("compose.yaml", "synology.yaml", "truenas.yaml", "casaos.yaml")
OVERRIDES = ("compose.cuda.yaml", "compose.full.yaml", "compose.nginx.yaml", "compose.redis.yaml")
TO_BECOME_PUID = {"CHOWN", "SETGID", "SETUID"}
# docker-compose 1.29, which old NAS have; its package is the only one that brings the schema
SCHEMA = Path("/usr/lib/python3/dist-packages/compose/config/compose_spec.json")
EPERM_FOR_CLONE3 = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
lines = (0x20, 0, 0, 0), (0x15, 0, 1, 435), (6, 0, 0, 0x50001), (6, 0, 0, 0x7FFF0000)
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack("@HP", len(lines), ctypes.addressof(program)), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""
THREAD = "import threading as t; a = t.Thread(target=print, args=('it ran',)); a.start(); a.join()"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes others")


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of every package, by its canonical name."""
    text = "\n".join(line for line in LOCKS[name].read_text("utf-8").splitlines() if not line.startswith("#"))
    packages = {}
    for entry in re.split(r"(?<!\\)\n", text.strip()):
        pin, *hashes = entry.split(" \\\n    ")
        package, _, version = pin.partition("==")
        assert hashes and all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", digest) for digest in hashes), entry
        packages[canonicalize_name(package)] = version, hashes
    return packages


def constraints() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text("utf-8").splitlines()
    pins = (line.split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version for name, version in pins}


def listed(*extras: str) -> set[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    lines = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def settings(text: str) -> set[str]:
    return set(re.findall(r"\bSTUDIO_[A-Z_]+", text))


# Packages


def test_there_is_a_lock_for_each_image() -> None:
    targets = set(re.findall(r"^FROM settings AS (\w+)", DOCKERFILE, re.MULTILINE))
    assert targets == set(LOCKS) == {"edge", "full", "cuda", "redis"}
    assert DOCKERFILE.rindex(" AS edge") == DOCKERFILE.rindex(" AS "), "the last is built where none is named"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_what_is_wanted_at_the_versions_that_are_tested(name: str) -> None:
    packages, pins = locked(name), constraints()
    extras = ("mcp", "mqtt", *{"edge": (), "redis": ("scale",)}.get(name, ("torch", "build")))
    assert listed(*extras) <= set(packages)
    versions = {package: version.partition("+")[0] for package, (version, _) in packages.items()}
    assert {p: v for p, v in versions.items() if p in pins and pins[p] != v} == {}
    strange = {p for p in packages if p not in pins}
    assert all(re.match("nvidia-|cuda-|triton$|setuptools$", package) for package in strange), strange
    assert ("torch" in packages) == (name in ("full", "cuda")) and ("nvidia-cublas" in packages) == (name == "cuda")


def test_compiled_packages_have_a_wheel_for_each_processor() -> None:
    packages = locked("edge")
    for name in ("numpy", "onnxruntime", "openvino", "opencv-python-headless", "pillow-heif", "tokenizers", "orjson"):
        assert len(packages[name][1]) == 2, name


def test_nothing_is_missing_that_a_package_needs() -> None:
    """As pip is called with --no-deps. What is left out says why in lock.py."""
    packages = locked("edge")
    missing = {
        canonicalize_name(need.name)
        for name in packages
        for need in map(Requirement, requires(name) or [])
        if need.marker is None or need.marker.evaluate({"extra": "", "python_version": "3.11"})
    } - set(packages)
    assert missing == {"hf-xet"}
    assert distribution("huggingface_hub") and "hf_xet" not in (REPOSITORY / "engines/catalogue/fetch.py").read_text()


def test_the_page_has_nothing_that_is_left_out_of_gradio() -> None:
    sources = "\n".join(path.read_text("utf-8") for path in (REPOSITORY / "webui").rglob("*.py"))
    assert re.findall(r"\bgr\.(Video|Audio|Plot|\w+Plot|Model3D)\b", sources) == []
    assert re.findall(r"\bssr_mode=True\b|get_(audio|image|video|model3d)\(", sources) == []


def test_trimming_leaves_what_is_used(tmp_path: Path) -> None:
    gone = ("openvino/libs/libopenvino_intel_gpu_plugin.so", "openvino/libs/libopenvino_jax_frontend.so.2641",
            "numpy/tests/test_x.py", "numpy/core.pyi", "onnxruntime/capi/libonnxruntime.so.1.31.1",
            "gradio/templates/frontend/static/ffmpeg/a.wasm", "onnxruntime/tools/a.py")  # fmt: skip
    stay = ("openvino/libs/libopenvino_intel_cpu_plugin.so", "openvino/libs/libopenvino_onnx_frontend.so.2641",
            "openvino/libs/libopenvino_arm_cpu_plugin.so", "numpy/testing/a.py", "torch/tests/a.py",
            "onnxruntime/capi/libonnxruntime_providers_shared.so", "gradio/templates/frontend/index.html",
            "_brotli.abi3.so")  # fmt: skip
    packages = tmp_path / "packages"
    for name in (*gone, *stay):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    commands = Commands.below(tmp_path, ("bash", "sh", "find", "rm"))
    commands.stub("strip")
    done = commands.run(DOCKER / "trim.sh", str(packages), "edge")
    assert done.returncode == 0, done.stderr
    left = {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file()}
    assert left == set(stay)
    assert "strip --strip-unneeded _brotli.abi3.so" in commands.calls


# Dockerfile


def test_the_dockerfile_begins_with_one_image_and_installs_by_hash() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    before: set[str] = {"scratch"}
    for base, stage in stages:
        assert base in before or (base == "${BASE}" and len(before) == 1), base
        before.add(stage)
    (base,) = re.findall(r"^ARG BASE=(.*)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/debian:bookworm-slim(@sha256:[0-9a-f]{64})?", base)
    assert "--require-hashes" in DOCKERFILE and "--only-binary=:all:" in DOCKERFILE
    installs = [line for line in DOCKERFILE.splitlines() if "-r requirements" in line]
    assert len(installs) == len(LOCKS) and all(line.startswith("RUN $INSTALL ") for line in installs)


def test_what_it_copies_is_there_and_sent_to_the_engine() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines()
    sent = [line[1:] for line in lines if line.startswith("!")]
    assert lines[1] == "*", "all else stays here: data, environments"
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (REPOSITORY / source).exists(), source
            assert any(source == name or source.startswith(f"{name}/") for name in sent), source


def test_it_starts_and_ends_without_a_shell() -> None:
    for word in ("ENTRYPOINT", "CMD"):
        (command,) = re.findall(rf"^{word} (.*)$", DOCKERFILE, re.MULTILINE)
        assert isinstance(json.loads(command), list)
    assert 'CMD ["/usr/local/bin/studio-health"]' in DOCKERFILE and "STOPSIGNAL SIGTERM" in DOCKERFILE
    assert re.findall(r"^VOLUME (.*)$", DOCKERFILE, re.MULTILINE) == ["/data"] and "STUDIO_HOME=/data" in DOCKERFILE


def test_pinning_writes_the_digest_that_the_registry_tells(tmp_path: Path) -> None:
    (folder := tmp_path / "docker").mkdir()
    for name in ("pin.sh", "Dockerfile"):
        shutil.copy(DOCKER / name, folder)
    text = re.sub(r"^(ARG BASE=[^@\n]*).*$", r"\1", DOCKERFILE, flags=re.MULTILINE)
    (folder / "Dockerfile").write_text(text, "utf-8")
    commands = Commands.below(tmp_path, ("bash", "dirname", "grep", "sed"))
    assert commands.run(folder / "pin.sh", "--check").returncode == 1
    digest = "sha256:" + "ab" * 32
    commands.stub("docker", f"echo {digest}")
    assert commands.run(folder / "pin.sh").returncode == 0
    assert f"ARG BASE=docker.io/library/debian:bookworm-slim@{digest}\n" in (folder / "Dockerfile").read_text("utf-8")
    assert commands.run(folder / "pin.sh", "--check").returncode == 0
    commands.stub("docker", "echo error")
    assert commands.run(folder / "pin.sh").returncode == 1


# Compose


def compose(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((DOCKER / name).read_text("utf-8")))


@pytest.mark.parametrize("name", [*WHOLE, *OVERRIDES])
def test_an_old_engine_takes_it_and_every_setting_exists(name: str) -> None:
    text = (DOCKER / name).read_text("utf-8")
    plan = compose(name)
    assert "version" not in plan, "Compose complains of it"
    for service in plan["services"].values():
        assert not {"cpus", "cpu_count", "init", "privileged", "mem_swappiness"} & set(service), name
        assert "cpus" not in json.dumps(service.get("deploy", {}))
    assert settings(text) <= {variable(name) for name in Settings.__dataclass_fields__}, name


@pytest.mark.parametrize("name", [*WHOLE, *OVERRIDES])
def test_it_fits_the_schema(name: str) -> None:
    if not SCHEMA.exists():
        pytest.skip("Debian's docker-compose, which brings the schema, is not installed")
    jsonschema = pytest.importorskip("jsonschema")
    plan = compose(name)
    if name == "casaos.yaml":
        plan.pop("name")  # newer than the schema, and so are ports in quotes
        for port in plan["services"]["studio"]["ports"]:
            port["published"] = int(port["published"])
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text("utf-8"))).validate(plan)


@pytest.mark.parametrize("name", WHOLE)
def test_it_may_do_nothing_but_write_to_its_volume(name: str) -> None:
    (service,) = compose(name)["services"].values()
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    (volume,) = service["volumes"]
    assert volume["target"] == "/data" if isinstance(volume, dict) else volume.endswith(":/data")
    assert [place.partition(":")[0] for place in service["tmpfs"]] == ["/tmp"]
    if "user" in service:
        assert re.fullmatch(r"\d+:\d+", service["user"]) and "cap_add" not in service
    else:
        assert set(service["cap_add"]) == TO_BECOME_PUID and {"PUID", "PGID"} <= set(service["environment"])
    assert service["healthcheck"]["test"] == ["CMD", "/usr/local/bin/studio-health"]
    assert root.STOP_S + root.LEAVE_S < int(service["stop_grace_period"].removesuffix("s")) <= 10


def test_overrides_build_targets_that_exist() -> None:
    for name in ("compose.yaml", *OVERRIDES):
        for service in compose(name)["services"].values():
            if target := service.get("build", {}).get("target"):
                assert f" AS {target}\n" in DOCKERFILE and service["image"] == f"awportrait-edge:{target}"


def test_casaos_says_before_the_installation_what_is_needed() -> None:
    plan = compose("casaos.yaml")
    about = plan["x-casaos"]
    assert about["main"] in plan["services"]
    assert plan["services"][about["main"]]["deploy"]["resources"]["reservations"]["memory"] == "1024M"
    for language in ("en_us", "zh_cn"):
        assert (
            "1 GB" in about["tips"]["before_install"][language]
            and "x86-64-v2" in about["tips"]["before_install"][language]
        )
        assert all(about[text][language] for text in ("title", "tagline", "description"))


def test_unraid_gets_the_same() -> None:
    template = ElementTree.parse(DOCKER / "unraid.xml").getroot()
    words = (template.findtext("ExtraParams") or "").split()
    assert template.findtext("Privileged") == "false" and "--read-only" in words and "--cap-drop=ALL" in words
    assert {word.removeprefix("--cap-add=") for word in words if word.startswith("--cap-add")} == TO_BECOME_PUID
    assert "--security-opt=no-new-privileges" in words and not any("cpus" in word for word in words)
    targets = {config.get("Target"): config for config in template.iter("Config")}
    assert {"/data", "7860", "PUID", "PGID"} <= set(targets)
    named = {target for target in targets if target and target.startswith("STUDIO_")}
    assert named <= {variable(name) for name in Settings.__dataclass_fields__}
    assert targets["STUDIO_PASSWORD"].get("Mask") == "true"


# How it begins


def begin(home: Path, *command: str, python: tuple[str, ...] = (sys.executable, "-I"), **env: str) -> Any:
    words = [*python, str(DOCKER / "entrypoint.py"), *command]
    return subprocess.run(
        words,
        env={"PATH": os.environ["PATH"], "STUDIO_HOME": str(home), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder that others may come to, which pytest's own are not."""
    folder = Path(f"/tmp/awportrait-volume-{os.getpid()}")
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)


@needs_root
def test_root_becomes_whom_puid_names(volume: Path) -> None:
    who = "import os; print(os.getresuid(), os.getresgid(), os.getgroups(), os.environ['HOME'])"
    done = begin(volume, "python3", "-c", who, PUID="4568", PGID="4569", HOME="/root")
    assert done.stdout.split("\n")[0] == "(4568, 4568, 4568) (4569, 4569, 4569) [] /tmp", done.stderr
    assert (volume.stat().st_uid, volume.stat().st_gid) == (4568, 4569), "an empty folder of root's is Docker's"


@needs_root
def test_folders_that_hold_something_stay_whose_they_are(volume: Path) -> None:
    (volume / "outputs").mkdir()
    done = begin(volume, "true", PUID="4568")
    assert done.returncode == 2 and "chown -R 4568:1000" in done.stderr and "PUID" in done.stderr
    assert volume.stat().st_uid == 0


@needs_root
def test_nobody_changes_hands_where_user_is_set(volume: Path) -> None:
    os.chown(volume, 568, 568)
    drop = "import os, sys; os.setgroups([]); os.setgid(568); os.setuid(568); os.execv(sys.argv[1], sys.argv[1:])"
    as_568 = (sys.executable, "-c", drop, "/usr/bin/python3", "-I")
    done = begin(volume, "id", "-u", python=as_568, PUID="1000")
    assert done.stdout == "568\n", done.stderr


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "4294967295", "１０００"])
@needs_root
def test_a_user_that_is_no_number_is_refused(tmp_path: Path, text: str) -> None:
    done = begin(tmp_path, "true", PUID=text)
    assert done.returncode == 2 and f"PUID={text}" in done.stderr and "Traceback" not in done.stderr


def test_a_command_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = begin(tmp_path, "no-such-command", PUID="0")
    assert done.returncode == 2 and "no-such-command" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_threads_start_where_an_old_docker_forbids_clone3(tmp_path: Path) -> None:
    old = (sys.executable, "-c", EPERM_FOR_CLONE3)
    bare = subprocess.run([*old, sys.executable, "-c", THREAD], capture_output=True, text=True, timeout=60)
    if bare.returncode == 0:
        pytest.skip("this C library starts threads by an older call")
    assert "can't start new thread" in bare.stderr
    done = begin(tmp_path, sys.executable, "-c", THREAD, python=(*old, sys.executable, "-I"), PUID="0")
    assert done.stdout == "it ran\n", done.stderr


def test_no_filter_is_set_where_none_is_needed(tmp_path: Path) -> None:
    filters = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('Seccomp:')])"
    here = subprocess.run([sys.executable, "-c", filters], capture_output=True, text=True).stdout
    assert begin(tmp_path, sys.executable, "-c", filters, PUID="0").stdout == here


# How it is watched


class Door(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def health(**env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", DOCKER / "healthcheck.py"], env=env, capture_output=True, text=True, timeout=60
    )


def test_health_is_what_the_server_answers() -> None:
    server = HTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = str(server.server_port)
    try:
        assert health(STUDIO_PORT=port).returncode == 0
        Door.status = 503
        assert health(STUDIO_PORT=port).returncode == 1
        assert health(STUDIO_PORT=port, STUDIO_HTTPS="on").returncode == 1
    finally:
        server.shutdown()
        server.server_close()
    shut = health(STUDIO_PORT=port)
    assert shut.returncode == 1 and "Traceback" not in shut.stderr


def test_scripts_are_executable() -> None:
    scripts = [path for path in DOCKER.iterdir() if path.read_bytes().startswith(b"#!")]
    assert len(scripts) >= 5 and all(os.access(path, os.X_OK) for path in scripts)
    assert not any(fnmatch(path.name, "*.tar*") for path in DOCKER.iterdir())
