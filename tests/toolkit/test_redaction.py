"""No form in which a server may repeat a key gets into a store, a log or an error."""

from __future__ import annotations

import asyncio
import base64
import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waits import Waits
from toolkit.collect import collect
from toolkit.collect_settings import CollectSettings
from toolkit.errors import UserError
from toolkit.store import Store
from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher
from toolkit.teachers.protocol import Request
from toolkit.teachers.redaction import Redactor
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import Reply, completion

KEYS = ["sk-loopback-5ecre7-key", 'a"quoted\\key/with&signs', "percent%2Fed+key=abcdef", "'single' <angle> key 1"]


def escaped(text: str) -> str:
    """Return a text with every character as JSON may write it."""
    return "".join(f"\\u{ord(char):04x}" for char in text)


FORMS: dict[str, Callable[[str], str]] = {
    "itself": lambda key: key,
    "json": lambda key: json.dumps(key)[1:-1],
    "json twice": lambda key: json.dumps(json.dumps(key))[1:-1],
    "json three times": lambda key: json.dumps(json.dumps(json.dumps(key)))[1:-1],
    "escapes": escaped,
    "first escaped": lambda key: escaped(key[0]) + json.dumps(key[1:])[1:-1],
    "slashes escaped": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "python": lambda key: repr(key)[1:-1],
    "hex escapes": lambda key: "".join(f"\\x{ord(char):02x}" for char in key),
    "percent": lambda key: quote(key, safe=""),
    "percent, small letters": lambda key: "".join(f"%{ord(char):02x}" for char in key),
    "percent twice": lambda key: quote(quote(key, safe=""), safe=""),
    "html": html.escape,
    "html numbers": lambda key: "".join(f"&#{ord(char)};" for char in key),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 of the header": lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
}


def leaks(key: str, text: str) -> bool:
    return key in text or any(form(key) in text for form in FORMS.values())


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_key_is_found_in_every_form(form: Callable[[str], str], key: str) -> None:
    cleaned = Redactor([key]).text(f"you sent Bearer {form(key)}, which is wrong")
    assert "[key]" in cleaned
    assert not leaks(key, cleaned)


ASCII = st.characters(codec="ascii", categories=["L", "N", "P"])


@given(before=st.text(), behind=st.text(), key=st.text(ASCII, min_size=16))
def test_no_key_is_left_in_any_text(before: str, behind: str, key: str) -> None:
    packed = json.dumps({f"{before}{key}": [{"said": f"{before}{key}{behind}"}]})
    assert key not in str(Redactor([key]).clean(json.loads(packed)))


@given(text=st.text())
def test_a_text_without_a_key_stays_as_it_is(text: str) -> None:
    assert Redactor([KEYS[0]]).text(text) == text


@pytest.mark.parametrize(
    "text",
    [r"\frac{1}{2} \u0041 50% &amp; <b>", "100%25", r"C:\users\x41", "&#65;", r"{\"a\": \"b\"}", "%", "\\", "&"],
)
def test_what_looks_packed_and_holds_no_key_is_not_unpacked(text: str) -> None:
    assert Redactor([KEYS[0]]).text(text) == text


def test_a_short_key_is_taken_out_of_reasons_only() -> None:
    redactor = Redactor(["EMPTY"])
    assert redactor.text("the set is EMPTY") == "the set is EMPTY"
    assert redactor.reason("bad key EMPTY") == "bad key [key]"


def test_no_key_takes_nothing_out() -> None:
    assert Redactor(["", ""]).clean({"a": ["b"]}) == {"a": ["b"]}


# Through the engine


def everything(
    key: str, raw: bytes, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str = "online"
) -> str:
    """Return all that is stored and said where a server sends this body."""
    monkeypatch.setenv("LOOPBACK_KEY", key)
    told = ""
    with FaultServer(lambda _: Reply(raw, status)) as server, Store(tmp_path / "s.sqlite") as store:
        teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url, api_key_env="LOOPBACK_KEY"))
        request = Request("m", (("user", "q"),))
        settings = CollectSettings(mode=mode, max_attempts=1, max_failure_rate=1.0)
        try:
            asyncio.run(collect([request], teacher, store, settings, sleep=Waits()))
        except UserError as error:
            told = str(error)
        told += f"{store.failure(request)} {store.get(request)}"
    return told + "".join(path.read_bytes().decode("latin-1") for path in tmp_path.iterdir() if path.is_file())


def body_of(text: str, place: str) -> dict[str, Any]:
    body = json.loads(completion("2").body)
    message = body["choices"][0]["message"]
    if place == "content":
        message["content"] = text
    elif place == "reasoning":
        message["reasoning_content"] = text
    elif place == "name":
        body[text] = 1
    else:
        body["upstream"] = {"deep": [{"said": text}]}
    return body


@pytest.mark.parametrize("mode", ["online", "batch"])
@pytest.mark.parametrize("place", ["content", "reasoning", "name", "raw"])
@pytest.mark.parametrize("key", KEYS[:2])
def test_an_answer_that_repeats_the_key_is_stored_without_it(
    key: str, place: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.dumps(body_of("@@", place)).replace("@@", escaped(f"Bearer {key}"))
    said = everything(key, content.encode(), 200, tmp_path, monkeypatch, mode)
    assert "Bearer [key]" in said
    assert not leaks(key, said)


@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize("key", KEYS[:2])
@pytest.mark.parametrize(
    "make",
    [
        lambda key: json.dumps({"error": {"message": "@@"}}).replace("@@", escaped(key)),
        lambda key: json.dumps({"error": {"message": "no", "metadata": {"raw": json.dumps({"key": key})}}}),
        lambda key: json.dumps({"error": {"message": "y" * 280 + key}}),
        lambda key: f'{{"error": "you sent {escaped(key)}',
        lambda key: f"<html>{html.escape(key)}</html>",
        lambda key: "x" * 1195 + key,
    ],
    ids=["escaped", "metadata", "at the cut", "cut JSON", "HTML", "at the beginning's end"],
)
def test_an_error_that_repeats_the_key_is_told_without_it(
    make: Callable[[str], str], key: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = everything(key, make(key).encode(), status, tmp_path, monkeypatch)
    assert not leaks(key, said)
    assert not any(part in said for part in (key[:12], key[-12:]))


def test_the_environment_s_own_headers_are_taken_out_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "gateway-secret-0123456789"
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Gateway-Auth: {secret}\nX-Team: 7")
    body = json.dumps(body_of(secret, "content")).encode()
    assert secret not in everything(KEYS[0], body, 200, tmp_path, monkeypatch)


def test_another_encoding_hides_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps(body_of(KEYS[0], "content")).encode("utf-16")
    said = everything(KEYS[0], body, 200, tmp_path, monkeypatch)
    assert "[key]" in said
    assert not leaks(KEYS[0], said)
