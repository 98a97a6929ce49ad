"""A student is asked, and what it said survives whatever happens to the process that asked."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.chains import ANSWERS, PROMPT, REASONS
from tests.records import saved_student
from tests.tiny_recipe import EDIT, written
from tests.tiny_students import tiny_llama, tiny_tokenizer
from toolkit import evaluation
from toolkit.cli import open_recipe
from toolkit.decode_procedures import Procedure, TurnPlan, plan
from toolkit.decoding import Decoding, generate
from toolkit.errors import UserError
from toolkit.evaluation import EvaluationResult, evaluate_student
from toolkit.problem import Problem
from toolkit.recipe import Decode, View
from toolkit.scoring import check_questions

PROBLEMS = [
    Problem(id=f"sums/{number}", task="sums", question=f"Tom has {number} boxes. How many apples?", answer=str(number))
    for number in range(5)
]
GREEDY = Decoding(max_new_tokens=6)
SAMPLED = Decoding(max_new_tokens=6, samples=2, temperature=1.0)


ONCE = Procedure((TurnPlan("cot", "Q: {question}\nA:", ((" {answer}", "answer", 1.0),), max_new_tokens=6),))


def prompt(problem: Problem) -> str:
    return f"Q: {problem.question}\nA:"


@pytest.fixture(scope="module")
def student() -> Any:
    return tiny_llama()


def scored(student: Any, folder: Path, settings: Decoding = GREEDY, **changed: Any) -> EvaluationResult:
    arguments = {"problems": PROBLEMS, "batch_size": 2, "seed": 0, "path": folder / "samples.parquet", **changed}
    problems = arguments.pop("problems")
    procedure = arguments.pop("procedure", ONCE)
    tokenizer = arguments.pop("tokenizer", tiny_tokenizer())
    return evaluate_student(student, tokenizer, problems, procedure, settings, **arguments)


class Interrupted(Exception):
    pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that the student is asked from now on; two more batches after the word `interrupt` stands in it."""
    prompts: list[str] = []
    decode = evaluation.generate_batches

    def recording(model: Any, tokenizer: Any, rows: Any, *args: Any, **kwargs: Any) -> Any:
        interrupted = "interrupt" in prompts
        prompts.extend(prompt for prompt, _ in rows)
        for place, batch in enumerate(decode(model, tokenizer, rows, *args, **kwargs)):
            if interrupted and place == 2:
                raise Interrupted
            yield batch

    monkeypatch.setattr(evaluation, "generate_batches", recording)
    return prompts


def test_every_completion_is_kept_in_the_file(student: Any, tmp_path: Path) -> None:
    from pyarrow import parquet

    result = scored(student, tmp_path, SAMPLED)
    rows = parquet.read_table(tmp_path / "samples.parquet").to_pylist()
    assert rows == result.rows
    assert [(row["id"], row["sample"]) for row in rows] == [(p.id, sample) for p in PROBLEMS for sample in (0, 1)]
    assert not (tmp_path / "samples.parquet.parts").exists()


def test_completions_are_those_of_the_decoder(student: Any, tmp_path: Path) -> None:
    rows = scored(student, tmp_path).rows
    direct = generate(student, tiny_tokenizer(), [prompt(p) for p in PROBLEMS], max_new_tokens=6, batch_size=5, seed=0)
    assert [row["completion"] for row in rows] == [samples[0].text for samples in direct]


def test_the_summary_names_what_the_score_belongs_to(student: Any, tmp_path: Path) -> None:
    summary = scored(student, tmp_path).summary
    assert summary["n"] == summary["by_task"]["sums"]["n"] == 5
    assert summary["settings"]["turns"][0]["max_new_tokens"] == 6
    assert summary["settings"]["extractor"].startswith("toolkit.answers@")


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_an_interrupted_evaluation_goes_on_where_it_was_and_ends_the_same(
    student: Any, tmp_path: Path, asked: list[str], settings: Decoding
) -> None:
    whole = scored(student, tmp_path / "whole", settings)
    asked[:] = ["interrupt"]
    with pytest.raises(Interrupted):
        scored(student, tmp_path / "cut", settings)
    asked.clear()
    resumed = scored(student, tmp_path / "cut", settings)
    assert len(asked) == 5 * settings.samples - 4
    assert resumed.rows == whole.rows


def test_a_finished_evaluation_asks_nothing(student: Any, tmp_path: Path, asked: list[str]) -> None:
    first = scored(student, tmp_path)
    asked.clear()
    again = scored(student, tmp_path)
    assert asked == []
    assert again.rows == first.rows


def test_a_new_problem_is_the_only_one_asked(student: Any, tmp_path: Path, asked: list[str]) -> None:
    scored(student, tmp_path, problems=PROBLEMS[:4])
    asked.clear()
    scored(student, tmp_path)
    assert asked == [prompt(PROBLEMS[4])]


@pytest.mark.parametrize(
    "change",
    [{"settings": Decoding(max_new_tokens=5)}, {"seed": 1}, {"student": tiny_llama(seed=1)}],
    ids=["settings", "seed", "student"],
)
def test_completions_of_another_student_or_setting_are_not_taken(
    student: Any, tmp_path: Path, asked: list[str], change: dict[str, Any]
) -> None:
    scored(student, tmp_path)
    asked.clear()
    scored(**{"student": student, "folder": tmp_path, **change})
    assert len(asked) == 5


def test_no_problems_are_a_users_mistake(student: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="in_domain: there are no problems"):
        scored(student, tmp_path, problems=[], title="in_domain")


def test_two_problems_of_one_id_are_a_users_mistake(student: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ids are not unique"):
        scored(student, tmp_path, problems=[*PROBLEMS, PROBLEMS[0]])


# --- several turns

VIEWS = {"rationale": REASONS, "answer": ANSWERS, "label": {"prompt": PROMPT, "target": [" {answer}"]}}


def procedure_of(*turns: dict[str, Any], **views: dict[str, Any]) -> Procedure:
    """Return the procedure of these turns, six tokens each."""
    first, *then = ({"max_new_tokens": 6, **turn} for turn in turns)
    read = Decode.model_validate({**first, "then": then})
    known = {**VIEWS, **views}
    return Procedure(tuple(plan(turn.view, View.model_validate(known[turn.view]), turn) for turn in read.turns))


CASCADE = procedure_of({"view": "rationale"}, {"view": "answer"})
CHOOSING = procedure_of({"view": "rationale"}, {"view": "answer", "choices": {"write": "{text}"}})
OF_COLOURS = [
    Problem(
        id=f"colours/{number}",
        task="colours",
        question=f"Which has {number} letters?",
        answer="red",
        kind="text",
        choices=("red", "a deep and dark blue", "green"),
    )
    for number in range(5)
]


def test_a_cascade_asks_a_second_time_with_what_the_first_time_gave(student: Any, tmp_path: Path) -> None:
    rows = scored(student, tmp_path, procedure=CASCADE).rows
    tokenizer = tiny_tokenizer()
    first = generate(student, tokenizer, [prompt(p) for p in PROBLEMS], max_new_tokens=6, batch_size=5, seed=0)
    for row, problem, (said,) in zip(rows, PROBLEMS, first, strict=True):
        one, two = row["turns"]
        assert (one["prompt"], one["completion"]) == (prompt(problem), said.text)
        rationale = said.text.removeprefix(" ") if said.text.startswith(" ") else said.text.lstrip()
        assert two["prompt"] == row["prompt"] == f"{prompt(problem)} {rationale}\nTherefore, the answer is"
        assert two["completion"] == row["completion"]
        assert row["tokens"] == one["tokens"] + two["tokens"]
        assert row["stopped"] == (one["stopped"] and two["stopped"])


class Cut:
    """Lets so many batches of the student's second turn through, and then ends the process's work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, function: str, batches: int, turn: int) -> None:
        self.asked: list[str] = []
        self.left: int | None = batches
        turns = iter(range(turn))
        do = getattr(evaluation, function)

        def generate_batches(model: Any, tokenizer: Any, rows: Any, *args: Any, **kwargs: Any) -> Any:
            is_cut = next(turns, None) is None
            self.asked += [prompt for prompt, _ in rows]
            for batch in do(model, tokenizer, rows, *args, **kwargs):
                if is_cut and self.left == 0:
                    raise Interrupted
                self.left = self.left - 1 if is_cut and self.left else self.left
                yield batch

        def log_likelihoods(model: Any, tokenizer: Any, views: Any, *args: Any) -> Any:
            if self.left == 0:
                raise Interrupted
            self.left = self.left - 1 if self.left else self.left
            self.asked += [view.prompt for view in views]
            return do(model, tokenizer, views, *args)

        monkeypatch.setattr(evaluation, function, locals()[function])


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_cascade_that_is_interrupted_in_its_second_turn_asks_nothing_twice(
    student: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Decoding
) -> None:
    whole = scored(student, tmp_path / "whole", settings, procedure=CASCADE)
    cut = Cut(monkeypatch, "generate_batches", batches=1, turn=1)
    with pytest.raises(Interrupted):
        scored(student, tmp_path / "cut", settings, procedure=CASCADE)
    cut.left = None
    cut.asked.clear()
    resumed = scored(student, tmp_path / "cut", settings, procedure=CASCADE)
    assert len(cut.asked) == 5 * settings.samples - 2
    assert all("Therefore" in text for text in cut.asked)
    assert resumed.rows == whole.rows


def test_the_finished_file_knows_all_turns(student: Any, tmp_path: Path, asked: list[str]) -> None:
    first = scored(student, tmp_path, procedure=CASCADE)
    assert len(asked) == 10
    asked.clear()
    again = scored(student, tmp_path, procedure=CASCADE)
    assert asked == []
    assert again.rows == first.rows


def test_two_turns_with_the_same_prompt_are_two_completions(student: Any, tmp_path: Path, asked: list[str]) -> None:
    of = procedure_of({"view": "rationale"}, {"view": "label", "max_new_tokens": 2})
    result = scored(student, tmp_path, procedure=of)
    assert len(asked) == 10
    for row in result.rows:
        one, two = row["turns"]
        assert one["prompt"] == two["prompt"]
        assert (one["tokens"], two["tokens"]) == (6, 2)
    asked.clear()
    assert scored(student, tmp_path, procedure=of).rows == result.rows
    assert asked == []


def test_in_chat_format_every_turn_is_a_turn_of_the_template(student: Any, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    plain = Decoding(max_new_tokens=6, add_special_tokens=False)
    rows = scored(student, tmp_path, plain, procedure=CASCADE, prompt_format="chat", tokenizer=tokenizer).rows
    for row, problem in zip(rows, PROBLEMS, strict=True):
        one, two = row["turns"]
        assert one["prompt"] == f"<user>{prompt(problem)}<assistant>"
        assert two["prompt"].startswith(f"<user>{prompt(problem)} ")
        assert two["prompt"].endswith("\nTherefore, the answer is<assistant>")


@pytest.mark.parametrize("choices", [None, {"write": "{text}"}], ids=["written", "compared"])
def test_a_later_prompt_without_room_is_the_students_failure(
    tmp_path: Path, choices: dict[str, Any] | None, asked: list[str]
) -> None:
    narrow = tiny_llama(max_position_embeddings=64)
    long = {"prompt": "{question} {chain.rationale}" + " x" * 60, "target": [" {answer}"]}
    of = procedure_of({"view": "rationale"}, {"view": "long", "choices": choices}, long=long)
    result = scored(narrow, tmp_path, procedure=of, problems=OF_COLOURS)
    assert len(asked) == 5
    assert [(row["completion"], row["parsed"], row["stopped"]) for row in result.rows] == [("", False, False)] * 5
    assert (result.score.truncated_rate, result.score.parse_failure_rate) == (1.0, 1.0)


def test_an_empty_later_prompt_is_the_students_failure(
    student: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = {"prompt": "{chain.rationale}", "target": [" {answer}"]}
    of = procedure_of({"view": "rationale"}, {"view": "nothing"}, nothing=nothing)

    def silent(model: Any, tokenizer: Any, rows: Any, *args: Any, **kwargs: Any) -> Any:
        yield from ({place: evaluation.Generation("", 1, True)} for place in range(len(rows)))

    monkeypatch.setattr(evaluation, "generate_batches", silent)
    assert scored(student, tmp_path, procedure=of).score.truncated_rate == 1.0


def test_a_first_prompt_without_room_is_the_users_mistake(tmp_path: Path) -> None:
    narrow = tiny_llama(max_position_embeddings=8)
    of = procedure_of({"view": "label", "choices": {}})
    with pytest.raises(UserError, match=r"decode\.choices: question 'colours/0' with its options has more tokens"):
        scored(narrow, tmp_path, procedure=of, problems=OF_COLOURS)


@pytest.mark.parametrize(
    ("overrides", "positions", "fits"),
    [
        (["decode.max_new_tokens=40"], 64, True),
        (["decode.max_new_tokens=60"], 64, False),
        (["decode.choices={}", "decode.max_new_tokens=60"], 64, True),
        (["decode.choices={write: '{text}'}"], 32, False),
    ],
    ids=["written", "too long", "compared", "compared, too long"],
)
def test_room_for_the_first_turn_is_looked_after_before_training(
    tmp_path: Path, overrides: list[str], positions: int, fits: bool
) -> None:
    view = ["stages.0.views.cot.target=[' {right.answer}']"]
    recipe = open_recipe(str(written(tmp_path, EDIT)), [*view, *overrides])
    start = saved_student(tmp_path / "start", max_position_embeddings=positions)
    questions = nullcontext() if fits else pytest.raises(UserError, match="leave no room")
    with questions:
        check_questions(recipe, ["imitate"], start, {"colours": OF_COLOURS})


# --- options that are compared


def likelihoods(student: Any, problem: Problem, rationale: str) -> list[float]:
    """The mean log-likelihood of each option's tokens behind the second turn's prompt, by the plain model."""
    tokenizer = tiny_tokenizer()
    read = f"{prompt(problem)} {rationale}\nTherefore, the answer is"
    worth = []
    for choice in problem.choices:
        before, ids = (tokenizer(text)["input_ids"] for text in (read, f"{read} {choice}."))
        with torch.no_grad():
            chances = student(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        scored_ids = range(len(before), len(ids))
        worth.append(sum(chances[place - 1, ids[place]].item() for place in scored_ids) / len(scored_ids))
    return worth


@pytest.mark.parametrize("normalise", [False, True])
def test_the_likeliest_option_is_the_answer(student: Any, tmp_path: Path, normalise: bool) -> None:
    of = procedure_of({"view": "rationale"}, {"view": "answer", "choices": {"write": "{text}", "normalise": normalise}})
    rows = scored(student, tmp_path, procedure=of, problems=OF_COLOURS).rows
    tokenizer = tiny_tokenizer()
    for row, problem in zip(rows, OF_COLOURS, strict=True):
        said = row["turns"][0]["completion"]
        worth = likelihoods(student, problem, said.removeprefix(" ") if said.startswith(" ") else said.lstrip())
        lengths = [len(tokenizer(f" {choice}.")["input_ids"]) for choice in problem.choices]
        of_options = worth if normalise else [mean * n for mean, n in zip(worth, lengths, strict=True)]
        assert row["completion"] == f" {problem.choices[of_options.index(max(of_options))]}."
        assert row["predicted"] == problem.choices[of_options.index(max(of_options))]


@pytest.mark.parametrize(("normalise", "chosen"), [(False, "red"), (True, "a deep and dark blue")])
def test_normalising_takes_the_length_out(
    student: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalise: bool, chosen: str
) -> None:
    worth = {"red": (-3.0, 1), "a deep and dark blue": (-10.0, 5), "green": (-9.0, 2)}
    monkeypatch.setattr(
        evaluation,
        "log_likelihoods",
        lambda m, t, views, *_: [worth[view.target[0].text.strip(" .")] for view in views],
    )
    of = procedure_of({"view": "label", "choices": {"write": "{text}", "normalise": normalise}})
    result = scored(student, tmp_path, procedure=of, problems=OF_COLOURS)
    assert {row["predicted"] for row in result.rows} == {chosen}
    assert result.score.accuracy == float(chosen == "red")
    assert result.score.generated_tokens == 0


def test_a_comparison_that_is_interrupted_compares_nothing_twice(
    student: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    whole = scored(student, tmp_path / "whole", procedure=CHOOSING, problems=OF_COLOURS)
    cut = Cut(monkeypatch, "log_likelihoods", batches=1, turn=0)
    with pytest.raises(Interrupted):
        scored(student, tmp_path / "cut", procedure=CHOOSING, problems=OF_COLOURS)
    cut.left = None
    cut.asked.clear()
    asked.clear()
    resumed = scored(student, tmp_path / "cut", procedure=CHOOSING, problems=OF_COLOURS)
    assert asked == []
    assert len(cut.asked) == 3 * (5 - 2)
    assert resumed.rows == whole.rows
