"""The frames in Home Assistant: what it is told, what it may ask, and brokers that come and go, refuse or rave."""

from __future__ import annotations

import itertools
import json
import logging
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import pytest
from anyio.from_thread import start_blocking_portal
from fastapi import APIRouter, FastAPI, Request
from fastapi.testclient import TestClient
from PIL import Image

from engines.errors import NotFoundError
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Generate
from engines.settings import Settings, SettingsError
from tests.conftest import REPOSITORY
from tests.support import brokers
from tests.support.brokers import PASSWORD, USER, Broker, Listener, StandIn, listening, running, wait_until
from tests.support.queues import FINAL, claimed
from webui import api, certificates, frame, packages
from webui.frame.discovery import BIRTH, STATES, Topics, document
from webui.frame.mqtt import Door, Pace
from webui.frame.remote import SHOWN_S, Remote
from webui.own_jobs import HouseJobs
from webui.people import Person
from webui.people.secret import Keys

SECRET = bytes(range(32))
TOPICS = Topics.of(SECRET)
HASTE = Pace(look_s=0.01, first_s=0.02, most_s=0.1)
# home-assistant.io/integrations/mqtt, and homeassistant/components/mqtt/schemas.py of its sources.
SHARED = {"device", "origin", "components", "state_topic", "command_topic", "qos", "encoding"} | {
    "availability", "availability_mode", "availability_template", "availability_topic", "payload_available",
    "payload_not_available",
}  # fmt: skip
DEVICE = {"identifiers", "connections", "name", "manufacturer", "model", "hw_version", "sw_version", "serial_number"}
REQUIRED = {"switch": {"command_topic"}, "button": {"command_topic"}, "sensor": {"state_topic"}}
ENTITY = {"platform", "name", "icon", "unique_id", "default_entity_id"}
STATE = {"state_topic", "value_template"}
OPTIONAL = {"switch": STATE, "button": set(), "sensor": STATE | {"device_class", "options"}}  # that we use
ATTRIBUTES = {"json_attributes_topic", "json_attributes_template"}


@pytest.fixture(params=["stand-in", "mosquitto"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    if request.param == "mosquitto" and brokers.PROGRAM is None:
        pytest.skip("mosquitto is not installed")
    with running(brokers.Mosquitto(tmp_path) if request.param == "mosquitto" else StandIn()) as started:
        yield started


@pytest.fixture
def home_assistant(broker: Broker) -> Iterator[Listener]:
    with listening(broker) as listener:
        yield listener


def nothing() -> None:
    raise NotFoundError("picture", "frame")


@contextmanager
def at_work(
    port: int,
    remote: Remote,
    favour: Callable[[], object] = nothing,
    password: str = PASSWORD,
    address: str = f"mqtt://{USER}@127.0.0.1",
) -> Iterator[None]:
    before = threading.enumerate()
    settings = Settings(mqtt=f"{address}:{port}", mqtt_password=password)
    door = Door(settings, SECRET, remote, favour, HASTE)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(door.serving(None)):
        yield
    left = [thread for thread in threading.enumerate() if thread.name == "mqtt" and thread not in before]
    wait_until(lambda: not any(thread.is_alive() for thread in left), "the end of its thread")


def state(listener: Listener) -> dict[str, Any]:
    """What was last said of the frames."""
    said = listener.said(TOPICS.state)
    return json.loads(said[-1]) if said else {}


def until(listener: Listener, **wanted: Any) -> None:
    wait_until(lambda: wanted.items() <= state(listener).items(), f"{wanted}: {listener.heard}")


# ---- what Home Assistant is told


def test_the_document_is_one_that_home_assistant_reads() -> None:
    about = document(TOPICS)
    assert {"device", "origin", "components"} <= set(about) <= SHARED
    assert about["device"]["identifiers"] and set(about["device"]) <= DEVICE and about["origin"]["name"]
    assert re.fullmatch(r"homeassistant/device/[a-zA-Z0-9_-]+/config", TOPICS.discovery)
    components = about["components"]
    for entity in components.values():
        platform = entity["platform"]
        assert (
            ENTITY | REQUIRED[platform] <= set(entity) <= ENTITY | REQUIRED[platform] | OPTIONAL[platform] | ATTRIBUTES
        )
        assert re.fullmatch(rf"{platform}\.[a-z0-9_]+", entity["default_entity_id"])
        assert re.fullmatch(r"[一-鿿]+ · [A-Z][a-z ]+", entity["name"]) and entity["icon"].startswith("mdi:")
    assert [entity["platform"] for entity in components.values()] == ["switch", "button", "button", "sensor"]
    assert len({entity["unique_id"] for entity in components.values()}) == 4
    assert components["state"]["options"] == list(STATES) and components["state"]["device_class"] == "enum"


def test_its_templates_read_what_is_said_of_the_state() -> None:
    components, said = document(TOPICS)["components"], {"paused": "ON", "state": "paused", "frames": 2}

    def read(key: str, template: str) -> str:
        return jinja2.Template(components[key][template]).render(value_json=said)

    assert (read("paused", "value_template"), read("state", "value_template")) == ("ON", "paused")
    assert json.loads(read("state", "json_attributes_template")) == {"frames": 2}


def test_a_home_has_the_same_names_after_each_start_and_another_has_others() -> None:
    mine, again, other = (json.dumps(document(Topics.of(secret))) for secret in (SECRET, SECRET, b"another"))
    assert mine == again != other and SECRET.hex()[:12] not in mine
    assert len(TOPICS.device) == 23


def test_it_introduces_itself_and_takes_leave(broker: Broker, home_assistant: Listener) -> None:
    with at_work(broker.port, Remote()):
        home_assistant.until(TOPICS.discovery, json.dumps(document(TOPICS), ensure_ascii=False))
        home_assistant.until(TOPICS.availability, "online")
        until(home_assistant, paused="OFF", state="off", frames=0)
        with listening(broker) as late:  # whoever comes later hears it at once
            wait_until(lambda: len(late.heard) == 3, "what is retained")
            assert {(each.topic, each.retain) for each in late.heard} == {
                (TOPICS.discovery, True), (TOPICS.availability, True), (TOPICS.state, True)
            }  # fmt: skip
    home_assistant.until(TOPICS.availability, "offline")
    with listening(broker) as late:
        late.until(TOPICS.availability, "offline")


def test_home_assistant_hears_everything_again_when_it_has_begun(broker: Broker, home_assistant: Listener) -> None:
    with at_work(broker.port, Remote()):
        until(home_assistant, paused="OFF")
        for birth in ("offline", "online"):
            home_assistant.say(BIRTH, birth)
        wait_until(lambda: len(home_assistant.said(TOPICS.state)) == 2, "the state, again")
    topics = (TOPICS.discovery, TOPICS.availability, TOPICS.state)
    home_assistant.until(TOPICS.availability, "offline")
    assert [len(home_assistant.said(topic)) for topic in topics] == [2, 3, 2]


# ---- what it may ask


def test_the_switch_pauses_the_frames_and_next_goes_on(broker: Broker, home_assistant: Listener) -> None:
    remote = Remote()
    remote.says("hall", ())
    with at_work(broker.port, remote):
        until(home_assistant, paused="OFF", state="running", frames=1)
        home_assistant.say(TOPICS.command("paused"), "ON")
        until(home_assistant, paused="ON", state="paused")
        assert remote.state.paused_at is not None
        home_assistant.say(TOPICS.command("paused"), "OFF")
        until(home_assistant, paused="OFF", state="running")
        remote.pause(True)
        until(home_assistant, paused="ON")
        home_assistant.say(TOPICS.command("next"), "PRESS")
        until(home_assistant, paused="OFF")
        assert remote.state.next == 1


def test_the_state_is_said_when_it_changes(broker: Broker, home_assistant: Listener) -> None:
    now = [1e9]
    remote = Remote(lambda: now[0])
    with at_work(broker.port, remote):
        until(home_assistant, frames=0)
        remote.says("hall", ("a",))
        until(home_assistant, frames=1, state="running")
        for paused in ("ON", "ON", "ON"):
            home_assistant.say(TOPICS.command("paused"), paused)
        until(home_assistant, frames=1, state="paused")
        for _ in range(3):
            remote.says("hall", ("b",))
        now[0] += SHOWN_S + 1
        until(home_assistant, frames=0, state="off", paused="ON")
    states = [json.loads(said)["state"] for said in home_assistant.said(TOPICS.state)]
    assert states == ["off", "running", "paused", "off"]


def test_nothing_but_orders_is_obeyed(
    broker: Broker, home_assistant: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    remote, favours = Remote(), list[str]()
    for key, order in (("paused", "ON"), ("next", "PRESS"), ("favourite", "PRESS")):
        home_assistant.say(TOPICS.command(key), order, retain=True)  # another day
    with at_work(broker.port, remote, lambda: favours.append("")):
        until(home_assistant, paused="OFF")
        for key in ("paused", "next", "favourite", "state", "", "paused/set"):
            for order in (
                "",
                "on",
                "ON ",
                "TOGGLE",
                "press",
                "\0",
                "ON" * 4000,
                b"\xff\xfe",
                "x" * 300_000,
                '{"a": 1}',
            ):
                home_assistant.say(TOPICS.command(key), order)
        home_assistant.say(f"{BIRTH}/x", "online")
        home_assistant.say(TOPICS.command("favourite"), "PRESS")
        wait_until(lambda: favours, "the one that was one")
        assert (remote.state.next, remote.state.paused_at, len(favours)) == (0, None, 1)
    assert len(home_assistant.said(TOPICS.discovery)) == 1
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_a_favourite_of_nothing_harms_nobody(broker: Broker, home_assistant: Listener) -> None:
    remote = Remote()
    with at_work(broker.port, remote):
        until(home_assistant, paused="OFF")
        home_assistant.say(TOPICS.command("favourite"), "PRESS")
        home_assistant.say(TOPICS.command("paused"), "ON")
        until(home_assistant, paused="ON")


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(tmp_path / "jobs.db", tmp_path / "outputs")
    opened.folder.mkdir()
    yield opened
    opened.close()


@pytest.fixture
def client(broker: Broker, queue: SqliteQueue, tmp_path: Path) -> Iterator[TestClient]:
    """The frame's addresses, before the owner."""
    app, routes = FastAPI(), APIRouter()

    @app.middleware("http")
    async def admit(request: Request, call_next: Any) -> Any:
        request.state.person = Person("o", "owner")
        return await call_next(request)

    api.install_errors(app)
    settings = Settings(home=tmp_path, mqtt=f"mqtt://{USER}@127.0.0.1:{broker.port}", mqtt_password=PASSWORD)
    frame.add(routes, HouseJobs(queue, Keys(SECRET)), settings, {}, str)
    app.include_router(routes)
    with TestClient(app) as opened:
        yield opened


def test_what_comes_over_http_appears_and_the_other_way_round(
    home_assistant: Listener, client: TestClient, queue: SqliteQueue
) -> None:
    queue.submit(Generate("p"), "anna")
    job = claimed(queue)
    Image.new("RGB", (80, 120)).save(queue.folder / "a.png")
    assert queue.publish(job, replace(FINAL, images=("a.png",)))
    queue.share(job.id, True)
    picture = client.get("/frame/list").json()["pictures"][0]
    client.get("/frame/state", params={"name": "hall", "shown": picture})
    until(home_assistant, frames=1, state="running")
    client.post("/frame/pause", params={"paused": True})
    until(home_assistant, paused="ON", state="paused")
    home_assistant.say(TOPICS.command("next"), "PRESS")
    until(home_assistant, paused="OFF")
    assert client.get("/frame/state").json()["presses"] == 1
    home_assistant.say(TOPICS.command("favourite"), "PRESS")
    wait_until(lambda: queue.finished(1)[0].favourite, "the favourite")


# ---- brokers that come and go


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "webui.frame.mqtt"]


def test_a_broker_may_come_later_and_be_started_again(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    broker.stop()
    remote = Remote()
    with at_work(broker.port, remote):
        wait_until(lambda: lines(caplog), "that it is away")
        remote.pause(True)
        for _ in range(2):
            broker.start()
            with listening(broker) as home_assistant:
                until(home_assistant, paused="ON")
                home_assistant.until(TOPICS.availability, "online")
                home_assistant.until(TOPICS.discovery, json.dumps(document(TOPICS), ensure_ascii=False))
                home_assistant.say(TOPICS.command("paused"), "OFF")
                until(home_assistant, paused="OFF")
                remote.pause(True)
                until(home_assistant, paused="ON")
            said = len(lines(caplog))
            broker.stop()
            wait_until(lambda: len(lines(caplog)) > said, "that it is lost")  # noqa: B023 (within the round)
        broker.start()
        wait_until(lambda: lines(caplog)[-1].startswith("connected"), "that it is back")
    all_said = lines(caplog)
    assert sum(line.startswith("connected") for line in all_said) == 3 and len(all_said) <= 1 + 3 * 3
    assert all(line != before for before, line in itertools.pairwise(all_said))


def test_a_wrong_password_is_said_without_it(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with at_work(broker.port, Remote(), password="abracadabra"):
        wait_until(lambda: lines(caplog), "that it refuses")
    (line,) = lines(caplog)
    assert f"127.0.0.1:{broker.port}" in line and re.search(
        "it refuses, (Bad user name or password|Not authorized)", line
    )
    assert "abracadabra" not in caplog.text and f"{USER}@" not in caplog.text


@contextmanager
def answering(answer: Callable[[socket.socket], object]) -> Iterator[tuple[int, list[socket.socket]]]:
    """Give the port of somebody who answers each connection in that way, and those there have been."""
    came: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                came.append(listener.accept()[0])
                with suppress(OSError):
                    answer(came[-1])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1], came
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in came:
                each.close()


CONNACK = b"\x20\x03\0\0\0"
RAVINGS = {
    "nothing": b"",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an old broker": b"\x20\x02\0\x01",
    "zeros": b"\0" * 100,
    "a length without an end": b"\x30" + b"\xff" * 20,
    "no topic": CONNACK + b"\x30\x00",
    "half a topic": CONNACK + b"\x30\x03\0\xffa",
    "a topic that is no text": CONNACK + b"\x30\x06\0\x02\xff\xfe\0x",
    "properties that are none": CONNACK + b"\x30\x08\0\x01a\x04\xff\xff\xff\xff",
    "an answer to nobody": CONNACK + b"\x90\x04\x77\x77\0\x80" + b"\x40\x02\x12\x34",
    "no reason": b"\x20\x03\0\xee\0",
    "an order of another day": CONNACK + brokers.published(TOPICS.command("next"), b"PRESS", True),
}


@pytest.mark.parametrize("raving", RAVINGS.values(), ids=RAVINGS)
def test_whoever_raves_is_tried_again_and_named_in_the_log_once(
    raving: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def rave(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(raving)
        client.shutdown(socket.SHUT_WR)

    remote = Remote()
    with answering(rave) as (port, came), at_work(port, remote):
        wait_until(lambda: len(came) > 3, "another attempt")
        assert (remote.state.next, remote.state.paused_at) == (0, None)
    said = lines(caplog)
    assert any(line.startswith("no MQTT broker") for line in said)
    assert all(line != before for before, line in itertools.pairwise(said))
    assert raving.startswith(CONNACK) or len(said) == 1


def test_a_broker_that_lets_us_say_but_not_hear_is_named(caplog: pytest.LogCaptureFixture) -> None:
    not_authorized = b"\x90\x04\0\x01\0\x87"
    with answering(lambda client: client.sendall(CONNACK + not_authorized)) as (port, _), at_work(port, Remote()):
        wait_until(lambda: any("access list" in line for line in lines(caplog)), "why nothing is heard")


def test_whoever_says_nothing_does_not_hold_up_the_stop() -> None:
    with answering(lambda client: None) as (port, came), at_work(port, Remote()):
        wait_until(lambda: came, "the connection")


def test_two_of_the_same_home_do_not_fight_without_rest(caplog: pytest.LogCaptureFixture) -> None:
    """As after a backup was restored on another machine."""
    caplog.set_level(logging.INFO)
    with running(StandIn()) as broker, at_work(broker.port, Remote()), at_work(broker.port, Remote()):
        wait_until(lambda: any("Session taken over" in line for line in lines(caplog)), "why it went")


# paho-mqtt 2.2 leaves the socket whose handshake failed to be collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("trusted", [True, False])
def test_over_tls_it_speaks_to_whom_it_trusts(
    trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tls = certificates.prepare(tmp_path, ["localhost"], [], datetime.now(UTC).replace(microsecond=0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.server, tls.key)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.authority))
    address = f"mqtts://{USER}@localhost"
    with running(StandIn(context)) as broker, at_work(broker.port, Remote(), address=address):
        wait_until(lambda: lines(caplog), "how it went")
        if trusted:
            wait_until(lambda: broker.retained.get(TOPICS.availability) == b"online", "that it is there")
        else:
            assert "certificate verify failed" in lines(caplog)[0] and not broker.retained
    assert lines(caplog)[0].startswith("connected to" if trusted else "no MQTT broker at localhost")


# ---- nobody pays for it who has it not


def test_it_is_imported_only_where_it_is_switched_on() -> None:
    script = "import sys; from webui import frame, __main__; print([n for n in sys.modules if n.startswith('paho')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


MISSING = [
    ({"mqtt": "mqtt://broker"}, "paho-mqtt"),
    ({"mcp": True}, "mcp"),
    ({"queue": "redis://redis"}, r"celery\[redis\]"),
]


@pytest.mark.parametrize(("setting", "package"), MISSING)
def test_a_package_that_is_missing_is_named(
    setting: dict[str, Any], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    packages.check(Settings())
    with pytest.raises(SettingsError, match=rf"STUDIO_{'|'.join(setting).upper()}: .*pip install .*'{package}>="):
        packages.check(Settings(**setting))
