"""Chains of thought as they are published: parsed out of a completion, judged, aligned, written as columns.

Final answers are found and compared by `toolkit.answers` and by nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from toolkit.alignment import key_spans
from toolkit.answers import answer_clause, extract, kind_of, matches, split_answer
from toolkit.problem import Problem
from toolkit.teachers.finish_reasons import fault_of, understood

# Some teachers run on into a question of their own, or into the next part of a contrastive prompt; whatever follows is
# not part of the answer, and in the next prompt it would pass for a part of its layout. Blank lines before it are no
# part of the pattern, which would be quadratic in their number.
_RUN_ON = re.compile(r"\n[^\S\n]*(?:Q|(?:Right|Wrong) Response):")
_NO_CHAIN = {
    "length": "truncated by length",
    "content_filter": "stopped by a content filter",
    "refusal": "the teacher refused",
}
_CALCULATOR_MARK = re.compile(r"<<[^<>\n]*>>")


@dataclass(frozen=True)
class Chain:
    """One chain of thought, usable or not.

    Attributes:
        rationale: The chain without its answer clause; None where nothing could be parsed.
        answer: Final answer; None where there is none.
        fault: Why the chain can't be used, e.g. `no answer clause`; None for a usable one.
        origin: `teacher`, `rectified`, `corrupted`, or what it came as ready-made: `paired`, `written`, `decomposed`.
        mistake: Pattern of its mistake, where the teacher labels it.
        provenance: The provenance columns.
    """

    rationale: str | None
    answer: str | None
    fault: str | None
    origin: str
    mistake: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def columns(self, spans: list[tuple[int, int]] | None = None) -> dict[str, Any]:
        """Return the columns of a chain; `mistake` belongs to wrong ones only and is added there."""
        return {
            "rationale": self.rationale,
            "answer": self.answer,
            "origin": self.origin,
            "key_spans": [{"start": start, "end": end} for start, end in spans or []],
            "provenance": self.provenance,
        }


def well_formed(text: str) -> str:
    """Replace lone surrogates, which neither UTF-8 nor Arrow can hold, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parse(
    text: str, problem: Problem, finish_reason: str, max_characters: int
) -> tuple[str | None, str | None, str | None]:
    """Split a completion into rationale and final answer.

    Args:
        text: The completion.
        problem: The problem it answers; its gold says how answers are read.
        finish_reason: As the endpoint reported it.
        max_characters: Longest completion that is looked at.

    Returns:
        (rationale, answer, fault); `fault` says why the chain can't be used, None if it can.
    """
    if fault := unreadable(text, finish_reason, max_characters):
        return None, None, fault
    text = _RUN_ON.split(text, maxsplit=1)[0]
    rationale, clause = split_answer(text)
    rationale = rationale.strip()
    if clause is None:
        return rationale, None, "no answer clause"
    kind = kind_of(problem.answer, problem.kind)
    answer = extract(text, kind, problem.choices)
    if answer is None:
        # Unreadable is not wrong: the clause may well say the gold in words of its own.
        return rationale, None, "no answer in the answer clause"
    return rationale, spelt_like(problem.answer, answer, kind), None if rationale else "empty rationale"


def unreadable(text: str, finish_reason: str, max_characters: int) -> str | None:
    """Return why a completion is not read at all, None where it is; arguments as of `parse`."""
    if len(text) > max_characters:
        return f"longer than {max_characters} characters"
    # Checked here too, since stores and recordings may be older than the rule or come from elsewhere.
    ended = understood(finish_reason)
    if ended is None:
        return fault_of(finish_reason)
    if ended in _NO_CHAIN:
        return _NO_CHAIN[ended]
    if not text.strip():
        return "empty completion"
    return "holds NUL characters" if "\0" in text else None


def spelt_like(gold: str, answer: str, kind: str) -> str:
    """Return an answer in the gold's spelling, so that brackets or `yes` for `True` are not taken for key steps."""
    if kind == "choice" and "(" not in gold:
        return answer.strip("()")
    if kind == "boolean":
        for words in (("yes", "no"), ("true", "false"), ("valid", "invalid")):
            if gold.strip().lower() in words:
                said = {"yes": 0, "true": 0, "valid": 0}.get(answer.lower(), 1)
                word = words[said]
                return word.capitalize() if gold.strip()[0].isupper() else word
    return answer


def is_right(chain: Chain, problem: Problem) -> bool:
    """Whether a chain's final answer is the gold one."""
    return chain.answer is not None and matches(chain.answer, problem.answer, problem.kind, problem.choices)


def whole(rationale: str, answer: str) -> str:
    """Return a chain with its answer clause, as students learn it and prompts show it."""
    return f"{rationale}\n{answer_clause(answer)}"


def without_one_sided_marks(right: str, wrong: str) -> tuple[str, str]:
    """Strip calculator marks (`<<3*4=12>>`) which only one of two texts has: they would all be key steps."""
    has_right, has_wrong = bool(_CALCULATOR_MARK.search(right)), bool(_CALCULATOR_MARK.search(wrong))
    if has_right != has_wrong:
        return without_marks(right), without_marks(wrong)
    return right, wrong


def without_marks(text: str) -> str:
    """Strip calculator marks from a text."""
    return _CALCULATOR_MARK.sub("", text)


def ready_made(origin: str, model: str, text: str) -> dict[str, Any]:
    """Return the provenance columns of a chain that no teacher was asked for.

    Args:
        origin: What stands for the teacher: `paired`, `written` or `decomposed`.
        model: Who wrote it, as far as its source says.
        text: The chain as it stood there.
    """
    return {
        "teacher": origin,
        "model": model,
        "template": None,
        "request": None,
        "temperature": None,
        "top_p": None,
        "max_tokens": None,
        "sample_index": 0,
        "prompt_tokens": None,
        "completion_tokens": None,
        "finish_reason": None,
        "completion": text,
    }


def question_columns(problem: Problem, record_id: str) -> dict[str, Any]:
    """Return the columns that say what was asked."""
    return {
        "id": record_id,
        "task": problem.task,
        "task_description": problem.task_description,
        "question": problem.question,
        "choices": list(problem.choices),
        "kind": problem.kind,
        "answer": problem.answer,
    }


def dual_record(
    problem: Problem, record_id: str, right: Chain | None, wrong: Chain | None, reason: str | None
) -> dict[str, Any]:
    """Return the record of one dual CoT, or of what was left of it when it was rejected.

    Key spans are set in records without a reason only, so rejected pairs are not aligned.
    """
    right_spans: list[tuple[int, int]] = []
    wrong_spans: list[tuple[int, int]] = []
    if reason is None and right is not None and wrong is not None:
        right = replace(right, answer=problem.answer)
        right_spans, wrong_spans = key_spans(right.rationale or "", wrong.rationale or "")
    return {
        **question_columns(problem, record_id),
        "reason": reason,
        "right": right.columns(right_spans) if right else None,
        "wrong": {**wrong.columns(wrong_spans), "mistake": wrong.mistake} if wrong else None,
    }


def sft_record(record: dict[str, Any], chain: dict[str, Any]) -> dict[str, Any]:
    """Return a record as prompt and completion, ready for plain TRL.

    The prompt is EDIT's: task description and question, then `A:`. It ends in a line break so that no
    tokenizer merges its last token with the completion's first.
    """
    description = f"Task Description:\n{record['task_description']}\n" if record["task_description"] else ""
    return {
        "id": record["id"],
        "task": record["task"],
        "prompt": f"{description}Q: {record['question']}\n\nA:\n",
        "completion": whole(chain["rationale"], chain["answer"]),
    }
