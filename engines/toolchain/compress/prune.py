"""
A denoiser made smaller: whole units (engines/networks/prunable.py) are taken out of its weights, those first that do
least for what they cost, until parameters and operations have both fallen by the share that was asked for.

What a unit does is how far the output moves without it, to first order in the weights that lead out of it. It is
measured where the network works, on the way from noise to picture: for outputs f and random v of unit variance, the
mean of (v . J w)^2 is |J w|^2, where J w is the change that the weights w make. (Hutchinson 1989; the first-order
importance of Molchanov et al. 2019, with the output in place of the loss, whose gradient is gone when training ends.)
Knows nothing of learning: distill.py brings back what is lost here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from engines import backends
from engines.bundle import Bundle, Part
from engines.errors import OptionError
from engines.messages.validation import within
from engines.networks import prunable
from engines.networks.graphs import open_graph
from engines.networks.prunable import PRUNED, Group
from engines.networks.tensors import read_tensors
from engines.roles.loaded import LoadedBundle
from engines.toolchain.quantize import calibration
from engines.toolchain.steps import RECORDS, Say

WHOLE = f"{RECORDS}/whole"  # in the folder of a bundle being built: where the unpruned denoiser stays meanwhile
WEIGHTS = "diffusion_pytorch_model.safetensors"
MOST = 0.7  # the share that can be asked for
LEAST_LEFT = 0.25  # of each group's units
# Groups of at least WIDE channels keep a multiple of EVEN: matrix products and int4 blocks like it.
EVEN, WIDE = 32, 128
PROBES = 96  # feeds that units are weighed with
WORDS = 77  # length of the prompt that operations are counted with: what CLIP always reads


@dataclass(frozen=True)
class Size:
    """What a network costs, or a unit's share in it. Operations are those of one call at the bundle's native size."""

    parameters: float
    flops: float


Cut = Mapping[Group, Tensor]  # which units of each group go


def denoiser(bundle: Bundle, ratio: float, prompts: Sequence[str], say: Say) -> dict[str, Any]:
    """
    Prune the denoiser of a bundle being built, in its folder; the unpruned one moves to WHOLE. `prompts` are drawn
    while units are weighed. OptionError: the ratio is none, or more than can go.
    """
    within("prune", ratio, 0.0, MOST)
    folder, unpruned = bundle.root / "denoiser", bundle.root / WHOLE
    if not unpruned.is_dir():  # else it was stopped in the middle
        folder.rename(unpruned)
    shutil.rmtree(folder, ignore_errors=True)
    feeds = _on_the_way(bundle, prompts)
    graph = open_graph(bundle, whole())
    groups = prunable.groups(graph.get_submodule("net"))
    size, costs = measure(graph, bundle, groups)
    cut = choose(groups, importances(graph, groups, feeds), costs, size, ratio)
    for kind in dict.fromkeys(group.kind for group in groups):
        of_kind = [group for group in groups if group.kind == kind]
        left = sum(group.count - len(cut[group]) for group in of_kind)
        say(f"{kind}: {left} of {sum(group.count for group in of_kind)} units are left")
    _write(unpruned, folder, cut)
    after, _ = measure(open_graph(bundle, pruned()), bundle, [])
    facts = {"parameters": [int(size.parameters), int(after.parameters)], "flops": [int(size.flops), int(after.flops)]}
    add_facts(folder, facts)
    say(lineage(folder)[0])
    return facts


def whole() -> Part:
    """Return the unpruned denoiser of a bundle being built."""
    return Part("denoiser", WHOLE, "diffusers", "fp32", "", "")


def pruned() -> Part:
    """Return the pruned denoiser of a bundle being built."""
    return replace(whole(), file="denoiser")


def add_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add to what the config of a part says of its pruning."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config[PRUNED] = {**config.get(PRUNED, {}), **facts}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def lineage(folder: Path) -> tuple[str, ...]:
    """Return a line for the bundle's lineage, if the denoiser in this folder is pruned."""
    if not (folder / "config.json").is_file() or not prunable.is_pruned(folder):
        return ()
    facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))[PRUNED]
    (many, fewer), (slow, fast) = facts["parameters"], facts["flops"]
    line = f"denoiser pruned from {many / 1e6:.4g} to {fewer / 1e6:.4g} M parameters ({fewer / many:.1%})"
    line += f" and from {slow / 1e9:.4g} to {fast / 1e9:.4g} GFLOP a step ({fast / slow:.1%})"
    return (line + (f", distilled in {facts['steps']} steps" if "steps" in facts else ""),)


def _on_the_way(bundle: Bundle, prompts: Sequence[str]) -> list[calibration.Feeds]:
    """Return PROBES feeds of the unpruned denoiser, from noise to picture."""
    others = (part for part in bundle.parts if part.role != "denoiser")
    loaded = LoadedBundle(replace(bundle, parts=(*others, whole())), backends.engine("torch"))
    feeds = calibration.trajectories(loaded, prompts)["denoiser"]
    loaded.close()
    return [feeds[i * len(feeds) // PROBES] for i in range(PROBES)]


def _write(source: Path, target: Path, cut: Cut) -> None:
    """
    Write the weights that are left, as they were stored, in one file, and the config with the mark of what is pruned.
    """
    state: dict[str, Tensor] = {}
    for path in sorted(source.glob("*.safetensors")):
        state.update(read_tensors(path))
    target.mkdir()
    save_file(prunable.without(state, cut), target / WEIGHTS, metadata={"format": "pt"})
    shutil.copyfile(source / "config.json", target / "config.json")
    add_facts(target, {})


# ---- what units cost


def measure(graph: nn.Module, bundle: Bundle, groups: Sequence[Group]) -> tuple[Size, dict[Group, Size]]:
    """
    Return what the network costs, and what one unit of each group does. Nothing is computed: shapes alone go through
    the network.
    """
    tensors = {**dict(graph.named_parameters()), **dict(graph.named_buffers())}
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad(), counter:
        shapes = {name: value.to("meta") for name, value in tensors.items()}
        torch.func.functional_call(graph, shapes, kwargs=_blank(graph, bundle))
    counts = counter.get_flop_counts()
    flops = {str(name).partition(".")[2]: sum(ops.values()) for name, ops in counts.items()}
    size = Size(sum(p.numel() for p in graph.parameters()), counter.get_total_flops())
    return size, {group: _unit(group, graph.get_submodule("net"), flops) for group in groups}


def _blank(graph: nn.Module, bundle: Bundle) -> dict[str, Tensor]:
    """Return empty feeds of the bundle's native size."""
    net: Any = graph.get_submodule("net")
    sampling, config = bundle.need(bundle.sampling, "sampling"), net.config
    width, height = (side // sampling.latent_stride for side in bundle.sizes[0])
    deep = config.get("cap_feat_dim") or config["cross_attention_dim"]
    feeds = {
        "latents": torch.empty(1, config["in_channels"], height, width),
        "time": torch.empty(1),
        "prompt": torch.empty(1, WORDS, deep),
    }
    return {**feeds, **({"guidance": torch.empty(1)} if config.get("time_cond_proj_dim") else {})}


def _unit(group: Group, net: nn.Module, flops: Mapping[str, int]) -> Size:
    """Return a unit's share of the layers that it goes through and, of a head, of the attention itself."""
    parameters = operations = 0.0
    for place in group.places:
        tensor = net.get_parameter(place.tensor)
        share = group.size / tensor.shape[place.axis]
        parameters += share * tensor.numel()
        if place.tensor.endswith(".weight"):
            operations += share * flops.get(f"net.{place.tensor.removesuffix('.weight')}", 0)
    if group.kind == "heads":
        layers = ("to_q", "to_k", "to_v", "to_out.0")
        own = flops[f"net.{group.name}"] - sum(flops[f"net.{group.name}.{layer}"] for layer in layers)
        operations += own / group.count
    return Size(parameters, operations)


# ---- what units do


def importances(
    graph: nn.Module, groups: Sequence[Group], feeds: Sequence[calibration.Feeds], seed: int = 0
) -> dict[Group, Tensor]:
    """Return the mean square of how far the output moves without each unit, (count,) by group."""
    net, generator = graph.get_submodule("net"), torch.Generator().manual_seed(seed)
    names = list(dict.fromkeys(place.tensor for group in groups for place in group.places if place.axis == 1))
    weights = {name: net.get_parameter(name).requires_grad_() for name in names}
    importance = {group: torch.zeros(group.count) for group in groups}
    for fed in feeds:
        output = graph(**{name: torch.from_numpy(array) for name, array in fed.items()})
        probe = (output * torch.randn(output.shape, generator=generator)).sum()
        slopes = dict(zip(names, torch.autograd.grad(probe, list(weights.values())), strict=True))
        for group in groups:
            moved = torch.stack(list(_moved(group, weights, slopes))).sum(0)
            importance[group] += moved.square() / len(feeds)
    graph.requires_grad_(False)
    return importance


def _moved(group: Group, weights: Mapping[str, Tensor], slopes: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """Yield, by place, how far the probe moves with the weights that lead out of each unit (count,)."""
    for place in group.places:
        if place.axis == 1:
            change = (weights[place.tensor].detach() * slopes[place.tensor]).transpose(0, 1).flatten(1).sum(1)
            yield change[place.start : place.start + group.count * group.size].view(group.count, group.size).sum(1)


# ---- which units go


def choose(
    groups: Sequence[Group],
    importance: Mapping[Group, Tensor],
    costs: Mapping[Group, Size],
    size: Size,
    ratio: float,
) -> Cut:
    """
    Return the least important units for the operations they cost, until those have fallen by the ratio, then for the
    parameters, if those have not yet. OptionError: that is more than can go.
    """
    order = {group: importance[group].argsort() for group in groups}
    harm = {group: torch.cat((torch.zeros(1), importance[group][order[group]].cumsum(0))).tolist() for group in groups}
    gone = dict.fromkeys(groups, 0)
    for what in ("flops", "parameters"):
        each = {group: getattr(costs[group], what) for group in groups}
        while sum(each[group] * gone[group] for group in groups) < ratio * getattr(size, what):
            able = [group for group in groups if each[group] and _rung(group, gone[group])]
            if not able:
                raise OptionError("prune", ratio, "less: too few units would be left")
            prices = {
                group: _price(harm[group], gone[group], _rung(group, gone[group])) / each[group] for group in able
            }
            cheapest = min(able, key=lambda group: prices[group])
            gone[cheapest] = _rung(cheapest, gone[cheapest])
    return {group: order[group][: gone[group]] for group in groups}


def _price(harm: Sequence[float], gone: int, rung: int) -> float:
    """Return the harm of each unit on average, up to the next rung of the ladder."""
    return (harm[rung] - harm[gone]) / (rung - gone)


def _rung(group: Group, gone: int) -> int:
    """Return how many units are gone at the next rung of the ladder; 0 at its end."""
    even = EVEN if group.size == 1 and group.count >= WIDE else 1
    left = (group.count - gone - 1) // even * even
    return group.count - left if left >= max(1, LEAST_LEFT * group.count) else 0
