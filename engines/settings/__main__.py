"""Lists everything that can be set: `./run.sh help` shows it."""

from __future__ import annotations

from dataclasses import fields

from engines.settings import Settings
from engines.settings.values import variable

for f in fields(Settings):
    print(f"  {variable(f.name):<21} {f.metadata['zh']} · {f.metadata['en']} [{f.default}]")
