from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError

from dataset_builders.asking import Asker
from dataset_builders.counterfactual_pairs import CounterfactualPairs
from dataset_builders.figures import label_cells
from tests.scripted_answers import ScriptedAnswers, build, chain
from toolkit import bank
from toolkit.bank.chain import write_chain
from toolkit.errors import UserError
from toolkit.problem import Problem
from toolkit.problem_sources import ProceduralPairs, ProceduralProblems, load_problems
from toolkit.teachers.procedural import ProceduralConfig, ProceduralTeacher
from toolkit.teachers.protocol import Completion, Request

Script = Callable[[str, Request], Any]
FAITHFUL = {"error_rate": 0.0, "hint_failure_rate": 0.0, "corrupt_failure_rate": 0.0, "garble_rate": 0.0}


def settings(**more: Any) -> Any:
    given = {"problems": {"source": "procedural", "n": 1}, "teacher": {"kind": "procedural"}, "edits": 1, **more}
    return CounterfactualPairs.SETTINGS.model_validate(given)


def problem(name: str = "p", question: str = "Has Ann with 7 more than Ben with 3?", **more: Any) -> Problem:
    return Problem(name, "sums", question, more.pop("answer", "yes"), more.pop("kind", "boolean"), **more)


def prompt_of(request: Request) -> str:
    ((_, text),) = request.messages
    return text


def is_blind(request: Request) -> bool:
    return request.template.startswith("blind_label@")


def line(request: Request, start: str) -> str:
    return next(line for line in prompt_of(request).split("\n") if line.startswith(start)).removeprefix(start).strip()


def obedient(kind: str, request: Request) -> str:
    """Edit 7 into 1 or 1 into 7, and know which of the two is more than 3."""
    question = line(request, "Q: ")
    right = "yes" if "7" in question else "no"
    if kind == "edit":
        return question.replace("7", "1") if right == "yes" else question.replace("1", "7")
    if kind == "explain":
        return chain(right, f"It is {right}. Reason {request.sample_index}.")
    return chain(right, f"Look: it has to be {right}.")


def but(kind: str, said: Any) -> Script:
    """Return a script that says this to one kind of prompt and obeys elsewhere."""

    def script(asked: str, request: Request) -> Any:
        if asked != kind:
            return obedient(asked, request)
        return said(request) if callable(said) else said

    return script


def edits_of(outcome: Any) -> list[dict[str, Any]]:
    return [row for row in (*outcome.train, *outcome.rejected) if row["is_cf"]]


def test_an_original_and_its_edit_are_two_records_of_one_pair() -> None:
    outcome, _ = build(CounterfactualPairs, settings(), [problem()], obedient)

    original, edited = outcome.train
    assert (original["id"], original["answer"], original["is_original"], original["is_cf"]) == ("p", "yes", True, False)
    assert (edited["id"], edited["answer"], edited["is_original"], edited["is_cf"]) == ("p#1", "no", False, True)
    assert original["pair_id"] == edited["pair_id"] == "p"
    assert original["has_cf"]
    assert original["edit"] is None
    assert edited["question"] == "Has Ann with 1 more than Ben with 3?"
    assert {key: edited["edit"][key] for key in ("from_answer", "field", "before", "after", "ratio")} == {
        "from_answer": "yes",
        "field": "question",
        "before": "Has Ann with 7 more than Ben with 3?",
        "after": "Has Ann with 1 more than Ben with 3?",
        "ratio": 1 / 9,
    }
    assert (edited["edit"]["votes"], edited["edit"]["vote_share"]) == (["no"] * 3, 1.0)


def test_both_are_explained_and_their_wrong_answer_is_refuted() -> None:
    outcome, _ = build(CounterfactualPairs, settings(), [problem()], obedient)

    for row, right, wrong in zip(outcome.train, ("yes", "no"), ("no", "yes"), strict=True):
        assert row["why"]["rationale"] == f"It is {right}. Reason 0."
        assert [why["rationale"] for why in row["whys"]] == [row["why"]["rationale"]]
        assert [(one["label"], one["rationale"]) for one in row["refutes"]] == [(wrong, f"Look: it has to be {right}.")]


def test_the_blind_prompt_is_the_same_whatever_the_edited_question_came_from() -> None:
    """Two originals of different text, id and task's other question are edited into one text: no byte asked differs."""
    target = "Has Ann with 7 more than Ben with 4?"

    def script(kind: str, request: Request) -> str:
        return target if kind == "edit" else chain("yes" if line(request, "Q: ") == target else "no")

    originals = [
        problem("first", "Has Ann with 2 more than Ben with 4?", answer="no"),
        problem("second", "Has Ann with 7 more than Ben with 8?", answer="no"),
    ]
    asked = [
        [request for request in build(CounterfactualPairs, settings(), [one], script)[1] if is_blind(request)]
        for one in originals
    ]

    assert [request.digest for request in asked[0]] == [request.digest for request in asked[1]]
    assert [request.messages for request in asked[0]] == [request.messages for request in asked[1]]
    assert [request.sample_index for request in asked[0]] == [0, 1, 2]


def test_the_blind_prompt_holds_the_edited_question_and_both_labels_alike() -> None:
    _, requests = build(CounterfactualPairs, settings(), [problem()], obedient)

    (text,) = {prompt_of(request) for request in requests if is_blind(request)}
    assert "Has Ann with 1 more than Ben with 3?" in text
    assert "7" not in text
    assert "no, yes" in text  # in the order of the alphabet, whichever is wanted
    assert len(requests[-1].messages) == 1


def test_even_a_template_that_wants_to_cannot_show_the_blind_labeller_an_answer(tmp_path: Any) -> None:
    leaky = tmp_path / "leaky.jinja"
    leaky.write_text("Q: {{ question }} [{{ answer }}{{ other }}{{ text }}{{ right }}{{ wrong }}]\nA:")
    _, requests = build(CounterfactualPairs, settings(prompts={"blind_label": str(leaky)}), [problem()], obedient)

    assert {prompt_of(request) for request in requests if is_blind(request)} == {
        "Q: Has Ann with 1 more than Ben with 3? []\nA:"
    }


@pytest.mark.parametrize(
    ("votes", "reason"),
    [
        (["no", "no", "no"], None),
        (["no", "yes", "no"], None),
        (["no", "?", "no"], None),
        (["no", "yes", "yes"], "blind_label: the answer is what it was"),
        (["no", "yes", "?"], "blind_label: fewer than 2 of 3 votes for the new answer"),
        (["no", "?", "?"], "blind_label: fewer than 2 of 3 votes for the new answer"),
    ],
)
def test_an_edit_is_kept_by_two_of_three_votes(votes: list[str], reason: str | None) -> None:
    script = but("blind_label", lambda request: chain(votes[request.sample_index]))
    outcome, _ = build(CounterfactualPairs, settings(), [problem()], script)

    (edited,) = edits_of(outcome)
    assert edited["reason"] == reason
    assert edited["edit"]["votes"] == [vote.replace("?", "") for vote in votes]
    assert outcome.train[0]["has_cf"] == (reason is None)  # an original stays, with or without


def test_an_edit_is_never_kept_on_votes_that_nobody_gave() -> None:
    outcome, _ = build(CounterfactualPairs, settings(), [problem()], but("blind_label", None))

    assert [row["reason"] for row in edits_of(outcome)] == ["blind_label: not recorded"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Has Ann with 7 more than Ben with 3?", "edit: unchanged"),
        ("Has Ann with 1 more than Ben with 3? The answer is there.", "edit: gives the answer away"),
        ("Do any of the cows in that field over there give milk?", "edit: larger than 0.8 of the question"),
        ("", "edit: empty completion"),
        (Completion("Has Ann with 1", finish_reason="length"), "edit: truncated by length"),
        (None, "edit: not recorded"),
    ],
)
def test_an_edit_that_is_none_is_rejected_with_its_reason_and_nobody_votes_on_it(said: Any, reason: str) -> None:
    outcome, requests = build(CounterfactualPairs, settings(), [problem()], but("edit", said))

    assert [row["reason"] for row in edits_of(outcome)] == [reason]
    assert not any(is_blind(request) for request in requests)
    assert not outcome.train[0]["has_cf"]


def test_an_edit_may_be_no_other_edit_no_other_question_and_no_held_out_one() -> None:
    held_out = load_problems(settings().problems, "test")[0]
    ones = [
        problem("a"),
        problem("b", "Has Ann with 7 more than Ben with  3 ?"),
        problem("c", "Has Eve with 7 more than Ben with 3?"),
        problem("d", "Has Eve with 1 more than Ben with 3?", answer="no"),
        problem("e", held_out.question + " 7"),
    ]
    script = but("edit", lambda r: held_out.question if held_out.question in prompt_of(r) else obedient("edit", r))
    outcome, _ = build(CounterfactualPairs, settings(), ones, script)

    assert {row["id"]: row["reason"] for row in edits_of(outcome)} == {
        "a#1": None,
        "b#1": "edit: is the same as another edit",
        "c#1": "edit: is another question of the data",
        "d#1": "edit: is another question of the data",
        "e#1": "edit: is a held-out question",
    }


def test_at_most_so_many_edits_of_an_original_are_kept() -> None:
    script = but("edit", lambda request: line(request, "Q: ").replace("7", "1" * (request.sample_index + 1)))
    believing = lambda kind, request: (  # noqa: E731
        chain("no" if "7" not in line(request, "Q: ") else "yes") if kind == "blind_label" else script(kind, request)
    )
    outcome, requests = build(CounterfactualPairs, settings(edits=4, tries=1), [problem()], believing)

    reasons = [row["reason"] for row in edits_of(outcome)]
    assert Counter(reasons) == {None: 2, "blind_label: the original has enough": 2}
    assert sum(is_blind(request) for request in requests) == 12


def test_an_original_that_is_not_explained_is_rejected_and_not_edited() -> None:
    outcome, requests = build(CounterfactualPairs, settings(), [problem()], but("explain", chain("no")))

    assert [(row["id"], row["reason"]) for row in outcome.rejected] == [
        ("p", "explain: explanation ends in another answer")
    ]
    assert len(requests) == 3


def test_further_explanations_are_kept_where_they_are_right_and_differ() -> None:
    outcome, _ = build(CounterfactualPairs, settings(rationales=4), [problem()], obedient)
    assert [why["rationale"][-2] for why in outcome.train[0]["whys"]] == ["0", "3", "4", "5"]
    assert len(outcome.train[1]["whys"]) == 1  # of an original alone

    same, _ = build(
        CounterfactualPairs,
        settings(rationales=4),
        [problem()],
        but("explain", lambda r: chain("yes" if "7" in prompt_of(r) else "no")),
    )
    assert len(same.train[0]["whys"]) == 1


@pytest.mark.parametrize(
    ("said", "is_kept"),
    [
        ("It is 7 against 3. Therefore, the answer is yes.", True),
        ("Not no, since 7 beats 3. Therefore, the answer is yes.", True),
        ("The answer is not no. Therefore, the answer is yes.", True),
        ("It is 3 against 7. Therefore, the answer is no.", False),
        ("It is less, so the answer is no. But they say otherwise. Therefore, the answer is yes.", False),
        ("It is 7 against 3.", False),
    ],
)
def test_a_refutation_that_argues_for_the_wrong_answer_is_none(said: str, is_kept: bool) -> None:
    script = but("refute", lambda request: said if "7" in line(request, "Q: ") else obedient("refute", request))
    outcome, _ = build(CounterfactualPairs, settings(), [problem()], script)

    original = next(row for row in (*outcome.train, *outcome.rejected) if row["is_original"])
    assert (original["reason"] is None, len(original["refutes"])) == (is_kept, int(is_kept))
    assert is_kept or original["reason"].startswith("refute: ")
    assert len(edits_of(outcome)[0]["refutes"]) == 1


def test_of_options_one_is_drawn_to_edit_towards_and_each_wrong_one_is_refuted() -> None:
    ones = [
        problem(
            f"p{i}",
            f"Which is {i}?\nOptions:\n(A) ant\n(B) bee\n(C) cow",
            answer="(A)",
            kind="choice",
            choices=("ant", "bee", "cow"),
        )
        for i in range(40)
    ]

    def script(kind: str, request: Request) -> str:
        if kind == "edit":
            return line(request, "Q: ").replace("?", f" or {request.sample_index}?")
        if kind == "blind_label":
            return chain(towards[prompt_of(request).partition("Q: ")[2].partition("\nA:")[0]])
        return chain(line(request, "Given answer:" if kind == "explain" else "Right answer:"), "So it is.")

    towards: dict[str, str] = {}

    def noting(kind: str, request: Request) -> str:
        said = script(kind, request)
        if kind == "edit":
            towards[f"{said}\nOptions:\n(A) ant\n(B) bee\n(C) cow"] = line(request, "Wanted answer:")
        return said

    outcome, _ = build(CounterfactualPairs, settings(min_edit=0), ones, noting)

    edited = [row for row in outcome.train if row["is_cf"]]
    labels = Counter(row["answer"] for row in edited)
    assert set(labels) == {"(B)", "(C)"}
    assert min(labels.values()) >= 10  # 40 fair draws: fewer at odds of 1 to 2,000; and these are always the same
    assert len(edited) == 40
    assert all(row["question"].endswith("?\nOptions:\n(A) ant\n(B) bee\n(C) cow") for row in edited)
    assert [one["label"] for one in outcome.train[0]["refutes"]] == ["(B)", "(C)"]


def test_of_three_labels_both_others_are_edited_towards_the_first_edit_of_each_first() -> None:
    layout = "Premise: {premise}\nHypothesis: {hypothesis}"
    more = {"labels": ["entailment", "neutral", "contradiction"], "layout": layout, "edits": 2}
    fields = {"premise": 1.0, "hypothesis": 1.0}
    one = problem(question="Premise: Ann eats.\nHypothesis: Ann sits.", answer="neutral", kind="text")
    _, requests = build(CounterfactualPairs, settings(**more, fields=fields), [one], lambda k, r: chain("neutral"))

    asked = [request for request in requests if request.template.startswith("edit@")]
    wanted = [(line(request, "Wanted answer:"), request.sample_index) for request in asked]
    assert {label for label, _ in wanted[:2]} == {label for label, _ in wanted[2:]} == {"entailment", "contradiction"}
    assert [sample for _, sample in wanted] == [0, 0, 1, 1]


def test_each_of_two_fields_is_edited_in_about_half_of_the_questions() -> None:
    layout = "Premise: {premise}\nHypothesis: {hypothesis}"
    more = {"layout": layout, "fields": {"premise": 1.0, "hypothesis": 1.0}, "tries": 1}
    ones = [problem(f"p{i}", f"Premise: Ann has {i}.\nHypothesis: Ann has some.") for i in range(60)]
    script = but("explain", chain("yes"))
    _, requests = build(CounterfactualPairs, settings(**more), ones, script)

    fields = Counter(
        "premise" if "The premise, changed:" in prompt_of(request) else "hypothesis"
        for request in requests
        if request.template.startswith("edit@")
    )
    assert min(fields.values()) >= 18  # of 60 fair draws, which are always the same


def test_a_question_without_a_closed_set_of_answers_is_left_out() -> None:
    outcome, requests = build(CounterfactualPairs, settings(), [problem(answer="7", kind="number")], obedient)

    assert [row["reason"] for row in outcome.rejected] == ["label_set: no closed set of answers is known"]
    assert requests == []


def test_a_question_whose_gold_answer_is_no_label_is_left_out() -> None:
    """SNLI has such: its annotators did not agree, and the label is a dash."""
    labels = {"labels": ["entailment", "neutral", "contradiction"]}
    one = problem(answer="-", kind="text")
    outcome, requests = build(CounterfactualPairs, settings(**labels), [one], obedient)

    assert [row["reason"] for row in outcome.rejected] == ["label_set: the gold answer is none of the labels"]
    assert requests == []


def test_test_questions_enter_no_prompt() -> None:
    given = settings(problems={"source": "procedural", "tasks": ["contests"], "n": 30, "n_test": 30}, edits=2)
    train, test = CounterfactualPairs.inputs(given, None)  # type: ignore[arg-type]
    teacher = ProceduralTeacher(ProceduralConfig())
    _, requests = build(CounterfactualPairs, given, train, lambda kind, request: teacher.answer(request))

    prompts = "\n".join(map(prompt_of, requests))
    assert not [question.question for question in test if question.question in prompts]


@pytest.mark.parametrize("rates", [FAITHFUL, {}], ids=["faithful", "erring"])
def test_the_embedded_teacher_s_edits_have_the_label_they_were_edited_towards(rates: dict[str, float]) -> None:
    ones = load_problems(ProceduralProblems(tasks=("contests", "comparisons"), n=60), "train")
    teacher = ProceduralTeacher(ProceduralConfig(**rates))
    outcome, _ = build(
        CounterfactualPairs,
        settings(edits=2, fields={"question": 0.5}),
        ones,
        lambda kind, request: teacher.answer(request),
    )

    wrong = 0
    for row in outcome.train:
        found = bank.read(row["question"])
        assert found is not None
        wrong += write_chain(partial(found[0].solve, found[1]), 0).answer != row["answer"]
    reasons = Counter(row["reason"] for row in outcome.rejected)
    if rates:
        assert wrong == 0
        # `comparisons` has questions that no change of one number turns round: the teacher gives them back as they are.
        assert set(reasons) <= {"edit: is the same as another edit", "edit: unchanged"}
    else:
        assert wrong / len(outcome.train) < 0.05
        assert {"edit: larger than 0.5 of the question", "blind_label: the answer is what it was"} <= set(reasons)
        assert all(row["refutes"] for row in outcome.train)
    cells = label_cells((*outcome.train, *outcome.rejected))
    assert [cell.told for cell in cells] == ["no to yes", "yes to no"]
    assert sum(cell.accepted for cell in cells) == sum(row["is_cf"] for row in outcome.train)


def test_an_answer_costs_no_more_than_is_asked() -> None:
    """Builder and rounds agree: after the rounds nothing is missing that a record would need."""
    ones = load_problems(ProceduralProblems(tasks=("contests",), n=20), "train")
    teacher = ProceduralTeacher(ProceduralConfig())
    known: dict[str, Completion] = {}

    def script(kind: str, request: Request) -> Completion:
        return known.setdefault(request.digest, teacher.answer(request))

    outcome, requests = build(CounterfactualPairs, settings(edits=2, rationales=2), ones, script)
    assert set(known) == {request.digest for request in requests}
    assert not [row for row in outcome.rejected if "not recorded" in row["reason"]]


def test_the_same_questions_in_another_order_give_the_same_pairs_but_for_double_edits() -> None:
    ones = [problem(f"p{i}", f"Has Ann with 7 more than Ben{i} with 3?") for i in range(5)]
    forward, _ = build(CounterfactualPairs, settings(), ones, obedient)
    backward, _ = build(CounterfactualPairs, settings(), ones[::-1], obedient)

    assert sorted(forward.train, key=lambda row: row["id"]) == sorted(backward.train, key=lambda row: row["id"])


def test_held_out_questions_carry_their_pair() -> None:
    one = replace(problem(), split="test", pair="p")
    assert CounterfactualPairs.held_out(one)["pair"] == "p"
    assert set(CounterfactualPairs.held_out(one)) == set(CounterfactualPairs.EVALUATION)
    drawn = load_problems(ProceduralPairs(source="procedural_pairs", tasks=("contests",), n=2), "test")
    assert [question.pair for question in drawn] == [drawn[0].id] * 2 + [drawn[2].id] * 2


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"fields": {"premise": 0.5}}, r"found 'premise', allowed \['question'\]"),
        ({"agreeing": 4}, "found 4, allowed at most votes, which is 3"),
        ({"edited": {"path": "x.tsv", "pair": "id"}}, "leave out either edited or teacher"),
        ({"teacher": None}, "name problems and a teacher"),
        ({"teacher": None, "edited": {"path": "x.tsv"}}, "name either pair"),
        ({"layout": "{question"}, "layout: template has a stray"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(more: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        settings(**more)


def test_a_prompt_for_edits_that_does_not_say_towards_what_is_refused(tmp_path: Any) -> None:
    (tmp_path / "edit.jinja").write_text("Change this: {{ question }}")
    (tmp_path / "edit.txt").write_text("Change this: {QUESTION}")
    for name, told in (("edit.jinja", "never shows {{ other }}"), ("edit.txt", "only a .jinja file can")):
        with pytest.raises(UserError, match=told):
            Asker(settings(prompts={"edit": str(tmp_path / name)}), ScriptedAnswers(obedient), "scripted", "x")
