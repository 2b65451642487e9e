"""
./run.sh build ...: makes bundles out of checkpoints, into STUDIO_HOME/models. Stopped with Ctrl+C, the same command
goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import TextIO

from engines.bundle import size_bytes
from engines.bundle.build_job import BuildJob
from engines.errors import StudioError
from engines.messages import BUNDLE_NAME, Event, Failed, Final, Note, Progress, pack
from engines.settings import Settings, SettingsError
from engines.settings.installation import COMMAND, called
from engines.toolchain import recipe, sources
from engines.toolchain.build import Builder, BuildOptions
from engines.toolchain.compress.distill import DistillOptions
from engines.toolchain.recipe import Recipe
from engines.toolchain.sources import Source
from engines.toolchain.sources.merge_lora import Addition, lora_file
from engines.toolchain.steps import Emit


class Stoppable:
    """
    Inside, Ctrl+C ends in KeyboardInterrupt and SIGTERM in SystemExit, whatever becomes of them on their way. Libraries
    make other errors of one: PyTorch, where it comes in the middle of an import and leaves half a module; Python before
    3.12, in the body of a class. Some swallow it: then the next event is the end.
    """

    stopped: BaseException | None = None

    def __enter__(self) -> Stoppable:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # as a shell's & has it
                signal.signal(number, self._stop)
        return self

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.stopped = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        raise self.stopped

    def before(self, emit: Emit) -> Emit:
        def check(event: Event) -> None:
            if self.stopped is not None:
                raise self._again()
            emit(event)

        return check

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        if self.stopped is not None and exc is not None and exc is not self.stopped:
            raise self._again() from None

    def _again(self) -> BaseException:
        """Return another of its kind: the same one, raised from what came of it, would be its own cause."""
        assert self.stopped is not None
        return type(self.stopped)(*self.stopped.args)


def main() -> int:
    args = _arguments()
    emit: Emit = partial(_as_json, _alone()) if args.job or args.events else partial(_in_words, sys.stdout)
    started = time.perf_counter()
    try:
        with Stoppable() as stoppable, redirect_stdout(sys.stderr):  # libraries in Python talk too
            job = BuildJob.unpack(sys.stdin.buffer.read()) if args.job else _job(args)
            _make(job, stoppable.before(emit))
    except (StudioError, SettingsError) as exc:
        facts = exc.facts if isinstance(exc, StudioError) else {}
        emit(Failed(exc.code if isinstance(exc, StudioError) else "bad_option", str(exc), facts))
        return 1
    except KeyboardInterrupt:
        print("\n已暂停;重新运行同一命令会接着做。 Paused: the same command goes on from here.", file=sys.stderr)
        return 130
    size = f"{job.out.name}: {size_bytes(job.out) / 1e6:.1f} MB"
    emit(Final((), 0, round(time.perf_counter() - started, 1), "", size))
    return 0


def _alone() -> TextIO:
    """Keep standard output for events alone: libraries in C print there too, and go to standard error from now on."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _make(job: BuildJob, emit: Emit) -> None:
    options = BuildOptions(
        prompts=job.prompts,
        calibration=job.calibration,
        loras=tuple(map(Addition.from_file, job.loras)),
        prune=job.prune,
        distill=DistillOptions(job.distil, job.captions, job.batch) if job.distil else None,
        prove=job.makes != "detector",  # nothing proves it: it is the original's graph
    )
    Builder(_source(job), Recipe.read(job.recipe), job.out, options).build(emit).verify()


def _source(job: BuildJob) -> Source:
    match job.makes:
        case "portrait":
            return sources.portrait(job.source, job.about, job.checkpoints)
        case "restorer":
            return sources.restorer(job.source, job.about)
        case "detector":
            return sources.detector(job.source, job.about)


def _job(args: argparse.Namespace) -> BuildJob:
    """Resolve the arguments of the command. SettingsError: they say half of what is needed."""
    job = BuildJob(
        args.kind,
        args.base,
        _target(args),
        args.recipe,
        args.about,
        calibration=args.calibration,
        prompts=_lines(args.prompts),
    )
    if args.kind != "portrait":
        return job
    if (args.distil or args.captions) and not (args.prune and args.distil and args.captions):
        raise SettingsError("--distil STEPS goes with --prune SHARE and --captions FILE")
    return replace(
        job,
        checkpoints=Settings.load(os.environ).checkpoints,
        loras=tuple(map(lora_file, args.loras)),
        prune=args.prune,
        distil=args.distil,
        captions=tuple(line for line in _lines(args.captions) if line.strip()),
        batch=args.batch,
    )


def _lines(path: Path | None) -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path else ()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"{COMMAND} build", description=called(__doc__ or ""))
    parser.add_argument("--job", action="store_true", help="a worker's: what to make comes on standard input")
    kinds = parser.add_subparsers(dest="kind")
    origins = (
        "from a folder of diffusers (Z-Image, Stable Diffusion), a .safetensors of Stable Diffusion 1, or a bundle"
    )
    portrait = kinds.add_parser("portrait", help=origins)
    portrait.add_argument("--base", type=Path, required=True, help="preview_decoder/ may lie beside its parts")
    portrait.add_argument(
        "--lora",
        dest="loras",
        action="append",
        default=[],
        metavar="FILE[:STRENGTH]",
        help="merged in; may be repeated",
    )
    portrait.add_argument(
        "--prune", type=float, default=0.0, metavar="SHARE", help="of the denoiser's parameters and operations to save"
    )
    portrait.add_argument(
        "--distil", type=int, default=0, metavar="STEPS", help="teach the pruned denoiser what the whole one draws"
    )
    portrait.add_argument("--captions", type=Path, help="text file: a caption a line, to draw for that; thousands")
    portrait.add_argument("--batch", type=int, default=32, help="pictures in a step of it")
    restorer = kinds.add_parser("restorer", help="from a GPEN: .pth, .safetensors, .onnx, or a bundle")
    restorer.add_argument("--weights", dest="base", type=Path, required=True)
    detector = kinds.add_parser("detector", help="from CenterFace or YuNet as .onnx; one named detector takes over")
    detector.add_argument("--weights", dest="base", type=Path, required=True)
    for kind in (portrait, restorer, detector):
        kind.add_argument("--recipe", default="edge-bf16", choices=recipe.names())
        kind.add_argument("--name", default="", help="of the bundle, in STUDIO_HOME/models")
        kind.add_argument("--out", type=Path, help="its folder, instead of --name; one that is there is replaced")
        kind.add_argument("--about", type=Path, help="TOML: what weights cannot say of themselves")
        kind.add_argument("--calibration", type=Path, help="folder of photographs to take the ranges from")
        kind.add_argument("--prompts", type=Path, help="text file: a prompt a line, whose embeddings are stored")
        kind.add_argument("--events", action="store_true", help="progress as JSON lines")
    args = parser.parse_args()
    if not (args.job or args.kind):
        parser.error("the following arguments are required: kind")
    return args


def _target(args: argparse.Namespace) -> Path:
    if args.out:
        return Path(args.out)
    if not BUNDLE_NAME.fullmatch(args.name):
        raise SettingsError("--name: a-z 0-9 - _, or --out with a folder")
    models = Settings.load(os.environ).models
    models.mkdir(parents=True, exist_ok=True)
    return models / str(args.name)


def _as_json(out: TextIO, event: Event) -> None:
    print(pack(event), file=out, flush=True)


def _in_words(out: TextIO, event: Event) -> None:
    match event:
        case Note():
            print(event.text, file=out, flush=True)
        case Progress():
            eta = f", {event.eta_s:.0f} s left" if event.eta_s else ""
            print(f"[{event.step}/{event.total}{eta}]", file=out, flush=True)
        case Failed():
            print(f"✗ {event.detail}", file=sys.stderr)
        case Final():
            print(f"✓ {event.reason}, {event.seconds:.0f} s", file=out)


if __name__ == "__main__":
    sys.exit(main())
