"""
What makes the page an app on a phone, and how a link to it looks: names, icons, and what is shown while the house
cannot be reached. Knows no Gradio.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from markupsafe import Markup

from engines.messages import CREDIT
from webui import addresses
from webui.asset_files import FOLDER as ASSETS
from webui.i18n import LANGUAGES, words
from webui.plain_page import page

# Which say nothing of anybody.
PATHS = ("/favicon.ico", "/manifest.json", "/icons/", "/service-worker.js", "/faces.js", "/away")
ICONS = {
    "icon.svg": "image/svg+xml",
    "icon-180.png": "image/png",
    "icon-192.png": "image/png",
    "icon-512.png": "image/png",
}
THEME_COLOUR = {"light": "#ffffff", "dark": "#0b0f19"}  # of the page's own background
DAY = {"Cache-Control": "max-age=86400"}


def add(routes: APIRouter) -> None:
    """Add what a browser asks for besides the page."""

    @routes.get("/manifest.json", include_in_schema=False)
    def manifest(request: Request) -> JSONResponse:
        return JSONResponse(
            manifest_json(addresses.root(request.scope)), headers=DAY, media_type="application/manifest+json"
        )

    _add_file(routes, "/favicon.ico", ASSETS / "favicon.ico", "image/x-icon", DAY)
    for name, media in ICONS.items():
        _add_file(routes, f"/icons/{name}", ASSETS / name, media, DAY)
    # Of a worker the browser looks for a new one at each visit: it must not be told to keep this one. Of a script that
    # the page asks for when it comes to it, neither: it belongs to what the page is now.
    for name in ("service-worker.js", "faces.js"):
        _add_file(routes, f"/{name}", ASSETS / name, "text/javascript", {"Cache-Control": "no-cache"})

    @routes.get("/away", include_in_schema=False)
    def away() -> Response:
        """What the service worker shows while the house cannot be reached."""
        return Response(away_html(), headers=DAY, media_type="text/html")


def _add_file(routes: APIRouter, address: str, path: Path, media: str, headers: dict[str, str]) -> None:
    @routes.get(address, include_in_schema=False)
    def file() -> FileResponse:
        return FileResponse(path, headers=headers, media_type=media)


def manifest_json(root: str) -> dict[str, Any]:
    """`root`: as addresses.root has it; by it the browser knows one house from another on the same host."""
    zh, en = words("zh"), words("en")
    return {
        "id": f"{root}/",
        "name": zh("title"),
        "short_name": zh("app_name"),
        "description": f"{zh('tagline')} {en('tagline')}",
        "lang": "zh-CN",
        "start_url": f"{root}/",
        "display": "standalone",
        "background_color": THEME_COLOUR["light"],
        "theme_color": THEME_COLOUR["light"],
        "categories": ["photo", "graphics"],
        "icons": [
            {"src": f"{root}/icons/icon.svg", "sizes": "any", "type": "image/svg+xml", "purpose": "any"},
            *({"src": f"{root}/icons/icon-{px}.png", "sizes": f"{px}x{px}", "type": "image/png", "purpose": purpose}
              for px in (192, 512) for purpose in ("any", "maskable")),
        ],
        "shortcuts": [
            {"name": f"{zh('tab_restore')} · {en('tab_restore')}", "url": f"{root}/?tab=restore"},
            {"name": f"{zh('tab_history')} · {en('tab_history')}", "url": f"{root}/?tab=history"},
        ],
    }  # fmt: skip


def head_html(address: str) -> str:
    """
    Return what the page at the house's own address has in its head. `address`: that, without a slash at its end: a
    link's picture needs a whole one.
    """
    zh, en = words("zh"), words("en")
    about = {"title": zh("title"), "description": f"{zh('tagline')} {en('tagline')}"}
    metas = [
        *(("property", f"og:{name}", text) for name, text in about.items()),
        ("property", "og:type", "website"),
        ("property", "og:image", address + "/icons/icon-512.png"),
        ("name", "description", about["description"]),
        ("name", "author", CREDIT),
        ("name", "apple-mobile-web-app-title", zh("app_name")),
        ("name", "mobile-web-app-capable", "yes"),
    ]
    meta = Markup('<meta {}="{}" content="{}">')
    colour = Markup('<meta name="theme-color" media="(prefers-color-scheme: {})" content="{}">')
    return Markup().join(
        [
            *(meta.format(*each) for each in metas),
            *(colour.format(*each) for each in THEME_COLOUR.items()),
            Markup('<link rel="icon" href="icons/icon.svg" type="image/svg+xml">'),
            Markup('<link rel="apple-touch-icon" href="icons/icon-180.png">'),
        ]
    )


def away_html() -> Markup:
    """Return the page that stands in for the house, to all in all languages: it tries again by itself."""
    languages = [words(language) for language in LANGUAGES]
    paragraph = Markup('<p lang="{}">{}</p>')
    body = Markup().join(paragraph.format(say.tag, say("app_away")) for say in languages)
    again = " · ".join(say("app_again") for say in languages)
    return page(
        body + Markup('<p><a class="button" href="">{}</a></p>').format(again),
        head=Markup('<meta http-equiv="refresh" content="10">'),
    )
