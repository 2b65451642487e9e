"""The blanks over Gradio's queue: what the page is sent, and what a stranger may send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import presets
from tests.support.http import Session, succeeded
from webui.i18n import LANGUAGES, words
from webui.widgets import blanks

if TYPE_CHECKING:
    from tests.support.server import Rig

ALL = presets.load()
OWN = next(preset for preset in ALL if preset.name == "realistic").attributes.prompt["zh"]
BLUE = OWN.replace("灰色背景", "蓝色背景")


def output(page: Session, name: str, inputs: list[Any], data: Any = None) -> list[Any]:
    messages = page.call(page.endpoint(name), inputs, data)
    assert succeeded(messages), messages
    return list(messages[-1]["output"]["data"])


def chips(page: Session, prompt: str, picked: str = "realistic") -> dict[str, Any]:
    return {chip["name"]: chip for chip in output(page, "introduce", [prompt, "portrait", picked])[1]["blanks"]}


def test_the_chips_say_what_the_prompt_has_chosen(rig: Rig) -> None:
    with rig.session() as page:
        own, blue = chips(page, OWN), chips(page, BLUE + "，戴墨镜")
        assert list(own) == ["age_woman", "hair_woman", "hair_colour", "background", "glasses"]
        assert (own["background"]["chosen"], blue["background"]["chosen"]) == ("grey", "blue")
        assert (own["glasses"]["chosen"], blue["glasses"]["chosen"]) == ("none", "sunglasses")
        assert ["grey", "灰色"] in own["background"]["options"] and own["background"]["title"] == "背景"
        assert chips(page, OWN.replace("灰色背景", "灰墙")).keys() == own.keys() - {"background"}
        assert chips(page, "一只猫") == chips(page, OWN, "") == chips(page, OWN, "mine") == {}


def test_what_is_chosen_comes_into_the_prompt(rig: Rig) -> None:
    with rig.session("en") as page:  # the prompt stays in its language
        asked = {"blank": "background", "option": "blue"}
        assert output(page, "fill_blank", [OWN, "portrait", "realistic"], asked) == [BLUE]
        assert output(page, "fill_blank", [BLUE, "portrait", "realistic"], asked) == [OWN]


@pytest.mark.parametrize(
    ("prompt", "bundle", "picked", "asked"),
    [
        (OWN, "portrait", "../../etc", {"blank": "background", "option": "blue"}),
        (OWN, "portrait", "realistic", {"blank": "background", "option": "<b>"}),
        (OWN, "portrait", "realistic", {"blank": ["background"], "option": {"blue": 1}}),
        ("x" * 4000, "portrait", "realistic", {"blank": "background", "option": "blue"}),
    ],
)
def test_what_nobody_can_choose_changes_nothing(
    rig: Rig, prompt: str, bundle: str, picked: str, asked: dict[str, Any]
) -> None:
    with rig.session() as page:
        assert output(page, "fill_blank", [prompt, bundle, picked], asked) == [prompt]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_chip_has_a_name_in_the_language_of_the_page(language: str) -> None:
    say = words(language)
    for preset in ALL:
        for dialect in presets.DIALECTS:
            sent = blanks.value(preset, say.choose(preset.wording(dialect).prompt), dialect, say)
            assert sent["label"] == say("blanks") and len(sent["blanks"]) >= 3
            for chip in sent["blanks"]:
                titles = [title for _, title in chip["options"]]
                assert chip["title"] and all(titles) and len(set(titles)) == len(titles) > 1
                assert chip["chosen"] in dict(chip["options"])
