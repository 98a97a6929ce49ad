"""One optimizer step of EDIT's second stage under every reduction, one of soft targets, the loss on held-out records.

A script for `accelerate launch`, and functions for the test: `gradient_probe.py STUDENT FOLDER FILE BATCHxSTEPS ...`,
where FOLDER is that of `epoch_probe`'s students.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from tests.gradients import Gradients
from tests.integration import epoch_probe
from tests.records import duals, edit
from tests.soft_chains import soft_chains, soft_stage
from toolkit.launcher import heed_launcher
from toolkit.stages import make_trainer

ROWS = duals(4)  # eight sequences: one optimizer step of eight
SOFT_ROWS = soft_chains(4)  # as many
REDUCTIONS = ("token", "view", "example")
CASES = (*REDUCTIONS, "soft targets")
BETA = 0.3


def probe(student: str, batch: int, steps: int) -> dict[str, dict[str, Any]]:
    """Return gradient, loss, tokens read and number of processes for every case.

    Args:
        student: Folder of the student.
        batch: Sequences of a micro-batch on each process.
        steps: Micro-batches accumulated.
    """
    found = {}
    sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
    for case in CASES:
        if case == "soft targets":
            stage, rows = soft_stage(**sizes), SOFT_ROWS
        else:
            stage, rows = edit(beta=BETA, reduction={"by": case, "over": "all"}, max_grad_norm=0.0, **sizes), ROWS
        with tempfile.TemporaryDirectory() as folder:
            trainer, _ = make_trainer(stage, rows, student, Path(folder), {}, "plain")
            gradients = Gradients()
            trainer.add_callback(gradients)
            trainer.train()
        (gradient,) = gradients.steps
        found[case] = {
            "gradient": gradient,
            "loss": next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry),
            "tokens": trainer.state.num_input_tokens_seen,
            "processes": trainer.accelerator.num_processes,
        }
    return found


def held_out_losses(student: str, batch: int) -> dict[str, float]:
    """Return the loss on held-out records for every reduction.

    Args:
        student: Folder of the student.
        batch: Sequences of a batch on each process; six are held out in all.
    """
    found = {}
    for by in REDUCTIONS:
        stage = edit(
            beta=BETA,
            reduction={"by": by, "over": "all"},
            eval_strategy="steps",
            per_device_eval_batch_size=batch,
        ).model_copy(update={"validation": 0.5})
        with tempfile.TemporaryDirectory() as folder:
            trainer, _ = make_trainer(stage, duals(9), student, Path(folder), {}, "plain")
            found[by] = trainer.evaluate()["eval_loss"]
    return found


if __name__ == "__main__":
    heed_launcher(__file__, sys.argv[1:])
    student, folder, file, *sizes = sys.argv[1:]
    results: dict[str, Any] = {size: probe(student, *map(int, size.split("x"))) for size in sizes}
    results["epochs"] = {size: epoch_probe.probe(Path(folder), *map(int, size.split("x"))) for size in sizes}
    results["held out"] = held_out_losses(student, batch=4)
    if PartialState().is_main_process:
        torch.save(results, file)
