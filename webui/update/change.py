"""The change from one release to another, step by step, and back again if the other does not serve."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.settings import SettingsError
from engines.settings.installation import PROJECT
from webui.update import MISFIT, NotDone, report
from webui.update.installation import CLONE, Installation
from webui.update.service import NOBODY, Service

LOOK_S = 0.2
SOON = frozenset({"worker_loading", *NOBODY})  # reasons that go by themselves
NAMES = {CLONE: "clone"}  # of a folder


@dataclass
class Home:
    """The databases of the home that a service has, by the hands of its owner."""

    service: Service
    copied: bool = field(default=False, init=False)

    @property
    def is_there(self) -> bool:
        return self.service.settings.state.is_dir()

    def copy(self, name: str) -> None:
        """Copy them as that release has left them. NotDone: they cannot be had, or the disk refuses."""
        if self.is_there:
            self._do("copy", NAMES.get(name, name))
            self.copied = True

    def restore(self, name: str) -> None:
        self._do("restore", NAMES.get(name, name))

    def tidy(self, stay: str) -> None:
        if self.is_there:
            self._do("tidy", NAMES.get(stay, stay))

    def fits(self, program: Path) -> bool:
        """Whether that program can work with what is there."""
        return not self.is_there or self._do("fits", str(program / "engines" / "jobs" / "schema.py")) == 0

    def _do(self, verb: str, argument: str) -> int:
        home = self.service.settings.home
        owner, group = home.stat().st_uid, home.stat().st_gid
        other: dict[str, Any] = (
            {"user": owner, "group": group, "extra_groups": ()} if os.geteuid() == 0 and owner != 0 else {}
        )
        done = subprocess.run(
            [sys.executable, "-B", "-m", "webui.update.database", verb, str(home), argument],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            start_new_session=True,  # Ctrl+C is for this process, which knows how to go back
            **other,
        )
        if done.returncode not in (0, MISFIT):
            raise NotDone(f"任务数据库 · the jobs' database: {done.stderr.strip()[-1000:]}")
        return int(done.returncode)


@dataclass
class Change:
    """
    To `target`, a release of that installation. `wait_s`: how long the other may take until it can work. `going_back`:
    the databases may be newer than it.
    """

    place: Installation
    service: Service
    target: str
    kind: str
    wait_s: float
    going_back: bool = False

    def make(self) -> None:
        """
        Stop, copy, switch, start, and wait until it can work. NotDone: it was not done, and all is as it was, the
        databases too; the message says why.
        """
        before = self.place.current
        if before is None:
            self.place.switch(self.target)
            return
        home, were = Home(self.service), self.service.faults() if self.service.running else frozenset[str]()
        why = "?"
        try:
            self._step("stop", "停止旧的 stopping the old one")
            self.service.stop()
            self._step("copy", "复制任务数据库 copying the jobs' database")
            home.copy(before)
            if self.going_back and not home.fits(self.place.folder(self.target)):
                report("! 旧版本读不了现在的任务记录:换回更新前的那一份;之后的任务记录另存,图片都还在")
                report(
                    "! the older version cannot read today's database: that of before the update is put back; what is"
                )
                report("  newer of it lies beside, and all pictures are still there")
                home.restore(self.target)
            self._step("switch", "切换 switching")
            self.place.switch(self.target)
            self._step("start", f"启动,等它可以接活 starting, and waiting until it can work ({self.wait_s:.0f} s)")
            self.service.start(self.place.folder(self.target), self.kind)
            self._wait(were - SOON)
            why = ""
        except KeyboardInterrupt:
            why = "已中断 · interrupted"
        except (NotDone, OSError, SettingsError) as exc:
            why = str(exc)
        finally:  # also of what nobody has foreseen
            if why:
                self._back(before, home, were - SOON, why)
        if not self.service.running:
            self.service.stop()
        self.place.done()

    def _step(self, name: str, text: str) -> None:
        self.place.step(f"{name} {self.target}")
        report(f"  {text} …")

    def _wait(self, accepted: frozenset[str]) -> None:
        """NotDone: it has ended, or cannot work in time, for a reason that the other had not."""
        deadline = time.monotonic() + self.wait_s
        while (faults := self.service.faults() - accepted) and not self.service.ended():
            if time.monotonic() > deadline:
                raise NotDone(
                    f"{self.wait_s:.0f} 秒内不能接活 · it cannot work within {self.wait_s:.0f} s: {', '.join(faults)}"
                )
            time.sleep(LOOK_S)
        if faults:
            raise NotDone("它启动后结束了 · it has ended after its start")

    def _back(self, before: str, home: Home, accepted: frozenset[str], why: str) -> None:
        """Let all be as it was, and raise NotDone with the cause. The databases first: the newer one reads any."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)  # half-way back is no place to stop
        report(f"✗ {why}\n  一切恢复原样 · going back, all of it")
        self.place.step(f"back {before}")
        try:
            self.service.stop()
            if home.copied:
                home.restore(before)
            if self.place.current != before:
                self.place.switch(before)
            if self.service.running:
                self.service.start(self.place.folder(before), self.service.kind or self.kind)
                self._wait(accepted)
        except (NotDone, OSError, SettingsError) as exc:
            raise NotDone(
                f"{why}\n✗ 旧版本也没有恢复 · the old one is not back either: {exc}\n  日志 the log: {self.service.log}"
            ) from exc
        self.place.done()
        raise NotDone(
            f"没有更新({why}),旧版本照旧,数据没有变 · not done, all is as before ({why})\n"
            f"  原因在 the cause: {self.service.log}"
        )
