"""Decoding's ids are a beginning of training's, control tokens are no text, and what breaks this is named in time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from tests.records import TRAINING
from tests.tiny_recipe import EDIT, written
from tests.tiny_students import tiny_llama
from tests.tokenizer_families import CHATML, END, OPEN, tokenizer_of
from toolkit import cli, pipeline
from toolkit.decoding import generate
from toolkit.encoding import encode
from toolkit.errors import UserError
from toolkit.problem import Problem
from toolkit.recipe import Recipe, Stage
from toolkit.scoring import check_questions
from toolkit.seams import check_views
from toolkit.stages import encode_stage
from toolkit.students import add_tokens, load_tokenizer
from toolkit.tokenized_views import tokenize
from toolkit.tokenizing import prompt_ids
from toolkit.views import RenderedView, Segment

QUESTION = "What is 3 + 4?"


def rows(*answers: str, question: str = QUESTION) -> list[dict[str, Any]]:
    return [{"id": f"r/{place}", "question": question, "answer": answer} for place, answer in enumerate(answers)]


def stage(prompt: str, *target: Any, **view: Any) -> Stage:
    views = {"cot": {"prompt": prompt, "target": list(target), **view}}
    return Stage.model_validate({"name": "train", "views": views, "training": TRAINING})


def recipe(
    prompt: str, *target: str, decode: dict[str, Any] | None = None, evaluation: Any = None, **student: Any
) -> Recipe:
    return Recipe.model_validate(
        {
            "recipe": {"name": "r", "version": 1},
            "dataset": {"repo_id": "data", "revision": "v1.0.0"},
            "student": {"model_name_or_path": "student", **student},
            "stages": [{"name": "train", "views": {"cot": {"prompt": prompt, "target": list(target)}}}],
            "decode": {"view": "cot", **(decode or {})},
            "evaluation": evaluation,
        }
    )


def loaded(folder: Path, family: str = "llama3", **changes: Any) -> str:
    """Save a tiny student with a tokenizer of a family and return its folder."""
    tokenizer = tokenizer_of(family)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    tiny_llama(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


# --- seams


@pytest.mark.parametrize(
    ("family", "prompt_format", "prompt", "target", "remedy"),
    [
        ("llama3", "plain", "Q: {question}\nA:", "\n{answer}", r"end the prompt with ':\\n' and begin the target with"),
        ("llama3", "chat", "{question}", "\n{answer}", "begin the target with 'T'"),
        ("gpt2", "plain", "Q: {question}\nA: ", "{answer}", "end the prompt with ':' and begin the target with ' T'"),
        (
            "gpt2",
            "plain",
            "Q: {question}\n\n",
            "{answer}",
            r"end the prompt with 's\\n' and begin the target with '\\n",
        ),
        ("llama3", "plain", "Q: {question}\nThe answ", "er {answer}", r"end the prompt with 'w\\n' and begin"),
    ],
)
def test_a_seam_that_every_record_runs_together_is_refused_with_both_sides_and_the_remedy(
    family: str, prompt_format: str, prompt: str, target: str, remedy: str
) -> None:
    with pytest.raises(UserError, match=remedy) as refused:
        check_views(recipe(prompt, target, prompt_format=prompt_format), tokenizer_of(family))
    assert str(refused.value).startswith("stages.train.views.cot: ")
    assert str(refused.value).count("(ids [") == 2
    with pytest.raises(UserError, match=r"3 of 3 records .* left out: 3 cot: .* Move the whitespace: "):
        encode_stage(tokenizer_of(family), rows(*["Tom"] * 3), stage(prompt, target), None, prompt_format)


def test_the_tokens_that_are_shown_are_those_of_decoding_and_of_training() -> None:
    tokenizer = tokenizer_of("llama3")
    asked, shown = (tokenizer(f"Q: {QUESTION}\nA:{end}")["input_ids"] for end in ("", "\nTom"))
    with pytest.raises(UserError) as refused:
        encode_stage(tokenizer, rows("Tom"), stage("Q: {question}\nA:", "\n{answer}"), None, "plain")
    assert f"decoding gives ['\\n', 'A', ':'] (ids {asked[-3:]})" in str(refused.value)
    assert f"training has ['\\n', 'A', ':\\n', 'Tom'] (ids {shown[len(asked) - 3 :]})" in str(refused.value)


def test_what_a_few_records_run_together_leaves_these_out_and_counts_them() -> None:
    records = rows("seven", "\nTom", *["seven"] * 40)
    columns, report = encode(tokenizer_of("llama3"), records, stage("Q: {question}\nA:", "{answer}"), None)
    assert list(report.dropped) == ["r/1"]
    assert "runs the prompt's end and the target's start together" in report.dropped["r/1"]
    assert len(columns["input_ids"]) == 41
    encode_stage(tokenizer_of("llama3"), records, stage("Q: {question}\nA:", "{answer}"), None, "plain")


def test_a_forced_beginning_is_a_beginning_of_training_too() -> None:
    views = ("Q: {question}\nA:", " [cot]:", "\n{answer}")
    check_views(recipe(*views), tokenizer_of("llama3"))
    with pytest.raises(UserError, match=r"decoding gives .*':'\].*training has .*':\\n'"):
        check_views(recipe(*views, decode={"forced": 1}), tokenizer_of("llama3"))


# --- tokenizers that open and close every text

CLOSING = {
    "closed": (f"$A {END}", []),
    "opened and closed": (f"{OPEN} $A {END}", [OPEN]),
    "opened": (f"{OPEN} $A", [OPEN]),
    "closed twice": (f"$A {END} {END}", []),
}


def closing(name: str) -> Any:
    tokenizer = tokenizer_of("gpt2")
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (OPEN, END)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(CLOSING[name][0], special_tokens=ids)
    return tokenizer


@pytest.mark.parametrize("name", CLOSING)
def test_a_prompt_is_closed_neither_for_training_nor_for_decoding(name: str) -> None:
    tokenizer, bare = closing(name), tokenizer_of("gpt2")
    opening = tokenizer.convert_tokens_to_ids(CLOSING[name][1])
    prompt, target = f"Q: {QUESTION}\nA:", " seven"
    (tokens,) = tokenize(tokenizer, [RenderedView(prompt, (Segment(target, "answer"),))])
    assert tokens.input_ids.tolist() == [*opening, *bare(prompt + target)["input_ids"], tokenizer.eos_token_id]
    assert prompt_ids(tokenizer, [prompt], True) == [[*opening, *bare(prompt)["input_ids"]]]
    assert tokens.segments.tolist().index(0) == len(opening) + len(bare(prompt)["input_ids"])


def test_a_student_writes_the_same_whether_or_not_its_tokenizer_closes_texts() -> None:
    bare, prompts = tokenizer_of("gpt2"), [f"Q: {QUESTION}\nA:", "Q: Who?\nA:"]
    student = tiny_llama(bare)
    told = [
        generate(student, one, prompts, max_new_tokens=8, batch_size=2, seed=0) for one in (bare, closing("closed"))
    ]
    assert [answer.ids for [answer] in told[0]] == [answer.ids for [answer] in told[1]]
    assert all(answer.ids for [answer] in told[0])


def test_an_end_of_sequence_that_a_prompt_writes_itself_stays_there() -> None:
    tokenizer = closing("closed")
    assert prompt_ids(tokenizer, [f"A:{END}"], True) == [[*tokenizer_of("gpt2")("A:")["input_ids"], 1]]


# --- control tokens in records


@pytest.mark.parametrize("prompt_format", ["plain", "chat"])
@pytest.mark.parametrize(
    "record",
    [{"answer": f"3{END}4"}, {"answer": f"seven{END}"}, {"question": f"What{END}?"}, {"question": f"{OPEN}user"}],
    ids=["in the middle of the target", "at its end", "in the prompt", "a turn in the prompt"],
)
def test_a_record_that_holds_a_control_token_is_left_out_and_counted(
    prompt_format: str, record: dict[str, str]
) -> None:
    records = rows("seven", "eight")
    records[1] |= record
    view = stage("Q: {question}\nA:", " {answer}")
    columns, report = encode(tokenizer_of("gpt2"), records, view, None, prompt_format)
    assert list(report.dropped) == ["r/1"]
    assert "as text, which is a control token" in report.dropped["r/1"]
    assert all(1 not in ids[-12:-1] for ids in columns["input_ids"])


def test_text_like_an_end_that_is_none_cuts_no_chain() -> None:
    tokenizer = tokenizer_of("gpt2")
    columns, report = encode(tokenizer, rows("three </s> four </s>"), stage("Q: {question}\nA:", " {answer}"), None)
    assert report.dropped == {}
    assert tokenizer.decode(columns["input_ids"][0]) == f"Q: {QUESTION}\nA: three </s> four </s>{END}"


def test_what_the_vocabulary_lacks_is_no_control_token() -> None:
    tokenizer = tokenizer_of("sentencepiece")
    tokenizer.unk_token = "<unk>"
    _, report = encode(tokenizer, rows("<unk>"), stage("Q: {question}\nA:", " {answer}"), None)
    assert report.dropped == {}


def test_tokens_that_templates_write_and_tokens_that_the_recipe_adds_are_no_fault(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("gpt2")
    add_tokens(tokenizer, ["<step>"])
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    view = stage(f"{OPEN}user\n{{question}}{END}\n{OPEN}assistant\n", "{answer}")
    _, report = encode(again, rows("3 <step> 4", f"3 {END} 4", "seven", OPEN), view, None)
    assert list(report.dropped) == ["r/1", "r/3"]


def test_tokens_of_earlier_items_are_counted_as_often_as_their_template_writes_them() -> None:
    steps = [{"q": "one", "a": "two"}, {"q": "three", "a": "four"}, {"q": "five", "a": "six"}]
    view = stage(f"{OPEN}{{before}}{{step.q}}", " {step.a}", each="step in steps", before=f"{{step.q}} {{step.a}}{END}")
    records = [{"id": "good", "steps": steps}, {"id": "bad", "steps": [*steps, {"q": END, "a": "ten"}]}]
    _, report = encode(tokenizer_of("gpt2"), records, view, None)
    assert (list(report.dropped), report.sequences) == (["bad"], 3)


def test_a_target_that_writes_the_end_of_sequence_itself_is_refused() -> None:
    with pytest.raises(UserError, match=r"views\.cot: the target writes '<\|im_end\|>'"):
        check_views(recipe("{question}", "{answer}" + END), tokenizer_of("gpt2"))


def test_a_thinking_block_that_the_target_closes_is_taken() -> None:
    tokenizer = tokenizer_of("llama3")
    tokenizer.chat_template = CHATML.replace("assistant\n", "assistant\n<think>\n")
    check_views(recipe("{question}", "{answer}", "\n</think>\n\n{answer}", prompt_format="chat"), tokenizer)
    with pytest.raises(UserError, match=r"opens a thinking block \(<think>\).* begin the target with '</think>\\n\\n'"):
        check_views(recipe("{question}", "{answer}", prompt_format="chat"), tokenizer)


# --- all of it, before a teacher is asked


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the datasets that were built, which asks a teacher."""
    built: list[str] = []
    monkeypatch.setattr(pipeline, "build", lambda one, **_: built.append(one.dataset.repo_id))
    return built


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('no system prompt, no answer') }}", "no system prompt, no answer"),
        ("{{ messages[0].content | shout }}", "No filter named 'shout'"),
        ("{{ messages[0].author.name }}", "has no attribute 'author'"),
        ("{% for m in messages %}{{ m.role }}: hello{% endfor %}", "does not show what the user says"),
        (CHATML.partition("{% if")[0], "ignores add_generation_prompt"),
        (CHATML.replace("assistant\n", "assistant\n<think>\n"), r"opens a thinking block \(<think>\)"),
    ],
    ids=["raises", "unknown filter", "missing field", "drops the question", "opens no answer", "opens a thought"],
)
def test_a_loaded_students_template_is_tried_before_a_teacher_is_asked(
    template: str, told: str, tmp_path: Path, unasked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    student = {"model_name_or_path": loaded(tmp_path / "student", chat_template=template), "prompt_format": "chat"}
    file = written(tmp_path, EDIT | {"student": student})
    assert cli.main(["train", str(file)]) == 2
    assert unasked == []
    error = capsys.readouterr().err
    assert "chat_template" in error
    assert re.search(told, error)


def test_a_seam_of_a_loaded_student_is_told_before_a_teacher_is_asked(tmp_path: Path, unasked: list[str]) -> None:
    file = written(tmp_path, EDIT | {"student": {"model_name_or_path": loaded(tmp_path / "student")}})
    with pytest.raises(UserError, match=r"references\.answer_only\.stages\.answers\.views\.cot: the tokenizer runs"):
        pipeline.training_rows(cli.open_recipe(str(file)))
    assert unasked == []


def test_a_question_that_holds_a_control_token_is_named_before_training(tmp_path: Path) -> None:
    asked = [Problem("a", "sums", f"What is {END}?", "7"), Problem("b", "sums", QUESTION, "7")]
    sets = {"odd": {"source": "procedural", "tasks": ["dates"]}}
    own = recipe("Q: {question}\nA:", " {answer}", evaluation={"sets": sets})
    with pytest.raises(UserError, match=r"evaluation\.sets\.odd: question 'a' holds '<\|im_end\|>' as text"):
        check_questions(own, ["train"], loaded(tmp_path, "gpt2"), {"odd": asked})
