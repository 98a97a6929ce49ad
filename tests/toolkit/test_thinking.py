"""What was thought is told from what was answered, in every form that models and servers write it in."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzed_completions import UNITS
from toolkit.answers import extract
from toolkit.thinking import answer_spans, closes_thinking, left_open, marking, split_completion, split_thinking

FINAL = "<|start|>assistant<|channel|>final<|message|>"
ANALYSIS = "<|channel|>analysis<|message|>"

# Every form, as {0} was thought and {1} answered.
FORMS = {
    "think": "<think>{0}</think>{1}",
    "with lines": "<think>\n{0}\n</think>\n\n{1}",
    "in capitals": "<THINK>{0}</Think>{1}",
    "with spaces": "< think >{0}</ think >{1}",
    "with an attribute": '<think mode="deep">{0}</think>{1}',
    "thinking": "<thinking>{0}</thinking>{1}",
    "thought": "<thought>\n{0}\n</thought>\n{1}",
    "thoughts": "<thoughts>{0}</thoughts>{1}",
    "reasoning": "<reasoning>{0}</reasoning>{1}",
    "reflection": "<reflection>{0}</reflection>{1}",
    "scratchpad": "<scratchpad>{0}</scratchpad>{1}",
    "process": "<thought_process>{0}</thought_process>{1}",
    "Claude": "<thinking>{0}</thinking>{1}",
    "K2": "<think_fast>{0}</think_fast>{1}",
    "Seed": "<seed:think>{0}</seed:think>{1}",
    "pipes": "<|thinking|>{0}<|/thinking|>{1}",
    "wide pipes": "<｜begin▁of▁thinking｜>{0}<｜end▁of▁thinking｜>{1}",
    "Sky-T1": "<|begin_of_thought|>{0}<|end_of_thought|>\n\n<|begin_of_solution|>{1}<|end_of_solution|>",
    "Cohere": "<|START_THINKING|>{0}<|END_THINKING|><|START_RESPONSE|>{1}<|END_RESPONSE|>",
    "suffixes": "<|thought_start|>{0}<|thought_end|>{1}",
    "Magistral": "[THINK]{0}[/THINK]{1}",
    "Kimi": "◁think▷{0}◁/think▷{1}",
    "Chinese": "<思考>{0}</思考>{1}",
    "escaped": "&lt;think&gt;{0}&lt;/think&gt;{1}",
    "Gemma": "<|channel>thought\n{0}<channel|>{1}",
    "MedGemma": "<unused94>thought\n{0}<unused95>{1}",
    "Apertus": "<|inner_prefix|>{0}<|inner_suffix|>{1}",
    "s1": "<|im_start|>think\n{0}\n<|im_start|>answer\n{1}",
    "Solar": "<|think|>{0}<|end|><|begin|>assistant<|content|>{1}<|end|>",
    "LongCat": "<longcat_think>\n{0}\n</longcat_think>\n{1}",
    "Granite 3.2": "Here is my thought process:\n{0}\n\nHere is my response:\n{1}",
    "Granite quantized": "Here's my thought process: {0}\n\nHere's my response: {1}",
    "Granite 3.3": "<think>{0}</think><response>{1}</response>",
    "Ollama": "Thinking...\n{0}\n...done thinking.\n\n{1}",
    "Open WebUI": '<details type="reasoning" done="true">\n{0}\n</details>\n{1}',
    "Harmony": f"{ANALYSIS}{{0}}<|end|>{FINAL}{{1}}<|return|>",
    "Harmony, whole": f"<|start|>assistant{ANALYSIS}{{0}}<|end|>{FINAL}{{1}}<|end|>",
    "Harmony, no end": f"{ANALYSIS}{{0}}{FINAL}{{1}}",
    "Harmony, constrained": f"{ANALYSIS}{{0}}<|end|><|channel|>final <|constrain|>text<|message|>{{1}}",
    "Harmony, no start": f"{ANALYSIS}{{0}}<|end|>assistant<|channel|>final<|message|>{{1}}<|return|>",
    "Harmony, first token gone": f"analysis<|message|>{{0}}<|end|>{FINAL}{{1}}",
    "Harmony, glued": "analysisWe {0}assistantfinal{1}",
    "Harmony, glued lines": "analysis\n{0}\n\nassistantfinal\n\n{1}",
    "Harmony, commentary": "analysisWe {0}assistantcommentary to=functions.f json{{}}assistantfinal{1}",
}
OPENED_IN_PROMPT = {
    "think": "{0}</think>{1}",
    "Magistral": "{0}[/THINK]\n{1}",
    "Kimi": "{0}◁/think▷{1}",
    "Sky-T1": "{0}<|end_of_thought|>{1}",
    "Apertus": "{0}<|inner_suffix|>{1}",
    "Harmony": f"{{0}}<|end|>{FINAL}{{1}}",
    "Harmony, glued": "{0}assistantfinal{1}",
}
CUT_OFF = [
    "<think>The answer is 5.",
    "<think>The answer is 5.</thi",
    "[THINK]The answer is 5.",
    "◁think▷The answer is 5.",
    "<|begin_of_thought|>The answer is 5.",
    "Here is my thought process:\nThe answer is 5.",
    f"{ANALYSIS}The answer is 5.",
    f"{ANALYSIS}The answer is 5.<|end|>",
    f"{ANALYSIS}The answer is 5.<|end|><|start|>assistant<|channel|>final",
    f"{ANALYSIS}The answer is 5.<|end|><|start|>assistant<|channel|>commentary<|message|>The answer is 6.",
    "analysisWe see. The answer is 5.",
    "analysis\nThe answer is 5.",
    "analysisWe see.assistantcommentaryThe answer is 5.",
    "<think>a<think>b</think>The answer is 5.",
    "<think>The answer is 5.</thinking>",
    "<think>a</think>x <think>The answer is 5.",
    "The answer is 4.<think>But wait: the answer is 5.",
    f"{FINAL}The answer is 4.<|end|><|start|>assistant{ANALYSIS}No, the answer is 5.",
    "<think>I close with `</think>`. The answer is 5.",
    "Okay <think>The answer is 5.",
    "The answer is 5.</th",
    "<|message|>The answer is 5.",
    "```\n<think>The answer is 5.\n```",
]
plain = st.text(st.sampled_from("abz 019.,:;!?()+-*=\né日本\N{DEVANAGARI SIGN VIRAMA}"), min_size=1, max_size=40).map(
    lambda text: f"x{text}y"
)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(thought=plain, answer=plain)
def test_every_form_gives_back_what_was_thought_and_what_was_answered(form: str, thought: str, answer: str) -> None:
    found, reasoning = split_thinking(form.format(thought, answer))
    assert found == answer
    assert thought in reasoning


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_an_answer_in_the_thinking_is_not_the_answer(form: str) -> None:
    assert extract(form.format("say the answer is 5.", "The answer is 4."), "number") == "4"
    assert extract(form.format("say the answer is 5.", ""), "number") is None


@pytest.mark.parametrize("form", OPENED_IN_PROMPT.values(), ids=OPENED_IN_PROMPT)
def test_what_stands_before_a_closing_without_an_opening_was_thought(form: str) -> None:
    assert split_thinking(form.format("It is 5.", "It is 4.")) == ("It is 4.", "It is 5.")


@pytest.mark.parametrize("text", CUT_OFF)
def test_what_ends_within_thinking_was_never_answered(text: str) -> None:
    answer, thought = split_thinking(text)
    assert answer == ""
    assert "The answer is 5" in thought or "the answer is 5" in thought
    assert extract(text, "number") is None
    assert answer_spans(text) == []


@pytest.mark.parametrize(
    ("text", "answer", "thought"),
    [
        ("<think>a<think>b</think>c</think>d", "d", "a<think>b</think>c"),
        ("<think>a<thought>b</thought>c</think>d", "d", "a<thought>b</thought>c"),
        ("<think>I write <reasoning> here</think>d", "d", "I write <reasoning> here"),
        ("<think>a</think><think>b</think>c", "c", "a\n\nb"),
        ("<think>a</think>b<think>c</think>d", "b\n\nd", "a\n\nc"),
        ("a</think>b</think>c", "c", "a\n\nb"),
        ("Sure.\n<think>a</think>\nb\n", "Sure.\n\nb\n", "a"),
        ("b <think>a</think>", "b", "a"),
        ("b\n<think>a</think>\n", "b", "a"),
        ("<think></think> 2", "2", ""),
        ("<think>\n\n</think>\n\n2", "2", ""),
        ("<think/>2", "2", ""),
        ("<think>close with `</think>` soon</think>b", "b", "close with `</think>` soon"),
        ("<think>an odd ` mark</think>b `c` d", "b `c` d", "an odd ` mark"),
        ("```\n<think>a</think>\nb\n```", "```\n\nb\n```", "a"),
        (f"{FINAL}b<|end|><|start|>user<|message|>c<|end|>", "b", "c"),
        (f"{FINAL}b<|end|>{ANALYSIS}c<|end|>", "b", "c"),
        (f"<think>a</think>{FINAL}b", "b", "a"),
    ],
)
def test_nested_repeated_empty_and_late_thinking_is_told_apart(text: str, answer: str, thought: str) -> None:
    assert split_thinking(text) == (answer, thought)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " plain \n",
        "Put it in `<think>` tags. The answer is 4.",
        "Write `<think>...</think>` first. The answer is 4.",
        "Write ``<think>a` b</think>`` first.",
        'The tag "<think>" opens. The answer is 4.',
        "Write\n```\n<think>\n```\nThe answer is 4.",
        "Like so:\n```xml\n<think>x</think>\n```\nThe answer is 4.",
        "analysis of the data: the answer is 4.",
        "Analysis: the answer is 4.",
        "analysis, then synthesis",
        "The assistant finally said 4.",
        "I think 3 < 4 and 5 > 2 [thinking about it].",
        "<answer>4</answer>",
        "<response>4</response>",
        "<b>I reason</b> that 4",
        "Here is my response: 4",
        "The answer is 4.<|im_end|>",
        "The answer is 4.<|end|>",
        "vector<thinned> and <details>x</details>",
        "\\[x<y\\] and \\(a>b\\)",
    ],
)
def test_a_text_without_thinking_comes_back_as_it_is(text: str) -> None:
    assert split_thinking(text) == (text, "")
    assert answer_spans(text) == ([(0, len(text))] if text else [])


@pytest.mark.parametrize(
    ("text", "kind", "answer"),
    [
        ("Sure.\n<think>The answer is 5.</think>\nThe answer is 4.", "number", "4"),
        ("The answer is 4.\n<think>Is it? The answer is 5.</think>", "number", "4"),
        ("The answer is 4.\n<think>Is it 5?</think>\nAnd 6 is even.", "number", "4"),
        (f"{ANALYSIS}The answer is (B).<|end|>{FINAL}The answer is (C).<|return|>", "choice", "(C)"),
        ("analysisIs it yes? The answer is yes.assistantfinalThe answer is no.", "boolean", "no"),
        ("[THINK]\\boxed{5}[/THINK]\\boxed{4}", "number", "4"),
    ],
)
def test_the_extractor_looks_at_what_was_answered(text: str, kind: str, answer: str) -> None:
    assert extract(text, kind) == answer


@pytest.mark.parametrize(
    "text",
    [
        "The answer is <think>5",
        "Sure.<|im_end|><think>a</think>The answer is 5.",  # behind a run-on
    ],
)
def test_an_answer_that_thinking_tears_apart_is_none(text: str) -> None:
    assert extract(text, "number") is None


def test_spans_are_places_in_the_original() -> None:
    text = "Sure. <think>a</think>\n b\n"
    assert [text[start:end] for start, end in answer_spans(text)] == ["Sure.", "b\n"]


marks = st.sampled_from(
    [
        *UNITS,
        *FORMS.values(),
        *CUT_OFF,
        "`",
        "```\n",
        "<think>",
        "</think>",
        "[/THINK]",
        FINAL,
        ANALYSIS,
        "<|end|>",
        "a",
    ]
)


@given(st.lists(marks, max_size=12).map("".join) | st.text(st.characters(codec=None), max_size=200))
def test_any_text_is_split_once_and_for_all(text: str) -> None:
    answer, thought = split_thinking(text)
    assert len(answer) + len(thought) <= len(text)
    assert split_thinking(answer) == (answer, "")
    assert "\n\n".join(text[start:end] for start, end in answer_spans(text)) == (answer if answer.strip() else "")
    left_open(text)


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", "<think>", "<think></think>"])
def test_a_long_text_takes_a_fraction_of_a_second(before: str) -> None:
    units = [
        *UNITS,
        "<think>",
        "[",
        "<",
        "`a``",
        "\n```",
        "<|channel|>",
        "<|start|>",
        "assistantfinal",
        "<think a=",
        "&lt;",
    ]
    for unit in units:
        text = before + unit * (200_000 // len(unit))
        assert any(_seconds_of_splitting(text) < 0.4 for _ in range(3)), unit


def _seconds_of_splitting(text: str) -> float:
    started = time.process_time()
    split_thinking(text)
    return time.process_time() - started


# --- prompts that open a block


@pytest.mark.parametrize(
    ("opening", "found"),
    [
        ("<|im_start|>assistant\n", None),
        ("<|im_start|>assistant\n<think>\n", ("<think>", "</think>")),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", None),
        ("<|Assistant|><think>\nOkay, ", ("<think>", "</think>")),
        ("[/INST][THINK]", ("[THINK]", "[/THINK]")),
        ("<|CHATBOT_TOKEN|><|START_THINKING|>", ("<|START_THINKING|>", "<|END_THINKING|>")),
        ("<|CHATBOT_TOKEN|><|START_THINKING|><|END_THINKING|>", None),
        ("<reasoning>\n", ("<reasoning>", "</reasoning>")),
        ("<|begin_of_thought|>", ("<|begin_of_thought|>", "<|end_of_thought|>")),
        ("◁think▷", ("◁think▷", "◁/think▷")),
        ("model\n<|channel>thought\n", ("<|channel>thought", "<channel|>")),
        ("<|assistant_start|><|inner_prefix|>", ("<|inner_prefix|>", "<|inner_suffix|>")),
        ("<|start|>assistant", None),
        (
            "<|start|>assistant<|channel|>analysis<|message|>",
            ("<|start|>assistant<|channel|>analysis<|message|>", f"<|end|>{FINAL}"),
        ),
    ],
)
def test_a_thinking_block_that_is_left_open_is_noticed(opening: str, found: Any) -> None:
    assert left_open(opening) == found


@pytest.mark.parametrize(
    ("prompt", "completion", "split"),
    [
        ("Q: 1?\nA:", "It is 4.", ("It is 4.", "")),
        ("assistant\n<think>\n", "It is 5.", ("", "It is 5.")),
        ("assistant\n<think>\n", "It is 5.</think>It is 4.", ("It is 4.", "It is 5.")),
        ("assistant\n<think>\n", "<think>It is 5.</think>It is 4.", ("It is 4.", "It is 5.")),
        ("assistant\n<think>\n\n</think>\n\n", "It is 4.", ("It is 4.", "")),
    ],
)
def test_a_block_that_the_prompt_opened_is_open_in_its_completion(
    prompt: str, completion: str, split: tuple[str, str]
) -> None:
    assert split_completion(prompt, completion) == split


def test_a_marker_that_closes_thinking_is_told_from_others() -> None:
    assert closes_thinking("</think>\n\n")
    assert closes_thinking("[/THINK]Answer: ")
    assert not closes_thinking("<think>")
    assert not closes_thinking("So the answer is ")


def test_special_tokens_that_mark_thinking_are_known() -> None:
    assert marking(("<s>", "[THINK]", "[/THINK]", "<|end|>")) == {"[THINK]", "[/THINK]"}
    assert marking(("<|end|>", "<|channel|>", "<|pad|>")) == {"<|end|>", "<|channel|>"}
