from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.asking import Asker, Outcome
from dataset_builders.dual_cots import DualCots
from tests.scripted_answers import ScriptedAnswers, outcome_of
from toolkit.errors import UserError


def pair(name: str = "a", **more: Any) -> dict[str, Any]:
    right = {"model": "m1", "cot": "3 + 4 = 7. So the answer is 7."}
    wrong = {"model": "m2", "cot": "3 + 4 = 8. The answer is 8."}
    return {"id": name, "task": "sums", "question": "3 + 4?", "gold": "7", "right": right, "wrong": wrong, **more}


def built(tmp_path: Path, *rows: object) -> Outcome:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    settings = DualCots.SETTINGS.model_validate({"pairs": {"path": str(path)}})
    asker = Asker(settings, ScriptedAnswers(lambda *_: None), "paired", "")
    return outcome_of(DualCots, settings, [], asker)


def test_a_pair_becomes_a_record_with_one_answer_phrase_and_its_own_writers(tmp_path: Path) -> None:
    (row,) = built(tmp_path, pair()).train

    assert (row["right"]["rationale"], row["wrong"]["rationale"]) == ("3 + 4 = 7.", "3 + 4 = 8.")
    assert (row["right"]["provenance"]["model"], row["wrong"]["provenance"]["model"]) == ("m1", "m2")
    assert row["right"]["origin"] == "paired"
    assert DualCots.sft(row)["completion"].endswith("\nTherefore, the answer is 7.")


def test_marks_on_one_side_only_are_no_key_step(tmp_path: Path) -> None:
    (row,) = built(tmp_path, pair(right={"cot": "3 + 4 = <<3+4=7>>7.\nA: 7"})).train

    assert row["right"]["rationale"] == "3 + 4 = 7."
    assert row["right"]["provenance"]["completion"] == "3 + 4 = <<3+4=7>>7.\nA: 7"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"right": {"cot": "Hm. The answer is 8."}}, "right chain is wrong"),
        ({"wrong": {"cot": "Hm. The answer is 7."}}, "wrong chain is right"),
        ({"wrong": {"cot": "3 + 4 = 7. The answer is 8."}}, "both rationales are the same"),
        ({"wrong": {"cot": "I can't tell."}}, "wrong chain: no answer clause"),
    ],
)
def test_a_pair_that_is_none_is_rejected_with_its_reason(tmp_path: Path, change: Any, reason: str) -> None:
    assert [row["reason"] for row in built(tmp_path, pair(**change)).rejected] == [reason]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([pair(gold="")], "jsonl:1: 'gold' must be a text"),
        ([pair(), pair()], "jsonl:2: id 'a' is already the id of .*jsonl:1"),
        ([pair(right="text")], "jsonl:1: 'right' must be an object"),
        ([pair(right={"model": "m"})], "jsonl:1: right: 'cot' must be a text"),
        ([pair(), "{not json\n"], "jsonl:2: is not JSON"),
        ([], "is empty"),
    ],
)
def test_a_faulty_file_is_named_with_its_line(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        built(tmp_path, *rows)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    settings = DualCots.SETTINGS.model_validate({"pairs": {"path": str(tmp_path / "none.jsonl")}})
    asker = Asker(settings, ScriptedAnswers(lambda *_: None), "paired", "")
    with pytest.raises(UserError, match=r"none\.jsonl"):
        outcome_of(DualCots, settings, [], asker)


def test_what_no_encoding_can_hold_is_replaced_and_nul_is_rejected(tmp_path: Path) -> None:
    outcome = built(
        tmp_path,
        pair("a", question="3 + 4 \ud800?"),
        pair("b", right={"cot": "3 \0 4. The answer is 7."}),
        pair("c", right={"cot": "x" * 1_000_000 + " The answer is 7."}),
    )

    outcome.train[0]["question"].encode()
    assert [row["reason"] for row in outcome.rejected] == [
        "right chain: holds NUL characters",
        "right chain: longer than 20000 characters",
    ]
