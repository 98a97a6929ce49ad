"""A student's chat template: a prompt as the user's turn, up to where the student's own begins.

Templates are rendered by transformers' own compiler, so what works there works here. A template that asks for the date
is given a fixed one: a student asked tomorrow is to read what it was trained on. No tokenizer, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from toolkit.errors import UserError

_TODAY = datetime(2026, 1, 1)
# Stands in for a question where a template is tried: nothing that a template writes itself.
PROBE = "Which Of These 7 Kites Flies?"
_ANSWER = "Kite Number 4 Does."
_WHERE = "student.chat_template"


def user_turn(template: str, tokens: Mapping[str, Any], prompt: str) -> str:
    """Return a prompt as the user's turn, followed by what opens the student's answer.

    Args:
        template: Jinja text.
        tokens: Special tokens by name (`bos_token`, ...), as templates take them.
        prompt: What the user says.

    Raises:
        UserError: The template cannot be rendered, or what it makes does not hold the prompt.
    """
    rendered = _rendered(template, tokens, [{"role": "user", "content": prompt}], opens_answer=True)
    if prompt.strip() not in rendered:
        raise UserError(
            f"{_WHERE}: does not show what the user says as it is: {prompt[:60]!r} became {rendered[-80:]!r}"
        )
    return rendered


def check_template(template: str, tokens: Mapping[str, Any]) -> str:
    """Return what a template puts behind a user's turn, which opens the student's answer.

    Raises:
        UserError: The template cannot be rendered, leaves out what the user says, or does not show where an answer
            begins.
    """
    asked = user_turn(template, tokens, PROBE)
    turn = {"role": "user", "content": PROBE}
    if asked == _rendered(template, tokens, [turn], opens_answer=False):
        # `[INST] ... [/INST]` needs no opening of its own; a template that writes one in front of answers does.
        try:
            rendered = _rendered(
                template, tokens, [turn, {"role": "assistant", "content": _ANSWER}], opens_answer=False
            )
        except UserError:
            rendered = asked + _ANSWER  # some templates render no answers
        between = rendered.removeprefix(asked).partition(_ANSWER)[0]
        is_blind = rendered == asked + asked.replace(
            PROBE, _ANSWER
        )  # one form for all roles, what follows it opens answers
        opens = is_blind or (rendered.startswith(asked) and not between.strip())
        if not opens or not asked.rpartition(PROBE)[2].strip():
            raise UserError(
                f"{_WHERE}: ignores add_generation_prompt, so a question ends with {asked[-30:]!r} and nothing opens "
                "the student's answer; end the template with "
                "{% if add_generation_prompt %}<what opens an answer>{% endif %}"
            )
    return asked.rpartition(PROBE)[2]


def _rendered(
    template: str, tokens: Mapping[str, Any], messages: Sequence[Mapping[str, str]], *, opens_answer: bool
) -> str:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        compiled = _compile_jinja_template(template)
        return str(
            compiled.render(
                **{
                    **tokens,
                    "messages": messages,
                    "tools": None,
                    "documents": None,
                    "add_generation_prompt": opens_answer,
                    "strftime_now": _TODAY.strftime,
                }
            )
        )
    except Exception as error:  # a template is a foreign program: it may raise anything
        line = f"line {error.lineno}: " if isinstance(error, TemplateError) and hasattr(error, "lineno") else ""
        shown = str(error) or type(error).__name__
        raise UserError(f"{_WHERE}: {line}{shown.splitlines()[0]}") from None
