"""
An engine whose networks are a few lines of numpy, and bundles for it. They keep every contract that real ones keep.

The fake denoiser pulls nine tenths of the way to a picture that the caption names, so its guess of the clean latent is
recognisable at every step while the noise still shows in the result. The two decoders differ, so a test sees which one
drew.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from engines import backends, images
from engines.backends import Engine, Probe, Session, engine
from engines.bundle import PROOF, Bundle, FaceInput, Format, Part, Role, Sampling, Text, digest
from engines.bundle.signatures import SIGNATURES, Array
from engines.errors import EngineUnavailable
from engines.messages.status import Group
from engines.roles.loaded import LoadedBundle
from engines.studio.proof import Case, Proof, make

STRIDE = 8
WIDTH = 4  # of an embedding
PORTRAIT_ROLES: tuple[Role, ...] = ("text_encoder", "denoiser", "decoder", "preview_decoder")
Spoil = Callable[[Array], Array]
Sees = Callable[[Array], Sequence[Array]]  # a picture (H, W, 3) uint8 -> landmarks (5, 2) of each face in it


def target(cells: tuple[int, ...], prompt: Array) -> Array:
    """What the fake denoiser is drawn to: a slope whose height the caption decides. (1, C, h, w)"""
    slope = np.linspace(-0.6, 0.6, cells[3], dtype=np.float32)
    return np.broadcast_to(slope + np.float32(prompt.mean()), cells).astype(np.float32)


def _text_encoder(feeds: Mapping[str, Array]) -> Array:
    return np.repeat(feeds["ids"][..., None] / np.float32(1024), WIDTH, axis=-1).astype(np.float32)


def _denoiser(feeds: Mapping[str, Array]) -> Array:
    """Z-Image's sign and time: from noise to picture, 0 = noise."""
    x, sigma = feeds["latents"], 1 - feeds["time"][0]
    pull: Array = np.float32(0.9) * (target(x.shape, feeds["prompt"]) - x) / np.float32(sigma)
    return pull


def _decoder(feeds: Mapping[str, Array]) -> Array:
    return np.repeat(np.repeat(feeds["latents"][:, :3], STRIDE, 2), STRIDE, 3)


def _preview_decoder(feeds: Mapping[str, Array]) -> Array:
    return -_decoder(feeds)


def _encoder(feeds: Mapping[str, Array]) -> Array:
    """The decoder's way back; the fourth channel is nothing's."""
    image = feeds["image"][0]
    cells = image.reshape(3, image.shape[1] // STRIDE, STRIDE, image.shape[2] // STRIDE, STRIDE).mean((2, 4))
    return np.concatenate([cells, 0 * cells[:1]])[None].astype(np.float32)


def _restorer(feeds: Mapping[str, Array]) -> Array:
    return (feeds["face"] * np.float32(0.5) + np.float32(0.25)).clip(-1, 1)


def nobody(picture: Array) -> Sequence[Array]:
    return ()


def candidates(fed: Array, people: Sequence[Array]) -> Array:
    """CenterFace's rows for faces of which the landmarks are known, the surest first. (1, 3, H, W) -> (1, n, 15)"""
    columns = fed.shape[3] // 4
    rows = np.zeros((1, fed.shape[2] // 4 * columns, 15), np.float32)
    for k, landmarks in enumerate(people):
        size = 2 * (landmarks.max(0) - landmarks.min(0))  # of the box: width, height
        centre = (landmarks.max(0) + landmarks.min(0)) / 2
        column, row = (centre // 4).astype(int)
        right, down = centre / 4 - (column, row) - 0.5
        marks = (landmarks - centre + size / 2) / size
        rows[0, row * columns + column, :5] = 0.95 - 0.02 * k, *np.log(size[::-1] / 4), down, right
        rows[0, row * columns + column, 5:] = marks[:, ::-1].ravel()
    return rows


ANSWERS: Mapping[Role, Callable[[Mapping[str, Array]], Array]] = {
    "text_encoder": _text_encoder,
    "denoiser": _denoiser,
    "decoder": _decoder,
    "preview_decoder": _preview_decoder,
    "encoder": _encoder,
    "restorer": _restorer,
}


@dataclass
class FakeClock:
    """Time that passes only while somebody sleeps in it: what a busy machine cannot disturb."""

    now: float = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class FakeEngine:
    """
    `spoil` changes what a role returns; `slow_s` is what a call costs; `calls` lists the roles that ran, `opened` and
    `closed` the sessions. `sees` is the eye of its face detector, which is shown black beyond the picture. `sleep` lets
    time pass, the true one unless a test has a clock of its own.
    """

    name: str = "fake"
    formats: frozenset[Format] = frozenset({"onnx"})
    group: Group = "edge"
    rank: int = 9
    trusted: bool = False
    spoil: dict[Role, Spoil] = field(default_factory=dict)
    slow_s: dict[Role, float] = field(default_factory=dict)
    calls: list[Role] = field(default_factory=list)
    opened: list[Role] = field(default_factory=list)
    closed: list[Role] = field(default_factory=list)
    sees: Sees = nobody
    sleep: Callable[[float], None] = time.sleep

    def probe(self) -> Probe:
        return Probe(True, "CPU", "always ready", "fake 1.0")

    def load(self, bundle: Bundle, part: Part) -> Session:
        self.opened.append(part.role)
        return FakeSession(self, part.role)

    def select(self, bundle: Bundle, wanted: str, *, passed_over: int = 0) -> tuple[Engine, str]:
        """There is no other."""
        if passed_over:
            raise EngineUnavailable(bundle.name, wanted=wanted, why="no other")
        return self, f"fake, asked for {wanted}"


@dataclass
class FakeSession:
    engine: FakeEngine
    role: Role

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        assert set(feeds) == set(SIGNATURES[self.role].inputs)
        self.engine.calls.append(self.role)
        self.engine.sleep(self.engine.slow_s.get(self.role, 0.0))
        result = self._seen(feeds["picture"]) if self.role == "face_detector" else ANSWERS[self.role](feeds)
        return {SIGNATURES[self.role].output: self.engine.spoil.get(self.role, np.asarray)(result)}

    def _seen(self, fed: Array) -> Array:
        return candidates(fed, self.engine.sees(fed[0].transpose(1, 2, 0).astype(np.uint8)))

    def close(self) -> None:
        self.engine.closed.append(self.role)


def waves(width: int, height: int) -> Array:
    """A picture like no other: every part of it differs, in every channel. (H, W, 3) uint8"""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    slopes = np.stack([x / width, y / height, (np.sin(x / 7) * np.cos(y / 5) + 1) / 2], -1)
    return np.asarray(np.rint(slopes * 255), dtype=np.uint8)


def tokenizer() -> Tokenizer:
    """One token a byte, and the two marks of a template: every text has tokens, Chinese too."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return made


def write_portrait(root: Path, roles: tuple[Role, ...] = PORTRAIT_ROLES, **changes: object) -> Bundle:
    """A bundle of the fake engine on disk. `changes` replace what its manifest says."""
    root.mkdir(parents=True)
    tokenizer().save(str(root / "tokenizer.json"))
    values: dict[str, object] = {
        "name": root.name,
        "family": "zimage",
        "parts": _write_parts(root, roles),
        "sampling": asdict(Sampling(4, 3.0, 4, STRIDE, 0.5, 0.1)),
        "text": asdict(Text("tokenizer.json", digest(root / "tokenizer.json"), "<|im_start|>{prompt}<|im_end|>")),
        "sizes": [[64, 64], [96, 64]],
        "dialect": "attributes",
        "title": {"zh": "假", "en": "Fake"},
    }
    return write_manifest(root, {**values, **changes})


def write_restorer(root: Path, **changes: object) -> Bundle:
    root.mkdir(parents=True)
    values = {
        "name": root.name,
        "family": "gpen",
        "parts": _write_parts(root, ("restorer",)),
        "face": asdict(FaceInput(32)),
    }
    return write_manifest(root, {**values, **changes})


def write_detector(root: Path, **changes: object) -> Bundle:
    root.mkdir(parents=True)
    parts = _write_parts(root, ("face_detector",))
    values = {"name": root.name, "family": "centerface", "parts": parts, "face": asdict(FaceInput(1600))}
    return write_manifest(root, {**values, **changes})


def write_manifest(root: Path, values: Mapping[str, object]) -> Bundle:
    (root / "bundle.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    return Bundle.open(root)


def add_proof(bundle: Bundle, cases: Sequence[Case], reference: Engine | None = None) -> Bundle:
    """The bundle with what the reference makes of each case as its proof. A case's face must lie in proof/ already."""
    folder = bundle.root / PROOF
    folder.mkdir(exist_ok=True)
    loaded = LoadedBundle(bundle, reference or FakeEngine())
    for case in cases:
        with tempfile.TemporaryDirectory() as scratch:
            images.write_png(folder / case.want, make(loaded, case, Path(scratch)).picture)
    (folder / "proof.json").write_text(json.dumps(asdict(Proof("fake 1.0 fp32", tuple(cases)))), encoding="utf-8")
    manifest = json.loads((bundle.root / "bundle.json").read_text(encoding="utf-8"))
    return write_manifest(bundle.root, {**manifest, "extras": {PROOF: digest(folder)}})


def builtin_with_proof(builtin: Path, root: Path) -> Bundle:
    """The built-in restorer, for true engines to be proved on against one face that ONNX Runtime restored."""
    shutil.copytree(builtin / "restorer", root)
    shutil.rmtree(root / PROOF, ignore_errors=True)
    (root / PROOF).mkdir()
    bundle = Bundle.open(root)
    side = bundle.need(bundle.face, "face").size_px
    y, x = np.mgrid[0:side, 0:side]
    face = np.stack((x % 256, y % 256, (x + y) // 2 % 256), -1).astype(np.uint8)
    images.write_png(root / PROOF / "face.png", face)
    exact = backends.candidates(bundle, engine("ort"))[0].engine
    return add_proof(bundle, [Case("1.png", face="face.png")], exact)


def _write_parts(root: Path, roles: tuple[Role, ...]) -> list[dict[str, str]]:
    for role in roles:
        (root / f"{role}.onnx").write_text(f"the weights of the fake {role}")
    parts = [Part(role, f"{role}.onnx", "onnx", "fp32", digest(root / f"{role}.onnx"), "none") for role in roles]
    return [asdict(part) for part in parts]
