"""
The bundle that is being made, as far as it has come: which parts lie in the working folder, and the manifest and card
that say so. Knows where things lie; makes none of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from engines.bundle import EMBEDDINGS, PROOF, Bundle, FaceInput, Format, Part, Role, digest, size_bytes
from engines.roles import memory
from engines.toolchain import report
from engines.toolchain.compress import prune
from engines.toolchain.export import example
from engines.toolchain.quantize import fp16
from engines.toolchain.recipe import Recipe
from engines.toolchain.sources import Source

SCRATCH = ".source"  # what the bundle is made from and does not keep


@dataclass(frozen=True)
class Draft:
    """
    A bundle as far as it is built. `name` is its name where the source says none, `work` its folder; `lineage` is added
    to the source's.
    """

    source: Source
    recipe: Recipe
    work: Path
    name: str
    lineage: tuple[str, ...] = ()

    def stored(self, role: Role) -> Path:
        """Return where a part's source is stored: among what is left behind, if the bundle has no use for it."""
        return self.work / SCRATCH / role if self.recipe.alone(role) else self.work / role

    def float_graph(self, role: Role) -> Path:
        """Return where the graph lies that a part is quantised from, its weights inside."""
        return self.work / SCRATCH / f"{role}.onnx"

    def quantized_folder(self, role: Role) -> Path:
        return self.work / f"{role}-{self.recipe.of(role).precision}"

    def origin(self, role: Role) -> Part | None:
        """
        Return what PyTorch reads of a role; None for what came as ONNX. Beyond what memory holds in float32, and of the
        file meanwhile, it computes in bf16.
        """
        kind, path = self._format(role), self.path(role)
        if kind is None:
            return None
        precision = memory.fitting(path, memory.usable_bytes() - size_bytes(path))
        return Part(role, str(path), kind, precision, "", "")

    def path(self, role: Role) -> Path:
        """Return what a role is read from: as it is stored, or where it came from."""
        return (self.stored(role) if self.stored(role).is_dir() else self.source.parts[role]).resolve()

    def origins(self) -> Bundle:
        """Return the bundle for PyTorch alone: nothing in it is quantised, and nothing is read for checksums."""
        return self._with(tuple(filter(None, map(self.origin, self.source.parts))))

    def bundle(self) -> Bundle:
        """Return the bundle with every part that is there. Reads every byte, for the checksums."""
        return self._with(tuple(self._parts()))

    def _with(self, parts: tuple[Part, ...]) -> Bundle:
        about, tokenizer = self.source.about, self.work / "tokenizer.json"
        extras = {name: digest(self.work / name) for name in (EMBEDDINGS, PROOF) if (self.work / name).exists()}
        text = self.source.text if tokenizer.is_file() else None
        pruned = prune.lineage(self.work / "denoiser")  # a source that was pruned has said so itself
        return Bundle(
            name=about.name or self.name,
            family=self.source.family,
            root=self.work,
            parts=parts,
            sampling=self.source.sampling,
            text=text and replace(text, sha256=digest(tokenizer), template=about.template),
            face=self.source.face,
            sizes=about.sizes if self.source.sampling else (),
            dialect=about.dialect,
            title=about.title or {"zh": self.name, "en": self.name},
            lineage=tuple(dict.fromkeys((*about.lineage, *self.lineage, *pruned))),
            extras=extras,
        )

    def _parts(self) -> Iterator[Part]:
        for role in self.source.parts:
            how, licence, whole = self.recipe.of(role), self.source.about.licence, self.work / role
            quantized, exported = self.quantized_folder(role), (whole / "model.onnx").is_file()
            if how.quantize and (quantized / "model.onnx").is_file():
                theirs: Format = "tensorrt" if how.tensorrt else "onnx"
                yield Part(role, quantized.name, theirs, how.precision, digest(quantized), licence)
            elif (whole / fp16.NAME).is_file():
                yield Part(role, role, "tensorrt", "fp16", digest(whole), licence)
            elif exported and how.openvino != "fp32" and role not in self.source.about.exact:
                yield Part(role, role, "openvino", how.openvino, digest(whole), licence)
            if exported:
                yield Part(role, role, "onnx", "fp32", digest(whole), licence)
            if whole.is_dir() and (kind := self._format(role)):
                yield Part(role, role, kind, "fp32", digest(whole), licence)

    def _format(self, role: Role) -> Format | None:
        if self.source.parts[role].suffix.lower() == ".onnx":
            return None
        return "safetensors" if role == "restorer" else "diffusers"

    def example(self, role: Role, other: bool = False) -> dict[str, Tensor]:
        if isinstance(self.source.face, FaceInput):
            return example(role, {"N": self.source.face.size_px}, other)
        config = json.loads((self.path("denoiser") / "config.json").read_text(encoding="utf-8"))
        widths = {"C": config["in_channels"], "D": config.get("cap_feat_dim") or config["cross_attention_dim"]}
        guided = role == "denoiser" and config.get("time_cond_proj_dim")
        return example(role, widths, other, ("guidance",) if guided else ())

    def write_manifest(self, bundle: Bundle) -> None:
        manifest = asdict(bundle)
        del manifest["root"], manifest["cache"]
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        (bundle.root / "bundle.json").write_text(text, encoding="utf-8")

    def write_card(self, bundle: Bundle, proved: bool) -> None:
        """Write the maker's own card, if there is one, with what was done since; or one from what was measured."""
        if self.source.card is not None:
            text = self.source.card.read_text(encoding="utf-8")
            since = [f"\n- {line}\n" for line in prune.lineage(bundle.root / "denoiser") if line not in text]
            (bundle.root / "card.md").write_text(text + "".join(since), encoding="utf-8")
        elif proved:
            (bundle.root / "card.md").write_text(report.card(bundle, self.recipe.name), encoding="utf-8")
