"""How hot the processors are, by a sysfs that tests write; when a worker rests; and that a stop waits for no rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from engines.bundle import Shelf
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Event, Final, Generate, Request
from engines.messages.status import Status
from engines.studio import Studio
from engines.worker import heat
from engines.worker.heat import LOOK_S, SAY_S, Limits, Rest, hottest_c
from engines.worker.loop import Worker
from tests.support.fakes import FakeEngine, write_detector, write_portrait, write_restorer

LIMIT_S = 60.0
LIMITS = Limits(80.0, 72.0)


class Sysfs:
    """A folder like /sys/class, whose sensors are links to their devices there as here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.count = 0

    def _device(self, group: str, name: str) -> Path:
        device = self.root.parent / f"device{self.count}"
        device.mkdir()
        (self.root / group).mkdir(parents=True, exist_ok=True)
        (self.root / group / f"{name}{self.count}").symlink_to(device)
        self.count += 1
        return device

    def zone(self, kind: str, text: str) -> Path:
        """Return the file that holds a thermal zone's temperature."""
        device = self._device("thermal", "thermal_zone")
        (device / "type").write_text(f"{kind}\n")
        (device / "temp").write_text(text)
        return device / "temp"

    def chip(self, name: str, *texts: str) -> Path:
        """Return the folder of a chip with so many sensors."""
        device = self._device("hwmon", "hwmon")
        (device / "name").write_text(f"{name}\n")
        for number, text in enumerate(texts, 1):
            (device / f"temp{number}_input").write_text(text)
        return device


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path / "class")


# ---- sensors


@pytest.mark.parametrize(
    "kind",
    ["x86_pkg_temp", "cpu_thermal", "cpu-thermal", "CPU-therm", "GPU-therm", "gpu-thermal", "soc0-thermal",
     "tj-thermal", "soc-thermal", "bigcore0-thermal", "littlecore-thermal", "cpuss-0-usr", "cpu0-thermal"],
)  # fmt: skip
def test_a_zone_of_the_processor_is_read(sysfs: Sysfs, kind: str) -> None:
    sysfs.zone(kind, "61500\n")
    assert hottest_c(sysfs.root) == 61.5


@pytest.mark.parametrize("name", ["coretemp", "k10temp", "zenpower", "cpu_thermal", "amdgpu"])
def test_the_hottest_sensor_of_a_chip_counts(sysfs: Sysfs, name: str) -> None:
    sysfs.chip(name, "52000\n", "67000\n", "61000\n")
    assert hottest_c(sysfs.root) == 67.0


@pytest.mark.parametrize(
    "kind",
    ["acpitz", "BAT0", "iwlwifi_1", "nvme", "PMIC-Die", "AO-therm", "thermal-fan-est", "pch_skylake", "scputron"],
)
def test_what_is_not_the_processor_does_not_count(sysfs: Sysfs, kind: str) -> None:
    """A Jetson's PMIC-Die says 100 °C all its life."""
    sysfs.zone(kind, "100000\n")
    sysfs.chip(kind, "100000\n")
    assert hottest_c(sysfs.root) is None
    sysfs.zone("cpu-thermal", "50000\n")
    assert hottest_c(sysfs.root) == 50.0


@pytest.mark.parametrize(
    "text", ["", "0\n", "-40000\n", "151000\n", "2147483647\n", "hot\n", "6e4\n", "\u00b2", "1" * 5000]
)
def test_nonsense_is_unknown_and_hides_no_other(sysfs: Sysfs, text: str) -> None:
    sysfs.zone("x86_pkg_temp", text)
    assert hottest_c(sysfs.root) is None
    sysfs.chip("coretemp", text, "58000\n")
    assert hottest_c(sysfs.root) == 58.0


def test_a_sensor_that_cannot_be_read_is_unknown(sysfs: Sysfs) -> None:
    """A device that sleeps refuses (EAGAIN), as a folder does here; one that has gone leaves a link to nothing."""
    refusing = sysfs.zone("cpu-thermal", "")
    refusing.unlink()
    refusing.mkdir()
    nameless = sysfs.chip("coretemp", "99000\n")
    (nameless / "name").unlink()
    (sysfs.root / "thermal" / "thermal_zone9").symlink_to(sysfs.root / "gone")
    assert hottest_c(sysfs.root) is None


def test_a_machine_without_sensors_is_unknown(tmp_path: Path) -> None:
    assert hottest_c(tmp_path / "nothing") is None


# ---- hysteresis


def test_it_rests_from_the_upper_limit_down_to_the_lower() -> None:
    resting, course = False, list[bool]()
    for temperature_c in (60.0, 79.9, 80.0, 90.0, 79.0, 72.1, 72.0, 79.0, 80.0, 71.0):
        resting = LIMITS.rest_at(temperature_c, resting)
        course.append(resting)
    assert course == [False, False, True, True, True, True, False, False, True, False]


@pytest.mark.parametrize("resting", [False, True])
def test_what_is_unknown_is_no_reason_to_rest(resting: bool) -> None:
    assert not LIMITS.rest_at(None, resting)


@pytest.mark.parametrize("resting", [False, True])
def test_a_guard_that_is_switched_off_never_rests(resting: bool) -> None:
    assert not Limits(0.0, 72.0).rest_at(120.0, resting)


# ---- what is read, and said, how often


class Bench:
    """A Rest whose sensor and clock are a test's. `said`: what it announced; `reads`: how often the sensor was read."""

    def __init__(self, limits: Limits = LIMITS, pause_s: float = 0.0) -> None:
        self.temperature_c: float | None = 60.0
        self.now_s, self.reads = 1000.0, 0
        self.said: list[tuple[str, float | None]] = []
        self.rest = Rest(limits, pause_s, self._read, lambda: self.now_s)
        self.rest.announce = lambda resting, temperature_c: self.said.append((resting, temperature_c))

    def _read(self) -> float | None:
        self.reads += 1
        return self.temperature_c

    def at(self, temperature_c: float | None, after_s: float = LOOK_S) -> str:
        """Return why pictures rest, so much later at this temperature."""
        self.temperature_c = temperature_c
        self.now_s += after_s
        return self.rest.reason("pictures")


def test_pictures_and_builds_rest_while_it_is_too_hot() -> None:
    bench = Bench()
    assert [bench.at(c) for c in (60.0, 90.0, 79.0)] == ["", heat.TOO_HOT, heat.TOO_HOT]
    assert bench.rest.reason("builds") == heat.TOO_HOT
    assert bench.at(71.0) == bench.rest.reason("builds") == ""


def test_sensors_are_read_every_few_seconds_whoever_asks() -> None:
    bench = Bench()
    for tenth in range(100):
        bench.now_s = 1000.0 + tenth / 10
        bench.rest.reason("pictures")
        bench.rest.reason("builds")
    assert LOOK_S >= 2 and bench.reads <= 1 + 10 / LOOK_S


def test_a_rest_is_said_at_once_and_once() -> None:
    bench = Bench()
    for temperature_c in (60.0, 81.0, 79.0, 78.0, 71.0, 70.5):
        bench.at(temperature_c, LOOK_S)
    assert bench.said == [("", 60.0), (heat.TOO_HOT, 81.0), ("", 71.0)]


def test_a_temperature_is_said_when_it_has_changed_and_not_too_often() -> None:
    bench = Bench()
    for temperature_c in (60.0, 65.0):
        bench.at(temperature_c, LOOK_S)
    assert bench.said == [("", 60.0)], "not so soon"
    bench.at(60.9, SAY_S)
    assert len(bench.said) == 1, "less than a degree"
    bench.at(61.0, SAY_S)
    assert bench.said[1:] == [("", 61.0)]


def test_a_sensor_that_falls_silent_is_said_too() -> None:
    bench = Bench()
    for temperature_c in (60.0, None, None, 60.0):
        bench.at(temperature_c, SAY_S)
    assert bench.said == [("", 60.0), ("", None), ("", 60.0)]


def test_a_worker_at_work_is_not_said_to_rest() -> None:
    """While a picture is drawn the thread of builds alone asks: it rests, and the picture goes on."""
    bench = Bench()
    bench.at(60.0)
    bench.temperature_c = 90.0
    bench.now_s += SAY_S
    assert bench.rest.reason("builds") == heat.TOO_HOT
    assert bench.said[-1] == ("", 90.0)
    assert bench.rest.reason("pictures") == heat.TOO_HOT and bench.said[-1] == (heat.TOO_HOT, 90.0)


def test_after_a_picture_pictures_pause_and_builds_do_not() -> None:
    bench = Bench(pause_s=5.0)
    assert bench.at(60.0) == ""
    bench.rest.begin_pause()
    assert bench.at(60.0, 4.9) == heat.PAUSE and bench.rest.reason("builds") == ""
    assert bench.at(60.0, 0.2) == ""
    assert [resting for resting, _ in bench.said] == ["", heat.PAUSE, ""]


def test_without_a_pause_there_is_none() -> None:
    bench = Bench()
    bench.rest.begin_pause()
    assert bench.at(60.0, 0.0) == "" and bench.said == [("", 60.0)]


# ---- the worker


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_portrait(tmp_path / "shelf" / "portrait")
    write_restorer(tmp_path / "shelf" / "restorer")
    write_detector(tmp_path / "shelf" / "detector")
    return tmp_path


class RecordingQueue(SqliteQueue):
    def __init__(self, home: Path) -> None:
        super().__init__(home / "queue.db", home / "outputs")
        self.announced: list[Status] = []

    def announce(self, status: Status) -> None:
        super().announce(status)
        self.announced.append(status)


class TimedStudio(Studio):
    """Says at what time of the test's clock each job began and ended."""

    spans: list[tuple[float, float]]
    clock: Callable[[], float]

    def run(self, request: Request, folder: Path) -> Generator[Event]:
        begun = self.clock()
        yield Final((), 0, 0.1, "fake")
        self.spans.append((begun, self.clock()))


@pytest.fixture
def queue(home: Path) -> Iterator[RecordingQueue]:
    opened = RecordingQueue(home)
    yield opened
    opened.close()


@pytest.fixture
def begin(home: Path, queue: RecordingQueue, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Rest], Worker]]:
    """begin(rest): a worker that is ready, and rests so."""
    monkeypatch.setattr("engines.worker.loop.WAIT_S", 0.01)
    workers: list[Worker] = []

    def start(rest: Rest) -> Worker:
        shelf = Shelf((home / "shelf",))
        studio = TimedStudio(shelf, home / "state", FakeEngine().select)
        studio.spans, studio.clock = [], rest.clock
        workers.append(Worker(queue, studio, shelf, "auto", rest=rest))
        workers[-1].start()
        until(lambda: queue.status().state == "ready")
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop(LIMIT_S)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@dataclass
class Ticking:
    """A clock that has gone on so far whenever somebody looks at it: nothing is slept through."""

    tick_s: float
    now_s: float = 0.0

    def __call__(self) -> float:
        self.now_s += self.tick_s
        return self.now_s


def test_jobs_wait_while_it_is_hot_and_are_done_after(
    begin: Callable[[Rest], Worker], queue: RecordingQueue, sysfs: Sysfs
) -> None:
    sensor = sysfs.zone("x86_pkg_temp", "60000\n")

    def warm(text: str) -> None:
        """As sysfs does: whoever reads finds one value or the other, never an empty file."""
        sensor.with_name("next").write_text(text)
        sensor.with_name("next").replace(sensor)

    begin(Rest(LIMITS, 0.0, lambda: hottest_c(sysfs.root), Ticking(LOOK_S)))
    assert queue.status().temperature_c == 60.0 and queue.status().resting == ""
    warm("90000\n")
    until(lambda: queue.status().resting == heat.TOO_HOT)
    job_id = queue.submit(Generate("p"))
    warm("79000\n")
    until(lambda: queue.status().temperature_c == 79.0)
    assert queue.job(job_id).state == "queued" and queue.status().resting == heat.TOO_HOT
    assert queue.status().state == "ready"
    warm("71000\n")
    until(lambda: queue.job(job_id).state == "done")
    assert queue.status().resting == ""


def test_models_are_loaded_though_it_is_hot(begin: Callable[[Rest], Worker], queue: RecordingQueue) -> None:
    begin(Rest(LIMITS, 0.0, lambda: 95.0))
    assert (queue.status().state, queue.status().resting) == ("ready", heat.TOO_HOT)


def test_a_stop_waits_for_no_rest(
    begin: Callable[[Rest], Worker], queue: RecordingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = begin(Rest(LIMITS, 0.0, lambda: 95.0))
    monkeypatch.setattr("engines.worker.loop.WAIT_S", 10 * LIMIT_S)
    job_id = queue.submit(Generate("p"))
    time.sleep(0.05)  # whichever wait it is in now, the next one is long
    assert worker.stop(LIMIT_S), "it has ended before its time was over"
    assert queue.job(job_id).state == "queued"


def test_what_is_here_is_looked_up_while_it_rests_and_it_still_rests(
    begin: Callable[[Rest], Worker], queue: RecordingQueue
) -> None:
    worker = begin(Rest(LIMITS, 0.0, lambda: 95.0))
    worker._refresh()
    assert (queue.status().resting, queue.status().temperature_c) == (heat.TOO_HOT, 95.0)


def test_a_pause_lies_between_two_jobs(begin: Callable[[Rest], Worker], queue: RecordingQueue) -> None:
    pause_s, queued = 50.0, [Generate("p"), Generate("q"), Generate("r")]
    studio = begin(Rest(LIMITS, pause_s, lambda: None, Ticking(1.0))).studio
    assert isinstance(studio, TimedStudio)
    queue.submit_all(queued)
    until(lambda: len(studio.spans) == len(queued))
    assert all(later[0] - earlier[1] >= pause_s for earlier, later in pairwise(studio.spans))
    assert heat.PAUSE in [status.resting for status in queue.announced]
