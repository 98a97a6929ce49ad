"""Gradients that tests of training compare: of every optimizer step of a trainer, and of EDIT's formula by hand."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from tests.tiny_students import tiny_tokenizer
from toolkit.alignment import key_steps


class Gradients(TrainerCallback):
    """Keeps the whole gradient of every optimizer step, of what is trained."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(
            torch.cat([p.grad.flatten().clone() for p in kwargs["model"].parameters() if p.requires_grad])
        )


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the relative difference of two gradients."""
    return ((a - b).norm() / b.norm()).item()


def edit_by_hand(student: str, rows: list[dict[str, Any]], alpha: float, beta: float) -> tuple[float, torch.Tensor]:
    """EDIT's released stage-2 loss, edit.md section 3, one sequence at a time, and its gradient."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32), tiny_tokenizer()
    total = torch.zeros(())
    for row in rows:
        prompt = tokenizer(f"Q: {row['question']}\nA:")["input_ids"]
        chains = {}
        for side in ("right", "wrong"):
            chain = f" {row[side]['rationale']}\nTherefore, the answer is {row[side]['answer']}."
            chains[side] = [*tokenizer(chain)["input_ids"], tokenizer.eos_token_id]
        keys = dict(zip(chains, key_steps(chains["right"], chains["wrong"]), strict=True))
        for side, factor in (("right", alpha), ("wrong", -beta)):
            ids = torch.tensor([prompt + chains[side]])
            log_probabilities = model(input_ids=ids).logits.log_softmax(-1)[0]
            for t, (token, key) in enumerate(zip(chains[side], keys[side], strict=True)):
                if key:
                    nll = -log_probabilities[len(prompt) + t - 1, token]
                    total = total + factor * nll / len(chains[side]) / len(rows)
    total.backward()
    return total.item(), torch.cat([p.grad.flatten() for p in model.parameters()])
