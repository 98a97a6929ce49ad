"""From a student and a set of problems to its score, with every completion kept.

Completions are on disk batch by batch and a rerun takes up what an earlier process finished. They are judged at the
end, all of them: that is cheap, and a new version of the extractor asks the student nothing.
Holds no recipe.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from toolkit.answers import answer_clause
from toolkit.atomic_files import replacing
from toolkit.decode_procedures import Answered, Ask, Compare, Conversation, Procedure, converse
from toolkit.decoding import Decoding, Generation, end_token_ids, generate_batches
from toolkit.errors import UserError
from toolkit.import_closure import closure_digest
from toolkit.likelihood import log_likelihoods
from toolkit.problem import Problem, question_columns
from toolkit.robustness import score_pairs
from toolkit.scores import Row, Score, extractor, judge, score_by_task, score_rows
from toolkit.tokenizing import prompt_ids, prompt_text
from toolkit.views import RenderedView

Asked = tuple[str, int, str, str]  # problem id, sample index, view and what the student was given
Finished = dict[Asked, Generation]

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
        ways: What each way to an answer did, as of `toolkit.scores.ways_report`; empty where there is one.
    """

    score: Score
    by_task: dict[str, Score]
    rows: list[Row]
    path: Path
    settings: dict[str, Any]
    ways: dict[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> dict[str, Any]:
        """Everything but the rows, ready for JSON."""
        pairs = score_pairs(self.rows)
        return {
            **asdict(self.score),
            "pairs": asdict(pairs) if pairs else None,
            "by_task": {task: asdict(score) for task, score in self.by_task.items()},
            "settings": self.settings,
            **({"ways": self.ways} if self.ways else {}),
        }


def evaluate_student(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    procedure: Procedure,
    settings: Decoding,
    *,
    prompt_format: str = "plain",
    batch_size: int,
    seed: int,
    path: Path,
    earlier: Sequence[Path] = (),
    title: str = "evaluation",
) -> EvaluationResult:
    """Let a student answer problems and judge what it says.

    Args:
        model: The student.
        tokenizer: Its tokenizer.
        problems: What it is asked; ids are unique.
        procedure: How an answer is got.
        settings: How completions are drawn; length and stop strings are those of each turn.
        prompt_format: `plain` or `chat`.
        batch_size: Completions in flight at once; does not change the result.
        seed: Seed of sampled decoding.
        path: Parquet file of all completions. While decoding they are in `<path>.parts/`.
        earlier: Such files of other runs; what is this student's in them is not drawn again.
        title: Stands before the progress bar, which appears after two seconds.

    Raises:
        UserError: There are no problems, two have the same id, or a prompt does not fit into the student.
    """
    if not problems:
        raise UserError(f"{title}: there are no problems to score on")
    if len({problem.id for problem in problems}) < len(problems):
        raise UserError(f"{title}: problem ids are not unique")
    key = identity(model, tokenizer, procedure, settings, prompt_format, seed)
    parts = path.with_name(path.name + ".parts")
    asker = Asker(model, tokenizer, settings, prompt_format, batch_size, seed, parts, key)
    asker.done = finished_in([*earlier, path, *parts.glob("*.parquet")], key)
    conversations = {
        (problem.id, sample): converse(procedure, question_columns(problem), asker.frame)
        for problem in problems
        for sample in range(settings.samples)
    }
    answered = with_values(procedure, asker.hold(conversations, title))
    samples = [[answered[problem.id, sample] for sample in range(settings.samples)] for problem in problems]
    rows = judge(problems, samples)
    write_rows(path, rows, key)
    shutil.rmtree(parts, ignore_errors=True)
    return EvaluationResult(score_rows(rows), score_by_task(rows), rows, path, about(settings, procedure, seed))


def about(settings: Decoding, procedure: Procedure, seed: int) -> dict[str, Any]:
    """Return the decoding, seed and extractor that a score belongs to, ready for JSON."""
    drawn = {name: value for name, value in asdict(settings).items() if name not in ("max_new_tokens", "stop")}
    turns = [
        {"view": turn.view, "max_new_tokens": turn.max_new_tokens, "stop": list(turn.stop), "forced": turn.forced}
        | {"choices": turn.option is not None}
        | ({"run": turn.run} if turn.run else {})
        for turn in procedure.turns
    ]
    return {**drawn, "turns": turns, "seed": seed, "extractor": extractor()}


def with_values(procedure: Procedure, answered: Mapping[Key, Answered]) -> dict[Key, Answered]:
    """Return how questions were answered, programs with the values that they have once they were run."""
    variable = procedure.turns[-1].run
    if variable is None:
        return dict(answered)
    from toolkit.program_answers import program_in, run_all

    ran = run_all([program_in(one.answer) for one in answered.values()], variable)
    return {
        key: replace(one, answer=answer_clause(came.answer) if came.answer is not None else "", status=came.status)
        for (key, one), came in zip(answered.items(), ran, strict=True)
    }


Key = tuple[str, int]  # problem id, sample index


@dataclass
class Asker:
    """Carries conversations with one student, all of them turn by turn, so that each turn is decoded in batches."""

    model: Any
    tokenizer: Any
    settings: Decoding
    prompt_format: str
    batch_size: int
    seed: int
    parts: Path
    key: str
    done: Finished = field(default_factory=dict)

    def hold(self, conversations: Mapping[Key, Conversation], title: str) -> dict[Key, Answered]:
        """Bring every conversation to its end; completions that are known already are not drawn again."""
        from tqdm import tqdm

        answered: dict[Key, Answered] = {}
        replies: dict[Key, Generation | None] = dict.fromkeys(conversations)
        is_first = True
        with tqdm(desc=title, unit="completion", delay=2, disable=None) as progress:
            while replies:
                asked: dict[Key, Ask | Compare] = {}
                for name, reply in replies.items():
                    try:
                        # A generator is started by sending it nothing.
                        asked[name] = conversations[name].send(reply)  # type: ignore[arg-type]
                    except StopIteration as finished:
                        answered[name] = finished.value
                progress.total = (progress.total or 0) + len(asked)
                replies = dict(self._replies(asked, is_first, progress))
                is_first = False
        return answered

    def _replies(self, asked: Mapping[Key, Ask | Compare], is_first: bool, progress: Any) -> dict[Key, Generation]:
        keys = {name: (*name, ask.turn.view, ask.text) for name, ask in asked.items()}
        missing: dict[Decoding | None, list[Key]] = {}
        for name, ask in asked.items():
            if keys[name] in self.done:
                progress.update(1)
                continue
            turn = ask.turn
            how = (
                replace(self.settings, max_new_tokens=turn.max_new_tokens, stop=turn.stop)
                if isinstance(ask, Ask)
                else None
            )
            missing.setdefault(how, []).append(name)
        for how, names in missing.items():
            # What a student wrote itself may leave no room for the rest: that is its failure, not the user's.
            late = [] if is_first else [name for name in names if not self._fits(asked[name])]
            fitting = [name for name in names if name not in set(late)]
            batches = self._compared(fitting, asked) if how is None else self._written(fitting, asked, how)
            for batch in chain([dict.fromkeys(late, Generation("", 0, False))] if late else [], batches):
                finished = {keys[name]: generation for name, generation in batch.items()}
                rows = [_part_row(*item) for item in finished.items()]
                write_rows(self.parts / f"{uuid.uuid4().hex}.parquet", rows, self.key)
                self.done |= finished
                progress.update(len(batch))
        return {name: self.done[keys[name]] for name in asked}

    def frame(self, prompt: str) -> str:
        """Return a prompt as the student reads it."""
        return prompt_text(self.tokenizer, prompt, self.prompt_format)

    def _written(
        self, names: Sequence[Key], asked: Mapping[Key, Ask | Compare], how: Decoding
    ) -> Iterator[dict[Key, Generation]]:
        rows = [(asked[name].text, name[1]) for name in names]
        batches = generate_batches(self.model, self.tokenizer, rows, how, batch_size=self.batch_size, seed=self.seed)
        for batch in batches:
            yield {names[row]: generation for row, generation in batch.items()}

    def _fits(self, ask: Ask | Compare) -> bool:
        """Whether the student has a position for every token, and anything to begin with."""
        if isinstance(ask, Ask):
            texts, room = [ask.text], ask.turn.max_new_tokens
        else:
            prompt = self.frame(ask.prompt)
            texts, room = [prompt + "".join(segment.text for segment in option) for option in ask.options], 0
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        lengths = [len(ids) for ids in prompt_ids(self.tokenizer, texts, self.settings.add_special_tokens)]
        return min(lengths) > 0 and (positions is None or max(lengths) + room <= positions)

    def _compared(self, names: Sequence[Key], asked: Mapping[Key, Ask | Compare]) -> Iterator[dict[Key, Generation]]:
        for start in range(0, len(names), self.batch_size):
            batch = names[start : start + self.batch_size]
            questions = {name: ask for name in batch if isinstance(ask := asked[name], Compare)}
            if late := [name for name, ask in questions.items() if not self._fits(ask)]:
                raise UserError(
                    f"decode.choices: question {late[0][0]!r} with its options has more tokens than the student "
                    "positions, or none"
                )
            views = [RenderedView(ask.prompt, option) for ask in questions.values() for option in ask.options]
            scores = iter(log_likelihoods(self.model, self.tokenizer, views, self.prompt_format, self.batch_size))
            replies = {}
            for name, ask in questions.items():
                found = [next(scores) for _ in ask.options]
                worth = [total / (max(tokens, 1) if ask.turn.normalise else 1) for total, tokens in found]
                best = ask.options[worth.index(max(worth))]
                written = "".join(segment.text for segment in best[ask.turn.forced :])
                replies[name] = Generation(written, 0, True)
            yield replies


def _part_row(asked: Asked, generation: Generation) -> Row:
    problem, sample, view, prompt = asked
    turn: Row = {"view": view, "prompt": prompt, "completion": generation.text}
    turn |= {"tokens": generation.tokens, "stopped": generation.stopped}
    return {"id": problem, "sample": sample, "turns": [turn]}


def finished_in(files: Iterable[Path], key: str) -> Finished:
    """The completions in `files` that are this student's under these settings."""
    import pyarrow.parquet as parquet

    done: Finished = {}
    for file in files:
        if file.exists() and (parquet.read_schema(file).metadata or {}).get(_KEY) == key.encode():
            for row in parquet.read_table(file).to_pylist():
                for turn in row["turns"] or [row]:
                    done[row["id"], row["sample"], turn["view"], turn["prompt"]] = Generation(
                        turn["completion"], turn["tokens"], turn["stopped"]
                    )
    return done


def write_rows(path: Path, rows: list[Row], key: str) -> None:
    """Write a Parquet file that is there whole or not at all; `key` says whose completions under which settings."""
    import pyarrow as pa
    from pyarrow import parquet

    turn = pa.struct(
        {"view": pa.string(), "prompt": pa.string(), "completion": pa.string()}
        | {"tokens": pa.int32(), "stopped": pa.bool_()}
    )
    types = {"sample": pa.int32(), "tokens": pa.int32(), "turns": pa.list_(turn)}
    types |= {name: pa.bool_() for name in ("parsed", "correct", "solved", "stopped", "agreed")}
    schema = pa.schema({name: types.get(name, pa.string()) for name in rows[0]}, metadata={_KEY: key.encode()})
    with replacing(path) as partial:
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema), partial)


def identity(
    model: Any, tokenizer: Any, procedure: Procedure, settings: Decoding, prompt_format: str, seed: int
) -> str:
    """Digest of all that a completion depends on besides its prompt: weights, vocabulary, settings, decoding code."""
    import torch

    # What comes before a completion, framing and earlier turns included, is in its prompt; what comes after is judged.
    compares = any(turn.option is not None for turn in procedure.turns)
    code = closure_digest("toolkit.decoding", *(["toolkit.likelihood"] if compares else []))
    digest = hashlib.sha256(code.encode())
    about = [asdict(procedure), asdict(settings), prompt_format, seed, end_token_ids(model, tokenizer)]
    about.append(sorted(tokenizer.get_vocab().items()))
    digest.update(json.dumps(about).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        # numpy knows no bfloat16: bytes are what counts
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
