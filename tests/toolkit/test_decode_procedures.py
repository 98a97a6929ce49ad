"""How an answer is got in several turns, with a student that writes what the test tells it to."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chains import ANSWERS, COT, LABEL, POST, PROMPT, REASONS, STEP, chains, stage
from tests.tiny_students import tiny_tokenizer
from toolkit.answers import ANSWER_PHRASE
from toolkit.decode_procedures import Answered, Ask, Compare, Procedure, answer_part, converse, plan
from toolkit.decoding import Generation
from toolkit.encoding import encode_record
from toolkit.errors import UserError
from toolkit.problem import Problem, question_columns
from toolkit.recipe import Decode, View
from toolkit.stage_views import StageViews

ROW = chains(8, each=2)[9]
QUESTION = question_columns(Problem(id="p", task="sums", question=ROW["question"], answer=ROW["answer"]))
PHRASE = "\nTherefore, the answer is"

PLAN = {"prompt": PROMPT, "target": ["\n{steps.question}"]}
ASK = {
    "each": "step in steps",
    "before": "{step.question} {step.answer}\n",
    "prompt": "Q: {question}\n{before}Next:",
    "target": [" {step.question}"],
}
VIEWS = {
    **{"cot": COT, "label": LABEL, "rationale": REASONS, "answer": ANSWERS, "post": POST},
    **{"plan": PLAN, "solve": STEP, "ask": ASK},
    "sum_up": {"prompt": "{question}\n{steps.question}\n{steps.answer}\nSo", "target": [" {answer}."]},
    "of_options": {"prompt": PROMPT, "target": [" {chain.rationale}", "\nSo ", {"text": "{answer}."}, " Done."]},
    "controlled": {"prompt": PROMPT, "target": [" [factual]", " {chain.rationale}", "\nSo {answer}."]},
    "plan_both": {"prompt": PROMPT, "target": ["\n{steps.question}", "\n#{steps.hint}"]},
    "hinted": {"each": "step in steps", "prompt": "{step.question}|{step.hint}:", "target": [" {step.answer}"]},
    "check": {"prompt": "{question} Is it {answer}?", "target": [" {verdict}"]},
    "marked": {"prompt": PROMPT, "target": [" Answer: {answer}", "\nBecause {chain.rationale}"]},
    "stopped_post": {"prompt": PROMPT, "target": [" {answer}.", "\nBecause {chain.rationale}"]},
    "marked_apart": {"prompt": PROMPT, "target": [" Answer:", " {answer}"]},
    "thinks": {"prompt": PROMPT, "target": ["<think>", "{chain.rationale}", "</think>", "{answer}"]},
    "two_answers": {"prompt": PROMPT, "target": [" {answer}", " {chain.answer}"]},
}


def procedure(**decode: Any) -> Procedure:
    """Return the procedure of a recipe's `decode` over the views above."""
    read = Decode.model_validate(decode)
    turns = (plan(turn.view, View.model_validate(VIEWS[turn.view]), turn) for turn in read.turns)
    return Procedure(tuple(turns), read.until, read.rounds)


Writer = Callable[[str], str]


def answered(of: Procedure, write: Writer, columns: dict[str, Any] = QUESTION) -> tuple[Answered, list[Ask | Compare]]:
    """Return how a question is answered, and what was asked, by a student that writes `write(what it is given)`.

    A stop text ends what it writes, as in decoding; of options it finds the first likeliest.
    """
    conversation = converse(of, columns)
    asked: list[Ask | Compare] = []
    reply: Generation | None = None
    while True:
        try:
            ask = conversation.send(reply)  # type: ignore[arg-type]
        except StopIteration as finished:
            return finished.value, asked
        asked.append(ask)
        if isinstance(ask, Ask):
            text = write(ask.text)
            end = min((text.find(stop) for stop in ask.turn.stop if stop in text), default=len(text))
            reply = Generation(text[:end], len(text), True)
        else:
            written = ask.options[0][ask.turn.forced :]
            reply = Generation("".join(segment.text for segment in written), 0, True)


def in_turn(*texts: str) -> Writer:
    """Return a student that writes these texts one after the other, and nothing after the last."""
    rest = list(texts)
    return lambda _: rest.pop(0) if rest else ""


def prompts(asked: list[Ask | Compare]) -> list[str]:
    return [ask.text for ask in asked]


def training_prompts(view: dict[str, Any], row: dict[str, Any] = ROW) -> list[str]:
    """Return the prompts that a view shows in training, one for each of its sequences."""
    return [shown.prompt for _, shown in StageViews(stage({"view": view}), [row]).show(0).sequences]


# --- one turn


def test_a_single_turn_is_the_views_prompt_and_what_is_written_behind_it() -> None:
    result, asked = answered(procedure(view="cot"), in_turn(" We add.\nTherefore, the answer is 9."))
    assert prompts(asked) == training_prompts(COT)
    (said,) = result.turns
    assert (said.view, said.prompt) == ("cot", prompts(asked)[0])
    assert said.generation.text == " We add.\nTherefore, the answer is 9."
    assert result.answer == f"{ANSWER_PHRASE} 9."


def test_a_turn_carries_its_own_length_and_stops() -> None:
    of = procedure(view="rationale", max_new_tokens=7, stop=["\n"], then=[{"view": "answer", "max_new_tokens": 3}])
    _, asked = answered(of, in_turn(" We add.", " 9."))
    assert [(ask.turn.max_new_tokens, ask.turn.stop) for ask in asked] == [(7, ("\n",)), (3, ())]


def test_forced_segments_stand_behind_the_prompt_and_are_not_written() -> None:
    result, asked = answered(procedure(view="controlled", forced=1), in_turn(" We add.\nSo 9."))
    assert prompts(asked) == [f"Q: {ROW['question']}\nA: [factual]"]
    assert result.turns[0].prompt == prompts(asked)[0]
    assert result.turns[0].generation.text == " We add.\nSo 9."
    assert result.answer == f"{ANSWER_PHRASE} 9."


def test_a_forced_segment_takes_what_an_earlier_turn_wrote() -> None:
    of = procedure(view="rationale", then=[{"view": "cot", "forced": 1}])
    _, asked = answered(of, in_turn(" We add.", "\nTherefore, the answer is 9."))
    assert prompts(asked)[1] == f"Q: {ROW['question']}\nA: We add."


def test_a_frame_is_put_around_the_prompt_and_not_around_what_is_forced() -> None:
    of = procedure(view="rationale", then=[{"view": "cot", "forced": 1}])
    conversation = converse(of, QUESTION, lambda prompt: f"<{prompt}>")
    first = next(conversation)
    second = conversation.send(Generation(" We add.", 3, True))
    assert isinstance(first, Ask)
    assert isinstance(second, Ask)
    assert [first.text, second.text] == [f"<Q: {ROW['question']}\nA:>", f"<Q: {ROW['question']}\nA:> We add."]


# --- a cascade


@cache
def spaced_tokenizer() -> Any:
    """A tokenizer of the SentencePiece kind: a space is a part of the word behind it, and one is put before a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    records = chains(8, each=2)
    shown = [StageViews(stage({"view": view}), records) for view in (COT, ANSWERS)]
    texts = [
        view.prompt + "".join(segment.text for segment in view.target)
        for views in shown
        for index in range(len(records))
        for _, view in views.show(index).sequences
    ]
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", "<pad>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


TOKENIZERS = {"bytes": tiny_tokenizer, "spaces": spaced_tokenizer}


def tokens(tokenizer: Any, view: dict[str, Any], row: dict[str, Any] = ROW) -> Any:
    """Return a record's tokens as a view trains on them."""
    (encoded,) = encode_record(tokenizer, StageViews(stage({"view": view}), [row]), 0)
    return encoded[0]


def test_the_two_kinds_of_tokenizers_differ_in_what_they_decode() -> None:
    """Else the tests below would be of one kind."""
    kinds = [kind().decode(kind()(" We add")["input_ids"]) for kind in TOKENIZERS.values()]
    assert kinds == [" We add", "We add"]


@pytest.mark.parametrize("row", chains(8, each=2)[::3], ids=lambda row: row["id"])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_second_prompt_of_a_cascade_is_the_one_that_was_trained_on(kind: str, row: dict[str, Any]) -> None:
    tokenizer = TOKENIZERS[kind]()
    trained = tokens(tokenizer, REASONS, row)
    # The student writes the ids that it learnt to write, and they are decoded as completions are.
    gold = tokenizer.decode(trained.target, skip_special_tokens=True)
    columns = {**QUESTION, "question": row["question"]}
    of = procedure(view="rationale", then=[{"view": "answer"}])
    _, asked = answered(of, in_turn(gold, ""), columns)
    expected = tokens(tokenizer, ANSWERS, row)
    given = [tokenizer(text)["input_ids"] for text in prompts(asked)]
    assert given[0] == trained.input_ids[trained.segments < 0].tolist()
    assert given[1] == expected.input_ids[expected.segments < 0].tolist()


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_what_a_student_writes_in_the_last_turn_are_the_tokens_of_training(kind: str) -> None:
    """A space before the answer is the answer's first token's, not a token that the prompt ends with."""
    tokenizer = TOKENIZERS[kind]()
    trained = tokens(tokenizer, ANSWERS)
    assert tokenizer.decode(trained.target, skip_special_tokens=True).strip() == f"{ROW['answer']}."
    assert tokenizer.decode(trained.input_ids[trained.segments < 0]).endswith(PHRASE)


def test_an_answer_phrase_that_is_written_too_soon_is_cut_off() -> None:
    of = procedure(view="rationale", stop=[PHRASE], then=[{"view": "answer"}])
    result, asked = answered(of, in_turn(f" We add.{PHRASE} 8.", " 9."))
    assert prompts(asked)[1] == f"Q: {ROW['question']}\nA: We add.{PHRASE}"
    assert result.answer == f"{ANSWER_PHRASE} 9."


def test_only_the_last_turn_holds_the_answer_and_all_are_kept() -> None:
    of = procedure(view="rationale", then=[{"view": "answer"}])
    result, _ = answered(of, in_turn(" 1 + 1 = 2.", " 9."))
    assert [said.view for said in result.turns] == ["rationale", "answer"]
    assert result.answer == f"{ANSWER_PHRASE} 9."


def test_what_is_written_later_replaces_what_was_written_before() -> None:
    of = procedure(view="rationale", then=[{"view": "rationale"}, {"view": "answer"}])
    _, asked = answered(of, in_turn(" One.", " Two.", " 9."))
    assert prompts(asked)[2] == f"Q: {ROW['question']}\nA: Two.{PHRASE}"


# --- repeated turns


def test_written_sub_questions_are_answered_one_by_one_as_in_training() -> None:
    steps = ROW["steps"]
    assert len(steps) > 1
    of = procedure(view="plan", then=[{"view": "solve"}])
    plan_text = "\n" + "\n".join(step["question"] for step in steps)
    result, asked = answered(of, in_turn(plan_text, *(f" {step['answer']}" for step in steps)))
    assert prompts(asked) == training_prompts(PLAN) + training_prompts(STEP)
    assert result.answer == f"{ANSWER_PHRASE} {steps[-1]['answer']}"


def test_a_last_turn_sees_all_that_was_written_in_the_repeated_ones() -> None:
    of = procedure(view="plan", then=[{"view": "solve"}, {"view": "sum_up"}])
    result, asked = answered(of, in_turn("\na?\nb?", " 1", " 2", " 3."))
    assert prompts(asked)[-1] == f"{ROW['question']}\na?\nb?\n1\n2\nSo"
    assert result.answer == f"{ANSWER_PHRASE} 3."


def test_alternating_turns_end_with_the_round_in_which_the_word_falls() -> None:
    of = procedure(view="ask", then=[{"view": "solve"}], until="final")
    result, asked = answered(of, in_turn(" a?", " 1", " final: b?", " 2", " c?", " 3"))
    head = f"Q: {ROW['question']}\n"
    assert prompts(asked) == [
        f"{head}Next:",
        f"{head}a?",
        f"{head}a? 1\nNext:",
        f"{head}a? 1\nfinal: b?",
    ]
    assert result.answer == f"{ANSWER_PHRASE} 2"


@pytest.mark.parametrize(
    ("decode", "write", "turns"),
    [
        ({"view": "ask", "then": [{"view": "solve"}], "rounds": 3}, " again", 6),
        ({"view": "ask", "then": [{"view": "solve"}]}, " again", 24),
        ({"view": "plan", "then": [{"view": "solve"}], "rounds": 2}, "\na\nb\nc\nd", 3),
    ],
    ids=["rounds", "rounds by default", "rounds of a list"],
)
def test_rounds_are_limited(decode: dict[str, Any], write: str, turns: int) -> None:
    result, _ = answered(procedure(**decode), lambda _: write)
    assert len(result.turns) == turns


def test_blank_lines_are_no_sub_questions() -> None:
    _, asked = answered(procedure(view="plan", then=[{"view": "solve"}]), in_turn("\na?\n\n \nb?\n", " 1", " 2"))
    assert len(asked) == 3


# --- pieces that are missing


def test_a_rationale_that_was_never_written_is_an_empty_text() -> None:
    _, asked = answered(procedure(view="rationale", then=[{"view": "answer"}]), in_turn("", " 9."))
    assert prompts(asked)[1] == f"Q: {ROW['question']}\nA: {PHRASE}"


def test_a_student_that_writes_no_sub_question_has_given_no_answer() -> None:
    result, asked = answered(procedure(view="plan", then=[{"view": "solve"}]), in_turn(" \n "))
    assert len(asked) == 1
    assert result.answer == ""
    assert [said.view for said in result.turns] == ["plan"]


def test_a_turn_after_no_sub_question_finds_none() -> None:
    _, asked = answered(procedure(view="plan", then=[{"view": "solve"}, {"view": "sum_up"}]), in_turn("", " 9."))
    assert prompts(asked)[-1] == f"{ROW['question']}\n\n\nSo"


def test_items_of_which_a_part_is_missing_have_it_empty() -> None:
    of = procedure(view="plan_both", then=[{"view": "hinted"}])
    _, asked = answered(of, in_turn("\na?\nb?\n#one", " 1", " 2"))
    assert prompts(asked)[1:] == ["a?|one:", "b?|:"]


PROCEDURES = {
    "single": procedure(view="cot"),
    "cascade": procedure(view="rationale", stop=[PHRASE], then=[{"view": "answer"}]),
    "forced": procedure(view="rationale", then=[{"view": "cot", "forced": 1}]),
    "sub-questions": procedure(view="plan", then=[{"view": "solve"}, {"view": "sum_up"}], rounds=4),
    "alternating": procedure(view="ask", then=[{"view": "solve"}], until="so", rounds=4),
    "answer first": procedure(view="post"),
    "options": procedure(view="rationale", then=[{"view": "of_options", "forced": 1, "choices": {}}]),
}
WRITTEN = st.text(alphabet="ab {}\n.", max_size=20) | st.sampled_from(
    [" We.\nTherefore, the answer is 9.", "\na?\nb?", " so", "{answer}", PHRASE]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(WRITTEN, max_size=12), st.sampled_from(sorted(PROCEDURES)))
def test_whatever_a_student_writes_is_taken(texts: list[str], name: str) -> None:
    result, asked = answered(PROCEDURES[name], in_turn(*texts), {**QUESTION, "choices": ["one", "two"]})
    assert len(result.turns) == len(asked) >= 1
    assert result.answer.removeprefix(f"{ANSWER_PHRASE} ") in result.turns[-1].generation.text


# --- where the answer stands


@pytest.mark.parametrize(
    ("view", "completion", "part"),
    [
        ("post", " 9\nBecause it is.\nTherefore, the answer is 7.", f"{ANSWER_PHRASE} 9"),
        ("post", " 9", f"{ANSWER_PHRASE} 9"),
        ("post", "\nBecause it is 7.", ""),
        ("cot", " 1.\nTherefore, the answer is 9.", f"{ANSWER_PHRASE} 9."),
        ("cot", " No.\nTherefore, the answer is 1. No.\nTherefore, the answer is 9.", f"{ANSWER_PHRASE} 9."),
        ("cot", " 1.\nTherefore, the answer is", ""),
        ("cot", " I think it is 9.", " I think it is 9."),
        ("of_options", " We.\nSo 9. Done. So 7. Done.", f"{ANSWER_PHRASE} 7."),
        ("stopped_post", " 9.\nBecause it is. So 7.", f"{ANSWER_PHRASE} 9."),
        ("stopped_post", " 9\nBecause it is. So 7.", f"{ANSWER_PHRASE} 9"),
        ("marked_apart", " Answer: 9", f"{ANSWER_PHRASE} 9"),
        ("plan", "\na?", "\na?"),
        ("label", "", ""),
    ],
    ids=[
        *("answer first", "answer alone", "no answer first", "answer last", "the marker twice", "the marker alone"),
        *(
            "no marker",
            "a marker behind it",
            "a full stop behind it",
            "no full stop",
            "a marker apart",
            "a view without an answer",
            "nothing",
        ),
    ],
)
def test_an_answer_is_read_from_its_own_part(view: str, completion: str, part: str) -> None:
    assert answer_part(procedure(view=view).turns[0], completion) == part


@pytest.mark.parametrize(
    ("view", "completion", "part"),
    [
        ("cot", "<think>\nTherefore, the answer is 5.</think> We.\nTherefore, the answer is 9.", f"{ANSWER_PHRASE} 9."),
        ("cot", " We.\nTherefore, the answer is 9.<think>\nTherefore, the answer is 5.</think>", f"{ANSWER_PHRASE} 9."),
        ("cot", "<think>\nTherefore, the answer is 5.", ""),
        ("cot", "[THINK]\nTherefore, the answer is 5.[/THINK] It is 9.", "It is 9."),
        ("cot", "analysisWe.\nTherefore, the answer is 5.assistantfinalIt is 9.", "It is 9."),
        ("post", "<think>5</think> 9\nBecause it is.", f"{ANSWER_PHRASE} 9"),
        ("plan", "<think>The answer is 5.</think>a?", "a?"),
        ("thinks", "<think>We add.</think>9", f"{ANSWER_PHRASE} 9"),
        ("thinks", "We add.</think>9", f"{ANSWER_PHRASE} 9"),
        ("thinks", "<think>We add. The answer is 5.", ""),
        ("thinks", "We add. The answer is 5.", ""),
        ("thinks", "The answer is 5.", ""),
    ],
)
def test_what_a_student_thought_is_not_its_answer(view: str, completion: str, part: str) -> None:
    assert answer_part(procedure(view=view).turns[0], completion) == part


def test_a_later_prompt_gets_the_answer_that_was_written_first() -> None:
    _, asked = answered(procedure(view="post", then=[{"view": "check"}]), in_turn(" 9\nBecause it is.", " yes"))
    assert prompts(asked)[1] == f"{ROW['question']} Is it 9?"


@pytest.mark.parametrize("written", ["Answer: 9\nBecause so.", " Answer: 9\nBecause so."])
def test_an_opening_is_known_without_the_space_that_some_tokenizers_take_from_it(written: str) -> None:
    _, asked = answered(procedure(view="marked", then=[{"view": "check"}]), in_turn(written, " yes"))
    assert prompts(asked)[1] == f"{ROW['question']} Is it 9?"


# --- options

CHOICES = {**QUESTION, "choices": ["red", "blue"]}


def test_options_stand_where_the_answer_does_and_end_with_its_segment() -> None:
    of = procedure(
        view="rationale", then=[{"view": "of_options", "forced": 1, "choices": {"write": "{letter}) {text}"}}]
    )
    _, asked = answered(of, in_turn(" We see."), CHOICES)
    compare = asked[1]
    assert isinstance(compare, Compare)
    assert compare.prompt == f"Q: {ROW['question']}\nA:"
    assert [[segment.text for segment in option] for option in compare.options] == [
        [" We see.", "\nSo ", "A) red."],
        [" We see.", "\nSo ", "B) blue."],
    ]
    assert [segment.weight for segment in compare.options[0]] == [0.0, 1.0, 1.0]


def test_the_option_that_is_chosen_is_what_was_written() -> None:
    of = procedure(view="label", choices={"write": "{text}"}, then=[{"view": "check"}])
    result, asked = answered(of, in_turn(" yes"), CHOICES)
    assert prompts(asked)[1] == f"{ROW['question']} Is it red?"
    assert result.turns[0].generation.text == " red"


def test_forced_segments_are_told_as_given_where_options_are_compared() -> None:
    of = procedure(view="rationale", then=[{"view": "of_options", "forced": 1, "choices": {}}])
    result, asked = answered(of, in_turn(" We see."), CHOICES)
    assert prompts(asked)[1] == result.turns[1].prompt == f"Q: {ROW['question']}\nA: We see."
    assert result.answer == f"{ANSWER_PHRASE} (A)."


def test_a_question_without_options_cannot_be_answered_by_comparing() -> None:
    with pytest.raises(UserError, match=r"decode\.choices: the question 'p' has no options"):
        answered(procedure(view="label", choices={}), in_turn())


def test_options_need_one_column_of_the_role_answer() -> None:
    with pytest.raises(UserError, match=r"decode\.choices.*\['answer', 'chain\.answer'\], allowed one column"):
        answered(procedure(view="two_answers", choices={}), in_turn(), CHOICES)


def test_a_prompt_that_takes_what_nobody_wrote_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match=r"no column 'chain\.rationale'"):
        answered(procedure(view="answer"), in_turn())
