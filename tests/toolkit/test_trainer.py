"""The weighted trainer against plain TRL, against EDIT's formula by hand, and against itself in other layouts."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainingArguments
from trl import SFTConfig, SFTTrainer

from tests.gradients import Gradients, difference, edit_by_hand
from tests.records import TRAINING, duals, edit, imitation, saved_student
from tests.tiny_students import tiny_tokenizer
from toolkit.errors import UserError
from toolkit.recipe import Stage
from toolkit.stages import make_trainer
from toolkit.token_losses import token_losses
from toolkit.training_fields import RENAMED

ROWS = duals(8)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_student(tmp_path_factory.mktemp("student"))


def run(student: str, stage: Stage, tmp_path: Path, rows: list[dict[str, Any]] = ROWS, **model: Any) -> Any:
    """Train a stage; return (losses, gradients, log)."""
    trainer, _ = make_trainer(stage, rows, student, tmp_path / "out", model, "plain")
    gradients = Gradients()
    trainer.add_callback(gradients)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [entry["loss"] for entry in log], gradients.steps, log


def test_weights_of_one_are_plain_trl_for_twenty_steps(student: str, tmp_path: Path) -> None:
    stage = imitation(max_steps=20)
    trainer, _ = make_trainer(stage, ROWS, student, tmp_path / "ours", {}, "plain")
    encoded = trainer.train_dataset
    prepared = Dataset.from_dict(
        {
            "input_ids": encoded["input_ids"],
            "labels": [
                [token if weight else -100 for token, weight in zip(ids, weights, strict=True)]
                for ids, weights in zip(encoded["input_ids"], encoded["weights"], strict=True)
            ],
        }
    )
    plain = SFTTrainer(
        model=student,
        args=SFTConfig(output_dir=str(tmp_path / "plain"), **stage.training),
        train_dataset=prepared,
        processing_class=tiny_tokenizer(),
    )
    seen = Gradients()
    plain.add_callback(seen)
    plain.train()
    losses, gradients, _ = run(student, stage, tmp_path)
    expected = [entry["loss"] for entry in plain.state.log_history if "loss" in entry]
    assert len(losses) == len(expected) == 20
    assert losses == pytest.approx(expected, rel=1e-6)
    assert max(difference(ours, theirs) for ours, theirs in zip(gradients, seen.steps, strict=True)) < 1e-5
    # Rounding, after twenty steps of Adam.
    assert max((a - b).abs().max().item() for a, b in zip(gradients, seen.steps, strict=True)) < 2e-6


LAYOUTS: dict[str, dict[str, Any]] = {
    "padded": {"per_device_train_batch_size": 16},
    "accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8},
    "packed": {"per_device_train_batch_size": 16, "packing": True, "max_length": 160},
    "packed and accumulated": {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 16,
        "packing": True,
        "max_length": 160,
    },
    "padding-free": {"per_device_train_batch_size": 16, "padding_free": True},
    "checkpointed": {"per_device_train_batch_size": 16, "activation_checkpointing": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_edits_second_stage_is_its_formula(student: str, tmp_path: Path, layout: str) -> None:
    loss, gradient = edit_by_hand(student, ROWS, alpha=1.0, beta=0.3)
    losses, gradients, _ = run(student, edit(alpha=1.0, beta=0.3, max_grad_norm=0.0, **LAYOUTS[layout]), tmp_path)
    assert losses[0] == pytest.approx(loss, rel=1e-5)
    assert difference(gradients[0], gradient) < 1e-5


@pytest.mark.parametrize("by", ["token", "view", "example"])
@pytest.mark.parametrize("over", ["all", "weighted"])
def test_eight_at_once_are_two_by_four(student: str, tmp_path: Path, by: str, over: str) -> None:
    def gradient(**sizes: int) -> torch.Tensor:
        stage = edit(beta=0.3, reduction={"by": by, "over": over}, max_grad_norm=0.0, **sizes)
        return run(student, stage, tmp_path)[1][0]

    at_once = gradient(per_device_train_batch_size=8)
    assert difference(gradient(per_device_train_batch_size=4, gradient_accumulation_steps=2), at_once) < 1e-5


@pytest.mark.parametrize("stage", [imitation(), edit()], ids=["imitate", "key_steps"])
def test_the_fused_and_the_plain_head_give_the_same_losses(student: str, tmp_path: Path, stage: Stage) -> None:
    trainer, _ = make_trainer(stage, ROWS, student, tmp_path, {}, "plain")
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    fused, plain = (token_losses(trainer.model, dict(inputs), batch["labels"], head) for head in ("fused", "plain"))
    assert torch.allclose(fused, plain, atol=1e-5, rtol=1e-5)


def test_a_batch_without_any_weight_is_a_zero_that_can_be_derived(student: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(student)
    ids = torch.arange(12).reshape(2, 6)
    losses = token_losses(model, {"input_ids": ids}, torch.full_like(ids, -100), "plain")
    losses.sum().backward()
    assert losses.shape == (2, 5)
    assert not losses.any()


def test_each_views_share_of_the_loss_is_logged_apart(student: str, tmp_path: Path) -> None:
    losses, _, log = run(student, edit(beta=0.3, max_steps=4), tmp_path)
    assert len(losses) == 4
    for loss, entry in zip(losses, log, strict=True):
        assert entry["loss/right"] + entry["loss/wrong"] == pytest.approx(loss, rel=1e-5)
        assert entry["loss/wrong"] < 0 < entry["loss/right"]


def test_columns_survive_to_the_collator_by_default(student: str, tmp_path: Path) -> None:
    trainer, _ = make_trainer(edit(), ROWS, student, tmp_path, {}, "plain")
    batch = next(iter(trainer.get_train_dataloader()))
    assert {"input_ids", "attention_mask", "labels", "weights", "counts", "views"} <= set(batch)
    assert torch.equal(batch["labels"] != -100, batch["weights"] != 0)


@pytest.mark.parametrize(("steps", "every", "logged"), [(2, 10, [2]), (4, 2, [2, 4]), (5, 2, [2, 4, 5])])
def test_the_last_step_is_logged_however_short_the_run(
    student: str, tmp_path: Path, steps: int, every: int, logged: list[int]
) -> None:
    trainer, _ = make_trainer(edit(max_steps=steps, logging_steps=every), ROWS, student, tmp_path, {}, "plain")
    trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == logged


def test_nothing_is_logged_where_nothing_is_to_be(student: str, tmp_path: Path) -> None:
    trainer, _ = make_trainer(edit(max_steps=2, logging_strategy="no"), ROWS, student, tmp_path, {}, "plain")
    trainer.train()
    assert [entry for entry in trainer.state.log_history if "loss" in entry] == []


def test_lora_trains_the_adapter_alone(student: str, tmp_path: Path) -> None:
    model = {"use_peft": True, "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"]}
    trainer, _ = make_trainer(edit(max_steps=2), ROWS, student, tmp_path, model, "plain")
    trainer.train()
    trained = [name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def test_an_adapters_first_weights_come_from_the_seed_alone(student: str, tmp_path: Path) -> None:
    """Not from what the process drew before: a first stage that is found trained, or one that it trains."""
    model = {"use_peft": True, "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"]}

    def first_weights(seed: int) -> torch.Tensor:
        trainer, _ = make_trainer(edit(seed=seed), ROWS, student, tmp_path, model, "plain")
        return torch.cat([p.detach().flatten() for name, p in trainer.model.named_parameters() if "lora_A" in name])

    first = first_weights(3)
    torch.rand(7)
    assert torch.equal(first_weights(3), first)
    assert not torch.equal(first_weights(4), first)


def test_more_dropped_records_than_allowed_refuse_the_run(student: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"8 of 8 records.*8 too long.*training.max_length is 16"):
        make_trainer(imitation(max_length=16), ROWS, student, tmp_path, {}, "plain")


def test_an_empty_dataset_is_refused(student: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no records"):
        make_trainer(imitation(), [], student, tmp_path, {}, "plain")


def test_pairs_without_any_difference_are_refused(student: str, tmp_path: Path) -> None:
    rows = [{**row, "wrong": row["right"]} for row in ROWS]
    with pytest.raises(UserError, match="no token of any record carries weight"):
        make_trainer(edit(), rows, student, tmp_path, {}, "plain")


def test_bfloat16_autocast_gives_nearly_the_same_loss(student: str, tmp_path: Path) -> None:
    (full,), _, _ = run(student, imitation(), tmp_path)
    (half,), _, _ = run(student, imitation(**(TRAINING | {"bf16": True, "max_steps": 1})), tmp_path)
    assert half == pytest.approx(full, rel=0.05)


def test_the_names_that_recipes_may_not_use_are_those_that_transformers_calls_deprecated() -> None:
    told = {field.name: str(field.metadata.get("help")) for field in dataclasses.fields(TrainingArguments)}
    found = {name: re.match(r"Deprecated alias of `(\w+)`", text) for name, text in told.items()}
    assert {name: match[1] for name, match in found.items() if match} == RENAMED
