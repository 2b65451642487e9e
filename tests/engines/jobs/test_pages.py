"""Finished jobs by the page: in which order, which of them, and at what cost."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from engines.jobs import Page, Position, Search, Word
from engines.jobs.search import LATEST
from engines.jobs.search import page as statement
from engines.messages import Develop, Enhance, Generate, Inspect, Request, pack
from tests.support.queues import FINAL, Queue, claimed

ME = Search("me")


def end(queue: Queue, request: Request, owner: str = "me", *names: str) -> str:
    job_id = queue.submit(request, owner)
    names = names or (f"outputs_{job_id}.png",)
    for name in names:
        queue.folder.mkdir(exist_ok=True)
        (queue.folder / name).write_bytes(b"a picture")
    queue.publish(claimed(queue), replace(FINAL, images=names))
    return job_id


def ids(page: Page) -> list[str]:
    return [finished.job.id for finished in page.jobs]


def walk(queue: Queue, search: Search, limit: int) -> list[list[str]]:
    """All pages, one after the other."""
    pages: list[list[str]] = []
    after: Position | None = None
    while True:
        page = queue.page(search, limit, after)
        pages.append(ids(page))
        if not page.more:
            return pages
        after = page.jobs[-1].position


def shown(queue: Queue, search: Search) -> list[str]:
    """The words of what is meant, oldest first."""
    return [getattr(finished.job.request, "prompt", "") for finished in queue.page(search, 99).jobs][::-1]


# ---- in which order


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 14])
def test_every_job_is_on_one_page_and_the_newest_come_first(queue: Queue, count: int) -> None:
    jobs = [end(queue, Generate(str(k))) for k in range(count)]
    pages = walk(queue, ME, 7)
    assert sum(pages, []) == jobs[::-1]
    assert [len(page) for page in pages] == ([7] * (count // 7) + [count % 7] * (count % 7 > 0) or [0])


def test_jobs_that_ended_at_one_moment_are_told_apart(queue: Queue) -> None:
    """As after a clock was put back: none ends before the one that ended last."""
    jobs = [end(queue, Generate(str(k))) for k in range(9)]
    with queue._transaction() as db:
        db.execute("UPDATE job SET ended=1000.5")
    assert sum(walk(queue, ME, 2), []) == jobs[::-1]


def test_a_picture_that_comes_meanwhile_moves_no_page(queue: Queue) -> None:
    jobs = [end(queue, Generate(str(k))) for k in range(6)]
    first = queue.page(ME, 3)
    end(queue, Generate("new"))
    assert ids(queue.page(ME, 3, first.jobs[-1].position)) == jobs[2::-1]


def test_what_has_no_picture_any_more_costs_no_page_its_length(queue: Queue) -> None:
    jobs = [end(queue, Generate(str(k))) for k in range(60)]
    for k, job_id in enumerate(jobs):
        if k % 20:
            (queue.folder / f"outputs_{job_id}.png").unlink()
    assert walk(queue, ME, 2) == [[jobs[40], jobs[20]], [jobs[0]]]


def test_of_a_job_there_are_the_pictures_that_are_there(queue: Queue) -> None:
    end(queue, Generate("two"), "me", "a.png", "b.png")
    (queue.folder / "a.png").unlink()
    (finished,) = queue.page(ME, 9).jobs
    assert finished.final.images == ("b.png",)


def test_a_row_of_another_version_is_passed_over(queue: Queue) -> None:
    good, bad, worse = (end(queue, Generate("a word")) for _ in range(3))
    with queue._transaction() as db:
        db.execute('UPDATE job SET request=\'{"kind": "dream"}\' WHERE id=?', (bad,))
        db.execute("UPDATE job SET request='no JSON' WHERE id=?", (worse,))
    for search in (ME, replace(ME, words=(Word("word"),)), replace(ME, kind="portraits", bundle="portrait")):
        assert ids(queue.page(search, 9)) == [good]
    assert queue.bundles_of("me") == ["portrait"]


# ---- which of them


def test_only_ones_own_or_the_album(queue: Queue) -> None:
    mine, other, nobodys = (end(queue, Generate("x"), owner) for owner in ("me", "other", ""))
    queue.share(other, True)
    assert ids(queue.page(ME, 9)) == [mine] and ids(queue.page(Search(None), 9)) == [other]
    assert ids(queue.page(Search(""), 9)) == [nobodys] and queue.bundles_of("third") == []


def test_words_are_looked_for_in_prompts_and_names_of_photos(queue: Queue) -> None:
    end(queue, Generate("A woman with Glasses"))
    end(queue, Generate("一位戴眼镜的女士", negative="glasses"))
    photo = end(queue, Enhance("/glasses", name="Glasses of 1962.jpg"))
    end(queue, Develop("glasses.png"))
    page = queue.page(replace(ME, words=(Word("gLASSes"),)), 9)
    assert len(page.jobs) == 2 and page.jobs[0].job.id == photo, "and not in paths"
    assert shown(queue, replace(ME, words=(Word("眼镜"),))) == ["一位戴眼镜的女士"]
    assert shown(queue, replace(ME, words=(Word("glasses"), Word("woman")))) == ["A woman with Glasses"]
    assert shown(queue, replace(ME, words=(Word("glasses"), Word("man,")))) == []


@pytest.mark.parametrize("text", ["%", "_", "\\", "'", '"', "100%", "a_b", "*", "?", "[a]", "--", "\\u", "{"])
def test_what_is_typed_is_no_pattern(queue: Queue, text: str) -> None:
    end(queue, Generate("100 aXb u nothing else"))
    end(queue, Generate(f"x{text}x"))
    assert shown(queue, replace(ME, words=(Word(text),))) == [f"x{text}x"]


def test_what_a_preset_says_in_another_language(queue: Queue) -> None:
    end(queue, Generate("the very text"))
    end(queue, Generate("something else", preset="hanfu"))
    end(queue, Generate("the very text and more", preset="film"))
    word = Word("汉服", ("hanfu", "anime"), ("the very text",))
    assert shown(queue, replace(ME, words=(word,))) == ["the very text", "something else"]


def test_kinds_bundles_favourites_and_times(queue: Queue) -> None:
    drawn = end(queue, Generate("drawn", bundle="mine"))
    restored = end(queue, Enhance("/x", name="mine"))
    developed = end(queue, Develop("a.png"))
    queue.submit(Inspect("/x"), "me")
    queue.publish(claimed(queue), replace(FINAL, images=()))
    assert ids(queue.page(replace(ME, kind="portraits"), 9)) == [developed, drawn]
    assert ids(queue.page(replace(ME, kind="photos"), 9)) == [restored]
    assert ids(queue.page(replace(ME, bundle="mine"), 9)) == [drawn]
    assert queue.bundles_of("me") == ["mine", "restorer"]
    assert queue.favour([restored, "f" * 32], "me", True) == [restored]
    assert ids(queue.page(replace(ME, favourite=True), 9)) == [restored]
    assert [finished.favourite for finished in queue.page(ME, 9).jobs] == [False, True, False]
    queue.favour([restored], "me", False)
    assert ids(queue.page(replace(ME, favourite=True), 9)) == []
    assert queue.favour([restored], "other", True) == queue.favour([restored], "", True) == []
    with queue._transaction() as db:
        db.execute("UPDATE job SET ended=ended-86400 WHERE id=?", (drawn,))
    assert ids(queue.page(replace(ME, since=time.time() - 3600), 9)) == [developed, restored]


# ---- at what cost


@pytest.mark.parametrize("owner", ["me", None])
@pytest.mark.parametrize("after", [LATEST, (1000.5, 7)])
def test_no_page_looks_at_what_comes_before_it(queue: Queue, owner: str | None, after: Position) -> None:
    sql, values = statement(Search(owner), after, 24)
    plan = " | ".join(row[3] for row in queue._rows(f"EXPLAIN QUERY PLAN {sql}", *values))
    assert "ended<?" in plan and "SCAN" not in plan and "TEMP B-TREE" not in plan, plan


def test_a_page_of_ten_thousand_reads_few_rows(queue: Queue) -> None:
    """Counted, not timed: a toy would read them all."""
    queue.folder.mkdir(exist_ok=True)
    with queue._transaction() as db:
        for k in range(10_000):
            row = (f"{k:032x}", pack(Generate("p")), 1e9 + k, "me" if k % 2 else "other")
            db.execute("INSERT INTO job(id, request, state, ended, owner) VALUES(?, ?, 'done', ?, ?)", row)
            db.execute("INSERT INTO event VALUES(?, 1, ?)", (row[0], pack(replace(FINAL, images=("a.png",)))))
    (queue.folder / "a.png").write_bytes(b"a picture")
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    queue._db.set_progress_handler(count, 100)
    for after in (None, (1e9 + 5000, 5001)):
        steps[0] = 0
        assert len(queue.page(ME, 24, after).jobs) == 24
        assert steps[0] < 40, "of a hundred of the database's instructions"
    queue._db.set_progress_handler(None, 0)
