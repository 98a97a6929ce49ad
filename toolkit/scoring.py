"""How the students of a recipe answer, and how well: each one scored on every set, as its `decode` says.

Everything that decides a score is within reach of this module's imports, and what only shows scores is not: what it
imports is part of what identifies a run (`runs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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


def score_students(
    recipe: Recipe,
    run: Run,
    students: Mapping[str, Sequence[TrainedStage]],
    start: str,
    problems: Mapping[str, Sequence[Problem]],
    development: Sequence[Problem] = (),
    revision: str | None = None,
) -> tuple[Scores, dict[str, dict[str, list[Row]]]]:
    """Score every student on every set; completions that an earlier process has drawn are not drawn again.

    Args:
        recipe: The recipe.
        run: Where samples and scores go.
        students: The stages of each student by its name; a student without stages is the one training starts from.
        start: Folder or name of that one.
        problems: Evaluation sets by name.
        development: Questions on which two ways to an answer find out which one wins a tie.
        revision: Commit of that student, where it is one of the Hub.

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
        source, commit = (str(students[name][-1].student), None) if students[name] else (start, revision)
        model: Any = AutoModelForCausalLM.from_pretrained(source, revision=commit or "main", dtype="auto")
        return model.to(_device()), load_tokenizer(source, commit)

    def files(name: str, set_name: str) -> dict[str, Any]:
        own = run.folder / "samples" / f"{name}-{set_name}.parquet"
        # What an earlier run drew from the same weights by the same code is in its folder: another judge, say.
        others = sorted(path for path in run.root.glob(f"*/samples/{own.name}") if path != own)
        return {"path": own, "earlier": others}

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
            title = f"{name} on development"
            trust = find_trust(ways, apart, settings, title=title, **files(name, "development"), **shared)
        scores[name], rows[name] = {}, {}
        for set_name, asked in problems.items():
            told: dict[str, Any] = {"title": f"{name} on {set_name}", **files(name, set_name), **shared}
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
    recipe: Recipe,
    names: Iterable[str],
    start: str,
    problems: Mapping[str, Sequence[Problem]],
    revision: str | None = None,
) -> None:
    """Check, before anything is trained, that every question can be asked when there are students to ask.

    Args:
        recipe: The recipe.
        names: Students of the lineup.
        start: The student that training starts from; all of them have its tokenizer and its positions.
        problems: Evaluation sets by name.
        revision: Commit of `start`, where it is a student of the Hub.

    Raises:
        UserError: A set is empty, or a prompt leaves no room for its answer.
    """
    from transformers import AutoConfig

    from toolkit.decoding import require_room
    from toolkit.students import load_tokenizer
    from toolkit.tokenizing import prompt_ids

    assert recipe.evaluation is not None
    config = AutoConfig.from_pretrained(start, revision=revision or "main")
    tokenizer = load_tokenizer(start, revision)
    for set_name, asked in problems.items():
        if not asked:
            raise UserError(f"evaluation.sets.{set_name}: there are no problems to score on")
        _check_control_tokens(set_name, asked[: recipe.evaluation.n], tokenizer)
        for name in names:
            ways = [procedure_of(recipe, name)]
            if decode_of(recipe, name).beside is not None:
                ways.append(other_procedure_of(recipe, name))
            for procedure in ways:
                texts = [first_text(procedure, problem, tokenizer, recipe) for problem in asked[: recipe.evaluation.n]]
                special = decoding_of(recipe, name).add_special_tokens
                encoded = prompt_ids(tokenizer, texts, special)
                first = procedure.turns[0]
                # Options are compared as they stand there, nothing is written behind them.
                require_room(config, encoded, first.max_new_tokens if first.option is None else 0)


def _check_control_tokens(set_name: str, asked: Sequence[Problem], tokenizer: Any) -> None:
    """Refuse questions that a student would not read as text: training leaves such records out, a score must not."""
    from toolkit.tokenizing import control_tokens_in

    texts = ["\n".join(map(str, question_columns(problem).values())) for problem in asked]
    tokens = control_tokens_in(tokenizer, texts)
    found = [(problem.id, token) for problem, token in zip(asked, tokens, strict=True) if token]
    if found:
        more = f", and {len(found) - 1} more questions hold one" if len(found) > 1 else ""
        raise UserError(
            f"evaluation.sets.{set_name}: question {found[0][0]!r} holds {found[0][1]!r} as text, which is a control "
            f"token of the student's{more}; take them out of the set, or write the token otherwise"
        )


def first_text(procedure: Procedure, problem: Problem, tokenizer: Any, recipe: Recipe) -> str:
    """Return what a student is given first for a problem; with options to compare, the longest of them behind it."""
    from toolkit.decode_procedures import Ask, converse
    from toolkit.tokenizing import prompt_text

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
