"""What the documents say is there is there: files, commands, keys, and what the examples print."""

from __future__ import annotations

import doctest
import importlib.util
import re
import shlex
from glob import glob
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from toolkit.cli import _parsed, open_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = ROOT / "README.md"
METHODS = ROOT / "docs" / "methods.md"


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[Any]:
    """Return every command line of every page, as parameters named by page and command."""
    found = []
    for page in PAGES:
        lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines]
        found += [pytest.param(line, id=f"{page.name}: {shlex.join(line)}") for line in words if line]
    return found


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.fixture
def reference() -> ModuleType:
    path = ROOT / "docs" / "recipe_reference.py"
    spec = importlib.util.spec_from_file_location("recipe_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("words", commands())
def test_a_shown_command_names_what_exists(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    program, *rest = words
    if program == "make":
        assert rest[0] in make_targets()
    elif program == "python":
        file = rest[1].replace(".", "/") + ".py" if rest[0] == "-m" else rest[0]
        assert (ROOT / file).is_file()
    elif program == "accelerate":
        rest = rest[rest.index("toolkit/train.py") + 1 :]
        open_recipe(rest[0], rest[1:])
    elif program == "hf":
        assert rest[0] in ("auth", "download")
    else:
        assert program == "distill"
        args = _parsed(rest)
        overrides = [word for word in args.words if "=" in word]
        for word in set(args.words) - set(overrides):
            for recipe in glob(word) if "*" in word else [word]:  # as a shell would
                open_recipe(recipe, overrides)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_relative_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_print_what_they_show(page: Path) -> None:
    text = "".join(blocks(page, "pycon"))
    example = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0


def test_readme_shows_both_public_modules() -> None:
    shown = "".join(blocks(README, "pycon"))
    assert {"key_steps", "extract", "matches"} <= set(re.findall(r"\w+", shown))


def test_readme_opens_with_the_two_commands() -> None:
    assert blocks(README, "bash")[0].split("\n")[:2] == ["make quickstart", "make test"]


@pytest.mark.parametrize(("builder", "shown"), [("key_tokens", 1), ("teacher_cots", 2)])
def test_the_recipes_shown_for_a_dataset_are_valid(builder: str, shown: int, tmp_path: Path) -> None:
    recipes = blocks(ROOT / "docs" / "datasets" / f"{builder}.md", "yaml")
    assert len(recipes) == shown
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")  # what they extend lies beside them
    for recipe in recipes:
        (tmp_path / "recipe.yaml").write_text(recipe)
        assert open_recipe(str(tmp_path / "recipe.yaml")).dataset.builder == builder


def test_the_method_of_three_views_is_valid(tmp_path: Path) -> None:
    (shown,) = blocks(METHODS, "yaml")
    (tmp_path / "recipe.yaml").write_text(shown.replace("extends: ", f"extends: {ROOT}/"))
    (stage,) = open_recipe(str(tmp_path / "recipe.yaml")).stages
    assert len(stage.views) == 3


def method_rows() -> list[Any]:
    """Return name, reduction and weights of each row of the table of methods that links a recipe."""
    rows = re.findall(
        r"\]\(\.\./recipes/(\w+)\.yaml\) \|.*\| ([^|]+) \| [^|]+ \| ([^|]+) \|$", METHODS.read_text(), re.M
    )
    return [pytest.param(*row, id=row[0]) for row in rows]


@pytest.mark.parametrize(("name", "reduction", "weights"), method_rows())
def test_the_table_of_methods_says_what_the_recipes_say(name: str, reduction: str, weights: str) -> None:
    embedded, _, paper = weights.partition(" / ")
    for folder, said in (("recipes", embedded), ("recipes/paper", paper or embedded)):
        recipe = open_recipe(str(ROOT / folder / f"{name}.yaml"))
        assert reduction.split("; ") == [stage.reduction.by for stage in recipe.stages]
        coefficients = [view.coefficient for stage in recipe.stages for view in stage.views.values()]
        assert [float(weight) for weight in said.split("; ")] == coefficients


def test_every_method_is_in_the_table_of_methods() -> None:
    assert {path.stem for path in (ROOT / "recipes").glob("*.yaml")} == {row.id for row in method_rows()}


def test_the_teachers_shown_are_valid() -> None:
    from dataset_builders.settings import BuilderSettings

    lines = [line for block in blocks(ROOT / "docs" / "teachers.md", "yaml") for line in block.splitlines()]
    shown = [yaml.safe_load(line)["teacher"] for line in lines if line.startswith("teacher:")]
    kinds = [teacher.kind for one in shown for teacher in BuilderSettings.model_validate({"teacher": one}).teachers]
    assert kinds == ["openai"] * 9 + ["transformers"] * 2 + ["recorded"]


def test_the_reference_of_keys_is_what_the_models_say(reference: ModuleType) -> None:
    page = reference.PAGE.read_text()
    assert page.partition(reference.MARKER)[2] == reference.reference(), "run python docs/recipe_reference.py"


def test_every_section_of_a_recipe_is_in_the_reference(reference: ModuleType) -> None:
    from pydantic import BaseModel

    from toolkit import recipe_sections

    sections = {
        value
        for value in vars(recipe_sections).values()
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == recipe_sections.__name__
    }
    # The base of all sections has no keys; the student's own keys stand in `Student`, the rest are TRL's.
    known = {*reference.MODELS.values(), recipe_sections.Section, recipe_sections.AnyStudent}
    assert sections <= known


@pytest.mark.parametrize(
    "recipe", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_recipe_says_how_it_is_launched(recipe: Path) -> None:
    header = re.match(r"(#.*\n)+", recipe.read_text())
    assert header is not None
    assert re.search(rf"(toolkit/train\.py|distill build) {re.escape(str(recipe.relative_to(ROOT)))}", header.group())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_fit_unless_they_are_tables(page: Path) -> None:
    lines = page.read_text().splitlines()
    assert [line for line in lines if len(line) > 140 and not line.startswith(("|", "distill"))] == []
