"""How long a recipe trains for a number of tokens, against the trainer that does it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.chains import COT, chains, stage
from tests.records import PROMPT, RIGHT, TRAINING, duals, saved_student
from tests.tiny_students import tiny_tokenizer
from toolkit.encoding import encode
from toolkit.errors import UserError
from toolkit.recipe import Recipe, Stage
from toolkit.stages import make_trainer
from toolkit.token_budget import StageLength, own_lengths, within_budget
from toolkit.views import fill

ROWS = duals(7)
LAYOUTS: dict[str, dict[str, Any]] = {
    "padded": {},
    "accumulated": {"gradient_accumulation_steps": 2},
    "packed": {"packing": True, "max_length": 200},
    "padding-free": {"padding_free": True},
    "without the last batch": {"dataloader_drop_last": True},
}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_student(tmp_path_factory.mktemp("student"))


def recipe(student: str, *trainings: dict[str, Any]) -> Recipe:
    """Return a recipe that imitates, a stage for each set of training arguments."""
    base = {name: value for name, value in TRAINING.items() if name != "max_steps"}
    data = {
        "recipe": {"name": "r", "version": 1},
        "dataset": {"repo_id": "a/b", "revision": "v1.0.0"},
        "student": {"model_name_or_path": student},
        "stages": [
            {
                "name": f"stage_{place}",
                "views": {"cot": {"prompt": PROMPT, "target": RIGHT}},
                "training": base | {"per_device_train_batch_size": 2} | training,
            }
            for place, training in enumerate(trainings)
        ],
    }
    return Recipe.model_validate_json(json.dumps(data))


def trained(student: str, stage: Stage, folder: Path) -> Any:
    """Train a stage and return what its trainer says in the end."""
    trainer, _ = make_trainer(stage, ROWS, student, folder, {}, "plain")
    trainer.train()
    return trainer.state


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_epoch_is_as_many_steps_and_tokens_as_the_trainer_takes(student: str, layout: str, tmp_path: Path) -> None:
    once = recipe(student, LAYOUTS[layout] | {"num_train_epochs": 1})
    (length,) = own_lengths(once, ROWS, tiny_tokenizer())
    state = trained(student, once.stages[0], tmp_path)
    assert (length.steps_per_epoch, length.epochs) == (state.global_step, 1)
    if layout != "without the last batch":  # the seventh sequence is encoded and not read
        assert state.num_input_tokens_seen == length.tokens_per_epoch


STEPS: list[tuple[dict[str, Any], int]] = [
    ({}, 4),  # seven records by two
    ({"per_device_train_batch_size": 7}, 1),
    ({"per_device_train_batch_size": 3}, 3),
    ({"gradient_accumulation_steps": 2}, 2),
    ({"gradient_accumulation_steps": 3}, 2),  # the last step of an epoch accumulates one batch
    ({"gradient_accumulation_steps": 9}, 1),
    ({"dataloader_drop_last": True}, 3),
    ({"dataloader_drop_last": True, "gradient_accumulation_steps": 2}, 2),
    ({"dataloader_drop_last": True, "per_device_train_batch_size": 8}, 1),  # no whole batch: a step all the same
]


@pytest.mark.parametrize(("training", "steps"), STEPS)
def test_steps_of_an_epoch_by_hand(student: str, training: dict[str, Any], steps: int) -> None:
    (length,) = own_lengths(recipe(student, training | {"num_train_epochs": 2.5}), ROWS, tiny_tokenizer())
    assert (length.stage, length.steps_per_epoch, length.epochs) == ("stage_0", steps, 2.5)


def test_an_epoch_of_a_balanced_view_reads_the_mean_of_each_questions_chains(student: str) -> None:
    rows = [row for row in chains(3, each=3) if row["id"] not in ("sum/0#1", "sum/0#2", "sum/1#1")]
    balanced = recipe(student, {})
    view = stage({"cot": {**COT, "select": {"draw": "balanced", "seed": 5}}}).views["cot"]
    balanced.stages[0].views["cot"] = view
    (length,) = own_lengths(balanced, rows, tiny_tokenizer())
    whole = tiny_tokenizer()
    of_question: dict[str, list[int]] = {}
    for row in rows:
        text = fill(view.prompt, row) + "".join(fill(piece.text, row) for piece in view.target)
        of_question.setdefault(row["question"], []).append(len(whole(text)["input_ids"]) + 1)  # and its end
    assert [len(lengths) for lengths in of_question.values()] == [1, 2, 3]
    assert length.tokens_per_epoch == round(sum(sum(each) / len(each) for each in of_question.values()))
    assert length.steps_per_epoch == 2  # of three questions, one chain each


def test_what_the_trainer_refuses_is_named_by_its_stage(student: str) -> None:
    refused = {"eval_strategy": "epoch", "save_strategy": "steps", "load_best_model_at_end": True}
    with pytest.raises(UserError, match=r"^stages\.stage_1\.training or student: .*load_best_model_at_end"):
        own_lengths(recipe(student, {}, refused), ROWS, tiny_tokenizer())


def test_lengths_within_a_budget_by_hand() -> None:
    own = [StageLength("a", 300, 4, 2.0), StageLength("b", 100, 7, 4.0)]  # 600 and 400 tokens
    bounded = within_budget(own, 250)
    assert [(each.stage, each.tokens_per_epoch, each.steps_per_epoch) for each in bounded] == [
        ("a", 300, 4),
        ("b", 100, 7),
    ]
    assert [each.epochs for each in bounded] == [0.499999, 0.999999]  # a millionth less than a quarter of 2 and of 4
    assert [each.tokens for each in own] == [600, 400]


def test_a_budget_of_next_to_nothing_is_a_millionth_of_an_epoch() -> None:
    assert [each.epochs for each in within_budget([StageLength("a", 10**9, 4, 2.0)], 1)] == [1e-6]


def test_tokens_of_an_epoch_are_those_of_its_sequences(student: str) -> None:
    twice = recipe(student, {"num_train_epochs": 2})
    (length,) = own_lengths(twice, ROWS, tiny_tokenizer())
    columns, _ = encode(tiny_tokenizer(), ROWS, twice.stages[0], None)
    assert length.tokens_per_epoch == sum(len(ids) for ids in columns["input_ids"])
    assert length.tokens == 2 * length.tokens_per_epoch


def test_max_steps_are_turned_into_epochs(student: str) -> None:
    (length,) = own_lengths(recipe(student, {"max_steps": 6}), ROWS, tiny_tokenizer())
    assert length.epochs == 6 / 4  # seven records by two are four steps


def test_what_is_read_within_a_budget_is_off_by_a_step_at_most_for_each_stage(student: str, tmp_path: Path) -> None:
    own = own_lengths(recipe(student, {"num_train_epochs": 1}, {"max_steps": 2}), ROWS, tiny_tokenizer())
    budget = 5 * own[0].tokens_per_epoch
    lengths = within_budget(own, budget)
    bounded = recipe(student, *({"num_train_epochs": length.epochs, "max_steps": -1} for length in lengths))
    read = sum(trained(student, stage, tmp_path / stage.name).num_input_tokens_seen for stage in bounded.stages)
    columns, _ = encode(tiny_tokenizer(), ROWS, bounded.stages[0], None)
    largest_step = sum(sorted((len(ids) for ids in columns["input_ids"]), reverse=True)[:2])
    assert abs(read - budget) <= 2 * largest_step


LENGTHS = st.lists(
    st.builds(StageLength, st.just("s"), st.integers(1, 10**7), st.integers(1, 10**5), st.floats(0.01, 50)),
    min_size=1,
    max_size=4,
)


@given(LENGTHS, st.integers(10**6, 10**9))
def test_a_budget_is_spent_and_split_as_the_recipe_would(own: list[StageLength], tokens: int) -> None:
    bounded = within_budget(own, tokens)
    slack = sum(length.tokens_per_epoch for length in own) * 2e-6  # epochs are cut to six decimals
    assert sum(length.tokens for length in bounded) == pytest.approx(tokens, abs=slack)
    for before, after in zip(own, bounded, strict=True):
        expected = tokens * before.tokens / sum(length.tokens for length in own)
        assert after.tokens == pytest.approx(expected, abs=slack)


@given(st.integers(1, 10**4), st.integers(1, 10**5), st.floats(0.01, 50))
@example(75, 333, 1.0)  # 4.44 * 75 is more than 333
def test_tokens_of_whole_steps_are_not_one_step_more(steps_per_epoch: int, wanted: int, epochs: float) -> None:
    """The trainer rounds up, an error of floating point as well."""
    tokens_per_step = 37
    own = [StageLength("s", tokens_per_step * steps_per_epoch, steps_per_epoch, epochs)]
    (bounded,) = within_budget(own, wanted * tokens_per_step)
    assert math.ceil(bounded.epochs * steps_per_epoch) == wanted


def test_a_budget_below_one_step_is_one_step() -> None:
    (bounded,) = within_budget([StageLength("s", 10**9, 1000, 1.0)], 1)
    assert math.ceil(bounded.epochs * 1000) == 1
