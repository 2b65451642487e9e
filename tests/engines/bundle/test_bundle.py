"""Bundles: what a manifest must say, that every byte is checked, and that a name on the shelf is never a path."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from engines.bundle import Bundle, Shelf, digest
from engines.errors import BundleError, NotFoundError
from tests.support.fakes import write_manifest, write_portrait, write_restorer

SHARED = {"role": "denoiser", "file": "denoiser", "precision": "fp32", "sha256": "0", "licence": "none"}
TWO_FORMATS = [
    {**SHARED, "format": "openvino", "precision": "int8"},
    {**SHARED, "format": "onnx"},
    {**SHARED, "format": "diffusers"},
]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_what_is_written_is_opened(tmp_path: Path) -> None:
    bundle = write_portrait(tmp_path / "p", lineage=["a", "b"])
    assert (bundle.name, bundle.family, bundle.root) == ("p", "zimage", tmp_path / "p")
    assert bundle.sizes == ((64, 64), (96, 64))
    assert bundle.roles == {"text_encoder", "denoiser", "decoder", "preview_decoder"}
    assert bundle.has("denoiser") and not bundle.has("restorer")
    assert bundle.sampling is not None and bundle.sampling.guidance == 0.0
    assert bundle.text is not None and bundle.text.max_tokens == 512
    assert bundle.lineage == ("a", "b")
    bundle.verify()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "broken JSON"),
        ("[]", "not an object"),
        ("\xff", "not UTF-8"),
        ("{}", "nothing said"),
        ("[" * 200_000, "nested without end"),
        ('{"a":' * 200_000, "nested without end"),
        ('{"name": "x", "family": "zimage", "parts": [{}]}', "an empty part"),
        ('{"name": "x", "family": "zimage", "parts": "denoiser"}', "parts are a list"),
        (json.dumps({"name": "x", "family": "z", "parts": [{**SHARED, "format": "pickle"}]}), "no such format"),
        (json.dumps({"name": "x", "family": "z", "parts": [{**SHARED, "format": "onnx", "role": "x"}]}), "role"),
    ],
)  # fmt: skip
def test_a_manifest_that_does_not_say_what_it_must_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "bundle.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=tmp_path.name):
        Bundle.open(tmp_path)


def test_no_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        Bundle.open(tmp_path)


@pytest.mark.parametrize(
    ("formats", "expected"),
    [({"onnx", "diffusers"}, "onnx"), ({"diffusers", "safetensors"}, "diffusers"), ({"openvino", "onnx"}, "openvino")],
)
def test_the_first_part_that_an_engine_reads_is_preferred(tmp_path: Path, formats: set[str], expected: str) -> None:
    bundle = write_manifest(tmp_path, {"name": "x", "family": "zimage", "parts": TWO_FORMATS})
    assert bundle.part("denoiser", frozenset(formats)).format == expected  # type: ignore[arg-type]


def test_a_part_nobody_can_read_is_named(tmp_path: Path) -> None:
    bundle = write_manifest(tmp_path, {"name": "x", "family": "zimage", "parts": TWO_FORMATS})
    with pytest.raises(BundleError, match="denoiser in tensorrt"):
        bundle.part("denoiser", frozenset({"tensorrt"}))
    with pytest.raises(BundleError, match="decoder"):
        bundle.part("decoder", frozenset({"onnx"}))


def test_need_says_what_is_missing(tmp_path: Path) -> None:
    bundle = write_restorer(tmp_path / "r")
    assert bundle.need(bundle.face, "its face").size_px == 32
    with pytest.raises(BundleError, match="r/bundle.json says nothing about sampling"):
        bundle.need(bundle.sampling, "sampling")


def test_one_flipped_bit_in_any_file_is_noticed(tmp_path: Path) -> None:
    bundle = write_portrait(tmp_path / "p")
    files = sorted(path for path in bundle.root.iterdir() if path.name != "bundle.json")
    assert len(files) == 5
    for file in files:
        for at in (0, file.stat().st_size // 2, -1):
            flip(file, at)
            with pytest.raises(BundleError, match=file.name):
                bundle.verify()
            flip(file, at)
    bundle.verify()


def test_one_flipped_bit_in_any_file_of_a_real_bundle_is_noticed(shelf: Shelf) -> None:
    """Weights and graph of a part lie in one folder, and the graph reads the weights' bytes: all are covered."""
    bundle = shelf.open("portrait")
    described = ("bundle.json", "card.md")  # for people to read, and the checksums themselves
    files = [path for path in bundle.root.rglob("*") if path.is_file() and path.name not in described]
    assert len(files) == 5 * 3 + 1
    for file in files:
        flip(file, -1)
        with pytest.raises(BundleError):
            bundle.verify()
        flip(file, -1)
    bundle.verify()


@pytest.mark.parametrize("file", ["denoiser.onnx", "tokenizer.json"])
def test_a_missing_file_is_noticed(tmp_path: Path, file: str) -> None:
    bundle = write_portrait(tmp_path / "p")
    (bundle.root / file).unlink()
    with pytest.raises(BundleError, match=file):
        bundle.verify()


def test_a_missing_file_without_a_checksum_is_noticed(tmp_path: Path) -> None:
    """digest() of what is not there is empty: an empty checksum in a manifest must not agree with it."""
    bundle = write_restorer(tmp_path / "r")
    part = dataclasses.replace(bundle.parts[0], file="elsewhere.onnx", sha256="")
    with pytest.raises(BundleError):
        dataclasses.replace(bundle, parts=(part,)).verify()


def test_two_parts_in_one_file_must_agree_on_its_checksum(tmp_path: Path) -> None:
    bundle = write_restorer(tmp_path / "r")
    liar = dataclasses.replace(bundle.parts[0], format="openvino", sha256="0" * 64)
    with pytest.raises(BundleError):
        dataclasses.replace(bundle, parts=(liar, *bundle.parts)).verify()


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert digest(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    assert digest(tmp_path / "nothing") == ""


def make_folder(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    return folder


def test_the_digest_of_a_folder_does_not_depend_on_order(tmp_path: Path) -> None:
    names = ["b", "a/c", "a/b/d", "Z", "数"]
    first, second = make_folder(tmp_path / "1", names), make_folder(tmp_path / "2", names[::-1])
    assert digest(first) == digest(second) != ""


def test_the_digest_of_a_folder_can_be_made_with_coreutils(tmp_path: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("no coreutils here")
    make_folder(tmp_path / "f", ["b", "a", "c/d"])
    script = "find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path / "f", capture_output=True, text=True, check=True)
    assert digest(tmp_path / "f") == done.stdout.split()[0]


@pytest.mark.parametrize("change", ["rename", "swap", "add", "remove", "edit"])
def test_the_digest_of_a_folder_changes_with_it(tmp_path: Path, change: str) -> None:
    folder = make_folder(tmp_path / "f", ["a", "b", "c/d"])
    before = digest(folder)
    match change:
        case "rename":
            (folder / "a").rename(folder / "e")
        case "swap":
            a, b = (folder / "a").read_bytes(), (folder / "b").read_bytes()
            (folder / "a").write_bytes(b), (folder / "b").write_bytes(a)
        case "add":
            (folder / "c" / "new").touch()
        case "remove":
            (folder / "c" / "d").unlink()
        case "edit":
            flip(folder / "b", 3)
    assert digest(folder) != before


def test_an_earlier_folder_wins(tmp_path: Path) -> None:
    write_restorer(tmp_path / "mine" / "restorer", dialect="natural")
    write_restorer(tmp_path / "shipped" / "restorer", dialect="attributes")
    write_portrait(tmp_path / "shipped" / "portrait")
    shelf = Shelf((tmp_path / "mine", tmp_path / "missing", tmp_path / "shipped"))
    assert list(shelf.names()) == ["portrait", "restorer"]
    assert shelf.open("restorer").root == tmp_path / "mine" / "restorer"
    assert shelf.open("portrait").root == tmp_path / "shipped" / "portrait"


@pytest.mark.parametrize(
    "name", ["..", ".", "", "../shelf/r", "r/", "/", "sub/r", "nothing", "r\0", "a" * 300, "\ud800"]
)
def test_a_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    """Bundles lie all about the shelf; only the one on it has a name."""
    write_restorer(tmp_path / "shelf" / "r")
    write_restorer(tmp_path / "shelf" / "sub" / "r")
    for outside in (tmp_path, tmp_path / "shelf"):
        shutil.copy(tmp_path / "shelf" / "r" / "bundle.json", outside)
    shelf = Shelf((tmp_path / "shelf",))
    assert list(shelf.names()) == ["r"]
    assert shelf.open("r").name == "r"
    with pytest.raises(NotFoundError):
        shelf.open(name)
    with pytest.raises(NotFoundError):
        shelf.open(str(tmp_path / "shelf" / "r"))


def test_a_bundle_that_is_being_built_is_not_on_the_shelf(tmp_path: Path) -> None:
    """toolchain/build.py works in `.<name>.building` beside the bundle's place."""
    write_restorer(tmp_path / ".restorer.building")
    assert list(Shelf((tmp_path,)).names()) == []


def test_every_name_on_the_shelf_opens_the_bundle_of_that_name(tmp_path: Path) -> None:
    """A copied folder keeps its old manifest. Front doors list bundle.name and ask for it again."""
    write_restorer(tmp_path / "copied", name="original")
    shelf = Shelf((tmp_path,))
    for name in shelf.names():
        try:
            assert shelf.open(name).name == name
        except BundleError:
            continue  # refusing it is as good


def test_a_manifest_cannot_point_out_of_its_folder(tmp_path: Path) -> None:
    """Bundles are exchanged between people: what they name must be theirs."""
    (tmp_path / "secret").write_text("not the bundle's")
    write_restorer(tmp_path / "r")
    sha256 = digest(tmp_path / "secret")
    for file in ("../secret", os.fspath(tmp_path / "secret")):
        part = {**SHARED, "role": "restorer", "format": "onnx", "file": file, "sha256": sha256}
        with pytest.raises(BundleError):
            write_manifest(tmp_path / "r", {"name": "r", "family": "gpen", "parts": [part]}).verify()
