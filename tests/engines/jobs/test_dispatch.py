"""Workers on other machines: what each is given, and that nothing is lost, or done twice, when one is heard no more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from engines.errors import RequestError
from engines.jobs import Job
from engines.jobs.crew import LOST, MOST_LOSSES
from engines.jobs.dispatch import LEASE_S, MOST_CALLS, WAKE_S, CannotCall, Dispatcher
from engines.jobs.plan import HOME, UNPLANNED
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Failed, Final, Generate, Inspect, Lora, Preview, Request, pack, unpack
from engines.messages.status import BundleStatus, Choice, Status
from tests.support.fakes import FakeClock
from tests.support.queues import FINAL, progress


def bundle(name: str = "portrait", digest: str = "d", engine: str = "ort") -> BundleStatus:
    choices = (Choice("ort", "edge", "accepted"), Choice("torch", "pytorch", "unavailable"))
    return BundleStatus(name, "portrait", {}, "", ((512, 512),), 8, 0.0, engine, "", choices, digest=digest)


def having(*bundles: BundleStatus, loras: tuple[str, ...] = ()) -> Status:
    return Status("ready", bundles=bundles, loras=loras)


ALL = having(bundle(), bundle("restorer"), bundle("detector"))


@pytest.fixture
def queue(tmp_path: Path) -> SqliteQueue:
    queue = SqliteQueue(tmp_path / "jobs.db", tmp_path / "outputs")
    queue.folder.mkdir()
    queue.announce(ALL)
    return queue


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


Begin = Callable[[SqliteQueue], Dispatcher]


@pytest.fixture
def members() -> set[str]:
    return {"desk"}


@pytest.fixture
def begin(clock: FakeClock, tmp_path: Path, members: set[str]) -> Begin:
    """Begin as a server does, which remembers what earlier ones have heard."""
    memory = tmp_path / "workers.json"
    return lambda queue: Dispatcher(queue, threading.Event(), memory, lambda: members, clock.perf_counter)


@pytest.fixture
def dispatcher(queue: SqliteQueue, begin: Begin) -> Dispatcher:
    return begin(queue)


def worked_off(queue: SqliteQueue, seconds: float, worker: str = HOME) -> None:
    """Let it be heard how long a portrait takes there."""
    job_id = queue.submit(Generate("p"))
    queue.give({job_id: worker})
    queue.publish(claimed(queue, worker), replace(FINAL, seconds=seconds))


def claimed(queue: SqliteQueue, worker: str = HOME) -> Job:
    job = queue.claim(worker=worker)
    assert job is not None
    return job


def whose(queue: SqliteQueue, *jobs: str) -> list[str]:
    return [queue.worker_of(job) for job in jobs]


def test_while_home_is_alone_it_takes_what_comes(queue: SqliteQueue, dispatcher: Dispatcher) -> None:
    job_id = queue.submit(Generate("p"))
    assert whose(queue, job_id) == [HOME] and claimed(queue).id == job_id
    assert queue.given_away() == set()


def test_nobody_takes_what_was_not_given_out_yet(queue: SqliteQueue, dispatcher: Dispatcher) -> None:
    """Else a slow home would have begun before anybody looked whether another is faster."""
    dispatcher.hear("desk", ALL)
    job_id = queue.submit(Generate("p"))
    assert whose(queue, job_id) == [UNPLANNED]
    assert queue.claim() is None and dispatcher.claim("desk", 0.0) is None


def test_the_fast_machine_is_given_the_job(queue: SqliteQueue, dispatcher: Dispatcher) -> None:
    worked_off(queue, 60.0)
    worked_off(queue, 2.0, "desk")
    dispatcher.hear("desk", ALL)
    jobs = queue.submit_all([Generate("p")] * 3)
    dispatcher.round()
    assert whose(queue, *jobs) == ["desk"] * 3 and queue.claim() is None
    job = dispatcher.claim("desk", 0.0)
    assert job is not None and job.id == jobs[0] and job.attempts == 1
    assert queue.place(jobs[2]).eta_s == pytest.approx(6.0, abs=0.5)
    assert queue.running() is None, "home's supervisor is not to watch it"


def test_when_it_has_gone_home_does_what_waits(queue: SqliteQueue, dispatcher: Dispatcher, clock: FakeClock) -> None:
    worked_off(queue, 2.0, "desk")
    dispatcher.hear("desk", ALL)
    job_id = queue.submit(Generate("p"))
    dispatcher.round()
    assert whose(queue, job_id) == ["desk"]
    clock.now += LEASE_S + 0.1
    dispatcher.round()
    assert whose(queue, job_id) == [HOME] and not queue.workers()
    assert claimed(queue).id == job_id


def test_what_a_silent_worker_has_begun_is_taken_over_from_its_snapshot(
    queue: SqliteQueue, dispatcher: Dispatcher, clock: FakeClock
) -> None:
    dispatcher.hear("desk", ALL)
    job_id = queue.submit(Generate("p", count=2))
    queue.give({job_id: "desk"})
    job = claimed(queue, "desk")
    for name in ("kept.png", "half.png", "arrived.png"):
        (queue.folder / name).write_bytes(b"x")
    queue.publish(job, progress(1))
    queue.publish(job, Preview(8, "kept.png", kind="result"))
    queue.publish(job, Preview(3, "half.png"))
    queue.arriving["arrived.png"] = job_id
    queue.save_snapshot(job, b"step 5", ["kept.png"])
    clock.now += LEASE_S - 1
    dispatcher.round()
    assert queue.job(job_id).state == "running", "a machine may be slow for a moment"
    clock.now += 2
    dispatcher.round()
    again = claimed(queue)
    assert (again.id, again.attempts, queue.snapshot(again)) == (job_id, 2, b"step 5")
    assert sorted(path.name for path in queue.folder.iterdir()) == ["kept.png"]
    assert not queue.publish(job, FINAL), "the first attempt says nothing any more"
    assert queue.since(job_id, 0) == ([], False)
    assert queue.publish(again, FINAL) and queue.job(job_id).state == "done"


def test_a_job_that_ends_machine_after_machine_is_given_to_no_other(
    queue: SqliteQueue, dispatcher: Dispatcher, clock: FakeClock
) -> None:
    """As one does for which their memory is too small: else it would end each of them, for ever."""
    dispatcher.hear("desk", ALL)
    job_id = queue.submit(Generate("p"))

    def lost_again(snapshot: bytes = b"") -> str:
        dispatcher.hear("desk", ALL)
        queue.give({job_id: "desk"})
        job = claimed(queue, "desk")
        if snapshot:
            queue.save_snapshot(job, snapshot, [])
        clock.now += LEASE_S + 1
        dispatcher.round()
        return queue.job(job_id).state

    states = [lost_again() for _ in range(MOST_LOSSES - 1)]
    states += [lost_again(b"step 1"), lost_again(b"step 2"), *(lost_again() for _ in range(MOST_LOSSES - 2))]
    assert set(states) == {"queued"}, "it gets further, and is not to blame"
    assert lost_again() == "failed"
    events, ended = queue.since(job_id, 0)
    assert ended and isinstance(failed := events[-1][1], Failed)
    assert (failed.code, failed.facts["why"]) == ("interrupted", LOST)


def test_however_often_machines_go_the_job_is_not_to_blame(queue: SqliteQueue, dispatcher: Dispatcher) -> None:
    job_id = queue.submit(Generate("p"))
    for _ in range(5):
        dispatcher.hear("desk", ALL)
        queue.give({job_id: "desk"})
        claimed(queue, "desk")
        dispatcher.leave("desk")
    queue.give({job_id: HOME})
    claimed(queue)
    queue.recover()
    assert queue.job(job_id).state == "queued", "the first time that home's worker died of it"


def test_a_machine_that_began_anew_at_once_has_lost_its_job(
    queue: SqliteQueue, dispatcher: Dispatcher, clock: FakeClock
) -> None:
    """Or never heard that it was given one, as the answer was lost: it is there, and nobody would do it."""
    dispatcher.hear("desk", ALL)
    job_id = queue.submit(Generate("p"))
    queue.give({job_id: "desk"})
    job = claimed(queue, "desk")

    def seconds_later(s: float, says: str) -> str:
        for _ in range(round(s)):
            clock.now += 1
            dispatcher.hear("desk", ALL, says)
            dispatcher.round()
        return queue.job(job_id).state

    assert seconds_later(LEASE_S - 1, "") == "running", "it may have claimed it since it said so"
    assert seconds_later(3 * LEASE_S, job_id) == "running"
    assert seconds_later(LEASE_S - 1, "") == "running"
    seconds_later(3, "")
    assert not queue.publish(job, FINAL) and whose(queue, job_id) in ([HOME], ["desk"])
    assert queue.job(job_id).state == "queued"
    queue.give({job_id: "desk"})
    again = claimed(queue, "desk")  # at once, before it could say so, or anybody has looked
    dispatcher.round()
    assert queue.job(job_id).state == "running", "it has this attempt since a moment ago"
    assert seconds_later(2, job_id) == "running" and queue.publish(again, FINAL)


class CallingQueue(SqliteQueue):
    """Calls as one over Redis does, and says whom. `carrier_is_away`: nobody can be called."""

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(path, folder)
        self.called: list[list[str]] = []
        self.carrier_is_away = False

    def call(self, workers: Iterable[str]) -> None:
        self.called.append(list(workers))
        if self.carrier_is_away:
            raise CannotCall("Redis does not answer")


def test_who_waits_for_calls_is_given_nothing_while_nobody_can_be_called(tmp_path: Path, begin: Begin) -> None:
    queue = CallingQueue(tmp_path / "jobs.db", tmp_path / "outputs")
    queue.announce(ALL)
    dispatcher = begin(queue)
    worked_off(queue, 60.0)
    worked_off(queue, 2.0, "desk")
    both = having(bundle("big"), *ALL.bundles)
    dispatcher.hear("desk", both, called=True)
    dispatcher.hear("den", replace(ALL, state="loading"), called=True)
    dispatcher.hear("shed", replace(ALL, bundles=()))
    small, big = queue.submit(Generate("p")), queue.submit(BIG)
    dispatcher.round()
    assert queue.called == [["desk"]], "the shed asks, and the den is not ready"
    assert whose(queue, small, big) == ["desk", "desk"] and not queue.status().hurdle
    queue.carrier_is_away = True
    dispatcher.round()
    dispatcher.round()
    assert whose(queue, small, big) == [HOME, UNPLANNED]
    assert queue.status().hurdle == "Redis does not answer" and queue.place(big).away == "desk"
    queue.announce(replace(ALL, detail="anew"))
    assert queue.status().hurdle, "the home's worker knows nothing of it"
    queue.carrier_is_away = False
    dispatcher.round()
    dispatcher.round()
    assert whose(queue, big) == ["desk"] and not queue.status().hurdle and not queue.place(big).away
    queue.close()


def test_a_restart_of_the_server_leaves_a_machine_its_job(
    queue: SqliteQueue, clock: FakeClock, tmp_path: Path, begin: Begin
) -> None:
    first = begin(queue)
    first.hear("desk", ALL)
    jobs = queue.submit_all([Generate("p"), Generate("q")])
    queue.give(dict.fromkeys(jobs, "desk"))
    job = claimed(queue, "desk")
    queue.close()
    queue = SqliteQueue(tmp_path / "jobs.db", tmp_path / "outputs")
    second = begin(queue)
    queue.recover()
    queue.announce(ALL)
    second.round()
    assert queue.job(job.id).state == "running" and whose(queue, jobs[1]) == [HOME]
    clock.now += 2 * LEASE_S  # while the page is loaded, nobody can say anything
    second.round()
    assert queue.job(job.id).state == "running"
    second.open()
    clock.now += LEASE_S / 2
    second.round()
    second.hear("desk", ALL)
    assert queue.publish(job, FINAL)
    queue.close()


def test_a_machine_that_does_not_come_back_after_a_restart_loses_it(
    queue: SqliteQueue, clock: FakeClock, tmp_path: Path, begin: Begin
) -> None:
    begin(queue).hear("desk", ALL)
    job_id = queue.submit(Generate("p"))
    queue.give({job_id: "desk"})
    claimed(queue, "desk")
    second = begin(queue)
    second.open()
    clock.now += LEASE_S + 0.1
    second.round()
    assert queue.job(job_id).state == "queued"


@pytest.mark.parametrize(
    ("request_", "home", "desk", "given"),
    [
        (Generate("p", bundle="big"), ALL, having(bundle("big")), "desk"),  # home has no such
        (Generate("p"), ALL, having(bundle(digest="another")), HOME),  # it would draw another picture
        (Generate("p"), ALL, having(bundle(engine="")), HOME),  # no engine there can
        (Generate("p"), ALL, replace(ALL, state="loading"), HOME),
        (Generate("p", backend="ort"), ALL, ALL, "desk"),
        (Generate("p", backend="edge"), ALL, ALL, "desk"),
        (Generate("p", backend="pytorch"), ALL, ALL, HOME),  # not there
        (Generate("p", loras=(Lora("a"),)), ALL, replace(ALL, loras=("a",)), HOME),  # another may be called so
        (Generate("p", bundle="big", loras=(Lora("a"),)), ALL, having(bundle("big"), loras=("a",)), "desk"),
        (Generate("p", bundle="big", loras=(Lora("b"),)), ALL, having(bundle("big"), loras=("a",)), HOME),
        (Enhance("a.jpg"), ALL, ALL, "desk"),
        (Enhance("a.jpg"), ALL, having(bundle("restorer")), HOME),  # nobody there finds faces
        (Inspect("a.jpg"), ALL, ALL, HOME),
    ],
)
def test_a_job_goes_where_the_same_comes_of_it(
    request_: Request, home: Status, desk: Status, given: str, queue: SqliteQueue, dispatcher: Dispatcher
) -> None:
    worked_off(queue, 1.0, "desk")
    queue.announce(home)
    dispatcher.hear("desk", desk)
    busy = queue.submit(Generate("p"))
    queue.give({busy: HOME})
    claimed(queue)
    job_id = queue.submit(request_)
    dispatcher.round()
    assert whose(queue, job_id) == [given]


def test_each_does_its_own_and_the_line_says_when(queue: SqliteQueue, dispatcher: Dispatcher) -> None:
    worked_off(queue, 6.0)
    worked_off(queue, 2.0, "desk")
    dispatcher.hear("desk", ALL)
    jobs = queue.submit_all([Generate("p")] * 4)
    dispatcher.round()
    assert whose(queue, *jobs) == ["desk", "desk", HOME, "desk"]
    assert [queue.place(job).eta_s for job in jobs] == pytest.approx([2, 4, 6, 6], abs=0.5)
    assert [queue.place(job).ahead for job in jobs] == [0, 1, 0, 2]


def test_what_ends_anywhere_ends(queue: SqliteQueue, dispatcher: Dispatcher) -> None:
    dispatcher.hear("desk", ALL)
    job_id = queue.submit(Generate("p"))
    queue.give({job_id: "desk"})
    job = claimed(queue, "desk")
    assert queue.cancelled_of("desk") == []
    queue.cancel(job_id)
    assert queue.cancelled_of("desk") == [job_id]
    assert not queue.publish(job, Failed("cancelled", "")) and queue.job(job_id).state == "cancelled"


def test_a_crash_at_home_takes_nothing_from_others(queue: SqliteQueue, dispatcher: Dispatcher) -> None:
    """Its picture has come, and its event has not yet."""
    dispatcher.hear("desk", ALL)
    mine, theirs = queue.submit_all([Generate("p"), Generate("q")])
    queue.give({mine: HOME, theirs: "desk"})
    claimed(queue)
    job = claimed(queue, "desk")
    (queue.folder / "outputs_20260101000000.png").write_bytes(b"x")
    queue.arriving["outputs_20260101000000.png"] = theirs
    queue.recover()
    assert queue.job(theirs).state == "running" and queue.job(mine).state == "queued"
    assert queue.publish(job, Final(("outputs_20260101000000.png",), 1, 1.0, "ort"))
    assert (queue.folder / "outputs_20260101000000.png").exists()


BIG = Generate("p", bundle="big")


def test_what_only_a_machine_that_is_off_can_do_waits_for_it(
    queue: SqliteQueue, dispatcher: Dispatcher, clock: FakeClock
) -> None:
    """And all else is done at home."""
    dispatcher.hear("desk", having(bundle("big"), bundle()))
    dispatcher.leave("desk")
    big, small = queue.submit(BIG), queue.submit(Generate("p"))
    dispatcher.round()
    assert whose(queue, big, small) == [UNPLANNED, HOME]
    assert claimed(queue).id == small and queue.claim() is None
    assert (queue.place(big).away, queue.place(big).waits, queue.place(big).eta_s) == ("desk", True, None)
    dispatcher.hear("desk", replace(having(bundle("big"), bundle()), state="loading"))
    dispatcher.round()
    assert whose(queue, big) == [UNPLANNED], "it is on, and not ready yet"
    dispatcher.hear("desk", having(bundle("big"), bundle()))
    dispatcher.round()
    assert whose(queue, big) == ["desk"] and not queue.place(big).away


CARD = "02:00:5e:10:00:0f"
SLEEPER = replace(having(bundle("big"), bundle()), wakes_at=CARD)


@pytest.fixture
def woken(dispatcher: Dispatcher) -> list[str]:
    calls: list[str] = []
    dispatcher._wake = calls.append
    return calls


def test_what_alone_can_do_what_waits_is_woken(
    queue: SqliteQueue, dispatcher: Dispatcher, clock: FakeClock, woken: list[str]
) -> None:
    """Once a minute, five times; then it is said that it does not come."""
    dispatcher.hear("desk", SLEEPER)
    dispatcher.leave("desk")
    small = queue.submit(Generate("p"))
    dispatcher.round()
    assert whose(queue, small) == [HOME] and not woken, "home can do it"
    big = queue.submit(BIG)
    for _ in range(3 * round(WAKE_S)):
        dispatcher.round()
        clock.now += 1
    assert woken == [CARD] * 3 and queue.place(big).waking
    for _ in range(10):
        dispatcher.round()
        clock.now += WAKE_S
    assert woken == [CARD] * MOST_CALLS and queue.place(big).away == "desk" and not queue.place(big).waking
    dispatcher.hear("desk", replace(SLEEPER, state="loading"))
    dispatcher.round()
    assert queue.place(big).waking and woken == [CARD] * MOST_CALLS, "it is on, and loads its models"
    dispatcher.leave("desk")
    dispatcher.round()
    assert woken == [CARD] * (MOST_CALLS + 1), "it has been here since"


def test_nobody_is_woken_for_what_may_not_begin(
    queue: SqliteQueue, dispatcher: Dispatcher, clock: FakeClock, woken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher.hear("desk", SLEEPER)
    dispatcher.leave("desk")
    queue.pause()
    big = queue.submit(BIG)
    dispatcher.round()
    queue.resume()
    queue.cancel(big)
    dispatcher.round()
    (quiet,) = queue.submit_all([BIG], priority="batch")
    monkeypatch.setattr(type(queue.quiet), "left_s", lambda self, now: 100.0)
    dispatcher.round()
    assert not woken and queue.job(quiet).state == "queued"
    monkeypatch.undo()
    dispatcher.round()
    assert woken == [CARD]


def test_who_does_not_want_to_be_woken_is_not(
    queue: SqliteQueue, dispatcher: Dispatcher, begin: Begin, members: set[str], clock: FakeClock
) -> None:
    """Of two that could do it, the one that may be is; after a restart of the server too."""
    members.add("den")
    dispatcher.hear("desk", replace(SLEEPER, wakes_at=""))
    dispatcher.leave("desk")
    big = queue.submit(BIG)
    again, calls = begin(queue), list[str]()
    again._wake = calls.append
    again.round()
    assert queue.place(big).away == "desk" and not queue.place(big).waking and not calls
    again.hear("den", SLEEPER)
    again.leave("den")
    again = begin(queue)
    again._wake = calls.append
    again.round()
    assert queue.place(big).away == "den" and queue.place(big).waking and calls == [CARD]
    for _ in range(MOST_CALLS + 1):
        clock.now += WAKE_S
        again.round()
    for _ in range(3):  # who is awaited instead is no reason to begin again
        assert queue.place(big).away in ("desk", "den") and not queue.place(big).waking, "it does not wake"
        clock.now += WAKE_S
        again.round()
    assert calls == [CARD] * MOST_CALLS


def test_a_network_that_refuses_is_no_reason_to_give_out_nothing(
    queue: SqliteQueue, dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(address: str) -> None:
        raise OSError(101, "Network is unreachable")

    dispatcher._wake = refuse
    dispatcher.hear("desk", SLEEPER)
    dispatcher.leave("desk")
    big, small = queue.submit(BIG), queue.submit(Generate("p"))
    dispatcher.round()
    assert whose(queue, big, small) == [UNPLANNED, HOME]
    assert "desk cannot be woken: Network is unreachable" in caplog.text


@pytest.mark.parametrize("address", ["02:00:5e:10:00", "02:00:5E:10:00:0F", CARD + "\n", "x" * 17, "$(reboot)"])
def test_only_a_hardware_address_is_one(address: str) -> None:
    with pytest.raises(RequestError):
        unpack(pack(SLEEPER).replace(CARD, address.replace("\n", "\\n")))


def test_it_waits_through_a_restart_of_the_server(queue: SqliteQueue, dispatcher: Dispatcher, begin: Begin) -> None:
    dispatcher.hear("desk", having(bundle("big")))
    dispatcher.leave("desk")
    big = queue.submit(BIG)
    again = begin(queue)
    queue.recover()
    assert queue.claim() is None, "home would fail it"
    again.round()
    assert queue.claim() is None and queue.place(big).away == "desk"


def test_who_may_not_come_any_more_is_waited_for_by_nobody(
    queue: SqliteQueue, dispatcher: Dispatcher, begin: Begin, members: set[str]
) -> None:
    dispatcher.hear("desk", having(bundle("big")))
    dispatcher.leave("desk")
    big = queue.submit(BIG)
    members.clear()
    dispatcher.round()
    assert claimed(queue).id == big, "home says why it cannot be done"
    assert [each.name for each in queue.status().bundles] == ["portrait", "restorer", "detector"]
    begin(queue)
    assert not queue.workers()


def test_what_another_machine_has_is_offered_whether_it_is_on_or_not(
    queue: SqliteQueue, dispatcher: Dispatcher
) -> None:
    dispatcher.hear("desk", having(bundle("big"), bundle(digest="another"), bundle("none", engine="")))
    for _ in range(2):
        bundles = {each.name: each.at for each in queue.status().bundles}
        assert bundles == {"portrait": "", "restorer": "", "detector": "", "big": "desk"}
        dispatcher.leave("desk")
    queue.announce(replace(ALL, detail="anew"))
    assert "big" in {each.name for each in queue.status().bundles} and queue.status().detail == "anew"


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"desk": "nonsense"}', '{"desk": 3}', "no JSON"])
def test_a_damaged_memory_says_nothing(queue: SqliteQueue, begin: Begin, tmp_path: Path, text: str) -> None:
    (tmp_path / "workers.json").write_text(text)
    begin(queue).round()
    assert queue.status() == ALL


def test_after_a_bug_home_does_all_by_itself(
    queue: SqliteQueue, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would give out anything any more."""
    dispatcher.hear("desk", ALL)
    waits = queue.submit(Generate("p"))

    def bug() -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(dispatcher, "round", bug)
    with pytest.raises(KeyError):
        dispatcher.attend()
    later = queue.submit(Generate("q"))
    assert [claimed(queue).id, claimed(queue).id] == [waits, later]
