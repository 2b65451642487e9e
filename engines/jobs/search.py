"""
What is meant by a search, in SQL: conditions on a row of the jobs, and their values. Words are looked for as they were
typed: nothing in them is a pattern.
"""

from __future__ import annotations

from collections.abc import Iterator

from engines.jobs import PictureKind, Position, Search, Word
from engines.jobs.statements import DONE, FINISHED

Condition = tuple[str, tuple[object, ...]]
LATEST: Position = (float("inf"), 0)
KINDS: dict[PictureKind, tuple[str, ...]] = {"portraits": ("generate", "develop"), "photos": ("enhance",)}
REQUEST = "CASE WHEN json_valid(request) THEN request ELSE '{}' END"  # a row may also hold no JSON at all


def page(search: Search, after: Position, limit: int) -> tuple[str, tuple[object, ...]]:
    """Return the statement that selects FINISHED of what is meant."""
    conditions = [*_conditions(search), ("(ended, number)<(?, ?)", after)]  # which the index finds, as it does owners
    meant = " AND ".join(condition for condition, _ in conditions)
    sql = f"SELECT {FINISHED} FROM job WHERE {DONE} AND {meant} ORDER BY ended DESC, number DESC LIMIT ?"
    return sql, (*(value for _, values in conditions for value in values), limit)


def _conditions(search: Search) -> Iterator[Condition]:
    yield ("shared", ()) if search.owner is None else ("owner=?", (search.owner,))
    if search.favourite:
        yield "favourite", ()
    if search.since:
        yield "ended>=?", (search.since,)
    if search.bundle:
        yield f"{_field('bundle')}=?", (search.bundle,)
    if kinds := KINDS.get(search.kind):
        yield _one_of("kind", kinds)
    yield from map(_has, search.words)


def _has(word: Word) -> Condition:
    conditions = [
        *((f"instr(lower({_field(name)}), lower(?))", (word.text,)) for name in ("prompt", "name")),
        _one_of("preset", word.presets),
        _one_of("prompt", word.prompts),
    ]
    sql = " OR ".join(condition for condition, _ in conditions)
    return f"({sql})", tuple(value for _, values in conditions for value in values)


def _one_of(name: str, values: tuple[str, ...]) -> Condition:
    return f"{_field(name)} IN ({', '.join('?' * len(values))})", values


def _field(name: str) -> str:
    return f"json_extract({REQUEST}, '$.{name}')"
