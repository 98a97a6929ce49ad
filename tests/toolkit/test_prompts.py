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


def test_a_template_is_given_all_that_there_is_of_a_problem_and_a_request(tmp_path: Path) -> None:
    names = ("task", "task_description", "question", "choices", "answer", "right", "wrong", "answer_phrase", "other")
    path = tmp_path / "edit.jinja"
    path.write_text("|".join(f"{{{{ {name} }}}}" for name in (*names, "field", "text", "labels", "exemplars[0].wrong")))
    problem = Problem("p", "sums", "3 + 4?", "7", choices=("6", "7"), task_description="Add up.")
    slots = {"right": "R", "wrong": "W", "other": "O", "field": "F", "text": "T", "labels": ["a", "b"]}
    shown = read_template("edit", path).render(problem, exemplars=[Exemplar("q", "r", "w")], **slots)
    assert shown == "sums|Add up.|3 + 4?|('6', '7')|7|R|W|Therefore, the answer is|O|F|T|['a', 'b']|w"
    bare = read_template("edit", path)
    with pytest.raises(UserError, match=r"^prompt template 'edit': .*no element 0"):
        bare.render(problem)
    path.write_text(
        "{{ question }}|{{ right }}{{ wrong }}{{ other }}{{ field }}{{ text }}|{{ labels }}|{{ exemplars }}"
    )
    assert read_template("edit", path).render(problem) == "3 + 4?||()|()"


def test_a_template_of_slots_is_given_question_answer_and_both_chains() -> None:
    template = Template("contrastive", "{QUESTION} {CORRECT} {RIGHT} {WRONG} {OTHER}", is_jinja=False)
    assert template.render(ADD, right="r", wrong="w") == "3 + 4? 7 r w {OTHER}"
    assert template.render(ADD) == "3 + 4? 7   {OTHER}"


def test_blocks_take_their_line_break_with_them_and_nothing_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "cot.jinja"
    path.write_text("{% if question %}\n<{{ question }}> & {{ answer }}\n{% endif %}\n")
    assert read_template("cot", path).render(ADD) == "<3 + 4?> & 7\n"


@pytest.mark.parametrize("kind", ["edit", "refute"])
def test_a_prompt_towards_another_answer_has_to_show_it(kind: str, tmp_path: Path) -> None:
    for name, text, said in (
        ("p.jinja", "{{ question }}", r"the prompt never shows \{\{ other \}\}"),
        ("p.txt", "{QUESTION}", rf"a prompt for '{kind}' has to show \['other'\], which only a \.jinja file can"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=said):
            read_template(kind, tmp_path / name)
        assert read_template("cot", tmp_path / name).text == text


@pytest.mark.parametrize("content", [None, b"\xff {{ question }}"])
def test_a_file_that_cannot_be_read_is_named_and_so_is_one_like_it(content: bytes | None, tmp_path: Path) -> None:
    (tmp_path / "cots.jinja").write_text("{{ question }}")
    (tmp_path / "cot.txt").write_text("{QUESTION}")
    if content is not None:
        (tmp_path / "cot.jinja").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read prompt template .*cot\.jinja: .*did you mean 'cots\.jinja'"):
        read_template("cot", tmp_path / "cot.jinja")


def test_an_unknown_variable_is_told_with_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "cot.jinja"
    path.write_text("{{ question }} {{ zebra }} {{ aardvark }}")
    allowed = "answer, answer_phrase, choices, exemplars, field, labels, other, question, right, task, task_description"
    with pytest.raises(UserError, match=rf"no variable 'aardvark', allowed {allowed}, text, wrong$"):
        read_template("cot", path)


def test_a_file_of_slots_that_shows_its_question_keeps_its_canary_and_its_end(tmp_path: Path) -> None:
    text = "canary GUID 26b5\n-----\nQ: {QUESTION}\n\n"
    (tmp_path / "sums.txt").write_text(text)
    assert read_template("cot", tmp_path / "sums.txt") == Template("cot", text, is_jinja=False)


def test_a_book_reads_a_file_once_and_names_what_it_has_used(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("{{ question }}")
    book = PromptBook(DEFAULTS, {"cot": str(path), "answer_hint": None})
    assert book.labels() == []
    text, label = book.render("cot", ADD)
    path.write_text("{{ question }}!")
    assert book.render("cot", ADD) == (text, label) == ("3 + 4?", "cot@ef6fb466")
    hint = book.template("answer_hint", "sums")
    assert hint.text == (DEFAULTS / "answer_hint.jinja").read_text()
    assert book.labels() == sorted([label, hint.label])
    assert book.template("answer_hint", "another task") is hint


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
