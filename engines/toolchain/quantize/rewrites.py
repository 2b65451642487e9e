"""
What is changed in a network before it is traced to be quantised: it is put in operators that quantise, or made to do
less, as the recipe asks. What is served in float stays as its maker has it.
"""

from __future__ import annotations

from torch import nn

from engines.bundle import Role
from engines.networks.restorer import RestorerGraph
from engines.networks.unet import UNetGraph
from engines.toolchain.recipe import Treatment


def rewrites(role: Role, how: Treatment) -> bool:
    """Tell whether anything is changed."""
    return how.kv_stride > 1 or (role == "restorer" and how.quantize == "static")


def rewritten(graph: nn.Module, how: Treatment) -> nn.Module:
    """Return the graph as it is to be quantised. It may be the same one, changed."""
    if isinstance(graph, RestorerGraph) and how.quantize == "static":
        return graph.in_phases()
    if isinstance(graph, UNetGraph) and how.kv_stride > 1:
        graph.subsample_keys(how.kv_stride)
    return graph
