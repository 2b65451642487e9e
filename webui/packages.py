"""The packages that only some settings need: whoever switches one on is told what to install."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from engines.settings import Settings, SettingsError

MDNS = "zeroconf", "zeroconf>=0.150"  # the module, and what to install


def check(settings: Settings) -> None:
    """SettingsError: what was switched on needs a package that is not installed."""
    for name, is_on, module, package in (
        ("STUDIO_MCP", settings.mcp, "mcp", "mcp>=2.3"),
        ("STUDIO_MQTT", settings.mqtt, "paho", "paho-mqtt>=2.2"),
        ("STUDIO_QUEUE", settings.queue, "celery", "celery[redis]>=5.7,<6"),
        ("STUDIO_MDNS", settings.mdns, *MDNS),
    ):
        if is_on and find_spec(module) is None:
            raise SettingsError(f"{name}: {to_install(package)}")


def to_install(package: str) -> str:
    """Return what to say where one is missing."""
    install = f"{sys.executable} -m pip install -c constraints.txt '{package}'"
    return f"缺少所需的包,请运行 A package is missing. Run: {install}"
