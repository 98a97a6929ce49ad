"""EDIT from problems to a published student in seconds: a recipe whose students learn next to nothing."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.records import PROMPT, RIGHT, WRONG
from tests.warm import distill_words, in_warm_process

ROOT = Path(__file__).parents[1]

_COT = {"prompt": PROMPT, "target": RIGHT}
_TRAINING: dict[str, Any] = {
    "learning_rate": 1e-4,
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "bf16": False,
    "activation_checkpointing": False,
    "use_cpu": True,
    "logging_steps": 2,
    "save_steps": 3,
    "save_total_limit": 1,
}
# Long enough that a student learns to end its answer and to guess one: some are right.
_LONGER = _TRAINING | {"learning_rate": 5e-3, "max_steps": 120, "logging_steps": 30, "save_steps": 60}

EDIT: dict[str, Any] = {
    "recipe": {"name": "tiny", "version": 1},
    "dataset": {
        "builder": "dual_cots",
        "repo_id": "tiny-cots",
        "revision": "v1.0.0",
        "config": {
            "problems": {"source": "procedural", "tasks": ["ordering", "dates"], "n": 60, "n_test": 20, "seed": 0},
            "teacher": {"kind": "procedural", "seed": 0},
        },
    },
    "student": {
        "from_config": {
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 1024,
            "initializer_range": 0.1,
        },
        "tokenizer": {"vocab_size": 512},
    },
    "stages": [
        {"name": "imitate", "views": {"cot": _COT}, "training": _LONGER},
        {
            "name": "key_steps",
            "views": {
                "right": {**_COT, "token_weights": "key_steps"},
                "wrong": {"prompt": PROMPT, "target": WRONG, "token_weights": "key_steps", "coefficient": -0.025},
            },
            "reduction": {"by": "example", "over": "all"},
            "training": _TRAINING,
        },
    ],
    "references": {
        "untrained": {"stages": []},
        "answer_only": {
            "stages": [
                {
                    "name": "answers",
                    "views": {"cot": {"prompt": PROMPT, "target": ["\nTherefore, the answer is {right.answer}."]}},
                    "training": _LONGER,
                }
            ]
        },
    },
    "decode": {"view": "cot", "max_new_tokens": 96},
    "evaluation": {
        "sets": {
            "in_domain": {"split": "test"},
            "out_of_domain": {"source": "procedural", "tasks": ["comparisons"], "n": 6, "n_test": 6, "seed": 1},
        },
        "batch_size": 4,
    },
    "publish": {"repo_id": "tiny-student", "revision": "v1.0.0", "license": "apache-2.0"},
}


def training_alone(**training: Any) -> dict[str, Any]:
    """Return the recipe's first stage with other training arguments, and nothing scored or published."""
    recipe = copy.deepcopy(EDIT)
    del recipe["stages"][1], recipe["references"], recipe["decode"], recipe["evaluation"], recipe["publish"]
    recipe["stages"][0]["training"] = _TRAINING | training
    return recipe


def written(folder: Path, recipe: dict[str, Any]) -> Path:
    """Write a recipe whose results lie in `folder`, and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "recipe.yaml"
    folders = {"output_dir": str(folder / "outputs"), "hub_dir": str(folder / "hub")}
    file.write_text(yaml.safe_dump(recipe | folders, sort_keys=False))
    return file


def command(name: str, file: Path, *overrides: str) -> list[str]:
    """Return the words of a command of `distill` on a recipe."""
    return [sys.executable, "-m", "toolkit.cli", name, str(file), *overrides]


def environment() -> dict[str, str]:
    """Return the surroundings of such a command: this checkout, one thread, no network."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def distill(name: str, file: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `distill` on a recipe in a process of its own."""
    return in_warm_process(distill_words, name, str(file), *overrides)
