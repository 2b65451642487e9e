"""
Text that is the same for everybody who opens the page, and so in all languages at once: HTML that Gradio sends before
it is known who reads it. The style sheet shows what is in the page's language. And the switch between them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from markupsafe import Markup

from webui.i18n import LANGUAGES, tags, words

SCRIPTS_SAY = (
    "script_lost", "script_leaving", "script_close", "script_uploading", "script_corrected", "script_restore_faces",
    "script_restore_face", "script_choose_face",
)  # fmt: skip
SHOW_CHOSEN = "element.querySelector('#language').value = document.documentElement.lang"


def spans(texts: Mapping[str, str]) -> Markup:
    """Return a span for each language. Where zh and zh-TW say the same, there is one for all who read Chinese."""
    said = {words(language).tag: words(language).choose(texts) for language in LANGUAGES}
    if said["zh-CN"] == said["zh-TW"]:
        said = {"zh": said.pop("zh-TW"), **said}
        del said["zh-CN"]
    return Markup().join(Markup('<span lang="{}">{}</span>').format(*each) for each in said.items())


def spans_of(key: str) -> Markup:
    """Return the words of a key of the locales."""
    return spans({language: words(language)(key) for language in LANGUAGES})


def style() -> str:
    """Return the rules that hide what is in another language than the page."""
    hidden = ':root:lang({tag}) span[lang]:not([lang="{tag}"], [lang="{any}"]) {{ display: none; }}'
    return "\n".join(hidden.format(tag=tag, any=tag.partition("-")[0]) for tag in tags())


def script() -> str:
    """Return the few words that are said by the browser alone: spoken(key, facts), in the page's language."""
    table = {words(language).tag: {key: words(language).table[key] for key in SCRIPTS_SAY} for language in LANGUAGES}
    return f"""const SAID = {json.dumps(table, ensure_ascii=False)};
function spoken(key, facts = {{}}) {{
  return SAID[document.documentElement.lang][key].replace(/{{(\\w+)}}/g, (_, name) => facts[name]);
}}"""


def switch_html() -> Markup:
    """Return the switch, which assets/page.js listens to."""
    option = Markup('<option value="{tag}" lang="{tag}">{name}</option>')
    return Markup(
        '<label class="language"><span class="unseen">{label}</span><span class="mark" aria-hidden="true">文A</span>'
        '<select id="language">{options}</select></label>'
    ).format(
        label=spans_of("language_choose"),
        options=Markup().join(option.format(tag=say.tag, name=say("language_name")) for say in map(words, LANGUAGES)),
    )
