"""
Debian's nginx and Caddy before a studio, with the files of deploy/proxies as they are, but for addresses, ports,
folders and what a test varies.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest

from tests.conftest import REPOSITORY
from webui.certificates import Certificates

FILES = REPOSITORY / "deploy" / "proxies"
PROGRAMS = {
    "nginx": shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin"),
    "caddy": shutil.which("caddy"),
}
Proxy = Literal["nginx", "caddy"]
# What the proxy says in Host, or speaks. Without a port it is as many people write it: nginx speaks HTTP/1.0 then.
Front = Literal["port", "no port", "https"]
START_S = 30
NGINX = """daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;{user}
events {{ worker_connections 256; }}
http {{
  access_log off; types {{ text/html html; }} default_type application/octet-stream;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  include {folder}/site.conf;
}}"""


@contextmanager
def before(
    studio: str,
    proxy: Proxy,
    front: Front,
    folder: Path,
    tls: Certificates,
    path: str = "",
    outputs: Path | None = None,
    cut: bool = False,
) -> Iterator[str]:
    """
    Yield the address of a proxy, with its port and without a path, before the studio that lies at `path` of its host.
    `outputs`: the studio's pictures, for nginx to deliver. `cut`: it cuts the path off.
    """
    program = PROGRAMS[proxy]
    if program is None:
        pytest.skip(f"{proxy} is not installed: apt-get install {proxy}")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    text = (FILES / ("nginx.conf" if proxy == "nginx" else "Caddyfile")).read_text(encoding="utf-8")
    write = _nginx if proxy == "nginx" else _caddy
    address = urlsplit(studio).netloc
    if cut and proxy == "nginx":
        text = changed(
            text,
            "location / {\n        proxy_pass http://awportrait;",
            f"location {path}/ {{\n        proxy_pass http://awportrait/;",
        )
        text = changed(text, "location ~ /assets/", "location ~ ^/nowhere/")
        path = ""
    elif cut:
        text, path = changed(text, "reverse_proxy *", f"uri strip_prefix {path}\n\treverse_proxy"), ""
    command = write(text.replace("127.0.0.1:7860", address), port, front, folder, tls, path)
    if outputs is not None:
        site = folder / "site.conf"
        site.write_text(changed(site.read_text(encoding="utf-8"), "/var/lib/awportrait-edge/outputs", str(outputs)))
    env = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, *command], env=env, stdout=log, stderr=log)
    try:
        _until_open(port, process, folder)
        yield f"{'https' if front == 'https' else 'http'}://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def changed(text: str, old: str, new: str) -> str:
    """Return the text with `old`, which must be there, replaced."""
    assert old in text, old
    return text.replace(old, new)


def _nginx(text: str, port: int, front: Front, folder: Path, tls: Certificates, path: str) -> list[str]:
    listen = f"listen 127.0.0.1:{port};"
    if front == "https":
        listen = f"listen 127.0.0.1:{port} ssl; ssl_certificate {tls.server}; ssl_certificate_key {tls.key};"
    text = changed(changed(text, "listen 80;", listen), "/var/cache/nginx/awportrait keys", f"{folder}/cache keys")
    if front == "no port":
        text = changed(text, "$http_host", "$host")
        text = changed(changed(text, "proxy_http_version 1.1;", ""), "keepalive 16;", "")
        text = changed(text, "keepalive_timeout 4s;", "")
    if path:
        text = changed(text, "location / {", f"location {path} {{")
    (folder / "site.conf").write_text(text, encoding="utf-8")
    user = " user root;" if os.getuid() == 0 else ""  # who reads what the studio has written
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, user=user), encoding="utf-8")
    return ["-c", str(folder / "nginx.conf"), "-p", str(folder)]


def _caddy(text: str, port: int, front: Front, folder: Path, tls: Certificates, path: str) -> list[str]:
    site = f"{'https' if front == 'https' else 'http'}://127.0.0.1:{port} {{"
    if front == "https":
        site += f"\n\ttls {tls.server} {tls.key}"
    text = changed(text, "\n:80 {", f"\n{{\n\tadmin off\n\tgrace_period 1s\n\tauto_https disable_redirects\n}}\n{site}")
    if front == "no port":
        lines = "{\n\t\theader_up Host {host}\n\t\theader_up X-Forwarded-Host {host}\n\t\ttransport http"
        text = changed(text, "{\n\t\ttransport http", lines)
    if path:
        text = changed(text, "reverse_proxy * ", f"reverse_proxy {path}* ")
    (folder / "Caddyfile").write_text(text, encoding="utf-8")
    return ["run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


def _until_open(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            log = (folder / "log").read_text(encoding="utf-8")
            assert process.poll() is None and time.monotonic() < deadline, log
            time.sleep(0.05)
