"""Numbers, truth values and classes as text: what their source wrote, or a fault."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import UserError
from toolkit.problem import Problem
from toolkit.problem_files import Row
from toolkit.problem_rows import Columns, problems_of_rows
from toolkit.problem_sources import DatasetProblems, load_problems
from toolkit.problem_values import written


def answer(gold: Any) -> str:
    row = Row("f:3", "f", {"question": "What?", "answer": gold})
    ((_, problem),) = problems_of_rows([row], Columns(), None, "auto", "t")
    return problem.answer


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((51.0, "51"), (3.3, "3.3"), (-0.0, "0"), (-2.5, "-2.5"), (1e23, "1" + 23 * "0"), (1e-7, "0.0000001")),
        *((2**70, str(2**70)), (0, "0"), (-3, "-3"), (True, "yes"), (False, "no"), ("3.30", "3.30"), (" x ", "x")),
        *((Decimal("3.30"), "3.30"), (Decimal("51.00"), "51.00"), (Decimal("1E+3"), "1000"), (Decimal("-0.5"), "-0.5")),
        *((np.float32(3.3), "3.3"), (np.float32(0.1), "0.1"), (np.float16(3.3), "3.3"), (np.float64(3.3), "3.3")),
        *((np.float32(51), "51"), (np.int64(7), "7"), (np.uint8(7), "7"), (np.bool_(True), "yes"), (np.str_("a"), "a")),
        *((np.float32(16777216), "16777216"), (np.array(5), "5")),
    ],
)
def test_a_gold_answer_is_the_value_as_it_was_written(value: Any, text: str) -> None:
    assert answer(value) == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        *((None, "has no value"), (math.nan, "has no value"), (np.float32("nan"), "has no value")),
        *((Decimal("NaN"), "has no value"), (Decimal("sNaN"), "has no value"), (math.inf, "holds inf")),
        *((-math.inf, "holds -inf"), (Decimal("Infinity"), "holds Infinity"), (np.float32("inf"), "holds inf")),
        *((b"3", "holds a bytes"), ([3], "holds a list"), ({"value": 3}, "holds a dict"), ((3,), "holds a tuple")),
        *((datetime.date(2024, 1, 2), "holds a date"), (datetime.datetime(2024, 1, 2), "holds a datetime")),
        *((datetime.timedelta(1), "holds a timedelta"), (Fraction(1, 3), "holds a Fraction"), (3j, "holds a complex")),
        *((np.array([3]), "holds a ndarray"), ("", "is empty"), (" ", "is empty")),
        *(("\0", "NUL"), ("\ud800", "Unicode")),
    ],
)  # fmt: skip
def test_what_is_no_text_and_no_number_is_no_gold_answer(value: Any, reason: str) -> None:
    with pytest.raises(UserError, match="f:3: no gold answer: ") as raised:
        answer(value)
    assert reason in str(raised.value)


def test_a_question_that_is_missing_is_a_fault_and_no_word() -> None:
    with pytest.raises(UserError, match="f:1: column 'question' has no value"):
        list(problems_of_rows([Row("f:1", "f", {"question": math.nan, "answer": 1})], Columns(), None, "auto", "t"))


@given(st.integers(-999_999, 999_999), st.integers(0, 6))
def test_a_float_of_32_bits_has_the_digits_that_it_was_written_with(digits: int, places: int) -> None:
    """It tells numbers of six digits apart."""
    number = Decimal(digits).scaleb(-places)
    assert Decimal(written(np.float32(str(number)), "answer")) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_written_as_itself(number: float) -> None:
    text = written(number, "answer")
    assert float(text) == number
    assert "e" not in text


def problems(folder: Path, rows: dict[str, list[Any]], features: datasets.Features, **config: Any) -> list[Problem]:
    """Return the problems of a dataset that was saved as Parquet, as those on the Hub are."""
    file = folder / "train.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(file)
    given = {"source": "dataset", "path": "parquet", "data_files": str(file), "split_names": {"train": "train"}}
    return load_problems(DatasetProblems.model_validate({**given, "split": "train", **config}), "train")


def test_a_class_is_its_name(tmp_path: Path) -> None:
    features = datasets.Features(question=datasets.Value("string"), answer=datasets.ClassLabel(names=["no", "yes"]))
    found = problems(tmp_path, {"question": ["a", "b"], "answer": [1, 0]}, features)
    assert [problem.answer for problem in found] == ["yes", "no"]


@pytest.mark.parametrize("missing", [-1, None])
def test_a_row_without_a_class_has_no_gold_answer(tmp_path: Path, missing: int | None) -> None:
    features = datasets.Features(question=datasets.Value("string"), answer=datasets.ClassLabel(names=["no", "yes"]))
    with pytest.raises(UserError, match=r"parquet\[train\] row 1: no gold answer: column 'answer' has no value"):
        problems(tmp_path, {"question": ["a", "b"], "answer": [1, missing]}, features)


def test_the_classes_of_options_are_their_letters(tmp_path: Path) -> None:
    """As MMLU has them: a list of texts, and a class whose names are letters."""
    features = datasets.Features(
        question=datasets.Value("string"),
        choices=datasets.List(datasets.Value("string")),
        answer=datasets.ClassLabel(names=list("ABCD")),
    )
    rows = {"question": ["q"], "choices": [["0", "4", "2", "6"]], "answer": [1]}
    (problem,) = problems(tmp_path, rows, features, columns={"choices": "choices"})
    assert (problem.answer, problem.choices[1]) == ("(B)", "4")


def test_short_floats_and_nested_classes_are_read_by_their_features(tmp_path: Path) -> None:
    features = datasets.Features(
        question=datasets.Value("string"),
        meta={"task": datasets.ClassLabel(names=["sum", "product"])},
        choices={"label": datasets.List(datasets.Value("string")), "text": datasets.List(datasets.Value("float32"))},
        answer=datasets.Value("float32"),
    )
    choices = {"label": ["A", "B"], "text": [3.3, 4.1]}
    rows = {"question": ["q"], "meta": [{"task": 1}], "choices": [choices], "answer": [4.1]}
    (problem,) = problems(tmp_path, rows, features, columns={"choices": "choices", "task": "meta.task"})
    assert (problem.choices, problem.answer, problem.task) == (("3.3", "4.1"), "(B)", "product")


def test_golds_of_32_bits_and_decimals_are_read_as_written(tmp_path: Path) -> None:
    numbers = {
        "float32": pa.array([3.3], pa.float32()),
        "float16": pa.array([np.float16(3.3)], pa.float16()),
        "decimal": pa.array([Decimal("3.30")], pa.decimal128(6, 2)),
    }
    found = []
    for name, column in numbers.items():
        file = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"question": pa.array(["q"]), "answer": column}), file)
        config = {"source": "dataset", "path": "parquet", "data_files": str(file), "split_names": {"train": "train"}}
        found += load_problems(DatasetProblems.model_validate({**config, "split": "train"}), "train")
    assert [problem.answer for problem in found] == ["3.3", "3.3", "3.30"]
