"""
The HTML that Gradio sends before its page runs, from a template of its own: a link to the house that is sent to
somebody is shown by what stands in it, which was Gradio's name and a picture from elsewhere. And the page's language,
which Gradio takes from the browser, whatever was chosen on the page: `zh-HK` was shown in English, for which it has no
words. Only the words of that language are sent, and neither the script that lets a page around this one resize it nor
the description of the endpoints, which programs ask for where it is of use (/gradio_api/info).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import BaseLoader, Environment
from markupsafe import Markup
from starlette.requests import Request

from webui import asset_files
from webui.app_shell import head_html
from webui.i18n import COOKIE, preferred, spoken, tags

PAGE = "frontend/index.html"
ADVERTISED = re.compile(r'\s*<meta\s+(?:property="og:|name="twitter:)[^>]*/>')
ADDRESS = Markup("{{ config['root'] }}")  # by which the page was asked for, as Gradio has it
ENGLISH, ASKED = 'lang="en"', 'lang="{{ language_of(request) }}"'
MANIFEST, BESIDE_THE_PAGE = 'href="/manifest.json"', 'href="manifest.json"'
CONFIG, IN_ITS_LANGUAGE = "{{ config | toorjson }}", "{{ config | in_language(request) | toorjson }}"
ENDPOINTS, NONE = "{{ gradio_api_info | toorjson }}", '{"named_endpoints": {}, "unnamed_endpoints": {}}'
RESIZER = re.compile(r"<script>(?:(?!</script>).)*iframeResizer(?:(?!</script>).)*</script>", re.DOTALL)


@dataclass(frozen=True)
class HouseLoader(BaseLoader):
    """Reads templates as Gradio does, and gives the page the house's head."""

    gradios: BaseLoader

    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, Callable[[], bool] | None]:
        text, *rest = self.gradios.get_source(environment, template)
        return with_head(text) if template == PAGE else text, *rest  # type: ignore[return-value]


def install(environment: Environment) -> None:
    """Let the environment's page have the house's head. All pages of a process share it, so it is done once."""
    if not isinstance(environment.loader, HouseLoader):
        assert environment.loader is not None  # it reads them from Gradio's package
        environment.loader = HouseLoader(environment.loader)
    environment.globals["language_of"] = language_of
    environment.filters["in_language"] = in_language
    if environment.cache is not None:  # it may have been asked for before
        environment.cache.clear()


def with_head(text: str) -> str:
    head = f"{head_html(ADDRESS)}<script>{{% raw %}}{language_script()}{{% endraw %}}</script>"
    text = RESIZER.sub("", ADVERTISED.sub("", text)).replace(CONFIG, IN_ITS_LANGUAGE).replace(ENDPOINTS, NONE)
    text = text.replace(MANIFEST, BESIDE_THE_PAGE)
    return text.replace(ENGLISH, ASKED, 1).replace("</head>", f"{head}</head>", 1)


def language_of(request: Request) -> str:
    return spoken(preferred(request.headers)).tag


def in_language(config: Mapping[str, Any], request: Request) -> Mapping[str, Any]:
    """Return a page's configuration with the words of the language that it is sent in alone."""
    tag = language_of(request)
    return {**config, "i18n_translations": {tag: config["i18n_translations"][tag]}}


def language_script() -> str:
    return asset_files.script("language.js").replace("COOKIE", COOKIE).replace("TAGS", "|".join(tags()))
