"""`answer_accuracy`: how many completions end in the gold answer, by the project's one extractor and matcher."""

from __future__ import annotations

import math
from collections.abc import Sequence

import datasets
import evaluate

from toolkit.answers import extract, kind_of, matches

_DESCRIPTION = """
Share of completions whose final answer equals the gold answer. The answer is found and compared by
`toolkit.answers` (`extract` with the kind of the gold, then `matches`), the same code that filters training data.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: completions, whole.
    references: gold answers, bare.
    kinds: how answers are compared, one for all rows or one per row: number, choice, boolean, text, math or, the
        default, auto (`toolkit.answers.kind_of`).
Returns:
    accuracy: share of right answers, between 0 and 1.
    standard_error: of that share, sqrt(p * (1 - p) / n).
    n: number of rows.
    parse_failure_rate: share of completions in which no answer of the kind was found; these count as wrong.
Example:
    >>> metric = evaluate.load("toolkit/metrics/answer_accuracy")
    >>> metric.compute(predictions=["So the answer is (B)."], references=["(B)"])["accuracy"]
    1.0
"""


class AnswerAccuracy(evaluate.Metric):
    """The metric; the arguments and the result are described in `inputs_description`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self, predictions: Sequence[str], references: Sequence[str], kinds: str | Sequence[str] = "auto"
    ) -> dict[str, float]:
        right = failed = 0
        kinds = [kinds] * len(references) if isinstance(kinds, str) else kinds
        for completion, gold, kind in zip(predictions, references, kinds, strict=True):
            kind = kind_of(gold, kind)
            answer = extract(completion, kind)
            failed += answer is None
            right += matches(answer, gold, kind)
        n = len(predictions)
        accuracy = right / n if n else math.nan
        return {
            "accuracy": accuracy,
            "standard_error": math.sqrt(accuracy * (1 - accuracy) / n) if n else math.nan,
            "n": n,
            "parse_failure_rate": failed / n if n else math.nan,
        }
