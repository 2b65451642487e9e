"""
From checkpoints to a bundle: weights stored, each part exported beside them and held against PyTorch, the bytes shared,
parts quantised as the recipe says, embeddings of known prompts stored, and every engine proved.

A bundle is made in a hidden folder beside its place and moved there when it is whole; what is finished is not done
twice. What weights cannot say of themselves (title, sizes, prompt template, licence ...) is read from a small TOML
file; training/portrait/about.toml is one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from engines import backends
from engines.bundle import EMBEDDINGS, PROOF, Bundle, Face, Format, Part, Role, digest
from engines.errors import EngineError
from engines.kit import Kit
from engines.messages import Event
from engines.networks.graphs import open_graph
from engines.networks.restorer import RestorerGraph
from engines.retouch import Pixels
from engines.toolchain import calibrate, distill, embed, prune, sources, steps, store, verify
from engines.toolchain.distill import Course
from engines.toolchain.export import example, export, parity
from engines.toolchain.merge_lora import Addition
from engines.toolchain.quantize import quantize
from engines.toolchain.recipe import Recipe
from engines.toolchain.share import share_weights
from engines.toolchain.sources import Source
from engines.toolchain.steps import Emit, Say, Step

PARITY = 1e-4  # of a part's largest output: how far a graph may be from its source


def unheard(event: Event) -> None:
    """For those who do not listen."""


def build_portrait(
    base: Path,
    about_file: Path | None,
    out: Path,
    recipe: str = "",
    *,
    checkpoints: Path | None = None,
    emit: Emit = unheard,
    **more: Any,
) -> Bundle:
    """
    `base` is a folder as ZImagePipeline or StableDiffusionPipeline writes it, or a .safetensors of Stable Diffusion 1,
    with an AutoencoderTiny in preview_decoder/ beside or among the `checkpoints`; or a bundle. `more` are fields of
    Wish. BundleError: it is something else, or a graph is not its source's.
    """
    return Builder(sources.portrait(base, about_file, checkpoints), _recipe(recipe), out, Wish(**more)).build(emit)


def build_restorer(
    weights: Path, about_file: Path | None, out: Path, recipe: str = "", *, emit: Emit = unheard, **more: Any
) -> Bundle:
    """`weights` is a GPEN: a state dict (safetensors, .pth), a community export (.onnx), or a bundle. BundleError."""
    return Builder(sources.restorer(weights, about_file), _recipe(recipe), out, Wish(**more)).build(emit)


def build_detector(
    weights: Path, about_file: Path | None, out: Path, recipe: str = "", *, emit: Emit = unheard, **more: Any
) -> Bundle:
    """`weights` is CenterFace or YuNet as ONNX. Nothing proves it: it is the original's graph. BundleError."""
    source = sources.detector(weights, about_file)
    return Builder(source, _recipe(recipe), out, Wish(**{**more, "prove": False})).build(emit)


def _recipe(name: str) -> Recipe:
    """Without a name: weights stored in half the width, and all arithmetic in float32."""
    return Recipe.read(name) if name else Recipe("", "fp16")


@dataclass(frozen=True)
class Wish:
    """
    `prompts` get stored embeddings; `calibration` is a folder of photographs; `loras` are merged into the denoiser,
    which then loses the share `prune` and is taught again by `course`; `prove`: with proof and report.
    """

    prompts: tuple[str, ...] = ()
    calibration: Path | None = None
    loras: tuple[Addition, ...] = ()
    prune: float = 0.0
    course: Course | None = None
    prove: bool = False


@dataclass(frozen=True)
class Builder:
    source: Source
    recipe: Recipe
    out: Path
    wish: Wish

    @property
    def work(self) -> Path:
        return self.out.with_name(f".{self.out.name}.building")

    def build(self, emit: Emit) -> Bundle:
        steps.resume(self.work, self._inputs())
        records = steps.run(list(self._steps()), self.work, emit)
        bundle = self._bundle()
        if self.wish.prove:
            verify.write_report(bundle, records)
        self._write_manifest(bundle)
        self._write_card(bundle)
        shutil.rmtree(self.work / steps.RECORDS)
        shutil.rmtree(self.out, ignore_errors=True)
        self.work.rename(self.out)
        return Bundle.open(self.out)

    def _inputs(self) -> str:
        """What a working folder must have been begun from, to be gone on with."""
        files = [*dict.fromkeys(self.source.parts.values()), *filter(None, (self.source.tokenizer,))]
        files += [self.wish.calibration] if self.wish.calibration else []
        source = self.source
        told = [source.about, source.sampling, source.text, self.recipe, self.wish, [digest(path) for path in files]]
        return hashlib.sha256(repr(told).encode()).hexdigest()

    # ---- the plan

    def _steps(self) -> Iterator[Step]:
        for role, path in self.source.parts.items():
            megabytes = _bytes(path) / 1e6
            yield Step("prepare", f"store {role}", 0.2 + megabytes / 200, partial(self._store, role))
        yield from distill.plan(self.wish.prune, self.wish.course, self._some_prompts(8), self._bundle)
        for role, path in self.source.parts.items():
            cost = 8 + _bytes(path) / 3e7
            yield Step("export", f"export {role}", cost, partial(self._export, role))
        for role, path in self.source.parts.items():
            if (how := self.recipe.of(role)).quantize:
                title = f"{how.precision} {role}, {how.quantize}"
                cost = (10 + _bytes(path) / 2e6) * max(1, len(how.ranges))
                yield Step("quantize", title, cost, partial(self._quantize, role))
        if self.wish.prompts and "text_encoder" in self.source.parts:
            yield Step("embed", f"read {len(self.wish.prompts)} prompts", 5, self._embed)
        if self.wish.prove:
            yield Step("verify", "draw the proof", 10, self._draw_proof)
            for name in backends.names():
                yield Step("verify", f"prove {name}", 10, partial(self._prove, name))

    def _store(self, role: Role, say: Say) -> dict[str, Any]:
        """The weights in the recipe's width, in the layout their library reads."""
        folder, tokenizer = self.work / role, self.source.tokenizer
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        loras = self.wish.loras if role == "denoiser" else ()
        store.part(role, self.source.parts[role], folder, self.recipe.stored, loras, say)
        if role == "text_encoder" and tokenizer is not None:
            store.tokenizer(tokenizer, self.work / "tokenizer.json")
        return {"bytes": _bytes(folder)}

    def _export(self, role: Role, say: Say) -> dict[str, Any]:
        part = self._source_part(role)
        if part is None:
            say("is ONNX already")
            return {}
        graph, model = open_graph(self._bundle(), part), self.work / role / "model.onnx"
        model.unlink(missing_ok=True)
        export(graph, role, self._example(role), model)
        (weights,) = (self.work / role).glob("*.safetensors")
        saved = share_weights(model, weights)
        difference = parity(graph, role, self._example(role, other=True), model)
        say(f"differs from PyTorch by {difference:.1e}; {saved / 1e6:.1f} MB shared")
        if difference > PARITY:
            raise EngineError(
                f"{role}: the graph differs from PyTorch by {difference:.1e}, over {PARITY}", engine="ort"
            )
        return {"parity": difference}

    def _quantize(self, role: Role, say: Say) -> dict[str, Any]:
        how = self.recipe.of(role)
        folder = self.work / f"{role}-{how.precision}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        part, whole = self._source_part(role), folder / "float.onnx"
        if part is None:
            whole = self.work / role / "model.onnx"
        else:
            graph = open_graph(self._bundle(), part)
            graph = graph.in_phases() if isinstance(graph, RestorerGraph) and how.quantize == "static" else graph
            export(graph, role, self._example(role), whole, fold_weights=True)
        outcome = quantize(whole, folder / "model.onnx", how, self._feeds(role), say)
        (folder / "float.onnx").unlink(missing_ok=True)
        return {"role": role, "bytes": _bytes(folder), **asdict(outcome)}

    def _feeds(self, role: Role) -> list[calibrate.Feeds]:
        if role == "restorer":
            size_px = self._bundle().need(self.source.face, "its face").size_px
            return calibrate.of_faces(list(calibrate.faces(self.wish.calibration, size_px)))
        exact = replace(self._bundle(), parts=tuple(p for p in self._parts() if p.precision == "fp32"))
        kit, prompts = Kit(exact, backends.engine("ort")), self._some_prompts(8)
        feeds = calibrate.words(prompts, kit) if role == "text_encoder" else calibrate.trajectories(kit, prompts)[role]
        kit.close()
        return feeds

    def _some_prompts(self, count: int) -> Sequence[str]:
        prompts = self.wish.prompts or calibrate.PROMPTS
        return prompts[:: max(1, len(prompts) // count)][:count]

    def _embed(self, say: Say) -> dict[str, Any]:
        bundle = self._bundle()
        guided = bundle.sampling is not None and bundle.sampling.guidance > 0
        prompts = tuple(dict.fromkeys((*self.wish.prompts, *([""] if guided else []))))
        embed.write(Kit(bundle, verify.reference(bundle)), prompts, self.work / EMBEDDINGS)
        return {"prompts": len(prompts), "bytes": _bytes(self.work / EMBEDDINGS)}

    def _draw_proof(self, say: Say) -> dict[str, Any]:
        folder = self.work / PROOF
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        faces = self._proof_faces if "restorer" in self.source.parts else None
        return verify.write_proof(self._bundle(), folder, self._some_prompts(4), faces, say)

    def _proof_faces(self) -> list[Pixels]:
        """Drawn ones always: a photograph given for calibration is nobody's to pass on."""
        return list(calibrate.faces(None, self._bundle().need(self.source.face, "its face").size_px, 4))

    def _prove(self, name: str, say: Say) -> dict[str, Any]:
        self._write_manifest(self._bundle())  # for the child that proves
        try:
            return verify.prove(self._bundle(), name, say)
        finally:
            (self.work / "bundle.json").unlink()

    # ---- the manifest

    def _parts(self) -> Iterator[Part]:
        for role in self.source.parts:
            how, licence = self.recipe.of(role), self.source.about.licence
            narrow, whole = self.work / f"{role}-{how.precision}", self.work / role
            if how.quantize and (narrow / "model.onnx").is_file():
                yield Part(role, narrow.name, "onnx", how.precision, digest(narrow), licence)
            elif (whole / "model.onnx").is_file() and how.openvino != "fp32" and role not in self.source.about.exact:
                yield Part(role, role, "openvino", how.openvino, digest(whole), licence)
            if (whole / "model.onnx").is_file():
                yield Part(role, role, "onnx", "fp32", digest(whole), licence)
            if source := self._format(role):
                yield Part(role, role, source, "fp32", digest(whole), licence)

    def _format(self, role: Role) -> Format | None:
        if self.source.parts[role].suffix.lower() == ".onnx":
            return None
        return "safetensors" if role == "restorer" else "diffusers"

    def _source_part(self, role: Role) -> Part | None:
        source = self._format(role)
        return Part(role, role, source, "fp32", "", "") if source else None

    def _bundle(self) -> Bundle:
        """As far as it has come."""
        about, tokenizer = self.source.about, self.work / "tokenizer.json"
        extras = {name: digest(self.work / name) for name in (EMBEDDINGS, PROOF) if (self.work / name).exists()}
        text = self.source.text if tokenizer.is_file() else None
        pruned = prune.story(self.work / "denoiser")  # a source that was pruned has said so itself
        return Bundle(
            name=about.name or self.out.name,
            family=self.source.family,
            root=self.work,
            parts=tuple(self._parts()),
            sampling=self.source.sampling,
            text=text and replace(text, sha256=digest(tokenizer), template=about.template),
            face=self.source.face,
            sizes=about.sizes if self.source.sampling else (),
            dialect=about.dialect,
            title=about.title or {"zh": self.out.name, "en": self.out.name},
            lineage=tuple(dict.fromkeys((*about.lineage, *map(str, self.wish.loras), *pruned))),
            extras=extras,
        )

    def _example(self, role: Role, other: bool = False) -> dict[str, Tensor]:
        if isinstance(self.source.face, Face):
            return example(role, {"N": self.source.face.size_px}, other)
        config = json.loads((self.work / "denoiser" / "config.json").read_text(encoding="utf-8"))
        widths = {"C": config["in_channels"], "D": config.get("cap_feat_dim") or config["cross_attention_dim"]}
        told = role == "denoiser" and config.get("time_cond_proj_dim")
        return example(role, widths, other, ("guidance",) if told else ())

    def _write_manifest(self, bundle: Bundle) -> None:
        manifest = asdict(bundle)
        del manifest["root"], manifest["cache"]
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        (bundle.root / "bundle.json").write_text(text, encoding="utf-8")

    def _write_card(self, bundle: Bundle) -> None:
        """The maker's own, if there is one, with what was done since; what was measured stands in the report."""
        if self.source.card is not None:
            told = self.source.card.read_text(encoding="utf-8")
            since = [f"\n- {line}\n" for line in prune.story(bundle.root / "denoiser") if line not in told]
            (bundle.root / "card.md").write_text(told + "".join(since), encoding="utf-8")
        elif self.wish.prove:
            (bundle.root / "card.md").write_text(verify.card(bundle, self.recipe.name), encoding="utf-8")


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())
