from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from toolkit.collect import TeacherUnavailable, collect
from toolkit.collect_settings import CollectSettings
from toolkit.errors import UserError
from toolkit.store import Store
from toolkit.tally import CollectReport
from toolkit.teachers.kinds import TeacherConfig, make_teacher
from toolkit.teachers.logprobs import TokenLogprob, logprobs_of
from toolkit.teachers.openai_compatible import (
    OpenAIConfig,
    OpenAITeacher,
    Unreachable,
    read_completion,
    retry_after_seconds,
)
from toolkit.teachers.protocol import Completion, Request, Sampling, TeacherError
from toolkit.teachers.recorded import RecordedConfig, RecordedTeacher
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import (
    ERROR_AS_200,
    GARBAGE,
    HANG,
    HTML,
    NO_CHOICES,
    NOT_UTF8,
    RESET,
    TRUNCATED,
    Ask,
    Reply,
    completion,
    fault,
)

KEY = "sk-loopback-5ecre7-key"


@pytest.fixture(autouse=True)
def _only_our_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_BASE_URL", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOOPBACK_KEY", KEY)


def ask(question: str = "1 + 1?", sampling: Sampling | None = None, sample_index: int = 0) -> Request:
    return Request("gpt", (("system", "Be brief."), ("user", question)), sampling or Sampling(), sample_index)


def make(server: FaultServer, **config: Any) -> OpenAITeacher:
    return OpenAITeacher(
        OpenAIConfig(**{"model": "gpt", "base_url": server.url, "api_key_env": "LOOPBACK_KEY", **config})
    )


def complete(server: FaultServer, request: Request | None = None, **config: Any) -> Completion:
    async def once() -> Completion:
        teacher = make(server, **config)
        try:
            return await teacher.complete(request or ask())
        finally:
            await teacher.close()

    return asyncio.run(once())


def check(server: FaultServer, **config: Any) -> None:
    async def once() -> None:
        teacher = make(server, **config)
        try:
            await teacher.check()
        finally:
            await teacher.close()

    asyncio.run(once())


def said_as_200(**error: Any) -> Reply:
    return Reply(json.dumps({"error": {"message": "no", **error}}).encode())


def flagged() -> Reply:
    error = {"message": "flagged by moderation", "code": 403, "metadata": {"flagged_input": "..."}}
    return Reply(json.dumps({"error": error}).encode(), 403)


def failure_from(reply: Reply, **config: Any) -> TeacherError:
    with FaultServer(lambda _: reply) as server:
        with pytest.raises(TeacherError) as caught:
            complete(server, **config)
        assert len(server.asks) == 1, "the teacher asks once; retrying is for collect"
    return caught.value


# What is sent


def test_a_request_is_sent_as_the_chat_completions_api_names_it() -> None:
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=64, stop=("\nQ:",), seed=5)
    with FaultServer(lambda _: completion("2")) as server:
        complete(server, ask("1 + 1?", sampling, sample_index=2))
        (asked,) = server.asks
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": "gpt",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}],
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 64,
        "stop": ["\nQ:"],
        "seed": 7,
    }


def test_the_token_limit_can_bear_its_newer_name() -> None:
    with FaultServer(lambda _: completion("2")) as server:
        complete(server, token_limit="max_completion_tokens")
        assert server.asks[0].body["max_completion_tokens"] == 1024
        assert "max_tokens" not in server.asks[0].body


# As the chat-completions API gives log-probabilities.
TOP = [{"token": "2", "logprob": -0.1}]
LOGPROBS = {"content": [{"token": "2", "logprob": -0.1, "bytes": [50], "top_logprobs": TOP}]}


def with_logprobs(reply: Reply, logprobs: Any) -> Reply:
    body = json.loads(reply.body)
    body["choices"][0]["logprobs"] = logprobs
    return Reply(json.dumps(body).encode())


def test_log_probabilities_are_asked_for_and_kept_with_the_response() -> None:
    with FaultServer(lambda _: with_logprobs(completion("2"), LOGPROBS)) as server:
        answer = complete(server, ask("1 + 1?", Sampling(top_logprobs=1)))
        (asked,) = server.asks
    assert (asked.body["logprobs"], asked.body["top_logprobs"]) == (True, 1)
    assert logprobs_of(answer) == [TokenLogprob("2", -0.1, (("2", -0.1),))]


def test_a_server_that_gives_no_log_probabilities_is_told_with_the_setting() -> None:
    with (
        FaultServer(lambda _: completion("2")) as server,
        pytest.raises(TeacherError, match="top_logprobs") as told,
    ):
        complete(server, ask("1 + 1?", Sampling(top_logprobs=1)))
    assert told.value.kind == "fatal"


def test_the_procedural_teacher_gives_no_log_probabilities() -> None:
    teacher = make_teacher(TypeAdapter(TeacherConfig).validate_python({"kind": "procedural"}))
    with pytest.raises(TeacherError, match="top_logprobs") as told:
        asyncio.run(teacher.complete(ask("1 + 1?", Sampling(top_logprobs=1))))
    assert told.value.kind == "fatal"


def test_a_recording_gives_log_probabilities_only_where_they_were_recorded(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        store.put(ask("with"), Completion("2", raw={"choices": [{"logprobs": LOGPROBS}]}))
        store.put(ask("without"), Completion("2"))

    async def answer(question: str) -> Completion:
        teacher = RecordedTeacher(RecordedConfig(store=path))
        try:
            return await teacher.complete(ask(question, Sampling(top_logprobs=1)))
        finally:
            await teacher.close()

    assert logprobs_of(asyncio.run(answer("with"))) is not None
    with pytest.raises(TeacherError, match="top_logprobs") as told:
        asyncio.run(answer("without"))
    assert told.value.kind == "fatal"


def test_a_local_server_is_asked_without_a_key_and_gets_no_other_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-openai-only")
    with FaultServer(lambda _: completion("2")) as server:
        complete(server, api_key_env="UNSET_KEY")
        assert "Authorization" not in server.asks[0].headers


def test_a_proxy_of_the_environment_is_used_unless_it_says_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(lambda _: completion("2")) as server:
        for name in ("HTTP_PROXY", "NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
        assert complete(server, base_url="http://teacher.invalid/v1").text == "2"
        monkeypatch.setenv("no_proxy", "teacher.invalid")
        with pytest.raises(Unreachable):
            complete(server, base_url="http://teacher.invalid/v1")
        assert len(server.asks) == 1


# What comes back


def test_a_completion_is_read_with_its_usage_and_kept_raw() -> None:
    with FaultServer(lambda _: completion("It is 2.")) as server:
        answer = complete(server)
    assert (answer.text, answer.reasoning, answer.finish_reason, answer.model) == (
        "It is 2.",
        "",
        "stop",
        "served-model",
    )
    assert (answer.prompt_tokens, answer.completion_tokens) == (7, 3)
    assert answer.raw["choices"][0]["message"]["content"] == "It is 2."


@pytest.mark.parametrize(
    "text",
    ["", "a\0b", "\ud800", "x" * 2**20, "{{ 7 * 7 }}", "\r\n\u2028"],
    ids=["empty", "NUL", "surrogate", "1 MB", "template", "line ends"],
)
def test_any_text_arrives_byte_for_byte(text: str) -> None:
    with FaultServer(lambda _: completion(text)) as server:
        assert complete(server).text == text


def test_a_length_stop_is_data() -> None:
    with FaultServer(lambda _: completion("It is", finish_reason="length")) as server:
        assert complete(server).finish_reason == "length"


@pytest.mark.parametrize(("text", "said"), [(None, "I can't."), ("", "I can't."), ("I can.", "I can.")])
def test_a_refusal_instead_of_an_answer_is_data(text: str | None, said: str) -> None:
    with FaultServer(lambda _: completion(text, refusal="I can't.")) as server:
        answer = complete(server)
    assert (answer.text, answer.finish_reason) == (said, "stop" if text else "refusal")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_text_of_its_own_field_is_the_reasoning(field: str) -> None:
    with FaultServer(lambda _: completion("2", **{field: "one and one"})) as server:
        answer = complete(server)
    assert (answer.text, answer.reasoning) == ("2", "one and one")


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": None}, {"prompt_tokens": -1}, {"prompt_tokens": 1e30}])
def test_odd_usage_counts_as_unknown(usage: object) -> None:
    response = {"choices": [{"message": {"content": "2"}, "finish_reason": "stop"}], "usage": usage}
    assert read_completion(response).prompt_tokens == 0


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 64}}, 64),
        ({"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}, 64),
        ({"cached_tokens": 64}, 64),
        ({"prompt_tokens_details": {"cached_tokens": None}, "cached_tokens": 0}, 0),
        ({"prompt_tokens_details": [64], "cached_tokens": "64"}, 0),
        ({"cached_tokens": 1000}, 100),
        ({}, 0),
    ],
    ids=["OpenAI and vLLM", "DeepSeek", "Moonshot", "none", "odd", "more than there were", "unsaid"],
)
def test_tokens_read_from_the_server_s_cache_are_counted(usage: dict[str, Any], cached: int) -> None:
    response = {
        "choices": [{"message": {"content": "2"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, **usage},
    }
    assert read_completion(response).cached_tokens == cached


def test_content_of_a_form_that_nobody_knows_is_refused_with_a_reason() -> None:
    parts = [{"type": "text", "text": "It is 2."}, {"type": "image_url", "image_url": {"url": "data:"}}]
    with pytest.raises(TeacherError, match=r"cannot be read: .*'image_url'; allowed: text, ") as refused:
        read_completion({"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]})
    assert (refused.value.kind, refused.value.billed) == ("permanent", True)


# What goes wrong


@pytest.mark.parametrize(
    ("reply", "kind", "reason"),
    [
        (fault(400, "context too long"), "permanent", "HTTP 400: context too long"),
        (fault(401, "bad key"), "fatal", r"key refused \(HTTP 401: bad key\)"),
        (fault(402), "fatal", "payment required"),
        (fault(403), "fatal", "not allowed"),
        (fault(404, "no such model"), "fatal", r"unknown model or address \(HTTP 404: no such model\)"),
        (fault(408), "retry", "HTTP 408"),
        (fault(409), "retry", "HTTP 409"),
        (fault(413), "permanent", "HTTP 413"),
        (fault(422), "permanent", "HTTP 422"),
        (fault(429), "retry", "HTTP 429"),
        (fault(429, code="insufficient_quota"), "fatal", "insufficient_quota"),
        (fault(400, code="model_not_found"), "fatal", "model_not_found"),
        (fault(500), "retry", "HTTP 500: scripted fault"),
        (fault(503), "retry", "HTTP 503"),
        (Reply(b"<html>Bad   gateway</html>", 502, content_type="text/html"), "retry", "HTTP 502: <html>Bad gateway"),
        (Reply(b'{"detail": "Unexpected fields"}', 422), "permanent", "HTTP 422: Unexpected fields"),
        (Reply(b"", 500), "retry", "HTTP 500"),
        (RESET, "retry", "connection failed: Server disconnected"),
        (TRUNCATED, "retry", "connection failed"),
        (GARBAGE, "retry", "not JSON"),
        (NOT_UTF8, "retry", "not JSON"),
        (HTML, "retry", "not JSON"),
        (NO_CHOICES, "retry", "holds no message"),
        (ERROR_AS_200, "retry", "holds no message: .*upstream overloaded"),
        (said_as_200(code=429), "retry", r"holds no message: HTTP 429: no"),
        (said_as_200(code="503"), "retry", r"holds no message: HTTP 503: no"),
        (said_as_200(code=401), "fatal", r"holds no message: key refused \(HTTP 401: no\)"),
        (said_as_200(code="insufficient_quota"), "fatal", r"holds no message: insufficient_quota \(HTTP 200: no\)"),
        (said_as_200(code=400), "permanent", "holds no message: HTTP 400: no"),
        (said_as_200(code="content_filter"), "permanent", "content policy refuses the prompt"),
        (said_as_200(code=[429]), "retry", "holds no message: no"),
        (said_as_200(code="9" * 5000), "retry", "holds no message: no"),
        (
            fault(400, code="content_policy_violation"),
            "permanent",
            "policy refuses the prompt .HTTP 400: scripted",
        ),
        (fault(400, code="content_filter"), "permanent", "content policy refuses the prompt"),
        (flagged(), "permanent", r"content policy refuses the prompt \(HTTP 403: flagged"),
        (fault(529), "retry", "HTTP 529"),
        (Reply(b'{"choices": [{"message": "text"}]}'), "retry", "holds no message"),
        (Reply(b'{"choices": {"0": 1}}'), "retry", "holds no message"),
        (Reply(b"[" * 100_000), "retry", "not JSON"),
    ],
)
def test_each_fault_is_sorted(reply: Reply, kind: str, reason: str) -> None:
    failure = failure_from(reply)
    assert failure.kind == kind
    assert re.search(reason, failure.reason)


def test_a_server_that_never_answers_is_given_up() -> None:
    failure = failure_from(HANG, timeout=0.2)
    assert (failure.kind, failure.reason) == ("retry", "no answer within the timeout")
    assert failure.billed


@pytest.mark.parametrize(
    ("reply", "billed"),
    [
        (fault(400), False),
        (fault(429), False),
        (fault(500), False),
        (HTML, True),
        (TRUNCATED, True),
        (RESET, True),
        (NO_CHOICES, True),
        (ERROR_AS_200, True),
    ],
)
def test_a_failure_tells_whether_it_may_have_been_billed(reply: Reply, billed: bool) -> None:
    assert failure_from(reply).billed is billed


def test_a_request_that_never_left_is_not_billed() -> None:
    with FaultServer(lambda _: completion("2")) as server:
        url = server.url

    async def once() -> None:
        teacher = OpenAITeacher(OpenAIConfig(model="gpt", base_url=url))
        try:
            await teacher.complete(ask())
        finally:
            await teacher.close()

    with pytest.raises(Unreachable, match="Connect call failed") as told:
        asyncio.run(once())
    assert (told.value.kind, told.value.billed) == ("retry", False)


@pytest.mark.parametrize(
    ("reply", "overloaded"),
    [(fault(429), True), (fault(503), True), (fault(529), True), (said_as_200(code=429), True), (fault(500), False)],
)
def test_a_failure_tells_whether_the_server_is_overloaded(reply: Reply, overloaded: bool) -> None:
    assert failure_from(reply).overloaded is overloaded


def test_a_spent_quota_is_no_overload() -> None:
    assert not failure_from(fault(429, code="insufficient_quota")).overloaded


def test_a_reason_is_one_line_of_bounded_length() -> None:
    failure = failure_from(fault(500, "a\nb\t" * 10_000))
    assert "\n" not in failure.reason
    assert len(failure.reason) <= 300


def test_a_prompt_that_cannot_be_sent_fails_for_good() -> None:
    with (
        FaultServer(lambda _: completion("2")) as server,
        pytest.raises(TeacherError, match="lone surrogate") as caught,
    ):
        complete(server, ask("\ud800"))
    assert caught.value.kind == "permanent"


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_travels_with_the_error(status: int) -> None:
    assert failure_from(fault(status, Retry_After="17")).retry_after == 17


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "30"}, 30),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Fri, 02 Jan 2026 00:01:00 GMT"}, 60),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "Fri, 02 Jan 99999999999999999999 00:01:00 GMT"}, None),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, now=datetime(2026, 1, 2, tzinfo=UTC)) == seconds


# The check before the first request


@pytest.mark.parametrize(
    "models", [None, fault(404), fault(503), HTML, GARBAGE], ids=["list", "404", "503", "html", "garbage"]
)
def test_a_server_that_answers_passes_the_check_for_nothing(models: Reply | None) -> None:
    with FaultServer(lambda _: completion("2"), models=models) as server:
        check(server)
        assert (server.models_seen, server.asks) == (1, [])


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_fails_the_check(status: int) -> None:
    with (
        FaultServer(lambda _: completion("2"), models=fault(status)) as server,
        pytest.raises(TeacherError, match=r"key refused|not allowed") as caught,
    ):
        check(server)
    assert caught.value.kind == "fatal"


def test_prompts_go_to_no_other_address_than_the_one_that_was_named() -> None:
    with FaultServer(lambda _: completion("2")) as other:
        away = fault(307, location=f"{other.url}/chat/completions")
        with FaultServer(lambda _: away, models=away) as server:
            for ask in (check, complete):
                with pytest.raises(TeacherError, match=r"sends on to 'http.*'; name that in base_url") as caught:
                    ask(server)
                assert caught.value.kind == "fatal"
        assert (other.asks, other.models_seen) == ([], 0)


def test_a_model_that_the_server_does_not_list_is_told_once_it_is_refused() -> None:
    models = Reply(b'{"data": [{"id": "gpt-4"}, {"id": "llama"}, "odd"]}')
    with FaultServer(lambda _: fault(404, "nothing here"), models=models) as server:

        async def once() -> None:
            teacher = make(server, model="gpt4")
            try:
                await teacher.check()
                await teacher.complete(ask())
            finally:
                await teacher.close()

        with pytest.raises(TeacherError, match=r"found 'gpt4', the server lists gpt-4, llama \(did you mean 'gpt-4'"):
            asyncio.run(once())


def test_a_server_may_serve_what_it_does_not_list() -> None:
    with FaultServer(lambda _: completion("2"), models=Reply(b'{"data": [{"id": "another"}]}')) as server:
        check(server)
        assert complete(server).text == "2"


def test_an_unreachable_host_fails_the_check_by_name() -> None:
    with FaultServer(lambda _: completion("2")) as server:
        url = server.url
    with pytest.raises(
        TeacherError, match=rf"{url}.* cannot be reached: connection failed: .*Connect call failed"
    ) as caught:
        check(server)
    assert caught.value.kind == "fatal"


def test_openai_itself_is_not_asked_without_a_key() -> None:
    async def once() -> None:
        teacher = OpenAITeacher(OpenAIConfig(model="gpt"))
        try:
            await teacher.check()
        finally:
            await teacher.close()

    with pytest.raises(TeacherError, match=r"OPENAI_API_KEY is not set, and https://api\.openai\.com"):
        asyncio.run(once())


# Through collect


def through_collect(server: FaultServer, store: Store, requests: list[Request], **settings: Any) -> CollectReport:
    async def no_wait(_: float) -> None:
        await asyncio.sleep(0)

    return asyncio.run(collect(requests, make(server), store, CollectSettings(**settings), sleep=no_wait))


def test_every_fault_in_turn_ends_with_every_request_answered(tmp_path: Path) -> None:
    faults = [fault(429, Retry_After="2"), fault(500), fault(503), RESET, TRUNCATED, GARBAGE, NO_CHOICES, HTML]

    def script(asked: Ask) -> Reply:
        number = int(asked.prompt) + asked.attempt
        return faults[number % len(faults)] if asked.attempt < 3 else completion(f"answer {asked.prompt}")

    requests = [ask(str(n)) for n in range(40)]
    with FaultServer(script) as server, Store(tmp_path / "s.db") as store:
        report = through_collect(server, store, requests, concurrency=8)
        assert (report.asked, report.answered, report.prompt_tokens) == (40, 40, 280)
        assert set(server.asked_per_prompt().values()) == {3}
        assert store.get(requests[9]).text == "answer 9"  # type: ignore[union-attr]


def test_connections_are_kept_and_never_more_than_the_window(tmp_path: Path) -> None:
    with FaultServer(lambda _: completion("2")) as server, Store(tmp_path / "s.db") as store:
        assert through_collect(server, store, [ask(str(n)) for n in range(60)], concurrency=5).answered == 60
        assert len(server.connections) <= 5


def test_one_teacher_can_be_used_in_two_event_loops(tmp_path: Path) -> None:
    with FaultServer(lambda _: completion("2")) as server, Store(tmp_path / "s.db") as store:
        teacher = make(server)
        for number in range(2):
            asyncio.run(collect([ask(str(number))], teacher, store, CollectSettings()))
        assert store.stats().completions == 2


SECRET_REPLIES: list[Callable[[], Reply]] = [
    lambda: fault(400, f"Incorrect API key provided: {KEY}"),
    lambda: fault(401, f"Incorrect API key provided: {KEY}"),
    lambda: fault(500, f"Authorization: Bearer {KEY}"),
    lambda: Reply(f'{{"error": "you sent {KEY}"}}'.encode()),
    lambda: RESET,
]


@pytest.mark.parametrize("reply", SECRET_REPLIES, ids=["400", "401", "500", "200", "reset"])
def test_the_key_stands_in_no_log_store_or_error(
    reply: Callable[[], Reply],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.DEBUG), FaultServer(lambda _: reply()) as server, Store(tmp_path / "s.db") as store:
        with pytest.raises(UserError) as caught:
            through_collect(server, store, [ask(str(n)) for n in range(3)], max_attempts=2)
        store.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    printed = capfd.readouterr()
    everything = f"{caught.value} {kept!r} {caplog.text} {printed.out} {printed.err} {make(server).__dict__}"
    assert any(f"Bearer {KEY}" == ask.headers["Authorization"] for ask in server.asks)
    assert KEY not in everything


# Configuration


@pytest.mark.parametrize(
    "base_url",
    [
        [],
        ["http://a/v1", "http://a/v1"],
        ["http://a/v1", "b:8000/v1"],
        "localhost:8000/v1",
        "ftp://host/v1",
        "http://",
        "https://user:pass@host/v1",
        "https://host/v1?key=1",
    ],
)
def test_an_address_with_a_fault_or_a_secret_is_refused(base_url: Any) -> None:
    with pytest.raises(ValidationError, match="base_url"):
        OpenAIConfig(model="gpt", base_url=base_url)


def test_a_key_in_place_of_a_variable_name_is_refused() -> None:
    with pytest.raises(ValidationError, match="api_key_env"):
        OpenAIConfig(model="gpt", api_key_env="sk-abc")


@pytest.mark.parametrize("kind", ["procedural", "openai", "recorded"])
def test_a_teacher_is_made_from_its_section(kind: str, tmp_path: Path) -> None:
    Store(tmp_path / "s.db").close()
    sections: dict[str, dict[str, Any]] = {
        "procedural": {"kind": "procedural"},
        "openai": {"kind": "openai", "model": "gpt"},
        "recorded": {"kind": "recorded", "store": tmp_path / "s.db"},
    }
    teacher = make_teacher(TypeAdapter(TeacherConfig).validate_python(sections[kind]))
    assert teacher.kind == kind
    asyncio.run(teacher.close())


@pytest.mark.parametrize("section", [{}, {"kind": "magic"}, {"kind": "openai"}, {"kind": "openai", "modle": "gpt"}])
def test_a_section_without_a_known_kind_is_refused(section: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(TeacherConfig).validate_python(section)


def test_validating_a_teacher_loads_no_client() -> None:
    code = "import sys, toolkit.teachers.kinds, toolkit.collect; sys.exit(bool({'openai', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# The recorded teacher


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "recording.db"
    with Store(path) as store:
        store.put(ask("a"), Completion("answer", "thought", "length", "gpt-0613", 4, 2, raw={"id": 1}))
    return path


def test_a_recorded_teacher_answers_what_was_recorded(recording: Path, tmp_path: Path) -> None:
    other_words = Request("another model", ask("a").messages, Sampling(temperature=1.0))
    with Store(tmp_path / "run.db") as store:
        teacher = RecordedTeacher(RecordedConfig(store=recording))
        asyncio.run(collect([other_words], teacher, store, CollectSettings()))
        assert store.get(other_words) == Completion("answer", "thought", "length", "gpt-0613", 4, 2, raw={"id": 1})


def test_a_recorded_teacher_fails_for_good_on_anything_else(recording: Path) -> None:
    teacher = RecordedTeacher(RecordedConfig(store=recording))
    with pytest.raises(TeacherError, match="not recorded") as caught:
        asyncio.run(teacher.complete(ask("b")))
    assert caught.value.kind == "permanent"


def test_a_recorded_teacher_bears_the_name_of_the_only_model_recorded(recording: Path) -> None:
    assert RecordedTeacher(RecordedConfig(store=recording)).model == "gpt"
    with Store(recording) as store:
        store.put(Request("llama", (("user", "c"),)), Completion("x"))
    assert RecordedTeacher(RecordedConfig(store=recording)).model == "recorded"
    assert RecordedTeacher(RecordedConfig(store=recording, model="llama")).model == "llama"


def test_a_recorded_teacher_can_be_held_to_one_model(recording: Path) -> None:
    teacher = RecordedTeacher(RecordedConfig(store=recording, model="llama"))
    with pytest.raises(TeacherError, match="not recorded"):
        asyncio.run(teacher.complete(ask("a")))


def contrasted(contrast: str | None) -> Request:
    return Request("gpt", ask("a").messages, contrast=contrast)


def test_a_recorded_teacher_tells_a_contrasted_request_from_a_plain_one(recording: Path) -> None:
    with Store(recording) as store:
        store.put(contrasted("b"), Completion("contrasted answer"))
    teacher = RecordedTeacher(RecordedConfig(store=recording))
    said = [asyncio.run(teacher.complete(contrasted(contrast))).text for contrast in (None, "b")]
    assert said == ["answer", "contrasted answer"]
    with pytest.raises(TeacherError, match="not recorded"):
        asyncio.run(teacher.complete(contrasted("c")))


def test_a_contrast_is_part_of_a_request_s_identity_only_where_there_is_one() -> None:
    requests = [contrasted(contrast) for contrast in (None, "", "b")]
    assert len({request.digest for request in requests}) == len({request.prompt_digest for request in requests}) == 3
    # By hand, as digests were made before there were contrasts: model, messages, sampling, sample index.
    content = [
        "gpt",
        [["system", "Be brief."], ["user", "a"]],
        {"temperature": 0.2, "top_p": 1.0, "max_tokens": 1024, "stop": [], "seed": None},
        0,
    ]
    assert requests[0].digest == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def test_contrastive_decoding_is_not_sent_to_a_server() -> None:
    with FaultServer(lambda _: completion("2")) as server:
        with pytest.raises(TeacherError, match=r"`contrastive: true`.*'openai'") as refused:
            complete(server, contrasted("b"))
        assert server.asks == []
    assert refused.value.kind == "fatal"


def test_a_missing_recording_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such store"):
        RecordedTeacher(RecordedConfig(store=tmp_path / "none.db"))


def test_a_refused_key_at_the_check_ends_the_run(tmp_path: Path) -> None:
    with FaultServer(lambda _: completion("2"), models=fault(401)) as server, Store(tmp_path / "s.db") as store:
        with pytest.raises(TeacherUnavailable, match="key refused"):
            through_collect(server, store, [ask()])
        assert server.asks == []


@pytest.mark.parametrize("key", ["sk-abc\n", "schl\u00fcssel"], ids=["line break", "umlaut"])
def test_a_key_that_no_header_can_carry_is_told_as_such(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("A_KEY", key)
    teacher = OpenAITeacher(OpenAIConfig(model="gpt", base_url="http://127.0.0.1:9/v1", api_key_env="A_KEY"))
    with pytest.raises(TeacherError, match="A_KEY holds a line break") as told:
        asyncio.run(teacher.check())
    assert told.value.kind == "fatal"
    assert key not in told.value.reason
