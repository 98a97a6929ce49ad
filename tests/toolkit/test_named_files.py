"""Files that a recipe names: where a relative path leads, what is recorded of it, and what `validate` looks at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataset_builders.building import settings_digest
from tests.tiny_recipe import EDIT
from toolkit.cli import main, open_recipe
from toolkit.named_files import leads_to, named_files, project_of
from toolkit.recipe import Recipe, RecipeFaults
from toolkit.reproducing import _opened

ROWS = [{"question": f"What is {n} and {n}?", "answer": str(2 * n)} for n in range(1, 13)]
PROMPT = "Think about {{ question }} and say {{ answer_phrase }}."


def jsonl(path: Path, *rows: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name


def recipe_of(path: Path, dataset: dict[str, Any] | None = None, **sections: Any) -> str:
    """Write the tiny recipe with other settings of its dataset and other sections; return its path."""
    data = json.loads(json.dumps(EDIT)) | sections
    data["dataset"]["config"] |= dataset or {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return str(path)


def from_rows(path: str) -> dict[str, Any]:
    return {"problems": {"source": "jsonl", "path": path}}


def path_of(recipe: Recipe) -> str:
    return str(recipe.dataset.config.problems.path)


def faults(path: str, *overrides: str) -> list[str]:
    """Return key and text of what is wrong with the files that a recipe names."""
    with pytest.raises(RecipeFaults) as caught:
        open_recipe(path, overrides).check_files()
    return [f"{fault.key}: {fault.text}" for fault in caught.value.faults]


# --- where a path leads


def test_a_path_is_relative_to_the_file_that_it_is_written_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jsonl(tmp_path / "methods" / "rows.jsonl", *ROWS)
    recipe = recipe_of(tmp_path / "methods" / "recipe.yaml", from_rows("rows.jsonl"))
    for folder in (tmp_path, tmp_path / "methods", Path("/")):
        monkeypatch.chdir(folder)
        loaded = open_recipe(os.path.relpath(recipe))
        assert Path(path_of(loaded)).samefile(tmp_path / "methods" / "rows.jsonl")
        loaded.check_files()
        assert path_of(open_recipe(recipe)) == os.path.relpath(tmp_path / "methods" / "rows.jsonl")


def test_each_path_is_relative_to_the_file_of_the_chain_that_wrote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "base" / "rows.jsonl", *ROWS)
    jsonl(tmp_path / "top" / "rows.jsonl", *ROWS)
    recipe_of(tmp_path / "base" / "recipe.yaml", from_rows("rows.jsonl"))
    (tmp_path / "base" / "cot.jinja").write_text(PROMPT)
    (tmp_path / "top" / "cot.jinja").write_text(PROMPT)
    (tmp_path / "top" / "inherits.yaml").write_text("extends: ../base/recipe.yaml\n")
    (tmp_path / "top" / "own.yaml").write_text(
        "extends: ../base/recipe.yaml\n"
        "dataset: {config: {problems: {path: rows.jsonl}, prompts: {cot: ../base/cot.jinja}}}\n"
    )
    assert path_of(open_recipe("top/inherits.yaml")) == "base/rows.jsonl"
    own = open_recipe("top/own.yaml")
    assert path_of(own) == "top/rows.jsonl"
    assert own.dataset.config.prompts.cot == "base/cot.jinja"


def test_a_path_that_is_referred_to_stays_relative_to_where_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "base" / "rows.jsonl", *ROWS)
    recipe_of(tmp_path / "base" / "recipe.yaml", from_rows("rows.jsonl"))
    top = tmp_path / "top" / "recipe.yaml"
    top.parent.mkdir()
    for written in (
        "{other: '${dataset.config.problems}'}",
        "{other: {source: jsonl, path: '${dataset.config.problems.path}'}}",
    ):
        top.write_text(f"extends: ../base/recipe.yaml\ndataset: {{config: {{check_against: {written}}}}}\n")
        assert open_recipe("top/recipe.yaml").dataset.config.check_against["other"].path == "base/rows.jsonl"


def test_a_path_in_an_override_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "rows.jsonl", *ROWS)
    recipe_of(tmp_path / "methods" / "recipe.yaml", from_rows("elsewhere.jsonl"))
    recipe = open_recipe("methods/recipe.yaml", ["dataset.config.problems.path=rows.jsonl"])
    assert path_of(recipe) == "rows.jsonl"
    recipe.check_files()


def test_the_folders_of_results_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe_of(tmp_path / "methods" / "recipe.yaml", output_dir="runs", hub_dir="../hub")
    recipe = open_recipe("methods/recipe.yaml")
    assert (recipe.output_dir, recipe.hub_dir) == ("runs", "../hub")


@pytest.mark.parametrize(
    ("text", "kind", "folder", "expected"),
    [
        ("rows.jsonl", "rows", "a", "a/rows.jsonl"),
        ("../rows.jsonl", "rows", "a/b", "a/rows.jsonl"),
        ("./rows.jsonl", "rows", "a", "a/rows.jsonl"),
        ("*/{split}.jsonl", "rows", "a", "a/*/{split}.jsonl"),
        ("**/x.json", "rows", "a", "a/**/x.json"),
        ("/data/rows.jsonl", "rows", "a", "/data/rows.jsonl"),
        ("rows.jsonl", "rows", "", "rows.jsonl"),
        ("https://example.org/x.json", "rows of a dataset", "a", "https://example.org/x.json"),
        ("org/name", "model", "a", "org/name"),
        ("name", "model", "a", "name"),
        ("./name", "model", "a", "./a/name"),
        ("../name", "model", "a", "./name"),
        ("/models/name", "model", "a", "/models/name"),
        ("json", "dataset", "a", "json"),
        ("..", "model", "a/b", "./a"),
    ],
)
def test_where_a_text_leads(text: str, kind: Any, folder: str, expected: str) -> None:
    assert leads_to(text, kind, folder) == expected


def test_a_folder_beside_the_recipe_is_meant_before_a_name_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of(tmp_path / "methods" / "recipe.yaml", student={"model_name_or_path": "org/student"})
    student = open_recipe(recipe).student
    assert student is not None
    assert student.model_name_or_path == "org/student"
    (tmp_path / "methods" / "org" / "student").mkdir(parents=True)
    student = open_recipe(recipe).student
    assert student is not None
    assert student.model_name_or_path == "./methods/org/student"


# --- what is recorded


def copied(folder: Path) -> str:
    """Write a recipe with a file of rows and a prompt into a folder."""
    jsonl(folder / "data" / "rows.jsonl", *ROWS)
    (folder / "cot.jinja").write_text(PROMPT)
    return recipe_of(
        folder / "methods" / "recipe.yaml", from_rows("../data/rows.jsonl") | {"prompts": {"cot": "../cot.jinja"}}
    )


def identities(recipe: str) -> tuple[str, str, str]:
    loaded = open_recipe(recipe)
    assert loaded.dataset.builder is not None
    return loaded.digest, settings_digest(loaded.dataset.builder, loaded.dataset.config), loaded.to_yaml()


def test_identities_do_not_depend_on_where_a_recipe_lies_or_a_command_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = copied(tmp_path / "one"), copied(tmp_path / "a" / "deeper" / "place")
    found = set()
    for folder in (tmp_path, tmp_path / "one", tmp_path / "a" / "deeper", Path("/")):
        monkeypatch.chdir(folder)
        found |= {identities(here), identities(there), identities(os.path.relpath(here))}
    assert len(found) == 1


def test_what_is_recorded_names_no_folder_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    recipe = open_recipe(copied(tmp_path / "one"))
    assert recipe.resolved()["dataset"]["config"]["problems"]["path"] == "../data/rows.jsonl"
    assert str(tmp_path).strip("/") not in recipe.to_yaml()


def test_in_a_project_paths_are_recorded_from_its_folder(tmp_path: Path) -> None:
    project = tmp_path / "one"
    recipe = copied(project)
    (project / "pyproject.toml").write_text("")
    assert project_of(recipe) == str(project)
    assert open_recipe(recipe).resolved()["dataset"]["config"]["prompts"]["cot"] == "cot.jinja"


def test_other_content_of_a_named_file_is_another_build(tmp_path: Path) -> None:
    recipe = copied(tmp_path / "one")
    before = identities(recipe)
    (tmp_path / "one" / "cot.jinja").write_text(PROMPT + " Slowly.")
    digest, settings, _ = identities(recipe)
    assert digest == before[0]
    assert settings != before[1]


def test_every_named_file_of_a_recipe_is_found_with_what_it_is() -> None:
    root = Path(__file__).parents[2] / "recipes"
    kinds = {named.kind for path in sorted(root.rglob("*.yaml")) for named in named_files(open_recipe(str(path)))}
    assert kinds == {"rows", "text", "store", "recipe", "model", "dataset"}


# --- what validate looks at


def good_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def with_teacher(**teacher: Any) -> dict[str, Any]:
    return {"teacher": teacher}


def test_files_that_are_as_they_should_be_are_no_fault(tmp_path: Path) -> None:
    good_model(tmp_path / "student")
    jsonl(tmp_path / "rows.jsonl", *ROWS)
    (tmp_path / "cot.jinja").write_text(PROMPT)
    dataset = from_rows("rows.jsonl") | {"prompts": {"cot": "cot.jinja"}}
    recipe = recipe_of(tmp_path / "recipe.yaml", dataset, student={"model_name_or_path": "./student"})
    assert main(["validate", str(recipe)]) == 0


def test_a_missing_file_is_a_fault_at_its_line_with_the_nearest_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "rows.jsonl", *ROWS)
    recipe_of(tmp_path / "recipe.yaml", from_rows("row.jsonl"))
    line = (tmp_path / "recipe.yaml").read_text().splitlines().index("      path: row.jsonl") + 1
    for command in ("validate", "build", "train"):
        assert main([command, "recipe.yaml"]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith(f"recipe.yaml:{line} dataset.config.problems.path: found 'row.jsonl', but there is no")
        assert "did you mean 'rows.jsonl'?" in shown


ROW_FAULTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no answer column": ([{"question": "q"}], {}, "rows.jsonl:1: no column 'answer'"),
    "a column spelt otherwise": (ROWS, {"columns": {"question": "qestion"}}, "no column 'qestion': 'qestion' is not"),
    "a gold that is null": ([{"question": "q", "answer": None}], {}, "rows.jsonl:1: no gold answer"),
    "a line that is no JSON": (["{"], {}, "rows.jsonl:1: is not JSON"),
    "a line that is no object": (["[1]"], {}, "rows.jsonl:1: is a JSON list, not an object"),
    "nothing": ([], {}, "rows.jsonl: the file is empty"),
    "a pattern that matches nowhere": (ROWS, {"answer_pattern": "#### (.+)"}, "answer_pattern '#### (.+)' does not"),
    "the second row": ([ROWS[0], {"question": "q"}], {}, "rows.jsonl:2: no column 'answer'"),
}


@pytest.mark.parametrize("case", ROW_FAULTS)
def test_the_first_rows_of_a_file_have_the_columns_that_are_named(tmp_path: Path, case: str) -> None:
    rows, settings, told = ROW_FAULTS[case]
    (tmp_path / "rows.jsonl").write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    problems = {"source": "jsonl", "path": "rows.jsonl", **settings}
    (found,) = faults(recipe_of(tmp_path / "recipe.yaml", {"problems": problems}))
    assert found.startswith("dataset.config.problems.path: ")
    assert told in found


PROMPT_FAULTS = {
    "a syntax error": ("{% if %}{{ question }}", "is not a Jinja template"),
    "an unknown filter": ("{{ question | shout }}", "No filter named 'shout'"),
    "an unknown test": ("{% if question is loud %}{% endif %}{{ question }}", "No test named 'loud'"),
    "an unknown variable": ("{{ qestion }}", "no variable 'qestion'"),
    "no question": ("Say something.", "the prompt never shows {{ question }}"),
    "a part that is not there": ("{{ question.text.first }}", "prompt template 'cot'"),
    "a division by zero": ("{{ question }}{{ 1 // 0 }}", "does not render: integer division or modulo by zero"),
    "a call of what is none": ("{{ question() }}", "does not render"),
}


@pytest.mark.parametrize("case", PROMPT_FAULTS)
def test_a_prompt_renders(tmp_path: Path, case: str) -> None:
    text, told = PROMPT_FAULTS[case]
    (tmp_path / "cot.jinja").write_text(text)
    (found,) = faults(recipe_of(tmp_path / "recipe.yaml", {"prompts": {"cot": "cot.jinja"}}))
    assert found.startswith("dataset.config.prompts.cot: ")
    assert told in found


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("config.json", "holds no configuration (config.json)"),
        ("model.safetensors", "holds no weights"),
        ("tokenizer.json", "holds no tokenizer"),
    ],
)
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_a_folder_of_a_model_holds_a_model(tmp_path: Path, gone: str, told: str, who: str) -> None:
    (good_model(tmp_path / "model") / gone).unlink()
    if who == "student":
        recipe = recipe_of(tmp_path / "recipe.yaml", student={"model_name_or_path": "./model"})
        key = "student.model_name_or_path"
    else:
        recipe = recipe_of(tmp_path / "recipe.yaml", with_teacher(kind="transformers", model="./model"))
        key = "dataset.config.teacher.model"
    (found,) = faults(recipe)
    assert found.startswith(f"{key}: ")
    assert told in found


OTHER_FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no folder": ({}, {"student": {"model_name_or_path": "./modle"}}, "student.model_name_or_path: found './"),
    "a model that is a file": ({}, {"student": {"model_name_or_path": "./rows.jsonl"}}, "which is no folder"),
    "chat without a template": (
        {},
        {"student": {"model_name_or_path": "./model", "prompt_format": "chat"}},
        "has no chat template, which prompt_format: chat needs",
    ),
    "a teacher that chats without a template": (
        with_teacher(kind="transformers", model="./model", prompt_format="chat"),
        {},
        "has no chat template",
    ),
    "no store": (with_teacher(kind="recorded", store="x.sqlite"), {}, "dataset.config.teacher.store: found 'x.sqlite'"),
    "no tokenizer": ({"tokenizer": "./nowhere"}, {}, "dataset.config.tokenizer: found './nowhere'"),
    "a folder of rows": (from_rows("model"), {}, "found 'model', which is a folder, allowed a file"),
    "a pipe of rows": (from_rows("pipe"), {}, "which is no file (a named pipe, a socket or a device)"),
    "a pattern of nothing": (from_rows("*.csv"), {}, "found '*.csv', but there is no such file"),
    "a dataset of none": ({"problems": {"source": "dataset", "path": "./none"}}, {}, "but there is no such folder"),
    "data files": (
        {"problems": {"source": "dataset", "path": "json", "data_files": {"train": ["x.json"]}}},
        {},
        "dataset.config.problems.data_files.train.0: found 'x.json'",
    ),
    "an evaluation set": (
        {},
        {"evaluation": {"sets": {"a": from_rows("x.jsonl")["problems"]}}},
        "evaluation.sets.a.path:",
    ),
    "recordings": (
        {"teacher": {"kind": "recorded", "store": "new.sqlite"}, "recordings": [{"path": "rows.jsonl"}]},
        {},
        "dataset.config.recordings.0.path: rows.jsonl:1: no text 'prompt' among ['question', 'answer']",
    ),
}


@pytest.mark.parametrize("case", OTHER_FAULTS)
def test_what_else_a_recipe_names_is_looked_at(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good_model(tmp_path / "model")
    jsonl(tmp_path / "rows.jsonl", *ROWS)
    os.mkfifo(tmp_path / "pipe")
    dataset, sections, told = OTHER_FAULTS[case]
    (found,) = faults(recipe_of(tmp_path / "recipe.yaml", dataset, **sections))
    assert told in found


def test_settings_of_a_library_that_a_stage_names_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of(tmp_path / "methods" / "recipe.yaml")
    assert faults(recipe, "stages.0.training.deepspeed=zero.json") == [
        "stages.0.training.deepspeed: found 'zero.json', but there is no such file"
    ]
    text = (
        Path(recipe)
        .read_text()
        .replace("    save_total_limit: 1", "    save_total_limit: 1\n    deepspeed: zero.json", 1)
    )
    Path(recipe).write_text(text)
    (tmp_path / "methods" / "zero.json").write_text("{")
    (found,) = faults(recipe)
    assert "methods/zero.json: is no JSON" in found
    (tmp_path / "methods" / "zero.json").write_text("{}")
    loaded = open_recipe(recipe)
    loaded.check_files()
    assert loaded.stages[0].training["deepspeed"] == "methods/zero.json"
    assert loaded.stages[0].identity()["training"]["deepspeed"] == "zero.json"


def test_a_folder_of_the_working_directory_is_not_taken_for_one_beside_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good_model(tmp_path / "model")
    recipe = recipe_of(tmp_path / "methods" / "recipe.yaml", student={"model_name_or_path": "model"})
    (found,) = faults(recipe)
    assert "'model', which is a folder in the working directory and not beside the recipe" in found


def test_a_model_that_another_recipe_makes_may_be_missing(tmp_path: Path) -> None:
    other = recipe_of(tmp_path / "other.yaml")
    teacher = with_teacher(kind="transformers", model="./hub/models/other/v1.0.0", recipe="other.yaml")
    recipe = recipe_of(tmp_path / "recipe.yaml", teacher)
    open_recipe(recipe).check_files()
    os.remove(other)
    (found,) = faults(recipe)
    assert found.startswith("dataset.config.teacher.recipe: found ")


def test_validate_looks_at_files_without_torch(tmp_path: Path) -> None:
    good_model(tmp_path / "model")
    recipe = recipe_of(tmp_path / "recipe.yaml", student={"model_name_or_path": "./model"})
    shutil.rmtree(tmp_path / "model")
    code = f"import sys; from toolkit.cli import main; print(main(['validate', {recipe!r}]), 'torch' in sys.modules)"

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "2 False"


def test_a_path_that_begins_with_a_variable_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of(tmp_path / "methods" / "recipe.yaml", from_rows("${oc.env:ROWS,../data}/rows.jsonl"))
    monkeypatch.delenv("ROWS", raising=False)
    assert path_of(open_recipe(recipe)) == "data/rows.jsonl"
    monkeypatch.setenv("ROWS", "here")
    assert path_of(open_recipe(recipe)) == "here/rows.jsonl"
    monkeypatch.setenv("ROWS", "/data")
    assert path_of(open_recipe(recipe)) == "/data/rows.jsonl"


def test_a_recipe_that_is_written_into_a_folder_is_the_same_one_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = open_recipe(copied(tmp_path / "one"))
    run = tmp_path / "outputs" / "tiny" / "abc"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(recipe.to_yaml(folder=run))
    again = open_recipe("outputs/tiny/abc/recipe.yaml")
    again.check_files()
    assert Path(path_of(again)).samefile(path_of(recipe))


def test_a_published_recipe_has_its_paths_from_the_working_directory_when_it_is_reproduced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    recipe = open_recipe(copied(tmp_path))
    published = tmp_path / "hub" / "models" / "student" / "v1.0.0" / "recipe.yaml"
    published.parent.mkdir(parents=True)
    published.write_text(recipe.to_yaml())
    again = _opened(published, ["output_dir=elsewhere"], open_recipe)
    assert path_of(again) == "data/rows.jsonl"
    assert again.dataset.config.prompts.cot == "cot.jinja"
    assert again.digest == recipe.digest
    again.check_files()


@pytest.mark.parametrize("name", ["[exp]", "what?", "a*b"])
def test_a_folder_may_be_called_like_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    recipe = copied(tmp_path / name)
    digests = set()
    for folder in (tmp_path, tmp_path / name, Path("/")):
        monkeypatch.chdir(folder)
        open_recipe(recipe).check_files()
        digests.add(identities(recipe))
    assert len(digests) == 1
    (tmp_path / name / "cot.jinja").write_text(PROMPT + " Slowly.")
    assert identities(recipe)[1] not in {settings for _, settings, _ in digests}
    (tmp_path / name / "data" / "rows.jsonl").unlink()
    (found,) = faults(recipe)
    assert f"{name}/data/rows.jsonl', but there is no such file" in found
