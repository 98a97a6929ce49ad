"""Text out of a student: greedy and sampled decoding in batches by `transformers.generate`.

What a row of a batch becomes never depends on its neighbours: padding is on the left and masked, and a sample's
randomness is a function of (seed, prompt, sample index). So an interrupted evaluation can be finished later.
Holds no prompt format and no scoring.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.thinking import marking
from toolkit.tokenizing import prompt_ids

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a completion is drawn.

    Attributes:
        max_new_tokens: Most tokens of a completion, its end-of-turn token included.
        samples: Completions per prompt; more than one needs a temperature.
        temperature: 0 decodes greedily; otherwise the softmax temperature.
        top_p: Nucleus mass in (0, 1]: the smallest set of tokens with at least this probability is sampled from.
        stop: Strings that end a completion; they are cut off its text.
        add_special_tokens: Whether the tokenizer adds its own to a prompt; false where a chat template wrote them.
    """

    max_new_tokens: int
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    add_special_tokens: bool = True

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.samples < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"decode: found {self}; max_new_tokens and samples must be at least 1, temperature at least 0, "
                "top_p above 0 and at most 1"
            )
        if self.samples > 1 and self.temperature == 0:
            raise UserError(
                f"decode.samples: {self.samples} greedy samples would all be the same; set a temperature above 0"
            )


@dataclass(frozen=True, slots=True)
class Generation:
    """One completion.

    Attributes:
        text: Decoded without special tokens but those that mark thinking, up to and without the stop string.
        tokens: Tokens that were generated, the end-of-turn token included.
        stopped: Whether an end-of-turn token or a stop string ended it; false means cut off at `max_new_tokens`.
        ids: The ids of these tokens; empty where a completion was read back from a file.
    """

    text: str
    tokens: int
    stopped: bool
    ids: tuple[int, ...] = field(default=(), compare=False)


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    batch_size: int,
    seed: int,
    stop: Sequence[str] = (),
    add_special_tokens: bool = True,
) -> list[list[Generation]]:
    """Complete every prompt `samples` times; `result[i]` holds the completions of `prompts[i]`.

    Args:
        model: Any causal language model with `generate`; its mode (train, eval) is restored afterwards.
        tokenizer: Its tokenizer, which is not changed.
        prompts: Rendered prompts.
        batch_size: Completions in flight at once.
        seed: Seed of sampled decoding; unused when `temperature` is 0.
        max_new_tokens, samples, temperature, top_p, stop, add_special_tokens: See `Decoding`.

    Raises:
        UserError: A setting is out of range, or a prompt with its completion does not fit into the model's positions.
    """
    decoding = Decoding(max_new_tokens, samples, temperature, top_p, tuple(stop), add_special_tokens)
    rows = [(prompt, sample) for prompt in prompts for sample in range(samples)]
    flat: dict[int, Generation] = {}
    for batch in generate_batches(model, tokenizer, rows, decoding, batch_size=batch_size, seed=seed):
        flat.update(batch)
    return [[flat[i * samples + sample] for sample in range(samples)] for i in range(len(prompts))]


def generate_batches(
    model: Any, tokenizer: Any, rows: Sequence[tuple[str, int]], decoding: Decoding, *, batch_size: int, seed: int
) -> Iterator[dict[int, Generation]]:
    """Complete rows of (prompt, sample index), yielding `{position in rows: Generation}` as each batch is done.

    Rows of like length share a batch, the longest first, so that a batch too large for the memory fails at once.

    Raises:
        UserError: A prompt with its completion does not fit into the model's positions; raised before any decoding.
    """
    if not rows:
        return
    encoded = prompt_ids(tokenizer, [prompt for prompt, _ in rows], decoding.add_special_tokens)
    require_room(model.config, encoded, decoding.max_new_tokens)
    order = sorted(range(len(rows)), key=lambda row: -len(encoded[row]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        seeds = [_row_seed(seed, *rows[row]) for row in batch]
        done = _decode_batch(model, tokenizer, [encoded[row] for row in batch], seeds, decoding)
        yield dict(zip(batch, done, strict=True))


def end_token_ids(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end a completion: those of the model's `generation_config`, or else the tokenizer's end token."""
    configured = model.generation_config.eos_token_id
    if configured is None:
        configured = tokenizer.eos_token_id
    return [] if configured is None else [configured] if isinstance(configured, int) else list(configured)


def require_room(config: Any, encoded: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Refuse what would have to be truncated.

    Args:
        config: The model's configuration.
        encoded: Token ids of the prompts.
        max_new_tokens: Room that each of them must leave.

    Raises:
        UserError: A prompt leaves too little room, or is empty.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    longest = max(len(ids) for ids in encoded)
    if positions is not None and longest + max_new_tokens > positions:
        late = sum(len(ids) + max_new_tokens > positions for ids in encoded)
        raise UserError(
            f"decode.max_new_tokens: {late} of {len(encoded)} prompts leave no room for {max_new_tokens} new tokens: "
            f"the longest has {longest} tokens, the student {positions} positions (max_position_embeddings). "
            "Prompts are never cut; lower max_new_tokens or drop these problems"
        )
    if min(len(ids) for ids in encoded) == 0:
        raise UserError("a prompt to complete is empty; a prompt must hold at least one token")


def _row_seed(seed: int, prompt: str, sample: int) -> int:
    content = f"{seed}\0{sample}\0{prompt}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.sha256(content).digest()[:7], "big")


def _decode_batch(
    model: Any, tokenizer: Any, encoded: list[list[int]], seeds: list[int], decoding: Decoding
) -> list[Generation]:
    width = max(len(ids) for ids in encoded)
    sampler = _Sampler(seeds, decoding, width) if decoding.temperature > 0 else None
    return decode_ids(model, tokenizer, encoded, decoding, sampler)


def decode_ids(
    model: Any, tokenizer: Any, encoded: Sequence[Sequence[int]], decoding: Decoding, choose: Any = None
) -> list[Generation]:
    """Complete one batch of tokenised prompts, greedily over what a logits processor leaves.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        encoded: Token ids of the prompts, none of them empty.
        decoding: Length and stop strings; its samples and temperature are the processor's business.
        choose: From (ids so far, logits) of shapes (rows, length) and (rows, vocabulary) to other logits; None for
            greedy decoding.
    """
    import torch
    from transformers import GenerationConfig

    ends = end_token_ids(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ends or [0])[0]
    width = max(len(ids) for ids in encoded)
    input_ids = torch.tensor([[pad] * (width - len(ids)) + [*ids] for ids in encoded], device=model.device)
    attention_mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in encoded], device=model.device)
    stopping = _StopStrings(tokenizer, decoding.stop, width)
    # Beyond its end tokens the student's own generation_config is overruled: a score belongs to declared settings.
    config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=ends or None,
        pad_token_id=pad,
        use_cache=True,
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_length=0,
    )
    with _eval_mode(model), torch.inference_mode():
        output = model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            generation_config=config,
            logits_processor=[choose] if choose is not None else None,
            stopping_criteria=[stopping] if decoding.stop else None,
        )
    completions = output[:, width:].tolist()
    return [_finish(tokenizer, ids, ends, stopping.ended.get(row), decoding) for row, ids in enumerate(completions)]


def _finish(tokenizer: Any, ids: list[int], ends: list[int], ended: int | None, decoding: Decoding) -> Generation:
    """Cut padding, end token and stop string off a completion; `ended` is its length when a stop string was seen."""
    length = next((place + 1 for place, token in enumerate(ids) if token in ends), None)
    if ended is not None and (length is None or ended < length):
        length = ended
    text = _decoded(tokenizer, ids[:length])
    cut = min((place for place in (text.find(stop) for stop in decoding.stop) if place >= 0), default=len(text))
    kept = ids[:length]
    return Generation(text[:cut], len(kept), length is not None, tuple(kept))


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    """Decode without special tokens, but for those that mark thinking: left out, it reads as part of the answer."""
    special = {token: added.content for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    marks = {token: special[token] for token in special if special[token] in marking(tuple(special.values()))}
    if marks.keys().isdisjoint(ids):
        return str(tokenizer.decode(ids, skip_special_tokens=True))
    parts, start = [], 0
    for place, token in enumerate(ids):
        if token in marks:
            parts += [tokenizer.decode(ids[start:place], skip_special_tokens=True), marks[token]]
            start = place + 1
    return "".join([*parts, tokenizer.decode(ids[start:], skip_special_tokens=True)])


class _Sampler:
    """Logits processor that leaves one token per row: an inverse-CDF draw whose uniforms were fixed before decoding."""

    def __init__(self, seeds: list[int], decoding: Decoding, prompt_width: int) -> None:
        import torch

        draws = [
            torch.rand(decoding.max_new_tokens, generator=torch.Generator().manual_seed(row_seed)) for row_seed in seeds
        ]
        self.uniforms = torch.stack(draws)
        self.decoding = decoding
        self.prompt_width = prompt_width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) with all but the drawn token of each row at minus infinity."""
        import torch

        probabilities, tokens = (
            (scores / self.decoding.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
        )
        mass = probabilities.cumsum(-1)
        kept = ((mass - probabilities) < self.decoding.top_p).sum(-1, keepdim=True)
        uniform = self.uniforms[:, input_ids.shape[1] - self.prompt_width].to(scores.device)[:, None]
        drawn = torch.searchsorted(mass, uniform * mass.gather(-1, kept - 1))
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens.gather(-1, drawn), 0.0)


class _StopStrings:
    """Stopping criterion that ends a row once its completion holds a stop string, and remembers when.

    Only the last few tokens are decoded at each step: a stop string of b bytes spans at most b tokens.
    """

    def __init__(self, tokenizer: Any, stop: tuple[str, ...], prompt_width: int) -> None:
        self.tokenizer = tokenizer
        self.stop = stop
        self.window = max((len(text.encode()) for text in stop), default=0) + 1
        self.prompt_width = prompt_width
        self.ended: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Boolean (rows,): which rows are done."""
        import torch

        length = input_ids.shape[1] - self.prompt_width
        tails = input_ids[:, max(self.prompt_width, input_ids.shape[1] - self.window) :].tolist()
        for row, tail in enumerate(tails):
            if row not in self.ended:
                text = self.tokenizer.decode(tail, skip_special_tokens=True)
                if any(stop in text for stop in self.stop):
                    self.ended[row] = length
        return torch.tensor([row in self.ended for row in range(len(tails))], device=input_ids.device)


@contextmanager
def _eval_mode(model: Any) -> Iterator[None]:
    """Dropout off for the duration."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
