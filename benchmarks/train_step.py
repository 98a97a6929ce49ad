"""A weighted training step over a plain `SFTTrainer` step on the same tokens.

    python benchmarks/train_step.py [--vocab 4096] [--hidden 256] [--steps 20] [--json]

The trainers take turns within one run, batch by batch, and a ratio is the median of the turns' ratios. Plain TRL uses
its fused head on every device; ours uses it on GPU, and on CPU plain logits at the scored positions. So the table
also says what the head alone makes of it: our trainer with TRL's head.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPT = "Q: {question}\nA:"


def records(n: int) -> list[dict[str, Any]]:
    """Dual chains of a few dozen words, a seventh of them unlike."""
    rng = random.Random(0)
    words = [f"w{i}" for i in range(400)]
    rows = []
    for i in range(n):
        right = rng.choices(words, k=rng.randint(60, 110))
        wrong = [rng.choice(words) if rng.random() < 0.14 else word for word in right]
        rows.append(
            {
                "id": str(i),
                "question": " ".join(rng.choices(words, k=30)),
                "right": {"rationale": " ".join(right), "answer": "1"},
                "wrong": {"rationale": " ".join(wrong), "answer": "2"},
            }
        )
    return rows


def make(args: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Any]:
    """Return our trainers by name, and what makes a plain one on the same tokens, all from the same weights."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from toolkit.recipe import Stage
    from toolkit.stages import make_trainer
    from toolkit.students import save_atomically, student_from_config, train_tokenizer

    rows = records(args.batch * 4)
    tokenizer = train_tokenizer([" ".join(map(str, row.values())) for row in rows], 700)
    config = {
        "model_type": "llama",
        "hidden_size": args.hidden,
        "intermediate_size": 3 * args.hidden,
        "num_hidden_layers": args.layers,
        "num_attention_heads": 4,
        "tie_word_embeddings": False,
    }
    while len(tokenizer) < args.vocab:  # a wide head costs what it costs, whether its rows are used or not
        tokenizer.add_tokens([f"<extra{i}>" for i in range(args.vocab - len(tokenizer))])
    model = student_from_config(config, tokenizer, 0)
    save_atomically(folder / "start", model, tokenizer, {})
    training = {
        "per_device_train_batch_size": args.batch,
        "max_steps": 1000,
        "learning_rate": 1e-12,  # a step costs the same, and both trainers stay at the same weights to be compared
        "bf16": args.bf16,
        "activation_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "warmup_steps": 0,
    }

    def weighted(key_steps: bool) -> Any:
        views = {
            side: {
                "prompt": PROMPT,
                "target": [f" {{{side}.rationale}}", f"\nTherefore, the answer is {{{side}.answer}}."],
            }
            for side in (("right", "wrong") if key_steps else ("right",))
        }
        if key_steps:
            views["right"] |= {"token_weights": "key_steps"}
            views["wrong"] |= {"token_weights": "key_steps", "coefficient": -0.025}
        stage = Stage.model_validate(
            {
                "name": "s",
                "views": views,
                "reduction": {"by": "example", "over": "all"} if key_steps else {},
                "training": training,
            }
        )
        return make_trainer(stage, rows, str(folder / "start"), folder / "out", {}, "plain")[0]

    def plain(like: Any) -> Any:
        # The first token that counts opens the target, and plain training scores all that follows.
        rows = zip(like.train_dataset["input_ids"], like.train_dataset["counts"], strict=True)
        labels = []
        for ids, counts in rows:
            first = next(index for index, count in enumerate(counts) if count)
            labels.append([-100] * first + ids[first:])
        data = Dataset.from_dict({"input_ids": like.train_dataset["input_ids"], "labels": labels})
        return SFTTrainer(
            model=str(folder / "start"),
            args=SFTConfig(output_dir=str(folder / "plain"), **training),
            train_dataset=data,
            processing_class=tokenizer,
        )

    names = {"weighted": False, "weighted, columns": False, "key steps": True, "key steps, columns": True}
    trainers = {name: weighted(keyed) for name, keyed in names.items()}
    for name in ("weighted, columns", "key steps, columns"):
        trainers[name].batch_losses = column_losses
    return trainers, plain


def column_losses(model: Any, batch: dict[str, Any]) -> Any:
    """Return the losses of a batch as the toolkit took them before: logits at the columns where any row is scored."""
    import torch
    from torch.nn import functional

    targets = batch["labels"][:, 1:]
    kept = (targets != -100).any(dim=0).nonzero().flatten()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logits = model(**inputs, use_cache=False, logits_to_keep=kept).logits.float()
    losses = functional.cross_entropy(logits.transpose(1, 2), targets[:, kept], ignore_index=-100, reduction="none")
    return torch.zeros(targets.shape).to(losses).index_copy(1, kept, losses)


class Stepper:
    """Takes single optimizer steps with a trainer, batch after batch in the order of its dataset."""

    def __init__(self, trainer: Any) -> None:
        import torch
        from torch.utils.data import DataLoader

        self.trainer, self.torch = trainer, torch
        trainer.create_optimizer()
        self.model = trainer.model.to(trainer.args.device)
        trainer._set_signature_columns_if_needed()
        columns = [name for name in trainer._signature_columns if name in trainer.train_dataset.column_names]
        data = trainer.train_dataset.select_columns(columns)
        size = trainer.args.per_device_train_batch_size
        self.batches = list(DataLoader(data, batch_size=size, collate_fn=trainer.data_collator))

    def step(self, index: int) -> tuple[float, float]:
        """Return (seconds, loss) of one step."""
        batch = dict(self.batches[index % len(self.batches)])
        self.synchronise()
        began = time.perf_counter()
        count = self.trainer._get_num_items_in_batch([batch], self.trainer.args.device)
        self.trainer.current_gradient_accumulation_steps = 1
        loss = self.trainer.training_step(self.model, batch, count)
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()
        self.synchronise()
        return time.perf_counter() - began, loss.item()

    def synchronise(self) -> None:
        """Wait until the GPU has done what it was given."""
        if self.torch.cuda.is_available():
            self.torch.cuda.synchronize()


def compare(ours: Stepper, plain: Stepper, steps: int) -> tuple[float, float]:
    """Return the median ratio of step times, and the largest difference of losses."""
    ratios, differences = [], []
    for index in range(steps + 3):
        # Who goes first alternates: the second one finds the caches warm.
        pair = (ours, plain) if index % 2 else (plain, ours)
        times = {stepper: stepper.step(index) for stepper in pair}
        if index >= 3:
            ratios.append(times[ours][0] / times[plain][0])
        differences.append(abs(times[ours][1] - times[plain][1]))
    return statistics.median(ratios), max(differences)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", type=int, default=4096, help="width of the head (default: 4096)")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each trainer (default: 20)")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trainers, plain = make(args, Path(folder))
        weighted, keyed = Stepper(trainers["weighted"]), Stepper(trainers["key steps"])
        twin, keyed_twin = Stepper(plain(trainers["weighted"])), Stepper(plain(trainers["key steps"]))
        ratio, difference = compare(weighted, twin, args.steps)
        keyed_ratio, _ = compare(keyed, keyed_twin, args.steps)
        columns, _ = compare(weighted, Stepper(trainers["weighted, columns"]), args.steps)
        keyed_columns, _ = compare(keyed, Stepper(trainers["key steps, columns"]), args.steps)
        trainers["weighted"].head = "fused"
        same_head, _ = compare(weighted, twin, args.steps)
    device = str(trainers["weighted"].args.device)
    figures = {
        "ratio_weighted_over_plain": round(ratio, 3),
        "ratio_key_steps_over_plain": round(keyed_ratio, 3),
        "ratio_scored_positions_over_columns": round(columns, 3),
        "ratio_key_steps_scored_positions_over_columns": round(keyed_columns, 3),
        "max_loss_difference": float(f"{difference:.2e}"),
    }
    print(f"device {device}, vocabulary {args.vocab}, hidden {args.hidden}, {args.layers} layers, batch {args.batch}")
    print(f"{'weights of one / plain TRL, same tokens':<52}{ratio:>8.3f}")
    print(f"{'weights of one with the fused head / plain TRL':<52}{same_head:>8.3f}")
    print(f"{'EDIT stage 2 / plain TRL on all target tokens':<52}{keyed_ratio:>8.3f}")
    print(f"{'weights of one, scored positions / scored columns':<52}{columns:>8.3f}")
    print(f"{'EDIT stage 2, scored positions / scored columns':<52}{keyed_columns:>8.3f}")
    print(f"{'largest difference of losses, weights of one':<52}{difference:>8.1e}")
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
