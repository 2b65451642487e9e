"""
What a bundle's maker measures: the reference's pictures, which go with the bundle as its proof, how near every engine
here comes to them, and the report and the card that say so.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from engines import backends, images, machine
from engines.bundle import Bundle
from engines.faces.retouch import Pixels
from engines.messages import CREDIT
from engines.roles import memory
from engines.roles.loaded import LoadedBundle
from engines.studio import proof, trials
from engines.studio.proof import Case, Proof
from engines.toolchain.steps import Say

SEED = 4100  # of the proof's first picture


def write_proof(loaded: LoadedBundle, folder: Path, cases: Sequence[Case], say: Say) -> dict[str, Any]:
    """Write what the reference, which rounds nothing, makes of each case, and proof.json; closes `loaded`."""
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases:
            source = replace(case, face=str((folder / case.face).resolve())) if case.face else case
            images.write_png(folder / case.want, proof.make(loaded, source, Path(scratch)).picture)
            say(case.prompt or case.face)
    loaded.close()
    widths = {part.precision for part in loaded.bundle.parts}
    record = asdict(Proof(f"{loaded.engine.probe().runtime} {' '.join(sorted(widths))}", tuple(cases)))
    (folder / "proof.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return {"reference": record["reference"], "cases": len(cases)}


def prompts(words: Sequence[str]) -> list[Case]:
    return [Case(f"{i}.png", prompt, SEED + i) for i, prompt in enumerate(words, start=1)]


def faces(folder: Path, pictures: Sequence[Pixels]) -> list[Case]:
    """Write the pictures beside the proof; return their cases."""
    for i, face in enumerate(pictures, start=1):
        images.write_png(folder / f"{i}-face.png", face)
    return [Case(f"{i}.png", face=f"{i}-face.png") for i in range(1, len(pictures) + 1)]


def prove(bundle: Bundle, name: str, say: Say) -> dict[str, Any]:
    """
    Prove one engine, in each precision that it reads, in processes of their own: how near it comes to the reference's
    pictures, and how fast.
    """
    verdicts = []
    too_large = partial(memory.too_large, budget=memory.usable_bytes)
    for candidate in backends.candidates(bundle, backends.engine(name), too_large=too_large):
        if why := candidate.refused or candidate.too_large:
            say(" ".join(filter(None, (candidate.precision, why))))
            continue
        verdict = trials.prove_apart(bundle, candidate)
        assert verdict is not None  # nobody stops it
        stand = verdict.failing or "accepted"
        say(f"{verdict.precision}: {verdict.psnr_db} dB, SSIM {verdict.ssim}, {verdict.finish_s} s: {stand}")
        verdicts.append(asdict(verdict))
    return {"engine": name, "verdicts": verdicts}


def write_report(bundle: Bundle, records: list[dict[str, Any]]) -> None:
    """Write report.json: every step's record, and the engines' verdicts with the machine they were given on."""
    files = [path for path in bundle.root.rglob("*") if path.is_file() and ".records" not in path.parts]
    report = {
        "made": time.strftime("%Y-%m-%d"),
        "machine": {"processor": backends.processor(), "cores": machine.cores()},
        "megabytes": round(sum(path.stat().st_size for path in files) / 1e6, 1),
        "verdicts": [verdict for record in records for verdict in record.get("verdicts", ())],
        "steps": [{key: value for key, value in record.items() if key != "verdicts"} for record in records],
        "credit": CREDIT,
    }
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    (bundle.root / "report.json").write_text(text, encoding="utf-8")


def card(bundle: Bundle, recipe: str) -> str:
    """Return the card in Markdown: where the bundle comes from and how each engine did."""
    report = json.loads((bundle.root / "report.json").read_text(encoding="utf-8"))
    lines = [f"# {bundle.title.get('zh', bundle.name)} · {bundle.title.get('en', bundle.name)}", ""]
    lines += [f"- {line}" for line in (*bundle.lineage, f"recipe {recipe}", f"licence: {bundle.parts[0].licence}")]
    lines += ["", "| engine | precision | PSNR | SSIM | seconds | peak MB | |", "|---|---|---|---|---|---|---|"]
    for v in report["verdicts"]:
        stand = v["failing"] or "accepted"
        numbers = f"{v['psnr_db']} dB | {v['ssim']} | {v['finish_s']} | {v['peak_mb']:.0f}"
        lines.append(f"| {v['engine']} ({v['runtime']}) | {v['precision']} | {numbers} | {stand} |")
    return "\n".join([*lines, "", f"{report['megabytes']} MB, made {report['made']}. {CREDIT}", ""])
