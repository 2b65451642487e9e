"""
A graph module behind the Session protocol: numpy in, numpy out, no gradients; on a CPU, no copies on the way in. On a
GPU everything is float32 too, and TF32, which rounds what is multiplied to eleven bits, is off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType

import torch
from torch import nn

from engines.bundle import Bundle, Part
from engines.bundle.loras import LoraFile
from engines.bundle.signatures import SIGNATURES, Array, Signature, check_words
from engines.errors import EngineError, LoraError, engine_failed
from engines.machine import trim_heap
from engines.networks.graphs import open_graph
from engines.networks.lora import ActiveLoras

NO_LIMITS: Mapping[str, int] = MappingProxyType({})


class TorchSession:
    """
    A graph that runs on PyTorch. `width` is what it computes in; `limits`: how many rows the table of an input has. A
    GPU that looks beyond it never recovers.
    """

    def __init__(
        self,
        graph: nn.Module,
        signature: Signature,
        label: str,
        device: str = "cpu",
        limits: Mapping[str, int] = NO_LIMITS,
        width: torch.dtype = torch.float32,
    ) -> None:
        self.graph, self.signature, self.label = graph, signature, label
        self.device, self.limits, self.width = torch.device(device), limits, width

    @classmethod
    def open(
        cls, bundle: Bundle, part: Part, threads: int, device: str = "cpu", limits: Mapping[str, int] = NO_LIMITS
    ) -> TorchSession:
        """
        Open the part in float32; one that allows bf16 is computed in bf16, and takes half of the memory. BundleError:
        the files do not make the network. EngineError: the device has no room for it.
        """
        torch.set_num_threads(threads)
        width = torch.bfloat16 if part.precision == "bf16" else torch.float32
        label, graph = f"{bundle.name}/{part.file}", open_graph(bundle, part, width)
        if device != "cpu":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        try:
            return cls(graph.to(device), SIGNATURES[part.role], label, device, limits, width)
        except (RuntimeError, AssertionError) as exc:  # no memory; no CUDA after all
            raise engine_failed("torch", label, exc) from exc

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        ranks = {name: array.ndim for name, array in feeds.items()}
        if ranks != (wanted := self.signature.ranks(feeds)):
            raise EngineError(f"torch: {self.label}: fed {ranks}, wants {wanted}", engine="torch")
        check_words(feeds, self.limits, f"torch: {self.label}")
        try:
            with torch.inference_mode():
                result = self.graph(**{name: self._tensor(array) for name, array in feeds.items()})
                result = result.cpu()
        except (RuntimeError, IndexError, TypeError) as exc:  # bad shapes, no memory; ids beyond the vocabulary
            raise engine_failed("torch", self.label, exc) from exc
        return {self.signature.output: result.float().numpy()}

    def _tensor(self, array: Array) -> torch.Tensor:
        """
        Return the array on the device, in the graph's type. What has one axis is a noise level or a guidance, of which
        networks make sines: it stays exact.
        """
        tensor = _tensor(array)
        dtype = self.width if tensor.dtype == torch.float32 and tensor.ndim > 1 else tensor.dtype
        return tensor.to(self.device, dtype)

    @cached_property
    def loras(self) -> ActiveLoras:
        return ActiveLoras(self.graph.get_submodule("net"))  # a denoiser's: no other graph takes LoRAs

    def apply_loras(self, loras: Sequence[LoraFile]) -> tuple[LoraError, ...]:
        return self.loras.set(loras)

    def close(self) -> None:
        vars(self).pop("loras", None)
        del self.graph
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # other engines of this process want the memory too
        trim_heap()


def _tensor(array: Array) -> torch.Tensor:
    """Return a tensor that shares the array's memory, unless it is read-only, which torch cannot promise to respect."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
