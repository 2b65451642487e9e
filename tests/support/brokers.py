"""
MQTT brokers on a port of this machine: a stand-in, for tests that run anywhere, and Mosquitto where it is installed.
Both let in USER with PASSWORD, and have forgotten everything after a restart. And one who listens to all of it.
"""

from __future__ import annotations

import getpass
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

USER, PASSWORD = "studio", "open-sesame"
LIMIT_S = 60.0
PROGRAM = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14
BAD_PASSWORD, TAKEN_OVER, WITH_WILL = 0x86, 0x8E, 0x04  # reason codes of MQTT 5


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_until(true: Callable[[], object], what: str) -> None:
    """`what` is awaited, for an error's message."""
    deadline = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.005)


class Broker(Protocol):
    port: int

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Mosquitto:
    def __init__(self, folder: Path) -> None:
        self.port, self._folder = free_port(), folder
        passwords = folder / "passwords"
        subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, USER, PASSWORD], check=True)
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n"
            f"persistence false\nuser {getpass.getuser()}\n"
        )

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            command = [PROGRAM or "mosquitto", "-c", str(self._folder / "mosquitto.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._answers, "mosquitto")

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(LIMIT_S)


class _Packet:
    """What a client has sent, read from front to back."""

    def __init__(self, kind: int, flags: int, body: bytes) -> None:
        self.kind, self.flags, self.rest = kind, flags, body

    def take(self, count: int) -> bytes:
        taken, self.rest = self.rest[:count], self.rest[count:]
        assert len(taken) == count, "too short"
        return taken

    def number(self, letter: str) -> int:
        value: int = struct.unpack(f">{letter}", self.take(struct.calcsize(f">{letter}")))[0]
        return value

    def field(self) -> bytes:
        return self.take(self.number("H"))

    def properties(self) -> bytes:
        count = self.number("B")
        assert count < 128, "as long as that they are not here"
        return self.take(count)


def packet(kind: int, body: bytes, flags: int = 0) -> bytes:
    length, left = b"", len(body)
    while True:
        left, digit = left >> 7, left & 127
        length += bytes([digit | 128 if left else digit])
        if not left:
            return bytes([kind << 4 | flags]) + length + body


def published(topic: str, payload: bytes, retain: bool) -> bytes:
    name = topic.encode()
    return packet(PUBLISH, struct.pack(">H", len(name)) + name + b"\0" + payload, flags=int(retain))


@dataclass(eq=False)
class _Session:
    """One client, in a thread of its own."""

    broker: StandIn
    socket: socket.socket
    filters: set[str] = field(default_factory=set)
    will: tuple[str, bytes, bool] | None = None
    most_bytes: int = 1 << 28
    name: bytes = b""

    def serve(self) -> None:
        with suppress(OSError, EOFError):
            if self.broker.tls is not None:
                self.socket = self.broker.tls.wrap_socket(self.socket, server_side=True)
            while self._answer(self._read()):
                pass
        self.broker.leave(self)
        if self.will is not None:
            self.broker.publish(*self.will)
        self.socket.close()

    def _read(self) -> _Packet:
        first, length, shift = self._exactly(1)[0], 0, 0
        while True:
            digit = self._exactly(1)[0]
            length, shift = length | (digit & 127) << shift, shift + 7
            if digit < 128:
                return _Packet(first >> 4, first & 15, self._exactly(length))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            if not (more := self.socket.recv(count - len(data))):
                raise EOFError
            data += more
        return data

    def send(self, data: bytes) -> None:
        if len(data) <= self.most_bytes:
            with suppress(OSError):
                self.socket.sendall(data)

    def _answer(self, asked: _Packet) -> bool:
        """Do what was asked; False: that was the last."""
        match asked.kind:
            case 1:
                return self._connect(asked)
            case 3:
                self._publish(asked)
            case 8:
                self._subscribe(asked)
            case 12:
                self.send(packet(PINGRESP, b""))
            case 14:
                if not asked.rest or asked.rest[0] != WITH_WILL:
                    self.will = None
                return False
            case _:
                raise AssertionError(f"a packet of kind {asked.kind}")
        return True

    def _connect(self, asked: _Packet) -> bool:
        assert asked.field() == b"MQTT" and asked.number("B") == 5
        flags = asked.number("B")
        asked.number("H")  # for how long it may be silent
        properties = asked.properties()
        if properties:
            assert len(properties) == 5 and properties[0] == 0x27
            self.most_bytes = struct.unpack(">I", properties[1:])[0]
        self.name = asked.field()
        will: tuple[str, bytes, bool] | None = None
        if flags & 0x04:
            asked.properties()
            will = asked.field().decode(), asked.field(), bool(flags & 0x20)
        user = asked.field() if flags & 0x80 else b""
        password = asked.field() if flags & 0x40 else b""
        if (user, password) != (USER.encode(), PASSWORD.encode()):
            self.send(packet(CONNACK, bytes([0, BAD_PASSWORD, 0])))
            return False
        self.will = will
        self.broker.enter(self)
        self.send(packet(CONNACK, b"\0\0\0"))
        return True

    def _publish(self, asked: _Packet) -> None:
        topic = asked.field().decode()
        number = asked.take(2) if asked.flags & 6 else b""
        asked.properties()
        self.broker.publish(topic, asked.rest, bool(asked.flags & 1))
        if number:
            self.send(packet(PUBACK, number))

    def _subscribe(self, asked: _Packet) -> None:
        number, _ = asked.take(2), asked.properties()
        wanted, granted = [], b""
        while asked.rest:
            name, options = asked.field().decode(), asked.number("B")
            self.filters.add(name)
            wanted += [name] if options & 0x30 == 0 else []
            granted += b"\0"
        self.send(packet(SUBACK, number + b"\0" + granted))
        for topic, payload in list(self.broker.retained.items()):
            if any(matches(each, topic) for each in wanted):
                self.send(published(topic, payload, True))


def matches(wanted: str, topic: str) -> bool:
    return wanted in ("#", topic)


class StandIn:
    """As much of a broker of MQTT 5 as the tests need: no topics with wildcards but #, nothing above QoS 1."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port, self.tls = free_port(), tls
        self.retained: dict[str, bytes] = {}
        self._sessions: list[_Session] = []
        self._lock = threading.RLock()

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                session = _Session(self, self._listener.accept()[0])
                with self._lock:
                    self._sessions.append(session)
                self._threads.append(threading.Thread(target=session.serve, daemon=True))
                self._threads[-1].start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for session in self._sessions:
                with suppress(OSError):
                    session.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LIMIT_S)
        self.retained.clear()

    def enter(self, session: _Session) -> None:
        """Who has its name, leaves."""
        with self._lock:
            for other in self._sessions:
                if session.name and other.name == session.name and other is not session:
                    other.send(packet(DISCONNECT, bytes([TAKEN_OVER, 0])))
                    other.socket.shutdown(socket.SHUT_RDWR)

    def leave(self, session: _Session) -> None:
        with self._lock:
            self._sessions.remove(session)

    def publish(self, topic: str, payload: bytes, retain: bool) -> None:
        with self._lock:
            if retain and payload:
                self.retained[topic] = payload
            elif retain:
                self.retained.pop(topic, None)
            for session in self._sessions:
                if any(matches(each, topic) for each in session.filters):
                    session.send(published(topic, payload, False))


@dataclass(frozen=True)
class Heard:
    topic: str
    payload: str
    retain: bool  # it had been said before one began to listen


class Listener:
    """Hears everything that is published, in the place of Home Assistant, and says what it would."""

    def __init__(self, port: int) -> None:
        self.heard: list[Heard] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.username_pw_set(USER, PASSWORD)
        self._ready = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe("#")
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._hear
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(LIMIT_S)

    def _hear(self, client: Any, _: Any, message: paho.MQTTMessage) -> None:
        self.heard.append(Heard(message.topic, message.payload.decode("utf-8", "replace"), message.retain))

    def say(self, topic: str, payload: bytes | str, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(LIMIT_S)

    def said(self, topic: str) -> list[str]:
        """Everything that was published on a topic, as it came."""
        return [each.payload for each in list(self.heard) if each.topic == topic]

    def until(self, topic: str, payload: str) -> None:
        """Wait for what is the last on a topic."""
        wait_until(lambda: self.said(topic)[-1:] == [payload], f"{payload} on {topic}, where there was {self.heard}")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


Kind = TypeVar("Kind", bound=Broker)


@contextmanager
def running(broker: Kind) -> Iterator[Kind]:
    """Inside it runs; a test may stop it and start it again."""
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def listening(broker: Broker) -> Iterator[Listener]:
    listener = Listener(broker.port)
    try:
        yield listener
    finally:
        listener.close()
