"""What is taken for a release, and that nothing of a file is written outside its folder."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import pytest

from tests.support import releases
from tests.support.stub_commands import is_bilingual
from tests.support.tree import tree
from webui.update import NotDone, release


def member(kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 3) -> tarfile.TarInfo:
    entry = tarfile.TarInfo()
    entry.type, entry.linkname, entry.size = kind, link, size if kind == tarfile.REGTYPE else 0
    return entry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return releases.write(tmp_path / "in" / "studio-2", "2.0.1")


def test_a_file_has_what_its_folder_has(folder: Path, tmp_path: Path) -> None:
    for number, path in enumerate((folder, releases.packed(folder))):
        source = release.examine(path)
        assert source.version == "2.0.1" and source.size == 5 * release.BLOCK_BYTES
        target = tmp_path / str(number)
        target.mkdir()
        release.unpack(source, target)
        assert sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()) == sorted(
            str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()
        )
        assert (target / "run.sh").stat().st_mode & 0o777 == 0o755
        assert (target / "pyproject.toml").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("../evil", member()),
        ("studio-2/../../evil", member()),
        ("/evil", member()),
        ("studio-2/./evil", member()),
        ("studio-2//evil", member()),
        ("studio-2\\..\\evil", member()),
        ("studio-2/evil", member(tarfile.SYMTYPE, "/etc")),
        ("studio-2/evil", member(tarfile.LNKTYPE, "studio-2/run.sh")),
        ("studio-2/evil", member(tarfile.FIFOTYPE)),
        ("studio-2/evil", member(tarfile.CHRTYPE)),
        ("studio-2/run.sh", member()),  # twice
        ("another/file", member()),  # a second top
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_with_anything_else_is_refused_before_it_is_unpacked(
    name: str, entry: tarfile.TarInfo, folder: Path, tmp_path: Path
) -> None:
    path = releases.packed(folder, {name: entry})
    before = tree(tmp_path)
    with pytest.raises(NotDone) as refused:
        release.examine(path)
    assert is_bilingual(str(refused.value))
    assert tree(tmp_path) == before


def test_a_bomb_is_refused_by_what_it_says_of_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = releases.packed(folder, {"studio-2/large": member(size=200_000)})
    monkeypatch.setattr(release, "MOST_BYTES", 100_000)
    with pytest.raises(NotDone, match="too large"):
        release.examine(path)


@pytest.mark.parametrize("lacking", ["run.sh", "webui/__main__.py", "pyproject.toml"])
def test_what_is_no_release_is_refused(lacking: str, folder: Path) -> None:
    (folder / lacking).unlink()
    for path in (folder, releases.packed(folder)):
        with pytest.raises(NotDone, match="no release of this program"):
            release.examine(path)


def test_a_version_that_is_a_path_is_none(folder: Path) -> None:
    releases.write(folder, "../../2")
    with pytest.raises(NotDone, match="version"):
        release.examine(folder)


def test_half_a_file_is_refused(folder: Path, tmp_path: Path) -> None:
    data = releases.packed(folder).read_bytes()
    for number, part in enumerate((data[: len(data) // 2], b"", b"nonsense", gzip.compress(b"nonsense"))):
        path = tmp_path / f"{number}.tar.gz"
        path.write_bytes(part)
        with pytest.raises(NotDone):
            release.examine(path)
    with pytest.raises(NotDone):
        release.examine(tmp_path / "nowhere")


def test_what_is_changed_between_two_looks_is_refused(folder: Path, tmp_path: Path) -> None:
    source = release.examine(releases.packed(folder))
    releases.write(folder, "2.0.2")
    releases.packed(folder)
    (tmp_path / "out").mkdir()
    with pytest.raises(NotDone, match="being changed"):
        release.unpack(source, tmp_path / "out")


@pytest.mark.parametrize("said", ["", "nonsense", f"{'0' * 64}  studio-2.tar.gz\n"])
def test_another_sum_beside_it_is_refused(said: str, folder: Path) -> None:
    path = releases.packed(folder)
    path.with_name(f"{path.name}.sha256").write_text(said, encoding="utf-8")
    with pytest.raises(NotDone) as refused:
        release.examine(path)
    assert is_bilingual(str(refused.value))
