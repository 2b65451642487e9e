"""What the values of settings may be, and how they are read from text. Imports no library, as its package says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SWITCH = {"1": True, "on": True, "true": True, "0": False, "off": False, "false": False}
HOST = r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*|\[[0-9A-Fa-f:.]+\]"
PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")  # RFC 3986: of characters that are nowhere written otherwise
# What bundles are made of, as engines.bundle has it, which imports libraries
ROLES = ("text_encoder", "denoiser", "decoder", "preview_decoder", "encoder", "face_detector", "restorer")
SHORTEST_TOKEN = 16
BROKER = re.compile(rf"mqtts?://([^\s:/?#@\[\]]+@)?({HOST})(:[0-9]{{1,5}})?/?")


class SettingsError(ValueError):
    """A variable has a value that cannot be used. The message names both."""


def variable(name: str) -> str:
    return f"STUDIO_{name.upper()}"


def read(name: str, text: str, kind: type[Any]) -> Any:
    if kind is bool:
        if text.strip().lower() not in SWITCH:
            raise SettingsError(f"{name}={text}: must be one of {', '.join(SWITCH)}")
        return SWITCH[text.strip().lower()]
    if kind is int:
        if not text.strip().isdecimal():
            raise SettingsError(f"{name}={text}: must be a whole number")
        return int(text)
    if kind is float:
        return number(name, text)
    if kind is str:
        return text
    return folder(name, text)


def folder(name: str, text: str) -> Path:
    if not text.strip():
        raise SettingsError(f"{name} is empty: it must name a folder")
    try:
        return Path(text).expanduser().resolve()
    except RuntimeError as exc:  # ~somebody who is not on this machine
        raise SettingsError(f"{name}={text}: {exc}") from exc


def check_address(name: str, text: str) -> None:
    """SettingsError: it is no address of a server, or says more than one does, as a password. None is shown then."""
    try:
        address = urlsplit(text)
        usable = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except ValueError:  # a port, or an IPv6 address, that is none
        usable = False
    if not usable or "@" in address.netloc or not re.fullmatch(r"[!-~]+", text):
        raise SettingsError(f"{name}: an address in it must be like https://host/path, without a password")


def addresses(name: str, text: str) -> dict[str, str]:
    """Read addresses by their names. SettingsError: one has no name, or that of another, or is none."""
    pairs = [entry.strip().partition("=")[::2] for entry in text.split(",") if entry.strip()]
    named = {key.strip(): address.strip() for key, address in pairs}
    if "" in (*named, *named.values()) or len(named) < len(pairs):
        raise SettingsError(f"{name}: must be NAME=ADDRESS,NAME=ADDRESS, each name once")
    for address in named.values():
        check_address(name, address)
    return named


def check_lenders(text: str, token: str) -> None:
    """SettingsError: these are no addresses of parts, or the token is too short to be one."""
    for name in addresses("STUDIO_PARTS", text):
        if name.rpartition("/")[2] not in ROLES:
            raise SettingsError(f"STUDIO_PARTS: {name} is no part; there are {', '.join(ROLES)}")
    if 0 < len(token) < SHORTEST_TOKEN or (text.strip() and not token):
        raise SettingsError(f"STUDIO_PARTS_TOKEN: must have {SHORTEST_TOKEN} letters at least")


def check_path(name: str, text: str) -> None:
    """SettingsError: it is neither empty nor a plain path, like /studio or /a/studio."""
    if text and not (PATH.fullmatch(text) and not {".", ".."} & set(text.split("/"))):
        raise SettingsError(f"{name}={text}: must be like /studio: letters, digits, . _ - and ~, without / at its end")


def check_broker(text: str) -> None:
    """SettingsError: it is no address of an MQTT broker. It is not repeated then: there may be a password in it."""
    try:
        is_broker = BROKER.fullmatch(text) and urlsplit(text).port != 0
    except ValueError:  # of a port above 65535
        is_broker = False
    if not is_broker:
        raise SettingsError("STUDIO_MQTT: must be like mqtt://user@host:1883; its password is STUDIO_MQTT_PASSWORD")


def number(name: str, text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text.strip()):
        raise SettingsError(f"{name}={text}: must be a number")
    return float(text)
