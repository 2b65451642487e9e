"""
From a graph (engines/networks) to ONNX, with the role's signature: names, and which axes may vary.

The exporter's optimiser would store transposed copies of weights; here they stay as the checkpoint has them, so that
shared_weights.py can point the graph at the checkpoint's own bytes. Engines fold the transpositions away when they
load.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import onnxscript.optimizer
import torch
from torch import Tensor, nn
from torch.export import Dim

from engines.bundle import Role
from engines.bundle.signatures import SIGNATURES
from engines.toolchain.export.group_norm import group_norm

EXAMPLE_SIZES: Mapping[str, int] = {"T": 9, "h": 16, "w": 18, "H": 64, "W": 96}  # nothing special but that they differ
OTHER_SIZES: Mapping[str, int] = {"T": 40, "h": 20, "w": 12, "H": 128, "W": 80}
ONE_FILE_BYTES = 1_500_000_000  # protobuf's limit is 2 GiB, the graph itself included
LARGE = 4096  # numbers in a weight: the optimiser compares smaller ones, and merges those that are equal
# Axes that may vary, with their ranges. Latent sides are even: the denoiser takes patches of two by two cells.
# A photo's sides are such patches in pixels, of two a cell at least.
_ROWS, _COLUMNS, _TOKENS = Dim("rows", min=1, max=512), Dim("columns", min=1, max=512), Dim("tokens", min=1, max=512)
DYNAMIC: dict[str, dict[int, Any]] = {
    "latents": {2: 2 * _ROWS, 3: 2 * _COLUMNS},
    "image": {2: 4 * _ROWS, 3: 4 * _COLUMNS},
    "prompt": {1: _TOKENS},
    "ids": {1: _TOKENS},
}
# By role, what is translated otherwise than the library does. Of Stable Diffusion's U-Net no step became faster.
NORMS: dict[Any, Any] = {torch.ops.aten.group_norm.default: group_norm}
TRANSLATIONS: Mapping[Role, dict[Any, Any]] = {"decoder": NORMS, "encoder": NORMS}


def export(graph: nn.Module, role: Role, feeds: Mapping[str, Tensor], path: Path) -> None:
    """
    Write `path` (one file, weights inside; beyond 2 GB they lie in a second one, `path`.data) and check it. `feeds` are
    examples: sizes above 1 on every axis that may vary.
    """
    program = _traced(graph, role, feeds)
    onnxscript.optimizer.optimize_ir(program.model, should_fold=_not_a_weight)
    program.save(path)
    model = onnx.load(path, load_external_data=False)  # more than 2 GB of weights lie beside it
    _strip(model)
    onnx.save(model, path)
    onnx.checker.check_model(path, full_check=True)


def fold_weights(path: Path, target: Path) -> None:
    """
    Write the graph that `export` wrote to `path` with its weights stored as they are used, for those who go on to
    change them. Tracing takes ten times as long, so that this reads what was traced before. `target` is another file.
    """
    model = ir.load(path)
    onnxscript.optimizer.optimize_ir(model)
    large = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    ir.save(model, target, external_data=f"{target.name}.data" if large > ONE_FILE_BYTES else None)


def export_hollow(graph: nn.Module, role: Role, feeds: Mapping[str, Tensor]) -> onnx.ModelProto:
    """
    Return the graph in float32 without the module's LARGE parameters, however many and whatever their type: each is an
    initializer of the parameter's name that points at a file which is not there.
    """
    with hollow(graph) as names:
        program = _traced(graph, role, feeds)
        onnxscript.optimizer.optimize_ir(program.model, should_fold=_not_a_weight)
        for name, value in program.model.graph.initializers.items():
            if name in names and value.dtype is not None:
                shape = ir.Shape(names[name])
                value.const_value = ir.ExternalTensor("nowhere", 0, 0, value.dtype, shape=shape, name=name)
        model: onnx.ModelProto = ir.to_proto(program.model)
    _strip(model)
    return model


@contextmanager
def hollow(graph: nn.Module) -> Iterator[Mapping[str, torch.Size]]:
    """
    Give the parameters of LARGE size no memory meanwhile, pages that nobody has written to: they must not be read. All
    are float32. Yields the shapes of the LARGE ones by name.
    """
    originals = {name: parameter.data for name, parameter in graph.named_parameters()}
    large = {name: value.shape for name, value in originals.items() if value.numel() >= LARGE}
    try:
        for name, parameter in graph.named_parameters():
            parameter.data = torch.empty(large[name]) if name in large else originals[name].float()
        yield large
    finally:
        for name, parameter in graph.named_parameters():
            parameter.data = originals[name]


def _traced(graph: nn.Module, role: Role, feeds: Mapping[str, Tensor]) -> torch.onnx.ONNXProgram:
    signature = SIGNATURES[role]
    inputs = [name for name in (*signature.inputs, *signature.optional) if name in feeds]
    logging.getLogger("torch.onnx").setLevel(
        logging.ERROR
    )  # it warns about operators of torchvision, which is not used
    program = torch.onnx.export(
        graph,
        tuple(feeds[name] for name in inputs),
        dynamo=True,
        optimize=False,
        verbose=False,
        input_names=inputs,
        output_names=[signature.output],
        dynamic_shapes=tuple(DYNAMIC.get(name) for name in inputs),
        opset_version=20,
        custom_translation_table=TRANSLATIONS.get(role),
    )
    assert program is not None  # None only when it was asked to write a file itself
    return program


def example(
    role: Role, widths: Mapping[str, int], other: bool = False, optional: Collection[str] = ()
) -> dict[str, Tensor]:
    """
    Return feeds to trace with, or `other` ones, of other sizes and contents, to check with; with these optional inputs.
    """
    signature = SIGNATURES[role]
    inputs = {**signature.inputs, **{name: signature.optional[name] for name in optional}}
    sizes = {**(OTHER_SIZES if other else EXAMPLE_SIZES), **widths}
    generator = torch.Generator().manual_seed(int(other))
    shapes = {name: [sizes[axis] if isinstance(axis, str) else axis for axis in axes] for name, axes in inputs.items()}
    feeds = {name: torch.rand(*shape, generator=generator) for name, shape in shapes.items()}
    return {name: (array * 9).long() if name == "ids" else array for name, array in feeds.items()}


def parity(graph: nn.Module, role: Role, feeds: Mapping[str, Tensor], path: Path) -> float:
    """
    Return the largest difference between PyTorch and ONNX Runtime in float32, as a share of the largest output (of 1 at
    least).
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        wanted = graph(**feeds).numpy()
    (result,) = session.run(None, {name: array.numpy() for name, array in feeds.items()})
    return float(np.abs(result - wanted).max() / max(1.0, np.abs(wanted).max()))


def _strip(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes on the source code: they are most of a small graph, and hold this machine's paths."""
    graph = model.graph
    for item in (graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    model.ClearField("metadata_props")


def _not_a_weight(node: Any) -> bool | None:
    """
    Return False for a transposed or cast weight, which must not be stored a second time; None leaves the decision to
    the optimiser.
    """
    of_weights = any(value is not None and value.is_initializer() for value in node.inputs)
    return False if of_weights else None
