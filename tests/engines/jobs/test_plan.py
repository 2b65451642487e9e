"""Which worker does which job: the one that will have finished it first, as far as anybody knows."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from engines.jobs.plan import GUESS_S, HOME, UNPLANNED, Busy, Turn, give_out


def by_speed(**speeds: float) -> Callable[[str, str], float | None]:
    """Every job takes a worker so many seconds."""
    return lambda job, worker: speeds[worker or "home"]


def test_home_alone_does_all_in_their_turn() -> None:
    turns = give_out("abc", {HOME: Busy(1, 5.0, 2.0)}, lambda job, worker: 10.0)
    assert turns == {"a": Turn(HOME, 1, 12.0), "b": Turn(HOME, 2, 24.0), "c": Turn(HOME, 3, 36.0)}


def test_a_slow_home_waits_for_the_fast_machine() -> None:
    """Though it has nothing to do: the picture is there sooner."""
    workers = {HOME: Busy(), "desk": Busy(1, 2.0)}
    assert give_out("a", workers, by_speed(home=60.0, desk=2.0)) == {"a": Turn("desk", 1, 2.0)}


def test_each_job_goes_where_it_is_finished_first() -> None:
    turns = give_out("abcdefgh", {HOME: Busy(), "desk": Busy()}, by_speed(home=6.0, desk=2.0))
    assert [turn.worker for turn in turns.values()] == ["desk", "desk", HOME, "desk", "desk", "desk", HOME, "desk"]


def test_equals_share_and_home_comes_first() -> None:
    turns = give_out("abcd", {"desk": Busy(), HOME: Busy()}, by_speed(home=4.0, desk=4.0))
    assert [turn.worker for turn in turns.values()] == [HOME, "desk", HOME, "desk"]


def test_what_only_one_can_do_waits_for_it_and_what_nobody_can_is_home_s() -> None:
    can = {"a": "desk", "b": "desk", "c": ""}

    def seconds(job: str, worker: str) -> float | None:
        return 3.0 if can.get(job) == worker else math.inf

    turns = give_out("abcd", {HOME: Busy(1, 50.0), "desk": Busy(1, 100.0)}, seconds)
    assert {job: (turn.worker, turn.ahead) for job, turn in turns.items()} == {
        "a": ("desk", 1), "b": ("desk", 2), "c": (HOME, 1), "d": (HOME, 2),
    }  # fmt: skip


def test_what_nobody_knows_is_guessed_and_shared() -> None:
    workers = {HOME: Busy(), "desk": Busy()}
    turns = give_out("abcd", workers, lambda job, worker: None)
    assert sorted(turn.worker for turn in turns.values()) == [HOME, HOME, "desk", "desk"]
    assert all(turn.waits_s is None for turn in turns.values())
    sooner = give_out("a", {HOME: Busy(1, None), "desk": Busy(1, GUESS_S - 1)}, lambda job, worker: 1.0)
    assert sooner["a"].worker == "desk"


def test_a_machine_that_is_new_here_is_tried_as_soon_as_others_have_more_to_do() -> None:
    """Else it would stand idle until what waits takes the others longer than the guess of a stranger."""
    turns = give_out("abcd", {HOME: Busy(), "desk": Busy()}, lambda job, worker: 1.3 if worker == "desk" else None)
    assert [turn.worker for turn in turns.values()] == ["desk", HOME, "desk", "desk"]


def test_what_cannot_be_done_there_is_not_given_there_though_nobody_knows_the_rest() -> None:
    def seconds(job: str, worker: str) -> float | None:
        return None if worker == HOME or job == "a" else math.inf

    turns = give_out("abbbb", {HOME: Busy(), "desk": Busy()}, seconds)
    assert turns["b"].worker == HOME


def test_nobody_is_idle_while_another_has_work_that_he_would_finish_sooner() -> None:
    """However it falls: moving one job to another worker's end would finish it no sooner."""
    rng = random.Random(7)
    for _ in range(200):
        names = [HOME, *(f"w{k}" for k in range(rng.randint(0, 4)))]
        speeds = {name: rng.choice([1.0, 2.0, 5.0, 20.0]) for name in names}
        workers = {name: Busy(1, rng.uniform(0, 30)) for name in names}
        jobs = [f"j{k}" for k in range(rng.randint(1, 12))]
        turns = give_out(jobs, workers, lambda job, worker, speeds=speeds: speeds[worker])  # type: ignore[misc]
        ends = {name: workers[name].left_s or 0.0 for name in names}
        for job in jobs:  # in their turn, as they were given out
            best = min(ends[name] + speeds[name] for name in names)
            ends[turns[job].worker] += speeds[turns[job].worker]
            assert ends[turns[job].worker] == best


def test_what_only_somebody_who_is_away_can_do_waits_for_him() -> None:
    turns = give_out("ab", {HOME: Busy()}, lambda job, worker: math.inf if job == "a" else 3.0, lambda job: "desk")
    assert turns == {"a": Turn(UNPLANNED, 0, None, "desk"), "b": Turn(HOME, 0, 3.0)}
