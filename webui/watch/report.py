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


def text(failures: Iterable[Failure]) -> str:
    """Return the report; empty: nothing has failed."""
    entries = [_entry(failure) for failure in sorted(failures, key=lambda failure: failure.path)]
    if not entries:
        return ""
    head = [words(language)("watch_report", count=len(entries)) for language in BOTH]
    return "\n".join([*head, "", *entries])


def _entry(failure: Failure) -> str:
    lines = [shown(failure.path).replace("\n", "?")]  # a name may have any sign but one
    for language in BOTH:
        say = words(language)
        why = say(failure.key, **failure.facts) if failure.key else say.error(failure.code, failure.facts)
        lines.append(f"  {why}")
    return "\n".join([*lines, ""])
