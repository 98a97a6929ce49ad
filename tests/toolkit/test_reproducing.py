"""What makes a published student or dataset again, and what is said where something has changed."""

from __future__ import annotations

import copy
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.loopback_hub import LoopbackHub
from tests.records import saved_student
from tests.tiny_recipe import EDIT, written
from toolkit import hub, hub_remote, pipeline, reproducing
from toolkit.cards import document
from toolkit.cli import _parsed, main, open_recipe
from toolkit.installed import lock
from toolkit.runs import code_digest, rows_digest

ROWS = [{"id": "a", "question": "1 + 1?"}]
COMMIT = "c1" * 20


def recipe_of(folder: Path, **dataset: Any) -> Any:
    content = copy.deepcopy(EDIT)
    content["dataset"]["repo_id"], content["publish"]["repo_id"] = "org/cots", "org/student"
    content["dataset"]["config"].update(dataset)
    return open_recipe(str(written(folder, content)))


def card(accuracy: float) -> str:
    metrics = [{"type": "accuracy", "name": "Accuracy", "value": accuracy}]
    result = {"task": {"type": "text-generation"}, "dataset": {"type": "d", "name": "in_domain"}, "metrics": metrics}
    index = [{"name": "student", "results": [result]}]
    return document({"license": "mit", "model-index": index}, "A student.\n")


class Student:
    """A student in a local hub, whose training is a copy of it, changed as a test wants it.

    Attributes:
        folder: Where it is published.
        weights: Added to one of its tensors by training it again.
        accuracy: Its score then.
        trained: How often it was trained again.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, **dataset: Any) -> None:
        self.weights, self.accuracy, self.trained = 0.0, 0.5, 0
        recipe = recipe_of(root, **dataset)
        self.folder = root / "hub" / "models" / "org" / "student" / "v1.0.0"
        saved_student(self.folder)
        (self.folder / "README.md").write_text(card(self.accuracy))
        (self.folder / "recipe.yaml").write_text(recipe.to_yaml())
        (self.folder / "environment.txt").write_text(lock())
        self.rewrite("run.json", "{}", json.dumps(self.made_from(recipe)))
        monkeypatch.chdir(root)
        monkeypatch.setattr(pipeline, "train", self.train)
        monkeypatch.setattr(pipeline, "training_rows", lambda recipe: ROWS)

    def made_from(self, recipe: Any) -> dict[str, Any]:
        digests = {"recipe": recipe.digest, "rows": rows_digest(ROWS), "code": code_digest()}
        return {**digests, "base_commit": None, "dataset_commit": None, "stages": [{"processes": 1}]}

    def train(self, recipe: Any) -> None:
        self.trained += 1
        made = hub.folder(recipe.hub_dir, "model", recipe.publish.repo_id, recipe.publish.revision)
        shutil.copytree(self.folder, made)
        tensors = load_file(made / "model.safetensors")
        tensors["model.norm.weight"] = tensors["model.norm.weight"] + self.weights
        save_file(tensors, made / "model.safetensors", {"format": "pt"})
        (made / "README.md").write_text(card(self.accuracy))

    def rewrite(self, name: str, old: str, new: str) -> None:
        file = self.folder / name
        file.write_text((file.read_text() if file.exists() else old).replace(old, new))

    def origin(self, **changed: Any) -> None:
        file = self.folder / "run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changed))


@pytest.fixture
def student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Student:
    return Student(tmp_path, monkeypatch)


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path / "remote") as server:
        server.be_the_hub(monkeypatch, server.token)
        yield server


def commands(told: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for line in told.splitlines() if line.startswith("  ")]


def test_every_command_is_printed_and_can_be_typed(student: Student, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "org/student"]) == 0

    install, build, train, again = commands(capsys.readouterr().out)
    assert install[:3] == ["pip", "install", "-r"]
    assert Path(install[3]).read_text() == lock()
    assert build[:2] == ["distill", "build"]
    open_recipe(build[2], build[3:])
    assert train[:3] == ["accelerate", "launch", "toolkit/train.py"]
    open_recipe(train[3], train[4:])
    assert _parsed(again[1:]).run_it
    assert student.trained == 0


def test_a_student_that_comes_out_the_same(student: Student, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "org/student", "--run"]) == 0
    told = capsys.readouterr().out
    assert "weights   the same, all 21 tensors" in told
    assert told.endswith("student org/student v1.0.0 was made again, and is the same\n")


def test_how_far_other_weights_are_is_told(student: Student, capsys: pytest.CaptureFixture[str]) -> None:
    student.weights = 0.125
    assert main(["reproduce", "org/student", "--run"]) == 1
    told = capsys.readouterr().out
    assert "DIFFERS   weights: 1 of 21 tensors, by at most 0.12 (model.norm.weight)" in told
    assert "scores    the same, all 1" in told


def test_another_score_is_told_with_both(student: Student, capsys: pytest.CaptureFixture[str]) -> None:
    student.accuracy = 0.25
    assert main(["reproduce", "org/student", "--run"]) == 1
    assert "DIFFERS   Accuracy on in_domain: 0.5, now 0.25" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("recipe", "recipe: digest 0000"),
        ("code", "the toolkit's code that trains: digest 0000"),
        ("scoring_code", "the toolkit's code that scores: digest 0000"),
        ("base_content", "base model None: digest of its files 0000"),
        ("rows", "rows of the dataset"),
    ],
)
def test_another_input_stops_it_before_training(
    student: Student, capsys: pytest.CaptureFixture[str], key: str, told: str
) -> None:
    student.origin(**{key: "0" * 64})
    assert main(["reproduce", "org/student", "--run"]) == 1
    assert f"CHANGED   {told}" in capsys.readouterr().out
    assert student.trained == 0


def test_another_version_of_the_toolkit_stops_it(student: Student, capsys: pytest.CaptureFixture[str]) -> None:
    student.rewrite("environment.txt", lock().split(",")[0], "# cot-distillery 0.0.1")
    assert main(["reproduce", "org/student", "--run"]) == 1
    assert "CHANGED   cot-distillery was 0.0.1, is " in capsys.readouterr().out


def test_every_input_that_changed_is_named(student: Student, capsys: pytest.CaptureFixture[str]) -> None:
    student.origin(recipe="0" * 64, code="1" * 64)
    assert main(["reproduce", "org/student", "--run"]) == 1
    assert capsys.readouterr().out.count("CHANGED   ") == 2


@pytest.mark.parametrize(("weights", "code"), [(0.0, 0), (0.5, 1)])
def test_other_libraries_are_told_and_the_result_decides(
    student: Student, capsys: pytest.CaptureFixture[str], weights: float, code: int
) -> None:
    student.rewrite("environment.txt", "trl==", "trl==0.0.1")
    student.weights = weights
    assert main(["reproduce", "org/student", "--run"]) == code
    assert "other versions here: trl was 0.0.1" in capsys.readouterr().out


def test_a_base_model_at_another_commit_stops_it(
    student: Student, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student.origin(base_commit=COMMIT)
    monkeypatch.setattr(reproducing, "base_commit", lambda student: "d2" * 20)
    assert main(["reproduce", "org/student", "--run"]) == 1
    assert f"base model None: commit {COMMIT}, now {'d2' * 20}" in capsys.readouterr().out


def test_a_dataset_whose_tag_has_moved_stops_it(
    student: Student, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student.origin(dataset_commit=COMMIT)
    monkeypatch.setattr(reproducing, "commit_of", lambda *_: "d2" * 20)
    assert main(["reproduce", "org/student", "--run"]) == 1
    assert f"dataset org/cots v1.0.0: commit {COMMIT}, now {'d2' * 20}" in capsys.readouterr().out


TEACHER = {"kind": "openai", "model": "gpt", "base_url": "http://127.0.0.1:9/v1"}


def test_what_a_teacher_wrote_is_taken_as_it_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student = Student(tmp_path, monkeypatch, teacher=TEACHER)
    dataset = tmp_path / "hub" / "datasets" / "org" / "cots" / "v1.0.0"
    dataset.mkdir(parents=True)
    (dataset / "README.md").write_text("as it was")

    def rows(recipe: Any) -> list[dict[str, str]]:
        assert (pipeline.dataset_folder(recipe) / "README.md").read_text() == "as it was"
        assert pipeline.is_built(recipe)
        return ROWS

    monkeypatch.setattr(pipeline, "training_rows", rows)
    assert main(["reproduce", "org/student"]) == 0
    assert "# asks the teacher" in capsys.readouterr().out
    assert main(["reproduce", "org/student", "--run"]) == 0
    assert student.trained == 1


def test_work_is_done_in_a_new_folder_only(student: Student, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Path("mine", "thesis.tex").touch()
    assert main(["reproduce", "org/student", "--run", "--output", "mine"]) == 2
    assert "mine: is not empty" in capsys.readouterr().err
    assert student.trained == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["org/student", "--revision", "v1.0.1"],
            "no revision v1.0.1 (did you mean 'v1.0.0'?): the student in hub has",
        ),
        (
            ["studnt"],
            "no student and no dataset 'studnt' with a version like v1.0.0 in hub; a name on the Hub has an owner",
        ),
    ],
)
def test_what_is_not_there_is_told(
    student: Student, capsys: pytest.CaptureFixture[str], words: list[str], told: str, remote: LoopbackHub
) -> None:
    assert main(["reproduce", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_folder_that_does_not_say_what_it_was_made_from(student: Student, capsys: pytest.CaptureFixture[str]) -> None:
    (student.folder / "run.json").unlink()
    (student.folder / "recipe.yaml").unlink()
    assert main(["reproduce", "org/student"]) == 2
    assert "has no recipe.yaml and no run.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [("run.json", b"{not json"), ("run.json", b"{}"), ("run.json", b"[1]"), ("environment.txt", b"\x00\xff")],
)
def test_files_that_are_somebody_elses_are_told(
    student: Student, capsys: pytest.CaptureFixture[str], name: str, content: bytes
) -> None:
    (student.folder / name).write_bytes(content)
    assert main(["reproduce", "org/student"]) == 2
    assert f"{name} is not what this project writes" in capsys.readouterr().err


def test_a_student_of_the_hub_is_made_again_without_a_local_hub(
    student: Student, remote: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    place = hub_remote.Place("model", "org/student", "v1.0.0")
    hub_remote.upload(place, student.folder, hub.content(student.folder).files, private=False)
    remote.requests.clear()

    assert main(["reproduce", "org/student", "--hub-dir", "elsewhere"]) == 0
    download, *_ = commands(capsys.readouterr().out)
    assert download[:5] == ["hf", "download", "org/student", "recipe.yaml", "environment.txt"]
    assert not any("safetensors" in request.path for request in remote.requests)
    assert main(["reproduce", "org/student", "--hub-dir", "elsewhere", "--run"]) == 0
    assert "is the same" in capsys.readouterr().out


# --- datasets


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and a local hub that holds its dataset."""
    folder = tmp_path_factory.mktemp("built")
    file = written(folder, EDIT)
    assert main(["build", str(file), "dataset.config.problems.n=12", "dataset.config.problems.n_test=4"]) == 0
    return folder


def test_a_dataset_that_comes_out_the_same(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "tiny-cots", "--hub-dir", str(built / "hub")]) == 0
    _, build, _ = commands(capsys.readouterr().out)
    open_recipe(build[2], build[3:])
    assert main(["reproduce", "tiny-cots", "--hub-dir", str(built / "hub"), "--run"]) == 0
    assert "dataset tiny-cots v1.0.0 was made again, and is the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("n: 12", "n: 10", ["CHANGED   questions, a teacher's answers or libraries", "sft/train: 12 rows, now 10, 10"]),
        ("temperature: 0.2", "temperature: 0.3", ["CHANGED   settings, prompts or code of the builder: digest"]),
    ],
)
def test_rows_and_settings_that_are_others_are_told(
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    told: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(built / "hub" / "datasets", tmp_path / "hub" / "datasets")
    recipe = tmp_path / "hub" / "datasets" / "tiny-cots" / "v1.0.0" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(old, new))
    assert main(["reproduce", "tiny-cots", "--run"]) == 1
    out = capsys.readouterr().out
    assert all(line in out for line in told), out
    assert "DIFFERS   " in out


def test_a_dataset_of_a_teacher_whose_answers_are_not_here(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(built / "hub" / "datasets", tmp_path / "hub" / "datasets")
    folder = tmp_path / "hub" / "datasets" / "tiny-cots" / "v1.0.0"
    (folder / "recipe.yaml").write_text(recipe_of(tmp_path, teacher=TEACHER).to_yaml("recipe", "dataset"))
    assert main(["reproduce", "tiny-cots", "--run"]) == 2
    assert "its chains are a teacher's, whose answers are not here" in capsys.readouterr().err
