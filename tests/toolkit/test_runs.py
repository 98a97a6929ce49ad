"""Where results lie: what changes a stage's folder, and what leaves it alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_recipe import EDIT, written
from toolkit import runs
from toolkit.cli import open_recipe
from toolkit.runs import Run, digest_of, folder_digest, origins_apart, rows_digest, texts_digest

ROWS = [{"id": "a", "question": "1 + 1?", "right": {"rationale": "1 + 1 = 2.", "answer": "2"}}]


@pytest.fixture
def folders(tmp_path: Path) -> Any:
    """Return a function from overrides to the names of the folders of start, stages and run."""
    file = written(tmp_path, copy.deepcopy(EDIT))

    def of(*overrides: str, **digests: str) -> list[str]:
        run = Run(open_recipe(str(file), overrides), **{"rows": "rows", "texts": "texts", **digests})
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


def test_another_prompt_format_moves_what_is_trained_and_scored_by_it(folders: Any) -> None:
    template = "student.chat_template='{{ messages[0].content }}{% if add_generation_prompt %}>{% endif %}'"
    plain, chat = folders(template), folders(template, "student.prompt_format=chat")
    assert [one != two for one, two in zip(plain, chat, strict=True)] == [False, True, True, True]


@pytest.mark.parametrize(
    ("digests", "moves"),
    [
        ({"rows": "others"}, [False, True, True, True]),
        ({"texts": "others"}, [True, True, True, True]),
        ({"questions": "others"}, [False, False, False, True]),
    ],
)
def test_other_records_texts_or_questions_move_what_comes_of_them(
    folders: Any, digests: dict[str, str], moves: list[bool]
) -> None:
    assert changed(folders, **digests) == moves


@pytest.mark.parametrize(
    ("which", "moves"), [("code_digest", [True, True, True, True]), ("scoring_digest", [False, False, False, True])]
)
def test_other_code_moves_what_it_makes(
    folders: Any, monkeypatch: pytest.MonkeyPatch, which: str, moves: list[bool]
) -> None:
    before = folders()
    monkeypatch.setattr(runs, which, lambda: "another toolkit")
    assert [one != two for one, two in zip(before, folders(), strict=True)] == moves


def test_another_reference_is_another_run(folders: Any) -> None:
    assert changed(folders, "references.answer_only.stages.0.training.seed=7") == [False, False, False, True]


def test_keys_in_another_order_are_the_same_place(folders: Any, tmp_path: Path) -> None:
    recipe = copy.deepcopy(EDIT)
    recipe["student"]["from_config"] = dict(reversed(recipe["student"]["from_config"].items()))
    recipe["stages"][0]["training"] = dict(reversed(recipe["stages"][0]["training"].items()))
    recipe["references"] = dict(reversed(recipe["references"].items()))
    run = Run(open_recipe(str(written(tmp_path / "reordered", recipe))), "rows", "texts")
    links = run.chain(run.recipe.stages)
    assert [run.start.name, *(link.folder.name for link in links)] == folders()[:-1]
    assert run.recipe.digest == open_recipe(str(tmp_path / "recipe.yaml")).digest


# --- a student from a folder


FIELDS = [
    *("use_peft=true", "lora_r=4", "lora_alpha=8", "lora_dropout=0.1"),
    *("lora_target_modules=[q_proj,v_proj]", "dtype=float32"),
]


def loaded(folder: Path, model: Path, *words: str) -> Run:
    """Return the run of a recipe whose student lies in a folder."""
    recipe = copy.deepcopy(EDIT)
    recipe["student"] = {"model_name_or_path": str(model)}
    file = written(folder, recipe)
    return Run(open_recipe(str(file), [f"student.{word}" for word in words]), "rows")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with the files of a model, as far as anything here reads them."""
    folder = tmp_path / "model"
    (folder / "additional_chat_templates").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md", "stage.json"):
        (folder / name).write_text(name)
    return folder


def test_the_arguments_of_a_student_come_in_declared_order(tmp_path: Path, model: Path) -> None:
    declared = ["dtype", "use_peft", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"]
    for words in (FIELDS, FIELDS[::-1]):
        student = loaded(tmp_path, model, *words).recipe.student
        assert student is not None
        assert list(student.model_arguments()) == declared
        assert [name for name in student.model_dump() if name in declared] == declared


@pytest.mark.parametrize(
    ("file", "moves"),
    [
        ("model.safetensors", True),
        ("tokenizer.json", True),
        ("chat_template.jinja", True),
        ("additional_chat_templates/tool.jinja", True),
        ("README.md", False),
        ("stage.json", False),
        (".cache", False),
    ],
)
@pytest.mark.parametrize("words", [(), ("special_tokens=[<pause>]",)], ids=["as it is", "with a token more"])
def test_other_files_of_a_base_in_its_place_move_its_students(
    tmp_path: Path, model: Path, file: str, moves: bool, words: tuple[str, ...]
) -> None:
    def places() -> tuple[str, str]:
        folder_digest.cache_clear()
        run = loaded(tmp_path, model, *words)
        return run.chain(run.recipe.stages)[0].folder.name, run.folder.name

    before = places()
    (model / file).write_text("another")
    assert [one != two for one, two in zip(before, places(), strict=True)] == [moves, moves]


def test_a_base_that_is_moved_has_the_same_stages(tmp_path: Path, model: Path) -> None:
    before = loaded(tmp_path, model).students
    after = loaded(tmp_path, model.rename(tmp_path / "elsewhere")).students
    assert [link.folder for link in after["key_steps"]] == [link.folder for link in before["key_steps"]]


# --- what two runs differ in


def test_what_differs_between_two_runs_is_told_by_name() -> None:
    origin = {"recipe": "r" * 64, "rows": "a" * 64, "questions": "", "code": "c" * 64, "scoring_code": "s" * 64}
    origin |= {"base_commit": None, "base_content": None, "start": "start-1", "students": {"cot": ["cot-1"]}}

    def apart(**changed: Any) -> list[str]:
        return list(origins_apart(origin, origin | changed))

    assert apart() == []
    assert apart(recipe="q" * 64) == ["the recipe (rrrrrrrrrrrr, now qqqqqqqqqqqq)"]
    assert apart(rows="b" * 64) == ["the dataset's records (aaaaaaaaaaaa, now bbbbbbbbbbbb)"]
    assert apart(questions="q") == ["the evaluation questions (none, now q)"]
    assert apart(code="d" * 64) == ["the code that trains (cccccccccccc, now dddddddddddd)"]
    assert apart(scoring_code="d") == ["the code that scores (ssssssssssss, now d)"]
    assert apart(base_commit="f" * 40) == ["the base model's commit (none, now ffffffffffff)"]
    assert apart(base_content="f") == ["the base model's files (none, now f)"]
    assert apart(start="start-2") == ["the student that training starts from (start-1, now start-2)"]
    assert apart(students={"cot": ["cot-2"]}) == ["the stages cot-2, none of which it was made with"]
    assert apart(students={"cot": ["cot-1"], "plain": []}) == ["the students cot, plain, found cot in it"]
    assert len(list(origins_apart({}, origin))) == len(origin)


def test_texts_do_not_run_into_each_other() -> None:
    assert texts_digest(["ab", "c"]) != texts_digest(["a", "bc"])


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
