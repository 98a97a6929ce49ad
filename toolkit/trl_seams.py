"""The one place that touches TRL's young seams; a TRL release is this file to mend.

Read against TRL 1.16 and transformers 5.23. What is relied on, and where it lives:

- `SFTTrainer` patches the model so that `model(..., labels=..., fused_lm_head=True)` returns per-token
  `log_probs` without building logits (`trl.trainer.utils.add_fused_lm_head`).
- `_signature_columns` decides which columns reach the collator (TRL keeps `input_ids, labels, seq_lengths`).
- `_get_num_items_in_batch` sees every micro-batch of an optimizer step at once, and what it returns reaches
  `compute_loss` as `num_items_in_batch`. It returns our denominators, one for each view, gathered over processes.
- `_get_train_sampler` is given the dataset without the columns that no collator wants; `_run_epoch` is called with the
  number of the epoch. accelerate shards the batches of one sampler over the processes, batch by batch.
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

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import ModelConfig, SFTConfig, SFTTrainer, get_peft_config, get_quantization_config

from toolkit.encoding import COLUMNS, SOFT_COLUMNS
from toolkit.errors import UserError
from toolkit.layout import filled
from toolkit.objective import denominators, mean_counts, sum_type, weighted_loss
from toolkit.sampling import EpochSampler
from toolkit.token_losses import token_losses

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers.trainer_utils import EvalLoopOutput

    from toolkit.layout import WeightedCollator
    from toolkit.sampling import BalancedSampler

_OURS = ("weights", "counts", "views", "labels", "rows", "tokens", *SOFT_COLUMNS)


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
        sampler: Order of the sequences of an epoch; None for the trainer's own. Several processes read each row of an
            epoch once: what is missing of their last batches are blanks, which count for nothing.
        collator: Layout of the batches; `SFTTrainer` refuses a collator of one's own with packing, so rows come
            packed already and `args.packing` stays off.
        **kwargs: As of `SFTTrainer`.
    """

    loss_is_scaled_for_ga = True
    train_dataset: Dataset
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
        self._epochs: EpochSampler | None = None
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
        # Where PEFT trains single rows of the output layer, what stands in its place has a weight and no bias (0.21),
        # and the fused head reads both. Not set as a module's attribute: it would be saved a second time.
        output = self.model.get_output_embeddings()
        if hasattr(output, "token_adapter"):
            output.__dict__["bias"] = output.token_adapter.base_layer.bias
        # The fused head projects on GPU only what is scored; on CPU it projects every position, in tiles, and is
        # slower than plain logits at the scored positions (docs/results/train_step.md).
        # Nor does it tell the probability of more than one token.
        is_soft = SOFT_COLUMNS[0] in self.train_dataset.column_names
        self.head = "fused" if self.accelerator.device.type in ("cuda", "xpu") and not is_soft else "plain"
        self.layout = "flat" if collator.flat else "padded"
        self._mean_counts = self._counted_on_average()
        self._fill_batches()

    def _counted_on_average(self) -> Tensor | None:
        """Return what a row counts for each view on average, None where a step is divided by what it counts itself."""
        if self.reduce_by == "token" or len(self.view_names) == 1:
            return None
        dataset = self.train_dataset.select_columns(["counts", "views"]).with_format("numpy")
        rows = ((row["counts"], row["views"]) for row in dataset)
        shares = self._sampler.shares if self._sampler is not None else {}
        means = mean_counts(rows, (shares.get(row, 1.0) for row in range(len(dataset))), len(self.view_names))
        return means if (means > 0).sum() > 1 else None

    def _fill_batches(self) -> None:
        """Complete the training rows by blanks, where accelerate would fill the last batches with the first rows."""
        args, rows = self.args, len(self.train_dataset)
        if args.train_sampling_strategy == "batch_rebalance" and not args.dataloader_drop_last:
            raise UserError(
                "training.train_sampling_strategy: batch_rebalance fills the last batches of an epoch with rows that "
                "were read before; set training.dataloader_drop_last: true, or use group_by_length"
            )
        if args.world_size > 1:
            if args.accelerator_config.dispatch_batches:
                raise UserError("training.accelerator_config.dispatch_batches: true is not supported")
            if not args.dataloader_drop_last:
                processes = 1 if args.accelerator_config.split_batches else args.world_size
                drawn = rows if self._sampler is None else len(self._sampler)
                self.train_dataset = filled(self.train_dataset, args.train_batch_size * processes, drawn)
        self._blanks = range(rows, len(self.train_dataset))

    def _send_telemetry(self) -> None:
        """TRL reports each run to the Hub; this toolkit sends nothing that nobody asked for."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The card is written once, from the facts of the whole run (`student_card`), not with every checkpoint."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        order = self._sampler or super()._get_train_sampler(rows.select(range(self._blanks.start)))
        if self.args.train_sampling_strategy == "batch_rebalance":  # draws whole batches, by epoch and process
            return order
        if isinstance(order, LengthGroupedSampler):
            order.batch_size *= self.args.world_size  # groups by what all processes read together
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        self._epochs = EpochSampler(order, seed, self._blanks)
        return self._epochs

    def _run_epoch(self, *, epoch: int, **kwargs: Any) -> None:
        """Train for an epoch, unless all steps are done: the trainer looks whether they are only behind a step.

        So it is where a run is resumed from its last checkpoint and `max_steps` lies within an epoch.
        """
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        if self._epochs is not None:
            self._epochs.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [*COLUMNS, *SOFT_COLUMNS, "seq_lengths"]

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor | None:
        """Return the denominators of the whole optimizer step, shape (V,), and count the tokens it reads."""
        if not batch_samples:
            return None
        read = torch.stack([batch["tokens"] for batch in batch_samples]).sum()
        self.state.num_input_tokens_seen += int(self.accelerator.reduce(read.to(device), "sum"))
        if self._mean_counts is not None:
            rows = torch.stack([batch["rows"] for batch in batch_samples]).sum().to(device)
            local = rows * self._mean_counts.to(device, sum_type(device))
        else:
            counted = [
                denominators(batch["counts"], batch["views"], len(self.view_names), self.reduce_by).to(device)
                for batch in batch_samples
            ]
            local = torch.stack(counted).sum(dim=0)
        self._steps += 1
        return self.accelerator.reduce(local, reduction="sum")

    def batch_losses(self, model: torch.nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the cross-entropy of every scored token of a batch, shape (B, T - 1), 0 elsewhere."""
        inputs = {name: value for name, value in batch.items() if name not in _OURS}
        soft = tuple(batch[name] for name in SOFT_COLUMNS if name in batch)
        return token_losses(model, inputs, batch["labels"], self.head, *soft)

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
        losses = self.batch_losses(model, inputs)
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
