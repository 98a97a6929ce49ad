"""Records of one chain each, several to a question, and stages that show them: what tests of views share."""

from __future__ import annotations

from typing import Any

from tests.records import TRAINING
from toolkit.recipe import Stage

PROMPT = "Q: {question}\nA:"
RATIONALE = " {chain.rationale}"
ANSWER = "\nTherefore, the answer is {answer}."

COT: dict[str, Any] = {"prompt": PROMPT, "target": [RATIONALE, ANSWER]}
LABEL: dict[str, Any] = {"prompt": PROMPT, "target": [" {answer}"]}
REASONS: dict[str, Any] = {"prompt": PROMPT, "target": [RATIONALE]}
POST: dict[str, Any] = {"prompt": PROMPT, "target": [" {answer}", "\nBecause {chain.rationale}"]}
ANSWERS: dict[str, Any] = {"prompt": PROMPT + RATIONALE + "\nTherefore, the answer is", "target": [" {answer}."]}
STEP: dict[str, Any] = {
    "each": "step in steps",
    "before": "{step.question} {step.answer}\n",
    "prompt": "Q: {question}\n{before}{step.question}",
    "target": [" {step.answer}"],
}


def chains(questions: int, each: int = 1) -> list[dict[str, Any]]:
    """Return records of sums: `each` chains of unlike lengths for every question, every third of them wrong."""
    return [
        {
            "id": f"sum/{i}#{j}",
            "question": f"What is {i} + {i + 1}?",
            "choices": [],
            "answer": str(2 * i + 1),
            "correct": j % 3 != 2,
            "weight": 0.5 + j,
            "chain": {
                "rationale": f"Way {j} of {i}: we add {i} + {i + 1} = {2 * i + 1 + (j % 3 == 2)}." + " So it is." * j,
                "answer": str(2 * i + 1 + (j % 3 == 2)),
            },
            "counterfactual": {"rationale": f"If one more: {i} + {i + 2} = {2 * i + 2}.", "answer": str(2 * i + 2)},
            "steps": [
                {"question": f"What is {i} + {k}?", "answer": f"It is {i + k}."} for k in range(1, 2 + (i + j) % 3)
            ],
        }
        for i in range(questions)
        for j in range(each)
    ]


def stage(
    views: dict[str, dict[str, Any]], reduction: dict[str, str] | None = None, name: str = "s", **training: Any
) -> Stage:
    """Return a stage of these views; its training is one step of four sequences unless other fields are given."""
    return Stage.model_validate(
        {"name": name, "views": views, "reduction": reduction or {}, "training": TRAINING | training}
    )
