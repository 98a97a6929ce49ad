"""Pictures: a student's losses, term by term, and its accuracy beside that of others; many recipes' accuracy in one;
a dataset's lengths, key shares and yields. The same figures give the same bytes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OWN, _OTHER, _INK, _WRONG = "#2563a8", "#b8bfc8", "#333333", "#c2571a"
_BARS = 32  # of a histogram, at most


def loss_terms(log: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The curves in a trainer's log: (step, value) by term, which is `loss/<view>`, or `loss` where there are none."""
    names = sorted({name for entry in log for name in entry if name.startswith("loss/")}, key=_first_place(log))
    terms = names if len(names) > 1 else ["loss"]
    return {term: [(entry["step"], entry[term]) for entry in log if term in entry] for term in terms}


def plot_losses(logs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw each stage's losses over its optimizer steps, a column per stage and a panel per term.

    Each term has an axis of its own: terms of one loss may lie a factor of a thousand apart, or differ in sign. The
    loss on held-out records is drawn into the same panel.

    Args:
        logs: By stage, the entries of the trainer's log that have a `loss` or an `eval_loss`.
        path: PNG file to write.
    """
    stages = {stage: loss_terms(log) for stage, log in logs.items()}
    rows = max(len(terms) for terms in stages.values())
    with _drawn(path, 4.6 * len(stages), 1.2 + 1.9 * max(rows, 1.4)) as figure:
        for column, (stage, terms) in zip(
            figure.subfigures(1, len(stages), squeeze=False)[0], stages.items(), strict=True
        ):
            column.suptitle(stage, fontsize=11, color=_INK)
            panels = column.subplots(len(terms), 1, sharex=True, squeeze=False)[:, 0]
            for panel, (term, points) in zip(panels, terms.items(), strict=True):
                _curve(panel, points, color=_OWN, linewidth=1.4)
                if held_out := [
                    (entry["step"], entry[f"eval_{term}"]) for entry in logs[stage] if f"eval_{term}" in entry
                ]:
                    _curve(panel, held_out, color=_INK, linewidth=1.2, linestyle="--", label="held out")
                    panel.legend(fontsize=8, frameon=False)
                panel.set_ylabel(term)
                panel.grid(alpha=0.3)
                _without_frame(panel)
            panels[-1].set_xlabel("optimizer step")
            panels[-1].xaxis.get_major_locator().set_params(integer=True)


def plot_accuracy(scores: Mapping[str, Mapping[str, Mapping[str, Any]]], own: str, path: Path) -> None:
    """Draw accuracy with standard errors, a panel per set and a bar per student.

    Args:
        scores: Summaries by student, then by set.
        own: The student whose bars stand out.
        path: PNG file to write.
    """
    sets = list(scores[own])
    students = list(scores)[::-1]  # the first on top
    with _drawn(path, 1.2 + 3.6 * len(sets), 1.0 + 0.42 * len(students)) as figure:
        panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
        for panel, name in zip(panels, sets, strict=True):
            for place, student in enumerate(students):
                summary = scores[student].get(name)
                if summary is not None:
                    _bar(panel, place, summary, _OWN if student == own else _OTHER)
            panel.set_title(f"{name}, n = {scores[own][name]['n']}", fontsize=11, color=_INK)
            panel.set_yticks(range(len(students)), students)
            panel.set_xlim(0, 100)
            panel.set_xticks(range(0, 101, 25))
            panel.set_xlabel("accuracy in %, ± standard error")
            _without_frame(panel)


def plot_comparison(found: Mapping[str, Any], path: Path) -> None:
    """Draw the accuracy of several recipes with standard errors, a panel per set and a line per recipe.

    Each panel goes from 0 to 100 % and has a dashed line through the baseline.

    Args:
        found: A comparison (`toolkit.compare`).
        path: PNG file to write.
    """
    sets, recipes = list(found["sets"]), list(found["recipes"])[::-1]  # the first on top
    with _drawn(path, 1.6 + 3.6 * len(sets), 1.1 + 0.27 * len(recipes)) as figure:
        for panel, name in zip(figure.subplots(1, len(sets), sharey=True, squeeze=False)[0], sets, strict=True):
            for place, recipe in enumerate(recipes):
                accuracy = found["recipes"][recipe]["sets"][name]["accuracy"]
                mean, error = 100 * accuracy["mean"], 100 * accuracy["standard_error"]
                is_baseline = recipe == found["baseline"]
                if is_baseline:
                    panel.axvline(mean, color=_OTHER, linewidth=1, linestyle="--", zorder=0)
                colour = _INK if is_baseline else _OWN
                panel.errorbar(
                    mean, place, xerr=error, fmt="D" if is_baseline else "o", color=colour, ms=4.5, capsize=2.5
                )
                panel.annotate(
                    f"{mean:.1f}", (mean + error, place), (6, 0), textcoords="offset points", va="center", fontsize=8
                )
            panel.set_title(f"{name}, n = {found['sets'][name]['n']}", fontsize=11, color=_INK)
            panel.set_yticks(range(len(recipes)), recipes)
            panel.set_ylim(-0.7, len(recipes) - 0.3)
            panel.set_xlim(0, 100)
            panel.set_xticks(range(0, 101, 25))
            panel.set_xlabel("accuracy in %, ± standard error")
            panel.grid(axis="y", alpha=0.25)
            _without_frame(panel)


def plot_lengths(tallies: Mapping[str, Mapping[int, int]], path: Path) -> None:
    """Draw how long the texts of each column are, a panel per column.

    Args:
        tallies: By column, the number of records by the words of their text.
        path: PNG file to write.
    """
    with _drawn(path, 0.6 + 3.3 * len(tallies), 2.7) as figure:
        panels = figure.subplots(1, len(tallies), squeeze=False)[0]
        for panel, (column, tally) in zip(panels, tallies.items(), strict=True):
            width = math.ceil((max(tally) - min(tally) + 1) / _BARS)
            bars = Counter[int]()
            for words, records in tally.items():
                bars[(words - min(tally)) // width] += records
            starts = [min(tally) + width * place - 0.5 for place in bars]
            panel.bar(starts, list(bars.values()), width, align="edge", color=_OWN, edgecolor="white", linewidth=0.4)
            panel.set_title(column, fontsize=11, color=_INK)
            panel.set_xlabel("words")
            panel.grid(axis="y", alpha=0.3)
            panel.set_axisbelow(True)
            _without_frame(panel)
        panels[0].set_ylabel("records")


def plot_key_shares(shares: Mapping[str, Mapping[str, Mapping[float, int]]], path: Path) -> None:
    """Draw how much of a chain is key, a panel per unit and for every twentieth a bar per side.

    Args:
        shares: By unit (`words`, `tokens`) and side (`right`, `wrong`), the number of pairs by key share.
        path: PNG file to write.
    """
    with _drawn(path, 0.6 + 4.2 * len(shares), 2.9) as figure:
        panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
        for panel, (unit, sides) in zip(panels, shares.items(), strict=True):
            for place, (side, pairs) in enumerate(sides.items()):
                bars = [0] * 20
                for share, count in pairs.items():
                    bars[min(int(20 * share), 19)] += count
                starts = [5 * bar + 0.4 + 2.1 * place for bar in range(20)]
                panel.bar(starts, bars, 2.1, align="edge", color=(_OWN, _WRONG)[place], label=f"{side} chains")
            panel.set_xlabel(f"key {unit}, % of a chain")
            panel.set_xlim(0, 100)
            panel.grid(axis="y", alpha=0.3)
            panel.set_axisbelow(True)
            _without_frame(panel)
        panels[0].set_ylabel("pairs")
        panels[-1].legend(fontsize=9, frameon=False)


def plot_yields(steps: Sequence[tuple[str, int, int]], kept: int, path: Path) -> None:
    """Draw what each step of a build let through: a bar of what came in and on it one of what passed.

    Args:
        steps: Name, records in, records passed.
        kept: Records that were left in the end.
        path: PNG file to write.
    """
    bars = [*steps, ("in train", kept, kept)][::-1]  # the first on top
    most = max(1, *(records for _, records, _ in bars))
    with _drawn(path, 7.2, 0.9 + 0.42 * len(bars)) as figure:
        panel = figure.subplots()
        for place, (_, records, passed) in enumerate(bars):
            panel.barh(place, records, color=_OTHER, height=0.62)
            panel.barh(place, passed, color=_OWN, height=0.62)
            told = f"{passed} of {records}, {100 * passed / max(1, records):.1f} %" if place else f"{kept}"
            panel.text(records + 0.015 * most, place, told, va="center", fontsize=9, color=_INK)
        panel.set_yticks(range(len(bars)), [name for name, _, _ in bars])
        panel.set_xlim(0, 1.32 * most)  # room for the figures beside the bars
        panel.set_xticks([tick for tick in panel.get_xticks() if tick <= most])
        panel.set_xlabel("records in (grey) and passed (blue)")
        _without_frame(panel)


def _curve(panel: Axes, points: Sequence[tuple[int, float]], **style: Any) -> None:
    steps, values = [step for step, _ in points], [value for _, value in points]
    panel.plot(steps, values, marker="o" if len(points) == 1 else "", **style)


def _bar(panel: Axes, place: int, summary: Mapping[str, Any], colour: str) -> None:
    accuracy, error = 100 * summary["accuracy"], 100 * summary["standard_error"]
    panel.barh(place, accuracy, xerr=error, color=colour, height=0.62, error_kw={"ecolor": _INK, "capsize": 3})
    panel.text(accuracy + error + 2.5, place, f"{accuracy:.1f}", va="center", fontsize=9, color=_INK)


def _without_frame(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=9)


def _first_place(log: Sequence[Mapping[str, Any]]) -> Any:
    """Order of the terms as they are logged, which is that of the recipe's views."""
    order = {name: place for entry in reversed(log) for place, name in enumerate(entry)}
    return lambda name: order[name]


@contextmanager
def _drawn(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Give a figure of so many inches to draw on, and write it: the same whatever a machine's matplotlibrc says."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context("default", after_reset=True):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        # Without the name and version of the library: the same figures are the same bytes.
        figure.savefig(path, dpi=130, metadata={"Software": None})
