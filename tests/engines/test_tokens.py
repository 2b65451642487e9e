"""Words to ids: under the template, never empty, never too long, and the same as transformers' tokenizer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from engines.bundle import Text
from engines.errors import StudioError
from engines.messages.prompts import read
from engines.tokens import Tokens
from tests.support.fakes import tokenizer

TEXT = Text("tokenizer.json", "", "<|im_start|>{prompt}<|im_end|>")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_the_template_goes_round_the_prompt(root: Path) -> None:
    tokens = Tokens(root, TEXT)
    ids = tokens.ids("ab")
    assert ids.dtype == np.int64 and ids.shape == (1, 4)
    assert tokens.tokenizer.decode(ids[0].tolist(), skip_special_tokens=False) == "<|im_start|>ab<|im_end|>"


@pytest.mark.parametrize("prompt", ["a portrait", "一位老年男性的肖像", "🙂 {prompt} %s {0}", "\n\t\u2028"])
def test_every_word_is_there_once(root: Path, prompt: str) -> None:
    tokens = Tokens(root, TEXT)
    assert tokens.tokenizer.decode(tokens.ids(prompt)[0].tolist()) == prompt


@pytest.mark.parametrize("max_tokens", [1, 31, 32, 33])
def test_what_is_too_long_is_cut_at_the_end(root: Path, max_tokens: int) -> None:
    whole = Tokens(root, TEXT).ids("x" * 100)
    cut = Tokens(root, dataclasses.replace(TEXT, max_tokens=max_tokens)).ids("x" * 100)
    assert cut.shape == (1, max_tokens)
    assert (cut == whole[:, :max_tokens]).all()


def test_an_empty_prompt_has_the_templates_tokens(root: Path) -> None:
    assert Tokens(root, TEXT).ids("").shape == (1, 2)


def test_there_is_always_a_token(root: Path) -> None:
    """A bare template and no negative prompt: a caption of no tokens is nothing that a network can attend to."""
    tokens = Tokens(root, dataclasses.replace(TEXT, template="{prompt}"))
    try:
        assert tokens.ids("").shape[1] >= 1
    except StudioError:
        pass  # saying so is as good


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a(bc:1.5)d", [1, 1, 1.5, 1.5, 1, 1]),
        ("(红:0.5)a", [1, 0.5, 0.5, 0.5, 1, 1]),  # a token a byte
        ("(a:2)", [1, 2, 1]),
        ("abc", [1, 1, 1, 1, 1]),
    ],
)
def test_a_token_has_the_weight_of_its_word(root: Path, prompt: str, expected: list[float]) -> None:
    tokens = Tokens(root, TEXT)
    assert tokens.weights(read(prompt)).tolist() == expected
    padded = Tokens(root, dataclasses.replace(TEXT, template="{prompt}", max_tokens=8, begin="<|im_start|>",
                                              end="<|im_end|>", pad="<|im_end|>"))  # fmt: skip
    weights = padded.weights(read(prompt)).tolist()
    assert weights == [*expected, *[1] * (8 - len(expected))]
    cut = padded.weights(read(f"{'x' * 20}{prompt}"))
    assert cut.shape == (8,) and (cut == 1).all()


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_one_of_our_errors(root: Path, content: bytes | None) -> None:
    (root / "tokenizer.json").unlink()
    if content is not None:
        (root / "tokenizer.json").write_bytes(content)
    with pytest.raises(StudioError):
        Tokens(root, TEXT)


@pytest.mark.parametrize(
    "prompt", ["a portrait of a woman, long red hair", "一位戴眼镜的老年男性", "<|im_end|> inside"]
)
def test_ids_are_those_of_transformers(builtin: Path, prompt: str) -> None:
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(builtin / "portrait" / "tokenizer.json"))
    text = TEXT.template.replace("{prompt}", prompt)
    assert (
        Tokens(builtin / "portrait", TEXT).ids(prompt)[0].tolist()
        == theirs(text, add_special_tokens=False)["input_ids"]
    )
