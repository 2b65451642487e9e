"""Where log records go, which job they name, and what they do not name."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import logs
from engines.settings import Settings
from tests.support.full_disk import full_disk

JOB = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Of a program that logs for the length of a test."""
    root = logging.getLogger()
    level, before = root.level, list(root.handlers)
    yield Settings(tmp_path)
    root.setLevel(level)
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)
        handler.close()


def written(settings: Settings) -> str:
    return (logs.folder(settings.state) / "worker.log").read_text(encoding="utf-8")


def test_a_line_of_a_job_bears_its_name(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """In the thread that works on it, and nowhere else."""
    logs.begin(settings, "worker")
    log = logging.getLogger("engines.studio")
    with logs.about(JOB):
        log.info("inside")
        aside = threading.Thread(target=log.info, args=("aside",))
        aside.start()
        aside.join()
    log.info("after")
    lines = [line.split(" ", 2)[2] for line in written(settings).splitlines()]
    assert lines == [
        "INFO engines.studio job=01234567: inside",
        "INFO engines.studio: aside",
        "INFO engines.studio: after",
    ]
    assert capsys.readouterr().err == written(settings), "standard error has the same"


def test_the_files_are_private_and_few(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 2000)
    logs.begin(settings, "worker")
    for k in range(300):
        logging.getLogger("x").warning("line %d", k)
    folder = logs.folder(settings.state)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["worker.log", *(f"worker.log.{k}" for k in range(1, logs.FILES))]
    assert folder.stat().st_mode & 0o077 == 0
    assert "line 299" in written(settings) and all(path.stat().st_size <= 2000 for path in folder.iterdir())


def test_two_processes_have_a_file_each(settings: Settings) -> None:
    logs.begin(settings, "server")
    logging.getLogger("x").warning("here")
    assert [path.name for path in logs.folder(settings.state).iterdir()] == ["server.log"]


def test_the_level_is_the_settings(settings: Settings) -> None:
    logs.begin(Settings(settings.home, log="error"), "worker")
    logging.getLogger("x").warning("not wanted")
    assert not (logs.folder(settings.state) / "worker.log").exists()


def test_a_full_disk_disturbs_nobody(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    logs.begin(settings, "worker")
    with full_disk():
        for k in range(100):
            logging.getLogger("x").warning("line %d %s", k, "x" * 200)
    logging.getLogger("x").warning("there is room again")
    said = capsys.readouterr().err
    assert said.count("\n") == 101 and "Traceback" not in said
    assert "there is room again" in written(settings)


def test_a_folder_that_cannot_be_made_is_said_once(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    settings.state.mkdir()
    logs.folder(settings.state).touch()
    logs.begin(settings, "worker")
    logging.getLogger("x").warning("a line")
    said = capsys.readouterr().err
    assert re.findall("WARNING.*", said) == [
        f"WARNING engines.logs: nothing is logged into {logs.folder(settings.state) / 'worker.log'}: File exists",
        "WARNING x: a line",
    ]


def test_nothing_names_a_photo(settings: Settings) -> None:
    """Nor does the traceback of what nobody foresaw, wherever it quotes a path."""
    logs.begin(settings, "worker")
    log, photo = logging.getLogger("x"), settings.cache / "hash" / "my wife.jpg"
    log.warning("%s cannot be read: why", settings.uploads / "0123.jpg")
    log.warning("in %s all is well", settings.uploads)
    try:
        photo.read_bytes()
    except FileNotFoundError:
        log.exception("the job")
    text = written(settings)
    assert "wife" not in text and "0123" not in text
    assert f"{settings.uploads}/… cannot be read: why" in text and f"in {settings.uploads} all is well" in text
    assert f"No such file or directory: '{settings.cache}/…'" in text
