"""
The owner's folders outside of STUDIO_HOME (STUDIO_ALBUMS), which are read and never written, and copies of pictures in
the sizes in which they are shown. Knows files; nothing of jobs, nor of who looks at them.
"""

from __future__ import annotations

from webui.albums.folders import Folder, folders_of
from webui.albums.routes import PATHS, add, address

__all__ = ["PATHS", "Folder", "add", "address", "folders_of"]
