"""Where problems come from: splits that never share a question, mappings for real data, and faults with their place."""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from toolkit import bank
from toolkit.errors import UserError
from toolkit.problem import Problem
from toolkit.problem_sources import Cut, ProblemsConfig, cut, load_problems

DATA = Path(__file__).parents[3] / "shared" / "data"
CONFIG: TypeAdapter[Any] = TypeAdapter(ProblemsConfig)


def load(side: str = "train", /, **config: Any) -> list[Problem]:
    return load_problems(CONFIG.validate_python(config), side)


def fault(side: str = "train", /, **config: Any) -> str:
    with pytest.raises(UserError) as raised:
        load(side, **config)
    return str(raised.value)


def jsonl(path: Path, *rows: Any) -> str:
    """Write rows, each as JSON unless it is text already."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def rows(n: int, **columns: Any) -> list[dict[str, Any]]:
    return [{"question": f"What is {i}?", "answer": str(i), **columns} for i in range(n)]


def questions(problems: list[Problem]) -> set[str]:
    return {problem.question for problem in problems}


real = pytest.mark.data


def needs(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"../shared/data/{name} is not there")
    return DATA / name


# The procedural bank


def test_the_bank_gives_as_many_different_problems_as_were_asked_for() -> None:
    problems = load(source="procedural", n=200)
    assert len(questions(problems)) == len({problem.id for problem in problems}) == 200
    assert Counter(problem.task for problem in problems) == dict.fromkeys(bank.IN_DOMAIN, 50)


def test_no_training_question_of_any_seed_is_a_test_question_of_any_seed() -> None:
    def asked(split: str) -> set[str]:
        return {q for seed in range(3) for q in questions(load(split, source="procedural", n=300, seed=seed))}

    assert not asked("train") & asked("test")


def test_the_same_facts_in_another_phrasing_stay_on_the_same_side() -> None:
    def facts(split: str) -> set[Any]:
        read = [bank.read(problem.question) for problem in load(split, source="procedural", tasks=["dates"], n=300)]
        return {replace(found[1], phrasing=0) for found in read if found}

    assert not facts("train") & facts("test")


def test_a_larger_n_only_adds_problems_at_the_end() -> None:
    assert load(source="procedural", n=61)[:60] == load(source="procedural", n=60)


def test_problems_carry_what_their_family_says_of_itself() -> None:
    (problem,) = load("test", source="procedural", tasks=["shopping"], n=1)
    assert problem.kind == "number"
    assert problem.task_description == bank.FAMILIES["shopping"].description
    assert problem.split == "test"


def test_the_test_split_has_n_problems_but_at_most_400_unless_said_otherwise() -> None:
    sizes = [len(load("test", source="procedural", n=n, n_test=m)) for n, m in ((30, None), (900, None), (30, 7))]
    assert sizes == [30, 400, 7]


def test_steps_set_the_difficulty() -> None:
    easy = load(source="procedural", tasks=["dates"], steps={"dates": [2, 2]}, n=40)
    assert all(problem.question.count("two") == 1 and "three" not in problem.question for problem in easy)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tasks": ["datse"]}, "did you mean 'dates'"),
        ({"tasks": ["dates", "dates"]}, "named twice"),
        ({"steps": {"dates": [2, 99]}}, r"steps.dates: \[2, 99\] must lie within"),
        ({"steps": {"shopping": [2, 3]}}, "is not one of the tasks"),
        ({"tasks": []}, "at least 1"),
        ({"n": 0}, "greater than or equal to 1"),
        ({"nn": 5}, "Extra inputs"),
    ],
)
def test_a_mistaken_bank_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CONFIG.validate_python({"source": "procedural", **config})


def test_asking_the_bank_for_more_questions_than_there_are_is_an_error() -> None:
    found = fault(source="procedural", tasks=["dates"], steps={"dates": [2, 2]}, n=5000)
    assert "dates: ran out of different train questions" in found


# JSON files


def test_lines_become_problems_with_stable_ids(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "sums.jsonl", *rows(10))
    problems = load(source="jsonl", path=path) + load("test", source="jsonl", path=path)
    jsonl(tmp_path / "sums.jsonl", *reversed(rows(10)))
    again = load(source="jsonl", path=path) + load("test", source="jsonl", path=path)
    assert {problem.task for problem in problems} == {"sums"}
    assert {(p.id, p.answer, p.split) for p in problems} == {(p.id, p.answer, p.split) for p in again}


def test_gzip_and_plain_files_read_the_same(tmp_path: Path) -> None:
    plain = jsonl(tmp_path / "a.jsonl", *rows(10))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.jsonl.gz").write_bytes(gzip.compress(Path(plain).read_bytes()))
    assert load(source="jsonl", path=plain) == load(source="jsonl", path=str(tmp_path / "b" / "a.jsonl.gz"))


def test_a_split_in_the_path_is_a_split_of_its_own(tmp_path: Path) -> None:
    for split, n in (("train", 5), ("test", 3)):
        jsonl(tmp_path / f"{split}.jsonl", *rows(n))
    sizes = [len(load(split, source="jsonl", path=str(tmp_path / "{split}.jsonl"))) for split in ("train", "test")]
    assert sizes == [5, 3]
    assert load(source="jsonl", path=str(tmp_path / "{split}.jsonl"))[0].task == tmp_path.name


def test_a_permutation_cuts_by_place_as_numpy_orders_it(tmp_path: Path) -> None:
    """numpy.random.RandomState(0).permutation(5) is 2, 0, 1, 3, 4, as its documentation keeps it for good."""
    path = jsonl(tmp_path / "a.jsonl", *rows(5))
    whole = [problem.question for problem in load("test", source="jsonl", path=path, split="test")]
    given = {"source": "jsonl", "path": path, "split": {"seed": 0, "train": 3}}
    assert [problem.question for problem in load("train", **given)] == [whole[place] for place in (2, 0, 1)]
    assert [problem.question for problem in load("test", **given)] == [whole[place] for place in (3, 4)]
    assert len(load("test", **given, n=1)) == 1
    assert "no test problems" in fault("test", **{**given, "split": {"seed": 0, "train": 5}})


def test_a_file_can_belong_to_one_split_as_a_whole(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", *rows(7))
    assert len(load("test", source="jsonl", path=path, split="test")) == 7
    assert "has no train split" in fault(source="jsonl", path=path, split="test")


def test_a_json_file_that_holds_lines_is_read_line_by_line(tmp_path: Path) -> None:
    assert len(load(source="jsonl", path=jsonl(tmp_path / "a.json", *rows(10)))) == 8


def test_columns_are_mapped_templates_and_nested_ones_included(tmp_path: Path) -> None:
    row = {"meta": {"id": "x1", "kind": "sum"}, "Body": "Ann has 2", "Ask": "How many?", "gold": 2.0}
    path = jsonl(tmp_path / "a.jsonl", row)
    columns = {"question": "{Body}. {Ask}", "answer": "gold", "id": "meta.id", "task": "meta.kind"}
    (problem,) = load(source="jsonl", path=path, split="train", columns=columns, kind="number")
    assert problem == Problem("x1", "sum", "Ann has 2. How many?", "2", "number")


@pytest.mark.parametrize(
    ("gold", "options"),
    [
        ("B", ["A)one", "B)two"]),
        ("(b)", ["one", "two"]),
        ("two", ["one", "two"]),
        (1, ["one", "two"]),
        ("2", {"text": ["one", "two"], "label": ["1", "2"]}),
    ],
)
def test_the_right_option_may_be_a_letter_a_text_an_index_or_a_label(tmp_path: Path, gold: Any, options: Any) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"question": "Which?", "answer": gold, "options": options})
    (problem,) = load(source="jsonl", path=path, split="train", columns={"choices": "options"})
    assert problem.question == "Which?\nOptions:\n(A) one\n(B) two"
    assert (problem.answer, problem.kind, problem.choices) == ("(B)", "choice", ("one", "two"))


def test_the_gold_answer_is_the_last_match_of_the_answer_pattern(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"question": "q", "answer": "1 #### 2 \n#### 3 "})
    (problem,) = load(source="jsonl", path=path, split="train", answer_pattern=r"#### (\S+)")
    assert problem.answer == "3"


GOOD = {"question": "q", "answer": "a", "id": "1"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "is not JSON"),
        ('["q", "a"]', "is a JSON list, not an object"),
        ({"question": "q", "answer": None}, "no gold answer: column 'answer' has no value"),
        ({"question": "q", "answer": " "}, "no gold answer: column 'answer' is empty"),
        ({"question": "q", "answer": float("nan")}, "no gold answer"),
        ({"question": "q", "answer": ["a"]}, "holds a list, not a text or number"),
        ({"question": "q", "anwser": "a"}, "did you mean 'anwser'?"),
        ({"question": "", "answer": "a"}, "column 'question' is empty"),
        ({"question": "a\0b", "answer": "a"}, "NUL byte"),
        ('{"question": "a\0b", "answer": "a"}', "NUL byte"),
        ({"question": "\ud800", "answer": "a"}, "lone surrogate"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, line: Any, message: str) -> None:
    path = jsonl(tmp_path / "a.jsonl", GOOD, line, GOOD)
    found = fault(source="jsonl", path=path)
    assert found.startswith(f"{path}:2: ")
    assert message in found


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"question": "\xff", "answer": "a"}\n')
    assert "a.jsonl:1: is not UTF-8" in fault(source="jsonl", path=str(tmp_path / "a.jsonl"))


def test_many_bad_rows_are_reported_at_once(tmp_path: Path) -> None:
    found = fault(source="jsonl", path=jsonl(tmp_path / "a.jsonl", *[{"question": "q"}] * 25))
    assert found.count("a.jsonl:") == 10
    assert "and 15 more rows" in found


def test_a_duplicate_id_names_both_places(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", GOOD, {**GOOD, "question": "other"})
    assert f"{path}:2: id '1' is already the id of {path}:1" in fault(source="jsonl", path=path, columns={"id": "id"})


def test_a_repeated_question_without_ids_is_told_apart(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", GOOD, GOOD)
    first, second = load(source="jsonl", path=path, split="train")
    assert second.id == f"{first.id}-2"


def test_a_missing_file_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    jsonl(tmp_path / "problems.jsonl", GOOD)
    assert "did you mean 'problems.jsonl'" in fault(source="jsonl", path=str(tmp_path / "problem.jsonl"))
    assert f"did you mean '{tmp_path.name}'" in fault(source="jsonl", path=f"{tmp_path}x/problems.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b"\n \n", "the file is empty"),
        ("a.jsonl.gz", b"not gzip", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "cannot be read"),
        ("a.json", b'{"examples": []}', "set `records` to the key of its list of rows, one of ['examples']"),
        ("a.json", b'[{"question": "q",\n"answer"}]', "a.json:2: is not JSON"),
        ("a.json", b"[]", "no train problems"),
        ("a.json", b'[{"question": "q", "answer": ""}]', "a.json: [0]: no gold answer"),
    ],
)
def test_an_unusable_file_says_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in fault(source="jsonl", path=str(tmp_path / name))


def test_a_misspelt_records_key_is_answered_with_the_nearest(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.json", {"canary": "", "examples": [GOOD]})
    assert "did you mean 'examples'" in fault(source="jsonl", path=path, records="example")


def test_descriptions_come_from_a_mapping_or_a_file(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "sums.jsonl", *rows(5))
    file = jsonl(tmp_path / "described.jsonl", {"task_name": "sums", "task_description": "Add."})
    for descriptions in ("Add.", {"sums": "Add."}, {"path": file}):
        problems = load(source="jsonl", path=path, task_descriptions=descriptions)
        assert {problem.task_description for problem in problems} == {"Add."}
    assert "did you mean 'sums'" in fault(source="jsonl", path=path, task_descriptions={"sum": "Add."})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"answer_pattern": "("}, "not a regular expression"),
        ({"answer_pattern": "(a)(b)"}, "has 2 groups"),
        ({"split": {"fraction": 1.0}}, "less than 1"),
        ({"columns": {"qestion": "q"}}, "Extra inputs"),
    ],
)
def test_a_mistaken_file_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CONFIG.validate_python({"source": "jsonl", "path": "a.jsonl", **config})


def test_n_samples_by_question_so_that_a_larger_n_keeps_the_smaller_sample(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", *rows(50))
    few, more = (questions(load(source="jsonl", path=path, n=n)) for n in (10, 11))
    assert few < more
    assert len(more) == 11


def test_another_split_name_is_refused(tmp_path: Path) -> None:
    assert "did you mean 'train'" in fault("trian", source="jsonl", path=jsonl(tmp_path / "a.jsonl", GOOD))


# The cut


@given(
    asked=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30)), min_size=1, max_size=80),
    fraction=st.sampled_from([0.1, 0.29, 0.5, 0.8]),
    seed=st.integers(0, 3),
    by=st.sampled_from(["task", "all"]),
)
@settings(max_examples=100, deadline=None)
def test_a_cut_keeps_every_problem_and_no_question_on_both_sides(
    asked: list[tuple[str, int]], fraction: float, seed: int, by: Any
) -> None:
    problems = [Problem(str(i), task, f"Question {number}", "x") for i, (task, number) in enumerate(asked)]
    rule = Cut(fraction=fraction, seed=seed, by=by)
    train, test = list(cut(problems, rule, "train")), list(cut(problems, rule, "test"))
    assert Counter(train + test) == Counter(problems)
    assert not questions(train) & questions(test)


@given(n=st.integers(1, 300), percent=st.integers(1, 99), tasks=st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_train_gets_exactly_the_floor_of_its_fraction_per_task(n: int, percent: int, tasks: int) -> None:
    problems = [Problem(f"{t}-{i}", str(t), f"Question {i} of {t}", "x") for t in range(tasks) for i in range(n)]
    counts = Counter(problem.task for problem in cut(problems, Cut(fraction=percent / 100), "train"))
    assert all(counts[str(task)] == percent * n // 100 for task in range(tasks))


def test_questions_that_differ_in_case_and_space_only_are_one_question() -> None:
    problems = [Problem(str(i), "a", text, "x") for i, text in enumerate(["Who  is it?", "who is IT?", "b", "c"])]
    for seed in range(8):
        train = {problem.id for problem in cut(problems, Cut(fraction=0.5, seed=seed), "train")}
        assert ("0" in train) == ("1" in train)


# Data sets


def folder(path: Path, table: list[dict[str, Any]], form: str, split: str = "train") -> None:
    from datasets import Dataset

    path.mkdir(parents=True, exist_ok=True)
    data = Dataset.from_list(table)
    data.to_parquet(path / f"{split}-00000.parquet") if form == "parquet" else data.to_json(path / f"{split}.jsonl")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "datasets" in sys.modules:
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_a_data_set_in_the_shape_of_gsm8k(tmp_path: Path, form: str) -> None:
    row = {"question": "2 and 3?", "answer": "2+3=<<2+3=5>>5\n#### 5"}
    for split in ("train", "test"):
        folder(tmp_path / "gsm8k", [row], form, split)
    (problem,) = load("test", source="dataset", path=str(tmp_path / "gsm8k"), answer_pattern="#### (.+)", kind="number")
    assert (problem.task, problem.question, problem.answer, problem.kind) == ("gsm8k", "2 and 3?", "5", "number")


def test_a_data_set_in_the_shape_of_svamp(tmp_path: Path) -> None:
    row = {
        "ID": "chal-1",
        "Body": "Ann has 2.",
        "Question": "How many?",
        "Answer": "2.0",
        "question_concat": "Ann has 2. How many?",
    }
    folder(tmp_path / "svamp", [row], "parquet")
    columns = {"question": "question_concat", "answer": "Answer", "id": "ID"}
    (problem,) = load(source="dataset", path=str(tmp_path / "svamp"), columns=columns)
    assert (problem.id, problem.question, problem.answer) == ("chal-1", "Ann has 2. How many?", "2.0")


def test_a_data_set_with_one_split_is_cut(tmp_path: Path) -> None:
    folder(tmp_path / "bbh", [{"input": f"q{i}", "target": "(A)"} for i in range(10)], "parquet", "test")
    config = {
        "source": "dataset",
        "path": str(tmp_path / "bbh"),
        "columns": {"question": "input", "answer": "target"},
        "split_names": {"train": "test", "test": "test"},
    }
    assert [len(load(split, **config)) for split in ("train", "test")] == [8, 2]


def test_a_fault_of_a_data_set_names_what_was_asked_for(tmp_path: Path) -> None:
    folder(tmp_path / "d", [{"question": "q", "answer": ""}], "parquet")
    path = str(tmp_path / "d")
    assert f"{path}[train] row 0: no gold answer" in fault(source="dataset", path=path)
    assert "split 'test'" in fault("test", source="dataset", path=path)
    assert "split_names does not say" in fault("test", source="dataset", path=path, split_names={"train": "train"})


# reasoning_gym


def test_reasoning_gym_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    assert "cot-distillery[reasoning-gym]" in fault(source="reasoning_gym", tasks=["chain_sum"])


def test_reasoning_gym_tasks_become_problems() -> None:
    pytest.importorskip("reasoning_gym", reason="extra reasoning-gym is not installed")
    config = {"source": "reasoning_gym", "tasks": ["chain_sum", "leg_counting"], "n": 20}
    train, test = load("train", **config), load("test", **config)
    assert Counter(problem.task for problem in train) == {"chain_sum": 10, "leg_counting": 10}
    assert not questions(train) & questions(test)
    assert "did you mean 'chain_sum'" in fault(source="reasoning_gym", tasks=["chain_sun"])
    assert "max_term" in fault(source="reasoning_gym", tasks=["chain_sum"], settings={"chain_sum": {"max_term": 3}})


# Real files


@real
def test_bbh_is_cut_four_to_one_within_each_of_its_27_tasks() -> None:
    config: dict[str, Any] = {
        "source": "jsonl",
        "path": str(needs("bbh") / "bbh" / "*.json*"),
        "records": "examples",
        "columns": {"question": "input", "answer": "target"},
        "task_descriptions": {"path": str(needs("edit_cascod") / "dataset" / "bbh" / "bbh_all_data" / "*.json.gz")},
    }
    train, test = load("train", **config), load("test", **config)
    assert (len(train), len(test)) == (5207, 1304)
    assert not questions(train) & questions(test)
    assert len({problem.task for problem in train}) == 27
    assert all(problem.task_description for problem in train)


@real
def test_gsm8k_files_have_their_own_splits() -> None:
    path = str(needs("gsm8k") / "{split}.jsonl.gz")
    config = {"source": "jsonl", "path": path, "answer_pattern": "#### (.+)", "kind": "number"}
    assert [len(load(split, **config)) for split in ("train", "test")] == [7473, 1319]
    assert load("test", **config)[0].answer == "18"


@real
def test_svamp_is_one_json_list() -> None:
    path = str(needs("svamp") / "SVAMP.json.gz")
    columns = {"question": "{Body}. {Question}", "answer": "Answer", "id": "ID", "task": "Type"}
    problems = load("test", source="jsonl", path=path, split="test", columns=columns, kind="number")
    assert len(problems) == 1000
    assert problems[0].answer == "51"


@pytest.mark.parametrize(("name", "delimiter"), [("t.tsv", "\t"), ("t.csv", ","), ("t.tsv.gz", "\t")])
def test_a_table_is_read_as_rows_of_its_columns(tmp_path: Path, name: str, delimiter: str) -> None:
    cells = ["question", "answer", "batch"], [f'"Is{delimiter} it\n""so""?"', "yes", "7"], ["Is it not?", "no", "7"]
    text = "\n".join(delimiter.join(line) for line in cells) + "\n"
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    found = load(source="jsonl", path=str(tmp_path / name), columns={"pair": "batch"}, split="train")
    assert [(one.question, one.answer, one.pair, one.task) for one in found] == [
        (f'Is{delimiter} it\n"so"?', "yes", "7", "t"),
        ("Is it not?", "no", "7", "t"),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"question\tanswer\nIs it?\n", r"t\.tsv:2: has 1 cells, and the table 2 columns"),
        (b"question\tanswer\nIs \xff it?\tno\n", "t.tsv:2: is not UTF-8: .*invalid start byte"),
        (b'question\tanswer\n"Is it?\tno\n', "is no table: unexpected end of data"),
    ],
)
def test_a_faulty_table_is_told_with_its_line(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "t.tsv").write_bytes(content)
    assert re.search(told, fault(source="jsonl", path=str(tmp_path / "t.tsv"), split="train"))


def test_pairs_of_the_bank_are_minimal_and_both_on_the_side_of_the_split() -> None:
    config = {"source": "procedural_pairs", "tasks": ["contests", "duels"], "n": 40, "n_test": 30}
    for split, count in (("train", 40), ("test", 30)):
        drawn = load(split, **config)
        ones, others = drawn[::2], drawn[1::2]
        assert len(ones) == len(others) == count
        for one, other in zip(ones, others, strict=True):
            assert (one.pair, other.pair, other.id) == (one.id, one.id, f"{one.id}#1")
            words = zip(one.question.split(), other.question.split(), strict=True)
            assert sum(a != b for a, b in words) == 1
            assert {one.answer, other.answer} == {"yes", "no"}
    plain = load(source="procedural", tasks=["contests", "duels"], n=400, seed=5)
    assert not questions(plain) & questions(load("test", **config))


def test_a_family_without_edits_gives_no_pairs() -> None:
    with pytest.raises(ValidationError, match=r"'dates' has no edits, allowed: .*contests"):
        load(source="procedural_pairs", tasks=["dates"])
