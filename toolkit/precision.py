"""In which precision a stage computes: the recipe's, where the machine has it, or else what the machine is good at.

TRL 1.16 switches bf16 on where nothing is said. Here bf16 is used by itself on accelerators that have it; elsewhere a
stage computes in its weights' own precision. That is a fact of a training, as its device is, and no part of a stage's
identity: a student trained on one machine is found again on another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError

if TYPE_CHECKING:
    from toolkit.recipe import Stage


def with_precision(stage: Stage) -> dict[str, Any]:
    """Return a stage's training arguments with `bf16` decided where the recipe leaves it open.

    Raises:
        UserError: It wants bf16 or fp16 on a machine without.
    """
    training = dict(stage.training)
    for name in ("bf16", "fp16"):
        if training.get(name) and not _has(name, training):
            raise UserError(
                f"stages.{stage.name}.training.{name}: found true, but {_missing(name, training)}; leave it out, and "
                "the stage computes in what the machine has"
            )
    if training.get("bf16") is None:
        training["bf16"] = not training.get("fp16") and _on_accelerator(training) and _has("bf16", training)
    return training


def _on_accelerator(training: Mapping[str, Any]) -> bool:
    import torch

    on_cpu = training.get("use_cpu") or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")
    return torch.accelerator.is_available() and not on_cpu


def _has(name: str, training: Mapping[str, Any]) -> bool:
    from transformers.utils import is_torch_bf16_gpu_available

    if name == "fp16":
        return _on_accelerator(training)
    # PyTorch emulates bf16 on any CPU, slowly: that has to be asked for by use_cpu.
    return bool(training.get("use_cpu")) or is_torch_bf16_gpu_available()


def _missing(name: str, training: Mapping[str, Any]) -> str:
    if _on_accelerator(training):
        return f"this accelerator has no {name}"
    if name == "fp16":
        return "fp16 needs an accelerator, and the stage runs on the CPU"
    return "there is no accelerator here (on a CPU bf16 is emulated, which use_cpu: true asks for)"
