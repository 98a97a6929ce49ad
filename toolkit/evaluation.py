"""From a student and a set of problems to its score, with every completion kept.

Completions are on disk batch by batch and a rerun takes up what an earlier process finished. They are judged at the
end, all of them: that is cheap, and a new version of the extractor asks the student nothing.
Holds no prompt format (the caller renders prompts) and no recipe.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit import decoding
from toolkit.decoding import Decoding, Generation, end_token_ids, generate_batches
from toolkit.errors import UserError
from toolkit.problem import Problem
from toolkit.scores import Row, Score, extractor, judge, score_by_task, score_rows

Finished = dict[tuple[str, int, str], Generation]  # by problem id, sample index and prompt

_KEY = b"toolkit.evaluation"  # of the Parquet metadata that says whose completions a file holds


@dataclass(frozen=True)
class EvaluationResult:
    """A student's score on one set.

    Attributes:
        score: Over all problems.
        by_task: The same for each task.
        rows: One per completion, as in the Parquet file.
        path: The Parquet file.
        settings: Decoding, seed and extractor that the score belongs to.
    """

    score: Score
    by_task: dict[str, Score]
    rows: list[Row]
    path: Path
    settings: dict[str, Any]

    @property
    def summary(self) -> dict[str, Any]:
        """Everything but the rows, ready for JSON."""
        return {
            **asdict(self.score),
            "by_task": {task: asdict(score) for task, score in self.by_task.items()},
            "settings": self.settings,
        }


def evaluate_student(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    render_prompt: Callable[[Problem], str],
    settings: Decoding,
    *,
    batch_size: int,
    seed: int,
    path: Path,
    title: str = "evaluation",
) -> EvaluationResult:
    """Let a student answer problems and judge what it says.

    Args:
        model: The student.
        tokenizer: Its tokenizer.
        problems: What it is asked; ids are unique.
        render_prompt: The prompt of a problem as the student reads it.
        settings: How completions are drawn.
        batch_size: Completions in flight at once; does not change the result.
        seed: Seed of sampled decoding.
        path: Parquet file of all completions. While decoding they are in `<path>.parts/`.
        title: Stands before the progress bar, which appears after two seconds.

    Raises:
        UserError: There are no problems, two have the same id, or a prompt does not fit into the student.
    """
    if not problems:
        raise UserError(f"{title}: there are no problems to score on")
    if len({problem.id for problem in problems}) < len(problems):
        raise UserError(f"{title}: problem ids are not unique")
    key = _identity(model, tokenizer, settings, seed)
    prompts = [render_prompt(problem) for problem in problems]
    wanted = [
        (problem.id, sample, prompt)
        for problem, prompt in zip(problems, prompts, strict=True)
        for sample in range(settings.samples)
    ]
    parts = path.with_name(path.name + ".parts")
    done = _finished([path, *parts.glob("*.parquet")], key)
    missing = [row for row in wanted if row not in done]
    done |= _complete(model, tokenizer, missing, settings, batch_size, seed, parts, key, title)
    generations = [
        [done[problem.id, sample, prompt] for sample in range(settings.samples)]
        for problem, prompt in zip(problems, prompts, strict=True)
    ]
    rows = judge(problems, prompts, generations)
    _write_rows(path, rows, key)
    shutil.rmtree(parts, ignore_errors=True)
    about = {**asdict(settings), "stop": list(settings.stop), "seed": seed, "extractor": extractor()}
    return EvaluationResult(score_rows(rows), score_by_task(rows), rows, path, about)


def _complete(
    model: Any,
    tokenizer: Any,
    missing: Sequence[tuple[str, int, str]],
    settings: Decoding,
    batch_size: int,
    seed: int,
    parts: Path,
    key: str,
    title: str,
) -> Finished:
    """Decode what is missing, each batch a file of its own as soon as it is done."""
    from tqdm import tqdm

    done: Finished = {}
    rows = [(prompt, sample) for _, sample, prompt in missing]
    with tqdm(total=len(rows), desc=title, unit="completion", delay=2, disable=None) as progress:
        for batch in generate_batches(model, tokenizer, rows, settings, batch_size=batch_size, seed=seed):
            finished = {missing[row]: generation for row, generation in batch.items()}
            _write_rows(parts / f"{uuid.uuid4().hex}.parquet", [_part_row(*item) for item in finished.items()], key)
            done |= finished
            progress.update(len(batch))
    return done


def _part_row(name: tuple[str, int, str], generation: Generation) -> Row:
    problem, sample, prompt = name
    return {
        "id": problem,
        "sample": sample,
        "prompt": prompt,
        "completion": generation.text,
        "tokens": generation.tokens,
        "stopped": generation.stopped,
    }


def _finished(files: Iterable[Path], key: str) -> Finished:
    """The completions in `files` that are this student's under these settings."""
    import pyarrow.parquet as parquet

    done: Finished = {}
    for file in files:
        if file.exists() and (parquet.read_schema(file).metadata or {}).get(_KEY) == key.encode():
            for row in parquet.read_table(file).to_pylist():
                done[row["id"], row["sample"], row["prompt"]] = Generation(
                    row["completion"], row["tokens"], row["stopped"]
                )
    return done


def _write_rows(path: Path, rows: list[Row], key: str) -> None:
    """Write a Parquet file that is there whole or not at all."""
    import pyarrow as pa
    from pyarrow import parquet

    types = {"sample": pa.int32(), "tokens": pa.int32()}
    types |= {name: pa.bool_() for name in ("parsed", "correct", "solved", "stopped")}
    schema = pa.schema({name: types.get(name, pa.string()) for name in rows[0]}, metadata={_KEY: key.encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), partial)
    os.replace(partial, path)


def _identity(model: Any, tokenizer: Any, settings: Decoding, seed: int) -> str:
    """Digest of all that a completion depends on besides its prompt: weights, vocabulary, settings, decoding code."""
    import torch

    digest = hashlib.sha256(inspect.getsource(decoding).encode())
    about = [asdict(settings), seed, end_token_ids(model, tokenizer), sorted(tokenizer.get_vocab().items())]
    digest.update(json.dumps(about).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        # numpy knows no bfloat16: bytes are what counts
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
