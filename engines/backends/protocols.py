"""What an engine is to everybody else: it says whether it can work here, and opens parts, whose graphs then run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from engines.bundle import Bundle, Format, Part, Role
from engines.bundle.loras import LoraFile
from engines.bundle.signatures import Array
from engines.errors import LoraError
from engines.machine.preflight import ImportTrial
from engines.messages.status import Group


@dataclass(frozen=True)
class Probe:
    """`device` is "CPU" or an accelerator's name; `reason` says why not, or with what; `runtime` is the version."""

    ok: bool
    device: str
    reason: str
    runtime: str = ""


class Session(Protocol):
    """One graph on one device. Names and shapes are those of engines/bundle/signatures.py, on every engine."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]: ...

    def close(self) -> None: ...


@runtime_checkable
class ReleasesMemory(Protocol):
    """A session whose runtime keeps between runs what they took beside the weights."""

    def release_memory(self) -> None:
        """Give it back to the system. The next run takes it anew, and a few milliseconds more for that."""


@runtime_checkable
class AcceptsLoras(Protocol):
    """A session of a denoiser that takes LoRAs."""

    def apply_loras(self, loras: Sequence[LoraFile]) -> tuple[LoraError, ...]:
        """Apply these LoRAs from now on, and no others. Return why some cannot be."""


@runtime_checkable
class RefusesParts(Protocol):
    """An engine that cannot compute every part it can read."""

    def refuses(self, part: Part) -> str:
        """Return why the engine cannot compute this part; empty: it can."""


@runtime_checkable
class ChoosesParts(Protocol):
    """An engine that says itself which part of a bundle it runs for a role."""

    def part(self, bundle: Bundle, role: Role) -> Part:
        """BundleError: there is none."""


class Engine(Protocol):
    """
    `rank` orders engines on equal devices, the lowest first. One that is `trusted` serves fp32 parts before its proof:
    the toolchain has held their graphs against the source to 1e-4.
    """

    @property
    def name(self) -> str: ...

    @property
    def formats(self) -> frozenset[Format]: ...

    @property
    def group(self) -> Group: ...

    @property
    def rank(self) -> int: ...

    @property
    def trusted(self) -> bool: ...

    def probe(self) -> Probe: ...

    def load(self, bundle: Bundle, part: Part) -> Session: ...


class RegisteredEngine(Engine, Protocol):
    """An engine with a runtime of its own. `trial`, of its name, imports it, in a child, as that may end a process."""

    @property
    def trial(self) -> ImportTrial: ...
