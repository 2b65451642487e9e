"""Fixtures of the tests that prune and teach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="package", autouse=True)
def few_probes() -> Iterator[None]:
    """Tiny networks need no more."""
    from engines.toolchain.compress import prune

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prune, "PROBES", 24)
        yield


@pytest.fixture(scope="package")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What bundles are built from, by family. Read only."""
    from tests.support.pruned import FAMILIES, save

    return {family: save(family, tmp_path_factory.mktemp("bases") / family) for family in FAMILIES}
