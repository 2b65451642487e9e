"""The real page in headless Chromium: what a person does, on a desktop and on a phone."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

import presets
from engines.worker import execute
from tests.support.announced import MODEL, SOURCES
from tests.support.browser_window import BROWSER, Visit, pixels, psnr
from tests.support.fake_workers import BUILD, FakeWorkshop

if TYPE_CHECKING:
    from tests.support.server import Rig

pytestmark = BROWSER
CREDIT = "webUI二次开发 by 科哥"
WATCH_BADGES = """() => {
  window.badges = [];
  new MutationObserver(() => {
    const badge = document.querySelector('#stage .badge');
    const kind = badge && badge.className;
    if (kind && window.badges.at(-1) !== kind) window.badges.push(kind);
  }).observe(document.querySelector('#stage'), { subtree: true, childList: true, attributes: true });
}"""


def test_a_preset_becomes_a_picture_and_the_preview_comes_first(visit: Visit, home: Path) -> None:
    visit.page.evaluate(WATCH_BADGES)
    visit.page.click("[data-preset=realistic]")
    visit.page.wait_for_function("document.querySelector('textarea').value.length > 5")
    visit.page.click("#generate")
    visit.until("done")
    kinds = visit.page.evaluate("window.badges")
    assert kinds[0].endswith("is-tiny") and kinds[-1].endswith("is-vae")
    chips = visit.page.text_content("#stage .chips") or ""
    assert re.search(r"TAESD 预览 · [\d.]+ 秒", chips) and re.search(r"完整 VAE · [\d.]+ 秒", chips)
    assert re.search(r"种子 \d+", chips) and "ort" in chips
    assert "生成完成" in visit.page.inner_text("#stage .status")
    assert pixels(home / "outputs" / visit.picture().name).std() > 10


def test_of_two_presets_pressed_in_haste_the_second_holds(visit: Visit) -> None:
    """Gradio would forget the press that comes before the answer to the first: the card is marked, the words stay."""
    visit.page.evaluate("""() => {
      const ask = window.fetch, second = document.querySelector('[data-preset=anime]');
      window.fetch = async (...args) => {
        const answer = await ask(...args);
        if (String(args[1]?.body).includes('"realistic"')) setTimeout(() => second.click());
        return answer;
      };
    }""")
    visit.page.click("[data-preset=realistic]")
    words = next(preset for preset in presets.load() if preset.name == "anime").wording("attributes").prompt["zh"]
    visit.page.wait_for_function("words => document.querySelector('#prompt textarea').value === words", arg=words)
    assert visit.page.get_attribute("[data-preset=anime]", "aria-pressed") == "true"


def test_the_time_beside_a_backend_follows_the_settings(visit: Visit) -> None:
    label = "#backend label:has(input[value=edge])"

    def finish_s(but: str = "") -> tuple[str, float]:
        """The label, as soon as it is another one, and the last number in it."""
        changed = "([at, but]) => (text => text.includes('秒') && text !== but)(document.querySelector(at).innerText)"
        visit.page.wait_for_function(changed, arg=[label, but])
        text = visit.page.inner_text(label)
        return text, float(re.findall(r"[\d.]+", text)[-1])

    text, standard_s = finish_s()
    visit.page.locator("#quality input[value=high]").check()
    text, high_s = finish_s(text)
    visit.page.locator("#quality input[value=fast]").check()
    text, fast_s = finish_s(text)
    assert fast_s < standard_s < high_s < 5 * fast_s
    visit.enter("#count input[type=number]", "4")
    _, four_s = finish_s(text)
    # What a job takes besides its pictures counts once, and may be as much as one of them on a busy machine.
    assert 1.5 * fast_s < four_s < 5 * fast_s


def test_the_same_seed_gives_the_same_picture_on_both_backends(visit: Visit, home: Path) -> None:
    pytest.importorskip("torch", reason="the PyTorch backend is not installed")
    visit.more()
    visit.enter("#seed input", "7")
    made = []
    for backend in ("edge", "pytorch"):
        visit.backend(backend)
        visit.generate("portrait of a man, short brown hair, blue suit, studio grey background")
        visit.page.wait_for_selector(f"#stage .stage.is-done .frame img:not([src*='{made[-1] if made else '/none'}'])")
        made.append(visit.picture().name)
        expected = {"edge": "(ort|openvino) 在 CPU", "pytorch": "torch 在 CPU"}[backend]  # whichever is proved by now
        chips = visit.page.text_content("#stage .chips") or ""
        assert re.search(expected, chips) and "种子 7" in chips
    edge, torch = (home / "outputs" / name for name in made)
    assert edge != torch
    assert psnr(pixels(edge), pixels(torch)) >= 40


def test_cancel_stops_within_a_step_and_the_next_job_runs(visit: Visit, home: Path) -> None:
    visit.more()
    visit.enter("#steps input[type=number]", "50")
    visit.enter("#count input[type=number]", "8")
    visit.generate("a woman with red hair")
    visit.page.wait_for_selector("#stage .badge")
    before = time.monotonic()
    visit.page.click("#generate")
    visit.until("failed")
    assert time.monotonic() - before < 20, "eight pictures of fifty steps take longer"
    assert "已取消" in visit.page.inner_text("#stage .status")
    visit.enter("#steps input[type=number]", "2")
    visit.enter("#count input[type=number]", "1")
    visit.generate("a woman with red hair")
    visit.until("done")


def test_preview_only_keeps_the_negative_and_develops_it(visit: Visit, home: Path) -> None:
    visit.more()
    visit.page.locator("#preview-mode input[value=only]").check()
    visit.enter("#seed input", "11")
    visit.generate("an old man with glasses")
    visit.until("done")
    kept = visit.picture().name
    assert (home / "outputs" / kept).with_suffix(".negative.npz").is_file()
    visit.page.click("#stage [data-develop]")
    visit.page.wait_for_selector("#stage .stage.is-done .badge.is-vae")
    developed = visit.picture().name
    assert developed != kept
    with Image.open(home / "outputs" / developed) as image:
        assert image.text["parameters"].startswith("an old man with glasses")


def test_a_portrait_leads_to_its_restoration_and_back(visit: Visit, home: Path) -> None:
    visit.generate("a woman with red hair")
    visit.until("done")
    drawn = (home / "outputs" / visit.picture().name).read_bytes()
    visit.page.locator("#stage details summary", has_text="更多").click()
    visit.page.click("#stage [data-restore]")
    visit.page.wait_for_selector("#restore-advice .advice")
    assert visit.page.locator("#tabs [data-tab-id=restore][aria-selected=true]").count() == 1
    visit.page.click("#restore-start")
    visit.until("done", "#restore-stage")
    assert drawn in [photo.read_bytes() for photo in (home / "uploads").glob("*")]
    visit.tab(0)  # where its lid is still open
    visit.page.click("#stage [data-begin-with]")
    visit.page.wait_for_selector("#start-strength")
    assert visit.page.locator("#start-photo img").count() == 1


def test_more_like_it_and_the_one_that_is_shown(visit: Visit) -> None:
    """Of several, what is done is done to the one that was chosen."""
    visit.more()
    visit.enter("#steps input[type=number]", "2")
    visit.generate("a man with a beard")
    visit.until("done")
    visit.page.click("#stage [data-vary]")
    visit.page.wait_for_selector("#stage .stage.is-running")
    visit.until("done")
    assert "共 4 张图像" in visit.page.inner_text("#stage .status")
    third = visit.page.locator("#stage .strip button").nth(2)
    third.click()
    wanted = third.get_attribute("data-show")
    buttons = visit.page.locator("#stage :is([data-restore], [data-begin-with])")
    assert buttons.evaluate_all("all => all.map((it) => it.dataset.restore ?? it.dataset.beginWith)") == [wanted] * 2


def test_a_picture_is_looked_at_in_full(visit: Visit) -> None:
    visit.generate("a woman with red hair")
    visit.until("done")
    visit.page.click("#stage .frame > img")
    viewer = visit.page.locator("dialog.viewer")
    box, image = viewer.bounding_box(), viewer.locator("img").bounding_box()
    assert box and image and box["width"] == 1280 and image["height"] > 880, "as large as the window"
    viewer.locator("img").click()
    assert "is-whole-size" in (viewer.get_attribute("class") or "")
    visit.page.keyboard.press("Escape")
    viewer.wait_for(state="detached")  # it says that it has closed a moment later
    visit.page.click("#stage .frame > img")
    viewer.locator("button").click()
    viewer.wait_for(state="detached")  # it says that it has closed a moment later


def test_where_nothing_can_be_shared_the_picture_is_saved_and_one_is_told_why(browser: Any, base: str) -> None:
    visit = Visit(browser, base, width=390, touch=True)
    visit.page.add_init_script("navigator.canShare = undefined")
    visit.open()
    visit.generate("a woman with red hair")
    visit.until("done")
    with visit.page.expect_download() as download:
        visit.page.click("#stage [data-share-picture]")
    assert download.value.suggested_filename == visit.picture().name
    assert "https" in visit.page.inner_text("#stage .actions [role=status]")
    visit.close()


def test_a_picture_is_shared_as_a_file(browser: Any, base: str) -> None:
    visit = Visit(browser, base, width=390, touch=True)
    visit.page.add_init_script(
        "navigator.canShare = () => true; navigator.share = async (what) => { window.shared = what.files; }"
    )
    visit.open()
    visit.generate("a woman with red hair")
    visit.until("done")
    visit.page.click("#stage [data-share-picture]")
    visit.page.wait_for_function("window.shared")
    shown = visit.page.evaluate("window.shared.map((file) => [file.name, file.type, file.size > 1000])")
    assert shown == [[visit.picture().name, "image/png", True]]
    visit.close()


def test_a_job_outlives_its_page(visit: Visit) -> None:
    visit.enter("#count input[type=number]", "4")
    visit.generate("a boy with a hat")
    visit.page.wait_for_selector("#stage .badge")
    visit.open()  # reload in the middle
    visit.until("done")
    assert "共 4 张图像" in visit.page.inner_text("#stage .status")
    visit.open()  # and again when all is over
    visit.until("done")


def test_a_phone_that_is_locked_meanwhile_shows_the_picture(browser, base: str, home: Path) -> None:
    """A locked phone freezes its pages and leaves the network; when it is unlocked, nothing need be pressed."""
    phone = Visit(browser, base, width=390, height=844, touch=True)
    try:
        before = set((home / "outputs").glob("*.png"))
        phone.enter("#count input[type=number]", "3")
        phone.generate("a boy with a hat")
        phone.page.wait_for_selector("#stage .badge")
        system = phone.context.new_cdp_session(phone.page)
        phone.context.set_offline(True)
        system.send("Page.setWebLifecycleState", {"state": "frozen"})
        while len(set((home / "outputs").glob("*.png")) - before) < 3:
            time.sleep(0.2)
        time.sleep(2)
        system.send("Page.setWebLifecycleState", {"state": "active"})
        phone.context.set_offline(False)
        phone.until("done")
        assert "共 3 张图像" in phone.page.inner_text("#stage .status")
        assert phone.picture().name in {path.name for path in set((home / "outputs").glob("*.png")) - before}
    finally:
        phone.close()


def test_history_shows_the_picture_and_takes_up_its_settings(visit: Visit) -> None:
    visit.generate("a girl with a red hat and a very particular smile")
    visit.until("done")
    visit.tab(2)
    card = visit.page.locator("#history article").first
    card.wait_for()
    assert "very particular smile" in card.inner_text()
    visit.open()
    visit.tab(2)
    visit.page.locator("#history [data-reuse]").first.click()
    visit.page.wait_for_function("document.querySelector('textarea').value.includes('very particular smile')")


@pytest.mark.parametrize(("typed", "value"), [("0", "1"), ("99", "50")])
def test_a_number_that_cannot_be_is_not_exchanged_in_silence(visit: Visit, typed: str, value: str) -> None:
    visit.more()
    visit.enter("#steps input[type=number]", typed)
    note = visit.page.locator("#steps .corrected")
    note.wait_for()
    assert note.inner_text() == f"已改为 {value}:可用 1 到 50" and note.get_attribute("role") == "status"
    assert visit.page.input_value("#steps input[type=number]") == value
    visit.enter("#steps input[type=number]", "12")
    note.wait_for(state="detached")
    assert visit.page.input_value("#steps input[type=number]") == "12"


def test_an_empty_prompt_is_answered_with_what_to_do(visit: Visit) -> None:
    visit.page.click("#generate")
    visit.until("failed")
    assert "提示词是空的" in visit.page.inner_text("#stage .status")


SPEAKS = [("zh-CN", "zh", "生成图像"), ("en-GB", "en", "Generate"), ("fr", "en", "Generate")]


@pytest.mark.parametrize(("locale", "lang", "button"), SPEAKS)
def test_the_page_speaks_the_language_of_the_browser(browser, base: str, locale: str, lang: str, button: str) -> None:
    window = Visit(browser, base, locale)
    assert window.page.inner_text("#generate") == button
    window.generate("a person")
    window.until("done")
    assert ("生成完成" if lang == "zh" else "Done in") in window.page.inner_text("#stage .status")
    for number in range(4):
        window.tab(number)
        window.page.wait_for_timeout(300)
        assert window.page.get_by_text(CREDIT).first.is_visible()
        shown = window.page.inner_text("body")
        assert not re.search(r"\b(portrait|restore|stage|engines|history|backend|tab)_[a-z_]+\b", shown)
    window.close()


def test_nothing_leaves_the_machine_and_nothing_breaks_the_policy(visit: Visit) -> None:
    visit.page.click("[data-preset=anime]")
    visit.generate("a girl with blue hair")
    visit.until("done")
    for number in range(4):
        visit.tab(number)
        visit.page.wait_for_timeout(400)
    assert visit.hosts == {urlsplit(visit.base).netloc}
    assert visit.complaints == []


IN_VIEW = "(({ y }) => 0 <= y && y < 500)(document.querySelector('#stage .frame').getBoundingClientRect())"


def test_a_wide_window_has_the_page_in_its_middle(browser, base: str) -> None:
    window = Visit(browser, base, "en-US", 1920)
    box = window.page.locator(".gradio-container main").bounding_box()
    assert box and box["width"] < 1400
    assert abs(box["x"] - (1920 - box["x"] - box["width"])) < 20, "as far from the left as from the right"
    window.close()


def test_phone_width(browser, base: str) -> None:
    window = Visit(browser, base, "en-US", 390)
    for number in range(4):
        window.tab(number)
        window.page.wait_for_timeout(400)
        assert window.page.evaluate("document.documentElement.scrollWidth") <= 390
    window.tab(0)
    window.generate("a smiling woman")
    window.until("done")
    window.page.wait_for_function(IN_VIEW)
    box = window.page.locator("#stage .frame").bounding_box()
    assert box and box["width"] > 340, "as wide as the phone"
    for selector in ("#generate", "#stage a[download]", "[data-preset=anime]"):
        size = window.page.locator(selector).bounding_box()
        assert size and size["height"] >= 40, f"{selector} is too small for a finger"
    window.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_engines_tab(browser, base: str, width: int) -> None:
    """A table on a desk, cards on a phone, and nothing to push sideways on either."""
    window = Visit(browser, base, width=width)
    window.tab(3)
    row = window.page.locator("#engines .choices tbody tr").first
    row.wait_for()
    phone = width < 640
    assert row.evaluate("row => getComputedStyle(row).display") == ("grid" if phone else "table-row")
    assert window.page.locator("#engines .choices thead").first.is_visible() is not phone
    assert window.page.locator("#engines article").count() >= 2
    assert not window.scrolls_sideways()
    window.page.locator("#engines summary").first.click()
    assert window.page.locator("#engines .card").first.is_visible()
    for panel in ("build", "compare"):
        window.unfold(panel)
        size = window.page.locator(f"#{panel}").bounding_box()
        assert size and size["height"] >= 40 and size["x"] >= 0 and size["x"] + size["width"] <= width
    for form in ("#build-source", "#build-recipe", "#build-name", "#compare-prompt", "#compare-a", "#compare-b"):
        assert window.page.locator(form).is_visible()
    assert not window.scrolls_sideways()
    assert window.page.get_by_text(CREDIT).first.is_visible()
    assert window.complaints == []
    window.close()


def test_two_engines_are_compared_under_a_slider(visit: Visit, home: Path) -> None:
    visit.tab(3)
    visit.unfold("compare")
    visit.page.fill("#compare-prompt textarea", "a woman with red hair and glasses")
    visit.page.click("#compare")
    visit.until("done", "#compare-stage")
    pictures = visit.page.locator("#compare-stage .compare img")
    a, b = (pixels(home / "outputs" / Path(str(pictures.nth(k).get_attribute("src"))).name) for k in (0, 1))
    assert psnr(a, b) >= 40, "one seed, one picture"
    visit.page.locator("#compare-stage input[type=range]").focus()
    visit.page.keyboard.press("End")
    style = visit.page.get_attribute("#compare-stage .compare", "style") or ""
    assert style.replace(" ", "").startswith("--at:100%")
    told = visit.page.inner_text("#compare-stage .sides")
    assert len(re.findall(r"[\d.]+ 秒", told)) == 4 and "A · 自动" in told and "B · " in told
    visit.open()
    visit.tab(3)
    visit.unfold("compare")
    visit.until("done", "#compare-stage")


@pytest.fixture
def shop(idle: Rig) -> Iterator[FakeWorkshop]:
    """Somebody who builds the next job; then one more model is here."""
    before = idle.queue.status()
    made = FakeWorkshop(BUILD, adopt=lambda: idle.queue.announce(replace(before, bundles=(*before.bundles, MODEL))))
    idle.queue.announce(replace(before, sources=SOURCES))

    def work() -> None:
        if (job := idle.queue.claim(60, "builds")) is not None:
            execute(job, idle.queue, made)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield made
    made.finish.set()
    thread.join(30)
    idle.queue.announce(before)


def test_a_model_is_built_and_can_be_chosen_at_once(browser, idle: Rig, shop: FakeWorkshop) -> None:
    window = Visit(browser, idle.url)
    page = window.page
    window.more()
    window.enter("#steps input[type=number]", "5")
    window.tab(3)
    window.unfold("build")
    page.fill("#build-name textarea", "mine")
    page.click("#build")
    page.locator("#build-log .is-now", has_text="导出修复网络").wait_for()
    assert not page.locator("#build-log pre").is_visible()
    page.locator("#build-log summary").click()
    page.wait_for_selector("#build-log pre:has-text('export restorer')")
    assert "正在导出网络… · 2/4" in page.inner_text("#build-stage") and page.locator("#build-cancel").is_visible()
    assert page.locator("#build-log img").count() == 0 and not page.locator("#build").is_visible()
    page.locator("#engines summary").first.click()
    shop.finish.set()
    page.wait_for_selector("#build-stage .stage.is-done")
    card = page.locator("#engines article", has_text="mine")
    card.wait_for()
    assert "41.5 dB" in card.inner_text() and "使用中" in card.inner_text()
    assert page.locator("#engines details").first.get_attribute("open") is not None, "what is being read stays open"
    window.tab(0)
    page.locator("#bundle input").click()
    assert "mine" in page.locator("ul[role=listbox] li").all_inner_texts()[-1]
    assert page.locator("#steps input[type=number]").input_value() == "5", "and nothing else has changed"
    window.close()


def test_a_build_outlives_its_page(browser, idle: Rig, shop: FakeWorkshop) -> None:
    window = Visit(browser, idle.url, "en-US")
    window.tab(3)
    window.unfold("build")
    window.page.fill("#build-name textarea", "mine")
    window.page.click("#build")
    window.page.wait_for_selector("#build-log .is-now")
    window.open()
    window.tab(3)
    window.page.wait_for_selector("#build-cancel")  # not left behind a closed lid
    window.page.click("#build-cancel")
    window.until("failed", "#build-stage")
    assert "Cancelled" in window.page.inner_text("#build-stage")
    window.page.locator("#build-log summary").click()
    assert "export restorer" in window.page.inner_text("#build-log pre")
    window.close()
