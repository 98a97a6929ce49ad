"""Whether a student keeps the sequences of a flat batch apart; one that does not is trained padded.

A flat batch says by position ids where a sequence begins. OPT, Falcon, BLOOM, Mamba, gpt_oss and others do not heed
them: their sequences see each other, or stand at wrong places. Losses hardly show it (OPT: the gradient is off by 15 %,
the loss by 0.0002), so a few sequences of the stage are run both ways and the *gradients* compared. Which students pass
is a property of architecture, attention implementation and library, and no list of it is kept
(docs/results/architectures.md shows what `benchmarks/architectures.py` found).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast_object_list

from toolkit.errors import UserError
from toolkit.layout import is_blank, unpacked

if TYPE_CHECKING:
    from toolkit.layout import WeightedCollator
    from toolkit.trl_seams import WeightedSFTTrainer

# Relative differences of gradients in float32, measured on tiny configurations of 60 architectures: at most 8e-6 where
# sequences are kept apart; where they are not, at least 1e-3 (Jamba at its initial weights), mostly 0.1 to 1.
_TOLERANCE = 1e-4
# Quantised weights and flash attention round more: two right layouts then differ as padded and one by one do.
_TIMES_ROUNDING = 4.0
_LARGEST_ROUNDING = 0.1
_ROWS = 256  # of the dataset, among which a probe's sequences are chosen
_LONGEST = 128  # tokens of a probe's sequence, unless the student attends to fewer
_LONGEST_WINDOW = 1024
_ENDS = 16  # scored at each end of a sequence: where contamination is strongest, and where a window leaves it behind
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "attention_window_size")


@dataclass(frozen=True)
class Differences:
    """How far gradients are from those of the sequences one by one, as a share of their norm.

    Attributes:
        padded: Of one padded batch: rounding, where a student is right.
        flat: Of one flat batch.
    """

    padded: float
    flat: float

    @property
    def fault(self) -> str | None:
        """Why a student cannot be trained flat, None where it can."""
        if self.flat < max(_TOLERANCE, _TIMES_ROUNDING * self.padded):
            return None
        return f"it does not keep the sequences of a flat batch apart (gradients differ by {self.flat:.1%})"


def flat_fault(trainer: WeightedSFTTrainer) -> str | None:
    """Return why a trainer's student cannot be trained on flat batches, None where it can; the same on all processes.

    Nothing of the student changes. One that is not whole on the first process, as under DeepSpeed's third stage, cannot
    be probed; neither can one that fails on a flat batch.

    Args:
        trainer: Before it trains; its collator is flat.

    Raises:
        UserError: The student cannot be trained on padded batches either.
    """
    found = [_probed(trainer) if trainer.accelerator.is_main_process else None]
    if trainer.accelerator.num_processes > 1:
        broadcast_object_list(found)
    (result,) = found
    if not isinstance(result, Differences):
        return result
    if result.padded > _LARGEST_ROUNDING:
        raise UserError(
            f"the student cannot be trained in batches: padding moves its gradients by {result.padded:.1%}; set "
            "training.per_device_train_batch_size: 1, and neither packing nor padding_free"
        )
    return result.fault


def _probed(trainer: WeightedSFTTrainer) -> Differences | str:
    """Return how far gradients differ, or why that cannot be known."""
    if any(parameter.is_meta or hasattr(parameter, "ds_id") for parameter in trainer.model.parameters()):
        return "its weights are spread over the processes, where it cannot be tried whether it keeps sequences apart"
    try:
        found = differences(trainer)
    except Exception as error:  # whatever a model raises where it is given position ids or lengths of sequences
        text = " ".join(str(error).split())
        return f"it cannot be run on a flat batch ({type(error).__name__}: {text[:200]})"
    if math.isnan(found.flat + found.padded):
        return "its gradients are not finite, or nothing of it is trained"
    return found


def differences(trainer: WeightedSFTTrainer) -> Differences:
    """Return how far the gradients of a padded and of a flat batch are from those of the sequences one by one.

    Args:
        trainer: Before it trains; its collator is flat.
    """
    flat: WeightedCollator = trainer.data_collator
    padded = replace(flat, flat=False)
    parts = [sequence for row in _rows(trainer) for sequence in unpacked(row)]
    sequences = _sequences(parts, _limit(trainer.model))
    one_by_one = [padded([sequence]) for sequence in sequences]
    with _probing(trainer.model), _in_float32(trainer.model):
        # Gradients add up in place, so that no second copy of them is held: + one by one, - the other, and so on.
        def add(batches: list[dict[str, Any]], sign: float) -> float:
            for batch in batches:
                _loss(trainer, batch, sign).backward()
            return _norm(trainer.model)

        whole = add(one_by_one, 1.0)
        of_flat = add([flat(sequences)], -1.0)
        trainer.model.zero_grad(set_to_none=True)
        add(one_by_one, 1.0)
        of_padded = add([padded(sequences)], -1.0)
        _run_longest(trainer)
    return Differences(of_padded / whole, of_flat / whole) if whole else Differences(float("nan"), float("nan"))


def _run_longest(trainer: WeightedSFTTrainer) -> None:
    """Run the student on as long a flat batch as it may be trained on: some have masks made for their longest text."""
    rows = sorted(_rows(trainer), key=lambda row: -len(row["input_ids"]))[: trainer.args.train_batch_size]
    batch = trainer.data_collator(
        [row | {"weights": [0.0] * len(row["input_ids"])} for row in rows]
    )  # projects nothing
    with torch.no_grad():
        _loss(trainer, batch, 1.0)


def _rows(trainer: WeightedSFTTrainer) -> list[dict[str, Any]]:
    return list(trainer.train_dataset.select(range(min(_ROWS, len(trainer.train_dataset)))))


def _loss(trainer: WeightedSFTTrainer, batch: dict[str, Any], sign: float) -> torch.Tensor:
    model = trainer.model
    device = model.get_input_embeddings().weight.device
    batch = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    # Flash attention takes half precision only.
    with torch.autocast(device.type, torch.bfloat16) if _is_flash(model) else nullcontext():
        losses = trainer.batch_losses(model, batch)
    return sign * (losses * batch["weights"][:, 1:].to(losses)).sum()


def _is_flash(model: Any) -> bool:
    return "flash" in str(model.config._attn_implementation)


def _norm(model: torch.nn.Module) -> float:
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return float(sum(gradient.float().norm() ** 2 for gradient in gradients)) ** 0.5


def _limit(model: Any) -> int:
    """Return how long a probe's sequences may be: longer than a window that the student attends to, if it is small."""
    config = model.config.get_text_config()
    windows = [getattr(config, name, None) or 0 for name in _WINDOWS]
    return max(_LONGEST, *(window + _ENDS for window in windows if window <= _LONGEST_WINDOW), 0)


def _sequences(rows: Sequence[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """Return three sequences of a stage, a long one between two others, with weights at their ends.

    Contamination shows at the beginning of a sequence that stands behind another, and there are two such.
    """
    lengths = [(min(len(row["input_ids"]), limit), index) for index, row in enumerate(rows) if not is_blank(row)]
    longest = max(lengths)[1]
    others = [index for _, index in sorted(lengths) if index != longest][:2] or [longest]
    sequences = []
    for index in (others[0], longest, others[-1]):
        ids = list(rows[index]["input_ids"][:limit])
        weights = [0.0, *([1.0] * (len(ids) - 1))]
        weights[1 + _ENDS : -_ENDS] = [0.0] * len(weights[1 + _ENDS : -_ENDS])
        share = sum(weights) * 3 or 1.0  # each sequence weighs the same, however long it is
        sequences.append(
            {
                "input_ids": ids,
                "weights": [weight / share for weight in weights],
                "counts": weights,
                "views": [0] * len(ids),
            }
        )
    return sequences


@contextmanager
def _probing(model: torch.nn.Module) -> Iterator[None]:
    """Leave a model as it was: no dropout meanwhile, no gradients behind, no random number drawn."""
    modes = {module: module.training for module in model.modules()}
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    model.eval()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        model.zero_grad(set_to_none=True)
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _in_float32(model: torch.nn.Module) -> Iterator[None]:
    """Have a model compute in float32, where rounding does not hide a small contamination; there and back is exact."""
    halves = [
        (tensor, tensor.dtype)
        for tensor in (*model.parameters(), *model.buffers())
        if tensor.dtype in (torch.float16, torch.bfloat16)
    ]
    for tensor, _ in halves:
        tensor.data = tensor.data.float()
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)
        for tensor, dtype in halves:
            tensor.data = tensor.data.to(dtype)
