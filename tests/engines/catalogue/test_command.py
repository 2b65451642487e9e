"""./run.sh models as a process, and the same as a job: what it says, how it stops, whom it asks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engines.backends.verdicts import Verdicts
from engines.bundle import Shelf
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Event, Failed, Fetch, Final, Note, Progress, unpack
from engines.studio import Studio
from engines.worker import execute
from engines.worker.builds import BackgroundJobs
from engines.worker.inventory import strays
from engines.worker.loop import Worker
from tests.conftest import REPOSITORY, Within
from tests.support.cancelling import cancelled_when
from tests.support.fakes import FakeEngine, write_portrait, write_restorer
from tests.support.hub import Hub, served

pytest.importorskip("huggingface_hub", reason="downloads")

PTH = random.Random(1).randbytes(4_000_000)
FILE, REPO = "GPEN-BFR-512.pth", "akhaliq/GPEN-BFR-512"
SLOW_S = 0.05  # for each 16 kB
LIMIT_S = 60.0
# What the interpreter itself tells of the network, written down in a file.
LISTENER = """
import os, sys
def hear(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        told = arguments[1] if event == "socket.connect" else arguments[:2]
        with open(os.environ["HEARD"], "a") as f:
            f.write(f"{told}\\n")
sys.addaudithook(hear)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with served(Hub({REPO: {FILE: PTH}})) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


class Command:
    """One run, with what it says."""

    def __init__(self, home: Path, *arguments: str, **environment: str) -> None:
        ours = {k: v for k, v in os.environ.items() if not k.startswith(("STUDIO_", "HF_"))}
        # As the server's child has it, which sets HF_HUB_OFFLINE for itself; and a token that is nobody's business.
        ours |= {"STUDIO_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_TOKEN": "hf_of_somebody", **environment}
        command = [sys.executable, "-W", "error", "-m", "engines.catalogue", *arguments]
        self.popen = subprocess.Popen(
            command, cwd=REPOSITORY, env=ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def end(self, number: signal.Signals | None = None) -> int:
        if number is not None:
            self.popen.send_signal(number)
        self.out, self.err = self.popen.communicate(timeout=LIMIT_S)
        assert "Traceback" not in self.err, self.err
        return self.popen.returncode

    @property
    def events(self) -> list[Event]:
        return [unpack(line) for line in self.out.splitlines()]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def part(home: Path) -> Path:
    return home / "checkpoints" / f".{FILE}.fetching" / f"{FILE}.part"


def comes(home: Path) -> bool:
    return part(home).exists() and part(home).stat().st_size > 0


def test_the_list_says_what_there_is_and_what_runs_here(home: Path) -> None:
    (home / "checkpoints").mkdir(parents=True)
    (home / "checkpoints" / FILE).touch()
    command = Command(home)
    assert command.end() == 0, command.err
    for word in ("z-image-turbo", "≈ 32.9 GB", "Apache-2.0", "non-commercial", "TAEF1", "Download", "下载"):
        assert word in command.out
    here = [line for line in command.out.splitlines() if "● 已在本机 here" in line]
    assert here == ["gpen-bfr-512  ● 已在本机 here"]


@pytest.mark.parametrize("variable", ["HF_ENDPOINT", "STUDIO_HF_MIRROR"])
def test_a_mirror_is_asked_and_nobody_else(hub: Hub, home: Path, tmp_path: Path, variable: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(LISTENER)
    more = {"PYTHONPATH": str(tmp_path), "HEARD": str(tmp_path / "heard"), "HOME": str(tmp_path)}
    elsewhere = {} if variable == "HF_ENDPOINT" else {"HF_ENDPOINT": "http://127.0.0.1:9"}
    command = Command(home, "get", "gpen-bfr-512", **more, **elsewhere, **{variable: hub.url + "/"})
    assert command.end() == 0, command.err
    assert (home / "checkpoints" / FILE).read_bytes() == PTH
    for line in (
        "! non-commercial: 上游没有许可证文件",
        f"1. {FILE}, 4.0 MB",
        "✓ gpen-bfr-512",
        "./run.sh build restorer",
    ):
        assert line in command.out
    port = int(hub.url.rpartition(":")[2])
    told = (tmp_path / "heard").read_text().splitlines()
    assert told and all(f"'127.0.0.1', {port}" in line for line in told), told
    paths = {one.path for one in hub.asked}
    assert paths == {f"/api/models/{REPO}", f"/{REPO}/resolve/{'c0ffee' * 6}c0ff/{FILE}", f"/cdn/{REPO}/{FILE}"}
    for one in hub.asked:
        assert "authorization" not in one.headers and "torch" not in one.headers["user-agent"]


def test_it_is_stopped_and_goes_on_where_it_stopped(hub: Hub, home: Path) -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        hub.pace_s = SLOW_S
        before = part(home).stat().st_size if part(home).exists() else 0
        command = Command(home, "get", "gpen-bfr-512", HF_ENDPOINT=hub.url)
        until(lambda before=before: comes(home) and part(home).stat().st_size > before)  # type: ignore[misc]
        assert command.end(number) == code
        assert os.listdir(home / "checkpoints") == [f".{FILE}.fetching"], "nothing that looks complete"
        if number is signal.SIGINT:
            assert "已暂停" in command.err and "Paused" in command.err
    hub.pace_s, have = 0.0, part(home).stat().st_size
    hub.asked.clear()
    last = Command(home, "get", "gpen-bfr-512", HF_ENDPOINT=hub.url)
    assert last.end() == 0 and (home / "checkpoints" / FILE).read_bytes() == PTH
    assert {one.range for one in hub.files()} == {f"bytes={have}-"}
    assert os.listdir(home / "checkpoints") == [FILE]


def test_what_goes_wrong_is_one_line_in_both_languages_and_one_event(hub: Hub, home: Path) -> None:
    hub.served[FILE] = PTH[:-1] + b"?"
    spoken = Command(home, "get", "gpen-bfr-512", HF_ENDPOINT=hub.url)
    assert spoken.end() == 1 and f"✗ {FILE}: 校验和不符" in spoken.err and "Wrong checksum" in spoken.err
    event = Command(home, "get", "gpen-bfr-512", "--events", HF_ENDPOINT=hub.url)
    assert event.end() == 1
    last = event.events[-1]
    assert (
        isinstance(last, Failed) and last.code == "download_failed" and last.facts["why"] == f"wrong checksum: {FILE}"
    )
    unknown = Command(home, "get", "gpen-1", HF_ENDPOINT=hub.url)
    assert unknown.end() == 1 and "no model named 'gpen-1'" in unknown.err
    mirror = Command(home, STUDIO_HF_MIRROR="hub.local")
    assert mirror.end() == 1 and "STUDIO_HF_MIRROR=hub.local" in mirror.err


# ---- an address that a page has named
HUB_MEANS = """
import socket
true = socket.getaddrinfo
def told(host, port, *more, **even):
    if host in ("hub.lan", b"hub.lan"):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    return true(host, port, *more, **even)
socket.getaddrinfo = told
"""


def test_a_name_that_means_this_machine_is_not_asked(hub: Hub, home: Path, tmp_path: Path) -> None:
    """The address looked harmless; what it means is said by whoever answers for the name."""
    (tmp_path / "sitecustomize.py").write_text(HUB_MEANS)
    endpoint = hub.url.replace("127.0.0.1", "hub.lan")
    asked = ("get", "gpen-bfr-512", "--events", "--endpoint", endpoint)
    command = Command(home, *asked, "--guarded", PYTHONPATH=str(tmp_path))
    assert command.end() == 1 and hub.asked == []
    last = command.events[-1]
    assert isinstance(last, Failed) and last.facts["why"] == "connections to it are not allowed", last
    assert Command(home, *asked, PYTHONPATH=str(tmp_path)).end() == 0, "whom the owner of the machine names is asked"


def test_an_answer_that_leads_to_this_machine_is_not_followed(hub: Hub, home: Path, tmp_path: Path) -> None:
    """The hub is reached by a proxy of the environment, which may be here, and what it says leads past the proxy."""
    more = {"HTTP_PROXY": hub.url, "NO_PROXY": "127.0.0.1"}
    asked = ("get", "gpen-bfr-512", "--endpoint", "http://192.168.77.7", "--events", "--guarded")
    with served(Hub({REPO: {FILE: PTH}})) as other:
        hub.url = other.url
        command = Command(home, *asked, **more)
        assert command.end() == 1 and other.asked == []
    last = command.events[-1]
    assert isinstance(last, Failed) and last.facts["why"] == "connections to it are not allowed", last
    assert len(hub.asked) == 2, "the list, and where the file lies"


# ---- as a job

GET = Fetch("gpen-bfr-512")


@pytest.fixture
def queue(home: Path) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(home / "queue.db", home / "outputs")
    yield opened
    opened.close()


def workshop(home: Path, hub: Hub) -> BackgroundJobs:
    models = home / "models"
    models.mkdir(parents=True, exist_ok=True)
    return BackgroundJobs(Shelf((models,)), models, home / "checkpoints", Verdicts(home / "verdicts"), endpoint=hub.url)


def test_a_download_through_the_queue_is_told_to_every_page(
    hub: Hub, home: Path, queue: SqliteQueue, within: Within[list[Event]]
) -> None:
    for name in ("portrait", "restorer"):
        {"portrait": write_portrait, "restorer": write_restorer}[name](home / "models" / name)
    shop = workshop(home, hub)
    worker = Worker(queue, Studio(shop.shelf, home / "state", FakeEngine().select), shop.shelf, "auto", shop)
    worker.start()
    try:
        assert "gpen-bfr-512" not in {status.model.id for status in queue.status().models if status.here}
        job = queue.submit(GET)
        events = within(LIMIT_S, lambda: list(queue.follow(job)))
        assert isinstance(events[-1], Final) and events[-1].reason == f"gpen-bfr-512: {FILE}", events[-1]
        assert any(isinstance(event, Progress) and event.stage == "fetch" for event in events)
        assert Note(f"1. {FILE}, 4.0 MB") in events
        assert {status.model.id for status in queue.status().models if status.here} == {"gpen-bfr-512"}
        assert ("restorer", FILE) in queue.status().sources, "ready to be built from"
        assert queue.finished(9) == []
    finally:
        worker.stop(LIMIT_S)


def test_a_cancelled_download_keeps_its_part_hidden(hub: Hub, home: Path) -> None:
    hub.pace_s = SLOW_S
    *_, last = cancelled_when(workshop(home, hub).run(GET, Path()), lambda event: comes(home))
    assert isinstance(last, Failed) and last.code == "cancelled"
    assert os.listdir(home / "checkpoints") == [f".{FILE}.fetching"] and comes(home)


def test_pressed_again_it_goes_on_from_what_is_kept(hub: Hub, home: Path) -> None:
    """As the page does it: another job, another process."""
    hub.pace_s = SLOW_S
    cancelled_when(workshop(home, hub).run(GET, Path()), lambda event: comes(home))
    hub.pace_s, have = 0.0, part(home).stat().st_size
    hub.asked.clear()
    *_, last = workshop(home, hub).run(GET, Path())
    assert isinstance(last, Final) and (home / "checkpoints" / FILE).read_bytes() == PTH
    assert {one.range for one in hub.files()} == {f"bytes={have}-"}


def test_the_mirror_that_a_page_names_is_asked(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By way of a proxy, as nothing but this machine is at hand here."""
    monkeypatch.setenv("HTTP_PROXY", hub.url)
    shop = workshop(home, hub)
    shop.endpoint = "http://127.0.0.1:9"  # the owner's own setting, which it goes before
    *_, last = shop.run(Fetch("gpen-bfr-512", endpoint="http://192.168.77.7/"), Path())
    assert isinstance(last, Final), last
    assert {one.headers["host"] for one in hub.asked if "/cdn/" not in one.path} == {"192.168.77.7"}


def test_a_stopped_download_waits_for_the_next_start(hub: Hub, home: Path, queue: SqliteQueue) -> None:
    hub.pace_s = SLOW_S
    job_id, shop = queue.submit(GET), workshop(home, hub)
    job = queue.claim(lane="builds")
    assert job is not None and queue.claim() is None, "no picture waits behind a download"
    shop.stop()
    execute(job, queue, shop)
    assert queue.job(job_id).state == "running"
    hub.pace_s = 0.0
    queue.recover()
    again = queue.claim(lane="builds")
    assert again is not None
    execute(again, queue, workshop(home, hub))
    assert queue.job(job_id).state == "done" and (home / "checkpoints" / FILE).read_bytes() == PTH


def test_a_model_is_an_id_of_the_catalogue_and_never_an_address(hub: Hub, home: Path) -> None:
    for name in ("../x", "https://evil.example/x", REPO, ""):
        (event,) = workshop(home, hub).run(Fetch(name), Path())
        assert isinstance(event, Failed) and event.code == "not_found"
    assert hub.asked == []


def test_weights_among_the_bundles_are_told_of(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    models = home / "models"
    write_restorer(models / "good")
    write_restorer(models / "broken")
    (models / "broken" / "bundle.json").write_text("{")
    (models / "pipeline" / "transformer").mkdir(parents=True)
    for name in ("raw.safetensors", "RAW.ONNX", "note.txt", ".hidden.onnx"):
        (models / name).touch()
    assert strays(models) == ("RAW.ONNX", "broken", "pipeline", "raw.safetensors")
    assert "raw.safetensors is no bundle: weights belong into the folder of checkpoints" in caplog.text
    assert strays(home / "nothing here") == ()
