"""A question as a user's turn: rendered as transformers renders it, and refused by name where it is no question."""

from __future__ import annotations

import pytest

from tests.tokenizer_families import CHATML, tokenizer_of
from toolkit.chat_templates import check_template, user_turn
from toolkit.errors import UserError
from toolkit.tokenizing import prompt_text

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
INST = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}"
    "{% endif %}{{ bos_token }}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
GENERATION = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>"
    "{% endif %}"
)
TOOLS = "{% if tools is not none %}{{ tools | tojson }}{% endif %}{% if documents %}?{% endif %}" + CHATML
SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}" + CHATML
GOOD = {"chatml": CHATML, "inst": INST, "generation": GENERATION, "tools": TOOLS, "a system prompt": SYSTEM}


@pytest.mark.parametrize("name", GOOD)
def test_a_prompt_is_rendered_as_transformers_renders_it(name: str) -> None:
    tokenizer = tokenizer_of("gpt2")
    tokenizer.chat_template = GOOD[name]
    turn = [{"role": "user", "content": " What is {{ 3 }}?\n<b> "}]
    check_template(GOOD[name], tokenizer.special_tokens_map)
    assert prompt_text(tokenizer, turn[0]["content"], "chat") == tokenizer.apply_chat_template(
        turn, tokenize=False, add_generation_prompt=True
    )


def test_of_several_templates_the_default_one_is_taken_and_without_one_all_are_refused() -> None:
    tokenizer = tokenizer_of("gpt2")
    tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ tools }}"}
    assert prompt_text(tokenizer, "Why?", "chat").endswith("Why?<|im_end|>\n<|im_start|>assistant\n")
    tokenizer.chat_template = {"rag": CHATML, "tool_use": CHATML}
    with pytest.raises(UserError, match=r"student\.chat_template: .*rag.*tool_use"):
        prompt_text(tokenizer, "Why?", "chat")


def test_the_date_of_a_template_is_the_same_on_every_day() -> None:
    dated = "{{ strftime_now('%d %b %Y') }}: " + CHATML
    assert user_turn(dated, TOKENS, "Why?").startswith("01 Jan 2026: <|im_start|>")


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% if %}", "line 1: Expected an expression"),
        ("\n\n{{ messages | shout }}", "line 3: No filter named 'shout'"),
        ("{{ raise_exception('only with tools') }}", "only with tools"),
        ("{{ tools[0].name }}", "None"),
        ("{{ messages[1].content }}", "no element 1"),
        ("{{ messages[0].content + 7 }}", "str"),
        ("{{ messages[0].text }}", "does not show what the user says"),
        ("{% for part in messages[0].content %}{{ part.text }}{% endfor %}<a>", "does not show what the user says"),
        ("{{ messages[0].content | upper }}<a>", "does not show what the user says"),
        ("{{ messages[0].content | tojson }}<a>".replace("tojson", "reverse"), "does not show what the user says"),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", "ignores add_generation_prompt"),
        (CHATML.partition("{% if")[0], "ignores add_generation_prompt"),
    ],
)
def test_a_template_that_makes_no_question_is_refused(template: str, told: str) -> None:
    with pytest.raises(UserError) as refused:
        check_template(template, TOKENS)
    assert str(refused.value).startswith("student.chat_template")
    assert told in str(refused.value)


def test_a_template_that_fails_on_some_questions_alone_says_on_which() -> None:
    fussy = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
    check_template(fussy, TOKENS)
    with pytest.raises(UserError, match="does not show what the user says as it is: 'a</think>b'"):
        user_turn(fussy, TOKENS, "a</think>b")
