"""Which words of a rationale a student's answer rests on: integrated gradients, and closeness of word embeddings.

The attributor is a student that reads the rationale before it answers. For a text s = prompt, rationale r, marker,
answer y and input embeddings E,

    F(E) = sum over the tokens t of y of log p(s_t | s_<t)
    IG_j = sum_d (E_jd - E'_jd) * (1/m) sum_{k=1..m} dF/dE_jd at E' + (k - 1/2)/m (E - E')

where the baseline E' differs from E at the tokens of r alone. This is integrated gradients with the midpoint rule;
"Investigating Mysteries of CoT-Augmented Distillation" (arXiv 2406.14511) does not say which settings it used.
Knows no dataset and no recipe. `captum` and torch are imported when something is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from toolkit.alignment import spaced_words
from toolkit.errors import UserError
from toolkit.tokenizing import prompt_text, tokenize_text

if TYPE_CHECKING:
    import torch

Span = tuple[int, int]


class Unscorable(Exception):
    """A record whose words cannot be scored; the message says why."""


@dataclass(frozen=True, slots=True)
class Example:
    """One text in its pieces, in order; `question` stands somewhere in `prompt`.

    Attributes:
        prompt: What the attributor is given, without its chat template.
        question: The question.
        before: Between prompt and rationale, mostly a space.
        rationale: The words to score.
        between: Between rationale and answer: the marker.
        answer: The answer whose probability is attributed.
        after: What closes the text; it only makes the answer's tokens those that training saw.
    """

    prompt: str
    question: str
    before: str
    rationale: str
    between: str
    answer: str
    after: str


@dataclass(frozen=True, slots=True)
class WordScores:
    """Scores of a rationale's words, as `toolkit.alignment.spaced_words` gives them.

    Attributes:
        words: The words, shape (W,).
        gradient: Sum over a word's tokens of their integrated gradients, or of the absolute values, shape (W,).
        embedding: Cosine of a word's vector with that of question and answer, shape (W,); 0 for a word without a
            token of its own. A word's vector is the mean input embedding of its tokens, the vector of question and
            answer the mean of the vectors of all their words.
        completeness: |sum_j IG_j - (F(E) - F(E'))| / |F(E) - F(E')|; None where F does not change.
    """

    words: list[str]
    gradient: list[float]
    embedding: list[float]
    completeness: float | None


def require_captum() -> None:
    """Refuse to go on without the extra that scoring needs.

    Raises:
        UserError: captum is not installed.
    """
    from importlib.util import find_spec

    if find_spec("captum") is None:
        raise UserError(
            "attribution scores need captum, which is not installed: pip install 'cot-distillery[attribution]'"
        )


def word_spans(text: str, region: Span) -> list[Span]:
    """Return (start, end) in `text` of every word of a region of it, as `toolkit.transforms` has words."""
    start, end = region
    return [(start + first, start + last) for first, last in spaced_words(text[start:end])]


def words_of_tokens(text: str, offsets: Sequence[Span], words: Sequence[Span]) -> np.ndarray:
    """Return for every token the index of the word it belongs to, -1 for none, shape (T,).

    A token belongs to the word that holds the first non-space character at or after its start, so one that is space
    alone goes with what follows it. A token made across a seam belongs to one word, and the other has none of its own.
    """
    owner = np.full(len(text) + 1, -1)
    for index, (start, end) in enumerate(words):
        owner[start:end] = index
    solid = np.array([place for place, character in enumerate(text) if not character.isspace()] + [len(text)])
    starts = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)[:, 0]
    return owner[solid[np.searchsorted(solid, starts)]]


def integrated_gradients(
    function: Callable[[torch.Tensor], torch.Tensor],
    embeddings: torch.Tensor,
    baseline: torch.Tensor,
    steps: int,
    batch_size: int,
) -> tuple[torch.Tensor, float | None]:
    """Attribute a function of embeddings to their positions, by captum with the midpoint rule.

    Args:
        function: From (B, T, d) to (B,), each row by itself.
        embeddings: E, shape (T, d).
        baseline: E', shape (T, d).
        steps: m, the points at which the gradient is taken; at least 2.
        batch_size: Points in one forward pass.

    Returns:
        IG of shape (T,), and the completeness error relative to the change of the function (None if it has none).
    """
    import torch
    from captum.attr import IntegratedGradients

    parts = IntegratedGradients(function).attribute(
        embeddings[None],
        baselines=baseline[None],
        n_steps=steps,
        method="riemann_middle",
        internal_batch_size=batch_size,
    )
    scores = parts[0].double().sum(-1)
    with torch.inference_mode():
        ends = function(torch.stack([embeddings, baseline])).double()
    change = float(ends[0] - ends[1])
    return scores, abs(float(scores.sum()) - change) / abs(change) if change else None


class WordScorer:
    """Scores the words of rationales with one attributor.

    Args:
        model: Causal language model whose forward takes `inputs_embeds` and `logits_to_keep`; its parameters lose
            their gradients.
        tokenizer: Its tokenizer, fast.
        prompt_format: Whether prompts stand as they are (`plain`) or in a chat template (`chat`).
        steps: Points of the integral, at least 2.
        baseline: Embedding that replaces those of the rationale: the padding token's, or zero.
        sign: Whether a word adds up its tokens' scores or their absolute values.
        batch_size: Points in one forward pass.

    Raises:
        UserError: captum is missing, or the baseline is `pad` and there is no padding token.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        prompt_format: str = "plain",
        steps: int = 32,
        baseline: Literal["pad", "zero"] = "pad",
        sign: Literal["abs", "signed"] = "abs",
        batch_size: int = 32,
    ) -> None:
        import torch

        require_captum()
        if baseline == "pad" and tokenizer.pad_token_id is None:
            raise UserError("baseline: found 'pad', but the attributor's tokenizer has no padding token; use zero")
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self._prompt_format = prompt_format
        self._steps, self._batch_size, self._sign = steps, batch_size, sign
        self._table = model.get_input_embeddings()
        with torch.no_grad():
            pad = self._table(torch.tensor([tokenizer.pad_token_id or 0], device=model.device))[0]
        self._empty = pad if baseline == "pad" else torch.zeros_like(pad)

    def score(self, example: Example) -> WordScores:
        """Score the words of one rationale.

        Raises:
            Unscorable: The text does not fit into the model's positions, or its answer has no token of its own.
            UserError: The tokenizer gives no offsets or has no chat template, or the template changes the question.
        """
        import torch

        text, regions = self._text(example)
        [(ids, spans)] = tokenize_text(self.tokenizer, [text], self._prompt_format)
        offsets = [(int(start), int(stop)) for start, stop in spans]
        of_rationale = words_of_tokens(text, offsets, word_spans(text, regions["rationale"]))
        of_answer = np.flatnonzero(words_of_tokens(text, offsets, word_spans(text, regions["answer"])) >= 0)
        if not len(of_answer):
            raise Unscorable("the answer has no token of its own")
        end = int(of_answer[-1])
        self._require_room(end)
        with torch.no_grad():
            embeddings = self._table(torch.tensor(ids, device=self.model.device))
        baseline = embeddings.clone()
        baseline[torch.from_numpy(of_rationale >= 0).to(baseline.device)] = self._empty
        scores, completeness = integrated_gradients(
            self._log_probability(ids[int(of_answer[0]) : end + 1]),
            # What predicts the answer's last token ends before it.
            embeddings[:end],
            baseline[:end],
            self._steps,
            self._batch_size,
        )
        parts = scores.abs() if self._sign == "abs" else scores
        words = [example.rationale[first:last] for first, last in spaced_words(example.rationale)]
        owners = of_rationale[:end]
        gradient = np.bincount(owners[owners >= 0], parts.cpu().numpy()[owners >= 0], len(words))
        context = [*word_spans(text, regions["question"]), *word_spans(text, regions["answer"])]
        vectors = embeddings.double().cpu().numpy()
        embedding = _closeness(vectors, of_rationale, len(words), words_of_tokens(text, offsets, context))
        return WordScores(words, gradient.tolist(), embedding.tolist(), completeness)

    def _text(self, example: Example) -> tuple[str, dict[str, Span]]:
        """Return the text as the attributor reads it, and where its pieces stand."""
        prompt = prompt_text(self.tokenizer, example.prompt, self._prompt_format)
        question = example.question.strip()
        asked = prompt.find(question)
        if asked < 0:
            raise UserError(f"the attributor's prompt does not show the question {question!r:.80} as it is")
        start = len(prompt + example.before)
        end = start + len(example.rationale)
        answer = end + len(example.between)
        regions = {
            "question": (asked, asked + len(question)),
            "rationale": (start, end),
            "answer": (answer, answer + len(example.answer)),
        }
        pieces = (prompt, example.before, example.rationale, example.between, example.answer, example.after)
        return "".join(pieces), regions

    def _log_probability(self, answer: Sequence[int]) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return F: from embeddings (B, T, d) that end before the last of the answer's tokens to (B,)."""
        import torch

        targets = torch.tensor(answer, device=self.model.device)

        def function(embeddings: torch.Tensor) -> torch.Tensor:
            output = self.model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=len(answer))
            chances = output.logits.float().log_softmax(-1)
            return chances.gather(-1, targets.expand(len(embeddings), -1)[..., None]).squeeze(-1).sum(-1)

        return function

    def _require_room(self, tokens: int) -> None:
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if positions is not None and tokens > positions:
            raise Unscorable("longer than the attributor's positions")


def _closeness(vectors: np.ndarray, of_words: np.ndarray, words: int, of_context: np.ndarray) -> np.ndarray:
    """Return the cosine of each word's mean vector with the mean of the context's words, shape (words,)."""

    def mean_vectors(owners: np.ndarray, number: int) -> np.ndarray:
        sums = np.zeros((number, vectors.shape[1]))
        np.add.at(sums, owners[owners >= 0], vectors[owners >= 0])
        return sums / np.maximum(np.bincount(owners[owners >= 0], minlength=number), 1)[:, None]

    means = mean_vectors(of_words, words)
    # A word without a token has no vector, and is no zero among those that are averaged.
    reference = mean_vectors(of_context, of_context.max() + 1)[np.unique(of_context[of_context >= 0])].mean(0)
    norms = np.linalg.norm(means, axis=-1) * np.linalg.norm(reference)
    return np.divide(means @ reference, norms, out=np.zeros(words), where=norms > 0)
