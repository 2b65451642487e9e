"""STUDIO_* variables: every one is read, wrong ones are named, and the list needs no installation."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from engines.bundle import Role
from engines.jobs.quiet import QuietHours
from engines.settings import Settings, SettingsError, variable
from engines.settings.values import ROLES, addresses
from tests.conftest import REPOSITORY

ALL = {
    "STUDIO_HOME": "/srv/studio",
    "STUDIO_HOST": "127.0.0.1",
    "STUDIO_PORT": "8000",
    "STUDIO_NAMES": "studio.local, Box ,",
    "STUDIO_PROXY": "10.0.0.1",
    "STUDIO_PATH": "/studio",
    "STUDIO_ACCEL": "/_pictures",
    "STUDIO_BACKEND": "edge",
    "STUDIO_UPLOAD_MB": "5",
    "STUDIO_DECODE_S": "20",
    "STUDIO_QUEUE_LIMIT": "64",
    "STUDIO_KEEP_DAYS": "0",
    "STUDIO_LOG": "debug",
    "STUDIO_MEMORY_GB": "3.5",
    "STUDIO_PASSWORD": "open sesame",
    "STUDIO_HF_MIRROR": "https://hub.example",
    "STUDIO_PAUSE_S": "5",
    "STUDIO_HOT_C": "85",
    "STUDIO_COOL_C": "70.5",
    "STUDIO_OUTPUTS_GB": "12.5",
    "STUDIO_QUIET_HOURS": "22:00-07:00",
    "STUDIO_ALBUMS": "/srv/holidays,~/wedding",
    "STUDIO_WALL_APPROVAL": "on",
    "STUDIO_FEEDS": "news=https://feeds.example/a.json, nas = http://192.168.1.5/list",
    "STUDIO_IMMICH": "http://192.168.1.5:2283",
    "STUDIO_IMMICH_KEY": "a key of immich",
    "STUDIO_HTTPS": "on",
    "STUDIO_MCP": "on",
    "STUDIO_INBOX": "/srv/nas/inbox",
    "STUDIO_OUTBOX": "/srv/nas/better",
    "STUDIO_INBOX_PER_HOUR": "60",
    "STUDIO_INBOX_IMMICH": "on",
    "STUDIO_MQTT": "mqtts://studio@broker.lan:8883",
    "STUDIO_MQTT_PASSWORD": "abracadabra",
    "STUDIO_QUEUE": "redis://:word@10.0.0.8:6379/0",
    "STUDIO_SERVER": "http://192.168.1.5:7860",
    "STUDIO_WORKER_TOKEN": "a token of the studio's",
    "STUDIO_WAKE": "on",
    "STUDIO_MDNS": "off",
    "STUDIO_PARTS": "text_encoder=http://192.168.1.6:7870, zimage/decoder = https://desk.lan",
    "STUDIO_PARTS_TOKEN": "a token of the house's",
}


def test_every_setting_is_read() -> None:
    assert set(ALL) == {variable(f.name) for f in dataclasses.fields(Settings)}
    settings = Settings.load({**ALL, "PATH": "/bin", "STUDIO_TEST_SHARED": "ours"})
    told = (
        "127.0.0.1",
        8000,
        "studio.local, Box ,",
        "10.0.0.1",
        "/studio",
        "/_pictures",
        "edge",
        5,
        20.0,
        64,
        0,
        "debug",
        3.5,
    )
    more = (
        "open sesame",
        "https://hub.example",
        5.0,
        85.0,
        70.5,
        12.5,
        "22:00-07:00",
        ALL["STUDIO_ALBUMS"],
        True,
        ALL["STUDIO_FEEDS"],
        ALL["STUDIO_IMMICH"],
        ALL["STUDIO_IMMICH_KEY"],
        True,
        True,
    )
    watched = ("/srv/nas/inbox", "/srv/nas/better", 60, True)
    broker = ("mqtts://studio@broker.lan:8883", "abracadabra")
    studio = (ALL["STUDIO_QUEUE"], "http://192.168.1.5:7860", "a token of the studio's", True, False)
    parts = (ALL["STUDIO_PARTS"], ALL["STUDIO_PARTS_TOKEN"])
    assert settings == Settings(Path("/srv/studio"), *told, *more, *watched, *broker, *studio, *parts)
    assert all(each not in repr(settings) for each in ("sesame", "abracadabra", "a key", "a token"))
    assert settings.host_names == ("studio.local", "box")


def test_nothing_needs_to_be_set() -> None:
    settings = Settings.load({})
    assert settings == Settings(home=Path.cwd() / "data")
    assert (settings.host, settings.port, settings.backend, settings.host_names) == ("0.0.0.0", 7860, "auto", ())


def test_every_folder_lies_in_home() -> None:
    settings = Settings.load({"STUDIO_HOME": "/srv/studio"})
    folders = {settings.outputs, settings.uploads, settings.models, settings.state, settings.cache}
    assert len(folders) == 5
    assert {folder.parent for folder in folders} == {Path("/srv/studio")}


def test_home_is_absolute_and_knows_the_tilde() -> None:
    assert Settings.load({"STUDIO_HOME": "~/studio"}).home == Path.home() / "studio"
    assert Settings.load({"STUDIO_HOME": "here"}).home == Path.cwd() / "here"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("STUDIO_PORT", "web"),
        ("STUDIO_QUEUE_LIMIT", "0"),
        ("STUDIO_DECODE_S", "0"),
        ("STUDIO_MEMORY_GB", "much"),
        ("STUDIO_MEMORY_GB", "-1"),
        ("STUDIO_MEMORY_GB", "nan"),
        ("STUDIO_PORT", ""),
        ("STUDIO_PORT", "-1"),
        ("STUDIO_PORT", "65536"),
        ("STUDIO_PORT", "78.60"),
        ("STUDIO_UPLOAD_MB", "0"),
        ("STUDIO_UPLOAD_MB", "2001"),
        ("STUDIO_KEEP_DAYS", "36501"),
        ("STUDIO_LOG", "loud"),
        ("STUDIO_HF_MIRROR", "hub.example"),
        ("STUDIO_PROXY", "nginx"),
        ("STUDIO_PATH", "studio"),
        ("STUDIO_PATH", "/"),
        ("STUDIO_PATH", "/studio/"),
        ("STUDIO_PATH", "/a//b"),
        ("STUDIO_PATH", "/a/../b"),
        ("STUDIO_PATH", "/工作室"),
        ("STUDIO_PATH", "/a?b"),
        ("STUDIO_PATH", "/studio\n"),
        ("STUDIO_ACCEL", "pictures"),
        ("STUDIO_ACCEL", "/_pictures"),
        ("STUDIO_HOME", ""),
        ("STUDIO_HOME", "~nobody-of-this-name/x"),
        ("STUDIO_PAUSE_S", "3601"),
        ("STUDIO_HOT_C", "121"),
        ("STUDIO_HOT_C", "72"),
        ("STUDIO_COOL_C", "80"),
        ("STUDIO_COOL_C", "29"),
        ("STUDIO_MCP", "maybe"),
        ("STUDIO_SERVER", "192.168.1.5:7860"),
        ("STUDIO_MCP", ""),
        ("STUDIO_INBOX", " "),
        ("STUDIO_INBOX", "~nobody-of-this-name/x"),
        ("STUDIO_INBOX_PER_HOUR", "-1"),
        ("STUDIO_FEEDS", "https://feeds.example/a.json"),
        ("STUDIO_FEEDS", "a=ftp://feeds.example"),
        ("STUDIO_FEEDS", "a=https://me:secret@feeds.example"),
        ("STUDIO_FEEDS", "a=https://feeds.example:port"),
        ("STUDIO_FEEDS", "a=https://x.example,a=https://y.example"),
        ("STUDIO_PARTS", "decoder=http://desk.lan:7870"),  # without its token
        ("STUDIO_PARTS", "vae=http://desk.lan:7870"),
        ("STUDIO_PARTS", "decoder=desk.lan:7870"),
        ("STUDIO_PARTS", "http://desk.lan:7870"),
        ("STUDIO_PARTS_TOKEN", "too short"),
        ("STUDIO_IMMICH", "http://nas:2283"),  # without its key
        ("STUDIO_IMMICH", "nas:2283"),
        ("STUDIO_IMMICH_KEY", "x"),
        ("STUDIO_INBOX_IMMICH", "on"),
        ("STUDIO_HOEM", "/srv"),
        ("STUDIO_", "x"),
    ],
)
def test_a_wrong_setting_is_named(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.load({name: text})


@pytest.mark.parametrize(
    ("name", "text"), [("STUDIO_PORT", "0"), ("STUDIO_PORT", "65535"), ("STUDIO_UPLOAD_MB", "2000")]
)
def test_the_ends_of_a_range_are_inside(name: str, text: str) -> None:
    assert getattr(Settings.load({name: text}), name.removeprefix("STUDIO_").lower()) == int(text)


@pytest.mark.parametrize(("text", "on"), [("1", True), ("On", True), ("true", True), ("0", False), ("OFF", False)])
def test_a_switch_is_on_or_off(text: str, on: bool) -> None:
    assert Settings.load({"STUDIO_MCP": text}).mcp is on


def test_without_an_upper_limit_the_lower_one_may_be_any() -> None:
    assert Settings.load({"STUDIO_HOT_C": "0", "STUDIO_COOL_C": "95"}).hot_c == 0


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_the_list_of_settings_needs_no_installation() -> None:
    """`-I -S` hides every installed package, as before ./run.sh setup."""
    code = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('webui.cli', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", code, str(REPOSITORY), "help"],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("  STUDIO_")]
    assert [line.split()[0] for line in lines] == list(ALL)
    assert all(" · " in line and line.endswith("]") for line in lines)


@pytest.mark.parametrize("span", ["22-7", "25:00-07:00", "night"])
def test_quiet_hours_must_be_hours(span: str) -> None:
    with pytest.raises(SettingsError, match=f"STUDIO_QUIET_HOURS={span}: must be hours of the day"):
        Settings.load({"STUDIO_QUIET_HOURS": span})
    assert QuietHours.parse(Settings.load({"STUDIO_QUIET_HOURS": "22:00-7:00"}).quiet_hours).begin == 22 * 60


def test_folders_of_frames_go_by_their_names(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "holidays", tmp_path / "b" / "holidays"
    settings = Settings.load({"STUDIO_ALBUMS": f"{first}, {tmp_path / 'wedding'},{second},"})
    assert list(settings.album_folders.items()) == [("holidays", first), ("wedding", tmp_path / "wedding")]
    assert Settings.load({}).album_folders == {}


def test_feeds_go_by_their_names() -> None:
    assert Settings.load(ALL).feed_addresses == {
        "news": "https://feeds.example/a.json",
        "nas": "http://192.168.1.5/list",
    }


def test_parts_go_by_what_they_do() -> None:
    lent = {"text_encoder": "http://192.168.1.6:7870", "zimage/decoder": "https://desk.lan"}
    assert addresses("STUDIO_PARTS", Settings.load(ALL).parts) == lent
    assert get_args(Role) == ROLES


def test_a_wrong_address_does_not_show_its_password() -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.load({"STUDIO_FEEDS": "a=https://me:secret@feeds.example"})
    assert "secret" not in str(refusal.value)


def test_the_outbox_lies_beside_the_inbox_unless_it_is_named() -> None:
    assert (Settings.load({}).inbox_folder, Settings.load({"STUDIO_OUTBOX": "/x"}).outbox_folder) == (None, None)
    beside = Settings.load({"STUDIO_INBOX": "/srv/nas/inbox"})
    assert (beside.inbox_folder, beside.outbox_folder) == (Path("/srv/nas/inbox"), Path("/srv/nas/restored"))
    inside = Settings.load({"STUDIO_INBOX": "/srv/nas", "STUDIO_OUTBOX": "/srv/nas/better"})
    assert inside.outbox_folder == Path("/srv/nas/better")


@pytest.mark.parametrize("outbox", ["/srv/nas/inbox", "/srv/nas/inbox/", "/srv/nas", "/srv/nas/x/../inbox"])
def test_what_was_restored_must_not_come_in_again(outbox: str) -> None:
    with pytest.raises(SettingsError, match="STUDIO_OUTBOX=/srv/nas"):
        Settings.load({"STUDIO_INBOX": "/srv/nas/inbox", "STUDIO_OUTBOX": outbox})


@pytest.mark.parametrize(
    "broker",
    ["mqtt://broker", "mqtt://me@10.0.0.7:1883", "mqtts://broker.lan:8883/", "mqtt://a%40b@[fd00::7]:65535", ""],
)
def test_a_broker_is_an_address_with_or_without_user_and_port(broker: str) -> None:
    assert Settings.load({"STUDIO_MQTT": broker}).mqtt == broker


@pytest.mark.parametrize(
    "broker",
    [
        "mqtt://me:secret-word@broker", "mqtt://me@secret-word@broker", "broker:1883", "http://broker", "mqtt://",
        "mqtt://broker:0", "mqtt://broker:65536", "mqtt://a..b", "mqtt://[::1", "mqtt://broker/topic",
        "mqtt://bröker", "mqtt://broker\n",
    ],
)  # fmt: skip
def test_another_broker_is_refused_and_not_repeated(broker: str) -> None:
    with pytest.raises(SettingsError, match="STUDIO_MQTT: must be like") as refused:
        Settings.load({"STUDIO_MQTT": broker})
    assert "secret-word" not in str(refused.value)


@pytest.mark.parametrize(
    "queue", ["amqp://me:secret-word@rabbit", "10.0.0.8:6379", "http://secret-word@redis", "sqs://"]
)
def test_messages_are_carried_by_redis_alone(queue: str) -> None:
    with pytest.raises(SettingsError, match="STUDIO_QUEUE") as refused:
        Settings.load({"STUDIO_QUEUE": queue})
    assert "secret-word" not in str(refused.value)
    assert "secret-word" not in repr(Settings(queue=queue))
