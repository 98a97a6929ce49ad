"""The student that a recipe's training starts from, where it is not one that is loaded as it is: made of a
configuration, or loaded and given other tokens.

Pure of places: where it lies is `runs`' business, what its tokenizer is trained on is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from toolkit.students import (
    add_tokens,
    load_tokenizer,
    set_tokens,
    student_from_config,
    student_with_tokenizer,
    train_tokenizer,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from toolkit.recipe_sections import Student

_VOCABULARY = 1024  # tokens, where the recipe does not say


def tokenizer_of(
    student: Student, arguments: Mapping[str, Any], texts: Callable[[], Iterable[str]]
) -> PreTrainedTokenizerBase:
    """Return the tokenizer that a recipe's student has, or will have once it is made.

    Args:
        student: The recipe's section.
        arguments: Fields of TRL's `ModelConfig`, with the commit of a student of the Hub.
        texts: Gives what the tokenizer of a student from a configuration is trained on.

    Raises:
        UserError: There is no such student, or the tokens asked for do not go with it.
    """
    if student.model_name_or_path:
        tokenizer = load_tokenizer(student.model_name_or_path, arguments.get("model_revision"))
        add_tokens(tokenizer, student.special_tokens)
    else:
        vocab_size = student.tokenizer.vocab_size if student.tokenizer else _VOCABULARY
        tokenizer = train_tokenizer(texts(), vocab_size, student.special_tokens)
    set_tokens(tokenizer, student.eos_token, student.pad_token, student.chat_template)
    return tokenizer


def model_of(student: Student, arguments: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return the model that a recipe's student starts as; arguments as of `tokenizer_of`.

    Raises:
        UserError: There is no such student, or its configuration is refused.
    """
    if student.model_name_or_path:
        return student_with_tokenizer(student.model_name_or_path, arguments, tokenizer, student.seed)
    return student_from_config(student.from_config or {}, tokenizer, student.seed)


def new_token_ids(student: Student, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of tokens whose rows nobody has trained: those that were added, and what is to end turns now.

    A base model often has the token that a chat format ends turns with, and has never seen it: its row counts as new.
    """
    named = [*student.special_tokens, *([student.eos_token] if student.eos_token else [])]
    vocabulary = tokenizer.get_vocab()
    return sorted({vocabulary[token] for token in named})
