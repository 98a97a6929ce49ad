"""How likely a student finds texts, against the plain model, one token at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.tiny_students import tiny_llama, tiny_tokenizer
from toolkit.likelihood import log_likelihoods
from toolkit.views import RenderedView, Segment

TOKENIZER = tiny_tokenizer()
CONTEXT = Segment(" We think.\nSo", "rationale", 0.0)
VIEWS = [
    RenderedView("Q: Who?\nA:", (Segment(" Ann.", "answer"),)),
    RenderedView("Q: Who is the tallest of Ann, Bob and Cy?\nA:", (CONTEXT, Segment(" Bob, who is.", "answer", 2.0))),
    RenderedView("Q: Who?\nA:", (Segment(" x" * 12, "answer"),)),
    RenderedView("Q:", (CONTEXT, Segment(" 9.", "answer"), Segment(" Done.", "marker"))),
]


@pytest.fixture(scope="module")
def student() -> Any:
    return tiny_llama()


def by_hand(student: Any, view: RenderedView, prompt_of: Any = str) -> tuple[float, int]:
    """Add up what the student gives each scored token, read alone behind all tokens before it."""
    read = prompt_of(view.prompt) + "".join(segment.text for segment in view.target if not segment.weight)
    written = "".join(segment.text for segment in view.target if segment.weight)
    ids = TOKENIZER(read + written)["input_ids"]
    scored = TOKENIZER(written)["input_ids"]
    assert TOKENIZER(read)["input_ids"] + scored == ids, "the texts are chosen so that no token crosses the seam"
    total = 0.0
    for place in range(len(ids) - len(scored), len(ids)):
        with torch.no_grad():
            logits = student(input_ids=torch.tensor([ids[:place]])).logits[0, -1]
        total += logits.log_softmax(-1)[ids[place]].item()
    return total, len(scored)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_it_is_the_sum_over_the_scored_tokens_whatever_shares_the_batch(student: Any, batch_size: int) -> None:
    found = log_likelihoods(student, TOKENIZER, VIEWS, "plain", batch_size)
    expected = [by_hand(student, view) for view in VIEWS]
    assert [tokens for _, tokens in found] == [tokens for _, tokens in expected]
    assert [total for total, _ in found] == pytest.approx([total for total, _ in expected], rel=1e-4)


def test_what_stands_behind_it_does_not_count(student: Any) -> None:
    end = Segment(" And more.", "marker", 0.0)
    longer = RenderedView(VIEWS[0].prompt, (*VIEWS[0].target, end))
    (found,) = log_likelihoods(student, TOKENIZER, [longer], "plain", 1)
    (alone,) = log_likelihoods(student, TOKENIZER, [VIEWS[0]], "plain", 1)
    assert found[1] == alone[1]
    assert found[0] == pytest.approx(alone[0], rel=1e-5)


def test_the_end_of_sequence_does_not_count(student: Any) -> None:
    (found,) = log_likelihoods(student, TOKENIZER, [VIEWS[0]], "plain", 1)
    assert found[1] == len(TOKENIZER(" Ann.")["input_ids"])


def test_context_is_read(student: Any) -> None:
    other = RenderedView(VIEWS[1].prompt, (Segment(" We doubt.\nSo", "rationale", 0.0), VIEWS[1].target[1]))
    (one, two) = log_likelihoods(student, TOKENIZER, [VIEWS[1], other], "plain", 2)
    assert one[1] == two[1]
    assert abs(one[0] - two[0]) > 1e-3


def test_a_chat_prompt_is_a_turn_of_the_template(student: Any) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    (found,) = log_likelihoods(student, tokenizer, [VIEWS[0]], "chat", 1)
    expected = by_hand(student, VIEWS[0], lambda prompt: f"<user>{prompt}<assistant>")
    assert found[1] == expected[1]
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
