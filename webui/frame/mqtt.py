"""
The frames in Home Assistant, over an MQTT broker: says how they are, and does what it is asked. Imported where
STUDIO_MQTT is set: the package is optional. MQTT 5, in which a broker does not pass on what is longer than a client
says that it reads.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import SplitResult, unquote, urlsplit

from anyio import to_thread
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from engines.errors import StudioError
from engines.settings import Settings
from webui.frame.discovery import BIRTH, Topics, document
from webui.frame.remote import Remote

log = logging.getLogger(__name__)
PORTS = {"mqtt": 1883, "mqtts": 8883}
MOST_BYTES = 1024  # of a packet to us
KEEPALIVE_S = 30
LEAVE_S = 1.0  # for the thread at the stop; if it takes longer, the broker notices that we are gone
DELIVERY = SubscribeOptions(qos=0, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)


@dataclass(frozen=True)
class Pace:
    """
    In seconds: how often it looks what frames are told over HTTP; how long it waits before it connects again, twice as
    long each time up to the most, and from the first on after a connection that was steady for so long.
    """

    look_s: float = 0.5
    first_s: float = 1.0
    most_s: float = 60.0
    steady_s: float = 60.0


PACE = Pace()


class Door:
    """The connection, in a thread of its own, for as long as `serving` goes on around it."""

    def __init__(
        self,
        settings: Settings,
        secret: bytes,
        remote: Remote,
        favour: Callable[[], object],
        pace: Pace = PACE,
    ) -> None:
        """`favour`: makes favourites of what frames show; NotFoundError: they show nothing."""
        self._remote, self._favour, self._pace = remote, favour, pace
        self._stopping = threading.Event()
        self._said = ""  # in the log
        self._ended = ""  # why the present connection does
        self._published = ""  # the state
        self.topics = Topics.of(secret)
        self._broker = urlsplit(settings.mqtt)
        self._client = self._new_client(settings.mqtt_password)
        self._orders: dict[tuple[str, bytes], Callable[[], object]] = {
            (self.topics.command("paused"), b"ON"): partial(remote.pause, True),
            (self.topics.command("paused"), b"OFF"): partial(remote.pause, False),
            (self.topics.command("next"), b"PRESS"): remote.next,
            (self.topics.command("favourite"), b"PRESS"): self._favourite,
            (BIRTH, b"online"): self._introduce,
        }

    def _new_client(self, password: str) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, self.topics.device, protocol=MQTTProtocolVersion.MQTTv5)
        user = self._broker.username
        client.username_pw_set(unquote(user) if user else None, password or None)
        if self._broker.scheme == "mqtts":
            client.tls_set_context(ssl.create_default_context())
        client.will_set(self.topics.availability, "offline", retain=True)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_message = self._on_subscribe, self._on_message
        return client

    @asynccontextmanager
    async def serving(self, _: object) -> AsyncIterator[None]:
        thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            await to_thread.run_sync(thread.join, LEAVE_S)

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stopping.wait(wait_s):
            began_s = time.monotonic()
            why = self._connection()
            if not self._stopping.is_set():
                self._say(logging.WARNING, f"no MQTT broker at {_address(self._broker)}, which is tried again: {why}")
            steady = time.monotonic() - began_s > self._pace.steady_s
            wait_s = self._pace.first_s if steady else min(max(2 * wait_s, self._pace.first_s), self._pace.most_s)

    def _connection(self) -> str:
        """Connect, and stay connected for as long as that goes. Return why it went no longer."""
        client, self._ended = self._client, "the connection is lost"
        longest = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        longest.MaximumPacketSize = MOST_BYTES
        host, port = self._broker.hostname or "", self._broker.port or PORTS[self._broker.scheme]
        try:
            client.connect(host, port, KEEPALIVE_S, clean_start=True, properties=longest)
        except OSError as exc:  # ssl.SSLError among them
            return exc.strerror or str(exc)
        # Not loop_start(): that thread can neither be woken at the stop nor say why it has no connection.
        while client.loop(self._pace.look_s) == MQTTErrorCode.MQTT_ERR_SUCCESS:
            if self._stopping.is_set():
                client.disconnect(ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"))
                break
            if client.is_connected():
                self._publish_state()
        return self._ended

    def _on_connect(
        self, client: paho.Client, _: object, flags: paho.ConnectFlags, reason: ReasonCode, properties: object
    ) -> None:
        if reason.is_failure:
            self._ended = f"it refuses, {reason}"
            return
        self._say(logging.INFO, f"connected to the MQTT broker at {_address(self._broker)}")
        client.subscribe([(topic, DELIVERY) for topic in sorted({topic for topic, _ in self._orders})])
        self._introduce()

    def _on_disconnect(
        self, client: paho.Client, _: object, flags: paho.DisconnectFlags, reason: ReasonCode, properties: object
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._ended = f"it hangs up, {reason}"

    def _on_subscribe(
        self, client: paho.Client, _: object, number: int, reasons: list[ReasonCode], properties: object
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._say(logging.WARNING, "the MQTT broker does not let us hear what frames shall do: see its access list")

    def _on_message(self, client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        """Do what is an order to the letter, and nothing else; what is retained was meant for another day."""
        try:
            order = self._orders.get((message.topic, bytes(message.payload)))
        except UnicodeDecodeError:  # in the topic
            return
        if order is not None and not message.retain:
            order()

    def _favourite(self) -> None:
        try:
            self._favour()
        except StudioError as exc:
            log.warning("no favourite over MQTT: %s", exc)

    def _introduce(self) -> None:
        """Say everything, as to somebody who knows nothing yet."""
        about = json.dumps(document(self.topics), ensure_ascii=False)
        self._client.publish(self.topics.discovery, about, retain=True)
        self._client.publish(self.topics.availability, "online", retain=True)
        self._published = ""
        self._publish_state()

    def _publish_state(self) -> None:
        """Say how the frames are, if that is news."""
        frames, paused = self._remote.frames(), self._remote.state.paused_at is not None
        state = "off" if not frames else "paused" if paused else "running"
        text = json.dumps({"paused": "ON" if paused else "OFF", "state": state, "frames": frames})
        if text != self._published:
            self._client.publish(self.topics.state, text, retain=True)
            self._published = text

    def _say(self, level: int, text: str) -> None:
        """Write it into the log, unless it is what was written last."""
        if text != self._said:
            log.log(level, "%s", text)
            self._said = text


def _address(broker: SplitResult) -> str:
    """Without the user."""
    return broker.netloc.rpartition("@")[2]
