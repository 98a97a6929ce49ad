"""Every method's recipe has a twin at its paper's scale: the same method, with questions that are there to be asked."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from toolkit import cli
from toolkit.answers import extract, matches
from toolkit.decode_procedures import Ask, Procedure, converse, plan
from toolkit.decoding import Generation
from toolkit.recipe_sections import View
from toolkit.stage_views import StageViews
from toolkit.views import columns

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("COT_DATA") or ROOT.parent / "shared" / "data")
TWINS = sorted((ROOT / "recipes" / "paper").glob("*.yaml"))
METHODS = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def method(view: View) -> dict[str, Any]:
    """What a twin may not change of a view: all but templates and the size of coefficients."""
    return {
        "select": view.select,
        "each": view.each,
        "row_weight": view.row_weight,
        "sign": (view.coefficient > 0) - (view.coefficient < 0),
        "token_weights": view.token_weights,
        "segments": [(segment.weight, segment.role, segment.transform) for segment in view.target],
    }


@pytest.mark.parametrize("name", METHODS)
def test_a_paper_twin_is_the_same_method(name: str) -> None:
    recipe, twin = (cli.open_recipe(str(ROOT / folder / f"{name}.yaml")) for folder in ("recipes", "recipes/paper"))
    assert twin.decode is not None
    assert recipe.decode is not None
    assert twin.recipe.name == f"{name}-paper"
    assert (
        twin.recipe.paper == recipe.recipe.paper or name == "answer_only"
    )  # of no paper; its twin's setting is of one
    assert twin.dataset.builder == recipe.dataset.builder
    assert [stage.name for stage in twin.stages] == [stage.name for stage in recipe.stages]
    for ours, theirs in zip(twin.stages, recipe.stages, strict=True):
        assert ours.reduction == theirs.reduction
        assert {key: method(view) for key, view in ours.views.items()} == {
            key: method(view) for key, view in theirs.views.items()
        }
    assert [(turn.view, turn.forced) for turn in twin.decode.turns] == [
        (turn.view, turn.forced) for turn in recipe.decode.turns
    ]
    assert (twin.decode.until, bool(twin.decode.stop)) == (recipe.decode.until, bool(recipe.decode.stop))
    beside = [decode.beside and (decode.beside.view, decode.beside.run) for decode in (twin.decode, recipe.decode)]
    assert beside[0] == beside[1]


@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_a_paper_twin_says_that_it_was_not_run_and_brings_no_student_from_nothing(path: Path) -> None:
    (header,) = re.findall(r"\A(?:#.*\n)+", path.read_text())
    assert "We have not run this recipe in full; it passes `distill validate`." in " ".join(header.split())
    student = cli.open_recipe(str(path)).student
    assert student is not None
    assert student.model_name_or_path is not None


SHIPPED = sorted((ROOT / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_a_recipe_uses_no_deprecated_name(path: Path) -> None:
    assert cli.open_recipe(str(path)).notes == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_a_view_that_shows_no_chain_comes_once_a_question_however_many_chains_it_has(path: Path) -> None:
    """With several samples a question, a view of question and answer would be learnt again with each."""
    recipe = cli.open_recipe(str(path))
    if recipe.dataset.builder not in ("teacher_cots", "key_tokens") or path.parent.name == "data":  # these only build
        return
    references = [stage for reference in recipe.references.values() for stage in reference.stages]
    assert recipe.stages
    for stage in [*recipe.stages, *references]:
        for name, view in stage.views.items():
            shown = {path.partition(".")[0] for text in targets_of(view) for path in columns(text)}
            if "chain" not in shown:
                assert view.select.draw in ("first", "balanced"), f"{stage.name}.{name}"


def targets_of(view: View) -> list[str]:
    return [view.prompt, *(segment.text for segment in view.target)]


def test_counterfactual_distillation_reduces_as_its_definition_does() -> None:
    """L_k is the mean over samples of each one's mean per token, in every arm and in the twin."""
    arms = [path for path in SHIPPED if path.parent.name == "counterfactual" or path.stem == "counterfactual"]
    assert len(arms) == 8
    for path in arms:
        assert [stage.reduction.by for stage in cli.open_recipe(str(path)).stages] == ["example"], path


PUBLISHING = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if "\npublish: {" in path.read_text())


@pytest.mark.parametrize("path", PUBLISHING, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_a_recipe_that_publishes_its_student_states_its_licence(path: Path) -> None:
    publish = cli.open_recipe(str(path)).publish
    assert publish is not None
    assert publish.license


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"real data is not at {DATA}")
@pytest.mark.parametrize(("name", "questions"), [("edit", 5207), ("cascod", 5207), ("step_by_step", 9741)])
def test_a_twin_on_files_finds_its_questions(
    name: str,
    questions: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """5,207 is what the paper gives for 80 % of each task of BBH, 9,741 CommonsenseQA's training split."""
    monkeypatch.setenv("COT_DATA", str(DATA))
    assert (
        cli.main(["build", str(ROOT / "recipes" / "paper" / f"{name}.yaml"), "--dry-run", f"hub_dir={tmp_path}"]) == 0
    )
    assert re.search(
        rf"^round 1 +{questions:,} \w+ requests, 0 of them answered", capsys.readouterr().out, re.MULTILINE
    )


CHAIN = {"rationale": "Two birds sit there and three come.\nThat makes 2 + 3 = 5.", "answer": "5"}
WRONG = {"rationale": "Two birds sit there and three go.\nThat makes 3 - 2 = 1.", "answer": "1"}
STEPS = [
    {"label": "Sub-question", "question": "How many sit there?", "answer": "Two birds sit there."},
    {"label": "Final question", "question": "How many are there?", "answer": "There are 2 + 3 = 5 birds."},
]
QUESTION = {
    "id": "birds/0",
    "task": "birds",
    "task_description": "Count birds.",
    "question": "Two birds sit on a wire. Three come. How many are there?",
    "choices": None,
}
# The columns of every builder that a twin names.
RECORD = {
    **{
        **QUESTION,
        "kind": "number",
        "answer": "5",
        "correct": True,
        "chain": {**CHAIN, "logprobs": []},
        "steps": STEPS,
    },
    **{"right": CHAIN, "wrong": WRONG, "factual": CHAIN, "counterfactual": WRONG},
    **{"cot": CHAIN, "pot": {"rationale": "n = 2\nans = n + 3", "answer": "5"}},
    **{"why": CHAIN, "whys": [CHAIN], "refutes": [{"label": "1", **CHAIN}], "is_original": True, "is_cf": False},
    "demonstrations": {"answers": "Q: 1 + 1?\nA: 2\n\n", "chains": "Q: 1 + 1?\nA: Two.\n\n"},
}


@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_a_student_that_has_learnt_a_twin_by_heart_is_right(path: Path) -> None:
    """Whoever writes, of every prompt of the last stage, what was trained behind it answers right: in every turn."""
    recipe = cli.open_recipe(str(path))
    assert recipe.decode is not None
    stage = recipe.stages[-1] if recipe.decode.view in recipe.stages[-1].views else recipe.stages[0]
    shown = StageViews(stage, [RECORD]).show(0)
    assert shown.reason is None
    turns = tuple(plan(turn.view, stage.views[turn.view], turn) for turn in recipe.decode.turns)
    conversation = converse(Procedure(turns, recipe.decode.until, recipe.decode.rounds), QUESTION)
    reply: Any = None
    while True:
        try:
            ask = conversation.send(reply)
        except StopIteration as finished:
            answer = finished.value.answer
            break
        assert isinstance(ask, Ask)
        learnt = {
            view.prompt + "".join(segment.text for segment in view.target[: ask.turn.forced]): "".join(
                segment.text for segment in view.target[ask.turn.forced :]
            )
            for position, view in shown.sequences
            if list(stage.views)[position] == ask.turn.view
        }
        text = learnt[ask.text]  # training and decoding write the same prompt, or there is none
        end = min((text.find(stop) for stop in ask.turn.stop if stop in text), default=len(text))
        reply = Generation(text[:end], 1, True)
    assert matches(extract(answer, kind="number"), "5", kind="number")
