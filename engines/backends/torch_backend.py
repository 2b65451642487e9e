"""
PyTorch: the very modules of diffusers, transformers and GPEN, under the graph wrappers that are exported too.

On an NVIDIA GPU where there is one that this PyTorch was built for, else on the CPU. Either way in float32: without
TF32 a GPU's numbers are those of the contract, and a seed gives the picture it gives elsewhere.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from engines.backends import Probe, Session, device_buffers, version, vocabulary
from engines.backends.device_buffers import Gpu
from engines.backends.refusals import refusal
from engines.bundle import Bundle, Format, Part
from engines.errors import EngineError
from engines.machine import cores
from engines.machine.preflight import ImportTrial
from engines.messages.status import Group

NEEDS = ("torch", "diffusers", "transformers")
BUILT_FOR = re.compile(r"^cuda\b[^=]*= '(\d+)\.(\d+)'", re.MULTILINE)  # in torch/version.py; None on a CPU's build


class TorchEngine:
    name = "torch"
    formats: frozenset[Format] = frozenset({"safetensors", "diffusers"})
    group: Group = "pytorch"
    rank = 4
    trusted = True
    trial = ImportTrial("torch", ("torch",))

    def probe(self) -> Probe:
        missing = [name for name in NEEDS if find_spec(name) is None]
        if missing:
            return Probe(False, "", f"not installed ({', '.join(missing)})")
        if why := refusal(self.name):
            return Probe(False, "", why)
        try:
            gpu = device_buffers.gpu()
        except EngineError:  # most machines have none, which needs no words
            return Probe(True, "CPU", f"{cores()} threads", version("torch"))
        if unfit := _unfit(gpu, built_for()):
            return Probe(True, "CPU", f"{cores()} threads, {gpu.name} left out: {unfit}", version("torch"))
        return Probe(True, gpu.name, str(gpu), version("torch"))

    def load(self, bundle: Bundle, part: Part) -> Session:
        """
        Load the part's network. BundleError: its files do not make the manifest's. EngineError: no room on the GPU.
        """
        from engines.networks.session import TorchSession

        on_gpu = self.probe().device != "CPU"
        limits = vocabulary(bundle, part) if on_gpu else {}
        return TorchSession.open(bundle, part, cores(), "cuda" if on_gpu else "cpu", limits)


def built_for() -> tuple[int, int]:
    """Return the CUDA (major, minor) that this PyTorch was built for, without importing it; (0, 0): none."""
    spec = find_spec("torch")
    folder = Path(next(iter(spec.submodule_search_locations or ()), "")) if spec else Path()
    try:
        version = BUILT_FOR.search((folder / "version.py").read_text(encoding="utf-8"))
    except OSError:
        return 0, 0
    return (int(version[1]), int(version[2])) if version else (0, 0)


def _unfit(gpu: Gpu, built: tuple[int, int]) -> str:
    """
    Return why PyTorch cannot use a GPU; empty: it can. A driver runs what was built for any minor version of its CUDA.
    """
    if built == (0, 0):
        return "this PyTorch is built for CPUs"
    return f"its driver is older than CUDA {built[0]}.{built[1]}" if gpu.cuda[0] < built[0] else ""


ENGINE = TorchEngine()
