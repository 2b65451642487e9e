"""A graph module behind the Session protocol: numpy in, numpy out, no gradients, no copies on the way in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import nn

from engines.bundle import Bundle, Part
from engines.errors import EngineError, LoraError
from engines.loras import LoraFile
from engines.networks.graphs import open_graph
from engines.networks.lora import Wardrobe
from engines.signatures import SIGNATURES, Array, Signature


class TorchSession:
    def __init__(self, graph: nn.Module, signature: Signature, label: str, width: torch.dtype = torch.float32) -> None:
        self.graph, self.signature, self.label, self.width = graph, signature, label, width

    @classmethod
    def open(cls, bundle: Bundle, part: Part, threads: int) -> TorchSession:
        """In float32; a part that allows bf16 is computed in bf16, and takes half of the memory."""
        torch.set_num_threads(threads)
        width = torch.bfloat16 if part.precision == "bf16" else torch.float32
        return cls(open_graph(bundle, part, width), SIGNATURES[part.role], f"{bundle.name}/{part.file}", width)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        ranks = {name: array.ndim for name, array in feeds.items()}
        if ranks != (wanted := self.signature.ranks(feeds)):
            raise EngineError(f"torch: {self.label}: fed {ranks}, wants {wanted}", engine="torch")
        try:
            with torch.inference_mode():
                result = self.graph(**{name: self._tensor(array) for name, array in feeds.items()})
        except (RuntimeError, IndexError, TypeError) as exc:  # bad shapes, no memory; ids beyond the vocabulary
            raise EngineError(f"torch: {self.label}: {exc}", engine="torch") from exc
        return {self.signature.output: result.float().numpy()}

    def _tensor(self, array: Array) -> torch.Tensor:
        """Numbers with one axis say where on the way we are: networks make sines of them, and want them exact."""
        tensor = _tensor(array)
        return tensor.to(self.width) if tensor.dtype == torch.float32 and tensor.ndim > 1 else tensor

    @cached_property
    def wardrobe(self) -> Wardrobe:
        return Wardrobe(self.graph.get_submodule("net"))  # a denoiser's: the others wear nothing

    def adapt(self, loras: Sequence[LoraFile]) -> tuple[LoraError, ...]:
        return self.wardrobe.wear(loras)

    def close(self) -> None:
        vars(self).pop("wardrobe", None)
        del self.graph


def _tensor(array: Array) -> torch.Tensor:
    """Shares the array's memory, unless it is read-only, which torch cannot promise to respect."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
