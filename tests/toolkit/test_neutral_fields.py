"""Which training arguments are no part of a stage's identity: every field stands in one list, with its reason."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny_recipe import EDIT, written
from toolkit.cli import open_recipe
from toolkit.neutral_fields import NEUTRAL
from toolkit.runs import Run
from toolkit.training_fields import OWNED, training_model

TRAINING = "stages.imitate.training"
OF_REFERENCE = "references.answer_only.stages.0.training"
HELD_OUT = [
    *("stages.imitate.validation=0.1", f"{TRAINING}.eval_strategy=epoch"),
    *("references.answer_only.stages.0.validation=0.1", f"{OF_REFERENCE}.eval_strategy=epoch"),
]
Folders = Callable[..., list[str]]

COUNTED = """
per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps
optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon optim_target_modules gradient_accumulation_steps
max_grad_norm bf16 fp16 tf32 activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing
gradient_checkpointing_kwargs torch_compile torch_compile_backend torch_compile_mode use_cache neftune_noise_alpha
auto_find_batch_size eval_strategy eval_steps eval_delay per_device_eval_batch_size eval_on_start save_only_model
enable_jit_checkpoint load_best_model_at_end metric_for_best_model greater_is_better ignore_data_skip
restore_callback_states_from_checkpoint full_determinism seed data_seed use_cpu accelerator_config parallelism_config
dataloader_drop_last dataloader_persistent_workers dataloader_in_order train_sampling_strategy length_column_name
ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend fsdp fsdp_config
deepspeed debug model_init_kwargs trust_remote_code router_aux_loss_coef max_length shuffle_dataset packing
padding_free pad_to_multiple_of activation_offloading
"""


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Return a function from overrides to the names of the folders of start, stages and run."""
    file = written(tmp_path, copy.deepcopy(EDIT))

    def of(*overrides: str) -> list[str]:
        run = Run(open_recipe(str(file), overrides), "rows", "texts")
        return [run.start.name, *(link.folder.name for link in run.chain(run.recipe.stages)), run.folder.name]

    return of


def test_every_training_field_is_neutral_or_counts_or_is_not_a_recipes_to_set() -> None:
    """A field that a release of TRL brings counts until it is put into one of the lists."""
    listed = sorted([*NEUTRAL, *COUNTED.split(), *OWNED])
    assert listed == sorted(set(listed)), "a field stands in two of the lists"
    assert listed == sorted(training_model().model_fields)


VALUES = {
    "logging_strategy": "epoch",
    "log_level": "debug",
    "log_level_replica": "debug",
    "report_to": "none",
    **dict.fromkeys(
        ("run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), "mine"
    ),
    "save_strategy": "epoch",
    "dataloader_multiprocessing_context": "spawn",
    **dict.fromkeys(("logging_first_step", "logging_nan_inf_filter", "log_on_each_node", "disable_tqdm"), "true"),
    **dict.fromkeys(("skip_memory_metrics", "save_on_each_node", "dataloader_pin_memory"), "true"),
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_neutral_field_moves_nothing(folders: Folders, name: str) -> None:
    value = VALUES.get(name, "7")
    words = [f"{section}.{name}={value}" for section in (TRAINING, OF_REFERENCE)]
    assert folders(*HELD_OUT, *words) == folders(*HELD_OUT)


@pytest.mark.parametrize(
    "word", ["learning_rate=7", "seed=7", "per_device_eval_batch_size=7", "eval_on_start=true", "save_only_model=true"]
)
def test_a_field_that_is_not_neutral_moves_the_stage_and_what_comes_after(folders: Folders, word: str) -> None:
    before, after = folders(*HELD_OUT), folders(*HELD_OUT, f"{TRAINING}.{word}")
    assert [one != two for one, two in zip(before, after, strict=True)] == [False, True, True, True]


def test_what_only_says_when_to_refuse_moves_nothing(folders: Folders) -> None:
    assert folders("stages.imitate.max_dropped=0.5") == folders()


BEST = ["load_best_model_at_end=true", "save_strategy=epoch"]
STEPS = ["eval_strategy=steps"]


@pytest.mark.parametrize(
    ("beside", "field", "moves"),
    [
        (BEST, "save_strategy=best", True),
        ([*BEST, *STEPS, "save_strategy=steps", "save_steps=20", "eval_steps=5"], "save_steps=40", True),
        ([*BEST], "save_total_limit=5", False),
        (STEPS, "logging_steps=5", True),
        ([*STEPS, "eval_steps=9"], "logging_steps=5", False),
        (["eval_strategy=epoch"], "logging_steps=5", False),
    ],
)
def test_a_neutral_field_counts_where_another_one_makes_it(
    folders: Folders, beside: list[str], field: str, moves: bool
) -> None:
    words = [*HELD_OUT, *(f"{TRAINING}.{word}" for word in beside)]
    before, after = folders(*words), folders(*words, f"{TRAINING}.{field}")
    assert [one != two for one, two in zip(before, after, strict=True)] == [False, moves, moves, moves]
