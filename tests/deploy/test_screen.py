"""screen.sh switches the screen with whatever is there and works, and says when nothing does."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.stub_commands import Commands, is_bilingual

SCREEN = REPOSITORY / "deploy" / "kiosk" / "screen.sh"
LISTED = r"HDMI-A-1 \"A screen\"\n  Enabled: yes\n\nDSI-1 \"Another\"\n  Enabled: yes\n"
OUTPUTS = f'if [ $# = 0 ]; then printf "{LISTED}"; fi'


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands.below(tmp_path, ("bash", "id"))


@pytest.mark.parametrize(
    ("state", "tool", "script", "calls"),
    [
        ("off", "wlopm", "", ["wlopm --off *"]),
        ("on", "wlopm", "", ["wlopm --on *"]),
        (
            "off",
            "wlr-randr",
            OUTPUTS,
            ["wlr-randr ", "wlr-randr --output HDMI-A-1 --off", "wlr-randr --output DSI-1 --off"],
        ),
        ("off", "vcgencmd", 'echo "display_power=$2"', ["vcgencmd display_power 0"]),
        ("on", "vcgencmd", 'echo "display_power=$2"', ["vcgencmd display_power 1"]),
        ("off", "ddcutil", "", ["ddcutil --noverify setvcp D6 4"]),
        ("on", "ddcutil", "", ["ddcutil --noverify setvcp D6 1"]),
        ("off", "xset", "", ["xset dpms force off"]),
    ],
)
def test_each_program_is_asked_in_its_own_words(
    state: str, tool: str, script: str, calls: list[str], commands: Commands
) -> None:
    commands.stub(tool, script)
    done = commands.run(SCREEN, state, DISPLAY=":0")
    assert (done.returncode, commands.calls) == (0, calls), done.stderr
    assert tool in done.stderr


@pytest.mark.parametrize(
    ("tool", "script"),
    [
        ("wlopm", "exit 1"),
        ("wlr-randr", "exit 1"),
        ("wlr-randr", ""),  # it lists no output
        ("wlr-randr", f"{OUTPUTS}; [ $# = 0 ]"),  # it lists them, and switches none
        ("vcgencmd", 'echo "display_power=-1"'),  # the kernel drives the screen; the exit status says nothing of it
    ],
)
def test_what_is_there_and_does_not_work_is_passed_over(tool: str, script: str, commands: Commands) -> None:
    commands.stub(tool, script)
    commands.stub("ddcutil")
    done = commands.run(SCREEN, "off")
    assert (done.returncode, commands.calls[-1]) == (0, "ddcutil --noverify setvcp D6 4"), done.stderr


def test_without_any_program_it_says_so(commands: Commands) -> None:
    done = commands.run(SCREEN, "off")
    assert done.returncode == 3 and is_bilingual(done.stderr)


def test_when_none_works_it_says_which_were_tried(commands: Commands) -> None:
    commands.stub("vcgencmd", "exit 1")
    commands.stub("ddcutil", "exit 1")
    commands.stub("xset")
    done = commands.run(SCREEN, "on")
    assert done.returncode == 4 and is_bilingual(done.stderr) and "vcgencmd ddcutil xset" in done.stderr
    assert not [call for call in commands.calls if call.startswith("xset")], "there is no X11"


@pytest.mark.parametrize("arguments", [(), ("dim",)])
def test_asked_wrongly_it_does_nothing(arguments: tuple[str, ...], commands: Commands) -> None:
    commands.stub("wlopm")
    done = commands.run(SCREEN, *arguments)
    assert done.returncode == 2 and is_bilingual(done.stderr) and not commands.calls


def test_somebody_may_choose_the_program(commands: Commands) -> None:
    commands.stub("wlopm")
    commands.stub("ddcutil")
    assert commands.run(SCREEN, "off", SCREEN_TOOLS="ddcutil").returncode == 0
    assert commands.calls == ["ddcutil --noverify setvcp D6 4"]
    assert commands.run(SCREEN, "off", SCREEN_TOOLS="rm").returncode == 2


def test_a_timer_outside_the_compositor_finds_it(commands: Commands, tmp_path: Path) -> None:
    """Its socket, not the lock beside it."""
    (tmp_path / "wayland-0.lock").touch()
    commands.stub("wlopm", f'echo "$WAYLAND_DISPLAY" > "{tmp_path}/display"')
    with socket.socket(socket.AF_UNIX) as compositor:
        compositor.bind(str(tmp_path / "wayland-1"))
        assert commands.run(SCREEN, "off").returncode == 0
    assert (tmp_path / "display").read_text(encoding="utf-8") == "wayland-1\n"
