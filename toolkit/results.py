"""The end of a run: evaluation sets, the facts of the student's card, and where everything was written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import reporting, scoring
from toolkit.atomic_files import replace_text
from toolkit.hub_revisions import base_commit, revision_of
from toolkit.installed import ENVIRONMENT
from toolkit.problem import Problem
from toolkit.recipe_dataset import dataset_commit, dataset_folder, load_split
from toolkit.runs import RUN, digest_of
from toolkit.student_card import (
    AdapterFacts,
    DatasetFacts,
    SetFacts,
    StageFacts,
    StudentFacts,
    describe_hardware,
    library_versions,
    write_student_card,
)

if TYPE_CHECKING:
    from toolkit import hub
    from toolkit.recipe import Recipe
    from toolkit.runs import Run, TrainedStage
    from toolkit.scores import Row
    from toolkit.scoring import Scores

RECIPE = "recipe.yaml"


def evaluation_sets(recipe: Recipe) -> tuple[dict[str, list[Problem]], dict[str, SetFacts]]:
    """Return the problems of every evaluation set, and where each set comes from.

    Raises:
        UserError: A set cannot be loaded.
    """
    from toolkit.recipe import OwnSplit

    assert recipe.evaluation is not None
    problems: dict[str, list[Problem]] = {}
    origins: dict[str, SetFacts] = {}
    for name, source in recipe.evaluation.sets.items():
        problems[name] = _questions(recipe, source)
        if isinstance(source, OwnSplit):
            origins[name] = SetFacts(
                "held-out questions of the training dataset",
                recipe.dataset.repo_id,
                recipe.dataset.revision,
                "evaluation",
                source.split,
            )
        else:
            origins[name] = SetFacts(_describe(source))
    return problems, origins


def development_questions(recipe: Recipe) -> list[Problem]:
    """Return the questions on which two ways to an answer find out which one wins a tie; none where there is one way.

    Raises:
        UserError: They cannot be loaded.
    """
    assert recipe.evaluation is not None
    source = recipe.evaluation.development
    return _questions(recipe, source) if source is not None else []


def questions_digest(recipe: Recipe) -> str:
    """Return the digest of everything that students are asked, in the order in which they are; empty for nothing.

    Raises:
        UserError: A set cannot be loaded.
    """
    if recipe.evaluation is None:
        return ""
    sets, n = evaluation_sets(recipe)[0], recipe.evaluation.n
    return digest_of(
        {name: [asdict(problem) for problem in problems[:n]] for name, problems in sets.items()},
        [asdict(problem) for problem in development_questions(recipe)],
    )


def _questions(recipe: Recipe, source: Any) -> list[Problem]:
    from toolkit.problem_sources import load_problems
    from toolkit.recipe import OwnSplit

    if not isinstance(source, OwnSplit):
        return load_problems(source, "test")
    rows = load_split(recipe, "evaluation", source.split)
    return [Problem(**{**row, "choices": tuple(row["choices"]), "split": source.split}) for row in rows]


def _describe(source: Any) -> str:
    from toolkit.problem_sources import source_commit

    told = source.model_dump(mode="json", exclude_defaults=True, exclude={"source"})
    if commit := source_commit(source):
        told["commit"] = commit
    return f"{source.source}: " + ", ".join(f"{key} {json.dumps(value)}" for key, value in told.items())


@dataclass(frozen=True)
class Told:
    """What there is to tell of a recipe's own student.

    Attributes:
        student: Its folder.
        facts: What its card says.
        scores: Summaries by student and set.
        samples: Judged completions by student and set.
        model: The student, loaded.
        tokenizer: Its tokenizer.
    """

    student: Path
    facts: StudentFacts
    scores: Scores
    samples: Mapping[str, Mapping[str, Sequence[Row]]]
    model: Any
    tokenizer: Any


def tell(recipe: Recipe, run: Run, students: Mapping[str, Sequence[TrainedStage]], start: str) -> Told:
    """Score the students, as far as that has not been done, and put together what is told of the last one.

    Raises:
        UserError: A set cannot be loaded.
    """
    own = list(students)[-1]
    student = students[own][-1].student
    problems, origins = evaluation_sets(recipe)
    scores, samples = score(recipe, run, students, start, problems)
    model, tokenizer = _load(student)
    # Found again, and told apart from its earlier stages in a report, by its last stage; on its card, which others
    # read, by the recipe's name, as in a comparison.
    called = own if recipe.recipe.name in students else recipe.recipe.name
    shown = {called if name == own else name: summaries for name, summaries in scores.items()}
    facts = student_facts(recipe, run, students[own], shown, called, origins, samples[own], model)
    return Told(student, facts, scores, samples, model, tokenizer)


def conclude(
    recipe: Recipe,
    run: Run,
    students: Mapping[str, Sequence[TrainedStage]],
    start: str,
    rows: Sequence[dict[str, Any]],
) -> None:
    """Score the students, publish the last one with its card, write the report, and say where everything lies.

    Args:
        recipe: The recipe.
        run: Its folder.
        students: Stages of each student by name, all of them trained; the last one is the recipe's own.
        start: Student that training started from.
        rows: Training records.

    Raises:
        UserError: A set cannot be loaded, the student is not fit to be published, or its revision is taken.
    """
    from toolkit.explain import as_html, shown_views
    from toolkit.readiness import check_student
    from toolkit.robustness import robustness_table
    from toolkit.scores import format_scores_table, format_ways

    own = list(students)[-1]
    student = students[own][-1].student
    if recipe.evaluation is None:
        print(f"student: {student}\nnothing is scored or published: the recipe has no section `evaluation`")
        return
    assert recipe.student is not None
    told = tell(recipe, run, students, start)
    plain = recipe.student.prompt_format == "plain"
    decode = scoring.decode_of(recipe, own)
    notes = check_student(
        told.model, told.tokenizer, told.facts.prompt, max_new_tokens=decode.max_new_tokens, add_special_tokens=plain
    )
    pictures = run.folder / "pictures"
    pictures.mkdir(exist_ok=True)
    write_student_card(pictures, told.facts)
    published = reporting.publish_student(recipe, run, student, partial(complete, recipe, run, told))
    tables = [
        format_scores_table(told.scores),
        format_ways(told.scores),
        robustness_table(told.scores, gap_sets(recipe)),
    ]
    table = "\n\n".join(filter(None, tables))
    shown = list(shown_views(told.tokenizer, rows, recipe.stages, recipe.student.prompt_format, 3))
    title = f"{recipe.recipe.title or recipe.recipe.name}: report"
    images = sorted(pictures.glob("*.png"))
    report = reporting.report_page(title, table, images, as_html(shown), reporting.examples_html(told.samples))
    replace_text(run.folder / "report.html", report)
    for note in notes:
        print(f"note: {note}")
    print(f"\n{table}\n")
    print(_where(recipe, run, student, published))


def gap_sets(recipe: Recipe) -> tuple[str, Sequence[str]] | None:
    """Return the names of the set in domain and of those out of domain; None where a recipe wants no gap."""
    gap = recipe.evaluation.gap if recipe.evaluation else None
    return (gap.in_domain, gap.out_of_domain) if gap else None


def score(
    recipe: Recipe,
    run: Run,
    students: Mapping[str, Sequence[TrainedStage]],
    start: str,
    problems: Mapping[str, Sequence[Problem]],
) -> tuple[Scores, dict[str, dict[str, list[Row]]]]:
    """Score students into a run's folder, beside the recipe; arguments and result as of `scoring.score_students`."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / RECIPE).write_text(recipe.to_yaml(folder=run.folder), encoding="utf-8")
    assert recipe.evaluation is not None
    asked = development_questions(recipe)
    return scoring.score_students(recipe, run, students, start, problems, asked, revision_of(recipe, start))


def _load(student: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    from toolkit.students import load_tokenizer

    return AutoModelForCausalLM.from_pretrained(student, dtype="auto"), load_tokenizer(str(student))


def student_facts(
    recipe: Recipe,
    run: Run,
    chain: Sequence[TrainedStage],
    scores: Scores,
    own: str,
    origins: Mapping[str, SetFacts],
    samples: Mapping[str, Sequence[Row]],
    model: Any,
) -> StudentFacts:
    """Put together what a student's card tells, from what its run has written."""
    assert recipe.student is not None
    outcomes = [json.loads((link.student / "stage.json").read_text()) for link in chain]
    shown = next(iter(samples.values()))[0]
    first = shown["turns"][0] if shown["turns"] else shown
    settings, base = recipe.dataset.config, recipe.student.model_name_or_path
    teachers = settings.teachers if settings else ()
    publish = recipe.publish
    return StudentFacts(
        repo_id=publish.repo_id if publish else recipe.recipe.name,
        revision=publish.revision if publish else "unpublished",
        architecture=type(model).__name__,
        parameters=model.num_parameters(),
        base_model=base and (Path(base).name if Path(base).exists() else base),
        base_commit=base_commit(recipe.student),
        adapter=adapter_facts(recipe.student.model_arguments()),
        license=publish.license if publish else None,
        recipe=recipe.recipe.model_dump(),
        command=f"accelerate launch toolkit/train.py {recipe.public_words}",
        dataset=DatasetFacts(
            recipe.dataset.repo_id,
            recipe.dataset.revision,
            run.rows,
            " and ".join(dict.fromkeys(teacher.kind for teacher in teachers)),
            ", ".join(model for teacher in teachers if (model := getattr(teacher, "model", None))),
            dataset_commit(recipe),
        ),
        stages=[
            StageFacts(
                link.stage.name,
                {
                    name: {"coefficient": view.coefficient, "token_weights": view.token_weights}
                    for name, view in link.stage.views.items()
                },
                link.stage.reduction.model_dump(),
                link.stage.training,
                outcome,
            )
            for link, outcome in zip(chain, outcomes, strict=True)
        ],
        scores=scores,
        own=own,
        sets=origins,
        gap=gap_sets(recipe),
        prompt=first["prompt"],
        completion=first["completion"],
        add_special_tokens=recipe.student.prompt_format == "plain",
        hardware=describe_hardware(outcomes[-1]["device"]),
        versions=library_versions((chain[-1].student / ENVIRONMENT).read_text()),
    )


def adapter_facts(fields: Mapping[str, Any]) -> AdapterFacts | None:
    """Return the adapter that fields of TRL's `ModelConfig` ask for, its defaults filled in; None for all weights."""
    if not fields.get("use_peft"):
        return None
    from trl import ModelConfig

    config = ModelConfig(**{name: value for name, value in fields.items() if name.startswith("lora_")})
    targets = config.lora_target_modules or "the architecture's default of peft"
    saved = config.lora_modules_to_save or ()
    return AdapterFacts(
        config.lora_r,
        config.lora_alpha,
        config.lora_dropout,
        (targets,) if isinstance(targets, str) else tuple(targets),
        tuple(saved),
    )


def complete(recipe: Recipe, run: Run, told: Told, folder: Path) -> None:
    """Write into a student's folder what is published with it: card, recipe, libraries, logs and origins."""
    facts = told.facts
    write_student_card(folder, facts)
    (folder / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
    shutil.copyfile(told.student / ENVIRONMENT, folder / ENVIRONMENT)
    (folder / "training").mkdir(exist_ok=True)
    for stage in facts.stages:
        log = "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in stage.outcome["log"])
        (folder / "training" / f"{stage.name}.jsonl").write_text(log, encoding="utf-8")
    (folder / "stage.json").unlink(missing_ok=True)  # of the last stage alone; run.json has those of all
    made_from = {
        "run": run.folder.name,
        **run.origin,
        "dataset_commit": facts.dataset.commit,
        "stages": [{key: stage.outcome[key] for key in stage.outcome if key != "log"} for stage in facts.stages],
    }
    (folder / RUN).write_text(json.dumps(made_from, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _where(recipe: Recipe, run: Run, student: Path, published: hub.Published | None) -> str:
    """Say where student, scores, cards and report lie, and what may be done next."""
    place = published.folder if published else student
    lines = [
        f"student   {place}" + ("" if published is None or published.is_new else "  (published already by this run)"),
        f"card      {place / 'README.md'}" if published else "card      none, the recipe publishes nothing",
        f"dataset   {dataset_folder(recipe)}, its card in README.md",
        f"scores    {run.folder / 'scores.json'}",
        f"samples   {run.folder / 'samples'}, every completion in a Parquet file",
        f"report    {run.folder / 'report.html'}, open it in a browser",
        f"next      distill explain {recipe.words}",
    ]
    return "\n".join(lines)
