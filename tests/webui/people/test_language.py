"""The language that is chosen on the page: how a browser remembers it, and where it is heeded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from webui.i18n import tags, words

if TYPE_CHECKING:
    from tests.support.server import Rig

EN, TW = words("en"), words("zh-TW")
ENGLISH = {"accept-language": "en"}
CHOSEN = {**ENGLISH, "cookie": "language=zh-TW"}


@pytest.mark.parametrize("tag", tags())
def test_what_is_chosen_is_remembered_for_a_year_on_this_site_alone(rig: Rig, tag: str) -> None:
    answer = rig.client.post(f"/language/{tag}")
    assert answer.status_code == 204
    value, *attributes = answer.headers["set-cookie"].lower().split("; ")
    assert value == f"language={tag.lower()}"
    assert {"samesite=strict", "path=/", f"max-age={365 * 86400}"} <= set(attributes)
    assert "httponly" not in attributes, "the page's script reads it"
    rig.client.cookies.clear()


@pytest.mark.parametrize("tag", ["zh", "fr", "ZH-TW", "x;y", "zh-TW/x", "%0d%0aSet-Cookie:x"])
def test_nothing_else_can_be_chosen(rig: Rig, tag: str) -> None:
    answer = rig.client.post(f"/language/{tag}")
    assert answer.status_code == 404 and "set-cookie" not in answer.headers


def test_another_site_cannot_choose(rig: Rig) -> None:
    answer = rig.client.post("/language/en", headers={"origin": "https://evil.example"})
    assert answer.status_code == 403 and "set-cookie" not in answer.headers


def test_who_leaves_a_shared_screen_leaves_no_language(rig: Rig) -> None:
    gone = [line for line in rig.client.post("/leave").headers.get_list("set-cookie") if line.startswith("language=")]
    assert gone and "Max-Age=0" in gone[0]
    rig.client.cookies.clear()


def test_the_door_heeds_it(closed: Rig) -> None:
    page = httpx.get(f"{closed.url}/", headers={**CHOSEN, "accept": "text/html"}).text
    assert TW("door_ask") in page and '<html lang="zh-TW">' in page
    ended = httpx.get(f"{closed.url}/join/1-x", headers=CHOSEN).text
    assert TW("door_ended") in ended and EN("door_ended") not in ended


def test_errors_and_the_pages_own_handlers_heed_it(rig: Rig) -> None:
    assert httpx.get(f"{rig.url}/jobs/x", headers=CHOSEN).json()["message"].startswith("找不到")
    answer = httpx.post(f"{rig.url}/generate", json={"prompt": " "}, headers=CHOSEN).json()
    assert answer["message"] == TW("error_empty_prompt")
    with rig.session("en") as page:
        page.client.cookies.set("language", "zh-TW")
        messages = page.call(page.endpoint("generate"), page.sketching("  "))
    assert TW("error_empty_prompt") in str(messages[-1])
