"""Shipped recipes, on tokenizers of every family: what a student is asked is the beginning of what it was shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.tokenizer_families import FAMILIES, tokenizer_of
from tests.toolkit.test_recipe_files_shipped import RECORD
from toolkit import cli
from toolkit.encoding import encode
from toolkit.pipeline import training_rows
from toolkit.recipe import Recipe, Stage
from toolkit.seams import check_views
from toolkit.stage_views import StageViews
from toolkit.views import RenderedView

pytestmark = pytest.mark.slow  # every recipe under nine tokenizers

ROOT = Path(__file__).parents[2]
PAPER = sorted((ROOT / "recipes" / "paper").glob("*.yaml"))
OWN = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name not in ("paper", "data"))
# One recipe of each kind of records; teachers that have to be trained first, and words that have to be scored, are not
# asked here, but their recipes show the same columns.
BUILT = {
    "teacher_cots": "fu_sample_match",  # with demonstrations, which others do not show
    "dual_cots": "edit",
    "counterfactual_pairs": "counterfactual",
    "socratic_steps": "dialcot_s",
    "cot_pot_mix": "mixed",
    "counterfactual_rationales": "scott",
}
SIZE = ["dataset.config.problems.n=6", "dataset.config.problems.n_test=2"]


@pytest.fixture(scope="module")
def recipes() -> dict[str, Recipe]:
    return {str(path.relative_to(ROOT)): cli.open_recipe(str(path)) for path in (*OWN, *PAPER)}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[dict[str, Any]]]:
    """Records of the embedded teacher, by builder."""
    folder = tmp_path_factory.mktemp("records")
    overrides = [*SIZE, f"hub_dir={folder}", f"output_dir={folder}"]
    return {
        builder: training_rows(cli.open_recipe(str(ROOT / "recipes" / f"{name}.yaml"), overrides))
        for builder, name in BUILT.items()
    }


def stages(recipe: Recipe) -> list[Stage]:
    """All stages of a recipe, those of its references included."""
    return [*recipe.stages, *(stage for one in recipe.references.values() for stage in one.stages)]


def shown(recipe: Recipe, rows: list[dict[str, Any]]) -> Iterator[tuple[RenderedView, int]]:
    """Yield every sequence of a recipe with each number of segments that its student is given."""
    decodes = [recipe.decode, *(reference.decode for reference in recipe.references.values())]
    turns = [turn for decode in decodes if decode for turn in [*decode.turns, decode.beside] if turn]
    for stage in stages(recipe):
        names, views = list(stage.views), StageViews(stage, rows)
        for index in range(len(rows)):
            for position, view in views.show(index).sequences:
                forced = {0, *(turn.forced for turn in turns if turn.view == names[position])}
                yield from ((view, given) for given in forced if given < len(view.target))


def askings(
    recipes: Mapping[str, Recipe], records: Mapping[str, list[dict[str, Any]]]
) -> dict[tuple[str, str, str], str]:
    """Return (prompt, start of the answer, the rest of it) of all recipes, each with a recipe that has it."""
    found: dict[tuple[str, str, str], str] = {}
    for name, recipe in recipes.items():
        is_built = "paper" not in name and recipe.dataset.builder in records and "fu_distribution" not in name
        rows = list(islice(records[str(recipe.dataset.builder)], 6)) if is_built else [RECORD]
        if "key" in str(recipe.dataset.builder):
            continue
        for view, given in shown(recipe, rows):
            texts = [segment.text for segment in view.target]
            found.setdefault((view.prompt, "".join(texts[:given]), "".join(texts[given:])), name)
    return found


@pytest.mark.parametrize("prompt_format", ["plain", "chat"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_shipped_recipe_asks_with_the_ids_that_it_trains_on(
    family: str,
    prompt_format: str,
    recipes: Mapping[str, Recipe],
    records: Mapping[str, list[dict[str, Any]]],
) -> None:
    tokenizer = tokenizer_of(family)
    asked = askings(recipes, records)
    framed = [
        prompt
        if prompt_format == "plain"
        else tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        for prompt, _, _ in asked
    ]
    given = tokenizer([text + start for text, (_, start, _) in zip(framed, asked, strict=True)])["input_ids"]
    trained = tokenizer([text + start + rest for text, (_, start, rest) in zip(framed, asked, strict=True)])[
        "input_ids"
    ]
    wrong = [
        (name, asking)
        for (asking, name), ids, whole in zip(asked.items(), given, trained, strict=True)
        if whole[: len(ids)] != ids
    ]
    assert wrong == []
    assert len(asked) > 300


@pytest.mark.parametrize("prompt_format", ["plain", "chat"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_shipped_recipe_is_refused_and_no_record_of_one_left_out(
    family: str,
    prompt_format: str,
    recipes: Mapping[str, Recipe],
    records: Mapping[str, list[dict[str, Any]]],
) -> None:
    tokenizer = tokenizer_of(family)
    assert recipes
    for recipe in recipes.values():
        assert recipe.student is not None
        student = recipe.student.model_copy(update={"prompt_format": prompt_format})
        check_views(recipe.model_copy(update={"student": student}), tokenizer)
    for builder, name in BUILT.items():
        for stage in stages(recipes[f"recipes/{name}.yaml"]):
            _, report = encode(tokenizer, records[builder][:2], stage, None, prompt_format)
            assert report.dropped == {}
