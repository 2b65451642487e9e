"""The restorer's training: degradations repeat, a step learns, an interruption leaves no trace, measures measure."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.networks.gpen import Spec
from training.restorer import bars, dataset, degrade, losses, pairs, train, weights

TINY = train.TrainingPlan(
    steps=4,
    adversarial_steps=2,
    batch=2,
    widths="8,8,8,8",  # 32 px
    style_dim=16,
    workers=0,
    show_every=1000,
    save_every=1000,
    compiled=0,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors: two threads spend their time waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def picture(size_px: int, seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).uniform(0, 255, (size_px, size_px, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return np.asarray(((blurred - blurred.mean()) * 4 + 128).clip(0, 255), dtype=np.uint8)


@pytest.fixture
def portraits(tmp_path: Path) -> Path:
    """Three made-up pictures a split, in the layout of the real ones."""
    folder = tmp_path / "portraits"
    template = [[38.0, 47.0], [62.0, 47.0], [50.0, 61.0], [39.0, 73.0], [61.0, 73.0]]
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(folder / split / f"{i}.jpg"), picture(100, 10 * len(split) + i))
        (folder / f"{split}-landmarks.json").write_text(json.dumps({f"{i}.jpg": template for i in range(3)}))
    return folder


def test_the_fixed_levels_repeat_differ_and_get_worse() -> None:
    truth = picture(256, 1)
    made = {name: degrade.fixed(truth, level, 5) for name, level in degrade.LEVELS.items()}
    again = {name: degrade.fixed(truth, level, 5) for name, level in degrade.LEVELS.items()}
    assert all((made[name] == again[name]).all() for name in made)
    assert (degrade.fixed(truth, degrade.LEVELS["middle"], 6) != made["middle"]).any()
    quality = [bars.psnr_db(made[name], truth) for name in ("mild", "middle", "severe")]
    assert quality[0] > quality[1] > quality[2]


def test_the_middle_level_is_the_one_the_bars_are_written_for() -> None:
    assert degrade.LEVELS["middle"] == degrade.Level(blur_sigma_px=1.6, shrink=4, noise=8, jpeg_quality=55)


def test_random_pairs_repeat_per_seed_and_cover_every_kind() -> None:
    truth = picture(128, 2)
    pairs = [degrade.random_pair(truth, np.random.default_rng(seed)) for seed in range(120)]
    again = degrade.random_pair(truth, np.random.default_rng(7))
    assert (pairs[7][0] == again[0]).all() and (pairs[7][1] == again[1]).all()
    assert all(bad.shape == good.shape == truth.shape and bad.dtype == np.uint8 for bad, good in pairs)
    untouched = sum((bad == good).all() for bad, good in pairs)
    colourless = sum((good[..., 0] == good[..., 2]).all() for _, good in pairs)
    assert 1 <= untouched <= 20
    assert 10 <= colourless <= 60


def test_a_sample_depends_on_its_seed_and_index_only(portraits: Path) -> None:
    faces = dataset.read_portraits(portraits, "train")
    one, other = dataset.Pairs(faces, 32, 1, 50), dataset.Pairs(faces, 32, 1, 99)
    assert one[3].shape == (2, 3, 32, 32) and one[3].dtype == torch.uint8
    assert torch.equal(one[3], other[3])
    assert not torch.equal(one[3], one[4])
    assert not torch.equal(one[3], dataset.Pairs(faces, 32, 2, 50)[3])


def test_two_processes_share_the_batches_of_one(portraits: Path) -> None:
    pairs = dataset.Pairs(dataset.read_portraits(portraits, "train"), 32, 1, 8)
    whole = torch.cat(list(dataset.batches(pairs, 4, 1, 0, rank=0, ranks=1)))
    halves = [torch.cat(list(dataset.batches(pairs, 4, 1, 0, rank=rank, ranks=2))) for rank in (0, 1)]
    assert len(whole) == 4
    assert torch.equal(whole[0::2], halves[0]) and torch.equal(whole[1::2], halves[1])


def test_steps_on_one_batch_lower_the_loss() -> None:
    trainer = train.Trainer(replace(TINY, steps=100), torch.device("cpu"))
    faces = [picture(32, 3), picture(32, 4)]
    truth, bad = dataset.stack(faces), dataset.stack([degrade.jpeg(face, 10) for face in faces])
    seen = [trainer.learn(bad, truth)["loss"] for _ in range(25)]
    assert seen[-1] < 0.9 * seen[0]


def test_an_interrupted_run_ends_where_an_unbroken_one_does(portraits: Path, tmp_path: Path) -> None:
    """Through both stages: six steps at once, against three, a stop, and three more."""
    cpu = torch.device("cpu")
    unbroken = train.train(TINY, portraits, tmp_path / "a", cpu)
    train.train(replace(TINY, stop_after=3), portraits, tmp_path / "b", cpu)
    resumed = train.train(TINY, portraits, tmp_path / "b", cpu)
    assert unbroken.step == resumed.step == 6
    for name, value in unbroken.ema.state.items():
        assert torch.allclose(value, resumed.ema.state[name], atol=1e-6), name
    for mine, theirs in zip(unbroken.discriminator.parameters(), resumed.discriminator.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_a_run_leaves_a_sheet_and_weights_that_load(portraits: Path, tmp_path: Path) -> None:
    trainer = train.train(replace(TINY, adversarial_steps=0), portraits, tmp_path / "run", torch.device("cpu"))
    sheet = cv2.imread(str(tmp_path / "run" / "sheet-000004.png"))
    assert sheet is not None and sheet.shape == (32, 6 * 32, 3)
    model = weights.load(tmp_path / "run" / "restorer.safetensors")
    assert model.residual == TINY.residual and model.network.spec == Spec((8, 8, 8, 8), 16)
    trainer.model.network.load_state_dict(trainer.ema.state)
    faces = [picture(32, 8)]
    kept, stored = weights.restore(trainer.model, faces)[0], weights.restore(model, faces)[0]
    assert np.abs(kept.astype(int) - stored).max() <= 2  # fp16


def test_a_run_can_begin_with_the_weights_of_another(portraits: Path, tmp_path: Path) -> None:
    cpu, first = torch.device("cpu"), tmp_path / "first"
    train.train(replace(TINY, adversarial_steps=0), portraits, first, cpu)
    file = first / "restorer.safetensors"
    begun = train.Trainer(replace(TINY, begin=str(file), seed=2), cpu)
    stored = weights.load(file).network.state_dict()
    for name, value in begun.model.network.state_dict().items():
        assert torch.equal(value, stored[name]), name
    assert begun.step == 0 and torch.equal(begun.ema.state["generator.input.input"], stored["generator.input.input"])


@pytest.mark.parametrize("name", pairs.DAMAGES)
def test_the_readmes_damages_repeat_and_hurt(name: str) -> None:
    face = picture(256, 4)
    before = face.copy()
    bad = pairs.DAMAGES[name](face)
    assert bad.shape == face.shape and bad.dtype == np.uint8 and np.array_equal(face, before)
    assert np.array_equal(bad, pairs.DAMAGES[name](face))
    assert bars.psnr_db(bad, face) < 30


def test_psnr_ssim_texture_and_skin_on_known_pictures() -> None:
    flat = np.full((64, 64, 3), 100, dtype=np.uint8)
    brighter = flat + np.uint8(5)
    assert bars.psnr_db(flat, brighter) == pytest.approx(10 * np.log10(255**2 / 25))
    assert bars.psnr_db(flat, flat) == 99
    noisy = picture(64, 5)
    assert bars.ssim(noisy, noisy) == pytest.approx(1)
    mean = (2 * 100 * 105 + 6.5025) / (100**2 + 105**2 + 6.5025)  # of equal variance 0, only the means differ
    assert bars.ssim(flat, brighter) == pytest.approx(mean, abs=1e-6)
    dot = flat.copy()
    dot[32, 32] += 8
    assert bars.laplacian_energy(dot) == pytest.approx(8**2 * (4**2 + 4) / 64**2)
    half = (128 + (noisy.astype(float) - 128) / 2).astype(np.uint8)
    assert bars.texture(half, noisy) == pytest.approx(0.25, rel=0.05)
    grey, lighter = np.full((64, 64, 3), 119, dtype=np.uint8), np.full((64, 64, 3), 124, dtype=np.uint8)
    assert bars.skin_shift(grey, lighter) == pytest.approx(1.95, abs=0.1)  # L* 50.03 and 52.0 in CIELAB tables


def test_only_the_face_counts_on_the_face() -> None:
    truth = picture(64, 6)
    corner, middle = truth.copy(), truth.copy()
    corner[:8, :8] ^= 64
    middle[34:42, 28:36] ^= 64
    assert bars.face_psnr_db(corner, truth) == bars.face_psnr_db(truth, truth) == 99
    assert bars.face_psnr_db(middle, truth) < bars.psnr_db(middle, truth) < 99


def test_an_error_on_the_face_costs_more_than_one_beside_it() -> None:
    """By the weight that was asked for: a quarter of it far away; and an even weight is the plain mean."""
    truth = torch.zeros(1, 3, 64, 64)
    corner, middle = truth.clone(), truth.clone()
    corner[..., 2:6, 2:6], middle[..., 36:40, 30:34] = 1, 1

    def cost(restored: torch.Tensor, around: float, psnr_weight: float = 0.0) -> float:
        return float(losses.reconstruction(restored, truth, psnr_weight, losses.attention(64, around)))

    assert cost(corner, 0.25) == pytest.approx(0.25 * cost(middle, 0.25), rel=0.02)
    assert cost(corner, 1.0) == pytest.approx(cost(middle, 1.0), rel=1e-5)
    everywhere = cost(torch.ones_like(truth), 1.0, psnr_weight=1.0)
    assert everywhere == pytest.approx(1 + 0.5 + 0.5, abs=1e-3)  # no slopes; ln(1) is 0
    assert losses.attention(256, 0.25).mean() == pytest.approx(1, abs=1e-5)


def test_the_bars_fail_when_nothing_is_restored() -> None:
    truth = [picture(256, seed) for seed in range(2)]
    rows = bars.table(lambda bad: bad, truth)
    assert [row.level for row in rows] == ["mild", "middle", "severe", "clean"]
    assert any(words.startswith("PSNR gain +0.00") for words in bars.failures(rows))
    perfect = [replace(row, psnr_out=row.psnr_in + 3, ssim_out=row.ssim_in + 0.1, texture=1, skin=0) for row in rows]
    assert bars.failures(perfect) == []


def test_the_real_faces_stand_where_the_levels_say() -> None:
    folder = Path(os.environ.get("STUDIO_TEST_PORTRAITS", Path(__file__).parents[3] / "shared" / "portraits"))
    if not (folder / "val-landmarks.json").exists():
        pytest.skip(f"no portraits in {folder}: set STUDIO_TEST_PORTRAITS")
    truth = dataset.aligned(dataset.read_portraits(folder, "val"), 256)
    assert len(truth) == 48
    stands = {level: bars.mean(bars.psnr_db, bars.degraded(truth, level), truth) for level in degrade.LEVELS}
    assert stands == pytest.approx({"mild": 27.0, "middle": 24.5, "severe": 21.3}, abs=0.2)
