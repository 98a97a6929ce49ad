"""How long a recipe trains for a number of tokens, against the trainer that does it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.records import PROMPT, RIGHT, TRAINING, duals, saved_student
from tests.tiny_students import tiny_tokenizer
from toolkit.encoding import encode
from toolkit.recipe import Recipe, Stage
from toolkit.stages import make_trainer
from toolkit.token_budget import StageLength, own_lengths, within_budget

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
