"""
The HTML that Gradio sends before its page runs, from a template of its own: a link to the house that is sent to
somebody is shown by what stands in it, which was Gradio's name and a picture from elsewhere. And the page's language,
which Gradio takes from the browser, whatever was chosen on the page: `zh-HK` was shown in English, for which it has no
words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import BaseLoader, Environment
from markupsafe import Markup
from starlette.requests import Request

from webui.app_shell import head_html
from webui.i18n import COOKIE, preferred, spoken, tags

PAGE = "frontend/index.html"
ADVERTISED = re.compile(r'\s*<meta\s+(?:property="og:|name="twitter:)[^>]*/>')
ADDRESS = Markup("{{ config['root'] }}")  # by which the page was asked for, as Gradio has it
ENGLISH, ASKED = 'lang="en"', 'lang="{{ language_of(request) }}"'
SCRIPT = (Path(__file__).parents[1] / "assets" / "language.js").read_text(encoding="utf-8")


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
    if environment.cache is not None:  # it may have been asked for before
        environment.cache.clear()


def with_head(text: str) -> str:
    head = f"{head_html(ADDRESS)}<script>{{% raw %}}{language_script()}{{% endraw %}}</script>"
    return ADVERTISED.sub("", text).replace(ENGLISH, ASKED, 1).replace("</head>", f"{head}</head>", 1)


def language_of(request: Request) -> str:
    return spoken(preferred(request.headers)).tag


def language_script() -> str:
    return SCRIPT.replace("COOKIE", COOKIE).replace("TAGS", "|".join(tags()))
