"""A completion is an answer only where it is known that it came to its end; in every way that one can come in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.chains import unreadable
from dataset_builders.recordings import import_recordings
from dataset_builders.settings import Recording
from tests.waits import Waits
from toolkit.collect import collect
from toolkit.collect_settings import CollectSettings
from toolkit.store import Store
from toolkit.teachers.finish_reasons import ANSWERED, understood
from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher, read_completion
from toolkit.teachers.protocol import Completion, Request, TeacherError
from toolkit.teachers.recorded import RecordedConfig, RecordedTeacher
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import Reply, completion

PARTIAL = "There are 15 trees at first. So the answer is 6."


def ask(question: str = "1 + 1?") -> Request:
    return Request("m", (("user", question),))


def choice(reason: Any, **message: Any) -> dict[str, Any]:
    return {"index": 0, "message": {"role": "assistant", "content": PARTIAL, **message}, "finish_reason": reason}


def response(reason: Any, **message: Any) -> dict[str, Any]:
    return {"choices": [choice(reason, **message)], "model": "m"}


LEGAL = {
    "stop": "stop",
    "eos": "stop",  # Together
    "eos_token": "stop",  # TGI
    "stop_sequence": "stop",  # TGI, Anthropic
    "end_turn": "stop",  # Anthropic
    "COMPLETE": "stop",  # Cohere
    "STOP": "stop",  # Google
    "length": "length",
    "max_tokens": "length",  # Anthropic
    "MAX_TOKENS": "length",  # Google, Cohere
    "model_length": "length",  # Mistral
    "model_context_window_exceeded": "length",  # Anthropic, Zhipu
    "content_filter": "content_filter",
    "SAFETY": "content_filter",  # Google
    "RECITATION": "content_filter",
    "sensitive": "content_filter",  # Zhipu
    "refusal": "refusal",  # Anthropic
}

# (reason, kind of failure)
ILLEGAL: list[tuple[Any, str]] = [
    ("error", "retry"),  # OpenRouter, Mistral, vLLM
    ("ERROR", "retry"),
    (" error ", "retry"),
    ("abort", "retry"),  # vLLM, SGLang
    ("insufficient_system_resource", "retry"),  # DeepSeek
    ("network_error", "retry"),  # Zhipu
    (None, "retry"),
    ("", "retry"),
    ("tool_calls", "permanent"),
    ("function_call", "permanent"),
    ("unknown", "permanent"),
    ("null", "permanent"),  # DashScope while it streams
    ("other", "permanent"),
    ("finish", "permanent"),
    ("stop ped", "permanent"),
    ("stop\x1b[2J", "permanent"),
    ("x" * 10_000, "permanent"),
    (True, "permanent"),
    (0, "permanent"),
    (1.5, "permanent"),
    (["stop"], "permanent"),
    ({"type": "stop"}, "permanent"),  # SGLang's own API
]


@pytest.mark.parametrize(("said", "reason"), LEGAL.items())
def test_the_reasons_of_an_answer_have_one_name_each(said: str, reason: str) -> None:
    assert read_completion(response(said)).finish_reason == reason


@pytest.mark.parametrize(("said", "kind"), ILLEGAL)
def test_any_other_reason_is_a_failure_that_tells_it(said: Any, kind: str) -> None:
    with pytest.raises(TeacherError, match=r"finish_reason") as told:
        read_completion(response(said))
    assert (told.value.kind, told.value.billed) == (kind, True)
    assert len(told.value.reason) < 200
    assert told.value.reason.isprintable()


def test_a_missing_reason_is_a_failure() -> None:
    with pytest.raises(TeacherError, match="no finish_reason"):
        read_completion({"choices": [{"message": {"content": PARTIAL}}]})


@given(said=st.one_of(st.text(), st.none(), st.booleans(), st.integers(), st.lists(st.text()), st.floats()))
def test_no_reason_but_the_known_ones_makes_an_answer(said: Any) -> None:
    known = isinstance(said, str) and said.strip().lower() in {name.lower() for name in LEGAL} | {
        "blocklist",
        "prohibited_content",
        "spii",
    }
    assert (understood(said) in ANSWERED) is known


@pytest.mark.parametrize(
    "message",
    [
        {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"tool_calls": [{}], "content": None},
        {"tool_calls": [{}], "content": ""},
        {"function_call": {"name": "f", "arguments": "{}"}},
    ],
    ids=["beside text", "no text", "empty text", "older name"],
)
def test_a_tool_call_is_no_answer_whatever_the_reason(message: dict[str, Any]) -> None:
    with pytest.raises(TeacherError, match="called a tool") as told:
        read_completion(response("stop", **message))
    assert told.value.kind == "permanent"


@pytest.mark.parametrize("empty", [None, []])
def test_an_empty_list_of_tool_calls_is_none(empty: Any) -> None:
    assert read_completion(response("stop", tool_calls=empty, function_call=None)).text == PARTIAL


@pytest.mark.parametrize("where", ["choice", "response"])
def test_an_error_beside_partial_content_is_a_failure_in_the_server_s_words(where: str) -> None:
    error = {"code": 502, "message": "Provider disconnected", "metadata": {"provider_name": "Together"}}
    body = response("stop")
    (body["choices"][0] if where == "choice" else body)["error"] = error
    with pytest.raises(TeacherError, match=r"HTTP 502: Provider disconnected \(provider_name: Together\)") as told:
        read_completion(body)
    assert (told.value.kind, told.value.billed) == ("retry", True)


def test_a_refusal_is_data_whatever_the_reason() -> None:
    assert read_completion(response(None, content=None, refusal="No.")).finish_reason == "refusal"


# Every way in


def online(server: FaultServer, store: Store, mode: str = "online") -> Any:
    teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url))
    settings = CollectSettings(mode=mode, max_attempts=3, max_failure_rate=1.0)
    return asyncio.run(collect([ask()], teacher, store, settings, sleep=Waits()))


@pytest.mark.parametrize("mode", ["online", "batch"])
@pytest.mark.parametrize(("said", "asked"), [("error", 3), (None, 3), ("tool_calls", 1), ("other", 1)])
def test_a_fragment_is_asked_again_or_rejected_and_never_stored(
    store: Store, mode: str, said: str | None, asked: int
) -> None:
    reply = Reply(json.dumps(response(said)).encode(), is_answer=True)
    with FaultServer(lambda _: reply) as server:
        report = online(server, store, mode)
        assert (report.answered, report.failed, server.requests_seen) == (0, 1, asked)
    assert store.get(ask()) is None
    assert "finish_reason" in (store.failure(ask()) or "")


def test_an_answer_after_a_fragment_is_the_answer(store: Store) -> None:
    def script(asked: Any) -> Reply:
        return completion(PARTIAL, "error") if asked.attempt == 1 else completion("whole")

    with FaultServer(script) as server:
        assert online(server, store).answered == 1
    found = store.get(ask())
    assert found is not None
    assert found.text == "whole"


@pytest.mark.parametrize("reason", ["error", "unknown", "abort", "tool_calls", ""])
def test_a_fragment_in_an_older_store_is_not_replayed(store: Store, reason: str) -> None:
    store.put(ask(), Completion(PARTIAL, finish_reason=reason))
    teacher = RecordedTeacher(RecordedConfig(store=store.path))
    with pytest.raises(TeacherError, match=r"recorded, but the (completion|model)") as told:
        asyncio.run(teacher.complete(ask()))
    asyncio.run(teacher.close())
    assert told.value.kind == "permanent"


@pytest.mark.parametrize("reason", ["error", "unknown", "abort", "tool_calls", "", "stopp"])
def test_a_fragment_is_no_chain_wherever_it_was_stored(reason: str) -> None:
    assert "finish_reason" in (unreadable(PARTIAL, reason, 1000) or "")


@pytest.mark.parametrize(
    ("reason", "fault"), [("eos", None), ("end_turn", None), ("MAX_TOKENS", "truncated by length")]
)
def test_what_older_stores_hold_in_other_words_is_read_as_meant(reason: str, fault: str | None) -> None:
    assert unreadable(PARTIAL, reason, 1000) == fault


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("stop", "stop"),
        ("MAX_TOKENS", "length"),
        ("error", "error"),
        (None, "unknown"),
        (7, "unknown"),
        ("", "unknown"),
    ],
)
def test_a_recorded_file_that_says_why_a_completion_ended_is_believed(tmp_path: Path, said: Any, kept: str) -> None:
    file, path = tmp_path / "log.jsonl", tmp_path / "s.sqlite"
    file.write_text(json.dumps({"prompt": "1 + 1?", "completion": PARTIAL, "finish_reason": said}) + "\n")
    import_recordings([Recording(path=str(file))], path)
    with Store(path, read_only=True) as store:
        found = store.get_recorded(ask())
    assert found is not None
    assert found.finish_reason == kept


@pytest.mark.parametrize("make", [lambda text: text, lambda text: replace(text, batched=True)])
def test_what_is_stored_is_what_was_understood(store: Store, make: Callable[[Completion], Completion]) -> None:
    store.put(ask(), make(read_completion(response("MAX_TOKENS"))))
    found = store.get(ask())
    assert found is not None
    assert (found.finish_reason, found.raw["choices"][0]["finish_reason"]) == ("length", "MAX_TOKENS")
