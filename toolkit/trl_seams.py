"""The one place that touches TRL's young seams; a TRL release is this file to mend.

Read against TRL 1.16 and transformers 5.23. What is relied on, and where it lives:

- `SFTTrainer` patches the model so that `model(..., labels=..., fused_lm_head=True)` returns per-token
  `log_probs` without building logits (`trl.trainer.utils.add_fused_lm_head`).
- `_signature_columns` decides which columns reach the collator (TRL keeps `input_ids, labels, seq_lengths`).
- `_get_num_items_in_batch` sees every micro-batch of an optimizer step at once, and what it returns reaches
  `compute_loss` as `num_items_in_batch`. It returns our denominators, one for each view, gathered over processes.
- `state.num_input_tokens_seen` is saved with a checkpoint and restored from it, and the trainer leaves it alone as long
  as `include_num_input_tokens_seen` is off. Switched on, it takes an end of sequence for padding where the two are one
  token, and puts four more numbers into every line of the log; so it is counted here.
- `SFTTrainer.prediction_step` calls `compute_loss` without `num_items_in_batch`; `evaluate` logs the metrics that
  `evaluation_loop` returns, `eval_loss` among them.
- `loss_is_scaled_for_ga` (a class attribute since TRL 1.15) says that the loss needs no division by the number
  of accumulation steps.

Not supported, and refused: tensor, context and sequence parallelism (they would need the counts gathered over a
smaller group), the mixture-of-experts balancing loss, label smoothing, `loss_type: dft`, vision-language students.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn import functional
from trl import ModelConfig, SFTConfig, SFTTrainer, get_peft_config, get_quantization_config, pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import pad

from toolkit.encoding import COLUMNS, SOFT_COLUMNS
from toolkit.errors import UserError
from toolkit.objective import denominators, soft_cross_entropy, weighted_loss

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.trainer_utils import EvalLoopOutput

    from toolkit.layout import WeightedCollator
    from toolkit.sampling import BalancedSampler

# For `layout`: TRL's collator of token columns, its packing and its padding.
__all__ = [
    "DataCollatorForLanguageModeling",
    "WeightedSFTTrainer",
    "pack_dataset",
    "pad",
    "token_losses",
    "trl_arguments",
]

_OURS = ("weights", "counts", "views", "labels", *SOFT_COLUMNS)


def trl_arguments(
    training: Mapping[str, Any], model_fields: Mapping[str, Any], output_dir: Path, start: str
) -> tuple[SFTConfig, dict[str, Any]]:
    """Turn a recipe's `training` and `student` sections into what `SFTTrainer` takes.

    Args:
        training: Fields of `SFTConfig`. `packing` and `padding_free` are our layouts' and stay off in TRL, which
            refuses a collator beside them.
        model_fields: Fields of `ModelConfig`, without the model's name.
        output_dir: Where checkpoints go.
        start: The student to start from: a folder or a model of the Hub.

    Returns:
        The `SFTConfig`, and the keyword arguments `model`, `peft_config`, `quantization_config`.
    """
    model = ModelConfig(model_name_or_path=start, **model_fields)
    named = model_fields.get("lora_target_modules")
    if named is not None and named != ["all-linear"]:
        # TRL 1.16 makes text of a list of one, which PEFT takes for a pattern of whole module names: none matches.
        model.lora_target_modules = named
    layout = ("packing", "padding_free")
    fields = {name: value for name, value in training.items() if name not in layout}
    # Every metric is a loss; a name like `loss/right` would be taken for something of which more is better.
    args = SFTConfig(output_dir=str(output_dir), **({"greater_is_better": False} | fields))
    if args.save_total_limit is not None:
        # The trainer deletes the older checkpoint before the newer one is marked as whole: killed in between, a run
        # that keeps one would have none. The best one is kept beside these two.
        args.save_total_limit = max(args.save_total_limit, 3 if args.load_best_model_at_end else 2)
    args.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **training.get("model_init_kwargs", {}),
    }
    return args, {
        "model": start,
        "peft_config": get_peft_config(model),
        "quantization_config": get_quantization_config(model),
    }


# Attributes that TRL declares on an instance, or as None, are meant to be set by subclasses; its annotations say no.
_SFTTrainer: Any = SFTTrainer


class WeightedSFTTrainer(_SFTTrainer):
    """TRL's `SFTTrainer` on the loss `sum_v sum_t w_t CE_t / D_v` (DESIGN, section 3).

    The dataset has the columns of `toolkit.encoding.COLUMNS`, with soft targets also `SOFT_COLUMNS`, and is not
    prepared again. Each view's share of the loss is logged apart as `loss/<view>`. Evaluation gives the same loss over
    the whole evaluation set, as if it were the batch of one optimizer step.

    Args:
        view_names: Names of the stage's views, in order.
        reduce_by: `token`, `view` or `example`.
        sampler: Order of the sequences of an epoch; None for the trainer's own.
        collator: Layout of the batches; `SFTTrainer` refuses a collator of one's own with packing, so rows come
            packed already and `args.packing` stays off.
        **kwargs: As of `SFTTrainer`.
    """

    loss_is_scaled_for_ga = True
    _tag_names: ClassVar[list[str]] = ["cot-distillery"]

    def __init__(
        self,
        *,
        view_names: list[str],
        reduce_by: str,
        collator: WeightedCollator,
        sampler: BalancedSampler | None = None,
        **kwargs: Any,
    ) -> None:
        args = kwargs["args"]
        args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}
        self.view_names = view_names
        self.reduce_by = reduce_by
        self._sampler = sampler
        self._terms: dict[str, list[Tensor]] = defaultdict(list)
        self._steps = 0
        self._evaluated: list[Tensor] = []
        super().__init__(data_collator=collator, **kwargs)
        parallelism = self.accelerator.parallelism_config
        if parallelism is not None and parallelism.non_data_parallel_size > 1:
            raise UserError("tensor, context and sequence parallelism are not supported; use data parallelism")
        if self.aux_loss_enabled:
            raise UserError(
                "the student is a mixture of experts with a balancing loss, which is not supported; "
                "set training.router_aux_loss_coef: 0.0"
            )
        # The fused head projects on GPU only what is scored; on CPU it projects every position, in tiles, and is
        # slower than plain logits at the scored positions (docs/results/train_step.md).
        # Nor does it tell the probability of more than one token.
        is_soft = SOFT_COLUMNS[0] in self.train_dataset.column_names
        self.head = "fused" if self.accelerator.device.type in ("cuda", "xpu") and not is_soft else "plain"

    def _send_telemetry(self) -> None:
        """TRL reports each run to the Hub; this toolkit sends nothing that nobody asked for."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The card is written once, from the facts of the whole run (`student_card`), not with every checkpoint."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self._sampler or super()._get_train_sampler(train_dataset)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [*COLUMNS, *SOFT_COLUMNS, "seq_lengths"]

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor | None:
        """Return the denominators of the whole optimizer step, shape (V,), and count the tokens it reads."""
        if not batch_samples:
            return None
        # Flat batches have no mask: all of their tokens are there to be read.
        read = sum(
            int(batch.get("attention_mask", torch.ones_like(batch["input_ids"])).sum()) for batch in batch_samples
        )
        self.state.num_input_tokens_seen += int(self.accelerator.reduce(torch.tensor(read, device=device), "sum"))
        local = sum(
            denominators(batch["counts"], batch["views"], len(self.view_names), self.reduce_by).to(device)
            for batch in batch_samples
        )
        self._steps += 1
        return self.accelerator.reduce(local, reduction="sum")

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of one micro-batch; over an optimizer step and all processes they sum to its loss."""
        if return_outputs:
            raise UserError("compute_metrics needs logits, which are never built; use `distill evaluate`")
        # The prediction of token t comes from position t - 1.
        weights, counts, views = (inputs[name][:, 1:] for name in ("weights", "counts", "views"))
        model_inputs = {name: value for name, value in inputs.items() if name not in _OURS}
        soft = tuple(inputs[name] for name in SOFT_COLUMNS if name in inputs)
        losses = token_losses(model, model_inputs, inputs["labels"], self.head, *soft)
        if num_items_in_batch is None:  # evaluation: what to divide by is known at its end
            counted = denominators(counts, views, len(self.view_names), self.reduce_by)
            sums = weighted_loss(losses, weights, views, torch.ones_like(counted))
            self._evaluated.append(torch.stack([sums.to(counted.dtype), counted]))
            return sums.sum()
        terms = weighted_loss(losses, weights, views, num_items_in_batch)
        for name, term in zip(self.view_names, terms.detach(), strict=True):
            self._terms[name].append(term)
        # DDP averages the gradients of the processes; the denominators are those of all of them together.
        return terms.sum() * self.accelerator.num_processes

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """Return the loss over the whole evaluation set, in place of a mean of its batches' losses."""
        self._evaluated.clear()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        sums, counted = self.accelerator.reduce(torch.stack(self._evaluated).sum(dim=0), reduction="sum")
        terms = sums / torch.where(counted == 0, torch.ones_like(counted), counted)
        output.metrics[f"{metric_key_prefix}_loss"] = terms.sum().item()
        for name, term in zip(self.view_names, terms, strict=True):
            output.metrics[f"{metric_key_prefix}_loss/{name}"] = term.item()
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log each view's share of the loss beside the loss, as a mean over the optimizer steps since the last log."""
        if "loss" in logs and self._terms:
            for name, values in self._terms.items():
                total = self.accelerator.reduce(torch.stack(values).sum(), reduction="sum")
                logs[f"loss/{name}"] = total.item() / self._steps
            self._terms.clear()
            self._steps = 0
        super().log(logs, start_time)


def token_losses(
    model: torch.nn.Module,
    inputs: dict[str, Any],
    labels: Tensor,
    head: str,
    soft_ids: Tensor | None = None,
    soft_probs: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy of every scored token, 0 elsewhere.

    Args:
        model: Causal language model; for the fused head, one that `add_fused_lm_head` has patched.
        inputs: Model inputs without labels.
        labels: Shape (B, T), -100 where nothing is to be projected.
        head: `fused` (TRL's, no logits) or `plain` (logits at the positions where any row is scored); soft targets
            need the latter.
        soft_ids: What scored tokens are to be in place of their labels, shape (B, T, K).
        soft_probs: Probabilities of these ids, shape (B, T, K).

    Returns:
        Shape (B, T - 1), float32, differentiable: entry t is the loss of token t + 1.
    """
    if head == "fused":
        # named so that the wrapper's positional handling (DDP, FSDP) stays out of the way
        return -model(**inputs, labels=labels, fused_lm_head=True).log_probs
    targets = labels[:, 1:]
    kept = (targets != -100).any(dim=0).nonzero().flatten()
    logits = _logits_at(model, inputs, kept).float()
    if soft_ids is not None and soft_probs is not None:
        losses = soft_cross_entropy(logits, soft_ids[:, 1:][:, kept], soft_probs[:, 1:][:, kept])
        losses = losses.masked_fill(targets[:, kept] == -100, 0.0)
    else:
        losses = functional.cross_entropy(logits.transpose(1, 2), targets[:, kept], ignore_index=-100, reduction="none")
    return torch.zeros(targets.shape, dtype=losses.dtype, device=losses.device).index_copy(1, kept, losses)


def _logits_at(model: torch.nn.Module, inputs: dict[str, Any], positions: Tensor) -> Tensor:
    """Return the logits at the given positions of the sequence, shape (B, K, vocabulary)."""
    inner: Any = model
    while hasattr(inner, "module"):  # DDP hides the signature
        inner = inner.module
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    if "logits_to_keep" in inspect.signature(inner.forward).parameters:
        return model(**inputs, use_cache=False, logits_to_keep=positions).logits
    return model(**inputs, use_cache=False).logits[:, positions]
