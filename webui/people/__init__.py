"""
Who asks: a browser, by a pass that this house has signed; a program, by its token; a visitor at a frame; or nobody in
particular. Knows requests and signatures. What belongs to whom, jobs know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["owner", "guest"]
PROGRAM = "token:"  # how the id of one begins that has a token
VISITOR = "visitor:"  # and of one who stands before a frame, for a while
WORKER = "worker:"  # and of a machine that works for this house, which may do nothing else
WALL = "wall"  # whose are the pictures that visitors have left for the wall


@dataclass(frozen=True, slots=True)
class Person:
    """
    `id`: what is theirs bears it; empty: nobody in particular, to whom nothing belongs. `role`: the owner of the house
    downloads and builds models, and keeps the album; a guest draws and restores.
    """

    id: str = ""
    role: Role = "guest"

    @property
    def is_owner(self) -> bool:
        return self.role == "owner"

    @property
    def is_program(self) -> bool:
        return self.id.startswith(PROGRAM)

    @property
    def is_worker(self) -> bool:
        return self.id.startswith(WORKER)

    @property
    def is_visitor(self) -> bool:
        return self.id.startswith(VISITOR)


NOBODY = Person()


def person_of(request: Any) -> Person:
    """
    Return who asks. `request` is Starlette's or Gradio's; one that has not come through Admission is nobody's.
    """
    person: Person = getattr(getattr(request, "state", None), "person", NOBODY)
    return person
