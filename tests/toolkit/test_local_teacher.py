"""A model in this process as a teacher: greedy, sampled, contrastive, with log-probabilities, and what it refuses."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.records import saved_student
from tests.tiny_students import tiny_llama, tiny_tokenizer
from toolkit.collect import TeacherUnavailable, collect
from toolkit.collect_settings import CollectSettings
from toolkit.contrastive_decoding import contrast_scores, decode_contrastively
from toolkit.decoding import Decoding, generate
from toolkit.store import Store
from toolkit.teachers.kinds import make_teacher
from toolkit.teachers.local_model import LocalModelConfig, LocalModelTeacher
from toolkit.teachers.logprobs import TokenLogprob, logprobs_of
from toolkit.teachers.protocol import Completion, Request, Sampling, TeacherError

PROMPTS = [
    "Q: Tom has 3 boxes.\nA:",
    "Q:",
    "Q: Ann is taller than Bob. Who is taller?\nA: Let's",
    "A train leaves at 9:15",
]
GREEDY = Sampling(temperature=0.0, max_tokens=12)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return tiny_llama(tokenizer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_student(tmp_path_factory.mktemp("teacher") / "tiny-teacher")


def make(folder: str, **config: Any) -> LocalModelTeacher:
    return LocalModelTeacher(LocalModelConfig(model=folder, device="cpu", **config))


def ask(prompt: str, sampling: Sampling = GREEDY, sample: int = 0, **more: Any) -> Request:
    return Request("m", (("user", prompt),), sampling, sample, **more)


def answers(teacher: LocalModelTeacher, requests: list[Request]) -> list[Completion]:
    async def together() -> list[Completion]:
        try:
            return await asyncio.gather(*(teacher.complete(request) for request in requests))
        finally:
            await teacher.close()

    return asyncio.run(together())


def failure(teacher: LocalModelTeacher, request: Request) -> TeacherError:
    with pytest.raises(TeacherError) as caught:
        asyncio.run(teacher.complete(request))
    return caught.value


# --- plain requests


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize(
    "sampling", [GREEDY, Sampling(temperature=1.0, top_p=0.9, max_tokens=12, seed=3)], ids=["greedy", "sampled"]
)
def test_answers_are_those_of_decoding_whatever_the_batch(
    folder: str, model: Any, tokenizer: Any, sampling: Sampling, batch_size: int
) -> None:
    expected = [
        samples[0]
        for samples in generate(
            model,
            tokenizer,
            PROMPTS,
            max_new_tokens=12,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            batch_size=1,
            seed=3,
        )
    ]

    got = answers(make(folder, batch_size=batch_size), [ask(prompt, sampling) for prompt in PROMPTS])

    assert [completion.text for completion in got] == [generation.text for generation in expected]
    assert [completion.completion_tokens for completion in got] == [generation.tokens for generation in expected]
    assert [completion.prompt_tokens for completion in got] == [len(ids) for ids in tokenizer(PROMPTS)["input_ids"]]


def test_samples_of_a_prompt_differ_and_those_of_a_seed_are_repeated(folder: str) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=12, seed=1)
    requests = [ask(PROMPTS[0], sampling, sample) for sample in range(3)]
    teacher = make(folder)

    first, again = answers(teacher, requests), answers(teacher, requests[::-1])[::-1]

    assert len({completion.text for completion in first}) == 3
    assert first == again


def test_requests_of_different_kinds_may_come_at_once(folder: str) -> None:
    teacher = make(folder)
    short = replace(GREEDY, max_tokens=3)
    requests = [ask(PROMPTS[0]), ask(PROMPTS[0], short), ask(PROMPTS[1], contrast=PROMPTS[2]), ask(PROMPTS[1])]

    together = answers(teacher, requests)

    assert together == [answers(teacher, [request])[0] for request in requests]
    assert together[1].completion_tokens <= 3


def test_an_answer_says_why_it_ended_and_who_wrote_it(folder: str) -> None:
    (cut,) = answers(make(folder), [ask(PROMPTS[0], replace(GREEDY, max_tokens=2))])
    (stopped,) = answers(make(folder), [ask(PROMPTS[0], replace(GREEDY, stop=(cut.text,)))])

    assert (cut.finish_reason, cut.completion_tokens) == ("length", 2)
    assert (stopped.finish_reason, stopped.text) == ("stop", "")
    assert cut.model == "tiny-teacher"
    assert str(Path(folder).parent) not in str(cut.raw)


def test_a_chat_template_is_applied_once(folder: str, tmp_path: Path, model: Any) -> None:
    chat = tiny_tokenizer()
    chat.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
    model.save_pretrained(tmp_path / "chat")
    chat.save_pretrained(tmp_path / "chat")

    (answer,) = answers(make(str(tmp_path / "chat"), prompt_format="chat"), [ask("Who?")])
    (plain,) = answers(make(folder), [ask("<user>Who?\n<assistant>")])

    assert (answer.text, answer.prompt_tokens) == (plain.text, plain.prompt_tokens)


@pytest.mark.parametrize(("opening", "is_answer"), [("<think>\n", False), ("<think>\n\n</think>\n\n", True)])
def test_what_follows_a_block_that_the_template_opens_is_thinking(
    tmp_path: Path, model: Any, opening: str, is_answer: bool
) -> None:
    chat = tiny_tokenizer()
    chat.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}" + opening
    model.save_pretrained(tmp_path / "chat")
    chat.save_pretrained(tmp_path / "chat")

    (answer,) = answers(make(str(tmp_path / "chat"), prompt_format="chat"), [ask("Who?")])

    written = answer.raw["choices"][0]["message"]["content"]
    assert written.strip()
    assert (answer.text, answer.reasoning) == ((written, "") if is_answer else ("", written.strip()))


def test_rounds_are_collected_into_a_store_and_asked_once(folder: str, tmp_path: Path) -> None:
    teacher = make_teacher(LocalModelConfig(model=folder, device="cpu", batch_size=2))
    with Store(tmp_path / "s.sqlite") as store:
        for asked in (4, 0):
            report = asyncio.run(collect([ask(prompt) for prompt in PROMPTS], teacher, store, CollectSettings()))
            assert (report.asked, report.failed) == (asked, 0)


# --- contrastive decoding


def slow_contrastive(model: Any, tokenizer: Any, prompt: str, contrast: str, beta: float, steps: int) -> list[int]:
    """SCOTT's loop without a cache: both sequences whole through the model for every token."""
    factual, other = tokenizer(prompt)["input_ids"], tokenizer(contrast)["input_ids"]
    end = tokenizer.eos_token_id
    chosen: list[int] = []
    with torch.inference_mode():
        while len(chosen) < steps:
            first = model(torch.tensor([factual + chosen])).logits[0, -1].log_softmax(-1)
            second = model(torch.tensor([other + chosen])).logits[0, -1].log_softmax(-1)
            token = int((first - beta * second).argmax())
            if end in (token, int(first.argmax())):
                break
            chosen.append(token)
    return chosen


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.5])
def test_contrastive_decoding_is_the_loop_written_out(model: Any, tokenizer: Any, beta: float) -> None:
    pairs = list(zip(PROMPTS, PROMPTS[1:] + PROMPTS[:1], strict=True))

    got = decode_contrastively(model, tokenizer, pairs, Decoding(12), beta=beta, batch_size=3)

    expected = [tokenizer.decode(slow_contrastive(model, tokenizer, *pair, beta, 12)) for pair in pairs]
    assert [generation.text for generation in got] == expected


def test_without_contrast_it_is_greedy_decoding(folder: str) -> None:
    teacher = make(folder, contrast_beta=0.0)
    contrasted = answers(teacher, [ask(prompt, contrast="Something else") for prompt in PROMPTS])
    greedy = answers(teacher, [ask(prompt) for prompt in PROMPTS])
    assert [answer.text for answer in contrasted] == [answer.text for answer in greedy]


def test_a_contrast_changes_what_is_said(folder: str) -> None:
    teacher = make(folder, contrast_beta=1.0)
    contrasted = answers(teacher, [ask(prompt, contrast=PROMPTS[2]) for prompt in PROMPTS[:2]])
    greedy = answers(teacher, [ask(prompt) for prompt in PROMPTS[:2]])
    assert [answer.text for answer in contrasted] != [answer.text for answer in greedy]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_papers_form_has_the_same_best_token(seed: int) -> None:
    # log p(a*) + log [p(a*) / p(a')] is twice the score with beta 1/2.
    factual, contrast = torch.randn(2, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    papers = 2 * factual.log_softmax(-1) - contrast.log_softmax(-1)
    assert papers.argmax() == contrast_scores(factual, contrast, 0.5).argmax()


@pytest.mark.parametrize(
    ("factual", "contrast", "chosen"),
    [
        ([3.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], 9),  # the chosen token, 0, is a stop
        ([3.0, 2.9, 0.0, 0.0], [3.0, -9.0, 0.0, 0.0], 9),  # 1 is chosen, but the prompt alone would say 0
        ([2.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], 1),  # neither is
    ],
)
def test_a_stop_is_the_chosen_token_or_the_prompts_own(
    factual: list[float], contrast: list[float], chosen: int
) -> None:
    from toolkit.contrastive_decoding import _Contrast

    left = torch.full((1, 10), -30.0)
    right = left.clone()
    left[0, :4], right[0, :4] = torch.tensor(factual), torch.tensor(contrast)

    logits = _Contrast(0.5, stops=[0, 9], end=9)(torch.zeros(2, 1), torch.cat([left, right]))

    assert logits.argmax(-1).tolist() == [chosen, chosen]


def test_an_answer_may_end_at_its_first_line_break(folder: str, model: Any, tokenizer: Any) -> None:
    # A teacher that always says "a", then "\n", then "b".
    newline = tokenizer("\n")["input_ids"][0]
    said = [tokenizer("a")["input_ids"][0], newline, tokenizer("b")["input_ids"][0]]
    scripted = tiny_llama(tokenizer)
    length = len(tokenizer(PROMPTS[1])["input_ids"])

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = type(scripted).forward(scripted, *args, **kwargs)
        place = int(kwargs["attention_mask"].shape[1]) - length
        output.logits = torch.full_like(output.logits, -30.0)
        output.logits[..., said[min(place, 2)]] = 0.0
        return output

    scripted.forward = forward
    pairs = [(PROMPTS[1], PROMPTS[1])]

    texts = [
        decode_contrastively(scripted, tokenizer, pairs, Decoding(4), beta=0.5, stop_at_newline=stop, batch_size=1)[
            0
        ].text
        for stop in (False, True)
    ]

    assert texts == ["a\nbb", "a"]


# --- log-probabilities


def test_log_probabilities_are_the_models_own(folder: str, model: Any, tokenizer: Any) -> None:
    sampling = Sampling(temperature=1.5, max_tokens=6, seed=2, top_logprobs=3)
    (answer,) = answers(make(folder), [ask(PROMPTS[0], sampling)])
    tokens = logprobs_of(answer)
    assert tokens is not None
    assert "".join(token.token for token in tokens) == answer.text

    prompt = tokenizer(PROMPTS[0])["input_ids"]
    ids = next(iter(generate(model, tokenizer, [PROMPTS[0]], max_new_tokens=6, temperature=1.5, batch_size=1, seed=2)))
    for place, token in enumerate(tokens):
        so_far = torch.tensor([prompt + list(ids[0].ids[:place])])
        with torch.inference_mode():
            chances = model(so_far).logits[0, -1].log_softmax(-1)
        best = chances.topk(3)
        assert token.logprob == pytest.approx(float(chances[ids[0].ids[place]]), abs=1e-4)
        assert [logprob for _, logprob in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert [text for text, _ in token.top] == [tokenizer.decode([int(other)]) for other in best.indices]


def test_log_probabilities_are_read_where_the_api_has_them() -> None:
    token = TokenLogprob("a", -0.5, (("a", -0.5), ("b", -1.0)))
    content = [token.as_response() | {"bytes": [97]}]
    assert logprobs_of(Completion("a", raw={"choices": [{"logprobs": {"content": content}}]})) == [token]


@pytest.mark.parametrize("raw", [{}, {"choices": []}, {"choices": [{"logprobs": None}]}, {"procedural": {}}])
def test_a_response_without_log_probabilities_has_none(raw: dict[str, Any]) -> None:
    assert logprobs_of(Completion("a", raw=raw)) is None


def test_asking_for_none_leaves_the_digest_of_a_request_as_it_was() -> None:
    plain = Request("m", (("user", "hi"),), Sampling())
    # Pinned: the key of answers in existing stores.
    assert plain.digest == "3cbbc53ef3b12818df3be5ed33688b29988e50c749f5fc405782033f4fd852a4"
    assert replace(plain, sampling=Sampling(top_logprobs=2)).digest != plain.digest


# --- what it refuses


def test_a_prompt_that_does_not_fit_fails_alone(folder: str) -> None:
    teacher = make(folder)
    long = ask("Tom " * 600)

    async def both() -> list[Any]:
        return await asyncio.gather(*(teacher.complete(r) for r in (long, ask(PROMPTS[0]))), return_exceptions=True)

    failed, answered = asyncio.run(both())

    assert isinstance(failed, TeacherError)
    assert (failed.kind, "512 positions" in failed.reason) == ("permanent", True)
    assert isinstance(answered, Completion)


def test_contrastive_decoding_with_a_temperature_is_refused(folder: str) -> None:
    error = failure(make(folder), ask("Q:", Sampling(temperature=0.2), contrast="Q!"))
    assert (error.kind, "sampling.temperature" in error.reason) == ("fatal", True)


def test_a_template_that_fails_is_a_message(tmp_path: Path, model: Any) -> None:
    chat = tiny_tokenizer()
    chat.chat_template = "{{ raise_exception('no system prompt, please') }}"
    model.save_pretrained(tmp_path)
    chat.save_pretrained(tmp_path)
    error = failure(make(str(tmp_path), prompt_format="chat"), ask("Q:"))
    assert (error.kind, "fails: no system prompt, please" in error.reason) == ("fatal", True)


def test_a_chat_without_a_template_is_refused(folder: str) -> None:
    error = failure(make(folder, prompt_format="chat"), ask("Q:"))
    assert (error.kind, "chat template" in error.reason) == ("fatal", True)


def test_a_model_that_is_not_there_ends_the_run_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with Store(tmp_path / "s.sqlite") as store, pytest.raises(TeacherUnavailable, match="'empty' cannot be loaded"):
        asyncio.run(collect([ask("Q:")], make(str(tmp_path / "empty")), store, CollectSettings()))


# --- students as teachers


def test_a_student_that_is_missing_is_told_with_the_command_that_trains_it() -> None:
    teacher = make("hub/models/nobody/v1.0.0", recipe="recipes/std_cot.yaml")
    assert str(failure(teacher, ask("Q:"))) == (
        "`teacher.model` 'hub/models/nobody/v1.0.0' is not there. Train it first: "
        "accelerate launch toolkit/train.py recipes/std_cot.yaml"
    )


def test_a_version_in_a_local_hub_is_called_by_its_students_name(tmp_path: Path) -> None:
    (tmp_path / "models" / "std-cot-student" / "v1.0.0").mkdir(parents=True)
    assert make(str(tmp_path / "models" / "std-cot-student" / "v1.0.0")).model == "std-cot-student@v1.0.0"
    assert make(str(tmp_path / "models" / "std-cot-student")).model == "std-cot-student"
