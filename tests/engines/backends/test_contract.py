"""
The contract of every engine that is here, on every role: the signature's names, shapes and types, equal numbers, our
errors. And how an engine is chosen, and how it registers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from engines import backends
from engines.backends import Engine, ReleasesMemory, Session
from engines.bundle import Bundle, Role, Shelf
from engines.bundle.signatures import SIGNATURES
from engines.errors import BundleError, EngineError, EngineUnavailable
from engines.machine import cores
from engines.messages.status import Group
from tests.conftest import REPOSITORY
from tests.support.fakes import write_portrait
from tests.support.role_feeds import SIZES, feeds_of, load, wrong_feeds

Open = Callable[[str, Role], Session]


@pytest.fixture(scope="module")
def opened(built: Path) -> Open:
    """opened(engine, role): a session over the tiny bundles, loaded once. Skips an engine that cannot run here."""
    sessions: dict[tuple[str, Role], Session] = {}

    def open_session(name: str, role: Role) -> Session:
        if (name, role) not in sessions:
            sessions[name, role] = load(built, name, role)
        return sessions[name, role]

    return open_session


every_engine = pytest.mark.parametrize("name", backends.names())
every_role = pytest.mark.parametrize("role", list(SIGNATURES))


@every_engine
@every_role
def test_a_session_has_the_signature(opened: Open, name: str, role: Role) -> None:
    signature, session = SIGNATURES[role], opened(name, role)
    for sizes in ({}, {"T": 1, "h": 4, "w": 8, "H": 8, "W": 16}, {"T": 64, "h": 10, "w": 48, "H": 20, "W": 96}):
        outputs = session.run(feeds_of(role, **sizes))
        assert list(outputs) == [signature.output]
        result = outputs[signature.output]
        assert isinstance(result, np.ndarray) and result.dtype == np.float32
        every = {**SIZES, **sizes}
        assert result.shape == tuple(every[axis] if isinstance(axis, str) else axis for axis in signature.output_axes)
        assert np.isfinite(result).all() and result.std() > 1e-3


@every_engine
@every_role
def test_engines_agree(opened: Open, name: str, role: Role) -> None:
    if name == "ort":
        pytest.skip("the others are compared with it")
    for seed, sizes in enumerate(({}, {"T": 1, "h": 4, "w": 8}, {"T": 32, "h": 16, "w": 16})):
        feeds = feeds_of(role, seed, **sizes)
        (ours,), (reference,) = opened(name, role).run(feeds).values(), opened("ort", role).run(feeds).values()
        assert np.abs(ours - reference).max() <= 1e-4 * max(1.0, float(np.abs(reference).max()))


@every_engine
@every_role
def test_what_gave_its_memory_back_runs_as_before(opened: Open, name: str, role: Role) -> None:
    session, feeds = opened(name, role), feeds_of(role)
    if not isinstance(session, ReleasesMemory):
        pytest.skip(f"{name} keeps nothing between runs")
    before = session.run(feeds)
    session.release_memory()
    after = session.run(feeds)
    for key, array in before.items():
        np.testing.assert_array_equal(array, after[key])


@every_engine
@every_role
def test_a_call_depends_on_nothing_but_its_feeds(opened: Open, name: str, role: Role) -> None:
    """No state from call to call, no result that changes later, no feed that is written to."""
    session, feeds = opened(name, role), feeds_of(role)
    before = {key: array.copy() for key, array in feeds.items()}
    (first,) = session.run(feeds).values()
    kept = first.copy()
    (other,) = session.run(feeds_of(role, seed=9)).values()
    (again,) = session.run(feeds).values()
    assert (first == kept).all() and (again == kept).all() and (other != kept).any()
    assert all((feeds[key] == before[key]).all() for key in feeds)


@every_engine
@every_role
def test_feeds_need_not_be_contiguous_or_writable(opened: Open, name: str, role: Role) -> None:
    session, feeds = opened(name, role), feeds_of(role)
    (expected,) = session.run(feeds).values()
    strided = {key: np.asfortranarray(array) for key, array in feeds.items()}
    for array in feeds.values():
        array.flags.writeable = False
    for given in (strided, feeds):
        (result,) = session.run(given).values()
        assert np.abs(result - expected).max() <= 1e-5 * max(1.0, float(np.abs(expected).max()))


@every_engine
@every_role
@pytest.mark.parametrize(
    "what", ["another name", "one too few", "one too many", "another rank", "another type", "nothing"]
)
def test_wrong_feeds_are_engine_errors(opened: Open, name: str, role: Role, what: str) -> None:
    session = opened(name, role)
    with pytest.raises(EngineError, match=name):
        session.run(wrong_feeds(role)[what])
    session.run(feeds_of(role))  # and it still works


@every_engine
@pytest.mark.parametrize(
    ("role", "sizes"),
    [
        ("denoiser", {"C": 15}),
        ("denoiser", {"D": 23}),
        ("denoiser", {"h": 33}),
        ("decoder", {"C": 4}),
        ("restorer", {"N": 32}),
    ],
)
def test_wrong_shapes_are_engine_errors(opened: Open, name: str, role: Role, sizes: dict[str, int]) -> None:
    with pytest.raises(EngineError, match=name):
        opened(name, role).run(feeds_of(role, **sizes))


def test_wrong_shapes_are_errors_on_one_thread_too(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO would then give an empty array, or what it gave before, and say nothing."""
    openvino_backend = pytest.importorskip("engines.backends.openvino_backend", reason="OpenVINO is not installed")
    monkeypatch.setattr(openvino_backend, "cores", lambda: 1)
    bundle = Bundle.open(built / "portrait")
    session = openvino_backend.ENGINE.load(bundle, bundle.part("denoiser", openvino_backend.ENGINE.formats))
    for _ in range(2):
        with pytest.raises(EngineError, match="openvino"):
            session.run(feeds_of("denoiser", h=33))
        session.run(feeds_of("denoiser"))


@every_engine
def test_a_word_that_is_not_in_the_vocabulary_is_an_engine_error(opened: Open, name: str) -> None:
    with pytest.raises(EngineError, match=name):
        opened(name, "text_encoder").run({"ids": np.array([[1, 10**6]])})


@every_engine
def test_close_lets_go_of_the_graph(built: Path, name: str) -> None:
    session = load(built, name, "preview_decoder")
    session.run(feeds_of("preview_decoder"))
    session.close()
    with pytest.raises((EngineError, AttributeError)):
        session.run(feeds_of("preview_decoder"))


@every_engine
def test_weights_that_cannot_be_read_are_our_errors(built: Path, tmp_path: Path, name: str) -> None:
    engine = backends.engine(name)
    if not engine.probe().ok:
        pytest.skip(engine.probe().reason)
    bundle = write_portrait(tmp_path / "p")
    part = next(part for part in Bundle.open(built / "portrait").parts if part.format in engine.formats)
    for content in (b"", b"junk"):
        (tmp_path / "p" / part.file).mkdir(exist_ok=True)
        for file in ("model.onnx", "config.json", "model.safetensors", "diffusion_pytorch_model.safetensors"):
            (tmp_path / "p" / part.file / file).write_bytes(content)
        with pytest.raises((EngineError, BundleError)):
            engine.load(bundle, part)


def test_auto_takes_an_engine_and_says_what_became_of_the_others(tmp_path: Path) -> None:
    chosen, reason = backends.select(write_portrait(tmp_path / "p"))
    assert "onnx" in chosen.formats and reason.startswith(f"{chosen.name} on ")
    for name in backends.names():
        assert name in reason


@pytest.mark.parametrize(
    ("wanted", "expected"), [("pytorch", "torch"), ("torch", "torch"), ("edge", "ort"), ("ort", "ort"), ("auto", "ort")]
)
def test_what_is_wanted_is_taken(shelf: Shelf, wanted: str, expected: str) -> None:
    """On a machine with a CPU only, the compiled engine is preferred."""
    if any(probe.ok and probe.device != "CPU" for probe in (engine.probe() for engine in backends.engines())):
        pytest.skip("an accelerator is here, and wins")
    chosen, reason = backends.select(shelf.open("portrait"), wanted)
    assert chosen.name == expected and reason.startswith(f"{expected} on CPU")


def test_a_wanted_engine_that_cannot_read_the_bundle_is_refused_with_the_roles(tmp_path: Path) -> None:
    bundle = write_portrait(tmp_path / "p")  # parts in ONNX only
    with pytest.raises(EngineUnavailable) as caught:
        backends.select(bundle, "pytorch")
    assert caught.value.facts["wanted"] == "pytorch" and "torch: " in str(caught.value.facts["why"])
    if backends.engine("torch").probe().ok:
        assert "decoder, denoiser, preview_decoder, text_encoder" in str(caught.value)


@pytest.mark.parametrize("wanted", ["cuda", "", "Torch", "ort_backend", "../ort", "auto "])
def test_an_unknown_engine_is_refused_and_the_known_are_named(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        backends.select(write_portrait(tmp_path / "p"), wanted)
    assert caught.value.facts["wanted"] == wanted
    assert all(name in str(caught.value) for name in backends.names())


@every_engine
def test_an_engine_describes_itself(name: str) -> None:
    engine: Engine = backends.engine(name)
    probe = engine.probe()
    assert engine.name == name and engine.formats and probe.reason
    assert engine.group in get_args(Group) and isinstance(engine.rank, int) and isinstance(engine.trusted, bool)
    assert bool(probe.device) == probe.ok


def test_cores_are_those_of_this_process() -> None:
    pin = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code = f"{pin}; from engines.machine import cores; print(cores())"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1" and cores() >= 1


REGISTRATION = """
    import json, sys
    from pathlib import Path
    from engines import backends
    from engines.bundle import Bundle
    from engines.errors import EngineUnavailable
    heavy = ("torch", "diffusers", "transformers", "onnxruntime", "openvino", "tensorrt")
    folder, bundle = Path(sys.argv[1]), Bundle.open(Path(sys.argv[2]))
    backends.__path__.append(str(folder))
    told = {"names": backends.names()}
    for name in backends.names():
        backends.engine(name)
    told["imported"] = [name for name in heavy if name in sys.modules]
    for wanted in ("auto", "gpu", "edge", "pytorch", "broken", "picky"):
        try:
            engine, reason = backends.select(bundle, wanted)
            told[wanted] = [engine.name, reason]
        except EngineUnavailable as exc:
            told[wanted] = ["", str(exc)]
    print(json.dumps(told))
"""
BACKEND = """
from engines.backends import Probe
class Engine:
    name, formats = {name!r}, frozenset({formats!r})
    group, rank, trusted = {group!r}, {rank}, False
    def probe(self): return Probe({ok}, {device!r}, {reason!r})
ENGINE = Engine()
"""


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a program says that finds three more files among the backends, and one that is none."""
    folder = tmp_path_factory.mktemp("backends")
    for name, group, rank, formats, ok, device, reason in (
        ("gpu", "edge", 0, ["onnx"], True, "ACME 9000", "driver 1"),
        ("broken", "pytorch", 9, ["onnx"], False, "", "no driver"),
        ("picky", "edge", 9, ["tensorrt"], True, "ACME 9000", "driver 1"),
    ):
        text = BACKEND.format(name=name, group=group, rank=rank, formats=formats, ok=ok, device=device, reason=reason)
        (folder / f"{name}_backend.py").write_text(text)
    (folder / "backend_of_nothing.py").write_text("raise SystemExit('was imported')")
    bundle = write_portrait(tmp_path_factory.mktemp("shelf") / "p")
    command = [sys.executable, "-c", textwrap.dedent(REGISTRATION), str(folder), str(bundle.root)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told: dict[str, list[str]] = json.loads(done.stdout)
    return told


def test_the_file_name_is_the_registration(registered: dict[str, list[str]]) -> None:
    assert set(registered["names"]) == {*backends.names(), "gpu", "broken", "picky"}


def test_importing_every_backend_imports_no_runtime(registered: dict[str, list[str]]) -> None:
    assert registered["imported"] == []


def test_an_accelerator_wins_over_the_cpu(registered: dict[str, list[str]]) -> None:
    name, reason = registered["auto"]
    assert name == "gpu" and reason.startswith("gpu on ACME 9000, driver 1")
    assert registered["gpu"] == ["gpu", "gpu on ACME 9000, driver 1"]


def test_a_new_engine_takes_its_place_by_what_its_file_says(registered: dict[str, list[str]]) -> None:
    """Group and rank are the engine's own: nothing else had to be edited."""
    assert registered["names"][0] == "gpu" and registered["names"][-2:] == ["broken", "picky"]
    (edge, why_edge), (_, why_pytorch) = registered["edge"], registered["pytorch"]
    assert edge == "gpu" and "picky: " in why_edge and "broken" not in why_edge
    assert "broken: no driver" in why_pytorch and "gpu" not in why_pytorch


def test_the_reason_names_every_engine_that_was_not_taken(registered: dict[str, list[str]]) -> None:
    reason = registered["auto"][1]
    assert (
        "broken: no driver" in reason and "picky: cannot read this bundle's" in reason and "ort: also ready" in reason
    )


def test_a_refusal_says_why(registered: dict[str, list[str]]) -> None:
    assert registered["broken"] == ["", "p: broken: no driver"]
    assert registered["picky"][1].startswith("p: picky: cannot read this bundle's decoder, denoiser")
