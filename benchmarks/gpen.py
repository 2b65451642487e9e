"""
How much faster than upstream's formulation the engines restore a face: GPEN at its official sizes, random weights.

Nothing but the network is timed, one face, all engines in turn. Decibels are against PyTorch in float32.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import head, in_turn
from benchmarks.upstream_gpen import upstream
from engines import backends, machine
from engines.backends import Session
from engines.bundle import Bundle, Part, Precision
from engines.bundle.signatures import Array
from engines.networks.gpen import GPEN, Spec
from engines.networks.restorer import RestorerGraph
from engines.toolchain.export import example, export, fold_weights
from engines.toolchain.quantize import calibration, quantize
from engines.toolchain.recipe import Treatment

OFFICIAL = {256: (1, 0.5), 512: (2, 1.0)}  # channel multiplier, narrow
ROUNDS = {256: 11, 512: 5}


def main() -> None:
    for size_px in OFFICIAL:
        _compare(size_px)


def _compare(size_px: int) -> None:
    network, faces = _network(size_px), calibration.of_faces(list(calibration.faces(None, size_px, 4)))
    face = torch.from_numpy(faces[0]["face"])
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        bundle = _exported(network, size_px, faces, Path(folder))
        sessions = dict(_sessions(bundle))
        slow = upstream(network)
        calls = {"upstream, PyTorch fp32": lambda: slow(face), "PyTorch fp32": lambda: network(face)}
        calls |= {name: partial(session.run, faces[0]) for name, session in sessions.items()}
        seconds = in_turn(calls, ROUNDS[size_px])
        wanted = network(face).clamp(-1, 1).numpy()
        equal = _db(slow(face).clamp(-1, 1).numpy(), wanted)
    millions = sum(value.numel() for value in network.parameters()) / 1e6
    title = f"GPEN-{size_px}, {millions:.1f} M parameters, {machine.cores()} threads"
    head(f"{title}; both formulations agree to {equal:.0f} dB", "", "seconds a face", "times faster", "dB")
    reference = seconds["upstream, PyTorch fp32"]
    for name, taken in seconds.items():
        db = f"{_db(sessions[name].run(faces[0])['restored'], wanted):.1f}" if name in sessions else ""
        print(f"| {name} | {taken:.4f} | {reference / taken:.1f} | {db} |")


def _network(size_px: int) -> GPEN:
    torch.manual_seed(0)
    network = GPEN(Spec.official(size_px, *OFFICIAL[size_px])).eval().requires_grad_(False)
    for name, value in network.named_parameters():
        if name.endswith("noise.weight"):
            value.fill_(0.3)  # or the encoder's features would not count
    return network


def _exported(network: GPEN, size_px: int, faces: list[calibration.Feeds], folder: Path) -> Bundle:
    """restorer/ in float32 and restorer-int8/."""
    feeds, how = example("restorer", {"N": size_px}), Treatment("static", ("Conv",))
    for name in ("restorer", "restorer-int8"):
        (folder / name).mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(RestorerGraph(network, 0.0), "restorer", feeds, folder / "restorer" / "model.onnx")
        phased = RestorerGraph(copy.deepcopy(network), 0.0).in_phases()
        export(phased, "restorer", feeds, folder / "phased.onnx")
    fold_weights(folder / "phased.onnx", folder / "folded.onnx")
    quantize(folder / "folded.onnx", folder / "restorer-int8" / "model.onnx", how, faces, lambda line: None)
    return Bundle("gpen", "gpen", folder, ())


def _sessions(bundle: Bundle) -> Iterator[tuple[str, Session]]:
    wanted: list[tuple[str, str, Precision]] = [("ort", "restorer", "fp32"), ("ort", "restorer-int8", "int8")]
    wanted += [
        ("openvino", "restorer", "fp32"),
        ("openvino", "restorer", "bf16"),
        ("openvino", "restorer-int8", "int8"),
    ]
    for name, file, precision in wanted:
        part = Part("restorer", file, "onnx", precision, "", "")
        yield f"{name} {precision}", backends.engine(name).load(replace(bundle, parts=(part,)), part)


def _db(result: Array, wanted: Array) -> float:
    return float(10 * np.log10(4 / max(1e-20, float(np.square(result.astype(np.float64) - wanted).mean()))))
