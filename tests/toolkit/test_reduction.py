"""The mean of the logged losses is the loss of the dataset, however its sequences fall into steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.chains import COT, LABEL, STEP, chains, stage
from tests.records import duals, imitation, saved_student
from toolkit.encoding import encode
from toolkit.errors import UserError
from toolkit.recipe import Stage
from toolkit.stages import make_trainer

ROWS = chains(6, each=2)
# Labels are six of 42 sequences, so most steps of two have none; steps are one to three of a record.
VIEWS = {
    "cot": {**COT, "coefficient": 0.7},
    "label": {**LABEL, "coefficient": 0.3, "select": {"draw": "first"}},
    "step": {**STEP, "coefficient": -0.1},
}
FIXED: dict[str, Any] = {"learning_rate": 1e-12, "max_steps": -1, "num_train_epochs": 1}
CHAT = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LORA = {"use_peft": True, "lora_r": 2, "lora_target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = saved_student(tmp_path_factory.mktemp("student"), hidden_size=16)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


def true_losses(student: str, of_stage: Stage, rows: Sequence[Any], prompt_format: str) -> dict[str, float]:
    """Return each view's loss over all records, one sequence at a time: a mean of tokens, or of examples' means."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(student), AutoTokenizer.from_pretrained(student)
    columns, _ = encode(tokenizer, rows, of_stage, None, prompt_format)
    of_views: dict[str, list[torch.Tensor]] = {name: [] for name in of_stage.views}
    for ids, weights, views in zip(columns["input_ids"], columns["weights"], columns["views"], strict=True):
        with torch.no_grad():
            log_probabilities = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        scored = [t for t, weight in enumerate(weights) if weight]
        losses = torch.stack([-log_probabilities[t - 1, ids[t]] for t in scored])
        of_views[list(of_stage.views)[views[0]]].append(losses)
    means = {
        name: torch.cat(losses).mean()
        if of_stage.reduction.by == "view"
        else torch.stack([x.mean() for x in losses]).mean()
        for name, losses in of_views.items()
    }
    return {name: of_stage.views[name].coefficient * mean.item() for name, mean in means.items()}


@pytest.mark.parametrize("by", ["view", "example"])
@pytest.mark.parametrize(
    ("prompt_format", "model", "training"),
    [
        ("plain", {}, {"per_device_train_batch_size": 2}),
        ("plain", {}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}),
        ("plain", {}, {"per_device_train_batch_size": 6, "padding_free": True}),
        ("chat", LORA, {"per_device_train_batch_size": 1}),
    ],
    ids=["pairs", "accumulated", "padding-free", "adapter of a chat student"],
)
def test_the_mean_of_the_steps_losses_is_the_loss_of_the_dataset(
    student: str, tmp_path: Path, by: str, prompt_format: str, model: dict[str, Any], training: dict[str, Any]
) -> None:
    of_stage = stage(VIEWS, {"by": by}, **FIXED, **training)
    trainer, report = make_trainer(of_stage, ROWS, student, tmp_path, model, prompt_format)
    assert report.sequences == 42
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    expected = true_losses(student, of_stage, ROWS, prompt_format)
    assert sum(entry["loss"] for entry in log) / len(log) == pytest.approx(sum(expected.values()), rel=1e-5)
    for name, loss in expected.items():
        assert sum(entry[f"loss/{name}"] for entry in log) / len(log) == pytest.approx(loss, rel=1e-5)


def test_a_last_step_of_fewer_rows_is_a_mean_of_its_own(student: str, tmp_path: Path) -> None:
    of_stage = stage(VIEWS, {"by": "view"}, **FIXED, per_device_train_batch_size=8)
    trainer, _ = make_trainer(of_stage, ROWS, student, tmp_path, {}, "plain")
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 6
    expected = sum(true_losses(student, of_stage, ROWS, "plain").values())
    rows = [8, 8, 8, 8, 8, 2]
    assert sum(loss * number for loss, number in zip(losses, rows, strict=True)) / 42 == pytest.approx(
        expected, rel=1e-5
    )


def test_packed_rows_count_as_rows(student: str, tmp_path: Path) -> None:
    of_stage = stage(VIEWS, {"by": "view"}, **FIXED, per_device_train_batch_size=1, packing=True, max_length=150)
    trainer, _ = make_trainer(of_stage, ROWS, student, tmp_path, {}, "plain")
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) > 5
    expected = sum(true_losses(student, of_stage, ROWS, "plain").values())
    assert sum(losses) / len(losses) == pytest.approx(expected, rel=1e-5)


def test_a_balanced_view_is_divided_by_what_an_epoch_has_of_it(student: str, tmp_path: Path) -> None:
    """An epoch has one of the two chains of each question and all labels: 6 + 12 sequences."""
    views = {"cot": {**COT, "select": {"draw": "balanced"}}, "label": LABEL}
    trainer, _ = make_trainer(stage(views, {"by": "view"}), ROWS, student, tmp_path, {}, "plain")
    counts = [[sum(row["counts"]) for row in trainer.train_dataset if row["views"][0] == view] for view in (0, 1)]
    assert [len(of_view) for of_view in counts] == [12, 12]
    (batch, *_) = trainer.get_train_dataloader()
    divided_by = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    assert divided_by.tolist() == pytest.approx([4 * sum(counts[0]) / 2 / 18, 4 * sum(counts[1]) / 18])


@pytest.mark.parametrize("by", ["view", "example"])
@pytest.mark.parametrize("other", [None, {**LABEL, "coefficient": 0.0}, {**LABEL, "select": {"where": "never"}}])
def test_one_view_alone_is_divided_by_what_the_step_counts(
    student: str, tmp_path: Path, by: str, other: dict[str, Any] | None
) -> None:
    """Plain TRL's mean, whatever other views show nothing."""
    rows = [{**row, "never": False} for row in ROWS]
    views = {"cot": COT} | ({"label": other} if other else {})
    trainer, _ = make_trainer(stage(views, {"by": by}), rows, student, tmp_path, {}, "plain")
    (batch, *_) = trainer.get_train_dataloader()
    divided_by = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    assert divided_by[0] == batch["counts"].sum()


def test_a_sampler_that_reads_rows_twice_is_refused(student: str, tmp_path: Path) -> None:
    rebalanced = imitation(train_sampling_strategy="batch_rebalance")
    with pytest.raises(UserError, match=r"train_sampling_strategy: batch_rebalance .*dataloader_drop_last: true"):
        make_trainer(rebalanced, duals(4), student, tmp_path, {}, "plain")
