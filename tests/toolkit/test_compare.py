"""What `distill compare` refuses before anything is trained, and what it does with a recipe that fails."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny_recipe import EDIT
from toolkit import compare as compare_module
from toolkit import pipeline
from toolkit.cli import main, open_recipe
from toolkit.compare import Arm, Order, compare, shared_sets
from toolkit.comparison import ArmRun
from toolkit.errors import UserError
from toolkit.problem import Problem

pytestmark = pytest.mark.slow  # whole pipelines


def write(folder: Path, name: str, **sections: Any) -> str:
    """Write the tiny recipe under another name and with other sections; None drops one."""
    recipe = copy.deepcopy(EDIT) | {"recipe": {"name": name, "version": 1}} | sections
    file = folder / f"{name}.yaml"
    kept = {key: value for key, value in recipe.items() if value is not None}
    folders = {"output_dir": str(folder / "outputs"), "hub_dir": str(folder / "hub")}
    file.write_text(yaml.safe_dump(kept | folders, sort_keys=False))
    return str(file)


@pytest.fixture(autouse=True)
def _trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(recipe: Any) -> Any:
        raise AssertionError(f"{recipe.recipe.name} was trained")

    monkeypatch.setattr(pipeline, "train_students", never)


def refused(order: Order) -> str:
    with pytest.raises(UserError) as error:
        compare(order, open_recipe)
    return str(error.value)


# --- words and recipes


def test_every_fault_of_every_recipe_is_listed(tmp_path: Path) -> None:
    good, twice = write(tmp_path, "good"), write(tmp_path, "good_too", recipe={"name": "good", "version": 1})
    bad = write(tmp_path, "bad", recipe={"name": "bad", "version": 0}, decode={"view": "cto"})
    unscored = write(tmp_path, "unscored", evaluation=None)
    untrained = write(tmp_path, "untrained", stages=None, decode=None, evaluation=None, references=None)
    told = refused(Order([good, twice, bad, unscored, untrained], [], [0])).replace(f"{tmp_path}/", "").splitlines()
    assert [line.partition(":")[0] for line in told if not line.startswith("bad.yaml")] == [
        "good_too.yaml recipe.name",
        "unscored.yaml evaluation",
        "untrained.yaml stages",
        "untrained.yaml evaluation",
    ]
    assert [line.split()[1] for line in told if line.startswith("bad.yaml")] == ["recipe.version:", "decode.view:"]
    assert "good_too.yaml recipe.name: found 'good', the name of good.yaml already; a recipe takes part once" in told


def test_an_unknown_baseline_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    files = [write(tmp_path, name) for name in ("std_cot", "edit")]
    assert refused(Order(files, [], [0], "std_cott")) == (
        "--baseline: found 'std_cott', allowed std_cot, edit (did you mean 'std_cot'?)"
    )


@pytest.mark.parametrize(("seeds", "found"), [([], "none"), ([1, 2, 1], "1, 2, 1")])
def test_seeds_are_needed_and_different(seeds: Sequence[int], found: str, tmp_path: Path) -> None:
    told = refused(Order([write(tmp_path, "edit")], [], seeds))
    assert told == f"--seeds: found {found}, allowed at least one whole number >= 0, none of them twice"


@pytest.mark.parametrize(
    "word",
    [
        "student.seed=3",
        "stages.imitate.training.seed=3",
        "stages[0].training.data_seed=3",
        "stages.0.training.seed=3",
    ],
)
def test_a_seed_among_the_overrides_is_refused(word: str, tmp_path: Path) -> None:
    told = refused(Order([write(tmp_path, "edit")], [word], [0]))
    assert told.startswith(f"found the override {word}, allowed are --seeds")


def test_an_override_that_one_recipe_does_not_take_is_a_fault_of_that_recipe(tmp_path: Path) -> None:
    files = [write(tmp_path, "edit"), write(tmp_path, "short", stages=EDIT["stages"][:1])]
    told = refused(Order(files, ["stages.key_steps.training.learning_rate=1e-4"], [0]))
    assert told.startswith(
        "override 'stages.key_steps.training.learning_rate=1e-4' stages.key_steps: found 'key_steps'"
    )


def test_what_a_builder_refuses_is_told_of_every_recipe(tmp_path: Path) -> None:
    wrong = copy.deepcopy(EDIT["dataset"]) | {"builder": None, "config": None}
    files = [write(tmp_path, name, dataset=wrong | {"repo_id": name}) for name in ("one", "two")]
    told = refused(Order(files, [], [0])).splitlines()
    assert [line.partition(":")[0] for line in told] == ["one", "two"]


# --- questions


def asked(*ids: str, question: str = "?") -> list[Problem]:
    return [Problem(id, "sums", question, "1") for id in ids]


def test_only_sets_that_all_recipes_have_are_compared() -> None:
    arms = {"a": {"x": asked("1"), "y": asked("2")}, "b": {"y": asked("2"), "z": asked("3")}}
    assert shared_sets(arms, "a") == ["y"]


def test_no_shared_set_is_told_with_the_sets_there_are() -> None:
    with pytest.raises(UserError, match=r"share no set by name.*: a has x; b has y, z$"):
        shared_sets({"a": {"x": asked("1")}, "b": {"y": asked("1"), "z": asked("1")}}, "a")


@pytest.mark.parametrize("other", [asked("1", "3"), asked("1"), asked("1", "2", question="!")])
def test_other_questions_under_the_name_of_a_set_are_refused(other: list[Problem]) -> None:
    told = rf"evaluation\.sets\.x: b asks {len(other)} questions and a 2, and they are not the same: '[123]'"
    with pytest.raises(UserError, match=told):
        shared_sets({"a": {"x": asked("1", "2")}, "b": {"x": other}}, "a")


def test_the_same_questions_in_another_order_are_the_same() -> None:
    assert shared_sets({"a": {"x": asked("1", "2")}, "b": {"x": asked("2", "1")}}, "a") == ["x"]


# --- overrides of a run


def test_a_seed_is_that_of_the_student_and_of_every_stage(tmp_path: Path) -> None:
    file = write(tmp_path, "edit")
    recipe = open_recipe(file, Arm(file, (), open_recipe(file), {}).seeded(7))
    assert recipe.student is not None
    assert recipe.student.seed == 7
    assert [(stage.training["seed"], stage.training["data_seed"]) for stage in recipe.stages] == [(7, 7)] * 2


# --- a recipe that fails


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Replace training and scoring; the recipe called `bad` fails with its second seed."""
    done: list[tuple[str, int]] = []

    def run(recipe: Any, arm: Any, seed: int) -> ArmRun:
        name = recipe.recipe.name
        done.append((name, seed))
        if (name, seed) == ("bad", 1):
            raise RuntimeError("out of memory")
        facts = {
            "stage": "imitate",
            "seconds": 1.0,
            "resumed_from_step": 0,
            "steps": 5,
            "epochs": 1.0,
            "tokens": 400,
            "device": "cpu",
            "encoding": {"dropped": {}, "tokens": {"cot": 10}, "weighted": {"cot": 4}},
        }
        row = {"id": "q", "sample": 0, "solved": True, "parsed": True, "stopped": True, "tokens": 3}
        return ArmRun(seed, recipe.digest, [facts] * len(recipe.stages), {on: [row] for on in arm.problems})

    monkeypatch.setattr(compare_module, "_run", run)
    return done


def words(tmp_path: Path, *names: str) -> list[str]:
    files = [write(tmp_path, name) for name in names]
    return ["compare", *files, "--seeds", "0", "1", "2", "--output", str(tmp_path / "page")]


def test_the_other_recipes_are_finished_and_the_failed_one_is_named(
    tmp_path: Path, ran: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tmp_path, "good", "bad", "last")) == 2
    assert ran == [("good", 0), ("bad", 0), ("last", 0), ("good", 1), ("bad", 1), ("last", 1), ("good", 2), ("last", 2)]
    assert capsys.readouterr().err.endswith("bad failed with seed 1: RuntimeError: out of memory\n")
    page = (tmp_path / "page" / "compare.md").read_text()
    assert "- bad, seed 1: RuntimeError: out of memory" in page
    assert "| bad |" not in page


def test_where_the_baseline_fails_there_is_a_page_without_tests(
    tmp_path: Path, ran: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words(tmp_path, "good", "bad"), "--baseline", "bad"]) == 2
    assert "| good | 100.0 ± 0.0 |  |  |  |  |  |" in (tmp_path / "page" / "compare.md").read_text()


def test_where_all_fail_there_is_no_page(tmp_path: Path, ran: list[tuple[str, int]]) -> None:
    assert main(words(tmp_path, "bad")) == 2
    assert not (tmp_path / "page").exists()


def test_another_comparison_gets_another_folder_unless_told_where(tmp_path: Path, ran: list[tuple[str, int]]) -> None:
    recipe = write(tmp_path, "good")
    for more in ([], ["--tokens", "9999"], ["evaluation.n=3"]):
        assert main(["compare", recipe, *more]) == 0
    assert len(list((tmp_path / "outputs").glob("compare-*/compare.md"))) == 3
