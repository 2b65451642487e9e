"""Files are whole or absent, whoever writes at the same time and whatever the disk does."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines import files
from tests.support.full_disk import full_disk

BIG, OLD = b"new" * 10_000, b"old"


def test_a_file_gets_its_bytes_and_nothing_else_is_there(tmp_path: Path) -> None:
    path = tmp_path / "not there yet" / "file"
    for data in (OLD, BIG, memoryview(BIG)):
        files.write_atomic(path, data)
        assert path.read_bytes() == data and os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("durable", [False, True])
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    with full_disk(), pytest.raises(OSError):
        files.write_atomic(path, BIG, durable)
    assert path.read_bytes() == OLD and os.listdir(tmp_path) == ["file"]


def test_a_name_that_is_a_folder_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file" / "inside").mkdir(parents=True)
    with pytest.raises(OSError):
        files.write_atomic(tmp_path / "file", BIG)
    assert os.listdir(tmp_path) == ["file"]


def test_a_body_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    with pytest.raises(ZeroDivisionError), files.replacing(path) as beside:
        beside.write_bytes(BIG)
        raise ZeroDivisionError
    assert path.read_bytes() == OLD and os.listdir(tmp_path) == ["file"]


def test_what_is_durable_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, listings = tmp_path / "file", list[list[str]]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: listings.append(os.listdir(tmp_path)))
    files.write_atomic(path, BIG)
    assert listings == []
    path.unlink()
    files.write_atomic(path, BIG, durable=True)
    assert len(listings) == 1 and "file" not in listings[0] and path.read_bytes() == BIG


def test_what_is_being_written_is_hidden(tmp_path: Path) -> None:
    with files.temporary(tmp_path) as path:
        path.write_bytes(OLD)
        assert path.parent == tmp_path and path.name.startswith(".")
    assert os.listdir(tmp_path) == []


def test_concurrent_writers_never_mix_and_readers_never_see_half(tmp_path: Path) -> None:
    path, wrong = tmp_path / "file", list[bytes]()
    whole = [bytes([letter]) * 50_000 for letter in b"abc"]
    files.write_atomic(path, whole[0])

    def work(data: bytes) -> None:
        for _ in range(30):
            files.write_atomic(path, data)
            if (content := path.read_bytes()) not in whole:
                wrong.append(content)

    threads = [threading.Thread(target=work, args=(data,)) for data in whole]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and os.listdir(tmp_path) == ["file"]


@dataclass(frozen=True)
class Point:
    x: int
    name: str = ""


def test_json_comes_back_as_its_type(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    path.write_text('{"x": 3, "name": "图"}', encoding="utf-8")
    assert files.read_json(Point, path) == Point(3, "图")
    path.write_text('[{"x": 3}, {"x": 4}]', encoding="utf-8")
    assert files.read_json(tuple[Point, ...], path) == (Point(3), Point(4))


@pytest.mark.parametrize("content", [b"", b"{", b"null", b'{"x": "three"}', b"{}", b"\xff", b"[" * 200_000])
def test_what_is_not_of_the_type_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "point.json"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        files.read_json(Point, path)


def test_what_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        files.read_json(Point, tmp_path / "point.json")


def safetensors(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_a_safetensors_header_says_where_each_tensor_lies(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    entry = {"dtype": "F16", "shape": [2, 3], "data_offsets": [4, 16]}
    path.write_bytes(safetensors({"__metadata__": {"format": "pt"}, "layer.weight": entry}, b"skip" + bytes(range(12))))
    header = files.safetensors_header(path)
    assert list(header) == ["layer.weight"]
    tensor = header["layer.weight"]
    assert (tensor.dtype, tensor.shape) == ("F16", (2, 3))
    assert path.read_bytes()[tensor.offset : tensor.offset + tensor.length] == bytes(range(12))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        bytes([255] * 8) + b"{}",
        safetensors([]),
        safetensors({"a": {}}),
        safetensors({"a": 3}),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [1]}}),
        safetensors({"a": 1})[:-2],
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        safetensors({"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]}}, bytes(4)),
        safetensors({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    ],
)
def test_what_is_no_safetensors_file_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        files.safetensors_header(path)


FLAT: dict[str, object] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize("body", [b"", bytes(3), bytes(5)], ids=len)
def test_a_file_ends_where_its_last_tensor_does(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors({"a": FLAT}, body))
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged or cut off"):
        files.safetensors_header(path)
    path.write_bytes(safetensors({"a": FLAT}, bytes(4)))
    assert len(files.safetensors_header(path)) == 1


def test_a_header_that_is_longer_than_the_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes((15_000_000).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="cut off: a header of 15000000 bytes"):
        files.safetensors_header(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{%s}" % b",".join(b'"t%d":{}' % number for number in range(50_001)), "lists more than 50000 tensors"),
        (b'{"a":[%s]}' % b",".join([b"[]"] * 1_000_000), "lists more than 50000 tensors"),
        (b'{"__metadata__":{"a":"%s"}}' % (b"a" * 16_000_000), "bytes; 16000000 are the limit"),
    ],
    ids=["entries", "lists", "length"],
)
def test_a_header_that_is_too_much_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, why: str
) -> None:
    monkeypatch.setattr(files, "parse_json", lambda text: pytest.fail("it was parsed"))
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match=why):
        files.safetensors_header(path)


def test_a_header_of_as_many_tensors_as_may_be_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors(dict.fromkeys(map(str, range(files.MAX_TENSORS)), FLAT), bytes(4)))
    assert len(files.safetensors_header(path)) == files.MAX_TENSORS
