"""Takes in a restorer that somebody else exported (gpen_bfr_*.onnx): its input and output get our names."""

from __future__ import annotations

from pathlib import Path

import onnx

from engines.bundle import Role
from engines.bundle.signatures import SIGNATURES
from engines.errors import BundleError


def adopt(source: Path, target: Path, role: Role) -> None:
    """Write the graph under the role's signature. BundleError: what `checked` refuses."""
    model, signature = onnx.load(source, load_external_data=False), SIGNATURES[role]
    constants = {tensor.name for tensor in model.graph.initializer}
    (given,) = (value.name for value in model.graph.input if value.name not in constants)
    (wanted,) = signature.inputs
    _rename(model.graph, {given: wanted, model.graph.output[0].name: signature.output})
    for item in (model, model.graph, *model.graph.node):
        item.ClearField("doc_string")
    onnx.save(checked(model, source), target)


def checked(model: onnx.ModelProto, source: Path) -> onnx.ModelProto:
    """
    Return the same model. BundleError: it is no valid ONNX, has operators of other domains, which could be anybody's
    code, or reads other files, which could be any.
    """
    domains = {entry.domain for entry in model.opset_import} | {node.domain for node in model.graph.node}
    if foreign := sorted(domains - {"", "ai.onnx"}):
        raise BundleError(f"{source.name} uses operators of {', '.join(foreign)}", bundle=source.name)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise BundleError(f"{source.name} keeps weights in another file, which is not followed", bundle=source.name)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as exc:
        raise BundleError(f"{source.name}: {exc}", bundle=source.name) from exc
    return model


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)
        for i, name in enumerate(node.output):
            node.output[i] = names.get(name, name)
