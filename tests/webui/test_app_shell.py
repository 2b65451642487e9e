"""What a browser learns of the house besides its page, and what is shown of a link to it."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

from tests.support.http import CJK, tree
from webui.gradio_patches import template

if TYPE_CHECKING:
    from tests.support.server import Rig


class Head(HTMLParser):
    """The metas and links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.metas: list[tuple[str, str]] = []
        self.links: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag == "meta":
            self.metas.append((named.get("property") or named.get("name", ""), named.get("content", "")))
        if tag == "link":
            self.links.setdefault(named["rel"], []).append(named["href"])


@pytest.fixture(scope="module")
def head(rig: Rig) -> Head:
    return Head(httpx.get(f"{rig.url}/", headers={"Accept": "text/html"}).text)


def test_a_link_to_the_house_is_shown_by_its_own_name(rig: Rig, head: Head) -> None:
    shown = {name: text for name, text in head.metas if name.startswith(("og:", "twitter:"))}
    assert len(shown) == len([name for name, _ in head.metas if name.startswith(("og:", "twitter:"))]), "each once"
    assert "人像工作室" in shown["og:title"] and CJK.search(shown["og:description"])
    assert re.search(r"[a-z]{4}", shown["og:description"]), "in both languages"
    assert shown["og:image"] == f"{rig.url}/icons/icon-512.png", "by its whole address, as such links must be"
    assert httpx.get(shown["og:image"]).status_code == 200
    assert "gradio" not in json.dumps(head.metas).lower()


def test_gradio_s_page_is_changed_where_it_says_so_and_nowhere_else() -> None:
    text = '<head><meta charset="utf-8" /><meta property="og:title" content="Gradio" />\n<meta\n name="twitter:card" '
    text += "content=\"{{ config['title'] or '' }}\" /><style>a{}</style></head><body></head></body>"
    changed = template.with_head(text)
    assert changed.startswith('<head><meta charset="utf-8" /><style>a{}</style><meta property="og:title"')
    assert (
        changed.endswith("</head><body></head></body>")
        and "Gradio" not in changed
        and "{{ config['root'] }}" in changed
    )


@pytest.mark.parametrize(
    ("cookie", "asked", "tag"),
    [
        ("", "en-GB,en;q=0.9", "en"),
        ("", "zh-HK,en;q=0.9", "zh-TW"),
        ("", "de", "en"),
        ("language=zh-TW", "en", "zh-TW"),
        ("language=en", "zh-CN", "en"),
        ('language=x"><script>alert(1)', "zh-CN", "zh-CN"),
    ],
)
def test_the_page_is_marked_with_its_language_before_gradio_marks_it(
    rig: Rig, cookie: str, asked: str, tag: str
) -> None:
    text = httpx.get(f"{rig.url}/", headers={"Accept-Language": asked, "Cookie": cookie}).text
    assert re.search(r"<html\s+lang=\"([^\"]*)\"", text)[1] == tag  # type: ignore[index]
    assert text.index('navigator, "language"') < text.index("</head>") and "{%" not in text
    assert "language=(zh-CN|zh-TW|en)" in text and "<script>alert" not in text


def test_several_pages_of_a_process_have_it_once(rig: Rig, closed: Rig, head: Head) -> None:
    """Each of them has asked for the change."""
    assert closed.url != rig.url and len(head.links["apple-touch-icon"]) == len(head.links["manifest"]) == 1


def test_a_phone_can_install_it(rig: Rig, head: Head) -> None:
    assert head.links["manifest"] == ["manifest.json"]
    answer = httpx.get(f"{rig.url}/manifest.json")
    manifest = answer.json()
    assert answer.headers["content-type"] == "application/manifest+json"
    assert manifest["short_name"] == "人像工作室" and manifest["display"] == "standalone"
    assert manifest["start_url"] == manifest["id"] == "/"
    for icon in manifest["icons"]:
        picture = httpx.get(rig.url + icon["src"])
        assert (picture.status_code, picture.headers["content-type"]) == (200, icon["type"])
        if icon["type"] == "image/png":
            with Image.open(io.BytesIO(picture.content)) as image:
                assert icon["sizes"] == f"{image.width}x{image.height}"
    sizes = {(icon["sizes"], icon["purpose"]) for icon in manifest["icons"]}
    assert {(size, purpose) for size in ("192x192", "512x512") for purpose in ("any", "maskable")} <= sizes
    (touch,) = head.links["apple-touch-icon"]
    assert httpx.get(f"{rig.url}/{touch}").status_code == 200


def test_its_shortcuts_lead_to_tabs(rig: Rig) -> None:
    with rig.session() as page:
        tabs = [part["props"]["id"] for part in page.config["components"] if part["type"] == "tabitem"]
    for shortcut in httpx.get(f"{rig.url}/manifest.json").json()["shortcuts"]:
        assert shortcut["url"].removeprefix("/?tab=") in tabs


def test_the_page_that_stands_in_says_what_to_do_in_both_languages(rig: Rig) -> None:
    page = tree(httpx.get(f"{rig.url}/away").text)
    text = "".join(page.text)
    assert "没有开机" in text and "switched off" in text and "科哥" in text
    assert [link for link in page.all("a") if link["href"] == ""], "again, the address that was asked for"
    assert not page.all("img") and not page.all("script"), "it comes from the browser's cache alone"


def test_a_browser_looks_for_a_new_worker_at_each_visit(rig: Rig) -> None:
    answer = httpx.get(f"{rig.url}/service-worker.js")
    assert answer.headers["cache-control"] == "no-cache" and "javascript" in answer.headers["content-type"]


PUBLIC = ("/favicon.ico", "/manifest.json", "/icons/icon-192.png", "/service-worker.js", "/away")


@pytest.mark.parametrize("path", PUBLIC)
def test_none_of_it_needs_the_password(closed: Rig, path: str) -> None:
    """A browser asks for a manifest without a cookie."""
    answer: Any = httpx.get(closed.url + path)
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/icons/", "/icons/x.png", "/icons/../page.css"])
def test_there_are_no_other_icons(rig: Rig, path: str) -> None:
    assert httpx.get(rig.url + path).status_code == 404
