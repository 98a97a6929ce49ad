"""A student is trained flat only if its gradients are those of its sequences one by one; every other is padded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.architectures import CONFIGURATIONS
from tests.gradients import Gradients, difference, edit_by_hand
from tests.records import duals, edit, imitation
from tests.tiny_students import tiny_tokenizer
from toolkit import layout_probe
from toolkit.errors import UserError
from toolkit.layout_probe import Differences, differences, flat_fault
from toolkit.stages import make_trainer, train_stage
from toolkit.students import save_atomically, student_from_config

pytestmark = pytest.mark.slow

ROWS = duals(6)
BATCH = {"per_device_train_batch_size": 12, "max_grad_norm": 0.0, "router_aux_loss_coef": 0.0}
FLAT: dict[str, dict[str, Any]] = {
    "packed": {"packing": True, "max_length": 160},
    "padding-free": {"padding_free": True},
}
APART = ("llama", "qwen3", "mixtral", "gemma3_text", "phi3", "olmo2", "gpt2", "gpt_neox")
TOGETHER = ("opt", "falcon", "falcon, alibi", "bloom", "gpt_oss", "mamba", "lfm2")
DROPOUTS = ("attention_dropout", "dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "embed_dropout", "resid_dropout")


def made(name: str, folder: Path, initializer_range: float | None = None) -> str:
    """Save an untrained student of an architecture; a wide range makes its attention uneven."""
    config = dict(CONFIGURATIONS[name])
    known = AutoConfig.for_model(config["model_type"])
    config |= {field: 0.0 for field in DROPOUTS if hasattr(known, field)}
    if initializer_range is not None and hasattr(known, "initializer_range"):
        config["initializer_range"] = initializer_range
    save_atomically(folder, student_from_config(config, tiny_tokenizer(), 0), tiny_tokenizer(), {})
    return str(folder)


def step(student: str, folder: Path, layout: dict[str, Any]) -> tuple[str, torch.Tensor]:
    """Return how EDIT's second stage lays out its batches, and the gradient of its first step."""
    trainer, _ = make_trainer(edit(beta=0.3, **BATCH, **layout), ROWS, student, folder, {}, "plain")
    gradients = Gradients()
    trainer.add_callback(gradients)
    trainer.train()
    return trainer.layout, gradients.steps[0]


@pytest.mark.parametrize("name", [*APART, *TOGETHER])
def test_every_layout_gives_the_gradient_of_one_sequence_at_a_time(name: str, tmp_path: Path) -> None:
    student = made(name, tmp_path / "student", 0.2)
    _, expected = edit_by_hand(student, ROWS, alpha=1.0, beta=0.3)
    for layout, arguments in {"padded": {}, **FLAT}.items():
        told, gradient = step(student, tmp_path / layout, arguments)
        assert difference(gradient, expected) < 1e-5, layout
        used = "padded" if layout == "padded" else "flat" if name in APART else "padded, not"
        assert told.startswith(used), layout


@pytest.mark.parametrize("name", ["bloom", "mamba", "gpt2", "mixtral"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_small_contamination_is_seen_in_half_precision_too(name: str, dtype: str, tmp_path: Path) -> None:
    """At its initial weights BLOOM attends nearly evenly: the gradient is off by as much as bfloat16 rounds."""
    student = made(name, tmp_path / "student")
    stage = imitation(**BATCH, padding_free=True)
    trainer, _ = make_trainer(stage, ROWS, student, tmp_path, {"dtype": dtype}, "plain")
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {getattr(torch, dtype)}
    assert trainer.layout.startswith("flat" if name in APART else "padded, not padding_free")


LORA: dict[str, Any] = {"use_peft": True, "lora_r": 2, "lora_target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1}


@pytest.mark.parametrize(("name", "used"), [("opt", "padded, not packing"), ("llama", "flat")])
def test_an_adapter_that_does_nothing_yet_is_told_apart_as_well(name: str, used: str, tmp_path: Path) -> None:
    student = made(name, tmp_path / "student", 0.2)
    trainer, _ = make_trainer(edit(**BATCH, **FLAT["packed"]), ROWS, student, tmp_path, LORA, "plain")
    assert trainer.layout.startswith(used)


@pytest.mark.parametrize("model", [{}, LORA, {"dtype": "bfloat16"}], ids=["full", "lora", "bfloat16"])
def test_a_probe_leaves_no_trace(model: dict[str, Any], tmp_path: Path) -> None:
    student = made("llama", tmp_path / "student", 0.2)
    trainer, _ = make_trainer(edit(**BATCH, padding_free=True), ROWS, student, tmp_path, model, "plain")
    trainer.model.train()
    trainer.model.get_input_embeddings().eval()
    weights = copy.deepcopy(trainer.model.state_dict())
    modes = [module.training for module in trainer.model.modules()]
    state = torch.random.get_rng_state()
    differences(trainer)
    assert all(torch.equal(weights[name], tensor) for name, tensor in trainer.model.state_dict().items())
    assert {name: tensor.dtype for name, tensor in trainer.model.state_dict().items()} == {
        name: tensor.dtype for name, tensor in weights.items()
    }
    assert [module.training for module in trainer.model.modules()] == modes
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_log_and_the_facts_say_why_a_student_is_trained_padded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = made("opt", tmp_path / "student", 0.2)
    facts = train_stage(imitation(**BATCH, **FLAT["packed"]), ROWS, student, tmp_path / "stage", {}, "plain")
    told = "padded, not packing: it does not keep the sequences of a flat batch apart (gradients differ by"
    assert facts["layout"].startswith(told)
    assert f"stage 'imitate': the student is trained {told}" in capsys.readouterr().out


def test_a_student_that_falls_back_takes_the_steps_of_its_packed_rows(tmp_path: Path) -> None:
    """What a step is made of, and so how many there are, does not depend on the architecture."""
    found = {}
    for name in ("llama", "opt"):
        student = made(name, tmp_path / name)
        stage = imitation(max_steps=-1, num_train_epochs=1, per_device_train_batch_size=1, **FLAT["packed"])
        trainer, _ = make_trainer(stage, duals(7), student, tmp_path / "out", {}, "plain")
        trainer.train()
        found[name] = (trainer.state.global_step, trainer.state.num_input_tokens_seen)
    assert found["opt"] == found["llama"]
    assert found["opt"][0] > 1


class Averaging(torch.nn.Module):
    """An embedding that adds the mean of a row's embeddings to each of its tokens: what no padding leaves alone."""

    def __init__(self, embedding: torch.nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    @property
    def weight(self) -> torch.Tensor:
        return self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        embedded = self.embedding(ids)
        return embedded + embedded.mean(dim=1, keepdim=True)


def test_a_student_that_padding_changes_is_refused(tmp_path: Path) -> None:
    student = made("llama", tmp_path / "student", 0.2)
    trainer, _ = make_trainer(imitation(**BATCH, padding_free=True), ROWS, student, tmp_path, {}, "plain")
    trainer.model.model.embed_tokens = Averaging(trainer.model.model.embed_tokens)
    with pytest.raises(UserError, match=r"padding moves its gradients by .*per_device_train_batch_size: 1"):
        flat_fault(trainer)


def test_a_student_whose_weights_are_not_here_is_trained_padded(tmp_path: Path) -> None:
    student = made("llama", tmp_path / "student")
    trainer, _ = make_trainer(imitation(**BATCH, padding_free=True), ROWS, student, tmp_path, {}, "plain")
    with torch.device("meta"):
        trainer.model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(student))
    assert "spread over the processes" in str(flat_fault(trainer))


@pytest.mark.parametrize(
    ("padded", "flat", "parted"),
    [(1e-7, 9e-5, True), (1e-7, 2e-4, False), (2e-2, 7e-2, True), (2e-2, 9e-2, False)],
)
def test_more_than_rounding_is_contamination(padded: float, flat: float, parted: bool) -> None:
    assert (Differences(padded, flat).fault is None) == parted


def test_one_sequence_alone_is_probed_behind_itself(tmp_path: Path) -> None:
    student = made("opt", tmp_path / "student", 0.2)
    trainer, _ = make_trainer(imitation(**BATCH, padding_free=True), ROWS[:1], student, tmp_path, {}, "plain")
    assert trainer.layout.startswith("padded, not padding_free")


def test_a_flat_batch_that_is_longer_than_the_student_takes_is_padded(tmp_path: Path) -> None:
    """GPT-Neo's mask is made once, for its longest text; a flat batch may be longer."""
    student = made("gpt_neo", tmp_path / "student", 0.2)
    for rows, used in ((duals(3), "flat"), (duals(14), "padded, not padding_free: it cannot be run on a flat batch")):
        stage = imitation(padding_free=True, per_device_train_batch_size=len(rows))
        assert make_trainer(stage, rows, student, tmp_path, {}, "plain")[0].layout.startswith(used)


def test_a_probe_is_longer_than_a_short_window_and_not_than_a_long_one() -> None:
    def limit(window: int) -> int:
        config = AutoConfig.for_model("mistral", sliding_window=window)
        return layout_probe._limit(type("Model", (), {"config": config})())

    assert [limit(window) for window in (8, 512, 4096)] == [128, 528, 128]
