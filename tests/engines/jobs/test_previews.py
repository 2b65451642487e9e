"""After which steps a portrait is shown: the first, each quarter's last, and as often as costs little."""

from __future__ import annotations

import math

import pytest

from engines.jobs.previews import SHARE, every, preview_steps


@pytest.mark.parametrize("steps", range(1, 51))
@pytest.mark.parametrize("spacing", [1, 2, 3, 7, 1000])
def test_every_quarter_is_shown_and_nothing_beyond_the_end(steps: int, spacing: int) -> None:
    shown = preview_steps(steps, spacing)
    assert {1, *(math.ceil(steps * share) for share in (0.25, 0.5, 0.75)), steps} <= shown <= set(range(1, steps + 1))
    assert len(shown) <= 4 + math.ceil(steps / spacing)


def test_what_is_cheap_is_shown_after_each_step() -> None:
    assert preview_steps(8, every(1.0, SHARE)) == set(range(1, 9))
    assert preview_steps(8, every(1.0, 50.0)) == {1, 2, 4, 6, 8}
    assert preview_steps(20, every(1.0, 2.5 * SHARE)) == {1, 4, 7, 10, 13, 16, 19, 5, 15, 20}
