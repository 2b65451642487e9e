"""GPEN with the restorer's signature. The residual, if the bundle has one, belongs to the graph, not to the network."""

from __future__ import annotations

from torch import Tensor, nn

from engines.networks.gpen import GPEN, ModulatedConv


class RestorerGraph(nn.Module):
    """face (1, 3, N, N) RGB in [-1, 1] -> the restored face, same shape and range"""

    def __init__(self, network: GPEN, residual: float) -> None:
        super().__init__()
        self.network, self.residual = network, residual

    def in_phases(self) -> RestorerGraph:
        """
        Compute the same in convolutions alone, which is what quantises (gpen.up_in_phases). Changes and returns itself.
        """
        for module in self.network.modules():
            if isinstance(module, ModulatedConv):
                module.phased = True
        return self

    def forward(self, face: Tensor) -> Tensor:
        y: Tensor = self.network(face)
        y = face + self.residual * y if self.residual else y
        return y.clamp(-1, 1)
