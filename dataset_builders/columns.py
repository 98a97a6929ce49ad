"""The columns of the published datasets: one table from which features, view columns and card schemas are made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Column:
    """A column: its type (`string`, `list[string]`, `spans`, ...) and what it means.

    Attributes:
        type: As a reader of the card knows it; `list` where there are `items`.
        meaning: What it holds.
        items: Columns of each item of a list; their paths are written `steps[].question`.
    """

    type: str
    meaning: str
    items: Columns | None = None


Columns = dict[str, "Column | Columns"]

PROVENANCE: Columns = {
    "teacher": Column(
        "string",
        "Kind of teacher: `procedural`, `openai`, `transformers`, `recorded`; `paired`, `written`, `decomposed` for "
        "what came ready-made",
    ),
    "model": Column("string", "Model as the endpoint (or the recording) reported it"),
    "template": Column("string", "Prompt template and digest of its text"),
    "request": Column("string", "SHA-256 of the request: key of the completion in the store"),
    "temperature": Column("float64", "Sampling temperature; null where a recording does not say"),
    "top_p": Column("float64", "Nucleus mass; null where a recording does not say"),
    "max_tokens": Column("int64", "Limit on the completion's length; null where a recording does not say"),
    "sample_index": Column("int64", "Which sample of this prompt; rises when a prompt is tried again"),
    "prompt_tokens": Column("int64", "Tokens of the prompt as billed, null if unknown"),
    "completion_tokens": Column("int64", "Tokens of the completion as billed, null if unknown"),
    "finish_reason": Column("string", "Why the teacher stopped, as reported"),
    "completion": Column("string", "The completion as received, before anything was parsed out of it"),
}

CHAIN: Columns = {
    "rationale": Column("string", "The chain of thought without its closing answer clause"),
    "answer": Column("string", "Its final answer"),
}

QUESTION: Columns = {
    "id": Column("string", "Unique and stable name of the record"),
    "task": Column("string", "Task the question belongs to"),
    "task_description": Column("string", "One sentence that says what the task asks for; may be empty"),
    "question": Column("string", "The question in full, options included"),
    "choices": Column("list[string]", "Answer options without their letters; empty where there are none"),
    "kind": Column("string", "How answers are compared: number, choice, boolean, text, math or auto"),
    "answer": Column("string", "Gold answer"),
}

REASON: Columns = {"reason": Column("string", "Null in `train`; in `rejected`, why the record was left out")}

RIGHT: Columns = {
    **CHAIN,
    "answer": Column("string", "Its final answer, spelt as the gold answer is"),
    "origin": Column("string", "`teacher` (right at once), `rectified` (after an answer hint) or `paired`"),
    "key_spans": Column(
        "spans", "Characters of `rationale` that the minimum edit script between the two chains touches"
    ),
    "provenance": PROVENANCE,
}

WRONG: Columns = {
    **CHAIN,
    "origin": Column("string", "`teacher` (wrong by itself), `corrupted` (asked to go wrong) or `paired`"),
    "key_spans": RIGHT["key_spans"],
    "mistake": Column("string", "Pattern of the mistake where it is known: calculation, logical, knowledge"),
    "provenance": PROVENANCE,
}

STEPS = Column(
    "list",
    "The sub-questions in order, each with its answer",
    {
        "label": Column("string", "`Sub-question`, or `Final question` for the last one"),
        "question": Column("string", "One sub-question"),
        "answer": Column("string", "Its answer, one line"),
    },
)

LOGPROBS = Column(
    "list",
    "Tokens of the whole completion with their log-probabilities, as the teacher gives them; null where there is none",
    {
        "token": Column("string", "The token's text"),
        "logprob": Column("float64", "Its natural log-probability, given everything before it"),
        "top": Column(
            "list",
            "The most likely tokens in its place",
            {
                "token": Column("string", "The token's text"),
                "logprob": Column("float64", "Its natural log-probability"),
            },
        ),
    },
)

DEMONSTRATIONS: Columns = {
    "answers": Column(
        "string", "Other questions of the task with their answers, each `Q: ...`, `A: ...` and an empty line"
    ),
    "chains": Column(
        "string", "The same questions with right chains: `Q: ...`, `A: ...`, the answer clause and an empty line"
    ),
}

SFT: Columns = {
    "id": QUESTION["id"],
    "task": QUESTION["task"],
    "prompt": Column("string", "What the student reads: task description and question"),
    "completion": Column("string", "What it learns to write: the right chain and its answer clause"),
}

_VALUE_TYPES = ("string", "int64", "float64", "bool")


def features(columns: Columns) -> datasets.Features:
    """Return the `datasets` features of a table of columns."""
    import datasets

    def feature(column: Column | Columns) -> Any:
        if isinstance(column, dict):
            return {name: feature(part) for name, part in column.items()}
        if column.items is not None:
            return datasets.List(feature(column.items))
        if column.type == "spans":
            return datasets.List({"start": datasets.Value("int32"), "end": datasets.Value("int32")})
        if column.type.startswith("list["):
            return datasets.List(datasets.Value(column.type.removeprefix("list[").removesuffix("]")))
        return datasets.Value(column.type)

    return datasets.Features({name: feature(column) for name, column in columns.items()})


def leaves(columns: Columns, prefix: str = "") -> Iterator[tuple[str, Column]]:
    """Yield (dotted path, column) for every column that is not a mapping; for a list also those of its items."""
    for name, column in columns.items():
        if isinstance(column, dict):
            yield from leaves(column, f"{prefix}{name}.")
            continue
        yield f"{prefix}{name}", column
        if column.items is not None:
            yield from leaves(column.items, f"{prefix}{name}[].")


def text_paths(columns: Columns) -> set[str]:
    """Return the dotted paths that a view template may take: columns of one plain value, those of items included."""
    return {path for path, column in leaves(columns) if column.type in _VALUE_TYPES}
