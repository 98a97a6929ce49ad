"""`key_tokens` from published chains and a student of the local hub to a published dataset with scores."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import pytest
from pydantic import ValidationError

from dataset_builders import load_builder
from dataset_builders.attributions import example
from dataset_builders.building import BuildReport, build_dataset
from dataset_builders.key_tokens_settings import KeyTokensSettings
from tests.records import saved_student
from toolkit.errors import UserError

# Importing it takes seconds, which a process that collects this file need not spend.
pytestmark = pytest.mark.skipif(find_spec("captum") is None, reason="the extra `attribution` is not installed")

CHAINS = {
    "problems": {"source": "procedural", "tasks": ["ordering"], "n": 6, "n_test": 4},
    "teacher": {"kind": "procedural"},
    "keep": "all",
}


def build(folder: Path, builder: str, repo_id: str, config: dict[str, Any]) -> BuildReport:
    return build_dataset(
        builder,
        load_builder(builder).SETTINGS.model_validate(config),
        folder / "store.sqlite",
        hub_dir=folder / "hub",
        repo_id=repo_id,
        revision="v1.0.0",
        command="distill build recipe.yaml",
        cache_dir=folder / "cache",
        show_progress=False,
    )


def given(**more: Any) -> dict[str, Any]:
    return {
        "chains": {"repo_id": "chains", "revision": "v1.0.0"},
        "attributor": {"model": "reader", "revision": "v1.0.0"},
        "steps": 2,
        **more,
    }


def student(folder: Path, **config: Any) -> None:
    (folder / "hub" / "models" / "reader").mkdir(parents=True)
    saved_student(folder / "hub" / "models" / "reader" / "v1.0.0", initializer_range=0.1, **config)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose hub has chains and a student."""
    folder = tmp_path_factory.mktemp("hub")
    build(folder, "teacher_cots", "chains", CHAINS)
    student(folder)
    return folder


@pytest.fixture(scope="module")
def built(hub: Path) -> BuildReport:
    return build(hub, "key_tokens", "scored", given())


def loaded(report: BuildReport, config: str, split: str, cache: Path) -> Any:
    return datasets.load_dataset(str(report.published.folder), config, split=split, cache_dir=str(cache))


def test_every_word_of_every_chain_has_both_scores(built: BuildReport, tmp_path: Path) -> None:
    rows = list(loaded(built, "default", "train", tmp_path))

    assert len(rows) == 6
    for chain in (row["chain"] for row in rows):
        assert chain["words"] == chain["rationale"].split()
        assert len(chain["gradient_scores"]) == len(chain["embedding_scores"]) == len(chain["words"])
        assert min(chain["gradient_scores"]) > 0
        assert all(-1 <= score <= 1 for score in chain["embedding_scores"])


def test_chains_keep_what_they_were_published_with(built: BuildReport, hub: Path, tmp_path: Path) -> None:
    before = datasets.load_dataset(
        str(hub / "hub/datasets/chains/v1.0.0"), "default", split="train", cache_dir=str(tmp_path)
    )
    after = loaded(built, "default", "train", tmp_path)

    assert set(after["correct"]) == {True, False}
    for name in ("id", "question", "choices", "kind", "answer", "correct"):
        assert after[name][:] == before[name][:]
    for name in ("rationale", "answer", "provenance"):
        assert [row["chain"][name] for row in after] == [row["chain"][name] for row in before]


def test_held_out_questions_come_along(built: BuildReport, hub: Path, tmp_path: Path) -> None:
    before = datasets.load_dataset(
        str(hub / "hub/datasets/chains/v1.0.0"), "evaluation", split="test", cache_dir=str(tmp_path)
    )
    assert loaded(built, "evaluation", "test", tmp_path)[:] == before[:]


def test_the_same_chains_and_student_give_the_same_bytes(built: BuildReport, hub: Path) -> None:
    assert not build(hub, "key_tokens", "scored", given()).published.is_new


def test_the_card_tells_how_words_were_scored_and_names_no_folder(built: BuildReport, hub: Path) -> None:
    card = (built.published.folder / "README.md").read_text()

    assert "by reader at v1.0.0" in card
    assert "2 steps by the midpoint rule; baseline: the padding token's embedding" in card
    assert "Completeness error" in card
    assert "over 6 records" in card
    assert "captum" in card
    assert str(hub) not in card


def test_a_folder_may_stand_for_the_student_and_the_card_has_its_name_alone(hub: Path, tmp_path: Path) -> None:
    shutil.copytree(hub / "hub" / "datasets" / "chains", tmp_path / "hub" / "datasets" / "chains")
    reader = saved_student(tmp_path / "students" / "mine", initializer_range=0.1)

    report = build(tmp_path, "key_tokens", "scored", given(attributor={"model": reader}))

    card = (report.published.folder / "README.md").read_text()
    assert "by mine, over" in card
    assert str(tmp_path) not in card


def test_a_chain_too_long_for_the_student_is_rejected(hub: Path, tmp_path: Path) -> None:
    shutil.copytree(hub / "hub" / "datasets" / "chains", tmp_path / "hub" / "datasets" / "chains")
    student(tmp_path, max_position_embeddings=16)

    with pytest.raises(UserError, match="6 of 6 longer than the attributor's positions"):
        build(tmp_path, "key_tokens", "scored", given())


def test_wrong_chains_may_be_rejected_without_being_scored(hub: Path, tmp_path: Path) -> None:
    shutil.copytree(hub / "hub", tmp_path / "hub")

    report = build(tmp_path, "key_tokens", "right-ones", given(keep="right"))

    assert {record["correct"] for record in report.outcome.train} == {True}
    assert {(record["reason"], *record["chain"]["words"]) for record in report.outcome.rejected} == {
        ("final answer is wrong",)
    }


def test_missing_chains_name_the_command_that_builds_them(tmp_path: Path) -> None:
    chains = {"repo_id": "chains", "revision": "v1.0.0", "recipe": "recipes/data/teacher_cots.yaml"}
    with pytest.raises(UserError, match=r"distill build recipes/data/teacher_cots\.yaml"):
        build(tmp_path, "key_tokens", "scored", given(chains=chains))


def test_a_missing_student_names_the_command_that_trains_it(hub: Path) -> None:
    attributor = {"model": "reeder", "revision": "v1.0.0", "recipe": "recipes/std_cot.yaml"}
    with pytest.raises(UserError, match=r"'reeder'.*accelerate launch toolkit/train\.py recipes/std_cot\.yaml"):
        build(hub, "key_tokens", "scored", given(attributor=attributor))


@pytest.mark.parametrize("revision", ["v1.0.1", None])
def test_a_student_of_another_revision_names_those_there_are(hub: Path, revision: str | None) -> None:
    with pytest.raises(UserError, match=r"has the revisions \['v1\.0\.0'\]"):
        build(hub, "key_tokens", "scored", given(attributor={"model": "reader", "revision": revision}))


def test_a_dataset_of_other_columns_is_refused_by_name(hub: Path) -> None:
    build(hub, "dual_cots", "duals", {name: CHAINS[name] for name in ("problems", "teacher")})
    with pytest.raises(UserError, match="'correct'"):
        build(hub, "key_tokens", "scored", given(chains={"repo_id": "duals", "revision": "v1.0.0"}))


def test_templates_are_cut_at_the_column_they_take() -> None:
    settings = KeyTokensSettings.model_validate(
        given(prompt="{task_description}Q: {question}\nA:", rationale=" ({chain.rationale})", marker="\n#{answer}!")
    )
    row = {"question": "3 + 4?", "task_description": "Add. ", "answer": "7", "chain": {"rationale": "{question}"}}

    shown = example(settings, row)

    assert (shown.prompt, shown.before, shown.rationale) == ("Add. Q: 3 + 4?\nA:", " (", "{question}")
    assert (shown.between, shown.answer, shown.after) == (")\n#", "7", "!")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "Q:"}, "must take {question} exactly once"),
        ({"rationale": " {chain.rationale} {chain.rationale}"}, "must take {chain.rationale} exactly once"),
        ({"marker": "{answer} {chain.answer}"}, "found the column 'chain.answer'"),
        ({"marker": "{answer"}, "stray"),
        ({"teacher": {"kind": "procedural"}}, "leave out problems and teacher"),
        ({"steps": 1}, "steps"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        KeyTokensSettings.model_validate(given(**change))
