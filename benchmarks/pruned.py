"""
What pruning takes from the built-in portrait model and what distilling brings back: parameters, operations, and how
often the judge (training/portrait/judge.py) reads off a picture what its prompt asked for, whole and pruned, with the
same held-out people, prompts and seeds.

STUDIO_PORTRAIT_WORK is a folder in which training/portrait has drawn held-out people and trained the judge; the pruned
bundle is built there, in `pruned`, if it is not there yet.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import head
from engines import backends
from engines.bundle import BUILT_IN, Bundle
from engines.images.metrics import Picture
from engines.networks.prunable import PRUNED
from engines.roles.loaded import LoadedBundle
from engines.toolchain import build
from engines.toolchain.compress.distill import DistillOptions
from engines.toolchain.quantize import calibration

RATIO, STEPS, BATCH, CAPTIONS = 0.31, 200, 16, 300
PICTURES = 240  # half of the prompts Chinese
FIRST_SEED = 5000
NEEDED = """
the pruned portrait was not measured: STUDIO_PORTRAIT_WORK must name a folder with held-out people and a judge
(pip install numba scipy):
  python -m training.portrait.render --work DIR --split valid --shards 4 --persons 120 --looks 1 --size 256
  python -m training.portrait.render --work DIR --first 50 --shards 60 --size 256
  python -m training.portrait.judge  --work DIR --epochs 8"""


def main() -> None:
    work = Path(os.environ.get("STUDIO_PORTRAIT_WORK", ""))
    if find_spec("numba") is None or not (work / "judge.pt").is_file():
        print(NEEDED)
        return
    if not (work / "pruned" / "bundle.json").is_file():
        options = build.BuildOptions(prune=RATIO, distill=DistillOptions(STEPS, captions(CAPTIONS), BATCH))
        build.build_portrait(BUILT_IN / "portrait", None, work / "pruned", "edge-bf16", options=options)
    pruned = Bundle.open(work / "pruned")
    facts = json.loads((pruned.root / "denoiser" / "config.json").read_text(encoding="utf-8"))[PRUNED]
    head("the pruned denoiser", "", "whole", "pruned", "share")
    for what, name, unit in (("parameters", "M parameters", 1e6), ("flops", "GFLOP a step", 1e9)):
        whole, less = (number / unit for number in facts[what])
        print(f"| {name} | {whole:.2f} | {less:.2f} | {less / whole:.1%} |")
    _agreement(work, Bundle.open(BUILT_IN / "portrait"), pruned)


def captions(count: int) -> tuple[str, ...]:
    """Return captions of invented people who are in no other set."""
    from training.portrait.captions import caption
    from training.portrait.render import as_record
    from training.portrait.renderer.attributes import sample_look, sample_person

    rng, said = np.random.default_rng((3, 2026)), list[str]()
    while len(said) < count:
        person = sample_person(rng)
        said.append(caption(as_record(person, sample_look(rng, person)), rng).text)
    return tuple(said)


def _agreement(work: Path, *bundles: Bundle) -> None:
    from training.portrait.bars import JUDGED, prompts_for
    from training.portrait.judge import agreement, labels, load, verdicts
    from training.portrait.pictures import Pictures

    records, device = Pictures.open(work, "valid").records[:PICTURES], torch.device("cpu")
    said = [prompts_for(records, language) for language in ("en", "zh")]
    prompts = [said[i % 2][i] for i in range(len(records))]
    judge, truth = load(work, device), labels(records)
    agreements = [agreement(verdicts(judge, _drawn(bundle, prompts), device), truth) for bundle in bundles]
    head(f"read off {len(records)} pictures as asked for", "", "whole", "pruned", "points")
    for name in JUDGED:
        _line(name, *(shares[name] for shares in agreements))
    _line("mean", *(statistics.mean(shares[name] for name in JUDGED) for shares in agreements))


def _line(name: str, whole: float, pruned: float) -> None:
    print(f"| {name} | {whole:.1%} | {pruned:.1%} | {100 * (pruned - whole):+.1f} |")


def _drawn(bundle: Bundle, prompts: Sequence[str]) -> list[Picture]:
    loaded = LoadedBundle(bundle, backends.engine("ort"))
    latents = [
        calibration.trajectory(loaded, loaded.text_encoder.encode(p), FIRST_SEED + i) for i, p in enumerate(prompts)
    ]
    return [loaded.decoder.decode(x) for x in latents]
