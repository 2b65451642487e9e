"""The rules of the house, run as tests: the edge path lives without torch, and every file keeps the habits."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPOSITORY
from tests.support import import_graph

PACKAGES = tuple(name for name in ("engines", "webui", "presets") if (REPOSITORY / name).is_dir())
FILES = sorted(path for name in PACKAGES for path in (REPOSITORY / name).rglob("*.py"))
MOST_LINES_OF_A_FILE = 320
MOST_LINES_OF_A_FUNCTION = 60
HEAVY = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "onnx",
    "onnxscript",
    "ml_dtypes",
)
NOT_ON_THE_EDGE_PATH = ("engines.networks", "engines.toolchain")

# Stands for an installation without them: they are not found, as `pip uninstall` would leave it.
WITHOUT = """
    import importlib.machinery, sys
    heavy = {heavy!r}
    found = importlib.machinery.PathFinder.find_spec
    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            return None if name.partition(".")[0] in heavy else found(name, path, target)
    sys.meta_path = [Finder if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
"""
IMPORTS = """
    import importlib, json, pkgutil
    names = ["engines", *(m.name for m in pkgutil.walk_packages(__import__("engines").__path__, "engines."))]
    names = [name for name in names if not name.startswith({left_out!r})]
    for name in names:
        importlib.import_module(name)
    from engines import backends
    probe = backends.engine("torch").probe()
    loaded = [name for name in heavy if name in sys.modules]
    print(json.dumps({{"names": names, "ok": probe.ok, "reason": probe.reason, "loaded": loaded}}))
"""
WORK = """
    import json, time
    from pathlib import Path
    from engines.bundle import Shelf
    from engines.jobs.sqlite_queue import SqliteQueue
    from engines.messages import Enhance, Generate, pack
    from engines.studio import Studio
    from engines.worker.loop import Worker
    home, builtin, photo = map(Path, sys.argv[1:4])
    queue, shelf = SqliteQueue(home / "queue.db", home / "outputs"), Shelf((builtin,))
    worker = Worker(queue, Studio(shelf, home / "state"), shelf, "auto")
    worker.start()
    jobs = [queue.submit(Generate("一位女士的肖像", seed=1)), queue.submit(Enhance(str(photo)))]
    jobs.append(queue.submit(Generate("p", backend="pytorch")))
    last = [json.loads(pack(list(queue.follow(job))[-1])) for job in jobs]
    while queue.status().state == "loading":
        time.sleep(0.05)
    worker.stop(60)
    loaded = [name for name in heavy if name in sys.modules]
    print(json.dumps({{"last": last, "status": queue.status().state, "loaded": loaded}}))
"""


def without_torch(code: str, *arguments: str) -> dict[str, object]:
    script = textwrap.dedent(WITHOUT).format(heavy=HEAVY) + textwrap.dedent(code).format(left_out=NOT_ON_THE_EDGE_PATH)
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_the_edge_path_imports_without_torch() -> None:
    told = without_torch(IMPORTS)
    assert told["loaded"] == []
    assert told["ok"] is False and "torch" in str(told["reason"]) and "not installed" in str(told["reason"])
    names = told["names"]
    assert isinstance(names, list)
    assert {"engines.worker", "engines.studio", "engines.jobs.sqlite_queue", "engines.backends.torch_backend"} <= set(
        names
    )


def test_the_edge_path_generates_and_restores_without_torch(builtin: Path, tmp_path: Path) -> None:
    face = builtin / "portrait" / "proof" / "1.png"
    told = without_torch(WORK, str(tmp_path), str(builtin), str(face))
    assert told["status"] == "ready" and told["loaded"] == []
    last = told["last"]
    assert isinstance(last, list)
    drawn, restored, refused = last
    assert drawn["kind"] == restored["kind"] == "final" and "torch" not in (drawn["engine"], restored["engine"])
    assert "torch" in drawn["reason"] and "not installed" in drawn["reason"]
    assert (refused["kind"], refused["code"]) == ("failed", "engine_unavailable")
    with Image.open(tmp_path / "outputs" / drawn["images"][0]) as image:
        assert np.array(image).std() > 20
    with Image.open(tmp_path / "outputs" / restored["images"][0]) as image:
        assert image.size == (512, 512)
    assert [face["state"] for face in restored["faces"]] == ["restored"]


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(REPOSITORY)}:{getattr(node, 'lineno', 0)}"


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 30


def test_every_module_says_what_it_is(trees: dict[Path, ast.Module]) -> None:
    silent = [str(path.relative_to(REPOSITORY)) for path, tree in trees.items() if not ast.get_docstring(tree)]
    assert silent == []


def test_no_file_is_too_long_to_read() -> None:
    lengths = {str(path.relative_to(REPOSITORY)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES_OF_A_FILE} == {}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def lines_of(function: ast.AST) -> int:
    return (getattr(function, "end_lineno", 0) or 0) - getattr(function, "lineno", 0) + 1


def own_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Without the functions inside it, which are read (and counted) by themselves."""
    inside = [node for node in function.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return lines_of(function) - sum(map(lines_of, inside))


def test_no_function_is_too_long_to_read(trees: dict[Path, ast.Module]) -> None:
    long = [
        f"{where(path, node)} {node.name}"
        for path, tree in trees.items()
        for node in functions(tree)
        if own_lines(node) > MOST_LINES_OF_A_FUNCTION
    ]
    assert long == []


def test_nothing_is_assigned_globally_after_import(trees: dict[Path, ast.Module]) -> None:
    found = [
        where(path, node) for path, tree in trees.items() for node in ast.walk(tree) if isinstance(node, ast.Global)
    ]
    assert found == []


def catches_all(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException")) for kind in kinds
    )


def suppresses_all(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith("suppress"):
        return False
    return any(isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException") for kind in node.args)


def test_only_the_worker_catches_everything(trees: dict[Path, ast.Module]) -> None:
    found = [
        where(path, node)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.ExceptHandler) and catches_all(node)) or suppresses_all(node)
        if path != REPOSITORY / "engines" / "worker" / "__init__.py"
    ]
    assert found == []


def test_no_module_is_a_drawer_for_everything() -> None:
    assert [path.name for path in FILES if path.stem in ("utils", "helpers", "common", "manager", "misc")] == []


def test_no_file_tells_about_a_machine() -> None:
    words = ("/home/", "/root/", "/work/", "/Users/")
    found = [f"{path.name}: {word}" for path in FILES for word in words if word in path.read_text(encoding="utf-8")]
    assert found == []


def test_modules_of_the_edge_path_import_heavy_ones_nowhere(trees: dict[Path, ast.Module]) -> None:
    """Not at the top and not inside a function: engines/networks and engines/toolchain alone may."""
    allowed = tuple(REPOSITORY / name.replace(".", "/") for name in NOT_ON_THE_EDGE_PATH)
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree) if not any(path.is_relative_to(folder) for folder in allowed) else ():
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{where(path, node)} {name}" for name in names if name.partition(".")[0] in HEAVY]
    assert found == []


def test_engines_have_rooms_that_do_not_import_each_other_in_a_circle() -> None:
    graph = import_graph.arrows("engines")
    assert len(graph) > 15 and graph["worker"] >= {"jobs", "messages", "studio"}, "else nothing was read"
    assert import_graph.floors(graph) <= len(graph), "CycleError names the circle"
    assert import_graph.flat_modules("engines") == {"errors", "sampler", "tokens"}


def test_no_test_module_imports_another() -> None:
    """What several need is in tests/support, and fixtures in a conftest.py: a test can be moved or run alone."""
    guests = []
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        names = [name for name in import_graph.imports(path) if name.startswith("tests.") and ".test_" in name]
        guests += [f"{path.name}: {name}" for name in names]
        if path.name.startswith("test_") and path != Path(__file__):
            assert "pytest_plugins" not in path.read_text(encoding="utf-8"), f"{path.name}: tests/conftest.py has them"
    assert guests == []
