"""
The panel of `./run.sh doctor`: what is missing or wrong on this machine, and what to do, for its owner. It looks from a
process of its own, as it does from a terminal, so that what hangs or crashes there harms no page.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import gradio as gr
from markupsafe import Markup
from typing_extensions import TypedDict

from engines import files
from engines.errors import OwnerOnly
from engines.settings.installation import PROJECT
from webui.doctor import MARKS, Line
from webui.i18n import Words
from webui.widgets.panel_context import QUICK, PanelContext, complaint, words_of

COMMAND = (sys.executable, "-B", "-m", "webui.doctor", "--json")
LONGEST_S = 300.0  # an engine that hangs is given 100 s


class Report(TypedDict):
    ok: bool
    lines: list[Line]


def build(context: PanelContext) -> None:
    with gr.Accordion(
        context.i18n("doctor_title"), open=False, elem_id="doctor-panel", elem_classes="owners-only"
    ) as frame:
        lines = gr.HTML(elem_id="doctor")
        again = gr.Button(context.i18n("doctor_again"), elem_id="doctor-again")

    async def examine(request: gr.Request) -> AsyncIterator[Markup]:
        """Lines name folders of this machine: they are the owner's."""
        say = words_of(request)
        if not context.jobs.of(request).person.is_owner:
            raise complaint(OwnerOnly("the machine is the owner's"), say)
        yield Markup('<p class="note" role="status">{}</p>').format(say("doctor_looking"))
        yield report_html(await run({**os.environ, "STUDIO_HOME": str(context.settings.home)}), say)

    gr.on([frame.expand, again.click], examine, None, [lines], **QUICK, concurrency_limit=1)


async def run(env: dict[str, str], command: Sequence[str] = COMMAND, longest_s: float = LONGEST_S) -> Report | None:
    """Return what the doctor says; None: it says nothing."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, env=env, stdout=pipe, start_new_session=True)
    try:
        async with asyncio.timeout(longest_s):
            text, _ = await process.communicate()
        return files.validate(Report, files.parse_json(text))
    except (TimeoutError, ValueError):
        return None
    finally:  # also when the page has gone meanwhile
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the engine that it asks just now
            await process.wait()


def report_html(report: Report | None, say: Words) -> Markup:
    if report is None:
        return Markup('<p class="note" role="status">{}</p>').format(say("doctor_silent"))
    lines = sorted(report["lines"], key=lambda line: list(MARKS).index(line.level), reverse=True)  # the worst first
    item = Markup('<li class="is-{level}"><span>{mark}</span>{text}</li>')
    return Markup('<p class="note" role="status">{head}</p><ul class="lines">{lines}</ul>').format(
        head=say("doctor_well" if report["ok"] else "doctor_ill"),
        lines=Markup().join(
            item.format(level=line.level, mark=MARKS[line.level], text=say.choose({"zh": line.zh, "en": line.en}))
            for line in lines
        ),
    )
