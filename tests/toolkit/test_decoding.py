"""What a student writes: alone or in company, greedily or by chance, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tiny_students import tiny_llama, tiny_tokenizer
from toolkit.decoding import Decoding, Generation, _finish, generate, generate_batches
from toolkit.errors import UserError

PROMPTS = [
    "Q: Tom has 3 boxes.\nA:",
    "Q:",
    "Q: Ann is taller than Bob and Bob is taller than Cy. Who is the shortest?\nA: Let's think step by step.",
    "A train leaves at 9:15",
    "Q: How many apples are left?\nA:",
]


def completed(model: Any, tokenizer: Any, prompts: list[str], **settings: Any) -> list[list[Generation]]:
    return generate(
        model, tokenizer, prompts, **{"max_new_tokens": 20, "batch_size": len(prompts), "seed": 0, **settings}
    )


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def student(tokenizer: Any) -> Any:
    return tiny_llama(tokenizer)


def with_end_token(tokenizer: Any, end: int) -> Any:
    """The student of the fixture, which takes token `end` for the end of its turn."""
    model = tiny_llama(tokenizer)
    model.generation_config.eos_token_id = end
    return model


def greedy_ids(student: Any, tokenizer: Any, prompt: str, steps: int) -> list[int]:
    """Greedy decoding as the textbook has it: the whole sequence through the model for every token."""
    import torch

    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    with torch.inference_mode():
        for _ in range(steps):
            ids = [*ids, int(student(torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[start:]


def test_greedy_decoding_is_the_argmax_at_every_step(student: Any, tokenizer: Any) -> None:
    expected = [tokenizer.decode(greedy_ids(student, tokenizer, prompt, 20)) for prompt in PROMPTS]
    assert [samples[0].text for samples in completed(student, tokenizer, PROMPTS)] == expected


def test_the_students_own_sampling_settings_do_not_change_a_declared_greedy_decoding(
    student: Any, tokenizer: Any
) -> None:
    restless = tiny_llama(tokenizer)
    restless.generation_config.update(do_sample=True, temperature=3.0, top_k=5, repetition_penalty=5.0)
    assert completed(restless, tokenizer, PROMPTS) == completed(student, tokenizer, PROMPTS)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "samples": 3, "top_p": 0.9}], ids=["greedy", "sampled"])
def test_a_completion_does_not_depend_on_its_batch(student: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    together = completed(student, tokenizer, PROMPTS, batch_size=15, **settings)
    alone = [completed(student, tokenizer, [prompt], **settings)[0] for prompt in PROMPTS]
    backwards = completed(student, tokenizer, PROMPTS[::-1], batch_size=2, **settings)[::-1]
    assert together == alone == backwards


def test_samples_of_a_seed_are_repeated_and_those_of_another_seed_differ(student: Any, tokenizer: Any) -> None:
    first, again, other = (
        completed(student, tokenizer, PROMPTS, samples=2, temperature=1.0, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert all(samples[0] != samples[1] for samples in first)


def test_sampled_tokens_are_as_frequent_as_the_softmax_says(student: Any, tokenizer: Any) -> None:
    ids = tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"]
    probabilities = (student(ids).logits[0, -1].detach() / 0.7).softmax(-1).tolist()
    texts = [tokenizer.decode([token], skip_special_tokens=True) for token in range(len(tokenizer))]
    draws = completed(student, tokenizer, PROMPTS[:1], max_new_tokens=1, samples=4000, temperature=0.7, batch_size=4000)
    for text in set(texts):  # several tokens may read alike: half a character
        expected = sum(probability for probability, same in zip(probabilities, texts, strict=True) if same == text)
        share = sum(sample.text == text for sample in draws[0]) / 4000
        assert abs(share - expected) < 5 * (expected / 4000) ** 0.5 + 1e-3


def test_the_nucleus_keeps_the_smallest_set_of_tokens_that_reaches_top_p(student: Any, tokenizer: Any) -> None:
    ids = tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"]
    mass, tokens = student(ids).logits[0, -1].detach().softmax(-1).sort(descending=True)
    top_p = float(mass[:3].sum()) - 1e-4
    draws = completed(
        student, tokenizer, PROMPTS[:1], max_new_tokens=1, samples=400, temperature=1.0, top_p=top_p, batch_size=400
    )
    assert {sample.text for sample in draws[0]} == {tokenizer.decode([int(token)]) for token in tokens[:3]}


def test_a_completion_ends_with_its_end_token_which_is_counted_but_not_shown(student: Any, tokenizer: Any) -> None:
    ids = greedy_ids(student, tokenizer, PROMPTS[0], 20)
    end = next(token for place, token in enumerate(ids) if place >= 4 and token not in ids[:place])
    expected = tokenizer.decode(ids[: ids.index(end)])
    [[generation]] = completed(with_end_token(tokenizer, end), tokenizer, PROMPTS[:1])
    assert generation.stopped
    assert generation.tokens == ids.index(end) + 1
    assert generation.text in (expected, expected + tokenizer.decode([end]))


def test_a_completion_that_is_cut_off_says_so(student: Any, tokenizer: Any) -> None:
    [[generation]] = completed(with_end_token(tokenizer, tokenizer.pad_token_id), tokenizer, PROMPTS[:1])
    assert (generation.stopped, generation.tokens) == (False, 20)


def test_special_tokens_that_mark_thinking_are_shown_and_others_are_not() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<|pad|>"]})
    ids = tokenizer("[THINK]It is 5.<|pad|>[/THINK] It is 4.<|pad|>", add_special_tokens=False)["input_ids"]
    done = _finish(tokenizer, ids, [tokenizer.eos_token_id], None, Decoding(99))
    assert done.text == "[THINK]It is 5.[/THINK] It is 4."


def test_a_stop_string_ends_a_completion_and_is_cut_off(student: Any, tokenizer: Any) -> None:
    [[whole]] = completed(student, tokenizer, PROMPTS[:1])
    stop = whole.text[5:8]
    [[generation]] = completed(student, tokenizer, PROMPTS[:1], stop=("never written", stop))
    assert generation.text == whole.text[: whole.text.index(stop)]
    assert generation.stopped
    assert generation.tokens < whole.tokens


def test_a_stop_string_across_many_tokens_ends_a_completion(student: Any, tokenizer: Any) -> None:
    [[whole]] = completed(student, tokenizer, PROMPTS[:1])
    [[generation]] = completed(student, tokenizer, PROMPTS[:1], stop=(whole.text[2:-1],))
    assert generation.text == whole.text[:2]


def test_tokenizer_and_mode_of_the_student_are_left_as_they_were(tokenizer: Any) -> None:
    student = tiny_llama(tokenizer).train()
    before = tokenizer.padding_side, tokenizer.pad_token_id, student.generation_config.to_dict()
    completed(student, tokenizer, PROMPTS, temperature=1.0)
    assert (tokenizer.padding_side, tokenizer.pad_token_id, student.generation_config.to_dict()) == before
    assert student.training


def test_batches_come_as_they_are_done_and_name_their_rows(student: Any, tokenizer: Any) -> None:
    rows = [(prompt, 0) for prompt in PROMPTS]
    batches = list(generate_batches(student, tokenizer, rows, Decoding(4), batch_size=2, seed=0))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert batches[0].keys() == {2, 0}, "the longest prompts come first"
    assert sorted(row for batch in batches for row in batch) == [0, 1, 2, 3, 4]


def test_no_prompts_give_no_completions(student: Any, tokenizer: Any) -> None:
    assert generate(student, tokenizer, [], max_new_tokens=4, batch_size=8, seed=0) == []


def test_a_prompt_that_would_have_to_be_cut_is_refused(student: Any, tokenizer: Any) -> None:
    with pytest.raises(UserError, match=r"1 of 2 prompts leave no room for 500 new tokens.*512 positions"):
        completed(student, tokenizer, ["Q:", PROMPTS[2]], max_new_tokens=500)


def test_an_empty_prompt_is_refused(student: Any, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="empty"):
        completed(student, tokenizer, ["Q:", ""])


def test_several_greedy_samples_are_refused() -> None:
    with pytest.raises(UserError, match=r"decode\.samples: 8 greedy samples"):
        Decoding(max_new_tokens=10, samples=8)


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_decoding_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="must be at least 1"):
        Decoding(**{"max_new_tokens": 10, **wrong})
