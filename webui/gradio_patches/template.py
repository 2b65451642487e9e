"""
The HTML that Gradio sends before its page runs, from a template of its own: a link to the house that is sent to
somebody is shown by what stands in it, which was Gradio's name and a picture from elsewhere.
"""

from __future__ import annotations

import re

from jinja2 import Environment, FunctionLoader
from markupsafe import Markup

from webui.app_shell import head_html

PAGE = "frontend/index.html"
ADVERTISED = re.compile(r'\s*<meta\s+(?:property="og:|name="twitter:)[^>]*/>')
ADDRESS = Markup("{{ config['root'] }}")  # by which the page was asked for, as Gradio has it


def install(environment: Environment) -> None:
    """Let the environment's page have the house's head."""
    loader = environment.loader
    assert loader is not None  # it reads them from Gradio's package

    def source(name: str) -> str:
        text, *_ = loader.get_source(environment, name)
        return with_head(text) if name == PAGE else text

    environment.loader = FunctionLoader(source)
    if environment.cache is not None:  # it may have been asked for before
        environment.cache.clear()


def with_head(text: str) -> str:
    return ADVERTISED.sub("", text).replace("</head>", f"{head_html(ADDRESS)}</head>", 1)
