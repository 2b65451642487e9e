"""
The panel that tells which engines and models are here: which engine serves a model, why not the others, and what each
was measured to take on this machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, get_args

import gradio as gr
from markdown_it import MarkdownIt
from markupsafe import Markup

from engines.messages.status import BundleKind, BundleStatus, Choice, EngineStatus, Status
from webui.i18n import Words
from webui.widgets.panel_context import QUICK, PanelContext, fine_s, words_of

LOADING_S = 2.0  # how often to look again
# The same while proofs go on: ever more rarely, as some never come. A temperature may change at any time.
PROVING_S, RARELY_S, SLOWER = 5.0, 60.0, 1.2
HEADINGS_BELOW = 4  # the level under which a card's own headings go
# What has changed is drawn anew, and a card that somebody is reading would be shut.
KEEP_OPEN = """const open = new Set();
element.addEventListener('toggle', ({ target }) => open[target.open ? 'add' : 'delete'](target.dataset.card), true);
new MutationObserver(() => element.querySelectorAll('details').forEach((card) => {
  card.open = open.has(card.dataset.card);
})).observe(element, { childList: true, subtree: true });"""
NOBODY: Mapping[str, Status] = MappingProxyType({})
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
        say, status = words_of(request), context.status
        return [status_html(status, say, context.jobs.workers), chip_html(status, say), next_look(status, every_s)]

    for event in events:
        event(look, [v.timer], [v.table, v.chip, v.timer], **QUICK)


def next_look(status: Status, every_s: float) -> gr.Timer:
    """
    Proofs go on in the background after the models were loaded, and a rest ends; when all proofs are there, nothing
    changes by itself but a temperature.
    """
    if status.state == "loading":
        return gr.Timer(LOADING_S)
    if status.resting or status.hurdle:
        return gr.Timer(PROVING_S)
    proving = any(choice.state == "unproven" for bundle in status.bundles for choice in bundle.choices)
    if not proving and status.temperature_c is not None:
        return gr.Timer(RARELY_S)
    return gr.Timer(min(RARELY_S, max(PROVING_S, SLOWER * every_s)), active=proving)


def chip_html(status: Status, say: Words) -> Markup:
    """What became of the engines that do not serve stands in the panel: the chip is short."""
    if status.state == "loading":
        text = say("engines_loading")
    elif status.state == "failed":
        text = say.phrase(status.detail)
    elif status.resting:
        text = say("engines_resting", why=say.phrase(status.resting))
    elif status.hurdle:
        text = say.phrase(status.hurdle)
    else:
        serving = next((bundle for bundle in status.bundles if bundle.kind == "portrait"), None)
        text = say.phrase(serving.reason).partition(" (")[0] if serving else ""
    return Markup('<span class="engine-chip is-{}">{}</span>').format(status.state, text)


def status_html(status: Status, say: Words, workers: Mapping[str, Status] = NOBODY) -> Markup:
    """`workers`: on other machines, which help."""
    torch_is_here = any(engine.group == "pytorch" and engine.ok for engine in status.engines)
    note = Markup("<p>{}</p>").format(say("engines_no_torch"))
    return Markup(
        '<h3>{title}</h3><table class="here"><thead><tr>{heads}</tr></thead><tbody>{engines}</tbody></table>'
        '<p class="note">{order}</p>{note}{heat}{workers}<h3>{bundles_title}</h3>{bundles}'
    ).format(
        title=say("engines_title"),
        heads=_each(Markup("<th>{}</th>"), (say(f"engines_{key}") for key in ("name", "device", "state"))),
        engines=Markup().join(_engine_row(engine, say) for engine in status.engines),
        order=say("engines_order"),
        note="" if torch_is_here else note,
        heat=_heat(status, say),
        workers=_hurdle(status, say) + _workers(workers, say),
        bundles_title=say("engines_bundles"),
        bundles=Markup().join(_bundle_card(bundle, say) for bundle in sorted(status.bundles, key=_kind)),
    )


def _kind(bundle: BundleStatus) -> int:
    """Return the place of its kind: what draws first, what finds faces last."""
    return get_args(BundleKind).index(bundle.kind)


def _heat(status: Status, say: Words) -> Markup:
    """Return a line on how hot it is, where that is measured, and on whether the worker rests."""
    celsius, resting = status.temperature_c, status.resting
    lines = [
        say("engines_temperature", celsius=f"{celsius:.0f}") if celsius is not None else "",
        say("engines_resting", why=say.phrase(resting)) if resting else "",
    ]
    return _each(Markup('<p class="note heat">{}</p>'), [" · ".join(filter(None, lines))] if any(lines) else [])


def _hurdle(status: Status, say: Words) -> Markup:
    """Return a line on why some of them are given nothing, if that is so."""
    lines = [say("engines_hurdle", why=say.phrase(status.hurdle))] if status.hurdle else []
    return _each(Markup('<p class="hurdle">{}</p>'), lines)


def _workers(workers: Mapping[str, Status], say: Words) -> Markup:
    """Return a line on the machines that help, if there are any."""
    words = {"ready": say("engines_ready"), "loading": say("engines_loading"), "failed": say("engines_absent")}
    said = " · ".join(f"{name}: {words[worker.state]}" for name, worker in sorted(workers.items()))
    return _each(Markup('<p class="note workers">{}</p>'), [say("engines_workers", said=said)] if said else [])


def _each(template: Markup, texts: Iterable[str]) -> Markup:
    """Fill the template with each of the texts."""
    return Markup().join(template.format(text) for text in texts)


def _engine_row(engine: EngineStatus, say: Words) -> Markup:
    state = f"{say('engines_ready') if engine.ok else say('engines_absent')} · {say.phrase(engine.reason)}"
    cells = _each(Markup("<td>{}</td>"), (engine.name, engine.device or "—", state))
    return Markup('<tr class="is-{}">{}</tr>').format("ok" if engine.ok else "off", cells)


# ---- the card of a bundle


def _bundle_card(bundle: BundleStatus, say: Words) -> Markup:
    sizes = ", ".join(f"{width}×{height}" for width, height in bundle.sizes)
    at = say("engines_at", name=bundle.at) if bundle.at else ""
    facts = [at, f"{bundle.size_mb:.1f} MB" if bundle.size_mb else "", sizes and say("engines_sizes", sizes=sizes)]
    return Markup(
        '<article><h4>{title}</h4><p class="chips">{chips}</p><p class="served">{served}</p>{choices}{card}</article>'
    ).format(
        title=_title(bundle, say),
        chips=_each(Markup("<span>{}</span>"), filter(None, facts)),
        served=say("engines_chosen" if bundle.engine else "engines_none", reason=say.phrase(bundle.reason)),
        choices=_choices(bundle, say),
        card=_words_of_the_maker(bundle, say),
    )


def _title(bundle: BundleStatus, say: Words) -> Markup:
    """Return it with the name, by which it is chosen: what is built from a bundle keeps the bundle's title."""
    title = say.choose(bundle.title)
    return Markup("{} <code>{}</code>").format(title, bundle.name) if title else Markup.escape(bundle.name)


def _choices(bundle: BundleStatus, say: Words) -> Markup:
    if not bundle.choices:
        return Markup()
    keys = ("engine", "precision", "verdict", *FIGURES)
    return Markup('<table class="choices"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>').format(
        heads=_each(Markup('<th scope="col">{}</th>'), (say(f"engines_{key}") for key in keys)),
        rows=Markup().join(_choice_row(choice, bundle.is_served_by(choice), say) for choice in bundle.choices),
    )


def _choice_row(choice: Choice, serves: bool, say: Words) -> Markup:
    """Return a row, which a phone shows as a small card: each figure bears its name there (assets/page.css)."""
    mark = Markup('<span class="serves">{}</span>').format(say("engines_serves"))
    why = Markup("<small>{}</small>").format(say.phrase(choice.reason))
    figures = Markup().join(
        Markup('<td class="figure" data-name="{}">{}</td>').format(say(f"engines_{key}"), text)
        for key, text in zip(FIGURES, _figures(choice, say), strict=True)
    )
    return Markup(
        '<tr class="is-{state}"><th scope="row">{engine}{mark}</th><td>{precision}</td>'
        '<td><span class="verdict">{verdict}</span>{why}</td>{figures}</tr>'
    ).format(
        state=choice.state,
        engine=choice.engine,
        mark=mark if serves else "",
        precision=choice.precision or "—",
        verdict=say(f"engines_{choice.state}"),
        why=why if choice.reason else "",
        figures=figures,
    )


def _figures(choice: Choice, say: Words) -> list[str]:
    """Return the texts of FIGURES; a dash where nothing was measured."""

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


def _words_of_the_maker(bundle: BundleStatus, say: Words) -> Markup:
    if not bundle.card:
        return Markup()
    details = Markup('<details data-card="{}"><summary>{}</summary><div class="card">{}</div></details>')
    return details.format(bundle.name, say("engines_card"), card_html(bundle.card))


@lru_cache(maxsize=64)
def card_html(markdown: str) -> Markup:
    """
    Draw a card, which is a stranger's text: its HTML is shown as text, and it can neither lead away nor fetch anything,
    because links and pictures are left as they were written.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "image", "autolink", "reference", "html_block", "html_inline"])
    tokens = parser.parse(markdown)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + HEADINGS_BELOW)}"
    return Markup(parser.renderer.render(tokens, parser.options, {}))  # noqa: S704 (the parser has escaped it)
