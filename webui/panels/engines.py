"""The panel that tells which engines and models are here, which one serves, and why not the others."""

from __future__ import annotations

from html import escape

import gradio as gr

from engines.messages import BundleStatus, EngineStatus, Status
from webui.i18n import Words, spoken
from webui.panels import Desk

LOOK_S = 2.0


def build(desk: Desk, page: gr.Blocks, tab: gr.Tab, chip: gr.HTML) -> None:
    """`chip`: the short word on it in the header."""
    table = gr.HTML(elem_id="engines")
    timer = gr.Timer(LOOK_S)

    def look(request: gr.Request) -> list[object]:
        say, status = spoken(request.headers.get("accept-language")), desk.queue.status()
        return [status_html(status, say), chip_html(status, say), gr.Timer(active=status.state == "loading")]

    for moment in (page.load, tab.select, timer.tick):
        moment(look, None, [table, chip, timer], show_progress="hidden")


def chip_html(status: Status, say: Words) -> str:
    if status.state == "loading":
        text = say("engines_loading")
    elif status.state == "failed":
        text = say.phrase(status.detail)
    else:
        serving = next((bundle for bundle in status.bundles if bundle.kind == "portrait"), None)
        text = say.phrase(serving.reason) if serving else ""
    return f'<span class="engine-chip is-{status.state}">{escape(text)}</span>'


def status_html(status: Status, say: Words) -> str:
    engines = "".join(_engine_row(engine, say) for engine in status.engines)
    bundles = "".join(_bundle_card(bundle, say) for bundle in status.bundles)
    heads = "".join(f"<th>{escape(say(f'engines_{key}'))}</th>" for key in ("name", "device", "state"))
    note = (
        "" if any(e.name == "torch" and e.ok for e in status.engines) else f"<p>{escape(say('engines_no_torch'))}</p>"
    )
    return (
        f"<h3>{escape(say('engines_title'))}</h3><table><thead><tr>{heads}</tr></thead><tbody>{engines}</tbody></table>"
        f'<p class="note">{escape(say("engines_order"))}</p>{note}<h3>{escape(say("engines_bundles"))}</h3>{bundles}'
    )


def _engine_row(engine: EngineStatus, say: Words) -> str:
    state = f"{say('engines_ready') if engine.ok else say('engines_absent')} · {say.phrase(engine.reason)}"
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in (engine.name, engine.device or "—", state))
    return f'<tr class="is-{"ok" if engine.ok else "off"}">{cells}</tr>'


def _bundle_card(bundle: BundleStatus, say: Words) -> str:
    served = say("engines_chosen" if bundle.engine else "engines_none", reason=say.phrase(bundle.reason))
    sizes = ", ".join(f"{width}×{height}" for width, height in bundle.sizes)
    lines = [served] + ([say("engines_sizes", sizes=sizes)] if sizes else [])
    body = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f"<article><h4>{escape(bundle.title.get(say.language, bundle.name))}</h4>{body}</article>"
