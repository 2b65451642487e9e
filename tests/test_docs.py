"""The README and the pages of docs/: links lead somewhere, every page can be come by, the first look is light."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from engines.messages import CREDIT
from tests.conftest import REPOSITORY

README, DOCS = REPOSITORY / "README.md", REPOSITORY / "docs"
PAGES = sorted(DOCS.glob("*.md"))
ANIMATION = DOCS / "drawing.webp"
PICTURES_MB, ANIMATION_MB, MB = 2.5, 1.5, 1_000_000
README_BYTES = 8_000  # a first screen or two; what is longer has a page
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"(!?)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


def links(page: Path, pictures: bool = False) -> Iterator[str]:
    """What it refers to in this repository; code is not looked at."""
    for mark, target in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        if "://" not in target and (mark == "!" or not pictures):
            yield target


def leads_to(page: Path, target: str) -> Path:
    return (page.parent / target.partition("#")[0]).resolve()


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_links_and_pictures_are_there(page: Path) -> None:
    missing = [target for target in links(page) if not leads_to(page, target).is_file()]
    outside = [target for target in links(page) if not leads_to(page, target).is_relative_to(REPOSITORY)]
    assert (missing, outside) == ([], [])


def test_every_page_can_be_come_by() -> None:
    reached, ahead = set(), [README]
    while ahead:
        page = ahead.pop()
        if page.suffix == ".md" and page not in reached:
            reached.add(page)
            ahead += [leads_to(page, target) for target in links(page)]
    assert len(PAGES) > 10
    assert [page.name for page in PAGES if page not in reached] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_speaks_both_languages(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert 0 <= text.find("\n## 中文\n") < text.find("\n## English\n")


def test_no_picture_is_left_over() -> None:
    shown = {leads_to(page, target) for page in [README, *PAGES] for target in links(page, pictures=True)}
    assert [path.name for path in sorted(DOCS.glob("*.webp")) if path not in shown] == []


def test_the_readme_is_light() -> None:
    shown = {leads_to(README, target) for target in links(README, pictures=True)}
    assert ANIMATION in shown
    assert len(shown) == 3
    assert sum(path.stat().st_size for path in shown) <= PICTURES_MB * MB
    assert ANIMATION.stat().st_size <= ANIMATION_MB * MB
    assert len(README.read_bytes()) <= README_BYTES
    with Image.open(ANIMATION) as animation:
        assert getattr(animation, "n_frames", 1) > 5


def test_the_readme_says_whose_it_is_and_how_it_starts() -> None:
    text = README.read_text(encoding="utf-8")
    assert CREDIT in text
    commands = re.search(r"```bash\n(.*?)```", text, re.DOTALL)
    assert commands
    assert [line.partition("#")[0].strip() for line in commands[1].splitlines()] == ["./run.sh", "./run.sh edge"]
