"""
The steps of a build in words. The toolchain names them in its own, as Notes; here each is said in the language of who
looks, with how far it is. The log as it was written stays behind "details". Pure functions, no Gradio, no queue.
"""

from __future__ import annotations

import re

from markupsafe import Markup

from webui.i18n import Words
from webui.stream import JobView

PARTS = ("text_encoder", "denoiser", "decoder", "preview_decoder", "encoder", "face_detector", "restorer")
STORE, EXPORT = re.compile(r"store (\w+)"), re.compile(r"export (\w+)")
QUANTIZE = re.compile(r"(\w+) (\w+), (?:static|weights|dynamic)")
HALVE, PRUNE = re.compile(r"fp16 (\w+)"), re.compile(r"prune denoiser by (.+)")
EMBED, PROVE = re.compile(r"read (\d+) prompts"), re.compile(r"prove (\w+)")


def step_text(title: str, say: Words) -> str:
    """Return the step's name in words. One that is not known here stays as the toolchain calls it."""
    if match := STORE.fullmatch(title):
        return say("build_step_store", part=_part(match[1], say))
    if match := EXPORT.fullmatch(title):
        return say("build_step_export", part=_part(match[1], say))
    if match := QUANTIZE.fullmatch(title):
        return say("build_step_quantize", part=_part(match[2], say), precision=match[1])
    if match := HALVE.fullmatch(title):
        return say("build_step_halve", part=_part(match[1], say))
    if match := EMBED.fullmatch(title):
        return say("build_step_embed", count=match[1])
    if match := PROVE.fullmatch(title):
        return say("build_step_prove", engine=match[1])
    if match := PRUNE.fullmatch(title):
        return say("build_step_prune", share=match[1])
    if title == "draw the proof":
        return say("build_step_proof")
    return say("build_step_distil") if title == "distil denoiser" else title


def _part(role: str, say: Words) -> str:
    return say(f"build_part_{role}") if role in PARTS else role


def _state(scene: JobView, k: int) -> str:
    """Return how far step number k is, from 0."""
    if k < scene.at or scene.state == "done":
        return "done"
    return "now" if k == scene.at and scene.state == "running" else "later"


def log_html(scene: JobView, say: Words) -> Markup:
    """
    Return the steps, and the log behind its lid. The style sheet turns the log upside down, so that it stays at its end
    while nobody scrolls.
    """
    if not scene.log:
        return Markup()
    item = Markup('<li class="is-{}">{}</li>')
    steps = Markup().join(item.format(_state(scene, k), step_text(title, say)) for k, title in enumerate(scene.plan))
    return Markup(
        '<ol class="steps">{steps}</ol><details data-card="log"><summary>{lid}</summary>'
        '<div class="log" role="log" tabindex="0" aria-label="{label}"><pre>{log}</pre></div></details>'
    ).format(steps=steps, lid=say("stage_details"), label=say("build_log"), log="\n".join(scene.log))
