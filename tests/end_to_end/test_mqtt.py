"""`python -m webui` with STUDIO_MQTT, as it is started: before its broker is there, while it is, and at the stop."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.support.brokers import PASSWORD, USER, StandIn, listening, running, wait_until
from tests.support.server import Process
from webui.frame.discovery import Topics
from webui.people import secret


def test_a_server_is_in_home_assistant_from_when_there_is_a_broker_until_it_stops(tmp_path: Path) -> None:
    broker = StandIn()
    settings = {"STUDIO_MQTT": f"mqtt://{USER}@127.0.0.1:{broker.port}", "STUDIO_MQTT_PASSWORD": PASSWORD}
    server = Process(tmp_path, STUDIO_HOST="127.0.0.1", **settings)
    try:
        server.until_ready()
        topics = Topics.of(secret.load(tmp_path / "state" / "secret"))
        with running(broker), listening(broker) as home_assistant:
            home_assistant.until(topics.availability, "online")
            httpx.post(f"{server.url}/frame/pause", params={"paused": True}).raise_for_status()
            wait_until(lambda: json.loads(home_assistant.said(topics.state)[-1])["paused"] == "ON", "the pause")
            assert server.stop() == 0
            home_assistant.until(topics.availability, "offline")
    finally:
        if server.popen.poll() is None:
            server.popen.kill()
    logs = "".join(path.read_text(encoding="utf-8") for path in (server.log, *(tmp_path / "state" / "log").iterdir()))
    assert "connected to the MQTT broker" in logs and PASSWORD not in logs and f"{USER}@" not in logs
