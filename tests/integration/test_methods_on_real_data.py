"""Recipes of four methods on chains that PaLM wrote, and one with a teacher behind HTTP; skipped where data is absent.

The data is what the authors of distilling step-by-step released: CommonsenseQA and SVAMP with PaLM's chains, right and
wrong ones, each running on into questions of PaLM's own. The recipes are those of `recipes/`, smaller by overrides.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from dataset_builders.asking import Asker
from dataset_builders.teacher_cots import TeacherCots
from tests.scripted_answers import ScriptedAnswers, outcome_of
from tests.tiny_recipe import ROOT
from toolkit.cli import open_recipe
from toolkit.math_equality import math_equal
from toolkit.pipeline import train, training_rows
from toolkit.stage_views import StageViews
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import Ask, Reply, completion

DATA = Path(os.environ.get("COT_DATA", ROOT.parent / "shared" / "data"))
RELEASED = DATA / "distilling_step_by_step" / "datasets"
OPENBOOKQA = DATA / "llm_adapters" / "dataset" / "openbookqa"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.data,
    pytest.mark.skipif(not RELEASED.is_dir(), reason=f"real data is not at {RELEASED}"),
]

Rows = list[dict[str, Any]]

SMALL = (
    "student.from_config.hidden_size=32",
    "student.from_config.intermediate_size=64",
    "student.from_config.num_hidden_layers=1",
    "student.from_config.num_attention_heads=2",
    "student.tokenizer.vocab_size=512",
    "stages.train.training.max_steps=4",
    "stages.train.training.warmup_steps=0",
    "stages.train.training.disable_tqdm=true",
    "evaluation.sets=!replace {in_domain: {split: test}}",
    "evaluation.n=4",
    "decode.max_new_tokens=8",
    "publish=null",
)


def text(path: Path) -> str:
    return (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()


def released(folder: str, questions: str, split: str) -> Rows:
    """Return the questions of a split, each with PaLM's chain, which stands in the same place of its own files."""
    rows = [json.loads(line) for line in text(RELEASED / folder / questions).split("\n") if line]
    files = sorted((RELEASED / folder / "palm").glob(f"{split}_CoT_*"))
    chains = [chain for path in files for chain in json.loads(text(path))]
    return [row | {"chain": chain} for row, chain in zip(rows, chains, strict=True)]


def commonsense(split: str) -> Rows:
    return released("cqa", f"cqa_{split}.json.gz", split)


def written(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --- counted by hand: nothing here knows how the project reads an answer


def said_letter(chain: str) -> str | None:
    """Return the letter that a chain of CommonsenseQA closes with, before it runs on."""
    found = re.search(r"So the answer is \(([a-e])\)", chain.split("\n\nQ:")[0])
    return found[1] if found else None


def letter_is_gold(row: dict[str, Any]) -> bool:
    """Compare letters: three questions have two options of one text, of which the first is gold."""
    said = said_letter(row["chain"])
    return said is not None and "abcde".index(said) == row["choices"].index(row["answer"])


def value(equation: str) -> Fraction | None:
    """Return what an equation of SVAMP comes to, None for what is no arithmetic."""
    if not re.fullmatch(r"[0-9. +\-*/()]+", equation):
        return None
    exact = re.sub(r"[0-9.]+", r"Fraction('\g<0>')", equation)
    try:
        return Fraction(eval(exact, {"Fraction": Fraction}))
    except (SyntaxError, TypeError, ValueError, ZeroDivisionError):
        return None


def said_equation(chain: str) -> str | None:
    """Return the equation that a chain of SVAMP closes with, before it runs on."""
    _, found, equation = chain.split("\n\nQ:")[0].rpartition("The answer is ")
    return equation.removesuffix(".") if found else None


def equation_is_gold(row: dict[str, Any]) -> bool:
    said = said_equation(row["chain"])
    return said is not None and value(said) is not None and value(said) == value(row["label"])


# --- the teacher's share of right chains


@pytest.mark.parametrize(("split", "rows", "right", "unread"), [("train", 9741, 7385, 182), ("test", 1221, 962, 16)])
def test_palm_is_as_often_right_on_commonsenseqa_as_its_letters_say(
    tmp_path: Path, split: str, rows: int, right: int, unread: int
) -> None:
    told = commonsense(split)
    path = written(tmp_path / "cqa.jsonl", told)
    settings = TeacherCots.SETTINGS.model_validate({"chains": {"path": str(path), "choices": "choices"}, "keep": "all"})

    outcome = outcome_of(TeacherCots, settings, [], Asker(settings, ScriptedAnswers(lambda *_: None), "", ""))

    # 75.8 % and 78.8 % of all rows, by letter. What cannot be read settles on two letters or never ends; and one row of
    # each split has a letter beside the text of another option.
    assert len(told) == rows
    assert sum(map(letter_is_gold, told)) == right == sum(record["correct"] for record in outcome.train)
    assert sum(said_letter(row["chain"]) is None for row in told) == unread == len(outcome.rejected) - 1
    by_chain = {(row["chain"], row["question"]): letter_is_gold(row) for row in told}
    for record in outcome.train:
        asked = record["question"].partition("\nOptions:\n")[0]
        assert record["correct"] == by_chain[record["chain"]["provenance"]["completion"], asked]


# --- recipes as they ship


@dataclass(frozen=True)
class Source:
    """A dataset of ready-made chains, and what was counted by hand.

    Attributes:
        told: The rows that its file was written from.
        readable: Whether each row's chain says an answer.
        right: Whether it is the gold one.
        overrides: What makes a recipe build and score on it.
    """

    told: Rows
    readable: list[bool]
    right: list[bool]
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Ran:
    """A recipe that was trained and scored."""

    recipe: Any
    rows: Rows
    encoded: dict[str, Any]
    folder: Path

    def samples(self, student: str = "train") -> Rows:
        rows: Rows = parquet.read_table(self.folder / "samples" / f"{student}-in_domain.parquet").to_pylist()
        return rows

    def shown(self) -> dict[str, list[str]]:
        """Return the chains that each view trains on, as PaLM wrote them."""
        stage = self.recipe.stages[0]
        views = StageViews(stage, self.rows)
        found: dict[str, list[str]] = {name: [] for name in stage.views}
        for index, row in enumerate(self.rows):
            for position, _ in views.show(index).sequences:
                found[list(stage.views)[position]].append(row["chain"]["provenance"]["completion"])
        return found


def ran(name: str, overrides: Sequence[str]) -> Ran:
    """Train and score a recipe as it ships, but for some overrides."""
    recipe = open_recipe(str(ROOT / "recipes" / f"{name}.yaml"), overrides)
    train(recipe)
    outputs = Path(recipe.output_dir) / name
    (stage,) = outputs.glob("stages/*/student/stage.json")
    (scores,) = outputs.glob("*/scores.json")
    return Ran(recipe, training_rows(recipe), json.loads(stage.read_text())["encoding"], scores.parent)


def overrides_of(folder: Path, name: str, config: dict[str, Any]) -> tuple[str, ...]:
    """Return what makes a recipe small, and build its dataset of these settings."""
    dataset = {"builder": "teacher_cots", "repo_id": name, "revision": "v1.0.0", "config": {"keep": "all", **config}}
    folders = (f"hub_dir={folder / 'hub'}", f"output_dir={folder / 'outputs' / name}")
    return (*SMALL, f"dataset=!replace {json.dumps(dataset)}", *folders)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    folder = tmp_path_factory.mktemp("palm")
    cqa, svamp = commonsense("train")[:200], released("svamp", "svamp_train.json.gz", "train")[:80]
    of_cqa = {
        "chains": {"path": str(written(folder / "cqa.jsonl", cqa)), "choices": "choices", "model": "PaLM 540B"},
        "problems": {
            "source": "jsonl",
            "path": str(written(folder / "cqa_test.jsonl", commonsense("test")[:4])),
            "columns": {"choices": "choices"},
            "split": "test",
        },
    }
    asked = {"question": "input", "answer": "label"}
    of_svamp = {  # gold answers and PaLM's are equations there, equal where they come to the same
        "chains": {"path": str(written(folder / "svamp.jsonl", svamp)), "kind": "math", **asked},
        "problems": {
            "source": "jsonl",
            "path": str(written(folder / "svamp_test.jsonl", released("svamp", "svamp_test.json", "test")[:4])),
            "columns": asked,
            "kind": "math",
            "split": "test",
        },
    }
    # The first equation takes longer than all others: on a busy machine longer than it may.
    assert math_equal("(84 / 2)", "( 84.0 / 2.0 )", timeout=60.0)
    letters = [said_letter(row["chain"]) is not None for row in cqa]
    equations = [said_equation(row["chain"]) is not None for row in svamp]
    return {
        "cqa": Source(cqa, letters, [*map(letter_is_gold, cqa)], overrides_of(folder, "cqa", of_cqa)),
        "svamp": Source(svamp, equations, [*map(equation_is_gold, svamp)], overrides_of(folder, "svamp", of_svamp)),
    }


# The recipe's views, each with what it may train on.
VIEWS = {
    "std_cot": {"cot": "right"},
    "step_by_step": {"label": "readable", "rationale": "readable"},
    "cascod": {"rationale": "right", "answer": "right"},
    "post_cot": {"post": "right"},
}
MORE = {
    "step_by_step": ["references.reasoning.decode.max_new_tokens=8"],
    "cascod": ["decode.then.0.max_new_tokens=6"],
}


class Runs:
    """Every recipe on every source, each run when it is first asked for."""

    def __init__(self, sources: dict[str, Source]) -> None:
        self.sources = sources
        self.runs: dict[tuple[str, str], Ran] = {}

    def __call__(self, name: str, on: str) -> tuple[Source, Ran]:
        if (name, on) not in self.runs:
            self.runs[name, on] = ran(name, [*self.sources[on].overrides, *MORE.get(name, [])])
        return self.sources[on], self.runs[name, on]


@pytest.fixture(scope="module")
def runs(sources: dict[str, Source]) -> Runs:
    return Runs(sources)


@pytest.mark.parametrize("on", ["cqa", "svamp"])
def test_a_chain_is_right_where_it_was_found_right_by_hand(runs: Runs, on: str) -> None:
    source, run = runs("std_cot", on)
    by_hand = {row["chain"]: right for row, right in zip(source.told, source.right, strict=True)}

    assert len(run.rows) == sum(source.readable) < len(source.told)
    assert {row["chain"]["provenance"]["completion"]: row["correct"] for row in run.rows} == {
        row["chain"]: by_hand[row["chain"]]
        for row, readable in zip(source.told, source.readable, strict=True)
        if readable
    }
    assert 0.65 < sum(source.right) / len(source.told) < 0.85  # 75.8 % and 74 % of all rows


@pytest.mark.parametrize("on", ["cqa", "svamp"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_view_trains_on_the_right_chains_or_on_all_of_them(runs: Runs, name: str, on: str) -> None:
    source, run = runs(name, on)
    picked = {"right": source.right, "readable": source.readable}
    expected = {
        view: [row["chain"] for row, is_in in zip(source.told, picked[which], strict=True) if is_in]
        for view, which in VIEWS[name].items()
    }

    assert run.shown() == expected
    assert run.encoded["sequences"] == sum(map(len, expected.values()))
    assert run.encoded["dropped"] == {}


def test_no_chain_runs_on_into_a_question_of_palm_s_own(runs: Runs) -> None:
    source, run = runs("std_cot", "cqa")

    assert sum("\n\nQ:" in row["chain"] for row in source.told) > 150
    assert not any("Q:" in row["chain"]["rationale"] for row in run.rows)
    assert not any("So the answer is" in row["chain"]["rationale"] for row in run.rows)


@pytest.mark.parametrize("on", ["cqa", "svamp"])
def test_the_second_prompt_of_cascod_holds_what_was_written_in_the_first_turn(runs: Runs, on: str) -> None:
    _, run = runs("cascod", on)

    assert len(run.samples()) == 4
    for row in run.samples():
        first, second = row["turns"]
        said = first["completion"]
        assert first["prompt"] == f"Q: {row['question']}\nA:\nRationale:"
        rationale = said.removeprefix(" ") if said.startswith(" ") else said.lstrip()
        assert second["prompt"] == f"{first['prompt']} {rationale}\nTherefore, the answer is"


@pytest.mark.parametrize(
    ("name", "student", "prompt"),
    [
        ("std_cot", "train", "Q: {}\nA:"),
        ("post_cot", "train", "Q: {}\nA:"),
        ("step_by_step", "train", "predict: {}"),
        ("step_by_step", "reasoning", "explain: {}"),
    ],
)
def test_a_student_is_asked_as_it_was_taught(runs: Runs, name: str, student: str, prompt: str) -> None:
    _, run = runs(name, "cqa")
    options = [row["choices"] for row in commonsense("test")[:4]]

    asked = run.samples(student)
    assert [row["prompt"] for row in asked] == [prompt.format(row["question"]) for row in asked]
    for row, choices in zip(asked, options, strict=True):
        assert row["question"].endswith("".join(f"\n({'ABCDE'[i]}) {text.strip()}" for i, text in enumerate(choices)))


def test_post_cot_stops_before_it_explains(runs: Runs) -> None:
    _, run = runs("post_cot", "cqa")

    assert {*run.recipe.stages[0].views} == {"post"}
    assert not any("Explanation" in row["completion"] or row["tokens"] > 8 for row in run.samples())


# --- questions without chains: somebody has to be asked

OPTIONS = re.compile(r"(answer[1-4]): (.*?)(?= answer[1-4]:|\n)", re.IGNORECASE)


def longest_option(question: str) -> tuple[str, str]:
    """Return name and text of the longest answer option of a question of OpenBookQA."""
    name, words = max(OPTIONS.findall(question), key=lambda option: len(option[1]))
    return name.lower(), words


def fond_of_long_answers(ask: Ask) -> Reply:
    """A teacher who reads the options in its prompt and takes the longest."""
    name, words = longest_option(ask.prompt)
    return completion(f"Much can be said for this: {words}\nTherefore, the answer is {name}.")


@pytest.mark.skipif(not OPENBOOKQA.is_dir(), reason=f"real data is not at {OPENBOOKQA}")
def test_openbookqa_is_answered_by_a_server_and_learnt_from(tmp_path: Path) -> None:
    by_question = {
        row["instruction"]: row["answer"] == longest_option(row["instruction"])[0]
        for row in json.loads(text(OPENBOOKQA / "train.json.gz"))
    }
    with FaultServer(fond_of_long_answers) as server:
        config = {
            "problems": {
                "source": "jsonl",
                "path": str(OPENBOOKQA / "{split}.json.gz"),
                "columns": {"question": "instruction"},
                "n": 40,
            },
            "teacher": {"kind": "openai", "model": "long-answers", "base_url": server.url},
        }
        run = ran("std_cot", overrides_of(tmp_path, "openbookqa", config))
        asked = server.asked_per_prompt()

    assert len(run.rows) == len(asked) == asked.total() == 40
    assert all(sum(row["question"] in prompt for prompt in asked) == 1 for row in run.rows)
    assert {row["question"]: row["correct"] for row in run.rows}.items() <= by_question.items()
    told = {row["chain"]["rationale"] for row in run.rows}
    assert told == {f"Much can be said for this: {longest_option(row['question'])[1]}" for row in run.rows}
    right = sum(by_question[row["question"]] for row in run.rows)
    assert 0 < right == run.encoded["sequences"] < 40
    assert all(row["prompt"] == f"Q: {row['question']}\nA:" for row in run.samples())
