"""Strangers' files are read in a process of its own: as in this one, and whatever ends it is said of the picture."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from engines import images
from engines.errors import EngineError, ImageError, ImageTooLarge, ImageTooSlow, OutOfMemory, StudioError
from engines.images.decoder import Decoder
from engines.images.opening import MAX_MEGAPIXELS
from tests.support.strange_files import jpeg_of_scans

LEVELS = np.random.default_rng(4).integers(0, 255, (30, 41, 4), np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder()
    yield decoder
    decoder.close()


def saved(path: Path, image: Image.Image, **how: object) -> Path:
    image.save(path, **how)  # type: ignore[arg-type]
    return path


def test_a_photo_comes_as_from_this_process(tmp_path: Path, decoder: Decoder) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2004:05:06 07:08:09"
    path = saved(tmp_path / "白 a.png", Image.fromarray(LEVELS), exif=exif, icc_profile=PROFILE)
    here, there = images.read_photo(path), decoder.read_photo(path)
    assert there.pixels.shape == (41, 30, 3) and np.array_equal(there.pixels, here.pixels)
    assert there.alpha is not None and here.alpha is not None and np.array_equal(there.alpha, here.alpha)
    assert (there.profile, there.grey, there.taken) == (PROFILE, False, "2004:05:06 07:08:09")
    assert np.array_equal(decoder.read(path), images.read(path))


def test_a_photo_without_more_than_levels(tmp_path: Path, decoder: Decoder) -> None:
    path = saved(tmp_path / "a.png", Image.new("L", (3, 2), 77))
    there = decoder.read_photo(path)
    assert (there.alpha, there.profile, there.grey, there.taken) == (None, b"", True, "")
    assert (there.pixels == 77).all() and there.pixels.shape == (2, 3, 3)
    there.pixels[0, 0] = 1  # nobody else's


def test_one_process_reads_all(tmp_path: Path, decoder: Decoder) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGB", (64, 48)))
    decoder.read(path)
    pid = decoder.pid
    with pytest.raises(ImageError):
        decoder.read(tmp_path / "none.png")
    assert decoder.read(path).shape == (48, 64, 3) and decoder.pid == pid is not None


def test_it_is_relative_to_where_one_is(tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "a.png", Image.new("RGB", (5, 4)))
    monkeypatch.chdir(tmp_path)
    assert decoder.read(Path("a.png")).shape == (4, 5, 3)


def test_a_large_photo_comes_whole(tmp_path: Path, decoder: Decoder) -> None:
    levels = np.arange(2000 * 3000 * 3, dtype=np.uint32).astype(np.uint8).reshape(2000, 3000, 3)
    path = saved(tmp_path / "a.png", Image.fromarray(levels), compress_level=1)
    assert np.array_equal(decoder.read(path), levels)


def test_what_it_has_held_is_free_again(tmp_path: Path, decoder: Decoder) -> None:
    small = saved(tmp_path / "a.png", Image.new("RGB", (5, 4)))
    large = saved(tmp_path / "b.png", Image.new("RGB", (7000, 7000)))
    decoder.read(small)
    before = resident_mb(decoder)
    decoder.read_photo(large)
    decoder.read(small)
    assert resident_mb(decoder) - before < 60, "a photo of 147 MB"


def resident_mb(decoder: Decoder) -> float:
    status = Path(f"/proc/{decoder.pid}/status")
    if not status.is_file():
        pytest.skip("memory is counted by Linux's /proc")
    return int(next(line for line in status.read_text().splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def test_errors_are_those_of_reading(tmp_path: Path, decoder: Decoder) -> None:
    with pytest.raises(ImageTooLarge) as caught:
        decoder.read(saved(tmp_path / "a.png", Image.new("1", (8000, 7000))))
    assert caught.value.facts == {"megapixels": 56, "limit": MAX_MEGAPIXELS}
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(ImageError, match="not a picture"):
        decoder.read_photo(tmp_path / "b.png")


PATIENT = """
from engines.images import decoder
decoder.images.opening.MAX_SCANS = 10**9
decoder.serve()
"""


def test_a_picture_has_its_time_and_the_next_its_own(tmp_path: Path) -> None:
    """Were scans not counted, 0.8 MB of a photo would take half a minute."""
    decoder = Decoder(1, (sys.executable, "-c", PATIENT))
    path, small = tmp_path / "a.jpg", saved(tmp_path / "b.png", Image.new("RGB", (5, 4)))
    path.write_bytes(jpeg_of_scans(40_000, 1000, 1000))
    try:
        with pytest.raises(ImageTooSlow, match="more than 1 s") as caught:
            decoder.read(path)
        assert caught.value.facts == {"limit": 1}
        for _ in range(3):
            assert decoder.read(small).shape == (4, 5, 3)
    finally:
        decoder.close()


def test_time_is_counted_for_each_picture(tmp_path: Path) -> None:
    """Some hundred photos take more time together than one may."""
    decoder = Decoder(limit_s=1)
    path = saved(tmp_path / "a.png", Image.effect_noise((2500, 2000), 90).convert("RGB"), compress_level=1)
    try:
        decoder.read(path)
        pid = decoder.pid
        while processor_s(pid) < 3:
            decoder.read(path)
        assert decoder.pid == pid
    finally:
        decoder.close()


def processor_s(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


BEGINNING = "import os, signal, sys, time; print('ready', flush=True); line = sys.stdin.readline(); "


def one_that(does: str) -> Decoder:
    return Decoder(1, (sys.executable, "-c", BEGINNING + does))


@pytest.mark.parametrize(
    ("does", "error", "says"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", ImageError, "ends the process"),
        ("os.abort()", ImageError, "ends the process"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", ImageTooSlow, "1 s"),
        ("os.kill(os.getpid(), signal.SIGKILL)", OutOfMemory, "killed"),
        ("", ImageError, "ends the process"),
        ("print('{}', flush=True); time.sleep(60)", ImageError, "ends the process"),
        ("print('[]', flush=True); time.sleep(60)", ImageError, "ends the process"),
        ("print('nonsense', flush=True); time.sleep(60)", ImageError, "ends the process"),
        ('print(\'{"height": 9, "width": 9, "alpha": false}\', flush=True)', ImageError, "ends the process"),
        ('print(\'{"height": 90000, "width": 90000, "alpha": false}\', flush=True)', ImageError, "ends the process"),
        ('print(\'{"height": -9, "width": -9, "alpha": false}\', flush=True)', ImageError, "ends the process"),
        (
            'print(\'{"height": 1, "width": 1, "alpha": false, "profile": 99999999}abc\', flush=True)',
            ImageError,
            "ends the process",
        ),
    ],
)
def test_what_ends_the_process_is_said_of_the_picture(does: str, error: type[StudioError], says: str) -> None:
    decoder = one_that(does)
    with pytest.raises(error, match=says) as caught:
        decoder.read(Path("a.jpg"))
    assert type(caught.value) is error and decoder.pid is None
    with pytest.raises(error):  # another is started
        decoder.read(Path("a.jpg"))


@pytest.mark.parametrize("command", [("/nowhere/python",), (sys.executable, "-c", "import nothing_of_this_name")])
def test_a_process_that_cannot_start_is_no_fault_of_the_picture(command: tuple[str, ...]) -> None:
    with pytest.raises(EngineError, match="decode"):
        Decoder(command=command).read(Path("a.jpg"))


HUNGRY = """
import numpy as np
from engines.images import decoder
read = decoder.images.read
decoder.images.read = lambda path: (np.empty(3 << 30, np.uint8), read(path))[1]
decoder.serve()
"""


def test_there_is_an_end_to_its_memory(tmp_path: Path) -> None:
    decoder = Decoder(command=(sys.executable, "-c", HUNGRY))
    path = saved(tmp_path / "a.png", Image.new("RGB", (5, 4)))
    try:
        with pytest.raises(ImageError, match="memory"):
            decoder.read(path)
        assert decoder.read_photo(path).pixels.shape == (4, 5, 3)
    finally:
        decoder.close()


def test_threads_are_answered_each_with_its_own(tmp_path: Path, decoder: Decoder) -> None:
    paths = [saved(tmp_path / f"{k}.png", Image.new("L", (k, k), k)) for k in range(1, 9)]
    answers: dict[int, bool] = {}

    def ask(k: int) -> None:
        answers[k] = all((decoder.read(paths[k - 1]) == k).all() for _ in range(10))

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8 and all(answers.values())


def test_it_ends_with_who_has_started_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGB", (5, 4)))
    code = f"""
from pathlib import Path
from engines.images.decoder import SHARED
import os
SHARED.read(Path({str(path)!r}))
print(SHARED.pid, flush=True)
os._exit(0)
"""
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    deadline = time.monotonic() + 30
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives(pid)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"  # that nobody has buried yet


def test_a_stop_of_all_processes_is_for_who_has_started_it(tmp_path: Path, decoder: Decoder) -> None:
    """systemd sends it to all of a unit: the job in hand shall be done to its end."""
    path = saved(tmp_path / "a.png", Image.new("RGB", (5, 4)))
    decoder.read(path)
    pid = decoder.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    assert decoder.read(path).shape == (4, 5, 3) and decoder.pid == pid


NOISY = """
import os
from engines.images import decoder
read = decoder.images.read
decoder.images.read = lambda path: (os.system("echo x"), read(path))[1]
decoder.serve()
"""


def test_what_a_library_prints_is_no_answer(tmp_path: Path) -> None:
    decoder = Decoder(command=(sys.executable, "-c", NOISY))
    try:
        assert decoder.read(saved(tmp_path / "a.png", Image.new("RGB", (5, 4)))).shape == (4, 5, 3)
    finally:
        decoder.close()
