"""The words: the same keys and facts in every language, every key used and there, the right one for a browser."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Formatter
from typing import get_args, get_type_hints

import pytest
from starlette.datastructures import Headers

import engines
import presets
import webui
from engines.bundle import BUILT_IN
from engines.catalogue import catalogue
from engines.errors import StudioError
from engines.faces.quality import suggestion
from engines.jobs import State
from engines.messages import PreviewMode, Recipe, RestoreMode, Stage
from engines.messages.faces import FaceState
from engines.messages.status import BundleKind, Choice
from engines.messages.validation import EXPECTED
from tests.support.http import CJK
from webui.boards.downloads import NEXT
from webui.i18n import LANGUAGES, preferred, spoken, tags, words
from webui.panels.engines.build_steps import PARTS
from webui.panels.engines.overview import FIGURES
from webui.panels.history import Collection
from webui.panels.portrait.controls import QUALITIES
from webui.widgets.photo_settings import FACES

PRODUCT = "人像工作室"
# A name, which is not translated, a sign, and what programs read.
SAME_IN_ZH = {"backend_pytorch", "comma", "language_tag", "language_ranges"}
IDEOGRAPH = re.compile(r"[\u3400-\u9fff]")
# As they are said in mainland China alone, in the characters of Taiwan.
MAINLAND = (
    "默認 缺省 文件夾 軟件 硬件 網絡 內存 服務器 圖像 影象 信息 數據庫 數據 屏幕 鼠標 打印 質量 畫素 視頻 加載 生成 "
    "進程 線程 字符 令牌 日誌 鏈接 顯卡 登錄 掃碼 引數 隊列 支持 只讀 校驗 用戶 撤銷 透過驗證 臺"
).split()
# What stands in the braces of keys that the program puts together.
EXPANSIONS: Mapping[str, tuple[str, ...]] = {
    "stage_{}": get_args(Stage),
    "warning_{}": ("photo_cut_off",),
    "portrait_{}": tuple(QUALITIES),
    "portrait_preview_{}": get_args(PreviewMode),
    "restore_{}": (
        *(*get_args(RestoreMode), "denoise", "sharpen", "contrast", "brightness", "fading", "scratches"),
        *(name for name in suggestion([1.0], 1.0, 1.0) if name != "mode"),
    ),
    "restore_faces_{}": FACES,
    "history_{}": get_args(Collection),
    "face_{}": get_args(FaceState),
    "faces_{}": get_args(FaceState),
    "batch_{}": tuple(state for state in get_args(State) if state not in ("done", "failed")),
    "backend_{}": ("auto", "pytorch", "edge"),
    "engines_{}": (
        *("name", "device", "state", "engine", "precision", "verdict", *FIGURES),
        *get_args(get_type_hints(Choice)["state"]),
    ),
    "models_{}": tuple(NEXT.values()),
    "build_{}": (*get_args(BundleKind), *get_args(Recipe)),
    "build_part_{}": PARTS,
}


def placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name}


def sources(package: Path) -> Iterator[ast.Module]:
    for path in sorted(package.rglob("*.py")):
        yield ast.parse(path.read_text(encoding="utf-8"), str(path))


WEB = [node for module in sources(Path(webui.__file__).parent) for node in ast.walk(module)]
ENGINES = [node for module in sources(Path(engines.__file__).parent) for node in ast.walk(module)]


def strings() -> set[str]:
    return {node.value for node in WEB if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def assembled() -> set[str]:
    """f"stage_{event.stage}" -> "stage_{}"; HTML and sentences left out."""
    joined = (node for node in WEB if isinstance(node, ast.JoinedStr))
    patterns = ("".join(p.value if isinstance(p, ast.Constant) else "{}" for p in node.values) for node in joined)
    return {pattern for pattern in patterns if re.fullmatch(r"[a-z]+(_[a-z]+)*_\{\}", pattern)}


def expected() -> set[str]:
    """Every key the program can ask for, apart from errors'."""
    built = {pattern.format(word) for pattern in assembled() - {"error_{}"} for word in EXPANSIONS[pattern]}
    return built | {text for text in strings() if text in words("en").table}


def tree(root: type[StudioError]) -> Iterator[type[StudioError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


CODES = sorted({kind.code for kind in tree(StudioError)})


def test_every_language_has_the_same_keys() -> None:
    first, *others = (words(language).table for language in LANGUAGES)
    assert len(first) > 100
    for other in others:
        assert set(first) ^ set(other) == set()


@pytest.mark.parametrize("key", sorted(words("zh").table))
def test_every_language_fills_in_the_same_facts(key: str) -> None:
    templates = [words(language).table[key] for language in LANGUAGES]
    assert all(template.strip() for template in templates)
    assert len({frozenset(placeholders(template)) for template in templates}) == 1


def test_english_has_no_chinese_but_the_product_name() -> None:
    left = {key: CJK.findall(text.replace(PRODUCT, "")) for key, text in words("en").table.items()}
    assert {key: found for key, found in left.items() if found} == {}


@pytest.mark.parametrize("language", ["zh", "zh-TW"])
def test_chinese_is_translated(language: str) -> None:
    english = {key for key, text in words(language).table.items() if not CJK.search(text)}
    assert english <= SAME_IN_ZH


def unknown_in_taiwan(text: str) -> str:
    """The characters of a text that are not in Big5, as those are not that China has simplified."""
    return "".join(letter for letter in IDEOGRAPH.findall(text) if not letter.encode("cp950", "ignore"))


def test_what_is_for_taiwan_is_in_its_characters_and_words() -> None:
    said = words("zh-TW").table
    assert {key: unknown_in_taiwan(text) for key, text in said.items() if unknown_in_taiwan(text)} == {}
    assert {key: word for key, text in said.items() for word in MAINLAND if word in text} == {}
    assert not re.search("[“”]|[\u3400-\u9fff][,;:?!]", "".join(said.values())), "signs as wide as characters"
    simplified = "".join(words("zh").table.values())
    assert len(set(unknown_in_taiwan(simplified))) > 150, "and the other Chinese would not pass"


def test_what_is_named_elsewhere_is_in_the_characters_of_taiwan_too() -> None:
    """Where a title or a licence is not told for Taiwan, its reader gets the one for China."""
    say = words("zh-TW")
    texts = [preset.title for preset in presets.load()]
    texts += [text for model in catalogue().values() for text in (model.title, model.terms)]
    texts += [json.loads(path.read_text(encoding="utf-8"))["title"] for path in BUILT_IN.glob("*/bundle.json")]
    assert len(texts) > 20
    assert {
        text["zh"]: unknown_in_taiwan(say.choose(text)) for text in texts if unknown_in_taiwan(say.choose(text))
    } == {}


def test_of_a_few_texts_one_gets_the_nearest() -> None:
    both = {"zh": "甲", "en": "a"}
    assert [words(language).choose(both) for language in ("zh", "zh-TW", "en")] == ["甲", "甲", "a"]
    assert [words(language).choose({**both, "zh-TW": "乙"}) for language in ("zh", "zh-TW", "en")] == ["甲", "乙", "a"]
    assert [words(language).choose({"en": "", "zh": "甲"}) for language in ("zh", "en")] == ["甲", ""]
    assert [words(language).choose({}) for language in LANGUAGES] == ["", "", ""]


def test_a_language_is_one_file() -> None:
    assert LANGUAGES == ("zh", "zh-TW", "en"), "Chinese first, as it is what one gets who says nothing"
    assert tags() == ("zh-CN", "zh-TW", "en")
    for number, language in enumerate(LANGUAGES):
        assert {spoken(tag).language for tag in words(language)("language_ranges").split()} == {language}
        assert spoken(tags()[number]).language == language


def test_the_program_puts_keys_together_in_known_ways_only() -> None:
    assert assembled() - set(EXPANSIONS) == {"error_{}"}  # of which there is a test below


def test_every_key_that_is_put_together_exists() -> None:
    built = {pattern.format(word) for pattern, each in EXPANSIONS.items() if pattern in assembled() for word in each}
    assert built - set(words("zh").table) == set()


def literal_calls() -> Iterator[tuple[str, ast.Call]]:
    """say("key", ...), t("key"), zh("key"), desk.i18n("key")"""
    for node in WEB:
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in ("say", "t", "zh", "en", "i18n") and isinstance(node.args[0].value, str):
                yield node.args[0].value, node


def test_every_key_the_program_asks_for_exists() -> None:
    asked = {key for key, _ in literal_calls()}
    assert len(asked) > 60
    assert asked - set(words("zh").table) == set()


def test_every_key_gets_the_facts_it_mentions() -> None:
    wrong = {}
    for key, call in literal_calls():
        given = {keyword.arg for keyword in call.keywords}
        if None not in given and given != placeholders(words("en").table.get(key, "")):
            wrong[key] = given
    assert wrong == {}


def test_no_key_is_left_over() -> None:
    table = {key for key in words("en").table if not key.startswith(("error_", "phrase_"))}
    assert table - expected() == set()


def constants(nodes: list[ast.AST]) -> list[str]:
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_no_phrase_is_left_over() -> None:
    """Each is something that the program, or the system it runs on, really says."""
    said = constants(ENGINES + WEB) + [
        os.strerror(number) for number in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOENT)
    ]
    phrases = {text for key, text in words("en").table.items() if key.startswith("phrase_")}
    assert {phrase for phrase in phrases if not any(phrase in text for text in said)} == set()


def told() -> set[str]:
    """What errors say is possible, or is missing, word for word."""
    calls = [node for node in ENGINES + WEB if isinstance(node, ast.Call)]
    position = {"OptionError": 2, "NotFoundError": 0}
    named = [(call, getattr(call.func, "id", getattr(call.func, "attr", ""))) for call in calls]
    return {text for call, name in named if name in position for text in constants([call.args[position[name]]])}


@pytest.mark.parametrize("language", ["zh", "zh-TW"])
def test_what_errors_tell_is_translated(language: str) -> None:
    values = {
        "live, off",
        "false",
        "0",
        "a-z 0-9 - _",
        "build, fetch",
        "failed, cancelled",
        "generate, enhance, develop",
    }  # the same in every language
    assert len(told()) > 8
    for text in (told() | set(EXPECTED.values())) - values:
        say = words(language)
        assert CJK.search(say.phrase(text)) and not re.search("[a-z]{2}", say.phrase(text)), text


@pytest.mark.parametrize(
    ("reason", "chinese"),
    [
        ("ort on CPU, 2 threads (torch: also ready)", "ort 在 CPU, 2 线程 (torch: 也可用)"),
        ("torch: not installed (torch, diffusers)", "torch: 未安装 (torch, diffusers)"),
        ("ort: cannot read this bundle's text_encoder", "ort: 读不了此模型包的 text_encoder"),
        ("ort on CPU, fp32, verified, 0.13 s (x: not verified yet)", "ort 在 CPU, fp32, 已验证, 0.13 s (x: 尚未验证)"),
        ("failed its proof, PSNR 28.1 dB < 30 dB", "未通过验证, PSNR 28.1 dB < 30 dB"),
        ("failed its proof, a picture of another size", "未通过验证, 图像尺寸不同"),
        ("verified, 2.05 s, on a busy machine", "已验证, 2.05 s, 测量时电脑正忙"),
        ("ort fp32: 24.2 GB of memory needed, 12.8 GB available", "ort fp32: 24.2 GB 内存才够, 12.8 GB 可用"),
        (
            "denoiser lent by desk:7870 (onnxruntime 1.31 on CPU, fp32, equal to the bit)",
            "denoiser 出借自 desk:7870 (onnxruntime 1.31 在 CPU, fp32, 逐位相同)",
        ),
        ("one part after the other", words("zh")("phrase_turns")),
        ("restored before", "此前修复过,直接取用"),
        ("smaller than 24 px", "小于 24 px"),
    ],
)
def test_the_reason_of_a_choice_is_told_in_chinese(reason: str, chinese: str) -> None:
    assert words("zh").phrase(reason) == chinese
    assert words("en").phrase(reason) == reason


def test_no_error_sentence_is_left_over() -> None:
    sentences = {key.removeprefix("error_") for key in words("en").table if key.startswith("error_")}
    assert sentences - set(CODES) - strings() == set()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("code", CODES)
def test_every_error_has_a_sentence_of_its_own(code: str, language: str) -> None:
    say = words(language)
    assert f"error_{code}" in say.table
    sentence = say.error(code, {})
    assert sentence.endswith((".", "。"))
    if code != "cancelled":  # the one that asks nothing of anybody
        assert len(re.findall(r"[.。:：;；,，]", sentence)) >= 2, "it says what happened and what to do"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("code", CODES)
def test_an_error_sentence_with_facts_missing_still_comes(code: str, language: str) -> None:
    template = words(language).table[f"error_{code}"]
    bare = words(language).error(code, {})
    assert "{" not in bare
    assert bare.count("?") == len([1 for _, name, _, _ in Formatter().parse(template) if name]) + template.count("?")
    full = words(language).error(code, dict.fromkeys(placeholders(template), "事实 fact"))
    assert full.count("事实 fact") == bare.count("?") - template.count("?")


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_unknown_code_gets_the_general_sentence(language: str) -> None:
    assert words(language).error("of_a_newer_version", {}) == words(language).error("internal", {})


def test_a_fact_cannot_be_a_template() -> None:
    sentence = words("en").error("bad_option", {"field": "{value}", "value": "{0.__class__}", "allowed": "%s"})
    assert "{value} cannot be {0.__class__} (possible: %s)" in sentence


def raised() -> Iterator[tuple[str, set[str], str]]:
    """(code, facts, where) of every error that is raised with its facts written out."""
    kinds = {kind.__name__: kind for kind in tree(StudioError) if "__init__" not in vars(kind) or kind is StudioError}
    for node in (*ENGINES, *WEB):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            func = node.exc.func
            name = func.id if isinstance(func, ast.Name) else getattr(func, "attr", "")
            if name in kinds:
                facts = {keyword.arg for keyword in node.exc.keywords if keyword.arg}
                yield kinds[name].code, facts, f"{name} at line {node.lineno}: {ast.unparse(node.exc)[:80]}"


def test_whoever_raises_an_error_gives_the_facts_its_sentence_mentions() -> None:
    found = list(raised())
    assert len(found) > 15
    missing = {where: placeholders(words("zh").table[f"error_{code}"]) - facts for code, facts, where in found}
    assert {where: facts for where, facts in missing.items() if facts} == {}


ACCEPT_LANGUAGES = [
    (None, "zh"),
    ("", "zh"),
    ("zh", "zh"),
    ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
    ("zh-SG", "zh"),
    ("zh-Hans-TW", "zh"),  # the script is said, and so the region does not decide
    ("zh-TW,zh;q=0.9", "zh-TW"),
    ("zh,zh-TW;q=0.9", "zh"),
    ("zh-TW,zh;q=0.9,en-US;q=0.8,en;q=0.7", "zh-TW"),
    ("ZH-Hant-TW", "zh-TW"),
    ("zh-hant", "zh-TW"),
    ("zh-Hant-HK;q=0.8, zh-CN;q=0.5", "zh-TW"),
    ("zh-Hant-HK;q=0.5, zh-CN;q=0.8", "zh"),
    ("zh-HK;q=1.0", "zh-TW"),
    ("zh-MO", "zh-TW"),
    ("zh-TW-u-nu-hanidec", "zh-TW"),
    ("zh-TW;q=0, zh;q=0.1", "zh"),
    ("zh-TW ; Q=0.9, en;q=0.8", "zh-TW"),
    ("zh_TW", "en"),  # no tag at all
    ("tw", "en"),  # Twi
    ("hant", "en"),
    ("-TW, zh--TW", "zh"),
    ("zh-TWX", "zh"),
    ("*", "en"),
    ("fr, *;q=0.5", "en"),
    ("zh-TW;q=2, en;q=0.1", "en"),  # no weight
    ("zh-TW;q=1.001, en;q=0.1", "en"),
    ("zh" + "-TW" * 20_000, "zh-TW"),
    ("en", "en"),
    ("en-GB,en;q=0.9,zh-CN;q=0.8", "en"),
    ("fr-FR,fr;q=0.9", "en"),
    ("de,zh;q=0.5,en;q=0.3", "zh"),
    ("zhx, enx", "en"),
    (" en-US ;q=0.7 , zh;q=0.1", "en"),
    ("en;q=0.2, zh-CN;q=0.9", "zh"),  # the weights decide, not the order (RFC 9110, 12.5.4)
    ("zh;q=0, en", "en"),  # 0 means: not this one
    (";;;,,,q=", "en"),
]


@pytest.mark.parametrize(("header", "language"), ACCEPT_LANGUAGES)
def test_the_language_of_a_browser(header: str | None, language: str) -> None:
    assert spoken(header).language == language


COOKIES = [
    ("language=zh-TW", "zh-TW"),
    ("language=zh-CN", "zh"),
    ("language=en", "en"),
    ("studio=abc.def; language=zh-TW; other=1", "zh-TW"),
    ('language="zh-TW"', "zh-TW"),
    ("", "en"),
    ("language=", "en"),
    ("language=zh", "en"),  # none of the page's own tags
    ("language=zh-tw", "en"),
    ("language=fr", "en"),
    ("language=../zh", "en"),
    ("language=zh-CN,zh-TW;q=1", "en"),
    ("xlanguage=zh-TW", "en"),
    (";;=;language", "en"),
]


@pytest.mark.parametrize(("cookie", "language"), COOKIES)
def test_what_was_chosen_on_the_page_comes_before_what_the_browser_says(cookie: str, language: str) -> None:
    headers = Headers({"cookie": cookie, "accept-language": "en-GB,en;q=0.9"})
    assert spoken(preferred(headers)).language == language


def test_without_a_cookie_the_browser_says_it() -> None:
    assert preferred(Headers({"accept-language": "zh-HK"})) == "zh-HK"
    assert preferred(Headers({})) is None


def test_a_wrong_key_is_an_error_and_no_text() -> None:
    with pytest.raises(KeyError):
        words("en")("no_such_key")
    with pytest.raises(KeyError):
        words("en")("stage_waiting")  # without its fact


@pytest.mark.parametrize(("language", "text"), [("zh", "一"), ("zh-TW", "一"), ("en", "One")])
def test_a_text_that_is_not_there_in_every_language_is_chosen_for_each(language: str, text: str) -> None:
    assert words(language).choose({"zh": "一", "en": "One"}) == text
    assert words(language).choose({"zh": "一", "en": "One", language: "own"}) == "own"
