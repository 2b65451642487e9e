"""Can the MQTT broker be reached through which frames are in Home Assistant? Whether it lets us in, the log says."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from urllib.parse import urlsplit

from webui.doctor import Line

ANSWER_S = 5.0
PORTS = {"mqtt": 1883, "mqtts": 8883}  # as webui/frame/mqtt.py has them


def reachable(address: str) -> Line:
    """`address`: STUDIO_MQTT, which has been checked and names somebody."""
    if find_spec("paho") is None:
        install = "pip install -c constraints.txt 'paho-mqtt>=2.2'"
        return Line("error", f"STUDIO_MQTT 需要 paho-mqtt:{install}", f"STUDIO_MQTT needs paho-mqtt: {install}")
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    try:
        socket.create_connection((host, port), timeout=ANSWER_S).close()
    except OSError as exc:
        why = exc.strerror or exc
        return Line(
            "warning",
            f"MQTT 服务器 {host}:{port} 连不上({why}):在它出现之前,相框不在 Home Assistant 里",
            f"the MQTT broker {host}:{port} cannot be reached ({why}): Home Assistant has no frame until it is there",
        )
    return Line("ok", f"MQTT 服务器 {host}:{port} 可达", f"the MQTT broker {host}:{port} can be reached")
