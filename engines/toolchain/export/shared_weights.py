"""
One copy of the weights: the ONNX graph of a part reads the checkpoint's own bytes.

An ONNX tensor may lie outside the model file, at an offset of another one, and a safetensors file is a header followed
by raw tensors. So each weight of the graph that equals a tensor of the checkpoint beside it is replaced by a reference
to those bytes, and a Cast to float32 where they are stored narrower; engines fold the casts when they load. The bundle
is half as large, and PyTorch and the compiled engines cannot drift apart. Weights are matched by content, so that no
naming rule is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines.files import StoredTensor, safetensors_header

SMALL_BYTES = 1024  # less is not worth a reference and a Cast
STORED = {
    "F32": (np.dtype(np.float32), TensorProto.FLOAT),
    "F16": (np.dtype(np.float16), TensorProto.FLOAT16),
    "BF16": (np.dtype(ml_dtypes.bfloat16), TensorProto.BFLOAT16),
}


def share_weights(model_path: Path, weights_path: Path) -> int:
    """Rewrite the model in place; both files lie in one folder. Returns the bytes of float32 that left the model."""
    model = onnx.load(model_path)
    by_content = {_key(array): stored for array, stored in _tensors(weights_path)}
    casts, saved = [], 0
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        stored = by_content.get(_key(array)) if array.dtype == np.float32 and array.nbytes >= SMALL_BYTES else None
        if stored is not None:
            casts.append(_refer(tensor, stored, weights_path.name))
            saved += array.nbytes
    for node in reversed(casts):
        model.graph.node.insert(0, node)
    onnx.save(model, model_path)
    model_path.with_name(f"{model_path.name}.data").unlink(missing_ok=True)  # where the exporter put what is shared now
    return saved


def _key(array: NDArray[Any]) -> tuple[tuple[int, ...], bytes]:
    return array.shape, hashlib.sha256(np.ascontiguousarray(array, dtype=np.float32).tobytes()).digest()


def _tensors(path: Path) -> Iterator[tuple[NDArray[Any], StoredTensor]]:
    """Yield each tensor of a safetensors file whose type a graph can refer to, and where it lies."""
    raw = path.read_bytes()
    for tensor in safetensors_header(path).values():
        if tensor.dtype in STORED:
            data = raw[tensor.offset : tensor.offset + tensor.length]
            yield np.frombuffer(data, STORED[tensor.dtype][0]).reshape(tensor.shape), tensor


def _refer(tensor: TensorProto, stored: StoredTensor, location: str) -> onnx.NodeProto:
    """Empty the tensor, point it outside, and return the Cast that gives its old name the old values."""
    name = tensor.name
    tensor.Clear()
    tensor.name = f"{name}.stored"
    tensor.dims.extend(stored.shape)
    tensor.data_type = STORED[stored.dtype][1]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", stored.offset), ("length", stored.length)):
        tensor.external_data.add(key=key, value=str(value))
    return helper.make_node("Cast", [tensor.name], [name], name=f"{name}.cast", to=TensorProto.FLOAT)
