"""The page's own scripts and styles (assets/), as they are sent: what only their writers read is left out."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent / "assets"
LINE_COMMENT = re.compile(r"^[ \t]*//.*\n", re.MULTILINE)
BLOCK_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
INDENTATION = re.compile(r"^\s+", re.MULTILINE)


def script(name: str) -> str:
    """Return a script without its indentation, and without the comments that have lines of their own."""
    return INDENTATION.sub("", LINE_COMMENT.sub("", _text(name)))


def style(name: str) -> str:
    """Return a style sheet without its indentation and comments."""
    return INDENTATION.sub("", BLOCK_COMMENT.sub("", _text(name)))


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
