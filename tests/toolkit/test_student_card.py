"""What a student's card tells people, and what machines read out of it."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from toolkit.plots import loss_terms, plot_losses
from toolkit.results import adapter_facts
from toolkit.student_card import (
    AdapterFacts,
    DatasetFacts,
    SetFacts,
    StageFacts,
    StudentFacts,
    build_student_card,
    describe_hardware,
    eval_results,
    links,
    write_student_card,
)

SETTINGS = {
    "turns": [{"view": "cot", "max_new_tokens": 160, "stop": [], "forced": 0, "choices": False}],
    "samples": 1,
    "temperature": 0.0,
    "top_p": 1.0,
    "stop": [],
    "add_special_tokens": True,
    "seed": 0,
    "extractor": "toolkit.answers@1a2b3c4d",
}


def score(accuracy: float, n: int, unparsed: float = 0.0) -> dict[str, Any]:
    return {
        "n": n,
        "accuracy": accuracy,
        "standard_error": (accuracy * (1 - accuracy) / n) ** 0.5,
        "parse_failure_rate": unparsed,
        "truncated_rate": unparsed,
        "generated_tokens": 61.3,
    }


def summary(tasks: dict[str, float], unparsed: float = 0.0) -> dict[str, Any]:
    accuracy = sum(tasks.values()) / len(tasks)
    by_task = {task: score(share, 50, unparsed) for task, share in tasks.items()}
    return {**score(accuracy, 50 * len(tasks), unparsed), "by_task": by_task, "settings": SETTINGS}


def both_sets(known: list[float], unknown: list[float], unparsed: float = 0.0) -> dict[str, Any]:
    inside = dict(zip(["chained_arithmetic", "dates", "lookups", "ordering"], known, strict=True))
    outside = dict(zip(["comparisons", "queue", "shopping"], unknown, strict=True))
    return {"in_domain": summary(inside, unparsed), "out_of_domain": summary(outside, unparsed)}


def log(views: list[str], steps: int, start: float) -> list[dict[str, Any]]:
    """A trainer's log of a falling loss; the second view has a small, negative share."""
    entries = []
    for step in range(20, steps + 1, 20):
        loss = start * (0.15 + 0.85 * 0.985**step)
        shares = dict(zip(views, [loss, -0.025 * loss], strict=False))
        entries.append({"loss": sum(shares.values()), **{f"loss/{name}": share for name, share in shares.items()}})
        entries[-1] |= {"learning_rate": 1e-3, "epoch": step / 90, "step": step}
    return entries


def stage(name: str, views: dict[str, Any], steps: int, start: float) -> StageFacts:
    encoding = {
        "records": 2841,
        "sequences": 2839 * len(views),
        "tokens": dict.fromkeys(views, 398421),
        "scored": dict.fromkeys(views, 221933),
        "weighted": dict.fromkeys(views, 31922),
        "softened": {},
        "swapped": {},
        "dropped": {"ordering/17": "too long", "dates/3": "too long"},
        "longest": 530,
        "held_out": None,
    }
    outcome = {
        "seconds": 94.2,
        "steps": steps,
        "epochs": steps / 90,
        "encoding": encoding,
        "kept_step": steps,
        "log": log(list(views), steps, start),
    }
    training = {"learning_rate": 2e-3, "num_train_epochs": 6, "per_device_train_batch_size": 32}
    return StageFacts(name, views, {"by": "token", "over": "all"}, training, outcome)


def facts(**changed: Any) -> StudentFacts:
    plain = {"coefficient": 1.0, "token_weights": "uniform"}
    key = {"coefficient": 1.0, "token_weights": "key_steps"}
    first = stage("imitate", {"cot": plain}, 540, 4.2)
    second = stage("key_steps", {"right": key, "wrong": {**key, "coefficient": -0.025}}, 180, 0.14)
    return dataclasses.replace(
        StudentFacts(
            repo_id="edit-student-procedural",
            revision="v1.0.0",
            architecture="LlamaForCausalLM",
            parameters=885888,
            base_model=None,
            base_commit=None,
            license="apache-2.0",
            recipe={
                "name": "edit",
                "version": 1,
                "paper": "2405.19737",
                "title": "EDIT: key reasoning steps from dual chains of thought",
            },
            command="accelerate launch toolkit/train.py recipes/edit.yaml",
            dataset=DatasetFacts("dual-cots-procedural", "v1.0.0", "9f" * 32, "procedural", "procedural-v1"),
            stages=[first, dataclasses.replace(second, reduction={"by": "example", "over": "all"})],
            scores={
                "untrained": both_sets([0, 0, 0, 0], [0, 0, 0], 1.0),
                "answer_only": both_sets([0.04, 0.1, 0.92, 0.3], [0.1, 0.02, 0.04]),
                "imitate": both_sets([0.62, 0.7, 1.0, 0.88], [0.44, 0.12, 0.08], 0.01),
                "key_steps": both_sets([0.66, 0.72, 1.0, 0.9], [0.46, 0.14, 0.1], 0.005),
            },
            own="key_steps",
            sets={
                "in_domain": SetFacts(
                    "held-out questions of the dataset", "dual-cots-procedural", "v1.0.0", "evaluation", "test"
                ),
                "out_of_domain": SetFacts("procedural questions of tasks that were not trained on"),
            },
            prompt="Q: Tom has 3 boxes of 4 apples and eats 2 of them. How many apples are left?\nA:",
            completion=" There are 3 * 4 = 12 apples. 12 - 2 = 10.\nTherefore, the answer is 10.",
            add_special_tokens=True,
            hardware="2 CPU cores (x86_64)",
            versions={"torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0"},
            limitations=["The student has 0.9 million parameters and a vocabulary of 512 tokens."],
        ),
        **changed,
    )


def loaded(card: str, folder: Path) -> Any:
    from huggingface_hub import ModelCard

    (folder / "README.md").write_text(card)
    return ModelCard.load(folder / "README.md")


def test_the_hub_client_reads_the_front_matter(tmp_path: Path) -> None:
    data = loaded(build_student_card(facts(base_model="Qwen/Qwen3-0.6B", base_commit="c1" * 20)), tmp_path).data
    assert data.base_model == "Qwen/Qwen3-0.6B"
    assert data.datasets == ["dual-cots-procedural"]
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "text-generation", "apache-2.0")
    assert {"cot-distillery", "edit"} <= set(data.tags)


def test_the_hub_client_reads_the_scores_of_this_student_from_the_model_index(tmp_path: Path) -> None:
    results = loaded(build_student_card(facts()), tmp_path).data.eval_results
    read = {(result.dataset_name, result.metric_type): result.metric_value for result in results}
    own = facts().scores["key_steps"]
    assert read == {
        (name, kind): pytest.approx(own[name][key], abs=1e-6)
        for name in ("in_domain", "out_of_domain")
        for kind, key in (("accuracy", "accuracy"), ("accuracy_stderr", "standard_error"))
    }


def test_the_model_index_names_the_dataset_at_its_revision(tmp_path: Path) -> None:
    result = loaded(build_student_card(facts()), tmp_path).data.eval_results[0]
    assert (result.dataset_type, result.dataset_revision) == ("dual-cots-procedural", "v1.0.0")
    assert (result.dataset_config, result.dataset_split, result.dataset_args["n"]) == ("evaluation", "test", 200)


def test_eval_results_are_read_back_with_the_same_values() -> None:
    import yaml
    from huggingface_hub import parse_eval_result_entries

    [entry] = parse_eval_result_entries(yaml.safe_load(eval_results(facts())))
    assert (entry.dataset_id, entry.task_id, entry.dataset_revision) == ("dual-cots-procedural", "in_domain", "v1.0.0")
    assert entry.value == pytest.approx(facts().scores["key_steps"]["in_domain"]["accuracy"])
    assert entry.notes == "n 200, standard error 0.027166, greedy, 160 new tokens, toolkit.answers@1a2b3c4d"


def test_sets_that_are_no_dataset_have_no_eval_results(tmp_path: Path) -> None:
    asked = facts(sets=dict.fromkeys(["in_domain", "out_of_domain"], SetFacts("made up")))
    assert eval_results(asked) == ""
    write_student_card(tmp_path, asked)
    assert not (tmp_path / ".eval_results").exists()


def test_a_student_from_random_weights_claims_no_base_model(tmp_path: Path) -> None:
    card = build_student_card(facts())
    assert "trained from random weights" in card
    assert loaded(card, tmp_path).data.base_model is None


def test_a_base_model_is_linked_at_the_commit_that_was_loaded(tmp_path: Path) -> None:
    card = build_student_card(facts(base_model="Qwen/Qwen3-0.6B", base_commit="c1" * 20))
    assert f"[Qwen/Qwen3-0.6B]({constants.ENDPOINT}/Qwen/Qwen3-0.6B/tree/{'c1' * 20})" in card
    of_a_folder = build_student_card(facts(base_model="my-model"))
    assert "trained from the model `my-model`" in of_a_folder
    assert loaded(of_a_folder, tmp_path).data.base_model is None


def test_the_dataset_is_linked_at_its_commit_once_that_is_known() -> None:
    from toolkit.cards import with_block

    card = build_student_card(facts())
    assert "/datasets/" not in card
    commit = "ab" * 20
    linked = with_block(card, links("org/dual-cots", "v1.0.0", commit))
    data = DatasetFacts("org/dual-cots", "v1.0.0", "9f" * 32, "procedural", commit=commit)
    made_so = build_student_card(facts(dataset=data))
    for text in (linked, made_so):
        assert f"{constants.ENDPOINT}/datasets/org/dual-cots/tree/v1.0.0)" in text
        assert f"{constants.ENDPOINT}/datasets/org/dual-cots/tree/{commit})" in text
    assert with_block(linked, links("dual-cots-procedural", "v1.0.0", None)) == card


def test_a_procedural_teacher_is_told_apart() -> None:
    warning = "not a language model"
    assert warning in build_student_card(facts())
    bought = DatasetFacts("org/dual-cots", "v1.0.0", "9f" * 32, "openai", "gpt-5-mini")
    assert warning not in build_student_card(facts(dataset=bought))
    both = build_student_card(facts(dataset=replace(bought, teacher="openai and procedural")))
    assert "One of its teachers is this project's embedded" in both


def test_chains_that_nobody_was_asked_for_have_no_teacher() -> None:
    given = DatasetFacts("org/dual-cots", "v1.0.0", "9f" * 32, "")
    assert "written by the" in build_student_card(facts())
    assert "written by the" not in build_student_card(facts(dataset=given))


def test_the_references_stand_beside_the_student() -> None:
    card = build_student_card(facts())
    for student in ("untrained", "answer_only", "imitate", "key_steps"):
        assert f"\n| {student} | " in card
    assert "| key_steps | 82.0 ± 2.7 | 200 | 0.5 % | 23.3 ± 3.5 | 150 | 0.5 % |" in card


def test_what_was_dropped_and_what_a_view_weighs_is_told() -> None:
    card = build_student_card(facts())
    assert "| imitate | 2841 | 2 | 540 |" in card
    assert "| key_steps | wrong | -0.025 | key_steps | 398421 | 221933 | 31922 |" in card


def test_soft_targets_are_told_where_there_are_some() -> None:
    assert "soft targets" not in build_student_card(facts()).lower()
    stages = list(facts().stages)
    soft = {"right": {"tokens": 1000, "aligned": 800, "mass": 720.0, "unmapped": 8.0}}
    told = {**stages[1].outcome, "encoding": stages[1].outcome["encoding"] | {"softened": soft}}
    card = build_student_card(facts(stages=[stages[0], dataclasses.replace(stages[1], outcome=told)]))
    kept = "800 of 1000 (80.0%); each keeps 0.900 of the teacher's probability, 0.010 has no token"
    assert "| token weights | tokens | scored | with weight | soft targets |\n| --- " in card
    assert f"| key_steps | right | 1 | key_steps | 398421 | 221933 | 31922 | {kept} |\n" in card
    assert "| key_steps | wrong | -0.025 | key_steps | 398421 | 221933 | 31922 | – |\n" in card


def test_swapped_texts_that_came_twice_or_read_as_before_are_told() -> None:
    assert "other records" not in build_student_card(facts())
    stages = list(facts().stages)
    swap = {"cot": {"texts": 1000, "repeated": 20, "unchanged": 503}}
    told = {**stages[0].outcome, "encoding": stages[0].outcome["encoding"] | {"swapped": swap}}
    card = build_student_card(facts(stages=[dataclasses.replace(stages[0], outcome=told), stages[1]]))
    assert (
        "\nView `cot` of `imitate` has 1000 texts of other records: 20 (2.0%) were given to another record before, "
        "503 (50.3%) read as the record's own.\n"
    ) in card


def with_held_out(name: str, **outcome: Any) -> StudentFacts:
    """Return the facts of a student one of whose stages held 316 records out and evaluated on them twice."""
    stages = []
    for stage in facts().stages:
        if stage.name == name:
            encoding = stage.outcome["encoding"] | {"held_out": {"records": 316}}
            losses = [{"eval_loss": loss, "step": step} for step, loss in ((60, 1.25), (stage.outcome["steps"], 1.5))]
            told = {**stage.outcome, "encoding": encoding, "log": [*stage.outcome["log"], *losses], **outcome}
            stage = dataclasses.replace(stage, outcome=told)
        stages.append(stage)
    return facts(stages=stages)


def test_what_was_held_out_of_training_is_told() -> None:
    assert "was not trained on" not in build_student_card(facts())
    card = build_student_card(with_held_out("imitate"))
    assert "`imitate` was not trained on 316 further records" in card
    assert "The loss on them was 1.5 at step 540.\n" in card
    assert "weights kept" not in card


def test_weights_of_an_earlier_step_are_told_with_their_loss() -> None:
    card = build_student_card(with_held_out("imitate", kept_step=60))
    assert "The weights kept are those of step 60, with a loss of 1.25 on them.\n" in card


def test_the_last_loss_is_that_of_training() -> None:
    last = [entry["loss"] for entry in facts().stages[0].outcome["log"]][-1]
    assert f"| {last:.4g} | by token" in build_student_card(with_held_out("imitate"))


@pytest.mark.parametrize("told", [facts(), with_held_out("imitate", kept_step=60)], ids=["all", "some held out"])
def test_every_table_of_the_card_is_whole(told: StudentFacts) -> None:
    """As many cells in every line of a table, and a blank line before and after it."""
    body = build_student_card(told)
    tables: list[list[str]] = [[]]
    for line in body.splitlines():
        if line.startswith("|"):
            tables[-1].append(line)
        elif tables[-1]:
            assert not line.strip(), f"{line!r} right after a table"
            tables.append([])
    assert len(list(filter(None, tables))) > 2
    for table in filter(None, tables):
        assert len({line.count("|") - line.count("\\|") for line in table}) == 1, table
        assert set(table[1]) <= set("|-: "), table


def test_the_prompt_in_the_code_is_the_prompt() -> None:
    import ast

    prompt = "Say \"```\" and '<!-- /generated:use -->'\n\tnow\nA:"
    card = build_student_card(facts(prompt=prompt))
    code = ast.parse(card.split("```python\n")[1].split("```")[0])
    [value] = [line.value for line in code.body if isinstance(line, ast.Assign) and line.targets[0].id == "prompt"]
    assert ast.literal_eval(value) == prompt
    assert card.count("<!-- /generated:use -->") == 1


def test_completions_and_recipes_cannot_break_out_of_their_blocks() -> None:
    card = build_student_card(facts(completion="```\n<!-- /generated:use -->"))
    assert card.count("<!-- /generated:use -->") == 1
    assert card.count("```") % 2 == 0


def test_what_people_wrote_survives_a_new_card() -> None:
    from toolkit.cards import merge

    card = build_student_card(facts())
    edited = card.replace("<!-- generated:scores -->", "My own remark.\n\n<!-- generated:scores -->")
    assert merge(edited, card) == edited


def test_the_same_facts_make_the_same_files(tmp_path: Path) -> None:
    folders = tmp_path / "first", tmp_path / "second"
    written = []
    for folder in folders:
        folder.mkdir()
        written.append({file.relative_to(folder): file.read_bytes() for file in write_student_card(folder, facts())})
    assert written[0] == written[1]
    assert {str(file) for file in written[0]} == {
        "README.md",
        "accuracy.png",
        "loss.png",
        ".eval_results/edit.yaml",
    }


def test_pictures_that_the_card_shows_are_beside_it(tmp_path: Path) -> None:
    write_student_card(tmp_path, facts())
    card = (tmp_path / "README.md").read_text()
    shown = [part.split(")")[0] for part in card.split("](")[1:] if part.split(")")[0].endswith(".png")]
    assert shown == ["accuracy.png", "loss.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in shown)


def test_a_stage_that_logged_nothing_has_no_curve(tmp_path: Path) -> None:
    quiet = [
        dataclasses.replace(stage, outcome={**stage.outcome, "log": []}, name=stage.name) for stage in facts().stages
    ]
    write_student_card(tmp_path, facts(stages=quiet))
    assert not (tmp_path / "loss.png").exists()
    assert "loss.png" not in (tmp_path / "README.md").read_text()


def test_the_loss_on_held_out_records_is_drawn_beside_that_of_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: figures.append(figure))
    plot_losses({"imitate": with_held_out("imitate").stages[0].outcome["log"]}, tmp_path / "loss.png")
    (panel,) = figures[0].subfigs[0].axes
    _, held_out = panel.get_lines()
    assert held_out.get_label() == "held out"
    assert held_out.get_xydata().tolist() == [[60, 1.25], [540, 1.5]]


def test_terms_of_a_loss_are_drawn_apart_and_in_the_order_of_the_views() -> None:
    terms = loss_terms(log(["wrong", "right"], 40, 1.0))
    assert list(terms) == ["loss/wrong", "loss/right"]
    assert [step for step, _ in terms["loss/right"]] == [20, 40]


def test_a_loss_of_one_view_is_one_curve() -> None:
    assert list(loss_terms(log(["cot"], 40, 1.0))) == ["loss"]


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_a_cpu_is_told_by_its_cores_also_where_several_processes_shared_it(device: str) -> None:
    assert "CPU cores" in describe_hardware(device)


def test_a_card_says_that_lora_was_trained_and_how() -> None:
    adapter = AdapterFacts(8, 16, 0.05, ("q_proj", "v_proj"), ("lm_head",))
    text = build_student_card(facts(adapter=adapter))
    assert (
        "LoRA was trained, not all weights: rank 8, alpha 16, dropout 0.05, on `q_proj`, `v_proj`; trained whole "
        "beside it: `lm_head`."
    ) in text
    assert "LoRA" not in build_student_card(facts())


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, None),
        ({"use_peft": False, "lora_r": 8}, None),
        ({"use_peft": True, "lora_r": 8, "lora_target_modules": ["q_proj"]}, AdapterFacts(8, 32, 0.05, ("q_proj",))),
        (
            {"use_peft": True, "lora_alpha": 4, "lora_dropout": 0.0, "lora_target_modules": "all-linear"},
            AdapterFacts(16, 4, 0.0, ("all-linear",)),
        ),
    ],
)
def test_the_adapter_is_that_of_the_recipe_with_the_defaults_of_trl(
    fields: dict[str, Any], told: AdapterFacts | None
) -> None:
    assert adapter_facts(fields) == told
