"""The server behind the window, where something else is at work in its home."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.settings import Settings
from webui import home_lock
from webui.desktop import Unavailable, serving


def test_who_watches_a_folder_here_is_not_waited_for(tmp_path: Path) -> None:
    """It will never serve a page: the one who asks for it is told at once who has the home."""
    settings = Settings(tmp_path)
    with home_lock.take(settings) as lock:
        home_lock.sign(lock, "watch")
        with pytest.raises(Unavailable, match="watch"):
            serving.find_or_start(settings)
