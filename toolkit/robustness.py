"""How far a student's accuracy holds: under small edits of its questions, and on sets unlike those it was trained on.

Judged rows and accuracies in, shares and their standard errors out. Ground floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from toolkit.answers import canonical, matches
from toolkit.significance import Estimate, clusters_of, estimate, over_questions, over_seeds
from toolkit.text_tables import aligned, markdown_table

Row = Mapping[str, Any]
Pair = tuple[Row, Row]


@dataclass(frozen=True, slots=True)
class PairScore:
    """What a student makes of pairs of questions that are edits of one another and have different answers.

    Attributes:
        pairs: How many.
        consistency: Share of them with both questions answered right.
        consistency_error: Its standard error, sqrt(p (1 - p) / pairs) where no two pairs share a question, and else
            over the groups that do.
        flip_rate: Share of them with two answers that differ, right or wrong.
        flip_rate_error: Its standard error, likewise.
    """

    pairs: int
    consistency: float
    consistency_error: float
    flip_rate: float
    flip_rate_error: float


def pairs_of(rows: Sequence[Row]) -> list[Pair]:
    """Return every two questions that share a pair id and have different gold answers.

    Args:
        rows: Judged completions (`toolkit.scores.judge`); of several samples the first stands for all.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("pair") and row["sample"] == 0:
            groups.setdefault(row["pair"], []).append(row)
    return [
        (one, other)
        for group in groups.values()
        for one, other in combinations(group, 2)
        if not matches(other["gold"], one["gold"], one["kind"])
    ]


def both_solved(pair: Pair) -> bool:
    """Return whether both questions of a pair are answered right."""
    return bool(pair[0]["solved"] and pair[1]["solved"])


def flipped(pair: Pair) -> bool:
    """Return whether a pair's questions got different answers; who gave none to one of them changed none."""
    one, other = (row["voted"] and canonical(row["voted"], row["kind"]) for row in pair)
    return one is not None and other is not None and one != other


def score_pairs(rows: Sequence[Row]) -> PairScore | None:
    """Score the pairs among judged completions; None where there are none."""
    pairs = pairs_of(rows)
    if not pairs:
        return None
    consistent, flips = (_over([pairs], of) for of in (both_solved, flipped))
    return PairScore(len(pairs), consistent.mean, consistent.standard_error, flips.mean, flips.standard_error)


def _over(seeds: Sequence[Sequence[Pair]], of: Callable[[Pair], bool]) -> Estimate:
    """Return a share of the pairs of each seed; pairs of one original share it, and are one draw together."""
    return estimate([[of(pair) for pair in pairs] for pairs in seeds], [one["pair"] for one, _ in seeds[0]])


def pairs_over_seeds(seeds: Sequence[Sequence[Row]]) -> dict[str, Any] | None:
    """Return pairs, consistency and flip rate of several seeds on one set, ready for JSON; None without pairs."""
    found = [pairs_of(rows) for rows in seeds]
    if not found[0]:
        return None
    shares = {name: asdict(_over(found, of)) for name, of in (("consistency", both_solved), ("flip_rate", flipped))}
    return {"pairs": len(found[0]), **shares}


def domain_gap(
    accuracies: Mapping[str, Estimate], in_domain: str, out_of_domain: Sequence[str]
) -> tuple[Estimate, Estimate]:
    """Return the macro mean over the sets out of domain, and the accuracy in domain minus that mean.

    The sets hold different questions, so the errors are taken for independent: of the mean of k sets it is the root of
    the sum of their squares, divided by k; of the gap the root of the sum of both squares.

    Args:
        accuracies: By set.
        in_domain: Name of the one set.
        out_of_domain: Names of the others.
    """
    others = [accuracies[name] for name in out_of_domain]
    error = math.sqrt(sum(other.standard_error**2 for other in others)) / len(others)
    macro = Estimate(fmean(other.mean for other in others), error, others[0].over)
    own = accuracies[in_domain]
    return macro, Estimate(own.mean - macro.mean, math.hypot(own.standard_error, error), own.over)


def gap_over_seeds(
    seeds: Mapping[str, Sequence[Sequence[Row]]], in_domain: str, out_of_domain: Sequence[str]
) -> dict[str, Any]:
    """Return macro mean and gap of several seeds, ready for JSON; their errors are over seeds, of one over questions.

    Args:
        seeds: By set, the judged completions of each seed; of several samples the first stands for all.
        in_domain: Name of the one set.
        out_of_domain: Names of the others.
    """
    each = []
    for seed in range(len(seeds[in_domain])):
        asked = {name: [row for row in of[seed] if row["sample"] == 0] for name, of in seeds.items()}
        scores = {
            name: over_questions([row["solved"] for row in rows], clusters_of(rows)) for name, rows in asked.items()
        }
        each.append(domain_gap(scores, in_domain, out_of_domain))
    macro, gap = each[0]
    if len(each) > 1:
        macro, gap = (over_seeds([one[place].mean for one in each]) for place in (0, 1))
    return {"macro": asdict(macro), "gap": asdict(gap)}


def robustness_table(
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]], gap: tuple[str, Sequence[str]] | None, markdown: bool = False
) -> str:
    """Return the table of students against gap and pairs, in %; empty where there is neither.

    Args:
        scores: Summaries by student, then by set.
        gap: Name of the set in domain, and of those out of domain.
        markdown: A Markdown table, otherwise aligned text.
    """
    paired = [name for name, summary in next(iter(scores.values())).items() if summary.get("pairs")]
    if gap is None and not paired:
        return ""
    header = ["student", *(["out of domain, macro %", "gap, points"] if gap else [])]
    header += [label for name in paired for label in (f"{name}: both right, %", f"{name}: flipped, %", "pairs")]
    body = []
    for student, summaries in scores.items():
        line = [student]
        if gap:
            accuracies = {
                name: Estimate(summary["accuracy"], summary["standard_error"], "questions")
                for name, summary in summaries.items()
            }
            line += [percent(one.mean, one.standard_error) for one in domain_gap(accuracies, *gap)]
        for name in paired:
            pairs = summaries[name]["pairs"]
            line += [percent(pairs[key], pairs[f"{key}_error"]) for key in ("consistency", "flip_rate")]
            line.append(str(pairs["pairs"]))
        body.append(line)
    if markdown:
        return markdown_table(header, body)
    legend = (
        "± standard error over questions, over pairs where they are edits of one another; "
        "flipped: the two questions of a pair got different answers"
    )
    return f"{aligned(header, body)}\n{legend}"


def percent(share: float, error: float) -> str:
    """Return a share and its standard error in %."""
    return f"{100 * share:.1f} ± {100 * error:.1f}"
