"""`counterfactual_pairs`: questions, small edits of them with another answer, and why each answer is right or wrong.

Data for counterfactual distillation (EMNLP 2024 main 333). The idea is the paper's: edit an example a little, towards a
chosen other label, and argue for the right answer as well as against the wrong ones. Prompts, filters and thresholds
are our definition. No edit is believed on its editor's word: its label is voted on by those who see only the edit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain as joined
from itertools import groupby
from typing import Any, ClassVar

from dataset_builders.asking import Ask, Asker, Record, Requests, Retried, Rounds, Step, is_unanswered
from dataset_builders.chains import Chain, is_right, question_columns, sft_record
from dataset_builders.columns import CHAIN, PROVENANCE, QUESTION, REASON, SFT, Column, Columns, text_paths
from dataset_builders.counterfactual_settings import CounterfactualPairsSettings
from dataset_builders.edited_pairs import ready_made_pairs
from dataset_builders.edits import Edit, Example, Filter, Written, cleaned, edit_ratio, taken_apart
from dataset_builders.other_answers import wrong_answers
from dataset_builders.published import CotsBuilder
from toolkit.answers import answer_clause, extract, kind_of, matches, split_answer
from toolkit.draws import number
from toolkit.on_disk import DiskList
from toolkit.problem import Problem
from toolkit.teachers.protocol import Request

# Labels that a question is edited towards: the other one of two, both others of three, of more as many.
_MOST_TARGETS = 2
# Answer clauses of a refutation that are looked at.
_MOST_CLAUSES = 20


Refuted = tuple[Example, str]
"""An example and the wrong answer that is to be refuted."""


class CounterfactualPairs(CotsBuilder):
    """One record per original and one per edit of it; see `CounterfactualPairsSettings`."""

    SETTINGS = CounterfactualPairsSettings
    WHAT = (
        "Questions, small edits of them that have another answer, and reasons why each right answer is right and each "
        "wrong one wrong: data for counterfactual distillation (EMNLP 2024 main 333)."
    )
    RECORD: ClassVar[Columns] = {
        **QUESTION,
        **REASON,
        "pair_id": Column("string", "Id of the original that a record is, or is an edit of"),
        "is_original": Column("bool", "Whether it is an original"),
        "is_cf": Column("bool", "Whether it is an edit: a counterfactual"),
        "has_cf": Column("bool", "Whether the original has an edit in `train`"),
        "edit": {
            "from_answer": Column("string", "Gold answer of the original; `edit` is null for originals"),
            "field": Column("string", "Which part of the question was edited"),
            "before": Column("string", "That part as it was"),
            "after": Column("string", "That part as it is"),
            "ratio": Column("float64", "Token edits as a share of the longer text's tokens"),
            "votes": Column("list[string]", "Blind labels of the edited question; empty text for an unreadable one"),
            "vote_share": Column("float64", "Share of them that are the new label; null where nobody was asked"),
            "provenance": PROVENANCE,
        },
        "why": {**CHAIN, "provenance": PROVENANCE},
        "whys": Column(
            "list",
            "All explanations of the answer, `why` the first",
            {"rationale": Column("string", "An explanation without its answer clause"), "provenance": PROVENANCE},
        ),
        "refutes": Column(
            "list",
            "Why each wrong answer is wrong",
            {
                "label": Column("string", "A wrong answer"),
                "rationale": Column("string", "Why it is wrong, without the closing clause, which names the right one"),
                "provenance": PROVENANCE,
            },
        ),
    }
    SFT_RECORD: ClassVar[Columns] = SFT
    EVALUATION: ClassVar[Columns] = {
        **QUESTION,
        "pair": Column("string", "What a question shares with its edits; empty for one that has none"),
    }
    COLUMNS = text_paths(RECORD) - {"reason"}
    CHAINS = ("why",)

    @classmethod
    def asks(cls, settings: CounterfactualPairsSettings) -> tuple[Ask, ...]:
        """See `CotsBuilder.asks`: with one label to edit towards at the first tries, and two at the most."""
        edits = min(settings.most, settings.edits)
        return (
            Ask(("explain",), settings.tries),
            *[Ask(("explain",))] * (settings.rationales - 1),
            *[Ask(("edit",), _MOST_TARGETS)] * settings.edits,
            *[Ask(("blind_label",), _MOST_TARGETS)] * (settings.edits * settings.votes),
            *[Ask(("explain",), settings.tries)] * edits,
            *[Ask(("refute",), settings.tries)] * (1 + edits),
        )

    @staticmethod
    def rounds(problems: Sequence[Problem], asker: Asker, settings: CounterfactualPairsSettings) -> Rounds:
        """Yield what to ask: explanations, edits, blind labels, explanations of what passed, refutations."""
        if settings.edited is None:
            yield from _Asked(problems, asker, settings).rounds()

    @staticmethod
    def records(
        problems: Sequence[Problem], asker: Asker, settings: CounterfactualPairsSettings, steps: list[Step]
    ) -> Iterator[Record]:
        """Yield the records, those of a pair one after the other; see `CotsBuilder.records`."""
        if settings.edited is not None:
            pairs = ready_made_pairs(settings, steps)
        else:
            pairs = _Asked(problems, asker, settings).made(steps)
        for original, edits in pairs:
            has_cf = any(edit.reason is None for edit in edits)
            for example in (original, *edits):
                yield _row(example, has_cf)

    @staticmethod
    def held_out(problem: Problem) -> Record:
        """Return a held-out question, with what it shares with its edits where it has some."""
        return {**question_columns(problem, problem.id), "pair": problem.pair}

    @staticmethod
    def sft(record: Record) -> Record:
        """Return a record's explanation and answer, or its answer alone, as prompt and completion."""
        if record["why"] is None:
            made = sft_record(record, {"rationale": "", "answer": record["answer"]})
            return {**made, "completion": answer_clause(record["answer"])}
        return sft_record(record, record["why"])


class _Asked:
    """Examples out of a teacher's answers."""

    def __init__(self, problems: Sequence[Problem], asker: Asker, settings: CounterfactualPairsSettings) -> None:
        self._problems, self._asker, self._settings = problems, asker, settings
        self._filter = Filter((problem.question for problem in problems), settings)
        self._explained = Retried(settings.tries, self._explain_request, self._judge_explained)
        self._refuted = Retried(settings.tries, self._refute_request, self._judge_refuted)

    def rounds(self) -> Rounds:
        settings = self._settings
        drawn = DiskList(one for one in map(self._original, self._problems) if one.reason is None)
        yield from self._explained.rounds(drawn)
        originals = DiskList(one for one in (self._explain(one, Step("")) for one in drawn) if one.reason is None)
        further = range(len(originals) * (settings.rationales - 1))
        yield Requests(further, partial(self._further_request, originals))
        candidates = DiskList((one, place) for one in originals for place in range(self._count(one)))
        yield Requests(candidates, self._edit_request)
        edits = DiskList(
            edit for one in originals for edit in self._edited(one, Step("")) if edit.reason is None
        )  # each once: the filter knows what it has seen
        yield Requests(range(len(edits) * settings.votes), partial(self._vote_of, edits))
        voted = DiskList(
            edit
            for _, of_one in groupby(edits, key=lambda edit: edit.pair)
            for edit in self._voted(list(of_one), Step(""))
            if edit.reason is None
        )
        yield from self._explained.rounds(voted)
        complete = joined(originals, (edit for edit in voted if self._explain(edit, Step("")).reason is None))
        yield from self._refuted.rounds(DiskList((one, wrong) for one in complete for wrong in self._wrong(one)))

    def made(self, steps: list[Step]) -> Iterator[tuple[Example, list[Example]]]:
        """Yield each original with its edits."""
        names = ("label_set", "explain", "edit", "blind_label", "explain_edit", "refute")
        labelled, explain, edit, vote, explain_edit, refute = made = [Step(name) for name in names]
        steps += made
        for problem in self._problems:
            original = self._original(problem)
            labelled.count(original.reason)
            if original.reason is None:
                original = self._explain(original, explain)
            edits: list[Example] = []
            if original.reason is None:
                original = self._refute(original, refute)
                edits = list(self._edited(original, edit))
                passed = iter(self._voted([one for one in edits if one.reason is None], vote))
                edits = [next(passed) if one.reason is None else one for one in edits]
                edits = [one if one.reason else self._explain(one, explain_edit) for one in edits]
                edits = [one if one.reason else self._refute(one, refute) for one in edits]
            yield original, edits

    # --- the original

    def _original(self, problem: Problem) -> Example:
        """Return an original, rejected where its answers are no closed set or its question has another layout."""
        reason = None
        labels = self._settings.labels
        if not wrong_answers(problem, labels):
            reason = "label_set: no closed set of answers is known"
        elif len(wrong_answers(problem, labels)) == len(labels):
            reason = "label_set: the gold answer is none of the labels"
        elif taken_apart(problem.question, self._settings.layout) is None:
            reason = "label_set: the question is not written in the layout"
        return Example(problem, problem.id, reason=reason)

    def _wrong(self, example: Example) -> tuple[str, ...]:
        return wrong_answers(example.problem, self._settings.labels)

    def _targets(self, problem: Problem) -> list[str]:
        """Return the labels that a question is edited towards: of options one, drawn, else up to two."""
        wrong = wrong_answers(problem, self._settings.labels)
        ranked = sorted(wrong, key=lambda label: number("target", self._settings.seed, problem.id, label))
        is_choice = problem.choices or kind_of(problem.answer, problem.kind) == "choice"
        return ranked[: 1 if is_choice and not self._settings.labels else _MOST_TARGETS]

    # --- explanations

    def _explain_request(self, example: Example, attempt: int) -> Request:
        return self._asker.request("explain", example.problem, attempt)

    def _further_request(self, originals: Sequence[Example], place: int) -> Request:
        index, further = divmod(place, self._settings.rationales - 1)
        return self._explain_request(originals[index], self._settings.tries + further)

    def _judge_explained(self, example: Example, request: Request) -> tuple[Chain, str | None]:
        chain = self._asker.chain(request, example.problem, "teacher")
        if chain.fault is None and not is_right(chain, example.problem):
            return chain, "explanation ends in another answer"
        return replace(chain, answer=example.problem.answer), chain.fault

    def _explain(self, example: Example, step: Step) -> Example:
        """Return an example with its explanations, of an original also the further ones that differ."""
        chain, fault = self._explained.verdict(example, step)
        prefix = "explain" if example.edit is None else "explain_edit"
        whys = [chain]
        for further in range(self._settings.rationales - 1 if example.edit is None and fault is None else 0):
            request = self._explain_request(example, self._settings.tries + further)
            other, wrong = self._judge_explained(example, request)
            if wrong is None and other.rationale not in {why.rationale for why in whys}:
                whys.append(other)
        return replace(example, whys=tuple(whys), reason=fault and f"{prefix}: {fault}")

    # --- edits

    def _count(self, original: Example) -> int:
        return len(self._targets(original.problem)) * self._settings.edits

    def _edit_request(self, candidate: tuple[Example, int]) -> Request:
        """Return the request for one edit: the first of every label, then the second of every label, and so on."""
        original, place = candidate
        targets = self._targets(original.problem)
        sample, target = divmod(place, len(targets))
        name, written = self._field(original.problem)
        return self._asker.request(
            "edit", original.problem, sample, other=targets[target], field=name, text=written.fields[name]
        )

    def _field(self, problem: Problem) -> tuple[str, Written]:
        """Return the field of a question that is edited, a function of seed and id, and the question's parts."""
        name = min(self._settings.fields, key=lambda field: number("field", self._settings.seed, problem.id, field))
        written = taken_apart(problem.question, self._settings.layout)
        assert written is not None
        return name, written

    def _edited(self, original: Example, step: Step) -> Iterator[Example]:
        """Yield the edits of an original with their labels, judged by all that needs no teacher."""
        problem = original.problem
        name, written = self._field(problem)
        targets = self._targets(problem)
        labels = [problem.answer, *self._wrong(original)]
        for place in range(self._count(original)):
            target = targets[place % len(targets)]
            chain = self._asker.text(self._edit_request((original, place)), "edited")
            after = chain.rationale and cleaned(chain.rationale, written.fields[name])
            edit = Edit(problem.answer, name, written.fields[name], after, chain.provenance)
            question = "" if after is None else written.question(self._settings.layout, name, after)
            fault = chain.fault or self._filter.fault(written, edit, target, labels)
            step.count(fault)
            step.completions += not is_unanswered(fault)
            edited = replace(problem, id=f"{problem.id}#{place + 1}", question=question, answer=target)
            yield Example(edited, problem.id, edit, reason=fault and f"edit: {fault}")

    # --- blind labels

    def _vote_of(self, edits: Sequence[Example], place: int) -> Request:
        index, vote = divmod(place, self._settings.votes)
        return self._vote_request(edits[index], vote)

    def _vote_request(self, edit: Example, vote: int) -> Request:
        """Return a request that knows nothing but the edited question: no id, no answer, no other question."""
        seen = edit.problem
        blind = Problem("", seen.task, seen.question, "", seen.kind, seen.choices, seen.task_description)
        labels = sorted((seen.answer, *self._wrong(edit)))  # an order that says nothing of the one that is wanted
        return self._asker.request("blind_label", blind, vote, labels=labels)

    def _voted(self, edits: Sequence[Example], step: Step) -> Iterator[Example]:
        """Yield the edits of one original with the votes on them."""
        kept = 0
        for edit in edits:
            chains = [
                self._asker.chain(self._vote_request(edit, vote), edit.problem, "vote")
                for vote in range(self._settings.votes)
            ]
            assert edit.edit is not None
            fault = self._against(edit, chains) or ("the original has enough" if kept == self._settings.most else None)
            kept += fault is None
            step.count(fault)
            step.completions += sum(not is_unanswered(chain.fault) for chain in chains)
            votes = tuple(chain.answer or "" for chain in chains)
            yield replace(edit, edit=replace(edit.edit, votes=votes), reason=fault and f"blind_label: {fault}")

    def _against(self, edit: Example, chains: Sequence[Chain]) -> str | None:
        """Return why votes do not carry an edit, None where they do."""
        assert edit.edit is not None
        if sum(is_right(chain, edit.problem) for chain in chains) >= self._settings.agreeing:
            return None
        if unanswered := [chain.fault for chain in chains if is_unanswered(chain.fault)]:
            return unanswered[0]
        before = replace(edit.problem, answer=edit.edit.from_answer)
        if sum(is_right(chain, before) for chain in chains) >= self._settings.agreeing:
            return "the answer is what it was"
        return f"fewer than {self._settings.agreeing} of {self._settings.votes} votes for the new answer"

    # --- refutations

    def _refute_request(self, refuted: Refuted, attempt: int) -> Request:
        example, wrong = refuted
        return self._asker.request("refute", example.problem, attempt, other=wrong)

    def _judge_refuted(self, refuted: Refuted, request: Request) -> tuple[Chain, str | None]:
        example, wrong = refuted
        chain = self._asker.chain(request, example.problem, "teacher")
        if chain.fault is None and asserts(chain, wrong, example.problem):
            return chain, "argues for the wrong answer"
        if chain.fault is None and not is_right(chain, example.problem):
            return chain, "ends in another answer than the right one"
        return chain, chain.fault

    def _refute(self, example: Example, step: Step) -> Example:
        """Return an example with its refutations, rejected where one of them is none."""
        judged = [(wrong, *self._refuted.verdict((example, wrong), step)) for wrong in self._wrong(example)]
        fault = next((fault for _, _, fault in judged if fault is not None), None)
        refutes = tuple((wrong, chain) for wrong, chain, _ in judged if fault is None)
        return replace(example, refutes=refutes, reason=fault and f"refute: {fault}")


def asserts(chain: Chain, wrong: str, problem: Problem) -> bool:
    """Return whether a refutation says anywhere that the wrong answer is the answer.

    Its last clause is not enough: a text may argue for the wrong answer and name the right one at the end.
    """
    kind = kind_of(problem.answer, problem.kind)
    text, clause = chain.rationale or "", chain.answer
    for _ in range(_MOST_CLAUSES):
        if clause is None:
            break
        if matches(extract(answer_clause(clause), kind, problem.choices), wrong, kind, problem.choices):
            return True
        text, clause = split_answer(text)
    return False


def _row(example: Example, has_cf: bool) -> Record:
    edit, problem = example.edit, example.problem
    whys = (
        [] if example.reason else [{"rationale": why.rationale, "provenance": why.provenance} for why in example.whys]
    )
    first = example.whys[0] if example.whys else None
    return {
        **question_columns(problem, problem.id),
        "reason": example.reason,
        "pair_id": example.pair,
        "is_original": edit is None,
        "is_cf": edit is not None,
        "has_cf": has_cf,
        "edit": edit and _edit_columns(edit, problem),
        "why": first and {"rationale": first.rationale, "answer": first.answer, "provenance": first.provenance},
        "whys": whys,
        "refutes": [
            {"label": wrong, "rationale": chain.rationale, "provenance": chain.provenance}
            for wrong, chain in example.refutes
        ],
    }


def _edit_columns(edit: Edit, problem: Problem) -> dict[str, Any]:
    agreeing = sum(matches(vote, problem.answer, problem.kind, problem.choices) for vote in edit.votes)
    return {
        "from_answer": edit.from_answer,
        "field": edit.field,
        "before": edit.before,
        "after": edit.after,
        "ratio": None if edit.after is None else edit_ratio(edit.before, edit.after),
        "votes": list(edit.votes),
        "vote_share": agreeing / len(edit.votes) if edit.votes else None,
        "provenance": edit.provenance,
    }
