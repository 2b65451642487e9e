"""The entry in the menu, read as the Desktop Entry Specification says that desktops read it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from webui.asset_files import FOLDER as ASSETS
from webui.desktop import APP_ID, Unavailable, launcher
from webui.desktop.__main__ import main

UNESCAPED = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
MUST_BE_QUOTED = " \t\n\"'\\><~|&;$*?#()`"  # Desktop Entry Specification 1.5, "The Exec key"
AWKWARD = (
    "plain", "with space", "100% mine", "%f %U", 'say "hi"', "it's", "$HOME and `id`", "back\\slash", "a;b&c|d>e<f",
    "~/*?#(x)", "人像 工作室", "line\nbreak", "tab\there", "",
)  # fmt: skip


def groups(text: str) -> dict[str, dict[str, str]]:
    """Each group's keys and values, with the escapes of strings read."""
    read: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            read[line.strip("[]")] = values = {}
        elif line:
            name, _, value = line.partition("=")
            assert name not in values, f"{name} stands there twice"
            values[name] = re.sub(r"\\(.)", lambda match: UNESCAPED[match[1]], value)
    return read


def arguments(command: str) -> list[str]:
    """The arguments of an Exec: quoted whole or not at all, and %% for %."""
    read = []
    for quoted, bare in re.findall(r'"((?:[^"\\`$]|\\["`$\\])*)"(?= |$)|([^ "]+)(?= |$)', command):
        assert not set(bare) & set(MUST_BE_QUOTED), bare
        text = re.sub(r'\\(["`$\\])', r"\1", quoted) or bare
        assert not re.search("%[^%]", text.replace("%%", "")), f"a field is left in {text}"
        read.append(text.replace("%%", "%"))
    assert len(read) == len(re.findall(r'"(?:[^"\\]|\\.)*"|[^ "]+', command)), f"something was not read in {command}"
    return read


@pytest.mark.parametrize("awkward", AWKWARD)
def test_a_desktop_reads_the_arguments_as_they_are(awkward: str) -> None:
    script = Path("/opt", awkward, "run.sh")
    read = groups(launcher.entry(("bash", str(script)), {"STUDIO_NAMES": awkward, "STUDIO_PORT": "7861"}))
    begin = ["env", f"STUDIO_NAMES={awkward}", "STUDIO_PORT=7861", "bash", str(script), "app"]
    assert arguments(read["Desktop Entry"]["Exec"]) == begin
    assert arguments(read["Desktop Action stop"]["Exec"]) == [*begin, "--stop"]
    assert read["Desktop Entry"]["TryExec"] == str(script)


def test_the_entry_has_what_a_menu_needs() -> None:
    read = groups(launcher.entry(("bash", "/opt/a=b/run.sh"), {}))["Desktop Entry"]
    assert arguments(read["Exec"]) == ["bash", "/opt/a=b/run.sh", "app"], "a program's own name may hold no ="
    assert (read["Type"], read["Icon"], read["StartupWMClass"]) == ("Application", APP_ID, APP_ID)
    assert read["Categories"] == "Graphics;Photography;"
    for language in ("[zh_CN]", "[zh_TW]", ""):
        assert read[f"Name{language}"] and read[f"Comment{language}"]
    assert "畫" in read["Comment[zh_TW]"] and "画" in read["Comment[zh_CN]"] and read["Comment"].isascii()


def test_it_is_put_there_and_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data home"))
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "pictures 50%"))
    assert main(["--install"]) == 0
    menu, scalable, small, large = launcher.paths(tmp_path / "data home")
    assert menu == tmp_path / "data home" / "applications" / f"{APP_ID}.desktop"
    text = menu.read_text(encoding="utf-8")
    run = ["env", f"STUDIO_HOME={tmp_path / 'pictures 50%'}", "bash", str(REPOSITORY / "run.sh"), "app"]
    assert arguments(groups(text)["Desktop Entry"]["Exec"]) == run
    assert scalable.read_bytes() == (ASSETS / "icon.svg").read_bytes()
    assert small.parent.parent.name == "192x192" and small.read_bytes() == (ASSETS / "icon-192.png").read_bytes()
    assert large.parent.parent.name == "512x512" and large.read_bytes() == (ASSETS / "icon-512.png").read_bytes()
    if validate := shutil.which("desktop-file-validate"):
        done = subprocess.run([validate, str(menu)], capture_output=True, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert main(["--uninstall"]) == 0
    assert not any(path.is_file() for path in (tmp_path / "data home").rglob("*"))
    assert main(["--uninstall"]) == 0, "what is not there needs no removal"


def test_the_settings_of_tests_are_nobodys(tmp_path: Path) -> None:
    launcher.install({"XDG_DATA_HOME": str(tmp_path), "STUDIO_TEST_SHARED": "x", "STUDIO_PORT": "7"})
    assert "TEST" not in launcher.paths(tmp_path)[0].read_text(encoding="utf-8")


def test_a_relative_folder_of_data_counts_as_none() -> None:
    assert launcher.data_folder({"XDG_DATA_HOME": "here"}) == Path.home() / ".local" / "share"
    assert launcher.data_folder({}) == Path.home() / ".local" / "share"


def test_no_menu_holds_a_password(tmp_path: Path) -> None:
    env = {"XDG_DATA_HOME": str(tmp_path), "STUDIO_PASSWORD": "open sesame"}
    with pytest.raises(Unavailable, match=r"\./run\.sh password") as refused:
        launcher.install(env)
    assert "sesame" not in str(refused.value) and not list(tmp_path.rglob("*"))
    hashed = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA"
    launcher.install({**env, "STUDIO_PASSWORD": hashed})
    command = groups(launcher.paths(tmp_path)[0].read_text(encoding="utf-8"))["Desktop Entry"]["Exec"]
    assert arguments(command)[1] == f"STUDIO_PASSWORD={hashed}"


def test_nor_that_of_a_broker(tmp_path: Path) -> None:
    env = {"XDG_DATA_HOME": str(tmp_path), "STUDIO_MQTT": "mqtt://me@broker", "STUDIO_MQTT_PASSWORD": "abracadabra"}
    with pytest.raises(Unavailable, match="STUDIO_MQTT_PASSWORD") as refused:
        launcher.install(env)
    assert "abracadabra" not in str(refused.value) and not list(tmp_path.rglob("*"))


def test_macos_has_no_such_menu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert main(["--install"]) == 1
    assert "macOS" in capsys.readouterr().err
