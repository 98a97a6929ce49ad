"""What a message of a chat API says: its content as text or as a list of chunks, and the thinking sent beside it.

Mistral and Anthropic-compatible servers send thinking as chunks of their own, others in a field beside the content;
some leave it in the text. A chunk of a kind that is not known here is refused: what it says could be the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.thinking import split_thinking

# Fields beside the content, each with the same thinking where there are several.
_FIELDS = (
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "thinking",
    "reasoning_details",
    "thinking_blocks",
)
_TEXT = ("text", "output_text")
_THINKING = (
    "thinking",
    "redacted_thinking",
    "reasoning",
    "reasoning_text",
    "summary_text",
    "reasoning.text",
    "reasoning.summary",
    "reasoning.encrypted",
)
_SAID_IN = ("thinking", "reasoning", "text", "summary", "content")  # fields of a thinking chunk, by kind of server
_DEEPEST = 4  # chunks in chunks: Mistral's thinking is a list of text chunks


class UnknownContent(ValueError):
    """Content of a form that is not known; its text says what was found and what is allowed."""


def read_message(message: Mapping[str, Any]) -> tuple[str, str]:
    """Return (answer, thinking) of an assistant's message.

    Text chunks are joined as they are, by an empty line where something was thought in between.

    Raises:
        UnknownContent: The content is neither text nor a list of text and thinking chunks.
    """
    said, thought = _read_content(message.get("content"))
    answer, in_text = split_thinking(said)
    beside = next((text for name in _FIELDS if (text := _beside(message.get(name)))), "")
    found = [beside, *(text for text in (thought, in_text) if text not in beside)]
    return answer, "\n\n".join(text for text in found if text.strip())


def _read_content(content: Any) -> tuple[str, str]:
    """Return the text of all text chunks, and that of all thinking chunks."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, list):
        raise UnknownContent(f"the content is of type {type(content).__name__}; allowed: text or a list of chunks")
    parts, thoughts, has_thought = [""], [], False
    for chunk in content:
        kind, text = _read_chunk(chunk)
        if kind in _THINKING:
            thoughts.append(text)
            has_thought = True
        elif text:
            if has_thought and parts[-1].strip():
                parts.append("")
            parts[-1] += text
            has_thought = False
    joined = [*(part.strip() for part in parts[:-1]), parts[-1].lstrip() if len(parts) > 1 else parts[-1]]
    return "\n\n".join(joined), "\n\n".join(text for text in thoughts if text.strip())


def _read_chunk(chunk: Any) -> tuple[str, str]:
    """Return (kind, text) of a chunk."""
    if isinstance(chunk, str):
        return "text", chunk
    if not isinstance(chunk, dict):
        raise UnknownContent(f"the content holds a chunk of type {type(chunk).__name__}; allowed: text and objects")
    kind = chunk.get("type", "text")
    if kind in _TEXT:
        if not isinstance(chunk.get("text"), str):
            raise UnknownContent(f"the content holds a chunk of type {kind!r} without `text`")
        return kind, chunk["text"]
    if kind in _THINKING:
        return kind, _written(chunk, _DEEPEST)
    raise UnknownContent(
        f"the content holds a chunk of type {str(kind)[:40]!r}; allowed: {', '.join((*_TEXT, *_THINKING))}"
    )


def _written(value: Any, depth: int) -> str:
    """Return the text of thinking, however it is wrapped; what is encrypted or signed has none."""
    if isinstance(value, str):
        return value
    if depth and isinstance(value, list):
        return "".join(_written(one, depth - 1) for one in value)
    if depth and isinstance(value, dict):
        return next((text for name in _SAID_IN if (text := _written(value.get(name), depth - 1))), "")
    return ""


def _beside(value: Any) -> str:
    return _written(value, _DEEPEST).strip("\n")
