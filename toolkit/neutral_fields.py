"""Fields of a stage's `training` that cannot change its weights: they are no part of what identifies it.

Everything that is not named here counts, so that a field that a later TRL adds retrains until it is judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LOGS = "what is logged, when and by whom; it is computed from losses that training has anyway"
_TRACKERS = "where logs are sent"
_WORKERS = "batches are made by workers, and come in the sampler's order all the same"
_CHECKPOINTS = "when a checkpoint is written; one that is resumed from gives the weights of an uninterrupted run"
# Not here, though they look like it: evaluating draws from the random numbers that dropout goes on with (`eval_*`), so
# do workers that are kept between epochs (`dataloader_persistent_workers`), and batches may come in another order
# (`dataloader_in_order`). A checkpoint without the optimizer's state is not resumed from as it was left
# (`save_only_model`).
NEUTRAL = {
    **dict.fromkeys(("logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter"), _LOGS),
    **dict.fromkeys(("log_on_each_node", "log_level", "log_level_replica"), _LOGS),
    "disable_tqdm": "the progress bar",
    "skip_memory_metrics": "whether memory is measured",
    **dict.fromkeys(("report_to", "run_name", "project"), _TRACKERS),
    **dict.fromkeys(("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), _TRACKERS),
    **dict.fromkeys(("save_strategy", "save_steps"), _CHECKPOINTS),
    "save_total_limit": "how many checkpoints are kept; the best one always is, where it is asked for",
    "save_on_each_node": "on which machines checkpoints are written",
    **dict.fromkeys(("dataloader_num_workers", "dataloader_prefetch_factor"), _WORKERS),
    "dataloader_multiprocessing_context": "how such workers are started",
    "dataloader_pin_memory": "how batches are copied to the device",
    "eval_accumulation_steps": "when predictions leave the device, and there are none: only losses are computed",
    "torch_empty_cache_steps": "when unused memory is given back",
    "ddp_timeout": "how long processes wait for each other before they give up",
}


def decisive(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return those fields of a `training` section that can change the weights."""
    counted = set()
    if training.get("load_best_model_at_end"):  # the best checkpoint is the best of those that were written
        counted |= {"save_strategy", "save_steps"}
    if training.get("eval_strategy") == "steps" and not training.get("eval_steps"):  # which is `logging_steps` then
        counted.add("logging_steps")
    return {name: value for name, value in training.items() if name not in NEUTRAL or name in counted}
