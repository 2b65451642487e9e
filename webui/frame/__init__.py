"""
The frame: a light page without Gradio that shows pictures on a wall for months, and the same pictures for frames that
only fetch one at a time. Knows which pictures those are and in what size; nothing of how they came about.
"""

from __future__ import annotations

from webui.frame.routes import PATHS, add

__all__ = ["PATHS", "add"]
