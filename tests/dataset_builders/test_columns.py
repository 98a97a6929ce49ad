from __future__ import annotations

import datasets

from dataset_builders.columns import STEPS, Column, features, leaves, text_paths

TABLE = {
    "id": Column("string", "Name"),
    "steps": STEPS,
    "chain": {"parts": Column("list", "P", {"n": Column("int64", "N")})},
}


def test_a_list_of_records_keeps_its_items_whole() -> None:
    step = {"label": "Sub-question", "question": "Who?", "answer": "Ben."}
    rows = [{"id": "a", "steps": [step, step], "chain": {"parts": [{"n": 1}]}}, {"id": "b", "steps": [], "chain": None}]

    made = datasets.Dataset.from_list(rows, features=features(TABLE))

    assert list(made) == rows


def test_paths_through_a_list_are_marked_as_such() -> None:
    assert [path for path, _ in leaves(TABLE)] == [
        "id",
        "steps",
        "steps[].label",
        "steps[].question",
        "steps[].answer",
        "chain.parts",
        "chain.parts[].n",
    ]


def test_views_may_take_what_is_in_a_list_but_not_the_list() -> None:
    assert text_paths(TABLE) == {"id", "steps[].label", "steps[].question", "steps[].answer", "chain.parts[].n"}
