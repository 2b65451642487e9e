"""
Draws the data set: `python -m training.portrait.render --work DIR`.

A shard is two files: pictures as one uint8 array (n, S, S, 3) and their attributes as JSON lines. Shards are whole or
absent, so the same command goes on where it stopped. Shard numbers decide all random choices.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from training.portrait.contact import save_sheet
from training.portrait.renderer.attributes import Look, Person, sample_look, sample_person
from training.portrait.renderer.draw import Picture, build, picture

SPLITS = {"train": 0, "valid": 1, "relit": 2}  # relit: soft light and clean skin under unchanged captions


@dataclass(frozen=True)
class Order:
    """What one shard holds."""

    folder: Path
    split: str
    number: int
    persons: int
    looks: int
    size_px: int


def as_record(person: Person, look: Look) -> dict[str, object]:
    """Attributes of a picture as one flat mapping."""
    return {**asdict(person), **asdict(look), "person_seed": person.seed}


def draw_shard(order: Order) -> tuple[int, float]:
    """Draw and store one shard; the number and the seconds it took."""
    start = time.time()
    rng = np.random.default_rng((SPLITS[order.split], order.number))
    pictures: list[Picture] = []
    records: list[dict[str, object]] = []
    for _ in range(order.persons):
        person = sample_person(rng)
        softened = order.split == "relit"
        scene = build(person, order.size_px, 0.3 if softened else 1.0)
        for look in (sample_look(rng, person) for _ in range(order.looks)):
            shown = replace(look, light="beauty", freckles=False) if softened else look
            pictures.append(picture(scene, shown))
            records.append(as_record(person, look))
    store(order, pictures, records)
    return order.number, time.time() - start


def store(order: Order, pictures: list[Picture], records: list[dict[str, object]]) -> None:
    base = order.folder / f"{order.split}-{order.number:04d}"
    lines = "\n".join(json.dumps(record) for record in records)
    base.with_suffix(".jsonl").write_text(lines + "\n", encoding="utf-8")
    beside = base.with_suffix(".part.npy")
    np.save(beside, np.stack(pictures))
    beside.replace(base.with_suffix(".npy"))


def pending(args: argparse.Namespace) -> list[Order]:
    folder = Path(args.work) / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(args.first, args.first + args.shards)
    orders = [Order(folder, args.split, i, args.persons, args.looks, args.size) for i in numbers]
    return [order for order in orders if not (folder / f"{args.split}-{order.number:04d}.npy").exists()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--first", type=int, default=0, help="number of the first shard: other numbers, other people")
    parser.add_argument("--shards", type=int, default=50)
    parser.add_argument("--persons", type=int, default=80, help="per shard")
    parser.add_argument("--looks", type=int, default=3, help="pictures of each person")
    parser.add_argument("--size", type=int, default=512, help="px")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    orders, start = pending(args), time.time()
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.processes) as pool:
        for done, (number, seconds) in enumerate(pool.imap_unordered(draw_shard, orders), 1):
            eta_min = (time.time() - start) / done * (len(orders) - done) / 60
            print(f"shard {number}: {seconds:.0f} s; {done}/{len(orders)}, {eta_min:.0f} min left", flush=True)
            stored = np.load(Path(args.work) / "pictures" / f"{args.split}-{number:04d}.npy", mmap_mode="r")
            save_sheet([np.asarray(p) for p in stored[:24]], 6, Path(args.work) / f"sheet-{args.split}.png")


if __name__ == "__main__":
    main()
