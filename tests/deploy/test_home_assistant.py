"""The example for Home Assistant can be read, calls what the frame has, and holds no token."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

EXAMPLE = REPOSITORY / "deploy" / "home-assistant" / "awportrait.yaml"


@pytest.fixture(scope="module")
def package() -> dict[str, Any]:
    """The example as Home Assistant reads it; a secret is its name in brackets."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!secret", lambda loader, node: f"[{node.value}]")
    package: dict[str, Any] = yaml.load(EXAMPLE.read_text(encoding="utf-8"), Loader)
    return package


def card(path: Path) -> str:
    """Return the dashboard card, which stands at the end as a comment."""
    text = path.read_text(encoding="utf-8")
    return re.sub("^# ?", "", text[text.index("# type: vertical-stack") :], flags=re.MULTILINE)


def test_commands_are_what_the_frame_has_and_carry_the_token(package: dict[str, Any]) -> None:
    commands = package["rest_command"]
    assert {name: command["url"].partition(":7860")[2].partition("{{")[0] for name, command in commands.items()} == {
        f"awportrait_{verb}": f"/frame/{verb}" for verb in ("next", "pause", "favourite")
    }
    assert all(command["method"] == "post" for command in commands.values())
    assert all(command["headers"] == {"Authorization": "[awportrait_bearer]"} for command in commands.values())


def test_whatever_is_called_is_there(package: dict[str, Any]) -> None:
    there = {f"rest_command.{name}" for name in package["rest_command"]}
    there |= {f"script.{name}" for name in package["script"]}
    steps = [step for script in package["script"].values() for step in script["sequence"]]
    steps += [step for automation in package["automation"] for step in automation["actions"]]
    assert {step["action"] for step in steps if "action" in step} <= there


def test_the_picture_is_a_secret_that_is_explained(package: dict[str, Any]) -> None:
    (template,) = package["template"]
    assert template["image"][0]["url"] == "[awportrait_image]"
    text = EXAMPLE.read_text(encoding="utf-8")
    assert set(re.findall(r"!secret (\w+)", text)) == set(re.findall(r"#   (\w+): \"", text))
    assert "/frame/image.jpg?w=1024&h=600&fit=cover&token=TOKEN" in text and "awp_" not in text


def test_the_card_shows_what_the_package_makes(package: dict[str, Any]) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    picture, buttons = yaml.safe_load(card(EXAMPLE))["cards"]
    name = package["template"][0]["image"][0]["name"]
    assert picture["entity"] == f"image.{name.lower().replace(' ', '_')}", "as Home Assistant derives it"
    assert {button["entity"].partition(".")[2] for button in buttons["cards"]} == set(package["script"])


def test_at_night_it_is_paused_whatever_it_was_before(package: dict[str, Any]) -> None:
    """And not the other of the two: somebody may have paused it by hand."""
    said = [step["data"]["paused"] for automation in package["automation"] for step in automation["actions"]]
    assert said == ["true", "false"]
    assert "'?paused=' ~ paused" in package["rest_command"]["awportrait_pause"]["url"]
