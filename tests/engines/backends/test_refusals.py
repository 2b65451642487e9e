"""What cannot be imported here is no engine of this machine, and the next one serves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engines import backends
from engines.backends import refusals
from engines.bundle import Shelf
from engines.machine.preflight import ImportTrial
from engines.worker.__main__ import nobody_works
from tests.support.wheels import DIES, broken, use
from webui.i18n import LANGUAGES, words

LACKS = "needs instructions that this processor lacks (SIGILL)"


def refuse(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setenv(refusals.VARIABLE, json.dumps(dict.fromkeys(names, LACKS)))


def test_each_engine_is_tried_under_its_own_name() -> None:
    for engine in backends.engines():
        assert engine.trial.name == engine.name and engine.trial.modules


@pytest.mark.parametrize(
    "name", [name for name in backends.names() if name != "tensorrt" and backends.engine(name).probe().ok]
)
def test_one_that_is_refused_says_why(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, name)
    probe = backends.engine(name).probe()
    assert (probe.ok, probe.device, probe.reason) == (False, "", LACKS)
    said = {language: words(language).phrase(probe.reason) for language in LANGUAGES}
    assert len(set(said.values())) == len(LANGUAGES) and all("SIGILL" in text for text in said.values())


def test_tensorrt_is_refused_before_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # an import would fail in other words
    assert backends.engine("tensorrt").probe().reason == LACKS


def test_the_next_engine_serves(builtin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Shelf((builtin,)).open("restorer")
    first, _ = backends.select(bundle, "edge")
    refuse(monkeypatch, first.name)
    second, reason = backends.select(bundle, "edge")
    assert second.name != first.name and f"{first.name}: {LACKS}" in reason


def test_what_dies_in_its_child_is_refused_and_what_is_not_installed_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(refusals.VARIABLE, json.dumps({"earlier": "why"}))
    broken(tmp_path / "site", "strange_wheel")
    broken(tmp_path / "site", "good_wheel", "")
    use(tmp_path / "site", monkeypatch)
    trials = [ImportTrial(name, (name,)) for name in ("strange_wheel", "good_wheel", "absent_wheel")]
    refusals.examine(trials, tmp_path)
    assert {name: refusals.refusal(name) for name in ("strange_wheel", "good_wheel", "absent_wheel", "earlier")} == {
        "strange_wheel": LACKS, "good_wheel": "", "absent_wheel": "", "earlier": "why",
    }  # fmt: skip
    asked = "from engines.backends import refusals; print(refusals.refusal('strange_wheel'))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == LACKS, "a build, or a proof, refuses it too"


def test_where_none_is_left_it_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nobody_works() == ()
    refuse(monkeypatch, *backends.names())
    (why,) = nobody_works()
    assert why.startswith("no engine can work here (") and why.count(LACKS) == len(backends.names())
    for language in LANGUAGES:
        said = words(language).error("worker_failed", {"why": why})
        assert language == "en" or "no engine" not in said


def test_the_doctor_asks_for_each_and_outlives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from webui.doctor import engines

    use(broken(tmp_path / "site", "openvino", DIES.format(name="SIGILL")), monkeypatch)
    line = engines.engine("openvino")
    assert line.level == "warning" and LACKS in line.en and "需要这个处理器没有的指令" in line.zh
    assert engines.engine("ort").level == "ok"
