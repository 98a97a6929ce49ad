"""Every optimizer step of epochs that do not divide into batches; `gradient_probe.py` runs it on several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tests.chains import COT, LABEL, chains, stage
from tests.gradients import Gradients
from tests.records import duals, edit, imitation
from toolkit.stages import last_complete_checkpoint, make_trainer

EPOCHS: dict[str, Any] = {"max_steps": -1, "num_train_epochs": 2, "max_grad_norm": 0.0}
PACKED: dict[str, Any] = {"packing": True, "max_length": 110}
LORA: dict[str, Any] = {"use_peft": True, "lora_r": 2, "lora_target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.0}
VIEWS = {"cot": COT | {"select": {"draw": "balanced"}}, "label": LABEL | {"coefficient": 0.5}}
# Steps of eight rows, and a last one of an epoch that has fewer.
CASES: dict[str, tuple[str, Any, list[dict[str, Any]]]] = {
    "one view": ("llama", imitation(**EPOCHS), duals(13)),
    "view": ("llama", edit(beta=0.3, reduction={"by": "view"}, **EPOCHS), duals(7)),
    "example": ("llama", edit(beta=0.3, **EPOCHS), duals(7)),
    "packed": ("llama", edit(beta=0.3, reduction={"by": "view"}, **EPOCHS, **PACKED), duals(11)),
    "padding-free": ("llama", imitation(padding_free=True, **EPOCHS), duals(13)),
    "packed, falls back": ("opt", imitation(**EPOCHS, **PACKED), duals(21)),
    "balanced": ("llama", stage(VIEWS, {"by": "view"}, **EPOCHS), chains(5, each=2)),
    "adapter": ("llama", edit(beta=0.3, **EPOCHS), duals(7)),
    "grouped by length": ("llama", imitation(train_sampling_strategy="group_by_length", **EPOCHS), duals(13)),
}


class StopAfter(TrainerCallback):
    """Ends a run in the middle of its second epoch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == self.step


def trained(
    case: str, folder: Path, batch: int, steps: int, stop_after: int | None = None, resume: bool = False
) -> dict[str, Any]:
    """Return the gradient and the loss of every step, and the tokens read."""
    student, of_case, rows = CASES[case]
    saving = {"save_strategy": "steps", "save_steps": 1} if stop_after or resume else {}
    sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
    of_case = of_case.model_copy(update={"training": of_case.training | sizes | saving})
    checkpoints = folder / f"checkpoints-{batch}x{steps}"
    trainer, _ = make_trainer(
        of_case, rows, str(folder / student), checkpoints, LORA if case == "adapter" else {}, "plain"
    )
    gradients = Gradients()
    trainer.add_callback(gradients)
    if stop_after:
        trainer.add_callback(StopAfter(stop_after))
    checkpoint = last_complete_checkpoint(checkpoints) if resume else None
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return {
        "gradients": gradients.steps,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "tokens": trainer.state.num_input_tokens_seen,
        "processes": trainer.accelerator.num_processes,
        "layout": trainer.layout,
    }


def probe(folder: Path, batch: int, steps: int) -> dict[str, dict[str, Any]]:
    """Return what comes of every case, and of one that is interrupted in the second epoch and resumed.

    Args:
        folder: Holds the students `llama` and `opt`, and takes the checkpoints.
        batch: Sequences of a micro-batch on each process.
        steps: Micro-batches accumulated.
    """
    found = {case: trained(case, folder, batch, steps) for case in CASES}
    trained("one view", folder, batch, steps, stop_after=3)
    return found | {"resumed": trained("one view", folder, batch, steps, resume=True)}
