"""An update that is killed, before each single thing that it does: what is left starts, and can be updated."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support import releases
from tests.support.releases import House
from tests.support.update_crashes import KILLED

SIZE = (*releases.OLD, "size")
MOST = 200


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not running; read only."""
    return releases.cloned(tmp_path_factory.mktemp("clone") / "studio").root


@pytest.mark.parametrize(("how", "first"), [("works", 1), ("dies", 34)])  # before, they do the same
def test_whenever_it_is_killed_something_starts_with_all_jobs(
    how: str, first: int, clone: Path, tmp_path: Path
) -> None:
    """
    The newer version makes of the database what the older one cannot read. One that never starts, and could not be left
    any more, is left by hand.
    """
    newer = releases.packed(releases.write(tmp_path / "studio-2", "2.0", how, SIZE))
    good = releases.write(tmp_path / "studio-3", "3.0", columns=SIZE)
    versions = []
    for last in range(first, MOST):
        house = House(Path(shutil.copytree(clone, tmp_path / f"house-{last}", symlinks=True)))
        try:
            house.start()
            python, _, _, *words = house.command("update", str(newer), "--wait=20")
            update = subprocess.run(
                [python, "-m", "tests.support.update_crashes", str(last), *words],
                cwd=REPOSITORY,
                env=house.env,
                capture_output=True,
                text=True,
                timeout=60,
            )
            house.stop()
            if how == "dies" and house.program != house.root:
                assert update.returncode == KILLED
                assert house.do("rollback").returncode == 0
            house.start()
            versions.append(house.version())
            assert house.jobs() == ["first"], (last, update.stderr)
            if update.returncode != KILLED:
                break
            if last % 4 == 0:
                done = house.do("update", str(good), "--wait=20")
                assert (done.returncode, house.version(), house.jobs()) == (0, "3.0", ["first"]), (last, done.stderr)
                assert len([path for path in (house.root / "releases").iterdir() if path.is_dir()]) <= 2
        finally:
            house.stop()
            shutil.rmtree(house.root)
    assert first + 10 < last < MOST - 1
    assert versions[0] == "1.0" and versions[-1] == ("2.0" if how == "works" else "1.0")
