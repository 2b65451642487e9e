"""
A pruned denoiser trained by the unpruned one, so that it draws as that one does: it learns the teacher's output (Hinton
et al. 2015), and what the teacher hands on from block to block (Romero et al. 2014), which is equally wide in both, as
units are cut inside blocks. The weights that are stored are a moving average. Training that was stopped goes on from
its last checkpoint as if it never was. What units are, is prune.py's to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engines import files
from engines.bundle import Bundle
from engines.errors import OptionError
from engines.networks.graphs import open_graph
from engines.networks.tensors import read_tensors
from engines.toolchain.compress import prune
from engines.toolchain.compress.distill_data import DistillData, Feeds, predict
from engines.toolchain.compress.prune import WEIGHTS, add_facts, pruned, whole
from engines.toolchain.steps import RECORDS, Say, Step

HELD_OUT = 20  # every twentieth caption is for checking alone
CHECKS = 4  # batches of them
WARM_UP = 0.05  # of the steps, in which the rate rises; then it falls in a straight line
# Of a tensor's own root mean square, so that a number does for networks of any width (Shazeer & Stern 2018)
RATE = 0.01
EMA = 0.99  # over about a hundred steps
SAVE_EVERY = 50  # steps: what a stop costs at most
BLOCKS = {"zimage": ("noise_refiner", "context_refiner", "layers"), "sd": ("down_blocks", "mid_block", "up_blocks")}


@dataclass(frozen=True)
class DistillOptions:
    """`captions` are what the teacher draws; one in HELD_OUT is for checking."""

    steps: int
    captions: tuple[str, ...]
    batch: int = 32
    seed: int = 0


def plan(
    ratio: float, options: DistillOptions | None, prompts: Sequence[str], bundle: Callable[[], Bundle]
) -> Iterator[Step]:
    """
    Yield the steps of a build that make its denoiser smaller, none for a ratio of 0. `bundle`: as far as it has come.
    """
    if ratio:
        title = f"prune denoiser by {ratio:.0%}"
        yield Step("prepare", title, 60, lambda say: prune.denoiser(bundle(), ratio, prompts, say))
    if ratio and options:
        yield Step("prepare", "distil denoiser", 2.0 * options.steps, lambda say: denoiser(bundle(), options, say))


def denoiser(bundle: Bundle, options: DistillOptions, say: Say) -> dict[str, Any]:
    """
    Distil the denoiser of a bundle being built, in its folder, where prune.py has been. Returns what the report will
    say; an error is the share of the teacher's output that the student misses, squared, on held-out captions.
    OptionError: fewer than two captions.
    """
    if len(options.captions) < 2:
        raise OptionError("captions", len(options.captions), "two at least, and better thousands")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = open_graph(bundle, whole()).to(device)
    student = open_graph(bundle, pruned()).to(device).requires_grad_(True)
    folder, captions = bundle.root / RECORDS, [c for i, c in enumerate(options.captions) if i % HELD_OUT]
    data = DistillData.of(bundle, captions, teacher, folder / "taught.pt", say)
    checks = DistillData.of(bundle, options.captions[::HELD_OUT], teacher, folder / "checks.pt", say)
    criterion = DistillLoss(teacher, student, BLOCKS[bundle.family])
    state = DistillState(student, options.steps)
    state.load(folder / "distil.pt")
    before = state.before = state.before or criterion.error(checks, options)
    while state.step < options.steps:
        loss = state.learn(criterion.loss(data.batch(options.batch, (options.seed, state.step))))
        if state.step % SAVE_EVERY == 0 or state.step == options.steps:
            state.save(folder / "distil.pt")
            say(f"step {state.step} of {options.steps}: loss {loss:.4f}")
    student.load_state_dict(state.average)
    after = criterion.error(checks, options)
    say(f"error on held-out captions: {before:.4f} → {after:.4f}")
    _store(student.get_submodule("net"), bundle.root / "denoiser" / WEIGHTS)
    facts = {"steps": state.step, "batch": options.batch, "captions": len(options.captions), "error": [before, after]}
    add_facts(bundle.root / "denoiser", facts)
    return facts


def _store(net: nn.Module, path: Path) -> None:
    """Replace the weights in `path`, in the types they were stored in."""
    widths = {name: value.dtype for name, value in read_tensors(path).items()}
    state = {name: value.detach().to("cpu", widths[name]).contiguous() for name, value in net.state_dict().items()}
    save_file(state, path, metadata={"format": "pt"})


@dataclass(frozen=True)
class DistillLoss:
    """What the student misses of the teacher. `blocks` are the parts of both networks whose outputs are compared."""

    teacher: nn.Module
    student: nn.Module
    blocks: tuple[str, ...]

    def loss(self, feeds: Feeds) -> Tensor:
        """Return the share of the output that is missed, squared, plus the mean of the blocks' shares."""
        with torch.no_grad():
            wanted = self._outputs(self.teacher, feeds)
        reached = self._outputs(self.student, feeds)
        output, *handed_on = (_missed(mine, theirs) for mine, theirs in zip(reached, wanted, strict=True))
        return output + torch.stack(handed_on).mean()

    def error(self, checks: DistillData, options: DistillOptions) -> float:
        """Return the mean share that is missed on CHECKS batches, whose seeds no training step has."""
        batches = [checks.batch(options.batch, (options.seed, i, 1)) for i in range(CHECKS)]
        with torch.no_grad():
            nets = (self.student, self.teacher)
            missed = [_missed(*(predict(net, batch, exact=True) for net in nets)) for batch in batches]
        return float(torch.stack(missed).mean())

    def _outputs(self, graph: nn.Module, feeds: Feeds) -> list[Tensor]:
        """Return the network's output, and what each block hands on, in float32."""
        net = graph.get_submodule("net")
        parts = [net.get_submodule(name) for name in self.blocks]
        handed_on: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _, fed, out: handed_on.append(out[0] if isinstance(out, tuple) else out))
            for part in parts
            for block in (part if isinstance(part, nn.ModuleList) else (part,))
        ]
        try:
            return [predict(graph, feeds), *(value.float() for value in handed_on)]
        finally:
            for hook in hooks:
                hook.remove()


def _missed(mine: Tensor, wanted: Tensor) -> Tensor:
    return (mine - wanted).square().mean() / wanted.square().mean()


class DistillState:
    """Everything that training needs to go on after a stop: weights, their average, optimiser and step."""

    def __init__(self, student: nn.Module, steps: int) -> None:
        self.student, self.steps, self.step = student, steps, 0
        self.before = 0.0  # the error before the first step; 0: not measured yet
        self.average = {name: value.detach().clone() for name, value in student.state_dict().items()}
        sizes = {name: max(float(p.detach().square().mean().sqrt()), 1e-3) for name, p in student.named_parameters()}
        groups = [{"params": [p], "size": sizes[name]} for name, p in student.named_parameters()]
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0)

    def learn(self, loss: Tensor) -> float:
        """Take one step down this loss; return it as a number."""
        rising = max(1.0, WARM_UP * self.steps)
        now = RATE * min((self.step + 1) / rising, (self.steps - self.step) / max(1.0, self.steps - rising))
        for group in self.optimiser.param_groups:
            group["lr"] = now * group["size"]
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._update_average()
        return float(loss.detach())

    @torch.no_grad()
    def _update_average(self) -> None:
        """
        Move the average to the new weights; a young one forgets faster, so that the start does not linger. Not torch's
        AveragedModel, for the reasons in training/loop.py.
        """
        decay = min(EMA, self.step / (self.step + 10))
        for name, value in self.student.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def save(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "step": self.step,
            "before": self.before,
            "student": self.student.state_dict(),
            "average": self.average,
        }
        with files.replacing(path) as beside, beside.open("wb") as file:
            torch.save({**state, "optimiser": self.optimiser.state_dict()}, file)

    def load(self, path: Path) -> None:
        """Go on from the checkpoint, if there is one."""
        if path.is_file():
            saved: Mapping[str, Any] = torch.load(path, weights_only=True)
            self.step, self.before, self.average = saved["step"], saved["before"], saved["average"]
            self.student.load_state_dict(saved["student"])
            self.optimiser.load_state_dict(saved["optimiser"])
