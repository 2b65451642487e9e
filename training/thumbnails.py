"""
Draw the preset cards with the built-in portrait bundle, as a person would get them: `python -m training.thumbnails`.

With --choices N a sheet of N seeds for each preset is written instead, to pick `thumbnail_seed` from.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

import presets
from engines.bundle import BUILT_IN, Bundle, Shelf
from engines.messages import Final, Generate
from engines.studio import Studio

SIDE_PX, QUALITY = 256, 60  # of WEBP: the page loads them all, and shows them 96 px wide


def draw(studio: Studio, bundle: Bundle, preset: presets.Preset, seed: int, folder: Path) -> Image.Image:
    wording = preset.wording(bundle.dialect)
    width, height = presets.nearest_size(preset.width, preset.height, bundle.sizes)
    request = Generate(
        wording.prompt["zh"], wording.negative["zh"], width, height, seed=seed, guidance=wording.guidance, preview="off"
    )
    *_, last = studio.run(request, folder)
    if not isinstance(last, Final):
        raise SystemExit(f"{preset.name}: {last}")
    return Image.open(folder / last.images[0]).resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--choices", type=int, default=0, metavar="N")
    parser.add_argument("--out", type=Path, default=presets.FOLDER / "thumbnails")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder, shelf = Path(scratch), Shelf((BUILT_IN,))
        studio, bundle = Studio(shelf, folder), shelf.open("portrait")
        for preset in presets.load():
            if args.choices:
                sheet = Image.new("RGB", (SIDE_PX * args.choices, SIDE_PX))
                for seed in range(args.choices):
                    sheet.paste(draw(studio, bundle, preset, seed, folder), (seed * SIDE_PX, 0))
                sheet.save(args.out / f"{preset.name}.png")
            else:
                picture = draw(studio, bundle, preset, preset.thumbnail_seed, folder)
                picture.save(args.out / f"{preset.name}.webp", quality=QUALITY, method=6)


if __name__ == "__main__":
    main()
