"""
The panel that tells which engines and models are here: which engine serves a model, why not the others, and what each
was measured to take on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import Any

import gradio as gr
from markdown_it import MarkdownIt

from engines.messages.status import BundleStatus, Choice, EngineStatus, Status
from webui.i18n import Words, spoken
from webui.widgets.panel_context import QUICK, PanelContext, fine_s

LOADING_S = 2.0  # how often to look again
PROVING_S, RARELY_S, SLOWER = 5.0, 60.0, 1.2  # the same while proofs go on: ever more rarely, as some never come
HEADINGS_BELOW = 4  # the level under which a card's own headings go
# What has changed is drawn anew, and a card that somebody is reading would be shut.
KEEP_OPEN = """const open = new Set();
element.addEventListener('toggle', ({ target }) => open[target.open ? 'add' : 'delete'](target.dataset.card), true);
new MutationObserver(() => element.querySelectorAll('details').forEach((card) => {
  card.open = open.has(card.dataset.card);
})).observe(element, { childList: true, subtree: true });"""
FIGURES = ("psnr", "ssim", "look", "finish", "peak")


@dataclass(frozen=True)
class View:
    table: gr.HTML
    chip: gr.HTML
    timer: gr.Timer


def build(context: PanelContext, page: gr.Blocks, tab: gr.Tab, chip: gr.HTML) -> View:
    """`chip`: the short word on it in the header."""
    view = View(gr.HTML(elem_id="engines", js_on_load=KEEP_OPEN), chip, gr.Timer(LOADING_S))
    look_on([page.load, tab.select, view.timer.tick], view, context)
    return view


def look_on(events: list[Any], v: View, context: PanelContext) -> None:
    """Look again how everything is."""

    def look(every_s: float, request: gr.Request) -> list[object]:
        say, status = spoken(request.headers.get("accept-language")), context.status
        return [status_html(status, say), chip_html(status, say), next_look(status, every_s)]

    for event in events:
        event(look, [v.timer], [v.table, v.chip, v.timer], **QUICK)


def next_look(status: Status, every_s: float) -> gr.Timer:
    """Proofs go on in the background after the models were loaded; when all are there, nothing changes by itself."""
    if status.state == "loading":
        return gr.Timer(LOADING_S)
    proving = any(choice.state == "unproven" for bundle in status.bundles for choice in bundle.choices)
    return gr.Timer(min(RARELY_S, max(PROVING_S, SLOWER * every_s)), active=proving)


def chip_html(status: Status, say: Words) -> str:
    """What became of the engines that do not serve stands in the panel: the chip is short."""
    if status.state == "loading":
        text = say("engines_loading")
    elif status.state == "failed":
        text = say.phrase(status.detail)
    else:
        serving = next((bundle for bundle in status.bundles if bundle.kind == "portrait"), None)
        text = say.phrase(serving.reason).partition(" (")[0] if serving else ""
    return f'<span class="engine-chip is-{status.state}">{escape(text)}</span>'


def status_html(status: Status, say: Words) -> str:
    engines = "".join(_engine_row(engine, say) for engine in status.engines)
    bundles = "".join(_bundle_card(bundle, say) for bundle in status.bundles)
    heads = "".join(f"<th>{escape(say(f'engines_{key}'))}</th>" for key in ("name", "device", "state"))
    note = (
        ""
        if any(e.group == "pytorch" and e.ok for e in status.engines)
        else f"<p>{escape(say('engines_no_torch'))}</p>"
    )
    return (
        f"<h3>{escape(say('engines_title'))}</h3>"
        f'<table class="here"><thead><tr>{heads}</tr></thead><tbody>{engines}</tbody></table>'
        f'<p class="note">{escape(say("engines_order"))}</p>{note}<h3>{escape(say("engines_bundles"))}</h3>{bundles}'
    )


def _engine_row(engine: EngineStatus, say: Words) -> str:
    state = f"{say('engines_ready') if engine.ok else say('engines_absent')} · {say.phrase(engine.reason)}"
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in (engine.name, engine.device or "—", state))
    return f'<tr class="is-{"ok" if engine.ok else "off"}">{cells}</tr>'


# ---- the card of a bundle


def _bundle_card(bundle: BundleStatus, say: Words) -> str:
    served = say("engines_chosen" if bundle.engine else "engines_none", reason=say.phrase(bundle.reason))
    sizes = ", ".join(f"{width}×{height}" for width, height in bundle.sizes)
    facts = [f"{bundle.size_mb:.1f} MB" if bundle.size_mb else "", sizes and say("engines_sizes", sizes=sizes)]
    chips = "".join(f"<span>{escape(fact)}</span>" for fact in facts if fact)
    return (
        f'<article><h4>{_title(bundle, say)}</h4><p class="chips">{chips}</p>'
        f'<p class="served">{escape(served)}</p>{_choices(bundle, say)}{_words_of_the_maker(bundle, say)}</article>'
    )


def _title(bundle: BundleStatus, say: Words) -> str:
    """With the name, by which it is chosen: what is built from a bundle keeps the bundle's title."""
    title = bundle.title.get(say.language)
    return f"{escape(title)} <code>{escape(bundle.name)}</code>" if title else escape(bundle.name)


def _choices(bundle: BundleStatus, say: Words) -> str:
    if not bundle.choices:
        return ""
    keys = ("engine", "precision", "verdict", *FIGURES)
    heads = "".join(f'<th scope="col">{escape(say(f"engines_{key}"))}</th>' for key in keys)
    rows = "".join(_choice_row(choice, choice.engine == bundle.engine, say) for choice in bundle.choices)
    return f'<table class="choices"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _choice_row(choice: Choice, serves: bool, say: Words) -> str:
    """A phone shows the row as a small card, in which each figure bears its name (assets/page.css)."""
    mark = f'<span class="serves">{escape(say("engines_serves"))}</span>' if serves else ""
    why = f"<small>{escape(say.phrase(choice.reason))}</small>" if choice.reason else ""
    figures = "".join(
        f'<td class="figure" data-name="{escape(say(f"engines_{key}"))}">{escape(text)}</td>'
        for key, text in zip(FIGURES, _figures(choice, say), strict=True)
    )
    return (
        f'<tr class="is-{choice.state}"><th scope="row">{escape(choice.engine)}{mark}</th>'
        f"<td>{escape(choice.precision or '—')}</td>"
        f'<td><span class="verdict">{escape(say(f"engines_{choice.state}"))}</span>{why}</td>{figures}</tr>'
    )


def _figures(choice: Choice, say: Words) -> list[str]:
    """As FIGURES; a dash where nothing was measured."""

    def seconds(value: float) -> str:
        return say("stage_after", seconds=fine_s(value)) if value else "—"

    verdict = choice.verdict
    if verdict is None:
        return ["—"] * len(FIGURES)
    return [
        f"{verdict.psnr_db:.1f} dB" if verdict.psnr_db else "—",
        f"{verdict.ssim:.3f}" if verdict.ssim else "—",
        seconds(verdict.look_s),
        seconds(verdict.finish_s),
        f"{verdict.peak_mb:.0f} MB" if verdict.peak_mb else "—",
    ]


def _words_of_the_maker(bundle: BundleStatus, say: Words) -> str:
    if not bundle.card:
        return ""
    summary, card = escape(say("engines_card")), f'<div class="card">{card_html(bundle.card)}</div>'
    return f'<details data-card="{escape(bundle.name)}"><summary>{summary}</summary>{card}</details>'


@lru_cache(maxsize=64)
def card_html(markdown: str) -> str:
    """
    A card is a stranger's text: its HTML is shown as text, and it can neither lead away nor fetch anything, because
    links and pictures are left as they were written.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "image", "autolink", "reference", "html_block", "html_inline"])
    tokens = parser.parse(markdown)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + HEADINGS_BELOW)}"
    return str(parser.renderer.render(tokens, parser.options, {}))
