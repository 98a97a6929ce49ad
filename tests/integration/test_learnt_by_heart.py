"""Every recipe as it stands, with a student that knows its training sequences by heart and nothing else.

It can answer only if each turn asks exactly what a view has trained on, and only if what it writes is read as it was
meant: training prompts, decoding prompts, templates read backwards and the reading of answers have to agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_recipe import ROOT
from toolkit.cli import open_recipe
from toolkit.decode_procedures import Answered, Ask, Procedure, converse
from toolkit.decoding import Generation
from toolkit.evaluation import with_values
from toolkit.pipeline import training_rows
from toolkit.problem import QUESTION_COLUMNS, Problem, question_columns
from toolkit.scores import judge
from toolkit.scoring import other_procedure_of, procedure_of
from toolkit.stage_views import StageViews

pytestmark = pytest.mark.slow

# All but those whose dataset takes a student that another recipe has trained.
RECIPES = [
    str(path.relative_to(ROOT / "recipes"))
    for pattern in ("*.yaml", "mysteries/*.yaml", "mixed/*.yaml")
    for path in sorted((ROOT / "recipes").glob(pattern))
    if not re.search("builder: key_tokens|kind: transformers", path.read_text())
]
Learnt = dict[tuple[str, str], str]  # what a view goes on with behind a text


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One hub for all recipes: most of them share a dataset."""
    return tmp_path_factory.mktemp("hub")


def learnt(stages: Sequence[StageViews], index: int) -> Learnt:
    """Return how a record's sequences go on behind their prompt, and behind every segment of theirs."""
    known: Learnt = {}
    for views in stages:
        names = list(views.stage.views)
        for position, view in views.show(index).sequences:
            texts = [segment.text for segment in view.target]
            for given in range(len(texts)):
                read = view.prompt + "".join(texts[:given])
                known.setdefault((names[position], read), "".join(texts[given:]))
    return known


def answered(procedure: Procedure, problem: Problem, known: Learnt) -> Answered:
    """Let the student answer; a text that it has never seen fails here."""
    conversation = converse(procedure, question_columns(problem))
    ask = next(conversation)
    while True:
        assert isinstance(ask, Ask)
        text = known[ask.turn.view, ask.text]
        end = min((text.find(stop) for stop in ask.turn.stop if stop in text), default=len(text))
        try:
            ask = conversation.send(Generation(text[:end], 1, True))
        except StopIteration as finished:
            result: Answered = finished.value
            return result


def students(recipe: Any) -> Iterator[tuple[str, list[Any], Procedure]]:
    """Yield each trained student's name, the stages whose views it has seen, and each way in which it answers."""
    yield recipe.stages[-1].name, recipe.stages, procedure_of(recipe, recipe.stages[-1].name)
    if recipe.decode.beside is not None:
        yield recipe.stages[-1].name, recipe.stages, other_procedure_of(recipe, recipe.stages[-1].name)
    for name, reference in recipe.references.items():
        if reference.stages:
            yield name, reference.stages, procedure_of(recipe, name)


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_learnt_by_heart_is_asked_for_and_read_as_the_answer(name: str, hub: Path) -> None:
    problems = ["dataset.config.problems.n=40", "dataset.config.problems.n_test=4"]
    recipe = open_recipe(str(ROOT / "recipes" / name), [f"hub_dir={hub}", *problems])
    rows = training_rows(recipe)
    assert recipe.decode is not None
    for student, stages, procedure in students(recipe):
        views = [StageViews(stage, rows) for stage in stages]
        asked = {turn.view for turn in procedure.turns}
        last = procedure.turns[-1]
        answers = last.run or any(piece_role == "answer" for _, piece_role, _ in last.target)
        seen = 0
        for index, row in enumerate(rows):
            known = learnt(views, index)
            if asked <= {view for view, _ in known}:
                columns = {column: row[column] for column in QUESTION_COLUMNS} | {"choices": tuple(row["choices"])}
                problem = Problem(answer=row["answer"], **columns)
                said = with_values(procedure, {("", 0): answered(procedure, problem, known)})
                (judged,) = judge([problem], [list(said.values())])
                # A view of rationales alone leaves the answer to whoever reads their last sentence.
                assert judged["correct"] or not answers, (student, judged)
                seen += 1
            if seen == 6:
                break
        assert seen == 6, f"{student} was taught {seen} records that its turns need"
