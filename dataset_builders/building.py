"""From a builder's settings to a published dataset: ask the teacher, build from what it said, publish.

Collecting and building never mix: the teacher is asked until the store has every answer, and everything after that
only reads the store.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.collect import CollectReport, collect_rounds, progress_line
from toolkit.errors import UserError
from toolkit.hub import Published, publish_dataset
from toolkit.problem import Problem
from toolkit.problem_sources import load_problems
from toolkit.ray_collection import collect_over_ray
from toolkit.ray_verdicts import Verdicts, verdicts_over_ray
from toolkit.store import Store
from toolkit.teachers.kinds import make_teacher

if TYPE_CHECKING:
    import datasets

    from dataset_builders.asking import Asker, Outcome, Rounds
    from dataset_builders.card import Shares
    from dataset_builders.published import CotsBuilder
    from toolkit.teachers.protocol import Teacher

Engine = Literal["local", "ray"]

# Modules whose code decides what is in the rows, beside the builder's own.
_ROW_CODE = (
    "dataset_builders.asking",
    "dataset_builders.chains",
    "dataset_builders.columns",
    "dataset_builders.decomposition",
    "dataset_builders.other_answers",
    "dataset_builders.pairs",
    "dataset_builders.published",
    "dataset_builders.written",
    "toolkit.alignment",
    "toolkit.answer_readings",
    "toolkit.answers",
    "toolkit.math_equality",
    "toolkit.prompts",
)


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        published: The dataset's folder and files.
        outcome: Records by split, and the yields of every step.
        collected: What was asked of the teacher; all zero where there is none.
        shares: Key share by unit (`words`, `tokens`) and task; empty for data without wrong chains.
    """

    published: Published
    outcome: Outcome
    collected: CollectReport
    shares: Shares

    def summary(self) -> str:
        """Return what was asked, what became of it, how much of it is key, and every file written."""
        lines = []
        asked = self.collected
        if asked != CollectReport():
            lines.append(
                f"asked the teacher {asked.asked} times: {asked.answered} answers, {asked.failed} failures; "
                f"{asked.cached} answers were in the store"
            )
        for step in self.outcome.steps:
            reasons = ", ".join(f"{count} {reason}" for reason, count in step.reasons.most_common())
            lines.append(
                f"{step.name}: {step.records} in, {step.accepted} passed" + (f"; {reasons}" if reasons else "")
            )
        lines.append(f"train {len(self.outcome.train)} rows, rejected {len(self.outcome.rejected)}")
        for unit, shares in self.shares.items():
            lines += ["", *_share_table(unit, shares), ""]
        state = "published" if self.published.is_new else "nothing to do, the same content is published already:"
        lines.append(f"{state} {self.published.folder}")
        lines += [f"  {name}" for name in self.published.files]
        lines.append(f'next: load_dataset("{self.published.folder}", "default"), or `distill train` with this recipe')
        return "\n".join(lines)


def _share_table(unit: str, shares: Mapping[str, Any]) -> list[str]:
    wide = max(len(task) for task in shares)
    header = f"{'key share in ' + unit:<{max(wide, 20)}}  pairs  right  wrong  median right  median wrong"
    rows = [
        f"{task:<{max(wide, 20)}}  {share.pairs:5d}  {share.right:5.1%}  {share.wrong:5.1%}  "
        f"{share.median_right:12.1%}  {share.median_wrong:12.1%}"
        for task, share in shares.items()
    ]
    return [header, *rows]


def build_dataset(
    builder_name: str,
    settings: Any,
    store_path: str | Path,
    *,
    hub_dir: str | Path,
    repo_id: str,
    revision: str,
    command: str,
    cache_dir: str | Path | None = None,
    show_progress: bool = True,
    accept_other_card: bool = False,
    engine: Engine = "local",
) -> BuildReport:
    """Build and publish a dataset, asking the teacher only for what the store lacks.

    Args:
        builder_name: One of `dataset_builders.BUILDERS`.
        settings: An instance of the builder's `SETTINGS`.
        store_path: Where completions are kept; made where it is missing and a teacher is asked.
        hub_dir: Root of the local hub.
        repo_id: The dataset's name there.
        revision: Its version, e.g. `v1.0.0`.
        command: The command that was typed; stands in the card.
        cache_dir: Where `datasets` keeps its Arrow files; its usual place where None.
        show_progress: Show a progress line while the teacher is asked.
        accept_other_card: Do not mind that an existing revision with the same records has another card.
        engine: Where the teacher is asked and mathematics judged: in this process, or by the workers of a Ray cluster.

    Raises:
        UserError: Bad input, a teacher that fails too often, no record left, or a revision with other content.
    """
    from dataset_builders import load_builder
    from dataset_builders.asking import replay
    from dataset_builders.card import Origin, dataset_card, measure_key_shares

    builder: type[CotsBuilder] = load_builder(builder_name)
    train, test = builder.inputs(settings, Path(hub_dir))
    sets = {name: load_problems(source, "test") for name, source in settings.check_against.items()}
    with ExitStack() as opened:
        verdicts = opened.enter_context(verdicts_over_ray()) if engine == "ray" else None
        store = opened.enter_context(Store(store_path)) if settings.teacher else None
        asker, collected = _collect(builder, settings, train, store, show_progress, verdicts)
        outcome = replay(builder.rounds(train, asker, settings))
        read = store.digest_of(asker.requests) if store else ""
        usage = _usage(store, asker) if store else {"completions": 0}
    if not outcome.train:
        raise UserError(_nothing_left(outcome))
    config = _digest(_source_code(builder), settings.knobs(), asker.book.labels())
    rows = _digest(outcome.train, outcome.rejected, [repr(problem) for problem in test])
    inputs = _digest(config, [repr(problem) for problem in train], read, rows)
    shares = measure_key_shares(builder, settings, outcome)
    origin = Origin(repo_id, command, config[:12], rows[:12], asker.book.labels(), usage)
    card = dataset_card(builder, settings, outcome, test, sets, shares, origin)
    with _without_bars():
        tables = _tables(builder, outcome, test, inputs, cache_dir)
        published = publish_dataset(hub_dir, repo_id, revision, tables, card, accept_other_card=accept_other_card)
    return BuildReport(published, outcome, collected, shares)


def settings_digest(builder_name: str, settings: Any) -> str:
    """Return a digest of what a build starts from, without reading any of it: builder, settings and code."""
    from dataset_builders import load_builder

    return _digest(builder_name, settings.model_dump(mode="json"), _source_code(load_builder(builder_name)))


def first_round(builder_name: str, settings: Any, store_path: str | Path) -> tuple[int, int]:
    """Return how many requests the first round has, and how many of them the store has answers for; asks nobody.

    Later rounds depend on what the first one brings. Both are 0 where there is no teacher.
    """
    from dataset_builders import load_builder
    from dataset_builders.asking import Asker
    from dataset_builders.published import problems_to_ask

    if settings.teacher is None:
        return 0, 0
    builder = load_builder(builder_name)
    train, _ = problems_to_ask(settings)
    if not Path(store_path).exists():
        return len(next(builder.rounds(train, Asker(settings, _NoAnswers(), "", ""), settings))), 0
    teacher = make_teacher(settings.teacher)
    with Store(store_path, read_only=True) as store:
        asker = Asker(settings, store, teacher.kind, _model_asked(settings.teacher, teacher))
        requests = next(builder.rounds(train, asker, settings))
        return len(requests), sum(store.get(request) is not None for request in requests)


def _collect(
    builder: type[CotsBuilder],
    settings: Any,
    problems: Sequence[Any],
    store: Store | None,
    show_progress: bool,
    verdicts: Verdicts | None,
) -> tuple[Asker, CollectReport]:
    """Bring every answer into the store, over Ray where there are verdicts; return a fresh asker for the build."""
    from dataset_builders.asking import Asker, replay
    from dataset_builders.recordings import import_recordings

    if store is None:
        asker = Asker(settings, _NoAnswers(), "paired", "")
        if verdicts is not None:
            verdicts.rehearse(lambda: replay(builder.rounds(problems, asker, settings)))
        return asker, CollectReport()
    if settings.recordings:
        import_recordings(settings.recordings, settings.teacher.store)
    teacher = make_teacher(settings.teacher)
    model = _model_asked(settings.teacher, teacher)
    collect = settings.collect
    if teacher.kind == "recorded":  # what was not recorded the last time may be now, and looking is free
        collect = collect.model_copy(update={"retry_failed": True})

    def rounds() -> Rounds:
        return builder.rounds(problems, Asker(settings, store, teacher.kind, model), settings)

    with ExitStack() as shown:
        progress = shown.enter_context(progress_line(f"asking {teacher.model}")) if show_progress else None
        if verdicts is None:
            report = asyncio.run(collect_rounds(rounds(), teacher, store, collect, progress))
        else:
            judged = verdicts.ahead_of(rounds(), lambda: replay(rounds()))
            report = collect_over_ray(judged, settings.teacher, store, collect, progress)
    return Asker(settings, store, teacher.kind, model), report


def _model_asked(config: Any, teacher: Teacher) -> str:
    """Return the model that requests name, and by which the store tells their answers apart.

    Teachers in this process answer by settings that no request carries (error rates, a revision, a prompt format), so
    a digest of them is part of the name; else other settings would be answered from the store with what the old ones
    gave. Where a model runs, how many prompts it takes at once and what trained it decide nothing.
    """
    if teacher.kind not in ("procedural", "transformers"):
        return teacher.model
    settings = config.model_dump(mode="json", exclude={"device", "batch_size", "recipe"})
    return f"{teacher.model}@{_digest(settings)[:8]}"


class _NoAnswers:
    """Stands where a store would for builds that ask nobody."""

    def get(self, request: object) -> None:
        """Return None."""

    def failure(self, request: object) -> None:
        """Return None."""


def _tables(
    builder: type[CotsBuilder], outcome: Outcome, test: list[Problem], inputs: str, cache_dir: str | Path | None
) -> dict[str, dict[str, datasets.Dataset]]:
    """Run the builder for every config that has rows."""
    tables = {}
    for config in ("default", "sft", *(["evaluation"] if test else [])):
        made = builder(outcome, test, config, hash=inputs, cache_dir=str(cache_dir) if cache_dir else None)
        made.download_and_prepare()
        tables[config] = dict(made.as_dataset())
    return tables


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep `datasets` from drawing a bar per split and file, for what takes a moment."""
    import datasets

    disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            datasets.enable_progress_bars()


def _usage(store: Store, asker: Asker) -> dict[str, int]:
    """Add up the tokens of all completions that the rows were made from, each counted once."""
    found = [store.get(request) for request in {request.digest: request for request in asker.requests}.values()]
    read = [completion for completion in found if completion is not None]
    return {
        "completions": len(read),
        "prompt_tokens": sum(completion.prompt_tokens for completion in read),
        "completion_tokens": sum(completion.completion_tokens for completion in read),
    }


def _nothing_left(outcome: Outcome) -> str:
    reasons = [
        f"{step.name}: {count} of {step.records} {reason}"
        for step in outcome.steps
        for reason, count in step.reasons.most_common(3)
    ]
    return "no record is left to train on; " + ("; ".join(reasons) or "there were no problems")


def _source_code(builder: type[CotsBuilder]) -> list[str]:
    modules = [builder.__module__, *builder.ROW_CODE, *_ROW_CODE]
    return [inspect.getsource(importlib.import_module(name)) for name in modules]


def _digest(*content: Any) -> str:
    digest = hashlib.sha256()
    for part in content:
        digest.update(json.dumps(part, ensure_ascii=True, sort_keys=True).encode())
    return digest.hexdigest()
