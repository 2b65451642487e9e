"""
python -m presets [natural|attributes]: every prompt of the cards, one a line, as `./run.sh build portrait --prompts`
reads them.
"""

from __future__ import annotations

import sys

import presets


def main() -> int:
    dialects = sys.argv[1:]
    if not set(dialects) <= set(presets.DIALECTS):
        print(f"python -m presets [{'|'.join(presets.DIALECTS)}]", file=sys.stderr)
        return 2
    print(*presets.prompts(*dialects), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
