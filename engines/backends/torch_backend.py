"""PyTorch: the very modules of diffusers, transformers and GPEN, under the graph wrappers that are exported too."""

from __future__ import annotations

from importlib.util import find_spec

from engines.backends import Probe, Session, cores, version
from engines.bundle import Bundle, Format, Part

NEEDS = ("torch", "diffusers", "transformers")


class TorchEngine:
    name = "torch"
    formats: frozenset[Format] = frozenset({"safetensors", "diffusers"})

    def probe(self) -> Probe:
        missing = [name for name in NEEDS if find_spec(name) is None]
        if missing:
            return Probe(False, "", f"not installed ({', '.join(missing)})")
        return Probe(True, "CPU", f"{cores()} threads", version("torch"))

    def load(self, bundle: Bundle, part: Part) -> Session:
        """BundleError: the files do not make the network the manifest promises."""
        from engines.networks.session import TorchSession

        return TorchSession.open(bundle, part, cores())


ENGINE = TorchEngine()
