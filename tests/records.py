"""Small records, stages and students that tests of training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny_students import tiny_llama, tiny_tokenizer
from toolkit.encoding import encode_record
from toolkit.recipe import Stage
from toolkit.stage_views import StageViews

PROMPT = "Q: {question}\nA:"
RIGHT = [" {right.rationale}", "\nTherefore, the answer is {right.answer}."]
WRONG = [" {wrong.rationale}", "\nTherefore, the answer is {wrong.answer}."]

TRAINING: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "max_steps": 1,
    "learning_rate": 1e-3,
    "bf16": False,
    "activation_checkpointing": False,
    "report_to": "none",
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
    "disable_tqdm": True,
}


def duals(n: int) -> list[dict[str, Any]]:
    """Return n dual CoTs of unlike lengths whose chains share most of their words."""
    return [
        {
            "id": f"sum/{i}",
            "question": f"What is {i} + {i + 1}?",
            "right": {
                "rationale": f"We add: {i} + {i + 1} = {2 * i + 1}." + " So it is." * (i % 4),
                "answer": str(2 * i + 1),
            },
            "wrong": {"rationale": f"We add: {i} + {i + 1} = {2 * i + 4}.", "answer": str(2 * i + 4)},
        }
        for i in range(n)
    ]


def imitation(reduction: dict[str, str] | None = None, **training: Any) -> Stage:
    """Return a stage that learns right chains, every token alike."""
    return Stage.model_validate(
        {
            "name": "imitate",
            "views": {"cot": {"prompt": PROMPT, "target": RIGHT}},
            "reduction": reduction or {},
            "training": TRAINING | training,
        }
    )


def edit(alpha: float = 1.0, beta: float = 0.025, reduction: dict[str, str] | None = None, **training: Any) -> Stage:
    """Return EDIT's second stage."""
    return Stage.model_validate(
        {
            "name": "key_steps",
            "views": {
                "right": {"prompt": PROMPT, "target": RIGHT, "token_weights": "key_steps", "coefficient": alpha},
                "wrong": {"prompt": PROMPT, "target": WRONG, "token_weights": "key_steps", "coefficient": -beta},
            },
            "reduction": reduction or {"by": "example", "over": "all"},
            "training": TRAINING | training,
        }
    )


def saved_student(folder: Path, **config: Any) -> str:
    """Save a tiny random Llama with its tokenizer and return its folder."""
    tokenizer = tiny_tokenizer()
    tiny_llama(tokenizer, **config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def encoded(tokenizer: Any, row: dict[str, Any], stage: Stage, prompt_format: str = "plain") -> list[Any]:
    """Encode one record as if it were the whole dataset."""
    return encode_record(tokenizer, StageViews(stage, [row]), 0, prompt_format)
