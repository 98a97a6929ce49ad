"""Scores of words against the formula written out, and words against their tokens for two kinds of tokenizer."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_students import CORPUS, tiny_llama, tiny_tokenizer
from toolkit.attribution import (
    Example,
    Unscorable,
    WordScorer,
    integrated_gradients,
    word_spans,
    words_of_tokens,
)
from toolkit.errors import UserError

# Importing it takes seconds, which a process that collects this file need not spend.
pytestmark = pytest.mark.skipif(find_spec("captum") is None, reason="the extra `attribution` is not installed")

QUESTION = "Tom has 3 boxes of 4 apples. How many apples are there?"
EXAMPLE = Example(
    prompt=f"Q: {QUESTION}\nA:",
    question=QUESTION,
    before=" ",
    rationale="There are 3 boxes,\nso 3 * 4 = 12.",
    between="\nTherefore, the answer is ",
    answer="12 apples",
    after=".",
)
TEXT = "".join(getattr(EXAMPLE, name) for name in ("prompt", "before", "rationale", "between", "answer", "after"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def attributor(tokenizer: Any) -> Any:
    """A student whose padding token has an embedding, as one has whose head shares its table once it is trained."""
    model = tiny_llama(tokenizer, initializer_range=0.1)
    table = model.get_input_embeddings().weight.data
    table[tokenizer.pad_token_id] = table[5:25].mean(0)
    return model


def by_hand(model: Any, tokenizer: Any, steps: int, empty: torch.Tensor) -> tuple[list[float], float]:
    """IG of every token as the formula has it, one point and one token of the answer at a time; and F(E) - F(E')."""
    encoded = tokenizer(TEXT, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    start = len(EXAMPLE.prompt)
    end = start + len(EXAMPLE.before + EXAMPLE.rationale)
    first = end + len(EXAMPLE.between)
    last = first + len(EXAMPLE.answer)
    inside = [start <= left and right <= end for left, right in offsets]
    # A token with its leading space begins one character before the answer does.
    answer = [place for place, (left, right) in enumerate(offsets) if first - 1 <= left and right <= last]
    real = model.get_input_embeddings()(torch.tensor(ids)).detach()
    base = torch.stack([empty if flag else row for flag, row in zip(inside, real, strict=True)])

    def function(embeddings: torch.Tensor) -> torch.Tensor:
        chances = model(inputs_embeds=embeddings[None]).logits[0].log_softmax(-1)
        return sum(chances[place - 1, ids[place]] for place in answer)  # type: ignore[return-value]

    total = torch.zeros_like(real)
    for k in range(1, steps + 1):
        point = (base + (k - 0.5) / steps * (real - base)).requires_grad_()
        total += torch.autograd.grad(function(point), point)[0]
    change = function(real) - function(base)
    return ((real - base) * total / steps).sum(-1).tolist(), change.item()


def test_a_linear_function_is_attributed_exactly_in_the_fewest_steps() -> None:
    weights = torch.tensor([[1.0, -2.0], [0.5, 4.0], [3.0, 0.0]])
    embeddings = torch.tensor([[1.0, 1.0], [2.0, -1.0], [0.0, 5.0]])
    baseline = torch.tensor([[0.0, 1.0], [2.0, -1.0], [1.0, 1.0]])

    scores, completeness = integrated_gradients(
        lambda points: (points * weights).sum((1, 2)), embeddings, baseline, steps=2, batch_size=1
    )

    assert scores.tolist() == [1.0, 0.0, -3.0]
    assert completeness == 0.0


def test_a_function_that_does_not_change_has_no_completeness_error() -> None:
    same = torch.ones(2, 3)
    assert integrated_gradients(lambda points: points.sum((1, 2)), same, same, steps=2, batch_size=2)[1] is None


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("baseline", ["pad", "zero"])
def test_scores_are_the_formula_written_out(attributor: Any, tokenizer: Any, baseline: Any, batch_size: int) -> None:
    table = attributor.get_input_embeddings().weight.detach()
    empty = table[tokenizer.pad_token_id] if baseline == "pad" else torch.zeros_like(table[0])
    parts, change = by_hand(attributor, tokenizer, 8, empty)
    encoded = tokenizer(TEXT, return_offsets_mapping=True)
    spans = word_spans(TEXT, (TEXT.index(EXAMPLE.rationale), TEXT.index("\nTherefore")))
    owners = words_of_tokens(TEXT, encoded["offset_mapping"], spans)

    settings: dict[str, Any] = {"steps": 8, "baseline": baseline, "batch_size": batch_size}
    signed = WordScorer(attributor, tokenizer, sign="signed", **settings).score(EXAMPLE)
    absolute = WordScorer(attributor, tokenizer, sign="abs", **settings).score(EXAMPLE)

    words = EXAMPLE.rationale.split()
    of_word = [[part for part, owner in zip(parts, owners, strict=True) if owner == word] for word in range(len(words))]
    assert signed.words == words
    assert signed.gradient == pytest.approx([sum(some) for some in of_word], abs=1e-6)
    assert absolute.gradient == pytest.approx([sum(map(abs, some)) for some in of_word], abs=1e-6)
    assert signed.completeness == pytest.approx(abs(sum(parts) - change) / abs(change), abs=1e-4)


def test_scores_add_up_to_the_change_of_the_answers_log_probability(attributor: Any, tokenizer: Any) -> None:
    table = attributor.get_input_embeddings().weight.detach()
    _, change = by_hand(attributor, tokenizer, 1, table[tokenizer.pad_token_id])

    scores = WordScorer(attributor, tokenizer, sign="signed").score(EXAMPLE)

    assert scores.completeness is not None
    assert scores.completeness <= 0.05
    assert sum(scores.gradient) == pytest.approx(change, rel=0.05)


def test_closeness_is_the_cosine_of_mean_embeddings(attributor: Any, tokenizer: Any) -> None:
    table = attributor.get_input_embeddings().weight.detach().double()
    encoded = tokenizer(TEXT, return_offsets_mapping=True)

    def vectors(piece: str) -> list[torch.Tensor]:
        start = TEXT.index(piece)
        owners = words_of_tokens(TEXT, encoded["offset_mapping"], word_spans(TEXT, (start, start + len(piece))))
        ids = torch.tensor(encoded["input_ids"])
        return [table[ids[owners == word]].mean(0) for word in range(len(piece.split()))]

    middle = torch.stack([*vectors(QUESTION), *vectors(EXAMPLE.answer)]).mean(0)
    expected = [float(torch.cosine_similarity(vector, middle, dim=0)) for vector in vectors(EXAMPLE.rationale)]

    assert WordScorer(attributor, tokenizer, steps=2).score(EXAMPLE).embedding == pytest.approx(expected)


# --- words and tokens


def test_space_goes_with_the_word_that_follows_and_a_merge_with_its_first_word() -> None:
    text = "A: so  3,\n4 = 7."
    words = word_spans(text, (3, len(text)))
    assert [text[start:end] for start, end in words] == ["so", "3,", "4", "=", "7."]

    #         bos     "A:"    " so"   " "     " 3"    ",\n4" the "," decides   " =7"?    "."     eos
    offsets = [(0, 0), (0, 2), (2, 5), (5, 6), (6, 8), (8, 11), (11, 15), (15, 16), (16, 16)]

    assert words_of_tokens(text, offsets, words).tolist() == [-1, -1, 0, 1, 1, 1, 3, 4, -1]


def test_tokens_of_bytes_with_one_place_all_belong_to_their_word() -> None:
    text = "a 🙂 b"
    offsets = [(0, 1), (1, 3), (2, 3), (2, 3), (2, 3), (3, 5)]
    assert words_of_tokens(text, offsets, word_spans(text, (0, len(text)))).tolist() == [0, 1, 1, 1, 1, 2]


def sentencepiece_like() -> Any:
    """A tokenizer whose tokens carry the space before them as `▁`, as SentencePiece models have it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<pad>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


@pytest.mark.parametrize("make", [tiny_tokenizer, sentencepiece_like])
def test_every_word_is_made_of_its_own_tokens(make: Any) -> None:
    tokenizer = make()
    text = "There are 3 boxes of 12 apples.\nThe answer is 12."
    encoded = tokenizer(text, return_offsets_mapping=True)
    owners = words_of_tokens(text, encoded["offset_mapping"], word_spans(text, (0, len(text))))

    for index, word in enumerate(text.split()):
        ids = [token for token, owner in zip(encoded["input_ids"], owners, strict=True) if owner == index]
        assert tokenizer.decode(ids).strip() == word
    assert np.all(np.diff(owners) >= 0)


# --- what cannot be scored


def test_a_text_that_does_not_fit_is_not_scored(tokenizer: Any) -> None:
    short = tiny_llama(tokenizer, max_position_embeddings=16)
    with pytest.raises(Unscorable, match="positions"):
        WordScorer(short, tokenizer).score(EXAMPLE)


def test_an_answer_that_a_merge_swallowed_is_not_scored(attributor: Any, tokenizer: Any) -> None:
    with pytest.raises(Unscorable, match="answer"):
        WordScorer(attributor, tokenizer).score(replace(EXAMPLE, between="\nTherefore, the", answer=" "))


def test_a_prompt_without_the_question_is_refused(attributor: Any, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="does not show the question 'Who"):
        WordScorer(attributor, tokenizer).score(replace(EXAMPLE, question="Who?"))


def test_padding_as_baseline_needs_a_padding_token(attributor: Any) -> None:
    bare = tiny_tokenizer()
    bare.pad_token = None
    with pytest.raises(UserError, match="use zero"):
        WordScorer(attributor, bare)


def test_without_the_extra_its_name_is_told(attributor: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"cot-distillery\[attribution\]"):
        WordScorer(attributor, tokenizer)
