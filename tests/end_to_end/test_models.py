"""LoRAs and downloads in headless Chromium: what a person does with them, on a desktop and on a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engines.messages import Generate, Lora, unpack
from tests.support.browser_window import BROWSER, Visit
from tests.support.fake_workers import FakeHub, fetches

if TYPE_CHECKING:
    from tests.support.server import Rig

pytestmark = BROWSER


def choose(window: Visit, *names: str) -> None:
    """One after the other, while the list stays open."""
    window.page.locator("#loras input").click()
    for k, name in enumerate(names):
        window.page.locator("ul[role=listbox] li", has_text=name).click()
        assert strength(window, k, name) == "0.8"
    window.page.keyboard.press("Escape")


def strength(window: Visit, k: int, name: str) -> str:
    slider = window.page.locator(f"#loras-{k}", has_text=name)
    slider.wait_for()
    return str(slider.locator("input[type=number]").input_value())


def test_the_owner_opens_the_check_up_and_sees_it(browser, dressing: Rig) -> None:
    window = Visit(browser, dressing.url, width=390)
    window.tab(3)
    window.lift("doctor-panel", "#doctor li")
    assert "engine ort" in window.page.inner_text("#doctor") or "引擎 ort" in window.page.inner_text("#doctor")
    assert not window.scrolls_sideways() and window.complaints == []
    window.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_each_chosen_lora_has_a_slider_and_keeps_it(browser, dressing: Rig, width: int) -> None:
    window = Visit(browser, dressing.url, width=width)
    page, before = window.page, len(dressing.requests())
    assert not page.locator("#loras").is_visible(), "nobody is asked who does not look for it"
    page.fill("#prompt textarea", "somebody")
    window.lift("wardrobe", "#loras")
    choose(window, "skin", "柔光")
    window.enter("#loras-1 input[type=number]", "-0.55")
    assert not window.scrolls_sideways()
    page.locator("#loras .token-remove").first.click()
    assert strength(window, 0, "柔光") == "-0.55"
    page.locator("#loras-1").wait_for(state="detached")
    page.locator("#loras .token-remove").last.click()  # all of them
    page.locator("#loras-0").wait_for(state="detached")
    choose(window, "柔光")
    window.enter("#loras-0 input[type=number]", "-0.55")
    page.click("#generate")
    window.until("running")
    (request,) = (unpack(text) for text in dressing.requests()[before:])
    assert isinstance(request, Generate) and request.loras == (Lora("柔光", -0.55),)
    assert window.complaints == []
    window.close()


def test_a_model_that_wears_none_says_so_and_sends_none(browser, dressing: Rig) -> None:
    window = Visit(browser, dressing.url, "en-US")
    page = window.page
    window.lift("wardrobe", "#loras")
    choose(window, "skin")
    window.more()
    page.locator("#bundle input").click()
    page.locator("ul[role=listbox] li", has_text="compiled").click()
    page.locator("#wardrobe .note", has_text="compiled").wait_for()
    page.locator("#loras-0").wait_for(state="detached")
    page.locator("#bundle input").click()
    page.locator("ul[role=listbox] li", has_text="sd15").click()
    page.locator("#loras").wait_for()
    assert page.locator("#loras .token").count() == 0
    assert "7.5" in page.locator("#guidance").inner_text(), "what others call 7.5 is 6.5 here"
    window.close()


def test_the_loras_of_a_picture_come_back_with_its_settings(browser, rig: Rig, picture: str) -> None:
    window = Visit(browser, rig.url)
    rig.queue.share(picture, True)  # a program has drawn it, for nobody in particular
    window.tab(2)
    window.page.locator("#collection label").nth(1).click()
    window.page.locator(f"#history [data-reuse='{picture}']").click()
    slider = window.page.locator("#loras-0", has_text="studio_light")
    slider.wait_for()
    window.page.wait_for_timeout(1500)  # until every listener has had its say
    assert slider.locator("input[type=number]").input_value() == "0.45"
    assert window.page.locator("#loras .token").all_inner_texts() == ["studio_light"]
    window.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_model_is_fetched_and_leads_on_to_its_build(browser, shop: Rig, hub: FakeHub, width: int) -> None:
    window = Visit(browser, shop.url, "en-US", width)
    page, before = window.page, len(fetches(shop))
    window.tab(3)
    window.lift("models-panel", "#models article")
    assert not window.scrolls_sideways()
    page.locator("[data-fetch=gpen]").click()
    page.locator("#models .status", has_text="12 / 30 MB").wait_for()
    box = page.locator("[data-stop]").bounding_box()
    assert box and box["height"] >= 40, "large enough for a finger"
    assert window.complaints == []
    window.open()  # reload in the middle
    window.tab(3)
    page.locator("#models .status", has_text="12 / 30 MB").wait_for()
    hub.finish.set()
    page.locator("[data-build=gpen]").click()
    page.wait_for_function("document.querySelector('#build-name textarea')?.value === 'gpen'")
    assert page.locator("#build-source input").input_value().startswith("GPEN.pth")
    assert not window.scrolls_sideways() and len(fetches(shop)) == before + 1
    window.close()
