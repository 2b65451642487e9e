"""
One model on several machines (docs/workers.md): a picture whose text encoder, denoiser and decoder are each lent by
another process over loopback, against the same picture in one process; what goes over the wire; and what a network of
1 Gbit/s would add to that. All processes share this machine's processors, and one at a time computes.

Both pictures must be equal to the bit, or nothing is said.
"""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
from PIL import Image

from benchmarks.timing import head, in_turn
from engines import backends, machine
from engines.backends import Session, array_format
from engines.backends.lenders import Lenders
from engines.bundle import BUILT_IN, Role, Shelf
from engines.bundle.signatures import Array
from engines.messages import Final, Generate
from engines.studio import Studio

REPO = Path(__file__).parents[1]
LENT: tuple[Role, ...] = ("text_encoder", "denoiser", "decoder")
ENGINES = ("ort", "torch")
ROUNDS = 7
BITS_PER_S = 1e9 * 0.94  # of Ethernet at 1 Gbit/s, what is left for TCP's data with frames of 1500 bytes
ROUND_TRIP_S = 0.0005  # in a house, by wire


def main() -> None:
    token = secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as machines:
        lending: dict[str, str] = {role: machines.enter_context(_lending(Path(folder) / role, token)) for role in LENT}
        lenders = Lenders(lending, token)
        able = [name for name in ENGINES if backends.engine(name).probe().ok]
        rows = {name: _measure(Path(folder) / name, name, lenders) for name in able}
    head(
        f"a picture of 512x512, 8 steps, in one process and in {len(LENT) + 1}; {machine.cores()} cores",
        "engine", "alone", "split", "times as long", "words", "a step", "pixels", "1 Gbit/s would add",
    )  # fmt: skip
    for name, row in rows.items():
        print(f"| {name} | {row} |")


def _measure(folder: Path, engine: str, lenders: Lenders) -> str:
    folder.mkdir()
    shelf = Shelf((BUILT_IN,))
    alone, split = Studio(shelf, folder / "alone"), Studio(shelf, folder / "split", lenders=lenders)
    prompts = (f"a woman, picture {k}" for k in itertools.count())  # none is remembered: its words are read
    both = Generate(next(prompts), seed=3, backend=engine)
    if not np.array_equal(_picture(alone, folder, both), _picture(split, folder, both)):
        raise SystemExit(f"{engine}: the pictures differ")
    sent = _count(split, folder, Generate(next(prompts), seed=4, backend=engine))

    def draw(studio: Studio) -> None:
        _picture(studio, folder, Generate(next(prompts), seed=5, backend=engine))

    seconds = in_turn({"alone": partial(draw, alone), "split": partial(draw, split)}, ROUNDS)
    for studio in (alone, split):
        studio.loaded_bundles.close()
    words, steps, pixels = (sent.bytes[role] for role in LENT)
    per_step = sum(steps) / len(steps)
    runs = [*words, *steps, *pixels]
    added_s = sum(runs) * 8 / BITS_PER_S + len(runs) * ROUND_TRIP_S
    ratio = seconds["split"] / seconds["alone"]
    return (
        f"{seconds['alone']:.3f} s | {seconds['split']:.3f} s | {ratio:.3f} | {sum(words) / 1e3:.0f} kB"
        f" | {per_step / 1e3:.0f} kB | {sum(pixels) / 1e3:.0f} kB | {added_s * 1e3:.0f} ms"
    )


def _picture(studio: Studio, folder: Path, request: Generate) -> Array:
    *_, last = studio.run(request, folder)
    assert isinstance(last, Final), last
    with Image.open(folder / last.images[0]) as image:
        return np.asarray(image)


@dataclass
class Sent:
    """How many bytes each run of a role takes, there and back."""

    bytes: defaultdict[Role, list[int]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class CountedSession:
    session: Session
    role: Role
    sent: Sent

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        result = self.session.run(feeds)
        self.sent.bytes[self.role].append(len(array_format.pack(feeds)) + len(array_format.pack(result)))
        return result

    def close(self) -> None:
        self.session.close()


def _count(studio: Studio, folder: Path, request: Generate) -> Sent:
    sent, (loaded, _) = Sent(), studio.loaded_bundles.get(request.bundle, request.backend)
    for role in LENT:
        each = loaded.load(role)
        each.session = CountedSession(each.session, role, sent)
    _picture(studio, folder, request)
    loaded.close()
    return sent


@contextmanager
def _lending(home: Path, token: str) -> Iterator[str]:
    """Let a process lend what is built in, until the body ends; give it the address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if not name.startswith("STUDIO_")}
    env |= {"STUDIO_HOME": str(home), "STUDIO_HOST": "127.0.0.1", "STUDIO_PARTS_TOKEN": token, "STUDIO_LOG": "error"}
    command = [sys.executable, "-m", "webui.cli", "parts", "--port", str(port)]
    process = subprocess.Popen(command, cwd=REPO, env=env, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while not _answers(url):
            assert process.poll() is None, "it has ended"
            time.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        urlopen(f"{url}/parts/open", timeout=5).close()
    except HTTPError:
        return True
    except OSError:
        return False
    return True
