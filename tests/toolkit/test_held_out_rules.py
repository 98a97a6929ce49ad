"""What a recipe may say about questions held out of a stage, one rule after the other."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.errors import UserError
from toolkit.held_out import hold_out, validation_faults

NEEDS = "needs stages.imitate.validation, the share of the questions to hold out"


def faults(validation: float | None = 0.1, **training: Any) -> list[tuple[str, str]]:
    stage = {"name": "imitate", "views": {"cot": {}, "label": {}}, "validation": validation}
    return list(validation_faults(stage, training))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("eval_strategy", "steps"), ("eval_steps", 5), ("eval_delay", 2), ("eval_on_start", True)),
        *(("eval_accumulation_steps", 1), ("per_device_eval_batch_size", 4), ("load_best_model_at_end", True)),
        *(("metric_for_best_model", "loss"), ("greater_is_better", True), ("save_strategy", "best")),
        *(("lr_scheduler_type", "reduce_lr_on_plateau"), ("lr_scheduler_type", "greedy")),
    ],
)
def test_what_means_nothing_without_questions_to_evaluate_on_needs_some(name: str, value: Any) -> None:
    assert faults(None, learning_rate=1.0, **{name: value}) == [(f"training.{name}", NEEDS)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("eval_strategy", "no"),
            ("eval_strategy", None),
            ("eval_on_start", False),
            ("load_best_model_at_end", False),
        ),
        *(("eval_steps", None), ("save_strategy", "steps"), ("lr_scheduler_type", "cosine"), ("save_steps", 5)),
    ],
)
def test_what_is_off_needs_none(name: str, value: Any) -> None:
    assert faults(None, **{name: value}) == []


def test_all_that_needs_them_is_told_at_once() -> None:
    assert faults(None, eval_steps=5, save_strategy="best") == [
        ("training.eval_steps", NEEDS),
        ("training.save_strategy", NEEDS),
    ]
    assert list(validation_faults({"name": "imitate"}, {"eval_steps": 5})) == [("training.eval_steps", NEEDS)]


def test_questions_are_held_out_for_something() -> None:
    for_nothing = "needs training.eval_strategy, steps or epoch: questions would be held out for nothing"
    assert faults() == faults(eval_strategy="no", eval_on_start=False) == [("validation", for_nothing)]
    assert faults(eval_on_start=True) == faults(eval_strategy="steps") == faults(eval_strategy="epoch") == []


def test_steps_go_with_the_strategy_of_steps() -> None:
    wrong = [("training.eval_steps", "needs training.eval_strategy: steps")]
    assert faults(eval_strategy="epoch", eval_steps=5) == wrong
    assert faults(eval_on_start=True, eval_steps=5) == wrong
    assert faults(eval_strategy="steps", eval_steps=5) == faults(eval_strategy="epoch", eval_steps=None) == []


@pytest.mark.parametrize("metric", ["loss", "eval_loss", "loss/cot", "eval_loss/label"])
def test_a_metric_is_a_loss_of_the_stage(metric: str) -> None:
    assert faults(eval_strategy="epoch", metric_for_best_model=metric) == []


def test_another_metric_is_told_with_those_there_are() -> None:
    assert faults(eval_strategy="epoch", metric_for_best_model="eval_loss/cut") == [
        (
            "training.metric_for_best_model",
            "found 'eval_loss/cut', allowed loss, loss/cot, loss/label (did you mean 'loss/cot'?)",
        )
    ]
    without_views = {"name": "s", "views": None, "validation": 0.1}
    training = {"eval_strategy": "epoch", "metric_for_best_model": "accuracy"}
    assert list(validation_faults(without_views, training)) == [
        ("training.metric_for_best_model", "found 'accuracy', allowed loss")
    ]
    assert faults(eval_strategy="epoch", metric_for_best_model=None) == []


BEST = {"eval_strategy": "steps", "load_best_model_at_end": True}


@pytest.mark.parametrize(
    ("training", "found"),
    [
        ({}, None),  # saved by steps where nothing is said
        ({"save_strategy": "best"}, None),
        ({"save_strategy": "epoch"}, "steps and epoch"),
        ({"eval_strategy": "epoch"}, "epoch and steps"),
        ({"eval_strategy": "epoch", "save_strategy": "epoch", "save_steps": 3}, None),
        ({"load_best_model_at_end": False, "save_strategy": "epoch"}, None),
        ({"eval_steps": 4, "save_steps": 8}, None),
        ({"eval_steps": 4, "save_steps": 4}, None),
        ({"eval_steps": 0.1, "save_steps": 7}, None),  # shares of the run, which only the trainer can compare
        ({"eval_steps": 4, "save_steps": 0.3}, None),
        ({"eval_steps": 0, "save_steps": 7}, None),  # refused as a number already
    ],
)
def test_the_best_weights_are_among_those_saved(training: dict[str, Any], found: str | None) -> None:
    text = f"needs training.eval_strategy and save_strategy to be the same, found {found}"
    assert faults(**BEST | training) == ([("training.load_best_model_at_end", text)] if found else [])


@pytest.mark.parametrize(("every", "saved"), [(4, 6), (4, 3), (2, 1)])
def test_weights_are_saved_when_they_are_evaluated(every: int, saved: int) -> None:
    text = f"found {saved}, allowed a multiple of training.eval_steps, which is {every}"
    assert faults(**BEST, eval_steps=every, save_steps=saved) == [("training.save_steps", text)]
    assert faults(eval_strategy="steps", eval_steps=every, save_steps=saved) == []


def test_a_side_that_would_be_empty_is_told_with_the_number_of_questions() -> None:
    rows = [{"question": f"q{n // 2}"} for n in range(6)]
    for share, found in ((0.0, "none"), (1.0, "all")):
        allowed = rf"^{found} of 3 questions would be held out at a share of {share}, allowed are some$"
        with pytest.raises(UserError, match=allowed):
            hold_out(rows, share, 0)
    with pytest.raises(UserError, match=r"^found records without a column 'question', by which records are held out"):
        hold_out([*rows, {"id": 7}], 0.5, 0)
