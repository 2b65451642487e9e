"""What frames are told from elsewhere, and whose turn it is on those that fetch one picture at a time."""

from __future__ import annotations

from webui.frame.remote import DAY_S, MOST_FRAMES, SHOWN_S, Remote

IDS = [f"{i:02x}" for i in range(10)]


class Clock:
    def __init__(self) -> None:
        self.now = 1000 * DAY_S

    def __call__(self) -> float:
        return self.now


def test_next_counts_and_goes_on() -> None:
    remote = Remote()
    assert (remote.state.next, remote.state.paused_at) == (0, None)
    remote.pause()
    assert remote.next().next == 1 and remote.state.paused_at is None


def test_pause_is_on_and_off_or_what_was_said() -> None:
    remote = Remote()
    said = [remote.pause(wanted).paused_at is not None for wanted in (None, None, True, True, False, False)]
    assert said == [True, False, True, True, False, False]


def test_what_a_frame_says_it_shows_counts_for_a_while() -> None:
    clock = Clock()
    remote = Remote(clock)
    remote.says("kitchen", ["a", "b"])
    remote.says("hall", ["b"])
    assert remote.shown() == ["a", "b"]
    remote.says("kitchen", ["c"])
    assert sorted(remote.shown()) == ["b", "c"]
    clock.now += SHOWN_S + 1
    assert remote.shown() == []


def test_frames_that_come_and_go_take_no_room() -> None:
    remote = Remote()
    for i in range(10 * MOST_FRAMES):
        remote.says(f"frame{i}", [f"{i}"])
    assert len(remote.shown()) == MOST_FRAMES and str(10 * MOST_FRAMES - 1) in remote.shown()


def test_each_has_its_turn_once_a_round_the_same_for_all() -> None:
    clock = Clock()
    remote, other = Remote(clock), Remote(clock)
    turns = []
    for _ in IDS:
        turns.append(remote.turn(IDS, 60)[0])
        assert remote.turn(IDS, 60) == other.turn(IDS, 60)
        clock.now += 60
    assert sorted(turns) == IDS and turns != IDS
    assert remote.turn(IDS, 60)[0] == turns[0]


def test_another_order_each_day() -> None:
    clock = Clock()
    remote = Remote(clock)
    orders = set()
    for _ in range(5):
        turn = remote.turn(IDS, 60)
        orders.add(tuple(turn[turn.index(IDS[0]) :] + turn[: turn.index(IDS[0])]))
        clock.now += DAY_S
    assert len(orders) > 1


def test_the_order_holds_what_is_passed_over() -> None:
    turn = Remote(Clock()).turn(IDS, 60)
    assert sorted(turn) == IDS and Remote(Clock()).turn([], 60) == []


def test_next_and_pause_move_and_hold_the_turn() -> None:
    clock = Clock()
    remote = Remote(clock)
    first, second = remote.turn(IDS, 60)[:2]
    remote.next()
    assert remote.turn(IDS, 60)[0] == second != first
    remote.pause()
    clock.now += 600
    assert remote.turn(IDS, 60)[0] == second
    remote.pause()
    assert remote.turn(IDS, 60)[0] == second  # 600 s later: a whole round of ten


def test_a_frame_is_asked_for_by_its_name() -> None:
    remote = Remote()
    for name, pictures in (("hall", ["a"]), ("", ["b"]), ("shop", [])):
        remote.says(name, pictures)
    assert remote.shown() == ["a", "b"]
    assert (remote.shown("hall"), remote.shown("shop"), remote.shown("nobody")) == (["a"], [], [])
