"""The embedded teacher, asked as any teacher is: a rendered prompt in, a text out."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from toolkit import bank
from toolkit.answers import extract, matches, split_answer
from toolkit.bank.dates import DAYS
from toolkit.bank.family import NAMES
from toolkit.problem import Problem
from toolkit.problem_sources import ProceduralProblems, load_problems
from toolkit.prompts import PromptBook
from toolkit.teachers.procedural import ProceduralConfig, ProceduralTeacher, read_prompt
from toolkit.teachers.protocol import Completion, Request, Sampling, TeacherError

EXEMPLAR = "Q: How many legs do 2 ants and 3 cows have together?\n"
HEADER = 'Do the task. Your response should conclude with the format "Therefore, the answer is".\n\n'
PROBLEMS = load_problems(ProceduralProblems(tasks=tuple(bank.FAMILIES), n=350, seed=5), "train")
FAITHFUL: dict[str, Any] = {
    "error_rate": 0.0,
    "hint_failure_rate": 0.0,
    "corrupt_failure_rate": 0.0,
    "garble_rate": 0.0,
}


def cot(problem: Problem) -> str:
    exemplar = f"{EXEMPLAR}A: Let's think step by step.\nTherefore, the answer is 24.\n\n"
    return f"{HEADER}{exemplar}Q: {problem.question}\nA: Let's think step by step."


def hint(problem: Problem) -> str:
    exemplar = f"{EXEMPLAR}H: The correct answer is 24.\nA: Let's think step by step.\nTherefore, the answer is 24.\n\n"
    asked = f"Q: {problem.question}\nH: The correct answer is {problem.answer}.\nA: Let's think step by step."
    return HEADER + exemplar + asked


def contrastive(problem: Problem, right: str) -> str:
    exemplar = (
        f"{EXEMPLAR}\nRight Response: Therefore, the answer is 24.\n\nWrong Response: Therefore, the answer is 2.\n\n"
    )
    asked = f"Q: {problem.question}\n\nRight Response: {right}\n\nWrong Response:"
    return f"Question Description: Do the task.\nComplete the Wrong Response.\n\n{exemplar}{asked}"


def ask(prompt: str, sample_index: int = 0, max_tokens: int = 1024, **rates: Any) -> Completion:
    request = Request("procedural-v1", (("user", prompt),), Sampling(max_tokens=max_tokens), sample_index)
    return asyncio.run(ProceduralTeacher(ProceduralConfig(**rates)).complete(request))


def is_right(completion: Completion, problem: Problem) -> bool:
    return matches(extract(completion.text, problem.kind), problem.answer, problem.kind)


def mistake(completion: Completion) -> str | None:
    return completion.raw["procedural"]["mistake"]


def test_an_answer_is_wrong_exactly_when_it_is_labelled_with_a_mistake() -> None:
    answers = [(ask(cot(problem), garble_rate=0.0), problem) for problem in PROBLEMS]
    assert all(is_right(answer, problem) == (mistake(answer) is None) for answer, problem in answers)


def test_the_share_of_wrong_attempts_is_the_error_rate() -> None:
    wrong = sum(mistake(ask(cot(problem), error_rate=0.27)) is not None for problem in PROBLEMS)
    assert wrong / len(PROBLEMS) == pytest.approx(0.27, abs=0.07)


def test_the_three_kinds_of_mistakes_are_made() -> None:
    made = Counter(mistake(ask(cot(problem), error_rate=1.0)) for problem in PROBLEMS)
    assert set(made) == {"calculation", "knowledge", "logical"}


def test_a_hint_gives_the_right_chain_in_the_wording_of_the_wrong_attempt() -> None:
    for problem in PROBLEMS[:100]:
        wrong = ask(cot(problem), error_rate=1.0, garble_rate=0.0)
        rectified = ask(hint(problem), **FAITHFUL)
        assert is_right(rectified, problem)
        assert wrong.text.split(". ")[0].split()[0] == rectified.text.split(". ")[0].split()[0]
        assert len(wrong.text.split(". ")) == len(rectified.text.split(". "))


def test_an_ignored_hint_gives_the_wrong_attempt_again() -> None:
    problem = PROBLEMS[0]
    wrong = ask(cot(problem), error_rate=1.0, garble_rate=0.0)
    assert ask(hint(problem), hint_failure_rate=1.0, garble_rate=0.0).text == wrong.text


def test_a_contrastive_prompt_corrupts_the_chain_that_it_shows() -> None:
    for sample, problem in enumerate(PROBLEMS[:100]):
        right = ask(cot(problem), sample, **FAITHFUL).text
        wrong = ask(contrastive(problem, right), 7, **FAITHFUL)
        assert not is_right(wrong, problem)
        assert mistake(wrong)
        assert wrong.text.split(". ")[0].split()[0] == right.split(". ")[0].split()[0]
        assert len(wrong.text.split(". ")) == len(right.split(". "))


def test_a_failed_corruption_is_the_right_chain_again() -> None:
    right = ask(cot(PROBLEMS[0]), **FAITHFUL).text
    again = ask(contrastive(PROBLEMS[0], right), corrupt_failure_rate=1.0, garble_rate=0.0)
    assert again.text == right
    assert mistake(again) is None


def test_the_last_sentence_is_the_answer_clause_that_the_prompt_asks_for() -> None:
    answer = ask(cot(PROBLEMS[0]), **FAITHFUL)
    assert answer.text.endswith(f" Therefore, the answer is {PROBLEMS[0].answer}.")
    assert split_answer(answer.text)[1] == PROBLEMS[0].answer


def test_a_garbled_completion_has_no_answer_clause() -> None:
    assert "answer is" not in ask(cot(PROBLEMS[0]), garble_rate=1.0).text


def test_a_question_it_cannot_read_is_left_unanswered() -> None:
    problem = Problem("x", "x", "What is the capital of France?", "Paris")
    for prompt in (cot(problem), hint(problem), contrastive(problem, "Paris."), "no question at all", ""):
        answer = ask(prompt)
        assert "answer is" not in answer.text
        assert answer.raw["procedural"] == {"read": False, "task": None, "mistake": None}


def test_the_same_request_has_the_same_answer_in_any_order() -> None:
    once = [ask(cot(problem)) for problem in PROBLEMS[:20]]
    again = [ask(cot(problem)) for problem in reversed(PROBLEMS[:20])]
    assert once == again[::-1]


def test_samples_of_one_question_differ() -> None:
    assert len({ask(cot(PROBLEMS[0]), sample).text for sample in range(12)}) > 1


def test_another_seed_is_another_teacher() -> None:
    assert [ask(cot(p), seed=1).text for p in PROBLEMS[:30]] != [ask(cot(p), seed=2).text for p in PROBLEMS[:30]]


def test_the_query_is_the_last_question_of_the_prompt() -> None:
    query = read_prompt(cot(PROBLEMS[1]))
    assert query is not None
    assert query.question == PROBLEMS[1].question


@pytest.mark.parametrize("kind", ["cot", "answer_hint", "contrastive"])
def test_the_default_prompt_templates_are_read(kind: str) -> None:
    prompts = PromptBook(Path(__file__).parents[2] / "dataset_builders" / "prompts")
    for problem in PROBLEMS[:20]:
        right = ask(cot(problem), **FAITHFUL).text
        query = read_prompt(prompts.render(kind, problem, right=right)[0])
        assert query is not None
        assert (query.kind, query.question) == (kind, problem.question)
        assert query.right.strip() == (right if kind == "contrastive" else "")


def rationalise(problem: Problem, given: str) -> str:
    return f"{HEADER}Q: {problem.question}\nGiven answer: {given}\nA: Let's think step by step."


def socratic(problem: Problem) -> str:
    return f"{HEADER}Q: {problem.question}\nSub-questions:"


@pytest.mark.parametrize("kind", ["rationalise", "socratic"])
def test_the_default_templates_for_given_answers_and_sub_questions_are_read(kind: str) -> None:
    prompts = PromptBook(Path(__file__).parents[2] / "dataset_builders" / "prompts")
    for problem in PROBLEMS[:20]:
        query = read_prompt(prompts.render(kind, problem)[0])
        assert query is not None
        assert (query.kind, query.question) == (kind, problem.question)
        assert query.given == (problem.answer if kind == "rationalise" else "")


def test_the_right_answer_given_is_reasoned_for_with_the_right_chain() -> None:
    for problem in PROBLEMS[:50]:
        assert ask(rationalise(problem, problem.answer), **FAITHFUL).text == ask(cot(problem), **FAITHFUL).text


def test_a_wrong_answer_given_is_reached_and_labelled_in_the_wording_of_the_right_chain() -> None:
    flipped = {"yes": "no", "no": "yes"}
    for problem in PROBLEMS:
        if problem.kind == "text":
            named = [word for word in problem.question.replace(".", " ").split() if word in NAMES]
            given = next(word for word in (DAYS if problem.answer in DAYS else named) if word != problem.answer)
        else:
            given = flipped.get(problem.answer) or str(int(problem.answer) + 2)
        right, wrong = (ask(rationalise(problem, answer), **FAITHFUL) for answer in (problem.answer, given))
        assert extract(wrong.text, problem.kind) == given
        assert mistake(wrong)
        assert wrong.text.split()[:2] == right.text.split()[:2]


def test_an_answer_out_of_reach_gets_the_right_chain() -> None:
    answer = ask(rationalise(PROBLEMS[0], "4711"), **FAITHFUL)
    assert answer.text == ask(cot(PROBLEMS[0]), **FAITHFUL).text
    assert mistake(answer) is None


def test_given_answers_are_ignored_at_the_rates_of_hints_and_corruptions() -> None:
    problem = next(problem for problem in PROBLEMS if problem.kind == "number")
    near = str(int(problem.answer) + 1)
    assert mistake(ask(rationalise(problem, problem.answer), hint_failure_rate=1.0, garble_rate=0.0))
    assert not mistake(ask(rationalise(problem, near), corrupt_failure_rate=1.0, hint_failure_rate=0.0))


def test_sub_questions_are_numbered_and_answered_by_the_sentences_of_the_chain() -> None:
    for problem in PROBLEMS[:50]:
        lines = ask(socratic(problem), **FAITHFUL).text.split("\n")
        marks = [line.partition(": ")[0] for line in lines[:-1]]
        answers = [line.partition(": ")[2] for line in lines[1:-1:2]]
        assert marks == [f"{side}{i}" for i in range(1, len(answers) + 1) for side in "QA"]
        assert " ".join([*answers, lines[-1]]) == ask(cot(problem), **FAITHFUL).text


def test_sub_questions_end_in_a_wrong_answer_at_the_error_rate() -> None:
    wrong = [ask(socratic(problem), error_rate=0.27, garble_rate=0.0) for problem in PROBLEMS]
    assert sum(mistake(answer) is not None for answer in wrong) / len(wrong) == pytest.approx(0.27, abs=0.07)
    assert all(is_right(a, problem) == (mistake(a) is None) for a, problem in zip(wrong, PROBLEMS, strict=True))


def test_garbled_sub_questions_have_no_answer_clause() -> None:
    assert "answer is" not in ask(socratic(PROBLEMS[0]), garble_rate=1.0).text


def test_contrastive_decoding_is_refused_by_the_name_of_its_setting() -> None:
    request = Request("procedural-v1", (("user", cot(PROBLEMS[0])),), contrast="Q: other")
    with pytest.raises(TeacherError, match=r"`contrastive: true`.*'procedural'") as refused:
        asyncio.run(ProceduralTeacher(ProceduralConfig()).complete(request))
    assert refused.value.kind == "fatal"


def test_answers_to_the_first_three_kinds_of_prompt_are_those_of_the_first_release() -> None:
    # Stores and published datasets hold them under `procedural-v1`; another answer would need another name.
    first = (*bank.IN_DOMAIN, "shopping", "deliveries", "shows", "queue", "comparisons")  # the families of that release
    said = [
        ask(make(problem), sample, error_rate=0.4, garble_rate=0.1).text
        for problem in load_problems(ProceduralProblems(tasks=first, n=42, seed=5), "train")
        for make in (cot, hint, lambda problem: contrastive(problem, f"So. Therefore, the answer is {problem.answer}."))
        for sample in (0, 1)
    ]
    assert hashlib.sha256("\0".join(said).encode()).hexdigest()[:16] == "bb3b20c1094e7488"


def test_right_and_wrong_response_may_follow_without_an_empty_line() -> None:
    query = read_prompt("Q: Who?\nRight Response: Ben. Therefore, the answer is Ben.\nWrong Response: ")
    assert query is not None
    assert (query.kind, query.question, query.right.strip()) == (
        "contrastive",
        "Who?",
        "Ben. Therefore, the answer is Ben.",
    )


def test_usage_counts_words_and_a_completion_stops_at_max_tokens() -> None:
    prompt = cot(PROBLEMS[0])
    answer = ask(prompt, max_tokens=5, **FAITHFUL)
    assert (answer.finish_reason, answer.completion_tokens, len(answer.text.split())) == ("length", 5, 5)
    assert answer.prompt_tokens == len(prompt.split())


def test_a_megabyte_of_prompt_is_answered_quickly_with_nothing() -> None:
    text = "Q: " + "\nQ: a\nRight Response: b" * 40_000 + random.Random(0).choice("xyz")
    assert ask(text).raw["procedural"]["read"] is False
