"""A person's own presets as files, for the page to hand out."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import Response

import presets
from engines.settings import Settings
from webui.i18n import preferred, spoken
from webui.own_presets import OwnPresets, file_name
from webui.people import person_of


def add(routes: APIRouter, settings: Settings) -> None:
    store = OwnPresets(settings.presets)

    @routes.get("/own-presets/{preset_id}.toml", include_in_schema=False)  # the page's own
    def exported(preset_id: str, request: Request) -> Response:
        """One preset of whoever asks, in the format of presets/*.toml; others' are not there."""
        own = store.get(person_of(request).id, preset_id)
        name = file_name(spoken(preferred(request.headers)).choose(own.preset.title))
        headers = {
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
            "Cache-Control": "no-store",
        }
        return Response(presets.write(own.preset), headers=headers, media_type="application/toml")
