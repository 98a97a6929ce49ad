"""What keeps a student from being published."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tiny_students import tiny_llama, tiny_tokenizer
from toolkit.errors import UserError
from toolkit.readiness import check_student

PROMPT = "Q: Tom has 3 boxes.\nA:"


def faults(student: Any, tokenizer: Any, **settings: Any) -> str:
    with pytest.raises(UserError) as raised:
        check_student(student, tokenizer, PROMPT, max_new_tokens=8, **settings)
    return str(raised.value)


def test_a_student_whose_tokens_agree_may_be_published() -> None:
    tokenizer = tiny_tokenizer()
    student = tiny_llama(tokenizer)
    # whatever it writes first ends its turn
    first = int(student(**tokenizer(PROMPT + " ok", return_tensors="pt")).logits[0, -1].argmax())
    student.generation_config.eos_token_id = [tokenizer.eos_token_id, first]
    assert [w for w in check_student(student, tokenizer, PROMPT + " ok", max_new_tokens=8) if "did not stop" in w] == []


def test_a_student_that_does_not_stop_is_warned_about() -> None:
    [warning] = check_student(tiny_llama(), tiny_tokenizer(), PROMPT, max_new_tokens=8)
    assert warning.startswith("the student did not stop within 8 tokens")


def test_an_end_token_that_generation_does_not_know_is_a_fault() -> None:
    student = tiny_llama()
    student.generation_config.eos_token_id = 7
    assert "generation_config.eos_token_id is [7], without 1 ('<|end|>')" in faults(student, tiny_tokenizer())


def test_the_end_of_a_turn_may_be_another_token_than_the_tokenizers_end() -> None:
    assert "without 40 ('G')" in faults(tiny_llama(), tiny_tokenizer(), end_of_turn="G")


def test_padding_with_the_end_token_is_a_fault() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    assert "padding token 1 also ends a completion" in faults(tiny_llama(tokenizer), tokenizer)


def test_another_padding_token_than_the_tokenizers_is_a_fault() -> None:
    student = tiny_llama()
    student.generation_config.pad_token_id = 9
    assert "pads with 9, the tokenizer with 0" in faults(student, tiny_tokenizer())


def test_logits_that_are_no_numbers_are_a_fault() -> None:
    student = tiny_llama()
    student.lm_head.weight.data[3] = float("nan")
    assert "logits are not finite" in faults(student, tiny_tokenizer())


def test_a_tokenizer_with_more_tokens_than_the_student_is_a_fault() -> None:
    assert "the tokenizer has 384 tokens, the student's embedding 300 rows" in faults(
        tiny_llama(tiny_tokenizer(300)), tiny_tokenizer(384)
    )


def test_a_tokenizer_that_loses_letters_is_a_fault() -> None:
    from tokenizers import normalizers

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert "does not give the prompt back" in faults(tiny_llama(), tokenizer)


def test_all_faults_are_listed_at_once() -> None:
    student = tiny_llama()
    student.generation_config.eos_token_id = 7
    student.generation_config.pad_token_id = 7
    assert faults(student, tiny_tokenizer()).count("\n  - ") == 3


def test_a_generation_config_that_cannot_be_saved_is_a_fault() -> None:
    student = tiny_llama()
    student.generation_config.temperature = 0.3  # beside do_sample: false
    assert "refused by save_pretrained" in faults(student, tiny_tokenizer())
