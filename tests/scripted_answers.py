"""Answers by script: stands where a builder reads the store, so that a test says what the teacher wrote to what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dataset_builders.asking import Asker, Outcome, Step, sorted_out
from dataset_builders.settings import DualCotsSettings
from toolkit.problem import Problem
from toolkit.teachers.protocol import Completion, Request

Script = Callable[[str, Request], "str | Completion | None"]


class ScriptedAnswers:
    """Answers each request with what the script says to its kind of prompt; None is a failure."""

    def __init__(self, script: Script, failure: str | None = "not recorded in here") -> None:
        self.script = script
        self.reason = failure

    def get(self, request: Request) -> Completion | None:
        """Return what the script says."""
        said = self.script(request.template.partition("@")[0], request)
        return Completion(said, model="scripted") if isinstance(said, str) else said

    def failure(self, request: Request) -> str | None:
        """Return the one reason for every failure."""
        return self.reason


def problem(name: str = "p", answer: str = "7", **more: Any) -> Problem:
    """Return a small problem."""
    return Problem(id=name, task=more.pop("task", "sums"), question=f"What is {name}?", answer=answer, **more)


def chain(answer: object, steps: str = "3 + 4 makes it.") -> str:
    """Return a completion that closes as it should."""
    return f"{steps} Therefore, the answer is {answer}."


def dual_settings(**more: Any) -> DualCotsSettings:
    """Return settings of `dual_cots` with a teacher that is never made."""
    problems = {"source": "procedural", "n": 1}
    return DualCotsSettings.model_validate({"problems": problems, "teacher": {"kind": "procedural"}, **more})


def build(builder: Any, settings: Any, problems: Sequence[Problem], script: Script) -> tuple[Outcome, list[Request]]:
    """Run a builder over scripted answers; return the outcome and all requests."""
    asker = Asker(settings, ScriptedAnswers(script), "scripted", "model-x")
    requests = [request for requests in builder.rounds(problems, asker, settings) for request in requests]
    return outcome_of(builder, settings, problems, asker), requests


def outcome_of(builder: Any, settings: Any, problems: Sequence[Any], asker: Asker) -> Outcome:
    """Return what a builder makes of the answers, as lists."""
    steps: list[Step] = []
    outcome = sorted_out(builder.records(problems, asker, settings, steps), steps)
    return Outcome(list(outcome.train), list(outcome.rejected), steps, list(outcome.unpaired))
