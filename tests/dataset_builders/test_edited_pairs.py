"""Ready-made edits: small files of our own, and people's."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.building import build_dataset
from dataset_builders.counterfactual_pairs import CounterfactualPairs
from tests.scripted_answers import build
from toolkit.errors import UserError

DATA = Path(os.environ.get("COT_DATA") or Path(__file__).parents[3] / "shared" / "data") / "counterfactual_human"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"real data is not at {DATA}")
NLI = {
    "labels": ["entailment", "neutral", "contradiction"],
    "layout": "Premise: {sentence1}\nHypothesis: {sentence2}",
    "fields": {"sentence1": 0.5, "sentence2": 0.8},
    "most": 4,
}
REVIEWS = {"layout": "{Text}", "fields": {"Text": 0.35}, "labels": ["Positive", "Negative"]}


def outcome_of(**more: Any) -> Any:
    settings = CounterfactualPairs.SETTINGS.model_validate(more)
    outcome, requests = build(CounterfactualPairs, settings, [], lambda kind, request: None)
    assert requests == []
    return outcome


def written(folder: Path, name: str, *rows: str) -> str:
    (folder / name).write_text("\n".join(("\t".join(("Text", "Sentiment", "batch_id")), *rows)) + "\n")
    return str(folder / name)


def reviews(path: str) -> Any:
    return outcome_of(**REVIEWS, edited={"path": path, "pair": "batch_id", "answer": "Sentiment", "model": "people"})


def test_rows_that_share_a_pair_are_an_original_and_its_edit(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "train.tsv",
        "A film that is good.\tPositive\t1",
        "A film that is bad.\tNegative\t1",
        '"One ""great""\tlaugh."\tPositive\t2',
        '"No ""great""\tlaugh at all in this."\tNegative\t2',
    )
    outcome = reviews(path)

    first, edit, second = outcome.train
    assert (first["question"], first["answer"], first["has_cf"]) == ("A film that is good.", "Positive", True)
    assert (edit["question"], edit["answer"], edit["pair_id"]) == ("A film that is bad.", "Negative", first["id"])
    assert (edit["edit"]["field"], edit["edit"]["ratio"], edit["edit"]["vote_share"]) == ("Text", 0.2, None)
    assert (edit["edit"]["provenance"]["teacher"], edit["edit"]["provenance"]["model"]) == ("edited", "people")
    assert (first["why"], first["whys"], first["refutes"]) == (None, [], [])
    assert (second["question"], second["has_cf"]) == ('One "great"\tlaugh.', False)
    assert [row["reason"] for row in outcome.rejected] == ["edited: larger than 0.35 of the Text"]


def test_an_edit_without_reasons_is_its_answer_to_plain_trainers(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "A film that is good.\tPositive\t1", "A film that is bad.\tNegative\t1")
    made = CounterfactualPairs.sft(reviews(path).train[1])
    assert (made["prompt"], made["completion"]) == (
        "Q: A film that is bad.\n\nA:\n",
        "Therefore, the answer is Negative.",
    )


def test_a_published_dataset_of_ready_made_edits_tells_of_its_cells(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "A film that is good.\tPositive\t1", "A film that is bad.\tNegative\t1")
    edited = {"path": path, "pair": "batch_id", "answer": "Sentiment", "model": "people"}
    report = build_dataset(
        "counterfactual_pairs",
        CounterfactualPairs.SETTINGS.model_validate({**REVIEWS, "edited": edited}),
        tmp_path / "none.sqlite",
        **{"hub_dir": tmp_path / "hub", "repo_id": "reviews", "revision": "v1.0.0", "command": "distill build x"},
        cache_dir=tmp_path / "cache",
    )
    card = (report.published.folder / "README.md").read_text()
    assert "| Positive | Negative | 1 | 1 | 100.0 % | 0.20 |" in card
    assert "edits from Positive to Negative: 1 of 1 kept" in report.summary()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["A.\tPositive\t1", "B.\tNegative\t1", "C.\tPositive\t2"], r"t\.tsv:4: the pair '2' has one row alone"),
        (
            [f"{text}\t{label}\t{pair}" for pair in "121" for text, label in (("A.", "Positive"), ("B.", "Negative"))],
            r"t\.tsv:6: rows of the pair '1' stand in two places",
        ),
        (["A.\tPositive"], r"t\.tsv:2: has 2 cells, and the table 3 columns"),
        (["A.\t\t1", "B.\tNegative\t1"], r"t\.tsv:2: no gold answer: column 'Sentiment' is empty"),
    ],
)
def test_a_faulty_file_is_told_with_its_line(tmp_path: Path, rows: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        reviews(written(tmp_path, "t.tsv", *rows))


def test_files_of_edits_have_as_many_rows_for_every_original(tmp_path: Path) -> None:
    originals = written(tmp_path, "o.tsv", "A good film.\tPositive\t1")
    for name, rows, told in (
        ("few.tsv", ["A bad film.\tNegative\t1"], "few.tsv: has no 2 rows for .*o.tsv:2"),
        ("many.tsv", ["A bad film.\tNegative\t1"] * 3, "many.tsv: has more than 2 rows for each of"),
    ):
        edited = {"path": originals, "revised": [written(tmp_path, name, *rows)], "per_original": 2}
        with pytest.raises(UserError, match=told):
            outcome_of(**REVIEWS, edited={**edited, "answer": "Sentiment"})


@pytest.mark.data
@real
def test_people_s_reviews_load_and_the_filters_say_which_are_no_small_edits() -> None:
    """1,707 pairs; shares as measured on the file by itself: 4.2 % above 0.35, 0.5 % below 0.01."""
    path = str(DATA / "sentiment/combined/paired/train_paired.tsv.gz")
    outcome = reviews(path)

    rows = (*outcome.train, *outcome.rejected)
    assert Counter(row["is_cf"] for row in rows) == {False: 1707, True: 1707}
    reasons = Counter(row["reason"] for row in outcome.rejected)
    assert reasons["edited: larger than 0.35 of the Text"] / 1707 == pytest.approx(0.042, abs=0.003)
    assert reasons["edited: smaller than 0.01 of the Text"] / 1707 == pytest.approx(0.005, abs=0.002)
    assert sum(reasons.values()) < 0.07 * 1707
    assert {row["answer"] for row in outcome.train} == {"Positive", "Negative"}
    edited = {row["pair_id"] for row in outcome.train if row["is_cf"]}
    assert {row["id"] for row in outcome.train if row["is_original"] and row["has_cf"]} == edited


@pytest.mark.data
@real
def test_people_s_revisions_of_premises_and_hypotheses_load_with_the_field_that_they_changed() -> None:
    """200 originals, 400 revised premises and 400 revised hypotheses, of which one premise is what it was."""
    revised = [str(DATA / f"NLI/revised_{field}/dev.tsv") for field in ("premise", "hypothesis")]
    edited = {"path": str(DATA / "NLI/original/dev.tsv"), "revised": revised, "per_original": 2}
    outcome = outcome_of(**NLI, edited={**edited, "answer": "gold_label", "kind": "text", "task": "nli"})

    edits = [row for row in (*outcome.train, *outcome.rejected) if row["is_cf"]]
    assert Counter(row["edit"]["field"] for row in edits) == {"sentence1": 400, "sentence2": 400}
    reasons = Counter(row["reason"] for row in outcome.rejected)
    assert reasons["edited: unchanged"] >= 1
    assert reasons["edited: larger than 0.5 of the sentence1"] == pytest.approx(38, abs=3)  # 9.5 % of 400
    assert reasons["edited: larger than 0.8 of the sentence2"] == pytest.approx(42, abs=3)  # 10.5 % of 400
    assert Counter(row["is_original"] for row in outcome.train)[True] == 200
    assert all(row["edit"]["from_answer"] != row["answer"] for row in outcome.train if row["is_cf"])
