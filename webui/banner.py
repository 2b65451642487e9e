"""What a terminal says about where the page is."""

from __future__ import annotations

import sys

from engines.settings import Settings
from webui.connections import lan_address

EVERYWHERE, THIS_MACHINE = ("0.0.0.0", "::"), ("127.0.0.1", "::1")


def local_url(settings: Settings, port: int, https: bool) -> str:
    """Return the address for who sits at this machine."""
    host = settings.host
    name = "localhost" if host in (*EVERYWHERE, *THIS_MACHINE) else f"[{host}]" if ":" in host else host
    return f"{_scheme(https)}://{name}:{port}{settings.path}"


def say_addresses(settings: Settings, port: int, https: bool) -> None:
    print(f"\n  AWPortrait Edge · 人像工作室\n  本机 Local:   {local_url(settings, port, https)}")
    address = lan_address() if settings.host in EVERYWHERE else ""
    if address:
        print(f"  局域网 LAN:   {_scheme(https)}://{address}:{port}{settings.path}")
        if sys.stdout.isatty():  # in a log nobody holds a phone before it
            import segno

            print("  手机扫码打开 Scan it with a phone:")
            segno.make(f"{_scheme(https)}://{address}:{port}{settings.path}").terminal(border=2, compact=True)
    if https:
        from webui import certificates

        mark = certificates.fingerprint(certificates.Certificates.of(settings.state).authority)
        print(
            f"  让设备信任证书 To be trusted: {_scheme(https)}://{address or 'localhost'}:{port}{settings.path}/trust"
        )
        print(f"  证书指纹 Its SHA-256:\n    {mark[:48]}\n    {mark[48:]}")


def _scheme(https: bool) -> str:
    return "https" if https else "http"
