"""Where results lie: what changes a stage's folder, and what leaves it alone."""

from __future__ import annotations

import ast
import copy
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_recipe import EDIT, ROOT, written
from toolkit import runs
from toolkit.cli import open_recipe
from toolkit.runs import Run, digest_of, rows_digest

ROWS = [{"id": "a", "question": "1 + 1?", "right": {"rationale": "1 + 1 = 2.", "answer": "2"}}]


@pytest.fixture
def folders(tmp_path: Path) -> Any:
    """Return a function from overrides to the names of the folders of start, stages and run."""
    file = written(tmp_path, copy.deepcopy(EDIT))

    def of(*overrides: str, rows: str = "rows") -> list[str]:
        run = Run(open_recipe(str(file), overrides), rows)
        return [run.start.name, *(link.folder.name for link in run.chain(run.recipe.stages)), run.folder.name]

    return of


def changed(folders: Any, *overrides: str, **other: str) -> list[bool]:
    """Say whether each of start, imitate, key_steps and run lies elsewhere after some overrides."""
    return [one != two for one, two in zip(folders(), folders(*overrides, **other), strict=True)]


def test_the_same_recipe_and_records_always_lie_in_the_same_place(folders: Any) -> None:
    assert changed(folders) == [False, False, False, False]


@pytest.mark.parametrize(
    ("override", "moves"),
    [
        ("stages.key_steps.training.learning_rate=1e-5", [False, False, True, True]),
        ("stages.imitate.training.learning_rate=1e-5", [False, True, True, True]),
        ("stages.key_steps.views.wrong.coefficient=-0.5", [False, False, True, True]),
        ("stages.key_steps.reduction.over=weighted", [False, False, True, True]),
        ("student.seed=1", [True, True, True, True]),
        ("student.from_config.hidden_size=48", [True, True, True, True]),
        ("student.tokenizer.vocab_size=600", [True, True, True, True]),
        ("student.prompt_format=chat", [False, True, True, True]),
        ("student.use_peft=true", [False, True, True, True]),
        ("decode.max_new_tokens=8", [False, False, False, True]),
        ("publish=null", [False, False, False, False]),
        ("dataset.repo_id=org/other-name", [False, False, False, False]),
        ("dataset.revision=v9.0.0", [False, False, False, True]),
        ("output_dir=elsewhere", [False, False, False, False]),
        ("hub_dir=elsewhere", [False, False, False, False]),
    ],
)
def test_an_override_moves_what_it_touches_and_what_comes_after(folders: Any, override: str, moves: list[bool]) -> None:
    assert changed(folders, override) == moves


def test_other_records_move_everything(folders: Any) -> None:
    assert changed(folders, rows="others") == [True, True, True, True]


def test_other_code_moves_every_student(folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = folders()
    monkeypatch.setattr(runs, "code_digest", lambda: "another toolkit")
    assert [one != two for one, two in zip(before, folders(), strict=True)] == [True, True, True, False]


def test_views_in_another_order_are_another_stage(folders: Any, tmp_path: Path) -> None:
    recipe = copy.deepcopy(EDIT)
    recipe["stages"][1]["views"] = dict(reversed(recipe["stages"][1]["views"].items()))
    run = Run(open_recipe(str(written(tmp_path / "swapped", recipe))), "rows")
    assert [link.folder.name for link in run.chain(run.recipe.stages)][1] != folders()[2]


def test_each_stage_starts_from_the_one_before(tmp_path: Path) -> None:
    run = Run(open_recipe(str(written(tmp_path, EDIT))), "rows")
    imitate, key_steps = run.chain(run.recipe.stages)
    assert (imitate.start, key_steps.start) == (str(run.start), str(imitate.student))


def test_two_chains_with_the_same_first_stage_share_it(tmp_path: Path) -> None:
    run = Run(open_recipe(str(written(tmp_path, EDIT))), "rows")
    assert run.chain(run.recipe.stages[:1]) == run.chain(run.recipe.stages)[:1]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda rows: rows, True),
        (lambda rows: [dict(reversed(rows[0].items()))], True),
        (lambda rows: [rows[0] | {"question": "1 + 2?"}], False),
        (lambda rows: [rows[0] | {"right": rows[0]["right"] | {"answer": "3"}}], False),
        (lambda rows: rows * 2, False),
        (lambda rows: [], False),
    ],
    ids=["nothing", "order of columns", "a question", "an answer", "a record more", "a record less"],
)
def test_the_digest_of_records_is_of_their_content(change: Any, same: bool) -> None:
    assert (rows_digest(change(ROWS)) == rows_digest(ROWS)) is same


def test_the_order_of_records_counts() -> None:
    rows = [*ROWS, {**ROWS[0], "id": "b"}]
    assert rows_digest(rows) != rows_digest(rows[::-1])


def test_parts_of_a_digest_do_not_run_into_each_other() -> None:
    assert digest_of("ab", "c") != digest_of("a", "bc")


def imported_by(module: str) -> set[str]:
    """Return the toolkit's modules that a module imports, at its top or when it runs, not for types alone."""
    tree = ast.parse((ROOT / "toolkit" / f"{module}.py").read_text())
    for_types = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in for_types and node.module:
            if node.module == "toolkit":
                found |= {name.name for name in node.names}
            elif node.module.startswith("toolkit."):
                found.add(node.module.split(".")[1])
    return found


def test_every_module_that_a_stage_runs_through_is_part_of_its_digest() -> None:
    reached, new = set(), {"stages"}
    while new:
        reached |= new
        new = {name for module in new for name in imported_by(module)} - reached
    # Without a part in any weight: what errors look like, that settings are strict, and the list of libraries.
    assert reached - {"errors", "schema", "installed"} == set(runs._CODE)
