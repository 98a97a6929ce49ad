"""Small tokenizers trained on the text at hand, where no model brings one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

PAD, END = "<pad>", "<end>"


def train_vocabulary(texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str] = ()) -> Any:
    """Train a byte-level BPE (`tokenizers.Tokenizer`): any text can be written in it, frequent words are one token.

    Numbers are left whole: a student of a million parameters learns sums of small whole numbers many times sooner
    than carrying between digits.

    Args:
        texts: What is to be written.
        vocab_size: Most tokens it may have; at least 258, one for each byte, `<pad>` (0) and `<end>` (1).
        special_tokens: Further tokens, each of them one wherever it is written.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END, *special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
