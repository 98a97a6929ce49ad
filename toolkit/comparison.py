"""From the runs of several recipes to what may be said about them, as plain data.

Every figure of the pages is in here, and every answer that the tests rest on; nothing is trained, read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from toolkit.robustness import gap_over_seeds, pairs_over_seeds
from toolkit.significance import clusters_of, difference, discordant, estimate, holm, paired_test, solved_by_most

if TYPE_CHECKING:
    from toolkit.scores import Row


@dataclass(frozen=True)
class ArmRun:
    """A recipe's student of one seed, trained and scored.

    Attributes:
        seed: Its seed.
        digest: Digest of the recipe with this seed.
        stages: Facts of its stages (`toolkit.stages.train_stage`), in order.
        rows: By set, its judged completions (`toolkit.scores.judge`).
    """

    seed: int
    digest: str
    stages: Sequence[Mapping[str, Any]]
    rows: Mapping[str, Sequence[Row]]


def arms_compared(
    arms: Mapping[str, Sequence[ArmRun]], baseline: str, gap: tuple[str, Sequence[str]] | None = None
) -> dict[str, dict[str, Any]]:
    """Return what each recipe comes to.

    Args:
        arms: By recipe, its runs, all with the same seeds and on the same questions in the same order.
        baseline: Recipe that the others are tested against; where it is none of `arms`, nothing is tested.
        gap: Name of the set in domain, and of those out of domain.

    Returns:
        By recipe: `sets` (by set, see `_on_set`), `gap` (None where it is not wanted), `training` and `runs`, ready for
        JSON.
    """
    sets = list(next(iter(arms.values()))[0].rows)
    compared: dict[str, dict[str, Any]] = {
        name: {
            "sets": {on: _on_set([run.rows[on] for run in runs]) for on in sets},
            "gap": gap and _gap(runs, *gap),
            "training": {name: fmean(sum(map(of, run.stages)) for run in runs) for name, of in _TRAINING.items()},
            "runs": [_told(run) for run in runs],
        }
        for name, runs in arms.items()
    }
    for on in sets:
        _test({name: arm["sets"][on] for name, arm in compared.items()}, baseline, _clusters(arms, on))
    return compared


def _loss_tokens(stage: Mapping[str, Any]) -> float:
    """Return how many of the tokens that a stage has read carry loss, by their share of those that it encoded."""
    encoding = stage["encoding"]
    return float(stage["tokens"] * sum(encoding["weighted"].values()) / sum(encoding["tokens"].values()))


_TRAINING: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "tokens": lambda stage: float(stage["tokens"]),
    "loss_tokens": _loss_tokens,
    "steps": lambda stage: float(stage["steps"]),
    "seconds": lambda stage: float(stage["seconds"]),
}


def _asked(rows: Sequence[Row]) -> list[Row]:
    """Return one row for each question."""
    return [row for row in rows if row["sample"] == 0]


def _clusters(arms: Mapping[str, Sequence[ArmRun]], on: str) -> list[Hashable]:
    return clusters_of(_asked(next(iter(arms.values()))[0].rows[on]))


def _on_set(seeds: Sequence[Sequence[Row]]) -> dict[str, Any]:
    """Return what the seeds come to on one set.

    `solved` holds a text for each seed, `1` for a question that was solved and `0` for one that was not, in the order
    of the questions: all that the means and the tests rest on.
    """
    solved = [[bool(row["solved"]) for row in _asked(rows)] for rows in seeds]
    questions = len(solved[0])
    return {
        "accuracy": asdict(estimate(solved, clusters_of(_asked(seeds[0])))),
        "accuracy_by_seed": [sum(one) / questions for one in solved],
        "parse_failure_rate": fmean(not row["parsed"] for rows in seeds for row in rows),
        "truncated_rate": fmean(not row["stopped"] for rows in seeds for row in rows),
        "generated_tokens_per_question": fmean(sum(row["tokens"] for row in rows) / questions for rows in seeds),
        "solved": ["".join(str(int(question)) for question in one) for one in solved],
        "pairs": pairs_over_seeds(seeds),
        "against_baseline": None,
    }


def _gap(runs: Sequence[ArmRun], in_domain: str, out_of_domain: Sequence[str]) -> dict[str, Any]:
    rows = {name: [run.rows[name] for run in runs] for name in (in_domain, *out_of_domain)}
    return gap_over_seeds(rows, in_domain, out_of_domain)


def _test(arms: Mapping[str, dict[str, Any]], baseline: str, clusters: Sequence[Hashable]) -> None:
    """Put the paired test of every recipe against the baseline into `arms`, the scores on one set.

    The test is on the questions that most seeds solved, the difference of the accuracies over all of them.
    """
    if baseline not in arms:
        return
    solved = {name: [[mark == "1" for mark in seed] for seed in arm["solved"]] for name, arm in arms.items()}
    most = {name: solved_by_most(seeds) for name, seeds in solved.items()}
    others = [name for name in arms if name != baseline]
    p_values = {name: paired_test(most[name], most[baseline], clusters) for name in others}
    adjusted = holm(p_values)
    for name in others:
        only_this, only_baseline = discordant(most[name], most[baseline])
        arms[name]["against_baseline"] = {
            "difference": asdict(difference(solved[name], solved[baseline], clusters)),
            "only_this": only_this,
            "only_baseline": only_baseline,
            "p": p_values[name],
            "p_holm": adjusted[name],
        }


def _told(run: ArmRun) -> dict[str, Any]:
    """Return a run without its completions; of the records that were left out only how many."""
    kept = ("stage", "seconds", "resumed_from_step", "steps", "epochs", "tokens", "device")
    stages = [
        {
            **{key: stage[key] for key in kept},
            "encoding": {**stage["encoding"], "dropped": len(stage["encoding"]["dropped"])},
        }
        for stage in run.stages
    ]
    return {"seed": run.seed, "digest": run.digest, "stages": stages}
