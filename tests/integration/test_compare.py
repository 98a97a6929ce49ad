"""Two recipes with two seeds on one page, trained within a budget of tokens, and what the same command does again."""

from __future__ import annotations

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet

from tests.tiny_recipe import EDIT
from tests.warm import distill_words, in_warm_process
from toolkit import evaluation, stages
from toolkit.cli import main

pytestmark = pytest.mark.slow

TOKENS = 12_000


def write(folder: Path, name: str, **sections: Any) -> str:
    """Write the tiny recipe under another name and with other sections."""
    recipe = copy.deepcopy(EDIT) | {"recipe": {"name": name, "version": 1}} | sections
    folders = {"output_dir": str(folder / "outputs"), "hub_dir": str(folder / "hub")}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe | folders, sort_keys=False))
    return str(folder / f"{name}.yaml")


class Compared:
    """Two recipes that were compared by the command line: answers alone, and EDIT with its two stages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        answers = copy.deepcopy(EDIT["references"]["answer_only"]["stages"])
        files = [write(folder, "answers", stages=answers, references={}), write(folder, "edit")]
        self.words = ["compare", *files, "--baseline", "answers", "--seeds", "0", "1", "--tokens", str(TOKENS)]
        self.words += ["--output", str(folder / "page")]
        self.ran = in_warm_process(distill_words, *self.words)
        assert self.ran.returncode == 0, self.ran.stderr[-3000:]

    def told(self) -> Any:
        return json.loads((self.folder / "page" / "compare.json").read_text())

    def samples(self, recipe: str, on: str) -> list[list[dict[str, Any]]]:
        """Return the completions of a recipe's runs, found by the recipe that lies beside them, in order of seeds."""
        found = {}
        for file in self.folder.glob(f"outputs/{recipe}/*/recipe.yaml"):
            seed = yaml.safe_load(file.read_text())["student"]["seed"]
            (samples,) = file.parent.glob(f"samples/*-{on}.parquet")
            found[seed] = parquet.read_table(samples).to_pylist()
        return [found[seed] for seed in (0, 1)]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    return Compared(tmp_path_factory.mktemp("compare"))


@pytest.mark.parametrize("on", ["in_domain", "out_of_domain"])
@pytest.mark.parametrize("recipe", ["answers", "edit"])
def test_scores_are_what_the_samples_add_up_to(compared: Compared, recipe: str, on: str) -> None:
    told = compared.told()["recipes"][recipe]["sets"][on]
    runs = compared.samples(recipe, on)
    shares = [sum(row["correct"] for row in rows) / len(rows) for rows in runs]
    assert told["accuracy_by_seed"] == pytest.approx(shares)
    assert told["accuracy"]["mean"] == pytest.approx(sum(shares) / 2)
    assert told["accuracy"]["standard_error"] == pytest.approx(abs(shares[0] - shares[1]) / 2)  # of two values
    assert told["generated_tokens_per_question"] == pytest.approx(
        sum(row["tokens"] for rows in runs for row in rows) / (2 * len(runs[0]))
    )


def test_the_test_pairs_the_answers_to_the_same_question(compared: Compared) -> None:
    both = {
        recipe: set.intersection(
            *({row["id"] for row in rows if row["correct"]} for rows in compared.samples(recipe, "in_domain"))
        )
        for recipe in ("answers", "edit")
    }
    edit, answers = len(both["edit"] - both["answers"]), len(both["answers"] - both["edit"])
    told = compared.told()["recipes"]["edit"]["sets"]["in_domain"]["against_baseline"]
    n = edit + answers
    tail = sum(math.comb(n, k) for k in range(min(edit, answers) + 1)) / 2**n
    p = pytest.approx(min(1.0, 2 * tail))
    difference = told.pop("difference")
    assert told == {"only_this": edit, "only_baseline": answers, "p": p, "p_holm": p}
    means = [compared.told()["recipes"][recipe]["sets"]["in_domain"]["accuracy"]["mean"] for recipe in both]
    assert difference["mean"] == pytest.approx(means[1] - means[0])


def test_every_recipe_reads_the_same_number_of_tokens(compared: Compared) -> None:
    for recipe in compared.told()["recipes"].values():
        training = recipe["training"]
        assert training["tokens"] == pytest.approx(TOKENS, rel=0.05)
        assert 0 < training["loss_tokens"] < training["tokens"]
    epochs = [length["epochs"] for length in compared.told()["recipes"]["edit"]["lengths"]]
    assert epochs[0] / epochs[1] == pytest.approx(8 / (6 / 30), rel=1e-3)  # as of 120 steps of 15, and 6 of 30


def test_only_the_recipes_own_student_is_trained_and_scored(compared: Compared) -> None:
    """No reference, and of the student between the stages no score."""
    trained = compared.folder.glob("outputs/edit/stages/*/student/stage.json")
    assert sorted(path.parts[-3].split("-")[0] for path in trained) == ["imitate"] * 2 + ["key_steps"] * 2
    scored = compared.folder.glob("outputs/edit/*/samples/*.parquet")
    assert {path.name for path in scored} == {"key_steps-in_domain.parquet", "key_steps-out_of_domain.parquet"}


def test_nothing_is_published_but_the_dataset(compared: Compared) -> None:
    assert sorted(path.name for path in (compared.folder / "hub").iterdir()) == ["datasets", "stores"]


def test_the_page_names_no_folder_of_the_machine(compared: Compared) -> None:
    for page in ("compare.md", "compare.html", "compare.json"):
        assert str(compared.folder) not in (compared.folder / "page" / page).read_text()


def test_the_summary_names_the_pages(compared: Compared) -> None:
    for suffix in ("html", "md", "json", "png"):
        assert f"{suffix:<6}{compared.folder / 'page' / f'compare.{suffix}'}\n" in compared.ran.stdout


def test_the_same_words_train_and_decode_nothing_and_write_the_same_page(
    compared: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("trained again")

    def nothing(model: Any, tokenizer: Any, rows: list[Any], *args: Any, **kwargs: Any) -> Any:
        assert not rows, "decoded again"
        return iter(())

    monkeypatch.setattr(stages, "make_trainer", never)
    monkeypatch.setattr(evaluation, "generate_batches", nothing)
    before = compared.told()
    shutil.rmtree(compared.folder / "page")
    assert main(compared.words) == 0
    assert compared.told() == before
