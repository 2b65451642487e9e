"""
Compile what a start imports, in the place where it will lie, for a root that cannot be written to: all else is imported
by nobody, and would be 60 MB more. By what a file holds, not by when it was changed, so that copies stay compiled.
"""

from __future__ import annotations

import os
import py_compile
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

STARTS = (
    "webui.__main__", "webui.gradio_patches", "webui.server", "engines.worker.__main__", "engines.images.decoder",
    "webui.doctor.__main__", "webui.watch.watcher", "openvino", "cv2", "pillow_heif", "mcp",
    "paho.mqtt.client",
)  # fmt: skip

for name in (*STARTS, *sys.argv[1:]):
    import_module(name)
# Not imported: where the image of another processor is built, it reads this one's /proc/cpuinfo and crashes. All of its
# few modules
runtime = Path(next(iter(find_spec("onnxruntime").submodule_search_locations)))
files = {str(path) for path in (*runtime.glob("*.py"), *runtime.glob("capi/*.py"))}
files |= {module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
sources = sorted(file for file in files if file.endswith(".py") and os.path.isfile(file))  # torch has some of no file
for source in sources:
    py_compile.compile(source, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
print(len(sources), "modules")
