"""What a picture takes of memory: foretold from the files, made to fit where it can be, refused where it cannot."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from engines import machine
from engines.backends.lenders import Lenders
from engines.bundle import Bundle, Part, Precision, Role, Sampling, Shelf
from engines.errors import MemoryShort
from engines.messages import Failed, Final, Generate, Preview, Progress
from engines.roles import memory, tiled_decode
from engines.roles.embedding_cache import ArrayCache
from engines.roles.loaded import LoadedBundle
from engines.studio import Studio
from engines.studio.generate import Generation, GenerationPlan
from engines.studio.timings import Timings
from tests.support.fakes import FakeEngine, write_portrait

MB = 1_000_000
WEIGHTS: Mapping[Role, int] = {"text_encoder": 900 * MB, "denoiser": 800 * MB, "decoder": 100 * MB}
SIZE = (512, 512)


def sparse(path: Path, size: int) -> None:
    """A file of this many bytes, which takes none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def bundle(root: Path, precision: Precision = "int8") -> Bundle:
    for role, size in WEIGHTS.items():
        sparse(root / role / "model.onnx.data", size)
    parts = tuple(Part(role, role, "onnx", precision, "", "") for role in WEIGHTS)
    return Bundle("large", "sd", root, parts, Sampling(8, 1.0, 4, 8, 0.18, 0.0))


def needs(made: Bundle, budget: int, size: tuple[int, int] = SIZE) -> memory.GenerationPlan:
    return memory.plan(made, made.parts, "openvino", size, budget)


def test_everything_stays_where_there_is_room(tmp_path: Path) -> None:
    plan = needs(bundle(tmp_path), 8_000 * MB)
    assert not plan.turns and not plan.side
    stay = memory.PACKED * 900 * MB + sum(memory.BYTES_A_PIXEL[role] for role in ("denoiser", "decoder")) * 512 * 512
    assert plan.peak == pytest.approx(memory.BASE + stay, rel=0.01)


def test_parts_take_turns_and_then_the_picture_goes_to_pieces(tmp_path: Path) -> None:
    made = bundle(tmp_path)
    together = needs(made, 8_000 * MB).peak
    turns = needs(made, together - 1)
    assert turns.turns and not turns.side and turns.peak < together
    large = needs(made, 3_500 * MB, (1024, 1024))
    assert large.turns and not large.side
    pieces = needs(made, large.peak - 1, (1024, 1024))
    assert pieces.side == tiled_decode.SIDE and pieces.peak < large.peak
    smaller = memory.plan(made, made.parts, "openvino", (1024, 1024), pieces.peak, memory.THRIFTIEST)
    assert smaller.side == tiled_decode.SIDE // 2 and smaller.peak <= pieces.peak
    assert "one part after the other, decoded in pieces" in str(pieces)


def test_what_runs_elsewhere_takes_nothing_here(tmp_path: Path) -> None:
    made = bundle(tmp_path)
    whole = needs(made, 8_000 * MB).peak
    lent: set[Role] = {"text_encoder", "denoiser"}
    rest = memory.plan(made, made.parts, "openvino", SIZE, whole, elsewhere=lent)
    assert rest.peak == pytest.approx(
        memory.BASE + memory.PACKED * 100 * MB + memory.BYTES_A_PIXEL["decoder"] * 512 * 512, rel=0.01
    )
    assert memory.plan(made, made.parts, "openvino", SIZE, rest.peak, elsewhere=lent) == rest
    with pytest.raises(MemoryShort):
        needs(made, rest.peak)
    nothing = memory.plan(made, made.parts, "openvino", SIZE, whole, elsewhere=made.roles)
    assert nothing.peak == memory.BASE


def test_a_bundle_is_too_large_only_for_what_runs_here(tmp_path: Path) -> None:
    made = replace(bundle(tmp_path), sizes=(SIZE,))
    lenders = Lenders({"text_encoder": "http://a", "large/denoiser": "http://b", "small/decoder": "http://c"})
    least = memory.of_part(made, made.parts, "openvino", "decoder", 8_000 * MB)
    asked = partial(memory.too_large, made, made.parts, "openvino", budget=lambda: least)
    assert asked() == f"1.5 GB of memory needed, {least / memory.GB:.1f} GB available"
    assert asked(lenders=lenders) == ""
    with pytest.raises(MemoryShort):
        memory.of_part(made, made.parts, "openvino", "text_encoder", least)


def test_what_cannot_fit_is_refused_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(MemoryShort) as refusal:
        needs(bundle(tmp_path), 1_000 * MB)
    assert refusal.value.facts["budget_gb"] == 1.0
    assert 1.0 < float(refusal.value.facts["needed_gb"]) < 2.0


def test_a_larger_picture_needs_more(tmp_path: Path) -> None:
    made = bundle(tmp_path)
    peaks = [needs(made, memory.UNLIMITED, (side, side)).peak for side in (256, 512, 1024)]
    assert peaks == sorted(set(peaks))


def measured(made: Bundle, **changes: object) -> Bundle:
    """With a report of its build: 1.6 GB for 512 x 512 pixels on OpenVINO in int8."""
    verdict = {"engine": "openvino", "precision": "int8", "failing": "", "peak_mb": 1600.0, "megapixels": 0.262144}
    (made.root / "report.json").write_text(json.dumps({"verdicts": [{**verdict, **changes}]}), encoding="utf-8")
    return made


def test_what_its_build_has_measured_is_foretold(tmp_path: Path) -> None:
    """At another size the weights take the same, and the work in proportion to the pixels."""
    narrow = measured(bundle(tmp_path))
    small, large = (needs(narrow, memory.UNLIMITED, (side, side)).peak for side in (512, 1024))
    assert small == pytest.approx(1600 * MB, rel=0.01)
    fixed = memory.MEASURED_BASE["openvino"] + memory.PACKED * 900 * MB
    assert large - fixed == pytest.approx(4 * (small - fixed), rel=0.01)
    assert needs(narrow, small).turns is False and needs(narrow, small - MB).turns


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": "ort"},
        {"precision": "fp32"},
        {"failing": "PSNR"},
        {"megapixels": 0},
        {"peak_mb": "?"},
        {"peak_mb": {}},
        {"peak_mb": math.inf},
    ],
)
def test_what_was_not_measured_is_estimated(tmp_path: Path, changes: dict[str, object]) -> None:
    guessed = needs(bundle(tmp_path), memory.UNLIMITED).peak
    assert needs(measured(bundle(tmp_path), **changes), memory.UNLIMITED).peak == guessed


def test_a_report_is_not_believed_whatever_it_says(tmp_path: Path) -> None:
    made = bundle(tmp_path)
    work = sum(memory.BYTES_A_PIXEL[role] for role in ("denoiser", "decoder")) * 512 * 512
    for peak_mb, share in ((1.0, memory.LEAST), (1e9, memory.MOST)):
        peak = needs(measured(made, peak_mb=peak_mb), memory.UNLIMITED).peak
        assert peak == pytest.approx(
            memory.MEASURED_BASE["openvino"] + memory.PACKED * 900 * MB + share * work, rel=0.01
        )
    (made.root / "report.json").write_text("[", encoding="utf-8")
    assert needs(made, memory.UNLIMITED).peak > memory.BASE + 900 * MB


def test_where_scores_of_attention_are_written_down_they_grow_with_the_square_of_the_picture(tmp_path: Path) -> None:
    """Measured with Stable Diffusion of true size on ONNX Runtime: 2.77 GB at 512 px, 7.23 at 768."""
    made = bundle(tmp_path)
    fixed, beside = memory.BASE + memory.PACKED * 900 * MB, memory.BYTES_A_PIXEL["denoiser"]
    for side in (512, 768):
        plan, other = (
            memory.plan(made, made.parts, name, (side, side), memory.UNLIMITED) for name in ("ort", "openvino+ort")
        )
        scores = 2 * 4 * 8 * (side / 8) ** 4  # before and after softmax, float32, heads, pairs of tokens
        assert plan.peak == pytest.approx(fixed + beside * side**2 + scores, rel=0.01)
        assert other.peak > plan.peak, "of two engines that share the work each has its own"
    assert memory.plan(made, made.parts, "openvino", (768, 768), memory.UNLIMITED).peak < plan.peak / 2


def test_sessions_that_share_one_arena_take_what_the_largest_takes(tmp_path: Path) -> None:
    made = bundle(tmp_path)
    apart, shared = (
        memory.plan(made, made.parts, name, (64, 64), memory.UNLIMITED).peak for name in ("openvino", "ort")
    )
    spared = memory.BYTES_A_PIXEL["denoiser"] * 64 * 64
    assert apart - shared == pytest.approx(spared, rel=0.2)


def test_numbers_are_counted_from_the_headers(tmp_path: Path) -> None:
    """Half-width weights are as many as wide ones; the shards of a folder are added up."""
    for name, kind, shape, size in (("a", "F16", [1000, 30], 60_000), ("b", "F32", [500], 2000)):
        header = json.dumps(
            {"__metadata__": {"format": "pt"}, "w": {"dtype": kind, "shape": shape, "data_offsets": [0, size]}}
        ).encode()
        (tmp_path / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * size)
    assert memory.numbers(tmp_path) == 30_500
    assert memory.numbers(tmp_path / "b.safetensors") == 500
    sparse(tmp_path / "only" / "model.onnx", 4000)
    assert memory.numbers(tmp_path / "only") == 1000


def drawn(tmp_path: Path, count: int, budget: int) -> tuple[FakeEngine, list[object]]:
    engine = FakeEngine()
    loaded = LoadedBundle(write_portrait(tmp_path / "portrait"), engine, budget)
    plan = GenerationPlan.of(Generate("红发", seed=1, steps=2, count=count), loaded.bundle)
    (tmp_path / "out").mkdir()
    drawing = Generation(
        plan=plan,
        loaded=loaded,
        reason="why",
        folder=tmp_path / "out",
        pace=Timings(),
        started=0.0,
        memory_plan=loaded.memory_plan((64, 64)),
    )
    return engine, list(drawing.events(ArrayCache(tmp_path / "cache", 8)))


def peaks(tmp_path: Path) -> tuple[int, int]:
    """Of the fake bundle: all together, and in turn."""
    made = write_portrait(tmp_path / "measured")
    together = memory.plan(made, made.parts, "fake", (64, 64), memory.UNLIMITED).peak
    return together, memory.plan(made, made.parts, "fake", (64, 64), together - 1).peak


def test_in_turn_the_denoiser_has_gone_when_the_decoder_comes(tmp_path: Path) -> None:
    together, in_turn = peaks(tmp_path)
    assert in_turn < together
    engine, events = drawn(tmp_path, 3, in_turn)
    assert engine.opened.count("denoiser") == engine.opened.count("decoder") == 1  # not once a picture
    assert engine.closed == ["text_encoder", "denoiser", "decoder"]
    assert [event.image for event in events if isinstance(event, Preview)][-1] == events[-1].images[-1]  # type: ignore[attr-defined]
    assert isinstance(events[-1], Final) and len(events[-1].images) == 3


def test_in_turn_the_pictures_are_the_same(tmp_path: Path) -> None:
    together, in_turn = peaks(tmp_path)
    for name, budget in (("a", together), ("b", in_turn)):
        (tmp_path / name).mkdir()
        drawn(tmp_path / name, 2, budget)
    pictures = [sorted(path.read_bytes()[-4000:] for path in (tmp_path / n / "out").glob("*.png")) for n in "ab"]
    assert pictures[0] == pictures[1] and len(pictures[0]) >= 2


def test_together_nothing_is_let_go(tmp_path: Path) -> None:
    engine, events = drawn(tmp_path, 2, memory.UNLIMITED)
    assert engine.closed == ["text_encoder"]
    assert any(isinstance(event, Progress) for event in events)


def test_without_memory_nothing_is_loaded(tmp_path: Path) -> None:
    engine = FakeEngine()
    write_portrait(tmp_path / "portrait")
    studio = Studio(Shelf((tmp_path,)), tmp_path / "state", engine.select, budget=lambda: 10 * MB)
    (end,) = (event for event in studio.run(Generate("p", bundle="portrait"), tmp_path) if isinstance(event, Failed))
    assert end.code == "memory_short" and end.facts["budget_gb"] == 0.0
    assert engine.opened == []


def test_what_one_job_has_loaded_is_not_taken_off_what_the_next_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is free shrinks by as much as this process holds, and what others take is gone for it."""
    monkeypatch.setattr(machine, "free_bytes", lambda: 4000 * MB)
    monkeypatch.setattr(machine, "held_bytes", lambda: 1000 * MB)
    assert memory.usable_bytes() == 4000 * MB
    monkeypatch.setattr(machine, "free_bytes", lambda: 2000 * MB)
    monkeypatch.setattr(machine, "held_bytes", lambda: 3000 * MB)
    assert memory.usable_bytes() == 4000 * MB
    monkeypatch.setattr(machine, "free_bytes", lambda: 500 * MB)
    assert memory.usable_bytes() == 2800 * MB


def test_memory_is_looked_at_again_as_each_job_begins(tmp_path: Path) -> None:
    """Another program ends while the worker waits, and the picture that was refused is drawn."""
    engine, usable = FakeEngine(), [10 * MB, memory.UNLIMITED, 10 * MB]
    write_portrait(tmp_path / "portrait")
    studio = Studio(Shelf((tmp_path,)), tmp_path / "state", engine.select, budget=lambda: usable.pop(0))
    ends = []
    for _ in range(2):
        *_, end = studio.run(Generate("p", seed=1, steps=1, bundle="portrait", width=64, height=64), tmp_path)
        ends.append(end)
    assert isinstance(ends[0], Failed) and ends[0].code == "memory_short"
    assert isinstance(ends[1], Final) and usable == [10 * MB], "once a job"
