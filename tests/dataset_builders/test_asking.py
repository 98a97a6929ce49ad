"""What builders read of an answer: never what was thought, whoever stored it."""

from __future__ import annotations

import pytest

from dataset_builders.asking import Asker
from tests.scripted_answers import ScriptedAnswers, chain, dual_settings, problem
from toolkit.teachers.protocol import Completion


@pytest.mark.parametrize(
    "form",
    [
        "<think>{0}</think>{1}",
        "{0}</think>{1}",
        "[THINK]{0}[/THINK]{1}",
        "<|channel|>analysis<|message|>{0}<|end|><|start|>assistant<|channel|>final<|message|>{1}<|return|>",
        "analysis\n{0}assistantfinal{1}",
        "{1}<think>{0}</think>",
    ],
)
def test_an_answer_that_was_stored_with_its_thinking_is_read_without(form: str) -> None:
    written = form.format(chain(8, "I guess."), chain(7))
    asker = Asker(dual_settings(), ScriptedAnswers(lambda *_: Completion(written)), "scripted", "m")
    asked = asker.request("cot", problem(), 0)

    read, text = asker.chain(asked, problem(), "teacher"), asker.text(asked, "edited")

    assert (read.rationale, read.answer, read.fault) == ("3 + 4 makes it.", "7", None)
    assert text.rationale == read.provenance["completion"] == chain(7)


@pytest.mark.parametrize(
    "written",
    [
        f"<think>{chain(7)}",
        f"[THINK]{chain(7)}",
        f"<|channel|>analysis<|message|>{chain(7)}<|end|>",
        f"analysis\n{chain(7)}",
        f"<think>a<think>b</think>{chain(7)}",
    ],
)
def test_what_was_only_thought_is_no_chain(written: str) -> None:
    asker = Asker(dual_settings(), ScriptedAnswers(lambda *_: Completion(written)), "scripted", "m")
    read = asker.chain(asker.request("cot", problem(), 0), problem(), "teacher")
    assert (read.rationale, read.answer, read.fault) == (None, None, "empty completion")
