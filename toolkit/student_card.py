"""The card that a student is published with: a README for people, scores for machines, and two pictures.

Everything in it comes from the facts it is given; it holds no time of writing, so the same run gives the same bytes.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.cards import document, render
from toolkit.installed import OWN, versions
from toolkit.robustness import robustness_table
from toolkit.scores import format_scores_table, format_ways

CARD = "README.md"
LOSS_PLOT = "loss.png"
ACCURACY_PLOT = "accuracy.png"
_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


@dataclass(frozen=True)
class DatasetFacts:
    """What the student was trained on.

    Attributes:
        repo_id: Dataset's name.
        revision: Its version, or a full commit.
        digest: Of the records that were trained on.
        teacher: Who wrote the chains: `procedural`, `openai`, `recorded`, or several as `openai and recorded`; empty
            where nobody was asked for them.
        teacher_model: Model that was asked, or all of them.
        commit: Full commit on the Hub; None for a dataset that is not known to be there.
    """

    repo_id: str
    revision: str
    digest: str
    teacher: str
    teacher_model: str = ""
    commit: str | None = None


@dataclass(frozen=True)
class SetFacts:
    """Where an evaluation set comes from.

    Attributes:
        description: One line for people.
        dataset: Dataset on the Hub or in the local hub; None for questions that are in no dataset.
        revision: Its version or commit.
        config: Its configuration.
        split: Its split.
    """

    description: str
    dataset: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class StageFacts:
    """One stage of training.

    Attributes:
        name: Stage's name.
        views: By name: coefficient and token_weights, as in the recipe.
        reduction: by and over, as in the recipe.
        training: Training arguments that the recipe sets.
        outcome: The stage's `stage.json`: seconds, steps, epochs, encoding report and log.
    """

    name: str
    views: Mapping[str, Mapping[str, Any]]
    reduction: Mapping[str, Any]
    training: Mapping[str, Any]
    outcome: Mapping[str, Any]


@dataclass(frozen=True)
class AdapterFacts:
    """A LoRA adapter that was trained in the place of all weights.

    Attributes:
        rank: Of its matrices.
        alpha: What their product is scaled by is `alpha / rank`.
        dropout: Share of its inputs that is left out in training.
        targets: Modules that have one, by the ends of their names.
        saved: Modules that are trained whole beside it.
    """

    rank: int
    alpha: int
    dropout: float
    targets: Sequence[str]
    saved: Sequence[str] = ()


@dataclass(frozen=True)
class StudentFacts:
    """All that a card tells.

    Attributes:
        repo_id: Name that the student is published under.
        revision: Version that it is published as.
        architecture: Model class, e.g. `LlamaForCausalLM`.
        parameters: Number of parameters.
        base_model: Model that training started from: its name on the Hub, or its folder's; None for random weights.
        base_commit: Full commit that it was loaded at; None for a model that is not from the Hub.
        license: Licence identifier of the Hub; None where the recipe states none.
        recipe: `name`, `version`, `paper` (arXiv id or None), `title` (or None).
        command: What reproduces the student.
        dataset: What it was trained on.
        stages: In order.
        scores: Summaries (`EvaluationResult.summary`) by student and set, this student's and its references'.
        own: This student's name in `scores`.
        sets: Origin of every set in `scores`.
        prompt: A prompt as the student reads it, rendered.
        completion: What it answered.
        add_special_tokens: Whether the tokenizer adds special tokens to such a prompt.
        hardware: One line (`describe_hardware`).
        versions: Libraries (`library_versions`).
        adapter: The adapter that was trained; None where all weights were.
        gap: Names of the set in domain and of those out of domain; None where no gap is told.
        language: ISO 639-1 codes.
        limitations: One sentence each, beside those that every student has.
    """

    repo_id: str
    revision: str
    architecture: str
    parameters: int
    base_model: str | None
    base_commit: str | None
    license: str | None
    recipe: Mapping[str, Any]
    command: str
    dataset: DatasetFacts
    stages: Sequence[StageFacts]
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]]
    own: str
    sets: Mapping[str, SetFacts]
    prompt: str
    completion: str
    add_special_tokens: bool
    hardware: str
    versions: Mapping[str, str]
    adapter: AdapterFacts | None = None
    gap: tuple[str, Sequence[str]] | None = None
    language: Sequence[str] = ("en",)
    limitations: Sequence[str] = field(default_factory=tuple)


def write_student_card(folder: Path, facts: StudentFacts) -> list[Path]:
    """Write card, pictures and `.eval_results/` into a student's folder; returns the files."""
    from toolkit.plots import plot_accuracy, plot_losses

    results = folder / ".eval_results" / f"{facts.recipe['name']}.yaml"
    files = [folder / CARD, folder / ACCURACY_PLOT]
    (folder / CARD).write_text(build_student_card(facts), encoding="utf-8")
    plot_accuracy(facts.scores, facts.own, folder / ACCURACY_PLOT)
    if _logs(facts):
        plot_losses(_logs(facts), folder / LOSS_PLOT)
        files.append(folder / LOSS_PLOT)
    entries = eval_results(facts)
    if entries:
        results.parent.mkdir(exist_ok=True)
        results.write_text(entries, encoding="utf-8")
        files.append(results)
    return files


def build_student_card(facts: StudentFacts) -> str:
    """The card's text: front matter as the Hub reads it, with the scores as a `model-index`, above the README."""
    from huggingface_hub import constants

    own = facts.scores[facts.own]
    body = render(
        "student.md.jinja",
        facts=facts,
        own=own,
        parameters=_amount(facts.parameters),
        address=f'"{facts.repo_id}", revision="{facts.revision}"' if "/" in facts.repo_id else '"FOLDER"',
        prompt_literal=_literal(facts.prompt),
        table=format_scores_table(facts.scores, markdown=True),
        ways=format_ways(facts.scores),
        robustness=robustness_table(facts.scores, facts.gap, markdown=True),
        tasks=[(name, task, score) for name, summary in own.items() for task, score in summary["by_task"].items()],
        settings=next(iter(own.values()))["settings"],
        training_keys=list(dict.fromkeys(key for stage in facts.stages for key in stage.training)),
        minutes=sum(stage.outcome["seconds"] for stage in facts.stages) / 60,
        last_losses={stage.name: losses[-1][1] for stage in facts.stages if (losses := _logged(stage, "loss"))},
        held_out=[_held_out(stage) for stage in facts.stages if stage.outcome["encoding"]["held_out"]],
        swapped=[told for stage in facts.stages for told in _swapped(stage)],
        softened={(stage.name, name): told for stage in facts.stages for name, told in _softened(stage)},
        procedural=_procedural(facts.dataset.teacher.split(" and ")),
        loss_plot=LOSS_PLOT if _logs(facts) else None,
        accuracy_plot=ACCURACY_PLOT,
        endpoint=constants.ENDPOINT,
        links=links(facts.dataset.repo_id, facts.dataset.revision, facts.dataset.commit),
    )
    return document(_metadata(facts), body)


def links(repo_id: str, revision: str, commit: str | None) -> str:
    """The card's block that says where the student's dataset lies; made again when the dataset has come to the Hub.

    Args:
        repo_id: The dataset's name.
        revision: Version, or full commit.
        commit: Full commit of that version on the Hub; None where it is not known to be there.
    """
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/datasets/{repo_id}"
    return render("links.md.jinja", repo_id=repo_id, revision=revision, commit=commit, url=url)


def eval_results(facts: StudentFacts) -> str:
    """The text of `.eval_results/<recipe>.yaml`: accuracies, between 0 and 1, on the sets that are datasets.

    A set that is in no dataset has no place in that format and stands in the card's `model-index` alone.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    entries = [
        EvalResultEntry(
            dataset_id=origin.dataset,
            task_id=name,
            value=round(summary["accuracy"], 6),
            dataset_revision=origin.revision,
            notes=f"n {summary['n']}, standard error {summary['standard_error']:.6f}, {_how(summary['settings'])}",
        )
        for name, summary in facts.scores[facts.own].items()
        if (origin := facts.sets[name]).dataset
    ]
    return yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False) if entries else ""


def library_versions(environment: str) -> dict[str, str]:
    """Those of a lock's versions (`toolkit.installed`) that a student's weights and scores owe most to."""
    known = versions(environment)
    return {name: known[name] for name in (OWN, *_LIBRARIES)}


def describe_hardware(device: str) -> str:
    """One line about what `device` (`cpu`, `cuda:0`) is on this machine."""
    import torch

    if device.startswith("cuda"):
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})" if device.startswith("cpu") else device


def _metadata(facts: StudentFacts) -> dict[str, Any]:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        language=list(facts.language),
        license=facts.license,
        library_name="transformers",
        pipeline_tag="text-generation",
        # A folder is no model of the Hub, whose page of the student would link to nothing.
        base_model=facts.base_model if facts.base_commit else None,
        datasets=[facts.dataset.repo_id],
        metrics=["accuracy"],
        tags=["chain-of-thought", "reasoning", "distillation", "cot-distillery", facts.recipe["name"]],
        model_name=facts.repo_id.rpartition("/")[2],
        eval_results=[
            result for name, summary in facts.scores[facts.own].items() for result in _results(facts, name, summary)
        ],
    )
    return data.to_dict()


def _results(facts: StudentFacts, name: str, summary: Mapping[str, Any]) -> list[Any]:
    from huggingface_hub import EvalResult

    origin = facts.sets[name]
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Question answering by chain of thought",
            dataset_type=origin.dataset or name,
            dataset_name=name,
            dataset_config=origin.config,
            dataset_split=origin.split,
            dataset_revision=origin.revision,
            dataset_args={"n": summary["n"], "description": origin.description},
            metric_type=kind,
            metric_name=title,
            metric_value=round(summary[key], 6),
        )
        for kind, title, key in (
            ("accuracy", "Accuracy", "accuracy"),
            ("accuracy_stderr", "Standard error of the accuracy", "standard_error"),
        )
    ]


def _how(settings: Mapping[str, Any]) -> str:
    drawn = "greedy"
    if settings["temperature"]:
        drawn = f"majority of {settings['samples']} at temperature {settings['temperature']}, top_p {settings['top_p']}"
    lengths = " + ".join(str(turn["max_new_tokens"]) for turn in settings["turns"])
    return f"{drawn}, {lengths} new tokens, {settings['extractor']}"


def _logs(facts: StudentFacts) -> dict[str, Any]:
    return {stage.name: stage.outcome["log"] for stage in facts.stages if stage.outcome["log"]}


def _logged(stage: StageFacts, name: str) -> list[tuple[int, float]]:
    """What a stage logged under a name: (step, value)."""
    return [(entry["step"], entry[name]) for entry in stage.outcome["log"] if name in entry]


def _held_out(stage: StageFacts) -> str:
    """What was held out of a stage's training and what came of it, as sentences."""
    apart, kept = stage.outcome["encoding"]["held_out"]["records"], stage.outcome["kept_step"]
    told = f"`{stage.name}` was not trained on {apart} further records, all that there are of their questions."
    losses = _logged(stage, "eval_loss")
    if losses:
        told += f" The loss on them was {losses[-1][1]:.4g} at step {losses[-1][0]}."
    if kept < stage.outcome["steps"]:
        told += f" The weights kept are those of step {kept}, with a loss of {dict(losses)[kept]:.4g} on them."
    return told


def _swapped(stage: StageFacts) -> Iterator[str]:
    """Say of each view with texts of other records how many of them came twice or read as the record's own."""
    for name, swap in stage.outcome["encoding"]["swapped"].items():
        if texts := swap["texts"]:
            repeated, unchanged = (f"{swap[key]} ({swap[key] / texts:.1%})" for key in ("repeated", "unchanged"))
            yield (
                f"View `{name}` of `{stage.name}` has {texts} texts of other records: {repeated} were given to another "
                f"record before, {unchanged} read as the record's own."
            )


def _softened(stage: StageFacts) -> Iterator[tuple[str, str]]:
    """Say of each view with soft targets how many tokens have one, and what is left of the teacher's probability."""
    for name, soft in stage.outcome["encoding"]["softened"].items():
        if soft["aligned"]:
            share = soft["aligned"] / soft["tokens"]
            mass, unmapped = (soft[key] / soft["aligned"] for key in ("mass", "unmapped"))
            yield (
                name,
                f"{soft['aligned']} of {soft['tokens']} ({share:.1%}); each keeps {mass:.3f} of the teacher's "
                f"probability, {unmapped:.3f} has no token",
            )


def _procedural(teachers: Sequence[str]) -> str:
    """Whether `all`, `some` or none (empty) of the teachers are the embedded one."""
    if "procedural" not in teachers:
        return ""
    return "all" if set(teachers) == {"procedural"} else "some"


def _amount(number: int) -> str:
    """A count as people say it: 885888 -> 0.89 M."""
    for size, unit in ((1e9, "B"), (1e6, "M")):
        if number >= size / 10:
            return f"{number / size:.2f} {unit}"
    return str(number)


def _literal(text: str) -> str:
    """Text as Python source, a line of it per line, that cannot end the code block it stands in."""
    pieces = [repr(line).replace("```", r"\x60" * 3).replace("<!--", r"\x3c!--") for line in text.splitlines(True)]
    return pieces[0] if len(pieces) == 1 else "\n".join(["(", *(f"    {piece}" for piece in pieces), ")"])
