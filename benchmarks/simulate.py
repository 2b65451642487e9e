"""
A studio with 10, 100 and 10,000 machines, which nobody here has: a discrete-event simulation with what was measured of
one (benchmarks/capacity.py, benchmarks/workers.py), and with one thing changed at a time.

    python -m benchmarks.simulate [--load 0.8] [--seconds 30]

Jobs come at random (Poisson), at `load` of what the machines could draw. Each is submitted through a web process and
the database, claimed, told of event by event, and its picture goes over the studio's link and onto the disk; the
machine is not free before that. Machines say every two seconds that they are there. They vanish at random, and what one
has begun waits ten seconds, then for another, which draws it from the beginning.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.timing import head
from engines.jobs.dispatch import LEASE_S
from engines.worker.bridge import HEARTBEAT_S

COUNTS = (10, 100, 10_000)
TOGETHER = 10  # machines whose signs of life are counted as one, for the sake of speed
MOST_MACHINE_SECONDS = 30_000  # of one simulation
Process = Generator[Any, Any, None]


@dataclass(frozen=True)
class House:
    """
    Seconds and bytes of one studio, as docs/scale.md has them. `draw_s`: a picture at one machine. `request_s`: a web
    process's for one request. `transaction_s`: the database's for one change. `events`: that a job's machine sends,
    each a request and a change. `mtbf_s`: between two times that a machine vanishes; it is back after `repair_s`.
    """

    draw_s: float = 0.85
    request_s: float = 0.0025
    transaction_s: float = 0.00025
    events: int = 5
    picture_bytes: float = 400e3
    disk_bytes_s: float = 490e6
    link_bytes_s: float = 110e6
    web_processes: int = 1
    databases: int = 1
    mtbf_s: float = 8 * 3600.0
    repair_s: float = 300.0
    is_random: bool = False  # how long a drawing takes: by the exponential distribution, as formulas have it


CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "events in one request a second": {"events": 3},
    "and 4 web processes": {"events": 3, "web_processes": 4},
    "and 128 web processes, 16 databases, an object store": {
        "events": 3, "web_processes": 128, "databases": 16, "picture_bytes": 0.0,
    },
}  # fmt: skip


@dataclass
class Outcome:
    """`waits`: seconds from submission to the beginning of the drawing. `busy`: shares of the time, by resource."""

    offered: int = 0
    done: int = 0
    lost: int = 0
    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)
    busy: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.done / self.seconds

    @property
    def first_to_break(self) -> str:
        return max(self.busy, key=lambda name: self.busy[name])

    def wait_s(self, percent: int) -> float:
        """Return that percentile of the waits; inf: nothing was begun."""
        if len(self.waits) < 2:
            return self.waits[0] if self.waits else math.inf
        return statistics.quantiles(self.waits, n=100)[percent - 1]


class Simulation:
    def __init__(self, house: House, machines: int, load: float, seed: int = 1) -> None:
        import simpy  # here: it is for those who plan, and for tests

        self.house, self.machines, self.rate = house, machines, load * machines / house.draw_s
        self.env, self.lot = simpy.Environment(), random.Random(seed)
        capacities = {"web": house.web_processes, "database": house.databases, "disk": 1, "link": 1, "machines": 1}
        self.resources = {name: simpy.Resource(self.env, count) for name, count in capacities.items()}
        self.used = dict.fromkeys(capacities, 0.0)
        self.capacity = {**capacities, "machines": machines}
        self.line: deque[float] = deque()  # when the jobs that wait were submitted
        self.comes = self.env.event()
        self.outcome = Outcome()

    def run(self, seconds: float, warm_up_s: float = 0.0) -> Outcome:
        """Let so much time go by, of which the first part is not counted."""
        self.env.process(self._arrivals())
        for _ in range(self.machines):
            self.env.process(self._machine())
        for k in range(math.ceil(self.machines / TOGETHER)):
            self.env.process(self._heartbeats(min(TOGETHER, self.machines - TOGETHER * k)))
        self.env.run(until=warm_up_s or 1e-9)
        before, done = dict(self.used), self.outcome.done
        self.outcome.waits.clear()
        self.env.run(until=warm_up_s + seconds)
        outcome = self.outcome
        outcome.done, outcome.seconds = outcome.done - done, seconds
        outcome.busy = {n: (self.used[n] - before[n]) / seconds / self.capacity[n] for n in self.used}
        return outcome

    @property
    def in_work(self) -> int:
        """Return the jobs that were submitted and are neither done nor in the line."""
        return self.outcome.offered - self.outcome.done - len(self.line)

    def _use(self, name: str, seconds: float) -> Process:
        if seconds > 0:
            with self.resources[name].request() as turn:
                yield turn
                yield self.env.timeout(seconds)
            self.used[name] += seconds

    def _change(self) -> Process:
        """One request that changes a row."""
        yield from self._use("web", self.house.request_s)
        yield from self._use("database", self.house.transaction_s)

    def _arrivals(self) -> Process:
        while True:
            yield self.env.timeout(self.lot.expovariate(self.rate))
            self.env.process(self._submission())

    def _submission(self) -> Process:
        submitted = self.env.now
        self.outcome.offered += 1
        yield from self._change()
        self._wait_again(submitted)

    def _wait_again(self, submitted: float) -> None:
        self.line.append(submitted)
        comes, self.comes = self.comes, self.env.event()
        comes.succeed()

    def _machine(self) -> Process:
        vanishes = self.env.now + self._life_s()
        while True:
            while not self.line:
                yield self.comes
            submitted = self.line.popleft()
            yield from self._change()
            self.outcome.waits.append(self.env.now - submitted)
            house = self.house
            takes = self.lot.expovariate(1 / house.draw_s) if house.is_random else house.draw_s
            if self.env.now + takes > vanishes:
                yield self.env.timeout(max(0.0, vanishes - self.env.now))
                self.outcome.lost += 1
                self.env.process(self._given_back(submitted))
                yield self.env.timeout(house.repair_s)
                vanishes = self.env.now + self._life_s()
                continue
            yield self.env.timeout(takes)
            self.used["machines"] += takes
            for _ in range(house.events):
                yield from self._change()
            yield from self._use("link", house.picture_bytes / house.link_bytes_s)
            yield from self._use("disk", house.picture_bytes / house.disk_bytes_s)
            self.outcome.done += 1

    def _life_s(self) -> float:
        return self.lot.expovariate(1 / self.house.mtbf_s) if math.isfinite(self.house.mtbf_s) else math.inf

    def _given_back(self, submitted: float) -> Process:
        yield self.env.timeout(LEASE_S)
        self._wait_again(submitted)

    def _heartbeats(self, count: int) -> Process:
        """Of so many machines together: they change no row, and who has none answered waits with the next."""
        yield self.env.timeout(self.lot.uniform(0, HEARTBEAT_S))
        while True:
            due = self.env.now + HEARTBEAT_S
            yield from self._use("web", count * self.house.request_s)
            yield self.env.timeout(max(0.0, due - self.env.now))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate")
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--seconds", type=float, default=30.0)
    for name in ("draw_s", "request_s", "transaction_s", "disk_bytes_s", "link_bytes_s"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(House, name))
    asked = vars(parser.parse_args(arguments))
    load, seconds = asked.pop("load"), asked.pop("seconds")
    house = House(**asked)
    head(f"{seconds:g} s, load {load:g}", "machines", "studio", "jobs/s offered", "done", "waits p50", "p95", "busiest")
    for machines in COUNTS:
        for name, change in CHANGES.items():
            simulation = Simulation(replace(house, **change), machines, load)
            outcome = simulation.run(min(seconds, MOST_MACHINE_SECONDS / machines), warm_up_s=3 * house.draw_s)
            busiest = outcome.first_to_break
            print(
                f"| {machines} | {name} | {simulation.rate:.0f} | {outcome.rate:.0f} | {outcome.wait_s(50):.2f} s"
                f" | {outcome.wait_s(95):.2f} s | {busiest} {outcome.busy[busiest]:.0%} |",
                flush=True,
            )
            if busiest == "machines" and outcome.rate > 0.97 * simulation.rate:
                break  # what would be changed next has nothing to do


if __name__ == "__main__":
    main()
