"""Chains with a teacher's log-probabilities, stages that learn them, and their loss by hand: shared by tests."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tests.chains import ANSWER, LABEL, PROMPT, RATIONALE, chains, stage
from tests.tiny_students import tiny_tokenizer
from toolkit.recipe import Stage

SOFT: dict[str, Any] = {"prompt": PROMPT, "target": [{"text": RATIONALE, "soft_targets": "chain.logprobs"}, ANSWER]}
# In a place of a rationale, beside the token that was written: words of one token, one of several.
OTHERS = ((" the", 0.2), (" of", 0.125), (" zebra crossings", 0.0625))


def written(row: dict[str, Any]) -> str:
    """Return what the teacher of a record wrote."""
    return f" {row['chain']['rationale']}\nTherefore, the answer is {row['chain']['answer']}."


def chance(place: int) -> float:
    """Return the probability of the token that the teacher wrote at a place."""
    return 0.25 + place % 8 / 32


def soft_chains(questions: int, tokenizer: Any = None) -> list[dict[str, Any]]:
    """Return records of one chain each with log-probabilities in the tokens of a teacher, by default the student's."""
    tokenizer = tokenizer or tiny_tokenizer()
    rows = chains(questions)
    for row in rows:
        tokens = [tokenizer.decode([token]) for token in tokenizer(written(row))["input_ids"]]
        row["chain"]["logprobs"] = [
            {
                "token": token,
                "logprob": math.log(chance(place)),
                "top": [{"token": text, "logprob": math.log(prob)} for text, prob in ((token, chance(place)), *OTHERS)],
            }
            for place, token in enumerate(tokens)
        ]
    return rows


def soft_stage(**training: Any) -> Stage:
    """Return a stage of soft chains and hard answers, each a mean of its own."""
    views = {"chain": {**SOFT, "coefficient": 0.75}, "label": {**LABEL, "coefficient": 0.25}}
    return stage(views, {"by": "view", "over": "all"}, **{"max_grad_norm": 0.0} | training)


def soft_by_hand(student: str, rows: list[dict[str, Any]]) -> tuple[float, torch.Tensor]:
    """Return the loss of `soft_stage`, one sequence at a time, and its gradient."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32), tiny_tokenizer()
    one_token = {text: tokenizer(text)["input_ids"] for text, _ in OTHERS}
    assert [len(ids) == 1 for ids in one_token.values()] == [True, True, False]
    losses: dict[str, list[torch.Tensor]] = {"chain": [], "label": []}
    for row in rows:
        prompt = tokenizer(f"Q: {row['question']}\nA:")["input_ids"]
        for name, text in (("chain", written(row)), ("label", f" {row['answer']}")):
            target = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
            told = model(input_ids=torch.tensor([prompt + target])).logits.log_softmax(-1)[0, len(prompt) - 1 :]
            said = ""
            for place, token in enumerate(target):
                said += tokenizer.decode([token])
                loss = -told[place, token]
                if name == "chain" and len(said) <= 1 + len(row["chain"]["rationale"]):
                    loss = chance(place) * loss
                    for other, prob in OTHERS[:2]:
                        loss = loss - prob * told[place, one_token[other][0]]
                losses[name].append(loss)
    loss = 0.75 * torch.stack(losses["chain"]).mean() + 0.25 * torch.stack(losses["label"]).mean()
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])
