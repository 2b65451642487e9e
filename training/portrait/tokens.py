"""
The prompt tokenizer: `python -m training.portrait.tokens --work DIR` writes DIR/tokenizer.

Byte-level BPE over lower-cased text, so that any prompt can be encoded. Every CJK character and every full-width sign
stands alone before the merges are learnt: no token ever crosses a character, whatever order the words come in. Works
with the plain `tokenizers` library and as a transformers folder with a minimal chat template.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from presets.vocabulary import traditional
from training.portrait.captions import caption
from training.portrait.render import as_record
from training.portrait.renderer.attributes import sample_look, sample_person

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
ALONE = "[\u2e80-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef]"  # CJK characters, full-width forms and signs
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]|\s+"  # after Qwen's: a word with the space before it
TEMPLATE = "{%- for m in messages %}{{- '<|im_start|>' + m.content + '<|im_end|>' }}{%- endfor %}"
VOCABULARY = 1536  # upper bound; captions fill a little less


def normalizer() -> normalizers.Normalizer:
    """Return what makes text plain: lower-cased, and what is written in traditional characters in simplified ones."""
    simplified = [normalizers.Replace(*pair) for pair in traditional().items()]
    return normalizers.Sequence([normalizers.NFC(), *simplified, normalizers.Lowercase()])


def untrained() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(ALONE), behavior="isolated"),
            pre_tokenizers.Split(Regex(WORD), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sample_captions(count: int, seed: int) -> Iterator[str]:
    """Captions of people that nobody draws."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        person = sample_person(rng)
        yield caption(as_record(person, sample_look(rng, person)), rng).text


def train(count: int, seed: int) -> Tokenizer:
    tokenizer = untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=6,
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample_captions(count, seed), trainer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """tokenizer.json and what transformers wants beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": END,
        "unk_token": PAD,
        "model_max_length": 512,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a prompt in the chat template."""
    ids: list[int] = tokenizer.encode(f"{START}{text}{END}").ids
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--captions", type=int, default=40000)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    tokenizer = train(args.captions, args.seed)
    save(tokenizer, Path(args.work) / "tokenizer")
    lengths = np.array([len(encode(tokenizer, text)) for text in sample_captions(4000, args.seed + 1)])
    share = [float((lengths <= limit).mean()) for limit in (32, 48, 64)]
    print(f"vocabulary {tokenizer.get_vocab_size()}, mean length {lengths.mean():.1f}, longest {lengths.max()}")
    print("captions within 32 / 48 / 64 tokens: " + " / ".join(f"{s:.3f}" for s in share))


if __name__ == "__main__":
    main()
