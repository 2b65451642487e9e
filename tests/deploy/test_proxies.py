"""
The files for reverse proxies agree with the studio and with each other. nginx and Caddy run with theirs in
tests/end_to_end/test_proxies.py; Traefik and Tailscale cannot be run here, so only the form of theirs is looked at.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from engines.settings import Settings
from tests.conftest import REPOSITORY
from tests.support.stub_commands import Commands
from webui.server import UPLOAD_OVERHEAD_BYTES

FOLDER = REPOSITORY / "deploy" / "proxies"
FILES = sorted(FOLDER.iterdir())
LIMIT = Settings().upload_mb * 1_000_000 + UPLOAD_OVERHEAD_BYTES
HANGS_UP_S = 5  # webui/__main__.py: timeout_keep_alive
UNITS = {"m": 2**20, "MB": 10**6}


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Each file without its comments."""
    return {path.name: re.sub(r"(^|\s)#.*", "", path.read_text(encoding="utf-8")) for path in FILES}


def test_all_of_them_lead_to_the_studio_s_own_port(texts: dict[str, str]) -> None:
    assert set(texts) == {"nginx.conf", "Caddyfile", "traefik.yaml", "tailscale.sh"}
    for name, text in texts.items():
        assert re.findall(r"127\.0\.0\.1:(\d+)", text) == [str(Settings().port)], name


def test_what_the_studio_takes_they_take(texts: dict[str, str]) -> None:
    """A limit a little above the studio's: what is far above it, they need not pass on."""
    for name, pattern in (("nginx.conf", r"client_max_body_size (\d+)(m);"), ("Caddyfile", r"max_size (\d+)(MB)")):
        ((number, unit),) = re.findall(pattern, texts[name])
        assert LIMIT < int(number) * UNITS[unit] < 1.1 * LIMIT, name
    assert not re.search("buffering:|compress:|maxRequestBodyBytes", texts["traefik.yaml"]), (
        "it would hold streams back"
    )


def test_they_leave_an_idle_connection_before_the_studio_does(texts: dict[str, str]) -> None:
    patterns = {
        "nginx.conf": r"keepalive_timeout (\d)s",
        "Caddyfile": r"keepalive (\d)s",
        "traefik.yaml": r"idleConnTimeout: (\d)s",
    }
    main = (REPOSITORY / "webui" / "__main__.py").read_text(encoding="utf-8")
    assert f"timeout_keep_alive={HANGS_UP_S}," in main
    for name, pattern in patterns.items():
        (seconds,) = re.findall(pattern, texts[name])
        assert 0 < int(seconds) < HANGS_UP_S, name


def test_every_setting_that_they_name_is_there() -> None:
    for path in (*FILES, REPOSITORY / "docs" / "proxies.md"):
        for name, value in re.findall(r"STUDIO_([A-Z_]+)(?:=([\w./]*\w))?", path.read_text(encoding="utf-8")):
            assert hasattr(Settings, name.lower()) or name == "URL", name  # which is the kiosk's
            assert not value or name == "URL" or Settings.load({f"STUDIO_{name}": value, "STUDIO_PROXY": "127.0.0.1"})


def test_a_visitor_s_word_reaches_the_studio_nowhere(texts: dict[str, str]) -> None:
    """nginx passes on whatever it is sent, unless it is told otherwise; the others take it away by themselves."""
    written = dict(re.findall(r"proxy_set_header (\S+) +(\S+);", texts["nginx.conf"]))
    assert {name for name in written if name not in ("Connection", "Host")} == {
        "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto", "X-Real-IP", "Forwarded",
    }  # fmt: skip
    assert not [name for name, value in written.items() if "proxy_add" in value or "$http_x" in value]


def test_traefik_s_file_is_one_and_hangs_together() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    text = (FOLDER / "traefik.yaml").read_text(encoding="utf-8")
    http: dict[str, Any] = yaml.safe_load(text)["http"]
    (router,), (service,) = http["routers"].values(), http["services"].items()
    assert router["service"] == service[0] and re.fullmatch(r"Host\(`[\w.]+`\)", router["rule"])
    balancer = service[1]["loadBalancer"]
    assert balancer["serversTransport"] in http["serversTransports"] and balancer["passHostHeader"]
    labels = yaml.safe_load("\n".join(re.findall(r"#   (traefik\..*)", text)))
    assert labels["traefik.http.routers.awportrait.rule"] == router["rule"]
    assert labels["traefik.http.routers.awportrait.entrypoints"] == router["entryPoints"][0]
    assert labels["traefik.http.services.awportrait.loadbalancer.server.port"] == str(Settings().port)


@pytest.mark.parametrize(
    ("arguments", "at", "to"),
    [([], "/", "http://127.0.0.1:7860"), (["/studio"], "/studio", "http://127.0.0.1:7860/studio")],
)
def test_tailscale_is_asked_to_serve(tmp_path: Path, arguments: list[str], at: str, to: str) -> None:
    """It cuts off what it serves at, and puts it to the path of the address that it asks."""
    commands = Commands.below(tmp_path)
    commands.stub("tailscale")
    assert commands.run(FOLDER / "tailscale.sh", *arguments).returncode == 0
    assert commands.calls == [f"tailscale serve --bg --https=443 --set-path={at} {to}"]
