"""
The page as a program of the desktop, `./run.sh app`: a server that outlives the window, the window itself, and an entry
in the menu. What it says is for the person who sits at the machine.
"""

from __future__ import annotations

APP_ID = "awportrait-edge"  # of the menu's entry, of its icon, and of the window


class Unavailable(Exception):
    """It cannot be had here. The message says why, and what to do, in both languages."""
