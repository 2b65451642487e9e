"""What a container may use, as the kernel says it in its files: both generations, and every group on the way up."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import machine
from engines.machine import cgroup

GB = 1_000_000_000
NONE_V1 = "9223372036854771712"  # how v1 says that there is no limit
CPU_V1 = Path("/sys/fs/cgroup/cpu")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n", encoding="ascii")


def v2(root: Path, group: str, **files: str) -> None:
    write(root, {f"sys/fs/cgroup/{group}/{name.replace('_', '.', 1)}": text for name, text in files.items()})


@pytest.mark.parametrize(
    ("cpu_max", "quota"),
    [("max 100000", math.inf), ("100000 100000", 1.0), ("150000 100000", 1.5), ("5000 10000", 0.5)],
)
def test_a_container_of_today(kernel: Path, cpu_max: str, quota: float) -> None:
    """In a name space of its own, which is what docker and podman make on v2."""
    write(kernel, {"proc/self/cgroup": "0::/"})
    v2(kernel, "", cpu_max=cpu_max)
    assert cgroup.cpu_quota() == quota


def test_every_group_above_limits_too(kernel: Path) -> None:
    write(kernel, {"proc/self/cgroup": "0::/system.slice/studio.service/worker"})
    v2(kernel, "system.slice/studio.service/worker", cpu_max="max 100000")
    v2(kernel, "system.slice/studio.service", cpu_max="300000 100000", memory_max="max", memory_high=str(3 * GB))
    v2(kernel, "system.slice", cpu_max="200000 100000", memory_max=str(5 * GB))
    for group, used in (("system.slice", 3 * GB), ("system.slice/studio.service", 1 * GB)):
        v2(kernel, group, memory_current=str(used), memory_stat=f"anon 1\ninactive_file {GB // 2}\nactive_file 0")
    assert cgroup.cpu_quota() == 2.0
    assert cgroup.memory_left() == 5 * GB // 2


def test_a_container_of_the_first_generation(kernel: Path) -> None:
    """The path is the host's, of which only the end is mounted; controllers share a tree, under both their names."""
    name = "docker/4f2a"
    lines = [f"11:cpu,cpuacct:/{name}", f"7:memory:/{name}", f"3:cpuset:/{name}", "0::/system.slice"]
    write(kernel, {"proc/self/cgroup": "\n".join(lines)})
    cpu, memory = "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/memory"
    write(kernel, {f"{cpu}/cpu.cfs_quota_us": "250000", f"{cpu}/cpu.cfs_period_us": "100000"})
    write(kernel, {f"{memory}/memory.limit_in_bytes": str(2 * GB), f"{memory}/memory.usage_in_bytes": str(GB)})
    statistics = f"inactive_file 1\nactive_file 1\ntotal_inactive_file {GB // 4}\ntotal_active_file {GB // 4}"
    write(kernel, {f"{memory}/memory.stat": statistics})
    assert cgroup.cpu_quota() == 2.5
    assert cgroup.memory_left() == 3 * GB // 2


def test_the_first_generation_without_limits(kernel: Path) -> None:
    write(kernel, {"proc/self/cgroup": "2:cpu:/\n1:memory:/process/a"})
    write(kernel, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"})
    folder = "sys/fs/cgroup/memory/process/a"
    write(kernel, {f"{folder}/memory.limit_in_bytes": NONE_V1, f"{folder}/memory.usage_in_bytes": "123"})
    assert cgroup.cpu_quota() == math.inf and cgroup.memory_left() == cgroup.UNLIMITED


def test_both_generations_beside_each_other(kernel: Path) -> None:
    """systemd's hybrid: v2 is mounted below, for its own book-keeping."""
    write(kernel, {"proc/self/cgroup": "5:cpu:/a\n0::/a"})
    write(kernel, {"sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "400000", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000"})
    v2(kernel, "unified/a", cpu_max="300000 100000")
    assert cgroup.cpu_quota() == 3.0


def test_what_is_used_up_leaves_nothing(kernel: Path) -> None:
    write(kernel, {"proc/self/cgroup": "0::/"})
    v2(kernel, "", memory_max="1000", memory_current="1400", memory_stat="inactive_file 100")
    assert cgroup.memory_left() == 0


def test_a_path_that_leads_out_of_the_mount_leads_nowhere(kernel: Path) -> None:
    """So it reads for who was put into a group above the root of its name space."""
    write(kernel, {"proc/self/cgroup": "0::/../../b"})
    write(kernel, {"b/cpu.max": "1000 100000", "sys/b/cpu.max": "1000 100000"})
    v2(kernel, "", cpu_max="200000 100000")
    assert cgroup.cpu_quota() == 2.0


def test_no_linux(kernel: Path) -> None:
    assert cgroup.cpu_quota() == math.inf and cgroup.memory_left() == cgroup.UNLIMITED


@pytest.mark.parametrize(
    ("ours", "quota", "cores"),
    [(2, math.inf, 2), (8, 1.5, 2), (8, 2.0, 2), (4, 0.2, 1), (4, 16.0, 4), (1, 3.0, 1), (8, 7.01, 8)],
)
def test_a_thread_for_each_processor_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, ours: int, quota: float, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(ours)), raising=False)
    monkeypatch.setattr(cgroup, "cpu_quota", lambda: quota)
    assert machine.cores() == cores


@pytest.fixture
def half_a_processor() -> Iterator[Path]:
    """A real group of this kernel's, where it lets one be made."""
    group = CPU_V1 / f"awportrait-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cpu.cfs_quota_us").write_text("50000", encoding="ascii")
    except OSError as exc:
        pytest.skip(f"this kernel lets no group be made in {CPU_V1}: {exc.strerror}")
    yield group
    group.rmdir()


def test_a_real_group(half_a_processor: Path) -> None:
    script = (
        "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "from engines import machine; from engines.machine import cgroup; print(cgroup.cpu_quota(), machine.cores())"
    )
    command = [sys.executable, "-c", script, str(half_a_processor / "cgroup.procs")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.split() == ["0.5", "1"]
