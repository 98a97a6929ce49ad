"""What a stage makes of its records: which rows, which items, what is done to their texts, what each weighs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chains import ANSWER, ANSWERS, COT, LABEL, PROMPT, RATIONALE, REASONS, STEP, chains, stage
from tests.tiny_students import tiny_tokenizer
from toolkit.encoding import encode, encode_record
from toolkit.errors import UserError
from toolkit.objective import denominators, weighted_loss
from toolkit.soft_targets import TeacherToken
from toolkit.stage_views import Shown, StageViews
from toolkit.transform_settings import Shuffle
from toolkit.transforms import Swapped, rearrange

TOKENIZER = tiny_tokenizer()
ROWS = chains(3, each=3)


def shown(rows: list[dict[str, Any]] = ROWS, index: int = 0, **views: dict[str, Any]) -> Shown:
    return StageViews(stage(views), rows).show(index)


def texts(one: Shown) -> list[tuple[str, str]]:
    """Return prompt and target of every sequence."""
    return [(view.prompt, "".join(segment.text for segment in view.target)) for _, view in one.sequences]


def transformed(transform: Any, **more: Any) -> dict[str, Any]:
    """Return the view of whole chains with a transform of the rationale."""
    return {"prompt": PROMPT, "target": [{"text": RATIONALE, "transform": transform}, ANSWER], **more}


# --- which rows


def test_rows_that_no_view_selects_show_nothing_and_are_not_left_out() -> None:
    view = {**COT, "select": {"where": "correct"}}
    assert [len(shown(index=index, cot=view).sequences) for index in range(9)] == [1, 1, 0] * 3
    columns, report = encode(TOKENIZER, ROWS, stage({"cot": view}), None)
    assert (report.records, report.sequences, report.dropped) == (9, 6, {})
    assert len(columns["input_ids"]) == 6


@pytest.mark.parametrize("batch_size", [1, 512])
def test_records_that_no_view_selects_may_be_all_of_a_batch(batch_size: int) -> None:
    rows = [row for row in ROWS if not row["correct"]]
    of_stage = stage({"cot": {**COT, "select": {"where": "correct"}}})
    assert encode_record(TOKENIZER, StageViews(of_stage, rows), 0) == []
    assert encode(TOKENIZER, rows, of_stage, None, batch_size=batch_size)[1].sequences == 0


@pytest.mark.parametrize(
    ("select", "ids"),
    [
        ({"draw": "all"}, [f"sum/{i}#{j}" for i in range(3) for j in range(3)]),
        ({"draw": "first"}, ["sum/0#0", "sum/1#0", "sum/2#0"]),
        ({"draw": "diverse", "k": 1, "text": "chain.rationale"}, ["sum/0#0", "sum/1#0", "sum/2#0"]),
    ],
    ids=["all", "first", "diverse"],
)
def test_a_view_shows_the_rows_that_it_selects(select: dict[str, Any], ids: list[str]) -> None:
    views = StageViews(stage({"cot": {**COT, "select": select}}), ROWS)
    assert [row["id"] for index, row in enumerate(ROWS) if views.show(index).sequences] == ids


def test_each_view_selects_for_itself() -> None:
    one = {**LABEL, "select": {"draw": "first"}}
    positions = [[place for place, _ in shown(index=index, cot=COT, label=one).sequences] for index in range(3)]
    assert positions == [[0, 1], [0], [0]]


def test_a_balanced_view_shows_every_row_that_may_be_drawn() -> None:
    view = {**COT, "select": {"draw": "balanced", "where": "correct"}}
    columns, _ = encode(TOKENIZER, ROWS, stage({"cot": view}), None)
    assert columns["record"] == [row["id"] for row in ROWS if row["correct"]]
    assert columns["question"] == [row["question"] for row in ROWS if row["correct"]]


# --- which items


def test_each_item_of_a_list_is_a_sequence_with_those_before_it() -> None:
    row = {**ROWS[0], "question": "Q", "steps": [{"question": f"{n}?", "answer": f"{n}!"} for n in "abc"]}
    assert texts(shown([row], step=STEP)) == [
        ("Q: Q\na?", " a!"),
        ("Q: Q\na? a!\nb?", " b!"),
        ("Q: Q\na? a!\nb? b!\nc?", " c!"),
    ]


def test_outside_of_each_a_list_stands_one_per_line() -> None:
    row = {**ROWS[0], "steps": [{"question": "a?", "answer": "1"}, {"question": "b?", "answer": "2"}]}
    view = {"prompt": PROMPT, "target": ["\n{steps.question}"]}
    assert texts(shown([row], plan=view)) == [("Q: What is 0 + 1?\nA:", "\na?\nb?")]


def test_the_items_of_one_record_are_of_one_view() -> None:
    columns, report = encode(TOKENIZER, [ROWS[2]], stage({"label": LABEL, "step": STEP}), None)
    assert len(ROWS[2]["steps"]) == 3
    assert [views[0] for views in columns["views"]] == [0, 1, 1, 1]
    assert report.sequences == 4


# --- records that cannot be shown so

SHUFFLED = transformed({"kind": "shuffle"})


@pytest.mark.parametrize(
    ("change", "view", "reason"),
    [
        ({"steps": []}, STEP, "view: step in steps: the list is empty"),
        ({"steps": None}, STEP, "view: step in steps: the list is empty"),
        ({"chain": {"rationale": " \n", "answer": "1"}}, SHUFFLED, "view: the text to transform is empty"),
        (
            {"chain": {"rationale": "No.\nTherefore, the answer is not 3.", "answer": "1"}},
            COT,
            "view: chain.rationale holds the text that ends it, '\\nTherefore, the answer is '",
        ),
        (
            {"steps": [{"question": "two\nlines?", "answer": "1"}]},
            {"prompt": PROMPT, "target": ["\n{steps.question}"]},
            "view: steps.question holds a line break, which parts its values",
        ),
    ],
    ids=["an empty list", "no list", "nothing to transform", "an ambiguous delimiter", "an ambiguous line break"],
)
def test_a_record_that_cannot_be_shown_so_is_left_out_whole_with_its_reason(
    change: dict[str, Any], view: dict[str, Any], reason: str
) -> None:
    rows = [ROWS[0], {**ROWS[1], **change}, ROWS[3]]
    of_stage = stage({"label": LABEL, "view": view})
    assert StageViews(of_stage, rows).show(1) == Shown([], reason)
    columns, report = encode(TOKENIZER, rows, of_stage, None)
    assert report.dropped == {ROWS[1]["id"]: reason}
    assert (report.records, report.sequences) == (3, len(columns["input_ids"]))
    without, _ = encode(TOKENIZER, [ROWS[0], ROWS[3]], of_stage, None)
    assert columns == without


def test_a_segment_without_a_token_of_its_own_leaves_its_record_out() -> None:
    # The tokenizer joins " th" and "e" to one word, which begins in the first segment.
    row = {**ROWS[0], "chain": {"rationale": "e", "answer": "1"}}
    target = [" th", {"text": "{chain.rationale}", "transform": {"kind": "shuffle", "unit": "token"}}]
    of_stage = stage({"view": {"prompt": "Q:", "target": target}})
    columns, report = encode(TOKENIZER, [row], of_stage, None)
    assert report.dropped == {row["id"]: "view: the text to transform is empty"}
    assert columns["input_ids"] == []
    assert encode_record(TOKENIZER, StageViews(of_stage, [row]), 0) == []


@pytest.mark.parametrize("weight", [None, "heavy", True, float("nan"), float("inf")])
def test_a_row_weight_that_is_no_number_is_a_clear_error(weight: Any) -> None:
    row = {**ROWS[0], "weight": weight}
    with pytest.raises(UserError, match=r"row_weight: found .* in record 'sum/0#0', allowed a finite number"):
        shown([row], cot={**COT, "row_weight": "weight"})


def test_a_column_that_is_not_there_is_told_with_the_stage_and_the_view() -> None:
    with pytest.raises(UserError, match=r"^stages\.s\.views\.cot: .*'correkt'.*did you mean 'correct'"):
        shown(cot={**COT, "select": {"where": "correkt"}})


# --- what is done to texts


def test_a_shuffled_rationale_keeps_its_words_and_leaves_the_rest_alone() -> None:
    ((prompt, target),) = texts(shown(index=2, cot=SHUFFLED))
    ((plain_prompt, plain),) = texts(shown(index=2, cot=COT))
    assert prompt == plain_prompt
    assert target != plain
    assert Counter(target.split()) == Counter(plain.split())
    end = "\nTherefore, the answer is 1."
    assert target.endswith(end)
    assert plain.endswith(end)


def test_a_transform_changes_its_own_segment_and_no_other_place_of_the_column() -> None:
    view = {"prompt": PROMPT + RATIONALE, "target": [{"text": RATIONALE, "transform": {"kind": "shuffle"}}, RATIONALE]}
    (_, one) = shown(index=2, view=view).sequences[0]
    rationale = ROWS[2]["chain"]["rationale"]
    assert one.prompt.endswith(rationale)
    assert one.target[0].text != f" {rationale}" == one.target[1].text


def segments_of(view: dict[str, Any], index: int) -> list[list[int]]:
    """Return the ids of the prompt and of each segment of the record's first sequence."""
    tokens, _ = encode_record(TOKENIZER, StageViews(stage({"view": view}), ROWS), index)[0]
    return [tokens.input_ids[tokens.segments == number].tolist() for number in range(-1, len(tokens.view.target))]


@pytest.mark.parametrize("index", range(9))
def test_shuffled_tokens_are_those_of_the_segment_and_no_others_move(index: int) -> None:
    plain = segments_of(COT, index)
    changed = segments_of(transformed({"kind": "shuffle", "unit": "token"}), index)
    assert Counter(changed[1]) == Counter(plain[1])
    assert changed[1] != plain[1]
    assert [changed[0], changed[2]] == [plain[0], plain[2]]


def test_tokens_are_drawn_for_each_record_by_its_id() -> None:
    rows = [{**ROWS[0], "id": name} for name in ("a", "b")]
    views = StageViews(stage({"cot": transformed({"kind": "shuffle", "unit": "token", "seed": 4})}), rows)
    plain = TOKENIZER(" " + ROWS[0]["chain"]["rationale"])["input_ids"]
    for index, name in enumerate(("a", "b")):
        ((tokens, _),) = encode_record(TOKENIZER, views, index)
        expected = rearrange([Shuffle(unit="token", seed=4)], plain, lambda _: [], name)
        assert tokens.input_ids[tokens.segments == 0].tolist() == expected


def test_a_segment_has_the_role_weight_and_text_that_it_is_given() -> None:
    target = [{"text": RATIONALE, "role": "story", "weight": 0.5}, ANSWER, "###"]
    ((_, view),) = shown(cot={"prompt": PROMPT, "target": target}).sequences
    assert [(segment.text, segment.role, segment.weight) for segment in view.target] == [
        (f" {ROWS[0]['chain']['rationale']}", "story", 0.5),
        ("\nTherefore, the answer is 1.", "answer", 1.0),
        ("###", "marker", 1.0),
    ]
    assert (view.row_weight, view.target[0].rearrange, view.target[0].teacher) == (1.0, None, None)


@pytest.mark.parametrize(("weight", "value"), [(2, 2.0), (0.25, 0.25), (-1, -1.0), (0, 0.0)])
def test_a_row_weight_is_the_number_in_its_column(weight: float, value: float) -> None:
    ((_, view),) = shown(
        [{**ROWS[0], "chain": {**ROWS[0]["chain"], "worth": weight}}], cot={**COT, "row_weight": "chain.worth"}
    ).sequences
    assert view.row_weight == value


def test_a_teacher_s_tokens_begin_where_the_column_begins_in_its_segment() -> None:
    row = {"id": "r", "question": "Q", "said": "ab", "by": "x"}
    row["logprobs"] = [{"token": text, "top": [{"token": text, "logprob": 0.0}]} for text in ("a", "b")]
    view = {"prompt": "Q:", "target": [{"text": " so {said}!", "soft_targets": "logprobs"}]}
    ((_, one),) = shown([row], cot=view).sequences
    assert one.target[0].teacher == (TeacherToken(4, 5, (("a", 1.0),)), TeacherToken(5, 6, (("b", 1.0),)))
    ((_, none),) = shown([row | {"logprobs": None}], cot=view).sequences
    assert none.target[0].teacher == ()
    with pytest.raises(UserError, match=r"^soft_targets: column 'logprobs' of record 'r': found no list of tokens"):
        shown([row | {"logprobs": ["a"]}], cot=view)


def test_a_prompt_s_own_words_may_stand_in_what_no_student_writes() -> None:
    """Only a column that a student writes ends a turn where the text behind it in the next prompt begins."""
    rows = chains(1)
    rows[0]["chain"]["rationale"] = "we end so: here"
    second = {"prompt": "{chain.rationale} so: ", "target": [" {answer}"]}
    fault = "second: chain.rationale holds the text that ends it in the prompt, ' so: '"
    assert shown(rows, first=REASONS, second=second).reason == fault
    assert shown(rows, first=LABEL, second=second).reason is None
    assert shown(rows, first=REASONS, second={**second, "prompt": "{chain.rationale} {answer}"}).reason is None


def test_a_column_of_the_records_may_be_called_before() -> None:
    view = {"prompt": "{before}", "target": [" {answer}"]}
    assert texts(shown([{**ROWS[0], "before": "So far."}], cot=view)) == [("So far.", " 1")]


def test_what_swaps_did_is_known_of_each_view_that_has_some() -> None:
    swap = {"kind": "swap", "seed": 3}
    twice = {"prompt": PROMPT, "target": [{"text": text, "transform": [swap]} for text in (RATIONALE, "\n{answer}")]}
    views = StageViews(stage({"plain": COT, "once": transformed(swap), "twice": twice}), ROWS)
    assert views.swapped.keys() == {"once", "twice"}
    assert views.swapped["once"] == Swapped(texts=9)
    assert (views.swapped["twice"].texts, views.swapped["twice"].repeated) == (18, 0)
    assert StageViews(stage({"cot": transformed(swap, coefficient=0.0), "plain": COT}), ROWS).swapped == {}


def test_masked_tokens_stand_where_the_others_stood() -> None:
    plain, changed = (
        segments_of(view, 2)
        for view in (COT, transformed({"kind": "mask", "unit": "token", "share": 0.5, "symbol": "_"}))
    )
    (mask,) = TOKENIZER("_")["input_ids"]
    assert len(changed[1]) == len(plain[1])
    kept = [one == other for one, other in zip(changed[1], plain[1], strict=True)]
    assert kept.count(False) == round(0.5 * len(plain[1]))
    assert {token for token, same in zip(changed[1], kept, strict=True) if not same} == {mask}


def test_tokens_that_are_dropped_take_their_weights_with_them() -> None:
    view = transformed({"kind": "mask", "unit": "token", "share": 0.5, "symbol": None})
    tokens, sequence = encode_record(TOKENIZER, StageViews(stage({"view": view}), ROWS), 2)[0]
    plain = segments_of(COT, 2)
    assert int((tokens.segments == 0).sum()) == len(plain[1]) - round(0.5 * len(plain[1]))
    assert sequence.weights == [float(segment >= 0) for segment in tokens.segments]
    assert tokens.target[-1] == TOKENIZER.eos_token_id


def test_the_words_of_other_rows_that_the_view_does_not_select_are_not_drawn() -> None:
    rows = [{**row, "chain": {"rationale": "bad " * 9 if not row["correct"] else "good " * 9}} for row in ROWS]
    view = transformed({"kind": "random_words"}, select={"where": "correct"})
    ((_, target),) = texts(shown(rows, cot=view))
    assert set(target.partition("\n")[0].split()) == {"good"}


# --- coefficients and row weights


@pytest.mark.parametrize("by", ["token", "view", "example"])
@pytest.mark.parametrize("over", ["all", "weighted"])
def test_a_view_with_coefficient_zero_is_a_view_that_is_not_there(by: str, over: str) -> None:
    reduction = {"by": by, "over": over}
    absent, _ = encode(TOKENIZER, ROWS, stage({"cot": COT}, reduction), None)
    zero, report = encode(TOKENIZER, ROWS, stage({"cot": COT, "label": {**LABEL, "coefficient": 0}}, reduction), None)
    assert zero == absent
    assert report.tokens["label"] == 0


def test_a_view_with_coefficient_zero_drops_no_record() -> None:
    rows = [{**ROWS[0], "steps": []}]
    assert encode(TOKENIZER, rows, stage({"cot": COT, "step": {**STEP, "coefficient": 0}}), None)[1].dropped == {}


def loss_by_hand(rows: list[dict[str, Any]], losses: list[list[float]], by: str, over: str) -> float:
    """DESIGN section 3 in plain numbers for two views of whole chains, coefficients 2 and -0.5, answers of weight 3.

    Args:
        rows: Records; the first view weighs its rows by the column `weight`.
        losses: Of each sequence, the cross-entropy of each token: records in order, in each the first view first.
        by, over: The reduction.
    """
    sequences = []
    for number, of_tokens in enumerate(losses):
        row, view = rows[number // 2], number % 2
        prompt = TOKENIZER(f"Q: {row['question']}\nA:")["input_ids"]
        rationale = TOKENIZER(f" {row['chain']['rationale']}")["input_ids"]
        answer_tokens = len(of_tokens) - len(prompt) - len(rationale)
        segment = [0.0] * len(prompt) + [1.0] * len(rationale) + [3.0] * answer_tokens
        coefficient, row_weight = ((2.0, row["weight"]), (-0.5, 1.0))[view]
        weighted = sum(w * loss for w, loss in zip(segment, of_tokens, strict=True))
        sequences.append((view, coefficient, row_weight, weighted, sum(w > 0 for w in segment), sum(segment)))
    loss = 0.0
    for view, coefficient, row_weight, weighted, scored, weight in sequences:
        same = [one for one in sequences if by == "token" or one[0] == view]
        if by == "example":
            below: float = len(same) * (scored if over == "all" else weight)
        elif over == "all":
            below = sum(one[4] for one in same)
        else:
            below = sum(one[2] * one[5] * (abs(one[1]) if by == "token" else 1) for one in same)
        loss += coefficient * row_weight * weighted / below
    return loss


@pytest.mark.parametrize("by", ["token", "view", "example"])
@pytest.mark.parametrize("over", ["all", "weighted"])
def test_row_weights_enter_the_loss_as_the_design_says(by: str, over: str) -> None:
    target = [RATIONALE, {"text": ANSWER, "weight": 3.0}]
    views = {
        "heavy": {"prompt": PROMPT, "target": target, "row_weight": "weight", "coefficient": 2.0},
        "plain": {"prompt": PROMPT, "target": target, "coefficient": -0.5},
    }
    columns, _ = encode(TOKENIZER, ROWS, stage(views, {"by": by, "over": over}), None)
    generator = np.random.default_rng(0)
    losses = [generator.random(len(ids)).tolist() for ids in columns["input_ids"]]
    flat = {
        name: torch.tensor([[value for one in columns[name] for value in one]])
        for name in ("weights", "counts", "views")
    }
    below = denominators(flat["counts"], flat["views"], 2, by)
    shares = weighted_loss(
        torch.tensor([[value for one in losses for value in one]], dtype=torch.float64),
        flat["weights"],
        flat["views"],
        below,
    )
    assert shares.sum().item() == pytest.approx(loss_by_hand(ROWS, losses, by, over), rel=1e-6)


# --- a rationale that says what is to follow it


def test_a_rationale_that_holds_the_phrase_behind_it_in_a_prompt_is_left_out() -> None:
    # A student is stopped at that phrase: what it is asked second would be another prompt than the one it learnt.
    rows = chains(2)
    rows[1]["chain"]["rationale"] += "\nTherefore, the answer is 9, or not."
    views = StageViews(stage({"rationale": REASONS, "answer": ANSWERS}), rows)
    assert views.show(0).reason is None
    assert "holds the text that ends it in the prompt" in str(views.show(1).reason)


def test_a_question_may_hold_what_stands_behind_it() -> None:
    rows = chains(1)
    rows[0]["question"] += "\nA: a sum"
    assert StageViews(stage({"cot": COT}), rows).show(0).reason is None


# --- order

RICH: dict[str, dict[str, Any]] = {
    "swapped": transformed({"kind": "swap", "seed": 3}, select={"draw": "random", "k": 2, "seed": 1}),
    "words": transformed([{"kind": "random_words"}, {"kind": "shuffle", "unit": "token"}]),
    "kept": {
        **REASONS,
        "target": [{"text": RATIONALE, "transform": {"kind": "keep", "by": "tfidf", "k": 4}}],
        "select": {"draw": "diverse", "k": 2, "text": "chain.rationale", "where": "correct"},
        "coefficient": -0.5,
    },
    "step": {**STEP, "row_weight": "weight"},
}


def encoded_by_record(rows: list[dict[str, Any]]) -> dict[str, Any]:
    views = StageViews(stage(RICH), rows)
    return {
        row["id"]: [sequence for _, sequence in encode_record(TOKENIZER, views, index)]
        for index, row in enumerate(rows)
    }


@settings(max_examples=15, deadline=None)
@given(st.permutations(ROWS))
def test_what_becomes_of_a_record_does_not_depend_on_the_order_of_all(rows: list[dict[str, Any]]) -> None:
    assert encoded_by_record(rows) == encoded_by_record(ROWS)
