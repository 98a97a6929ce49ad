"""From a builder's settings to a published dataset: ask the teacher, build from what it said, publish.

Collecting and building never mix: the teacher is asked until the store has every answer, and everything after that
only reads the store.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dataset_builders.collecting import Usage, collect_parts, cost_of
from dataset_builders.figures import label_cells
from dataset_builders.inputs import inputs_digest
from dataset_builders.parts import NoAnswers, records_of
from toolkit.errors import UserError
from toolkit.hub import OtherCard, Published, publish_dataset
from toolkit.import_closure import closure_digest
from toolkit.prices import prices_in
from toolkit.problem import Problem
from toolkit.problem_sources import open_problems
from toolkit.ray_verdicts import verdicts_over_ray
from toolkit.spending import Ledger, dollars
from toolkit.store import Store
from toolkit.tally import CollectReport

if TYPE_CHECKING:
    import datasets

    from dataset_builders.asking import Outcome, Step
    from dataset_builders.card import Card, Shares
    from dataset_builders.published import CotsBuilder

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        published: The dataset's folder and files.
        outcome: Records by split, and the yields of every step.
        collected: What was asked of all teachers; all zero where there is none.
        ledger: What this run has spent.
        cost: What the completions of the rows cost, as the card says it, teacher by teacher where there are several;
            empty where the teacher costs nothing.
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
                f"{step.title}: {step.records} in, {step.accepted} passed" + (f"; {reasons}" if reasons else "")
            )
        cells = label_cells(chain(self.outcome.train, self.outcome.rejected))
        lines += [f"edits from {cell.told}: {cell.accepted} of {cell.asked} kept" for cell in cells]
        unpaired = f", unpaired {len(self.outcome.unpaired)}" if self.outcome.unpaired else ""
        lines.append(f"train {len(self.outcome.train)} rows{unpaired}, rejected {len(self.outcome.rejected)}")
        for unit, shares in self.shares.items():
            lines += ["", *_share_table(unit, shares), ""]
        state = "wrote" if self.published.is_new else "nothing to do, the same content is there already:"
        lines.append(f"{state} {self.published.folder}")
        if self.published.keeps_card:
            lines.append("note: its card was kept, and would be another one now; that takes a higher dataset.revision")
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


@dataclass(frozen=True)
class Draft:
    """A dataset that is built and not published.

    Attributes:
        tables: The builder of each config that has rows, run.
        card: Its card.
        outcome: As of `BuildReport`, and so are the others.
    """

    tables: Mapping[str, datasets.DatasetBuilder]
    card: Card
    outcome: Outcome
    collected: CollectReport
    ledger: Ledger
    cost: str
    shares: Shares


def draft_dataset(
    builder_name: str,
    settings: Any,
    store_path: str | Path,
    *,
    hub_dir: str | Path,
    repo_id: str,
    revision: str,
    command: str,
    recipe: str = "",
    cache_dir: str | Path | None = None,
    show_progress: bool = True,
    engine: Engine = "local",
    ask: bool = True,
) -> Draft:
    """Build a dataset, asking the teacher only for what the store lacks.

    Args:
        builder_name: One of `dataset_builders.BUILDERS`.
        settings: An instance of the builder's `SETTINGS`.
        store_path: Where completions are kept; made where it is missing and a teacher is asked.
        hub_dir: Root of the local hub.
        repo_id: The dataset's name there.
        revision: Its version, e.g. `v1.0.0`.
        command: The command that was typed; stands in the card.
        recipe: What of the recipe concerns the dataset, as YAML, to lie beside the card; empty for none.
        cache_dir: Where `datasets` keeps its Arrow files; its usual place where None.
        show_progress: Show a progress line while the teacher is asked.
        engine: Where the teacher is asked and mathematics judged: in this process, or by the workers of a Ray cluster.
        ask: Whether the teacher may be asked for what the store lacks.

    Raises:
        UserError: Bad input, no record left, or a teacher that fails too often, or that may not be asked and must be.
    """
    from dataset_builders import load_builder
    from dataset_builders.asking import sorted_out
    from dataset_builders.card import Origin, dataset_card, measure_key_shares

    builder: type[CotsBuilder] = load_builder(builder_name)
    train, test = builder.inputs(settings, Path(hub_dir))
    sets = {name: open_problems(source, "test") for name, source in settings.check_against.items()}
    with ExitStack() as opened:
        verdicts = opened.enter_context(verdicts_over_ray()) if engine == "ray" else None
        store = opened.enter_context(Store(store_path)) if settings.teacher else None
        parts, collected, ledger = collect_parts(builder, settings, train, store, show_progress, verdicts, ask)
        askers = [part.asker(store or NoAnswers()) for part in parts]
        usages = [Usage(part.price) for part in parts]
        for asker, usage in zip(askers, usages, strict=True):
            asker.heard = usage
        steps: list[Step] = []
        outcome = sorted_out(records_of(builder, train, parts, askers, steps), steps)
    if not outcome.train:
        raise UserError(_nothing_left(outcome))
    labels = list(dict.fromkeys(label for asker in askers for label in asker.book.labels()))
    config = _digest(_code(builder), settings.knobs(), labels)
    # Of those without a partner only where there are any: other datasets keep their digests.
    unpaired = [outcome.unpaired] if outcome.unpaired else []
    rows = _digest(outcome.train, outcome.rejected, *unpaired, map(repr, test))
    # The rows say all that the tables depend on, but for their columns, and those the code does.
    inputs = _digest(config, rows)
    shares = measure_key_shares(builder, settings, outcome)
    cost = cost_of(parts, usages)
    tokens = Counter[str]()
    for usage in usages:
        tokens.update(usage.tokens)
    origin = Origin(repo_id, revision, command, config[:12], rows[:12], labels, tokens, cost, recipe, hub_dir)
    card = dataset_card(builder, settings, outcome, test, sets, shares, origin)
    with _without_bars():
        tables = _tables(builder, outcome, test, inputs, cache_dir)
    return Draft(tables, card, outcome, collected, ledger, cost, shares)


def build_dataset(
    builder_name: str,
    settings: Any,
    store_path: str | Path,
    *,
    hub_dir: str | Path,
    repo_id: str,
    revision: str,
    command: str,
    recipe: str = "",
    cache_dir: str | Path | None = None,
    show_progress: bool = True,
    other_card: OtherCard = "refuse",
    engine: Engine = "local",
    ask: bool = True,
) -> BuildReport:
    """Build a dataset as `draft_dataset` does, and publish it in the local hub.

    Args:
        builder_name, settings, store_path, hub_dir, repo_id, revision: As of `draft_dataset`.
        command, recipe, cache_dir, show_progress: As of `draft_dataset`.
        other_card: What to do about an existing revision with the same records and another card, as of `hub.publish`.
        engine, ask: As of `draft_dataset`.

    Raises:
        UserError: As of `draft_dataset`, or a revision with other content.
    """
    draft = draft_dataset(
        builder_name,
        settings,
        store_path,
        hub_dir=hub_dir,
        repo_id=repo_id,
        revision=revision,
        command=command,
        recipe=recipe,
        cache_dir=cache_dir,
        show_progress=show_progress,
        engine=engine,
        ask=ask,
    )
    card, tables = draft.card, draft.tables
    published = publish_dataset(
        hub_dir, repo_id, revision, tables, card.text, beside=card.write_beside, other_card=other_card
    )
    return BuildReport(published, draft.outcome, draft.collected, draft.ledger, draft.cost, draft.shares)


def settings_digest(builder_name: str, settings: Any) -> str:
    """Return a digest of what a build starts from: builder, settings, the files that they name, prompts and code.

    How fast a teacher is asked, what it costs and what it may cost are no part of it.
    """
    from dataset_builders import load_builder

    left_out: Any = {"teacher": prices_in(settings.teacher), "collect": True}
    content = settings.model_dump(mode="json", exclude=left_out)
    files = inputs_digest(settings.model_dump(exclude=left_out))  # whose paths lead there from the working directory
    return _digest(builder_name, content, files, _code(load_builder(builder_name)))


def _code(builder: type[CotsBuilder]) -> str:
    """Return the digest of the code that decides what is in a builder's rows."""
    return closure_digest(builder.__module__, "dataset_builders.parts", "dataset_builders.recordings")


def _tables(
    builder: type[CotsBuilder], outcome: Outcome, test: Sequence[Problem], inputs: str, cache_dir: str | Path | None
) -> dict[str, datasets.DatasetBuilder]:
    """Run the builder for every config that has rows."""
    tables: dict[str, datasets.DatasetBuilder] = {}
    right = any(map(builder.is_right, outcome.train))
    for config in ("default", *(["sft"] if right else []), *(["evaluation"] if test else [])):
        tables[config] = builder(outcome, test, config, hash=inputs, cache_dir=str(cache_dir) if cache_dir else None)
        tables[config].download_and_prepare()
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


def _nothing_left(outcome: Outcome) -> str:
    reasons = [
        f"{step.title}: {count} of {step.records} {reason}"
        for step in outcome.steps
        for reason, count in step.reasons.most_common(3)
    ]
    return "no record is left to train on; " + ("; ".join(reasons) or "there were no problems")


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
