"""Looks first, in Chromium: six at one press, one of which is finished; and a picture drawn by both backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browser_window import BROWSER, Visit, pixels, psnr

pytestmark = BROWSER
LOOKS = "#stage .contact-sheet button"


def test_a_look_is_finished_at_a_press_and_the_others_stay(visit: Visit, home: Path) -> None:
    visit.more()
    visit.enter("#steps input[type=number]", "2")
    visit.enter("#seed input", "30")
    visit.page.fill("#prompt textarea", "a woman with a red hat")
    visit.page.click("#contact-sheet")
    visit.page.wait_for_selector("#contact-sheet", state="hidden")  # the next step is to cancel
    visit.until("done")
    assert visit.page.locator(LOOKS).count() == 6
    fourth = visit.page.locator(LOOKS).nth(3)
    look = (fourth.get_attribute("data-develop") or "").rpartition("/")[2]
    fourth.press("Enter")
    visit.page.wait_for_selector("#stage .stage.is-done .badge.is-vae")
    assert visit.page.evaluate("document.activeElement.matches('#stage .stage')"), "and no further key is lost"
    finished = visit.picture().name
    assert psnr(pixels(home / "outputs" / finished), pixels(home / "outputs" / look)) > 20, "another picture"
    assert "种子 33" in (visit.page.text_content("#stage .chips") or ""), "the fourth of those that begin with 30"
    visit.open()  # loaded anew
    visit.page.click("#stage [data-sheet]")
    visit.page.wait_for_selector(LOOKS)
    assert visit.page.locator(LOOKS).count() == 6
    visit.page.click("#stage [data-vary]")
    visit.page.wait_for_selector("#stage .stage.is-running")
    visit.until("done")
    assert look not in visit.page.inner_html("#stage"), "other looks"
    assert visit.complaints == []


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1024, 600)])
def test_the_whole_sheet_is_in_sight(browser, base: str, width: int, height: int) -> None:
    window = Visit(browser, base, width=width, height=height, touch=width < 768)
    try:
        window.page.fill("#prompt textarea", "a man with a beard")
        window.page.click("#contact-sheet")
        window.until("done")
        window.page.wait_for_timeout(800)  # it scrolls there
        boxes = [look.bounding_box() for look in window.page.locator(LOOKS).all()]
        assert len(boxes) == 6
        for box in boxes:
            assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= height, boxes
            assert min(box["width"], box["height"]) >= 44
        assert not window.scrolls_sideways()
    finally:
        window.close()


def test_a_picture_is_drawn_again_by_the_other_backend_and_compared(visit: Visit, home: Path) -> None:
    pytest.importorskip("torch", reason="the PyTorch backend is not installed")
    visit.more()
    visit.enter("#steps input[type=number]", "4")
    visit.backend("edge")
    visit.generate("a man with a beard")
    visit.until("done")
    first = visit.picture().name
    visit.page.locator("#stage details summary", has_text="更多").click()
    visit.page.click("#stage [data-again]")
    visit.page.wait_for_selector("#stage .stage.is-done .compare")
    was, now = (
        (visit.page.get_attribute(f"#stage .compare img{kind}", "src") or "").rpartition("/")[2]
        for kind in (":not(.after)", ".after")
    )
    assert was == first != now
    assert psnr(pixels(home / "outputs" / was), pixels(home / "outputs" / now)) >= 40
    tags = visit.page.locator("#stage .compare .tag").all_inner_texts()
    assert tags == ["边缘(编译)", "PyTorch"]
