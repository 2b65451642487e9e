"""`./run.sh doctor [--json]`: looks at everything, and ends with 0 where nothing is ✗, else with 1."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from engines import logs
from engines import machine as kernel
from engines.machine import preflight
from engines.settings import Settings, SettingsError
from engines.settings.installation import COMMAND, called
from webui.doctor import Line, broker, engines, folders, home, machine, server

UPLOADS = 4  # at one time


def examine(env: Mapping[str, str]) -> Iterator[Line]:
    """Yield a line for all that can be looked at, as it is looked at."""
    yield machine.python(sys.version_info[:3])
    yield machine.processor(platform.machine(), kernel.processor_flags(), kernel.cores())
    yield machine.wheels(preflight.refusal(folder=None))
    yield machine.memory(kernel.free_bytes(), kernel.memory_bytes("MemTotal"), kernel.memory_bytes("SwapFree"))
    yield machine.clock(time.time(), machine.newest_source_s())
    try:
        settings = Settings.load(env)
    except SettingsError as exc:
        yield Line("error", f"设置不可用:{exc}", f"the settings cannot be used: {exc}")
    else:
        yield from _examine_home(settings, env)
    yield from engines.engines()


def _examine_home(settings: Settings, env: Mapping[str, str]) -> Iterator[Line]:
    ours = ", ".join(sorted(name for name in env if name.startswith("STUDIO_")))  # what is in them is nobody's business
    yield Line("ok", f"设置可用:{ours or '全部默认'}", f"the settings can be used: {ours or 'all as they come'}")
    held = server.holder(settings.state / "lock")
    yield home.folder(settings.home)
    yield home.private((settings.state, settings.uploads))
    yield home.disk(settings.home)
    yield machine.temporary(env, UPLOADS * settings.upload_mb * 1_000_000)
    yield home.database(settings.state / "jobs.db", held is not None)
    yield home.crashes(logs.folder(settings.state) / logs.CRASHES, time.time())
    if settings.inbox_folder and settings.outbox_folder:
        yield from folders.watched(settings.inbox_folder, settings.outbox_folder)
    yield from folders.albums(settings.album_folders)
    if settings.mqtt:
        yield broker.reachable(settings.mqtt)
    yield server.port(settings.host, settings.port, held)
    yield server.serving(settings.host, held, settings.state / server.AUTHORITY)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"{COMMAND} doctor", description=called(__doc__ or ""))
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")
    as_json = parser.parse_args(arguments).json
    lines = []
    for line in examine(os.environ):
        lines.append(line)
        if not as_json:
            print(line, flush=True)
    healthy = all(line.level != "error" for line in lines)
    if as_json:
        print(json.dumps({"ok": healthy, "lines": [asdict(line) for line in lines]}, ensure_ascii=False, indent=1))
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
