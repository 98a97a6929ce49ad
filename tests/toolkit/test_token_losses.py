"""The head projects scored positions and no other, and gives the losses and gradients that all logits give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM

from benchmarks.architectures import CONFIGURATIONS
from tests.gradients import difference
from tests.tiny_students import tiny_llama, tiny_tokenizer
from toolkit.objective import soft_cross_entropy
from toolkit.students import student_from_config
from toolkit.token_losses import token_losses

MASK = torch.ones(3, 14, dtype=torch.long)
MASK[0, 9:], MASK[2, 5:] = 0, 0
IDS = torch.arange(42).reshape(3, 14) * 7 % 300 + 3
# Unlike columns are scored in each row: their union is all of them.
LABELS = torch.where((torch.arange(42).reshape(3, 14) % 5 == 1) & (MASK == 1), IDS, -100)
SCORED = int((LABELS[:, 1:] != -100).sum())
FACTORS = torch.linspace(0.5, 2, 39).reshape(3, 13)
Losses = Callable[[torch.nn.Module], torch.Tensor]


def ours(model: torch.nn.Module) -> torch.Tensor:
    return token_losses(model, {"input_ids": IDS, "attention_mask": MASK}, LABELS, "plain")


def by_all_logits(model: torch.nn.Module) -> torch.Tensor:
    logits = model(input_ids=IDS, attention_mask=MASK, use_cache=False).logits.float()
    return functional.cross_entropy(logits[:, :-1].transpose(1, 2), LABELS[:, 1:], ignore_index=-100, reduction="none")


def gradient(model: torch.nn.Module, losses: Losses) -> tuple[torch.Tensor, torch.Tensor]:
    """Return losses, and the gradient of their sum with unlike factors."""
    model.zero_grad()
    found = losses(model)
    (found * FACTORS).sum().backward()
    return found.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@contextmanager
def projected(model: Any) -> Iterator[list[int]]:
    """List how many rows each call of the head projects."""
    seen: list[int] = []
    head = model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _, args, output: seen.append(output.numel() // output.shape[-1]))
    yield seen
    hook.remove()


def check(model: Any, rows: int = SCORED) -> None:
    expected, wanted = gradient(model, by_all_logits)
    with projected(model) as seen:
        found, got = gradient(model, ours)
    assert seen == [rows]
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-5)
    assert difference(got, wanted) < 1e-5


# Those that do something to hidden states or logits around the head, or are no transformer.
@pytest.mark.parametrize(
    "name", ["gemma2", "granite", "cohere", "opt", "gpt_neox", "falcon", "mpt", "mamba", "mixtral"]
)
def test_scored_positions_alone_give_the_losses_of_all_logits(name: str) -> None:
    check(student_from_config(CONFIGURATIONS[name], tiny_tokenizer(), 0).eval())


@pytest.mark.parametrize(
    "adapter",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [2, 5], "lm_head": [2, 5]}},
    ],
    ids=["adapted head", "saved head", "trained rows"],
)
def test_an_adapter_on_the_head_is_heeded(adapter: dict[str, Any]) -> None:
    model: Any = get_peft_model(tiny_llama(), LoraConfig(r=2, **adapter)).eval()
    for name, parameter in model.named_parameters():  # an adapter that has learnt something
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    expected, wanted = gradient(model, by_all_logits)
    found, got = gradient(model, ours)
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-5)
    assert difference(got, wanted) < 1e-5


def test_gradient_checkpointing_changes_nothing() -> None:
    model = tiny_llama()
    _, expected = gradient(model, by_all_logits)
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    with projected(model) as seen:
        _, found = gradient(model, ours)
    assert seen == [SCORED]
    assert difference(found, expected) < 1e-5


def test_the_head_projects_everything_again_afterwards() -> None:
    model = tiny_llama()
    ours(model)
    assert model(input_ids=IDS).logits.shape[:2] == IDS.shape


def test_a_failed_step_leaves_the_head_as_it_was() -> None:
    model = tiny_llama()
    with pytest.raises(IndexError):
        token_losses(model, {"input_ids": IDS + 10_000}, LABELS, "plain")
    assert model(input_ids=IDS).logits.shape[:2] == IDS.shape


class NoHead(torch.nn.Module):
    """A model whose logits come from no module of their own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, **inputs: Any) -> Any:
        return self.inner(**inputs)


def test_a_model_without_a_head_of_its_own_gives_the_same_losses() -> None:
    model = NoHead(tiny_llama())
    expected, wanted = gradient(model, by_all_logits)
    found, got = gradient(model, ours)
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-5)
    assert difference(got, wanted) < 1e-6


def test_soft_targets_are_projected_at_scored_positions_alone() -> None:
    model = tiny_llama()
    soft_ids = torch.stack([IDS, (IDS + 3) % 300 + 3], dim=-1)
    soft_probs = torch.tensor([0.7, 0.2]).expand(3, 14, 2)

    def soft(model: torch.nn.Module) -> torch.Tensor:
        inputs = {"input_ids": IDS, "attention_mask": MASK}
        return token_losses(model, inputs, LABELS, "plain", soft_ids, soft_probs)

    def by_hand(model: torch.nn.Module) -> torch.Tensor:
        logits = model(input_ids=IDS, attention_mask=MASK).logits[:, :-1].float()
        losses = soft_cross_entropy(logits, soft_ids[:, 1:], soft_probs[:, 1:])
        return losses.masked_fill(LABELS[:, 1:] == -100, 0.0)

    expected, wanted = gradient(model, by_hand)
    with projected(model) as seen:
        found, got = gradient(model, soft)
    assert seen == [SCORED]
    assert torch.allclose(found, expected, atol=1e-5)
    assert difference(got, wanted) < 1e-5


def test_a_batch_without_any_weight_is_a_zero_that_can_be_derived() -> None:
    model: Any = AutoModelForCausalLM.from_config(tiny_llama().config)
    losses = token_losses(model, {"input_ids": IDS}, torch.full_like(IDS, -100), "plain")
    losses.sum().backward()
    assert losses.shape == (3, 13)
    assert not losses.any()
    assert not model.lm_head.weight.grad.any()
