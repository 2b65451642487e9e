"""The simulated studio: what theory says of it where it says anything, and that nothing is lost."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks import simulate
from benchmarks.simulate import House, Simulation

FREE = House(draw_s=1.0, request_s=0.0, transaction_s=0.0, picture_bytes=0.0, events=0, mtbf_s=math.inf)


def erlang_c(servers: int, load: float) -> float:
    """The share of jobs that wait, of `load` in servers (A. K. Erlang 1917; Kleinrock, Queueing Systems I, 3.5)."""
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize(("machines", "load"), [(1, 0.5), (5, 0.8)])
def test_the_line_is_as_long_as_theory_says(machines: int, load: float) -> None:
    """M/M/c: Poisson arrivals, exponential drawing, and nothing else that takes time."""
    simulation = Simulation(replace(FREE, is_random=True), machines, load)
    outcome = simulation.run(20_000, warm_up_s=100)
    offered = load * machines
    expected = erlang_c(machines, offered) / (machines - offered)
    assert sum(outcome.waits) / len(outcome.waits) == pytest.approx(expected, rel=0.1)
    assert outcome.rate == pytest.approx(offered, rel=0.02)
    assert outcome.busy["machines"] == pytest.approx(load, rel=0.02)


def test_a_resource_serves_as_long_a_line_as_theory_says() -> None:
    """M/D/1 (Pollaczek and Khinchine): the database alone takes time, the same each time."""
    simulation = Simulation(replace(FREE, draw_s=1e-6, transaction_s=0.001), 1000, 1.0)
    simulation.rate = 350.0  # each job is two changes, its submission and its claim
    outcome = simulation.run(60, warm_up_s=5)
    assert outcome.busy["database"] == pytest.approx(0.7, rel=0.02)
    assert outcome.rate == pytest.approx(350, rel=0.03)


def test_nothing_is_lost_where_machines_vanish() -> None:
    house = replace(FREE, mtbf_s=20.0, repair_s=5.0)
    simulation = Simulation(house, 20, 0.3)
    outcome = simulation.run(400)
    assert outcome.lost > 100 and outcome.rate == pytest.approx(6.0, rel=0.1)
    waits_for_its_lease = 10 * outcome.lost / 400 + 20
    assert 0 <= simulation.in_work <= 20 + waits_for_its_lease
    assert outcome.wait_s(95) < 30, "a job is drawn soon after its machine has vanished"


def test_more_machines_draw_no_less() -> None:
    rates = []
    for machines in (1, 2, 4, 8, 40, 80):
        simulation = Simulation(House(request_s=0.0005, transaction_s=0.0001), machines, 1.0)
        rates.append(simulation.run(60, warm_up_s=10).rate)
    for fewer, more in zip(rates, rates[1:], strict=False):
        assert more > 0.95 * fewer
    assert rates[1] == pytest.approx(2 * rates[0], rel=0.2), "nothing is short yet"


@pytest.mark.parametrize(
    ("costs", "first"),
    [
        ({}, "machines"),
        ({"request_s": 0.1, "events": 13}, "web"),
        ({"transaction_s": 0.1, "events": 13}, "database"),
        ({"picture_bytes": 1e9, "link_bytes_s": 1e12}, "disk"),
        ({"picture_bytes": 1e9, "disk_bytes_s": 1e12}, "link"),
    ],
)
def test_what_breaks_first_is_named(costs: dict[str, float], first: str) -> None:
    outcome = Simulation(replace(FREE, **costs), 10, 0.9).run(60, warm_up_s=20)  # type: ignore[arg-type]
    assert outcome.first_to_break == first
    assert outcome.busy[first] == pytest.approx(0.9 if first == "machines" else 1.0, abs=0.1)


def test_the_table_goes_on_until_the_machines_are_what_is_short(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(simulate, "COUNTS", (2, 60))
    simulate.main(["--seconds", "20", "--draw-s", "1.0", "--request-s", "0.003"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith(("| 2 ", "| 60 "))]
    small, large = ([row for row in rows if row[0] == f"| {count}"] for count in (2, 60))
    assert len(small) == 1 and small[0][1] == "as it is" and "machines" in small[0][-1]
    assert len(large) > 1 and "web" in large[0][-1] and "machines" in large[-1][-1]
