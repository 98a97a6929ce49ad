"""What servers really say when they refuse a parameter, do not know a model, or answer 200 without an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.waits import Waits
from toolkit.collect import TeacherUnavailable, collect
from toolkit.collect_settings import CollectSettings
from toolkit.store import Store
from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher
from toolkit.teachers.openai_failures import ParameterRefused, UnknownModel, no_answer, status_failure
from toolkit.teachers.protocol import Request, Sampling, TeacherError
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import Ask, Reply, completion, fault

SENT = ("model", "messages", "temperature", "top_p", "max_tokens", "seed", "stop", "chat_template_kwargs")


def openai(message: str, param: str | None = None, code: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def asks(number: int, **sampling: Any) -> list[Request]:
    return [Request("m", (("user", f"q{n}"),), Sampling(**sampling)) for n in range(number)]


def run(server: FaultServer, store: Store, requests: Sequence[Request], config: Any = None, **settings: Any) -> Any:
    teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url, **(config or {})))
    chosen = CollectSettings(**{"max_failure_rate": 1.0, "concurrency": 4, **settings})
    return asyncio.run(collect(requests, teacher, store, chosen, sleep=Waits()))


REFUSED = [
    # OpenAI's reasoning models
    (400, openai("Unsupported parameter: 'temperature' is not supported with this model.", "temperature",
                 "unsupported_parameter"), "temperature"),
    (400, openai("Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is "
                 "supported.", "temperature", "unsupported_value"), "temperature"),
    (400, openai("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
                 "instead.", "max_tokens", "unsupported_parameter"), "max_tokens"),
    (400, openai("max_tokens is too large: 200000. This model supports at most 16384 completion tokens, whereas you "
                 "provided 200000.", "max_tokens", "invalid_value"), "max_tokens"),
    (400, openai("Unrecognized request argument supplied: chat_template_kwargs"), "chat_template_kwargs"),
    (400, openai("Unknown parameter: 'chat_template_kwargs.enable_thinking'.", "chat_template_kwargs.enable_thinking",
                 "unknown_parameter"), "chat_template_kwargs"),
    # Google's compatible endpoint, of which the list is its own
    (400, [{"error": {"code": 400, "message": "Invalid JSON payload received. Unknown name \"seed\": Cannot find "
                      "field.", "status": "INVALID_ARGUMENT"}}], "seed"),
    # Groq
    (400, openai("property 'seed' is unsupported"), "seed"),
    # Anthropic's compatible endpoint
    (400, openai("temperature: range: 0..1"), "temperature"),
    (400, openai("`temperature` and `top_p` cannot both be specified for this model. Please use only one."),
     "temperature"),
    (400, openai("`top_p` is deprecated for this model."), "top_p"),
    # Mistral
    (422, {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"],
           "msg": "Extra inputs are not permitted", "input": 7}]}}, "seed"),
    # FastAPI servers, vLLM's text of the same
    (422, {"detail": [{"loc": ["body", "stop", 0], "msg": "str type expected"}]}, "stop"),
    (400, {"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'top_p'), 'msg': 'Extra inputs "
           "are not permitted'}]", "code": 400}, "top_p"),
    (400, {"object": "error", "message": "top_p must be in (0, 1], got 1.5.", "type": "BadRequestError"}, "top_p"),
    # DashScope, of what was not sent
    (400, openai("<400> InternalError.Algo.InvalidParameter: parameter.enable_thinking must be set to false for "
                 "non-streaming calls"), "enable_thinking"),
    # Azure, of the query
    (400, openai("Missing required query parameter: api-version"), "api-version"),
    # 200 with an error, and a plain text
    (200, openai("Unsupported parameter: 'seed'", "seed"), "seed"),
    (400, "Invalid value for parameter 'seed': must be positive", "seed"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "parameter"), REFUSED)
def test_a_refused_parameter_is_found(status: int, body: Any, parameter: str) -> None:
    failure = no_answer(body, SENT) if status == 200 else status_failure(status, body, sent=SENT)
    assert isinstance(failure, ParameterRefused)
    assert failure.parameter == parameter


ABOUT_THE_PROMPT = [
    openai("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (3000 in the "
           "messages, 2000 in the completion). Please reduce the length of the messages or completion.", "messages",
           "context_length_exceeded"),
    openai("'max_tokens' or 'max_completion_tokens' is too large: 2048. This model's maximum context length is 4096 "
           "tokens and your request has 3000 input tokens (2048 > 4096 - 3000).", "max_tokens"),
    openai("Invalid 'messages[0].content': string too long.", "messages[0].content", "string_above_max_length"),
    openai("The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", "prompt",
           "content_filter"),
    openai("Invalid prompt: your prompt was flagged as potentially violating our usage policy.", None,
           "invalid_prompt"),
    openai("prompt is too long: 210000 tokens > 200000 maximum"),
    openai("Bad request"),
    openai("Could not parse the JSON body of your request."),
    openai("Please stop sending requests"),
    {"detail": "Unexpected fields"},
    {"detail": [{"loc": ["body", "messages", 0, "content"], "msg": "field required"}]},
    "context too long",
    "",
    [],
    None,
]  # fmt: skip


@pytest.mark.parametrize("body", ABOUT_THE_PROMPT)
def test_a_400_about_one_prompt_is_that_request_s_failure(body: Any) -> None:
    failure = status_failure(400, body, sent=SENT)
    assert not isinstance(failure, ParameterRefused | UnknownModel)
    assert failure.kind == "permanent"


UNKNOWN = [
    (404, openai("The model `m` does not exist or you do not have access to it.", None, "model_not_found")),
    (400, openai("The requested model 'm' does not exist.", "model", "model_not_found")),
    (400, openai("m is not a valid model ID")),  # OpenRouter
    (400, openai("Model Not Exist")),  # DeepSeek
    (400, openai("Invalid model: m", None, "1500")),  # Mistral
    (400, {"error": {"message": "/chat/completions: Invalid model name passed in model=m"}}),  # LiteLLM
    (404, {"object": "error", "message": "The model `m` does not exist.", "type": "NotFoundError"}),  # vLLM
    (404, openai('model "m" not found, try pulling it first')),  # Ollama
    (422, {"detail": "Unknown model: m"}),
    (422, {"detail": [{"loc": ["body", "model"], "msg": "model 'm' not found"}]}),
    (500, {"error": "The model 'm' was not found"}),
    (500, "m is not a local folder and is not a valid model identifier listed on a hub"),  # transformers serve
    (503, openai("no available channel for model m under group default")),
    (400, {"error": {"code": "1211", "message": "模型不存在，请检查模型代码。"}}),  # Zhipu
    (400, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource is gone."}}),
    (404, openai("Not found the model m or Permission denied")),  # Moonshot
    (400, openai("The requested model 'm' is not supported by any provider you have enabled.", None,
                 "model_not_supported")),
    (200, openai("The model `m` does not exist", None, "model_not_found")),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), UNKNOWN)
def test_an_unknown_model_ends_the_run_whatever_the_status(store: Store, status: int, body: Any) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    with FaultServer(lambda _: Reply(content.encode(), status), models=("n",)) as server:
        server._models = Reply(b'{"data": [{"id": "n"}]}')
        with pytest.raises(TeacherUnavailable, match=r"unknown model.*found 'm', the server lists n"):
            run(server, store, asks(200))
        assert server.requests_seen <= 8  # the window, and what was on its way


KNOWN = [
    (503, openai("The model is overloaded. Please try again later.")),
    (503, openai("Model m is currently loading")),
    (500, openai("The model produced invalid output")),
    (500, openai("Invalid model output")),
    (429, openai("Rate limit reached for model m; no available channel for model m")),
    (500, {"error": "CUDA out of memory"}),
    (503, "upstream connect error or disconnect/reset before headers"),
    (500, openai("File not found")),
    (502, "<html><title>502 Bad Gateway</title></html>"),
    (500, openai("The server had an error while processing your request for model m.")),
    (504, openai("The model did not respond in time")),
    (500, openai("the key does not exist in the cache")),
]


@pytest.mark.parametrize(("status", "body"), KNOWN)
def test_a_server_in_trouble_is_not_taken_for_one_without_the_model(status: int, body: Any) -> None:
    assert status_failure(status, body).kind == "retry"


def test_a_model_that_has_answered_is_not_unknown_later(store: Store) -> None:
    def script(asked: Ask) -> Reply:
        is_away = asked.prompt == "q5" and asked.attempt == 1
        return fault(500, "model 'm' not found") if is_away else completion("2")

    with FaultServer(script) as server:
        assert run(server, store, asks(10), concurrency=1).answered == 10


# What a refused parameter does to a run


@pytest.mark.parametrize(
    ("name", "config", "sampling", "remedy"),
    [
        ("temperature", {}, {}, r"dataset\.config\.teacher\.temperature: null"),
        ("top_p", {}, {}, r"dataset\.config\.teacher\.top_p: null"),
        ("seed", {}, {"seed": 1}, r"dataset\.config\.teacher\.seed: null"),
        ("stop", {}, {"stop": ("Q",)}, r"dataset\.config\.teacher\.stop: null"),
        ("max_tokens", {}, {}, r"dataset\.config\.teacher\.token_limit: max_completion_tokens"),
        (
            "max_completion_tokens",
            {"token_limit": "max_completion_tokens"},
            {},
            r"dataset\.config\.teacher\.token_limit: max_tokens",
        ),
        (
            "reasoning_effort",
            {"request": {"reasoning_effort": "low"}},
            {},
            r"change it in dataset\.config\.teacher\.requ",
        ),
        (
            "enable_thinking",
            {},
            {},
            r"which is not sent; set it in dataset\.config\.teacher\.request",
        ),
        ("api-version", {"query": {"api-version": "1"}}, {}, r"change it in dataset\.config\.teacher\.query"),
    ],
)
def test_the_first_refusal_of_a_parameter_ends_the_run_with_the_key_to_set(
    store: Store, name: str, config: dict[str, Any], sampling: dict[str, Any], remedy: str
) -> None:
    refusal = Reply(json.dumps(openai(f"Unsupported parameter: '{name}'", name)).encode(), 400)
    with FaultServer(lambda _: refusal) as server:
        with pytest.raises(
            TeacherUnavailable, match=rf"refuses (the request because of )?'{name}'.*{remedy}.*HTTP 400: Unsupported"
        ):
            run(server, store, asks(192, **sampling), config)
        assert server.requests_seen <= 4


@pytest.mark.parametrize("name", ["temperature", "top_p", "seed", "stop"])
def test_a_parameter_that_is_null_is_not_sent(store: Store, name: str) -> None:
    with FaultServer(lambda _: completion("2")) as server:
        run(server, store, asks(1, seed=1, stop=("Q",)), {name: None})
        sent = server.asks[0].body
    assert {"temperature", "top_p", "seed", "stop"} - set(sent) == {name}


def test_a_parameter_that_was_accepted_before_fails_its_request_alone(store: Store) -> None:
    refusal = Reply(json.dumps(openai("max_tokens is too large", "max_tokens")).encode(), 400)

    def script(asked: Ask) -> Reply:
        return refusal if asked.prompt == "q3" else completion("2")

    with FaultServer(script) as server:
        report = run(server, store, asks(10), concurrency=1)
    assert (report.answered, report.failed) == (9, 1)


def test_a_parameter_that_only_later_prompts_have_ends_the_run_too(store: Store) -> None:
    def script(asked: Ask) -> Reply:
        return fault(400, "'stop' is not supported") if "stop" in asked.body else completion("2")

    with FaultServer(script) as server:
        assert run(server, store, asks(3)).answered == 3
        with pytest.raises(TeacherUnavailable, match=r"teacher\.stop: null"):
            run(server, store, [*asks(3), *asks(100, stop=("Q",))], concurrency=1)
        assert server.requests_seen == 4


def test_a_refused_parameter_in_a_batch_ends_the_run(store: Store) -> None:
    refusal = Reply(json.dumps(openai("Unsupported parameter: 'temperature'", "temperature")).encode(), 400)
    with FaultServer(lambda _: refusal) as server:
        with pytest.raises(TeacherUnavailable, match=r"teacher\.temperature: null"):
            run(server, store, asks(9), mode="batch", batch_size=3)
        assert server.requests_seen <= 9


# 200 without an answer


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"detail": "Not enough credits"}', "Not enough credits"),
        (b'{"object": "error", "message": "engine is dead"}', "engine is dead"),
        (b'{"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}', "insufficient balance"),
        (b'{"msg": "busy", "code": 7}', "busy"),
        (b'{"status": "queued", "id": "x"}', '"status": "queued"'),
        (b'{"choices": [], "info": "no worker"}', "no worker"),
        (b'{"choices": [{"text": "an old completion"}]}', "an old completion"),
        (b'["not", "an object"]', "not"),
        (b'"please log in"', "please log in"),
        (b"please log in", "please log in"),
        (b"<html><h1>Sign in</h1></html>", "Sign in"),
        (b'data: {"choices": []}\n\ndata: [DONE]', "data:"),
        (b'{"choices": [{"mess', "choices"),
        (b"\xff\xfe nonsense", "nonsense"),
    ],
)
def test_a_200_without_an_answer_keeps_the_server_s_words(store: Store, content: bytes, words: str) -> None:
    with FaultServer(lambda _: Reply(content)) as server:
        run(server, store, asks(1), max_attempts=1)
    reason = store.failure(asks(1)[0]) or ""
    assert words in reason
    assert len(reason) <= 320


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"raw": "context window exceeded", "provider_name": "Groq"}, ["context window exceeded", "Groq"]),
        ({"raw": '{"error": {"message": "bad \\"top_k\\""}}'}, ["top_k"]),
        ({"reasons": ["violence"]}, ["violence"]),
        ({"raw": {"detail": "no GPU"}}, ["no GPU"]),
        ("plain text", ["plain text"]),
        ({}, []),
        (None, []),
        ({"raw": "y" * 10_000}, ["yyyy"]),
        ({"raw": "\x1b[2Jred"}, ["red"]),
    ],
)
@pytest.mark.parametrize("status", [502, 200])
def test_the_words_behind_the_words_are_kept(status: int, metadata: Any, words: list[str]) -> None:
    body = {"error": {"message": "Provider returned error", "code": 502, "metadata": metadata}}
    failure = no_answer(body) if status == 200 else status_failure(status, body)
    assert all(word in failure.reason for word in ["Provider returned error", *words])
    assert failure.reason.isprintable()
    assert len(failure.reason) < 400


def test_an_error_kind_is_what_it_was_before_metadata() -> None:
    assert isinstance(status_failure(500, {"error": {"message": "x", "metadata": {"raw": "y"}}}), TeacherError)
