"""What visitors have left for the wall, in the album: the owner looks at it, and nobody else is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from engines.jobs import Search
from engines.messages import Final, Generate
from tests.support.http import Session, encoded, people, succeeded
from tests.support.queues import FINAL, claimed
from webui.i18n import words
from webui.own_jobs import OwnJobs
from webui.people import VISITOR, WALL, Person

if TYPE_CHECKING:
    from tests.support.server import Rig

ZH = words("zh")
ALBUM = ["album", "", "", "", 0, False]


def leave(rig: Rig, name: str) -> str:
    """A visitor draws a picture and leaves it for the wall."""
    visitor = f"{VISITOR}{name}"
    rig.queue.submit(Generate("what a visitor has asked for"), visitor)
    job, picture = claimed(rig.queue), f"outputs_20260101{name:0>6}.png"
    (rig.settings.outputs / picture).write_bytes(encoded(people().resize((90, 90)), "PNG"))
    assert rig.queue.publish(job, replace(FINAL, images=(picture,)))
    OwnJobs(rig.queue, rig.house.keys, Person(visitor)).leave_for_wall(job.id, approved=False)
    return job.id


@pytest.fixture
def left(idle: Rig) -> Iterator[list[str]]:
    idle.settings.outputs.mkdir(exist_ok=True)
    idle.clear()
    yield [leave(idle, str(k)) for k in range(2)]
    idle.queue.erase(WALL)
    idle.queue.purge(4e9)


def call(page: Session, handler: str, data: list[Any], event: Any = None) -> Any:
    messages = page.call(page.endpoint(handler, "history"), data, event)
    return messages[-1]["output"]["data"][0] if succeeded(messages) else None


def test_the_owner_is_shown_what_visitors_left(idle: Rig, left: list[str]) -> None:
    with idle.session() as page:
        shown = call(page, "refresh", ALBUM)
        assert ZH("wall_left", count=2) in shown["notice"] and "visitor" not in str(shown)
        assert [f'data-approve="{job_id}"' in shown["notice"] for job_id in left] == [True, True]
        assert "left" not in call(page, "refresh", ["mine", *ALBUM[1:]])["notice"], "it is the album's"
        final = idle.queue.latest(left[0])
        assert isinstance(final, Final)
        assert page.client.get(f"/thumbnails/{idle.signed(final)}").status_code == 200
        after = call(page, "approve", [], {"job": left[0], "approved": True})
        assert left[0] not in after["notice"] and left[1] in after["notice"] and after["cards"] != shown["cards"]
        after = call(page, "approve", [], {"job": left[1], "approved": False})
        assert after["notice"] == ""
        assert call(page, "approve", [], {"job": left[1], "approved": True}) is None, "it is gone"
    assert [finished.job.id for finished in idle.queue.page(Search(WALL), 9).jobs] == [left[0]]


@pytest.mark.parametrize("event", [{}, {"job": 7, "approved": True}, {"job": "x", "approved": "yes"}])
def test_what_names_no_picture_approves_none(idle: Rig, left: list[str], event: dict[str, Any]) -> None:
    with idle.session() as page:
        assert call(page, "approve", [], event) is None
    assert not any(finished.shared for finished in idle.queue.page(Search(WALL), 9).jobs)


def test_nobody_else_is_asked(idle: Rig, left: list[str]) -> None:
    own = OwnJobs(idle.queue, idle.house.keys, Person("somebody", "guest"))
    assert own.left_for_wall(9) == []
    with pytest.raises(Exception, match="owner"):
        own.approve(left, True)
