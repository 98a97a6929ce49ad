from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dataset_builders.asking import Outcome
from dataset_builders.columns import leaves
from dataset_builders.teacher_cots import TeacherCots
from tests.scripted_answers import build, chain, problem
from toolkit.errors import UserError
from toolkit.teachers.protocol import Completion, Request


def settings(**more: Any) -> Any:
    given = {"problems": {"source": "procedural"}, "teacher": {"kind": "procedural"}, **more}
    return TeacherCots.SETTINGS.model_validate(given)


def right_for_even_samples(kind: str, request: Request) -> str:
    return chain(7 + request.sample_index % 2, f"Way {request.sample_index}.")


def test_right_samples_are_kept_and_wrong_ones_rejected() -> None:
    outcome, _ = build(TeacherCots, settings(samples=4), [problem("p")], right_for_even_samples)

    assert [row["id"] for row in outcome.train] == ["p#0", "p#2"]
    assert {row["reason"] for row in outcome.rejected} == {"final answer is wrong"}


def test_all_samples_may_be_kept_and_are_told_apart() -> None:
    outcome, _ = build(TeacherCots, settings(samples=4, keep="all"), [problem()], right_for_even_samples)

    assert [row["correct"] for row in outcome.train] == [True, False, True, False]


def test_a_sample_that_repeats_another_is_rejected() -> None:
    outcome, _ = build(TeacherCots, settings(samples=2), [problem()], lambda *_: chain(7))

    assert [row["reason"] for row in outcome.rejected] == ["the same chain as another sample"]


def test_the_sft_rendering_is_the_chain_with_its_answer() -> None:
    outcome, _ = build(TeacherCots, settings(), [problem()], lambda *_: chain(7))

    assert TeacherCots.sft(outcome.train[0])["completion"] == "3 + 4 makes it.\nTherefore, the answer is 7."


def test_log_probabilities_are_published_where_they_were_asked_for() -> None:
    token = {"token": "7\ud800", "logprob": -0.5, "top_logprobs": [{"token": "7", "logprob": -0.5}]}
    raw = {"choices": [{"logprobs": {"content": [token]}}]}

    outcome, requests = build(
        TeacherCots,
        settings(samples=2, sampling={"top_logprobs": 1}),
        [problem()],
        lambda _, request: Completion(chain(7), raw=raw) if request.sample_index else None,
    )

    (kept,), (failed,) = outcome.train, outcome.rejected
    assert kept["chain"]["logprobs"] == [
        {"token": "7\ufffd", "logprob": -0.5, "top": [{"token": "7", "logprob": -0.5}]}
    ]
    assert failed["chain"]["logprobs"] is None
    assert {request.sampling.top_logprobs for request in requests} == {1}
    assert "chain.logprobs[].top[].token" in dict(leaves(TeacherCots.tables(outcome)["default"]))


def test_nobody_gets_a_column_of_log_probabilities_that_were_not_asked_for() -> None:
    outcome, _ = build(TeacherCots, settings(), [problem()], lambda *_: chain(7))

    assert "logprobs" not in outcome.train[0]["chain"]
    assert TeacherCots.tables(outcome) == TeacherCots.tables(Outcome())


# --- ready-made chains ---------------------------------------------------------------------------------------------


def row(chain: object = "3 + 4 = 7. So the answer is 7.", **more: object) -> dict[str, object]:
    return {"question": "3 + 4?", "chain": chain, "answer": 7, **more}


def built(path: Path, *rows: object, keep: str = "all", **columns: object) -> Outcome:
    lines = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in rows).encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    chains = {"path": str(path), **columns}
    of_chains = TeacherCots.SETTINGS.model_validate({"chains": chains, "keep": keep})
    outcome, requests = build(TeacherCots, of_chains, [], lambda *_: None)
    assert requests == []
    return outcome


def test_a_ready_made_chain_becomes_a_record_with_its_writer(tmp_path: Path) -> None:
    text = "3 + 4 = 7. So the answer is 7.\n\nQ: 4 + 5?\nA: The answer is 9."

    (made,) = built(tmp_path / "sums.jsonl.gz", row(text), model="palm").train

    assert (made["task"], made["question"], made["answer"]) == ("sums", "3 + 4?", "7")
    assert (made["chain"]["rationale"], made["chain"]["answer"], made["correct"]) == ("3 + 4 = 7.", "7", True)
    assert made["chain"]["provenance"]["teacher"] == "written"
    assert made["chain"]["provenance"]["model"] == "palm"
    assert made["chain"]["provenance"]["completion"] == text
    assert TeacherCots.sft(made)["completion"] == "3 + 4 = 7.\nTherefore, the answer is 7."


@pytest.mark.parametrize(("keep", "kept"), [("all", [True, False]), ("right", [True])])
def test_wrong_ready_made_chains_are_kept_or_rejected_as_a_teachers_are(
    tmp_path: Path, keep: str, kept: list[bool]
) -> None:
    outcome = built(tmp_path / "sums.jsonl", row(), row("3 + 4 = 8. The answer is 8."), keep=keep)

    assert [made["correct"] for made in outcome.train] == kept
    assert [made["reason"] for made in outcome.rejected] == ["final answer is wrong"] * (2 - len(kept))
    assert (outcome.steps[0].name, outcome.steps[0].records, outcome.steps[0].accepted) == ("chains", 2, len(kept))


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        ("3 + 4 = 7.", "no answer clause"),
        ("", "empty completion"),
        (None, "empty completion"),
        ("x" * 30_000 + " The answer is 7.", "longer than 20000 characters"),
    ],
)
def test_a_ready_made_chain_that_cannot_be_read_is_rejected_with_its_reason(
    tmp_path: Path, chain: object, reason: str
) -> None:
    assert [made["reason"] for made in built(tmp_path / "sums.jsonl", row(chain)).rejected] == [reason]


def test_several_chains_of_a_question_are_records_of_their_own_and_repeats_are_none(tmp_path: Path) -> None:
    other = row("4 + 3 = 7. So the answer is 7.")

    outcome = built(tmp_path / "sums.jsonl", row(), other, row(), row(question="4 + 3?"))

    assert [made["question"] for made in outcome.train] == ["3 + 4?", "3 + 4?", "4 + 3?"]
    assert len({made["id"] for made in [*outcome.train, *outcome.rejected]}) == 4
    assert [made["reason"] for made in outcome.rejected] == ["the same chain as another sample"]


def test_a_chain_may_be_put_together_from_columns_and_its_options_be_lettered(tmp_path: Path) -> None:
    made = row(None, question="Which?", choices=["left", "right"], answer="right", why={"text": "It is."}, label="(b)")

    (right,) = built(
        tmp_path / "sides.jsonl", made, chain="{why.text} The answer is {label}.", choices="choices", task="sides"
    ).train

    assert right["question"] == "Which?\nOptions:\n(A) left\n(B) right"
    assert (right["chain"]["rationale"], right["chain"]["answer"], right["answer"]) == ("It is.", "(B)", "(B)")
    assert right["correct"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), {"question": "?", "answer": 7, "chian": ""}], r"sums\.jsonl:2: no column 'chain'.*mean 'chian'"),
        ([row(), row(answer=None)], r"sums\.jsonl:2: no gold answer: column 'answer' has no value"),
        ([{"chain": "", "answer": 7}], r"sums\.jsonl:1: no column 'question'"),
        ([row({"text": "3"})], r"sums\.jsonl:1: column 'chain' is a dict, not a text"),
        ([row(), "{not json"], r"sums\.jsonl:2: is not JSON"),
        ([], r"sums\.jsonl: the file is empty"),
    ],
)
def test_a_faulty_file_of_chains_is_named_with_its_line(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        built(tmp_path / "sums.jsonl", *rows)


def test_settings_want_a_teacher_or_ready_made_chains_but_not_both() -> None:
    with pytest.raises(ValidationError, match="leave out either chains or teacher"):
        settings(chains={"path": "x.jsonl"})
    with pytest.raises(ValidationError, match="problems and a teacher, or a file"):
        TeacherCots.SETTINGS.model_validate({})
    with pytest.raises(ValidationError, match="template has a stray"):
        TeacherCots.SETTINGS.model_validate({"chains": {"path": "x.jsonl", "chain": "{rationale"}})


# --- demonstrations


def demonstrated(names: str, demonstrations: int = 2, **more: Any) -> Outcome:
    """Build records of the problems called by these letters; of capital letters the chains are wrong."""
    wrong = {f"What is {name}?" for name in names if name.isupper()}

    def script(_: str, request: Request) -> str:
        name = next(name for name in names if f"What is {name}?" in request.messages[0][1])
        return chain(8 if f"What is {name}?" in wrong else 7, f"Way {request.sample_index} of {name}.")

    asked = [problem(name, task="sums" if name != "z" else "dates") for name in names]
    return build(TeacherCots, settings(keep="all", demonstrations=demonstrations, **more), asked, script)[0]


def shown(record: dict[str, Any]) -> list[str]:
    """Return the questions that are shown with a record, as its chains have them."""
    return re.findall(r"Q: What is (.)\?", record["demonstrations"]["chains"])


def test_demonstrations_are_text_that_a_question_can_follow() -> None:
    first, second = demonstrated("ab").train
    assert first["demonstrations"] == {
        "answers": "Q: What is b?\nA: 7\n\n",
        "chains": "Q: What is b?\nA: Way 0 of b.\nTherefore, the answer is 7.\n\n",
    }
    assert shown(second) == ["a"]


@pytest.mark.parametrize("samples", [1, 3])
def test_as_many_others_are_shown_as_are_wanted_each_once_and_right(samples: int) -> None:
    train = demonstrated("abcdEFg", 3, samples=samples).train
    assert len(train) == 7 * samples
    for record in train:
        assert len(shown(record)) == len(set(shown(record))) == 3
        assert set(shown(record)) <= set("abcdg") - {record["question"][8]}


def test_answers_and_chains_are_of_the_same_questions() -> None:
    train = demonstrated("abcdefg", 4).train
    assert len(train) == 7
    for record in train:
        assert re.findall(r"Q: What is (.)\?", record["demonstrations"]["answers"]) == shown(record)


def test_a_record_has_the_demonstrations_that_there_are() -> None:
    assert [set(shown(record)) for record in demonstrated("abcD", 5).train] == [
        set("bc"),
        set("ac"),
        set("ab"),
        set("abc"),
    ]


def test_a_question_alone_in_its_task_is_rejected() -> None:
    outcome = demonstrated("abz")
    (rejected,) = outcome.rejected
    assert rejected["question"] == "What is z?"
    assert rejected["reason"] == "no right chain of another question of the task to demonstrate"
    assert rejected["demonstrations"] is None
    assert [(step.name, step.records, step.accepted) for step in outcome.steps] == [
        ("cot", 3, 3),
        ("demonstrations", 3, 2),
    ]


def test_what_is_shown_depends_on_the_seed_and_on_no_order() -> None:
    def by_question(names: str, **more: Any) -> dict[str, list[str]]:
        return {record["question"]: shown(record) for record in demonstrated(names, **more).train}

    assert by_question("abcdefgh") == by_question("hfdbgeca")
    assert by_question("abcdefgh") != by_question("abcdefgh", seed=1)


def test_columns_of_demonstrations_are_there_where_they_were_asked_for() -> None:
    columns = dict(leaves(TeacherCots.tables(demonstrated("abz"))["default"]))
    assert {"demonstrations.answers", "demonstrations.chains"} <= set(columns)
    assert "demonstrations" not in build(TeacherCots, settings(), [problem()], lambda *_: chain(7))[0].train[0]
    assert TeacherCots.view_columns()["demonstrations.chains"] == "demonstrations"
    assert TeacherCots.view_columns()["chain.rationale"] == ""
