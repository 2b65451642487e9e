"""The page: its frame, its tabs, its looks. What happens in a tab is its panel's; here panels are put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import gradio as gr
from markupsafe import Markup

from engines.errors import NotFoundError
from engines.messages import CREDIT, Enhance, Final, Generate
from engines.settings import Settings
from webui import asset_files, uploads
from webui.albums import Folder
from webui.gradio_patches import event_data
from webui.i18n import LANGUAGES, words
from webui.own_jobs import HouseJobs
from webui.panels import engines, history, jobs, portrait, restore
from webui.panels.engines import build as build_panel
from webui.widgets import languages, loras, photo_settings
from webui.widgets.panel_context import QUICK, PanelContext, Updates, complaining, in_turn, scroll_to, words_of

SCRIPTS = ("page.js", "weights.js", "result.js", "upload.js", "recipe.js", "handshake.js", "people.js", "lost.js")
TITLE = words("zh")("title")
FONTS = [
    "system-ui",
    "-apple-system",
    "PingFang SC",
    "Microsoft YaHei",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "sans-serif",
]


@cache
def i18n() -> gr.I18n:
    """
    Return the words for the browser, which looks for those of the page's tag (gradio_patches/template.py), without
    those that only sentences of the server are made of: nobody there fills in their {facts}.
    """
    return gr.I18n(**{words(language).tag: _whole(words(language).table) for language in LANGUAGES})


def _whole(table: Mapping[str, str]) -> dict[str, str]:
    return {key: text for key, text in table.items() if "{" not in text and not key.startswith(("phrase_", "error_"))}


def build(
    house: HouseJobs, settings: Settings, folders: Mapping[str, Folder], publish: Callable[[], object]
) -> gr.Blocks:
    """
    `folders`: the owner's, by their names. `publish`: adds the endpoints for programs. They come first: what else has
    their names is numbered after them.
    """
    context = PanelContext(house, settings, i18n())
    t = context.i18n
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600), fill_width=True) as page:
        publish()
        gr.HTML(header_html(), elem_id="header")
        chip = gr.HTML(elem_id="engine-chip")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(t("tab_portrait"), id="portrait") as tab:
                studio = portrait.build(context, page, tab)
            with gr.Tab(t("tab_restore"), id="restore") as tab:
                photos = restore.build_tab(context, page, tab)
            with gr.Tab(t("tab_history"), id="history") as tab:
                under_way = jobs.build(context, tab)
                pictures = history.build(context, tab, under_way.outline.change, folders)
            with gr.Tab(t("tab_engines"), id="engines") as tab:
                machine = engines.build_tab(context, page, tab, chip)
        gr.HTML(languages.switch_html(), js_on_load=languages.SHOW_CHOSEN, elem_id="switch")
        for component in (*photos.unseen, *machine.unseen, under_way.timer):
            component.render()  # here, as a tab that nobody has opened yet does not read what the browser remembers
        _connect_history(context, pictures, studio, tabs)
        portrait.take_recipes(studio, context, tabs)
        portrait.offer_on([*machine.built, *machine.fetched], studio, context)
        photo_settings.offer_on(machine.built, photos.settings, context)
        engines.connect(machine, context)
        _connect_result(context, studio, photos, tabs)
        _connect_folders(context, folders, pictures, studio, photos, tabs)
        _connect_build(context, machine.build, studio, photos.settings, tabs)
        loras.apply_on(machine.models.board.wear, studio.loras, studio.lora_accordion, tabs, context)
    return page


def _connect_history(context: PanelContext, pictures: history.View, studio: portrait.View, tabs: gr.Tabs) -> None:
    """Let a picture of the history be taken up again, or developed, where portraits are drawn."""
    do, s = portrait.Handlers(studio, context), studio

    def reuse(event: gr.EventData, request: gr.Request) -> Updates:
        job_id, own = str(event_data(event)["job"]), context.jobs.of(request)
        order, last = own.job(job_id).request, own.latest(job_id)
        if not (isinstance(order, Generate) and isinstance(last, Final)):  # only those have the button
            return {tabs: gr.skip()}
        left = replace(last, images=tuple(own.pictures([job_id])))
        return {
            tabs: gr.Tabs(selected="portrait"),
            **do.take_up(order, last, request),
            **do.show_again(order, left, request),
        }

    filled = [*s.remembered, s.lora_accordion, *s.loras.rows, s.start.photo, s.stage, tabs, s.picked]
    pictures.grid.reuse(reuse, None, filled, **in_turn(portrait.ORDER))
    pictures.grid.develop(lambda: gr.Tabs(selected="portrait"), None, [tabs], **QUICK)
    portrait.develop_on(pictures.grid.develop, studio, context)


def _connect_result(context: PanelContext, studio: portrait.View, photos: restore.View, tabs: gr.Tabs) -> None:
    """Let a portrait be handed to a form that takes photos, as if it had been chosen there."""

    def lent(event: gr.EventData, request: gr.Request) -> str:
        with complaining(words_of(request)):
            picture = context.jobs.of(request).file(str(event_data(event)["picture"]))
            if not picture.is_file():
                raise NotFoundError("picture", picture.name)
        return uploads.lend(picture, context.settings.cache)

    stage = studio.stage
    _hand_on(context, lent, stage.restore, stage.begin_with, studio, photos, tabs)


def _connect_folders(
    context: PanelContext,
    folders: Mapping[str, Folder],
    pictures: history.View,
    studio: portrait.View,
    photos: restore.View,
    tabs: gr.Tabs,
) -> None:
    """Let a photo of the owner's folders be handed on in the same way: a copy, as if it had been uploaded."""

    def lent(event: gr.EventData, request: gr.Request) -> str:
        name, _, picture_id = str(event_data(event)["picture"]).rpartition("/")
        with complaining(words_of(request)):
            if (folder := folders.get(name)) is None:
                raise NotFoundError("picture", name)
            shown = folder.picture(picture_id)
            with folder.lent(shown, context.settings.cache) as path:
                return uploads.lend(path, context.settings.cache, shown.name)

    begun = _hand_on(context, lent, pictures.grid.restore, pictures.grid.begin_with, studio, photos, tabs)
    begun.success(None, None, None, js=scroll_to("start-from"), **QUICK)


def _hand_on(
    context: PanelContext,
    lent: Callable[[gr.EventData, gr.Request], str],
    restores: Any,
    begins: Any,
    studio: portrait.View,
    photos: restore.View,
    tabs: gr.Tabs,
) -> Any:
    """
    Put the photo that an event lends where photos are restored, or where portraits begin with one. Returns what happens
    when one has begun so.
    """

    def to_restore(event: gr.EventData, request: gr.Request) -> Updates:
        return {photos.single.photo: lent(event, request), tabs: gr.Tabs(selected="restore")}

    def to_start(event: gr.EventData, request: gr.Request) -> Updates:
        start = studio.start
        return {
            start.photo: lent(event, request),
            start.frame: gr.update(open=True),
            tabs: gr.Tabs(selected="portrait"),
        }

    handed = restores(to_restore, None, [tabs, photos.single.photo], **QUICK)
    restore.advise_on(handed.success, photos, context)
    return begins(to_start, None, [tabs, studio.start.frame, studio.start.photo], **QUICK)


def _connect_build(
    context: PanelContext,
    built: build_panel.View,
    studio: portrait.View,
    photos: photo_settings.Controls,
    tabs: gr.Tabs,
) -> None:
    """Let what was built be chosen where it is used."""
    s = studio

    def use(job_id: Any, request: gr.Request) -> Updates:
        order = build_panel.Handlers(built, context).order(job_id, request)
        if order.makes == "restorer":
            bundle, backend, rest, tab = photos.bundle, photos.backend, {}, "restore"
        else:
            do = portrait.Handlers(studio, context)
            bundle, backend, tab = s.bundle, s.backend, "portrait"
            rest = dict(zip((s.size, s.steps, s.guidance), do.change_bundle(order.name, request), strict=False))
        wanted = (Enhance if order.makes == "restorer" else Generate)("", bundle=order.name)
        offered = context.offer_backends(wanted, words_of(request))
        return {
            tabs: gr.Tabs(selected=tab),
            bundle: {**context.offer_bundles(order.makes, order.name), "value": order.name},
            backend: {**offered, "value": "auto"},  # the fastest that was proved
            **rest,
        }

    shown = [tabs, s.bundle, s.size, s.steps, s.guidance, s.backend, photos.bundle, photos.backend]
    built.use.click(use, [built.job], shown, **in_turn(portrait.ORDER))


def header_html() -> Markup:
    return Markup(
        '<header class="banner"><h1>{title}</h1><p class="tagline">{tagline}</p><p class="credit">{credit}</p>'
        '<a class="owners-only" href="invite">{guests}</a></header>'
    ).format(
        title=TITLE,
        tagline=languages.spans_of("tagline"),
        credit=CREDIT,
        guests=languages.spans_of("door_guests"),
    )


def theme() -> gr.themes.Base:
    """
    Indigo and violet on quiet greys; system fonts, so that nothing is fetched. Contrast: white on indigo-600 is 6.3:1,
    slate-500 on white 4.8:1.
    """
    return gr.themes.Soft(
        primary_hue="indigo",
        secondary_hue="violet",
        neutral_hue="slate",
        radius_size="lg",
        font=FONTS,
        font_mono=["monospace"],
    ).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_text_color="white",
        body_text_color_subdued="*neutral_500",
        block_shadow="none",
        block_title_background_fill="none",
        block_title_text_color="*body_text_color",
        block_title_padding="0",
        block_label_background_fill="none",
        block_label_text_color="*body_text_color",
        input_shadow="none",
        input_shadow_focus="none",
        input_border_width="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_600",
        checkbox_border_color="*neutral_400",
        checkbox_border_color_dark="*neutral_500",
        checkbox_label_border_color="*neutral_300",
        checkbox_label_background_fill_selected="*primary_600",
        checkbox_label_shadow="none",
        checkbox_label_border_width="1px",
        block_border_width="1px",
    )


def looks() -> dict[str, Any]:
    """Return what mount_gradio_app takes besides the page itself."""
    script = "\n".join([languages.script(), *map(asset_files.script, SCRIPTS)])
    return {
        "theme": theme(),
        "css": f"{languages.style()}\n{asset_files.style('page.css')}",
        "head": f"<script>{script}</script>",
        "i18n": i18n(),
    }
