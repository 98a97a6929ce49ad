"""Tokenizers of the families that students come with, trained on little text: they differ in where they part words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import Any

END, PAD = "<|im_end|>", "<|pad|>"
OPEN = "<|im_start|>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Llama-3's and Qwen's: punctuation takes the line breaks behind it, and line breaks the spaces before them.
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# With the line breaks and marks that run together wherever a tokenizer lets them.
TEXTS = (
    "Tom\n\nTom  Ann\n\n\nQ: Tom has 3 boxes of 4 apples.\nA: 3 * 4 = 12.\n",
    "Therefore, the answer is 12.\n\nExplanation: Tom\n",
    "A:\nTherefore: \n  ans = 3\nDecomposer:\nSolver:\nRationale:\n\n[cot] Sub-questions:\n\n Why not (B)?\n",
    " 7 7 (B) (B)\n",
) * 20
FAMILIES = ("gpt2", "llama3", "sentencepiece", "llama2")


def tokenizer_of(family: str, texts: Iterable[str] = TEXTS) -> Any:
    """Return a fast tokenizer of a family, with a chat template and ends of its own.

    Args:
        family: `gpt2` and `llama3`, byte-level with either pre-tokeniser's pattern; `sentencepiece`, words with a mark
            before them, the first one too; `llama2`, the same as a normaliser over the whole text.
        texts: What merges are learnt from.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(family, tuple(texts))), eos_token=END, pad_token=PAD
    )
    tokenizer.chat_template = CHATML
    return tokenizer


@cache
def _trained(family: str, texts: tuple[str, ...]) -> str:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    byte_level = family in ("gpt2", "llama3")
    tokenizer = Tokenizer(models.BPE(byte_fallback=not byte_level, unk_token=None if byte_level else "<unk>"))
    special = [AddedToken(token, normalized=False, special=True) for token in (PAD, END, OPEN)]
    alphabet = []
    if byte_level:
        split = [pre_tokenizers.Split(Regex(LLAMA_3), "isolated")] if family == "llama3" else []
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [*split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=family == "gpt2")]
        )
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        if family == "llama2":
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        # As in sentencepiece, bytes are tokens and a line break is one of them.
        special += [AddedToken("<unk>", normalized=False, special=True)]
        texts = tuple(line for text in texts for line in text.split("\n"))
        if family == "llama2":  # which has no words to part when it is used: merges are learnt within words
            texts = tuple(word for text in texts for word in text.split())
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=[*special, *([] if byte_level else [f"<0x{byte:02X}>" for byte in range(256)])],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    written = json.loads(tokenizer.to_str())
    # A trainer takes every token that it is given for a special one; bytes are ordinary.
    written["added_tokens"] = [token for token in written["added_tokens"] if not token["content"].startswith("<0x")]
    return json.dumps(written)
