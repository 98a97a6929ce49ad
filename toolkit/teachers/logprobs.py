"""Log-probabilities of a completion's tokens: read from a response, or measured with the model that wrote it.

In a completion's `raw` they stand where the chat-completions API puts them, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.teachers.protocol import Completion


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of a completion.

    Attributes:
        token: Its text.
        logprob: Its natural log-probability, given everything before it.
        top: The most likely tokens in its place with theirs, the likeliest first.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...]

    def columns(self, clean: Callable[[str], str]) -> dict[str, Any]:
        """Return it as columns, every text passed through `clean`."""
        top = [{"token": clean(token), "logprob": logprob} for token, logprob in self.top]
        return {"token": clean(self.token), "logprob": self.logprob, "top": top}

    def as_response(self) -> dict[str, Any]:
        """Return it as the chat-completions API has it."""
        top = [{"token": token, "logprob": logprob} for token, logprob in self.top]
        return {"token": self.token, "logprob": self.logprob, "top_logprobs": top}


def logprobs_of(completion: Completion) -> list[TokenLogprob] | None:
    """Return the log-probabilities that came with a completion; None where there are none in the API's own form."""
    try:
        content = completion.raw["choices"][0]["logprobs"]["content"]
        return [
            TokenLogprob(
                str(token["token"]),
                float(token["logprob"]),
                tuple((str(other["token"]), float(other["logprob"])) for other in token["top_logprobs"]),
            )
            for token in content
        ]
    except (LookupError, TypeError, ValueError):
        return None


def measure_logprobs(
    model: Any, tokenizer: Any, prompt: Sequence[int], completion: Sequence[int], top: int
) -> list[TokenLogprob]:
    """Measure the log-probabilities of a completion's tokens in one forward pass, before temperature and top-p.

    Args:
        model: Causal language model, in eval mode.
        tokenizer: Its tokenizer.
        prompt: Token ids of the prompt, at least one.
        completion: Token ids of the completion.
        top: Most likely tokens wanted at each place.
    """
    import torch

    if not completion:
        return []
    with torch.inference_mode():
        # What predicts the last token ends before it.
        ids = torch.tensor([[*prompt, *completion[:-1]]], device=model.device)
        chances = model(input_ids=ids, logits_to_keep=len(completion)).logits[0].float().log_softmax(-1).cpu()
    best = chances.topk(min(top, chances.shape[-1]), dim=-1)
    return [
        TokenLogprob(
            _text(tokenizer, completion[:place], token),
            float(chances[place, token]),
            tuple(
                (_text(tokenizer, completion[:place], int(other)), float(logprob))
                for other, logprob in zip(best.indices[place], best.values[place], strict=True)
            ),
        )
        for place, token in enumerate(completion)
    ]


# A token's text depends on those before it (a space that only stands between words, bytes of one character).
_CONTEXT = 4


def _text(tokenizer: Any, before: Sequence[int], token: int) -> str:
    """Return what a token adds to the text of those before it; special tokens are told by their names."""
    context = list(before[-_CONTEXT:])
    shorter, longer = tokenizer.decode(context), tokenizer.decode([*context, token])
    return str(longer[len(shorter) :] if longer.startswith(shorter) else tokenizer.decode([token]))
