"""Which architectures train the same padded, packed and padding-free: gradients against one sequence at a time.

python benchmarks/architectures.py [--only opt llama] [--json]
    A tiny student of each architecture is given each layout, as a recipe's stage does it. `equal` means that it is
    trained as asked, `falls back` that it is trained padded because the probe said so; the figure is the relative
    difference of the gradient from that of the sequences one by one. The last column says what the probe found.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

BASE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
GROUPED = BASE | {"num_key_value_heads": 2}
HEADS = GROUPED | {"head_dim": 8}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
NO_WIDTH = {name: value for name, value in BASE.items() if name != "intermediate_size"}
STATES = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SLIDING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}  # shorter than the sequences

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **GROUPED},
    "mistral": {"model_type": "mistral", **GROUPED, "sliding_window": 8},
    "qwen2": {"model_type": "qwen2", **GROUPED},
    "qwen3": {"model_type": "qwen3", **HEADS},
    "qwen3_moe": {"model_type": "qwen3_moe", **GROUPED, **EXPERTS},
    "mixtral": {"model_type": "mixtral", **GROUPED, **MIXTURE},
    "olmoe": {"model_type": "olmoe", **GROUPED, "num_experts": 4, "num_experts_per_tok": 2},
    "gemma2": {"model_type": "gemma2", **HEADS, **SLIDING},
    "gemma3_text": {"model_type": "gemma3_text", **HEADS, **SLIDING},
    "phi3": {"model_type": "phi3", **GROUPED},
    "olmo2": {"model_type": "olmo2", **GROUPED},
    "smollm3": {"model_type": "smollm3", **GROUPED},
    "granite": {"model_type": "granite", **GROUPED, "logits_scaling": 4.0},
    "cohere": {"model_type": "cohere", **GROUPED},
    "stablelm": {"model_type": "stablelm", **GROUPED},
    "starcoder2": {"model_type": "starcoder2", **GROUPED},
    "gpt2": {"model_type": "gpt2", **GPT2},
    "gpt_neo": {
        "model_type": "gpt_neo",
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "max_position_embeddings": 512,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
    "gpt_neox": {"model_type": "gpt_neox", **BASE},
    "gptj": {"model_type": "gptj", **GPT2, "rotary_dim": 4},
    "opt": {"model_type": "opt", **NO_WIDTH, "ffn_dim": 64, "word_embed_proj_dim": 16},
    "xglm": {
        "model_type": "xglm",
        "d_model": 32,
        "ffn_dim": 64,
        "num_layers": 2,
        "attention_heads": 4,
        "max_position_embeddings": 512,
    },
    "falcon": {"model_type": "falcon", **NO_WIDTH},
    "falcon, alibi": {"model_type": "falcon", **NO_WIDTH, "alibi": True},
    "bloom": {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"model_type": "mpt", "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 512},
    "gpt_oss": {"model_type": "gpt_oss", **HEADS, **MIXTURE, "sliding_window": 8},
    "mamba": {"model_type": "mamba", **STATES},
    "falcon_mamba": {"model_type": "falcon_mamba", **STATES},
    "recurrent_gemma": {
        "model_type": "recurrent_gemma",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "lru_width": 32,
        "attention_window_size": 8,
    },
    "lfm2": {"model_type": "lfm2", **GROUPED, "layer_types": ["conv", "full_attention"]},
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "padded": {},
    "packed": {"packing": True, "max_length": 160},
    "padding-free": {"padding_free": True},
}
VIEW = {"prompt": "Q: {question}\nA:", "target": [" {rationale}", "\nTherefore, the answer is {answer}."]}


def records(number: int = 6) -> list[dict[str, str]]:
    """Return chains of unlike lengths."""
    return [
        {
            "id": str(n),
            "question": f"What is {n} + {3 * n}?",
            "rationale": f"Adding {n} and {3 * n} gives {4 * n}." + f" So it is {4 * n}." * (n % 4),
            "answer": str(4 * n),
        }
        for n in range(number)
    ]


def save(configuration: dict[str, Any], folder: Path) -> str:
    """Save an untrained student of a configuration."""
    from toolkit.students import save_atomically, student_from_config, train_tokenizer

    tokenizer = train_tokenizer([" ".join(row.values()) for row in records()], 300)
    model = student_from_config(configuration, tokenizer, 0)
    save_atomically(folder, model, tokenizer, {})
    return str(folder)


def trained(student: str, folder: Path, layout: dict[str, Any]) -> Any:
    """Return the trainer of a stage whose one step reads all records."""
    from toolkit.recipe import Stage
    from toolkit.stages import make_trainer

    training = {
        "per_device_train_batch_size": len(records()),
        "max_steps": 1,
        "learning_rate": 1e-12,
        "max_grad_norm": 0.0,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "router_aux_loss_coef": 0.0,
    }
    stage = Stage.model_validate({"name": "s", "views": {"cot": VIEW}, "training": training | layout})
    return make_trainer(stage, records(), student, folder, {}, "plain")[0]


def gradient(trainer: Any, batches: list[dict[str, Any]]) -> Any:
    """Return the gradient of the mean loss of all scored tokens of some batches, for one that is never trained."""
    import torch

    trainer.model.eval()
    trainer.model.zero_grad()
    scored = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    for batch in batches:
        (trainer.batch_losses(trainer.model, batch).sum() / scored).backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])


def measure(student: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Return for each layout how it is trained, and how far its gradient is from that of one sequence at a time."""
    found = {}
    for name, layout in LAYOUTS.items():
        trainer = trained(student, folder, layout)
        collator = trainer.data_collator
        rows = list(trainer.train_dataset)
        one_by_one = replace(collator, flat=False)
        sequences = [one_by_one([dict(row)]) for row in trained(student, folder, {}).train_dataset]
        truth = gradient(trainer, sequences)
        used = gradient(trainer, [collator([dict(row) for row in rows])])
        found[name] = {
            "result": "falls back" if "padded, not" in trainer.layout else "equal",
            "why": trainer.layout.partition(": ")[2],
            "difference": float(f"{((used - truth).norm() / truth.norm()).item():.1e}"),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS), metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    args = parser.parse_args()
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    table = {}
    for name in args.only:
        with tempfile.TemporaryDirectory() as folder:
            student = save(CONFIGURATIONS[name], Path(folder) / "student")
            table[name] = measure(student, Path(folder) / "out")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, float32, cpu")
    print(f"| {'architecture':<16} | {' | '.join(f'{layout:<19}' for layout in LAYOUTS)} | why |")
    print(f"| {'-' * 16} | {' | '.join('-' * 19 for _ in LAYOUTS)} | --- |")
    for name, row in table.items():
        cells = " | ".join(f"{cell['result']:<11} {cell['difference']:.1e}" for cell in row.values())
        print(f"| {name:<16} | {cells} | {row['packed']['why']} |")
    if args.json:
        print(json.dumps(table))


if __name__ == "__main__":
    main()
