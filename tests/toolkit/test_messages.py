"""Messages of chat APIs: text, chunks, and the thinking that servers send beside them."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.teachers.messages import UnknownContent, read_message


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


@pytest.mark.parametrize(
    ("message", "answer", "thought"),
    [
        ({"content": "2"}, "2", ""),
        ({"content": None}, "", ""),
        ({}, "", ""),
        ({"content": []}, "", ""),
        ({"content": [text("It is "), text("2.")]}, "It is 2.", ""),
        ({"content": ["It is ", {"type": "output_text", "text": "2."}]}, "It is 2.", ""),
        ({"content": [{"text": "2"}]}, "2", ""),
        ({"content": [{"type": "thinking", "thinking": [text("1 + 1")], "closed": True}, text("2")]}, "2", "1 + 1"),
        ({"content": [{"type": "thinking", "thinking": "1 + 1", "signature": "x"}, text("2")]}, "2", "1 + 1"),
        ({"content": [{"type": "redacted_thinking", "data": "The answer is 5"}, text("2")]}, "2", ""),
        ({"content": [{"type": "thinking", "thinking": "5"}]}, "", "5"),
        ({"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]}, text("2")]}, "2", "a"),
        ({"content": [{"type": "thinking", "thinking": "a"}, text("\n\n2")]}, "\n\n2", "a"),
        ({"content": [text("1 "), {"type": "thinking", "thinking": "a"}, text(" 2")]}, "1\n\n2", "a"),
        ({"content": [text("2"), {"type": "thinking", "thinking": "5"}]}, "2", "5"),
        ({"content": [text("<think>5"), text("</think>2")]}, "2", "5"),
        ({"content": "2", "reasoning_content": "a"}, "2", "a"),
        ({"content": "2", "reasoning": "a"}, "2", "a"),
        ({"content": "2", "reasoning": "a", "reasoning_content": "a"}, "2", "a"),
        ({"content": "2", "thinking": "a"}, "2", "a"),
        ({"content": "2", "reasoning_details": [{"type": "reasoning.text", "text": "a"}]}, "2", "a"),
        ({"content": "2", "reasoning_details": [{"type": "reasoning.summary", "summary": "a"}]}, "2", "a"),
        ({"content": "2", "reasoning_details": [{"type": "reasoning.encrypted", "data": "a"}]}, "2", ""),
        ({"content": "2", "thinking_blocks": [{"type": "thinking", "thinking": "a"}]}, "2", "a"),
        ({"content": "b</think>2", "reasoning_content": "a"}, "2", "a\n\nb"),
        ({"content": "<think>a</think>2", "reasoning_content": "a"}, "2", "a"),
        ({"content": "2", "reasoning": {"effort": "low"}}, "2", ""),
        ({"content": "2", "reasoning_content": 7}, "2", ""),
    ],
)
def test_answer_and_thinking_are_told_apart(message: dict[str, Any], answer: str, thought: str) -> None:
    assert read_message(message) == (answer, thought)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([text("2"), {"type": "image_url", "image_url": {}}], "type 'image_url'; allowed: text, output_text, thinking"),
        ([{"type": "tool_use", "input": {}}], "'tool_use'"),
        ([{"type": "reference", "reference_ids": [1]}, text("2")], "'reference'"),
        ([{"type": 7, "text": "2"}], "'7'"),
        ([{"type": ["text"], "text": "2"}], "allowed"),
        ([{"type": None, "text": "2"}], "'None'"),
        ([{"type": "text"}], "type 'text' without `text`"),
        ([{"type": "text", "text": None}], "without `text`"),
        ([{"type": "text", "text": {"value": "2"}}], "without `text`"),
        ([7], "a chunk of type int"),
        ([None], "a chunk of type NoneType"),
        ([["2"]], "a chunk of type list"),
        ({"type": "text", "text": "2"}, "the content is of type dict"),
        (7, "the content is of type int"),
        (True, "the content is of type bool"),
    ],
)
def test_what_is_not_known_is_refused_with_what_was_found(content: Any, told: str) -> None:
    with pytest.raises(UnknownContent) as refused:
        read_message({"content": content})
    assert told in str(refused.value)


def test_thinking_nested_without_end_is_passed_over() -> None:
    deep: Any = "5"
    for _ in range(5_000):
        deep = [deep]
    assert read_message({"content": [{"type": "thinking", "thinking": deep}, text("2")]}) == ("2", "")
