"""What loaders raise for files that are missing, cut off, damaged or another's, in one place for all who call them."""

from __future__ import annotations

import pickle
import struct

from safetensors import SafetensorError

# Of diffusers, transformers, safetensors, torch, json and pickle. Whoever catches them says which file it was.
LOADER_FAULTS = (
    OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, StopIteration, struct.error,
    SafetensorError, pickle.UnpicklingError,
)  # fmt: skip
