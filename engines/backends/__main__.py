"""
Asks engines whether they can work here: `python -m engines.backends NAME...` imports the runtime of each in a child,
and prints a line of JSON for it. In a process of its own, because a library that is damaged may end the process that
asks it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from engines import backends
from engines.backends import refusals

if __name__ == "__main__":
    refusals.examine([backends.engine(name).trial for name in sys.argv[1:]], folder=None)
    for name in sys.argv[1:]:
        print(json.dumps({"name": name, **asdict(backends.engine(name).probe())}), flush=True)
