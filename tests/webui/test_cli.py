"""The command line: every verb starts its module with the words that it was given, before anything is installed."""

from __future__ import annotations

import os
import re
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from engines.settings import installation
from tests.conftest import REPOSITORY
from webui import cli


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], str | None]]:
    """What was started: the module, its words, and STUDIO_HTTPS."""
    starts: list[tuple[str, list[str], str | None]] = []

    def run_module(module: str, run_name: str, alter_sys: bool) -> None:
        assert (run_name, alter_sys) == ("__main__", True)
        starts.append((module, sys.argv[1:], os.environ.get("STUDIO_HTTPS")))

    monkeypatch.setattr(runpy, "run_module", run_module)
    monkeypatch.setenv("STUDIO_HTTPS", "")  # so that it is restored
    monkeypatch.delenv("STUDIO_HTTPS")
    return starts


@pytest.mark.parametrize(
    ("words", "start"),
    [
        ([], ("webui", [], None)),
        (["--https"], ("webui", [], "on")),
        (["serve", "--https"], ("webui", [], "on")),
        (["--https", "edge"], ("webui", [], "on")),
        (["app", "--stop"], ("webui.desktop", ["--stop"], None)),
        (["backup", "a.tar", "--models"], ("webui.backup", ["backup", "a.tar", "--models"], None)),
        (["restore", "a.tar"], ("webui.backup", ["restore", "a.tar"], None)),
        (["token", "--revoke", "a b"], ("webui.people.tokens", ["--revoke", "a b"], None)),
        (["doctor", "--json"], ("webui.doctor", ["--json"], None)),
    ],
)
def test_a_verb_starts_its_module(
    words: list[str], start: object, started: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["awportrait", *words])
    cli.main()
    assert started == [start]


def test_every_module_of_a_verb_is_a_program() -> None:
    for verb in cli.VERBS:
        if verb.module:
            module = verb.module.split()[0]
            spec = find_spec(module)
            assert spec is not None and spec.origin is not None
            if spec.submodule_search_locations:
                spec = find_spec(f"{module}.__main__")
                assert spec is not None and spec.origin is not None
            assert 'if __name__ == "__main__":' in Path(spec.origin).read_text(encoding="utf-8"), module


def test_what_only_the_source_tree_can_do_says_so(monkeypatch: pytest.MonkeyPatch, started: list[object]) -> None:
    monkeypatch.setattr(sys, "argv", ["awportrait", "bench"])
    with pytest.raises(SystemExit, match="run.sh bench"):
        cli.main()
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["awportrait", "build", "portrait"])
    with pytest.raises(SystemExit, match="PyTorch"):
        cli.main()
    assert started == []


def test_an_unknown_verb_is_refused_with_the_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["awportrait", "fly"])
    with pytest.raises(SystemExit, match="fly"):
        cli.main()
    assert "edge" in capsys.readouterr().out


def test_help_names_every_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And every setting, before anything is installed: tests/engines/test_settings.py."""
    monkeypatch.setattr(sys, "argv", ["run.sh", "--help"])
    cli.main()
    text = capsys.readouterr().out
    assert "webUI二次开发 by 科哥" in text
    for verb in (*cli.VERBS, *cli.OF_THE_SOURCE):
        assert f"./run.sh {verb.name}" in text and verb.zh in text and verb.en in text


def test_run_sh_and_the_command_have_the_same_verbs() -> None:
    script = (REPOSITORY / "run.sh").read_text(encoding="utf-8")
    cases = re.findall(r"^  ([a-z|]+)\)", script.partition('case "$verb" in')[2], re.MULTILINE)
    verbs = {verb for case in cases for verb in case.split("|")}
    named = {verb.name for verb in (*cli.VERBS, *cli.OF_THE_SOURCE)}
    assert named == verbs | {"doctor", "version", "help"}, "those install nothing, and are run.sh's last case"


@pytest.mark.parametrize("word", ["version", "--version", "-V"])
def test_it_says_which_version_it_is(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.sh", word])
    cli.main()
    assert capsys.readouterr().out.startswith(f"awportrait-edge {installation.version()} (Python 3.")


def test_where_the_data_of_a_package_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "IS_SOURCE", False)
    assert installation.default_home({"XDG_DATA_HOME": "/x/data"}) == Path("/x/data/awportrait-edge")
    assert installation.default_home({"XDG_DATA_HOME": "data"}).is_absolute(), "a relative one counts as none"
    monkeypatch.setattr(installation, "IS_SOURCE", True)
    assert installation.default_home({}) == Path("data")


def test_data_lie_above_all_releases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = tmp_path / "releases" / "2.0"
    release.mkdir(parents=True)
    (tmp_path / "current").symlink_to(release)
    assert installation.root_of(release) == release, "a clone in a folder of that name"
    (release / installation.RELEASE).touch()
    assert installation.root_of(tmp_path / "current") == tmp_path
    monkeypatch.setattr(installation, "PROJECT", release)
    monkeypatch.setattr(installation, "root_of", lambda: tmp_path)
    assert installation.default_home({}) == tmp_path / "data"
