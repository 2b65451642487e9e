"""Which face a point means, and the points that mean a face."""

from __future__ import annotations

from engines.messages.faces import Box, Point, face_at, point_in

ADULT: Box = (0.1, 0.1, 0.4, 0.4)
CHILD: Box = (0.25, 0.25, 0.1, 0.1)  # before the adult's middle
OTHER: Box = (0.7, 0.2, 0.2, 0.3)


def test_a_point_means_the_smallest_face_around_it() -> None:
    boxes = (ADULT, CHILD, OTHER)
    assert [face_at(boxes, Point(x, y)) for x, y in ((0.3, 0.3), (0.12, 0.12), (0.7, 0.5), (0.6, 0.6), (0.0, 0.0))] == [
        1,
        0,
        2,
        None,
        None,
    ]


def test_every_face_can_be_meant() -> None:
    """Whatever lies before it, and though it reaches beyond the edge."""
    edge: Box = (-0.05, 0.9, 0.2, 0.2)
    boxes = (ADULT, CHILD, OTHER, edge)
    assert [face_at(boxes, point_in(boxes, k)) for k in range(4)] == [0, 1, 2, 3]
    assert point_in(boxes, 2) == Point(0.8, 0.35)
