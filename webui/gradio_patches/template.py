"""
The HTML that Gradio sends before its page runs, from a template of its own: a link to the house that is sent to
somebody is shown by what stands in it, which was Gradio's name and a picture from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from jinja2 import BaseLoader, Environment
from markupsafe import Markup

from webui.app_shell import head_html

PAGE = "frontend/index.html"
ADVERTISED = re.compile(r'\s*<meta\s+(?:property="og:|name="twitter:)[^>]*/>')
ADDRESS = Markup("{{ config['root'] }}")  # by which the page was asked for, as Gradio has it


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
    if environment.cache is not None:  # it may have been asked for before
        environment.cache.clear()


def with_head(text: str) -> str:
    return ADVERTISED.sub("", text).replace("</head>", f"{head_html(ADDRESS)}</head>", 1)
