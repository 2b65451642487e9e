# ruff: noqa: E402 (imports follow the check that torch is here)
"""A pruned denoiser: smaller in fact, the same function where nothing was lost, and a part like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _module in ("torch", "diffusers", "transformers", "onnx", "onnxscript", "ml_dtypes", "onnxruntime"):
    pytest.importorskip(_module, reason="builds bundles with the toolchain")

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from engines import backends
from engines.bundle import Bundle
from engines.bundle.signatures import Array
from engines.errors import BundleError, OptionError
from engines.networks import prunable
from engines.networks.prunable import Group
from engines.networks.unet import UNetGraph
from engines.networks.zimage import ZImageGraph
from engines.toolchain import __main__ as command
from engines.toolchain import build
from engines.toolchain.compress import prune
from engines.toolchain.compress.prune import WEIGHTS
from tests.support import builds
from tests.support.pruned import FAMILIES, RATIO, begin, cut, make, network, now, save

# torch's exporter uses a class that torch itself has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def begun(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, float], Bundle]:
    """begun(family, ratio): made once, without graphs. Read only."""
    folder, done = tmp_path_factory.mktemp("begun"), dict[tuple[str, float], Bundle]()

    def by(family: str, ratio: float) -> Bundle:
        if (family, ratio) not in done:
            bundle = begin(bases[family], folder / f"{family}-{ratio}")
            done[family, ratio] = cut(bundle, ratio) if ratio else bundle
        return done[family, ratio]

    return by


@pytest.fixture(scope="module")
def made(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """made(family): pruned and whole, with graphs; built once."""
    folder, done = tmp_path_factory.mktemp("bundles"), dict[str, Bundle]()

    def by(family: str) -> Bundle:
        if family not in done:
            done[family] = make(bases[family], folder / family, "edge-fp32", prune=RATIO)
        return done[family]

    return by


def feeds(net: Any, count: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    words = net.config.get("cap_feat_dim") or net.config["cross_attention_dim"]
    return {
        "latents": torch.randn(count, net.config.in_channels, 16, 24, generator=generator),
        "time": torch.rand(count, generator=generator),
        "prompt": torch.randn(count, 40, words, generator=generator),
    }


def graph_of(net: Any) -> nn.Module:
    graph = UNetGraph(net) if isinstance(net, UNet2DConditionModel) else ZImageGraph(net)
    return graph.eval().requires_grad_(False)


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


# ---- units


def without(net: Any, gone: dict[Group, torch.Tensor], folder: Path) -> Any:
    """The narrower network, by way of its files."""
    net.save_pretrained(folder)
    save_file(prunable.without(load_file(folder / WEIGHTS), gone), folder / WEIGHTS)
    prune.add_facts(folder, {})
    return prunable.load(type(net), folder, torch.float32).eval()


@every_family
def test_a_narrower_network_is_the_one_whose_units_do_nothing(family: str, tmp_path: Path) -> None:
    """Every third unit of every group; the weights that lead out of it are zero in the whole network."""
    net, rng = network(family), torch.Generator().manual_seed(3)
    found = prunable.groups(net)
    assert {group.kind for group in found} == (
        {"heads", "feed-forward", "time"} if family == "zimage" else {"heads", "feed-forward", "channels"}
    )
    gone = {group: torch.randperm(group.count, generator=rng)[: max(1, group.count // 3)] for group in found}
    narrow = without(net, gone, tmp_path)
    before = graph_of(net)(**feeds(net))
    with torch.no_grad():
        for group, idle in gone.items():
            for place in group.places:
                if place.axis == 1:
                    net.get_parameter(place.tensor)[:, group.channels(idle, place)] = 0
    silent = graph_of(net)(**feeds(net))
    assert apart(silent, before) > 0.05, "else anything would do"
    assert apart(graph_of(narrow)(**feeds(net)), silent) <= 1e-5
    assert sum(p.numel() for p in narrow.parameters()) < 0.85 * sum(p.numel() for p in net.parameters())
    for name, module in narrow.named_modules():
        if isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features), name
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels), name
        if isinstance(module, nn.GroupNorm):
            assert module.weight.shape == (module.num_channels,) and module.num_channels % module.num_groups == 0, name


@every_family
def test_several_pictures_at_a_time_are_each_its_own(family: str) -> None:
    net = network(family)
    graph, fed = graph_of(net), feeds(net, 3)
    together = graph(**fed)
    for i in range(3):
        alone = graph(**{name: value[i : i + 1] for name, value in fed.items()})
        assert apart(together[i : i + 1], alone) <= 1e-5


@every_family
def test_what_a_unit_does_is_what_is_lost_without_it(family: str) -> None:
    """The estimate, which never takes one out, orders the units of a group as taking each of them out does."""
    net, rng = network(family), torch.Generator().manual_seed(4)
    found = prunable.groups(net)
    with torch.no_grad():
        for group in found:  # some do much, some hardly anything
            for place in group.places:
                if place.axis == 1:
                    strength = torch.logspace(-2, 0, group.count)[torch.randperm(group.count, generator=rng)]
                    weight = net.get_parameter(place.tensor).transpose(1, -1)
                    weight.mul_(strength.repeat_interleave(group.size))
    graph = graph_of(net)
    some = [{name: value.numpy() for name, value in feeds(net, seed=i).items()} for i in range(16)]
    told = prune.importances(graph, found, some)
    with torch.no_grad():
        for group in {group.kind: group for group in reversed(found)}.values():
            lost = torch.tensor([loss_without(graph, group, unit, some[:2]) for unit in range(min(group.count, 12))])
            ranks = (lost.argsort().argsort().float(), told[group][: len(lost)].argsort().argsort().float())
            assert torch.corrcoef(torch.stack(ranks))[0, 1] > 0.6, (group.name, lost, told[group])


def loss_without(graph: nn.Module, group: Group, unit: int, some: list[dict[str, Array]]) -> float:
    net = graph.get_submodule("net")
    fed = [{name: torch.from_numpy(array) for name, array in one.items()} for one in some]
    wanted = [graph(**one) for one in fed]
    kept = {place: net.get_parameter(place.tensor).clone() for place in group.places if place.axis == 1}
    for place in kept:
        net.get_parameter(place.tensor)[:, group.channels(torch.tensor([unit]), place)] = 0
    total = sum(float((graph(**one) - want).square().sum()) for one, want in zip(fed, wanted, strict=True))
    for place, value in kept.items():
        net.get_parameter(place.tensor).copy_(value)
    return total


# ---- a part of a bundle


def counted(bundle: Bundle) -> tuple[int, int]:
    """
    Parameters of what is loaded, and operations as they are computed, at the native size. Attention as two products:
    the counter does not know the CPU's own kernel, and leaves it out.
    """
    graph = now(bundle)
    net: Any = graph.get_submodule("net")
    assert bundle.sampling is not None
    width, height = (side // bundle.sampling.latent_stride for side in bundle.sizes[0])
    words = net.config.get("cap_feat_dim") or net.config["cross_attention_dim"]
    fed = (torch.randn(1, net.config.in_channels, height, width), torch.rand(1), torch.randn(1, prune.WORDS, words))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        graph(*fed)
    return sum(value.numel() for value in graph.parameters()), counter.get_total_flops()


@every_family
def test_a_third_less_is_a_third_less_of_everything(begun: Callable[[str, float], Bundle], family: str) -> None:
    """Of parameters in the file and in memory, and of operations: zeros among the weights would save nothing."""
    plain, pruned = begun(family, 0.0), begun(family, RATIO)
    before, after = counted(plain), counted(pruned)
    assert after[0] <= (1 - RATIO) * before[0] and after[1] <= (1 - RATIO) * before[1]
    assert max(after[0] / before[0], after[1] / before[1]) > 0.6, "and not much more than was asked for"
    state = load_file(pruned.root / "denoiser" / WEIGHTS)
    assert sum(value.numel() for value in state.values()) == after[0]
    assert min(float((value == 0).float().mean()) for value in state.values()) == 0
    sizes = [(bundle.root / "denoiser" / WEIGHTS).stat().st_size for bundle in (plain, pruned)]
    assert sizes[1] <= 0.75 * sizes[0]
    told = json.loads((pruned.root / "denoiser" / "config.json").read_text(encoding="utf-8"))[prunable.PRUNED]
    assert told == {"parameters": [before[0], after[0]], "flops": [before[1], after[1]]}


@every_family
def test_every_engine_runs_it_as_pytorch_does(made: Callable[[str], Bundle], family: str) -> None:
    bundle = made(family)
    bundle.verify()
    net: Any = now(bundle).get_submodule("net")
    fed = {name: value.numpy() for name, value in feeds(net, seed=9).items()}
    results = {}
    for engine in (e for e in backends.engines() if not backends.candidate(bundle, e).refused):
        session = engine.load(bundle, bundle.part("denoiser", engine.formats))
        results[engine.name] = session.run(fed)["velocity"]
        session.close()
    assert {"torch", "ort"} <= results.keys()
    for name, result in results.items():
        assert np.abs(result - results["torch"]).max() <= 1e-4 * np.abs(results["torch"]).max(), name


@pytest.mark.slow
@pytest.mark.parametrize(("family", "recipe"), [("sd", "edge-int8"), ("zimage", "edge-int4")])
def test_it_is_quantised_like_any_other(bases: dict[str, Path], tmp_path: Path, family: str, recipe: str) -> None:
    bundle = make(bases[family], tmp_path / "made", recipe, prune=RATIO)
    assert bundle.part("denoiser", frozenset({"onnx"})).precision == recipe.removeprefix("edge-")
    net: Any = now(bundle).get_submodule("net")
    fed = {name: value.numpy() for name, value in feeds(net).items()}
    engine = backends.engine("ort")
    result = engine.load(bundle, bundle.part("denoiser", engine.formats)).run(fed)["velocity"]
    wanted = now(bundle)(**feeds(net)).numpy()
    assert np.corrcoef(result.ravel(), wanted.ravel())[0, 1] > 0.9


@every_family
def test_units_that_do_little_go_first(family: str, tmp_path: Path) -> None:
    """Half of every group is made to do next to nothing: what it draws is nearly what the whole one draws."""
    net = network(family)
    with torch.no_grad():
        for group in prunable.groups(net):
            idle = torch.randperm(group.count, generator=torch.Generator().manual_seed(1))[: group.count // 2]
            for place in group.places:
                if place.axis == 1:
                    net.get_parameter(place.tensor)[:, group.channels(idle, place)] *= 1e-4
    base = save(family, tmp_path / "base", net)
    bundle = cut(begin(base, tmp_path / "made"), RATIO)
    assert apart(now(bundle)(**feeds(net)), graph_of(net)(**feeds(net))) <= 0.01


def test_a_plain_part_is_opened_as_ever(begun: Callable[[str, float], Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise AssertionError("this is for pruned ones")

    monkeypatch.setattr(prunable, "load", refused)
    for family in FAMILIES:
        bundle = begun(family, 0.0)
        net: Any = now(bundle).get_submodule("net")
        assert prunable.PRUNED not in (bundle.root / "denoiser" / "config.json").read_text(encoding="utf-8")
        assert type(net).from_config(net.config).state_dict().keys() == net.state_dict().keys()


def damaged(bundle: Bundle, folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Bundle:
    shutil.copytree(bundle.root, folder)
    state = load_file(folder / "denoiser" / WEIGHTS)
    change(state)
    save_file(state, folder / "denoiser" / WEIGHTS)
    return replace(bundle, root=folder)


def lacking(state: dict[str, torch.Tensor]) -> None:
    state.popitem()


def unequal(state: dict[str, torch.Tensor]) -> None:
    name = next(name for name in state if name.endswith("attention.to_v.weight"))
    state[name] = state[name][:-16].contiguous()


def half_a_head(state: dict[str, torch.Tensor]) -> None:
    for name in [name for name in state if "layers.0.attention.to_" in name]:
        axis = 1 if "to_out" in name else 0
        state[name] = state[name].narrow(axis, 0, state[name].shape[axis] - 8).contiguous()


@pytest.mark.parametrize("change", [lacking, unequal, half_a_head])
def test_what_does_not_go_together_is_refused(
    begun: Callable[[str, float], Bundle], tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    with pytest.raises(BundleError):
        now(damaged(begun("zimage", RATIO), tmp_path / "damaged", change))


@pytest.mark.parametrize("ratio", [0.65, 0.9, -0.1, float("nan")])
def test_more_than_can_go_is_refused(bases: dict[str, Path], tmp_path: Path, ratio: float) -> None:
    with pytest.raises(OptionError, match="prune="):
        cut(begin(bases["zimage"], tmp_path / "made"), ratio)


@pytest.mark.parametrize("moment", ["measure", "_write", "add_facts", "lineage"])
def test_pruning_that_was_stopped_inside_goes_on(
    bases: dict[str, Path], begun: Callable[[str, float], Bundle], tmp_path: Path, moment: str
) -> None:
    """The whole one is moved away, and the smaller one not there, or not yet told of, or told of only on disk."""
    bundle = begin(bases["zimage"], tmp_path / "made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prune, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            cut(bundle, RATIO)
    cut(bundle, RATIO)
    ours, theirs = (load_file(one.root / "denoiser" / WEIGHTS) for one in (bundle, begun("zimage", RATIO)))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert counted(bundle) == counted(begun("zimage", RATIO))


def interrupted(*_: Any) -> Any:
    raise KeyboardInterrupt


def test_a_bundle_says_what_it_has_lost(
    made: Callable[[str], Bundle], begun: Callable[[str, float], Bundle], bases: dict[str, Path], tmp_path: Path
) -> None:
    """In its lineage and its card; once, also when it is built on."""
    bundle = made("zimage")
    (line,) = prune.lineage(bundle.root / "denoiser")
    (many, slow), (fewer, fast) = counted(begun("zimage", 0.0)), counted(bundle)
    assert f"from {many / 1e6:.4g} to {fewer / 1e6:.4g} M parameters ({fewer / many:.1%})" in line
    assert f"from {slow / 1e9:.4g} to {fast / 1e9:.4g} GFLOP a step ({fast / slow:.1%})" in line
    assert bundle.lineage == ("random numbers", line)
    assert (bundle.root / "card.md").read_text(encoding="utf-8").count(line) == 1
    assert not (bundle.root / ".records").exists()
    again = make_again(bundle, tmp_path / "again")
    assert again.lineage == bundle.lineage
    assert (again.root / "card.md").read_text(encoding="utf-8").count(line) == 1
    assert counted(again) == counted(bundle)
    assert prune.lineage(begun("zimage", 0.0).root / "denoiser") == () == prune.lineage(tmp_path)


def make_again(bundle: Bundle, out: Path) -> Bundle:
    with pytest.MonkeyPatch.context() as patch:
        builds.lighten(patch)
        return build.build_portrait(bundle.root, None, out, "edge-fp32")


@pytest.mark.slow
def test_a_report_says_it_too(bases: dict[str, Path], tmp_path: Path) -> None:
    bundle = make(bases["zimage"], tmp_path / "made", "edge-fp32", prune=RATIO, prove=True)
    steps_told = json.loads((bundle.root / "report.json").read_text(encoding="utf-8"))["steps"]
    (told,) = [step for step in steps_told if step["step"] == "prune denoiser by 30%"]
    assert told["parameters"][1] <= 0.7 * told["parameters"][0] and told["flops"][1] <= 0.7 * told["flops"][0]


# ---- ./run.sh build


@pytest.mark.parametrize("told", [("--distil", "5"), ("--captions", "x.txt"), ("--prune", "0.3", "--distil", "5")])
def test_half_a_wish_is_refused(
    told: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["build", "portrait", "--base", str(tmp_path), "--out", str(tmp_path / "out"), *told]
    monkeypatch.setattr("sys.argv", words)
    assert command.main() == 1
    assert "--distil STEPS goes with" in capsys.readouterr().err
