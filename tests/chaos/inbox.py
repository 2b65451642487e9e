"""
A watch folder in bad hands: many photos at one time by slow writers, renames and copies, a share that goes away twice,
and a watcher that is killed again and again. Then all is counted: what was read by halves, lost, or done twice, and
whether an original is another than it was.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance
from engines.settings import Settings
from tests.chaos.kills import query
from tests.conftest import REPOSITORY
from tests.support.http import encoded, people
from tests.support.proved import believe_engines
from webui.watch.contact_sheet import FOLDER
from webui.watch.intake import OWNER
from webui.watch.outbox import name_of
from webui.watch.report import NAME
from webui.watch.scan import MARK

KINDS = (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"))
LIFE_S = (4.0, 30.0)  # until a kill: in the first seconds models are loaded, and files settle
AWAY_S = 8.0
STALL_S = 14.0  # of a writer in the middle of a file: longer than a file takes to settle
WRITERS = 24
FACES = 0.1  # of the photos have any: they take longer
RENAMED, COPIED = 0.15, 0.05
END_S = 900.0
LOOK_S = 0.5


@dataclass
class Share:
    """
    What other machines do to it. `written`, `times`: the bytes and the time of each whole file, by its path.
    """

    folder: Path
    written: dict[str, bytes] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    ever: dict[str, set[str]] = field(default_factory=dict)  # the checksums that a path has had
    misplaced: list[str] = field(default_factory=list)  # what was written onto its bare mount point
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def inbox(self) -> Path:
        return self.folder / "inbox"

    def put(self, path: str, data: bytes, lot: random.Random) -> None:
        """Write a photo as one of the programs does that write to shares, and go on when the share is there again."""
        write = lot.choice((_at_once, _beside, _slowly, _stalling, _into_room))
        _patiently(lambda: write(self.inbox / path, data, lot))
        if lot.random() < 0.5:  # as programs do that keep the time at which it was taken
            then = lot.randrange(10**18, 17 * 10**17)
            _patiently(lambda: os.utime(self.inbox / path, ns=(then, then)))
        self._note(path, data)

    def rename(self, path: str, to: str) -> None:
        _patiently(lambda: (self.inbox / path).rename(self.inbox / to))
        data = self.written.pop(path)
        self.times.pop(path)
        self._note(to, data)

    def copy(self, path: str, to: str) -> None:
        _patiently(lambda: shutil.copyfile(self.inbox / path, self.inbox / to))
        self._note(to, self.written[path])

    def _note(self, path: str, data: bytes) -> None:
        stat: list[os.stat_result] = []
        _patiently(lambda: stat.append((self.inbox / path).stat()))
        with self.lock:
            self.written[path], self.times[path] = data, stat[-1].st_mtime_ns
            self.ever.setdefault(path, set()).add(hashlib.sha256(data).hexdigest())

    def vanish(self, with_mount_point: bool) -> None:
        away = self.folder.rename(self.folder.with_name("away"))
        if with_mount_point:
            self.folder.mkdir()
        time.sleep(AWAY_S)
        if with_mount_point:
            self.misplaced += [str(path.relative_to(self.folder)) for path in self.folder.rglob("*")]
            shutil.rmtree(self.folder)
        away.rename(self.folder)


def run(count: int, seed: int, files: int = 1000) -> list[str]:
    """Put in so many files, and kill the watcher `count` times meanwhile. Return what went wrong."""
    lot = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        home, share = Path(folder) / "home", Share(Path(folder) / "share")
        home.mkdir()
        for below in ("", "2004", "2004/夏天"):
            (share.inbox / below).mkdir(parents=True, exist_ok=True)
        believe_engines(home)
        begun = time.monotonic()
        threads = [
            threading.Thread(target=_write, args=(share, range(k, files, WRITERS), random.Random(f"{seed}.{k}")))
            for k in range(WRITERS)
        ]
        threads.append(threading.Thread(target=_vanish, args=(share, count)))
        for thread in threads:
            thread.start()
        for k in range(count):
            with _watching(home, share):
                time.sleep(lot.uniform(*LIFE_S))
            print(f"{k + 1}/{count} SIGKILL: {_counted(home, share)}", flush=True)
        with _watching(home, share) as process:
            for thread in threads:
                thread.join()
            _until_done(home, share, process)
        seconds = time.monotonic() - begun
        print(f"{files} files, {count} x SIGKILL, seed {seed}, {seconds:.0f} s: {_counted(home, share)}")
        return _faults(home, share)


def _write(share: Share, numbers: range, lot: random.Random) -> None:
    """One machine's writing: a photo after the other, some of which are renamed or copied."""
    for number in numbers:
        kind, ending = lot.choice(KINDS)
        path = f"{lot.choice(('', '2004/', '2004/夏天/'))}照片 {number}.{ending}"
        image = people() if lot.random() < FACES else Image.new("RGB", (96, 72), (200, 180, 160))
        for k in range(24):  # no two are the same
            image.putpixel((k, 0), (number >> 8, number & 255, lot.randrange(256)))
        share.put(path, encoded(image, kind), lot)
        if lot.random() < RENAMED:
            time.sleep(lot.uniform(0.0, 20.0))
            share.rename(path, f"2004/renamed {number}.{ending}")
        elif lot.random() < COPIED:
            share.copy(path, f"copy {number}.{ending}")


def _vanish(share: Share, kills: int) -> None:
    """Twice: without a trace, and with an empty folder in its place."""
    for with_mount_point in (False, True):
        time.sleep(max(10.0, kills * sum(LIFE_S) / 2 / 3))
        share.vanish(with_mount_point)


def _patiently(act: Callable[[], object]) -> None:
    while True:
        try:
            act()
            return
        except FileNotFoundError:  # the share is away
            time.sleep(0.2)


def _at_once(path: Path, data: bytes, lot: random.Random) -> None:
    path.write_bytes(data)


def _beside(path: Path, data: bytes, lot: random.Random) -> None:
    """As rsync and browsers do."""
    beside = path.with_name(f".{path.name}.part")
    _slowly(beside, data, lot)
    _patiently(lambda: beside.rename(path))


def _slowly(path: Path, data: bytes, lot: random.Random) -> None:
    _pieces(path, data, [lot.uniform(0.0, 2.0) for _ in range(lot.randrange(2, 6))])


def _stalling(path: Path, data: bytes, lot: random.Random) -> None:
    _pieces(path, data, [0.1, STALL_S if lot.random() < 0.3 else 3.0])


def _into_room(path: Path, data: bytes, lot: random.Random) -> None:
    """As Windows does, which makes a file as long as it will be, and fills it."""
    with path.open("wb", buffering=0) as file:
        file.truncate(len(data))
        half = len(data) // 2
        file.write(data[:half])
        time.sleep(lot.uniform(0.0, 3.0))  # a longer one is told from a whole file in JPEG and PNG alone
        file.write(data[half:])


def _pieces(path: Path, data: bytes, pauses: list[float]) -> None:
    size = -(-len(data) // (len(pauses) + 1))
    with path.open("wb", buffering=0) as file:
        for k, pause in enumerate([*pauses, 0.0]):
            file.write(data[k * size : (k + 1) * size])
            time.sleep(pause)


@contextmanager
def _watching(home: Path, share: Share) -> Iterator[subprocess.Popen[bytes]]:
    """The command as it is started; in the end it is killed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("STUDIO_")}
    env |= {"STUDIO_HOME": str(home), "STUDIO_BACKEND": "edge"}
    command = [sys.executable, "-m", "webui.watch", str(share.inbox)]
    with (home / "watch.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _until_done(home: Path, share: Share, process: subprocess.Popen[bytes]) -> None:
    """Wait until every file has a result, or none has come for long."""
    deadline, before = time.monotonic() + END_S, Counter[str]()
    while time.monotonic() < deadline:
        assert process.poll() is None, (home / "watch.log").read_text(encoding="utf-8")[-4000:]
        if (now := _counted(home, share)) != before:
            deadline, before = time.monotonic() + END_S, now
        if all(any(path.exists() for path in _places(share, name)) for name in share.written):
            time.sleep(3.0)  # for what would come twice
            return
        time.sleep(LOOK_S)


def _places(share: Share, path: str) -> list[Path]:
    """Where the result of a file may lie."""
    suffixes = (".jpg", ".png", ".webp")
    return [share.folder / "restored" / name for name in {name_of(path, suffix) for suffix in suffixes}]


def _counted(home: Path, share: Share) -> Counter[str]:
    """How many files are whole in the inbox, laid down, and how the jobs are."""
    states = Counter(state for state, _ in query(home, "SELECT state, 0 FROM job"))
    laid = 0
    path = home / "state" / "watch.db"
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=10)) as db:
        laid = db.execute("SELECT COUNT(*) FROM photo WHERE delivered").fetchone()[0]
    return Counter({"files": len(share.written), "laid": laid, **states})


def _faults(home: Path, share: Share) -> list[str]:
    """Look at every original, every job and every result."""
    whole = {checksum for checksums in share.ever.values() for checksum in checksums}
    settings = Settings(home)
    queue = SqliteQueue(settings.state / "jobs.db", settings.outputs)
    jobs = [job for job in queue.latest_of(OWNER, 10**6) if isinstance(job.request, Enhance)]
    queue.close()
    by_content = [(Path(job.request.image).name.removeprefix("watch-"), job.state) for job in jobs]  # type: ignore[union-attr]
    partial = {checksum for checksum, _ in by_content if checksum not in whole}
    doubles = [checksum for checksum, count in Counter(c for c, s in by_content if s == "done").items() if count > 1]
    touched = [path for path, data in share.written.items() if not _is_untouched(share, path, data)]
    lost = [path for path in share.written if not any(map(_is_picture, _places(share, path)))]
    outbox = share.folder / "restored"
    explained = {place for path in share.ever for place in _places(share, path)} | {outbox / MARK}
    laid = [path for path in outbox.rglob("*") if path.is_file() and FOLDER not in path.parts]
    extra = [path for path in laid if path not in explained]
    again = len(by_content) - len({checksum for checksum, _ in by_content})
    print(f"{len(partial)} partial reads, {len(lost)} lost, {len(doubles)} doubles, {len(touched)} originals touched")
    print(f"{len(by_content)} jobs for {len(whole)} contents; {again} were tried again")
    said = [f"{path.name} says: {path.read_text(encoding='utf-8')[:500]}" for path in extra if path.name == NAME]
    return [
        *(f"a part of a file was restored: {checksum}" for checksum in partial),
        *(f"restored twice: {checksum}" for checksum in doubles),
        *(f"lost: {path}" for path in lost),
        *(f"written where the share was away: {path}" for path in share.misplaced),
        *(f"an original is another: {path}" for path in touched),
        *(f"nobody's result: {path.relative_to(outbox)}" for path in extra if path.name != NAME),
        *said,
    ]


def _is_untouched(share: Share, path: str, data: bytes) -> bool:
    original = share.inbox / path
    return original.read_bytes() == data and original.stat().st_mtime_ns == share.times[path]


def _is_picture(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        return False
    return True
