"""`cot_pot_mix`: chains and programs that are right, in pairs, and where the others go."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dataset_builders.asking import UNPAIRED, Asker, Outcome
from dataset_builders.building import BuildReport, build_dataset
from dataset_builders.cot_pot_mix import CotPotMix, balanced
from dataset_builders.parts import NoAnswers
from tests.scripted_answers import build, chain, outcome_of, problem
from toolkit.answers import matches
from toolkit.errors import UserError
from toolkit.problem_sources import ProceduralProblems, load_problems
from toolkit.teachers.procedural import ProceduralConfig, ProceduralTeacher
from toolkit.teachers.protocol import Completion, Request
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import procedural as procedural_replies
from toolkit.testing.replies import scripted

SVAMP = {"source": "jsonl", "path": "svamp.jsonl", "split": "train"}


def settings(**more: Any) -> Any:
    given = {"problems": {"source": "procedural"}, "teacher": {"kind": "procedural"}, "cots": 1, "programs": 1, **more}
    return CotPotMix.SETTINGS.model_validate(given)


def made(cots: Sequence[str], programs: Sequence[str], **more: Any) -> Outcome:
    """Build from what a teacher wrote to the one question, whose answer is 7 unless `gold` says another."""
    texts = {"cot": cots, "pot": programs}
    asked = problem(answer=more.pop("gold", "7"), kind=more.pop("kind", "auto"))
    outcome, _ = build(
        CotPotMix,
        settings(cots=len(cots), programs=len(programs), **more),
        [asked],
        lambda kind, request: texts[kind][request.sample_index],
    )
    return outcome


def reasons(rows: Sequence[Any]) -> list[tuple[str, str]]:
    return [(row["id"], row["reason"]) for row in rows]


def test_a_right_chain_and_a_right_program_are_a_record() -> None:
    outcome = made([chain(7)], ["n = 3\nans = n + 4"])

    (row,) = outcome.train
    assert not outcome.rejected
    assert not outcome.unpaired
    assert (row["id"], row["answer"], row["cot"]["rationale"]) == ("p", "7", "3 + 4 makes it.")
    assert {name: row["pot"][name] for name in ("rationale", "answer", "status", "tier")} == {
        "rationale": "n = 3\nans = n + 4",
        "answer": "7",
        "status": "ok",
        "tier": 1,
    }


def test_what_became_of_a_program_is_why_it_is_rejected() -> None:
    programs = [
        "ans = 8",
        "ans = x",
        "y = 7",
        "ans =",
        "while True:\n    pass",
        "import os\nans = os.getcwd()",
        "ans = [7, 7]",
    ]

    outcome = made([chain(7)], programs)

    expected = ["wrong", "runtime", "no_value", "syntax", "timeout", "import", "no_value"]
    assert reasons(outcome.rejected) == [(f"p/pot{i}", f"pot: {reason}") for i, reason in enumerate(expected)]
    assert [row["pot"]["status"] for row in outcome.rejected] == expected
    assert [row["cot"] for row in outcome.rejected] == [None] * 7
    assert reasons(outcome.unpaired) == [("p/cot0", "unpaired: more than the other kind has")]
    assert outcome.steps[2].reasons == {"no right program": 1}


def test_a_chain_is_rejected_as_everywhere_and_a_program_that_never_came_is_not_run() -> None:
    said = {"cot": "It is 7.\nTherefore, the answer is 8.", "pot": None}
    outcome, _ = build(CotPotMix, settings(), [problem()], lambda kind, _: said[kind])

    assert reasons(outcome.rejected) == [("p/cot0", "cot: final answer is wrong"), ("p/pot0", "pot: not recorded")]
    assert (outcome.rejected[1]["pot"]["status"], outcome.rejected[1]["pot"]["tier"]) == (None, None)
    assert [step.completions for step in outcome.steps] == [1, 0, 0]


@pytest.mark.parametrize(
    ("finish_reason", "text", "fault"),
    [("length", "ans = 7", "truncated by length"), ("stop", "", "empty completion"), ("stop", "ans=7\0", "NUL")],
)
def test_a_program_that_is_no_completion_of_use_is_not_run(finish_reason: str, text: str, fault: str) -> None:
    answers = {"cot": chain(7), "pot": Completion(text, finish_reason=finish_reason)}
    outcome, _ = build(CotPotMix, settings(), [problem()], lambda kind, _: answers[kind])  # type: ignore[return-value]

    (row,) = outcome.rejected
    assert fault in row["reason"]
    assert row["pot"]["status"] is None


@pytest.mark.parametrize(
    ("gold", "kind", "written", "program"),
    [
        *(("0", "number", "0", "ans = 4 - 4"), ("-5", "number", "-5", "ans = 3 - 8")),
        *(("yes", "boolean", "Yes", "ans = 3 > 2"), ("False", "boolean", "no", "ans = 2 > 3")),
        *(("no", "boolean", "no", 'ans = "No"'), ("0.3", "number", "0.3", "ans = 0.1 + 0.2")),
        ("Friday", "text", "friday", 'ans = "Friday"'),
    ],
)
def test_values_of_every_kind_are_held_against_gold(gold: str, kind: str, written: str, program: str) -> None:
    outcome = made([chain(written)], [program], gold=gold, kind=kind)

    assert [row["answer"] for row in outcome.train] == [gold]


@pytest.mark.parametrize(
    ("gold", "kind", "program"),
    [
        ("3", "number", "ans = -3"),
        ("yes", "boolean", "ans = 1"),
        ("1", "number", "ans = True"),
        ("5", "number", "ans = 5.001"),
    ],
)
def test_near_is_not_right(gold: str, kind: str, program: str) -> None:
    assert reasons(made([chain("9")], [program], gold=gold, kind=kind).rejected)[-1] == ("p/pot0", "pot: wrong")


def test_each_question_has_as_many_of_one_kind_as_of_the_other_and_no_more_than_asked() -> None:
    cots = [chain(7, f"Way {i}.") for i in range(4)]
    programs = [f"ans = {i} + {7 - i}" for i in range(3)]

    outcome = made(cots, programs, pairs=2)

    assert [(row["id"], row["cot"]["rationale"], row["pot"]["rationale"]) for row in outcome.train] == [
        ("p#0", "Way 0.", "ans = 0 + 7"),
        ("p#1", "Way 1.", "ans = 1 + 6"),
    ]
    assert reasons(outcome.unpaired) == [(name, "unpaired: more than 2") for name in ("p/cot2", "p/cot3", "p/pot2")]


def test_repeated_samples_are_rejected_programs_by_what_they_do() -> None:
    outcome = made(
        [chain(7), chain(7, "3 + 4  MAKES it.")], ["n = 3\nans = n + 4", "total = 3  # again\nans = total + 4"], pairs=4
    )

    assert len(outcome.train) == 1
    assert [row["reason"] for row in outcome.rejected] == [
        "cot: the same as another sample",
        "pot: the same as another sample",
    ]


@given(st.lists(st.integers(), max_size=6), st.lists(st.text(), max_size=6), st.integers(1, 4))
def test_balance_loses_nobody_and_favours_neither_kind(ones: list[int], others: list[str], most: int) -> None:
    pairs, left, right = balanced(ones, others, most)

    assert len(pairs) == min(len(ones), len(others), most)
    assert [one for one, _ in pairs] + left == ones
    assert [other for _, other in pairs] + right == others


def test_without_labels_a_pair_is_kept_where_both_kinds_agree_and_gold_is_never_looked_at() -> None:
    told = made([chain(5)], ["ans = 5"], labels="agreement")
    blind = made([chain(5)], ["ans = 5"], labels="agreement", gold="99")

    assert [row["answer"] for row in told.train] == ["5"]
    assert told == blind


@pytest.mark.parametrize("programs", [["ans = 6"], ["ans = x"], ["ans = 'five'"]])
def test_without_labels_nothing_is_right_that_only_one_kind_says(programs: list[str]) -> None:
    with_two_votes = made([chain(5), chain(5, "Again.")], programs, labels="agreement")

    assert not with_two_votes.train
    assert not with_two_votes.unpaired
    assert with_two_votes.steps[2].reasons == {"no right chain of thought and no right program": 1}


def test_without_labels_most_of_both_kinds_decide_and_no_question_gets_two_answers() -> None:
    cots = [chain(5), chain(6), chain(6, "Again.")]
    outcome = made(cots, ["ans = 5", "ans = 6", "ans = 7"], labels="agreement")

    assert [(row["answer"], row["cot"]["answer"], row["pot"]["answer"]) for row in outcome.train] == [("6", "6", "6")]
    assert {row["reason"] for row in outcome.unpaired} == {"unpaired: more than the other kind has"}


def test_a_record_is_two_rows_of_sft() -> None:
    (record,) = made([chain(7)], ["ans = 7"]).train

    cot, pot = CotPotMix.sft_rows(record)
    assert (cot["id"], pot["id"]) == ("p/cot", "p/pot")
    assert cot["prompt"].endswith("What is p?\n\nA:\n")
    assert cot["completion"] == "3 + 4 makes it.\nTherefore, the answer is 7."
    assert (pot["prompt"][-11:], pot["completion"]) == ("\n\nProgram:\n", "ans = 7")


# --- the embedded teacher


def procedural(tasks: Sequence[str], n: int, **rates: float) -> Outcome:
    teacher = ProceduralTeacher(ProceduralConfig(garble_rate=0.0, **rates))  # type: ignore[arg-type]
    problems = load_problems(ProceduralProblems(tasks=tuple(tasks), n=n), "train")
    outcome, _ = build(CotPotMix, settings(), problems, lambda _, request: teacher.answer(request))
    return outcome


FAMILIES = ["chained_arithmetic", "ordering", "dates", "lookups", "shopping", "queue", "comparisons"]


@pytest.mark.parametrize("task", FAMILIES)
def test_programs_of_a_teacher_that_never_errs_are_right(task: str) -> None:
    outcome = procedural([task], 20, error_rate=0.0)

    assert len(outcome.train) == 20
    assert {row["pot"]["mistake"] for row in outcome.train} == {None}


@pytest.mark.parametrize("task", FAMILIES)
def test_programs_of_a_teacher_that_always_errs_fail_as_it_labels_them(task: str) -> None:
    rejected = [row for row in procedural([task], 40, error_rate=1.0).rejected if row["pot"]]

    assert len(rejected) == 40
    found = Counter((row["pot"]["mistake"], row["pot"]["status"]) for row in rejected)
    expected = {("logical", "wrong"), ("knowledge", "wrong"), ("runtime", "runtime"), ("no_value", "no_value")}
    assert found.keys() <= expected
    assert len(found) >= 3


def test_chains_and_programs_of_a_question_err_apart_from_each_other() -> None:
    outcome = procedural(["chained_arithmetic"], 200, error_rate=0.5)

    right = Counter((step.name, step.accepted) for step in outcome.steps[:2])
    assert all(70 < accepted < 130 for _, accepted in right)
    assert 30 < len(outcome.train) < 70


# --- ready-made texts


def write(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


def written(tmp_path: Path, cots: Sequence[dict[str, Any]], pots: Sequence[dict[str, Any]], **how: Any) -> Outcome:
    questions = [{"id": 1, "question": "What is 3 + 4?", "answer": "7"}]
    given = settings(
        problems={
            "source": "jsonl",
            "path": write(tmp_path / "q.jsonl.gz", questions),
            "columns": {"id": "id"},
            "split": "train",
        },
        teacher=None,
        written={
            "cot": [{"path": write(tmp_path / "cot.jsonl.gz", cots), "model": "model-a"}],
            "pot": [{"path": write(tmp_path / "pot.jsonl.gz", pots), "model": "model-b", **how}],
        },
        pairs=4,
    )
    problems, held_out = CotPotMix.inputs(given, tmp_path)
    assert not held_out
    asker = Asker(given, NoAnswers(), "written", "")
    assert not list(CotPotMix.rounds(problems, asker, given))
    return outcome_of(CotPotMix, given, problems, asker)


def test_ready_made_texts_are_found_by_id(tmp_path: Path) -> None:
    cots = [{"id": 1, "completion": chain(7)}, {"id": 2, "completion": chain(7)}]
    outcome = written(tmp_path, cots, [{"id": 1, "completion": "answer = 7"}], text="{completion}\nans = answer")

    (row,) = outcome.train
    assert row["pot"]["rationale"] == "answer = 7\nans = answer"
    origin = row["pot"]["provenance"]
    assert (origin["teacher"], origin["model"], origin["template"]) == ("written", "model-b", None)
    assert row["cot"]["provenance"]["model"] == "model-a"
    assert [step.name for step in outcome.steps] == ["written_cot", "written_pot", "balance"]


def test_ready_made_texts_are_found_by_the_words_of_their_question(tmp_path: Path) -> None:
    """Rows without the column, such as those that hold a demonstration, are passed over; a list holds one text."""
    rows = [
        {"demonstration": "Q: ..."},
        {"passage": "What is 3", "question": "4", "generated": ["ans = 3 + 4"]},
        {"passage": "what is", "question": "3 - 4?", "generated": "ans = 4 + 3"},
    ]
    outcome = written(
        tmp_path,
        [{"id": 1, "completion": chain(7)}],
        rows,
        by="question",
        key="{passage}, {question}",
        text="generated",
    )

    (row,) = outcome.train
    assert row["pot"]["rationale"] == "ans = 3 + 4"
    assert [row["pot"]["rationale"] for row in outcome.unpaired] == ["ans = 4 + 3"]


def test_questions_that_differ_in_a_vowel_sign_are_not_taken_for_one(tmp_path: Path) -> None:
    from dataset_builders.written_mix import _key

    assert _key("What is caf\u00e9, 3?", "question") == _key("what is CAFE\u0301 3", "question")
    assert _key("राम की किताब", "question") != _key("राम का किताब", "question")


def test_a_file_without_the_columns_is_an_error_that_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no row has the columns .*'completion'; .*jsonl.gz:1: .*'program'"):
        written(tmp_path, [{"id": 1, "completion": chain(7)}], [{"id": 1, "program": "ans = 7"}])


def test_a_faulty_file_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pot.jsonl"
    path.write_text('{"id": 1, "completion": "ans = 7"}\n{"id": 1,\n')
    given = settings(teacher=None, written={"cot": [{"path": str(path)}], "pot": [{"path": str(path)}]})
    records = CotPotMix.records([], Asker(given, NoAnswers(), "", ""), given, [])
    with pytest.raises(UserError, match=r"pot.jsonl:2: is not JSON"):
        next(records)


# --- settings


@pytest.mark.parametrize(
    "given",
    [
        {"teacher": {"kind": "procedural"}},
        {"problems": {"source": "procedural"}},
        {
            "problems": {"source": "procedural"},
            "teacher": {"kind": "procedural"},
            "written": {"cot": [{"path": "a"}], "pot": [{"path": "b"}]},
        },
        {"problems": {"source": "procedural"}, "written": {"cot": [], "pot": [{"path": "b"}]}},
        {
            "problems": {"source": "procedural"},
            "written": {"cot": [{"path": "a", "text": "{"}], "pot": [{"path": "b"}]},
        },
    ],
)
def test_settings_need_questions_and_one_origin(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CotPotMix.SETTINGS.model_validate(given)


def test_a_request_for_a_program_asks_for_the_variable_that_is_read() -> None:
    def said(kind: str, request: Request) -> str:
        assert ("variable ans" in request.messages[0][1]) == (kind == "pot")
        return chain(7) if kind == "cot" else "ans = 7"

    outcome, requests = build(CotPotMix, settings(cots=2, programs=3), [problem()], said)
    assert [(r.template.partition("@")[0], r.sample_index) for r in requests] == [
        *(("cot", 0), ("cot", 1), ("pot", 0), ("pot", 1), ("pot", 2)),
    ]
    assert matches(outcome.train[0]["pot"]["answer"], "7", "number")
    assert all(
        row["reason"].startswith(UNPAIRED) or row["reason"].startswith(("cot: ", "pot: ")) for row in outcome.rejected
    )


def test_a_server_that_fails_now_and_then_gives_rows_that_the_store_gives_again_byte_for_byte(tmp_path: Path) -> None:
    def built(folder: str, url: str) -> BuildReport:
        given = settings(
            problems={"source": "procedural", "tasks": ["chained_arithmetic", "lookups"], "n": 20, "n_test": 4},
            teacher={"kind": "openai", "model": "m", "base_url": url},
            sampling={"seed": 0},
            collect={"backoff": 0.001},
        )
        return build_dataset(
            *("cot_pot_mix", given, tmp_path / "store.sqlite"),
            hub_dir=tmp_path / folder,
            repo_id="mix",
            revision="v1.0.0",
            command="",
            cache_dir=tmp_path / f"{folder}-cache",
            show_progress=False,
        )

    with FaultServer(scripted(procedural_replies(ProceduralConfig()), {"500": 0.2})) as server:
        first = built("one", server.url)
        asked = server.requests_seen
        again = built("two", server.url)
        assert server.requests_seen == asked
    files = [path.relative_to(first.published.folder) for path in sorted(first.published.folder.rglob("*.parquet"))]
    assert len(files) >= 4
    for file in files:
        assert (first.published.folder / file).read_bytes() == (again.published.folder / file).read_bytes()
    steps = {step.name: step.reasons for step in first.outcome.steps}
    assert steps["pot"].keys() & {"wrong", "runtime", "no_value"}
    assert len(first.outcome.train) >= 5
