"""What a run comes to: students scored, the last one published with its card, and a report that shows it all.

Needs trained students and changes none of them.
"""

from __future__ import annotations

import base64
import html
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import hub
from toolkit.errors import UserError
from toolkit.problem import question_columns

if TYPE_CHECKING:
    from toolkit.decode_procedures import Procedure
    from toolkit.decoding import Decoding
    from toolkit.problem import Problem
    from toolkit.recipe import Decode, Recipe
    from toolkit.recipe_sections import Turn
    from toolkit.runs import Run, TrainedStage
    from toolkit.scores import Row

Scores = dict[str, dict[str, dict[str, Any]]]
RUN = "run.json"
_WRAPPED = "white-space:pre-wrap;overflow-wrap:anywhere"


def check_free(recipe: Recipe, run: Run) -> None:
    """See to it, before anything is trained, that the student can be published when it is.

    Raises:
        UserError: The revision exists and came from another run, or has the student in another form; says what to set.
    """
    from toolkit.students import ADAPTER_CONFIG

    if recipe.publish is None:
        return
    target = hub.folder(recipe.hub_dir, "model", recipe.publish.repo_id, recipe.publish.revision)
    if not target.exists():
        return
    made_by = json.loads((target / RUN).read_text())["run"] if (target / RUN).exists() else "somebody else"
    if made_by != run.folder.name:
        taken = hub.revisions(recipe.hub_dir, "model", recipe.publish.repo_id)
        major, minor, _ = (int(part) for part in taken[-1].removeprefix("v").split("."))
        raise UserError(
            f"publish.revision: {recipe.publish.repo_id} has a revision {recipe.publish.revision} already, from the "
            f"run {made_by}, and a published revision never changes; this run is {run.folder.name}. "
            f"Set publish.revision=v{major}.{minor + 1}.0 for a new version, or publish=null to publish nothing"
        )
    if (recipe.publish.form == "adapter") != (target / ADAPTER_CONFIG).exists():
        raise UserError(
            f"publish.form: found {recipe.publish.form}, but {target} holds the student in the other form, and a "
            "published revision never changes; give this form another publish.repo_id"
        )


def check_padding(recipe: Recipe, start: str) -> None:
    """See to it, before anything is trained, that the student to be published has a token of its own to pad with.

    Raises:
        UserError: Its tokenizer can pad with its end of sequence alone: trained on by others, who mask padding, such a
            student unlearns to stop.
    """
    from toolkit.students import load_tokenizer

    tokenizer = load_tokenizer(start)
    if recipe.publish is not None and tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise UserError(
            f"publish: the tokenizer of {start} has nothing to pad with but its end of sequence "
            f"({tokenizer.eos_token!r}), and a student that is published so unlearns to stop in other people's "
            "trainers. Give the model a padding token first, or set publish=null to train it for yourself"
        )


def score_students(
    recipe: Recipe,
    run: Run,
    students: Mapping[str, Sequence[TrainedStage]],
    start: str,
    problems: Mapping[str, Sequence[Problem]],
    development: Sequence[Problem] = (),
) -> tuple[Scores, dict[str, dict[str, list[Row]]]]:
    """Score every student on every set; completions that an earlier process has drawn are not drawn again.

    Args:
        recipe: The recipe.
        run: Where samples and scores go.
        students: The stages of each student by its name; a student without stages is the one training starts from.
        start: Folder or name of that one.
        problems: Evaluation sets by name.
        development: Questions on which two ways to an answer find out which one wins a tie.

    Returns:
        Summaries, and the judged completions, both by student and set.
    """
    from transformers import AutoModelForCausalLM

    from toolkit.evaluation import evaluate_student
    from toolkit.scores import write_scores
    from toolkit.students import load_tokenizer
    from toolkit.ways import Way, evaluate_ways, find_trust

    assert recipe.evaluation is not None
    assert recipe.student is not None
    shared: dict[str, Any] = {
        "prompt_format": recipe.student.prompt_format,
        "batch_size": recipe.evaluation.batch_size,
        "seed": recipe.student.seed,
    }

    def load(name: str) -> tuple[Any, Any]:
        source = str(students[name][-1].student) if students[name] else start
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
        return model.to(_device()), load_tokenizer(source)

    def file(name: str, set_name: str) -> Path:
        return run.folder / "samples" / f"{name}-{set_name}.parquet"

    scores: Scores = {}
    rows: dict[str, dict[str, list[Row]]] = {}
    scored = {problem.question for asked in problems.values() for problem in asked[: recipe.evaluation.n]}
    apart = [problem for problem in development if problem.question not in scored]
    for name in students:
        model, tokenizer = load(name)
        first, settings = procedure_of(recipe, name), decoding_of(recipe, name)
        beside = decode_of(recipe, name).beside
        ways = [Way(model, tokenizer, first)]
        if beside is not None:
            other = load(beside.student) if beside.student else (model, tokenizer)
            ways.append(Way(*other, other_procedure_of(recipe, name)))
            trust = find_trust(
                ways, apart, settings, path=file(name, "development"), title=f"{name} on development", **shared
            )
        scores[name], rows[name] = {}, {}
        for set_name, asked in problems.items():
            told: dict[str, Any] = {"path": file(name, set_name), "title": f"{name} on {set_name}", **shared}
            some = asked[: recipe.evaluation.n]
            if beside is not None:
                result = evaluate_ways(ways, some, settings, trust, **told)
            else:
                result = evaluate_student(model, tokenizer, some, first, settings, **told)
            scores[name][set_name], rows[name][set_name] = result.summary, result.rows
            write_scores(run.folder / "scores.json", scores)
    return scores, rows


def decoding_of(recipe: Recipe, name: str) -> Decoding:
    """Return how completions of a student of the lineup are drawn."""
    from toolkit.decoding import Decoding

    assert recipe.student is not None
    decode = decode_of(recipe, name)
    return Decoding(
        decode.max_new_tokens,
        decode.samples,
        decode.temperature,
        decode.top_p,
        add_special_tokens=recipe.student.prompt_format == "plain",
    )


def procedure_of(recipe: Recipe, name: str) -> Procedure:
    """Return how a student of the lineup answers, its turns' views taken from its own stages or else the recipe's."""
    decode = decode_of(recipe, name)
    return replace(_procedure(recipe, name, decode.turns), until=decode.until, rounds=decode.rounds)


def other_procedure_of(recipe: Recipe, name: str) -> Procedure:
    """Return the way beside the first one, of a student of the lineup whose answers are got in two ways."""
    beside = decode_of(recipe, name).beside
    assert beside is not None
    return _procedure(recipe, beside.student or name, [beside])


def _procedure(recipe: Recipe, name: str, turns: Sequence[Turn]) -> Procedure:
    from toolkit.decode_procedures import Procedure, plan

    reference = recipe.references.get(name)
    stages = [*(reference.stages if reference else []), *recipe.stages]
    # Of views of one name the first stage's is taken, as in the lists that checks print.
    views = {name: view for stage in reversed(stages) for name, view in stage.views.items()}
    return Procedure(tuple(plan(turn.view, views[turn.view], turn) for turn in turns))


def check_questions(
    recipe: Recipe, names: Iterable[str], start: str, problems: Mapping[str, Sequence[Problem]]
) -> None:
    """See to it, before anything is trained, that every question can be asked when there are students to ask.

    Args:
        recipe: The recipe.
        names: Students of the lineup.
        start: The student that training starts from; all of them have its tokenizer and its positions.
        problems: Evaluation sets by name.

    Raises:
        UserError: A set is empty, or a prompt leaves no room for its answer.
    """
    from transformers import AutoConfig

    from toolkit.decoding import require_room
    from toolkit.students import load_tokenizer

    assert recipe.evaluation is not None
    config, tokenizer = AutoConfig.from_pretrained(start), load_tokenizer(start)
    for set_name, asked in problems.items():
        if not asked:
            raise UserError(f"evaluation.sets.{set_name}: there are no problems to score on")
        for name in names:
            ways = [procedure_of(recipe, name)]
            if decode_of(recipe, name).beside is not None:
                ways.append(other_procedure_of(recipe, name))
            for procedure in ways:
                texts = [first_text(procedure, problem, tokenizer, recipe) for problem in asked[: recipe.evaluation.n]]
                special = decoding_of(recipe, name).add_special_tokens
                encoded = tokenizer(texts, add_special_tokens=special)["input_ids"]
                first = procedure.turns[0]
                # Options are compared as they stand there, nothing is written behind them.
                require_room(config, encoded, first.max_new_tokens if first.option is None else 0)


def first_text(procedure: Procedure, problem: Problem, tokenizer: Any, recipe: Recipe) -> str:
    """Return what a student is given first for a problem; with options to compare, the longest of them behind it."""
    from toolkit.decode_procedures import Ask, converse
    from toolkit.encoding import prompt_text

    assert recipe.student is not None
    prompt_format = recipe.student.prompt_format
    asked = next(
        converse(procedure, question_columns(problem), lambda text: prompt_text(tokenizer, text, prompt_format))
    )
    if isinstance(asked, Ask):
        return asked.text
    longest = max(("".join(segment.text for segment in option) for option in asked.options), key=len)
    return prompt_text(tokenizer, asked.prompt, prompt_format) + longest


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def decode_of(recipe: Recipe, name: str) -> Decode:
    """Return how a student of the lineup answers: its own `decode`, or the recipe's."""
    reference = recipe.references.get(name)
    decode = reference.decode if reference and reference.decode else recipe.decode
    if decode is None:
        raise UserError("decode: missing; it says which view's prompt the students are given")
    return decode


def publish_student(recipe: Recipe, run: Run, source: Path, complete: Callable[[Path], None]) -> hub.Published | None:
    """Publish a student's folder; None where the recipe publishes nothing.

    Args:
        recipe: The recipe.
        run: The run that the student comes from.
        source: The student's folder.
        complete: Writes card and `run.json` into a copy of it, and what else goes with a student.

    Raises:
        UserError: The revision is taken by another run, or the student cannot be published in the form asked for.
    """
    from toolkit.students import leave_adapter

    if recipe.publish is None:
        return None
    target = hub.folder(recipe.hub_dir, "model", recipe.publish.repo_id, recipe.publish.revision)
    check_free(recipe, run)
    if target.exists():  # by this very run: its scores and times are told there as they were
        return hub.Published(target, tuple(sorted(path.name for path in target.iterdir())), is_new=False)

    def write(staging: Path) -> None:
        shutil.copytree(source, staging, dirs_exist_ok=True)
        if recipe.publish and recipe.publish.form == "adapter":
            leave_adapter(staging, source.parent / "adapter")
        complete(staging)

    return hub.publish(recipe.hub_dir, "model", recipe.publish.repo_id, recipe.publish.revision, write)


def report_page(title: str, table: str, pictures: Sequence[Path], shown: str, examples: str) -> str:
    """Return the report of a run as one self-contained HTML page.

    Args:
        title: Heading.
        table: Scores, as text.
        pictures: PNG files; they are put into the page.
        shown: HTML of the records as the loss sees them.
        examples: HTML of completions.
    """
    from toolkit.explain import page

    images = "".join(
        f'<p><img alt="{html.escape(path.stem)}" style="max-width:100%" '
        f'src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"></p>'
        for path in pictures
    )
    scores = f'<pre style="overflow-x:auto">{html.escape(table)}</pre>'
    return page(
        title,
        f"<h2>Scores</h2>{scores}{images}<h2>What the student answers</h2>{examples}<h2>What the loss sees</h2>{shown}",
    )


def examples_html(rows: Mapping[str, Mapping[str, Sequence[Row]]], per_set: int = 2) -> str:
    """Return a few completions of every student to the same questions, as HTML."""
    parts = []
    own = list(rows)[-1]
    for set_name, judged in rows[own].items():
        for index in range(min(per_set, len(judged))):
            question = judged[index]
            heading = f"{set_name}: {question['task']}, gold {question['gold']}"
            parts.append(
                f"<h3>{html.escape(heading)}</h3><pre style='{_WRAPPED}'>{html.escape(question['question'])}</pre><dl>"
            )
            for student, sets in rows.items():
                answer = next(row for row in sets[set_name] if row["id"] == question["id"])
                mark = "right" if answer["correct"] else "wrong"
                text = html.escape(answer["completion"].strip()[:600])
                parts.append(f"<dt><b>{html.escape(student)}</b>: {mark}</dt><dd style='{_WRAPPED}'>{text}</dd>")
            parts.append("</dl>")
    return "".join(parts)
