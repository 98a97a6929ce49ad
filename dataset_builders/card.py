"""The dataset card: figures over the published rows, put into `cards/dataset.md.jinja`, and pictures of some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import yaml

from dataset_builders import figures
from dataset_builders.asking import Outcome
from dataset_builders.chains import whole
from dataset_builders.columns import PROVENANCE, leaves
from dataset_builders.key_tokens_settings import KeyTokensSettings
from dataset_builders.settings import BuilderSettings
from dataset_builders.versions_apart import changelog
from toolkit.cards import document, render
from toolkit.installed import ENVIRONMENT, lock
from toolkit.plots import plot_key_shares, plot_lengths, plot_yields
from toolkit.problem import Problem

if TYPE_CHECKING:
    from dataset_builders.published import CotsBuilder

RECIPE = "recipe.yaml"
_ASKED_FOR = {
    "cot": "a chain of thought for every question",
    "answer_hint": "the same with the gold answer as a hint, where the chain came out wrong",
    "contrastive": "a wrong chain close to the right one, where the chain came out right",
    "pot": "a program for every question, which is run",
    "written_cot": "nothing: chains of thought came ready-made",
    "written_pot": "nothing: programs came ready-made, and are run",
    "balance": "nothing: of each question as many chains as programs are kept; these are questions",
    "pairs": "nothing: right and wrong chains came ready-made",
    "chains": "nothing: chains came ready-made",
    "scores": "nothing: chains that were published before, whose words are scored",
    "other_answer": "nothing: a wrong answer is drawn for every question",
    "factual": "the reasoning that leads to the gold answer, which is given",
    "counterfactual": "the reasoning that leads to the wrong answer, given as if it were right",
    "socratic": "sub-questions with their answers, down to the final one",
    "decomposed": "nothing: sub-questions and answers came ready-made",
    "label_set": "nothing: questions whose answers are no closed set are left out",
    "explain": "why the right answer, which is given, is right",
    "edit": "the question with a small change that makes another answer right",
    "blind_label": "the answer to the changed question, several times, from a teacher that sees nothing else",
    "explain_edit": "why the new answer to the changed question is right",
    "refute": "why a wrong answer is wrong",
    "edited": "nothing: questions and changes of them came ready-made",
    "demonstrations": "nothing: chains of other questions are shown with each one",
}
_LIBRARIES = ("cot-distillery", "datasets", "pyarrow", "rapidfuzz")
_SCORING = ("captum", "torch", "transformers")

Shares = dict[str, dict[str, figures.KeyShare]]


@dataclass(frozen=True)
class Origin:
    """Where a dataset comes from, as its card tells it.

    Attributes:
        repo_id: Name of the dataset.
        revision: Its version.
        command: What was typed to build it.
        config_digest: Digest of settings, prompts and code.
        rows_digest: Digest of the rows.
        templates: Labels of the prompt templates that were used.
        usage: `completions` that were read, their `prompt_tokens` and `completion_tokens`.
        cost: What these cost; empty where the teacher costs nothing.
        recipe: The recipe that asks for the dataset, as YAML; empty where none does.
        hub_dir: The local hub, where its earlier versions lie.
    """

    repo_id: str
    revision: str
    command: str
    config_digest: str
    rows_digest: str
    templates: Sequence[str]
    usage: Mapping[str, int]
    cost: str
    recipe: str = ""
    hub_dir: str | Path = "hub"


@dataclass(frozen=True)
class Card:
    """A dataset's card.

    Attributes:
        text: All of it, front matter included.
        pictures: By the name under which the card shows it, what draws a picture into a file.
        recipe: As of `Origin`.
    """

    text: str
    pictures: Mapping[str, Callable[[Path], None]]
    recipe: str

    def write_beside(self, folder: Path) -> None:
        """Write what the card shows and links into the folder it lies in."""
        for name, draw in self.pictures.items():
            draw(folder / name)
        (folder / ENVIRONMENT).write_text(lock(), encoding="utf-8")
        if self.recipe:
            (folder / RECIPE).write_text(self.recipe, encoding="utf-8")


def measure_key_shares(builder: type[CotsBuilder], settings: BuilderSettings, outcome: Outcome) -> Shares:
    """Return the key shares of dual records by unit, `words` and `tokens`; nothing where there are no wrong chains."""
    if "wrong" not in builder.CHAINS:
        return {}
    name = settings.tokenizer
    tokens = figures.tokenizer_split(name) if name else figures.trained_split(outcome.train)
    return figures.key_shares(outcome.train, {"words": figures.split_words, "tokens": tokens})


def dataset_card(
    builder: type[CotsBuilder],
    settings: BuilderSettings,
    outcome: Outcome,
    test: Sequence[Problem],
    evaluation_sets: Mapping[str, Sequence[Problem]],
    shares: Shares,
    origin: Origin,
) -> Card:
    """Return the card with its pictures.

    Args:
        builder: The builder's class.
        settings: Its settings; licence, terms and summary are taken as they stand there.
        outcome: Records and yields.
        test: Held-out problems, published as `evaluation`.
        evaluation_sets: Problems of other sets that are compared with the questions of `train`.
        shares: From `measure_key_shares`.
        origin: Command and digests.
    """
    title = settings.title or origin.repo_id
    splits = {"default / train": len(outcome.train), "default / unpaired": len(outcome.unpaired)}
    right = sum(map(builder.is_right, outcome.train))
    splits |= {"default / rejected": len(outcome.rejected), "sft / train": right * builder.SFT_ROWS}
    splits |= {"evaluation / test": len(test)}
    splits = {name: rows for name, rows in splits.items() if rows}
    writers = figures.writers(chain(outcome.train, outcome.unpaired, outcome.rejected), builder.CHAINS)
    sets = ({"evaluation / test": test} if test else {}) | dict(evaluation_sets)
    questions = (record["question"] for record in outcome.train)
    attribution = _attribution(settings, outcome)
    lengths = _lengths(builder, outcome)
    pictures = _pictures(outcome, lengths, shares)
    body = render(
        "dataset.md.jinja",
        title=title,
        what=builder.WHAT,
        summary=settings.summary.strip(),
        splits=splits,
        load_lines=_load_lines(splits, origin),
        has_owner="/" in origin.repo_id,
        are_embedded={writer.model.startswith("procedural") for writer in writers},
        columns=_columns(builder, outcome, splits),
        provenance=list(PROVENANCE.items()),
        steps=outcome.steps,
        asked_for=_ASKED_FOR,
        reasons=[
            (step.title, reason, count)
            for step in outcome.steps
            for reason, count in sorted(step.reasons.items(), key=lambda item: (-item[1], item[0]))
        ],
        example=_example(builder, outcome),
        templates=_templates(origin.templates),
        origins=_origins(outcome) if "wrong" in builder.CHAINS else [],
        lengths=lengths,
        has_spans="spans" in {column.type for _, column in leaves(builder.RECORD)},
        key_shares=shares,
        attribution=attribution,
        tokens_of=f"`{settings.tokenizer}`"
        if settings.tokenizer
        else f"a byte-level BPE of {figures.TRAINED_SIZE} tokens trained on these chains",
        sub_questions=_sub_questions(outcome) if "steps" in builder.RECORD else {},
        cells=figures.label_cells(chain(outcome.train, outcome.rejected)),
        tasks=_tasks(outcome, test),
        mistakes=figures.mistakes(outcome.train) if "wrong" in builder.CHAINS else {},
        writers=writers,
        overlaps=figures.overlaps(sets, questions),
        ngram=figures.NGRAM,
        license=settings.license,
        source_terms=settings.source_terms.strip(),
        builder=builder.__name__,
        builder_version=str(builder.VERSION),
        changelog=changelog(
            origin.hub_dir,
            origin.repo_id,
            origin.revision,
            splits=splits,
            recipe=origin.recipe,
            builder_version=str(builder.VERSION),
            changes=builder.CHANGES,
            digests=(origin.config_digest, origin.rows_digest),
        ),
        recipe=yaml.safe_load(origin.recipe)["recipe"] if origin.recipe else None,
        versions={name: version(name) for name in (*_LIBRARIES, *(_SCORING if attribution else ()))},
        origin=origin,
    )
    # Ready-made steps and chains come from a source of which people may have written a part.
    ready_made = any(writer.teacher in ("decomposed", "written") for writer in writers)
    creators = "found" if ready_made else "machine-generated"
    metadata = {
        "pretty_name": title,
        "language": list(settings.language),
        "license": settings.license,
        "task_categories": ["text-generation"],
        "language_creators": [creators],
        "annotations_creators": [creators],
        "size_categories": _size(len(outcome.train)),
        "tags": ["chain-of-thought", "reasoning", "distillation", "cot-distillery"],
    }
    return Card(document(metadata, body), pictures, origin.recipe)


def _pictures(
    outcome: Outcome, lengths: Sequence[figures.Lengths], shares: Shares
) -> dict[str, Callable[[Path], None]]:
    pictures: dict[str, Callable[[Path], None]] = {
        "yields.png": partial(
            plot_yields, [(step.title, step.records, step.accepted) for step in outcome.steps], len(outcome.train)
        ),
        "lengths.png": partial(plot_lengths, {length.column: length.tally for length in lengths}),
    }
    if shares:
        by_unit = {unit: tasks["all tasks"].by_share for unit, tasks in shares.items()}
        pictures["key_shares.png"] = partial(plot_key_shares, by_unit)
    return pictures


def _load_lines(splits: Mapping[str, int], origin: Origin) -> list[str]:
    """Return the code that loads each split: from the Hub where the dataset's name has an owner, else from a folder."""
    where, at = (origin.repo_id, f', revision="{origin.revision}"') if "/" in origin.repo_id else ("FOLDER", "")
    names = {
        "default / train": "records",
        "default / unpaired": "unpaired",
        "default / rejected": "rejected",
        "sft / train": "ready_for_trl",
        "evaluation / test": "held_out",
    }
    lines = []
    for split in splits:
        config, _, part = split.partition(" / ")
        lines.append(f'{names[split]} = load_dataset("{where}", "{config}", split="{part}"{at})')
    return lines


def _columns(
    builder: type[CotsBuilder], outcome: Outcome, splits: Mapping[str, int]
) -> dict[str, list[tuple[str, Any]]]:
    """Return the columns of each published config; those of `provenance` are described once, below."""
    published = {name.partition(" / ")[0] for name in splits}
    return {
        name: [(path, column) for path, column in leaves(columns) if ".provenance." not in path]
        for name, columns in builder.tables(outcome).items()
        if name in published
    }


# An example of more characters is hard to read in a card.
_READABLE = 700


def _example(builder: type[CotsBuilder], outcome: Outcome) -> dict[str, Any]:
    """Return one record for the card: the first that is short, or else the shortest, with its key steps marked."""

    def size(record: dict[str, Any]) -> int:
        return len(record["question"]) + sum(len(record[side]["rationale"]) for side in builder.CHAINS if record[side])

    # Of data with edits an edit says more than an original.
    short = (record for record in outcome.train if size(record) < _READABLE and not record.get("is_original"))
    record = next(short, None) or min(outcome.train, key=size)
    chains = {side: _marked(record[side]) for side in builder.CHAINS if record[side]}
    if record.get("edit"):
        chains = {"edit.before": record["edit"]["before"]} | chains
    if "steps" in record:
        chains = {"steps": builder.sft(record)["completion"]}
    return {"id": record["id"], "question": record["question"], "chains": chains}


def _marked(chain: Mapping[str, Any]) -> str:
    """Return a chain with its key steps in [[brackets]]; code blocks know no bold."""
    text, end, parts = chain["rationale"], 0, []
    for span in chain.get("key_spans", []):
        parts += [text[end : span["start"]], "[[", text[span["start"] : span["end"]], "]]"]
        end = span["end"]
    marked = "".join([*parts, text[end:]])
    return marked if "status" in chain else whole(marked, chain["answer"])  # a program says its answer by running


def _templates(labels: Sequence[str]) -> list[str]:
    """Return the labels of the templates, or how many of a kind there are where every task has its own."""
    if len(labels) <= 6:
        return [f"`{label}`" for label in labels]
    kinds = Counter(label.partition("@")[0] for label in labels)
    return [f"{count} for `{kind}`" for kind, count in sorted(kinds.items())]


def _origins(outcome: Outcome) -> list[tuple[str, int]]:
    how = {
        "rectified": "the teacher was wrong; its chain was rectified with an answer hint",
        "corrupted": "the teacher was right; its chain was corrupted",
        "paired": "both chains came ready-made",
    }
    counts: Counter[str] = Counter()
    for record in outcome.train:
        sides = {record["right"]["origin"], record["wrong"]["origin"]} - {"teacher"}
        counts[" and ".join(how[side] for side in sorted(sides))] += 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _lengths(builder: type[CotsBuilder], outcome: Outcome) -> list[figures.Lengths]:
    return figures.lengths(
        {"question": record["question"]}
        | {f"{side}.rationale": record[side]["rationale"] for side in builder.CHAINS if record[side]}
        for record in outcome.train
    )


def _sub_questions(outcome: Outcome) -> dict[int, int]:
    """Return the number of records of `train` by how many sub-questions they have."""
    return dict(sorted(Counter(len(record["steps"]) for record in outcome.train).items()))


def _attribution(settings: BuilderSettings, outcome: Outcome) -> dict[str, Any] | None:
    """Return how words were scored and how exactly, None for data without such scores."""
    if not isinstance(settings, KeyTokensSettings):
        return None
    return {
        "settings": settings,
        # By its name alone: a folder belongs to a machine.
        "attributor": PurePath(settings.attributor.model).name
        if settings.attributor.revision is None
        else f"{settings.attributor.model} at {settings.attributor.revision}",
        "errors": figures.completeness(record["chain"]["completeness"] for record in outcome.train),
    }


def _tasks(outcome: Outcome, test: Sequence[Problem]) -> dict[str, tuple[int, int, int]]:
    """Return (train, rejected, held out) per task."""
    train, rejected = (Counter(record["task"] for record in part) for part in (outcome.train, outcome.rejected))
    held_out = Counter(problem.task for problem in test)
    return {task: (train[task], rejected[task], held_out[task]) for task in sorted({*train, *rejected, *held_out})}


def _size(rows: int) -> str:
    names = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for limit, name in names if rows < limit), "1M<n<10M")
