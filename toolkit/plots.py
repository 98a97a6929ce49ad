"""Pictures: a student's losses, term by term; its accuracy beside that of others; many recipes' accuracy in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OWN, _OTHER, _INK = "#2563a8", "#b8bfc8", "#333333"


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
    from matplotlib.figure import Figure

    stages = {stage: loss_terms(log) for stage, log in logs.items()}
    rows = max(len(terms) for terms in stages.values())
    figure = Figure(figsize=(4.6 * len(stages), 1.2 + 1.9 * max(rows, 1.4)), layout="constrained")
    for column, (stage, terms) in zip(figure.subfigures(1, len(stages), squeeze=False)[0], stages.items(), strict=True):
        column.suptitle(stage, fontsize=11, color=_INK)
        panels = column.subplots(len(terms), 1, sharex=True, squeeze=False)[:, 0]
        for panel, (term, points) in zip(panels, terms.items(), strict=True):
            _curve(panel, points, color=_OWN, linewidth=1.4)
            if held_out := [(entry["step"], entry[f"eval_{term}"]) for entry in logs[stage] if f"eval_{term}" in entry]:
                _curve(panel, held_out, color=_INK, linewidth=1.2, linestyle="--", label="held out")
                panel.legend(fontsize=8, frameon=False)
            panel.set_ylabel(term)
            panel.grid(alpha=0.3)
            _without_frame(panel)
        panels[-1].set_xlabel("optimizer step")
    _save(figure, path)


def plot_accuracy(scores: Mapping[str, Mapping[str, Mapping[str, Any]]], own: str, path: Path) -> None:
    """Draw accuracy with standard errors, a panel per set and a bar per student.

    Args:
        scores: Summaries by student, then by set.
        own: The student whose bars stand out.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    sets = list(scores[own])
    students = list(scores)[::-1]  # the first on top
    figure = Figure(figsize=(1.2 + 3.6 * len(sets), 1.0 + 0.42 * len(students)), layout="constrained")
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, sets, strict=True):
        for place, student in enumerate(students):
            summary = scores[student].get(name)
            if summary is not None:
                _bar(panel, place, summary, _OWN if student == own else _OTHER)
        panel.set_title(f"{name}, n = {scores[own][name]['n']}", fontsize=11, color=_INK)
        panel.set_yticks(range(len(students)), students)
        panel.set_xlim(0, 125)  # room for the figures beside the bars
        panel.set_xticks(range(0, 101, 25))
        panel.set_xlabel("accuracy in %, ± standard error")
        _without_frame(panel)
    _save(figure, path)


def plot_comparison(found: Mapping[str, Any], path: Path) -> None:
    """Draw the accuracy of several recipes with standard errors, a panel per set and a line per recipe.

    Each panel has an axis of its own, from 0, and a dashed line through the baseline.

    Args:
        found: A comparison (`toolkit.compare`).
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    sets, recipes = list(found["sets"]), list(found["recipes"])[::-1]  # the first on top
    figure = Figure(figsize=(1.6 + 3.6 * len(sets), 1.1 + 0.27 * len(recipes)), layout="constrained")
    for panel, name in zip(figure.subplots(1, len(sets), sharey=True, squeeze=False)[0], sets, strict=True):
        highest = 0.0
        for place, recipe in enumerate(recipes):
            accuracy = found["recipes"][recipe]["sets"][name]["accuracy"]
            mean, error = 100 * accuracy["mean"], 100 * accuracy["standard_error"]
            is_baseline = recipe == found["baseline"]
            if is_baseline:
                panel.axvline(mean, color=_OTHER, linewidth=1, linestyle="--", zorder=0)
            colour = _INK if is_baseline else _OWN
            panel.errorbar(mean, place, xerr=error, fmt="D" if is_baseline else "o", color=colour, ms=4.5, capsize=2.5)
            panel.annotate(
                f"{mean:.1f}", (mean + error, place), (6, 0), textcoords="offset points", va="center", fontsize=8
            )
            highest = max(highest, mean + error)
        panel.set_title(f"{name}, n = {found['sets'][name]['n']}", fontsize=11, color=_INK)
        panel.set_yticks(range(len(recipes)), recipes)
        panel.set_ylim(-0.7, len(recipes) - 0.3)
        room = max(1.0, 1.18 * highest)  # for the figures beside the points
        panel.set_xlim(0, room)
        panel.set_xticks([tick for tick in panel.get_xticks() if 0 <= tick <= min(room, 100)])
        panel.set_xlabel("accuracy in %, ± standard error")
        panel.grid(axis="y", alpha=0.25)
        _without_frame(panel)
    _save(figure, path)


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


def _save(figure: Any, path: Path) -> None:
    # Without the name and version of the library: the same figures are the same bytes.
    figure.savefig(path, dpi=130, metadata={"Software": None})
