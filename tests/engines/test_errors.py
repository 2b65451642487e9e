"""The error tree: as drawn, with codes that never change, and with facts that a front door can put into a sentence."""

from __future__ import annotations

import inspect
import re

import pytest

from engines import errors
from engines.errors import NotFoundError, OptionError, SizeError, StudioError

CODES = {
    "StudioError": "studio_error",
    "RequestError": "bad_request",
    "OptionError": "bad_option",
    "SizeError": "bad_size",
    "PromptError": "empty_prompt",
    "TooManyWeights": "too_many_weights",
    "PresetRefused": "bad_preset",
    "NotFoundError": "not_found",
    "ImageError": "bad_image",
    "ImageTooLarge": "image_too_large",
    "ImageTooSlow": "image_too_slow",
    "FileTooLarge": "file_too_large",
    "FolderAway": "folder_away",
    "NoFaceError": "no_face",
    "FacesTurned": "faces_turned",
    "BundleError": "bad_bundle",
    "LoraError": "bad_lora",
    "MemoryShort": "memory_short",
    "EngineError": "engine_failed",
    "OutOfMemory": "out_of_memory",
    "EngineUnavailable": "engine_unavailable",
    "BlankPicture": "blank_picture",
    "NotDownloaded": "not_downloaded",
    "PartAway": "part_away",
    "PartRefused": "part_refused",
    "DownloadError": "download_failed",
    "HubUnreachable": "hub_unreachable",
    "DownloadBroken": "download_broken",
    "LoginNeeded": "login_needed",
    "TokenNeeded": "token_needed",
    "OwnerOnly": "owner_only",
    "LinkEnded": "link_ended",
    "StorageError": "storage_failed",
    "DatabaseDamaged": "database_damaged",
    "QueueFull": "queue_full",
    "PresetsFull": "presets_full",
    "JobCancelled": "cancelled",
    "JobInterrupted": "interrupted",
    "JobPostponed": "postponed",
    "JobMoved": "job_moved",
}


def classes() -> dict[str, type[StudioError]]:
    found = (value for value in vars(errors).values() if inspect.isclass(value))
    return {kind.__name__: kind for kind in found if issubclass(kind, StudioError)}


def drawn_parents() -> dict[str, str]:
    """Name -> parent's name, from the indentation of the drawing."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for indent, name in re.findall(r"^( *)[*x+] (\w+)", errors.__doc__ or "", re.MULTILINE):
        above = [(depth, parent) for depth, parent in above if depth < len(indent)]
        parents[name] = above[-1][1] if above else "Exception"
        above.append((len(indent), name))
    return parents


def test_the_tree_is_as_it_is_drawn() -> None:
    assert drawn_parents() == {name: kind.__bases__[0].__name__ for name, kind in classes().items()}


def test_codes_are_stable_and_each_class_has_its_own() -> None:
    """Front doors and clients rely on them: a code may be added, never changed."""
    assert {name: kind.code for name, kind in classes().items()} == CODES
    assert len(set(CODES.values())) == len(CODES)


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (SizeError(100, 90, 16, 64, 2048), {"width": 100, "height": 90, "multiple": 16, "low": 64, "high": 2048}),
        (OptionError("steps", 99, "1 … 50"), {"field": "steps", "value": "99", "allowed": "1 … 50"}),
        (NotFoundError("bundle", "x"), {"what": "bundle", "name": "x"}),
    ],
)
def test_facts_fill_a_sentence(error: StudioError, facts: dict[str, object]) -> None:
    assert error.facts == facts
    assert all(str(fact) in str(error) for name, fact in facts.items() if name != "what")


def test_a_strangers_value_is_cut_before_it_is_shown() -> None:
    assert len(str(OptionError("prompt", "x" * 10_000, "short"))) < 200
    assert len(str(NotFoundError("bundle", "x" * 10_000))) < 200
