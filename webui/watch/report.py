"""
What could not be restored, as a text in the outbox: each file with its reason, in Chinese and in English, in the
sentences of the page. Knows words; what has failed it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from engines.errors import Fact
from webui.i18n import BOTH, words
from webui.watch.intake import shown

NAME = "失败-failures.txt"


@dataclass(frozen=True, slots=True)
class Failure:
    """A file of the inbox, and why there is no result: an error's code, or a key of the locales, and its facts."""

    path: str
    code: str = ""
    key: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)


def text(failures: Iterable[Failure], absent: int = 0) -> str:
    """Return the report; empty: there is nothing to say. `absent`: how many results have no original in immich."""
    entries = [_entry(failure) for failure in sorted(failures, key=lambda failure: failure.path)]
    head = [words(language)("watch_report", count=len(entries)) for language in BOTH] if entries else []
    note = [words(language)("watch_not_in_immich", count=absent) for language in BOTH] if absent else []
    return "\n".join([*head, *([""] if entries else []), *entries, *note, *([""] if note else [])])


def _entry(failure: Failure) -> str:
    lines = [shown(failure.path).replace("\n", "?")]  # a name may have any sign but one
    for language in BOTH:
        say = words(language)
        why = say(failure.key, **failure.facts) if failure.key else say.error(failure.code, failure.facts)
        lines.append(f"  {why}")
    return "\n".join([*lines, ""])
