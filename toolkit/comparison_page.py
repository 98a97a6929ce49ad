"""A comparison as people read it: the same blocks as Markdown and as one self-contained HTML page, and the plain data.

Everything shown comes from the data of `toolkit.compare`; nothing is computed here but differences and percentages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.atomic_files import replace_text
from toolkit.page_blocks import Block, Code, Heading, Picture, Table, as_html, as_markdown
from toolkit.plots import plot_comparison
from toolkit.text_tables import aligned

Found = Mapping[str, Any]


def write_pages(folder: Path, found: Found) -> list[Path]:
    """Write `compare.md`, `compare.html`, `compare.json` and `compare.png` and return them.

    Args:
        folder: Made where it is missing.
        found: As `toolkit.compare` puts it together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "compare.png"
    plot_comparison(found, picture)
    shown = blocks(found, picture)
    pages = {
        "compare.html": as_html(_title(found), shown),
        "compare.md": f"# {_title(found)}\n\n" + "\n\n".join(as_markdown(block) for block in shown) + "\n",
        "compare.json": json.dumps(found, indent=1, ensure_ascii=False) + "\n",
    }
    for name, text in pages.items():
        replace_text(folder / name, text)
    return [*(folder / name for name in pages), picture]


def summary(found: Found) -> str:
    """Return the first table as aligned text."""
    table = _overview(found)
    return f"{aligned(table.header, table.rows)}\n{_error(found)}"


def blocks(found: Found, picture: Path) -> list[Block]:
    """Return what the page shows, from top to bottom."""
    names = list(found["sets"])
    shown: list[Block] = [_setting(found)]
    if notes := _notes(found):
        shown += [Heading("Before you compare"), notes]
    shown += [Heading("Accuracy and cost"), _overview(found), _error(found)]
    shown += [Picture(picture, "accuracy of every recipe on every set")]
    if robust := _robustness(found):
        shown += [Heading("Out of domain, and under small edits"), robust, _ROBUST]
    for name in names:
        shown += [Heading(f"{name}, {found['sets'][name]['n']} questions"), _set_table(found, name)]
    shown += [_columns(found)]
    if found["failed"]:
        failed = [f"{name}, seed {fault['seed']}: {fault['error']}" for name, fault in found["failed"].items()]
        shown += [Heading("Failed, and left out above"), failed]
    shown += [Heading("How it was made"), Code(found["command"]), _recipes(found), _surroundings(found)]
    return shown


def _title(found: Found) -> str:
    recipes, seeds = len(found["recipes"]), len(found["seeds"])
    return f"{recipes} recipe{'s' * (recipes > 1)} compared, {seeds} seed{'s' * (seeds > 1)} each"


def _setting(found: Found) -> list[str]:
    """Say what was held equal and what was not."""
    students = list(dict.fromkeys(recipe["student"]["name"] for recipe in found["recipes"].values()))
    said = [f"Student: {'; '.join(students)}."]
    told = ", ".join(str(seed) for seed in found["seeds"])
    said += [
        f"Seeds: {told}. A seed sets the initial weights and the order of training; records and questions are the same."
    ]
    if found["tokens"] is None:
        low, high = (_count(f(_tokens(found))) for f in (min, max))
        same = f"every recipe trains as long as it says itself: {low} to {high} tokens are read"
        said += [f"Training: {same}. Recipes that read more are not better for it alone."]
    else:
        said += [
            f"Training: every recipe reads the same {_count(found['tokens'])} tokens. Counted is every token of every "
            "sequence of all stages: prompt, target and end of sequence, whether it carries loss or not; padding is "
            "not. The stages of a recipe share them in the proportion in which the recipe itself would. Optimizer "
            "steps are whole, so what was read, shown below, is off by about a step for each stage."
        ]
    return [*said, f"Baseline of the tests: {found['baseline']}."]


def _tokens(found: Found) -> list[float]:
    return [recipe["training"]["tokens"] for recipe in found["recipes"].values()]


def _overview(found: Found) -> Table:
    header = ["recipe", *(f"{name}, %" for name in found["sets"]), "training tokens", "loss tokens", "steps", "seconds"]
    rows = [
        [
            name,
            *(_accuracy(on) for on in recipe["sets"].values()),
            *(_count(recipe["training"][key]) for key in ("tokens", "loss_tokens", "steps", "seconds")),
        ]
        for name, recipe in found["recipes"].items()
    ]
    return Table(header, rows, _baseline_row(found))


def _set_table(found: Found, name: str) -> Table:
    header = ["recipe", "accuracy, %", "difference", "only this", "only baseline", "p", "p (Holm)"]
    header += ["unparsed, %", "cut off, %", "tokens per answer"]
    rows = []
    for recipe_name, recipe in found["recipes"].items():
        on = recipe["sets"][name]
        test = on["against_baseline"]
        cells = ["", "", "", "", ""]
        if test:
            difference = test["difference"]
            told = f"{100 * difference['mean']:+.1f} ± {100 * difference['standard_error']:.1f}"
            counts = [str(test["only_this"]), str(test["only_baseline"])]
            cells = [told, *counts, _p(test["p"]), _p(test["p_holm"])]
        rates = [f"{100 * on[key]:.1f}" for key in ("parse_failure_rate", "truncated_rate")]
        rows.append([recipe_name, _accuracy(on), *cells, *rates, f"{on['generated_tokens_per_question']:.1f}"])
    return Table(header, rows, _baseline_row(found))


_ROBUST = [
    "out of domain, macro: mean of the accuracies on the sets out of domain. gap: accuracy in domain minus that, in "
    "points.",
    "both right: pairs, of questions that are edits of one another with different answers, with both answered right. "
    "flipped: pairs whose two answers differ, right or wrong.",
    "± standard error over seeds; with one seed over questions, over pairs where questions are edits of one another.",
]


def _robustness(found: Found) -> Table | None:
    """Return what is known of gap and pairs, None where no recipe has such sets."""
    recipes = found["recipes"].values()
    paired = [name for name in found["sets"] if all(recipe["sets"][name]["pairs"] for recipe in recipes)]
    with_gap = all(recipe["gap"] for recipe in recipes)
    header = ["recipe", *(["out of domain, macro %", "gap, points"] if with_gap else [])]
    header += [label for name in paired for label in (f"{name}: both right, %", f"{name}: flipped, %", "pairs")]
    rows = []
    for name, recipe in found["recipes"].items():
        row = [name, *(_share(recipe["gap"][key]) for key in (("macro", "gap") if with_gap else ()))]
        for on in paired:
            pairs = recipe["sets"][on]["pairs"]
            row += [_share(pairs["consistency"]), _share(pairs["flip_rate"]), str(pairs["pairs"])]
        rows.append(row)
    return Table(header, rows, _baseline_row(found)) if len(header) > 1 else None


def _baseline_row(found: Found) -> frozenset[int]:
    return frozenset(place for place, name in enumerate(found["recipes"]) if name == found["baseline"])


def _accuracy(on: Mapping[str, Any]) -> str:
    return _share(on["accuracy"])


def _share(found: Mapping[str, Any]) -> str:
    return f"{100 * found['mean']:.1f} ± {100 * found['standard_error']:.1f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _error(found: Found) -> str:
    seeds = len(found["seeds"])
    training = (
        " Loss tokens: those of the training tokens that carry loss, by their share of what a stage encoded. Tokens, "
        "steps and seconds of training: all stages together"
    )
    if seeds == 1:
        return (
            "Accuracy ± standard error over questions: one seed says nothing of how far another seed would be."
            f"{_clustered(found)}{training}."
        )
    return (
        f"Accuracy: mean over {seeds} seeds ± standard error over seeds, s / sqrt({seeds}) with {seeds - 1} in the "
        "denominator of s². It says how far other seeds would be on the same questions, not on other questions."
        f"{training}, mean over seeds."
    )


def _clustered(found: Found) -> str:
    """Name the sets whose questions are edits of one another; nothing where there are none."""
    paired = ", ".join(name for name, about in found["sets"].items() if about.get("pairs"))
    return f" On {paired}, whose questions are edits of one another, errors are over pairs." if paired else ""


def _columns(found: Found) -> list[str]:
    seeds = len(found["seeds"])
    counted = "solved" if seeds == 1 else f"solved in more than half of the {seeds} seeds"
    swapped = " Questions that are edits of one another change sides together." if _clustered(found) else ""
    mean = "" if seeds == 1 else ", each at its mean over seeds"
    return [
        "difference: of the accuracies, in points, against the baseline ± its standard error over questions"
        + mean
        + "."
        + _clustered(found),
        f"only this, only baseline: questions that one of the two {counted} and the other did not.",
        f"p: exact two-sided test on these two counts, McNemar's.{swapped} p (Holm): corrected for all recipes "
        "tested on this set. Both are over questions: for these very students, the chance that any p (Holm) below 0.05 "
        "is luck of the questions is less than 5 %. They say nothing of other seeds: two trainings of one recipe that "
        "differ by their seed alone fall below 0.05 more often than that.",
        "unparsed: completions in which no answer was found, which count as wrong. cut off: completions that had not "
        "ended at the longest length allowed. tokens per answer: generated for one question, all samples together.",
    ]


def _notes(found: Found) -> list[str]:
    """Say where the recipes differ in what a comparison would hold equal."""
    recipes = found["recipes"]
    notes = []
    if len({recipe["student"]["digest"] for recipe in recipes.values()}) > 1:
        notes.append("The recipes train different students (`student` in them differs).")
    if len({recipe["dataset"]["records"] for recipe in recipes.values()}) > 1:
        data = "; ".join(
            _grouped(found, lambda recipe: f"{recipe['dataset']['repo_id']} {recipe['dataset']['revision']}")
        )
        notes.append(f"The recipes train on different records: {data}.")
    if len({recipe["vocabulary"] for recipe in recipes.values()}) > 1:
        notes.append(
            "The students read through different vocabularies: a token is not the same amount of text in all of them. "
            "A tokenizer that is made for a student is trained on its recipe's dataset."
        )
    if left := [f"{name} ({', '.join(r['left_out_sets'])})" for name, r in recipes.items() if r["left_out_sets"]]:
        notes.append(f"Sets that not all recipes have are left out: {'; '.join(left)}.")
    if late := [f"{name} ({', '.join(r['still_warming_up'])})" for name, r in recipes.items() if r["still_warming_up"]]:
        notes.append(
            f"`warmup_steps` is no less than all steps, full learning rate is never reached: {'; '.join(late)}."
        )
    interrupted = [
        name
        for name, recipe in recipes.items()
        if any(stage["resumed_from_step"] for run in recipe["runs"] for stage in run["stages"])
    ]
    if interrupted:
        notes.append(f"Training was interrupted, and seconds count from the last start only: {', '.join(interrupted)}.")
    return notes


def _grouped(found: Found, key: Any) -> list[str]:
    """Return `what: recipes` for each value that `key` has on them."""
    groups: dict[str, list[str]] = {}
    for name, recipe in found["recipes"].items():
        groups.setdefault(key(recipe), []).append(name)
    return [f"{what}: {', '.join(names)}" for what, names in groups.items()]


def _recipes(found: Found) -> Table:
    rows = [
        [
            name,
            recipe["file"],
            str(recipe["recipe"]["version"]),
            recipe["digest"][:12],
            ", ".join(f"{length['stage']} {length['epochs']:.2f}" for length in recipe["lengths"]),
        ]
        for name, recipe in found["recipes"].items()
    ]
    return Table(["recipe", "file", "version", "digest", "epochs"], rows, texts=5)


def _surroundings(found: Found) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"{found['hardware']}. {versions}. All figures and every question's outcome are in `compare.json`."
