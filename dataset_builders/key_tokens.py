"""`key_tokens`: chains of thought whose every word has two scores that say how much it matters to the answer.

What the key-token arms of "Investigating Mysteries of CoT-Augmented Distillation" (arXiv 2406.14511) are cut by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import datasets

from dataset_builders.asking import Asker, Record, Rounds, Step
from dataset_builders.attributions import ScoredChain, scored_chains
from dataset_builders.chains import sft_record
from dataset_builders.columns import CHAIN, PROVENANCE, QUESTION, REASON, SFT, Column, Columns, text_paths
from dataset_builders.key_tokens_settings import KeyTokensSettings
from dataset_builders.published import CotsBuilder
from toolkit.problem import Problem

if TYPE_CHECKING:
    from pathlib import Path


class KeyTokens(CotsBuilder):
    """One record per chain that was published before; see `KeyTokensSettings`."""

    VERSION = datasets.Version("1.1.0")
    CHANGES: ClassVar[dict[str, str]] = {
        "1.1.0": "`sft` holds right chains only, whatever `keep` says.",
        "1.0.0": "The first version.",
    }
    SETTINGS = KeyTokensSettings
    WHAT = (
        "Chains of thought whose every word has two scores, by integrated gradients of a student's answer and by "
        "closeness to question and answer: data for the key-token arms of arXiv 2406.14511."
    )
    RECORD: ClassVar[Columns] = {
        **QUESTION,
        **REASON,
        "correct": Column("bool", "Whether the chain's final answer is the gold one"),
        "chain": {
            **CHAIN,
            "words": Column("list[string]", "Words of the rationale, as white space parts them"),
            "gradient_scores": Column(
                "list[float64]", "Integrated gradients of log p(gold answer), summed over each word's tokens"
            ),
            "embedding_scores": Column(
                "list[float64]",
                "Cosine of each word's mean input embedding with that of the words of question and gold answer",
            ),
            "completeness": Column(
                "float64", "How far the integrated gradients miss the change that they add up to, relative to it"
            ),
            "provenance": PROVENANCE,
        },
    }
    SFT_RECORD: ClassVar[Columns] = SFT
    COLUMNS = text_paths(RECORD) - {"reason"}
    CHAINS = ("chain",)

    @classmethod
    def inputs(cls, settings: KeyTokensSettings, hub_dir: Path) -> tuple[Sequence[ScoredChain], Sequence[Problem]]:
        """Return the chains with the scores of their words, and the held-out problems published beside them."""
        return scored_chains(settings, hub_dir)

    @staticmethod
    def rounds(problems: Sequence[ScoredChain], asker: Asker, settings: KeyTokensSettings) -> Rounds:
        """Ask nothing."""
        yield from ()

    @staticmethod
    def records(
        problems: Sequence[ScoredChain], asker: Asker, settings: KeyTokensSettings, steps: list[Step]
    ) -> Iterator[Record]:
        """Yield the records; see `CotsBuilder.records`."""
        step = Step("scores")
        steps.append(step)
        for chain in problems:
            step.count(chain.reason, "right" if chain.row["correct"] else "wrong")
            yield chain.record()

    @staticmethod
    def sft(record: Record) -> Record:
        """Return a record's chain as prompt and completion."""
        return sft_record(record, record["chain"])
