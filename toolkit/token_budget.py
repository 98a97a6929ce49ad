"""How long a recipe has to train to read a given number of tokens.

A token is one of a sequence as encoded: prompt, target and end of sequence; padding is none. What a sequence is read
for does not matter: a token of weight 0 is read as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig

    from toolkit.recipe import Recipe, Stage


@dataclass(frozen=True)
class StageLength:
    """How long a stage trains.

    Attributes:
        stage: Its name.
        tokens_per_epoch: Tokens that one epoch reads.
        steps_per_epoch: Optimizer steps that one epoch takes.
        epochs: Epochs, fractions of one included.
    """

    stage: str
    tokens_per_epoch: int
    steps_per_epoch: int
    epochs: float

    @property
    def tokens(self) -> float:
        """Tokens that the stage reads."""
        return self.epochs * self.tokens_per_epoch


def own_lengths(
    recipe: Recipe, rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> list[StageLength]:
    """Return how long each stage of a recipe trains by what the recipe itself says.

    Args:
        recipe: A recipe with a student.
        rows: Training records.
        tokenizer: The student's.

    Raises:
        UserError: The records do not fit, carry no weight, or an argument is refused by TRL.
    """
    lengths = []
    for stage in recipe.stages:
        args = _arguments(recipe, stage)
        tokens, sequences = tokens_per_epoch(recipe, stage, args, rows, tokenizer)
        batches = math.ceil(sequences / args.train_batch_size)
        if args.dataloader_drop_last:
            batches = sequences // args.train_batch_size
        steps = max(1, math.ceil(batches / args.gradient_accumulation_steps))
        epochs = args.max_steps / steps if args.max_steps > 0 else args.num_train_epochs
        lengths.append(StageLength(stage.name, tokens, steps, epochs))
    return lengths


def tokens_per_epoch(
    recipe: Recipe,
    stage: Stage,
    args: SFTConfig,
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[int, int]:
    """Return how many tokens an epoch of a stage reads, and in how many rows of a batch they stand.

    Epochs of a balanced view differ: theirs is the mean, rounded.
    """
    from toolkit.stages import stage_datasets, stage_sampler

    assert recipe.student is not None
    dataset, _, report = stage_datasets(tokenizer, rows, stage, args, recipe.student.prompt_format)
    sampler = stage_sampler(stage, dataset, args.seed)
    if sampler is None:
        return sum(report.tokens.values()), len(dataset)
    lengths = [len(ids) for ids in dataset["input_ids"]]
    return round(sum(share * lengths[position] for position, share in sampler.shares.items())), len(sampler)


def _arguments(recipe: Recipe, stage: Stage) -> SFTConfig:
    from toolkit.errors import UserError
    from toolkit.trl_seams import trl_arguments

    assert recipe.student is not None
    start = recipe.student.model_name_or_path or ""
    try:
        args, _ = trl_arguments(stage.training, recipe.student.model_arguments(), Path(recipe.output_dir), start)
    except (ValueError, ImportError) as error:
        raise UserError(f"stages.{stage.name}.training or student: {error}") from error
    return args


def within_budget(lengths: Sequence[StageLength], tokens: int) -> list[StageLength]:
    """Return the stages at the lengths at which they read `tokens` in all, each its share of what it read before."""
    factor = tokens / sum(length.tokens for length in lengths)
    return [
        # Six decimals, and half of the last one less: the trainer rounds steps up, and where a whole number of them is
        # meant, an error of floating point would be a step more.
        StageLength(
            length.stage,
            length.tokens_per_epoch,
            length.steps_per_epoch,
            max(1.0, math.floor(1e6 * factor * length.epochs - 0.5)) / 1e6,
        )
        for length in lengths
    ]
