from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import DatasetCard

from dataset_builders import building, inputs, load_builder
from dataset_builders.asking import Outcome
from dataset_builders.building import BuildReport, build_dataset, settings_digest
from dataset_builders.columns import leaves
from toolkit import bank, hub
from toolkit.cards import shown_files
from toolkit.errors import UserError
from toolkit.store import Store
from toolkit.teachers.protocol import Completion, Request
from toolkit.version_rules import change

pytestmark = pytest.mark.slow  # whole pipelines

PROCEDURAL = {
    "problems": {"source": "procedural", "tasks": ["chained_arithmetic", "ordering"], "n": 30, "n_test": 10},
    "teacher": {"kind": "procedural", "error_rate": 0.4, "garble_rate": 0.3},
}


def build(
    folder: Path, revision: str = "v1.0.0", builder: str = "dual_cots", recipe: str = "", **config: Any
) -> BuildReport:
    settings = load_builder(builder).SETTINGS.model_validate({**PROCEDURAL, **config})
    return build_dataset(
        builder,
        settings,
        folder / "store.sqlite",
        hub_dir=folder / "hub",
        repo_id="org/numbers",
        revision=revision,
        command="distill build recipe.yaml",
        recipe=recipe,
        cache_dir=folder / "cache",
        show_progress=False,
    )


def digests(report: BuildReport) -> dict[str, str]:
    folder = report.published.folder
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in report.published.files}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def loaded(built: BuildReport, tmp_path_factory: pytest.TempPathFactory) -> dict[str, datasets.DatasetDict]:
    cache = str(tmp_path_factory.mktemp("cache"))
    folder = str(built.published.folder)
    return {name: datasets.load_dataset(folder, name, cache_dir=cache) for name in ("default", "sft", "evaluation")}


def test_every_problem_is_in_train_or_rejected(loaded: dict[str, datasets.DatasetDict]) -> None:
    records = loaded["default"]

    assert len(set(records["train"]["id"]) | set(records["rejected"]["id"])) == 30
    assert len(records["train"]) + len(records["rejected"]) == 30
    assert set(records["train"]["reason"]) == {None}
    assert all(records["rejected"]["reason"])


def test_the_ready_made_rendering_has_a_row_per_record(loaded: dict[str, datasets.DatasetDict]) -> None:
    assert loaded["sft"]["train"]["id"][:] == loaded["default"]["train"]["id"][:]


@pytest.mark.parametrize("keep", ["all", "right"])
def test_plain_trl_gets_right_chains_only_whatever_is_kept(keep: str, tmp_path: Path) -> None:
    report = build(tmp_path, builder="teacher_cots", samples=2, keep=keep)
    folder, cache = str(report.published.folder), str(tmp_path / "c")
    records = datasets.load_dataset(folder, "default", split="train", cache_dir=cache)
    sft = datasets.load_dataset(folder, "sft", split="train", cache_dir=cache)
    assert set(records["correct"]) == ({True, False} if keep == "all" else {True})
    assert sft["id"][:] == [row["id"] for row in records if row["correct"]]
    completions = {
        row["id"]: f"{row['chain']['rationale']}\nTherefore, the answer is {row['answer']}." for row in records
    }
    assert all(row["completion"] == completions[row["id"]] for row in sft)
    card = (report.published.folder / "README.md").read_text()
    assert re.search(rf"\| sft / train \| {len(sft)} \|", card)


def test_without_a_right_chain_there_is_nothing_for_plain_trl(tmp_path: Path) -> None:
    wrong = {"kind": "procedural", "error_rate": 1.0, "garble_rate": 0.0}
    report = build(tmp_path, builder="teacher_cots", keep="all", teacher=wrong)
    assert datasets.get_dataset_config_names(str(report.published.folder)) == ["default", "evaluation"]


def test_held_out_questions_are_published_and_in_no_record(loaded: dict[str, datasets.DatasetDict]) -> None:
    test = loaded["evaluation"]["test"]

    assert len(test) == 10
    assert not set(test["question"]) & set(loaded["default"]["train"]["question"])


def test_spans_mark_the_text_in_which_the_chains_differ(loaded: dict[str, datasets.DatasetDict]) -> None:
    records = loaded["default"]["train"]
    assert any(record["right"]["key_spans"] for record in records)
    for record in records:
        plain = []
        for side in ("right", "wrong"):
            text, kept = record[side]["rationale"], []
            for index, character in enumerate(text):
                if not any(span["start"] <= index < span["end"] for span in record[side]["key_spans"]):
                    kept.append(character)
            plain.append("".join("".join(kept).split()))  # where a word is cut out, its neighbours may touch or not
        assert plain[0] == plain[1]


def test_the_same_inputs_give_the_same_bytes(built: BuildReport, tmp_path: Path) -> None:
    assert digests(build(tmp_path)) == digests(built)


def test_building_again_asks_nothing_and_writes_nothing(tmp_path: Path) -> None:
    build(tmp_path)

    again = build(tmp_path)

    assert (again.collected.asked, again.published.is_new) == (0, False)
    assert "the same content is there already" in again.summary()


def test_a_few_more_problems_ask_only_for_themselves(tmp_path: Path) -> None:
    # Only as many questions as new problems; prompts of others change as long as the pool of exemplars fills up.
    config = {"exemplars": 0}
    before = build(tmp_path, **config)
    problems = {**PROCEDURAL["problems"], "n": 32}

    after = build(tmp_path, "v1.1.0", problems=problems, **config)

    assert after.collected.cached == before.collected.asked + before.collected.cached
    assert 0 < after.collected.asked <= 2 * 4


def test_two_versions_load_side_by_side(tmp_path: Path) -> None:
    first = build(tmp_path)
    second = build(tmp_path, "v1.1.0", problems={**PROCEDURAL["problems"], "n": 40})

    sizes = [
        sum(load.num_rows.values())
        for load in (
            datasets.load_dataset(str(report.published.folder), "default", cache_dir=str(tmp_path / "c"))
            for report in (first, second)
        )
    ]
    assert sizes == [30, 40]


def test_other_settings_under_the_same_revision_are_refused(tmp_path: Path) -> None:
    build(tmp_path)
    with pytest.raises(UserError, match=r"next free .* version is v1\.1\.0"):
        build(tmp_path, teacher={**PROCEDURAL["teacher"], "seed": 5})


def test_other_settings_of_the_embedded_teacher_are_not_answered_from_the_store(tmp_path: Path) -> None:
    build(tmp_path)

    again = build(tmp_path, "v1.1.0", teacher={**PROCEDURAL["teacher"], "error_rate": 0.0})

    assert again.outcome.steps[0].outcomes == {"right": again.outcome.steps[0].accepted}


def test_changed_code_is_not_answered_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shouting(record: dict[str, Any]) -> dict[str, Any]:
        return {"id": record["id"], "task": record["task"], "prompt": "HEY", "completion": "HO"}

    build(tmp_path)
    dual_cots = load_builder("dual_cots")
    monkeypatch.setattr(dual_cots, "sft", staticmethod(shouting))
    monkeypatch.setattr(building, "closure_digest", lambda *modules: f"changed {modules}")

    folder = build(tmp_path, "v2.0.0").published.folder

    rows = datasets.load_dataset(str(folder), "sft", split="train", cache_dir=str(tmp_path / "c"))
    assert set(rows["prompt"]) == {"HEY"}


@pytest.mark.parametrize("what", ["problems", "prompt", "prompt of a task", "default prompt", "another file"])
def test_a_changed_file_is_another_start_of_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Else what was built from the old one would pass for what the recipe says now."""
    files = {
        "problems": tmp_path / "problems-train.jsonl",
        "prompt": tmp_path / "cot.jinja",
        "prompt of a task": tmp_path / "hint-sums.jinja",
        "default prompt": tmp_path / "prompts" / "contrastive.jinja",
        "another file": tmp_path / "notes.txt",
    }
    for file in files.values():
        file.parent.mkdir(exist_ok=True)
        file.write_text("as it was")
    monkeypatch.setattr(inputs, "PROMPTS", tmp_path / "prompts")
    monkeypatch.chdir(tmp_path)  # `task: {stem}` of a source of files is no pattern for all that lies here
    settings = load_builder("dual_cots").SETTINGS.model_validate(
        {
            "problems": {"source": "jsonl", "path": str(tmp_path / "problems-{split}.jsonl")},
            "prompts": {"cot": str(files["prompt"]), "answer_hint": str(tmp_path / "hint-{task}.jinja")},
            "teacher": PROCEDURAL["teacher"],
            "title": "A title, which names no file: *",
        }
    )
    before = settings_digest("dual_cots", settings)
    assert settings_digest("dual_cots", settings) == before

    files[what].write_text("another one")

    assert (settings_digest("dual_cots", settings) == before) is (what == "another file")


def test_a_build_without_a_record_says_what_became_of_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no record is left .*cot: 30 of 30 no answer clause"):
        build(tmp_path, teacher={"kind": "procedural", "garble_rate": 1.0})
    assert not (tmp_path / "hub").exists()


def test_a_teacher_without_any_fault_leaves_no_empty_split(tmp_path: Path) -> None:
    flawless = {"kind": "procedural", "garble_rate": 0, "hint_failure_rate": 0, "corrupt_failure_rate": 0}

    folder = build(tmp_path, teacher=flawless).published.folder

    assert list(datasets.load_dataset(str(folder), "default", cache_dir=str(tmp_path / "c"))) == ["train"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [([""], "is empty"), ([json.dumps({"question": "1 + 1?"})], "answer"), (["{"], "not JSON")],
)
def test_bad_problem_files_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=rf"problems\.jsonl.*{message}"):
        build(tmp_path, problems={"source": "jsonl", "path": str(path)})


def test_teacher_cots_are_published_with_all_their_configs(tmp_path: Path) -> None:
    report = build(tmp_path, builder="teacher_cots", samples=2)

    row = datasets.load_dataset(str(report.published.folder), "default", split="train", cache_dir=str(tmp_path / "c"))[
        0
    ]
    assert row["correct"] is True
    assert row["chain"]["provenance"]["model"] == "procedural-v1"
    assert report.shares == {}


def published(folder: Path, builder: str, **config: Any) -> tuple[BuildReport, datasets.Dataset]:
    report = build(folder, builder=builder, **config)
    loaded = datasets.load_dataset(
        str(report.published.folder), "default", split="train", cache_dir=str(folder / "loaded")
    )
    return report, loaded


def test_counterfactual_rationales_are_published_with_a_side_for_either_answer(tmp_path: Path) -> None:
    problems = {**PROCEDURAL["problems"], "tasks": list(bank.FAMILIES), "n": 84}
    report, rows = published(tmp_path, "counterfactual_rationales", problems=problems)

    assert set(rows["task"]) == set(bank.FAMILIES)
    for row in rows:
        assert row["factual"]["answer"] == row["answer"] != row["counterfactual"]["answer"]
        assert row["factual"]["rationale"] != row["counterfactual"]["rationale"]
    assert "| counterfactual | the reasoning that leads to the wrong answer" in read_card(report)


def test_steps_are_published_as_lists_of_records(tmp_path: Path) -> None:
    problems = {**PROCEDURAL["problems"], "tasks": list(bank.FAMILIES), "n": 84}
    report, rows = published(tmp_path, "socratic_steps", problems=problems)

    assert set(rows["task"]) == set(bank.FAMILIES)
    for row in rows:
        assert "\n".join(step["answer"] for step in row["steps"]) == row["chain"]["rationale"]
        assert [step["label"] for step in row["steps"]].index("Final question") == len(row["steps"]) - 1
    text = read_card(report)
    assert "| `steps[].question` | string | One sub-question |" in text
    assert "Final question: " in text


@pytest.mark.parametrize("builder", ["counterfactual_rationales", "socratic_steps"])
def test_the_newer_builders_give_the_same_bytes_too_and_ask_once(tmp_path: Path, builder: str) -> None:
    first = build(tmp_path / "a", builder=builder)
    assert digests(build(tmp_path / "b", builder=builder)) == digests(first)
    assert build(tmp_path / "a", builder=builder).collected.asked == 0


def read_card(report: BuildReport) -> str:
    return (report.published.folder / "README.md").read_text()


# --- the card ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def card(built: BuildReport) -> str:
    return read_card(built)


def test_the_card_parses_as_the_hub_s(built: BuildReport) -> None:
    data = DatasetCard.load(built.published.folder / "README.md").data

    assert (data.pretty_name, data.size_categories) == ("org/numbers", "n<1K")


def test_the_card_counts_what_every_step_let_through(built: BuildReport, card: str) -> None:
    assert any(step.reasons for step in built.outcome.steps)
    for step in built.outcome.steps:
        assert f"| {step.records} | {step.accepted}" in card
        for reason, count in step.reasons.items():
            assert f"| {step.name} | {reason} | {count} |" in card


def test_the_card_names_the_key_share_of_every_task(built: BuildReport, card: str) -> None:
    assert len(built.shares["words"]) > 1
    for task, share in built.shares["words"].items():
        assert f"| {task} | {share.pairs} | {100 * share.right:.1f} % |" in card


def test_the_card_names_command_terms_and_the_embedded_teacher(tmp_path: Path) -> None:
    folder = build(tmp_path, license="mit", source_terms="Ask | <me>.", title="Sums").published.folder
    text = (folder / "README.md").read_text()

    for part in ("distill build recipe.yaml", "`mit`", "Ask | <me>.", "# Sums", "embedded, procedural teacher"):
        assert part in text


@pytest.mark.parametrize(
    ("builder", "pictures"),
    [("dual_cots", {"yields.png", "lengths.png", "key_shares.png"}), ("teacher_cots", {"yields.png", "lengths.png"})],
)
def test_the_pictures_of_a_card_are_beside_it(tmp_path: Path, builder: str, pictures: set[str]) -> None:
    report = build(tmp_path, builder=builder)

    assert shown_files(read_card(report)) == pictures
    for name in pictures:
        assert (report.published.folder / name).read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_people_have_put_into_a_card_goes_with_the_next_version(tmp_path: Path) -> None:
    first = build(tmp_path).published.folder
    (first / "ours.jpg").write_bytes(b"a photograph")
    (first / "README.md").write_text((first / "README.md").read_text() + "\n![ours](ours.jpg)\n")

    again = build(tmp_path)
    second = build(tmp_path, "v1.1.0", problems={**PROCEDURAL["problems"], "n": 40}).published.folder

    assert not again.published.is_new
    assert (second / "ours.jpg").read_bytes() == b"a photograph"
    assert "![ours](ours.jpg)" in (second / "README.md").read_text()


def test_the_card_names_the_recipe_that_lies_beside_it(tmp_path: Path) -> None:
    recipe = "recipe:\n  name: sums\n  version: 3\n  paper: null\n"
    folder = build(tmp_path, recipe=recipe).published.folder

    assert "version 3 of the recipe `sums`" in (folder / "README.md").read_text()
    assert (folder / "recipe.yaml").read_text() == recipe


def test_another_recipe_for_the_same_dataset_finds_it_published(tmp_path: Path) -> None:
    first = build(tmp_path, recipe="recipe:\n  name: sums\n  version: 3\n  paper: null\n")
    second = build(tmp_path, recipe="recipe:\n  name: other\n  version: 1\n  paper: null\n")

    assert not second.published.is_new
    assert digests(second) == digests(first)


def changelog(report: BuildReport) -> list[str]:
    """Return the entries of a card's changelog."""
    block = read_card(report).partition("## Changelog\n\n")[2].partition("\n\n")[0]
    return block.splitlines()


RECIPE = """recipe: {{name: sums, version: 3, paper: null}}
dataset: {{repo_id: a, config: {{problems: {{n: {n}}}, keep: {keep}}}}}
"""


def test_the_changelog_says_what_changed_since_the_version_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the dataset, not of its builder: rows and settings, by what lies in the hub."""
    builder = load_builder("dual_cots")
    monkeypatch.setattr(builder, "VERSION", datasets.Version("1.0.0"))
    monkeypatch.setattr(builder, "CHANGES", {"1.0.0": "The first version."})
    first = build(tmp_path, recipe=RECIPE.format(n=20, keep="right"))
    (entry,) = changelog(first)
    assert re.fullmatch(r"- v1\.0\.0: the first version here, \d+ rows of `default / train`, .*\.", entry)

    monkeypatch.setattr(builder, "VERSION", datasets.Version("1.1.0"))
    monkeypatch.setattr(builder, "CHANGES", {"1.1.0": "Fewer slips.", "1.0.0": "The first version."})
    more = {**PROCEDURAL["problems"], "n": PROCEDURAL["problems"]["n"] + 20}
    second = build(tmp_path, "v1.1.0", problems=more, recipe=RECIPE.format(n=40, keep="all"))
    entry, *earlier = changelog(second)
    assert earlier == changelog(first)
    assert entry.startswith("- v1.1.0, after v1.0.0: `default / train` has ")
    assert "`dataset.config.problems.n` is 40, before 20" in entry
    assert "`dataset.config.keep` is all, before right" in entry
    assert "its builder is 1.1.0, before 1.0.0 (Fewer slips)" in entry
    assert "repo_id" not in entry

    again = build(tmp_path, "v1.1.1", problems=more, recipe=RECIPE.format(n=40, keep="all"))
    assert changelog(again) == ["- v1.1.1, after v1.1.0: rows and settings are the same.", entry, *earlier]


def test_the_same_version_is_the_same_whatever_lies_before_it_in_another_hub(tmp_path: Path) -> None:
    build(tmp_path / "a")
    with_it = build(tmp_path / "a", "v1.1.0", problems={**PROCEDURAL["problems"], "n": 30})
    without = build(tmp_path / "b", "v1.1.0", problems={**PROCEDURAL["problems"], "n": 30})
    assert changelog(with_it) != changelog(without)
    assert change(hub.content(with_it.published.folder), hub.content(without.published.folder)) is None


def test_the_card_names_no_path_of_this_machine(built: BuildReport, card: str) -> None:
    assert str(built.published.folder.parents[3]) not in card


def test_the_card_compares_questions_with_evaluation_sets(tmp_path: Path) -> None:
    same = {**PROCEDURAL["problems"]}
    folder = build(tmp_path, check_against={"the same test": same}).published.folder

    assert "| the same test | 10 | 0 (0.0 %) |" in (folder / "README.md").read_text()


def test_the_card_describes_every_column(card: str) -> None:
    paths = [path for columns in load_builder("dual_cots").tables(Outcome()).values() for path, _ in leaves(columns)]
    assert "right.rationale" in paths
    for path in paths:
        assert f"`{path.partition('.')[2] if '.provenance.' in path else path}`" in card


def test_the_summary_names_every_file_and_the_next_command(built: BuildReport) -> None:
    text = built.summary()

    assert str(built.published.folder) in text
    assert all(name in text for name in built.published.files)
    assert "load_dataset" in text


def test_a_model_in_this_process_writes_chains_with_log_probabilities(tmp_path: Path) -> None:
    from tests.records import saved_student

    teacher = {"kind": "transformers", "model": saved_student(tmp_path / "tiny"), "device": "cpu"}
    config = {
        "problems": {**PROCEDURAL["problems"], "n": 2},
        "teacher": teacher,
        "sampling": {"max_tokens": 3, "temperature": 0.0, "top_logprobs": 2},
    }

    # A model of random weights never closes as it should, so all it wrote is rejected.
    with pytest.raises(UserError, match="2 of 2 truncated by length"):
        build(tmp_path, builder="teacher_cots", **config)

    with Store(tmp_path / "store.sqlite", read_only=True) as store:
        (model,) = store.stats().models
        assert store.stats().completions == 2
    assert model.startswith("tiny@")
    with pytest.raises(UserError, match="2 of 2 truncated by length"):
        build(tmp_path, builder="teacher_cots", **{**config, "teacher": {**teacher, "batch_size": 1}})
    with Store(tmp_path / "store.sqlite", read_only=True) as store:
        assert store.stats().completions == 2, "how many prompts are decoded at once decides nothing"


def test_log_probabilities_survive_publication(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.teachers.logprobs import TokenLogprob
    from toolkit.teachers.procedural import ProceduralTeacher

    answer = ProceduralTeacher.complete
    token = TokenLogprob("So", -0.25, (("So", -0.25), ("We", -1.5)))

    async def with_logprobs(self: ProceduralTeacher, request: Request) -> Completion:
        plain = replace(request, sampling=replace(request.sampling, top_logprobs=0))
        choice = {"logprobs": {"content": [token.as_response()]}}
        return replace(await answer(self, plain), raw={"choices": [choice]})

    monkeypatch.setattr(ProceduralTeacher, "complete", with_logprobs)
    report = build(tmp_path, builder="teacher_cots", sampling={"top_logprobs": 2})

    rows = datasets.load_dataset(str(report.published.folder), "default", split="train", cache_dir=str(tmp_path / "c"))
    top = [{"token": "So", "logprob": -0.25}, {"token": "We", "logprob": -1.5}]
    assert rows[0]["chain"]["logprobs"] == [{"token": "So", "logprob": -0.25, "top": top}]
    assert "`chain.logprobs[].top[].logprob`" in (report.published.folder / "README.md").read_text()
