from __future__ import annotations

from pathlib import Path

import pytest

import dataset_builders
from toolkit.errors import UserError
from toolkit.problem import Problem
from toolkit.prompts import Exemplar, PromptBook, Template, read_template

DEFAULTS = Path(dataset_builders.__file__).parent / "prompts"
ADD = Problem(id="p", task="sums", question="3 + 4?", answer="7", task_description="Add up.")


def rendered(kind: str, problem: Problem = ADD, **slots: object) -> str:
    return PromptBook(DEFAULTS).render(kind, problem, **slots)[0]


def test_the_cot_prompt_has_the_documented_layout() -> None:
    assert rendered("cot") == (
        'Add up. Your response should conclude with the format "Therefore, the answer is".\n\n'
        "Q: 3 + 4?\nA: Let's think step by step."
    )


def test_the_answer_hint_stands_between_question_and_answer() -> None:
    assert rendered("answer_hint").endswith("\n\nQ: 3 + 4?\nH: The correct answer is 7.\nA: Let's think step by step.")


def test_the_contrastive_prompt_has_the_documented_layout() -> None:
    shown = [Exemplar("1 + 1?", "It is 2.", "It is 3.")]

    prompt = rendered("contrastive", right="It is 7.", exemplars=shown)

    assert prompt.startswith("Question Description: Add up.\nYou need to complete the Wrong Response which requires")
    assert prompt.endswith(
        "in the Right Response.\n\n"
        "Q: 1 + 1?\n\nRight Response: It is 2.\n\nWrong Response: It is 3.\n\n"
        "Q: 3 + 4?\n\nRight Response: It is 7.\n\nWrong Response:"
    )


def test_a_task_without_description_leaves_no_gap() -> None:
    bare = Problem(id="p", task="sums", question="3 + 4?", answer="7")

    assert rendered("cot", bare).startswith("Your response should conclude")
    assert rendered("contrastive", bare).startswith("You need to complete")


@pytest.mark.parametrize("text", ["{{ answer }}", "{% if x %}", "{QUESTION}", "{RIGHT}", "<b>&"])
def test_what_is_put_into_a_prompt_is_never_read_as_a_template(text: str) -> None:
    hostile = Problem(id="p", task="sums", question=text, answer="7")

    assert f"\n\nQ: {text}\nA:" in rendered("cot", hostile)
    assert Template("cot", "Q: {QUESTION} {RIGHT}", is_jinja=False).render(hostile, right="r") == f"Q: {text} r"


def test_an_unknown_variable_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cot.jinja"
    path.write_text("{{ questoin }}")
    with pytest.raises(UserError, match="questoin"):
        read_template("cot", path).render(ADD)


def test_a_syntax_error_is_named_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "cot.jinja"
    path.write_text("fine\n{% if %}")
    with pytest.raises(UserError, match=r"cot\.jinja:2"):
        read_template("cot", path)


def test_every_task_may_have_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "sums.txt").write_text("Sum! Q: {QUESTION}\nH: {CORRECT}")

    book = PromptBook(DEFAULTS, {"cot": f"{tmp_path}/{{task}}.txt"})

    assert book.render("cot", ADD)[0] == "Sum! Q: 3 + 4?\nH: 7"


def test_a_task_without_its_file_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "sum.txt").write_text("Q: {QUESTION}")
    with pytest.raises(UserError, match=r"did you mean 'sum\.txt'"):
        PromptBook(DEFAULTS, {"cot": f"{tmp_path}/{{task}}.txt"}).render("cot", ADD)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a \.jinja or a \.txt file"):
        read_template("cot", tmp_path / "cot.md")


def test_a_list_of_exemplars_gets_the_query_and_loses_its_canary(tmp_path: Path) -> None:
    path = tmp_path / "sums.txt"
    path.write_text("BENCHMARK DATA canary GUID 26b5\n-----\nSum.\n\nQ: 1 + 1?\nA: It is 2.\n")

    template = read_template("cot", path)

    assert template.render(ADD) == "Sum.\n\nQ: 1 + 1?\nA: It is 2.\n\nQ: 3 + 4?\nA: Let's think step by step."


def test_a_label_changes_with_the_text_of_the_template() -> None:
    one, other = Template("cot", "a", is_jinja=True).label, Template("cot", "b", is_jinja=True).label

    assert one != other
    assert one.startswith("cot@")


def test_a_prompt_that_never_shows_the_question_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cot.jinja"
    path.write_text("Think step by step.")
    with pytest.raises(UserError, match=r"cot\.jinja: the prompt never shows \{\{ question \}\}"):
        read_template("cot", path)


def test_a_faulty_prompt_of_a_later_round_is_told_before_the_first_round(tmp_path: Path) -> None:
    path = tmp_path / "contrastive.jinja"
    path.write_text("{{ question }} {{ wrnog }}")
    with pytest.raises(UserError, match=r"contrastive\.jinja: no variable 'wrnog'.*did you mean 'wrong'"):
        PromptBook(DEFAULTS, {"contrastive": str(path)})
