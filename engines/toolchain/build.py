"""
From checkpoints to a bundle: weights stored, each part exported beside them and held against PyTorch, the bytes shared,
parts quantised as the recipe says, embeddings of given prompts stored, and every engine proved.

A bundle is built in a hidden folder beside its place and moved there when it is whole; what is finished is not done
twice. What weights cannot say of themselves (title, sizes, prompt template, licence ...) is read from a small TOML
file; training/portrait/about.toml is one.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from engines import backends
from engines.bundle import EMBEDDINGS, PROOF, Bundle, Part, Role, digest, size_bytes
from engines.errors import EngineError, OptionError
from engines.messages.prompts import read
from engines.networks.graphs import open_graph
from engines.roles import memory
from engines.roles.loaded import LoadedBundle
from engines.toolchain import manifest, prompt_embeddings, report, sources, steps
from engines.toolchain.compress import distill
from engines.toolchain.compress.distill import DistillOptions
from engines.toolchain.export import export, fold_weights, parity
from engines.toolchain.export.shared_weights import share_weights
from engines.toolchain.manifest import Draft
from engines.toolchain.quantize import calibration, fp16, quantize
from engines.toolchain.quantize.out_of_core import OutOfCore
from engines.toolchain.quantize.rewrites import rewrites, rewritten
from engines.toolchain.recipe import Recipe, chosen
from engines.toolchain.sources import Source, weights
from engines.toolchain.sources.merge_lora import Addition
from engines.toolchain.steps import Emit, Say, Step, unheard

PARITY = 1e-4  # of a part's largest output: how far a graph may be from its source
LARGE = 40_000_000  # numbers in a network: beyond, its graph is quantised without being held in memory


@dataclass(frozen=True)
class BuildOptions:
    """
    What a build is asked for besides the recipe: `prompts` get stored embeddings; `calibration` is a folder of
    photographs; `loras` are merged into the denoiser, which then loses the share `prune` and is distilled; `prove`:
    with proof and report.
    """

    prompts: tuple[str, ...] = ()
    calibration: Path | None = None
    loras: tuple[Addition, ...] = ()
    prune: float = 0.0
    distill: DistillOptions | None = None
    prove: bool = False


PLAIN = BuildOptions()


def build_portrait(
    base: Path,
    about: Path | None,
    out: Path,
    recipe: str = "",
    *,
    options: BuildOptions = PLAIN,
    checkpoints: Path | None = None,
    emit: Emit = unheard,
) -> Bundle:
    """
    Build a portrait bundle in `out`. `base` is a folder as ZImagePipeline or StableDiffusionPipeline writes it, or a
    .safetensors of Stable Diffusion 1, with an AutoencoderTiny in preview_decoder/ beside or among the `checkpoints`;
    or a bundle. BundleError: it is something else, or a graph is not its source's.
    """
    source = sources.portrait(base, about, checkpoints)
    return Builder(source, chosen(recipe), out, options).build(emit)


def build_restorer(
    weights: Path, about: Path | None, out: Path, recipe: str = "", options: BuildOptions = PLAIN, emit: Emit = unheard
) -> Bundle:
    """
    Build a restorer bundle in `out`. `weights` is a GPEN: a state dict (safetensors, .pth), a community export (.onnx),
    or a bundle. BundleError: it is something else, or the graph is not its source's.
    """
    return Builder(sources.restorer(weights, about), chosen(recipe), out, options).build(emit)


def build_detector(
    weights: Path, about: Path | None, out: Path, recipe: str = "", options: BuildOptions = PLAIN, emit: Emit = unheard
) -> Bundle:
    """
    Build a detector bundle in `out`. `weights` is CenterFace or YuNet as ONNX. Nothing proves it: it is the original's
    graph. BundleError: it is something else.
    """
    source = sources.detector(weights, about)
    return Builder(source, chosen(recipe), out, replace(options, prove=False)).build(emit)


@dataclass(frozen=True)
class Builder:
    source: Source
    recipe: Recipe
    out: Path
    options: BuildOptions

    @property
    def work(self) -> Path:
        return self.out.with_name(f".{self.out.name}.building")

    @property
    def draft(self) -> Draft:
        return Draft(self.source, self.recipe, self.work, self.out.name, tuple(map(str, self.options.loras)))

    def build(self, emit: Emit) -> Bundle:
        if self.options.prune and self.recipe.lean:
            raise OptionError(
                "recipe", self.recipe.name, "with --prune, one that keeps its source; then build from that"
            )
        if self.recipe.subsamples and self.source.family != "sd":
            raise OptionError("recipe", self.recipe.name, "for SD models alone, whose attention it subsamples")
        steps.resume(self.work, self._inputs())
        records = steps.run(list(self._steps()), self.work, emit)
        bundle = self.draft.bundle()
        if self.options.prove:
            report.write_report(bundle, records)
        self.draft.write_manifest(bundle)
        self.draft.write_card(bundle, self.options.prove)
        for scratch in (steps.RECORDS, manifest.SCRATCH):
            shutil.rmtree(self.work / scratch, ignore_errors=True)
        shutil.rmtree(self.out, ignore_errors=True)
        self.work.rename(self.out)
        return Bundle.open(self.out)

    def _inputs(self) -> str:
        """Return a digest of all that the build is made from: a working folder of another one is begun anew."""
        files = [*dict.fromkeys(self.source.parts.values()), *filter(None, (self.source.tokenizer,))]
        files += [self.options.calibration] if self.options.calibration else []
        source = self.source
        inputs = [source.about, source.sampling, source.text, self.recipe, self.options, list(map(digest, files))]
        return hashlib.sha256(repr(inputs).encode()).hexdigest()

    # ---- the plan

    def _steps(self) -> Iterator[Step]:
        for role, path in self.source.parts.items():
            megabytes = size_bytes(path) / 1e6
            yield Step("prepare", f"store {role}", 0.2 + megabytes / 200, partial(self._store, role))
        yield from distill.plan(self.options.prune, self.options.distill, self._some_prompts(8), self.draft.bundle)
        for role, path in self.source.parts.items():
            if not self.recipe.alone(role):
                cost = 8 + size_bytes(path) / 3e7
                yield Step("export", f"export {role}", cost, partial(self._export, role))
        for role, path in self.source.parts.items():
            if (how := self.recipe.of(role)).quantize:
                title = f"{how.precision} {role}, {how.quantize}"
                cost = (10 + size_bytes(path) / 2e6) * max(1, len(how.ranges))
                yield Step("quantize", title, cost, partial(self._quantize, role))
            elif self._for_tensorrt(role):
                yield Step("export", f"{how.tensorrt} {role}", 5 + size_bytes(path) / 3e7, partial(self._to_fp16, role))
        if self.options.prompts and "text_encoder" in self.source.parts:
            yield Step("embed", f"read {len(self.options.prompts)} prompts", 5, self._embed)
        if self.options.prove:
            yield Step("verify", "draw the proof", 10, self._draw_proof)
            for name in backends.names():
                yield Step("verify", f"prove {name}", 10, partial(self._prove, name))

    def _store(self, role: Role, say: Say) -> dict[str, Any]:
        """Store the weights in the recipe's width, in the layout their library reads."""
        if role == "text_encoder" and self.source.tokenizer is not None:
            weights.tokenizer(self.source.tokenizer, self.work / "tokenizer.json")
        folder, source = self.draft.stored(role), self.source.parts[role]
        loras = self.options.loras if role == "denoiser" else ()
        if self.recipe.alone(role) and source.is_dir() and not loras:
            say("is read where it lies")
            return {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        weights.part(role, source, folder, self.recipe.stored, loras, say)
        return {"bytes": size_bytes(folder)}

    def _export(self, role: Role, say: Say) -> dict[str, Any]:
        part = self.draft.origin(role)
        if part is None:
            say("is ONNX already")
            return {}
        graph, model = open_graph(self.draft.origins(), part), self.work / role / "model.onnx"
        model.unlink(missing_ok=True)
        export(graph, role, self.draft.example(role), model)
        if self._is_quantized_in_memory(role) and not rewrites(role, self.recipe.of(role)):
            self.draft.float_graph(role).parent.mkdir(exist_ok=True)
            fold_weights(model, self.draft.float_graph(role))  # before the weights leave the model
        (weights,) = (self.work / role).glob("*.safetensors")
        saved = share_weights(model, weights)
        difference = parity(graph, role, self.draft.example(role, other=True), model)
        say(f"differs from PyTorch by {difference:.1e}; {saved / 1e6:.1f} MB shared")
        if difference > PARITY:
            raise EngineError(
                f"{role}: the graph differs from PyTorch by {difference:.1e}, over {PARITY}", engine="ort"
            )
        return {"parity": difference}

    def _quantize(self, role: Role, say: Say) -> dict[str, Any]:
        how, part, folder = self.recipe.of(role), self.draft.origin(role), self.draft.quantized_folder(role)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        feeds, path = self._feeds(role), folder / "model.onnx"
        if part is None or self._is_quantized_in_memory(role):
            outcome = quantize(self._whole(role, part), path, how, feeds, say)
            for floats in self.draft.float_graph(role).parent.glob(f"{role}.onnx*"):
                floats.unlink()
        else:
            outcome = OutOfCore(self.draft.origins(), part, how, self.draft.example(role), feeds).quantize(path, say)
        in_fp16 = {"halved": asdict(fp16.to_fp16(path, path, feeds[-2:], say))} if self._for_tensorrt(role) else {}
        return {"role": role, "bytes": size_bytes(folder), **asdict(outcome), **in_fp16}

    def _for_tensorrt(self, role: Role) -> bool:
        """Tell whether the part gets a graph of its own for TensorRT."""
        return bool(self.recipe.of(role).tensorrt) and role not in self.source.about.exact

    def _to_fp16(self, role: Role, say: Say) -> dict[str, Any]:
        """Write the graph for TensorRT beside the one in float32, whose weights it shares."""
        path = self.work / role / "model.onnx"
        return asdict(fp16.to_fp16(path, path.with_name(fp16.NAME), self._feeds(role, 1), say))

    def _is_quantized_in_memory(self, role: Role) -> bool:
        """Tell whether the part is quantised from its whole graph in float32: all but what is quantised out of core."""
        how = self.recipe.of(role)
        streams = self._is_large(role) and role != "restorer" and how.quantize != "dynamic" and not how.tensorrt
        return bool(how.quantize) and not streams

    def _whole(self, role: Role, part: Part | None) -> Path:
        """Return the path of the graph in float32, its weights inside: as it came, as `_export` left it, or traced."""
        path = self.work / role / "model.onnx" if part is None else self.draft.float_graph(role)
        how = self.recipe.of(role)
        if part is not None and (rewrites(role, how) or self.recipe.alone(role) or not path.is_file()):
            graph = rewritten(open_graph(self.draft.origins(), part), how)
            path.parent.mkdir(exist_ok=True)
            traced = path.with_name(f"{path.name}.traced")
            export(graph, role, self.draft.example(role), traced)
            fold_weights(traced, path)
        return path

    def _is_large(self, role: Role) -> bool:
        return memory.numbers(self.draft.path(role)) > LARGE

    def _feeds(self, role: Role, count: int = 8) -> list[calibration.Feeds]:
        """Return feeds to calibrate and to check with; `count` prompts at most."""
        if role == "restorer":
            return calibration.of_faces(list(calibration.faces(self.options.calibration, self._face_px)))
        loaded = self._reference() if any(map(self.recipe.alone, self.source.parts)) else self._exact()
        try:
            return self._drawn_feeds(role, loaded, count)
        finally:
            loaded.close()

    def _drawn_feeds(self, role: Role, loaded: LoadedBundle, count: int) -> list[calibration.Feeds]:
        """
        Return what the role is fed while pictures are drawn. The larger a network, the less there is time for: weights
        without ranges are judged by two steps alone.
        """
        if role == "text_encoder":
            return calibration.words(self._some_prompts(count), loaded)
        large = self._is_large("denoiser")
        if large and self.recipe.of(role).quantize != "static":
            return calibration.trajectories(loaded, self._some_prompts(1), most_steps=2)[role]
        return calibration.trajectories(loaded, self._some_prompts(min(count, 3) if large else count))[role]

    @property
    def _face_px(self) -> int:
        return self.draft.origins().need(self.source.face, "its face").size_px

    def _some_prompts(self, count: int) -> Sequence[str]:
        prompts = [read(prompt).text for prompt in self.options.prompts] or calibration.PROMPTS
        return prompts[:: max(1, len(prompts) // count)][:count]

    def _embed(self, say: Say) -> dict[str, Any]:
        guided = self.source.sampling is not None and self.source.sampling.guidance > 0
        prompts = tuple(dict.fromkeys((*self.options.prompts, *([""] if guided else []))))
        prompt_embeddings.write(self._reference(), prompts, self.work / EMBEDDINGS)
        return {"prompts": len(prompts), "bytes": size_bytes(self.work / EMBEDDINGS)}

    def _reference(self) -> LoadedBundle:
        """
        Return what pictures are held against: PyTorch, where there is a source; else ONNX Runtime on the given graph.
        """
        if all(map(self.draft.origin, self.source.parts)):
            return LoadedBundle(self.draft.origins(), backends.engine("torch"))
        return self._exact()

    def _exact(self) -> LoadedBundle:
        """Return the graphs in float32 on ONNX Runtime."""
        bundle = self.draft.bundle()
        parts = tuple(part for part in bundle.parts if part.precision == "fp32")
        return LoadedBundle(replace(bundle, parts=parts), backends.engine("ort"))

    def _draw_proof(self, say: Say) -> dict[str, Any]:
        folder = self.work / PROOF
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if "restorer" in self.source.parts:  # drawn faces: a photograph given for calibration is nobody's to pass on
            cases = report.faces(folder, list(calibration.faces(None, self._face_px, 4)))
        else:
            cases = report.prompts(self._some_prompts(2 if self._is_large("denoiser") else 4))
        return report.write_proof(self._reference(), folder, cases, say)

    def _prove(self, name: str, say: Say) -> dict[str, Any]:
        bundle = self.draft.bundle()
        self.draft.write_manifest(bundle)  # for the child that proves
        try:
            return report.prove(bundle, name, say)
        finally:
            (self.work / "bundle.json").unlink()
