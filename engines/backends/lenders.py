"""
Machines that lend parts of bundles to others, and what both sides say of a part before it runs: which one is wanted, on
which engine, and what decides the numbers beside the weights. Knows no HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlsplit

from engines import machine
from engines.backends import Engine, processor, version
from engines.backends.arrangement import Arrangement, spelled
from engines.bundle import Bundle, Precision, Role
from engines.settings import installation

NETWORKS = ("diffusers", "transformers")  # whose code PyTorch runs


@dataclass(frozen=True)
class Lenders:
    """`addresses` of machines by what they lend: a role of every bundle, or `bundle/role` of one."""

    addresses: Mapping[str, str] = field(default_factory=dict)
    token: str = field(default="", repr=False)

    def of(self, bundle: Bundle) -> Mapping[Role, str]:
        """Return the address for each role of a bundle that is lent."""
        named = {role: self._address(bundle.name, role) for role in sorted(bundle.roles)}
        return MappingProxyType({role: address for role, address in named.items() if address})

    def _address(self, bundle: str, role: Role) -> str:
        return self.addresses.get(f"{bundle}/{role}") or self.addresses.get(role, "")

    def words(self, bundle: Bundle) -> str:
        """Say which of its parts are lent, and by whom; empty: none."""
        return ", ".join(f"{role} lent by {machine_at(address)}" for role, address in self.of(bundle).items())


NO_LENDERS = Lenders()


def machine_at(address: str) -> str:
    """Name the machine at an address as people do: its host and port."""
    return urlsplit(address).netloc


@dataclass(frozen=True)
class Platform:
    """
    What decides an engine's numbers beside the weights. With another `program` or `runtime` they are others; with
    another `device`, `processor` or number of `threads` they may be others in their last bits, as sums are taken in
    another order.
    """

    program: str
    runtime: str
    device: str
    processor: str
    threads: int

    @classmethod
    def of(cls, engine: Engine) -> Platform:
        """Return this machine's, for an engine that can work here."""
        probe = engine.probe()
        networks = map(version, NETWORKS) if engine.group == "pytorch" else ()
        runtime = ", ".join(filter(None, [probe.runtime, *networks]))
        return cls(installation.version(), runtime, probe.device, processor(), machine.cores())

    def differs(self, other: Platform) -> str:
        """Say why the numbers of the other would be others; empty: they are the same, but for the last bits."""
        if other.program != self.program:
            return f"it runs another version: {other.program}"
        return f"it runs another version: {other.runtime}" if other.runtime != self.runtime else ""

    def is_like(self, other: Platform) -> bool:
        """Tell whether what was proved on one of them is proved on the other."""
        return (self.device, self.processor) == (other.device, other.processor)


@dataclass(frozen=True)
class Wanted:
    """
    A part that is to be lent: the `role` of a bundle whose manifest, which has the checksums of its parts, has this
    SHA-256, in an `arrangement` as spelled() writes it. `platform` is that of who wants it.
    """

    bundle: str
    manifest: str
    arrangement: str
    role: Role
    platform: Platform

    @classmethod
    def of(cls, bundle: Bundle, arrangement: Arrangement, role: Role) -> Wanted:
        platform = Platform.of(arrangement.engine(bundle, role))
        return cls(bundle.name, manifest_digest(bundle), spelled(bundle, arrangement), role, platform)


@dataclass(frozen=True)
class Opened:
    """A part that is open at who lends it: its name there, where it runs, and the `precision` it is computed in."""

    id: str
    platform: Platform
    precision: Precision


def manifest_digest(bundle: Bundle) -> str:
    """Return the SHA-256 of a bundle's manifest. OSError: it has just gone."""
    return hashlib.sha256((bundle.root / "bundle.json").read_bytes()).hexdigest()
