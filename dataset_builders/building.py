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
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dataset_builders.figures import label_cells
from toolkit.collect import CollectReport, collect_rounds
from toolkit.errors import UserError
from toolkit.hub import Published, publish_dataset
from toolkit.prices import FREE, price_of
from toolkit.problem import Problem
from toolkit.problem_sources import open_problems
from toolkit.progress import live_line
from toolkit.ray_collection import collect_over_ray
from toolkit.ray_verdicts import Verdicts, verdicts_over_ray
from toolkit.spending import Ledger, dollars, is_counted
from toolkit.store import Store
from toolkit.teachers.kinds import make_teacher

if TYPE_CHECKING:
    import datasets

    from dataset_builders.asking import Asker, Outcome
    from dataset_builders.card import Shares
    from dataset_builders.published import CotsBuilder
    from toolkit.teachers.protocol import Completion, Teacher

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
        ledger: What this run has spent.
        cost: What the completions of the rows cost, as the card says it; empty where nobody is paid.
        shares: Key share by unit (`words`, `tokens`) and task; empty for data without wrong chains.
    """

    published: Published
    outcome: Outcome
    collected: CollectReport
    ledger: Ledger
    cost: str
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
        if self.cost:
            lines.append(f"cost: {self.cost}")
            if asked.asked and self.ledger.price is not None:
                spent = dollars(self.ledger.spent - self.ledger.remembered)
                lines.append(f"this run: {spent}, {dollars(self.ledger.lost)} of them lost on tries without an answer")
        for step in self.outcome.steps:
            reasons = ", ".join(f"{count} {reason}" for reason, count in step.reasons.most_common())
            lines.append(
                f"{step.name}: {step.records} in, {step.accepted} passed" + (f"; {reasons}" if reasons else "")
            )
        cells = label_cells(chain(self.outcome.train, self.outcome.rejected))
        lines += [f"edits from {cell.told}: {cell.accepted} of {cell.asked} kept" for cell in cells]
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
    from dataset_builders.asking import Step, sorted_out
    from dataset_builders.card import Origin, dataset_card, measure_key_shares

    builder: type[CotsBuilder] = load_builder(builder_name)
    train, test = builder.inputs(settings, Path(hub_dir))
    sets = {name: open_problems(source, "test") for name, source in settings.check_against.items()}
    with ExitStack() as opened:
        verdicts = opened.enter_context(verdicts_over_ray()) if engine == "ray" else None
        store = opened.enter_context(Store(store_path)) if settings.teacher else None
        asker, collected, ledger = _collect(builder, settings, train, store, show_progress, verdicts)
        asker.heard = usage = Usage(ledger)
        steps: list[Step] = []
        outcome = sorted_out(builder.records(train, asker, settings, steps), steps)
    if not outcome.train:
        raise UserError(_nothing_left(outcome))
    config = _digest(_source_code(builder), settings.knobs(), asker.book.labels())
    rows = _digest(outcome.train, outcome.rejected, map(repr, test))
    # The rows say all that the tables depend on, but for their columns, and those the code does.
    inputs = _digest(config, rows)
    shares = measure_key_shares(builder, settings, outcome)
    cost = usage.cost() if settings.teacher else ""
    origin = Origin(repo_id, command, config[:12], rows[:12], asker.book.labels(), usage.tokens, cost)
    card = dataset_card(builder, settings, outcome, test, sets, shares, origin)
    with _without_bars():
        tables = _tables(builder, outcome, test, inputs, cache_dir)
        published = publish_dataset(hub_dir, repo_id, revision, tables, card, accept_other_card=accept_other_card)
    return BuildReport(published, outcome, collected, ledger, cost, shares)


def settings_digest(builder_name: str, settings: Any) -> str:
    """Return a digest of what a build starts from, without reading any of it: builder, settings and code.

    How fast a teacher is asked, what it costs and what it may cost are no part of it.
    """
    from dataset_builders import load_builder

    content = settings.model_dump(mode="json", exclude={"teacher": {"price"}, "collect": True})
    return _digest(builder_name, content, _source_code(load_builder(builder_name)))


def _collect(
    builder: type[CotsBuilder],
    settings: Any,
    problems: Sequence[Any],
    store: Store | None,
    show_progress: bool,
    verdicts: Verdicts | None,
) -> tuple[Asker, CollectReport, Ledger]:
    """Bring every answer into the store, over Ray where there are verdicts.

    Returns:
        A fresh asker over it for the build, what was asked, and what the run has spent.
    """
    from dataset_builders.asking import Asker
    from dataset_builders.recordings import import_recordings

    def rehearsal(asker: Asker) -> None:
        deque(builder.records(problems, asker, settings, []), maxlen=0)

    if store is None:
        nobody = Asker(settings, NoAnswers(), "paired", "")
        if verdicts is not None:
            verdicts.rehearse(lambda: rehearsal(nobody))
        return nobody, CollectReport(), Ledger(FREE, None)
    price, cap = price_of(settings.teacher), settings.collect.max_cost_usd
    ledger = Ledger(price, cap, batched=settings.collect.mode == "batch")
    if settings.recordings:
        import_recordings(settings.recordings, settings.teacher.store)
    teacher = make_teacher(settings.teacher)
    model = model_asked(settings.teacher, teacher)
    collect = settings.collect
    if teacher.kind == "recorded":  # what was not recorded the last time may be now, and looking is free
        collect = collect.model_copy(update={"retry_failed": True})

    def asker() -> Asker:
        return Asker(settings, store, teacher.kind, model)

    rounds = builder.rounds(problems, asker(), settings)
    # Without it the engine reads no answer that is there already, whatever it cost.
    counted = ledger if cap is not None or (price is not None and not price.is_free) else None
    with ExitStack() as shown:
        progress = shown.enter_context(live_line(f"asking {teacher.model}", ledger)) if show_progress else None
        if verdicts is None:
            report = asyncio.run(collect_rounds(rounds, teacher, store, collect, progress, ledger=counted))
        else:
            judged = verdicts.ahead_of(rounds, lambda: rehearsal(asker()))
            report = collect_over_ray(judged, settings.teacher, store, collect, progress, counted)
    return asker(), report, ledger


def model_asked(config: Any, teacher: Teacher) -> str:
    """Return the model that requests name, and by which the store tells their answers apart.

    Teachers in this process answer by settings that no request carries (error rates, a revision, a prompt format), so
    a digest of them is part of the name; else other settings would be answered from the store with what the old ones
    gave. Where a model runs, how many prompts it takes at once and what trained it decide nothing.
    """
    if teacher.kind not in ("procedural", "transformers"):
        return teacher.model
    settings = config.model_dump(mode="json", exclude={"device", "batch_size", "recipe"})
    return f"{teacher.model}@{_digest(settings)[:8]}"


class NoAnswers:
    """Stands where a store would for builds that ask nobody."""

    def get(self, request: object) -> None:
        """Return None."""

    def failure(self, request: object) -> None:
        """Return None."""


def _tables(
    builder: type[CotsBuilder], outcome: Outcome, test: Sequence[Problem], inputs: str, cache_dir: str | Path | None
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


class Usage:
    """Tokens of the completions that rows are made from, and what they cost.

    Attributes:
        tokens: `completions`, their `prompt_tokens` and `completion_tokens`.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.tokens = Counter(completions=0)
        self._ledger = Ledger(ledger.price, None)
        self._uncounted = 0

    def __call__(self, completion: Completion) -> None:
        """Add a completion."""
        self._ledger.remember(completion)
        self._uncounted += not is_counted(completion)
        self.tokens.update(
            completions=1, prompt_tokens=completion.prompt_tokens, completion_tokens=completion.completion_tokens
        )

    def cost(self) -> str:
        """Say what the completions cost; nothing of those by a teacher that nobody pays."""
        price = self._ledger.price
        if price is None:
            return "not known, as no price is stated for this teacher"
        if price.is_free:
            return ""
        uncounted = f", without {self._uncounted} completions whose tokens were not counted" if self._uncounted else ""
        return f"{dollars(self._ledger.spent)} at {price}{uncounted}"


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
    """Return the SHA-256 (hex) of some plain values; long sequences of them are gone through one by one."""
    digest = hashlib.sha256()
    for part in content:
        for piece in _json(part):
            digest.update(piece.encode())
    return digest.hexdigest()


def _json(value: Any) -> Iterator[str]:
    """Yield a value as JSON, that of a sequence piece by piece: whole lists of records are not in memory."""
    if isinstance(value, str) or not isinstance(value, Iterable) or isinstance(value, Mapping):
        yield json.dumps(value, ensure_ascii=True, sort_keys=True)
        return
    yield "["
    for index, item in enumerate(value):
        yield (", " if index else "") + json.dumps(item, ensure_ascii=True, sort_keys=True)
    yield "]"
