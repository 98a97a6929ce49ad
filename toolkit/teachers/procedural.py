"""The embedded teacher: solves the procedural bank with varied wording and errs on purpose, with a label.

It gets no short cut: like any teacher it sees a rendered prompt only, reads the question out of it, and answers in
text. Which kind of prompt it has (plain CoT, answer hint, contrastive, rationalise, socratic, program) it tells from
the text.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from toolkit import bank
from toolkit.answers import answer_clause
from toolkit.bank.chain import Chain, Solver, write_chain, write_chain_to, write_wrong_chain
from toolkit.bank.family import Family
from toolkit.schema import Strict
from toolkit.teachers.procedural_edits import EditQuery, edited, read_edit_prompt, refutation
from toolkit.teachers.protocol import Completion, Request, refuse_contrast, refuse_logprobs

MODEL = "procedural-v1"
UNREADABLE = "I cannot read a question of the procedural bank in this prompt, so I give no answer."

# The last "Q: " at a line start opens the query; what follows it tells the kind of prompt.
_QUERY = re.compile(r"(?:\A|\n)Q: (?!.*\nQ: )(?P<query>.*)\Z", re.DOTALL)
_CONTRASTIVE = re.compile(r"(?P<question>.*?)\s*\nRight Response:(?P<right>.*?)\nWrong Response:\s*\Z", re.DOTALL)
_HINT = re.compile(r"(?P<question>.*?)\s*\nH: The correct answer is .*?\nA:", re.DOTALL)
_RATIONALISE = re.compile(r"(?P<question>.*?)\s*\nGiven answer: (?P<given>.*?)\s*\nA:", re.DOTALL)
_SOCRATIC = re.compile(r"(?P<question>.*?)\s*\nSub-questions:\s*\Z", re.DOTALL)
_PROGRAM = re.compile(r"(?P<question>.*?)\s*\nProgram:\s*\Z", re.DOTALL)
_PLAIN = re.compile(r"(?P<question>.*?)\s*\nA:", re.DOTALL)

Rate = Annotated[float, Field(ge=0.0, le=1.0)]


class ProceduralConfig(Strict):
    """How the embedded teacher errs; every rate is a share of requests.

    Attributes:
        seed: Seed of every draw.
        error_rate: Plain CoT, socratic and program prompts answered with one mistake. EDIT's teacher erred on 27 %
            (1,402 of 5,207).
        hint_failure_rate: Right answers ignored that a prompt gives away: the wrong attempt comes back, or a
            refutation that argues for what it was to refute.
        corrupt_failure_rate: Prompts for a wrong chain answered with the right one all the same, and edits that do not
            change the answer or change the whole question.
        garble_rate: Completions of any kind that break off before the answer, or in the line of a program that sets it.
    """

    kind: Literal["procedural"] = "procedural"
    seed: int = 0
    error_rate: Rate = 0.27
    hint_failure_rate: Rate = 0.05
    corrupt_failure_rate: Rate = 0.05
    garble_rate: Rate = 0.01


@dataclass(frozen=True)
class Query:
    """What a prompt asks.

    Attributes:
        kind: Kind of the prompt.
        question: The question.
        right: Right response that a contrastive prompt shows.
        given: Answer that a rationalise prompt wants reasons for.
    """

    kind: Literal["cot", "answer_hint", "contrastive", "rationalise", "socratic", "pot"]
    question: str
    right: str = ""
    given: str = ""


def read_prompt(prompt: str) -> Query | EditQuery | None:
    """Find the query of a rendered prompt, or return None where it has none of the known layouts."""
    block = _QUERY.search(prompt)
    if block is None:
        return None
    query = block["query"]
    if edit := read_edit_prompt(query):
        return edit
    if found := _CONTRASTIVE.match(query):
        return Query("contrastive", found["question"], found["right"])
    if found := _HINT.match(query):
        return Query("answer_hint", found["question"])
    if found := _RATIONALISE.match(query):
        return Query("rationalise", found["question"], given=found["given"])
    if found := _SOCRATIC.match(query):
        return Query("socratic", found["question"])
    if found := _PROGRAM.match(query):
        return Query("pot", found["question"])
    if found := _PLAIN.match(query):
        return Query("cot", found["question"])
    return None


class ProceduralTeacher:
    """A `Teacher` for the procedural bank; its answer is a function of seed, question, prompt kind and sample index.

    The wording depends on seed, question and sample index alone, so that an attempt, its rectified form and its
    corrupted form say the same thing in the same words up to the mistake and its consequences.
    """

    kind = "procedural"
    model = MODEL

    def __init__(self, config: ProceduralConfig) -> None:
        self.config = config

    async def complete(self, request: Request) -> Completion:
        """Answer a request, as `answer` does."""
        return self.answer(request)

    def answer(self, request: Request) -> Completion:
        """Answer a request. `completion.raw["procedural"]` labels the mistake; usage counts words.

        Raises:
            TeacherError: `fatal`, for a request that wants contrastive decoding or log-probabilities.
        """
        refuse_contrast(request, self.kind)
        refuse_logprobs(request, "the procedural teacher")
        prompt = next((text for role, text in reversed(request.messages) if role == "user"), "")
        query = read_prompt(prompt)
        found = bank.read(query.question) if query else None
        if query is None or found is None:
            return self._completion(request, UNREADABLE, {"read": False, "task": None, "mistake": None})
        family, facts = found
        if isinstance(query, EditQuery):
            return self._edited(request, query, family, facts)
        garbles = self._happens(self.config.garble_rate, "garble", query.kind, query.question, request.sample_index)
        if query.kind == "pot":
            chain = self._program(query, partial(family.program, facts), family.wordings, request.sample_index)
            text = "\n".join(line for _, line in chain.steps)
            text = text.rpartition("=")[0] + "=" if garbles else text
        else:
            chain = self._chain(query, partial(family.solve, facts), family.wordings, request.sample_index)
            text = numbered(chain) if query.kind == "socratic" else chain.rationale
            if not garbles:
                text += ("\n" if query.kind == "socratic" else " ") + answer_clause(chain.answer)
        label = {"read": True, "task": family.name, "mistake": chain.mistake}
        return self._completion(request, text, label)

    async def check(self) -> None:
        """Do nothing: there is nothing that could be out of reach."""

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _edited(self, request: Request, query: EditQuery, family: Family[Any], facts: Any) -> Completion:
        """Answer a prompt for an edit or a refutation."""
        content = (query.kind, query.question, query.other, request.sample_index)
        rate = self.config.corrupt_failure_rate if query.kind == "edit" else self.config.hint_failure_rate
        errs, rng = self._happens(rate, *content), self._rng(*content)
        if query.kind == "edit":
            text, mistake = edited(family, facts, query.other, errs, rng)
        else:
            wording = self._rng("wording", query.question, request.sample_index).randrange(family.wordings)
            text, answer, mistake = refutation(family, facts, query.other, errs, wording, rng)
            if not self._happens(self.config.garble_rate, "garble", *content):
                text = f"{text} {answer_clause(answer)}"
        return self._completion(request, text, {"read": True, "task": family.name, "mistake": mistake})

    def _chain(self, query: Query, solve: Solver, wordings: int, sample: int) -> Chain:
        wording = self._rng("wording", query.question, sample).randrange(wordings)
        if query.kind == "contrastive":
            wording = closest_wording(query.right, solve, wordings)
            errs = not self._happens(self.config.corrupt_failure_rate, "corrupt", query.question, query.right, sample)
            rng = self._rng("corruption", query.question, query.right, sample)
        else:
            gives_away = query.kind in ("answer_hint", "rationalise")
            rate = self.config.hint_failure_rate if gives_away else self.config.error_rate
            errs = self._happens(rate, query.kind, query.question, sample)
            rng = self._rng("attempt", query.question, sample)
        right = write_chain(solve, wording)
        if query.kind == "rationalise" and query.given != right.answer:
            refuses = self._happens(self.config.corrupt_failure_rate, query.kind, query.question, query.given, sample)
            return (None if refuses else write_chain_to(query.given, solve, wording)) or right
        wrong = write_wrong_chain(solve, wording, rng) if errs else None
        return wrong or right

    def _program(self, query: Query, solve: Solver, wordings: int, sample: int) -> Chain:
        """Return a program, a line a step; the mistake of one that errs may be that it fails, or leaves no answer."""
        wording = self._rng("wording", query.question, sample).randrange(wordings)
        right = write_chain(solve, wording)
        if not self._happens(self.config.error_rate, query.kind, query.question, sample):
            return right
        rng = self._rng(query.kind, query.question, sample)
        how = rng.randrange(4)
        if how == 0:  # a name that nothing defines
            return replace(right, mistake="runtime", steps=right.steps[1:])
        if how == 1:
            return replace(right, mistake="no_value", steps=right.steps[:-1])
        return write_wrong_chain(solve, wording, rng) or right

    def _rng(self, *content: object) -> random.Random:
        return random.Random(repr((self.config.seed, *content)))

    def _happens(self, rate: float, *content: object) -> bool:
        return self._rng("rate", *content).random() < rate

    def _completion(self, request: Request, text: str, label: dict[str, Any]) -> Completion:
        words = list(re.finditer(r"\S+", text))
        limit = request.sampling.max_tokens
        cut = len(words) > limit
        return Completion(
            text=text[: words[limit - 1].end()] if cut else text,
            finish_reason="length" if cut else "stop",
            model=MODEL,
            prompt_tokens=sum(len(content.split()) for _, content in request.messages),
            completion_tokens=min(len(words), limit),
            raw={"procedural": label},
        )


def numbered(chain: Chain) -> str:
    """Return a chain as numbered sub-questions and answers, a line each."""
    return "\n".join(f"Q{i}: {question}\nA{i}: {answer}" for i, (question, answer) in enumerate(chain.steps, 1))


def closest_wording(right: str, solve: Solver, wordings: int) -> int:
    """Return the wording in which the given right response is written: most words in common, the first of equals."""
    given = set(right.split())
    return max(range(wordings), key=lambda i: len(given & set(write_chain(solve, i).rationale.split())))
