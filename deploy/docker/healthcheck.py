#!/usr/bin/python3 -I
"""Whether the server answers at /healthz (webui/api/health.py), for Docker: 0 or 1. By Python's library alone."""

from __future__ import annotations

import http.client
import os
import ssl
import sys

TIMEOUT_S = 5.0
ANY_ADDRESS = ("", "0.0.0.0", "::")


def main() -> int:
    host = os.environ.get("STUDIO_HOST", "")
    host, port = "127.0.0.1" if host in ANY_ADDRESS else host, int(os.environ.get("STUDIO_PORT", "7860"))
    try:
        door = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        if os.environ.get("STUDIO_HTTPS", "").lower() in ("1", "on", "true", "yes"):
            # The certificate is this home's own, and this machine is asked.
            door = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=ssl._create_unverified_context())
        door.request("GET", "/healthz")
        answer = door.getresponse()
    except (OSError, http.client.HTTPException) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
