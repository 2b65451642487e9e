"""What a person looks for among the pictures, as the controls have it, and as the queue takes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

import presets
from engines.jobs import PictureKind, Search, Word

MOST_WORDS, MOST_LETTERS = 8, 200
DAYS = (0, 1, 7, 30)  # how long ago: at any time, today, so many days


@dataclass(frozen=True)
class Find:
    """The controls."""

    row: gr.Row
    words: gr.Textbox
    kind: gr.Dropdown
    bundle: gr.Dropdown
    days: gr.Dropdown
    favourite: gr.Checkbox

    @property
    def values(self) -> list[Any]:
        return [self.words, self.kind, self.bundle, self.days, self.favourite]


def build(t: Callable[[str], Any]) -> Find:
    kinds = [(t("history_kind_all"), ""), (t("history_portraits"), "portraits"), (t("history_photos"), "photos")]
    ages = ("history_since_all", "history_since_today", "history_since_7", "history_since_30")
    days = [(t(key), days) for key, days in zip(ages, DAYS, strict=True)]
    plain: dict[str, Any] = {"container": False, "min_width": 110, "scale": 1}
    choice: dict[str, Any] = {**plain, "filterable": False}
    with gr.Row(elem_id="find") as row:
        words = gr.Textbox(
            label=t("history_find"), placeholder=t("history_find"), max_length=MOST_LETTERS, elem_id="find-words",
            **{**plain, "min_width": 220, "scale": 3},
        )  # fmt: skip
        kind = gr.Dropdown(kinds, value="", label=t("history_kind"), elem_id="find-kind", **choice)
        bundle = gr.Dropdown(
            [(t("history_bundle_all"), "")], value="", label=t("history_bundle"), visible=False, elem_id="find-bundle",
            **choice,
        )  # fmt: skip
        since = gr.Dropdown(days, value=0, label=t("history_since"), elem_id="find-days", **choice)
        favourite = gr.Checkbox(label=t("history_favourites"), elem_id="find-favourite", **plain)
    return Find(row, words, kind, bundle, since, favourite)


def offer_bundles(names: Sequence[str], t: Callable[[str], Any]) -> Any:
    """Return the choice of bundles: of one there is none."""
    return gr.update(choices=[(t("history_bundle_all"), ""), *((name, name) for name in names)], visible=len(names) > 1)


def search(owner: str, values: Sequence[Any]) -> Search:
    """Return what is meant by the controls. Anybody may send anything: what makes no sense is not asked for."""
    text, kind, bundle, days, favourite = values
    words = str(text or "")[:MOST_LETTERS].split()[:MOST_WORDS]
    return Search(
        owner,
        tuple(map(word, words)),
        kind if kind in get_args(PictureKind) else "",
        str(bundle or ""),
        favourite is True,
        since_s(days if days in DAYS else 0, time.time()),
    )


def since_s(days: int, now_s: float) -> float:
    """
    Return when the first of so many days began, of which today is the last, in seconds since 1970 and by this machine's
    clock; 0: any. All day long it is the same, so that pages of one search go together.
    """
    year, month, day, *_ = time.localtime(now_s)
    return time.mktime((year, month, day + 1 - days, 0, 0, 0, 0, 0, -1)) if days else 0.0


def word(text: str) -> Word:
    """Return a word with the presets that have it: in their titles, or in what they ask for in another language."""
    low = text.lower()
    titled = [preset.name for preset in presets.load() if _in(low, preset.title)]
    wordings = [preset.wording(dialect).prompt for preset in presets.load() for dialect in presets.DIALECTS]
    prompts = [prompt for wording in wordings if _in(low, wording) for prompt in wording.values()]
    return Word(text, tuple(titled), tuple(dict.fromkeys(prompts)))


def _in(low: str, said: presets.Words) -> bool:
    return any(low in text.lower() for text in said.values())
