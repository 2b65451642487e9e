"""
When a worker rests: while the processors are too hot, and for a while after each picture, if its owner wants that.
Knows Linux's sensors, which the kernel shows as files (sysfs: thermal zones and hwmon, in thousandths of a degree
Celsius), and no worker. What nobody measures is unknown, and no reason to rest: other systems, most virtual machines,
and an NVIDIA card of a PC, which tells its own library (NVML) alone.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engines.jobs import Lane

log = logging.getLogger(__name__)
SYSFS = Path("/sys/class")
# What drivers call a sensor of a processor, a GPU, or the chip that has both (tj: a Jetson's hottest junction). All
# others measure something else, or, as many an acpitz and a Jetson's PMIC-Die, nothing.
PROCESSORS = re.compile(
    r"x86_pkg_temp|coretemp|k8temp|k10temp|zenpower|via_cputemp|amdgpu|radeon|nouveau"
    r"|(cpu|gpu|soc|tj|bigcore|littlecore)(ss)?\d*([-_ ].*)?",
    re.IGNORECASE,
)
ABSURD_C = 150.0  # no silicon works there: the sensor is broken, or is none
LOOK_S = 3.0  # how often sensors are read
SAY_S, SAY_C = 10.0, 1.0  # a temperature is said so often at most, and when it has changed by so much
TOO_HOT, PAUSE = "too hot", "a pause between pictures"


def hottest_c(root: Path = SYSFS) -> float | None:
    """Return the temperature of the hottest processor, in degrees Celsius; None: it is unknown."""
    readings = (_celsius(sensor) for sensor in _sensors(root))
    return max((reading for reading in readings if reading is not None), default=None)


def _sensors(root: Path) -> Iterator[Path]:
    """Yield the files that tell a processor's temperature."""
    for zone in root.glob("thermal/thermal_zone*"):
        if PROCESSORS.fullmatch(_text(zone / "type")):
            yield zone / "temp"
    for chip in root.glob("hwmon/hwmon*"):
        if PROCESSORS.fullmatch(_text(chip / "name")):
            yield from chip.glob("temp*_input")


def _text(path: Path) -> str:
    """Return what stands there; nothing where it cannot be read, as of a device that sleeps or has gone."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _celsius(sensor: Path) -> float | None:
    text = _text(sensor)
    celsius = int(text) / 1000 if re.fullmatch(r"[0-9]{1,9}", text) else 0.0
    return celsius if 0.0 < celsius <= ABSURD_C else None


@dataclass(frozen=True)
class Limits:
    """Between which temperatures a rest lasts, in degrees Celsius. `hot_c` 0: there is none."""

    hot_c: float = 0.0
    cool_c: float = 0.0

    def rest_at(self, temperature_c: float | None, resting: bool) -> bool:
        """Return whether to rest now. Who rests does so until it is cool, lest it begins and stops all the time."""
        if temperature_c is None or not self.hot_c:
            return False
        return temperature_c >= self.hot_c or (resting and temperature_c > self.cool_c)


class Rest:
    """
    Why a worker's threads should rest before they begin anything. `read` gives the temperature, as `hottest_c` does;
    `announce` is called with why the worker rests and how hot it is, when that is news.
    """

    def __init__(
        self,
        limits: Limits = Limits(),
        pause_s: float = 0.0,
        read: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits, self.pause_s, self.read, self.clock = limits, pause_s, read, clock
        self.announce: Callable[[str, float | None], None] = lambda resting, temperature_c: None
        self._lock = threading.Lock()
        self._hot = False
        self._temperature_c: float | None = None
        self._look_at = self._say_at = self._pause_until = float("-inf")
        self._said: tuple[str, float | None] = ("", None)

    def begin_pause(self) -> None:
        """Let pictures rest from now on, because one has been drawn."""
        with self._lock:
            self._pause_until = self.clock() + self.pause_s

    def reason(self, lane: Lane) -> str:
        """Return why this lane is to rest now, in this program's phrases; empty: go on."""
        with self._lock:
            now = self.clock()
            if now >= self._look_at:
                self._look(now)
            if lane != "pictures":  # which alone a worker is said to rest from: builds ask while one is drawn
                self._say(now, self._said[0])
                return TOO_HOT if self._hot else ""
            pause = PAUSE if now < self._pause_until else ""
            resting = TOO_HOT if self._hot else pause
            self._say(now, resting)
            return resting

    def _look(self, now: float) -> None:
        self._look_at = now + LOOK_S
        self._temperature_c = self.read()
        hot = self.limits.rest_at(self._temperature_c, self._hot)
        if hot != self._hot:
            log.info("%s °C: %s", self._temperature_c, "too hot, no job is begun" if hot else "jobs are begun again")
        self._hot = hot

    def _say(self, now: float, resting: str) -> None:
        said, said_c = self._said
        if resting == said and not (now >= self._say_at and _differs(self._temperature_c, said_c)):
            return
        self._said, self._say_at = (resting, self._temperature_c), now + SAY_S
        self.announce(*self._said)


def _differs(temperature_c: float | None, said_c: float | None) -> bool:
    if temperature_c is None or said_c is None:
        return temperature_c is not said_c
    return abs(temperature_c - said_c) >= SAY_C
