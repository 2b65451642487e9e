"""
TensorRT without a GPU: what is compiled, for which sizes and in which arithmetic, which files are run and which never,
and that every name used is one that the true package has. The contract of sessions is kept over a fake of both.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import backends
from engines.backends import device_buffers, tensorrt_backend, tensorrt_types
from engines.backends.device_buffers import DeviceBuffers, Driver
from engines.backends.signed_files import Refused, SignedFiles
from engines.backends.tensorrt_backend import MISSING, TensorRtEngine
from engines.backends.tensorrt_plans import OURS, graph_of, ranges
from engines.bundle import Bundle, Part, Role, Shelf
from engines.bundle.signatures import SIGNATURES
from engines.errors import EngineError, EngineUnavailable
from tests.conftest import REPOSITORY
from tests.support import fake_tensorrt
from tests.support.fakes import write_portrait
from tests.support.role_feeds import feeds_of, wrong_feeds

pytest.importorskip("onnxruntime", reason="the fake of TensorRT computes with it")
ROLES: list[Role] = [role for role in SIGNATURES if role != "face_detector"]
every_role = pytest.mark.parametrize("role", ROLES)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_tensorrt.compile_driver(tmp_path_factory.mktemp("driver"))


@dataclass
class Machine:
    """A GPU, TensorRT, and the two tiny bundles with their cache."""

    engine: TensorRtEngine
    package: fake_tensorrt.FakeTensorRT
    driver: Driver
    shelf: Shelf

    def bundle(self, role: Role) -> Bundle:
        return self.shelf.open("restorer" if role == "restorer" else "portrait")

    def load(self, role: Role = "preview_decoder", **changes: Any) -> Any:
        bundle = self.bundle(role)
        return self.engine.load(bundle, replace(bundle.part(role, self.engine.formats), **changes))

    @property
    def cache(self) -> Path:
        assert self.shelf.cache is not None
        return self.shelf.cache

    def plans(self) -> list[Path]:
        return sorted(self.cache.rglob("*.plan"))


@pytest.fixture
def machine(library: Path, built: Path, tmp_path: Path) -> Machine:
    package, driver = fake_tensorrt.FakeTensorRT(), Driver(str(library))
    shelf = Shelf((built,), tmp_path / "compiled")
    return Machine(TensorRtEngine(library=lambda: package, driver=lambda: driver), package, driver, shelf)  # type: ignore[arg-type,return-value]


# ---- sessions


@every_role
def test_a_session_gives_what_ort_gives(machine: Machine, role: Role) -> None:
    bundle, session = machine.bundle(role), machine.load(role)
    reference = backends.engine("ort").load(bundle, bundle.part(role, frozenset({"onnx"})))
    for seed, sizes in enumerate(({}, {"T": 1, "h": 4, "w": 8}, {"T": 64, "h": 10, "w": 48}, {})):
        feeds = feeds_of(role, seed, **sizes)
        (name, ours), (wanted,) = *session.run(feeds).items(), reference.run(feeds).values()
        assert name == SIGNATURES[role].output and ours.dtype == np.float32
        assert np.abs(ours - wanted).max() <= 1e-5 * max(1.0, float(np.abs(wanted).max()))
    session.close()


@every_role
def test_a_call_depends_on_nothing_but_its_feeds(machine: Machine, role: Role) -> None:
    session, feeds = machine.load(role), feeds_of(role)
    (first,) = session.run(feeds).values()
    kept = first.copy()
    (other,) = session.run(feeds_of(role, seed=9)).values()
    assert (first == kept).all() and (other != kept).any(), "the room on the GPU is used again, the result is not"
    strided = {key: np.asfortranarray(array) for key, array in feeds.items()}
    assert (next(iter(session.run(strided).values())) == kept).all()


@every_role
@pytest.mark.parametrize(
    "what", ["another name", "one too few", "one too many", "another rank", "another type", "nothing"]
)
def test_wrong_feeds_are_engine_errors(machine: Machine, role: Role, what: str) -> None:
    session = machine.load(role)
    with pytest.raises(EngineError, match="tensorrt: .*fed"):
        session.run(wrong_feeds(role)[what])
    session.run(feeds_of(role))


@pytest.mark.parametrize(
    ("role", "sizes"),
    [
        ("denoiser", {"C": 15}),
        ("denoiser", {"h": 33}),
        ("decoder", {"C": 4}),
        ("restorer", {"N": 32}),
        ("decoder", {"w": 50}),
    ],
)
def test_wrong_shapes_are_engine_errors_in_tensorrts_words(machine: Machine, role: Role, sizes: dict[str, int]) -> None:
    session = machine.load(role)
    with pytest.raises(EngineError, match=r"tensorrt: .*Error Code \d"):
        session.run(feeds_of(role, **sizes))
    session.run(feeds_of(role))  # and it still works


def test_a_word_beyond_the_table_is_refused_before_the_gpu_reads_it(machine: Machine) -> None:
    session = machine.load("text_encoder")
    assert session.limits == {"ids": 512}
    for word in (512, -1):
        with pytest.raises(EngineError, match="tensorrt: portrait/text_encoder: ids beyond 512"):
            session.run({"ids": np.array([[1, word]])})


def test_any_thread_may_run_a_session(machine: Machine, within: Callable[..., Any]) -> None:
    """A context is current in one thread alone, until another says so too."""
    session, feeds = machine.load(), feeds_of("preview_decoder")
    (here,) = session.run(feeds).values()
    (there,) = within(30, lambda: session.run(feeds)).values()
    assert (here == there).all()
    within(30, lambda: [session.close(), True])


def test_closing_gives_everything_back(machine: Machine) -> None:
    live, left = (fake_tensorrt.counter(machine.driver, name) for name in ("live", "memory_left"))
    before = live.value, left.value
    session = machine.load()
    session.run(feeds_of("preview_decoder"))
    assert live.value == before[0] + 3, "a stream, an input and an output"
    session.close()
    assert (live.value, left.value) == before
    with pytest.raises((EngineError, AttributeError)):
        session.run(feeds_of("preview_decoder"))


def test_room_grows_with_what_is_put_there_and_is_used_again(machine: Machine) -> None:
    buffers, live = DeviceBuffers(machine.driver), fake_tensorrt.counter(machine.driver, "live")
    first, count = buffers.allocate("x", 100), live.value
    assert buffers.allocate("x", 60) == first and live.value == count
    buffers.allocate("x", 1000)
    assert live.value == count, "the smaller one was given back"
    buffers.close()


def test_a_full_gpu_is_an_engine_error(machine: Machine) -> None:
    session, left = machine.load(), fake_tensorrt.counter(machine.driver, "memory_left")
    free, left.value = left.value, 10
    with pytest.raises(EngineError, match="tensorrt: .*out of memory"):
        session.run(feeds_of("preview_decoder"))
    left.value = free
    session.run(feeds_of("preview_decoder"))


# ---- what is compiled


def told(plan: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plan)
    return found


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("fp16", True), ("int8", True)])
def test_types_are_the_graphs_and_exact_is_exact(machine: Machine, precision: str, tf32: bool) -> None:
    """TensorRT 11 has no flags for fp16 and int8; TF32 it uses unless it is told not to."""
    machine.load(precision=precision, format="tensorrt")
    (plan,) = map(told, machine.package.built)
    assert plan["tf32"] is tf32 and plan["flags"] == 1 << fake_tensorrt.NetworkFlag.STRONGLY_TYPED


def test_sizes_go_from_next_to_nothing_to_the_largest_that_the_bundle_draws_well(machine: Machine) -> None:
    """sizes = 64x64 and 96x64 at two pixels a cell; 512 tokens."""
    machine.load("denoiser")
    (plan,) = map(told, machine.package.built)
    assert plan["shapes"] == {
        "latents": [[1, 16, 2, 2], [1, 16, 32, 32], [1, 16, 48, 48]],
        "prompt": [[1, 1, 24], [1, 128, 24], [1, 512, 24]],
    }


def test_a_text_that_is_always_filled_up_is_compiled_for_that(machine: Machine) -> None:
    bundle = machine.bundle("text_encoder")
    assert bundle.text is not None
    filled = replace(bundle, text=replace(bundle.text, max_tokens=77, pad="<|im_end|>"))
    assert ranges(filled)["T"] == (1, 77, 77) and ranges(bundle)["T"] == (1, 128, 512)


def test_a_detector_takes_pictures_up_to_its_longest_side(builtin: Path) -> None:
    bundle = Shelf((builtin,)).open("detector")
    longest = bundle.need(bundle.face, "face").size_px
    assert ranges(bundle) == {"H": (32, longest, longest), "W": (32, longest, longest)}


def test_a_size_that_nobody_told_is_an_engine_error(machine: Machine) -> None:
    bundle = replace(machine.bundle("denoiser"), sizes=())
    with pytest.raises(EngineError, match="nothing is known about the sizes of latents"):
        machine.engine.load(bundle, bundle.part("denoiser", machine.engine.formats))


def test_the_graph_of_the_parts_own_arithmetic_goes_first(machine: Machine, tmp_path: Path) -> None:
    bundle = replace(machine.bundle("decoder"), root=tmp_path)
    part = bundle.part("decoder", frozenset({"onnx"}))
    (tmp_path / "decoder").mkdir()
    half = replace(part, precision="fp16", format="tensorrt")
    assert graph_of(bundle, half).name == "model.onnx"
    (tmp_path / "decoder" / "model.fp16.onnx").touch()
    assert graph_of(bundle, half).name == "model.fp16.onnx" and graph_of(bundle, part).name == "model.onnx"


def test_what_the_parser_says_is_in_the_error(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"junk")
    bundle = replace(machine.bundle("decoder"), root=tmp_path)
    with pytest.raises(EngineError, match=r"tensorrt: portrait/x\.onnx: it cannot be read: ModelImporter: "):
        machine.engine.load(bundle, replace(bundle.part("decoder", machine.engine.formats), file="x.onnx"))


def test_arrays_of_another_type_than_the_houses_are_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fake_tensorrt.TYPES, "tensor(float)", "HALF")
    with pytest.raises(EngineError, match="latents is HALF: not FLOAT, INT64"):
        machine.load()


# ---- what is kept


def test_a_plan_is_made_once_and_named_by_gpu_tensorrt_and_precision(machine: Machine) -> None:
    machine.load()
    (plan,) = machine.plans()
    assert re.fullmatch(r"preview_decoder-acme-rtx-9000-sm8\.7-trt11\.4\.0\.106-fp32-[0-9a-f]{16}\.plan", plan.name)
    assert plan.parent == machine.cache / "portrait" / "tensorrt"
    assert plan.with_name(plan.name + ".sig").is_file()
    machine.load()
    assert len(machine.package.built) == 1 and machine.package.run == machine.package.built * 2


def test_another_graph_precision_size_or_version_is_another_plan(machine: Machine) -> None:
    machine.load()
    machine.load(sha256="0" * 64)
    machine.load(precision="fp16", format="tensorrt")
    machine.package.__version__ = "10.3.0"
    machine.load()
    bundle = machine.bundle("preview_decoder")
    larger = replace(bundle, sizes=(*bundle.sizes, (128, 128)))
    machine.engine.load(larger, bundle.part("preview_decoder", machine.engine.formats))
    assert len(machine.package.built) == len(machine.plans()) == 5


def swap(plans: list[Path]) -> None:
    """Signed by this very machine, but as another graph's."""
    for end in ("", ".sig"):
        first, second = (path.with_name(path.name + end) for path in plans)
        data = first.read_bytes(), second.read_bytes()
        first.write_bytes(data[1]), second.write_bytes(data[0])


def alter(plan: Path) -> None:
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(data)


FOREIGN: dict[str, Callable[[list[Path]], object]] = {
    "a byte was changed": lambda plans: [alter(plan) for plan in plans],
    "it was cut off": lambda plans: [plan.write_bytes(plan.read_bytes()[:-1]) for plan in plans],
    "it is not signed": lambda plans: [plan.with_name(plan.name + ".sig").unlink() for plan in plans],
    "its signature is empty": lambda plans: [plan.with_name(plan.name + ".sig").write_bytes(b"") for plan in plans],
    "its signature is no text": lambda plans: [
        plan.with_name(plan.name + ".sig").write_bytes(b"\xff\x00") for plan in plans
    ],
    "another's name": swap,
    "another machine's key": lambda plans: (plans[0].parents[2] / OURS / "key").write_bytes(bytes(32)),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_plan_is_never_run(machine: Machine, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """To deserialise a plan is to run it. It is refused, said so, and made anew."""
    machine.load("preview_decoder"), machine.load("decoder")
    made = list(machine.package.built)
    FOREIGN[what](machine.plans())
    machine.package.built.clear(), machine.package.run.clear()
    machine.load("preview_decoder"), machine.load("decoder")
    assert machine.package.run == machine.package.built == made, "only what was made a moment ago"
    assert caplog.text.count("refused: ") >= 2
    machine.load("preview_decoder"), machine.load("decoder")
    assert len(machine.package.built) == 2, "and the new ones are kept"


def test_the_key_is_random_and_its_owners_alone(machine: Machine, tmp_path: Path) -> None:
    machine.load()
    key = machine.cache / OURS / "key"
    assert key.stat().st_mode & 0o777 == 0o600 and len(key.read_bytes()) == 32
    SignedFiles(tmp_path / "other" / "key").write(tmp_path / "x", b"x")
    assert (tmp_path / "other" / "key").read_bytes() != key.read_bytes()


@pytest.mark.parametrize("spoil", [lambda key: key.chmod(0o644), lambda key: key.write_bytes(b"short")])
def test_a_key_that_others_may_know_is_worth_nothing(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    safe, path = SignedFiles(tmp_path / "key"), tmp_path / "x.plan"
    safe.write(path, b"plan")
    known = safe.key_file.read_bytes()
    spoil(safe.key_file)
    with pytest.raises(Refused, match=r"x\.plan was changed, or made by another installation"):
        safe.read(path)
    assert safe.key_file.read_bytes() != known and safe.key_file.stat().st_mode & 0o777 == 0o600
    safe.write(path, b"plan")
    assert safe.read(path) == b"plan"


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    safe = SignedFiles(tmp_path / "key")
    threads = [threading.Thread(target=safe.write, args=(tmp_path / f"{i}.plan", b"plan")) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [safe.read(tmp_path / f"{i}.plan") for i in range(8)] == [b"plan"] * 8
    assert not list(tmp_path.glob("*.tmp"))


def test_without_a_cache_nothing_is_kept(machine: Machine, tmp_path: Path) -> None:
    bundle = replace(machine.bundle("decoder"), cache=None)
    part = bundle.part("decoder", machine.engine.formats)
    machine.engine.load(bundle, part), machine.engine.load(bundle, part)
    assert len(machine.package.built) == 2 and not machine.cache.exists()


def test_a_cache_that_cannot_be_written_costs_only_time(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    bundle = replace(machine.bundle("decoder"), cache=tmp_path / "file" / "portrait")
    session = machine.engine.load(bundle, bundle.part("decoder", machine.engine.formats))
    reference = backends.engine("ort").load(bundle, bundle.part("decoder", frozenset({"onnx"})))
    feeds = feeds_of("decoder")
    (ours,), (wanted,) = session.run(feeds).values(), reference.run(feeds).values()
    assert np.abs(ours - wanted).max() <= 1e-4 * max(1.0, float(np.abs(wanted).max()))
    again = machine.engine.load(bundle, bundle.part("decoder", machine.engine.formats))
    assert (again.run(feeds)["image"] == ours).all() and len(machine.package.built) == 2, "built anew each time"
    assert (tmp_path / "file").read_text() == "in the way"


def test_timings_are_shared_signed_and_handed_back(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bytes] = []
    create = fake_tensorrt.Config.create_timing_cache
    monkeypatch.setattr(
        fake_tensorrt.Config, "create_timing_cache", lambda config, data: [given.append(data), create(config, data)][1]
    )
    for role in ("decoder", "restorer"):  # of two bundles
        machine.load(role)
    (timing,) = (machine.cache / OURS).glob("*.timing")
    assert timing.name == "acme-rtx-9000-sm8.7-trt11.4.0.106.timing" and timing.read_bytes() == b"tactic;" * 2
    alter(timing)
    machine.load("denoiser")
    assert given == [b"", b"tactic;", b""], "what was changed is not handed over"


# ---- whether it is here


def test_without_the_package_the_probe_says_what_to_install(monkeypatch: pytest.MonkeyPatch, library: Path) -> None:
    tensorrt_backend.installed.cache_clear()
    driver = Driver(str(library))
    monkeypatch.setattr(device_buffers, "driver", lambda: driver)
    monkeypatch.setattr(tensorrt_backend, "find_spec", lambda name: None)
    probe = TensorRtEngine().probe()
    assert (probe.ok, probe.device, probe.reason) == (False, "", MISSING) and "pip install tensorrt" in MISSING


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Path) -> Callable[[str], TensorRtEngine]:
    """package(text): an engine on a machine with this in the place of TensorRT, and a GPU."""

    def install(text: str) -> TensorRtEngine:
        (tmp_path / "tensorrt.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
        tensorrt_backend.installed.cache_clear()
        driver = Driver(str(library))
        monkeypatch.setattr(device_buffers, "driver", lambda: driver)
        return TensorRtEngine(driver=lambda: driver)

    return install


def test_the_probe_names_gpu_and_version(package: Callable[[str], TensorRtEngine]) -> None:
    probe = package("__version__ = '10.3.0'").probe()
    assert probe.ok and probe.device == "ACME RTX 9000" and probe.runtime == "tensorrt 10.3.0"
    assert probe.reason == "compute 8.7, driver for CUDA 12.4"
    tensorrt_backend.installed.cache_clear()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("__version__ = '8.6.2'", "TensorRT 8.6.2 is too old: 10 or newer"),
        (
            "raise ImportError('libnvinfer.so.11: cannot open')",
            "TensorRT cannot be loaded (libnvinfer.so.11: cannot open)",
        ),
    ],
)
def test_a_package_that_will_not_do_says_why(package: Callable[[str], TensorRtEngine], text: str, reason: str) -> None:
    probe = package(text).probe()
    assert (probe.ok, probe.reason) == (False, reason)


def test_without_a_gpu_the_package_is_not_even_loaded(
    package: Callable[[str], TensorRtEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = package("raise SystemExit('was loaded')")
    monkeypatch.setattr(device_buffers, "driver", lambda: Driver("libnothing.so.1"))
    assert engine.probe().reason == "no NVIDIA driver"


def test_without_a_gpu_nobody_is_told_to_install_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    tensorrt_backend.installed.cache_clear()
    monkeypatch.setattr(tensorrt_backend, "find_spec", lambda name: None)
    monkeypatch.setattr(device_buffers, "driver", lambda: Driver("libnothing.so.1"))
    assert TensorRtEngine().probe().reason == "no NVIDIA driver"


def test_a_driver_without_a_gpu_says_so(library: Path) -> None:
    devices = fake_tensorrt.ctypes.c_int.in_dll(fake_tensorrt.ctypes.CDLL(str(library)), "devices")
    devices.value = 0
    with pytest.raises(EngineError, match="^no NVIDIA GPU$"):
        Driver(str(library))
    devices.value = 1


def test_what_was_quantised_for_cpus_is_refused_before_it_is_tried(machine: Machine, builtin: Path) -> None:
    restorer = Shelf((builtin,)).open("restorer")
    (exact,) = backends.candidates(restorer, machine.engine)
    assert (exact.precision, exact.refused) == ("fp32", ""), "it has the exact part too"
    lean = replace(restorer, parts=tuple(part for part in restorer.parts if part.precision == "int8"))
    (candidate,) = backends.candidates(lean, machine.engine)
    assert candidate.refused == "its restorer is quantised for CPUs: build the model with the recipe trt-int8"
    assert not machine.package.built
    assert not backends.candidate(Shelf((builtin,)).open("portrait"), machine.engine).refused


def test_asked_for_by_name_where_it_is_not_it_says_what_to_install(tmp_path: Path) -> None:
    probe = backends.engine("tensorrt").probe()
    if probe.ok:
        pytest.skip(f"TensorRT is here, on {probe.device}")
    with pytest.raises(EngineUnavailable) as caught:
        backends.select(write_portrait(tmp_path / "p"), "tensorrt")
    assert probe.reason in str(caught.value.facts["why"])


# ---- the true package

INSPECT = """
import json, sys
try:
    import tensorrt as true
except ImportError:
    import tensorrt_bindings as true
found = {"": sorted(vars(true))}
for name in sys.argv[1:]:
    kind = getattr(true, name)
    told = {}
    for member in dir(kind):
        value = getattr(kind, member)
        told[member] = (value.__doc__ or "") if callable(value) else None
    found[name] = told
print(json.dumps({"version": true.__version__, "found": found}))
"""
ENTRIES = (
    "createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL getPluginRegistry "
    "createNvOnnxParserRefitter_INTERNAL createNvOnnxParser_INTERNAL getBuilderPluginRegistry getNvOnnxParserVersion "
    "initLibNvInferPlugins"
).split()


@pytest.fixture(scope="module")
def true_package(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """
    Classes and signatures of TensorRT where it is installed; else of its bindings alone, unpacked in the folder that
    STUDIO_TEST_TENSORRT names, over libraries of the right names that do nothing.
    """
    env, folder = dict(os.environ), os.environ.get("STUDIO_TEST_TENSORRT", "")
    if not backends.engine("tensorrt").probe().ok:
        if not folder:
            pytest.skip("TensorRT is not here, nor its bindings (STUDIO_TEST_TENSORRT)")
        stubs = tmp_path_factory.mktemp("stubs")
        (stubs / "empty.c").write_text("".join(f"void *{entry}(void) {{ return 0; }}\n" for entry in ENTRIES))
        (info,) = Path(folder).glob("tensorrt*_bindings-*.dist-info")
        major = info.name.split("-")[1].split(".")[0]
        for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
            target = f"lib{name}.so.{major}"
            command = ["cc", "-shared", "-fPIC", "-o", stubs / target, f"-Wl,-soname,{target}", stubs / "empty.c"]
            subprocess.run(command, check=True)
        env |= {"LD_LIBRARY_PATH": str(stubs), "PYTHONPATH": folder}
    names = [name for name in kinds() if name != "Library"]
    done = subprocess.run(
        [sys.executable, "-c", INSPECT, *names], env=env, capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def kinds() -> dict[str, type]:
    """The protocols that stand for classes of the package, by its names for them."""
    own = inspect.getmembers(tensorrt_types, inspect.isclass)
    return {name: kind for name, kind in own if kind.__module__ == tensorrt_types.__name__ and name != "Member"}


def members(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def accepts(doc: str, name: str, parameters: list[str]) -> bool:
    """Whether one of pybind11's overloads takes these parameters, and no others that have no default."""
    for line in doc.splitlines():
        if match := re.match(rf"(?:\d+\. )?{name}\((.*)\) -> ", line.strip()):
            taken = re.findall(r"(?:^|, )(\w+): ([^,\[]+(?:\[[^\]]*\])?[^,]*)", match[1])
            needed = [parameter for parameter, kind in taken if "=" not in kind][1:]
            known = [parameter for parameter, _ in taken][1:]
            if needed[: len(parameters)] == parameters[: len(needed)] and len(needed) <= len(parameters):
                if known[: len(parameters)] == parameters:
                    return True
    return False


def test_every_name_that_is_used_is_one_of_the_true_package(true_package: dict[str, Any]) -> None:
    """Names, and for methods the parameters too."""
    assert int(true_package["version"].split(".")[0]) >= 10
    found, wrong = true_package["found"], []
    for name in members(tensorrt_types.Library):
        if name not in found[""]:
            wrong.append(name)
    for name, kind in kinds().items():
        for member, value in members(kind).items() if name != "Library" else ():
            if member not in found[name]:
                wrong.append(f"{name}.{member}")
            elif inspect.isfunction(value):
                parameters = list(inspect.signature(value).parameters)[1:]
                if not accepts(found[name][member], member, parameters):
                    wrong.append(f"{name}.{member}({', '.join(parameters)}): {found[name][member][:300]}")
    assert wrong == []


def test_the_fake_has_no_name_that_the_engine_does_not_use() -> None:
    """And every one that it does: what is tested over the fake is what runs."""
    stands_for = {
        "INetworkDefinition": fake_tensorrt.Network, "IOptimizationProfile": fake_tensorrt.Profile,
        "ITimingCache": fake_tensorrt.TimingCache, "IBuilderConfig": fake_tensorrt.Config,
        "Builder": fake_tensorrt.Builder, "OnnxParser": fake_tensorrt.Parser, "Runtime": fake_tensorrt.Runtime,
        "IExecutionContext": fake_tensorrt.Context, "ICudaEngine": fake_tensorrt.Engine,
        "NetworkDefinitionCreationFlag": fake_tensorrt.NetworkFlag, "BuilderFlag": fake_tensorrt.Flag,
        "Library": fake_tensorrt.FakeTensorRT,
    }  # fmt: skip
    assert kinds().keys() - stands_for.keys() == {"IHostMemory", "ITensor"}, "bytes, and a record"
    for name, fake in stands_for.items():
        for member, value in members(kinds()[name]).items():
            assert hasattr(fake, member), f"{name}.{member}"
            if inspect.isfunction(value):
                ours, theirs = (list(inspect.signature(f).parameters) for f in (value, getattr(fake, member)))
                assert ours == theirs, f"{name}.{member}"


def test_the_part_type_is_known_to_the_bundle(machine: Machine) -> None:
    part = Part("decoder", "decoder", "tensorrt", "fp16", "0", "none")
    assert part.format in machine.engine.formats and machine.engine.refuses(part) == ""
