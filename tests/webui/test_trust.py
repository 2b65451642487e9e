"""The page that says how a device comes to trust the home."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.http import CJK
from webui.i18n import words
from webui.people import pages
from webui.trust import FILE, trust_html

if TYPE_CHECKING:
    from tests.support.server import Rig

MARK = ":".join(["AB"] * 32)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_it_says_for_every_device_what_to_do_and_what_it_means(language: str) -> None:
    text = trust_html(words(language), MARK)
    for system in ("iPhone", "iPad", "Android", "Windows", "macOS", "Linux"):
        assert system in text
    assert MARK in text and f'href="{FILE.removeprefix("/")}"' in text and 'role="alert"' not in text
    assert bool(CJK.search(text.partition("<main>")[2].partition("</h1>")[2].partition("<small>")[0])) is (
        language == "zh"
    )
    means = {"zh": "冒充", "en": "pretend to your device"}
    assert means[language] in text


def test_a_house_without_https_says_how_to_have_it(rig: Rig) -> None:
    page = httpx.get(f"{rig.url}/trust", headers={"accept-language": "en"})
    assert page.status_code == 200 and "./run.sh --https" in page.text and FILE not in page.text
    refused = httpx.get(f"{rig.url}{FILE}")
    assert (refused.status_code, refused.json()["code"]) == (404, "no_such_address")


def test_nobody_has_to_log_in_to_read_it(closed: Rig) -> None:
    assert httpx.get(f"{closed.url}/trust").status_code == 200
    assert httpx.get(f"{closed.url}/jobs").status_code == 401, "else nothing is closed"


def test_the_invitation_leads_there_where_it_helps() -> None:
    say = words("en")
    assert '"trust"' in pages.invitation(say, "https://192.168.1.5:7860/join/x", 24)
    assert '"trust"' not in pages.invitation(say, "http://192.168.1.5:7860/join/x", 24)
