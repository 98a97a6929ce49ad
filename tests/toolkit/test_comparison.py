"""What several recipes come to, by hand, and whether the pages say it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from toolkit.comparison import ArmRun, arms_compared
from toolkit.comparison_page import summary, write_pages

ENCODING = {
    "records": 9,
    "sequences": 8,
    "tokens": {"cot": 60, "answer": 20},
    "weighted": {"cot": 16, "answer": 4},
    "dropped": {"x": "too long"},
    "longest": 12,
}


def run(seed: int, solved: str, tokens: int = 10, samples: int = 1, **stage: Any) -> ArmRun:
    """Return a run that solved the questions marked `1`; nothing was read out of the others."""
    rows = [
        {
            "id": f"q{place}",
            "sample": sample,
            "solved": mark == "1",
            "parsed": mark == "1",
            "stopped": place > 0,
            "tokens": tokens,
        }
        for place, mark in enumerate(solved)
        for sample in range(samples)
    ]
    facts = {
        "stage": "imitate",
        "seconds": 60.0 + seed,
        "resumed_from_step": 0,
        "steps": 5,
        "epochs": 1.0,
        "tokens": 400,
        "device": "cpu",
        "encoding": ENCODING,
        "log": [{"loss": 1.0}],
    }
    return ArmRun(seed, f"digest-{seed}", [facts | stage, facts | {"stage": "more"}], {"in_domain": rows})


ARMS = {
    "std_cot": [run(0, "11000000"), run(1, "10100000"), run(2, "10000000")],
    "edit": [run(0, "01111111", 20), run(1, "00111111", 20), run(2, "00111110", 20)],
    "shuffled": [run(0, "10000000"), run(1, "11000000"), run(2, "11000000")],
}


@pytest.fixture
def compared() -> Any:
    return arms_compared(ARMS, "std_cot")


def test_accuracy_is_the_mean_of_the_seeds(compared: Any) -> None:
    told = compared["edit"]["sets"]["in_domain"]
    assert told["accuracy_by_seed"] == [7 / 8, 6 / 8, 5 / 8]
    assert told["accuracy"] == {
        "mean": 0.75,
        "standard_error": pytest.approx(0.125 / 3**0.5),
        "over": "seeds",
    }


def test_the_paired_test_is_on_questions_that_most_seeds_solved(compared: Any) -> None:
    """Most seeds of std_cot solved q0, of edit q2 to q7, of shuffled q0 and q1."""
    edit, shuffled = (compared[name]["sets"]["in_domain"]["against_baseline"] for name in ("edit", "shuffled"))
    p = 16 / 128  # 6 against 1: (1 + 7) / 2^7, twice
    for told in (edit, shuffled):
        del told["difference"]
    assert edit == {"only_this": 6, "only_baseline": 1, "p": p, "p_holm": 2 * p}
    assert shuffled == {"only_this": 1, "only_baseline": 0, "p": 1.0, "p_holm": 1.0}
    assert compared["std_cot"]["sets"]["in_domain"]["against_baseline"] is None


def test_a_difference_has_its_error_over_questions_whatever_the_seeds_say(compared: Any) -> None:
    """Of three seeds std_cot solved q0 to q2 3, 1 and 1 times, edit q1 to q7 1, 3, 3, 3, 3, 3 and 2 times."""
    told = compared["edit"]["sets"]["in_domain"]["against_baseline"]["difference"]
    thirds = [-3, 0, 2, 3, 3, 3, 3, 2]
    deviations = sum((one / 3 - 13 / 24) ** 2 for one in thirds)
    assert told == {
        "mean": pytest.approx(13 / 24),
        "standard_error": pytest.approx(deviations**0.5 / 8),
        "over": "questions",
    }


def test_pairs_change_sides_as_a_whole() -> None:
    """Three pairs, both questions of each solved by one recipe alone: as three questions, and not as six."""
    arms = {"std_cot": [paired(0, "00000011")], "edit": [paired(0, "11111111")]}
    test = arms_compared(arms, "std_cot")["edit"]["sets"]["in_domain"]["against_baseline"]
    assert (test["only_this"], test["p"]) == (6, 2 / 2**3)
    assert test["difference"]["standard_error"] == pytest.approx((0.75 * 0.25 / 4) ** 0.5)


def test_without_its_baseline_nothing_is_tested() -> None:
    told = arms_compared({"edit": ARMS["edit"]}, "std_cot")
    assert told["edit"]["sets"]["in_domain"]["against_baseline"] is None


def test_rates_and_lengths_are_means_over_all_completions(compared: Any) -> None:
    told = compared["std_cot"]["sets"]["in_domain"]
    assert told["parse_failure_rate"] == pytest.approx(1 - 5 / 24)
    assert told["truncated_rate"] == 1 / 8
    assert told["generated_tokens_per_question"] == 10


def test_all_samples_of_a_question_were_generated_for_it() -> None:
    told = arms_compared({"voting": [run(0, "1100", tokens=10, samples=5)]}, "voting")["voting"]["sets"]["in_domain"]
    assert told["generated_tokens_per_question"] == 50
    assert (told["accuracy"]["mean"], told["solved"]) == (0.5, ["1100"])


def test_training_adds_the_stages_and_averages_the_seeds(compared: Any) -> None:
    # A quarter of the tokens that the stages encoded carry loss, and so a quarter of those that were read.
    assert compared["edit"]["training"] == {"tokens": 800, "loss_tokens": 200, "steps": 10, "seconds": 2 * (60 + 1)}


def test_a_record_that_was_left_out_is_counted_and_not_listed(compared: Any) -> None:
    stage = compared["edit"]["runs"][0]["stages"][0]
    assert stage["encoding"]["dropped"] == 1
    assert "log" not in stage


# --- pages


def found(arms: dict[str, list[ArmRun]] = ARMS, tokens: int | None = None, **about: Any) -> dict[str, Any]:
    """Return a comparison as `toolkit.compare` puts it together; `about` changes what is told of `edit`."""

    def told(name: str) -> dict[str, Any]:
        return {
            "recipe": {"name": name, "version": 3, "paper": None, "title": None},
            "file": f"recipes/{name}.yaml",
            "digest": f"{name}-0123456789abcdef",
            "dataset": {"repo_id": "cots", "revision": "v1.0.0", "records": "r"},
            "student": {"name": "llama from random weights", "digest": "s"},
            "vocabulary": "v",
            "decode": None,
            "lengths": [{"stage": "imitate", "tokens_per_epoch": 80, "steps_per_epoch": 2, "epochs": 2.5}],
            "still_warming_up": [],
            "left_out_sets": [],
        }

    compared = arms_compared(arms, "std_cot")
    recipes = {name: told(name) | (about if name == "edit" else {}) | compared[name] for name in arms}
    return {
        "command": "distill compare recipes/std_cot.yaml",
        "baseline": "std_cot",
        "seeds": [one.seed for one in next(iter(arms.values()))],
        "tokens": tokens,
        "sets": {"in_domain": {"n": 8, "ids": [f"q{place}" for place in range(8)]}},
        "recipes": recipes,
        "failed": {},
        "versions": {"torch": "2"},
        "hardware": "2 CPU cores",
    }


def markdown(folder: Path, comparison: dict[str, Any]) -> str:
    write_pages(folder, comparison)
    return (folder / "compare.md").read_text()


def cells(page: str, heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading."""
    section = page.split(f"## {heading}")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_first_table_says_accuracy_and_cost(tmp_path: Path) -> None:
    header, _, baseline, edit, _ = cells(markdown(tmp_path, found()), "Accuracy and cost")
    assert header == ["recipe", "in_domain, %", "training tokens", "loss tokens", "steps", "seconds"]
    assert edit == ["edit", "75.0 ± 7.2", "800", "200", "10", "122"]
    assert baseline[0] == "**std_cot**"


def test_a_table_for_each_set_says_how_it_compares(tmp_path: Path) -> None:
    _, _, baseline, edit, _ = cells(markdown(tmp_path, found()), "in_domain, 8 questions")
    assert edit == ["edit", "75.0 ± 7.2", "+54.2 ± 23.5", "6", "1", "0.125", "0.250", "25.0", "12.5", "20.0"]
    assert baseline[2:7] == [""] * 5


@pytest.mark.parametrize(
    ("comparison", "said"),
    [
        (found(), "every recipe trains as long as it says itself: 800 to 800 tokens"),
        (found(tokens=2_000_000), "every recipe reads the same 2,000,000 tokens"),
        (found(), "± standard error over seeds, s / sqrt(3) with 2 in the denominator of s²"),
        (
            found({name: runs[:1] for name, runs in ARMS.items()}),
            "Accuracy ± standard error over questions: one seed says nothing of how far another seed would be.",
        ),
        (
            found(),
            "Both are over questions: for these very students, the chance that any p (Holm) below 0.05 is luck of",
        ),
        (found(), "They say nothing of other seeds: two trainings of one recipe that differ by their seed alone fall"),
        (found(), "Loss tokens: those of the training tokens that carry loss"),
        (
            found() | {"sets": {"in_domain": {"n": 8, "ids": [], "pairs": ["p0"] * 8}}},
            "On in_domain, whose questions are edits of one another, errors are over pairs.",
        ),
        (
            found() | {"sets": {"in_domain": {"n": 8, "ids": [], "pairs": ["p0"] * 8}}},
            "McNemar's. Questions that are edits of one another change sides together.",
        ),
        (found(vocabulary="w"), "different vocabularies"),
        (found(student={"name": "Qwen", "digest": "t"}), "train different students"),
        (
            found(dataset={"repo_id": "other", "revision": "v2.0.0", "records": "q"}),
            "different records: cots v1.0.0: std_cot, shuffled; other v2.0.0: edit.",
        ),
        (found(left_out_sets=["dates"]), "Sets that not all recipes have are left out: edit (dates)"),
        (found(still_warming_up=["imitate"]), "full learning rate is never reached: edit (imitate)"),
        (
            found(ARMS | {"edit": [run(seed, "01111111", resumed_from_step=3) for seed in range(3)]}),
            "seconds count from the last start only: edit.",
        ),
        (found() | {"failed": {"mixed": {"seed": 1, "error": "out of memory"}}}, "mixed, seed 1: out of memory"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_the_page_says_what_was_held_equal_and_what_was_not(comparison: Any, said: str, tmp_path: Path) -> None:
    assert said in " ".join(markdown(tmp_path, comparison).split())


def test_of_equal_recipes_nothing_is_said_against_comparing_them(tmp_path: Path) -> None:
    assert "Before you compare" not in markdown(tmp_path, found())


def paired(seed: int, solved: str) -> ArmRun:
    """Return a run on two sets: pairs of a question with yes and one with no, and the same as a set far off."""
    made = run(seed, solved)
    for place, row in enumerate(made.rows["in_domain"]):
        right, wrong = ("yes", "no") if place % 2 else ("no", "yes")
        answers = {"gold": right, "voted": right if row["solved"] else wrong, "kind": "boolean"}
        row.update(answers, pair=f"p{place // 2}")  # type: ignore[attr-defined]
    far = [row | {"solved": False} for row in made.rows["in_domain"]]
    return ArmRun(seed, made.digest, made.stages, {**made.rows, "far": far})


def test_gap_and_pairs_are_told_for_every_recipe_with_their_errors(tmp_path: Path) -> None:
    """Two seeds: both of four pairs right and none; accuracies 1 and 1/2, and 0 far off."""
    arms = {"std_cot": [paired(0, "11111111"), paired(1, "10101010")]}
    compared = arms_compared(arms, "std_cot", ("in_domain", ("far",)))["std_cot"]
    assert compared["gap"]["gap"] == {"mean": 0.75, "standard_error": pytest.approx(0.25), "over": "seeds"}
    assert compared["gap"]["macro"]["mean"] == 0.0
    pairs = {"pairs": 4, "consistency": {"mean": 0.5, "standard_error": pytest.approx(0.5), "over": "seeds"}}
    assert compared["sets"]["in_domain"]["pairs"] == pairs | {"flip_rate": pairs["consistency"]}

    shown = found(arms)
    shown["recipes"]["std_cot"] |= compared
    shown["sets"]["far"] = shown["sets"]["in_domain"]
    header, _, row = cells(markdown(tmp_path, shown), "Out of domain, and under small edits")
    assert header[:3] == ["recipe", "out of domain, macro %", "gap, points"]
    assert [cell.strip("*") for cell in row][:6] == [
        "std_cot",
        "0.0 ± 0.0",
        "75.0 ± 25.0",
        "50.0 ± 50.0",
        "50.0 ± 50.0",
        "4",
    ]


def test_without_gap_and_pairs_nothing_is_said_of_them(tmp_path: Path) -> None:
    assert "small edits" not in markdown(tmp_path, found())


def test_the_html_page_says_what_the_markdown_page_says(tmp_path: Path) -> None:
    page = markdown(tmp_path, found(vocabulary="w"))
    shown = re.sub(r"<style>.*?</style>|<[^>]+>", " ", (tmp_path / "compare.html").read_text(), flags=re.DOTALL)
    words = [re.sub(r"[*#`|-]|^!.*$", " ", line) for line in page.splitlines() if not line.startswith("![")]
    missing = [word for line in words for word in line.split() if word not in shown.replace("&#x27;", "'")]
    assert [word for word in missing if word not in ("&lt;", ":")] == []


def test_the_html_page_asks_the_network_for_nothing_and_runs_nothing(tmp_path: Path) -> None:
    comparison = found() | {"failed": {"bad": {"seed": 0, "error": "<script>alert(1)</script>"}}}
    write_pages(tmp_path, comparison)
    page = (tmp_path / "compare.html").read_text()
    sources = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)|url\(([^)]*)\)|@import\s+(\S+)""", page)
    assert [first[:22] for first, *_ in sources] == ["data:image/png;base64,"]
    assert "<script" not in page
    assert "<script" not in (tmp_path / "compare.md").read_text()


def test_the_data_is_what_was_found(tmp_path: Path) -> None:
    comparison = found()
    write_pages(tmp_path, comparison)
    assert json.loads((tmp_path / "compare.json").read_text()) == comparison


def test_the_same_comparison_is_the_same_bytes(tmp_path: Path) -> None:
    first, second = ({page.name: page.read_bytes() for page in write_pages(tmp_path / name, found())} for name in "ab")
    assert first == second
    assert sorted(first) == ["compare.html", "compare.json", "compare.md", "compare.png"]


def test_no_line_of_the_page_is_too_long_for_a_document(tmp_path: Path) -> None:
    lines = markdown(tmp_path, found(left_out_sets=[f"set_{n}" for n in range(60)])).splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_the_summary_is_the_first_table(tmp_path: Path) -> None:
    lines = summary(found()).splitlines()
    assert lines[0].split() == ["recipe", "in_domain,", "%", "training", "tokens", "loss", "tokens", "steps", "seconds"]
    assert lines[3].split() == ["edit", "75.0", "±", "7.2", "800", "200", "10", "122"]
