"""The presets: all there, in both languages, drawable, and a broken file is named."""

from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from PIL import Image
from tokenizers import Tokenizer

import presets
from presets import Preset, PresetError, Wording
from tests.support.http import CJK

ASKED_FOR = (
    "写实人像",
    "动漫风格",
    "油画质感",
    "黑白胶片",
    "水彩",
    "金色时刻",
    "证件照",
    "商务形象",
    "复古港风",
    "国风汉服",
    "赛博霓虹",
    "儿童绘本",
)
ALL = presets.load()
WHOLE = """
order = 3
title = { zh = "一", en = "One" }
width = 832
height = 1216
steps = 8
lora_strength = 0.8
[natural]
prompt = { zh = "甲", en = "a" }
negative = { zh = "乙", en = "b" }
guidance = 0.0
[attributes]
prompt = { zh = "丙", en = "c" }
negative = { zh = "", en = "" }
"""


def test_the_presets_that_were_asked_for_are_here() -> None:
    assert len(ALL) >= 12
    titles = [preset.title["zh"] for preset in ALL]
    assert [title for title in ASKED_FOR if not any(title in there for there in titles)] == []
    assert len(set(titles)) == len({preset.title["en"] for preset in ALL}) == len(ALL)


def test_they_come_in_their_order() -> None:
    orders = [preset.order for preset in ALL]
    assert orders == sorted(set(orders)), "an order that two presets share is an accident"
    assert ALL[0].title["zh"] == "写实人像"


def test_every_file_is_a_preset_and_every_preset_a_file() -> None:
    assert {preset.name for preset in ALL} == {path.stem for path in presets.FOLDER.glob("*.toml")}


@pytest.mark.parametrize("preset", ALL, ids=lambda preset: preset.name)
class TestEach:
    def test_it_speaks_both_languages(self, preset: Preset) -> None:
        for text in (preset.title, preset.natural.prompt, preset.attributes.prompt):
            assert set(text) - {"zh-TW"} == {"zh", "en"}
            assert CJK.search(text["zh"]) and not CJK.search(text["en"])
        for wording in (preset.natural, preset.attributes):
            assert set(wording.prompt) == set(wording.negative) == {"zh", "en"}

    def test_it_can_be_drawn(self, preset: Preset) -> None:
        assert preset.width % 16 == preset.height % 16 == 0
        assert 512 <= preset.width <= 1536 and 512 <= preset.height <= 1536
        assert 1 <= preset.steps <= 50
        assert 0 < preset.lora_strength <= 1.5
        assert all(len(text) <= 4000 for text in preset.natural.prompt.values())

    def test_the_networks_that_read_sentences_get_one(self, preset: Preset) -> None:
        """AWPortrait-Z and Z-Image-Turbo are distilled, made for no guidance (ZImagePipeline counts 0 as none)."""
        assert preset.natural.guidance == 0
        assert preset.natural.prompt != preset.attributes.prompt
        assert len(preset.natural.prompt["en"].split()) >= 8
        assert preset.natural.negative["zh"] and preset.natural.negative["en"]

    def test_it_is_shown_by_a_picture_that_this_program_drew(self, preset: Preset) -> None:
        if not any((presets.FOLDER / "thumbnails").glob("*.webp")):
            pytest.skip("no thumbnails have been drawn yet")
        with Image.open(preset.thumbnail) as image:
            image.load()
            assert image.format == "WEBP"
            assert min(image.size) >= 128
            assert len(image.convert("RGB").getcolors(image.width * image.height) or []) > 200, "a flat picture"


def test_every_thumbnail_is_of_a_preset_and_no_two_are_the_same() -> None:
    files = list((presets.FOLDER / "thumbnails").glob("*.webp"))
    if not files:
        pytest.skip("no thumbnails have been drawn yet")
    assert {path.stem for path in files} == {preset.name for preset in ALL}
    assert len({path.read_bytes() for path in files}) == len(files)


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(WHOLE, encoding="utf-8")
    (only,) = presets.load(tmp_path)
    natural = Wording({"zh": "甲", "en": "a"}, {"zh": "乙", "en": "b"}, 0.0)
    attributes = Wording({"zh": "丙", "en": "c"}, {"zh": "", "en": ""}, None)
    assert only == Preset("one", 3, {"zh": "一", "en": "One"}, 832, 1216, 8, 0.8, natural, attributes)


def test_a_title_may_have_words_of_its_own_for_taiwan(tmp_path: Path) -> None:
    text = WHOLE.replace('title = { zh = "一", en = "One" }', 'title = { zh = "一", zh-TW = "壹", en = "One" }')
    (tmp_path / "one.toml").write_text(text, encoding="utf-8")
    assert presets.load(tmp_path)[0].title == {"zh": "一", "zh-TW": "壹", "en": "One"}


@pytest.mark.parametrize(
    ("was", "becomes", "field"),
    [
        ("order = 3", "", "order"),
        ("width = 832", 'width = "wide"', "width"),
        ("steps = 8", "steps = 8.5", "steps"),
        ("lora_strength = 0.8", "lora_strength = []", "lora_strength"),
        ('title = { zh = "一", en = "One" }', 'title = "One"', "title"),
        ('title = { zh = "一", en = "One" }', 'title = { zh = "一" }', "en"),
        ('title = { zh = "一", en = "One" }', 'title = { zh-TW = "一", en = "One" }', "title"),
        ('title = { zh = "一", en = "One" }', 'title = { zh = "一", en = "One", zh-HK = "一" }', "zh-TW"),
        ('title = { zh = "一", en = "One" }', 'title = { zh = "一", en = "One", zh-TW = "" }', "title"),
        ('prompt = { zh = "甲", en = "a" }', 'prompt = { zh = "甲", en = "a", zh-TW = "甲" }', "zh and in en"),
        ('prompt = { zh = "甲", en = "a" }', 'prompt = { en = "a" }', "zh"),
        ('prompt = { zh = "丙", en = "c" }', 'prompt = { zh = "丙", en = "c", fr = "d" }', "zh and in en"),
        ('negative = { zh = "乙", en = "b" }', "", "negative"),
        ('negative = { zh = "乙", en = "b" }', "negative = {}", "zh"),
        ("[natural]", "", "natural"),
        ("order = 3", "order = = 3", "one.toml"),
        ("width = 832", "width = 832\nwidht = 832", "widht"),
    ],
)
def test_a_broken_file_is_named_with_its_field(tmp_path: Path, was: str, becomes: str, field: str) -> None:
    assert was in WHOLE
    (tmp_path / "one.toml").write_text(WHOLE.replace(was, becomes), encoding="utf-8")
    with pytest.raises(PresetError, match=r"one\.toml") as caught:
        presets.load(tmp_path)
    assert field in str(caught.value)


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_bytes(WHOLE.encode("gb18030"))
    with pytest.raises(PresetError, match=r"one\.toml"):
        presets.load(tmp_path)


def test_an_empty_folder_has_no_presets(tmp_path: Path) -> None:
    assert presets.load(tmp_path) == ()


SIZES = ((128, 128), (112, 144), (144, 112), (96, 128))


@pytest.mark.parametrize(
    ("width", "height", "sizes", "nearest"),
    [
        (1024, 1024, SIZES, (128, 128)),
        (832, 1216, SIZES, (96, 128)),  # 0.68: 0.75 is nearer than 0.78
        (1216, 832, SIZES, (144, 112)),
        (960, 1200, SIZES, (112, 144)),  # 0.8: 0.78 is nearer than 0.75
        (64, 64, SIZES, (128, 128)),
        (832, 1216, ((64, 64), (128, 128)), (64, 64)),  # of equal shapes the first
        (832, 1216, (), (832, 1216)),
    ],
)
def test_the_nearest_size(
    width: int, height: int, sizes: tuple[tuple[int, int], ...], nearest: tuple[int, int]
) -> None:
    assert presets.nearest_size(width, height, sizes) == nearest


@pytest.mark.parametrize(("dialect", "words"), [("attributes", "丙"), ("natural", "甲"), ("of a later version", "甲")])
def test_a_bundle_gets_the_words_it_knows(tmp_path: Path, dialect: str, words: str) -> None:
    (tmp_path / "one.toml").write_text(WHOLE, encoding="utf-8")
    assert presets.load(tmp_path)[0].wording(dialect).prompt["zh"] == words


def test_the_words_for_the_built_in_drawings_are_in_its_vocabulary(builtin: Path) -> None:
    """What its tokenizer does not know would be spelled out byte by byte, and drawn by chance."""
    tokenizer = Tokenizer.from_file(str(builtin / "portrait" / "tokenizer.json"))
    unknown = tokenizer.token_to_id("<unk>")
    for preset in ALL:
        for text in preset.attributes.prompt.values():
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert unknown not in ids
            assert len(ids) < len(text.encode()) / 2, f"{preset.name}: {text}"


def test_a_preset_says_nothing_that_is_not_read() -> None:
    """A misspelled field would go unnoticed."""
    fields = set(Preset.__dataclass_fields__) - {"name"}
    for path in presets.FOLDER.glob("*.toml"):
        assert set(tomllib.loads(path.read_text(encoding="utf-8"))) <= fields, path.name


def test_every_wording_of_the_cards_is_told_once_and_none_is_empty() -> None:
    told = presets.prompts("attributes")
    wanted = {preset.attributes.prompt[language] for preset in ALL for language in ("zh", "en")}
    assert wanted <= set(told) and len(set(told)) == len(told) and all(told)
    assert set(presets.prompts()) == set(told) | set(presets.prompts("natural"))


def test_the_prompts_can_be_printed_a_line_each() -> None:
    command = [sys.executable, "-m", "presets"]
    said = subprocess.run([*command, "attributes"], capture_output=True, text=True, check=True).stdout
    assert tuple(said.splitlines()) == presets.prompts("attributes")
    assert subprocess.run([*command, "poems"], capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize("preset", ALL, ids=lambda preset: preset.name)
def test_what_is_written_is_read_as_the_same(preset: Preset) -> None:
    assert presets.parse(presets.write(preset), preset.name) == preset


def test_odd_texts_survive_the_way_through_a_file() -> None:
    odd = '"quotes" \\ back\nlines\ttabs \x00\x1f\x7f\x85 \'\'\' """ # no comment = [x] 😀 \u202e 人像'
    words = Wording({"zh": odd, "en": odd[::-1]}, {"zh": "", "en": odd}, None)
    loras = (presets.Lora(odd, -2.0), presets.Lora("b", 1e-05))
    preset = Preset("x", 1000, {"zh": odd, "en": "b"}, 832, 1216, 8, 0.1, words, words, bundle=odd[:20], loras=loras)
    text = presets.write(preset)
    assert "attributes" not in text, "what is said twice is written once"
    assert presets.parse(text, "x") == preset


def test_a_preset_with_its_bundle_and_loras_is_read() -> None:
    preset = presets.parse(f'bundle = "mine"\n{WHOLE}\n[[loras]]\nname = "soft"\nstrength = -0.5', "one")
    assert (preset.bundle, preset.loras) == ("mine", (presets.Lora("soft", -0.5),))


HOSTILE = {
    "nothing": "",
    "another format": '{"prompt": "x"}',
    "a preset cut off": WHOLE[:100],
    "too large": WHOLE + "# " + "x" * presets.MOST_BYTES,
    "lists without end": "order = " + "[" * 8000,
    "tables without end": "order = " + "{a = " * 3000,
    "a name of 8000 parts": "a" + ".a" * 7900 + " = 1",
    "the same, quoted": '"="' + ".a" * 7900 + " = 1",
    "a number of 5000 digits": WHOLE.replace("order = 3", "order = " + "9" * 5000),
    "the same, hexadecimal": WHOLE.replace("order = 3", "order = 0x" + "f" * 9000),
    "not a number": WHOLE.replace("lora_strength = 0.8", "lora_strength = nan"),
    "no end": WHOLE.replace("guidance = 0.0", "guidance = inf"),
    "a size of nobody's": WHOLE.replace("width = 832", "width = 100000"),
    "steps for a day": WHOLE.replace("steps = 8", "steps = 1000000"),
    "a novel": WHOLE.replace('zh = "甲"', f'zh = "{"x" * 4001}"'),
    "a key of nobody's": WHOLE.replace("order = 3", "order = 3\nrun = 'rm'"),
    "a name": WHOLE.replace("order = 3", "order = 3\nname = '../../x'"),
    "a picture": WHOLE.replace("order = 3", "order = 3\npicture = 'outputs_20260101000000.png'"),
    "a third language": WHOLE.replace('en = "a" }', 'en = "a", fr = "b" }'),
    "nine LoRAs": WHOLE + '[[loras]]\nname = "x"\nstrength = 1.0\n' * 9,
    "a LoRA of force": WHOLE + '[[loras]]\nname = "x"\nstrength = 99.0\n',
    "a LoRA with a path": WHOLE + '[[loras]]\nname = "x"\nstrength = 1.0\npath = "/etc/passwd"\n',
    "a date": WHOLE.replace("order = 3", "order = 2026-01-01"),
    "deep in a known field": WHOLE.replace('title = { zh = "一", en = "One" }', "title = " + "[" * 300 + "]" * 300),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_strangers_file_is_refused_in_short_words_and_at_once(text: str) -> None:
    before = time.process_time()
    with pytest.raises(PresetError) as caught:
        presets.parse(text, "x")
    assert time.process_time() - before < 0.5
    assert len(str(caught.value)) < 1000
