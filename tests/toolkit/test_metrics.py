"""The `evaluate` module that scores completions loads by its folder, without network, and counts as documented."""

from __future__ import annotations

import math
import socket
from pathlib import Path

import pytest

import toolkit

METRIC = str(Path(toolkit.__file__).parent / "metrics" / "answer_accuracy")
COMPLETIONS = ["3 + 4 = 7. Therefore, the answer is 7.", "Hm, no idea.", "So the answer is (B).", "The answer is yes."]
GOLDS = ["7", "12", "(A)", "True"]


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory):
    """The metric, loaded while every connection is refused."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("the metric asked for the network")

    import evaluate

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        return evaluate.load(METRIC, cache_dir=str(tmp_path_factory.mktemp("evaluate")))


def test_it_counts_right_answers_and_parse_failures(metric) -> None:
    scores = metric.compute(predictions=COMPLETIONS, references=GOLDS)
    assert scores["accuracy"] == 0.5
    assert scores["standard_error"] == pytest.approx(0.25)
    assert scores["n"] == 4
    assert scores["parse_failure_rate"] == 0.25


def test_kinds_may_be_given_for_every_row(metric) -> None:
    scores = metric.compute(
        predictions=["The answer is 5 feet.", "The answer is 5 feet."], references=["5", "5"], kinds=["number", "text"]
    )
    assert scores["accuracy"] == 0.5


def test_one_kind_serves_all_rows(metric) -> None:
    assert metric.compute(predictions=["The answer is x, 5."], references=["x 5"], kinds="text")["accuracy"] == 1.0


def test_no_rows_have_no_accuracy(metric) -> None:
    scores = metric.compute(predictions=[], references=[])
    assert math.isnan(scores["accuracy"])
    assert scores["n"] == 0
