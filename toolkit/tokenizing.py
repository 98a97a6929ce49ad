"""From text to a student's tokens: what it is given when it is asked, and what it is trained on, one and the same.

A prompt at decoding is the beginning of a training sequence. So nothing that a tokenizer puts behind every text by
itself (T5 and BERT do, Llama can be told to) stays there: a sequence is ended here, by the end of sequence alone.
Whether a view keeps that promise is `seams`' business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.chat_templates import user_turn
from toolkit.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Where a tokenizer keeps the tokens that a recipe added to it: these may stand in records.
RECIPE_TOKENS = "recipe_tokens"
_NO_CHAT = "student.prompt_format: found 'chat', but the student's tokenizer has no chat template; use plain"


def chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the chat template of a tokenizer, its default one where it brings several.

    Raises:
        UserError: It has none, or several and no default.
    """
    if not tokenizer.chat_template:
        raise UserError(_NO_CHAT)
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise UserError(f"student.chat_template: set one; {error}") from None


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: str, prompt_format: str) -> str:
    """Return the prompt as the student reads it: as written, or as a user's turn of its chat template.

    Raises:
        UserError: `chat` is asked of a tokenizer whose chat template is missing or does not show the prompt.
    """
    if prompt_format == "plain":
        return prompt
    return user_turn(chat_template(tokenizer), tokenizer.special_tokens_map, prompt)


def prompt_ids(tokenizer: Any, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
    """Return the token ids of texts that a student or a teacher is to go on from: nothing stands behind them.

    Args:
        tokenizer: Of the model.
        texts: Prompts as the model reads them, the start of its answer included.
        add_special_tokens: Whether the tokenizer opens texts with its own tokens; false where a chat template did.
    """
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=add_special_tokens)["input_ids"]
    closing = added_tokens(tokenizer, texts)[1] if add_special_tokens else 0
    return [one[: len(one) - closing] for one in ids]


def added_tokens(tokenizer: Any, texts: Sequence[str]) -> tuple[int, int]:
    """Return how many tokens a tokenizer puts before and behind every text; `texts` are some it can write."""
    for probe in ("a", *texts):  # some vocabularies have no "a"
        whole, bare = (list(tokenizer(probe, add_special_tokens=special)["input_ids"]) for special in (True, False))
        for before in range(len(whole) - len(bare) + 1 if bare else 0):
            if whole[before : before + len(bare)] == bare:
                return before, len(whole) - before - len(bare)
    return 0, 0


def tokenize_text(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], prompt_format: str
) -> list[tuple[list[int], np.ndarray]]:
    """Return ids and character spans, shape (T, 2), of texts; a chat template brings its special tokens itself.

    Raises:
        UserError: The tokenizer cannot say which characters a token came from.
    """
    if not tokenizer.is_fast:
        raise UserError(f"{type(tokenizer).__name__} gives no character offsets; a fast tokenizer is needed")
    plain = prompt_format == "plain"
    batch = tokenizer(list(texts), return_offsets_mapping=True, add_special_tokens=plain, return_attention_mask=False)
    closing = added_tokens(tokenizer, texts)[1] if plain else 0
    found = []
    for ids, offsets in zip(batch["input_ids"], batch["offset_mapping"], strict=True):
        end = len(ids) - closing
        found.append((ids[:end], np.asarray(offsets[:end], dtype=np.int64).reshape(-1, 2)))
    return found


def control_tokens(tokenizer: Any) -> dict[int, str]:
    """Return the tokens, by id, that stand for no text: ends, padding, the marks of turns.

    Neither those that the recipe added are among them, nor the one for what the vocabulary lacks.
    """
    own = {*tokenizer.init_kwargs.get(RECIPE_TOKENS, ()), tokenizer.unk_token}
    own -= {tokenizer.eos_token, tokenizer.pad_token}
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    names = {token: str(tokenizer.convert_ids_to_tokens(token)) for token in special | {*tokenizer.all_special_ids}}
    return {token: name for token, name in names.items() if name not in own}


def control_tokens_in(tokenizer: Any, texts: Sequence[str]) -> list[str | None]:
    """Return for each text a control token that the tokenizer finds in it, None where there is none."""
    if not texts:
        return []
    control = control_tokens(tokenizer)
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [next((control[token] for token in ids if token in control), None) for ids in encoded]
