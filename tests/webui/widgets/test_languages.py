"""Text in all languages at once: each reader finds their own, and what two say alike is there once."""

from __future__ import annotations

import json
import re

from markupsafe import Markup

from tests.support.http import tree
from webui import asset_files
from webui.i18n import LANGUAGES, tags, words
from webui.page import SCRIPTS
from webui.widgets import languages


def test_there_is_a_span_for_each_language() -> None:
    html = languages.spans({"zh": "水彩", "zh-TW": "<水彩>", "en": "Watercolour"})
    assert html == Markup(
        '<span lang="zh-CN">水彩</span><span lang="zh-TW">&lt;水彩&gt;</span><span lang="en">Watercolour</span>'
    )


def test_what_all_chinese_say_alike_is_there_once() -> None:
    html = '<span lang="zh">水彩</span><span lang="en">Watercolour</span>'
    assert languages.spans({"zh": "水彩", "en": "Watercolour"}) == html
    assert languages.spans({"zh": "水彩", "zh-TW": "水彩", "en": "Watercolour"}) == html


def test_the_style_sheet_hides_what_is_in_another_language() -> None:
    rules = languages.style().splitlines()
    assert len(rules) == len(LANGUAGES)
    assert ':root:lang(zh-TW) span[lang]:not([lang="zh-TW"], [lang="zh"])' in rules[1]


def test_the_switch_offers_each_language_in_its_own_words() -> None:
    options = [(option["value"], option["lang"]) for option in tree(languages.switch_html()).all("option")]
    assert options == [(tag, tag) for tag in tags()]
    assert re.findall("<option[^>]*>([^<]*)", languages.switch_html()) == ["简体中文", "繁體中文", "English"]


def test_what_scripts_say_is_there_in_every_language_and_nothing_else_is() -> None:
    first, _, rest = languages.script().partition(";\n")
    said = json.loads(first.removeprefix("const SAID = "))
    assert set(said) == set(tags()) and said["zh-TW"]["script_lost"] == words("zh-TW")("script_lost")
    scripts = "".join(map(asset_files.script, (*SCRIPTS, "faces.js")))
    assert set(re.findall(r'spoken\("(\w+)"', scripts)) == set(said["en"]) == set(languages.SCRIPTS_SAY)
    assert r"/{(\w+)}/g" in rest
    assert not re.search(r'"[^"\n]*[\u3400-\u9fff]', scripts), "words stand in the locales"
