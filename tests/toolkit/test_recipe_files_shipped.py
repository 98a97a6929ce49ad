"""Every method's recipe has a twin at its paper's scale: the same method, with questions that are there to be asked."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from toolkit import cli
from toolkit.recipe_sections import View

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("COT_DATA") or ROOT.parent / "shared" / "data")
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


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "paper").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_paper_twin_says_that_it_was_not_run_and_brings_no_student_from_nothing(path: Path) -> None:
    (header,) = re.findall(r"\A(?:#.*\n)+", path.read_text())
    assert "We have not run this recipe in full; it passes `distill validate`." in " ".join(header.split())
    student = cli.open_recipe(str(path)).student
    assert student is not None
    assert student.model_name_or_path is not None


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
    assert capsys.readouterr().out.startswith(f"first round: {questions} requests, 0 of them answered already")
