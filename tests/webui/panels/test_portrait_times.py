"""What an open page says beside the backends: how long it takes with the settings that are chosen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.announced import CHOICES, FAST
from tests.support.http import Session

if TYPE_CHECKING:
    from tests.support.server import Rig

SETTINGS = ("size", "steps", "guidance", "count", "bundle", "preview-mode", "start-strength", "loras")


@pytest.fixture
def page(idle: Rig) -> Iterator[Session]:
    """A house whose one model was proved: a step takes 0.08 s, a decode 0.2 s."""
    before = idle.queue.status()
    portraits = [replace(bundle, **PROVED) for bundle in before.bundles if bundle.kind == "portrait"]
    idle.queue.announce(replace(before, bundles=tuple(portraits)))
    with idle.session("en") as page:
        yield page
    idle.queue.announce(before)


FAST_AT_512 = replace(CHOICES[0], verdict=replace(FAST, megapixels=512 * 512 / 1e6))
PROVED: dict[str, Any] = {
    "choices": (FAST_AT_512, *CHOICES[1:]), "engine": "openvino", "steps": 8, "guidance": 1.5,
    "weighs_by_guidance": True,
}  # fmt: skip


def edge(page: Session, **changes: Any) -> str:
    """What is said of the edge backend with these settings, by the names of their elements, and the page's others."""
    foretell = page.endpoint("foretell")
    values = page.values(foretell)
    names = list(map(page.elem_id, foretell["inputs"]))
    for name, value in {"size": "512×512", "steps": 8, "guidance": 1.5, **changes}.items():
        values[names.index(name.replace("_", "-"))] = value
    (radio,) = page.answer(foretell, values)
    return next(label for label, name in radio["choices"] if name == "edge").removeprefix("Edge (compiled) · ")


def test_the_label_follows_the_settings(page: Session) -> None:
    assert edge(page) == "look 0.33 s · finish 1.25 s"
    assert edge(page, steps=4) == "look 0.33 s · finish 0.84 s"
    assert edge(page, steps=16) == "look 0.33 s · finish 2.07 s"
    assert edge(page, count=8) == "look 0.33 s · finish 8.40 s"
    assert edge(page, preview_mode="off") == "1.07 s"
    assert edge(page, guidance=0) == "look 0.18 s · finish 0.82 s"
    assert edge(page, size="256×256") == "look 0.25 s · finish 0.48 s"
    assert edge(page, prompt="a (hat:1.3)") == "look 0.48 s · finish 1.68 s", "a weight is a run more"


def test_every_setting_that_time_depends_on_is_listened_to(page: Session) -> None:
    listened = [(page.elem_id(component), event) for component, event in page.endpoint("foretell")["targets"]]
    assert {name for name, event in listened if event == "change"} == {*SETTINGS, "None"}, (
        "and whether there is a photo"
    )
    assert {name for name, event in listened if event == "blur"} == {"prompt", "negative"}, "not at each letter"
    assert page.endpoint("foretell")["trigger_mode"] == "always_last", "a slider that is drawn asks once at a time"


def test_what_is_half_typed_is_asked_for_within_its_limits(page: Session) -> None:
    """Gradio would say in a corner that 0 steps are too few, while somebody types 10."""
    asked = page.endpoint("foretell")
    limited = re.search(r"= (\[.*\]);", str(asked["js"]))
    assert limited
    limits = dict(zip(map(page.elem_id, asked["inputs"]), json.loads(limited[1]), strict=True))
    assert (limits["steps"], limits["count"], limits["guidance"]) == ([1, 50], [1, 8], [0, 10])
    assert limits["prompt"] is None
