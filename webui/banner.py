"""What a terminal says about where the page is."""

from __future__ import annotations

import sys

from webui.connections import lan_address

EVERYWHERE, THIS_MACHINE = ("0.0.0.0", "::"), ("127.0.0.1", "::1")


def local_url(host: str, port: int) -> str:
    """Return the address for who sits at this machine. `host`: what the server listens on."""
    if host in (*EVERYWHERE, *THIS_MACHINE):
        return f"http://localhost:{port}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def say_addresses(host: str, port: int) -> None:
    print(f"\n  AWPortrait Edge · 人像工作室\n  本机 Local:   {local_url(host, port)}")
    if host in EVERYWHERE and (address := lan_address()):
        print(f"  局域网 LAN:   http://{address}:{port}")
        if sys.stdout.isatty():  # in a log nobody holds a phone before it
            import segno

            print("  手机扫码打开 Scan it with a phone:")
            segno.make(f"http://{address}:{port}").terminal(border=2, compact=True)
