"""A method that no paper has, as a recipe alone: what DESIGN promises of every method of this kind."""

from __future__ import annotations

import copy
import json
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet

from tests.tiny_recipe import EDIT, distill
from toolkit.answers import matches
from toolkit.cli import open_recipe
from toolkit.encoding import encode_record
from toolkit.pipeline import evaluate, training_rows
from toolkit.stage_views import StageViews
from toolkit.students import load_tokenizer
from toolkit.votes import majority_vote

pytestmark = pytest.mark.slow

METHOD = r"""
recipe: {name: invented, version: 1, title: "Chains up, shuffled chains down, key words before the answer"}
dataset:
  builder: teacher_cots
  repo_id: invented-cots
  revision: v1.0.0
  config:
    samples: 2
    keep: all
    problems: {source: procedural, tasks: [ordering, dates], n: 40, n_test: 6, seed: 0}
    teacher: {kind: procedural, seed: 0}
stages:
  - name: mixed
    views:
      chain:                      # right chains, longer completions of the teacher count for more
        select: {draw: first, where: correct}
        row_weight: chain.provenance.completion_tokens
        prompt: "Q: {question}\nA:<think>"
        target: [" {chain.rationale}"]
        coefficient: 0.7
      keys:                       # its key words, then the answer; the words are read and not scored
        select: {draw: first, where: correct}
        prompt: "Q: {question}\nA:<think> {chain.rationale}\nKeys:"
        target:
          - {text: " {chain.rationale}", transform: {kind: keep, by: tfidf, k: 5, order: score}, weight: 0, role: keys}
          - "\nTherefore, the answer is {answer}."
      nonsense:                   # a chain in any order is made less likely
        select: {where: correct}
        prompt: "Q: {question}\nA:<think>"
        target: [{text: " {chain.rationale}", transform: {kind: shuffle, seed: 4}}]
        coefficient: -0.05
    reduction: {by: view, over: weighted}
decode:
  view: chain
  max_new_tokens: 24
  stop: ["\nKeys:"]
  then: [{view: keys, max_new_tokens: 40}]
  samples: 3
  temperature: 0.8
evaluation: {sets: {in_domain: {split: test}}, batch_size: 16}
publish: {repo_id: invented-student, revision: v1.0.0, license: apache-2.0}
"""


def written(folder: Path) -> Path:
    """Write the recipe with a tiny student and a few steps, and return its file."""
    recipe: dict[str, Any] = yaml.safe_load(METHOD)
    recipe["student"] = copy.deepcopy(EDIT["student"]) | {"special_tokens": ["<think>"]}
    recipe["stages"][0]["training"] = EDIT["stages"][1]["training"] | {"max_steps": 4, "learning_rate": 1e-3}
    recipe |= {"output_dir": str(folder / "outputs"), "hub_dir": str(folder / "hub")}
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return file


class Ran:
    """The method, trained, scored and published by the command line."""

    def __init__(self, folder: Path) -> None:
        self.file = written(folder)
        process = distill("train", self.file)
        assert process.returncode == 0, process.stderr[-3000:]
        self.published = folder / "hub" / "models" / "invented-student" / "v1.0.0"
        (self.samples_file,) = folder.glob("outputs/invented/*/samples/mixed-in_domain.parquet")
        self.recipe = open_recipe(str(self.file), ())
        self.rows = training_rows(self.recipe)
        self.tokenizer: Any = load_tokenizer(str(self.published))

    @property
    def samples(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = parquet.read_table(self.samples_file).to_pylist()
        return rows

    @cached_property
    def encoded(self) -> dict[str, dict[str, tuple[Any, Any]]]:
        """Return (tokens, sequence) by record and view."""
        stage = self.recipe.stages[0]
        views, names = StageViews(stage, self.rows), list(stage.views)
        return {
            row["id"]: {
                names[sequence.views[0]]: (tokens, sequence)
                for tokens, sequence in encode_record(self.tokenizer, views, index)
            }
            for index, row in enumerate(self.rows)
        }


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("invented"))


def by_id(ran: Ran) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in ran.rows}


# --- what is trained on


def test_each_view_has_the_records_that_it_selects(ran: Ran) -> None:
    shown = {view: {name for name, views in ran.encoded.items() if view in views} for view in ("chain", "nonsense")}
    right = {row["id"] for row in ran.rows if row["correct"]}
    assert 0 < len(right) < len(ran.rows)
    assert shown["nonsense"] == right
    questions = Counter(by_id(ran)[name]["question"] for name in shown["chain"])
    assert set(questions.values()) == {1}
    assert set(questions) == {row["question"] for row in ran.rows if row["correct"]}


def test_a_row_weight_multiplies_the_chains_weights_and_what_they_count(ran: Ran) -> None:
    told = by_id(ran)
    weights = set()
    for name, views in ran.encoded.items():
        if "chain" in views:
            tokens, sequence = views["chain"]
            worth = told[name]["chain"]["provenance"]["completion_tokens"]
            weights.add(worth)
            target = tokens.segments >= 0
            assert [w for w, inside in zip(sequence.weights, target, strict=True) if inside] == pytest.approx(
                [0.7 * worth] * int(target.sum())
            )
            assert [c for c, inside in zip(sequence.counts, target, strict=True) if inside] == [worth] * int(
                target.sum()
            )
    assert len(weights) > 1
    assert min(weights) > 0


def test_the_key_words_are_read_and_not_scored_and_the_answer_is(ran: Ran) -> None:
    told = by_id(ran)
    shown = {name: views["keys"] for name, views in ran.encoded.items() if "keys" in views}
    assert shown
    for name, (tokens, sequence) in shown.items():
        keys, answer = tokens.view.target
        assert len(keys.text.split()) == 5
        assert set(keys.text.split()) <= set(told[name]["chain"]["rationale"].split())
        assert answer.text == f"\nTherefore, the answer is {told[name]['answer']}."
        assert sequence.weights == [float(segment == 1) for segment in tokens.segments]


def test_a_shuffled_chain_is_weighed_down(ran: Ran) -> None:
    told = by_id(ran)
    changed = 0
    for name, views in ran.encoded.items():
        if "nonsense" in views:
            tokens, sequence = views["nonsense"]
            words = told[name]["chain"]["rationale"].split()
            assert Counter(tokens.view.target[0].text.split()) == Counter(words)
            changed += tokens.view.target[0].text.split() != words
            assert {w for w in sequence.weights if w} == {-0.05}
    assert changed > 10


def test_the_new_token_is_one_in_every_prompt(ran: Ran) -> None:
    think = ran.tokenizer.convert_tokens_to_ids("<think>")
    shown = [tokens for views in ran.encoded.values() for tokens, _ in views.values()]
    assert len(shown) > len(ran.rows)
    assert {int((tokens.input_ids == think).sum()) for tokens in shown} == {1}


# --- what is answered


def test_every_question_is_answered_three_times_in_two_turns(ran: Ran) -> None:
    samples = ran.samples
    assert len(samples) == 6 * 3
    assert Counter(Counter(row["id"] for row in samples).values()) == Counter({3: 6})
    for row in samples:
        assert [turn["view"] for turn in row["turns"]] == ["chain", "keys"]


def test_the_second_prompt_is_built_from_what_was_written_in_the_first_turn(ran: Ran) -> None:
    assert len(ran.samples) == 6 * 3
    for row in ran.samples:
        first, second = row["turns"]
        said = first["completion"]
        rationale = said.removeprefix(" ") if said.startswith(" ") else said.lstrip()
        assert first["prompt"] == f"Q: {row['question']}\nA:<think>"
        assert second["prompt"] == f"{first['prompt']} {rationale}\nKeys:"
        assert (row["prompt"], row["completion"]) == (second["prompt"], second["completion"])


def test_samples_of_a_question_are_drawn_apart(ran: Ran) -> None:
    said: dict[str, set[str]] = {}
    for row in ran.samples:
        said.setdefault(row["id"], set()).add(row["turns"][0]["completion"])
    assert all(len(texts) == 3 for texts in said.values())


def test_the_vote_of_three_is_what_counts(ran: Ran) -> None:
    scores = json.loads((ran.samples_file.parents[1] / "scores.json").read_text())["students"]["mixed"]["in_domain"]
    solved = []
    samples = ran.samples
    for start in range(0, len(samples), 3):
        three = samples[start : start + 3]
        vote = majority_vote([row["predicted"] for row in three], three[0]["kind"])
        solved.append(matches(vote, three[0]["gold"], three[0]["kind"]))
        assert {row["solved"] for row in three} == {solved[-1]}
    assert scores["n"] == 6
    assert scores["accuracy"] == pytest.approx(sum(solved) / 6)
    assert [turn["view"] for turn in scores["settings"]["turns"]] == ["chain", "keys"]


# --- what is published


def test_the_student_is_published_with_its_recipe_and_loads_without_this_project(ran: Ran) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(ran.published)
    assert model.config.vocab_size == len(ran.tokenizer)
    card = (ran.published / "README.md").read_text()
    recipe = (ran.published / "recipe.yaml").read_text()
    assert "(recipe.yaml)" in card
    assert "name: invented" in recipe
    assert "kind: shuffle" in recipe


def test_a_second_evaluation_finds_everything_done(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    weights = ran.published / "model.safetensors"
    before = ran.samples, weights.stat().st_mtime_ns
    evaluate(ran.recipe)
    assert "published already by this run" in capsys.readouterr().out
    assert (ran.samples, weights.stat().st_mtime_ns) == before
