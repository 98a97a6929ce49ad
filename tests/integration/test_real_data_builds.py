"""The two builds from real data, each as its recipe in `recipes/data` describes it; skipped where data is absent."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest

from dataset_builders.building import BuildReport, build_dataset
from dataset_builders.figures import key_share
from toolkit.cli import open_recipe
from toolkit.problem import Problem
from toolkit.prompts import PromptBook

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
AUTHORS = DATA / "edit_cascod" / "dataset" / "bbh"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"real data is not at {DATA}"),
]


def build(name: str, folder: Path, *overrides: str) -> BuildReport:
    recipe = open_recipe(str(ROOT / "recipes" / "data" / name), overrides)
    return build_dataset(
        recipe.dataset.builder or "",
        recipe.dataset.config,
        folder / "store.sqlite",
        hub_dir=folder / "hub",
        repo_id=recipe.dataset.repo_id,
        revision=recipe.dataset.revision,
        command=f"distill build recipes/data/{name}",
        cache_dir=folder / "cache",
        show_progress=False,
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("COT_DATA", str(DATA))
        return build("dual_cots_pairs.yaml", tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("COT_DATA", str(DATA))
        return build("dual_cots_bbh.yaml", folder, f"dataset.config.teacher.store={folder / 'recordings.sqlite'}")


def known_pairs(task: str = "") -> list[dict[str, Any]]:
    with gzip.open(DATA / "dual_cots" / "pairs.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row for row in rows if row["task"].startswith(task)]


# --- ready-made pairs ----------------------------------------------------------------------------------------------


def test_every_real_pair_is_published_or_rejected_with_a_reason(pairs: BuildReport) -> None:
    outcome = pairs.outcome

    assert len(outcome.train) + len(outcome.rejected) == len(known_pairs()) == 3854
    assert len(outcome.train) >= 3450
    assert all(record["reason"] for record in outcome.rejected)


def test_most_rejected_pairs_close_in_no_answer_clause(pairs: BuildReport) -> None:
    reasons = Counter(pairs.outcome.steps[0].reasons)

    assert reasons.most_common(1)[0][0] == "right chain: no answer clause"
    assert reasons["right chain is wrong"] + reasons["wrong chain is right"] <= 20


def test_published_chains_hold_no_answer_clause_and_no_mark_of_one_side_only(pairs: BuildReport) -> None:
    assert len(pairs.outcome.train) >= 3450
    for record in pairs.outcome.train:
        sides = [record[side]["rationale"] for side in ("right", "wrong")]
        assert all(sides)
        assert len({"<<" in text for text in sides}) == 1


def test_bbh_pairs_are_closer_than_pairs_of_other_origins(pairs: BuildReport) -> None:
    shares = pairs.shares["words"]
    bbh = [share for task, share in shares.items() if task.startswith("bbh/")]

    assert sum(share.pairs for share in bbh) > 550
    assert sum(share.right * share.pairs for share in bbh) / sum(share.pairs for share in bbh) < shares["gsm8k"].right


def test_the_card_shows_the_leak_into_gsm8k_s_test_set(pairs: BuildReport) -> None:
    card = (pairs.published.folder / "README.md").read_text()
    (found,) = re.findall(r"\| gsm8k test \| 1319 \| (\d+) ", card)

    asked = {record["question"] for record in pairs.outcome.train if record["task"] == "gsm8k"}
    assert int(found) >= 0.99 * len(asked)


# --- ready-made steps ----------------------------------------------------------------------------------------------


def test_gsm8k_s_own_steps_are_published_and_the_card_calls_them_test_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COT_DATA", str(DATA))

    report = build("socratic_steps_gsm8k.yaml", tmp_path)

    card = (report.published.folder / "README.md").read_text()
    assert len(report.outcome.train) == 1317
    assert len(report.outcome.rejected) == 2
    assert "| gsm8k test | 1319 | 1317 (99.8 %) |" in card
    assert "| decomposed | human solutions, sub-questions by GPT-3 | none | not known | 1319 |" in card


# --- recorded teacher ----------------------------------------------------------------------------------------------


def test_rendered_prompts_are_the_recorded_ones(recorded: BuildReport) -> None:
    cot, hint, contrastive = recorded.outcome.steps

    assert cot.records == 6511
    assert cot.reasons["not recorded"] == 1  # a question that bbh/bbh cuts short and its recorded prompt does not
    assert cot.outcomes["right"] == pytest.approx(4816, abs=2)
    assert hint.accepted > 550
    assert contrastive.reasons == {"not recorded": contrastive.records}


def test_every_answer_hint_prompt_of_the_authors_is_rendered_to_the_letter() -> None:
    book = PromptBook(ROOT, {"answer_hint": f"{AUTHORS}/cot-ahp/{{task}}.txt"})
    paths = sorted((AUTHORS / "bbh_all_data").glob("*.gz"))
    assert paths
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = json.load(file)
        assert len(rows) == 701
        for row in rows:
            problem = Problem(id="", task=row["task_name"], question=row["instruction"], answer=row["output"])
            assert book.render("answer_hint", problem)[0] == row["prompt"]


def test_recorded_chains_name_who_wrote_them_and_claim_no_sampling(recorded: BuildReport) -> None:
    record = recorded.outcome.train[0]

    assert record["right"]["provenance"]["model"] == "chatgpt"
    assert record["wrong"]["provenance"]["model"] == "code-davinci-002"
    assert record["right"]["provenance"]["temperature"] is None


def test_the_duals_are_those_that_were_paired_independently(recorded: BuildReport) -> None:
    made = {(f"bbh/{record['task']}", record["question"]): record for record in recorded.outcome.train}
    known = {(row["task"], row["question"]): row for row in known_pairs("bbh/")}
    both = made.keys() & known.keys()

    assert len(both) >= 570
    for key in both:
        assert made[key]["right"]["provenance"]["completion"].strip() == known[key]["right"]["cot"].strip()
        assert made[key]["wrong"]["provenance"]["completion"].strip() == known[key]["wrong"]["cot"].strip()
    left_out = Counter(
        record["reason"]
        for record in recorded.outcome.rejected
        if (f"bbh/{record['task']}", record["question"]) in known.keys() - made.keys()
    )
    # A question that BBH has twice, with opposite golds.
    assert left_out.pop("answer_hint: not recorded") == left_out.pop("contrastive: not recorded") == 1
    # Wrong chains that settle on two letters, and pairs that differ in nothing but the letter.
    assert left_out.keys() == {"cot: no answer in the answer clause", "answer_hint: both rationales are the same"}


def test_the_card_prints_the_key_share_of_every_task(recorded: BuildReport) -> None:
    card = (recorded.published.folder / "README.md").read_text()
    shares = recorded.shares["words"]

    assert len(shares) >= 25
    for task, share in shares.items():
        assert f"| {task} | {share.pairs} | {100 * share.right:.1f} % | {100 * share.wrong:.1f} % |" in card
        assert task in recorded.summary()


def test_the_published_folder_loads(recorded: BuildReport, tmp_path: Path) -> None:
    folder = str(recorded.published.folder)
    datasets.disable_progress_bars()

    loaded = datasets.load_dataset(folder, "default", cache_dir=str(tmp_path))

    assert {split: len(rows) for split, rows in loaded.items()} == {
        "train": len(recorded.outcome.train),
        "rejected": len(recorded.outcome.rejected),
    }


# --- key steps -----------------------------------------------------------------------------------------------------


def test_key_shares_of_the_authors_exemplars_are_the_published_ones() -> None:
    # docs/methods/edit.md: 14.7 % of chosen and 13.6 % of rejected tokens (micro), median per pair 9.8 % and 8.0 %.
    block = re.compile(r"Right Response: (.*?)\n+Wrong Response: (.*?)(?=\n+Q: )", re.DOTALL)
    exemplars = [
        pair for path in sorted((AUTHORS / "cot-ccp").glob("*.txt")) for pair in block.findall(path.read_text())
    ]

    share = key_share(exemplars)

    assert len(exemplars) == 81
    assert share is not None
    found = [100 * value for value in (share.right, share.wrong, share.median_right, share.median_wrong)]
    assert found == pytest.approx([14.7, 13.6, 9.8, 8.0], abs=1.0)
    assert share.median_spans == pytest.approx(6, abs=1)
