"""Which tokens there are, what each weighs and what it counts for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.records import PROMPT, RIGHT, TRAINING, duals, edit, encoded, imitation
from tests.tiny_students import tiny_tokenizer
from toolkit.alignment import key_steps
from toolkit.encoding import EncodingReport, encode, weigh
from toolkit.errors import UserError
from toolkit.recipe import Reduction, Stage
from toolkit.tokenized_views import TokenizedView, tokenize
from toolkit.views import RenderedView, Segment

TOKENIZER = tiny_tokenizer()
ROW = duals(4)[3]


def stage(target: list[Any], reduction: dict[str, str] | None = None, **view: Any) -> Stage:
    views = {"view": {"prompt": PROMPT, "target": target, **view}}
    return Stage.model_validate({"name": "s", "views": views, "reduction": reduction or {}, "training": TRAINING})


def sequence_of(target: list[Any], reduction: dict[str, str] | None = None, **view: Any) -> Any:
    return encoded(TOKENIZER, ROW, stage(target, reduction, **view))[0]


def test_the_tokens_are_those_of_the_whole_text_and_an_end() -> None:
    tokens, sequence = sequence_of(RIGHT)
    text = tokens.view.prompt + "".join(s.text for s in tokens.view.target)
    assert sequence.input_ids == [*TOKENIZER(text)["input_ids"], TOKENIZER.eos_token_id]


def test_the_end_of_sequence_is_scored_with_the_last_scored_segment() -> None:
    _, sequence = sequence_of([{"text": " {right.rationale}", "weight": 3.0}, {"text": " over", "weight": 0.0}])
    assert sequence.weights[-1] == 3.0
    assert sequence.input_ids[-1] == TOKENIZER.eos_token_id


def test_prompt_and_context_segments_neither_weigh_nor_count() -> None:
    tokens, sequence = sequence_of([{"text": " {right.rationale}", "weight": 0.0}, " {right.answer}"])
    inside = tokens.segments < 1
    assert not np.asarray(sequence.weights)[inside].any()
    assert not np.asarray(sequence.counts)[inside].any()


def test_a_token_belongs_to_the_segment_of_its_first_word_character() -> None:
    # "\n" + "Therefore" stand across a seam: whichever way they are merged, what says "Therefore" is the second's.
    view = RenderedView("Q:", (Segment(" a b \n", "x"), Segment("Therefore", "y", 2.0)))
    (tokens,) = tokenize(TOKENIZER, [view])
    text = {0: "", 1: ""}
    for token, segment in zip(tokens.input_ids[:-1], tokens.segments[:-1], strict=True):
        if segment >= 0:
            text[int(segment)] += TOKENIZER.decode([int(token)])
    assert text[1].strip() == "Therefore"
    assert text[0].split() == ["a", "b"]


@given(
    prompt=st.text(min_size=1, max_size=20),
    pieces=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4),
)
def test_segments_are_ordered_and_every_token_has_one(prompt: str, pieces: list[str]) -> None:
    view = RenderedView(prompt, tuple(Segment(piece, "x") for piece in pieces))
    (tokens,) = tokenize(TOKENIZER, [view])
    assert len(tokens.segments) == len(tokens.input_ids)
    assert list(tokens.segments) == sorted(tokens.segments)
    assert tokens.segments[-1] == len(pieces) - 1
    assert tokens.segments.max() <= len(pieces) - 1


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_a_token_whose_characters_lie_in_one_segment_is_placed_there(prompt: str, target: str) -> None:
    view = RenderedView(prompt, (Segment(target, "x"),))
    (tokens,) = tokenize(TOKENIZER, [view])
    offsets = TOKENIZER(prompt + target, return_offsets_mapping=True)["offset_mapping"]
    assert offsets
    for (start, end), segment in zip(offsets, tokens.segments[:-1], strict=True):
        if end <= len(prompt) and start < end and not (prompt + target)[start:end].isspace():
            assert segment == -1
        if start >= len(prompt):
            assert segment == 0


def test_a_token_that_a_merge_made_across_a_seam_is_placed_by_what_it_says() -> None:
    (the,) = TOKENIZER(" the")["input_ids"]
    view = RenderedView("Q:", (Segment(" so ", "x"), Segment("the end  ", "y"), Segment("  of", "z")))
    (tokens,) = tokenize(TOKENIZER, [view])
    assert tokens.segments[tokens.input_ids.tolist().index(the)] == 1  # its space is the first segment's
    (of,) = TOKENIZER(" of")["input_ids"]
    assert tokens.segments[tokens.input_ids.tolist().index(of)] == 2


def test_a_token_of_space_alone_goes_where_it_stands() -> None:
    view = RenderedView("Q:", (Segment(" so", "x"), Segment("\n", "y"), Segment("\nthe", "z")))
    (tokens,) = tokenize(TOKENIZER, [view])
    shown = [(TOKENIZER.decode([token]), int(at)) for token, at in zip(tokens.input_ids, tokens.segments, strict=True)]
    assert [(text, at) for text, at in shown if text == "\n"] == [("\n", 1), ("\n", 2)]


def test_only_key_steps_weigh_and_all_target_tokens_count() -> None:
    (right, right_sequence), (wrong, wrong_sequence) = encoded(
        TOKENIZER, ROW, edit(alpha=2.0, beta=0.5, reduction={"by": "token", "over": "all"})
    )
    key_right, key_wrong = key_steps(right.target, wrong.target)
    target = right.segments >= 0
    assert np.asarray(right_sequence.weights)[target].tolist() == [2.0 * key for key in key_right]
    assert np.asarray(right_sequence.counts)[target].tolist() == [1.0] * len(key_right)
    assert np.asarray(wrong_sequence.weights)[wrong.segments >= 0].tolist() == [-0.5 * key for key in key_wrong]


def test_key_steps_are_aligned_without_padding_and_with_the_end_of_sequence() -> None:
    (right, _), (wrong, _) = encoded(TOKENIZER, ROW, edit())
    assert right.target[-1] == wrong.target[-1] == TOKENIZER.eos_token_id
    assert key_steps(right.target, wrong.target)[0][-1] is False


@pytest.mark.parametrize("over", ["all", "weighted"])
def test_by_example_the_weights_hold_the_mean_and_each_sequence_counts_once(over: str) -> None:
    _, sequence = sequence_of(
        [{"text": " {right.rationale}", "weight": 1.0}, {"text": " {right.answer}", "weight": 3.0}],
        {"by": "example", "over": over},
        coefficient=-2.0,
    )
    assert sum(sequence.counts) == 1.0
    _, plain = sequence_of(
        [{"text": " {right.rationale}", "weight": 1.0}, {"text": " {right.answer}", "weight": 3.0}],
        {"by": "token", "over": "all"},
        coefficient=-2.0,
    )
    total = sum(plain.counts) if over == "all" else sum(abs(w) / 2.0 for w in plain.weights)
    assert sequence.weights == pytest.approx([w / total for w in plain.weights])


def test_a_weighted_denominator_within_a_view_leaves_the_coefficient_in_the_loss() -> None:
    _, by_view = sequence_of(RIGHT, {"by": "view", "over": "weighted"}, coefficient=0.25)
    _, by_token = sequence_of(RIGHT, {"by": "token", "over": "weighted"}, coefficient=0.25)
    assert {w / c for w, c in zip(by_view.weights, by_view.counts, strict=True) if c} == {0.25}
    assert {w / c for w, c in zip(by_token.weights, by_token.counts, strict=True) if c} == {1.0}


def by_hand() -> TokenizedView:
    """Return two tokens of a prompt and five of a target: two weigh 2, one is never scored, two weigh 1."""
    target = (Segment("a", "x", 2.0), Segment("b", "y", 0.0), Segment("c", "z"))
    view = RenderedView("p", target, row_weight=0.5)
    return TokenizedView(np.arange(10, 17), np.array([-1, -1, 0, 0, 1, 2, 2]), view, [None] * 7)


KEY = [True, False, True, True, False]
WEIGHED: list[tuple[dict[str, str], list[bool] | None, list[float], list[float]]] = [
    # Segment weight 2 or 1, key step, coefficient -2 and row weight 0.5; all scored tokens count, or what they weigh.
    ({"by": "token", "over": "all"}, None, [0, 0, -2, -2, 0, -1, -1], [0, 0, 1, 1, 0, 1, 1]),
    ({"by": "token", "over": "all"}, KEY, [0, 0, -2, 0, 0, -1, 0], [0, 0, 1, 1, 0, 1, 1]),
    ({"by": "token", "over": "weighted"}, KEY, [0, 0, -2, 0, 0, -1, 0], [0, 0, 2, 0, 0, 1, 0]),
    ({"by": "view", "over": "all"}, KEY, [0, 0, -2, 0, 0, -1, 0], [0, 0, 1, 1, 0, 1, 1]),
    ({"by": "view", "over": "weighted"}, KEY, [0, 0, -2, 0, 0, -1, 0], [0, 0, 1, 0, 0, 0.5, 0]),
    ({"by": "view", "over": "weighted"}, None, [0, 0, -2, -2, 0, -1, -1], [0, 0, 1, 1, 0, 0.5, 0.5]),
    # By example: divided by 4 scored tokens, or by 2 + 1 that they weigh; the sequence counts once, where it begins.
    ({"by": "example", "over": "all"}, KEY, [0, 0, -0.5, 0, 0, -0.25, 0], [0, 0, 1, 0, 0, 0, 0]),
    ({"by": "example", "over": "weighted"}, KEY, [0, 0, -2 / 3, 0, 0, -1 / 3, 0], [0, 0, 1, 0, 0, 0, 0]),
    ({"by": "example", "over": "weighted"}, [False] * 5, [0] * 7, [0, 0, 1, 0, 0, 0, 0]),
]


@pytest.mark.parametrize(("reduction", "key", "weights", "counts"), WEIGHED)
def test_what_a_token_weighs_and_counts_by_hand(
    reduction: dict[str, str], key: list[bool] | None, weights: list[float], counts: list[float]
) -> None:
    sequence = weigh(by_hand(), 3, -2.0, key, Reduction.model_validate(reduction))
    assert (sequence.input_ids, sequence.views) == (list(range(10, 17)), [3] * 7)
    assert sequence.weights == pytest.approx(weights)
    assert sequence.counts == counts


def test_the_end_belongs_to_the_last_segment_that_is_scored_and_to_the_last_one_where_none_is() -> None:
    for weights, closing in (((0.0, 1.0, 0.0), 1), ((0.0, 0.0, 0.0), 2), ((1.0, 1.0, 1.0), 2), ((1.0, 0.0, 0.0), 0)):
        target = tuple(
            Segment(text, "x", weight) for text, weight in zip((" one", " two", " six"), weights, strict=True)
        )
        ((tokens),) = tokenize(TOKENIZER, [RenderedView("Q:", target)])
        assert tokens.segments[-1] == closing


def test_nothing_predicts_the_first_token_though_it_may_be_the_target_s() -> None:
    tokens = by_hand()
    tokens.segments = np.array([0, 0, 0, 0, 1, 2, 2])
    assert tokens.segment_weights().tolist() == [0, 2, 2, 2, 0, 1, 1]
    assert tokens.target == list(range(10, 17))


def test_the_report_counts_records_sequences_and_tokens_of_each_view() -> None:
    views = {
        "all": {"prompt": "Q:", "target": [" {a}", {"text": " {b}", "weight": 0.0}]},
        "some": {"prompt": "Q:", "target": [" {a}"], "select": {"where": "chosen"}},
        "none": {"prompt": "Q:", "target": [" {a}"], "coefficient": 0.0},
    }
    of_stage = Stage.model_validate({"name": "s", "views": views, "training": TRAINING})
    rows = [
        {"id": "x", "question": "?", "a": "one two", "b": "three", "chosen": True},
        {"question": "?", "a": "four " * 40, "b": "five", "chosen": True},
        {"id": "z", "question": "?", "a": "six", "b": "seven", "chosen": False},
    ]
    length = {
        text: len(TOKENIZER(text)["input_ids"]) + 1 for text in ("Q: one two three", "Q: one two", "Q: six seven")
    }
    prompt, behind = len(TOKENIZER("Q:")["input_ids"]), len(TOKENIZER(" three")["input_ids"])
    too_long = len(TOKENIZER("Q: " + "four " * 40 + " five")["input_ids"]) + 1
    columns, report = encode(TOKENIZER, rows, of_stage, 60)
    assert (report.records, report.sequences, report.longest) == (3, 3, too_long)
    assert report.dropped == {"1": f"{too_long} tokens, 60 allowed"}
    first, second, third = length.values()
    assert report.tokens == {"all": first + third, "some": second, "none": 0}
    scored = first + third - 2 * prompt - behind - len(TOKENIZER(" seven")["input_ids"])
    assert report.scored == report.weighted == {"all": scored, "some": second - prompt, "none": 0}
    assert [len(ids) for ids in columns["input_ids"]] == [first, second, third]
    assert [views[0] for views in columns["views"]] == [0, 1, 0]
    assert encode(TOKENIZER, rows, of_stage, too_long)[1].dropped == {}


def test_a_report_of_nothing_is_empty_and_is_nobody_else_s() -> None:
    one, other = EncodingReport(), EncodingReport()
    counted = (one.tokens, one.scored, one.weighted, one.softened, one.swapped, one.dropped)
    assert counted == ({},) * 6
    one.dropped["a"] = "too long"
    assert other.dropped == {}
    assert (one.records, one.sequences, one.longest, one.held_out) == (0, 0, 0, None)


def test_sequences_are_known_by_question_and_record_where_one_view_of_several_is_balanced() -> None:
    views = {"all": {"prompt": "Q:", "target": [" {a}"]}, "one": {"prompt": "Q:", "target": [" {a}"]}}
    rows = [{"id": "x", "question": "why?", "a": "so"}]
    for select, known in (({"draw": "balanced"}, {"question": ["why?"] * 2, "record": ["x"] * 2}), ({}, {})):
        data = {"name": "s", "views": views | {"one": views["one"] | {"select": select}}, "training": TRAINING}
        columns, _ = encode(TOKENIZER, rows, Stage.model_validate(data), None)
        assert {name: columns[name] for name in ("question", "record") if name in columns} == known


def test_of_no_records_nothing_is_encoded() -> None:
    columns, report = encode(TOKENIZER, [], imitation(), 60)
    assert columns == {"input_ids": [], "weights": [], "counts": [], "views": []}
    assert (report.records, report.sequences, report.longest, report.dropped) == (0, 0, 0, {})
    assert tokenize(TOKENIZER, []) == []


def test_a_tokenizer_that_knows_no_offsets_is_refused() -> None:
    tokenizer = SimpleNamespace(eos_token_id=1, is_fast=False)
    with pytest.raises(UserError, match=r"^SimpleNamespace gives no character offsets; a fast tokenizer is needed$"):
        tokenize(tokenizer, [RenderedView("Q:", (Segment(" a", "x"),))])  # type: ignore[arg-type]


def test_a_record_that_does_not_fit_is_dropped_whole_and_counted() -> None:
    rows = duals(8)
    longest = [max(len(s.input_ids) for _, s in encoded(TOKENIZER, row, edit())) for row in rows]
    limit = sorted(longest)[4]
    columns, report = encode(TOKENIZER, rows, edit(), limit)
    assert set(report.dropped) == {row["id"] for row, n in zip(rows, longest, strict=True) if n > limit}
    assert len(columns["input_ids"]) == 2 * (8 - len(report.dropped)) == report.sequences
    assert all(ids[-1] == TOKENIZER.eos_token_id for ids in columns["input_ids"])


def test_the_batch_in_which_records_are_tokenised_changes_nothing() -> None:
    rows = duals(7)
    assert encode(TOKENIZER, rows, edit(), None, batch_size=2)[0] == encode(TOKENIZER, rows, edit(), None)[0]


def test_a_chat_prompt_is_a_turn_of_the_template() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    tokens, _ = encoded(tokenizer, ROW, imitation(), "chat")[0]
    assert tokenizer.decode(tokens.input_ids[tokens.segments < 0]).startswith("<user>Q: What is 3 + 4?\nA:<assistant>")


def test_a_chat_prompt_without_a_template_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="no chat template"):
        encoded(TOKENIZER, ROW, imitation(), "chat")


def test_a_tokenizer_without_an_end_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="never stops"):
        encoded(tokenizer, ROW, imitation())


def test_markup_in_a_record_is_text_and_not_a_special_token_of_the_sequence_end() -> None:
    row = {**ROW, "right": {"rationale": "{question} {{x}} ${y}", "answer": "7"}}
    tokens, _ = encoded(TOKENIZER, row, imitation())[0]
    assert "{question} {{x}} ${y}" in TOKENIZER.decode(tokens.target)
