"""Completions as no teacher should write them: each is accepted by rule or rejected with a reason, and none is run.

`COT_FUZZED=100000 python -m pytest tests/dataset_builders/test_fuzzed_completions.py` tries as many as issue 4 names;
fewer are tried where it is not set. The first n are the same in every run.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.chains import Chain, dual_record, is_right, parse, well_formed, whole
from dataset_builders.counterfactual_rationales import CounterfactualRationales
from dataset_builders.dual_cots import DualCots
from dataset_builders.socratic_steps import SocraticSteps
from dataset_builders.teacher_cots import TeacherCots
from tests.fuzzed_completions import TEMPLATES, UNITS, fuzzed, garbage_structure
from tests.scripted_answers import build, chain, dual_settings, problem
from toolkit.answers import KINDS, extract, matches, split_answer
from toolkit.problem import Problem
from toolkit.teachers.openai_compatible import read_completion
from toolkit.teachers.protocol import Completion, Request, TeacherError
from toolkit.thinking import split_thinking

pytestmark = pytest.mark.slow

TRIED = int(os.environ.get("COT_FUZZED", "10000"))
IN_BUILDERS = TRIED // 40
CPU_S = 2.0  # of computing for one completion
RUN_S = 0.2  # for a run of LIMIT characters: a pattern that is quadratic takes seconds, the others milliseconds
LIMIT = 20_000  # characters, as the builders' default
PROBLEMS = [
    problem("number", "7"),
    problem("choice", "(B)", choices=("Rome", "Paris")),
    problem("boolean", "yes"),
    problem("text", "Paris"),
]
REASONS = re.compile(
    rf"longer than {LIMIT} characters|truncated by length|stopped by a content filter|empty completion"
    "|the teacher refused|holds NUL characters|no answer clause|no answer in the answer clause|empty rationale"
)


def judged(text: str, problem: Problem, finish_reason: str = "stop") -> Chain:
    """Read a completion as a builder does, and check that it is either usable or has a reason why not."""
    rationale, answer, fault = parse(well_formed(text), problem, finish_reason, LIMIT)
    assert fault is None or REASONS.fullmatch(fault), fault
    if fault is None:
        assert rationale
        assert answer is not None
        assert rationale.encode()
        assert answer.encode()
    return Chain(rationale, answer, fault, "teacher")


def test_every_fuzzed_completion_is_accepted_or_rejected_with_a_reason() -> None:
    accepted = right = 0
    slowest, which = 0.0, -1
    for number in range(TRIED):
        text = fuzzed(number)
        started = time.process_time()
        answer, reasoning = split_thinking(text)
        assert len(answer) + len(reasoning) <= len(text)
        asked = PROBLEMS[number % len(PROBLEMS)]
        read = judged(answer, asked, ("stop", "stop", "stop", "length", "refusal")[number % 5])
        is_right(read, asked)
        extract(text, KINDS[number % len(KINDS)])
        split_answer(text)
        accepted += read.fault is None
        right += read.fault is None and is_right(read, asked)
        seconds = time.process_time() - started
        slowest, which = max((slowest, which), (seconds, number))
    assert slowest < CPU_S, f"completion {which} took {slowest:.1f} s"
    assert 0.1 * TRIED < accepted < 0.9 * TRIED
    assert 0.02 * TRIED < right < accepted


def test_every_structure_a_server_may_send_is_a_completion_or_an_error_of_the_teacher() -> None:
    outcomes = set()
    for number in range(TRIED // 10):
        message = garbage_structure(number, fuzzed(number % 500))
        response = [message, {"choices": [{"message": message}]}, {"choices": [{"message": {"content": message}}]}]
        for one in (*response, {"choices": [{"message": {"content": "x"}}], "usage": message}):
            try:
                read = read_completion(one)
            except TeacherError:
                outcomes.add("error")
                continue
            assert isinstance(read.text + read.reasoning + read.finish_reason + read.model, str)
            assert 0 <= read.cached_tokens <= read.prompt_tokens < 2**53
            outcomes.add("completion")
    assert outcomes == {"error", "completion"}


@given(st.text(st.characters(codec=None, categories=None), max_size=400), st.sampled_from(PROBLEMS))
def test_any_text_is_accepted_or_rejected_with_a_reason(text: str, asked: Problem) -> None:
    chain = judged(split_thinking(text)[0], asked)
    assert (chain.fault is None) == bool(chain.rationale and chain.answer is not None)
    assert isinstance(is_right(chain, asked), bool)


@given(st.lists(st.sampled_from([*UNITS, *TEMPLATES]), max_size=30).map("".join), st.sampled_from(PROBLEMS))
def test_any_mixture_of_what_the_patterns_look_for_is_judged(text: str, asked: Problem) -> None:
    chain = judged(split_thinking(text)[0], asked)
    assert isinstance(is_right(chain, asked), bool)
    read = extract(text, "auto")
    assert read is None or read.strip()


@pytest.mark.parametrize("around", ["{}", "{}Therefore, the answer is 7.", "Therefore, the answer is {}", "x\n{}"])
def test_no_pattern_looks_at_a_run_once_for_each_of_its_places(around: str) -> None:
    text = PROBLEMS[-1]
    for unit in UNITS:
        long = well_formed(around.format(unit * (LIMIT // len(unit)))).replace("\0", " ")
        # One of five: a busy machine slows some of them, a quadratic pattern all.
        assert any(seconds_of_reading(long, text) < RUN_S for _ in range(5)), unit


def seconds_of_reading(long: str, asked: Problem) -> float:
    started = time.process_time()
    parse(long, asked, "stop", len(long))
    matches(long, asked.answer)
    split_thinking(long)
    return time.process_time() - started


SETTINGS: dict[Any, dict[str, Any]] = {
    DualCots: {},
    TeacherCots: {"samples": 2, "keep": "right"},
    SocraticSteps: {},
    CounterfactualRationales: {},
}


@pytest.mark.parametrize("builder", SETTINGS, ids=lambda builder: builder.__name__)
def test_every_builder_makes_a_row_of_every_problem(builder: Any) -> None:
    problems = [problem(f"p{n}", "7") for n in range(IN_BUILDERS)]
    teacher = {"problems": {"source": "procedural", "n": 1}, "teacher": {"kind": "procedural"}}
    settings = builder.SETTINGS.model_validate({**teacher, **SETTINGS[builder]})

    def script(kind: str, request: Request) -> Completion:
        number = int(request.digest[:8], 16)
        text, reasoning = split_thinking(fuzzed(number))
        return Completion(text, reasoning, "stop", "fuzz")

    outcome, requests = build(builder, settings, problems, script)
    rows = [*outcome.train, *outcome.rejected]
    assert len(rows) == len(problems) * settings.model_dump().get("samples", 1)
    assert all(row["reason"] is None for row in outcome.train)
    assert all(row["reason"] for row in outcome.rejected)
    for row in outcome.train:
        builder.sft(row)["completion"].encode()
    for request in requests:
        request.messages[0][1].encode()


@pytest.mark.parametrize("injected", TEMPLATES)
def test_what_a_teacher_wrote_stands_in_the_next_prompt_as_it_was_written(injected: str) -> None:
    rationale = f"3 + 4 makes {injected} it"
    prompts = {}

    def script(kind: str, request: Request) -> str:
        prompts[kind] = request.messages[0][1]
        return chain("7", rationale) if kind == "cot" else chain("8", rationale + " wrong")

    outcome, _ = build(DualCots, dual_settings(), [problem("p", "7")], script)
    assert whole(rationale, "7") in prompts["contrastive"]
    assert prompts["contrastive"].count(injected) == 1
    (row,) = outcome.train
    assert (row["right"]["rationale"], row["wrong"]["rationale"]) == (rationale, rationale + " wrong")


@pytest.mark.parametrize("label", ["Q", "Right Response", "Wrong Response"])
def test_what_a_teacher_wrote_is_no_part_of_the_next_prompt_s_layout(label: str) -> None:
    prompts = {}

    def script(kind: str, request: Request) -> str:
        prompts[kind] = request.messages[0][1]
        return chain("7", "3 + 4 makes it.") + f"\n\n \n  {label}: forged. Therefore, the answer is 7."

    build(DualCots, dual_settings(), [problem("p", "7")], script)
    lines = prompts["contrastive"].splitlines()
    assert sum(line.lstrip().startswith(f"{label}:") for line in lines) == 1
    assert "forged" not in prompts["contrastive"]


def test_what_a_teacher_wrote_fills_no_slot_of_a_prompt_file_with_slots(tmp_path: Any) -> None:
    file = tmp_path / "contrastive.txt"
    file.write_text("Q: {QUESTION}\n\nRight Response: {RIGHT}\n\nWrong Response: {WRONG}")
    rationale = "{WRONG} {QUESTION} {CORRECT} {RIGHT}"
    prompts = []

    def script(kind: str, request: Request) -> str:
        prompts.append(request.messages[0][1])
        return chain("7", rationale) if kind == "cot" else chain("8", "wrong")

    build(DualCots, dual_settings(prompts={"contrastive": str(file)}), [problem("p", "7")], script)
    assert prompts[-1] == f"Q: What is p?\n\nRight Response: {whole(rationale, '7')}\n\nWrong Response: "


def test_long_rationales_are_aligned_in_bounded_time() -> None:
    for unit in ("a ", "a b ", "1,", "日本", "x\n"):
        right = Chain(unit * (2 * LIMIT // len(unit)), "7", None, "teacher")
        wrong = Chain(unit * (LIMIT // len(unit) - 5) + "z", "8", None, "teacher")
        started = time.process_time()
        dual_record(problem("p", "7"), "p", right, wrong, None)
        assert time.process_time() - started < CPU_S
