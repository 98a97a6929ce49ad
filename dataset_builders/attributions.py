"""Chains that were published before, and what a student's attribution says about their words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builders.columns import CHAIN, PROVENANCE, QUESTION
from dataset_builders.key_tokens_settings import Attributor, KeyTokensSettings, PublishedChains
from toolkit import hub
from toolkit.attribution import Example, Unscorable, WordScorer, WordScores, require_captum
from toolkit.errors import UserError, nearest
from toolkit.hub_revisions import commit_of
from toolkit.on_disk import DiskList
from toolkit.problem import Problem
from toolkit.recipe_dataset import configs, load_published
from toolkit.views import fill, parse

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ScoredChain:
    """A published record of one chain, with the scores of its words or the reason why it has none.

    Attributes:
        row: The record as it was published.
        scores: Scores of the rationale's words.
        reason: Why there are none.
    """

    row: dict[str, Any]
    scores: WordScores | None
    reason: str | None = None

    def record(self) -> dict[str, Any]:
        """Return the record of `key_tokens`."""
        scores = self.scores
        chain = self.row["chain"]
        return {
            **{name: self.row[name] for name in QUESTION},
            "reason": self.reason,
            "correct": self.row["correct"],
            "chain": {
                **{name: chain[name] for name in CHAIN},
                "words": scores.words if scores else [],
                "gradient_scores": scores.gradient if scores else [],
                "embedding_scores": scores.embedding if scores else [],
                "completeness": scores.completeness if scores else None,
                "provenance": {name: chain["provenance"][name] for name in PROVENANCE},
            },
        }


def scored_chains(settings: KeyTokensSettings, hub_dir: Path) -> tuple[Sequence[ScoredChain], Sequence[Problem]]:
    """Read the chains, score their words, and return them with the held-out problems that were published beside them.

    Raises:
        UserError: Chains or attributor are missing or unfit, or captum is.
    """
    from tqdm import tqdm

    require_captum()
    rows, held_out = _published(settings.chains, hub_dir)
    model, tokenizer = _load(settings.attributor, hub_dir)
    scorer = WordScorer(
        model,
        tokenizer,
        prompt_format=settings.attributor.prompt_format,
        steps=settings.steps,
        baseline=settings.baseline,
        sign=settings.sign,
        batch_size=settings.batch_size,
    )
    scored = DiskList[ScoredChain]()
    for row in tqdm(
        rows, desc=f"scoring words by {Path(settings.attributor.model).name}", unit=" chains", disable=None
    ):
        if settings.keep == "right" and not row["correct"]:
            scored.append(ScoredChain(row, None, "final answer is wrong"))
            continue
        try:
            scored.append(ScoredChain(row, scorer.score(example(settings, row))))
        except Unscorable as error:
            scored.append(ScoredChain(row, None, str(error)))
    return scored, held_out


def example(settings: KeyTokensSettings, row: Mapping[str, Any]) -> Example:
    """Return a record as the attributor is to read it."""
    before, rationale, space = _around(settings.rationale, "chain.rationale", row)
    marker, answer, after = _around(settings.marker, "answer", row)
    return Example(fill(settings.prompt, row), row["question"], before, rationale, space + marker, answer, after)


def _around(template: str, column: str, row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Render a template and cut it at the one column it takes: what is before, the column's text, what is after."""
    texts = [(piece.is_column and piece.text == column, piece.text, piece.is_column) for piece in parse(template)]
    place = [found for found, _, _ in texts].index(True)
    filled = [fill(f"{{{text}}}", row) if is_column else text for _, text, is_column in texts]
    return "".join(filled[:place]), filled[place], "".join(filled[place + 1 :])


def _published(chains: PublishedChains, hub_dir: Path) -> tuple[Any, Sequence[Problem]]:
    """Return the records of a dataset, and its held-out problems where it has any."""
    place = (hub_dir, chains.repo_id, chains.revision)
    try:
        known = configs(*place)
    except UserError as error:
        recipe = chains.recipe or "RECIPE"
        raise UserError(f"chains: {error}. Build it first: distill build {recipe}") from None
    rows = load_published(*place, "default", "train")
    _require_columns(chains, rows[0])
    held_out = load_published(*place, "evaluation", "test") if "evaluation" in known else []
    return rows, DiskList(Problem(**{**row, "choices": tuple(row["choices"]), "split": "test"}) for row in held_out)


def _require_columns(chains: PublishedChains, row: Mapping[str, Any]) -> None:
    needed: dict[str, Iterable[str]] = {
        "": [*QUESTION, "correct", "chain"],
        "chain.": [*CHAIN, "provenance"],
        "chain.provenance.": PROVENANCE,
    }
    for prefix, names in needed.items():
        part: Any = row
        for name in prefix.split(".")[:-1]:
            part = part[name]
        for name in names:
            if not isinstance(part, Mapping) or name not in part:
                raise UserError(
                    f"chains: {chains.repo_id} at {chains.revision} has no column {prefix + name!r}"
                    f"{nearest(name, part) if isinstance(part, Mapping) else ''}; "
                    "the words of a dataset are scored that has the columns of `teacher_cots`"
                )


def _load(attributor: Attributor, hub_dir: Path) -> tuple[Any, Any]:
    """Load the attributor, in float32, onto the accelerator where there is one.

    Raises:
        UserError: It is nowhere, or cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, revision = _source(attributor, hub_dir)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        model: Any = AutoModelForCausalLM.from_pretrained(source, revision=revision, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise UserError(f"attributor.model: {attributor.model!r} cannot be loaded: {error}") from error
    return model.to(_device()), tokenizer


def _device() -> torch.device:
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def _source(attributor: Attributor, hub_dir: Path) -> tuple[str, str | None]:
    """Return where the attributor is loaded from: the local hub, a folder, or the Hub with a revision."""
    model, revision = attributor.model, attributor.revision
    in_hub = hub_dir / "models" / model
    if revision is not None and (in_hub / revision).is_dir():
        return str(in_hub / revision), None
    if Path(model).is_dir():
        return model, None
    if "/" in model and not in_hub.exists():
        return model, commit_of("model", model, revision)
    known = hub.revisions(hub_dir, "model", model)
    found = f"has the revisions {known}{nearest(revision or '', known)}" if known else "is not there"
    train = f"accelerate launch toolkit/train.py {attributor.recipe or 'RECIPE'}"
    raise UserError(
        f"attributor.model: no student {model!r} at {revision or 'any revision'} under {hub_dir}: it {found}, "
        f"and there is no such folder. Train it first: {train}"
        + ("" if attributor.recipe else f" with the recipe whose publish.repo_id is {model}")
    )
