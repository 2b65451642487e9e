"""
./run.sh models: what can be had, and `get ID` to have it, into STUDIO_HOME. Stopped with Ctrl+C, the same command goes
on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TextIO, get_args

from engines.catalogue import Model, Places, find, statuses
from engines.catalogue.barrier import raise_barrier
from engines.catalogue.fetch import Emit, Fetching
from engines.errors import StudioError
from engines.messages import Event, Failed, Final, Note, Progress, pack
from engines.messages.status import Mirror, ModelStatus
from engines.settings import Settings, SettingsError
from engines.settings.installation import COMMAND, called

# Read by the hubs' libraries when they are imported. Whoever asks for a model goes online for it, and for nothing else.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "0",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",  # fetch.py knows better when to try again
}
NEXT = {
    "portrait": COMMAND + " build portrait --base {path} --name {name}",
    "restorer": COMMAND + " build restorer --weights {path} --name {name}",
}


def main() -> int:
    args = _arguments()
    emit: Emit = partial(_as_json, sys.stdout) if getattr(args, "events", False) else Words(sys.stdout)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.update(ENVIRONMENT)
    try:
        return _get(args, emit) if args.verb == "get" else _list()
    except (StudioError, SettingsError) as exc:
        facts = exc.facts if isinstance(exc, StudioError) else {}
        emit(Failed(exc.code if isinstance(exc, StudioError) else "bad_option", str(exc), facts))
        return 1
    except KeyboardInterrupt:
        print("\n已暂停;重新运行同一命令会接着下载。 Paused: the same command goes on from here.", file=sys.stderr)
        return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"{COMMAND} models", description=called(__doc__ or ""))
    get = parser.add_subparsers(dest="verb").add_parser("get", help="download a model")
    get.add_argument("id")
    get.add_argument("--from", dest="mirror", default="hf", choices=get_args(Mirror), help="the hub")
    get.add_argument("--endpoint", default="", help="address in the place of https://huggingface.co")
    get.add_argument("--guarded", action="store_true", help="never connect to this machine itself, proxies aside")
    get.add_argument("--checkpoints", type=Path, help="the folder, instead of the one in STUDIO_HOME")
    get.add_argument("--loras", type=Path, help="the same for LoRAs")
    get.add_argument("--events", action="store_true", help="progress as JSON lines")
    return parser.parse_args()


def _list() -> int:
    settings = Settings.load(os.environ)
    for status in statuses(Places(settings.checkpoints, settings.loras)):
        print("\n".join(_lines(status)))
    print(f"\n下载 Download: {COMMAND} models get ID [--from hf|modelscope]")
    return 0


def _lines(status: ModelStatus) -> list[str]:
    model = status.model
    size = f"{'≈ ' if model.approximate else ''}{model.size_gb:g} GB"
    here = "● 已在本机 here" if status.here else "○ 未下载 not here"
    fits = "本机可用 runs here" if status.fits else f"本机不够 too small a machine: {status.why}"
    return [
        f"\n{model.id}  {here}",
        f"  {model.title['zh']} · {model.title['en']}",
        f"  {size}, {model.licence}: {model.terms['zh']} · {model.terms['en']}",
        f"  {fits}; {', '.join(model.mirrors)}",
    ]


def _get(args: argparse.Namespace, emit: Emit) -> int:
    model, started = find(args.id), time.monotonic()
    if args.guarded:
        raise_barrier()
    settings = Settings.load(os.environ)
    places = Places(args.checkpoints or settings.checkpoints, args.loras or settings.loras)
    if not model.commercial:
        emit(Note(f"! {model.licence}: {model.terms['zh']} · {model.terms['en']}"))
    path = Fetching(model, places, emit, args.mirror, args.endpoint or settings.hf_mirror).run()
    emit(Final((), 0, round(time.monotonic() - started, 1), "", f"{model.id}: {path.name}"))
    if not args.events and (then := _next(model, path)):
        print(f"  下一步 Next: {then}")
    return 0


def _next(model: Model, path: Path) -> str:
    return NEXT[model.becomes].format(path=path, name=model.id) if model.becomes in NEXT else ""


def _as_json(out: TextIO, event: Event) -> None:
    print(pack(event), file=out, flush=True)


class Words:
    """Events for a person: on a terminal progress stays in one line, elsewhere every tenth part has one."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.tenth, self.open = out, 0, False

    def __call__(self, event: Event) -> None:
        match event:
            case Note():
                self._line(event.text)
            case Progress():
                self._progress(event)
            case Failed():
                self._line("")
                print(f"✗ {event.detail}", file=sys.stderr)
            case Final():
                self._line(f"✓ {event.reason}, {event.seconds:.0f} s")

    def _progress(self, p: Progress) -> None:
        left = f", {p.eta_s / 60:.0f} min" if p.eta_s else ""
        text = f"  {p.step} / {p.total} MB{left}"
        if self.out.isatty():
            print(f"\r{text}    ", end="", file=self.out, flush=True)
            self.open = True
        elif p.step * 10 // p.total > self.tenth:
            self.tenth = p.step * 10 // p.total
            self._line(text)

    def _line(self, text: str) -> None:
        """Print on a line of its own, whatever stands on the present one."""
        before = "\n" if self.open else ""
        self.open = False
        if before or text:
            print(f"{before}{text}", file=self.out, flush=True)


if __name__ == "__main__":
    sys.exit(main())
