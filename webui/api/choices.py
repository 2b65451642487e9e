"""
Which models and which engines a caller may name: those that the worker has announced. A name that is none is the
caller's mistake and is refused before it waits in the queue; as long as nothing is announced, the worker will say.
"""

from __future__ import annotations

from typing import get_args

from engines.errors import NotFoundError, OptionError
from engines.messages import Generate
from engines.messages.status import BundleStatus, Group, Status
from engines.messages.validation import limits

AUTO = "auto"  # of our choosing: what clients send who name none
DEFAULT_BUNDLE = Generate("").bundle
MOST_PICTURES = int(limits(Generate, "count")[1])  # of an order


def check_backend(status: Status, name: str) -> None:
    """OptionError: no engine, and no group of engines, is called so."""
    mixed = (choice.engine for bundle in status.bundles for choice in bundle.choices)  # also of several engines
    names = tuple(dict.fromkeys((AUTO, *get_args(Group), *(engine.name for engine in status.engines), *mixed)))
    if status.engines and name not in names:
        raise OptionError("backend", name, ", ".join(names))


def portraits(status: Status) -> list[BundleStatus]:
    """Return the models that draw."""
    return [bundle for bundle in status.bundles if bundle.kind == "portrait"]


def portrait(status: Status, name: str) -> str:
    """Return a model that draws: ours, where none is named, or `auto`. NotFoundError: there is no such model."""
    if name in ("", AUTO):
        return DEFAULT_BUNDLE
    if status.bundles and name not in (bundle.name for bundle in portraits(status)):
        raise NotFoundError("model", name)
    return name


def sizes(status: Status, bundle: str) -> list[str]:
    """Return the sizes that a model lists, as "512x512", the best first."""
    listed = next((b.sizes for b in status.bundles if b.name == bundle), ())
    return [f"{width}x{height}" for width, height in listed]
