"""The whole program where an engine's wheel was built for another processor: the next one serves."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from engines.machine import preflight
from tests.support.server import Process
from tests.support.wheels import broken

LACKS = "needs instructions that this processor lacks (SIGILL)"


def served(home: Path, *names: str) -> Process:
    for name in names:
        broken(home / "site", name)
    return Process(home, PYTHONPATH=str(home / "site"), STUDIO_BACKEND="auto")


def until_it_cannot_work(server: Process) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/healthz", timeout=30).json()["status"] == "failed":
                return
        time.sleep(0.1)
    pytest.fail(server.log.read_text(encoding="utf-8"))


def test_the_next_engine_serves_and_nothing_crashes(tmp_path: Path) -> None:
    server = served(tmp_path, "openvino")
    try:
        server.until_ready()
        health = httpx.get(f"{server.url}/readyz").json()
        asked = {"prompt": "red hair", "width": 64, "height": 64, "steps": 1, "seed": 1}
        assert httpx.post(f"{server.url}/generate", json=asked, timeout=120).status_code == 200
    finally:
        server.stop()
    assert LACKS in health["engines"]["openvino"] and health["bundles"]["restorer"].startswith("ort on ")
    assert "has ended" not in server.log.read_text(encoding="utf-8"), "the worker never imported it"
    kept = {path.stem for path in (tmp_path / "state" / preflight.FOLDER).iterdir()}
    assert {"base", "openvino", "ort"} <= kept, "the next start asks nobody"


def test_where_no_engine_is_left_the_server_says_so_and_starts_no_worker_again(tmp_path: Path) -> None:
    server = served(tmp_path, "openvino", "onnxruntime", "torch", "tensorrt")
    try:
        until_it_cannot_work(server)
        answers = {
            language: httpx.get(f"{server.url}/readyz", headers={"Accept-Language": language}, timeout=30)
            for language in ("en", "zh")
        }
        page = httpx.get(server.url, timeout=60).status_code
    finally:
        server.stop()
    assert page == 200, "earlier pictures can still be seen"
    ((en,), (zh,)) = (answer.json()["reasons"] for answer in answers.values())
    assert en["code"] == zh["code"] == "worker_failed" and {answer.status_code for answer in answers.values()} == {503}
    assert "no engine can work here" in en["message"] and LACKS in en["message"]
    assert "没有引擎能在这里工作" in zh["message"] and "需要这个处理器没有的指令" in zh["message"]
    assert "has ended" not in server.log.read_text(encoding="utf-8")
