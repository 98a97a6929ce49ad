"""Why a completion ended: the few reasons with which it is an answer, under one name each, whoever wrote them.

Servers write the same reason in several words, and some write it where something broke: a completion of which it is
not known that it came to its end is a fragment, however well it reads, and no answer.
"""

from __future__ import annotations

STOP, LENGTH, FILTERED, REFUSAL = "stop", "length", "content_filter", "refusal"

ANSWERED = frozenset({STOP, LENGTH, FILTERED, REFUSAL})
"""Reasons that a completion may have in the store; builders reject all of them but the first."""

# In small letters. OpenAI's own; those of TGI, Together and SGLang; of Anthropic; of Cohere; of Mistral; of Google;
# of Zhipu. What is missing here is refused, so a new word costs a line and never a wrong row.
_NAMES = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete"), STOP),
    **dict.fromkeys(("length", "max_tokens", "model_length", "model_context_window_exceeded"), LENGTH),
    **dict.fromkeys(
        ("content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii", "sensitive"), FILTERED
    ),
    "refusal": REFUSAL,
}
# Something broke on the server's side; asked again, it may answer.
_BROKEN = {"error", "abort", "aborted", "cancelled", "network_error", "insufficient_system_resource", "timeout"}
_CALLS = {"tool_calls", "tool_call", "tool_use", "function_call"}


def understood(reason: object) -> str | None:
    """Return a reason under its one name, one of `ANSWERED`; None for anything else, and where there is none."""
    return _NAMES.get(reason.strip().lower()) if isinstance(reason, str) else None


def fault_of(reason: object) -> str:
    """Return in words why a completion that ended for this reason is no answer."""
    if reason is None or reason in ("", "unknown"):
        return "the completion does not say why it ended (no finish_reason), so it may be a fragment"
    if isinstance(reason, str) and reason.strip().lower() in _CALLS:
        return f"the model called a tool instead of answering (finish_reason {_shown(reason)})"
    return f"the completion did not come to its end (finish_reason {_shown(reason)})"


def may_pass(reason: object) -> bool:
    """Whether asking again may help: the server broke off, or said nothing. A word nobody knows comes again."""
    return reason is None or reason == "" or (isinstance(reason, str) and reason.strip().lower() in _BROKEN)


def _shown(reason: object) -> str:
    return repr(reason)[:60]
