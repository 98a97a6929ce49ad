"""One training run of a recipe: records in, a student's folder out, resumable at any moment."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from accelerate import PartialState
from datasets import Dataset
from transformers import TrainerCallback

from toolkit.adapters import NEW_TOKENS, comes_apart, embeddings_at, new_tokens, train_new_rows
from toolkit.disk_faults import writing
from toolkit.encoding import EncodingReport, encode, is_sampled
from toolkit.errors import UserError
from toolkit.folder_lock import agreed, owned
from toolkit.held_out import hold_out
from toolkit.layout import WeightedCollator, filled, pack
from toolkit.layout_probe import flat_fault
from toolkit.precision import with_precision
from toolkit.sampling import BalancedSampler, balanced_seeds
from toolkit.student_saving import save_trained
from toolkit.students import FACTS, agree, is_whole, load_tokenizer
from toolkit.training_progress import show_progress
from toolkit.trl_seams import WeightedSFTTrainer, trl_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

    from toolkit.recipe import Stage

_COMPLETE = "complete"
_TOO_LONG = "too long"


class MarkComplete(TrainerCallback):
    """Mark a checkpoint once every process has written its part; one without the mark is never resumed from.

    Logs the last step, too: a run of fewer steps than `logging_steps` would leave no loss behind.
    """

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Have the last step logged, unless nothing is to be."""
        if state.global_step >= state.max_steps and args.logging_strategy != "no":
            control.should_log = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the mark."""
        process = PartialState()
        process.wait_for_everyone()
        if process.is_main_process:
            (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / _COMPLETE).touch()


def last_complete_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written whole, and remove those that were not."""
    steps = {int(path.name.rsplit("-", 1)[1]): path for path in folder.glob("checkpoint-*") if path.is_dir()}
    process = PartialState()
    complete = {step: path for step, path in steps.items() if (path / _COMPLETE).exists()}
    process.wait_for_everyone()  # nobody removes what another process still looks at
    if process.is_main_process:
        for path in set(steps.values()) - set(complete.values()):
            shutil.rmtree(path)
    process.wait_for_everyone()
    return complete[max(complete)] if complete else None


def encode_stage(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    stage: Stage,
    max_length: int | None,
    prompt_format: str,
) -> tuple[Dataset, EncodingReport]:
    """Encode a stage's records, and refuse to train on too few of them.

    Raises:
        UserError: There are no records, more than `stage.max_dropped` of them have to be left out, or no token
            carries weight.
    """
    columns, report = encode(tokenizer, rows, stage, max_length, prompt_format)
    if not report.records:
        raise UserError(f"stage {stage.name!r}: the dataset has no records to train on")
    share = len(report.dropped) / report.records
    if share > stage.max_dropped:
        reasons = Counter(_kind_of(reason) for reason in report.dropped.values())
        first = {_kind_of(reason): reason for reason in reversed(report.dropped.values())}
        first[_TOO_LONG] = _TOO_LONG
        told = "; ".join(f"{count} {first[kind]}" for kind, count in reasons.most_common(5))
        raise UserError(
            f"stage {stage.name!r}: {len(report.dropped)} of {report.records} records ({share:.1%}) have to be left "
            f"out: {told}. The longest has {report.longest} tokens, training.max_length is {max_length}. Change what "
            f"stands in the way, or allow more with stages.{stage.name}.max_dropped (now {stage.max_dropped:.1%})"
        )
    if not sum(report.weighted.values()):
        raise UserError(f"stage {stage.name!r}: no token of any record carries weight, there is nothing to learn")
    for name, soft in report.softened.items():
        if soft.tokens and not soft.aligned:
            raise UserError(
                f"stages.{stage.name}.views.{name}: none of {soft.tokens} tokens with soft_targets is one of the "
                "teacher's too: the column of log-probabilities is null or is that of another text, or the two "
                "tokenizers have nothing in common"
            )
    return Dataset.from_dict(columns), report


def _kind_of(reason: str) -> str:
    """Return a reason without the numbers that differ from record to record."""
    return _TOO_LONG if reason.endswith(" allowed") else re.sub(r"\d+", "N", reason)


def encode_held_out(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    stage: Stage,
    max_length: int | None,
    prompt_format: str,
    multiple: int,
) -> tuple[Dataset, EncodingReport]:
    """Encode the records held out of a stage as those that are trained on, completed to a multiple of sequences.

    Raises:
        UserError: Not one of them fits, or no token of them carries weight.
    """
    columns, report = encode(tokenizer, rows, stage, max_length, prompt_format)
    if not sum(report.weighted.values()):
        raise UserError(
            f"stages.{stage.name}.validation: no token of the {report.records} records held out carries weight "
            f"({len(report.dropped)} of them do not fit into training.max_length = {max_length} tokens)"
        )
    return filled(Dataset.from_dict(columns), multiple), report


def train_stage(
    stage: Stage,
    rows: Sequence[Mapping[str, Any]],
    start: str,
    folder: Path,
    model_fields: Mapping[str, Any],
    prompt_format: str,
) -> dict[str, Any]:
    """Train one stage from a student, or finish what an earlier process began.

    `folder` gets `checkpoints/` while it trains and `student/` when it has; an existing `student/` is the result.

    Args:
        stage: Views, reduction and training arguments.
        rows: Records of the dataset.
        start: Student to start from: a folder or a model of the Hub.
        folder: The stage's own.
        model_fields: Fields of TRL's `ModelConfig`, without the model's name.
        prompt_format: `plain` or `chat`.

    Returns:
        The facts of the stage, as kept in `student/stage.json`: losses, records and tokens, time.

    Raises:
        UserError: The records do not fit or carry no weight, or an argument is refused by TRL.
    """
    student = folder / "student"
    if not agreed(is_whole(student) and not _left_over(folder)):
        with writing(folder, f"stage {stage.name}"), owned(folder, "is trained"):
            if not agreed(is_whole(student)):  # the run that held it before may have finished it
                _train(stage, rows, start, folder, model_fields, prompt_format)
            if PartialState().is_main_process:
                _clear(folder)
            PartialState().wait_for_everyone()
    facts: dict[str, Any] = json.loads((student / FACTS).read_text())
    return facts


def _train(
    stage: Stage,
    rows: Sequence[Mapping[str, Any]],
    start: str,
    folder: Path,
    model_fields: Mapping[str, Any],
    prompt_format: str,
) -> None:
    """Train in a folder that is held, and write the student; arguments as of `train_stage`."""
    trainer, report = make_trainer(stage, rows, start, folder / "checkpoints", model_fields, prompt_format)
    checkpoint = last_complete_checkpoint(folder / "checkpoints")
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    facts = {
        "stage": stage.name,
        "start": _name_of(start),
        "start_commit": None if Path(start).exists() else model_fields.get("model_revision"),
        NEW_TOKENS: new_tokens(start),
        "seconds": round(time.monotonic() - began, 1),
        "resumed_from_step": int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0,
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "tokens": trainer.state.num_input_tokens_seen,
        "processes": trainer.accelerator.num_processes,
        "device": str(trainer.accelerator.device),
        "precision": trainer.args.mixed_precision,
        "encoding": asdict(report),
        "layout": trainer.layout,
        "kept_step": _kept_step(trainer),
        "log": [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry],
    }
    save_trained(trainer, start, folder, model_fields, facts)


def _left_over(folder: Path) -> list[Path]:
    """Return what a trained stage needs no more: its checkpoints, and what a killed process was about to write."""
    return [*folder.glob("checkpoints/checkpoint-*"), *folder.glob("student.partial*")]


def _clear(folder: Path) -> None:
    """Remove what a stage has left over, and say where the rest is: trackers log beside the checkpoints."""
    for path in _left_over(folder):
        shutil.rmtree(path, ignore_errors=True)
    logs = folder / "checkpoints"
    if logs.exists() and any(logs.iterdir()):
        print(f"logs of {folder.name}: {', '.join(str(path) for path in sorted(logs.iterdir()))}")
    elif logs.exists():
        logs.rmdir()


def _kept_step(trainer: WeightedSFTTrainer) -> int:
    """Return the step whose weights are kept: the last one's, or the best one's where that was asked for."""
    state = trainer.state
    if trainer.args.load_best_model_at_end and state.best_model_checkpoint:
        return int(state.best_model_checkpoint.rsplit("-", 1)[1])
    return int(state.global_step)


def _name_of(start: str) -> str:
    """Return how facts call a student: a stage's folder by its name, so that no path of a machine is published."""
    path = Path(start)
    if not path.exists():
        return start
    return path.parent.name if path.name == "student" else path.name


def make_trainer(
    stage: Stage,
    rows: Sequence[Mapping[str, Any]],
    start: str,
    output_dir: Path,
    model_fields: Mapping[str, Any],
    prompt_format: str,
) -> tuple[WeightedSFTTrainer, EncodingReport]:
    """Encode a stage's records and put the trainer together; trains nothing."""
    try:
        args, model = trl_arguments(with_precision(stage), model_fields, output_dir, start)
    except (ValueError, ImportError) as error:  # bf16 on a machine without it, a package that is not there
        raise UserError(f"stages.{stage.name}.training or student: {error}") from error
    if model["peft_config"] is not None:
        names = embeddings_at(start, model_fields.get("model_revision"))
        train_new_rows(model["peft_config"], names, new_tokens(start))
        if names.tied and comes_apart(names, model["peft_config"].to_dict()) and PartialState().is_main_process:
            print(
                f"stage {stage.name!r}: {names.inputs} and {names.outputs} are one weight, and LoRA changes one: untied"
            )
    tokenizer = load_tokenizer(start, model_fields.get("model_revision"))
    dataset, held_out, report = stage_datasets(tokenizer, rows, stage, args, prompt_format)
    flat = next((name for name in ("packing", "padding_free") if stage.training.get(name)), None)
    try:
        trainer = WeightedSFTTrainer(
            view_names=list(stage.views),
            reduce_by=stage.reduction.by,
            sampler=stage_sampler(stage, dataset, args.data_seed if args.data_seed is not None else args.seed),
            collator=WeightedCollator(
                tokenizer.pad_token_id,
                flat=flat is not None,
                pad_to_multiple_of=stage.training.get("pad_to_multiple_of"),
            ),
            args=args,
            train_dataset=dataset,
            eval_dataset=held_out,
            processing_class=tokenizer,
            callbacks=[MarkComplete()],
            **model,
        )
    except (ImportError, RuntimeError, ValueError) as error:  # a tracker that is not installed, arguments at odds
        raise UserError(f"stages.{stage.name}.training or student: {error}") from error
    show_progress(trainer, stage.name, hidden=stage.training.get("disable_tqdm", False))
    agree(cast("PreTrainedModel", trainer.model), tokenizer)
    if flat is not None and (fault := flat_fault(trainer)):
        trainer.layout = f"padded, not {flat}: {fault}"
        trainer.data_collator = replace(trainer.data_collator, flat=False)
        if trainer.accelerator.is_main_process:
            print(f"stage {stage.name!r}: the student is trained {trainer.layout}")
    return trainer, report


def stage_sampler(stage: Stage, dataset: Dataset, seed: int) -> BalancedSampler | None:
    """Return the sampler of a stage with a balanced view, None for a stage without one."""
    if not is_sampled(stage):
        return None
    views = [sequence[0] for sequence in dataset["views"]]
    return BalancedSampler(dataset["question"], dataset["record"], views, balanced_seeds(stage), seed)


def stage_datasets(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    stage: Stage,
    args: TrainingArguments,
    prompt_format: str,
) -> tuple[Dataset, Dataset | None, EncodingReport]:
    """Encode what a stage is trained on, packed where it says so, and what it holds out."""
    max_length: int | None = args.max_length  # type: ignore[attr-defined]  # TRL's
    held_out, apart_report = None, None
    if stage.validation is not None:
        try:
            rows, apart = hold_out(rows, stage.validation, args.seed)
        except UserError as error:
            raise UserError(f"stages.{stage.name}.validation: {error}") from None
        batches = args.eval_batch_size * args.world_size
        held_out, apart_report = encode_held_out(tokenizer, apart, stage, max_length, prompt_format, batches)
    dataset, report = encode_stage(tokenizer, rows, stage, max_length, prompt_format)
    report.held_out = apart_report
    if stage.training.get("packing", False):
        if max_length is None:
            raise UserError(f"stages.{stage.name}.training.packing: needs max_length, the length of a packed row")
        dataset = pack(dataset, max_length, args.seed)
    return dataset, held_out, report
