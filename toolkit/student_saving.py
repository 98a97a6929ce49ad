"""How a trained student is written: whole or not at all, and only if what can be loaded is what was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.adapters import load_adapted, new_tokens
from toolkit.errors import UserError
from toolkit.folder_lock import agreed
from toolkit.students import agree, merge_adapter, staged, staging_name, write_beside

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.trl_seams import WeightedSFTTrainer

_PROBED = 256
# Largest difference of two logits, as a share of their standard deviation. In float32 adding an adapter to a weight
# and applying it beside the weight differ by rounding alone, about 1e-6 of it. In half precision the sum of the two is
# itself rounded, to 3 digits in bfloat16, and each layer adds to that; what is wrongly merged is off by 1 and more.
_TIGHT, _LOOSE = 1e-3, 0.3


def save_trained(
    trainer: WeightedSFTTrainer, start: str, folder: Path, model_fields: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Write a stage's student, merged where it was trained as an adapter, and load it again to see that it is the same.

    Every process takes part: under FSDP and DeepSpeed each has but a part of the weights.

    Args:
        trainer: Trained.
        start: Student that the stage started from.
        folder: The stage's; gets `student/`, and `adapter/` where there is one. The caller holds it.
        model_fields: Fields of TRL's `ModelConfig`, without the model's name.
        facts: For `student/stage.json`.

    Raises:
        UserError: What would be loaded is another student than the one in memory; says what to set. `student/` is not
            written then, and checkpoints stay.
    """
    student, adapter = folder / "student", folder / "adapter"
    probe = probe_ids(trainer, new_tokens(start))
    trained, tolerance = _trained_logits(trainer, probe), _tolerance(trainer)
    if agreed(bool(trained.isnan().any())):
        raise UserError(_diverged(facts["stage"]))
    name = agreed(staging_name(student))
    if not model_fields.get("use_peft"):
        hint = "What its architecture saves is not what it loads; choose another student.model_name_or_path"
        with _staged_by_main(student, name, trainer) as staging:
            trainer.save_model(str(staging))
            _finish(trainer, staging, facts, (trained, tolerance), probe, hint)
        return
    hint = (
        "Leave embeddings and output layer out of student.lora_target_modules and student.lora_modules_to_save, set "
        "student.dtype=float32, or train all weights with student.use_peft=false"
    )
    trainer.save_model(str(adapter))
    with _staged_by_main(student, name, trainer) as staging:
        if trainer.accelerator.is_main_process:
            if is_quantised(model_fields):  # the base in memory is rounded; this one is not, nor is it merged
                unmerged = load_adapted(start, adapter, model_fields)
                trained, tolerance = logits_of(unmerged, probe), _tolerance_of(unmerged)
            model = merge_adapter(start, adapter, model_fields)
            agree(model, trainer.processing_class)
            model.save_pretrained(staging)
        _finish(trainer, staging, facts, (trained, tolerance), probe, hint)


def is_quantised(model_fields: Mapping[str, Any]) -> bool:
    """Whether a student is trained on a base of 4 or 8 bits."""
    return bool(model_fields.get("load_in_4bit") or model_fields.get("load_in_8bit"))


@contextmanager
def _staged_by_main(student: Path, name: str, trainer: WeightedSFTTrainer) -> Iterator[Path]:
    """Stage a folder in the first process; the others get its name, and wait for it to be there."""
    process = trainer.accelerator
    if process.is_main_process:
        with staged(student, name) as staging:
            process.wait_for_everyone()
            yield staging
    else:
        process.wait_for_everyone()
        yield student.with_name(name)
    process.wait_for_everyone()


def _finish(
    trainer: WeightedSFTTrainer,
    staging: Path,
    facts: Mapping[str, Any],
    trained: tuple[Tensor, float],
    probe: Tensor,
    hint: str,
) -> None:
    """Put the rest beside the weights and compare what is loaded; all processes raise where one of them must."""
    fault = ""
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        (staging / "training_args.bin").unlink(missing_ok=True)  # a pickle with paths of this machine
        write_beside(staging, trainer.processing_class, facts)
        fault = difference(trained[0], _loaded_logits(staging, probe), trained[1])
    if fault := agreed(fault):
        raise UserError(
            f"stages.{facts['stage']}: the student that was saved is not the one that was trained: {fault}. {hint}"
        )


def probe_ids(trainer: WeightedSFTTrainer, tokens: tuple[int, ...]) -> Tensor:
    """Return the ids of one training record, shape (1, T), new tokens at their end: their rows are compared too."""
    import torch

    ids = list(trainer.train_dataset[0]["input_ids"])[:_PROBED]  # no longer than it was trained on, so it has positions
    return torch.tensor([[*ids[: max(len(ids) - len(tokens), 1)], *tokens]])


def _trained_logits(trainer: WeightedSFTTrainer, probe: Tensor) -> Tensor:
    """Return the logits of the student in memory, shape (T, vocabulary), as its weights give them without autocast."""
    model: Any = trainer.model_wrapped
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        model = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return logits_of(model, probe)


def logits_of(model: Any, ids: Tensor) -> Tensor:
    """Return a model's logits in float32 on the CPU, shape (T, vocabulary)."""
    import torch

    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        return model(input_ids=ids.to(device), use_cache=False).logits[0].float().cpu()  # type: ignore[no-any-return]


def _loaded_logits(folder: Path, probe: Tensor) -> Tensor:
    """Return the logits of a saved student, computed where there is memory for a second one: on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    return logits_of(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), probe)


def _tolerance(trainer: WeightedSFTTrainer) -> float:
    """Return what rounding may make of logits: little where all weights and products are float32."""
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled  # run under autocast
    return _LOOSE if sharded or trainer.args.tf32 else _tolerance_of(trainer.model)


def _tolerance_of(model: Any) -> float:
    import torch

    return _TIGHT if all(weight.dtype == torch.float32 for weight in model.parameters()) else _LOOSE


def difference(trained: Tensor, loaded: Tensor, tolerance: float) -> str:
    """Say how two students differ on a record, or return nothing.

    Args:
        trained: Logits, shape (T, vocabulary).
        loaded: The other one's.
        tolerance: Share of the logits' standard deviation that is rounding. Loose ones hold for the median position:
            rounding may send single tokens of a mixture to other experts.
    """
    if trained.shape != loaded.shape:
        return f"its logits have the shape {tuple(loaded.shape)} and had {tuple(trained.shape)}"
    apart = (trained - loaded).masked_fill(trained == loaded, 0.0).abs().amax(dim=-1)  # equal infinities are no NaN
    found = (apart.max() if tolerance < _LOOSE else apart.median()).item()
    spread = trained[trained.isfinite()].std().item()
    if found <= tolerance * spread:
        return ""
    return f"on one record its logits are off by {found:.3g}, where they spread by {spread:.3g}"


def _diverged(stage: str) -> str:
    return (
        f"stages.{stage}: the student that was trained gives no logits but NaN on a record that it learnt from: "
        f"training diverged. Lower stages.{stage}.training.learning_rate, or warm it up with warmup_steps"
    )
