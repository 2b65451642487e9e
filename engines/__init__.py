"""
Everything that has no user: requests come in, events go out. Never imports webui or presets; and nothing of it tells
anybody outside that it is used.

Libraries do unless they are told otherwise before they are imported. ONNX Runtime, from 1.29 on, sends names and hashes
of the models to Microsoft, and leaves an identity in the user's home; openvino_telemetry reports each import to Google
Analytics, from a fork of this process that may hang, and OpenVINO does without it; huggingface_hub reports what it is
used for.
"""

import os
import sys

os.environ.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1")
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
