"""
What Home Assistant is told of the frames, so that it shows them by itself, and the topics on which it hears and speaks
of them: MQTT device discovery, as home-assistant.io/integrations/mqtt has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from webui.people.secret import derive

BIRTH = "homeassistant/status"  # where Home Assistant says that it has begun, and wants to hear everything again
STATES = ("running", "paused", "off")  # of the frames together; off: none is on
NAME_LETTERS = 12  # with "awportrait-" before it 23, which every broker takes for a client's name


@dataclass(frozen=True)
class Topics:
    """`name`: of this home, in letters of which topics may consist."""

    name: str

    @classmethod
    def of(cls, secret: bytes) -> Topics:
        """The name is the same after each start, and another one in each home; the secret does not follow from it."""
        return cls(derive(secret, "mqtt", "name")[:NAME_LETTERS])

    @property
    def device(self) -> str:
        """What the device is called among others, and this client at the broker."""
        return f"awportrait-{self.name}"

    @property
    def discovery(self) -> str:
        return f"homeassistant/device/{self.device}/config"

    @property
    def availability(self) -> str:
        return f"awportrait/{self.name}/availability"

    @property
    def state(self) -> str:
        return f"awportrait/{self.name}/state"

    def command(self, key: str) -> str:
        return f"awportrait/{self.name}/{key}/set"


def document(topics: Topics) -> dict[str, Any]:
    """Return what is published for Home Assistant: one device with a switch, two buttons and a sensor."""
    paused = {"state_topic": topics.state, "value_template": "{{ value_json.paused }}"}
    state = {
        "state_topic": topics.state,
        "value_template": "{{ value_json.state }}",
        "device_class": "enum",
        "options": list(STATES),
        "json_attributes_topic": topics.state,
        "json_attributes_template": "{{ {'frames': value_json.frames} | tojson }}",
    }
    entities: dict[str, tuple[str, str, str, dict[str, Any]]] = {
        "paused": ("switch", "暂停 · Paused", "mdi:pause", {"command_topic": topics.command("paused"), **paused}),
        "next": ("button", "下一张 · Next picture", "mdi:skip-next", {"command_topic": topics.command("next")}),
        "favourite": ("button", "收藏 · Favourite", "mdi:heart", {"command_topic": topics.command("favourite")}),
        "state": ("sensor", "状态 · State", "mdi:image-frame", state),
    }
    return {
        "device": {
            "identifiers": [topics.device],
            "name": "相框 · AWPortrait frame",
            "manufacturer": "AWPortrait Edge",
        },
        "origin": {"name": "AWPortrait Edge"},
        "availability_topic": topics.availability,
        "components": {
            key: {
                "platform": platform,
                "name": name,
                "icon": icon,
                "unique_id": f"{topics.device}-{key}",
                "default_entity_id": f"{platform}.awportrait_frame_{key}",  # else one is made of the Chinese name
                **options,
            }
            for key, (platform, name, icon, options) in entities.items()
        },
    }
