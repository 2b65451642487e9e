"""
One model on three machines, each with processes and a home of its own: the picture is the one that it is on one, to the
bit, and whatever happens to a machine is said, and over when it is back.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from engines import backends
from engines.backends.lenders import NO_LENDERS, Lenders
from engines.bundle import BUILT_IN, Shelf
from engines.errors import MemoryShort
from engines.messages import Event, Failed, Final, Generate, Lora, Progress
from engines.roles import memory
from engines.studio import Studio
from tests.support.lenders import TOKEN, LendingMachine
from tests.support.server import Process
from webui.i18n import words

pytestmark = pytest.mark.slow
SHELF = Shelf((BUILT_IN,))
ROLES = ("text_encoder", "denoiser", "decoder")
# Words that the bundle has no stored embedding of: its text encoder is needed.
WANTED = Generate("a green lighthouse of seven windows", seed=11, width=256, height=256, steps=4, preview="off")


@dataclass(frozen=True)
class Machines:
    words: LendingMachine
    steps: LendingMachine
    pixels: LendingMachine

    @property
    def addresses(self) -> dict[str, str]:
        return dict(zip(ROLES, (self.words.url, self.steps.url, self.pixels.url), strict=True))

    @property
    def lenders(self) -> Lenders:
        return Lenders(self.addresses, TOKEN)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    homes = tmp_path_factory.mktemp("machines")
    lending = Machines(*[LendingMachine(homes / role) for role in ROLES])
    yield lending
    for machine in (lending.words, lending.steps, lending.pixels):
        assert machine.stop() == 0, machine.logs()


def drawn(
    folder: Path, request: Generate = WANTED, lenders: Lenders = NO_LENDERS, budget: int = memory.UNLIMITED
) -> tuple[Final, bytes]:
    """Draw in a home of its own, which remembers nothing; return the end, and the picture's file."""
    last = [*begun(folder, request, lenders, budget)][-1]
    assert isinstance(last, Final), last
    return last, (folder / last.images[0]).read_bytes()


def begun(
    folder: Path, request: Generate = WANTED, lenders: Lenders = NO_LENDERS, budget: int = memory.UNLIMITED
) -> Iterator[Event]:
    folder.mkdir(exist_ok=True)
    studio = Studio(SHELF, folder / "state", budget=lambda: budget, lenders=lenders)
    yield from studio.run(request, folder)
    studio.loaded_bundles.close()


@pytest.mark.parametrize("backend", ["edge", "pytorch"])
def test_the_picture_is_the_same_to_the_bit(backend: str, machines: Machines, tmp_path: Path) -> None:
    """All of the file, even: each of the three networks ran on another machine, as their logs say."""
    if backend == "pytorch":
        pytest.importorskip("torch")
    request = Generate(**{**vars_of(WANTED), "backend": backend})
    whole, picture = drawn(tmp_path / "whole", request)
    split, same = drawn(tmp_path / "split", request, machines.lenders)
    assert same == picture and split.engine == whole.engine
    for role, machine in zip(ROLES, (machines.words, machines.steps, machines.pixels), strict=True):
        assert f"{role} lent by {machine.url.removeprefix('http://')} (" in split.reason
        assert f"open: portrait/{role} on " in machine.logs()
    assert split.reason.count("equal to the bit") == 3 and "lent" not in whole.reason
    two, same = drawn(tmp_path / "two", request, Lenders({"portrait/denoiser": machines.steps.url}, TOKEN))
    assert same == picture and two.reason.count("lent by") == 1
    if backend == "pytorch":
        last = [*begun(tmp_path / "lora", with_lora(request), machines.lenders)][-1]
        assert isinstance(last, Failed) and "lends the denoiser" in str(last.facts["allowed"])


def vars_of(request: Generate) -> dict[str, object]:
    return {name: getattr(request, name) for name in request.__dataclass_fields__}


def with_lora(request: Generate) -> Generate:
    return Generate(**{**vars_of(request), "loras": (Lora("studio_light", 1.0),)})  # type: ignore[arg-type]


def test_a_machine_may_restart_in_the_middle_and_one_that_is_gone_is_named(machines: Machines, tmp_path: Path) -> None:
    _, picture = drawn(tmp_path / "whole")
    events = begun(tmp_path / "restarted", lenders=machines.lenders)
    for event in events:
        if isinstance(event, Progress) and (event.stage, event.step) == ("denoise", 2):
            machines.steps.kill()
            machines.steps.start()
    assert isinstance(event, Final) and (tmp_path / "restarted" / event.images[0]).read_bytes() == picture
    events = begun(tmp_path / "gone", lenders=machines.lenders)
    for event in events:
        if isinstance(event, Progress) and (event.stage, event.step) == ("denoise", 2):
            machines.steps.kill()
    machine = machines.steps.url.removeprefix("http://")
    facts = {"role": "denoiser", "machine": machine, "why": "it does not answer"}
    assert event == Failed("part_away", f"denoiser from {machine}: it does not answer", facts)
    assert [*begun(tmp_path / "still", lenders=machines.lenders)][-1] == event, "before anything is drawn"
    machines.steps.start()
    assert drawn(tmp_path / "back", lenders=machines.lenders)[1] == picture


def test_what_no_single_machine_has_the_memory_for_is_drawn(machines: Machines, tmp_path: Path) -> None:
    """To the same picture; the refusal names the way."""
    request = Generate(**{**vars_of(WANTED), "backend": "ort", "width": 512, "height": 512})
    bundle, ort = SHELF.open("portrait"), backends.engine("ort")
    parts = [bundle.part(role, ort.formats) for role in sorted(bundle.roles)]
    least = memory.plan(bundle, parts, "ort", (512, 512), memory.UNLIMITED, memory.THRIFTIEST).peak
    refused = [*begun(tmp_path / "small", request, budget=least - 1)][-1]
    assert isinstance(refused, Failed) and refused.code == MemoryShort.code
    assert "./run.sh parts" in words("en").error(refused.code, refused.facts)
    _, picture = drawn(tmp_path / "whole", request)
    split, same = drawn(tmp_path / "split", request, machines.lenders, least - 1)
    assert same == picture and split.reason.count("equal to the bit") == 3


def test_another_token_and_another_model_are_refused(machines: Machines, tmp_path: Path) -> None:
    last = [*begun(tmp_path / "token", lenders=Lenders(machines.addresses, TOKEN + "!"))][-1]
    assert isinstance(last, Failed) and (last.code, last.facts["why"]) == (
        "part_refused", "STUDIO_PARTS_TOKEN is not its token",
    )  # fmt: skip
    other = machines.pixels.home / "models" / "portrait"
    shutil.copytree(BUILT_IN / "portrait", other)
    manifest = json.loads((other / "bundle.json").read_text(encoding="utf-8"))
    for part in manifest["parts"]:
        part["sha256"] = part["sha256"][::-1]
    (other / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    try:
        last = [*begun(tmp_path / "other", lenders=machines.lenders)][-1]
    finally:
        shutil.rmtree(other)
    assert isinstance(last, Failed) and (last.code, last.facts["role"]) == ("part_refused", "decoder")
    assert last.facts["why"] == "its bundle of that name is another one"
    assert drawn(tmp_path / "again", lenders=machines.lenders)


def test_a_whole_studio_borrows_what_is_set(machines: Machines, tmp_path: Path) -> None:
    """By STUDIO_PARTS, in the worker's process; who lends what stands in /readyz, and an error in both languages."""
    _, picture = drawn(tmp_path / "whole", Generate(**{**vars_of(WANTED), "backend": "ort"}))
    (home := tmp_path / "home").mkdir()
    parts = ",".join(f"portrait/{role}={address}" for role, address in machines.addresses.items())
    server = Process(home, STUDIO_PARTS=parts, STUDIO_PARTS_TOKEN=TOKEN, STUDIO_BACKEND="ort")
    asked = {"prompt": WANTED.prompt, "seed": 11, "width": 256, "height": 256, "steps": 4, "preview": "off"}
    try:
        machines.words.kill()
        server.until_ready()
        said = httpx.get(f"{server.url}/readyz", timeout=60).json()["bundles"]
        assert (
            all(f"{role} lent by 127.0.0.1:" in said["portrait"] for role in ROLES) and "lent" not in said["restorer"]
        )
        for language, sentence in (("zh-CN", "请让它开机并运行 ./run.sh parts"), ("en", "run ./run.sh parts there")):
            answer = httpx.post(
                f"{server.url}/generate", json=asked, headers={"Accept-Language": language}, timeout=120
            )
            assert (answer.status_code, answer.json()["code"]) == (503, "part_away")
            assert sentence in answer.json()["message"] and "text_encoder" in answer.json()["message"]
        machines.words.start()
        answer = httpx.post(f"{server.url}/generate", json=asked, timeout=120).raise_for_status()
        assert httpx.get(server.url + answer.json()["images"][0], timeout=60).content == picture
    finally:
        server.stop()
