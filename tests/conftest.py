"""
What several tests share: bundles of the true classes with tiny random weights, built once by engines/toolchain, and
where things are.

Tests that need torch skip without it, so that the same suite runs on an edge installation.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import engines
from engines.bundle import BUILT_IN, Shelf

pytest.register_assert_rewrite("tests.support")  # what fails there says what it compared
pytest_plugins = ("tests.support.server", "tests.support.fake_workers")

SERVED = {"rig", "idle", "closed", "process"}  # fixtures of tests/support/server.py that last for the whole run
# Bundles are built, networks trained, whole programs started: minutes, which ./run.sh test quick leaves out.
SLOW = (
    "end_to_end",
    "machines",
    "training",
    "engines/toolchain",
    "engines/families/test_sd.py",
    "engines/studio/test_loras.py",
)
T = TypeVar("T")
Within = Callable[[float, Callable[[], T]], T]
REPOSITORY = Path(engines.__file__).parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """
    Let the engines in a worker of xdist take one thread, as if it had one processor: of several, those of two workers
    wait for each other at every layer, which made pictures two to eight times slower. Servers of tests have them all.
    """
    if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_getaffinity"):
        os.sched_getaffinity = lambda pid: {0}


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A test's name goes with every report: what is long is told by its length there, not by a page of letters."""
    long = isinstance(val, str | bytes) and len(val) > 80
    return f"{argname} of {len(val)}" if long else None


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Say how a worker of xdist has died: a signal is a negative number."""
    if error is not None:
        print(f"\n{node.gateway.id} ended with {node.gateway._io.popen.wait(10)}: {error}", flush=True)


def is_slow(item: pytest.Item) -> bool:
    return item.path.relative_to(REPOSITORY / "tests").as_posix().startswith(SLOW)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """
    Say which tests stay on one worker: those of a module, whose fixtures are made once, and all that need the served
    application or Chromium. These come first, as the largest piece, with the browser at their end; then the folders
    whose modules take minutes. A wrapper, because xdist reads the groups in the same hook.
    """
    browser = {item.path for item in items if item.get_closest_marker("browser")}
    served = {item.path for item in items if SERVED & set(getattr(item, "fixturenames", ()))} | browser
    for item in items:
        if is_slow(item):
            item.add_marker("slow")
        module = item.path.relative_to(REPOSITORY).as_posix()
        item.add_marker(pytest.mark.xdist_group("served" if item.path in served else module))
    items.sort(key=lambda item: (item.path not in served, item.path in browser, not is_slow(item)))
    yield
    if getattr(config.option, "loadgroup", False) and not all("@" in item.nodeid for item in items):
        raise pytest.UsageError("xdist 3.8 marks no groups with pytest 9.2: install what constraints.txt has")


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell's & makes what it starts ignore SIGINT, and children inherit that: those of tests that interrupt them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def builtin() -> Path:
    """The folder of the built-in bundles."""
    return BUILT_IN


@pytest.fixture(scope="session")
def shared() -> Path:
    """Golden vectors and photographs, which are not part of the repository."""
    folder = Path(os.environ.get("STUDIO_TEST_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared test data at {folder} (STUDIO_TEST_SHARED)")
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """portrait/ and restorer/: what the toolchain builds bundles from."""
    for module in ("torch", "diffusers", "transformers"):
        pytest.importorskip(module, reason="builds bundles with the toolchain")
    from tests.support import tiny

    folder = tmp_path_factory.mktemp("checkpoints")
    tiny.save_portrait(folder / "portrait")
    tiny.save_restorer(folder / "restorer")
    return folder


@pytest.fixture(scope="session")
def built(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two bundles of the true classes. Read only: copy what a test changes."""
    pytest.importorskip("onnxscript", reason="builds bundles with the toolchain")
    from engines.toolchain import build
    from tests.support import builds

    folder = tmp_path_factory.mktemp("built")
    portrait, restorer = checkpoints / "portrait", checkpoints / "restorer"
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        # torch's exporter uses a class that torch itself has deprecated
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
        builds.lighten(patch)
        build.build_portrait(portrait, portrait / "about.toml", folder / "portrait")
        build.build_restorer(restorer / "model.safetensors", restorer / "about.toml", folder / "restorer")
    return folder


@pytest.fixture
def shelf(built: Path, tmp_path: Path) -> Shelf:
    """The two bundles of the true classes, in a folder that a test may change."""
    shutil.copytree(built, tmp_path / "shelf")
    return Shelf((tmp_path / "shelf",))


@pytest.fixture
def within() -> Within[T]:
    """within(seconds, call): the call's result; a test that would hang fails instead."""

    def run(seconds: float, call: Callable[[], T]) -> T:
        results: list[T] = []
        thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
        thread.start()
        thread.join(seconds)
        assert not thread.is_alive(), f"still waiting after {seconds} s"
        assert results, "the call raised in its thread"
        return results[0]

    return run
