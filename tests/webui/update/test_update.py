"""A newer program in the place of an older one, and back: what runs, what is in the database, and what is said."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support import releases
from tests.support.releases import House
from tests.support.stub_commands import is_bilingual
from webui.update import NotDone
from webui.update.installation import Installation

COLOUR, SIZE = (*releases.OLD, "colour"), (*releases.OLD, "size")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A clone of version 1.0, which has one job and is not running."""
    made = releases.cloned(tmp_path / "studio")
    yield made
    made.stop()


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    return releases.packed(releases.write(tmp_path / "studio-2.0", "2.0"))


def test_what_ran_is_followed_by_what_is_newer(house: House, newer: Path) -> None:
    """With its data, its settings and its kind, from a clone that was never updated."""
    house.start()
    done = house.do("update", str(newer))
    assert done.returncode == 0, done.stderr
    assert house.version() == "2.0"
    assert house.jobs() == ["first"]
    assert house.program.parent == house.root / "releases"
    assert (house.program / ".venv-edge").is_dir() and not (house.program / ".venv").exists()
    assert "rollback" in done.stderr and "--stop" in done.stderr
    assert not (house.root / "releases" / "step").exists()


def test_what_did_not_run_is_tried_and_stopped_again(house: House, newer: Path) -> None:
    done = house.do("update", str(newer))
    assert done.returncode == 0, done.stderr
    assert house.holder is None and "./run.sh edge" in done.stderr
    house.start()
    assert house.version() == "2.0"


def test_a_folder_is_a_release_too_without_what_a_machine_has_put_there(house: House, tmp_path: Path) -> None:
    source = releases.write(tmp_path / "checkout", "2.0")
    for name in (".git/config", "data/state/secret", ".venv/bin/python", "webui/__pycache__/a.pyc", "releases/x"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    (source / "link").symlink_to("/etc/passwd")
    (source / "run.sh").chmod(0o700)
    done = house.do("update", str(source))
    assert done.returncode == 0, done.stderr
    there = {path.name for path in house.program.iterdir()}
    assert (
        not there & {".git", "data", ".venv", "releases", "link"} and not (house.program / "webui" / "a.pyc").exists()
    )
    assert (house.program / "run.sh").stat().st_mode & 0o777 == 0o755, "a service reads it"


@pytest.mark.parametrize("how", ["dies", "worker_failed"])
@pytest.mark.parametrize("columns", [COLOUR, SIZE])
def test_what_does_not_serve_is_left_again_with_all_that_it_did(
    how: str, columns: tuple[str, ...], house: House, tmp_path: Path
) -> None:
    """The database too, which the newer one has changed, and which the older one could not read any more."""
    broken = releases.packed(releases.write(tmp_path / "studio-2.0", "2.0", how, columns))
    house.start()
    done = house.do("update", str(broken), "--wait=2")
    assert done.returncode == 1
    assert house.version() == "1.0" and house.program == house.root
    assert (house.jobs(), house.columns()) == (["first"], list(releases.OLD))
    (log,) = (line.partition("the cause: ")[2] for line in done.stderr.splitlines() if "the cause: " in line)
    assert ("this version is broken" in Path(log).read_text(encoding="utf-8")) == (how == "dies")
    assert is_bilingual(done.stderr)
    assert [path.name for path in (house.root / "releases").iterdir() if path.is_dir()] == []


def test_what_was_not_ready_before_need_not_be_ready_after(house: House, tmp_path: Path) -> None:
    """A disk that is full is no reason to go back; another fault is."""
    for version, how in (("2.0", "storage"), ("3.0", "worker_failed")):
        releases.packed(releases.write(tmp_path / f"studio-{version}", version, how))
    (house.root / "pretends.json").write_text('{"version": "1.0", "how": "storage"}', encoding="utf-8")
    house.start()
    assert house.do("update", str(tmp_path / "studio-2.tar.gz"), "--wait=5").returncode == 0
    assert house.version() == "2.0"
    assert house.do("update", str(tmp_path / "studio-3.tar.gz"), "--wait=1").returncode == 1
    assert house.version() == "2.0"


def test_what_cannot_be_installed_stops_nothing(house: House, tmp_path: Path) -> None:
    source = releases.write(tmp_path / "studio-2.0", "2.0")
    (source / "cannot-be-installed").touch()
    house.start()
    process = house.holder
    done = house.do("update", str(source))
    assert done.returncode == 1 and "no such package" in done.stderr
    assert house.holder == process and house.version() == "1.0"
    assert not (house.root / "current").exists()


def test_the_old_environment_goes_along(house: House, newer: Path) -> None:
    """Settings that stood in the shell of whoever began it: only the process has them."""
    process = subprocess.Popen(
        [house.program / ".venv-edge" / "bin" / "python", "-m", "webui"],
        cwd=house.program,
        env={**house.env, "STUDIO_HOME": "data", "STUDIO_NAMES": "studio.example"},
    )
    house.begun.append(process)
    while house.version() is None:
        assert process.poll() is None
    assert house.do("update", str(newer)).returncode == 0
    assert process.wait(10) == 0
    assert house.holder
    environ = Path(f"/proc/{house.holder.process}/environ").read_text().split("\0")
    assert {"STUDIO_NAMES=studio.example", f"STUDIO_HOME={house.root / 'data'}"} <= set(environ)


def test_back_by_hand_takes_along_what_was_done_since(house: House, tmp_path: Path) -> None:
    """Where the older one can work with the newer database: it is the same, with a column more."""
    newer = releases.write(tmp_path / "studio-2.0", "2.0", columns=COLOUR)
    house.start()
    assert house.do("update", str(newer)).returncode == 0
    house.add("second")
    done = house.do("rollback")
    assert done.returncode == 0, done.stderr
    assert (house.version(), house.jobs(), house.program) == ("1.0", ["first", "second"], house.root)
    assert house.do("rollback").returncode == 1, "there is none before the first"


def test_back_by_hand_says_what_cannot_be_taken_along(house: House, tmp_path: Path) -> None:
    newer = releases.write(tmp_path / "studio-2.0", "2.0", columns=SIZE)
    house.start()
    assert house.do("update", str(newer)).returncode == 0
    house.add("second")
    done = house.do("rollback")
    assert done.returncode == 0, done.stderr
    assert (house.version(), house.jobs()) == ("1.0", ["first"])
    assert "that of before the update is put back" in done.stderr and is_bilingual(done.stderr)
    undone = House(tmp_path / "undone")
    shutil.copytree(house.state / "before-update" / "undone", undone.state)
    assert undone.jobs() == ["first", "second"], "nothing is thrown away"


def test_a_way_back_that_does_not_serve_is_none(house: House, tmp_path: Path) -> None:
    newer = releases.write(tmp_path / "studio-2.0", "2.0", columns=SIZE)
    house.start()
    assert house.do("update", str(newer)).returncode == 0
    house.add("second")
    (house.root / "pretends.json").write_text('{"version": "1.0", "how": "dies"}', encoding="utf-8")
    assert house.do("rollback", "--wait=5").returncode == 1
    assert (house.version(), house.jobs()) == ("2.0", ["first", "second"])


def test_two_versions_stay_and_no_more(house: House, tmp_path: Path) -> None:
    house.start()
    for number in (2, 3, 4):
        newer = releases.write(tmp_path / f"studio-{number}", f"{number}.0")
        assert house.do("update", str(newer)).returncode == 0
    stay = sorted(path.name[:3] for path in (house.root / "releases").iterdir() if path.is_dir())
    assert stay == ["3.0", "4.0"]
    assert len(list((house.state / "before-update").iterdir())) == 1
    assert house.do("rollback").returncode == 0
    assert house.program.name.startswith("3.0")
    assert house.do("rollback").returncode == 1, "version 2 is not there any more"


def test_what_is_too_large_for_the_disk_is_refused_before_anything_is_written(house: House, newer: Path) -> None:
    code = (
        "import shutil, sys; from webui.update import __main__ as update; disk = shutil.disk_usage('/');"
        "shutil.disk_usage = lambda path: disk._replace(free=300_000_000); sys.exit(update.main(sys.argv[1:]))"
    )
    python, _, _, *words = house.command("update", str(newer))
    done = subprocess.run([python, "-c", code, *words], cwd=REPOSITORY, env=house.env, capture_output=True, text=True)
    assert done.returncode == 1 and "not enough room" in done.stderr and is_bilingual(done.stderr)
    assert [path.name for path in (house.root / "releases").iterdir() if path.is_dir()] == []
    assert house.program == house.root


def test_two_updates_do_not_meet(house: House, newer: Path) -> None:
    with Installation(house.root).alone():
        done = house.do("update", str(newer))
    assert done.returncode == 1 and "another update" in done.stderr


def test_a_home_in_use_by_something_else_is_left_alone(house: House, newer: Path) -> None:
    """A backup that is being restored, say: it has no port."""
    with (house.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 1 on here, restoring a backup\n")
        lock.flush()
        done = house.do("update", str(newer))
    assert done.returncode == 1 and "uses it" in done.stderr
    assert house.program == house.root


def test_ctrl_c_goes_back(house: House, tmp_path: Path) -> None:
    waits = releases.write(tmp_path / "studio-2.0", "2.0", "worker_loading", SIZE)
    house.start()
    command = house.command("update", str(waits), "--wait=60")
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=house.env, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as update:
        while house.version() != "2.0":
            assert update.poll() is None
        os.killpg(update.pid, signal.SIGINT)
        _, said = update.communicate(timeout=60)
    assert update.returncode == 1 and "interrupted" in said
    assert (house.version(), house.jobs(), house.columns()) == ("1.0", ["first"], list(releases.OLD))


def test_the_first_installation_has_nothing_to_go_back_to(newer: Path, tmp_path: Path) -> None:
    (tmp_path / "opt").mkdir()
    house = House(tmp_path / "opt")
    done = house.do("update", str(newer), "--edge", STUDIO_WHEELHOUSE="wheels")
    assert done.returncode == 0, done.stderr
    assert (house.program / ".venv-edge" / "bin" / "python").exists()
    assert (house.program / "installed-from").read_text().strip() == str(REPOSITORY / "wheels")
    assert house.do("rollback").returncode == 1


def test_a_sum_beside_it_must_agree(house: House, newer: Path) -> None:
    beside = newer.with_name(f"{newer.name}.sha256")
    beside.write_text(f"{'0' * 64}  {newer.name}\n", encoding="utf-8")
    done = house.do("update", str(newer))
    assert done.returncode == 1 and "Download it again" in done.stderr
    beside.write_text(f"{hashlib.sha256(newer.read_bytes()).hexdigest()}  {newer.name}\n", encoding="utf-8")
    assert house.do("update", str(newer)).returncode == 0


def test_only_one_lock_is_had(tmp_path: Path) -> None:
    with Installation(tmp_path).alone(), pytest.raises(NotDone), Installation(tmp_path).alone():
        pass
