"""
A pruned denoiser taught by the unpruned one, so that it draws as that one does: it learns to tell what the teacher
tells (Hinton et al. 2015), and to hand on from block to block what the teacher hands on (Romero et al. 2014), which is
equally wide in both, as units are cut inside blocks. What is kept is a moving average. A stopped course goes on from
its last checkpoint as if it never was. What units are, is prune.py's to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engines import files
from engines.bundle import Bundle
from engines.errors import OptionError
from engines.networks.graphs import open_graph
from engines.toolchain.compress import prune
from engines.toolchain.compress.distill_data import DistillData, Feeds, told
from engines.toolchain.compress.prune import WEIGHTS, pruned, tell, whole
from engines.toolchain.steps import RECORDS, Say, Step

HELD_OUT = 20  # every so manieth caption is for checking alone
CHECKS = 4  # batches of them
WARM_UP = 0.05  # of the course, in which the rate rises; then it falls in a straight line
RATE = 0.01  # of a tensor's own size, so that one number does for wide and narrow networks (Shazeer & Stern 2018)
EMA = 0.99
SAVE_EVERY = 50
BLOCKS = {"zimage": ("noise_refiner", "context_refiner", "layers"), "sd": ("down_blocks", "mid_block", "up_blocks")}


@dataclass(frozen=True)
class DistillOptions:
    """`captions` are what the teacher draws; one in HELD_OUT is for checking."""

    steps: int
    captions: tuple[str, ...]
    batch: int = 32
    seed: int = 0


def plan(
    ratio: float, course: DistillOptions | None, prompts: Sequence[str], bundle: Callable[[], Bundle]
) -> Iterator[Step]:
    """The steps of a build that make its denoiser smaller, none for a ratio of 0. `bundle`: as far as it has come."""
    if ratio:
        title = f"prune denoiser by {ratio:.0%}"
        yield Step("prepare", title, 60, lambda say: prune.denoiser(bundle(), ratio, prompts, say))
    if ratio and course:
        yield Step("prepare", "distil denoiser", 2.0 * course.steps, lambda say: denoiser(bundle(), course, say))


def denoiser(bundle: Bundle, course: DistillOptions, say: Say) -> dict[str, Any]:
    """
    Of a bundle being built, in its folder, where prune.py has been. Returns what the report will say; an error is the
    share of the teacher's output that the student misses, squared, on held-out captions. OptionError: fewer than two
    captions.
    """
    if len(course.captions) < 2:
        raise OptionError("captions", len(course.captions), "two at least, and better thousands")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = open_graph(bundle, whole()).to(device)
    student = open_graph(bundle, pruned()).to(device).requires_grad_(True)
    folder, taught = bundle.root / RECORDS, [c for i, c in enumerate(course.captions) if i % HELD_OUT]
    lessons = DistillData.of(bundle, taught, teacher, folder / "taught.pt", say)
    checks = DistillData.of(bundle, course.captions[::HELD_OUT], teacher, folder / "checks.pt", say)
    classroom = DistillLoss(teacher, student, BLOCKS[bundle.family])
    run = Run(student, course.steps)
    run.load(folder / "distil.pt")
    before = run.before = run.before or classroom.error(checks, course)
    while run.step < course.steps:
        loss = run.learn(classroom.loss(lessons.lesson(course.batch, (course.seed, run.step))))
        if run.step % SAVE_EVERY == 0 or run.step == course.steps:
            run.save(folder / "distil.pt")
            say(f"step {run.step} of {course.steps}: loss {loss:.4f}")
    student.load_state_dict(run.average)
    after = classroom.error(checks, course)
    say(f"error on held-out captions: {before:.4f} → {after:.4f}")
    _store(student.get_submodule("net"), bundle.root / "denoiser" / WEIGHTS)
    facts = {"steps": run.step, "batch": course.batch, "captions": len(course.captions), "error": [before, after]}
    tell(bundle.root / "denoiser", facts)
    return facts


def _store(net: nn.Module, path: Path) -> None:
    """As wide as its weights were stored."""
    widths = {name: value.dtype for name, value in load_file(path).items()}
    state = {name: value.detach().to("cpu", widths[name]).contiguous() for name, value in net.state_dict().items()}
    save_file(state, path, metadata={"format": "pt"})


@dataclass(frozen=True)
class DistillLoss:
    """`blocks` are the parts of both networks whose outputs are compared."""

    teacher: nn.Module
    student: nn.Module
    blocks: tuple[str, ...]

    def loss(self, feeds: Feeds) -> Tensor:
        """The output's share, and the mean of the blocks'."""
        with torch.no_grad():
            wanted = self._told(self.teacher, feeds)
        reached = self._told(self.student, feeds)
        output, *handed_on = (_missed(mine, theirs) for mine, theirs in zip(reached, wanted, strict=True))
        return output + torch.stack(handed_on).mean()

    def error(self, checks: DistillData, course: DistillOptions) -> float:
        """On batches that no lesson has the seed of."""
        batches = [checks.lesson(course.batch, (course.seed, i, 1)) for i in range(CHECKS)]
        with torch.no_grad():
            missed = [_missed(*(told(net, one, exact=True) for net in (self.student, self.teacher))) for one in batches]
        return float(torch.stack(missed).mean())

    def _told(self, graph: nn.Module, feeds: Feeds) -> list[Tensor]:
        """The output, and what each block hands on."""
        net = graph.get_submodule("net")
        parts = [net.get_submodule(name) for name in self.blocks]
        seen: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _, fed, out: seen.append(out[0] if isinstance(out, tuple) else out))
            for part in parts
            for block in (part if isinstance(part, nn.ModuleList) else (part,))
        ]
        try:
            return [told(graph, feeds), *(value.float() for value in seen)]
        finally:
            for hook in hooks:
                hook.remove()


def _missed(mine: Tensor, wanted: Tensor) -> Tensor:
    return (mine - wanted).square().mean() / wanted.square().mean()


class Run:
    """Everything that a stopped course needs to go on, and where it stands."""

    def __init__(self, student: nn.Module, steps: int) -> None:
        self.student, self.steps, self.step = student, steps, 0
        self.before = 0.0  # the error that the course began with; 0: not measured yet
        self.average = {name: value.detach().clone() for name, value in student.state_dict().items()}
        sizes = {name: max(float(p.detach().square().mean().sqrt()), 1e-3) for name, p in student.named_parameters()}
        groups = [{"params": [p], "size": sizes[name]} for name, p in student.named_parameters()]
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0)

    def learn(self, loss: Tensor) -> float:
        """One step."""
        rising = max(1.0, WARM_UP * self.steps)
        now = RATE * min((self.step + 1) / rising, (self.steps - self.step) / max(1.0, self.steps - rising))
        for group in self.optimiser.param_groups:
            group["lr"] = now * group["size"]
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._remember()
        return float(loss.detach())

    @torch.no_grad()
    def _remember(self) -> None:
        """A young average forgets faster, so that the start does not linger."""
        keep = min(EMA, self.step / (self.step + 10))
        for name, value in self.student.state_dict().items():
            self.average[name].lerp_(value, 1 - keep)

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        state = {
            "step": self.step,
            "before": self.before,
            "student": self.student.state_dict(),
            "average": self.average,
        }
        with files.replacing(path) as beside, beside.open("wb") as file:
            torch.save({**state, "optimiser": self.optimiser.state_dict()}, file)

    def load(self, path: Path) -> None:
        if path.is_file():
            saved: Mapping[str, Any] = torch.load(path, weights_only=True)
            self.step, self.before, self.average = saved["step"], saved["before"], saved["average"]
            self.student.load_state_dict(saved["student"])
            self.optimiser.load_state_dict(saved["optimiser"])
