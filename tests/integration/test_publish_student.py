"""`distill publish` of students: an adapter of a base from a folder, and what is refused as not being it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback_hub import LoopbackHub
from tests.records import PROMPT, RIGHT, saved_student
from tests.tiny_recipe import EDIT, written
from toolkit import pipeline, publishing, runs
from toolkit.cli import open_recipe
from toolkit.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path / "remote") as server:
        server.be_the_hub(monkeypatch, server.token)
        yield server


def data_alone(folder: Path) -> Path:
    """Write a recipe that only builds."""
    dataset = copy.deepcopy(EDIT["dataset"]) | {"repo_id": "org/tiny-cots"}
    dataset["config"]["problems"] |= {"n": 12, "n_test": 4}
    dataset["config"] |= {"license": "apache-2.0"}
    return written(folder, {"recipe": EDIT["recipe"], "dataset": dataset})


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a student as an adapter of a model that is there already."""
    folder = tmp_path_factory.mktemp("adapted")
    base = saved_student(folder / "base", max_position_embeddings=512)
    recipe = copy.deepcopy(EDIT) | {
        "student": {
            "model_name_or_path": base,
            "use_peft": True,
            "lora_r": 2,
            "lora_target_modules": ["q_proj", "v_proj"],
        },
        "evaluation": {"sets": {"in_domain": {"split": "test"}}, "n": 1},
        "decode": {"view": "cot", "max_new_tokens": 4},
        "publish": EDIT["publish"] | {"repo_id": "org/tiny-adapter", "form": "adapter"},
    }
    del recipe["references"]
    recipe["dataset"] |= {"repo_id": "org/tiny-cots"}
    recipe["dataset"]["config"] |= {"license": "mit"}
    recipe["dataset"]["config"]["problems"] |= {"n": 6, "n_test": 2}
    training = EDIT["stages"][1]["training"] | {"max_steps": 1}
    recipe["stages"] = [
        {"name": "imitate", "views": {"cot": {"prompt": PROMPT, "target": RIGHT}}, "training": training}
    ]
    file = written(folder, recipe)
    pipeline.train(open_recipe(str(file)))
    return file


def test_an_adapter_is_published_alone_and_answers(
    remote: LoopbackHub, adapted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import AutoPeftModelForCausalLM

    publishing.publish(open_recipe(str(adapted)), ["model"], yes=True)

    published = remote.files("org/tiny-adapter", "v1.0.0")
    weights = [name for name in published if name.endswith(".safetensors")]
    assert weights == ["adapter_model.safetensors"]
    assert {"adapter_config.json", "tokenizer.json", "generation_config.json", "README.md"} <= published.keys()
    assert "config.json" not in published
    assert "note: the student" in capsys.readouterr().out
    model = AutoPeftModelForCausalLM.from_pretrained(adapted.parent / "hub/models/org/tiny-adapter/v1.0.0")
    assert model.peft_config["default"].r == 2


def test_a_licence_that_is_stated_later_reaches_the_students_card(remote: LoopbackHub, adapted: Path) -> None:
    named = ["publish.repo_id=org/unlicensed"]
    folder = pipeline.published_student(open_recipe(str(adapted), [*named, "publish.license=null"]))
    assert "license:" not in (folder / "README.md").read_text()

    publishing.publish(open_recipe(str(adapted), [*named, "publish.license=mit"]), ["model"], yes=True)

    assert b"\nlicense: mit\n" in remote.files("org/unlicensed", "v1.0.0")["README.md"]
    assert (folder / "README.md").read_bytes() == remote.files("org/unlicensed", "v1.0.0")["README.md"]
    with pytest.raises(UserError, match="the card is another one; a published revision never changes"):
        publishing.publish(open_recipe(str(adapted), [*named, "publish.license=apache-2.0"]), ["model"], yes=True)


def test_a_student_alone_names_no_dataset_that_is_another(remote: LoopbackHub, adapted: Path, tmp_path: Path) -> None:
    other = open_recipe(str(data_alone(tmp_path)))
    pipeline.build(other)
    publishing.publish(other, (), yes=True)

    with pytest.raises(UserError, match=r"dataset org/tiny-cots on the Hub has a revision v1.0.0 already"):
        publishing.publish(open_recipe(str(adapted)), ["model"], yes=True)

    assert "org/tiny-adapter" not in remote.repositories


def test_another_form_under_the_same_version_is_refused(adapted: Path) -> None:
    with pytest.raises(UserError, match=r"publish.form: found full, but .* holds the student in the other form"):
        pipeline.published_student(open_recipe(str(adapted), ["publish.form=full"]))


def test_under_another_name_it_is_the_same_run(adapted: Path) -> None:
    folder = pipeline.published_student(open_recipe(str(adapted), ["publish.repo_id=me/same", "publish.form=full"]))

    assert (folder / "model.safetensors").exists()
    assert len(list(adapted.parent.glob("outputs/tiny/*/scores.json"))) == 1
    assert len(list(adapted.parent.glob("outputs/tiny/stages/imitate-*"))) == 1


def test_what_is_not_trained_is_not_published(tmp_path: Path) -> None:
    recipe = open_recipe(str(written(tmp_path, EDIT)))
    pipeline.build(recipe)
    with pytest.raises(UserError, match=r"is not trained .*run `accelerate launch toolkit/train.py"):
        pipeline.published_student(recipe)


# --- a student that is not from what is trained now


def test_after_a_change_of_code_a_student_is_trained_and_scored_anew_and_not_published_as_the_old_one(
    adapted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else scores of the new weights would be printed over a student that has the old ones."""
    outputs = adapted.parent / "outputs/tiny"
    before = set(outputs.glob("stages/[!.]*")), set(outputs.glob("*/scores.json"))
    monkeypatch.setattr(runs, "code_digest", lambda: "of another toolkit")

    with pytest.raises(UserError, match=r"differ in the code that trains \(.*, now of another .*the stages imitate-"):
        pipeline.train(open_recipe(str(adapted)))
    with pytest.raises(UserError, match=r"publish.revision=v1.1.0 for a new version, or publish=null"):
        pipeline.published_student(open_recipe(str(adapted)))
    assert before == (set(outputs.glob("stages/[!.]*")), set(outputs.glob("*/scores.json")))
    pipeline.train(open_recipe(str(adapted), ["publish=null"]))

    after = set(outputs.glob("stages/[!.]*")), set(outputs.glob("*/scores.json"))
    assert [len(there - earlier) for there, earlier in zip(after, before, strict=True)] == [1, 1]
    with pytest.raises(UserError, match="differ in the code that trains"):
        pipeline.published_student(open_recipe(str(adapted)))


def test_other_code_that_scores_or_other_questions_are_told_by_name(
    adapted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "scoring_digest", lambda: "of another toolkit")
    monkeypatch.setattr(pipeline, "questions_digest", lambda recipe: "others")
    with pytest.raises(
        UserError, match=r"the evaluation questions \(.*, now others\); the code that scores \("
    ) as told:
        pipeline.published_student(open_recipe(str(adapted)))
    assert "the code that trains" not in str(told.value)


def test_weights_that_came_out_otherwise_are_not_taken_for_the_published_ones(adapted: Path) -> None:
    """By other libraries, or on another kind of machine: recipe, records and code say nothing of them."""
    published = pipeline.published_student(open_recipe(str(adapted))) / "adapter_model.safetensors"
    content = published.read_bytes()
    published.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(UserError, match=r"from the same recipe, records and code, but not with the weights of "):
            pipeline.published_student(open_recipe(str(adapted)))
    finally:
        published.write_bytes(content)


def test_another_base_in_the_same_folder_is_told_by_name(adapted: Path) -> None:
    config = adapted.parent / "base" / "generation_config.json"
    content = config.read_text()
    config.write_text(content + "\n")
    runs.folder_digest.cache_clear()
    try:
        with pytest.raises(UserError, match=r"They differ in the base model's files \("):
            pipeline.published_student(open_recipe(str(adapted)))
    finally:
        config.write_text(content)
        runs.folder_digest.cache_clear()
