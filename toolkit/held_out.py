"""Questions that a stage holds out of its training: which they are, and what a recipe may say about them.

Knows no trainer: that the loss on them is exact is `trl_seams`' business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolkit.errors import UserError, nearest

QUESTION = "question"
# What an original shares with its edits, in data that has such: both halves of a pair go to one side.
PAIR = "pair_id"
# Fields of `training` that mean nothing without questions to evaluate on.
_EVALUATING = (
    "eval_strategy",
    "eval_steps",
    "eval_delay",
    "eval_on_start",
    "eval_accumulation_steps",
    "per_device_eval_batch_size",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
)
_EVALUATING_VALUES = {"lr_scheduler_type": ("reduce_lr_on_plateau", "greedy"), "save_strategy": ("best",)}

Rows = Sequence[Mapping[str, Any]]


def is_held_out(question: str, share: float, seed: int) -> bool:
    """Whether a question is one of those held out: a function of question and seed, of no other question or order."""
    digest = hashlib.sha256(f"{seed}\0{question}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def hold_out(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Return the records to train on and those held out; all of a question, or of a pair, stay together.

    Args:
        rows: Records.
        share: Chance of each question to be held out, between 0 and 1.
        seed: Of the draw.

    Raises:
        UserError: The records have no questions, or one of the two sides would be empty.
    """
    if any(QUESTION not in row for row in rows):
        raise UserError(f"found records without a column {QUESTION!r}, by which records are held out together")
    sides: dict[bool, list[Mapping[str, Any]]] = {False: [], True: []}
    for row in rows:
        sides[is_held_out(row.get(PAIR, row[QUESTION]), share, seed)].append(row)
    if not sides[False] or not sides[True]:
        number = len({row[QUESTION] for row in rows})
        found = "none" if sides[False] else "all"
        raise UserError(f"{found} of {number} questions would be held out at a share of {share}, allowed are some")
    return sides[False], sides[True]


def validation_faults(stage: Mapping[str, Any], training: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the key of a stage and the text of everything about evaluation in training that cannot be meant.

    Args:
        stage: The stage as plain data.
        training: Its section `training`.
    """
    if stage.get("validation") is None:
        needs = f"needs stages.{stage.get('name')}.validation, the share of the questions to hold out"
        for name, value in training.items():
            off = value is None or value is False or value == "no"
            if (name in _EVALUATING and not off) or value in _EVALUATING_VALUES.get(name, ()):
                yield f"training.{name}", needs
        return
    strategy = training.get("eval_strategy", "no")
    if strategy == "no" and not training.get("eval_on_start"):
        yield "validation", "needs training.eval_strategy, steps or epoch: questions would be held out for nothing"
    if training.get("eval_steps") is not None and strategy != "steps":
        yield "training.eval_steps", "needs training.eval_strategy: steps"
    yield from _best_faults(stage, training, strategy)


def _best_faults(stage: Mapping[str, Any], training: Mapping[str, Any], strategy: Any) -> Iterator[tuple[str, str]]:
    views = stage.get("views")
    losses = ["loss", *(f"loss/{name}" for name in (views if isinstance(views, Mapping) else ()))]
    metric = training.get("metric_for_best_model")
    if isinstance(metric, str) and metric.removeprefix("eval_") not in losses:
        yield (
            "training.metric_for_best_model",
            f"found {metric!r}, allowed {', '.join(losses)}{nearest(metric, losses)}",
        )
    saving, every, saved = (
        training.get("save_strategy", "steps"),
        training.get("eval_steps"),
        training.get("save_steps"),
    )
    if training.get("load_best_model_at_end") is not True or saving == "best":
        return
    if strategy != saving:
        yield (
            "training.load_best_model_at_end",
            f"needs training.eval_strategy and save_strategy to be the same, found {strategy} and {saving}",
        )
    elif saving == "steps" and isinstance(every, int) and isinstance(saved, int) and every > 0 and saved % every:
        yield "training.save_steps", f"found {saved}, allowed a multiple of training.eval_steps, which is {every}"
