"""Models from a hub, end to end against a local one: whole, resumed, damaged, refused; and what fits this machine."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from engines import catalogue
from engines.catalogue import Machine, Places, fetch
from engines.catalogue.fetch import Fetching
from engines.errors import DownloadBroken, DownloadError, HubUnreachable, NotFoundError, StorageError
from engines.messages import Event, Note, Progress, Recipe
from tests.support.hub import Hub, served

huggingface_hub = pytest.importorskip("huggingface_hub", reason="downloads")
constants = pytest.importorskip("huggingface_hub.constants")

GPEN, LORA = catalogue.find("gpen-bfr-512"), catalogue.find("awportrait-z")
Z_IMAGE = catalogue.find("z-image-turbo")
ENOUGH, LITTLE = Machine(64.0, 500.0), Machine(4.0, 2.0)


def weights(seed: int, size: int = 300_000) -> bytes:
    return random.Random(seed).randbytes(size)


PTH = weights(1)
TAEF1 = {"config.json": b"{}", "diffusion_pytorch_model.safetensors": weights(2), "taef1_encoder.safetensors": b"x"}
PIPELINE = {
    "model_index.json": b'{"_class_name": "ZImagePipeline"}',
    "README.md": b"# not wanted",
    "assets/picture.png": b"not wanted either",
    "scheduler/scheduler_config.json": b'{"shift": 3.0}',
    "tokenizer/tokenizer.json": b"{}",
    "text_encoder/config.json": b"{}",
    "text_encoder/model-00001-of-00001.safetensors": weights(3),
    "transformer/config.json": b"{}",
    "transformer/diffusion_pytorch_model.safetensors": weights(4, 900_000),
    "vae/config.json": b"",
    "vae/diffusion_pytorch_model.safetensors": weights(5),
}
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Its repositories have the catalogue's names. What __main__ sets for a process is set here for this one."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    repositories = {
        "akhaliq/GPEN-BFR-512": {"GPEN-BFR-512.pth": PTH, "README.md": b"x"},
        "Shakker-Labs/AWPortrait-Z": {"AWPortrait-Z.safetensors": weights(6)},
        "Tongyi-MAI/Z-Image-Turbo": dict(PIPELINE),
        "madebyollin/taef1": dict(TAEF1),
    }
    with served(Hub(repositories)) as running:
        yield running
        huggingface_hub.close_session()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "home" / "checkpoints", tmp_path / "home" / "loras")


class Get:
    """Fetching, with what it said."""

    def __init__(self, hub: Hub, places: Places, model: catalogue.Model = GPEN, **more: Any) -> None:
        self.events: list[Event] = []
        values = {"endpoint": hub.url, "waits_s": (0.0, 0.0), **more}
        self.fetching = Fetching(model, places, self.events.append, **values)

    def run(self) -> Path:
        return self.fetching.run()

    @property
    def said(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]


def hidden(places: Places) -> dict[str, int]:
    """What waits to be gone on with, and how much of it is there."""
    found = (path for path in places.checkpoints.rglob("*") if path.is_file() and ".fetching" in str(path))
    return {path.name: path.stat().st_size for path in found}


def shown(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*"))


# ---- the list


def test_every_model_says_what_a_person_must_know() -> None:
    models = catalogue.catalogue()
    assert set(models) >= {"z-image-turbo", "awportrait-z", "taef1", "taesd", "gpen-bfr-256", "gpen-bfr-512"}
    for model in models.values():
        for texts in (model.title, model.terms):
            assert set(texts) - {"zh-TW"} == {"zh", "en"}, "in the words of Taiwan where those differ"
        assert model.licence
        assert model.size_gb > 0 and model.memory_gb > 0 and model.pieces and "hf" in model.mirrors
        assert Path(model.target).name == model.target and not model.target.startswith(".")
        assert not model.is_file or len(model.pieces) == len(model.pieces[0].files) == 1
        assert model.recipe in ("", *get_args(Recipe))
        assert bool(model.recipe) == (model.becomes == "portrait"), "what is that large has one that fits"
    assert len({model.target for model in models.values()}) == len(models)
    assert not models["gpen-bfr-256"].commercial and not models["gpen-bfr-512"].commercial
    assert Z_IMAGE.mirrors == ("hf", "modelscope") and GPEN.mirrors == ("hf",)


def test_a_model_that_is_not_in_it_is_not_found() -> None:
    with pytest.raises(NotFoundError):
        catalogue.find("../z-image-turbo")


def test_what_this_machine_is_too_small_for_is_said_with_figures(places: Places) -> None:
    assert catalogue.hurdle(Z_IMAGE, ENOUGH, False) == ""
    assert catalogue.hurdle(Z_IMAGE, LITTLE, False) == "20 GB of memory needed, 4 GB available"
    tight = replace(ENOUGH, free_gb=8.0)
    assert catalogue.hurdle(Z_IMAGE, tight, False) == "39.9 GB of disk space needed, 8.0 GB available"
    assert catalogue.hurdle(Z_IMAGE, tight, True) == "", "the download itself needs no more room"
    by_id = {status.model.id: status for status in catalogue.statuses(places, LITTLE)}
    assert list(by_id) == list(catalogue.catalogue())
    assert not by_id["z-image-turbo"].fits and by_id["gpen-bfr-512"].fits and not by_id["gpen-bfr-512"].here


def test_this_machine_has_some_memory_and_some_disk(tmp_path: Path) -> None:
    machine = Machine.of(tmp_path / "not" / "there" / "yet")
    assert 0.5 < machine.memory_gb < 100_000 and machine.free_gb > 0


# ---- a download that goes well


def test_a_file_arrives_under_its_name_with_nothing_beside_it(hub: Hub, places: Places) -> None:
    get = Get(hub, places)
    path = get.run()
    assert path == places.checkpoints / "GPEN-BFR-512.pth" and path.read_bytes() == PTH
    assert os.listdir(places.checkpoints) == ["GPEN-BFR-512.pth"]
    assert get.said == ["1. GPEN-BFR-512.pth, 0.3 MB"]
    assert {s.model.id for s in catalogue.statuses(places, ENOUGH) if s.here} == {"gpen-bfr-512"}


def test_a_pipeline_arrives_with_its_tiny_decoder_and_without_pictures(hub: Hub, places: Places) -> None:
    path = Get(hub, places, Z_IMAGE).run()
    wanted = {name: content for name, content in PIPELINE.items() if name not in ("README.md", "assets/picture.png")}
    wanted |= {f"preview_decoder/{name}": TAEF1[name] for name in list(TAEF1)[:2]}
    found = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert found == wanted and os.listdir(places.checkpoints) == ["z-image-turbo"]


def test_a_lora_goes_to_the_loras(hub: Hub, places: Places) -> None:
    assert Get(hub, places, LORA).run() == places.loras / "AWPortrait-Z.safetensors"
    assert not places.checkpoints.exists()


def test_what_is_here_is_not_fetched_again(hub: Hub, places: Places) -> None:
    places.checkpoints.mkdir(parents=True)
    mine = places.checkpoints / "GPEN-BFR-512.pth"
    mine.write_bytes(b"my own")
    assert Get(hub, places).run() == mine and mine.read_bytes() == b"my own" and hub.asked == []


def test_progress_counts_megabytes_and_ends_at_all_of_them(hub: Hub, places: Places) -> None:
    hub.repositories["akhaliq/GPEN-BFR-512"]["GPEN-BFR-512.pth"] = weights(7, 3_000_000)
    get = Get(hub, places)
    get.run()
    told = [event for event in get.events if isinstance(event, Progress)]
    assert told[-1] == Progress("fetch", 3, 3, told[-1].eta_s) and [p.step for p in told] == sorted(
        p.step for p in told
    )


# ---- a line that breaks


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub, places: Places) -> None:
    hub.cuts["GPEN-BFR-512.pth"] = [100_000, 50_000]
    get = Get(hub, places)
    assert get.run().read_bytes() == PTH
    bytes_asked = [one.range for one in hub.files() if one.path.startswith("/cdn/")]
    assert bytes_asked == ["", "bytes=100000-", "bytes=150000-"]
    assert sum("again in 0 s" in text and "连接中断" in text for text in get.said) == 2


def test_a_line_that_breaks_often_but_always_brings_something_is_enough(hub: Hub, places: Places) -> None:
    hub.cuts["GPEN-BFR-512.pth"] = [30_000] * 8
    assert Get(hub, places).run().read_bytes() == PTH


def test_a_line_that_brings_nothing_is_given_up_and_taken_up_later(hub: Hub, places: Places) -> None:
    hub.cuts["GPEN-BFR-512.pth"] = [100_000, 0, 0]
    with pytest.raises(DownloadBroken, match=r"重新运行会接着下载。 The connection broke; run it again") as caught:
        Get(hub, places).run()
    assert caught.value.facts == {"model": "gpen-bfr-512", "hub": "127.0.0.1", "why": "the connection broke"}
    assert hidden(places) == {"GPEN-BFR-512.pth.part": 100_000} and shown(places.checkpoints) == []
    hub.asked.clear()
    assert Get(hub, places).run().read_bytes() == PTH
    assert [one.range for one in hub.files()] == ["bytes=100000-"] * 2, "to the hub, and where it points"


def test_files_that_are_whole_are_not_fetched_twice(hub: Hub, places: Places) -> None:
    hub.cuts["vae/diffusion_pytorch_model.safetensors"] = [10, 0, 0]
    with pytest.raises(DownloadError):
        Get(hub, places, Z_IMAGE).run()
    hub.asked.clear()
    path = Get(hub, places, Z_IMAGE).run()
    assert (path / TRANSFORMER).read_bytes() == PIPELINE[TRANSFORMER]
    assert not any(TRANSFORMER in one.path for one in hub.files())


def test_a_hub_without_ranges_begins_anew(hub: Hub, places: Places) -> None:
    hub.cuts["GPEN-BFR-512.pth"], hub.ranges = [100_000], False
    assert Get(hub, places).run().read_bytes() == PTH


def test_a_hub_that_is_busy_is_asked_again(hub: Hub, places: Places) -> None:
    hub.answers["GPEN-BFR-512.pth"] = [503, 429]
    assert Get(hub, places).run().read_bytes() == PTH


def test_a_line_that_falls_silent_is_taken_up_where_it_did(hub: Hub, places: Places) -> None:
    hub.stalls["GPEN-BFR-512.pth"] = [100_000, 50_000]
    get = Get(hub, places, silence_s=0.3)
    assert get.run().read_bytes() == PTH
    assert [one.range for one in hub.files() if one.path.startswith("/cdn/")] == ["", "bytes=100000-", "bytes=150000-"]
    assert sum(isinstance(event, Progress) and event.stage == "reconnect" for event in get.events) == 2


def test_who_goes_away_in_the_middle_is_waited_for(hub: Hub, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there meanwhile: before anything had come that would have been the end."""
    hub.cuts["GPEN-BFR-512.pth"] = [100_000]
    addresses = iter(["http://127.0.0.1:9", hub.url])

    def sleep(wait_s: float) -> None:
        hub.url = next(addresses)

    monkeypatch.setattr(fetch, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    get = Get(hub, places, endpoint=hub.url)
    assert get.run().read_bytes() == PTH and next(addresses, None) is None
    assert any("refuses the connection" in text for text in get.said)


def test_where_large_files_lie_may_be_out_of_reach_too(hub: Hub, places: Places) -> None:
    """The hub answers, and points at somebody who does not: that is who is named, and at once."""
    address, hub.url = hub.url, "http://127.0.0.1:9"
    get = Get(hub, places, endpoint=address, waits_s=(60.0,))
    with pytest.raises(HubUnreachable) as caught:
        get.run()
    assert caught.value.facts["why"] == "it refuses the connection"


def test_a_hub_that_is_busy_at_first_is_asked_once_more(hub: Hub, places: Places) -> None:
    hub.failing = [503]
    assert Get(hub, places).run().read_bytes() == PTH
    hub.failing = [503, 503]
    with pytest.raises(HubUnreachable) as caught:
        Get(hub, places, model=LORA).run()
    assert caught.value.facts["why"] == "it is busy, HTTP 503"


# ---- what does not fit, or is not what it should be


@pytest.mark.parametrize("file", [TRANSFORMER, "scheduler/scheduler_config.json"], ids=["LFS", "git"])
def test_a_wrong_hash_is_named_and_the_file_removed(hub: Hub, places: Places, file: str) -> None:
    wrong = bytearray(PIPELINE[file])
    wrong[-1] ^= 1
    hub.served[file] = bytes(wrong)
    with pytest.raises(DownloadError, match=f"{file}: 校验和不符.*Wrong checksum") as caught:
        Get(hub, places, Z_IMAGE).run()
    assert caught.value.facts["why"] == f"wrong checksum: {file}"
    assert shown(places.checkpoints) == [] and not any(Path(file).name in name for name in hidden(places))
    hub.served.clear()
    assert (Get(hub, places, Z_IMAGE).run() / file).read_bytes() == PIPELINE[file]


@pytest.mark.parametrize("change", [lambda b: b + b"more", lambda b: b[:-5]], ids=["longer", "shorter"])
def test_a_file_of_another_length_does_not_pass(hub: Hub, places: Places, change: Callable[[bytes], bytes]) -> None:
    hub.repositories["akhaliq/GPEN-BFR-512"]["GPEN-BFR-512.pth"] = PTH
    hub.served["GPEN-BFR-512.pth"] = change(PTH)
    if len(change(PTH)) > len(PTH):  # what is too much is not even read
        assert Get(hub, places).run().read_bytes() == PTH
    else:
        with pytest.raises(DownloadError):
            Get(hub, places).run()
        assert shown(places.checkpoints) == []


def test_a_part_of_an_older_version_is_not_gone_on_with_for_ever(hub: Hub, places: Places) -> None:
    hub.cuts["GPEN-BFR-512.pth"] = [100_000, 0, 0]
    with pytest.raises(DownloadError):
        Get(hub, places).run()
    newer = hub.repositories["akhaliq/GPEN-BFR-512"]["GPEN-BFR-512.pth"] = weights(8)
    with pytest.raises(DownloadError, match="checksum"):
        Get(hub, places).run()
    assert Get(hub, places).run().read_bytes() == newer


def test_a_whole_file_of_an_older_version_is_fetched_anew(hub: Hub, places: Places) -> None:
    hub.cuts["vae/diffusion_pytorch_model.safetensors"] = [10, 0, 0]
    with pytest.raises(DownloadError):
        Get(hub, places, Z_IMAGE).run()
    newer = hub.repositories["Tongyi-MAI/Z-Image-Turbo"][TRANSFORMER] = weights(9)
    assert (Get(hub, places, Z_IMAGE).run() / TRANSFORMER).read_bytes() == newer


def test_a_disk_that_is_too_small_is_told_in_both_languages_before_anything_comes(hub: Hub, places: Places) -> None:
    get = Get(hub, places, free=lambda folder: len(PTH) - 1)
    with pytest.raises(
        StorageError, match=r"磁盘空间不够:还需要 0\.3 MB.*Not enough disk space: 0\.3 MB needed"
    ) as caught:
        get.run()
    assert caught.value.facts == {"why": "0.3 MB of disk space needed, 0.3 MB available"}
    assert hub.files() == [] and hidden(places) == {}
    assert Get(hub, places, free=lambda folder: len(PTH)).run().exists()


def test_what_is_here_already_needs_no_room_twice(hub: Hub, places: Places) -> None:
    hub.cuts["GPEN-BFR-512.pth"] = [200_000, 0, 0]
    with pytest.raises(DownloadError):
        Get(hub, places).run()
    assert Get(hub, places, free=lambda folder: 100_000).run().exists()


def test_a_disk_that_fills_up_meanwhile_is_told(hub: Hub, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError) as caught:
        Get(hub, places).run()
    assert caught.value.facts == {"why": "No space left on device"} and shown(places.checkpoints) == []


@pytest.mark.parametrize("state", [401, 403, 404])
def test_a_hub_that_refuses_is_not_asked_again(hub: Hub, places: Places, state: int) -> None:
    hub.answers["GPEN-BFR-512.pth"] = [state] * 9
    with pytest.raises(DownloadError, match=f"cannot be downloaded: HTTP {state}"):
        Get(hub, places).run()
    assert len(hub.answers["GPEN-BFR-512.pth"]) == 8


def test_a_repository_that_is_gone_or_changed_is_told(hub: Hub, places: Places) -> None:
    hub.repositories["akhaliq/GPEN-BFR-512"] = {"other.pth": b"x"}
    with pytest.raises(DownloadError, match=r"akhaliq/GPEN-BFR-512 has no GPEN-BFR-512\.pth"):
        Get(hub, places).run()
    del hub.repositories["akhaliq/GPEN-BFR-512"]
    with pytest.raises(DownloadError, match="HTTP 404"):
        Get(hub, places).run()


@pytest.mark.parametrize("page", [b"<html>log in first</html>", b"[]", b'"x"', b'{"id": "x", "siblings": [3]}'])
def test_something_that_is_no_hub_is_told(hub: Hub, places: Places, page: bytes) -> None:
    hub.page = page
    with pytest.raises(DownloadError, match="does not answer as a hub"):
        Get(hub, places).run()


@pytest.mark.parametrize(
    "name", ["transformer/../../../evil", "transformer//../x", "transformer/.hidden", "transformer/a\\b"]
)
def test_a_file_name_leads_nowhere_else(hub: Hub, places: Places, name: str) -> None:
    hub.repositories["Tongyi-MAI/Z-Image-Turbo"][name] = b"x"
    with pytest.raises(DownloadError, match="unsafe file name"):
        Get(hub, places, Z_IMAGE).run()
    assert hub.files() == []


def test_two_downloads_of_one_model_do_not_mix(hub: Hub, places: Places) -> None:
    refused: list[str] = []

    def meddle(folder: Path) -> int:
        with pytest.raises(DownloadError) as caught:
            Get(hub, places).run()
        refused.append(str(caught.value))
        return 1 << 40

    assert Get(hub, places, free=meddle).run().read_bytes() == PTH
    assert "It is being downloaded already" in refused[0] and "正在下载" in refused[0]


# ---- ModelScope


def test_without_modelscope_it_is_said_what_to_install(
    hub: Hub, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "modelscope_hub.api", None)
    with pytest.raises(DownloadError, match="未安装 ModelScope.*pip install modelscope_hub"):
        Get(hub, places, LORA, mirror="modelscope").run()


def test_a_model_that_modelscope_does_not_have_is_refused(hub: Hub, places: Places) -> None:
    with pytest.raises(DownloadError, match="modelscope does not have it"):
        Get(hub, places, GPEN, mirror="modelscope").run()


@pytest.fixture
def modelscope(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Its true library, led to the same hub."""
    config = pytest.importorskip("modelscope_hub.config", reason="asks ModelScope with its own library")
    hub.repositories["LiblibAI/AWPortrait-Z"] = {"AWPortrait-Z.safetensors": weights(6)}
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "of-somebody")
    monkeypatch.setenv("HOME", str(tmp_path))
    config.set_default_config(None)  # it was read from the environment once
    yield hub
    config.set_default_config(None)


def test_modelscope_serves_as_well(modelscope: Hub, places: Places) -> None:
    assert Get(modelscope, places, LORA, mirror="modelscope").run().read_bytes() == weights(6)
    assert modelscope.asked and not any("authorization" in one.headers for one in modelscope.asked)


def test_modelscope_is_taken_up_where_it_broke_and_its_hashes_count(modelscope: Hub, places: Places) -> None:
    modelscope.cuts["AWPortrait-Z.safetensors"] = [100_000]
    modelscope.served["AWPortrait-Z.safetensors"] = weights(6)[:-1] + b"?"
    with pytest.raises(DownloadError, match="Wrong checksum"):
        Get(modelscope, places, LORA, mirror="modelscope").run()
    assert [one.range for one in modelscope.files() if one.path.endswith("/repo")] == ["", "bytes=100000-"]


def test_an_extra_that_modelscope_does_not_have_is_left_out_and_said(modelscope: Hub, places: Places) -> None:
    get = Get(modelscope, places, Z_IMAGE, mirror="modelscope")
    path = get.run()
    assert (path / TRANSFORMER).read_bytes() == PIPELINE[TRANSFORMER] and not (path / "preview_decoder").exists()
    assert any("preview_decoder" in text and "left out" in text for text in get.said)


def test_a_repository_that_modelscope_has_lost_is_told(modelscope: Hub, places: Places) -> None:
    del modelscope.repositories["LiblibAI/AWPortrait-Z"]
    with pytest.raises(DownloadError, match="LiblibAI/AWPortrait-Z is not there"):
        Get(modelscope, places, LORA, mirror="modelscope").run()
