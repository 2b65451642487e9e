"""Which part runs on which engine: one way for each precision, and each part is opened where it is placed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from engines.backends import Engine, Probe
from engines.backends.arrangement import Arrangement, arrangements, coarsest, read, spelled
from engines.bundle import Bundle, Format, Part, Precision, Role, Shelf
from engines.errors import BundleError
from engines.roles.loaded import LoadedBundle, LoadedBundles
from engines.roles.memory import too_large
from tests.support.fakes import FakeEngine, write_portrait, write_restorer


def part(role: Role, precision: Precision, kind: Format = "onnx") -> Part:
    return Part(role, f"{role}-{precision}", kind, precision, f"{role}{precision}{kind}", "")


DENOISER, DECODER = part("denoiser", "fp32"), part("decoder", "fp32")


def bundle_with(tmp_path: Path, *parts: Part) -> Bundle:
    return replace(write_restorer(tmp_path / "r"), parts=parts)


def ways(bundle: Bundle, engine: Engine, refused: str = "") -> list[list[tuple[Role, Precision]]]:
    found = arrangements(bundle, engine, lambda part: "no" if part.precision == refused else "")
    return [[(part.role, part.precision) for part in way.parts] for way in found]


def test_each_precision_is_a_way_and_a_role_without_it_takes_the_next_finer(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path, part("decoder", "bf16", "openvino"), DECODER, part("denoiser", "int8"), DENOISER)
    openvino = FakeEngine(formats=frozenset({"onnx", "openvino"}))
    assert ways(bundle, openvino) == [
        [("decoder", "fp32"), ("denoiser", "fp32")],
        [("decoder", "bf16"), ("denoiser", "fp32")],
        [("decoder", "bf16"), ("denoiser", "int8")],
    ]
    assert ways(bundle, FakeEngine()) == [
        [("decoder", "fp32"), ("denoiser", "fp32")],
        [("decoder", "fp32"), ("denoiser", "int8")],
    ], "what it cannot read is no way of its own"
    assert ways(bundle, openvino, "int8") == ways(bundle, openvino)[:2], "nor what it refuses"
    assert ways(bundle, openvino, "fp32") == [[("decoder", "bf16"), ("denoiser", "int8")]], "no finer one is there"


def test_a_role_that_cannot_be_read_leaves_no_way(tmp_path: Path) -> None:
    assert ways(bundle_with(tmp_path, DENOISER, part("decoder", "fp32", "diffusers")), FakeEngine()) == []


def test_of_equals_the_first_in_the_bundle_is_taken(tmp_path: Path) -> None:
    first, second = part("denoiser", "int8"), replace(part("denoiser", "int8"), file="other")
    (way,) = arrangements(bundle_with(tmp_path, first, second), FakeEngine(), lambda part: "")
    assert way.parts == (first,)


def test_the_coarsest_counts() -> None:
    assert coarsest([DENOISER, part("decoder", "int8"), part("encoder", "bf16")]) == "int8"
    assert coarsest([]) is None


@dataclass
class Speaking(FakeEngine):
    said: Probe = field(default_factory=lambda: Probe(True, "CPU", "2 threads", "v1"))

    def probe(self) -> Probe:
        return self.said


ORT = Speaking("ort", rank=3, trusted=True)
OPENVINO = Speaking("openvino", rank=2, said=Probe(True, "CPU", "2 threads", "v2"))
TORCH = Speaking("torch", group="pytorch", formats=frozenset({"diffusers"}), trusted=True)
MIXED = Arrangement(((DECODER, ORT), (DENOISER, OPENVINO)))


def test_of_one_engine_it_is_that_engine() -> None:
    alone = Arrangement(((DECODER, ORT), (DENOISER, ORT)))
    assert (alone.name, alone.group, alone.rank, alone.trusted, alone.formats) == (
        "ort", "edge", 3, True, frozenset({"onnx"}),
    )  # fmt: skip
    assert alone.probe() == ORT.probe()


def test_of_several_it_is_what_all_of_them_are() -> None:
    assert (MIXED.name, MIXED.group, MIXED.rank, MIXED.trusted) == ("openvino+ort", "edge", 3, False)
    assert MIXED.probe() == Probe(True, "CPU", "2 threads", "v2, v1")
    absent = Speaking("gpu", said=Probe(False, "GPU", "no driver"))
    with_it = Arrangement(((DECODER, absent), (DENOISER, ORT))).probe()
    assert not with_it.ok and "no driver" in with_it.reason and with_it.device == "GPU+CPU"
    assert Arrangement(((DECODER, TORCH), (DENOISER, ORT))).group == "pytorch"


def test_each_part_is_opened_where_it_is_placed(tmp_path: Path) -> None:
    bundle = write_portrait(tmp_path / "p", ("denoiser", "decoder"))
    ort, openvino = FakeEngine("ort"), FakeEngine("openvino")
    denoiser, decoder = bundle.parts
    loaded = LoadedBundle(bundle, Arrangement(((decoder, ort), (denoiser, openvino))))
    loaded.load_all()
    assert (ort.opened, openvino.opened) == (["decoder"], ["denoiser"])
    assert loaded.decoder.decode(np.zeros((1, 4, 2, 2), np.float32) + np.float32(0.1)).shape == (16, 16, 3)
    with pytest.raises(BundleError, match="has no encoder on openvino"):
        loaded.part("encoder")


def test_the_part_that_was_chosen_is_loaded_whatever_the_bundle_lists_first(tmp_path: Path) -> None:
    bundle = write_restorer(tmp_path / "restorer")
    coarse = replace(bundle.parts[0], precision="int8")
    both = replace(bundle, parts=(coarse, bundle.parts[0]))
    (exact, rounded) = arrangements(both, FakeEngine(), lambda part: "")
    assert LoadedBundle(both, exact).part("restorer").precision == "fp32"
    assert LoadedBundle(both, rounded).part("restorer").precision == "int8"


def test_another_precision_on_the_same_engine_takes_the_place_of_the_first(tmp_path: Path) -> None:
    engine, bundle = FakeEngine(), write_restorer(tmp_path / "restorer")
    coarse = Arrangement(((replace(bundle.parts[0], precision="int8"), engine),))
    chosen: list[Engine] = [engine, coarse]
    loaded_bundles = LoadedBundles(Shelf((tmp_path,)), lambda bundle, wanted, passed_over: (chosen[0], "why"))
    first, _ = loaded_bundles.get("restorer", "auto")
    first.load_all()
    del chosen[0]
    second, _ = loaded_bundles.get("restorer", "auto")
    assert second is not first and engine.closed == ["restorer"]
    assert loaded_bundles.get("restorer", "auto")[0] is second


def test_it_is_spelled_for_another_process(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path, DENOISER, part("decoder", "bf16"), DECODER)
    text = spelled(bundle, MIXED)
    assert text == "decoder=ort:2,denoiser=openvino:0"
    assert read(bundle, text, {"ort": ORT, "openvino": OPENVINO}.__getitem__) == MIXED
    for broken in ("decoder", "decoder=ort:x"):
        with pytest.raises(ValueError, match="invalid literal"):
            read(bundle, broken, {"ort": ORT, "": ORT}.__getitem__)


def test_what_no_memory_is_there_for_is_said_before_it_is_tried(tmp_path: Path) -> None:
    bundle = write_portrait(tmp_path / "p")
    assert too_large(bundle, bundle.parts, "ort", budget=lambda: 10**12) == ""
    why = too_large(bundle, bundle.parts, "ort", budget=lambda: 1000)
    assert why.endswith("GB of memory needed, 0.0 GB available")
    restorer = write_restorer(tmp_path / "r")
    assert too_large(restorer, restorer.parts, "ort", budget=lambda: 1000) == "", "it draws nothing large"
